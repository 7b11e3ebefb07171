"""The BTF encoder: what was decoded comes out the same, equal types once, and random types survive the way there and back."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from same_types import find_difference

from sonde.debuginfo.btf import Btf
from sonde.debuginfo.btfwrite import EXTERN, BtfWriter, encode
from sonde.debuginfo.ctype import (
    VOID,
    Array,
    CType,
    Enum,
    Float,
    Forward,
    FuncProto,
    Int,
    Member,
    Param,
    Pointer,
    Qualified,
    Struct,
    Typedef,
)
from sonde.errors import FormatError

INT, LONG, CHAR = Int("int", 4, True), Int("long", 8, True), Int("char", 1, True, "char")


def again(ctype: CType) -> tuple[CType, Btf]:
    data, (ident,) = encode([ctype])
    btf = Btf.from_bytes(data)
    return btf.type_by_id(ident), btf


def node(name: str = "node") -> Struct:
    """A struct that refers to itself; a new one each time."""
    made = Struct(
        "struct", name, 16, lambda: (Member("next", Pointer(lambda: made), 0), Member("n", Int("int", 4, True), 64))
    )
    return made


@pytest.mark.parametrize(
    "ctype",
    [
        INT, CHAR, Int("_Bool", 1, False, "bool"), Int("unsigned __int128", 16, False), Float("double", 8),
        Pointer(VOID), Pointer(INT, 8, "user"), Array(Array(INT, 3), 2), Qualified("const", Qualified("volatile", INT)),
        Qualified("rcu", INT), Typedef("u32", INT), Forward("struct", "later"), Forward("union", "later"),
        Enum("e", 4, False, {"A": 0, "B": 0xFFFFFFFF}), Enum("s", 4, True, {"A": -1}),
        Enum("wide", 8, False, {"A": 1 << 40}), Enum("wide", 8, True, {"A": -1 << 40}),
        FuncProto(VOID, (Param("a", INT), Param("", Pointer(CHAR)))), FuncProto(INT, (Param("format", INT),), True),
        FuncProto(INT, ()), Struct("union", "", 4, (Member("a", INT, 0), Member("b", CHAR, 0))),
        Struct("struct", "bits", 4, (Member("a", INT, 0, 3), Member("b", INT, 3, 1), Member("c", CHAR, 8))),
        Struct("struct", "empty", 0, ()), node(),
    ],
    ids=repr,
)  # fmt: skip
def test_there_and_back(ctype: CType) -> None:
    found, _ = again(ctype)
    assert find_difference(ctype, found) == ""


def test_equal_types_are_written_once() -> None:
    pair = Struct("struct", "pair", 32, (Member("a", node(), 0), Member("b", node(), 128)))
    found, btf = again(pair)
    assert isinstance(found, Struct) and found.members[0].ctype is found.members[1].ctype
    assert sorted(btf.iter_names(("struct",))) == [("struct", "node"), ("struct", "pair")]
    assert btf.count_types() == 4  # pair, node, pointer, int


def test_types_that_differ_far_away_stay_apart() -> None:
    def chain(last: CType) -> CType:
        for _ in range(5):
            last = Pointer(last)
        return Struct("struct", "same", 8, (Member("p", last, 0),))

    data, idents = encode([chain(INT), chain(LONG), chain(INT)])
    assert idents[0] == idents[2] != idents[1]
    assert find_difference(chain(LONG), Btf.from_bytes(data).type_by_id(idents[1])) == ""


def test_functions_variables_sections_and_tags() -> None:
    writer = BtfWriter()
    proto = FuncProto(INT, (Param("ctx", Pointer(VOID)),))
    function = writer.add_function("run", proto, 1)
    extern = writer.add_function("bpf_rdonly_cast", proto, EXTERN)
    total = writer.add_variable("total", LONG)
    section = writer.add_section(".data", 8, [(total, 0, 8)])
    kernel = writer.add_section(".ksyms", 0, [(extern, 0, 0)])
    tag = writer.add_tag("kfunc", function)
    btf = Btf.from_bytes(writer.build())
    kinds = [btf.kind_of(writer.ident(n)) for n in (function, total, section, kernel, tag)]
    assert kinds == ["func", "var", "datasec", "datasec", "decl_tag"]
    assert find_difference(proto, btf.type_by_id(writer.ident(function))) == ""
    assert [(name, repr(t)) for name, t in btf.iter_section_vars(".data")] == [("total", "<Int long>")]
    assert [name for name, _ in btf.iter_section_vars(".ksyms")] == ["bpf_rdonly_cast"]


def test_what_btf_cannot_say_is_refused() -> None:
    many = Struct("struct", "many", 4, tuple(Member(f"m{i}", CHAR, 0) for i in range(0x10000)))
    with pytest.raises(FormatError, match="65536 members"):
        encode([many])
    far = Struct("struct", "far", 1 << 22, (Member("bit", INT, 1 << 24, 1),))
    with pytest.raises(FormatError, match="bit-field"):
        encode([far])


NAMES = st.sampled_from(["a", "b", "task", "é", ""])
LEAVES: st.SearchStrategy[CType] = st.sampled_from([INT, LONG, CHAR, VOID, Float("double", 8), Forward("struct", "x")])


def members(draw: st.DrawFn, inner: st.SearchStrategy[CType]) -> tuple[Member, ...]:
    bits = draw(st.booleans())
    return tuple(
        Member(draw(NAMES), draw(inner), draw(st.integers(0, 1 << 20)), draw(st.integers(0, 64)) if bits else 0)
        for _ in range(draw(st.integers(0, 4)))
    )


@st.composite
def structs(draw: st.DrawFn, inner: st.SearchStrategy[CType]) -> CType:
    return Struct(
        draw(st.sampled_from(["struct", "union"])), draw(NAMES), draw(st.integers(0, 99)), members(draw, inner)
    )


@st.composite
def protos(draw: st.DrawFn, inner: st.SearchStrategy[CType]) -> CType:
    some = st.lists(st.tuples(st.sampled_from(["x", "y"]), inner), max_size=3)
    return FuncProto(draw(inner), tuple(Param(*p) for p in draw(some)), draw(st.booleans()))


def deeper(inner: st.SearchStrategy[CType]) -> st.SearchStrategy[CType]:
    return st.one_of(
        st.builds(Pointer, inner, st.just(8), st.sampled_from(["", "user"])),
        st.builds(Array, inner, st.integers(0, 1 << 31)),
        st.builds(Qualified, st.sampled_from(["const", "volatile", "restrict"]), inner),
        st.builds(Typedef, st.sampled_from(["t", "u"]), inner),
        structs(inner),
        protos(inner),
    )


@given(st.recursive(LEAVES, deeper, max_leaves=12))
@settings(max_examples=100, deadline=None)
def test_random_types(ctype: CType) -> None:
    found, btf = again(ctype)
    assert find_difference(ctype, found) == ""
    assert btf.count_types() > 0 or ctype is VOID
    assert len(encode([found])[0]) == len(encode([ctype])[0])  # nothing is written twice, whatever it was made of

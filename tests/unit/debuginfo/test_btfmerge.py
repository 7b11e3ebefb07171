"""Types of several sources in one BTF: declarations find their definitions, equal types are one, and split BTF leaves to its base what that has."""

from __future__ import annotations

import pytest
from btf_builder import BtfBuilder
from hypothesis import given, settings
from hypothesis import strategies as st

from sonde.debuginfo.btf import KINDS, Btf
from sonde.debuginfo.btfrecords import add_btf
from sonde.debuginfo.btfwrite import BtfWriter
from sonde.debuginfo.ctype import Forward, Member, Pointer, Struct, declare
from sonde.errors import FormatError


def merge(*parts: BtfBuilder, base: Btf | None = None) -> Btf:
    writer = BtfWriter(base)
    for part in parts:
        add_btf(writer, Btf.from_bytes(part.build(), base))
    return Btf.from_bytes(writer.build(), base)


def kinds(btf: Btf) -> dict[str, int]:
    found: dict[str, int] = {}
    for ident in range(btf.first_id, btf.count_types() + 1):
        kind = btf.kind_of(ident)
        found[kind] = found.get(kind, 0) + 1
    return found


def test_a_declaration_is_its_definition() -> None:
    one, two = BtfBuilder(), BtfBuilder()
    number = one.int("int", 4, True)
    behind = one.add("fwd", "far", 0)
    one.add("struct", "near", 16, one.string("far"), one.ptr(behind), 0, one.string("x"), number, 64, vlen=2)
    number = two.int("int", 4, True)
    near = two.ptr(4)
    far = two.add("struct", "far", 8, two.string("back"), near, 0, vlen=1)
    two.add("struct", "near", 16, two.string("far"), far + 2, 0, two.string("x"), number, 64, vlen=2)
    two.ptr(far)
    made = merge(one, two)
    assert kinds(made) == {"int": 1, "ptr": 2, "struct": 2}
    near_type = made.get_struct("near")
    assert near_type is not None and isinstance(near_type.members[0].ctype, Pointer)
    assert near_type.members[0].ctype.target is made.get_struct("far")


def test_a_declaration_of_two_definitions_is_neither() -> None:
    parts = [BtfBuilder(), BtfBuilder(), BtfBuilder()]
    parts[0].ptr(2)
    parts[0].add("fwd", "far", 0)
    for size, part in zip((4, 8), parts[1:]):
        part.add("struct", "far", size)
    assert kinds(merge(*parts)) == {"ptr": 1, "fwd": 1, "struct": 2}


def test_declarations_of_unions_and_enumerations() -> None:
    one, two = BtfBuilder(), BtfBuilder()
    one.add("fwd", "far", 0, flag=True)
    one.add("enum", "level", 4)
    two.add("struct", "far", 8)  # another kind
    two.add("union", "far", 8)
    two.add("enum64", "level", 8, two.string("HIGH"), 0, 1, vlen=1)
    made = merge(one, two)
    assert kinds(made) == {"struct": 1, "union": 1, "enum64": 1}


def test_functions_and_tags_are_merged_and_variables_are_not() -> None:
    def part() -> BtfBuilder:
        made = BtfBuilder()
        number = made.int("int", 4, True)
        proto = made.add("func_proto", "", number, made.string("x"), number, vlen=1)
        function = made.add("func", "twice", proto)
        made.add("decl_tag", "hot", function, 0xFFFFFFFF)
        made.add("decl_tag", "arg", function, 0)
        made.ptr(made.add("type_tag", "user", number))
        made.add("enum64", "wide", 8, made.string("A"), 1, 2, vlen=1, flag=True)
        made.add("var", "count", number, 0)
        made.add("float", "double", 8)
        return made

    assert kinds(merge(part(), part())) == {
        "int": 1, "func_proto": 1, "func": 1, "decl_tag": 2, "ptr": 1, "type_tag": 1, "enum64": 1, "var": 2, "float": 1,
    }  # fmt: skip


def test_types_of_a_front_end_meet_their_declarations() -> None:
    far = Struct("struct", "far", 4, ())
    writer = BtfWriter()
    near = writer.add(Struct("struct", "near", 8, (Member("p", Pointer(Forward("struct", "far")), 0),)))
    there = writer.add(far)
    made = Btf.from_bytes(writer.build())
    found = made.type_by_id(writer.ident(near))
    assert isinstance(found, Struct) and isinstance(found.members[0].ctype, Pointer)
    assert found.members[0].ctype.target is made.type_by_id(writer.ident(there))


# Split BTF --------------------------------------------------------------------------------------------------------


def make_base() -> Btf:
    base = BtfBuilder()
    number = base.int("int", 4, True)
    word = base.add("typedef", "word", number)
    base.add("struct", "list", 16, base.string("next"), 4, 0, base.string("value"), word, 64, vlen=2)
    base.ptr(3)
    base.array(number, 4)
    base.add("func_proto", "", number, base.string("at"), 4, vlen=1)
    base.add("func", "walk", 6)
    base.add("decl_tag", "kfunc", 7, 0xFFFFFFFF)
    return Btf.from_bytes(base.build())


def make_copy(extra: bool = True) -> BtfBuilder:
    """The same types in another order, and more."""
    made = BtfBuilder()
    made.ptr(2)
    made.add("struct", "list", 16, made.string("next"), 1, 0, made.string("value"), 3, 64, vlen=2)
    made.add("typedef", "word", 4)
    made.int("int", 4, True)
    made.array(4, 4, 4)
    made.add("func_proto", "", 4, made.string("at"), 1, vlen=1)
    made.add("func", "walk", 6)
    made.add("decl_tag", "kfunc", 7, 0xFFFFFFFF)
    if extra:
        made.add("struct", "more", 24, made.string("list"), 2, 0, made.string("word"), 3, 128, vlen=2)
        made.add("func", "walk_more", 6)
        made.add("fwd", "list", 0)
    return made


def test_split_types_of_the_base_are_not_written_again() -> None:
    base = make_base()
    writer = BtfWriter(base)
    nodes = add_btf(writer, Btf.from_bytes(make_copy().build()))
    data = writer.build()
    made = Btf.from_bytes(data, base)
    assert kinds(made) == {"struct": 1, "func": 1}
    more = made.get_struct("more")
    assert more is not None and more.members[0].ctype is base.get_struct("list")
    assert writer.ident(nodes[2]) == base.get_type_id("list", "struct") == writer.ident(nodes[11])
    assert b"walk_more" in data and b"value" not in data
    assert base.get_func_id("walk") == writer.ident(nodes[7])


def test_split_types_that_differ_deep_down_are_written() -> None:
    base = make_base()
    other = BtfBuilder()
    other.ptr(2)
    other.add("struct", "list", 16, other.string("next"), 1, 0, other.string("value"), 3, 64, vlen=2)
    other.add("typedef", "word", 4)
    other.int("long", 4, True)
    writer = BtfWriter(base)
    add_btf(writer, Btf.from_bytes(other.build()))
    made = Btf.from_bytes(writer.build(), base)
    assert kinds(made) == {"ptr": 1, "struct": 1, "typedef": 1, "int": 1}


def test_split_btf_is_split_again() -> None:
    """Split BTF read with its base, and written again on the same base, is the same."""
    base = make_base()
    writer = BtfWriter(base)
    add_btf(writer, Btf.from_bytes(make_copy().build()))
    first = Btf.from_bytes(writer.build(), base)
    again = BtfWriter(base)
    add_btf(again, first)
    second = Btf.from_bytes(again.build(), base)
    assert kinds(second) == kinds(first)
    texts = [[declare(b.type_by_id(i)) for i in range(b.first_id, b.count_types() + 1)] for b in (first, second)]
    assert texts[0] == texts[1]


def test_split_btf_without_its_base_is_refused() -> None:
    base = make_base()
    writer = BtfWriter(base)
    add_btf(writer, Btf.from_bytes(make_copy().build()))
    split = Btf.from_bytes(writer.build(), base)
    with pytest.raises(FormatError, match="needs its base"):
        add_btf(BtfWriter(), split)


WORDS = st.integers(0, 12)


@given(st.lists(st.tuples(st.integers(0, 19), WORDS, WORDS, st.lists(WORDS, max_size=6), st.booleans()), max_size=10))
@settings(max_examples=150, deadline=None)
def test_any_records_end(records: list[tuple[int, int, int, list[int], bool]]) -> None:
    """Records with any references, circles and nonsense among them, are merged with themselves and split, or refused."""
    builder = BtfBuilder()
    fixed = {"int": 1, "array": 3, "var": 1, "decl_tag": 1}
    each = {"struct": 3, "union": 3, "enum": 2, "enum64": 3, "func_proto": 2, "datasec": 3}
    for kind, name, third, words, flag in records:
        label = KINDS[kind]
        if label == "void":
            continue
        count = fixed.get(label, 0) + len(words) // each.get(label, 1) * each.get(label, 0)
        padded = (words + [0] * 8)[:count]
        vlen = count // each[label] if label in each else 0
        builder.add(label, ["", "a", "b"][name % 3], third, *padded, vlen=vlen, flag=flag)
    data = builder.build()
    try:
        once = merge(builder)
        twice = merge(builder, builder)
    except FormatError:
        return
    plain = {kind: n for kind, n in kinds(once).items() if kind not in ("var", "datasec", "decl_tag")}
    assert sum(plain.values()) <= sum(kinds(Btf.from_bytes(data)).values())
    assert sum(kinds(twice).values()) >= sum(kinds(once).values())
    split = merge(builder, base=once)
    assert sum(kinds(split).values()) <= sum(kinds(once).values())

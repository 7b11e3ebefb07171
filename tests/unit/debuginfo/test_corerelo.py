"""CO-RE relocations: each kind and each rule of libbpf on types made by hand, and damaged types and paths."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from btf_builder import BtfBuilder
from hypothesis import given
from hypothesis import strategies as st

from sonde.debuginfo.btf import Btf
from sonde.debuginfo.corerelo import KINDS, Answer, explain, local_answer, read_access, resolve, show
from sonde.debuginfo.ctype import essential_name
from sonde.errors import FormatError
from sonde.spec.object import CoreAccess

Build = Callable[[BtfBuilder], None]


def made(build: Build) -> Btf:
    b = BtfBuilder()
    build(b)
    return Btf.from_bytes(b.build())


def program_types(b: BtfBuilder) -> None:
    """What the program was compiled with."""
    int_, uint, ulong = b.int("int", 4, True), b.int("unsigned int", 4), b.int("unsigned long", 8)
    char = b.int("char", 1, True)
    point = b.struct("point", 8, [("x", int_, 0), ("y", int_, 32)])
    state = b.enum("state", {"IDLE": 0, "BUSY": 1})
    inner = b.struct("", 8, [("deep", int_, 0), ("other", uint, 32)])
    b.struct(
        "task",
        128,
        [
            ("pid", int_, 0),
            ("flags", uint, 32),
            ("mm", b.ptr(point), 64),
            ("comm", b.array(char, 16), 128),
            ("points", b.array(point, 4), 256),
            ("", inner, 512),
            ("state", state, 576),
            ("count", ulong, 640),
            ("grid", b.array(b.array(int_, 3), 2), 704),
            ("tail", b.array(int_, 0), 896),
        ],
    )
    b.typedef("task_t", b.qualified("const", b.typedef("inner_task_t", 9)))


def kernel_types(b: BtfBuilder) -> None:
    """The same on a kernel that lays them out in another way."""
    int_, uint, u16 = b.int("int", 4, True), b.int("unsigned int", 4), b.int("unsigned short", 2)
    char = b.int("char", 1, True)
    point = b.struct("point", 16, [("y", int_, 0), ("x", int_, 96)])
    state = b.enum("state", {"NEW": 0, "IDLE": 4, "BUSY": 7})
    innermost = b.struct("", 4, [("deep", b.typedef("s32", int_), 0)])
    union = b.struct("", 4, [("", innermost, 0), ("shallow", uint, 0)], union=True)
    b.struct(
        "task",
        256,
        [
            ("flags", u16, 16),
            ("mm", b.qualified("const", b.ptr(char)), 64),
            ("pid", b.qualified("volatile", int_), 128),
            ("comm", b.array(char, 32), 192),
            ("points", b.array(point, 3), 512),
            ("", union, 960),
            ("state", state, 1024),
            ("count", uint, 1056),
            ("grid", b.array(b.array(int_, 4), 2), 1088),
            ("tail", b.array(int_, 0), 1408),
        ],
    )


OWN, KERNEL = made(program_types), made(kernel_types)


def ask(
    kind: str, name: str, *path: str | int, index: int = 0, own: Btf | None = OWN, target: Btf = KERNEL
) -> int | None:
    return answer(kind, name, *path, index=index, own=own, target=target).value


def answer(
    kind: str, name: str, *path: str | int, index: int = 0, own: Btf | None = OWN, target: Btf = KERNEL
) -> Answer:
    local = own.get_type(name) if own is not None else None
    assert own is None or local is not None
    return resolve(CoreAccess(kind, name, path, 0, index, local), target)


@pytest.mark.parametrize("own", [OWN, None], ids=["with the program's types", "by names alone"])
@pytest.mark.parametrize(
    ("path", "offset", "size"),
    [
        (("pid",), 16, 4),
        (("flags",), 2, 2),
        (("mm",), 8, 8),
        (("comm",), 24, 32),
        (("comm", 15), 39, 1),
        (("points", 2), 96, 16),
        (("points", 2, "x"), 108, 4),
        (("deep",), 120, 4),  # in a struct in a union, both without names
        (("grid", 1, 2), 160, 4),
        (("tail", 5), 196, 4),  # a flexible array has no bounds
        ((), 0, 256),
    ],
)
def test_fields(own: Btf | None, path: tuple[str | int, ...], offset: int, size: int) -> None:
    assert ask("field_byte_offset", "struct task", *path, own=own) == offset
    assert ask("field_byte_size", "struct task", *path, own=own) == size
    assert ask("field_exists", "struct task", *path, own=own) == 1


def test_an_index_counts_structs_of_the_targets_size() -> None:
    assert ask("field_byte_offset", "struct point", "x", index=3) == 3 * 16 + 12
    assert ask("field_byte_offset", "struct point", index=3) == 48


@pytest.mark.parametrize(
    ("path", "why", "close"),
    [
        (("other",), "struct task has no member other", []),
        (("points", 3), "the array points has 3 elements, none number 3", []),
    ],
)
def test_what_does_not_fit_has_no_answer_but_does_not_exist(
    path: tuple[str | int, ...], why: str, close: list[str]
) -> None:
    assert ask("field_exists", "struct task", *path) == 0
    for kind in KINDS[:2] + KINDS[3:6]:
        assert ask(kind, "struct task", *path) is None
    access = CoreAccess("field_byte_offset", "struct task", path, 0, 0, OWN.get_type("struct task"))
    assert explain(access, KERNEL) == (why, close)


def test_close_names_are_offered() -> None:
    member = CoreAccess("field_byte_offset", "struct task", ("flagz",), 0)
    assert explain(member, KERNEL) == ("struct task has no member flagz", ["flags"])
    missing = CoreAccess("field_byte_offset", "struct tasks", ("flags",), 0)
    assert explain(missing, KERNEL) == ("there is no struct tasks", ["task"])
    enumerator = CoreAccess("enumval_value", "enum state", ("IDLER",), 0)
    assert explain(enumerator, KERNEL) == ("enum state has no IDLER", ["IDLE"])
    assert explain(CoreAccess("field_byte_offset", "struct task", ("flags",), 0), KERNEL) == ("", [])


@pytest.mark.parametrize(
    ("own", "there", "compatible"),
    [
        ("int", "unsigned long", True),
        ("int", "pointer", False),
        ("int", "enum a", False),
        ("pointer", "other pointer", True),
        ("pointer", "int", False),
        ("struct", "union", True),
        ("struct", "int", False),
        ("array of int", "longer array of unsigned long", True),
        ("array of int", "array of pointers", False),
        ("array of int", "int", False),
        ("enum a", "enum a of 64 bits", True),
        ("enum a", "enum a flavour", True),
        ("enum a", "enum b", False),
        ("enum a", "enum without a name", True),
        ("float", "double", True),
        ("float", "int", False),
        ("typedef of const int", "int", True),
    ],
)
def test_kinds_of_members(own: str, there: str, compatible: bool) -> None:
    def build(b: BtfBuilder, wanted: str) -> None:
        int_, ulong = b.int("int", 4, True), b.int("unsigned long", 8)
        types = {
            "int": int_,
            "unsigned long": ulong,
            "pointer": b.ptr(int_),
            "other pointer": b.ptr(0),
            "struct": b.struct("s", 4, [("x", int_, 0)]),
            "union": b.struct("u", 8, [("y", ulong, 0)], union=True),
            "array of int": b.array(int_, 2),
            "longer array of unsigned long": b.array(ulong, 3),
            "enum a": b.enum("a", {"A": 1}),
            "enum a flavour": b.enum("a___new", {"A": 1}),
            "enum a of 64 bits": b.enum64("a", {"A": 1}),
            "enum b": b.enum("b", {"B": 1}),
            "enum without a name": b.enum("", {"C": 1}),
            "float": b.float("float", 4),
            "double": b.float("double", 8),
        }
        types["array of pointers"] = b.array(types["pointer"], 2)
        types["typedef of const int"] = b.typedef("t", b.qualified("const", int_))
        b.struct("holder", 64, [("pad", ulong, 0), ("m", types[wanted], 64)])

    local, target = made(lambda b: build(b, own)), made(lambda b: build(b, there))
    assert ask("field_byte_offset", "struct holder", "m", own=local, target=target) == (8 if compatible else None)
    assert ask("field_exists", "struct holder", "m", own=local, target=target) == compatible


# Bit-fields -------------------------------------------------------------------------------------------------------


def bits_target(b: BtfBuilder) -> None:
    int_, uint, byte = b.int("int", 4, True), b.int("unsigned int", 4), b.int("unsigned char", 1)
    ulong = b.int("unsigned long", 8)
    b.struct(
        "bits",
        24,
        [
            ("plain", int_, 0, 0),
            ("a", uint, 32, 3),
            ("b", int_, 35, 5),
            ("c", byte, 44, 6),  # over the boundary of its own bytes
            ("d", uint, 88, 24),  # packed: over that of its words
            ("e", ulong, 128, 33),
        ],
        flag=True,
    )


BITS = made(bits_target)


@pytest.mark.parametrize(
    ("name", "offset", "size", "signed", "lshift", "rshift"),
    [
        ("plain", 0, 4, 1, 32, 32),
        ("a", 4, 4, 0, 61, 61),
        ("b", 4, 4, 1, 56, 59),
        ("c", 4, 4, 0, 46, 58),
        ("d", 8, 8, 0, 16, 40),
        ("e", 16, 8, 0, 31, 31),
    ],
)
def test_bit_fields(name: str, offset: int, size: int, signed: int, lshift: int, rshift: int) -> None:
    got = [
        ask(f"field_{kind}", "struct bits", name, own=None, target=BITS)
        for kind in ("byte_offset", "byte_size", "signed", "lshift_u64", "rshift_u64")
    ]
    assert got == [offset, size, signed, lshift, rshift]


def test_shifts_give_the_value() -> None:
    """What the answers are for: load, shift left, shift right."""
    whole = int.from_bytes(bytes(range(1, 25)), "little")
    for name, start, width in (("a", 32, 3), ("c", 44, 6), ("d", 88, 24), ("e", 128, 33)):
        offset, size, left, right = (
            ask(f"field_{kind}", "struct bits", name, own=None, target=BITS)
            for kind in ("byte_offset", "byte_size", "lshift_u64", "rshift_u64")
        )
        assert offset is not None and size is not None and left is not None and right is not None
        loaded = whole >> 8 * offset & (1 << 8 * size) - 1
        assert (loaded << left & (1 << 64) - 1) >> right == whole >> start & (1 << width) - 1


def test_a_bit_field_of_the_old_encoding() -> None:
    def build(b: BtfBuilder) -> None:
        b.struct("old", 4, [("x", b.int("unsigned int", 4, bits=3, shift=2), 0)])

    target = made(build)
    assert ask("field_lshift_u64", "struct old", "x", own=None, target=target) == 64 - 5
    assert ask("field_rshift_u64", "struct old", "x", own=None, target=target) == 61


def test_what_the_instruction_held_is_checked_except_for_bit_fields() -> None:
    def build(b: BtfBuilder) -> None:
        b.struct("bits", 4, [("a", b.int("unsigned int", 4), 0, 7), ("plain", 1, 32, 0)], flag=True)

    own = made(build)
    checked = {kind: answer(kind, "struct bits", "a", own=own, target=BITS).checked for kind in KINDS[:6]}
    assert checked == {
        "field_byte_offset": False,
        "field_byte_size": False,
        "field_exists": True,
        "field_signed": True,
        "field_lshift_u64": False,
        "field_rshift_u64": True,
    }
    assert answer("field_byte_offset", "struct bits", "plain", own=own, target=BITS).checked


@pytest.mark.parametrize("kind", ["field_signed", "field_lshift_u64", "field_rshift_u64"])
def test_an_element_has_no_sign_or_shift(kind: str) -> None:
    with pytest.raises(FormatError, match="array's element"):
        ask(kind, "struct task", "comm", 1)


def test_sizes_tell_whether_a_load_can_be_resized() -> None:
    unsigned = answer("field_byte_offset", "struct task", "count")
    assert (unsigned.local_bytes, unsigned.target_bytes, unsigned.resizable) == (8, 4, True)
    signed = answer("field_byte_offset", "struct task", "pid")
    assert (signed.local_bytes, signed.target_bytes, signed.resizable) == (4, 4, False)
    pointer = answer("field_byte_offset", "struct task", "mm")
    assert (pointer.local_bytes, pointer.target_bytes, pointer.resizable) == (8, 8, True)


# Types ------------------------------------------------------------------------------------------------------------


def test_types() -> None:
    assert ask("type_exists", "struct task") == 1
    assert ask("type_size", "struct task") == 256
    assert ask("type_id_target", "struct task") == KERNEL.get_type_id("task", "struct")
    assert resolve(CoreAccess("type_id_local", "struct task", (), 77), KERNEL) == Answer(77, checked=False)
    for kind in ("type_exists", "type_size", "type_id_target"):
        assert ask(kind, "union task", own=None) == 0  # a struct is no union
        assert ask(kind, "task_t") == 0


def test_a_typedef_is_found_by_its_own_name_and_leads_on() -> None:
    def build(b: BtfBuilder) -> None:
        int_ = b.int("int", 4, True)
        b.typedef("pair_t", b.struct("", 8, [("a", int_, 0), ("b", int_, 32)]))
        b.typedef("hook_t", b.ptr(b.func_proto(int_, [("x", int_)])))

    def other(b: BtfBuilder) -> None:
        int_ = b.int("int", 4, True)
        b.typedef("pair_t", b.qualified("const", b.struct("", 8, [("b", int_, 0), ("a", int_, 32)])))
        b.typedef("hook_t", b.ptr(b.func_proto(int_, [("x", int_), ("y", int_)])))

    own, target = made(build), made(other)
    assert ask("field_byte_offset", "pair_t", "a", own=own, target=target) == 4
    assert ask("type_size", "pair_t", own=own, target=target) == 8
    assert ask("type_exists", "hook_t", own=own, target=own) == 1
    assert ask("type_exists", "hook_t", own=own, target=target) == 0  # another number of parameters
    assert ask("type_exists", "hook_t", own=None, target=target) == 1


def match_types(b: BtfBuilder, *, size: int = 4, members: int = 2, enumerators: int = 2, params: int = 1) -> None:
    int_ = b.int("int", 4, True)
    number = int_ if size == 4 else b.int("long int", size, True)
    point = b.struct("point", 8, [("x", number, 0), ("y", int_, 32)][:members])
    b.struct("line", 16, [("from", point, 0), ("to", b.ptr(point), 64)])
    b.struct("link", 8, [("to", b.ptr(point), 0)])
    b.enum("colour", dict(list({"RED": members, "BLUE": 1}.items())[:enumerators]))
    b.typedef("call_t", b.func_proto(int_, [("", int_)] * params))
    b.struct("node", 8, [("next", b.ptr(b.fwd("node")), 0)])


@pytest.mark.parametrize(
    ("change", "differ"),
    [
        ({}, []),
        ({"size": 8}, ["struct point", "struct line"]),
        ({"members": 1}, ["struct point", "struct line"]),
        ({"enumerators": 1}, ["enum colour"]),
        ({"params": 2}, ["call_t"]),
    ],
)
def test_type_matches(change: dict[str, int], differ: list[str]) -> None:
    own, target = made(match_types), made(lambda b: match_types(b, **change))
    names = ["struct point", "struct line", "struct link", "enum colour", "call_t", "struct node"]
    found = [name for name in names if not ask("type_matches", name, own=own, target=target)]
    assert found == differ
    assert all(ask("type_exists", n, own=own, target=target) for n in names if n != "call_t")


def test_a_kernel_type_may_have_more() -> None:
    own, target = made(lambda b: match_types(b, members=1, enumerators=1)), made(match_types)
    assert ask("type_matches", "struct line", own=own, target=target) == 1
    assert ask("type_matches", "enum colour", own=own, target=target) == 1


def test_integers_match_in_the_spelling_of_either_compiler() -> None:
    clang = made(lambda b: b.struct("s", 8, [("x", b.int("unsigned long", 8), 0)]))  # type: ignore[arg-type,return-value]
    gcc = made(lambda b: b.struct("s", 8, [("x", b.int("long unsigned int", 8), 0)]))  # type: ignore[arg-type,return-value]
    assert ask("type_matches", "struct s", own=clang, target=gcc) == 1


def test_whether_a_type_matches_needs_the_programs_own() -> None:
    with pytest.raises(FormatError, match="own type is not known"):
        ask("type_matches", "struct task", own=None)


# Enumerators ------------------------------------------------------------------------------------------------------


def test_enumerators() -> None:
    assert ask("enumval_value", "enum state", "BUSY") == 7
    assert ask("enumval_exists", "enum state", "BUSY") == 1
    assert ask("enumval_exists", "enum state", "BUSY___of_another_kernel") == 1
    assert ask("enumval_value", "enum state", "GONE", own=None) is None
    assert ask("enumval_exists", "enum state", "GONE", own=None) == 0
    assert ask("enumval_exists", "enum states", "BUSY", own=None) == 0


def test_enumerators_of_64_bits_and_below_zero() -> None:
    def build(b: BtfBuilder) -> None:
        b.enum64("wide", {"BIG": 1 << 40, "LOW": -5}, signed=True)
        b.enum("narrow", {"MINUS": -1}, signed=True)

    target = made(build)
    assert ask("enumval_value", "enum wide", "BIG", own=None, target=target) == 1 << 40
    assert ask("enumval_value", "enum wide", "LOW", own=None, target=target) == -5
    assert ask("enumval_value", "enum narrow", "MINUS", own=None, target=target) == -1


def test_enumerators_of_an_enumeration_without_a_name() -> None:
    target = made(lambda b: b.enum("", {"TCP_LISTEN": 10, "TCP_CLOSE": 7}))  # type: ignore[arg-type,return-value]
    own = made(lambda b: b.enum("", {"TCP_LISTEN": 9}))  # type: ignore[arg-type,return-value]
    access = CoreAccess("enumval_value", "enum", ("TCP_LISTEN",), 9, 0, own.type_by_id(1))
    assert local_answer(access) == 9
    assert resolve(access, target).value == 10
    assert ask("enumval_exists", "enum", "TCP_NEW", own=None, target=target) == 0
    missing = CoreAccess("enumval_value", "enum", ("TCP_NEW",), 9)
    assert resolve(missing, target).value is None
    assert explain(missing, target) == ("there is no enumerator TCP_NEW", [])


# Candidates -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "essence"),
    [
        ("task___old", "task"),
        ("task___a___b", "task___a"),
        ("task____old", "task____old"),
        ("task___", "task___"),
        ("___old", "___old"),
        ("task__old", "task__old"),
        ("a___b____", "a"),
    ],
)
def test_essential_names(name: str, essence: str) -> None:
    assert essential_name(name) == essence


def test_flavours_on_both_sides() -> None:
    def build(b: BtfBuilder) -> None:
        int_ = b.int("int", 4, True)
        b.struct("task___old", 8, [("state", int_, 0)])
        b.struct("taskother___x", 8, [("pid", int_, 32)])

    own = made(build)
    assert ask("enumval_exists", "enum state___mine", "BUSY", own=None) == 1
    access = CoreAccess("field_exists", "struct task___old", ("pid",), 1, 0, OWN.get_type("struct task"))
    assert resolve(access, KERNEL).value == 1
    assert show(access) == "struct task.pid"
    assert ask("field_exists", "struct task___old", "pid", own=None) == 1
    assert ask("field_byte_offset", "struct task", "state", own=None, target=own) == 0
    assert ask("field_exists", "struct task", "pid", own=None, target=own) == 0


def test_several_types_of_one_name_must_agree() -> None:
    def build(b: BtfBuilder) -> None:
        int_ = b.int("int", 4, True)
        b.struct("twin", 8, [("same", int_, 0), ("moved", int_, 32)])
        b.struct("twin", 12, [("same", int_, 0), ("moved", int_, 64), ("alone", int_, 32)])

    target = made(build)
    assert ask("field_byte_offset", "struct twin", "same", own=None, target=target) == 0
    assert ask("field_byte_offset", "struct twin", "alone", own=None, target=target) == 4
    assert ask("type_exists", "struct twin", own=None, target=target) == 1
    for kind in ("field_byte_offset", "field_exists"):
        with pytest.raises(FormatError, match="contradict"):
            ask(kind, "struct twin", "moved", own=None, target=target)
    for kind in ("type_size", "type_id_target"):
        with pytest.raises(FormatError, match="contradict"):
            ask(kind, "struct twin", own=None, target=target)


def test_modules_answer_for_types_that_the_kernel_does_not_have() -> None:
    b = BtfBuilder(first_id=KERNEL.count_types() + 1, first_string=KERNEL._strings_end - KERNEL._strings)
    b.struct("of_module", 8, [("x", 1, 32)])
    b.struct("task", 999, [("elsewhere", 1, 0)])
    module = Btf.from_bytes(b.build(), KERNEL)
    wanted = CoreAccess("field_byte_offset", "struct of_module", ("x",), 0)
    assert resolve(wanted, KERNEL).value is None
    assert resolve(wanted, KERNEL, [module]).value == 4
    assert resolve(CoreAccess("type_size", "struct task", (), 0), KERNEL, [module]).value == 256
    ident = resolve(CoreAccess("type_id_target", "struct of_module", (), 0), KERNEL, [module]).value
    assert ident == KERNEL.count_types() + 1


# What is wrong ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("access", "message"),
    [
        (CoreAccess("field_offset", "struct task", ("pid",), 0), "no CO-RE relocation 'field_offset'"),
        (CoreAccess("field_exists", "struct", (), 0, 0, OWN.type_by_id(8)), "no name"),
        (CoreAccess("field_exists", "struct task", ("nothing",), 0, 0, OWN.get_type("struct task")), "own type"),
        (CoreAccess("enumval_value", "enum state", (), 0), "name of an enumerator"),
        (CoreAccess("enumval_value", "enum state", (1,), 0), "name of an enumerator"),
        (CoreAccess("field_exists", "struct task", tuple(range(64)), 0), "64 steps"),
        (CoreAccess("field_lshift_u64", "struct task", ("comm",), 0), "no integer"),
    ],
)
def test_accesses_that_make_no_sense(access: CoreAccess, message: str) -> None:
    with pytest.raises(FormatError, match=message):
        resolve(access, KERNEL)


@pytest.mark.parametrize(
    ("kind", "name", "text", "expected"),
    [
        ("field_byte_offset", "struct task", "0:0", (0, ("pid",))),
        ("field_byte_offset", "struct task", "2:5:1", (2, ("other",))),
        ("field_exists", "struct task", "0:4:2:1", (0, ("points", 2, "y"))),
        ("field_byte_size", "struct task", "0:8:1:2", (0, ("grid", 1, 2))),
        ("enumval_value", "enum state", "1", (0, ("BUSY",))),
        ("type_exists", "struct task", "0", (0, ())),
    ],
)
def test_access_strings(kind: str, name: str, text: str, expected: tuple[int, tuple[str | int, ...]]) -> None:
    root = OWN.get_type(name)
    assert root is not None
    assert read_access(kind, root, text) == expected


@pytest.mark.parametrize(
    ("kind", "name", "text"),
    [
        ("field_exists", "struct task", ""),
        ("field_exists", "struct task", ":1"),
        ("field_exists", "struct task", "0:-1"),
        ("field_exists", "struct task", "0:99"),
        ("field_exists", "struct task", "0:0:0"),
        ("field_exists", "struct task", "0:" + ":".join("1" * 70)),
        ("enumval_value", "enum state", "2"),
        ("enumval_value", "enum state", "0:1"),
        ("enumval_value", "struct task", "0"),
        ("type_size", "struct task", "0:1"),
    ],
)
def test_access_strings_that_do_not_fit(kind: str, name: str, text: str) -> None:
    root = OWN.get_type(name)
    assert root is not None
    with pytest.raises(FormatError):
        read_access(kind, root, text)


def test_what_an_access_comes_to_in_the_program() -> None:
    task = OWN.get_type("struct task")
    assert local_answer(CoreAccess("field_byte_offset", "struct task", ("other",), 0, 0, task)) == 68
    assert local_answer(CoreAccess("type_size", "struct task", (), 0, 0, task)) == 128
    state = OWN.get_type("enum state")
    assert local_answer(CoreAccess("enumval_value", "enum state", ("BUSY",), 0, 0, state)) == 1
    assert local_answer(CoreAccess("type_id_local", "struct task", (), 9, 0, task)) == 9


# Damage -----------------------------------------------------------------------------------------------------------

_BLOB = bytes(KERNEL._data[:])
_PATHS = st.lists(
    st.one_of(st.sampled_from(["pid", "flags", "points", "x", "deep", "grid", "tail", ""]), st.integers(-3, 1 << 40)),
    max_size=6,
).map(tuple)
_NAMES = st.sampled_from(["struct task", "union task", "enum state", "int", "task_t", "", "struct ", "struct point"])


@given(st.sampled_from(KINDS), _NAMES, _PATHS, st.integers(-5, 1 << 40))
def test_any_path_is_answered_or_refused(kind: str, name: str, path: tuple[str | int, ...], index: int) -> None:
    for local in (None, OWN.get_type("struct task")):
        try:
            resolve(CoreAccess(kind, name, path, 0, index, local), KERNEL)
        except FormatError:
            pass


@given(
    st.sampled_from(KINDS),
    st.sampled_from([(), ("pid",), ("points", 1, "x"), ("deep",), ("grid", 1, 2), ("tail", 9), ("BUSY",)]),
    st.lists(st.tuples(st.integers(24, len(_BLOB) - 1), st.integers(0, 255)), min_size=1, max_size=6),
    st.booleans(),
)
def test_damaged_types_are_answered_or_refused(
    kind: str, path: tuple[str | int, ...], damage: list[tuple[int, int]], own_too: bool
) -> None:
    blob = bytearray(_BLOB)
    for at, byte in damage:
        blob[at] = byte
    name = "enum state" if path == ("BUSY",) else "struct task"
    try:
        target = Btf.from_bytes(bytes(blob))
        local = (target if own_too else KERNEL).get_type(name)
        access = CoreAccess(kind, name, path, 0, 0, local)
        if resolve(access, target).value is None:
            explain(access, target)
    except FormatError:
        pass


@given(st.text(max_size=20), st.sampled_from(KINDS))
def test_any_access_string_is_read_or_refused(text: str, kind: str) -> None:
    root = OWN.get_type("struct task")
    assert root is not None
    try:
        read_access(kind, root, text)
    except FormatError:
        pass

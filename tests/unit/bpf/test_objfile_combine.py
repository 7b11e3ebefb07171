"""Several objects linked to one: what moves, what is merged, what contradicts, what damaged ones get. The sources are tests/objects/linked_*.bpf.c."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sonde.bpf.objfile.byteorder import to_big_endian, to_little_endian
from sonde.bpf.objfile.combine import combine_objects
from sonde.bpf.objfile.model import ObjectFile, Program
from sonde.bpf.objfile.read import read_object
from sonde.debuginfo.btf import Btf
from sonde.debuginfo.ctype import Struct, declare
from sonde.debuginfo.elf import Elf
from sonde.errors import FormatError

OBJECTS = Path(__file__).parents[2] / "objects"
ONE = (OBJECTS / "linked_one.o").read_bytes()
TWO = (OBJECTS / "linked_two.o").read_bytes()
BASIC = (OBJECTS / "basic.o").read_bytes()
BIG = (OBJECTS / "basic_big_endian.o").read_bytes()


@pytest.fixture(scope="module")
def both() -> bytes:
    return combine_objects([("one.o", ONE), ("two.o", TWO)])


@pytest.fixture(scope="module")
def found(both: bytes) -> ObjectFile:
    return read_object(both)


def program_of(found: ObjectFile, name: str) -> Program:
    return next(p for p in found.programs if p.name == name)


def variables(found: ObjectFile, name: str) -> list[tuple[str, int]]:
    value = next(m for m in found.maps if m.name == name).value
    assert isinstance(value, Struct)
    return [(m.name, m.offset) for m in value.members]


def test_functions_of_the_other_object(found: ObjectFile) -> None:
    first = program_of(found, "first")
    assert [f.name for f in first.functions] == ["first", "helper", "other", "choice", "only_weak", "helper"]
    assert {fill.symbol for fill in first.fills if fill.kind == "map"} == {"seen", "outer"}


def test_the_strong_definition_goes_before_the_weak_one(found: ObjectFile) -> None:
    first = program_of(found, "first")
    start = next(f.pc for f in first.functions if f.name == "choice")
    assert struct.unpack_from("<BBhi", first.insns, 8 * start + 8)[3] == 7  # x + 7, not x + 1000
    (answer,) = [offset for name, offset in variables(found, ".data") if name == "answer"]
    data = next(m for m in found.maps if m.name == ".data").initial
    assert struct.unpack_from("<i", data, answer) == (9,)


def test_static_variables_of_one_name_stay_two(found: ObjectFile) -> None:
    data = next(m for m in found.maps if m.name == ".data").initial
    counters = [struct.unpack_from("<i", data, at)[0] for name, at in variables(found, ".data") if name == "counter"]
    assert counters == [5, 100]
    loads = [f.addend for f in program_of(found, "first").fills if f.symbol == ".data" and f.kind == "map_value"]
    places = {at for name, at in variables(found, ".data") if name == "counter"}
    assert places <= set(loads)


def test_types_are_merged(both: bytes, found: ObjectFile) -> None:
    assert found.btf is not None
    names = [name for _, name in found.btf.iter_names(["struct", "fwd"])]
    assert sorted(n for n in names if n in ("event", "hidden", "task_struct")) == ["event", "hidden", "task_struct"]
    event = found.btf.get_struct("event")
    assert event is not None and declare(event.members[2].ctype) == "struct hidden *"
    hidden = event.members[2].ctype.target  # type: ignore[attr-defined]
    assert isinstance(hidden, Struct) and hidden.size == 16  # one.o only declares it


def test_lines_and_questions_move_along(found: ObjectFile) -> None:
    lines = {
        (line.span.file.rpartition("/")[2], line.span.excerpt.strip()) for line in program_of(found, "first").lines
    }
    assert ("linked_two.bpf.c", "return helper(x) + counter + (e ? e->pid : 0) * 1000;") in lines
    assert ("linked_one.bpf.c", "results[7] = counter;") in lines
    for program in found.programs:  # each question stands at the instruction that holds its answer
        asked = {f.pc: f.core for f in program.fills if f.core is not None}
        assert {(q.type_name, q.path) for q in asked.values()} >= {("struct task_struct", ("tgid",))}
        for pc, question in asked.items():
            opcode, _, offset, imm = struct.unpack_from("<BBhi", program.insns, 8 * pc)
            assert question.value == (imm if opcode & 7 in (4, 7) else offset)


LINKED = combine_objects([("one.o", ONE), ("two.o", TWO)])


def test_externs_of_the_kernel_stay(found: ObjectFile) -> None:
    assert {(e.name, e.section, e.weak) for e in found.externs} == {
        ("CONFIG_HZ", ".kconfig", True),
        ("vfs_read", ".ksyms", False),
    }


def test_what_stays_undefined_is_said() -> None:
    said: list[str] = []
    combine_objects([("one.o", ONE)], said.append)
    assert sorted(text.split()[1] for text in said) == ["of_two", "other"]
    assert all("one.o" in text for text in said)
    with pytest.raises(FormatError, match="other is declared, but defined nowhere"):
        read_object(combine_objects([("one.o", ONE)]))


def test_linking_in_steps_gives_the_same(found: ObjectFile) -> None:
    stepwise = read_object(combine_objects([("one.o", combine_objects([("1.o", ONE)])), ("two.o", TWO)]))
    assert [p.insns for p in stepwise.programs] == [p.insns for p in found.programs]
    assert variables(stepwise, ".data") == variables(found, ".data")


def test_one_name_defined_twice_names_both_files() -> None:
    with pytest.raises(FormatError, match=r"defined here and in one\.o") as caught:
        combine_objects([("one.o", ONE), ("same.o", ONE)])
    assert caught.value.path == "same.o"


def test_another_license_names_both_files() -> None:
    at = Elf(TWO).get_section("license")
    assert at is not None
    other = TWO[: at.offset] + b"MIT" + TWO[at.offset + 3 :]
    with pytest.raises(FormatError, match=r"its license is 'MIT', that of one\.o is 'GPL'") as caught:
        combine_objects([("one.o", ONE), ("two.o", other)])
    assert caught.value.path == "two.o"


def test_another_type_names_both_files() -> None:
    section = Elf(TWO).get_section(".BTF")
    assert section is not None
    btf = Btf.from_bytes(TWO[section.offset : section.offset + section.size])
    ident, long = btf.get_type_id("of_two", "var"), btf.get_type_id("hidden", "struct")
    at = section.offset + 24 + 4 * btf._start(ident) + 8
    other = TWO[:at] + struct.pack("<I", long) + TWO[at + 4 :]
    with pytest.raises(FormatError, match=r"of_two is struct hidden of_two here, but int of_two in one\.o"):
        combine_objects([("one.o", ONE), ("two.o", other)])


def test_other_files_are_refused() -> None:
    with pytest.raises(FormatError, match="no object for BPF"):
        combine_objects([("one.o", ONE), ("x", ONE[:18] + struct.pack("<H", 62) + ONE[20:])])
    with pytest.raises(FormatError, match=r"another byte order than one\.o"):
        combine_objects([("one.o", ONE), ("big.o", BIG)])
    with pytest.raises(FormatError, match="nothing to link"):
        combine_objects([])


def test_a_record_outside_of_its_section_is_named() -> None:
    """The first thing that random damage found."""
    section = Elf(TWO).get_section(".BTF.ext")
    assert section is not None
    at = section.offset + 110 * 4
    with pytest.raises(
        FormatError, match=r"two\.o \(\.BTF\.ext\) at byte 440: .*about byte 4294967294 of section raw_tp"
    ):
        combine_objects([("one.o", ONE), ("two.o", TWO[:at] + struct.pack("<I", 0xFFFFFFFE) + TWO[at + 4 :])])


# Byte orders ------------------------------------------------------------------------------------------------------


def test_a_big_endian_object_says_the_same() -> None:
    big, little = read_object(BIG), read_object(BASIC)
    assert big.byte_order == "big"
    assert [(p.name, p.section, p.functions) for p in big.programs] == [
        (p.name, p.section, p.functions) for p in little.programs
    ]
    assert [f.kind for f in big.programs[0].fills] == [f.kind for f in little.programs[0].fills]
    assert {m.name: (m.type, m.key_size, m.value_size, m.values) for m in big.maps} == {
        m.name: (m.type, m.key_size, m.value_size, m.values) for m in little.maps
    }
    assert next(m for m in big.maps if m.name == ".data").initial == b"\0\0\0\7"
    assert {line.span.excerpt for line in big.programs[0].lines} == {
        line.span.excerpt for line in little.programs[0].lines
    }


@pytest.mark.parametrize("data", [BASIC, ONE, TWO])
def test_turning_twice_changes_nothing(data: bytes) -> None:
    big = to_big_endian(data)
    assert big[5] == 2 and big != data
    assert to_little_endian(big) == data


def test_big_endian_objects_are_linked() -> None:
    both = combine_objects([("one.o", to_big_endian(ONE)), ("two.o", to_big_endian(TWO))])
    assert both[5] == 2
    found, little = read_object(both), read_object(LINKED)
    assert found.byte_order == "big"
    assert [p.insns for p in found.programs] == [p.insns for p in little.programs]


# Bad input --------------------------------------------------------------------------------------------------------


def combine_hostile(*objects: bytes) -> None:
    """Link what may be anything, and read the result; only FormatError may come of it."""
    try:
        read_object(combine_objects([(f"{number}.o", data) for number, data in enumerate(objects)]))
    except FormatError as error:
        assert error.message


@given(st.integers(0, len(TWO)))
@settings(max_examples=40, deadline=None)
def test_truncated(size: int) -> None:
    combine_hostile(ONE, TWO[:size])
    combine_hostile(to_big_endian(ONE), to_big_endian(TWO)[:size])


CHANGES = st.lists(st.tuples(st.integers(0, 1 << 14), st.integers(0, 255)), min_size=1, max_size=8)
WORDS = st.lists(
    st.tuples(
        st.integers(0, 1 << 12),
        st.sampled_from([0, 1, 2, 7, 8, 0x7F, 0xFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF]),
    ),
    min_size=1,
    max_size=4,
)


@given(st.booleans(), CHANGES)
@settings(max_examples=60, deadline=None)
def test_bytes_changed_anywhere(turned: bool, changes: list[tuple[int, int]]) -> None:
    damaged = bytearray(to_big_endian(TWO) if turned else TWO)
    for at, value in changes:
        damaged[at % len(damaged)] = value
    combine_hostile(to_big_endian(ONE) if turned else ONE, bytes(damaged))


@given(st.sampled_from([".BTF", ".BTF.ext", ".relraw_tp", ".rel.text", ".symtab", ".maps", "raw_tp"]), WORDS)
@settings(max_examples=100, deadline=None)
def test_words_changed_where_they_matter(name: str, changes: list[tuple[int, int]]) -> None:
    section = Elf(TWO).get_section(name)
    assert section is not None
    damaged = bytearray(TWO)
    for at, value in changes:
        struct.pack_into("<I", damaged, section.offset + at * 4 % (section.size & ~3), value)
    combine_hostile(ONE, bytes(damaged))


@given(st.booleans(), st.integers(0, 1 << 8), st.sampled_from([0, 1, 8, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF]))
@settings(max_examples=60, deadline=None)
def test_section_headers_changed(turned: bool, word: int, value: int) -> None:
    (table,) = struct.unpack_from("<Q", TWO, 40)
    damaged = bytearray(to_big_endian(TWO) if turned else TWO)
    struct.pack_into("<I", damaged, table + word * 4 % (len(TWO) - table - 4), value)
    combine_hostile(to_big_endian(ONE) if turned else ONE, bytes(damaged))

"""Objects that sonde writes: what was read comes back the same; what cannot be written is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from same_types import find_difference

from sonde.bpf.objfile.model import MAPS, Fill, Function, MapDef, ObjectFile, Program, Question
from sonde.bpf.objfile.read import read_object
from sonde.bpf.objfile.write import write_object
from sonde.debuginfo.ctype import Int, Member, Pointer, Struct, sizeof
from sonde.errors import FormatError
from sonde.record import replace

OBJECTS = Path(__file__).parents[2] / "objects"
EXIT = bytes.fromhex("b700000000000000 9500000000000000")
FIXTURES = ("basic", "attached", "kernel_objects")


def written(found: ObjectFile) -> ObjectFile:
    return read_object(write_object(found))


def fixture_of(name: str) -> ObjectFile:
    return read_object((OBJECTS / f"{name}.o").read_bytes())


def simple(*fills: Fill, insns: bytes = EXIT, maps: tuple[MapDef, ...] = ()) -> ObjectFile:
    return ObjectFile((Program("main", "raw_tp", insns, fills, (), (Function("main", 0),)),), maps, license="GPL")


def plain(fill: Fill) -> object:
    """What a place waits for, without types that are equal but not the same object."""
    core = fill.core
    return replace(fill, core=None), core and (core.kind, core.type_name, core.path, core.index)


@pytest.mark.parametrize("name", FIXTURES)
def test_programs_come_back(name: str) -> None:
    before, after = fixture_of(name), written(fixture_of(name))
    assert (after.license, after.warnings) == (before.license, ())
    programs = {p.name: p for p in after.programs}
    assert set(programs) == {p.name for p in before.programs}
    for program in before.programs:
        again = programs[program.name]
        assert (again.section, again.functions) == (program.section, program.functions)
        assert list(map(plain, again.fills)) == list(map(plain, program.fills))
        assert again.insns == program.insns
        assert [(line.pc, line.span, line.span.excerpt) for line in again.lines] == [
            (line.pc, line.span, line.span.excerpt) for line in program.lines
        ]


@pytest.mark.parametrize("name", FIXTURES)
def test_maps_and_externs_come_back(name: str) -> None:
    before, after = fixture_of(name), written(fixture_of(name))
    maps = {m.name: m for m in after.maps}
    assert set(maps) == {m.name for m in before.maps}
    for each in before.maps:
        again = maps[each.name]
        assert bare(again) == bare(each)
        if each.section == MAPS and each.value is not None:
            assert again.value is not None and find_difference(again.value, each.value) == ""
    externs = {(e.name, e.section, e.weak, e.offset, sizeof(e.ctype)) for e in before.externs}
    assert {(e.name, e.section, e.weak, e.offset, sizeof(e.ctype)) for e in after.externs} == externs


def bare(each: MapDef) -> MapDef:
    return replace(each, key=None, value=None, inner=bare(each.inner) if each.inner is not None else None)


@pytest.mark.parametrize("name", FIXTURES)
def test_the_same_bytes_each_time(name: str) -> None:
    assert write_object(fixture_of(name)) == write_object(fixture_of(name))
    once = write_object(fixture_of(name))
    assert write_object(read_object(once)) == write_object(read_object(once))


def test_types_are_cut_down_to_what_is_asked_for() -> None:
    inner = Struct(
        "struct", "inner", 16, (Member("skip", Int("int", 4, True), 0), Member("kept", Int("long", 8, True), 64))
    )
    huge = Struct("struct", "huge", 4096, tuple(Member(f"m{i}", Int("int", 4, True), 32 * i) for i in range(1000)))
    outer = Struct("struct", "outer", 8192, (
        Member("first", huge, 0), Member("", Struct("union", "", 16, (Member("a", inner, 0), Member("b", Pointer(huge), 0))), 32768),
    ))  # fmt: skip
    question = Question("field_byte_offset", "struct outer", ("a", "kept"), 0, 0, outer)
    code = bytes.fromhex("b70100000000000 0".replace(" ", "")) + EXIT
    data = write_object(simple(Fill(0, "core", core=question), insns=code))
    found = read_object(data)
    (fill,) = found.programs[0].fills
    assert fill.core is not None and (fill.core.path, fill.core.value) == (("a", "kept"), 4096 + 8)
    assert int.from_bytes(found.programs[0].insns[4:8], "little") == 4096 + 8
    assert found.btf is not None and found.btf.get_struct("huge") is None
    kept = found.btf.get_struct("inner")
    assert kept is not None and [m.name for m in kept.members] == ["kept"]


def test_a_match_of_whole_types_keeps_their_members() -> None:
    pair = Struct("struct", "pair", 8, (Member("a", Int("int", 4, True), 0), Member("b", Int("int", 4, True), 32)))
    question = Question("type_matches", "struct pair", (), 1, 0, pair)
    found = written(simple(Fill(0, "core", core=question)))
    assert found.btf is not None
    kept = found.btf.get_struct("pair")
    assert kept is not None and [m.name for m in kept.members] == ["a", "b"]


def test_functions_of_several_programs_meet_in_text() -> None:
    call = bytes.fromhex("8510000000000000 9500000000000000") + EXIT
    fill = Fill(0, "subprogram", "helper", 2)
    functions = (Function("main", 0), Function("helper", 2))
    one = Program("one", "raw_tp", call, (fill,), (), functions)
    two = Program("two", "raw_tp", call, (fill,), (), functions)
    found = written(ObjectFile((one, two), license="GPL"))
    assert [[f.name for f in p.functions] for p in found.programs] == [["one", "helper"], ["two", "two__helper"]]
    assert all(p.fills[0].addend == 2 and len(p.insns) == 32 for p in found.programs)


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (
            simple(Fill(0, "map", "nowhere"), insns=bytes.fromhex("1801000000000000 0000000000000000") + EXIT),
            "no 'nowhere'",
        ),
        (simple(Fill(0, "core", core=Question("type_size", "struct x", (), 0, 0, None))), "no type of its own"),
        (simple(maps=(MapDef("m", 3, 4, 4, 1, values=((5, "main"),)),)), "more of them"),
        (simple(maps=(MapDef("m", 3, 4, 4, 8, values=((5, "gone"),)),)), "'gone'"),
        (simple(maps=(MapDef(".bss", 2, 4, 4, 1, ".bss", initial=b"abcd"),)), "first content"),
        (ObjectFile((Program("p", "raw_tp", EXIT, functions=(Function("p", 1),)),)), "do not follow"),
    ],
)
def test_what_cannot_be_written(found: ObjectFile, words: str) -> None:
    with pytest.raises(FormatError, match=words):
        write_object(found)

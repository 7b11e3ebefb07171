"""Objects that clang made: what the reader finds in them, and what damaged ones get. The sources are in tests/objects."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sonde.api.objectdump import dump_object
from sonde.bpf.objfile.model import MapDef, ObjectFile, Program
from sonde.bpf.objfile.read import read_object
from sonde.bpf.objfile.write import write_object
from sonde.debuginfo.ctype import Struct, declare
from sonde.errors import FormatError

OBJECTS = Path(__file__).parents[2] / "objects"
BASIC = (OBJECTS / "basic.o").read_bytes()
ATTACHED = (OBJECTS / "attached.o").read_bytes()


def program_of(found: ObjectFile, name: str) -> Program:
    return next(p for p in found.programs if p.name == name)


def map_of(found: ObjectFile, name: str) -> MapDef:
    return next(m for m in found.maps if m.name == name)


def section_of(data: bytes, name: str) -> tuple[int, int]:
    """Offset and size of a section, found without the reader."""
    (table,) = struct.unpack_from("<Q", data, 40)
    count, names = struct.unpack_from("<HH", data, 60)
    heads = [struct.unpack_from("<IIQQQQIIQQ", data, table + 64 * i) for i in range(count)]
    for head in heads:
        start = heads[names][4] + head[0]
        if data[start : data.index(b"\0", start)] == name.encode():
            return head[4], head[5]
    raise LookupError(name)


def test_programs_with_what_they_call() -> None:
    found = read_object(BASIC)
    assert [(p.name, p.section) for p in found.programs] == [("run", "raw_tp")]
    run = program_of(found, "run")
    assert [f.name for f in run.functions] == ["run", "each", "again", "twice"]
    starts = {f.name: f.pc for f in run.functions}
    calls = {(fill.symbol, fill.addend) for fill in run.fills if fill.kind == "subprogram"}
    assert calls == {(name, starts[name]) for name in ("each", "again", "twice")}
    assert found.license == "GPL"
    for fill in run.fills:  # what the compiler left open is said: an address of a function is one
        if fill.symbol == "each":
            assert run.insns[fill.pc * 8] == 0x18 and run.insns[fill.pc * 8 + 1] >> 4 == 4


def test_maps() -> None:
    found = read_object(BASIC)
    seen = map_of(found, "seen")
    assert (seen.type, seen.key_size, seen.value_size, seen.max_entries) == (1, 4, 8, 1024)
    assert isinstance(seen.value, Struct) and [m.name for m in seen.value.members] == ["pid", "parent"]
    outer = map_of(found, "outer")
    assert outer.inner is not None and (outer.inner.type, outer.inner.value_size) == (2, 8)
    assert outer.values == ((1, "one"), (3, "two"))
    assert map_of(read_object(ATTACHED), "jumps").values == ((1, "questions"),)
    assert map_of(read_object(ATTACHED), "events").max_entries == 4096


def test_data() -> None:
    found = read_object(BASIC)
    constant = map_of(found, ".rodata")
    assert (constant.value_size, constant.frozen, constant.initial) == (4, True, bytes(4))
    assert map_of(found, ".data").initial == (7).to_bytes(4, "little")
    assert map_of(found, ".data.names").initial == b"sonde\0\0\0"
    bss = map_of(found, ".bss")
    assert (bss.value_size, bss.initial) == (72, b"")
    assert isinstance(bss.value, Struct)
    members = {m.name: (m.offset, declare(m.ctype)) for m in bss.value.members}
    assert set(members) == {"version", "configured", "address", "sum", "parity", "hidden"}
    assert members["hidden"][1] == "long[4]"
    assert sorted(offset for offset, _ in members.values())[:2] == [0, 8]


def test_externs() -> None:
    found = read_object(BASIC)
    assert {(e.name, e.section, declare(e.ctype), e.weak) for e in found.externs} == {
        ("LINUX_KERNEL_VERSION", ".kconfig", "int", False),
        ("CONFIG_BPF_SYSCALL", ".kconfig", "_Bool", True),
        ("vfs_read", ".ksyms", "const void", False),
    }
    fills = program_of(found, "run").fills
    assert [(f.typed, f.weak) for f in fills if f.kind == "ksym"] == [(False, False)]
    offsets = {e.name: e.offset for e in found.externs if e.section == ".kconfig"}
    assert {f.addend for f in fills if f.symbol == ".kconfig"} == set(offsets.values())
    assert found.kconfig_size == 5
    weak = [f for f in program_of(read_object(ATTACHED), "questions").fills if f.kind == "kfunc"]
    assert [(f.symbol, f.weak) for f in weak] == [("no_such_kfunc", True)]


def test_lines_know_their_text() -> None:
    lines = program_of(read_object(BASIC), "run").lines
    texts = {line.span.excerpt.strip() for line in lines}
    assert "return again(wanted) + name[0];" in texts
    assert "static __noinline int twice(int x) { return x * 2 + total; }" in texts
    assert [line.pc for line in lines] == sorted(line.pc for line in lines)
    assert {line.span.file for line in lines} == {"./basic.bpf.c"}


def test_core_relocations() -> None:
    fills = program_of(read_object(ATTACHED), "questions").fills
    asked = {(f.core.kind, f.core.type_name, f.core.path) for f in fills if f.core is not None}
    assert ("field_byte_offset", "struct task_struct", ("tgid",)) in asked
    assert ("field_exists", "struct task_struct___none", ("no_such_member",)) in asked
    assert ("enumval_value", "enum pid_type", ("PIDTYPE_TGID",)) in asked
    assert ("field_exists", "struct task_struct", ("comm", 5)) in asked
    assert len({kind for kind, _, _ in asked}) == 12
    for fill in fills:
        if fill.core is not None and fill.core.kind == "type_size":
            assert fill.core.value == 24


def test_an_optional_program_says_so() -> None:
    assert program_of(read_object(ATTACHED), "optional").section == "?kprobe/no_such_function"


def test_sets_of_programs() -> None:
    found = read_object((OBJECTS / "congestion.o").read_bytes())
    ops = map_of(found, "sonde_test")
    assert (ops.type, ops.section, ops.key_size, ops.max_entries) == (26, ".struct_ops.link", 4, 1)
    assert isinstance(ops.value, Struct) and ops.value.name == "tcp_congestion_ops" and ops.value.size == ops.value_size
    names = {member.offset: member.name for member in ops.value.members}
    assert {names[offset]: program for offset, program in ops.values} == {
        "ssthresh": "sonde_ssthresh", "cong_avoid": "sonde_avoid", "undo_cwnd": "sonde_undo", "init": "sonde_init",
    }  # fmt: skip
    (at,) = [offset for offset, name in names.items() if name == "name"]
    assert ops.initial[at : at + 11] == b"sonde_test\0"
    again = map_of(read_object(write_object(found)), "sonde_test")
    assert (again.values, again.initial, again.section) == (ops.values, ops.initial, ops.section)
    with pytest.raises(FormatError, match=r"outside of its variables|no program"):
        read_object(patched((OBJECTS / "congestion.o").read_bytes(), ".rel.struct_ops.link", 12, struct.pack("<I", 1)))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda d: d[:4] + b"\1" + d[5:], "32-bit"),
        (lambda d: d[:18] + struct.pack("<H", 62) + d[20:], "not one for BPF"),
        (lambda d: b"\x7fELG" + d[4:], "not an ELF file"),
        (lambda d: d[:20], "at byte"),
    ],
)
def test_other_files_are_refused(damage: object, words: str) -> None:
    with pytest.raises(FormatError, match=words):
        read_object(damage(BASIC))  # type: ignore[operator]


def test_a_big_endian_object_that_is_cut_off() -> None:
    data = (OBJECTS / "basic_big_endian.o").read_bytes()
    with pytest.raises(FormatError, match="cut off"):
        read_object(data[:3000], "x.o")


def patched(data: bytes, section: str, offset: int, value: bytes) -> bytes:
    start, size = section_of(data, section)
    assert offset + len(value) <= size
    return data[: start + offset] + value + data[start + offset + len(value) :]


@pytest.mark.parametrize(
    ("section", "offset", "value", "words"),
    [
        (".relraw_tp", 12, struct.pack("<I", 9999), "there is no symbol 9999"),
        (".relraw_tp", 0, struct.pack("<Q", 1 << 40), "no place in raw_tp"),
        (".relraw_tp", 0, struct.pack("<Q", 8), "cannot be relocated"),
        (".relraw_tp", 0, struct.pack("<Q", 0), "seen is called, but is no function"),
        (".relraw_tp", 0, struct.pack("<Q", 31 * 8), "second half"),
        (".BTF.ext", 0, b"\0\0", "magic"),
        (".BTF.ext", 12, struct.pack("<I", 1 << 30), "beyond the end"),
        (".BTF.ext", 32, struct.pack("<I", 3), "records of 3 bytes"),
        (".BTF", 0, b"\0\0", "magic number"),
        (".BTF", 16, struct.pack("<I", 1 << 30), "beyond"),
    ],
)
def test_what_is_damaged_is_named(section: str, offset: int, value: bytes, words: str) -> None:
    with pytest.raises(FormatError, match=words):
        read_object(patched(BASIC, section, offset, value))


def read_hostile(data: bytes) -> None:
    """Read what may be anything, and show and write what was read; only FormatError may come of it."""
    try:
        found = read_object(data, "hostile.o")
        for line in dump_object(found, types=True):
            assert "\n\n" not in line
        write_object(found)
    except FormatError as error:
        assert error.message
        return
    assert all(len(p.insns) % 8 == 0 for p in found.programs)


@given(st.integers(0, len(BASIC)))
@settings(max_examples=40, deadline=None)
def test_truncated(size: int) -> None:
    read_hostile(BASIC[:size])


@given(
    st.sampled_from([BASIC, ATTACHED]),
    st.lists(st.tuples(st.integers(0, 1 << 14), st.integers(0, 255)), min_size=1, max_size=8),
)
@settings(max_examples=100, deadline=None)
def test_bytes_changed_anywhere(data: bytes, changes: list[tuple[int, int]]) -> None:
    damaged = bytearray(data)
    for at, value in changes:
        damaged[at % len(damaged)] = value
    read_hostile(bytes(damaged))


INTERESTING = st.sampled_from([0, 1, 2, 7, 8, 0x7F, 0xFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF])
SECTIONS = st.sampled_from([".BTF", ".BTF.ext", ".relraw_tp", ".rel.maps", ".rel.text", ".symtab", ".maps", "raw_tp"])


@given(SECTIONS, st.lists(st.tuples(st.integers(0, 1 << 12), INTERESTING), min_size=1, max_size=4))
@settings(max_examples=150, deadline=None)
def test_words_changed_where_they_matter(section: str, changes: list[tuple[int, int]]) -> None:
    start, size = section_of(BASIC, section)
    damaged = bytearray(BASIC)
    for at, value in changes:
        struct.pack_into("<I", damaged, start + at * 4 % (size & ~3), value)
    read_hostile(bytes(damaged))


@given(st.integers(0, 1 << 8), INTERESTING)
@settings(max_examples=60, deadline=None)
def test_section_headers_changed(word: int, value: int) -> None:
    (table,) = struct.unpack_from("<Q", BASIC, 40)
    damaged = bytearray(BASIC)
    struct.pack_into("<I", damaged, table + word * 4 % (len(BASIC) - table - 4), value)
    read_hostile(bytes(damaged))


def test_an_extern_without_a_size_is_refused() -> None:
    """The first thing that random damage found: the type of a value of the kernel's configuration was void."""
    found = read_object(BASIC)
    assert found.btf is not None
    ident = found.btf.get_type_id("CONFIG_BPF_SYSCALL", "var")
    words = found.btf._start(ident)
    with pytest.raises(FormatError, match=r"CONFIG_BPF_SYSCALL of section \.kconfig has 0 bytes"):
        read_object(patched(BASIC, ".BTF", 24 + 4 * (words + 2), bytes(4)))

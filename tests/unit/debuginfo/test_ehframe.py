"""Unwind tables: what each instruction of a call frame program does to the rows, and that bytes of any kind raise FormatError and nothing else."""

from __future__ import annotations

import functools
import os
import struct
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sonde.debuginfo import cfa
from sonde.debuginfo.ehframe import Row, UnwindTable, read_unwind_table
from sonde.debuginfo.elf import Elf
from sonde.errors import FormatError

START, SECTION = 0x401000, 0x402000
# advance 1 · CFA = rsp+16, rbp at CFA-16 · advance 3 · CFA = rbp+16 · advance 16 · CFA = rsp+8
USUAL = bytes([0x41, 0x0E, 16, 0x86, 2, 0x43, 0x0D, 6, 0x50, 0x0C, 7, 8])
BEGIN = bytes([0x0C, 7, 8, 0x90, 1])  # CFA = rsp+8, the return address at CFA-8


def record(identity: int, body: bytes) -> bytes:
    body += bytes(-len(body) % 4)
    return struct.pack("<II", len(body) + 4, identity) + body


def cie(letters: bytes = b"zR", extra: bytes = b"\x1b", program: bytes = BEGIN) -> bytes:
    augmented = bytes([len(extra)]) + extra if letters[:1] == b"z" else b""
    return record(0, b"\1" + letters + b"\0" + b"\x01\x78\x10" + augmented + program)


def fde(at: int, program: bytes, start: int = START, size: int = 0x40) -> bytes:
    """A function, in a record that lies `at` bytes behind the beginning of its CIE."""
    return record(at + 4, struct.pack("<iI", start - (SECTION + at + 8), size) + b"\0" + program)


def section(*programs: bytes, common: bytes = cie()) -> bytes:
    data = common
    for number, program in enumerate(programs):
        data += fde(len(data), program, START + 0x40 * number)
    return data + bytes(4)


def make(data: bytes, machine: int = 62) -> UnwindTable:
    names = b"\0.eh_frame\0.shstrtab\0"
    head = 64 + len(data) + len(names)
    headers = bytes(64)
    headers += struct.pack("<IIQQQQIIQQ", 1, 1, 2, SECTION, 64, len(data), 0, 0, 8, 0)
    headers += struct.pack("<IIQQQQIIQQ", 11, 3, 0, 0, 64 + len(data), len(names), 0, 0, 1, 0)
    ident = b"\x7fELF\2\1\1" + bytes(9)
    header = ident + struct.pack("<HHIQQQIHHHHHH", 3, machine, 1, 0, 0, head, 0, 64, 56, 0, 64, 3, 2)
    return read_unwind_table(Elf(header + data + names + headers))


def rows(*programs: bytes, common: bytes = cie()) -> dict[int, tuple[int, ...]]:
    table = make(section(*programs, common=common))
    taken = (table.find(table.base + pc) for pc in table.pcs)
    return {pc: (row.cfa, row.offset, row.add, row.fp, row.fp_offset) for pc, row in zip(table.pcs, taken)}


STOPPED = (cfa.STOP, 0, 0, 0, 0)


def test_a_usual_function() -> None:
    assert rows(USUAL) == {
        0: (cfa.SP, 8, 0, cfa.SAME, 0),
        1: (cfa.SP, 16, 0, cfa.AT_CFA, -16),
        4: (cfa.FP, 16, 0, cfa.AT_CFA, -16),
        20: (cfa.SP, 8, 0, cfa.AT_CFA, -16),
        64: STOPPED,
    }


@pytest.mark.parametrize(
    ("program", "row"),
    [
        ("0e 80 80 08", (cfa.SP, 1 << 17, 0, cfa.SAME, 0)),  # a large frame
        ("12 07 7f", (cfa.SP, 8, 0, cfa.SAME, 0)),
        ("13 7e", (cfa.SP, 16, 0, cfa.SAME, 0)),
        ("05 06 03", (cfa.SP, 8, 0, cfa.AT_CFA, -24)),
        ("11 06 7d", (cfa.SP, 8, 0, cfa.AT_CFA, 24)),
        ("86 02 c6", (cfa.SP, 8, 0, cfa.SAME, 0)),
        ("86 02 06 06", (cfa.SP, 8, 0, cfa.SAME, 0)),
        ("07 06", (cfa.SP, 8, 0, cfa.LOST, 0)),
        ("07 06 08 06", (cfa.SP, 8, 0, cfa.SAME, 0)),
        ("0a 0e 20 0b", (cfa.SP, 8, 0, cfa.SAME, 0)),
        ("2e 00", (cfa.SP, 8, 0, cfa.SAME, 0)),
        ("05 86 80 80 00 02", (cfa.SP, 8, 0, cfa.AT_CFA, -16)),  # a number that is longer than it need be
        ("86 81 80 02", (cfa.SP, 8, 0, cfa.LOST, 0)),  # further away than a row can tell
        ("09 06 03", (cfa.SP, 8, 0, cfa.LOST, 0)),
        # A stack that was aligned: its beginning is in a word of the frame, where rbp points to rbp was saved.
        ("0f 03 76 78 06", (cfa.DEREF_FP, -8, 0, cfa.SAME, 0)),
        ("10 06 02 76 00", (cfa.SP, 8, 0, cfa.AT_FP, 0)),
        ("0f 06 77 98 01 06 23 08", (cfa.DEREF_SP, 152, 8, cfa.SAME, 0)),
        ("0f 0b 77 08 80 00 3f 1a 3b 2a 33 24 22", (cfa.PLT, 8, 11, cfa.SAME, 0)),
        ("0f 04 77 a0 01 06 10 10 03 77 a8 01 10 06 03 77 f8 00 10 07 03 77 a0 01", (cfa.SIGNAL, 0, 0, 0, 0)),
        ("07 10", (cfa.END, 0, 0, 0, 0)),
        # What no row can say.
        ("0c 0a 00", STOPPED), ("0d 00", STOPPED), ("90 02", STOPPED), ("08 10", STOPPED), ("09 10 05", STOPPED), ("14 07 00", STOPPED),
        ("16 07 02 77 00", STOPPED), ("0f 02 77 08", STOPPED), ("0f 03 73 08 06", STOPPED), ("0f 06 77 08 06 23 80 02", STOPPED),
        ("0e ff ff ff ff 7f", STOPPED), ("0b", STOPPED), ("3f", STOPPED), ("01 00 00 00 00", STOPPED), ("0f 20 77", STOPPED),
        ("0e " + "80 " * 12 + "00", STOPPED),
    ],
)  # fmt: skip
def test_each_instruction(program: str, row: tuple[int, ...]) -> None:
    assert rows(bytes.fromhex(program))[0] == row


def test_what_nobody_knows_ends_at_the_functions_end() -> None:
    found = rows(b"\x44\x3f\x44\x0e\x20", USUAL)
    assert [(pc, row[0]) for pc, row in found.items()] == [
        (0, cfa.SP),
        (4, cfa.STOP),
        (64, cfa.SP),
        (65, cfa.SP),
        (68, cfa.FP),
        (84, cfa.SP),
        (128, cfa.STOP),
    ]


def test_advances_of_all_widths() -> None:
    found = rows(bytes.fromhex("02 02 0e 10 03 03 00 0e 18 04 04 00 00 00 0e 20"))
    assert [(pc, row[1]) for pc, row in found.items()] == [(0, 8), (2, 16), (5, 24), (9, 32), (64, 0)]


def test_rows_behind_the_end_of_a_function_are_not_there() -> None:
    assert list(rows(b"\x7f\x0e\x10\x7f\x0e\x20", USUAL))[:3] == [0, 63, 64]


def test_between_functions_nobody_knows() -> None:
    common = cie()
    data = common + fde(len(common), b"", START)
    data += fde(len(data), b"", START + 0x41)
    table = make(data)
    assert list(table.pcs) == [0, 0x40, 0x41, 0x81]
    assert [table.find(START + at).cfa for at in (-1, 0, 0x3F, 0x40, 0x41, 0x80, 0x81, 1 << 33)] == [
        0,
        1,
        1,
        0,
        1,
        1,
        0,
        0,
    ]


@pytest.mark.parametrize(
    ("letters", "extra", "known"),
    [
        (b"zR", b"\x1b", True), (b"zPLR", b"\x9b" + bytes(4) + b"\x1b\x1b", True), (b"zPR", b"\xff\x1b", True), (b"zRS", b"\x1b", True),
        (b"zX", b"\x1b", False), (b"eh", b"", False), (b"zR", b"\x3b", False), (b"zR", b"\x11", False), (b"zR", b"", False),
    ],
)  # fmt: skip
def test_augmentations(letters: bytes, extra: bytes, known: bool) -> None:
    assert bool(rows(USUAL, common=cie(letters, extra))) == known


def test_a_file_without_a_section_and_one_of_another_processor() -> None:
    from elfmaker import make_elf

    table = read_unwind_table(Elf(make_elf()))
    assert (table.pcs, table.entries, table.find(0).cfa) == (table.pcs[:0], table.entries[:0], cfa.STOP)
    with pytest.raises(FormatError, match="x86-64"):
        make(section(USUAL), machine=183)


@pytest.mark.parametrize("data", [b"\xff\xff\xff\xff" + bytes(8), b"\3\0\0\0\0\0\0\0", b"\xf0\0\0\0" + bytes(8)])
def test_a_broken_section(data: bytes) -> None:
    with pytest.raises(FormatError, match="bytes"):
        make(data)


def check(data: bytes) -> None:
    try:
        table = make(data)
    except FormatError:
        return
    assert len(table.pcs) == len(table.entries) <= 2 * len(data)
    assert list(table.pcs) == sorted(set(table.pcs))
    for pc in table.pcs:
        row = table.find(table.base + pc)
        assert isinstance(row, Row) and row.cfa <= cfa.END and row.fp <= cfa.LOST


@given(st.binary(max_size=400))
@example(b"")
def test_any_bytes(data: bytes) -> None:
    check(data)


@given(st.lists(st.binary(max_size=60), max_size=6))
def test_any_programs(programs: list[bytes]) -> None:
    check(section(*programs))


@functools.cache
def real() -> bytes:
    path = next(m for m in Path("/proc/self/maps").read_text().split() if "/libc" in m)
    with Elf.open(path) as elf:
        found = elf.get_section(".eh_frame")
        assert found is not None
        return elf.read_section(found)[:20000]


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="the C library here is another processor's")
@settings(max_examples=60)
@given(st.lists(st.tuples(st.integers(0, 19999), st.integers(0, 255)), max_size=12))
def test_a_real_section_with_bytes_changed(changes: list[tuple[int, int]]) -> None:
    data = bytearray(real())
    for at, value in changes:
        data[at] = value
    check(bytes(data))

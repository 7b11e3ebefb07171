"""Unwind tables of whole libraries, row by row, against what binutils' readelf makes of the same section."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from sonde.debuginfo import cfa
from sonde.debuginfo.ehframe import Row, UnwindTable, read_unwind_table
from sonde.debuginfo.elf import Elf
from sonde.debuginfo.procmaps import read_maps

pytestmark = [
    pytest.mark.skipif(not shutil.which("readelf"), reason="needs readelf (binutils)"),
    pytest.mark.skipif(__import__("os").uname().machine != "x86_64", reason="unwind tables are read for x86-64"),
]
_FUNCTION = re.compile(r"^[0-9a-f]+ \S+ \S+ FDE cie=\S+ pc=([0-9a-f]+)\.\.([0-9a-f]+)")
_REGISTERS = {"rsp": cfa.SP, "rbp": cfa.FP}


def libraries() -> list[str]:
    """The C and C++ libraries, OpenSSL, and what this Python consists of."""
    __import__("ssl")
    mapped = sorted({m.path for m in read_maps(__import__("os").getpid()) if m.executable and m.is_file})
    wanted = ("libc.so", "libc-", "libcrypto", "libpython", "libssl", "ld-linux", "libm.so", "_hashlib")
    found = [path for path in mapped if any(word in path for word in wanted)]
    found += [str(path.resolve()) for path in Path("/usr/lib/x86_64-linux-gnu").glob("libstdc++.so.6")]
    return list(dict.fromkeys([*found, str(Path(sys.executable).resolve())]))


def read_oracle(path: str) -> Iterator[tuple[int, int, dict[str, str]]]:
    """Yield start, end and columns of each row."""
    # It fails, when it has shown everything, where the debug file that belongs to this one has an empty section.
    text = subprocess.run(["readelf", "--debug-dump=frames-interp", "-W", path], capture_output=True, text=True).stdout
    names: list[str] = []
    rows: list[tuple[int, dict[str, str]]] = []
    end = 0
    for line in [*text.split("\n"), ""]:
        found = _FUNCTION.match(line)
        if found:
            names, rows, end = [], [], int(found[2], 16)
        elif " CIE " in line:
            end = 0
        elif line.startswith("   LOC"):
            names = line.split()
        elif end and re.match(r"^[0-9a-f]{16} ", line):
            words = re.sub(r"(\w+) \(\w+\)", r"\1", line).split()
            rows.append((int(words[0], 16), dict(zip(names, words))))
        elif not line and rows:
            starts = [start for start, _ in rows[1:]] + [end]
            for (start, columns), after in zip(rows, starts):
                if start < after:
                    yield start, after, columns
            rows = []


def agrees(row: Row, columns: dict[str, str]) -> bool:
    """Whether a row says what readelf's does, or STOP where that is nothing that a row could say."""
    base, _, offset = columns["CFA"].partition("+")
    if columns["ra"] == "u":
        return row.cfa == cfa.END
    if columns["ra"] != "c-8" or (base not in _REGISTERS and columns["CFA"] != "exp"):
        return row.cfa in (cfa.STOP, cfa.SIGNAL)
    if columns["CFA"] == "exp":
        return row.cfa in (cfa.STOP, cfa.PLT, cfa.DEREF_SP, cfa.DEREF_FP)
    if (row.cfa, row.offset) != (_REGISTERS[base], int(offset)):
        return False
    fp = columns.get("rbp", "u")
    if fp.startswith("c"):
        return (row.fp, row.fp_offset) == (cfa.AT_CFA, int(fp[1:]))
    if fp == "exp":
        return row.fp in (cfa.AT_FP, cfa.LOST)
    return row.fp in (cfa.SAME, cfa.LOST)  # readelf says "u" for both


def check(table: UnwindTable, path: str) -> Counter[int]:
    kinds: Counter[int] = Counter()
    for start, end, columns in read_oracle(path):
        for vaddr in {start, end - 1}:
            row = table.find(vaddr)
            assert agrees(row, columns), f"{path} at {vaddr:#x}: {row} in place of {columns}"
        kinds[row.cfa] += 1
    return kinds


@pytest.mark.parametrize("path", libraries(), ids=lambda path: Path(path).name)
def test_every_row(path: str) -> None:
    with Elf.open(path) as elf:
        table = read_unwind_table(elf)
        ends = [symbol.vaddr + symbol.size for symbol in elf.iter_functions()]
    assert list(table.pcs) == sorted(set(table.pcs))
    kinds = check(table, path)
    assert sum(kinds.values()) and kinds[cfa.SP]
    assert kinds[cfa.STOP] < 0.02 * sum(kinds.values())
    assert table.find(table.base - 1).cfa == table.find(max(ends, default=0) + (1 << 31)).cfa == cfa.STOP
    if Path(path).name.startswith("libc.so"):
        assert kinds[cfa.SIGNAL] == 1  # __restore_rt

"""The dynamic loader and the C library of aarch64 with windows in every function and at random instructions: they print what they print without.

The files are rewritten: one more segment holds what was moved. (Every single instruction moved passes too, but takes its time.) Both libraries can be run as programs, in QEMU's user mode. Nothing is counted there: what the loader lists depends
on what is below its stack pointer, so that a push would show.
"""

from __future__ import annotations

import random
import struct
import subprocess
from pathlib import Path

import pytest
from a64_runner import find_qemu

from sonde.debuginfo.elf import PT_LOAD, PT_NOTE, SHF_EXECINSTR, Elf
from sonde.errors import ProbeError
from sonde.user.a64.relocate import relocate
from sonde.user.a64.window import plan_window
from sonde.user.x86.text import read_unwind_index

FOLDER = Path("/usr/aarch64-linux-gnu/lib")
LOADER, LIBRARY = "ld-linux-aarch64.so.1", "libc.so.6"
ALIGN = 1 << 16
UDF = bytes(4)
COMMANDS = (
    [LIBRARY],
    ["--list", LIBRARY],
    ["--help"],
    ["--list-tunables"],
    ["--verify", LIBRARY],
    ["--library-path", "/nowhere", "missing.so"],
)


@pytest.fixture(scope="module")
def qemu() -> str:
    found = find_qemu()
    if found is None or not (FOLDER / LIBRARY).exists():
        pytest.skip("needs qemu-aarch64 and a C library (Debian packages qemu-user-static, libc6-arm64-cross)")
    return found


def rewrite(source: Path, target: Path, every: int, broken: bool = False) -> int:
    """Copy a library with windows at all functions and, if `every` is not 0, at one in so many instructions. Return how many there are."""
    data = bytearray(source.read_bytes())
    chance = random.Random(every)
    with Elf.open(str(source)) as elf:
        index = elf.get_section(".eh_frame_hdr")
        assert index is not None
        starts = sorted({*read_unwind_index(elf.read_section(index), index.addr), *elf.function_starts()})
        loads = [s for s in elf.segments if s.type == PT_LOAD]
        area = max(s.vaddr + s.memory_size for s in loads) + ALIGN & -ALIGN
        out = bytearray()
        count = 0
        for section in elf.sections:
            if not section.flags & SHF_EXECINSTR or section.name != ".text":
                continue
            code, end = bytes(elf.read_section(section)), section.addr + section.size
            here = [start for start in starts if section.addr <= start < end]
            for start, behind in zip(here, [*here[1:], end]):
                for at in range(start, behind, 4):
                    if at != start and not (every and chance.randrange(every) == 0):
                        continue
                    window = plan_window(code, at, start=start, end=behind, base=section.addr)
                    if window.kind == "none":
                        continue
                    new = area + len(out)
                    try:
                        moved = relocate(window.code, at, new).code
                    except ProbeError as error:
                        assert "does not reach" in str(error)
                        continue
                    out += UDF if broken else moved
                    out += bytes(-len(out) % 8)
                    place = elf.get_offset(at)
                    struct.pack_into("<I", data, place, 0x14000000 | (new - at) // 4 & 0x3FFFFFF)
                    count += 1
        (table,) = struct.unpack_from("<Q", data, 32)
        note = next(n for n, segment in enumerate(elf.segments) if segment.type == PT_NOTE)
        assert all(
            s.type != PT_LOAD for s in elf.segments[note:]
        )  # segments to load are in the order of their addresses
    data += bytes(-len(data) % ALIGN)
    header = struct.pack("<IIQQQQQQ", PT_LOAD, 7, len(data), area, area, len(out), len(out), ALIGN)
    data[table + 56 * note : table + 56 * (note + 1)] = header
    target.write_bytes(data + out)
    target.chmod(0o755)
    return count


def run(qemu: str, folder: Path) -> list[tuple[int, str]]:
    """Run the loader of a folder in all the ways that need no other program; paths are left out of what it prints."""
    found = []
    for arguments in COMMANDS:
        command = [qemu, "-E", f"LD_LIBRARY_PATH={folder}", str(folder / LOADER)]
        command += [str(folder / a) if a == LIBRARY else a for a in arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=100)
        text = (done.stdout + done.stderr).replace(str(folder), "")
        found.append((done.returncode, "\n".join(line.split(" (0x")[0] for line in text.splitlines())))
    return found


@pytest.mark.parametrize("every", [0, 20], ids=["functions", "instructions"])
def test_they_print_what_they_print(every: int, qemu: str, tmp_path: Path) -> None:
    count = sum(rewrite(FOLDER / name, tmp_path / name, every) for name in (LOADER, LIBRARY))
    assert count > (10_000 if every else 2000)
    found, want = run(qemu, tmp_path), run(qemu, FOLDER)
    assert found == want
    assert "GNU C Library" in found[0][1]


def test_the_windows_are_used(qemu: str, tmp_path: Path) -> None:
    rewrite(FOLDER / LOADER, tmp_path / LOADER, 0)
    (tmp_path / LIBRARY).write_bytes((FOLDER / LIBRARY).read_bytes())
    assert run(qemu, tmp_path)[0][0] == 0
    rewrite(FOLDER / LIBRARY, tmp_path / LIBRARY, 0, broken=True)
    assert run(qemu, tmp_path)[0][0] != 0

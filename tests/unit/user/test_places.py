"""Where sonde puts things in a process: gaps between mappings, bytes behind segments, tables."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sonde.debuginfo.procmaps import Mapping
from sonde.errors import FeatureError, TargetError
from sonde.user.calls import Call, Result
from sonde.user.interrupted import mend, restarted
from sonde.user.memory import find_gap
from sonde.user.ptrace import MACHINES, Registers
from sonde.user.slack import find_slack, is_slack
from sonde.user.stopped import StoppedProcess
from sonde.user.x86.calls import assemble_calls

PAGE, REACH = 4096, 1 << 31
TOP = 0x7FFF_FFFF_F000


def mapping(start: int, pages: int, path: str = "", perms: str = "rw-p", offset: int = 0) -> Mapping:
    return Mapping(start, start + pages * PAGE, perms, offset, "00:01", 1 if path.startswith("/") else 0, path)


spans = st.lists(
    st.tuples(st.integers(0, 60), st.integers(1, 2000), st.sampled_from(["", "/lib", "[heap]", "[stack]"])), min_size=1, max_size=12
)  # fmt: skip


@given(spans, st.integers(1, 64), st.data())
def test_a_gap_is_free_and_near(layout: list[tuple[int, int, str]], pages: int, data: st.DataObject) -> None:
    at, mappings = 0x400000, []
    for shift, length, path in layout:
        at += (1 << min(shift, 46)) // PAGE * PAGE
        if at + length * PAGE > TOP:
            break
        mappings.append(mapping(at, length, path))
        at += length * PAGE
    if not mappings:
        return
    size = pages * PAGE
    near = data.draw(st.sampled_from(mappings))
    try:
        found = find_gap(mappings, size, (near.start, near.end))
    except TargetError:
        assert find_gap([near], size, (near.start, near.end))  # alone it would have room
        return
    assert found % PAGE == 0 and found >= 0x10000 and found + size <= TOP
    assert all(found + size <= m.start or m.end <= found for m in mappings)
    assert abs(near.start - found) < REACH and abs(near.end - found) < REACH
    assert abs(near.start - found - size) < REACH and abs(near.end - found - size) < REACH


def test_the_heap_and_the_stack_keep_their_room() -> None:
    exe, heap = mapping(0x10000, 4, "/exe"), mapping(0x20000, 4, "[heap]")
    found = find_gap([exe, heap], PAGE, (exe.start, exe.end))
    assert found >= heap.end + (1 << 30)
    library, stack = mapping(TOP - (1 << 28), 4, "/lib"), mapping(TOP - 4 * PAGE, 4, "[stack]")
    assert find_gap([library, stack], PAGE, None) + PAGE <= stack.start - (128 << 20)


def test_a_large_heap_far_above_a_program_leaves_room_below_itself() -> None:
    """A program without relocation has nothing below, and its heap begins anywhere in a gigabyte above."""
    exe, heap = mapping(0x400000, 100, "/exe"), mapping(0x30000000, (3 << 30) // PAGE, "[heap]")
    size = 6 << 20
    found = find_gap([exe, heap], size, (exe.start, exe.end), (1 << 31) - (1 << 26))
    assert exe.end <= found and found + size <= heap.start
    with pytest.raises(TargetError):  # where the heap is not seen, it may begin right behind
        find_gap([exe, mapping(heap.start, 1)], size, (exe.start, exe.end), 1 << 30)


def test_no_gap_is_an_error() -> None:
    full = mapping(0x10000, (1 << 32) // PAGE, "/big")
    with pytest.raises(TargetError, match="no 4 KiB of free addresses within 2048 MiB"):
        find_gap([full], PAGE, (full.start + REACH, full.start + REACH))


def image(file_size: int, memory_size: int | None = None, flags: int = 5) -> bytes:
    """An ELF image of one segment with code."""
    head = bytearray(b"\x7fELF\x02\x01\x01".ljust(64, b"\0"))
    struct.pack_into("<Q", head, 32, 64)
    struct.pack_into("<HH", head, 54, 56, 1)
    return bytes(head) + struct.pack("<IIQQQQQQ", 1, flags, 0, 0, 0, file_size, memory_size or file_size, PAGE)


def reader(base: int, data: bytes):  # type: ignore[no-untyped-def]
    return lambda address, size: data[address - base : address - base + size].ljust(size, b"\0")


def test_slack_is_behind_the_segment_and_in_its_last_page() -> None:
    code = mapping(0x400000, 3, "/exe", "r-xp")
    read = reader(code.start, image(2 * PAGE + 100))
    assert find_slack([code], read, 500, "/exe") == code.start + 2 * PAGE + 112
    assert is_slack([code], read, code.start + 2 * PAGE + 112, {})
    assert not is_slack([code], read, code.start + 2 * PAGE + 96, {})
    assert not is_slack([code], read, code.start + 5, {})
    assert not is_slack([code], read, code.end, {})


@pytest.mark.parametrize(
    ("data", "pages"),
    [
        (image(3 * PAGE - 8), 3),  # 8 bytes are too few
        (image(PAGE), 3),  # what is behind it for whole pages is not known
        (image(2 * PAGE + 100, 4 * PAGE), 3),  # its memory goes on
        (image(2 * PAGE + 100, flags=4), 3),  # no code
        (b"\x7fELF\x01", 3),
        (b"", 3),
    ],
)
def test_no_slack_is_an_error(data: bytes, pages: int) -> None:
    code = mapping(0x400000, pages, "/exe", "r-xp")
    with pytest.raises(TargetError, match="no segment of code"):
        find_slack([code], reader(code.start, data), 64, "/exe")


def test_the_code_of_calls_touches_no_flag_and_has_the_size_that_was_planned(tmp_path: Path) -> None:
    registers = Registers(MACHINES["x86_64"])
    for number, name in enumerate(registers.machine.names):
        registers[name] = number * 0x1111_1111_1111
    calls = [
        Call("memfd_create", (b"abc\0", 1)),
        Call("mmap", (0, -1, 5, 1 << 40, Result(0), 0)),
        Call("close", (Result(0),)),
    ]
    first, second = (assemble_calls(calls, registers, 7).at(address) for address in (0, 0x7F12_3456_7000))
    assert len(first) == len(second)
    assert second.endswith(b"abc\0")
    path = tmp_path / "code"
    path.write_bytes(second[: -4 - 16])
    command = ["objdump", "-D", "-b", "binary", "-m", "i386:x86-64", str(path)]
    if shutil.which(command[0]) is None:
        pytest.skip("objdump is not installed")
    listing = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    words = [line.split("\t")[2].split()[0] for line in listing.splitlines() if line.count("\t") == 2]
    assert words.count("syscall") == 4 and set(words) == {"mov", "movabs", "syscall", "jmp"}


@pytest.mark.parametrize(
    ("result", "number", "again"),
    [(-512, 0, 0), (-513, 1, 1), (-514, 34, 34), (-516, 35, 219), (-4, 0, None), (5, 0, None), (-512, -1, None)],
)
def test_interrupted_calls_are_made_again(result: int, number: int, again: int | None) -> None:
    registers = Registers(MACHINES["x86_64"])
    registers["rax"], registers["orig_rax"], registers.pc = result, number, 0x1000
    after = restarted(registers)
    assert after.pc == (0x1000 if again is None else 0xFFE)
    assert after["rax"] == (result if again is None else again) & (1 << 64) - 1


def test_only_calls_that_may_be_made_again_are_mended() -> None:
    registers = Registers(MACHINES["x86_64"])
    for number, result, mended in ((232, -4, True), (42, -4, False), (3, -4, False), (232, -5, False), (-1, -4, False)):
        registers["rax"], registers["orig_rax"] = result, number
        assert mend(registers) is mended
        assert registers["rax"] == (-514 if mended else result) & (1 << 64) - 1


def test_a_32_bit_program_is_refused(tmp_path: Path) -> None:
    code = b"\xb8\x1d\x00\x00\x00\xcd\x80\xeb\xf7"  # mov eax, pause; int 0x80; again
    head = struct.pack("<16sHHIIIIIHHHHHH", b"\x7fELF\x01\x01\x01", 2, 3, 1, 0x10054, 52, 0, 0, 52, 32, 1, 0, 0, 0)
    size = 84 + len(code)
    path = tmp_path / "small"
    path.write_bytes(head + struct.pack("<8I", 1, 0, 0x10000, 0x10000, size, size, 5, PAGE) + code)
    path.chmod(0o755)
    try:
        process = subprocess.Popen([str(path)])
    except OSError:
        pytest.skip("this kernel runs no 32-bit programs")
    try:
        while Path(os.path.realpath(f"/proc/{process.pid}/exe")) != path:
            assert process.poll() is None, "this kernel runs no 32-bit programs"
        with pytest.raises(FeatureError, match="32-bit"), StoppedProcess(process.pid):
            pass
        assert process.poll() is None
    finally:
        process.kill()
        process.wait()

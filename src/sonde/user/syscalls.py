"""System calls of one process as probes: where its code makes them, and which calls each place may make.

The instruction `syscall` has two bytes; with what follows it, mostly the test of the result, or with what is before it, five can be replaced. The number of the call is a constant in nearly all
places of a C library: those that load another are left alone. Not seen: system calls from code that is made later (JIT compilers), or by `int 0x80`.
"""

from __future__ import annotations

from ..bpf.jit.x86_encoding import SYSCALL
from ..debuginfo.syscalls import syscall_number
from ..errors import FormatError, ProbeError
from ..record import Record
from .sites import Site
from .x86.decode import decode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..debuginfo.elf import Elf
    from ..debuginfo.procmaps import Mapping
    from ..spec.object import ProbeSpec
    from .sites import Files

ANY = -1  # every call: raw_syscalls
_BEFORE_BYTES = 96  # how far before the instruction its number may be loaded
_EAX = 0


class CallSite(Record):
    """A place that makes system calls; `number` is the only one that it can make, -1 when that is not known."""

    site: Site
    number: int


class Wanted(Record):
    """What a probe wants to see: calls of `number` (ANY: all), when they begin or when they have returned."""

    number: int
    exits: bool


def wanted_of(probe: ProbeSpec) -> Wanted:
    """Return what a tracepoint probe asks for. Raises ProbeError for events that are no system calls."""
    way = "sys_exit" if probe.event.startswith("sys_exit") else "sys_enter"
    if probe.category == "raw_syscalls" and probe.event in ("sys_enter", "sys_exit"):
        return Wanted(ANY, way == "sys_exit")
    number = syscall_number(probe.event[len(way) + 1 :], "x86_64") if probe.category == "syscalls" else -1
    if number < 0:
        raise ProbeError(
            f"{probe.name}: of the kernel's events the user engine sees the system calls only",
            hint="use --engine kernel",
        )
    return Wanted(number, way == "sys_exit")


def find_calls(numbers: frozenset[int], files: Files) -> list[CallSite]:
    """Return the places in files of the process that may make one of the calls `numbers` (with ANY in it: all places)."""
    found = []
    for mapping in files.mappings():
        if mapping.executable and mapping.is_file and not mapping.path.startswith("/memfd:"):
            try:
                elf = files.open(mapping.path)
            except (OSError, FormatError):
                continue
            base = elf.get_vaddr(mapping.offset)
            key = mapping.path, mapping.offset
            if key not in files.calls:
                files.calls[key] = list(_calls_of(mapping, elf, base))
            found += [
                CallSite(Site(mapping.start + at, base + at, mapping.path), number)
                for at, number in files.calls[key]
                if number < 0 or ANY in numbers or number in numbers
            ]
    return found


def _calls_of(mapping: Mapping, elf: Elf, base: int) -> Iterator[tuple[int, int]]:
    """Yield where in what is mapped system calls are made, and the number as in `CallSite`."""
    code = bytes(elf.data[mapping.offset : mapping.offset + mapping.end - mapping.start])
    at = code.find(SYSCALL)
    while at >= 0 and base >= 0:
        number = _call_at(code, at, base, elf)
        if number is not None:
            yield at, number
        at = code.find(SYSCALL, at + 1)


def _call_at(code: bytes, at: int, base: int, elf: Elf) -> int | None:
    """The number that is loaded before the two bytes at `at`, -1 when that is not known; None when they are part of something else."""
    symbol = elf.get_function_at(base + at)
    starts = [symbol.vaddr - base] if symbol is not None else []
    starts += list(range((at - 16) & -16, max(at - _BEFORE_BYTES, 0), -16))
    walks = (_walk(code, start, at) for start in starts)
    return next((number for number in walks if number is not None), None)


def _walk(code: bytes, start: int, at: int) -> int | None:
    """Read the instructions from `start` on; the number in eax at the one at `at`, -1 when it is not a constant. None: `at` is none's beginning."""
    number = -1
    while start < at:
        try:
            instruction = decode(code, start)
        except (FormatError, IndexError):
            return None
        if instruction.kind == "undefined":
            return None
        number = _number_after(code[start : start + instruction.length], instruction.kind, number)
        start += instruction.length
    return number if start == at else None


def _number_after(code: bytes, kind: str, number: int) -> int:
    """What is in eax behind an instruction, -1 where that is not known."""
    if code[:1] == b"\xb8" and len(code) == 5:
        return int.from_bytes(code[1:5], "little")
    if code[:3] == b"\x48\xc7\xc0" and len(code) == 7:
        return int.from_bytes(code[3:7], "little")
    if code in (b"\x31\xc0", b"\x33\xc0"):
        return 0
    if kind in ("call", "indirect_call", "jump", "indirect_jump", "return", "syscall"):
        return -1
    return -1 if _may_write_eax(code) else number


def _may_write_eax(code: bytes) -> bool:
    """Whether an instruction could change eax: anything but moves between other registers and memory, tests and jumps."""
    at = 1 if code[:1] and 0x40 <= code[0] <= 0x4F else 0
    extended = bool(at and code[0] & 4)
    opcode = code[at : at + 1]
    if opcode in (
        b"\x89",
        b"\x39",
        b"\x3b",
        b"\x85",
        b"\x84",
        b"\x3d",
        b"\xa8",
        b"\x50",
        b"\x51",
        b"\x52",
        b"\x53",
        b"\x55",
        b"\x56",
        b"\x57",
    ):
        modrm = code[at + 1] if len(code) > at + 1 else 0
        return opcode == b"\x89" and modrm >= 0xC0 and modrm & 7 == _EAX and not (at and code[0] & 1)
    if opcode in (b"\x8b", b"\x8d", b"\x31", b"\x33", b"\x63") and len(code) > at + 1:
        modrm = code[at + 1]
        reg = modrm >> 3 & 7 if opcode != b"\x31" else modrm & 7
        wide = extended if opcode != b"\x31" else bool(at and code[0] & 1)
        return reg == _EAX and not wide
    if opcode and 0xB9 <= opcode[0] <= 0xBF:
        return False
    if opcode == b"\xb8":
        return not (at and code[0] & 1)
    if opcode and (0x70 <= opcode[0] <= 0x7F or opcode == b"\x83" or opcode == b"\x81"):
        modrm = code[at + 1] if len(code) > at + 1 else 0
        return 0x80 <= opcode[0] <= 0x83 and modrm & 7 == _EAX and modrm >= 0xC0 and (modrm >> 3 & 7) != 7
    return True

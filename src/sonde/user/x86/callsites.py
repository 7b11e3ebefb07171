"""Where x86-64 code makes system calls, and which: by the constant that is loaded before.

The instruction `syscall` has two bytes; with what follows it, mostly the test of the result, or with what is before it, five can be replaced. Not seen: `int 0x80`.
"""

from __future__ import annotations

from ...bpf.jit.x86_encoding import SYSCALL
from ...errors import FormatError
from .decode import decode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_BEFORE_BYTES = 96  # how far before the instruction its number may be loaded
_EAX = 0


def find_calls(code: bytes, start_of: Callable[[int], int]) -> Iterator[tuple[int, int]]:
    """See `user.machine`."""
    at = code.find(SYSCALL)
    while at >= 0:
        number = _call_at(code, at, start_of(at))
        if number is not None:
            yield at, number
        at = code.find(SYSCALL, at + 1)


def _call_at(code: bytes, at: int, first: int) -> int | None:
    """The number that is loaded before the two bytes at `at`, -1 when that is not known; None when they are part of something else."""
    starts = [first] if first >= 0 else []
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

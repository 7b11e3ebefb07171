"""Where x86-64 code makes system calls, and which: by the constant that is loaded before.

The instruction `syscall` has two bytes; with what follows it, mostly the test of the result, or with what is before it, five can be replaced. Not seen: `int 0x80`.
"""

from __future__ import annotations

from ...bpf.jit.x86_encoding import SYSCALL
from ...debuginfo.x86length import MAP_0F, OPCODES, OPCODES_0F, scan

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_BEFORE_BYTES = 96  # how far before the instruction its number may be loaded
_EAX = 0


def find_calls(code: bytes, start_of: Callable[[int], int]) -> Iterator[tuple[int, int]]:
    """See `user.machine`."""
    walk = _Walk(code, -1)
    at = code.find(SYSCALL)
    while at >= 0:
        first = start_of(at)
        if first != walk.first:
            walk = _Walk(code, first)
        number = _number_at(code, walk, at)
        if number is not None:
            yield at, number
        at = code.find(SYSCALL, at + 1)


def _number_at(code: bytes, walk: _Walk, at: int) -> int | None:
    """The number that is loaded before the two bytes at `at`, -1 when that is not known; None when they are part of something else. `walk` is that of their function."""
    if walk.first >= 0 and walk.comes_to(at):
        return walk.eax()
    walks = (_Walk(code, start) for start in range((at - 16) & -16, max(at - _BEFORE_BYTES, 0), -16))
    return next((each.eax() for each in walks if each.comes_to(at)), None)


class _Walk:
    """The instructions from `first` on, as far as somebody asked for them."""

    def __init__(self, code: bytes, first: int) -> None:
        self.first = self._at = first
        self._code = code
        self._starts: list[int] = []

    def comes_to(self, at: int) -> bool:
        """Read on to `at`; tell whether an instruction begins there. What lies behind is asked for later."""
        try:
            while self._at < at:
                end, number, opcode, *_ = scan(self._code, self._at)
                if number <= MAP_0F and (OPCODES, OPCODES_0F)[number][opcode] == "i":
                    return False
                self._starts.append(self._at)
                self._at = end
        except IndexError:
            return False
        return self._at == at

    def eax(self) -> int:
        """What is in eax behind the last instruction, -1 when it is not a constant."""
        end = self._at
        for start in reversed(self._starts):
            code = self._code[start:end]
            number = _constant(code)
            if number >= 0 or _may_write_eax(code):
                return number
            end = start
        return -1


def _constant(code: bytes) -> int:
    """The number that an instruction loads into eax, -1 for one that does not."""
    if code[:1] == b"\xb8" and len(code) == 5:
        return int.from_bytes(code[1:5], "little")
    if code[:3] == b"\x48\xc7\xc0" and len(code) == 7:
        return int.from_bytes(code[3:7], "little")
    return 0 if code in (b"\x31\xc0", b"\x33\xc0") else -1


def _may_write_eax(code: bytes) -> bool:
    """Whether an instruction could change eax, or is where others come from: anything but moves between other registers and memory, tests and branches."""
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

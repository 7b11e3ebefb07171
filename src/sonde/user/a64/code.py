"""aarch64 code under construction: instructions, places with names, and jumps to them."""

from __future__ import annotations

from ...bpf.jit.a64_encoding import ZERO, add_imm, mov_imm, rrr, word
from ..labels import Labelled

EQUAL, NOT_EQUAL, BELOW, ALWAYS = 0, 1, 3, -1  # conditions
_B, _BL, _B_IF, _ADR = 0x14000000, 0x94000000, 0x54000000, 0x10000000
_CBZ, _CBNZ, _TBZ, _TBNZ = 0x34000000, 0x35000000, 0x36000000, 0x37000000
_REACH = 1 << 27
_LDAXR, _STXR = 0x085FFC00, 0x08007C00


class Code(Labelled):
    """aarch64 code with labels, which are within a megabyte of jumps to them (32 KiB where a bit is tested)."""

    def jump(self, name: str, condition: int = ALWAYS) -> None:
        """Jump to a name, which may come later."""
        self._refer(name, _B if condition < 0 else _B_IF | condition)

    def call(self, name: str) -> None:
        """Call what has a name."""
        self._refer(name, _BL)

    def jump_if_zero(self, name: str, register: int, *, wide: bool = True, is_zero: bool = True) -> None:
        """Jump where a register is 0, or is not. Flags stay as they are."""
        self._refer(name, (_CBZ if is_zero else _CBNZ) | wide << 31 | register)

    def jump_if_negative(self, name: str, register: int, *, bit: int = 63) -> None:
        """Jump where a bit of a register is set. Flags stay as they are."""
        self._refer(name, _TBNZ | (bit >> 5) << 31 | (bit & 31) << 19 | register)

    def load_address(self, register: int, name: str) -> None:
        """Load the address of a name."""
        self._refer(name, _ADR | register)

    def _refer(self, name: str, opcode: int) -> None:
        self._jumps.append((len(self.bytes), name))
        self.add(word(opcode))

    def finish(self) -> bytes:
        """Fill in the jumps; return the code. Raises KeyError for a name that nothing has."""
        for at, name in self._jumps:
            opcode = int.from_bytes(self.bytes[at : at + 4], "little")
            self.bytes[at : at + 4] = word(opcode | _field(opcode, self._places[name] - at))
        return bytes(self.bytes)


def _field(opcode: int, distance: int) -> int:
    """The distance as an instruction has it."""
    words = distance // 4
    if opcode & 0x7C000000 == _B:  # b, bl
        return words & 0x3FFFFFF
    if opcode & 0x9F000000 == _ADR:
        return (distance & 3) << 29 | (distance >> 2 & 0x7FFFF) << 5
    if opcode & 0x7E000000 == _TBZ:
        return (words & 0x3FFF) << 5
    return (words & 0x7FFFF) << 5


def jump_to(source: int, target: int, opcode: int = _B) -> bytes:
    """A jump that stands at `source`; both are addresses within 128 MiB of each other. Raises OverflowError."""
    distance = target - source
    if not -_REACH <= distance < _REACH:
        raise OverflowError(f"a jump from {source:#x} to {target:#x} reaches 128 MiB only")
    return word(opcode | distance // 4 & 0x3FFFFFF)


def call_to(source: int, target: int) -> bytes:
    """A call that stands at `source`. Raises OverflowError."""
    return jump_to(source, target, _BL)


def exclusive_load(register: int, place: int, wide: bool = True) -> bytes:
    """ldaxr: the register from the place that another one points to."""
    return word((2 | wide) << 30 | _LDAXR | place << 5 | register)


def exclusive_store(status: int, register: int, place: int, wide: bool = True) -> bytes:
    """stxr: the status is 0 when nobody else was there."""
    return word((2 | wide) << 30 | _STXR | status << 16 | place << 5 | register)


def count_one(place: int, value: int, status: int) -> bytes:
    """Add 1 to the 64-bit word that `place` points to, as one step; the two others are lost."""
    again = word(_CBNZ | (-3 & 0x7FFFF) << 5 | status)
    return exclusive_load(value, place) + add_imm(value, value, 1) + exclusive_store(status, value, place) + again


def multiply(register: int, left: int, right: int) -> bytes:
    """register = left * right."""
    return rrr(0x9B007C00, register, left, right, False)


def shift_left(register: int, source: int, by: int) -> bytes:
    """register = source << by, of 64 bits."""
    return word(0xD3400000 | (-by & 63) << 16 | (63 - by) << 10 | source << 5 | register)


def shift_right(register: int, source: int, by: int) -> bytes:
    """register = source >> by, of 64 bits without sign."""
    return word(0xD340FC00 | by << 16 | source << 5 | register)


def add_shifted(register: int, left: int, right: int, by: int = 0) -> bytes:
    """register = left + (right << by)."""
    return word(0x8B000000 | right << 16 | by << 10 | left << 5 | register)


def or_shifted(register: int, left: int, right: int, by: int = 0) -> bytes:
    """register = left | right << by."""
    return word(0xAA000000 | right << 16 | by << 10 | left << 5 | register)


def subtract(register: int, left: int, right: int, wide: bool = True) -> bytes:
    """register = left - right. Flags stay as they are."""
    return rrr(0x4B000000, register, left, right, wide)


def compare(left: int, right: int) -> bytes:
    """cmp left, right, of 64 bits."""
    return rrr(0x6B000000, ZERO, left, right, True)


def below_or_zero(register: int, limit: int, scratch: int) -> bytes:
    """Make a number of 32 bits that is not below a limit 0. Flags change."""
    code = mov_imm(scratch, limit) + rrr(0x6B000000, ZERO, register, scratch, False)  # cmp
    return code + word(0x1A800000 | ZERO << 16 | BELOW << 12 | register << 5 | register)  # csel


RET = word(0xD65F03C0)
READ_FLAGS, WRITE_FLAGS = 0xD53B4200, 0xD51B4200  # mrs, msr: nzcv
READ_THREAD = 0xD53BD040  # mrs: tpidr_el0
READ_COUNTER = 0xD53BE040  # mrs: cntvct_el0

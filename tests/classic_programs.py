"""Random classic filters that the checker accepts, and packets for them."""

from __future__ import annotations

from random import Random

from sonde.bpf.classic import Filter
from sonde.bpf.classic.code import ALU, JMP, LD, LDX, OPERATIONS, RET, ST, STX

_NUMBERS = (0, 1, 2, 7, 31, 255, 0x800, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


def make_filter(random: Random, length: int = 25) -> list[Filter]:
    """Loads from the first bytes of the packet, arithmetic, forward jumps, scratch memory; it ends with `ret a`."""
    codes = sorted(code for code in OPERATIONS if code & 7 != RET)
    program = [Filter(ST, k=k) for k in range(4)]  # what is read must have been written
    while len(program) < length:
        program.append(_make(random, random.choice(codes), length - len(program)))
    return [*program, Filter(RET | 0x10)]


def _make(random: Random, code: int, left: int) -> Filter:
    class_ = code & 7
    if class_ == JMP:
        if not code & 0xF0:
            return Filter(code, k=random.randrange(min(left, 4)))
        return Filter(code, random.randrange(min(left, 6)), random.randrange(min(left, 6)), random.choice(_NUMBERS))
    if code in (LD | 0x60, LDX | 0x60, ST, STX):
        return Filter(code, k=random.randrange(4))
    if class_ in (LD, LDX):
        mode = code & 0xE0
        return Filter(
            code, k=random.choice(_NUMBERS) if mode == 0 else random.randrange(40) if mode in (0x20, 0x40, 0xA0) else 0
        )
    if class_ == ALU:
        op = code & 0xF0
        if op in (0x60, 0x70):
            return Filter(code, k=random.randrange(32))
        return Filter(code, k=random.choice(_NUMBERS[1:]))
    return Filter(code)


def make_packet(random: Random) -> bytes:
    """Up to 60 bytes, often long enough."""
    return random.randbytes(random.choice((60, 60, 60, 50, 30, 3)))

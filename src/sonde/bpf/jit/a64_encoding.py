"""The encoding of aarch64 instructions: what the JIT and the user engine write code with. The Arm architecture reference manual, C4."""

from __future__ import annotations

X0, X1, X2, X3, X4, X5, X7, X8, X9, X10, X11, X16 = 0, 1, 2, 3, 4, 5, 7, 8, 9, 10, 11, 16
FP, LR, SP, ZERO = 29, 30, 31, 31
SYSCALL = (0xD4000001).to_bytes(4, "little")  # svc #0

PLAIN = {"add": 0x0B000000, "sub": 0x4B000000, "and": 0x0A000000, "or": 0x2A000000, "xor": 0x4A000000}
LOGICAL_IMM = {"and": 0x12000000, "or": 0x32000000, "xor": 0x52000000, "tst": 0x72000000}
SUBS, ANDS, ADDS_IMM, SUBS_IMM = 0x6B000000, 0x6A000000, 0x31000000, 0x71000000
STORE, LOAD, LOAD_SIGNED = 0x39000000, 0x39400000, 0x39800000


def word(value: int) -> bytes:
    """An instruction."""
    return value.to_bytes(4, "little")


def rrr(opcode: int, rd: int, rn: int, rm: int, wide: bool) -> bytes:
    """An instruction of three registers."""
    return word(opcode | wide << 31 | rm << 16 | rn << 5 | rd)


def mov(rd: int, rm: int, wide: bool = True) -> bytes:
    """rd = rm; neither is the stack pointer."""
    return rrr(PLAIN["or"], rd, ZERO, rm, wide)


def add_imm(rd: int, rn: int, value: int) -> bytes:
    """rd = rn + value, of 64 bits, where either may be the stack pointer; |value| below 2**24."""
    opcode, value = (0x91000000, value) if value >= 0 else (0xD1000000, -value)
    code = b""
    if value >> 12:
        code, rn = word(opcode | 1 << 22 | (value >> 12) << 10 | rn << 5 | rd), rd
    return code + word(opcode | (value & 0xFFF) << 10 | rn << 5 | rd) if value & 0xFFF or not code else code


def mov_imm(rd: int, value: int) -> bytes:
    """The shortest load of a 64-bit number."""
    value &= (1 << 64) - 1
    pieces = [value >> shift & 0xFFFF for shift in (0, 16, 32, 48)]
    inverted = pieces.count(0xFFFF) > pieces.count(0)
    places = [i for i, piece in enumerate(pieces) if piece != (0xFFFF if inverted else 0)] or [0]
    pattern = bit_pattern(value, True) if len(places) > 1 else None
    if pattern is not None:
        return word(LOGICAL_IMM["or"] | 1 << 31 | pattern << 10 | ZERO << 5 | rd)
    first, *rest = places
    piece = pieces[first] ^ 0xFFFF if inverted else pieces[first]
    code = word((0x92800000 if inverted else 0xD2800000) | first << 21 | piece << 5 | rd)
    return code + b"".join(word(0xF2800000 | i << 21 | pieces[i] << 5 | rd) for i in rest)


def bit_pattern(value: int, wide: bool) -> int | None:
    """N:immr:imms of a number made of one run of ones, repeated and rotated; None for others, 0 and ~0 among them."""
    if not wide:
        value = (value & 0xFFFFFFFF) * 0x1_0000_0001
    if value in (0, (1 << 64) - 1):
        return None
    size = 64
    while size > 2 and value & (1 << size // 2) - 1 == value >> size // 2 & (1 << size // 2) - 1:
        size //= 2
    part = value & (1 << size) - 1
    ones = bin(part).count("1")
    run = (1 << ones) - 1
    for rotation in range(size):
        if (part << rotation | part >> size - rotation) & (1 << size) - 1 == run:
            imms = (~(2 * size - 1) & 0x3F) | ones - 1
            return (size == 64) << 12 | rotation << 6 | imms
    return None


def bitfield(opcode: int, rd: int, rn: int, immr: int, imms: int, wide: bool) -> bytes:
    """An instruction that moves bits of a register."""
    return word(opcode | wide << 31 | wide << 22 | immr << 16 | imms << 10 | rn << 5 | rd)


def push(first: int, second: int) -> bytes:
    """Two registers to the stack."""
    return word(0xA9800000 | (-2 & 0x7F) << 15 | second << 10 | SP << 5 | first)


def pop(first: int, second: int) -> bytes:
    """Two registers from the stack."""
    return word(0xA8C00000 | 2 << 15 | second << 10 | SP << 5 | first)


def memory(opcode: int, size: int, rt: int, base: int, off: int) -> bytes:
    """A load or store of 1 << size bytes. `opcode` is that of the form with a scaled offset; others differ from it by a few bits.

    An offset that no form takes goes through x11.
    """
    if off >= 0 and off % (1 << size) == 0 and off >> size < 4096:
        return word(size << 30 | opcode | (off >> size) << 10 | base << 5 | rt)
    unscaled = opcode & ~0x01000000
    if -256 <= off < 256:
        return word(size << 30 | unscaled | (off & 0x1FF) << 12 | base << 5 | rt)
    return mov_imm(X11, off) + word(size << 30 | unscaled | 0x00206800 | X11 << 16 | base << 5 | rt)

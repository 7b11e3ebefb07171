"""The length of x86-64 instructions: enough of a decoder to tell where instructions begin.

A breakpoint in the middle of an instruction corrupts the traced program, so whoever probes `function+offset` checks first.
Follows the opcode maps of the Intel manual (volume 2, appendix A). Only lengths are decoded; instructions that do not
exist get the length that their neighbours in the map have.
"""

from __future__ import annotations

_PREFIXES = frozenset(b"\x26\x2e\x36\x3e\x64\x65\x66\x67\xf0\xf2\xf3")

# One-byte opcodes from 0x40 on; those below follow a pattern.
_MODRM = frozenset([
    0x63, 0x69, 0x6B, *range(0x80, 0x90), 0xC0, 0xC1, 0xC6, 0xC7, *range(0xD0, 0xD4), *range(0xD8, 0xE0),
    0xF6, 0xF7, 0xFE, 0xFF,
])  # fmt: skip
_IMM8 = frozenset([
    0x6A, 0x6B, *range(0x70, 0x80), 0x80, 0x82, 0x83, 0xA8, *range(0xB0, 0xB8), 0xC0, 0xC1, 0xC6, 0xCD,
    *range(0xE0, 0xE8), 0xEB,
])  # fmt: skip
_IMM32 = frozenset([0x68, 0x69, 0x81, 0xA9, 0xC7])  # 16 bits with the operand size prefix
_FIXED = {0xE8: 4, 0xE9: 4, 0xC2: 2, 0xCA: 2, 0xC8: 3}

# Opcodes after 0F.
_NO_MODRM_0F = frozenset([
    *range(0x05, 0x0A), 0x0B, 0x0E, *range(0x30, 0x38), 0x77, *range(0x80, 0x90), 0xA0, 0xA1, 0xA2, 0xA8, 0xA9, 0xAA,
    *range(0xC8, 0xD0),
])  # fmt: skip
_IMM8_0F = frozenset([0x0F, 0x70, 0x71, 0x72, 0x73, 0xA4, 0xAC, 0xBA, 0xC2, 0xC4, 0xC5, 0xC6])


def is_boundary(code: bytes, offset: int) -> bool:
    """Tell whether an instruction begins at `offset`, when one begins at 0. False where the code cannot be followed."""
    at = 0
    try:
        while at < offset:
            at += measure(code, at)
    except IndexError:
        return False
    return at == offset


def measure(code: bytes, at: int = 0) -> int:
    """Return the length in bytes of the instruction at `at`. Raises IndexError when the code ends within it."""
    start = at
    narrow = address32 = wide = False
    while code[at] in _PREFIXES:
        narrow = narrow or code[at] == 0x66
        address32 = address32 or code[at] == 0x67
        at += 1
    prefixed = {code[n] for n in range(start, at)}
    if code[at] & 0xF0 == 0x40:
        wide = bool(code[at] & 8)
        at += 1
    opcode = code[at]
    at += 1
    if opcode in (0xC4, 0xC5, 0x62) or (opcode == 0x8F and code[at] & 0x1F >= 8):
        at = _vector(code, at, opcode)
    elif opcode == 0x0F:
        at = _two_byte(code, at, prefixed)
    else:
        at = _one_byte(code, at, opcode, narrow, wide, address32)
    if at > len(code):
        raise IndexError(at)
    return at - start


def _one_byte(code: bytes, at: int, opcode: int, narrow: bool, wide: bool, address32: bool) -> int:
    word = 2 if narrow else 4
    if opcode < 0x40:
        kind = opcode & 7
        return _modrm(code, at) if kind < 4 else at + (1 if kind == 4 else word if kind == 5 else 0)
    if 0xA0 <= opcode <= 0xA3:
        return at + (4 if address32 else 8)
    if 0xB8 <= opcode <= 0xBF:
        return at + (8 if wide else word)
    if opcode in (0xF6, 0xF7) and code[at] & 0x38 < 0x10:  # test has an immediate, the rest of the group none
        return _modrm(code, at) + (1 if opcode == 0xF6 else word)
    if opcode in _MODRM:
        at = _modrm(code, at)
    if opcode in _IMM8:
        return at + 1
    return at + (word if opcode in _IMM32 else _FIXED.get(opcode, 0))


def _two_byte(code: bytes, at: int, prefixes: set[int]) -> int:
    opcode = code[at]
    at += 1
    if opcode == 0x38:
        return _modrm(code, at + 1)
    if opcode == 0x3A:
        return _modrm(code, at + 1) + 1
    if opcode in _NO_MODRM_0F:
        return at + (4 if 0x80 <= opcode < 0x90 else 0)
    at = _modrm(code, at)
    if opcode == 0x78 and prefixes & {0x66, 0xF2}:  # extrq, insertq
        return at + 2
    return at + (opcode in _IMM8_0F)


def _vector(code: bytes, at: int, escape: int) -> int:
    """VEX (C5: one byte, C4: two), EVEX (62: three) and XOP (8F: two), then the opcode."""
    if escape == 0xC5:
        number, at = 1, at + 1
    else:
        number, at = code[at] & (0x07 if escape == 0x62 else 0x1F), at + (3 if escape == 0x62 else 2)
    opcode = code[at]
    at += 1
    if number == 1 and opcode == 0x77:
        return at
    at = _modrm(code, at)
    if number == 1:
        return at + (opcode in _IMM8_0F)
    return at + {3: 1, 8: 1, 10: 4}.get(number, 0)


def _modrm(code: bytes, at: int) -> int:
    """Step over a ModRM byte with what belongs to it: SIB byte and displacement."""
    byte = code[at]
    at += 1
    mod, rm = byte >> 6, byte & 7
    if mod == 3:
        return at
    if rm == 4:
        base = code[at] & 7
        at += 1
        if mod == 0 and base == 5:
            return at + 4
    elif mod == 0 and rm == 5:
        return at + 4
    return at + (0, 1, 4)[mod]

"""x86-64 code to the bounds of its instructions: where each begins, and where its opcode and operands stand.

A breakpoint in the middle of an instruction corrupts the traced program, so whoever probes `function+offset` checks first.
Follows the opcode maps of the Intel manual (volume 2, appendix A), as processors of Intel read them. Instructions that do
not exist get the length that their neighbours in the map have. What an instruction does is told by `user/x86/decode.py`.
"""

from __future__ import annotations

from ..record import Record

# Opcode maps; those of vector instructions have a bit for their encoding.
MAP_ONE, MAP_0F, MAP_0F38, MAP_0F3A = 0, 1, 2, 3
VEX, EVEX, XOP = 0x20, 0x40, 0x60

_PREFIX, _REX = 1, 2
_PREFIXES = bytes(
    _REX if n & 0xF0 == 0x40 else _PREFIX if n in b"\x26\x2e\x36\x3e\x64\x65\x66\x67\xf0\xf2\xf3" else 0
    for n in range(256)
)

# What follows each opcode, a row for each sixteen:
#   .  nothing            b  1 byte            w  4 bytes (2 with prefix 66)     d  4 bytes
#   M  ModRM              B  ModRM, 1 byte     W  ModRM, 4 bytes (2 with 66)     h  2 bytes      e  3 bytes
#   q  4 bytes (2 with 66, 8 with REX.W)       o  8 bytes (4 with 67)            C  ModRM that always names registers
#   t, T  group 3: ModRM, for its members `test` also 1 byte, 4 bytes (2 with 66)
#   X  ModRM, 2 bytes with 66 or F2            4  ModRM, 4 bytes (XOP only)
#   x  escape to another map                   i  does not exist
OPCODES = (
    "MMMMbwiiMMMMbwix"  # 00  add, or; 0F leads to the next map
    "MMMMbwiiMMMMbwii"  # 10  adc, sbb
    "MMMMbw.iMMMMbw.i"  # 20  and, sub
    "MMMMbw.iMMMMbw.i"  # 30  xor, cmp
    "................"  # 40  REX
    "................"  # 50  push, pop
    "iixM....wWbB...."  # 60  EVEX, movsxd, push, imul, ins, outs
    "bbbbbbbbbbbbbbbb"  # 70  jcc
    "BWiBMMMMMMMMMMMM"  # 80  group 1, test, xchg, mov, lea, pop
    "..........i....."  # 90  xchg, cbw, cwd, wait, pushf, popf, sahf, lahf
    "oooo....bw......"  # A0  mov, movs, cmps, test, stos, lods, scas
    "bbbbbbbbqqqqqqqq"  # B0  mov
    "BBh.xxBWe.h..bi."  # C0  shifts, ret, VEX, mov, enter, leave, int
    "MMMMiii.MMMMMMMM"  # D0  shifts, xlat, x87
    "bbbbbbbbddib...."  # E0  loop, jrcxz, in, out, call, jmp
    "......tT......MM"  # F0  groups 3, 4, 5
)
OPCODES_0F = (
    "MMMMi.....i.iM.B"  # 00  groups 6, 7, lar, lsl, syscall, ud2, prefetchw, 3DNow
    "MMMMMMMMMMMMMMMM"  # 10  mov, hints
    "CCCCiiiiMMMMMMMM"  # 20  control registers, mov, cvt, comis
    "......i.xixiiiii"  # 30  msr, tsc, sysenter; 38 and 3A lead to the next maps
    "MMMMMMMMMMMMMMMM"  # 40  cmov
    "MMMMMMMMMMMMMMMM"  # 50
    "MMMMMMMMMMMMMMMM"  # 60
    "BBBBMMM.XMMMMMMM"  # 70  pshuf, shifts, emms, extrq
    "dddddddddddddddd"  # 80  jcc
    "MMMMMMMMMMMMMMMM"  # 90  setcc
    "...MBMMM...MBMMM"  # A0  push, pop, cpuid, bt, shld, shrd, group 15, imul
    "MMMMMMMMMMBMMMMM"  # B0  cmpxchg, movzx, popcnt, ud1, group 8, movsx
    "MMBMBBBM........"  # C0  xadd, cmpps, group 9, bswap
    "MMMMMMMMMMMMMMMM"  # D0
    "MMMMMMMMMMMMMMMM"  # E0
    "MMMMMMMMMMMMMMMM"  # F0
)
_NOT_IMMEDIATE = frozenset([0xA4, 0xAC, 0xBA])  # of 0F's instructions with a byte those that have no vector form


class Shape(Record):
    """Where the parts of one instruction stand, as positions in the code that it was found in."""

    end: int
    map: int  # MAP_*, with VEX, EVEX or XOP
    opcode: int
    opcode_at: int
    modrm_at: int  # -1: none
    rex: int  # the REX byte that is in force, 0: none
    narrow: bool  # 16-bit operands: prefix 66 without REX.W


def is_boundary(code: bytes, offset: int) -> bool:
    """Tell whether an instruction begins at `offset`, when one begins at 0. False where the code cannot be followed."""
    at = 0
    try:
        while at < offset:
            at = scan(code, at)[0]
    except IndexError:
        return False
    return at == offset


def measure(code: bytes, at: int = 0) -> int:
    """Return the length in bytes of the instruction at `at`. Raises IndexError when the code ends within it."""
    return scan(code, at)[0] - at


def shape(code: bytes, at: int = 0) -> Shape:
    """Return the parts of the instruction at `at`. Raises IndexError when the code ends within it."""
    return Shape(*scan(code, at))


def scan(code: bytes, at: int) -> tuple[int, int, int, int, int, int, bool]:
    """Return the fields of `Shape` as a tuple, which is what following a whole function can afford: 1 µs an instruction."""
    rex = 0
    narrow = address32 = repne = False
    byte = code[at]
    kind = _PREFIXES[byte]
    while kind:  # a REX byte counts only right before the opcode
        rex = byte if kind == _REX else 0
        if byte == 0x66:
            narrow = True
        elif byte == 0x67:
            address32 = True
        elif byte == 0xF2:
            repne = True
        at += 1
        byte = code[at]
        kind = _PREFIXES[byte]
    if rex & 8:  # 64 bits: the wider of the two counts
        narrow = False
    opcode_at, number, form = at, MAP_ONE, OPCODES[byte]
    at += 1
    if form == "x" or (byte == 0x8F and code[at] & 0x1F >= 8):
        number, opcode_at, form = _escape(code, at, byte)
        byte = code[opcode_at]
        at = opcode_at + 1
    modrm_at = -1
    if form in _WITH_MODRM:
        modrm_at = at
        at = at + 1 if form == "C" else _step_modrm(code, at)
    if form in _SIZES:
        at += _SIZES[form]
    elif form == "X":
        at += 2 if narrow or repne else 0
    elif form in "tT":  # of group 3 only `test` has an immediate
        if code[modrm_at] & 0x38 < 0x10:
            at += 1 if form == "t" else 2 if narrow else 4
    elif form == "o":
        at += 4 if address32 else 8
    else:
        at += 8 if form == "q" and rex & 8 else 2 if narrow else 4
    if at > len(code):
        raise IndexError(at)
    return at, number, byte, opcode_at, modrm_at, rex, narrow


_WITH_MODRM = "MBWtTCX4"
_SIZES = {".": 0, "i": 0, "M": 0, "C": 0, "b": 1, "B": 1, "h": 2, "e": 3, "d": 4, "4": 4}


def _escape(code: bytes, at: int, escape: int) -> tuple[int, int, str]:
    """Return map, place of the opcode, and what follows it: `at` is behind 0F, C4, C5, 62 or 8F."""
    if escape == 0x0F:
        byte = code[at]
        if byte == 0x38:
            return MAP_0F38, at + 1, "M"
        if byte == 0x3A:
            return MAP_0F3A, at + 1, "B"
        return MAP_0F, at, OPCODES_0F[byte]
    if escape == 0xC5:
        return VEX | MAP_0F, at + 1, _vector_form(MAP_0F, code[at + 1])
    if escape == 0x62:
        number = code[at] & 7
        return EVEX | number, at + 3, _vector_form(number, code[at + 3])
    number = code[at] & 0x1F
    encoding = VEX if escape == 0xC4 else XOP
    return encoding | number, at + 2, _vector_form(number, code[at + 2])


def _vector_form(number: int, opcode: int) -> str:
    if number == MAP_0F:
        if opcode == 0x77:  # vzeroupper
            return "."
        return "B" if OPCODES_0F[opcode] == "B" and opcode not in _NOT_IMMEDIATE else "M"
    return {MAP_0F3A: "B", 8: "B", 10: "4"}.get(number, "M")


def _step_modrm(code: bytes, at: int) -> int:
    """Step over a ModRM byte with what belongs to it: SIB byte and displacement."""
    byte = code[at]
    at += 1
    if byte >= 0xC0:
        return at
    rm = byte & 7
    if rm == 4:
        base = code[at] & 7
        at += 1
        if byte < 0x40 and base == 5:
            return at + 4
    elif rm == 5 and byte < 0x40:
        return at + 4
    return at + (0, 1, 4)[byte >> 6]

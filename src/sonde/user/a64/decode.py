"""aarch64 words to `Instruction`: what each does to the flow of control, and where it names an address relative to itself.

Follows the encoding tables of the Arm architecture reference manual (C4, "A64 instruction set encoding"). Like its neighbour for x86-64
no disassembler: what neither jumps nor names an address is "plain".
"""

from __future__ import annotations

from ...errors import FormatError
from ...record import Record

WORD_BYTES = 4

# Kinds after which the processor does not go on with the next instruction in memory.
ENDS = frozenset(["jump", "indirect_jump", "return", "undefined", "halt", "exception_return"])
# Kinds that tell their own address to a signal handler, or whose operands relative to the pc are not known here.
FIXED = frozenset(["trap", "undefined", "halt", "exception_return", "unknown_relative"])


class Instruction(Record):
    """One instruction. `target` is an offset in bytes from its own address, where `kind` has one."""

    length: int  # 4
    kind: str
    """plain, nop, landing (bti, paciasp and its like: where indirect jumps may land), jump (b), branch (b.cond, cbz, tbz), call (bl), indirect_jump (br),
    indirect_call (blr), return, adr, adrp, literal (ldr, ldrsw, prfm of an address), load_exclusive, store_exclusive, syscall (svc),
    trap (brk), halt, exception_return, undefined (udf), unknown_relative (newer instructions with an address relative to the pc)."""
    word: int
    target: int = 0  # of adrp: counted from the start of its page of 4096 bytes


# (mask, value, kind), the first that fits.
_KINDS = (
    (0x9F000000, 0x10000000, "adr"),
    (0x9F000000, 0x90000000, "adrp"),
    (0x3B000000, 0x18000000, "literal"),
    (0xFC000000, 0x14000000, "jump"),
    (0xFC000000, 0x94000000, "call"),
    (0xFF000000, 0x54000000, "branch"),  # b.cond, bc.cond
    (0x7E000000, 0x34000000, "branch"),  # cbz, cbnz
    (0x7E000000, 0x36000000, "branch"),  # tbz, tbnz
    (0x7E000000, 0x74000000, "unknown_relative"),  # cb<cc>: FEAT_CMPBR
    (0xFF000000, 0x55000000, "unknown_relative"),  # retaasppc: FEAT_PAuth_LR
    (0xFF800000, 0xF3800000, "unknown_relative"),  # autiasppc
    (0xFFFFFBFF, 0xDAC1A3FE, "unknown_relative"),  # pacnbiasppc and the like sign with the pc
    (0xFFFFF3FF, 0xDAC1A3FE, "unknown_relative"),  # paciasppc
    (0xFEFFF000, 0xD61F0000, "indirect_jump"),  # br, braa, braaz
    (0xFEFFF000, 0xD63F0000, "indirect_call"),  # blr, blraa, blraaz
    (0xFFFFF000, 0xD65F0000, "return"),  # ret, retaa
    (0xFFDFF000, 0xD69F0000, "exception_return"),  # eret, drps
    (0xFFE0001F, 0xD4000001, "syscall"),
    (0xFFE0001C, 0xD4000000, "trap"),  # hvc, smc: undefined for programs
    (0xFFE0001F, 0xD4200000, "trap"),  # brk
    (0xFFE0001C, 0xD4400000, "halt"),
    (0xFFE0001C, 0xD4A00000, "halt"),  # dcps1 to dcps3
    (0xFFFF0000, 0x00000000, "undefined"),
    (0xFFFFFFFF, 0xD503201F, "nop"),
    (0xFFFFFF3F, 0xD503241F, "landing"),  # bti
    (0xFFFFFFBF, 0xD503233F, "landing"),  # paciasp, pacibsp
)
_EXCLUSIVE = (0x3F000000, 0x08000000)
_ORDERED, _LOAD, _PAIR, _CAS_PAIR = 1 << 23, 1 << 22, 1 << 21, 1 << 31
_RELATIVE = frozenset(["jump", "branch", "call", "literal"])


def decode(code: bytes, at: int = 0) -> Instruction:
    """Return the instruction at position `at`. Raises FormatError where the code ends."""
    if not 0 <= at <= len(code) - WORD_BYTES:
        raise FormatError("the code ends within an instruction", offset=at)
    word = int.from_bytes(code[at : at + WORD_BYTES], "little")
    kind = kind_of(word)
    target = 0
    if kind in _RELATIVE:
        first, bits = offset_field(word)
        target = _signed(word >> first, bits) * WORD_BYTES
    elif kind in ("adr", "adrp"):
        target = _signed((word >> 5 & 0x7FFFF) << 2 | word >> 29 & 3, 21) * (4096 if kind == "adrp" else 1)
    return Instruction(WORD_BYTES, kind, word, target)


def kind_of(word: int) -> str:
    """Return the kind of an instruction."""
    for mask, value, kind in _KINDS:
        if word & mask == value:
            return kind
    if word & _EXCLUSIVE[0] == _EXCLUSIVE[1] and not word & _ORDERED and not (word & _PAIR and not word & _CAS_PAIR):
        return "load_exclusive" if word & _LOAD else "store_exclusive"
    return "plain"


def offset_field(word: int) -> tuple[int, int]:
    """Return the first bit and the number of bits of the offset in a jump, branch, call or literal load; it counts words."""
    if word & 0x7C000000 == 0x14000000:  # b, bl
        return 0, 26
    if word & 0x7E000000 == 0x36000000:  # tbz
        return 5, 14
    return 5, 19


def _signed(value: int, bits: int) -> int:
    value &= (1 << bits) - 1
    return value - (1 << bits) if value >> (bits - 1) else value

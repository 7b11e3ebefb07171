"""x86-64 code to `Instruction`: its length, what it does to the flow of control, where it names an address relative to itself.

The bounds come from `debuginfo/x86length.py`. This is what moving an instruction needs to know, no disassembler: registers and
memory are looked at only where they stand in the way.
"""

from __future__ import annotations

from ...debuginfo.x86length import EVEX, MAP_0F, MAP_ONE, scan
from ...errors import FormatError
from ...record import Record

# Kinds after which the processor does not go on with the next instruction in memory.
ENDS = frozenset(["jump", "indirect_jump", "return", "undefined", "halt", "far"])
# Kinds that tell their own address to a signal handler, or leave the mode of 64 bits: these stay where they are.
FIXED = frozenset(["trap", "undefined", "halt", "far"])
_LONGEST = 15


class Instruction(Record):
    """One instruction. Positions and targets are offsets in bytes from its own first byte; -1: there is none."""

    length: int
    kind: str
    """plain, nop, endbr, jump, branch (jcc), loop (loopcc, jrcxz), xbegin, call, indirect_jump, indirect_call, return (also to
    another segment), far (jumps and calls to another segment, sysenter, rsm), syscall (also int 0x80), trap (int), halt, undefined
    (ud0 to ud2, and opcodes that do not exist)."""
    map: int  # as in debuginfo/x86length.py
    opcode: int
    opcode_at: int
    modrm_at: int
    rex: int
    narrow: bool  # 16-bit operands; on a near jump a matter of taste: Intel takes 32 bits, AMD 16
    stack: bool  # uses rsp without naming it
    target_at: int  # of the operand that is relative to the end of the instruction: the last `target_size` bytes
    target_size: int
    target: int
    rip_at: int  # of the displacement of 4 bytes relative to rip
    rip: int


_ONE = {
    0x90: "nop", 0xC2: "return", 0xC3: "return", 0xC7: "xbegin", 0xCA: "return", 0xCB: "return", 0xCC: "trap",
    0xCD: "trap", 0xCF: "return", 0xE8: "call", 0xE9: "jump", 0xEB: "jump", 0xF1: "trap", 0xF4: "halt",
    0xFF: "group 5",
    **dict.fromkeys(range(0x70, 0x80), "branch"), **dict.fromkeys(range(0xE0, 0xE4), "loop"),
    **dict.fromkeys(b"\x06\x07\x0e\x16\x17\x1e\x1f\x27\x2f\x37\x3f\x60\x61\x82\x9a\xce\xd4\xd5\xd6\xea", "undefined"),
}  # fmt: skip
_0F = {
    0x05: "syscall", 0x07: "far", 0x0B: "undefined", 0x1E: "endbr", 0x1F: "nop", 0x34: "far", 0x35: "far",
    0xAA: "far", 0xB9: "undefined", 0xFF: "undefined",
    **dict.fromkeys(range(0x80, 0x90), "branch"),
    **dict.fromkeys(b"\x04\x0a\x0c\x24\x25\x26\x27\x36\x39\x3b\x3c\x3d\x3e\x3f\xa6\xa7", "undefined"),
}  # fmt: skip
_GROUP_5 = ("plain", "plain", "indirect_call", "far", "indirect_jump", "far", "plain", "undefined")
_RELATIVE = frozenset(["jump", "branch", "loop", "call", "xbegin"])
_USE_STACK = frozenset(["call", "indirect_call", "return"])
# push, pop, pushf, popf, enter, leave; push and pop of fs and gs
_STACK_ONE = frozenset([*range(0x50, 0x60), 0x68, 0x6A, 0x8F, 0x9C, 0x9D, 0xC8, 0xC9])
_STACK_0F = frozenset(b"\xa0\xa1\xa8\xa9")
_REX_B = 1


def decode(code: bytes, at: int = 0) -> Instruction:
    """Return the instruction at position `at`. Raises FormatError when the code ends within it, or it has more than 15 bytes."""
    try:
        end, number, opcode, opcode_at, modrm_at, rex, narrow = scan(code, at)
    except IndexError:
        raise FormatError("the code ends within an instruction", offset=at) from None
    length = end - at
    if length > _LONGEST:
        raise FormatError(f"an instruction has at most {_LONGEST} bytes, this one {length}", offset=at)
    kind, stack = "plain", False
    if number == MAP_ONE:
        kind = _ONE.get(opcode, "plain")
        if opcode in _SPECIAL:
            kind = _one_byte(code, at, opcode_at, rex, kind)
        stack = opcode in _STACK_ONE or (opcode == 0xFF and code[modrm_at] & 0x38 in (0x18, 0x30))
    elif number == MAP_0F:
        kind = _0F.get(opcode, "plain")
        if kind == "endbr" and code[at:end] != b"\xf3\x0f\x1e\xfa":
            kind = "plain"
        stack = opcode in _STACK_0F
    elif number == EVEX | 4:  # APX, whose immediates are not known here
        kind = "undefined"
    target_at = rip_at = -1
    target_size = target = rip = 0
    if kind in _RELATIVE:
        target_size = 1 if kind == "loop" or (number == MAP_ONE and (opcode < 0x80 or opcode == 0xEB)) else 4
        if kind == "xbegin" and narrow:
            target_size = 2
        target_at = length - target_size
        target = length + int.from_bytes(code[at + target_at : end], "little", signed=True)
    if modrm_at >= 0:
        if code[modrm_at] & 0xC7 == 5 and not (number == MAP_0F and 0x20 <= opcode < 0x24):
            rip_at = modrm_at + 1 - at
            rip = length + int.from_bytes(code[modrm_at + 1 : modrm_at + 5], "little", signed=True)
        modrm_at -= at
    return Instruction(
        length, kind, number, opcode, opcode_at - at, modrm_at, rex, narrow, stack or kind in _USE_STACK,
        target_at, target_size, target, rip_at, rip,
    )  # fmt: skip


_SPECIAL = frozenset([0x90, 0xC7, 0xCD, 0xFF])


def _one_byte(code: bytes, start: int, at: int, rex: int, kind: str) -> str:
    """Return the kind of an instruction whose opcode (at `at`) does not tell it alone."""
    opcode, operand = code[at], code[at + 1] if at + 1 < len(code) else 0
    if opcode == 0x90:  # with REX.B an exchange, after F3 a pause
        return "plain" if rex & _REX_B or 0xF3 in code[start:at] else "nop"
    if opcode == 0xC7:
        return "xbegin" if operand == 0xF8 else "plain"
    if opcode == 0xCD:
        return "syscall" if operand == 0x80 else "trap"
    return _GROUP_5[operand >> 3 & 7]

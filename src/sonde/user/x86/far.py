"""An instruction with an operand relative to rip to instructions that reach it from anywhere.

The address goes into a register that the instruction does not use, saved below the red zone. No flag changes: lea, push, pop and mov
leave them alone.
"""

from __future__ import annotations

from ...debuginfo.x86length import EVEX, MAP_0F, MAP_0F3A, MAP_ONE, VEX
from .decode import Instruction

_RBX, _RSP, _RSI, _RDI = 3, 4, 6, 7
_LEA = 0x8D
_REX_W = 8
_BELOW_RED_ZONE = b"\x48\x8d\x64\x24\x80"  # lea -128(%rsp), %rsp
_BACK = b"\x48\x8d\xa4\x24\x80\0\0\0"  # lea 128(%rsp), %rsp


def with_far_operand(instruction: Instruction, code: bytes, target: int) -> bytes:
    """Return code that does what `instruction` (its bytes: `code`) does with its operand at address `target`; none where rsp is in the way."""
    register = code[instruction.modrm_at] >> 3 & 7
    if instruction.map == MAP_ONE and instruction.opcode == _LEA and instruction.rex & _REX_W:
        rex = 0x48 | (instruction.rex >> 2 & 1)  # the register's high bit moves from R to B
        return bytes([rex, 0xB8 | register]) + target.to_bytes(8, "little")
    if instruction.kind not in ("plain", "nop") or instruction.stack or register == _RSP:
        return b""
    # The third only for vector instructions: others may use rbx without naming it (cmpxchg16b), or call it bh.
    taken = {register, _vector_source(instruction, code)}
    scratch = next((r for r in (_RSI, _RDI, _RBX) if r not in taken), -1)
    if scratch < 0:
        return b""
    at = instruction.rip_at
    moved = bytearray(code[:at] + code[at + 4 :])
    moved[at - 1] = register << 3 | scratch
    _clear_base(instruction, moved)
    load = bytes([0x50 | scratch, 0x48, 0xB8 | scratch]) + target.to_bytes(8, "little")
    return _BELOW_RED_ZONE + load + moved + bytes([0x58 | scratch]) + _BACK


def _vector_source(instruction: Instruction, code: bytes) -> int:
    """Return the low three bits of the register that a VEX prefix names besides the operands, -1 without; with EVEX that is a vector register."""
    if instruction.map <= MAP_0F3A or instruction.map & 0x60 == EVEX:
        return -1
    return ~code[instruction.opcode_at - 1] >> 3 & 7


def _clear_base(instruction: Instruction, code: bytearray) -> None:
    """Clear the high bit of the operand's base register, which rip leaves without a meaning; vector prefixes hold it inverted."""
    at = instruction.opcode_at
    if instruction.map <= MAP_0F3A:
        if instruction.rex:
            code[at - (1, 2, 3, 3)[instruction.map]] &= 0xFE
    elif instruction.map & 0x60 == EVEX:
        code[at - 3] |= 0x20
    elif not (instruction.map == VEX | MAP_0F and code[at - 2] == 0xC5):  # C5 has no such bit
        code[at - 2] |= 0x20

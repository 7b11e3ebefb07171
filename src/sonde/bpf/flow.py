"""The shape of a program: its functions, and in each the straight runs of instructions between jumps."""

from __future__ import annotations

from ..errors import FormatError
from .isa import BPF_JMP, BPF_JMP32, BPF_X, CALL, EXIT, GOTOL, JA, LDDW, Insn, iter_pcs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

_GOTOX = 0x0D
_NO_NEXT = frozenset([JA, GOTOL, EXIT])  # what does not go on with the next instruction


def split_functions(insns: Iterable[Insn]) -> dict[int, list[tuple[int, Insn]]]:
    """Return the functions of a program by their first pc, each as (pc, instruction) pairs. Raises FormatError for a call to nowhere."""
    placed = list(iter_pcs(insns))
    known = {pc for pc, _ in placed}
    starts = {0}
    for pc, insn in placed:
        target = callee(pc, insn)
        if target is not None:
            if target not in known:
                raise FormatError(f"instruction {pc} calls pc {target}, where no instruction begins", offset=pc * 8)
            starts.add(target)
    functions: dict[int, list[tuple[int, Insn]]] = {}
    for pc, insn in placed:
        if pc in starts:
            body = functions[pc] = []
        body.append((pc, insn))
    return functions


def callee(pc: int, insn: Insn) -> int | None:
    """Return the first pc of the local function that an instruction calls or takes the address of; None for others."""
    if insn.opcode == CALL and insn.src == 1:
        return pc + 1 + insn.imm
    if insn.opcode == LDDW and insn.src == 4:
        low = insn.imm & 0xFFFFFFFF
        return pc + 1 + low - (low >> 31 << 32)
    return None


class Block:
    """A straight run; `end` is the jump behind it, or None where it runs on into the block at `next`. -1: no such block."""

    __slots__ = ("end", "insns", "next", "pc", "target")

    def __init__(self, pc: int) -> None:
        self.pc = pc
        self.insns: list[tuple[int, Insn]] = []
        self.end: tuple[int, Insn] | None = None
        self.target = -1
        self.next = -1


def split_blocks(body: list[tuple[int, Insn]]) -> dict[int, Block]:
    """Cut a function at its jumps and their targets. Raises FormatError."""
    known = {pc for pc, _ in body}
    leaders = {body[0][0]}
    for pc, insn in body:
        target = jump_target(pc, insn)
        if target is not None:
            if target not in known:
                raise FormatError(
                    f"instruction {pc} jumps to pc {target}, which is not an instruction of its function", offset=pc * 8
                )
            leaders.add(target)
        if target is not None or insn.opcode == EXIT:
            leaders.add(pc + 1)
    blocks: dict[int, Block] = {}
    for pc, insn in body:
        if pc in leaders:
            block = blocks[pc] = Block(pc)
        target = jump_target(pc, insn)
        following = pc + insn.slots
        goes_on = insn.opcode not in _NO_NEXT
        if target is None and insn.opcode != EXIT:
            block.insns.append((pc, insn))
        else:
            block.end = (pc, insn)
            block.target = -1 if target is None else target
        if goes_on and (block.end or following in leaders):
            block.next = following
        if goes_on and following not in known:
            raise FormatError(f"instruction {pc} runs on beyond the end of its function", offset=pc * 8)
    return blocks


def jump_target(pc: int, insn: Insn) -> int | None:
    """Return the pc that an instruction may jump to; None for others. Raises FormatError for jumps through a table."""
    if insn.opcode & 7 not in (BPF_JMP, BPF_JMP32) or insn.opcode in (CALL, CALL | BPF_X, EXIT):
        return None
    if insn.opcode == _GOTOX:
        raise FormatError(f"instruction {pc} jumps through a table, which only the kernel has", offset=pc * 8)
    return pc + 1 + (insn.imm if insn.opcode == GOTOL else insn.off)

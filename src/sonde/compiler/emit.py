"""Machine blocks to machine code: layout, jump offsets, relocations and line information."""

from __future__ import annotations

from ..bpf import isa
from ..bpf.isa import Insn
from ..spec.object import LineInfo, Reloc
from .mcode import MBlock, Op

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


class Code:
    """The code of a program: the functions that it consists of, one after the other."""

    def __init__(self) -> None:
        self.insns: list[Insn] = []
        self.relocs: list[Reloc] = []
        self.lines: list[LineInfo] = []
        self.starts: dict[str, int] = {}
        self.helpers: set[str] = set()
        self._pc = 0
        self._local: list[tuple[Insn, int, str]] = []

    def add_function(self, name: str, blocks: Sequence[MBlock]) -> None:
        """Append a function's code."""
        self.starts[name] = self._pc
        blocks = _tidy(blocks)
        starts: dict[MBlock, int] = {}
        pc = self._pc
        for block in blocks:
            starts[block] = pc
            pc += sum(2 if op.form == "wide" else 1 for op in block.ops)
        for block in blocks:
            for op in block.ops:
                self._add(op, starts)

    def _add(self, op: Op, starts: dict[MBlock, int]) -> None:
        src = max(op.src, 0)
        insn = Insn(op.opcode, max(op.dst, 0), src, op.off, op.imm)
        if op.target is not None:
            insn.off = starts[op.target] - self._pc - 1
        if op.form == "wide":
            self._relocate_wide(insn, op)
        elif op.form == "call":
            self._relocate_call(insn, op)
        if op.span is not None and (not self.lines or self.lines[-1].span is not op.span):
            self.lines.append(LineInfo(self._pc, op.span, ""))
        self.insns.append(insn)
        self._pc += insn.slots

    def _relocate_wide(self, insn: Insn, op: Op) -> None:
        if op.kind == "map":
            insn.src = isa.BPF_PSEUDO_MAP_FD
            self.relocs.append(Reloc(self._pc, "map", op.symbol))
        elif op.kind == "map_value":
            insn.src, insn.imm = isa.BPF_PSEUDO_MAP_VALUE, 0
            self.relocs.append(Reloc(self._pc, "map_value", op.symbol, op.imm))
        elif op.kind == "subprogram":
            insn.src = isa.BPF_PSEUDO_FUNC
            self._local.append((insn, self._pc, op.symbol))

    def _relocate_call(self, insn: Insn, op: Op) -> None:
        if op.kind == "helper":
            self.helpers.add(op.symbol)
        elif op.kind == "kfunc":
            insn.src = isa.BPF_PSEUDO_KFUNC_CALL
            self.relocs.append(Reloc(self._pc, "kfunc", op.symbol))
        else:
            insn.src = isa.BPF_PSEUDO_CALL
            self._local.append((insn, self._pc, op.symbol))

    def finish(self) -> bytes:
        """Resolve local calls; return the machine code."""
        for insn, pc, name in self._local:
            insn.imm = self.starts[name] - pc - 1 & 0xFFFFFFFF
        return isa.encode(self.insns)


def _tidy(blocks: Sequence[MBlock]) -> list[MBlock]:
    """Thread jumps through empty blocks, drop unreachable blocks, make fall-throughs real."""
    final = {block: _follow(block) for block in blocks}
    for block in blocks:
        for op in block.ops:
            if op.target is not None:
                op.target = final[op.target]
        if block.next is not None:
            block.next = final[block.next]
        _drop_dead_jump(block)
    reachable: set[MBlock] = set()
    work = [blocks[0]]
    while work:
        block = work.pop()
        if block not in reachable:
            reachable.add(block)
            work += block.successors()
    kept = [block for block in blocks if block in reachable]
    for block in kept:  # a goto at the end is a fall-through until the layout says otherwise
        if block.ops and block.ops[-1].form == "goto":
            block.next = block.ops.pop().target
    for block, following in zip(kept, [*kept[1:], None]):
        last = block.ops[-1] if block.ops else None
        if block.next is not None and block.next is not following:
            if last is not None and last.form == "jump" and last.target is following and _invert(last):
                last.target = block.next
            else:
                block.ops.append(Op("goto", isa.JA, target=block.next))
    return kept


_INVERSE = {
    isa.BPF_JEQ: isa.BPF_JNE, isa.BPF_JNE: isa.BPF_JEQ, isa.BPF_JGT: isa.BPF_JLE, isa.BPF_JLE: isa.BPF_JGT,
    isa.BPF_JGE: isa.BPF_JLT, isa.BPF_JLT: isa.BPF_JGE, isa.BPF_JSGT: isa.BPF_JSLE, isa.BPF_JSLE: isa.BPF_JSGT,
    isa.BPF_JSGE: isa.BPF_JSLT, isa.BPF_JSLT: isa.BPF_JSGE,
}  # fmt: skip


def _invert(jump: Op) -> bool:
    """Turn a conditional jump round; False when its condition has no opposite."""
    operation = _INVERSE.get(jump.opcode & 0xF0)
    if operation is None:
        return False
    jump.opcode = jump.opcode & 0x0F | operation
    return True


def _drop_dead_jump(block: MBlock) -> None:
    """A conditional jump to where the block falls through anyway does nothing."""
    while block.ops and block.ops[-1].form == "jump" and block.ops[-1].target is block.next:
        block.ops.pop()


def _follow(block: MBlock) -> MBlock:
    """Return the block that a jump to `block` ends up in."""
    seen = set()
    while block not in seen:
        seen.add(block)
        if not block.ops and block.next is not None:
            block = block.next
        elif len(block.ops) == 1 and block.ops[0].form == "goto":
            assert block.ops[0].target is not None
            block = block.ops[0].target
        else:
            break
    return block

"""After register allocation: operations that compute what a register holds already are dropped.

Each register has the number of the value that it holds; equal numbers mean equal values. Numbers are known at the start of a
block where all ways to it agree, and a comparison with a constant tells the blocks behind it what the register is. What one of
two ways does before they meet again is done ahead of the branch where that spares a jump.
"""

from __future__ import annotations

from ..bpf import isa
from . import machine as m

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    State = dict[int, int]  # register, or offset of a spill slot, to the number of its value

_JEQ, _JNE = (isa.BPF_JMP | isa.BPF_JEQ | isa.BPF_K), (isa.BPF_JMP | isa.BPF_JNE | isa.BPF_K)
_JLE, _JGT = (isa.BPF_JMP | isa.BPF_JLE | isa.BPF_K), (isa.BPF_JMP | isa.BPF_JGT | isa.BPF_K)
_SPILL_LOAD = isa.BPF_LDX | isa.BPF_MEM | isa.BPF_DW
_SPILL_STORE = isa.BPF_STX | isa.BPF_MEM | isa.BPF_DW


def drop_known(blocks: Sequence[m.MBlock], spill_slots: set[int]) -> None:
    """Drop operations whose result is in place already. `spill_slots` are stack offsets that only spilling uses."""
    _Values(blocks, spill_slots).run()


class _Values:
    def __init__(self, blocks: Sequence[m.MBlock], spill_slots: set[int]) -> None:
        self.blocks = blocks
        self.spill_slots = spill_slots
        self.numbers: dict[object, int] = {}
        self.count = 0
        self.before: dict[m.MBlock, list[m.MBlock]] = {block: [] for block in blocks}
        for block in blocks:
            for successor in block.successors():
                self.before[successor].append(block)
        self.at_end: dict[m.MBlock, State] = {}

    def run(self) -> None:
        for block in self.blocks:
            state = self.start(block)
            kept = []
            for op in block.ops:
                if not self.step(op, state):
                    kept.append(op)
            block.ops = kept
            self.at_end[block] = state

    def fresh(self) -> int:
        self.count += 1
        return self.count

    def number_of(self, key: object) -> int:
        """Return the number of a constant or address."""
        if key not in self.numbers:
            self.numbers[key] = self.fresh()
        return self.numbers[key]

    def start(self, block: m.MBlock) -> State:
        """Return what is known at the start of a block."""
        ways = []
        for p in self.before[block]:
            state = self.at_end.get(p)
            if state is None:
                return {}
            ways.append(self.along(p, block, state))
        if not ways:
            return {}
        first = ways[0]
        for other in ways[1:]:
            first = {place: number for place, number in first.items() if other.get(place) == number}
        return dict(first)

    def along(self, before: m.MBlock, block: m.MBlock, state: State) -> State:
        """Add what the branch at the end of `before` tells on the way to `block`."""
        last = before.ops[-1] if before.ops else None
        if last is None or last.form != "jump" or last.target is before.next:
            return state
        equal = last.opcode == _JEQ or (last.opcode == _JLE and not last.imm)
        other = last.opcode == _JNE or (last.opcode == _JGT and not last.imm)
        if not (equal and last.target is block) and not (other and before.next is block):
            return state
        if len(before.ops) > 1 and before.ops[-2].target is not None:
            return state
        old = state.get(last.dst)
        constant = self.number_of(("imm", last.imm))
        if old is None or last.kind != "null":  # of numbers, the verifier need not know that others are the same
            return {**state, last.dst: constant}
        return {place: constant if number == old else number for place, number in state.items()}

    def step(self, op: m.Op, state: State) -> bool:
        """Go over one operation; tell whether it does nothing new."""
        form = op.form
        if form == "mov" and op.core is None:
            number = self.moved(op, state)
            if state.get(op.dst) == number:
                return True
            state[op.dst] = number
            return False
        if form == "load" and op.opcode == _SPILL_LOAD and op.src == m.FP and op.off in self.spill_slots:
            number = state.setdefault(op.off, self.fresh())
            if state.get(op.dst) == number:
                return True
            state[op.dst] = number
            return False
        if form == "store" and op.opcode == _SPILL_STORE and op.dst == m.FP and op.off in self.spill_slots:
            number = state.setdefault(op.src, self.fresh())
            if state.get(op.off) == number:
                return True
            state[op.off] = number
            return False
        if form == "frame" or (form == "wide" and not op.core):
            number = self.number_of((form, op.imm, op.symbol, op.kind))
            if state.get(op.dst) == number:
                return True
            state[op.dst] = number
            return False
        for register in op.defs():
            state[register] = self.fresh()
        return False

    def moved(self, op: m.Op, state: State) -> int:
        """Return the number of what a move puts into its register."""
        if op.src >= 0:
            number = state.setdefault(op.src, self.fresh())
            return number if op.opcode == m.COPY else self.number_of(("low", number))
        imm = op.imm if op.opcode != m.MOV32 else op.imm & 0xFFFFFFFF
        return self.number_of(("imm", imm))


def hoist_edges(blocks: list[m.MBlock]) -> None:
    """Move the few operations of one way ahead of the branch, where both ways meet behind it anyway."""
    before: dict[m.MBlock, list[m.MBlock]] = {block: [] for block in blocks}
    for block in blocks:
        for successor in block.successors():
            before[successor].append(block)
    rank = {block: i for i, block in enumerate(blocks)}
    live: dict[m.MBlock, int] | None = None
    for block in blocks:
        last = block.ops[-1] if block.ops else None
        if last is None or last.form != "jump" or block.next is None or last.target is None:
            continue
        if len(block.ops) > 1 and block.ops[-2].target is not None:
            continue
        for way, other in ((last.target, block.next), (block.next, last.target)):
            if len(before[way]) != 1 or not _may_be_early(way, last):
                continue
            meeting = way.next
            assert meeting is not None
            if rank[meeting] > rank[block] and not any(b.next is meeting for b in before[meeting] if b is not way):
                continue
            if live is None:
                live = live_registers(blocks)
            if any(live[other] >> op.dst & 1 for op in way.ops):
                continue
            block.ops[-1:-1] = way.ops
            way.ops = []
            break


def _may_be_early(way: m.MBlock, jump: m.Op) -> bool:
    """Tell whether a block is short, without effect, and leaves alone what the jump reads."""
    if not way.ops or len(way.ops) > 2 or way.next is None:
        return False
    return all(op.form in ("mov", "frame") and op.dst not in (jump.dst, jump.src) for op in way.ops)


def live_registers(blocks: Sequence[m.MBlock]) -> dict[m.MBlock, int]:
    """Return the machine registers, as bits, that are live at the start of each block."""
    reads: dict[m.MBlock, int] = {}
    writes: dict[m.MBlock, int] = {}
    for block in blocks:
        read = written = 0
        for op in block.ops:
            for register in op.uses():
                read |= 1 << register & ~written
            for register in op.defs():
                written |= 1 << register
        reads[block], writes[block] = read, written
    live = dict(reads)
    changed = True
    while changed:
        changed = False
        for block in reversed(blocks):
            out = 0
            for successor in block.successors():
                out |= live[successor]
            into = reads[block] | out & ~writes[block]
            if into != live[block]:
                live[block] = into
                changed = True
    return live

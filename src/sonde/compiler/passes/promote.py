"""Memory to values: slots that are only loaded and stored whole become SSA values with block parameters.

After Braun et al., "Simple and Efficient Construction of Static Single Assignment Form" (2013), with all blocks known.
A load of a slot that was never stored reads 0.
"""

from __future__ import annotations

from ..ir import Block, Const, Function, Inst, Param, Value
from .graph import predecessors, reachable_blocks, substitute


def promote(function: Function) -> None:
    """Rewrite `function` in place; unreachable blocks are dropped."""
    function.blocks = reachable_blocks(function)
    slots = _promotable(function)
    if not slots:
        return
    state = _Promotion(function, slots)
    for block in function.blocks:
        state.rewrite(block)
    state.add_arguments()
    substitute(function, state.changes)
    for block in function.blocks:
        block.insts = [i for i in block.insts if i not in slots]


def _promotable(function: Function) -> dict[Inst, str]:
    """Return the slots that qualify, with the one type that they are accessed as."""
    types: dict[Inst, str] = {i: "" for i in function.blocks[0].insts if i.op == "alloca"}
    for block in function.blocks:
        for inst in block.insts:
            for i, a in enumerate(inst.args):
                if not isinstance(a, Inst) or a not in types:
                    continue
                if _clears(inst, a):
                    continue
                whole = i == 0 and inst.op in ("load", "store") and not inst.offset and not inst.volatile
                type_ = (inst.type if inst.op == "load" else inst.args[1].type) if whole else ""
                if not whole or types[a] not in ("", type_):
                    del types[a]
                else:
                    types[a] = type_
        if block.end is not None:
            for a in (*block.end.args, *(a for _, arguments in block.end.targets for a in arguments)):
                if isinstance(a, Inst):
                    types.pop(a, None)
    return {slot: type_ for slot, type_ in types.items() if type_}


def _clears(inst: Inst, slot: Inst) -> bool:
    """Tell whether `inst` sets the whole slot to 0, which is a store whatever its type."""
    return inst.op == "memset" and not (inst.imm or inst.offset) and inst.size == slot.size


class _Promotion:
    def __init__(self, function: Function, slots: dict[Inst, str]) -> None:
        self.slots = slots
        self.before = predecessors(function.blocks)
        self.at_end: dict[tuple[Inst, Block], Value] = {}
        self.at_start: dict[tuple[Inst, Block], Value] = {}
        self.changes: dict[Value, Value] = {}
        self.made: list[tuple[Inst, Block, Param]] = []

    def rewrite(self, block: Block) -> None:
        """Take the loads and stores of the slots out of a block."""
        kept = []
        for inst in block.insts:
            slot = inst.args[0] if inst.op in ("load", "store", "memset") else None
            if not isinstance(slot, Inst) or slot not in self.slots:
                kept.append(inst)
            elif inst.op == "store":
                self.at_end[slot, block] = inst.args[1]
            elif inst.op == "memset":
                self.at_end[slot, block] = Const(0, self.slots[slot])
            else:
                self.changes[inst] = self.read(slot, block)
        block.insts = kept

    def read(self, slot: Inst, block: Block) -> Value:
        """Return the value of a slot at the current point of `block` (its end, once the block was rewritten)."""
        if (slot, block) in self.at_end:
            return self.at_end[slot, block]
        value = self.read_start(slot, block)
        self.at_end[slot, block] = value
        return value

    def read_start(self, slot: Inst, block: Block) -> Value:
        """Return the value of a slot at the start of a block: a parameter where several ways lead in."""
        chain = []
        while True:
            if (slot, block) in self.at_start:
                value = self.at_start[slot, block]
                break
            before = self.before[block]
            if not before:
                value = Const(0, self.slots[slot])
                break
            if len(before) > 1:
                value = Param(self.slots[slot], f"{slot.name}.{block.name}")
                self.at_start[slot, block] = value
                self.made.append((slot, block, value))
                break
            chain.append(block)
            block = before[0]
            if (slot, block) in self.at_end:
                value = self.at_end[slot, block]
                break
        for passed in chain:
            self.at_start[slot, passed] = value
        return value

    def add_arguments(self) -> None:
        """Give each new parameter its arguments; reading them may make more parameters."""
        done = 0
        while done < len(self.made):
            slot, block, param = self.made[done]
            done += 1
            block.params.append(param)
            for p in dict.fromkeys(self.before[block]):
                assert p.end is not None
                value = self.read_end(slot, p)
                for target, arguments in p.end.targets:
                    if target is block:
                        arguments.append(value)

    def read_end(self, slot: Inst, block: Block) -> Value:
        if (slot, block) in self.at_end:
            return self.at_end[slot, block]
        return self.read_start(slot, block)

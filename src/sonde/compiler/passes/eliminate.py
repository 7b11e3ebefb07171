"""Dead code: instructions whose result nobody uses and which do nothing else."""

from __future__ import annotations

from ...bpf.helpers import HELPERS
from ..ir import Function, Inst, Value
from .graph import reachable_blocks

_EFFECT = frozenset(["store", "memcpy", "memset", "callsub", "kfunc", "atomic", "tailcall"])


def eliminate(function: Function) -> bool:
    """Rewrite `function` in place; tell whether anything changed."""
    function.blocks = reachable_blocks(function)
    live: set[Value] = set()
    work: list[Value] = []
    for block in function.blocks:
        assert block.end is not None
        work += block.end.args
        for _, arguments in block.end.targets:
            work += arguments
        for inst in block.insts:
            if has_effect(inst):
                live.add(inst)
                work += inst.args
    while work:
        value = work.pop()
        if value not in live:
            live.add(value)
            if isinstance(value, Inst):
                work += value.args
    changed = False
    for block in function.blocks:
        kept = [i for i in block.insts if i in live]
        changed |= len(kept) != len(block.insts)
        block.insts = kept
    return changed


def has_effect(inst: Inst) -> bool:
    """Tell whether an instruction does more than make its result."""
    if inst.op == "call":
        return HELPERS[inst.symbol].has_effect
    return inst.op in _EFFECT or inst.volatile

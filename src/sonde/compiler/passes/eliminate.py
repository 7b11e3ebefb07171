"""Dead code: instructions and block parameters whose value nobody uses, and which do nothing else."""

from __future__ import annotations

from ...bpf.helpers import HELPERS
from ..ir import Inst, Param

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..ir import Block, Function, Value

_EFFECT = frozenset(["store", "memcpy", "memset", "callsub", "kfunc", "atomic", "tailcall"])


def eliminate(function: Function) -> bool:
    """Rewrite `function` in place; tell whether anything changed."""
    passed: dict[Value, list[Value]] = {}  # block parameter -> its arguments
    live: set[Value] = set()
    work: list[Value] = []
    for block in function.blocks:
        end = block.end
        assert end is not None
        work += end.args
        for target, arguments in end.targets:
            for param, argument in zip(target.params, arguments):
                passed.setdefault(param, []).append(argument)
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
            elif isinstance(value, Param):
                work += passed.get(value, ())
    changed = _drop_parameters(function.blocks, live)
    for block in function.blocks:
        kept = [i for i in block.insts if i in live]
        changed |= len(kept) != len(block.insts)
        block.insts = kept
    return changed


def _drop_parameters(blocks: list[Block], live: set[Value]) -> bool:
    if all(p in live for block in blocks for p in block.params):
        return False
    for block in blocks:
        end = block.end
        assert end is not None
        end.targets = [(t, [a for p, a in zip(t.params, arguments) if p in live]) for t, arguments in end.targets]
    for block in blocks:
        block.params = [p for p in block.params if p in live]
    return True


def has_effect(inst: Inst) -> bool:
    """Tell whether an instruction does more than make its result."""
    if inst.op == "call":
        helper = HELPERS.get(inst.symbol)
        return helper is None or helper.has_effect
    return inst.op in _EFFECT or inst.volatile

"""A single field of the context that is needed behind a call is read ahead of it.

What lives across the call is then the field, not the context, which spares a copy of the context's address.
"""

from __future__ import annotations

from ..ir import CTX, Const, Inst
from .memory import effects_of, place_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..ir import Function, Value

_CALLS = frozenset(["call", "callsub", "kfunc", "tailcall", "percpu_value"])


def load_context_early(function: Function) -> None:
    """Rewrite `function` in place."""
    if not function.params or function.params[0].type != CTX or not function.program:
        return
    entry = function.blocks[0]
    if any(inst.op in _CALLS and _changes_context(inst) for block in function.blocks for inst in block.insts):
        return
    first_call = next((i for i, inst in enumerate(entry.insts) if inst.op in _CALLS), len(entry.insts))
    early = set(entry.insts[:first_call])
    loads = _late_uses(function, function.params[0], early)
    if loads is None or len(loads) != 1:
        return
    load = loads[0]
    if any(a not in early and a is not function.params[0] and not isinstance(a, Const) for a in load.args):
        return
    for block in function.blocks:
        if load in block.insts:
            block.insts.remove(load)
    entry.insts.insert(first_call, load)


def _changes_context(inst: Inst) -> bool:
    return inst.op != "percpu_value" and effects_of(inst, {}).context


def _late_uses(function: Function, ctx: Value, early: set[Inst]) -> list[Inst] | None:
    """Return the loads through the context that may come behind a call; None when it is used in another way."""
    loads: list[Inst] = []
    for block in function.blocks:
        for inst in block.insts:
            if inst in early or not any(place_of(a)[0] is ctx for a in inst.args):
                continue
            if inst.op != "load" or inst.volatile:
                return None
            loads.append(inst)
        end = block.end
        assert end is not None
        used = (*end.args, *(a for _, arguments in end.targets for a in arguments))
        if any(place_of(a)[0] is ctx for a in used):
            return None
    return loads

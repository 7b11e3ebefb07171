"""Parameters of blocks that always get the same value become that value."""

from __future__ import annotations

from ..ir import Const, Function, Value
from .graph import predecessors, substitute


def propagate(function: Function) -> bool:
    """Rewrite `function` in place; tell whether anything changed."""
    changed = False
    again = True
    while again:
        again = False
        before = predecessors(function.blocks)
        changes: dict[Value, Value] = {}
        for block in function.blocks[1:]:
            for i in range(len(block.params) - 1, -1, -1):
                value = _only_value(block.params[i], [
                    arguments[i] for p in dict.fromkeys(before[block]) if p.end
                    for target, arguments in p.end.targets if target is block
                ])  # fmt: skip
                if value is None:
                    continue
                while value in changes:
                    value = changes[value]
                if value is block.params[i]:
                    continue
                changes[block.params[i]] = value
                del block.params[i]
                for p in dict.fromkeys(before[block]):
                    if p.end:
                        for target, arguments in p.end.targets:
                            if target is block:
                                del arguments[i]
        if changes:
            substitute(function, changes)
            again = changed = True
    return changed


def _only_value(param: Value, arguments: list[Value]) -> Value | None:
    found: Value | None = None
    for a in arguments:
        if a is param:
            continue
        if found is None:
            found = a
        elif a is not found and not (
            isinstance(a, Const) and isinstance(found, Const) and (a.imm, a.type) == (found.imm, found.type)
        ):
            return None
    return found

"""Simpler control flow: blocks merged, empty ones passed by, jumps led to where a constant argument would send them anyway."""

from __future__ import annotations

from ..ir import COMPARE, Const, Terminator
from .fold import evaluate
from .graph import find_dominators, order_blocks, predecessors, substitute
from .knownbits import width_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..ir import Block, Function, Value

    Target = tuple[Block, list[Value]]


def simplify_branches(function: Function) -> bool:
    """Rewrite `function` in place; tell whether anything changed."""
    changed = _lead_past(function)
    if changed:
        order_blocks(function)
    return _merge(function) or changed


def _lead_past(function: Function) -> bool:
    """Lead jumps past blocks that do nothing, or that decide by what the jump brings along."""
    outside = _users_outside(function)
    changed = False
    for block in function.blocks:
        end = block.end
        assert end is not None
        for i, way in enumerate(end.targets):
            for _ in range(8):
                further = _further(way)
                if further is None or further[0] is block:
                    break
                users = outside[way[0]]
                if users:
                    before = predecessors(function.blocks)
                    idom = find_dominators(function.blocks, before)
                    if not _spares(way[0], further[0], users, before, idom):
                        break
                way = end.targets[i] = further
                changed = True
                if users:
                    return True  # what dominates what has changed
        if end.op == "jump" and _only_returns(end.targets[0][0]):
            target, arguments = end.targets[0]
            assert target.end is not None
            passed: dict[Value, Value] = dict(zip(target.params, arguments))
            block.end = Terminator("ret", [passed.get(a, a) for a in target.end.args], [], target.end.span)
            changed = True
        elif end.op == "branch" and _same(*end.targets):
            block.end = Terminator("jump", [], [end.targets[0]], end.span)
            changed = True
    return changed


def _only_returns(block: Block) -> bool:
    return not block.insts and block.end is not None and block.end.op == "ret"


def _spares(
    block: Block, target: Block, users: set[Block], before: dict[Block, list[Block]], idom: dict[Block, Block]
) -> bool:
    """Tell whether a way past `block` to `target` avoids all `users` of its values.

    They must lie behind the other way out of `block`, which nothing else leads into.
    """
    end = block.end
    assert end is not None
    others = [t for t, _ in end.targets if t is not target]
    if len(others) != 1 or before[others[0]] != [block]:
        return False
    other = others[0]
    for user in users:
        while user is not other:
            if user not in idom:
                break  # no way leads there any more
            if idom[user] is user:
                return False
            user = idom[user]
    return True


def _same(a: Target, b: Target) -> bool:
    return a[0] is b[0] and all(
        x is y or (isinstance(x, Const) and isinstance(y, Const) and (x.imm, x.type) == (y.imm, y.type))
        for x, y in zip(a[1], b[1])
    )


def _users_outside(function: Function) -> dict[Block, set[Block]]:
    """Return, for each block, the other blocks that use its values: a jump past it must not lead there."""
    home: dict[Value, Block] = {}
    for block in function.blocks:
        for value in (*block.params, *block.insts):
            home[value] = block
    users: dict[Block, set[Block]] = {block: set() for block in function.blocks}
    for block in function.blocks:
        end = block.end
        assert end is not None
        used = [a for inst in block.insts for a in inst.args]
        used += end.args
        for _, arguments in end.targets:
            used += arguments
        for a in used:
            where = home.get(a)
            if where is not None and where is not block:
                users[where].add(block)
    return users


def _further(way: Target) -> Target | None:
    """Return where a jump to a block leads that does nothing but jump on, or None."""
    block, arguments = way
    end = block.end
    assert end is not None
    if end.op not in ("jump", "branch") or len(block.insts) > 1:
        return None
    passed: dict[Value, Value] = dict(zip(block.params, arguments))
    if end.op == "jump":
        chosen = None if block.insts else end.targets[0]
    else:
        chosen = _decided(block, passed)
    if chosen is None or chosen[0] is block:
        return None
    return chosen[0], [passed.get(a, a) for a in chosen[1]]


def _decided(block: Block, passed: dict[Value, Value]) -> Target | None:
    """Return the target of a branch whose condition the arguments decide."""
    end = block.end
    assert end is not None
    condition = passed.get(end.args[0], end.args[0])
    if block.insts:
        compare = block.insts[0]
        if compare is not condition or compare.op not in COMPARE:
            return None
        if any(compare in arguments for _, arguments in end.targets):
            return None
        a, b = (passed.get(x, x) for x in compare.args)
        if not isinstance(a, Const) or not isinstance(b, Const):
            return None
        condition = Const(evaluate(compare.op, a.imm, b.imm, width_of(a)), compare.type)
    if not isinstance(condition, Const):
        return None
    return end.targets[0 if condition.imm & (1 << width_of(condition)) - 1 else 1]


def _merge(function: Function) -> bool:
    """Append a block to its only predecessor where that leads nowhere else."""
    before = predecessors(function.blocks)
    changes: dict[Value, Value] = {}
    gone: set[Block] = set()
    for block in function.blocks:
        if block in gone:
            continue
        while True:
            end = block.end
            assert end is not None
            if end.op != "jump":
                break
            target, arguments = end.targets[0]
            if target is block or len(before[target]) != 1 or target is function.blocks[0]:
                break
            changes.update(zip(target.params, arguments))
            block.insts += target.insts
            block.end = target.end
            gone.add(target)
    if not gone:
        return False
    function.blocks = [block for block in function.blocks if block not in gone]
    substitute(function, changes)
    return True

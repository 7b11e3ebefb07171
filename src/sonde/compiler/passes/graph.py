"""The control-flow graph of a function: blocks in order, predecessors, dominators, loops; replacing values."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import TypeVar

    from ..ir import Block, Function, Value

    Node = TypeVar("Node")


def reachable_blocks(function: Function) -> list[Block]:
    """Return the reachable blocks in reverse post-order."""
    seen: set[Block] = {function.blocks[0]}
    order: list[Block] = []
    stack: list[tuple[Block, int]] = [(function.blocks[0], 0)]
    while stack:
        block, i = stack.pop()
        targets = block.end.targets if block.end is not None else []
        if i < len(targets):
            stack.append((block, i + 1))
            target = targets[i][0]
            if target not in seen:
                seen.add(target)
                stack.append((target, 0))
        else:
            order.append(block)
    order.reverse()
    return order


def order_blocks(function: Function) -> None:
    """Drop unreachable blocks and put the others in reverse post-order, in which all passes expect them."""
    function.blocks = reachable_blocks(function)


def predecessors(blocks: list[Block]) -> dict[Block, list[Block]]:
    """Return the predecessors of each block; a branch with both sides to one block counts twice."""
    found: dict[Block, list[Block]] = {block: [] for block in blocks}
    for block in blocks:
        if block.end is not None:
            for target, _ in block.end.targets:
                found[target].append(block)
    return found


def dominators(blocks: list[Block]) -> dict[Block, Block]:
    """Return the immediate dominator of each block (of the first: itself); `blocks` in reverse post-order."""
    return find_dominators(blocks, predecessors(blocks))


def find_dominators(blocks: Sequence[Node], before: Mapping[Node, Sequence[Node]]) -> dict[Node, Node]:
    """The same for any graph, given the predecessors of each node. Cooper, Harvey, Kennedy 2001."""
    index = {block: i for i, block in enumerate(blocks)}
    idom: dict[Node, Node] = {blocks[0]: blocks[0]}
    changed = True
    while changed:
        changed = False
        for block in blocks[1:]:
            new: Node | None = None
            for p in before[block]:
                if p in idom:
                    new = p if new is None else _meet(p, new, idom, index)
            if new is not None and idom.get(block) is not new:
                idom[block] = new
                changed = True
    return idom


def _meet(a: Node, b: Node, idom: dict[Node, Node], index: dict[Node, int]) -> Node:
    while a is not b:
        while index[a] > index[b]:
            a = idom[a]
        while index[b] > index[a]:
            b = idom[b]
    return a


def substitute(function: Function, changes: dict[Value, Value]) -> None:
    """Replace operands throughout; chains of replacements are followed."""
    if not changes:
        return

    def final(v: Value) -> Value:
        while v in changes:
            v = changes[v]
        return v

    for block in function.blocks:
        for inst in block.insts:
            inst.args = [final(a) for a in inst.args]
        end = block.end
        if end is not None:
            end.args = [final(a) for a in end.args]
            end.targets = [(target, [final(a) for a in arguments]) for target, arguments in end.targets]


def loop_depths(blocks: list[Block]) -> dict[Block, int]:
    """Return how many loops each block is in. `blocks` are in reverse post-order."""
    depths = dict.fromkeys(blocks, 0)
    index = {block: i for i, block in enumerate(blocks)}
    bodies: dict[Block, set[Block]] = {}
    for block in blocks:
        assert block.end is not None
        for head, _ in block.end.targets:
            if index[head] <= index[block]:
                bodies.setdefault(head, {head}).add(block)
    if not bodies:
        return depths
    before = predecessors(blocks)
    for head, body in bodies.items():
        work = [b for b in body if b is not head]
        while work:
            for p in before[work.pop()]:
                if p not in body:
                    body.add(p)
                    work.append(p)
        for block in body:
            depths[block] += 1
    return depths

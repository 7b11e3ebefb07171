"""After register allocation: fewer jumps and shorter code.

Jumps are threaded through empty blocks, ends that two blocks have in common are shared, and blocks are put in an order in
which most of them simply follow their predecessor.
"""

from __future__ import annotations

from ..bpf import isa
from .machine import FP, MBlock, Op, alu, mov
from .peephole import hoist_edges

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

_INVERSE = {
    isa.BPF_JEQ: isa.BPF_JNE, isa.BPF_JNE: isa.BPF_JEQ, isa.BPF_JGT: isa.BPF_JLE, isa.BPF_JLE: isa.BPF_JGT,
    isa.BPF_JGE: isa.BPF_JLT, isa.BPF_JLT: isa.BPF_JGE, isa.BPF_JSGT: isa.BPF_JSLE, isa.BPF_JSLE: isa.BPF_JSGT,
    isa.BPF_JSGE: isa.BPF_JSLT, isa.BPF_JSLT: isa.BPF_JSGE,
}  # fmt: skip


def tidy(blocks: Sequence[MBlock]) -> list[MBlock]:
    """Return the blocks that are left, in layout order, with every jump made explicit."""
    kept = _thread(blocks)
    hoist_edges(kept)
    kept = _thread(kept)
    for block in kept:
        _expand(block)
    while _share_ends(kept):
        kept = _thread(kept)
    order = _order(kept)
    for block, following in zip(order, [*order[1:], None]):
        _end(block, following)
    return order


def _expand(block: MBlock) -> None:
    """Make two operations of each stack address."""
    ops: list[Op] = []
    for op in block.ops:
        if op.form == "frame":
            ops += (mov(op.dst, FP), alu(isa.BPF_ADD, op.dst, imm=op.imm))
            ops[-1].span = ops[-2].span = op.span
        else:
            ops.append(op)
    block.ops = ops


def _thread(blocks: Sequence[MBlock]) -> list[MBlock]:
    """Lead jumps past empty blocks; drop jumps that lead where the block goes anyway, and unreachable blocks."""
    final = {block: _follow(block) for block in blocks}
    for block in blocks:
        if block.next is not None:
            block.next = final.get(block.next, block.next)
        for op in block.ops:
            if op.target is not None:
                op.target = final.get(op.target, op.target)
        while block.ops and block.ops[-1].form == "jump" and block.ops[-1].target is block.next:
            block.ops.pop()
    reachable: set[MBlock] = set()
    work = [final[blocks[0]]]
    while work:
        block = work.pop()
        if block not in reachable:
            reachable.add(block)
            work += block.successors()
    return [block for block in blocks if block in reachable]


def _follow(block: MBlock) -> MBlock:
    """Return the block that a jump to `block` ends up in."""
    seen = set()
    while not block.ops and block.next is not None and block not in seen:
        seen.add(block)
        block = block.next
    return block


def _share_ends(blocks: list[MBlock]) -> bool:
    """Let blocks that go on at the same place share their last operations; tell whether something changed."""
    groups: dict[MBlock | None, list[MBlock]] = {}
    for block in blocks:
        if block.ops and block.ops[-1].target is None:
            groups.setdefault(block.next, []).append(block)
    changed = False
    for following, members in groups.items():
        while len(members) > 1:
            first = members.pop()
            best, length = None, 0
            for other in members:
                common = _common_end(first, other)
                if common > length:
                    best, length = other, common
            if best is None or (length == 1 and following is None and not _falls_into_exit(first, best, blocks)):
                continue
            if length == len(best.ops):
                _cut(first, length, best)
            elif length == len(first.ops):
                _cut(best, length, first)
            elif length > 1:
                shared = MBlock("shared", min(first.depth, best.depth))
                shared.ops, shared.next = best.ops[-length:], following
                blocks.append(shared)
                _cut(first, length, shared)
                _cut(best, length, shared)
            else:
                continue
            changed = True
    return changed


def _falls_into_exit(a: MBlock, b: MBlock, blocks: list[MBlock]) -> bool:
    """Tell whether one of two blocks that end with `exit` is nothing else, and waits for a block to stand before it."""
    if len(a.ops) > 1 and len(b.ops) > 1:
        return False
    alone = a if len(a.ops) == 1 else b
    return not any(b.next is alone and not (b.ops and b.ops[-1].form == "jump") for b in blocks)


def _cut(block: MBlock, length: int, goes_to: MBlock) -> None:
    del block.ops[len(block.ops) - length :]
    block.next = goes_to


def _common_end(a: MBlock, b: MBlock) -> int:
    """Return how many operations at the ends of two blocks are the same."""
    length = 0
    for one, other in zip(reversed(a.ops), reversed(b.ops)):
        if not one.same(other):
            break
        length += 1
    return length


def _order(blocks: list[MBlock]) -> list[MBlock]:
    """Return the blocks so that as many as possible stand before the one they go on to.

    `blocks` come in an order in which a block stands before those that it leads to, loops apart; a chain is continued with the
    earliest of the ways on, so that what several ways join in comes after all of them.
    """
    rank = {block: i for i, block in enumerate(blocks)}
    placed: set[MBlock] = set()
    order: list[MBlock] = []
    for block in blocks:
        following: MBlock | None = block
        while following is not None and following not in placed:
            placed.add(following)
            order.append(following)
            ways = [b for b in following.successors() if b not in placed]
            if following.ops and following.ops[-1].opcode & 0xF0 == isa.BPF_JSET and following.ops[-1].form == "jump":
                ways = [b for b in ways if b is following.next]  # there is no jump for the opposite
            following = min(ways, key=rank.__getitem__) if ways else None
    return order


def _end(block: MBlock, following: MBlock | None) -> None:
    """Make the way on from `block` explicit, given the block that stands behind it."""
    if block.next is None or block.next is following:
        return
    last = block.ops[-1] if block.ops else None
    if last is not None and last.form == "jump" and last.target is following:
        operation = _INVERSE.get(last.opcode & 0xF0)
        if operation is not None:
            last.opcode = last.opcode & 0x0F | operation
            last.target, block.next = block.next, following
            return
    if len(block.next.ops) == 1 and block.next.ops[0].form == "exit":
        block.ops.append(block.next.ops[0])
        block.next = None
        return
    block.ops.append(Op("goto", isa.JA, target=block.next))

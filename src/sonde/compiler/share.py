"""Before register allocation: addresses that calls need three times or more are made once and kept in a register.

A stack address or a map takes two instructions to make, and one to copy. Where no register is left for it,
the allocator makes it again at each use, so nothing is lost.
"""

from __future__ import annotations

from . import machine as m
from .passes.graph import find_dominators

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    Use = tuple[m.MBlock, m.Op]

_WORTH = 3


def share_addresses(blocks: Sequence[m.MBlock], number: int) -> None:
    """Rewrite the code in place; virtual registers from `number` on are free."""
    uses: dict[object, list[Use]] = {}
    for block in blocks:
        for op in block.ops:
            if op.form == "frame":
                uses.setdefault(op.imm, []).append((block, op))
            elif op.kind == "map" and op.form == "wide":
                uses.setdefault(op.symbol, []).append((block, op))
    wanted = [found for found in uses.values() if len(found) >= _WORTH]
    if not wanted:
        return
    before: dict[m.MBlock, list[m.MBlock]] = {block: [] for block in blocks}
    for block in blocks:
        for successor in block.successors():
            before[successor].append(block)
    idom = find_dominators(blocks, before)
    rank = {block: i for i, block in enumerate(blocks)}
    for found in wanted:
        home = found[0][0]
        for block, _ in found[1:]:
            home = _meet(home, block, idom, rank)
        _make_once(found, home, number)
        number += 1


def _meet(a: m.MBlock, b: m.MBlock, idom: dict[m.MBlock, m.MBlock], rank: dict[m.MBlock, int]) -> m.MBlock:
    """Return the nearest block that every way to both passes."""
    while a is not b:
        while rank[a] > rank[b]:
            a = idom[a]
        while rank[b] > rank[a]:
            b = idom[b]
    return a


def _make_once(uses: list[Use], home: m.MBlock, register: int) -> None:
    """Make the address in `home`, ahead of the first use or of the jumps at its end, and copy it for each use."""
    first = uses[0][1]
    made = m.Op(first.form, first.opcode, register, imm=first.imm, symbol=first.symbol, kind=first.kind)
    made.span = first.span
    used = {id(op) for block, op in uses if block is home}
    at = len(home.ops)
    while at and home.ops[at - 1].target is not None:
        at -= 1
    for i, op in enumerate(home.ops):
        if id(op) in used:
            at = i
            break
    home.ops.insert(at, made)
    for _, op in uses:
        op.form, op.opcode, op.src, op.imm, op.symbol, op.kind = "mov", m.COPY, register, 0, "", ""

"""Common subexpressions: what was computed already, on a way that every path here took, is not computed again.

A branch tells the blocks behind it how its condition came out.
"""

from __future__ import annotations

from ...bpf.helpers import HELPERS
from ..ir import BINARY, COMPARE, I1, Const, Inst, Terminator
from .fold import INVERSE
from .graph import find_dominators, order_blocks, predecessors, substitute
from .knownbits import width_of
from .ranges import narrowed, outcome, range_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..ir import Block, Function, Value
    from .ranges import Range

    Table = dict[object, "Value | Range"]

_PURE = BINARY | COMPARE | frozenset(["zext", "sext", "trunc", "cast", "neg", "bswap", "ptradd", "core", "bound"])
_COMMUTATIVE = frozenset(["add", "mul", "and", "or", "xor", "eq", "ne"])
_DATA = frozenset(["map_value", "percpu_value"])


def eliminate_common(function: Function) -> bool:
    """Rewrite `function` in place; tell whether anything changed."""
    blocks = function.blocks
    before = predecessors(blocks)
    idom = find_dominators(blocks, before)
    tables: dict[Block, Table] = {}
    changes: dict[Value, Value] = {}
    mended = decided = False
    for block in blocks:
        table = dict(tables[idom[block]]) if block is not blocks[0] else {}
        tables[block] = table
        if len(before[block]) == 1:
            _learn(before[block][0], block, table)
        kept = []
        for inst in block.insts:
            if changes:
                inst.args = [changes.get(a, a) for a in inst.args]
            key = _key(inst)
            known = _known_comparison(inst, table)
            if known is not None:
                changes[inst] = known
                continue
            if key is None:
                kept.append(inst)
                continue
            found = table.get(key)
            if found is None:
                table[key] = inst
            elif inst.op in _DATA and isinstance(found, Inst) and found.imm != inst.imm:
                inst.op, inst.args, inst.imm = "ptradd", [found, Const(inst.imm - found.imm)], 0
                inst.symbol = ""
                mended = True
            elif not isinstance(found, tuple):
                changes[inst] = found
                continue
            kept.append(inst)
        block.insts = kept
        decided |= _decide(block, table, changes)
    substitute(function, changes)
    if decided:
        order_blocks(function)
    return bool(changes) or mended or decided


def _key(inst: Inst) -> object | None:
    """Return what two equal operations have in common, or None for those that may differ each time."""
    op = inst.op
    if op in _PURE:
        parts = [(a.imm, a.type) if isinstance(a, Const) else id(a) for a in inst.args]
        if op in _COMMUTATIVE and isinstance(parts[0], int) and isinstance(parts[1], int) and parts[0] > parts[1]:
            parts.reverse()
        return (op, inst.type, inst.imm, inst.low, inst.core, *parts)
    if op in _DATA:
        return (op, inst.symbol)
    if op == "call" and HELPERS[inst.symbol].constant:
        return (op, inst.type, inst.symbol, *((a.imm, a.type) if isinstance(a, Const) else id(a) for a in inst.args))
    return None


def _learn(before: Block, block: Block, table: Table) -> None:
    """Note how the condition came out that leads to `block` alone."""
    end = before.end
    if end is None or end.op != "branch" or not isinstance(end.args[0], Inst):
        return
    condition = end.args[0]
    truth = end.targets[0][0] is block
    table["branch", id(condition)] = Const(int(truth), I1)
    if condition.op in COMPARE:
        key = _key(condition)
        assert isinstance(key, tuple)
        a, b = condition.args
        if isinstance(b, Const):
            op = condition.op if truth else INVERSE[condition.op]
            earlier = table.get(("range", id(a)))
            range_ = earlier if isinstance(earlier, tuple) else range_of(a)
            table["range", id(a)] = narrowed(range_, op, b.imm, width_of(a))
        table[key] = Const(int(truth), I1)
        opposite = (INVERSE[condition.op], *key[1:])
        table[opposite] = Const(int(not truth), I1)


def _known_comparison(inst: Inst, table: Table) -> Const | None:
    """Return the result of a comparison that the ranges known here decide."""
    if inst.op not in COMPARE:
        return None
    a, b = inst.args
    if not isinstance(b, Const):
        return None
    range_ = table.get(("range", id(a)))
    result = outcome(range_, inst.op, b.imm, width_of(a)) if isinstance(range_, tuple) else None
    return None if result is None else Const(int(result), I1)


def _decide(block: Block, table: Table, changes: dict[Value, Value]) -> bool:
    """Turn a branch on a condition that is known here into a jump."""
    end = block.end
    assert end is not None
    if end.op != "branch":
        return False
    condition = changes.get(end.args[0], end.args[0])
    known = condition if isinstance(condition, Const) else table.get(("branch", id(condition)))
    if not isinstance(known, Const):
        return False
    block.end = Terminator("jump", [], [end.targets[0 if known.imm else 1]], end.span)
    return True

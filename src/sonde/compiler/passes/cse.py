"""Common subexpressions: an operation that was done already, on a way that every path here took, is not done again."""

from __future__ import annotations

from ...bpf.helpers import HELPERS
from ..ir import BINARY, COMPARE, CTX, Block, Const, Function, Inst, Value
from .graph import dominators, reachable_blocks, substitute

_PURE = BINARY | COMPARE | frozenset(["zext", "sext", "trunc", "cast", "neg", "bswap", "ptradd", "core", "map_value",
                                      "percpu_value", "bound"])  # fmt: skip


def eliminate_common(function: Function) -> bool:
    """Rewrite `function` in place; tell whether anything changed."""
    blocks = function.blocks = reachable_blocks(function)
    idom = dominators(blocks)
    tables: dict[Block, dict[object, Inst]] = {}
    changes: dict[Value, Value] = {}
    for block in blocks:
        table = dict(tables[idom[block]]) if block is not blocks[0] else {}
        kept = []
        for inst in block.insts:
            inst.args = [changes.get(a, a) for a in inst.args]
            key = _key(inst)
            found = table.get(key) if key is not None else None
            if found is not None:
                changes[inst] = found
                continue
            if key is not None:
                table[key] = inst
            kept.append(inst)
        block.insts = kept
        tables[block] = table
    substitute(function, changes)
    return bool(changes)


def _key(inst: Inst) -> object | None:
    """Return what two equal operations have in common, or None for those that may differ each time."""
    if inst.op == "call":
        if not HELPERS[inst.symbol].constant:
            return None
    elif inst.op == "load":
        if inst.args[0].type != CTX or inst.volatile:
            return None  # programs do not write to their context: what it holds stays
    elif inst.op not in _PURE:
        return None
    arguments = tuple(("const", a.imm, a.type) if isinstance(a, Const) else id(a) for a in inst.args)
    return (inst.op, inst.type, inst.symbol, inst.imm, inst.low, inst.offset, inst.core, arguments)

"""Is an IR function well formed? Types agree, values are defined once and before use, blocks end and get their arguments.

Run by tests after each pass, and by --explain; compiling does not need it.
"""

from __future__ import annotations

from .ir import BINARY, COMPARE, I1, Block, Const, Function, Inst, Value
from .passes.graph import dominators, reachable_blocks


def check_function(function: Function) -> list[str]:
    """Return what is wrong with a function, in words; an empty list when all is well."""
    problems: list[str] = []
    blocks = reachable_blocks(function) if all(b.end for b in function.blocks) else []
    if not blocks:
        return ["a block has no terminator"]
    where: dict[Value, tuple[Block, int]] = dict.fromkeys(function.params, (blocks[0], -1))
    for block in blocks:
        for p in block.params:
            where[p] = (block, -1)
        for i, inst in enumerate(block.insts):
            if inst in where:
                problems.append(f"%{inst.name} is defined twice")
            where[inst] = (block, i)
    idom = dominators(blocks)
    for block in blocks:
        for i, inst in enumerate(block.insts):
            problems += _check_types(inst)
            problems += [wrong for a in inst.args if (wrong := _check_use(a, block, i, where, idom))]
        assert block.end is not None
        uses = [*block.end.args, *(a for _, arguments in block.end.targets for a in arguments)]
        problems += [wrong for a in uses if (wrong := _check_use(a, block, len(block.insts), where, idom))]
        for target, arguments in block.end.targets:
            if [a.type for a in arguments] != [p.type for p in target.params]:
                problems.append(
                    f"{block.name} passes {len(arguments)} arguments of wrong number or type to {target.name}"
                )
    return problems


def _check_types(inst: Inst) -> list[str]:
    if inst.op in BINARY or inst.op in COMPARE:
        a, b = inst.args
        if inst.op not in ("shl", "lshr", "ashr") and a.type != b.type and not isinstance(b, Const):
            return [f"%{inst.name}: {inst.op} of {a.type} and {b.type}"]
        if inst.op in COMPARE and inst.type != I1:
            return [f"%{inst.name}: a comparison gives i1, not {inst.type}"]
    return []


def _check_use(v: Value, block: Block, at: int, where: dict[Value, tuple[Block, int]], idom: dict[Block, Block]) -> str:
    if isinstance(v, Const):
        return ""
    if v not in where:
        return f"%{v.name} is used in {block.name} but not defined"
    home, i = where[v]
    if home is block:
        return "" if i < at else f"%{v.name} is used in {block.name} before it is defined"
    while idom[block] is not block:
        block = idom[block]
        if block is home:
            return ""
    return f"%{v.name} of {home.name} is used where {home.name} may not have run"

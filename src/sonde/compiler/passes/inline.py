"""Subprograms that are called once, or are no longer than a call and its return, become part of their callers."""

from __future__ import annotations

from ...errors import CompileError, Diagnostic
from ..ir import Block, Const, Inst, Param, Terminator
from .graph import reachable_blocks

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..ir import Function, Module, Value

_SMALL = 6  # instructions: about what passing arguments and results costs


def called(function: Function) -> list[str]:
    """Return the names of the functions that a function calls, or hands to helpers that do, without repetition."""
    names = (i.symbol for block in function.blocks for i in block.insts if i.op in ("callsub", "funcaddr"))
    return list(dict.fromkeys(names))


def callees_first(module: Module, start: Function | None = None) -> list[Function]:
    """Return the functions of a module, or those that `start` reaches, so that callees come before their callers.

    Raises CompileError where functions call each other in a circle.
    """
    order: list[Function] = []

    def visit(each: Function, callers: tuple[Function, ...]) -> None:
        if each in callers:
            raise CompileError([Diagnostic("ERROR", f"function {each.name} calls itself, which eBPF cannot do")])
        if each not in order:
            for name in called(each):
                visit(module.functions[name], (*callers, each))
            order.append(each)

    for function in [start] if start is not None else module.functions.values():
        visit(function, ())
    return order


def inline(function: Function, module: Module) -> bool:
    """Put what `function` calls into it, where that pays. What it calls has been optimised already."""
    if not any(inst.op == "callsub" for block in function.blocks for inst in block.insts):
        return False
    calls = _count_calls(module)
    changed = False
    at = 0
    while at < len(function.blocks):
        block = function.blocks[at]
        for i, inst in enumerate(block.insts):
            if inst.op == "callsub" and _pays(module.functions[inst.symbol], calls[inst.symbol]):
                _expand(function, block, i, module.functions[inst.symbol])
                changed = True
                break
        at += 1
    return changed


def _count_calls(module: Module) -> dict[str, int]:
    """Return how often each function is called; those whose address is taken count as called often."""
    calls = dict.fromkeys(module.functions, 0)
    for function in module.functions.values():
        for block in function.blocks:
            for inst in block.insts:
                if inst.op in ("callsub", "funcaddr"):
                    calls[inst.symbol] += 1 if inst.op == "callsub" else 2
    return calls


def _pays(callee: Function, calls: int) -> bool:
    if callee.callback or callee.program:
        return False
    return calls == 1 or sum(len(block.insts) + 1 for block in callee.blocks) <= _SMALL


def _expand(function: Function, block: Block, index: int, callee: Function) -> None:
    """Replace one call by a copy of what it calls. The rest of its block becomes a block of its own, behind the copy."""
    call = block.insts[index]
    result = Param(call.type, call.name)
    rest = Block(f"{block.name}.after", [result])
    rest.insts, rest.end = block.insts[index + 1 :], block.end
    values: dict[Value, Value] = dict(zip(callee.params, call.args))
    copies = _copy_blocks(callee, values, rest, call)
    slots = [i for b in copies for i in b.insts if i.op == "alloca"]
    for b in copies:
        b.insts = [i for i in b.insts if i.op != "alloca"]
    del block.insts[index:]
    block.end = Terminator("jump", [], [(copies[0], [])], call.span)
    function.blocks[0].insts[:0] = slots
    at = function.blocks.index(block) + 1
    function.blocks[at:at] = [*copies, rest]
    for b in function.blocks:
        for inst in b.insts:
            inst.args = [result if a is call else a for a in inst.args]
        if b.end is not None:
            b.end.args = [result if a is call else a for a in b.end.args]
            b.end.targets = [(t, [result if a is call else a for a in given]) for t, given in b.end.targets]


def _copy_blocks(callee: Function, values: dict[Value, Value], rest: Block, call: Inst) -> list[Block]:
    """Return copies of the blocks of `callee` that go on in `rest` where it returns. `values` maps the originals."""
    order = reachable_blocks(callee)
    copies: dict[Block, Block] = {}
    for block in order:
        copy = copies[block] = Block(f"{callee.name}.{block.name}", [Param(p.type, p.name) for p in block.params])
        values.update(zip(block.params, copy.params))
        for inst in block.insts:
            twin = Inst(inst.op, inst.type, [], imm=inst.imm, low=inst.low, symbol=inst.symbol, offset=inst.offset,
                        src_offset=inst.src_offset, size=inst.size, align=inst.align, core=inst.core, fetch=inst.fetch,
                        volatile=inst.volatile, span=inst.span or call.span, name=inst.name)  # fmt: skip
            values[inst] = twin
            copy.insts.append(twin)
    for block in order:
        copy = copies[block]
        for inst, twin in zip(block.insts, copy.insts):
            twin.args = [values.get(a, a) for a in inst.args]
        end = block.end
        assert end is not None
        arguments = [values.get(a, a) for a in end.args]
        if end.op == "ret":
            copy.end = Terminator("jump", [], [(rest, arguments or [Const(0, call.type)])], end.span)
        else:
            targets = [(copies[t], [values.get(a, a) for a in given]) for t, given in end.targets]
            copy.end = Terminator(end.op, arguments, targets, end.span)
    return list(copies.values())

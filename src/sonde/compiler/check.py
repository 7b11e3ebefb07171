"""Is a module well formed? Types agree, values are defined once and before use, blocks end and get their arguments.

Run by tests before and after each pass; compiling does not need it.
"""

from __future__ import annotations

from .ir import (
    BINARY,
    COMPARE,
    FUNC,
    I1,
    I32,
    I64,
    MAPOBJ,
    NONE,
    STACK,
    TERMINATORS,
    WIDTH,
    Const,
    Inst,
    is_pointer,
)
from .passes.graph import dominators, reachable_blocks

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .ir import Block, Function, Module, Terminator, Value

_ATOMICS = {"add": 2, "or": 2, "and": 2, "xor": 2, "xchg": 2, "cmpxchg": 3}  # operands


def check_module(module: Module) -> list[str]:
    """Return what is wrong with a module, in words; an empty list when all is well."""
    problems = []
    for function in module.functions.values():
        problems += [f"{function.name}: {problem}" for problem in check_function(function)]
        for block in function.blocks:
            for inst in block.insts:
                problems += [f"{function.name}: {problem}" for problem in _check_symbol(inst, module)]
    return problems


def _check_symbol(inst: Inst, module: Module) -> Iterator[str]:
    if inst.op in ("map", "map_value", "percpu_value") and inst.symbol not in module.maps:
        yield f"%{inst.name}: there is no map {inst.symbol!r}"
    if inst.op in ("callsub", "funcaddr"):
        callee = module.functions.get(inst.symbol)
        if callee is None:
            yield f"%{inst.name}: there is no function {inst.symbol!r}"
        elif inst.op == "callsub" and len(inst.args) != len(callee.params):
            yield f"%{inst.name}: {inst.symbol} takes {len(callee.params)} arguments, {len(inst.args)} given"


def check_function(function: Function) -> list[str]:
    """Return what is wrong with a function alone."""
    if not function.blocks:
        return ["it has no block"]
    for block in function.blocks:
        if block.end is None or block.end.op not in TERMINATORS:
            return [f"block {block.name} does not end with a terminator"]
    problems = []
    if function.blocks[0].params:
        problems.append("the first block takes parameters")
    if len(function.params) > 5:
        problems.append("a function takes at most 5 arguments")
    blocks = reachable_blocks(function)
    where = _definitions(function, blocks, problems)
    idom = dominators(blocks)
    for block in blocks:
        for i, inst in enumerate(block.insts):
            problems += _check_inst(inst, block is blocks[0])
            problems += [p for a in inst.args if (p := _check_use(a, block, i, where, idom))]
        assert block.end is not None
        problems += _check_end(block, block.end, function)
        uses = [*block.end.args, *(a for _, arguments in block.end.targets for a in arguments)]
        problems += [p for a in uses if (p := _check_use(a, block, len(block.insts), where, idom))]
    return problems


def _definitions(function: Function, blocks: list[Block], problems: list[str]) -> dict[Value, tuple[Block, int]]:
    """Return where each value is defined: a block and the position in it."""
    where: dict[Value, tuple[Block, int]] = dict.fromkeys(function.params, (blocks[0], -1))
    for block in blocks:
        for value, i in (*((p, -1) for p in block.params), *((inst, i) for i, inst in enumerate(block.insts))):
            if value in where:
                problems.append(f"%{value.name} is defined twice")
            where[value] = (block, i)
    return where


def _check_use(v: Value, block: Block, at: int, where: dict[Value, tuple[Block, int]], idom: dict[Block, Block]) -> str:
    if isinstance(v, Const):
        return ""
    if v not in where:
        return f"%{v.name} is used in {block.name} but not defined"
    home, i = where[v]
    if v.type == NONE:
        return f"%{v.name} has no value"
    if home is block:
        return "" if i < at else f"%{v.name} is used in {block.name} before it is defined"
    while idom[block] is not block:
        block = idom[block]
        if block is home:
            return ""
    return f"%{v.name} of {home.name} is used where {home.name} may not have run"


def _check_end(block: Block, end: Terminator, function: Function) -> Iterator[str]:
    wanted = {"jump": 1, "branch": 2}.get(end.op, 0)
    if len(end.targets) != wanted:
        yield f"{block.name}: {end.op} leads to {len(end.targets)} blocks, not {wanted}"
    if len(end.args) != (end.op in ("branch", "ret")):
        yield f"{block.name}: {end.op} has {len(end.args)} operands"
    elif end.op == "ret" and not _is_like(end.args[0].type, function.result):
        yield f"{block.name}: returns {end.args[0].type}, not {function.result}"
    for target, arguments in end.targets:
        if [a.type for a in arguments] != [p.type for p in target.params]:
            yield f"{block.name} passes arguments of wrong number or type to {target.name}"


def _is_like(have: str, want: str) -> bool:
    return have == want or (is_pointer(have) and is_pointer(want))


# Instructions -------------------------------------------------------------------------------------------------------


def _check_inst(inst: Inst, in_entry: bool) -> Iterator[str]:
    rule = _RULES.get(inst.op)
    if rule is None and inst.op not in BINARY and inst.op not in COMPARE:
        yield f"%{inst.name}: there is no operation {inst.op!r}"
        return
    problem = rule(inst) if rule is not None else _binary(inst)
    if problem:
        yield f"%{inst.name}: {problem}"
    if inst.op == "alloca" and not in_entry:
        yield f"%{inst.name}: slots are reserved in the first block"


def _binary(inst: Inst) -> str:
    if len(inst.args) != 2:
        return f"{inst.op} has {len(inst.args)} operands"
    a, b = inst.args
    if inst.op in COMPARE:
        if inst.type != I1:
            return f"a comparison gives i1, not {inst.type}"
        return "" if _is_like(a.type, b.type) else f"compares {a.type} and {b.type}"
    if a.type not in WIDTH or a.type != inst.type or b.type != a.type:
        return f"{inst.op} of {a.type} and {b.type} to {inst.type}"
    return ""


def _extension(inst: Inst) -> str:
    have, want = WIDTH.get(inst.args[0].type, 0), WIDTH.get(inst.type, 0)
    good = 0 < want < have if inst.op == "trunc" else 0 < have < want
    return "" if good else f"{inst.op} from {inst.args[0].type} to {inst.type}"


def _cast(inst: Inst) -> str:
    good = all(is_pointer(t) or t == I64 for t in (inst.args[0].type, inst.type))
    return "" if good else f"cast from {inst.args[0].type} to {inst.type}"


def _unary(inst: Inst) -> str:
    return "" if len(inst.args) == 1 and inst.args[0].type == inst.type else f"{inst.op} changes the type"


def _ptradd(inst: Inst) -> str:
    p, offset = inst.args
    if offset.type != I64:
        return f"the distance is {offset.type}, not i64"
    return "" if p.type == inst.type else f"turns {p.type} into {inst.type}"


def _address(p: Value) -> str:
    return "" if is_pointer(p.type) or p.type == I64 else f"{p.type} is no address"


def _load(inst: Inst) -> str:
    return _address(inst.args[0]) or ("" if inst.type != NONE else "loads nothing")


def _store(inst: Inst) -> str:
    return _address(inst.args[0]) or ("" if len(inst.args) == 2 and inst.type == NONE else "a store has two operands")


def _copy(inst: Inst) -> str:
    wrong = next((p for a in inst.args if (p := _address(a))), "")
    return wrong or ("" if inst.size >= 0 else "a negative size")


def _alloca(inst: Inst) -> str:
    if inst.align not in (1, 2, 4, 8) or inst.size <= 0:
        return f"a slot of {inst.size} bytes aligned to {inst.align}"
    return "" if inst.type == STACK else f"a slot has the type {STACK}"


def _atomic(inst: Inst) -> str:
    operands = _ATOMICS.get(inst.symbol)
    if operands is None:
        return f"there is no atomic {inst.symbol!r}"
    if len(inst.args) != operands or any(a.type not in (I32, I64) for a in inst.args[1:]):
        return f"atomic {inst.symbol} takes {operands - 1} numbers of 32 or 64 bits"
    return _address(inst.args[0])


def _call(inst: Inst) -> str:
    return "" if inst.symbol and len(inst.args) <= 5 else "a call has a name and at most 5 arguments"


def _bound(inst: Inst) -> str:
    if not 0 <= inst.low <= inst.imm < 1 << 63:
        return f"bounds {inst.low} to {inst.imm}"
    return _unary(inst)


def _of_type(type_: str) -> Callable[[Inst], str]:
    return lambda inst: "" if inst.type == type_ else f"{inst.op} gives {type_}, not {inst.type}"


def _pointer(inst: Inst) -> str:
    return "" if is_pointer(inst.type) else f"{inst.op} gives a pointer"


_RULES: dict[str, Callable[[Inst], str]] = {
    **dict.fromkeys(("zext", "sext", "trunc"), _extension),
    **dict.fromkeys(("neg", "bswap", "opaque"), _unary),
    **dict.fromkeys(("memcpy", "memset"), _copy),
    **dict.fromkeys(("call", "callsub", "kfunc"), _call),
    **dict.fromkeys(("map_value", "percpu_value", "ksym"), _pointer),
    "const": lambda inst: "",
    "cast": _cast,
    "ptradd": _ptradd,
    "load": _load,
    "store": _store,
    "alloca": _alloca,
    "atomic": _atomic,
    "bound": _bound,
    "map": _of_type(MAPOBJ),
    "funcaddr": _of_type(FUNC),
    "core": _of_type(I64),
    "tailcall": lambda inst: "" if len(inst.args) == 3 else "a tail call has three operands",
}

"""Expressions: each node to an operand (`evaluate`), or straight into memory (`store`), or into a branch (`branch_on`)."""

from __future__ import annotations

from ...compiler.access import scale
from ...compiler.ir import Const
from ...debuginfo.ctype import BOOL, INT64, Enum, Int, Pointer, sizeof, strip
from . import ast
from .lower_values import Memory, Scalar, Text, ir_type, is_scalar
from .stype import Aggregate, RecordType, Str, Tuple, is_bool, is_signed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ...compiler.ir import Value
    from ...debuginfo.ctype import CType
    from .lower_frame import Frame
    from .lower_values import Operand

ARITHMETIC = {"+": "add", "-": "sub", "*": "mul", "&": "and", "|": "or", "^": "xor", "<<": "shl"}
COMPARISONS = {
    "==": ("eq", "eq"),
    "!=": ("ne", "ne"),
    "<": ("ult", "slt"),
    "<=": ("ule", "sle"),
    ">": ("ugt", "sgt"),
    ">=": ("uge", "sge"),
}  # unsigned, signed


# The two doors ----------------------------------------------------------------------------------------------------


def evaluate(f: Frame, node: ast.Node) -> Operand:
    """Lower an expression to an operand. Foreign memory is not read yet."""
    constant = f.constants.get(node)
    if constant is not None:
        return literal(f, node, constant)
    if node in f.overrides:
        return f.overrides[node]
    return EVALUATORS[type(node)](f, node)


def store(f: Frame, node: ast.Node, place: Memory, pad: bool = True) -> None:
    """Lower an expression so that its value ends up in own memory, converted to the type of `place`.

    `pad`: every byte of the place gets a defined content (see Frame.put).
    """
    if f.constants.get(node) is None:
        writer = WRITERS.get(type(node))
        if writer is not None and not is_scalar(place.ctype) and writer(f, node, place, pad):
            return
    f.put(evaluate(f, node), place, pad)


def number(f: Frame, node: ast.Node, ctype: CType) -> Value:
    """Lower an expression to a number of `ctype`."""
    return f.number(evaluate(f, node), ctype)


def wide(f: Frame, node: ast.Node) -> Value:
    """Lower an expression to a number of 64 bits."""
    return f.wide(evaluate(f, node))


def in_memory(f: Frame, node: ast.Node, ctype: CType | None = None, pad: bool = True) -> Memory:
    """Lower an expression to own memory that holds its value as `ctype`; where it lies already is not copied."""
    ctype = strip(ctype or f.type(node).ctype)
    writer = None if f.constants.get(node) is not None else WRITERS.get(type(node))
    if writer is None or is_scalar(ctype):
        operand = evaluate(f, node)
        if (
            isinstance(operand, Memory)
            and operand.space == ""
            and not operand.bit_width
            and _fits(operand.ctype, ctype)
        ):
            return operand
        place = f.temp(ctype)
        f.put(operand, place, pad)
        return place
    place = f.temp(ctype)
    store(f, node, place, pad)
    return place


def _fits(have: CType, want: CType) -> bool:
    from .lower_memory import same_bytes

    return sizeof(have) == sizeof(want) and same_bytes(have, want)


LAID_OUT = (ast.Sizeof, ast.Offsetof, ast.Identifier)  # constants that may depend on the kernel's types


def literal(f: Frame, node: ast.Node, value: int | str | bool) -> Operand:
    """The operand of a constant."""
    found = f.type_of.get(node)
    if isinstance(value, str):
        data = value.encode("utf-8", "surrogateescape")
        return Text(data, found.ctype if found else Str(len(data) + 1))
    ctype = strip(found.ctype) if found else None
    if f.unit.relocatable and isinstance(node, LAID_OUT):
        from .lower_relocated import constant

        asked = constant(f, node)
        if asked is not None and ctype is not None:
            return Scalar(f.resize(asked, INT64, ir_type(ctype)), ctype)
    if isinstance(value, bool):
        if ctype is None or not isinstance(ctype, (Int, Enum)):
            ctype = BOOL
        return Scalar(Const(int(value), ir_type(ctype)), ctype)
    if ctype is None or not is_scalar(ctype):
        from .typing_promotion import literal_type

        ctype = literal_type(value)
    return Scalar(Const(value, ir_type(ctype)), ctype, found.space if found else "")


# Names ------------------------------------------------------------------------------------------------------------


def _call(f: Frame, node: ast.Node) -> Operand:
    from .lower_calls import lower_call

    return lower_call(f, node)


def _write_call(f: Frame, node: ast.Node, place: Memory, pad: bool) -> bool:
    from .lower_calls import write_call

    return write_call(f, node, place, pad)


def _variable(f: Frame, node: ast.Variable) -> Operand:
    place = variable_place(f, node)
    if is_scalar(place.ctype):
        return f.load(place)
    return place


def variable_place(f: Frame, node: ast.Variable, *, assigned: bool = False) -> Memory:
    """Return where a variable lies. It gets its place when it is first met: filled with zeros, unless `assigned` says
    that it is given a value now, ahead of all that may read it.
    """
    info = f.probe.variables[node]
    place = f.variables.get(info)
    if place is None:
        assert info.type is not None
        ctype = info.type.ctype
        place = f.temp(ctype, info.name.lstrip("$"))
        place.leads = info.type.leads or info.type.space
        f.variables[info] = place
        hoisted = isinstance(info.node, ast.Variable)  # read outside of the block that assigns it
        if is_scalar(ctype) or hoisted or not assigned:
            f.clear_at_entry(place)
    return place


def _map(f: Frame, node: ast.Map | ast.MapAccess) -> Operand:
    from .lower_maps import read_map

    return read_map(f, node)


# Operators --------------------------------------------------------------------------------------------------------


def _binary(f: Frame, node: ast.Binary) -> Operand:
    if node.op in ("&&", "||"):
        return _as_flag(f, node)
    if node.op in COMPARISONS:
        if not are_numbers(f, node):
            from .lower_compare import compare

            return Scalar(compare(f, node.op, node.left, node.right), BOOL)
        left, right = evaluate_both(f, node.left, node.right)
        return Scalar(compare_numbers(f, node.op, left, right, f.operands.get(node)), BOOL)
    left, right = evaluate_both(f, node.left, node.right)
    if isinstance(left.ctype, Pointer) or isinstance(right.ctype, Pointer):
        return pointer_arithmetic(f, node.op, left, right)
    found = f.type(node)
    value = arithmetic(f, node.op, left, right, f.operands.get(node) or found.ctype, node)
    return Scalar(value, f.operands.get(node) or found.ctype, found.space)


def evaluate_both(f: Frame, left: ast.Node, right: ast.Node) -> tuple[Scalar, Scalar]:
    """Two operands in registers, the left one first."""
    first = f.scalar(evaluate(f, left))
    return first, f.scalar(evaluate(f, right))


def are_numbers(f: Frame, node: ast.Binary) -> bool:
    return all(isinstance(f.ctype(side), (Int, Enum, Pointer, Aggregate)) for side in (node.left, node.right))


def arithmetic(f: Frame, op: str, left: Scalar, right: Scalar, ctype: CType, node: ast.Node) -> Value:
    """`left op right` in the width and sign of `ctype`."""
    a, b = f.number(left, ctype), f.number(right, ctype)
    plain = ARITHMETIC.get(op)
    if plain is not None:
        return f.b.binary(plain, a, b)
    if op == ">>":  # bpftrace shifts zeros in, whatever the sign
        return f.b.binary("lshr", a, b)
    return divide(f, op, a, b, is_signed(left.ctype) and is_signed(right.ctype), node)


def divide(f: Frame, op: str, a: Value, b: Value, signed: bool, node: ast.Node) -> Value:
    """Division: a divisor of 0 is reported, and the result is 1, as bpftrace has it."""
    name = ("s" if signed else "u") + ("div" if op == "/" else "mod")
    builder = f.b
    if isinstance(b, Const):
        return builder.binary(name, a, b) if b.imm else Const(1, a.type)
    divide_, zero = builder.new_block("divide"), builder.new_block("zero")
    done = builder.new_block("quotient", [a.type])
    builder.branch(builder.binary("ne", b, 0), divide_, zero)
    builder.at(divide_)
    builder.jump(done, builder.binary(name, a, b))
    builder.at(zero)
    from .lower_events import emit_runtime_error

    emit_runtime_error(f, DIVISION_BY_ZERO, node.span)
    builder.jump(done, Const(1, a.type))
    builder.at(done)
    return done.params[0]


DIVISION_BY_ZERO = "Divide or modulo by 0 detected. This can lead to unexpected results. 1 is being used as the result."


def compare_numbers(f: Frame, op: str, left: Scalar, right: Scalar, ctype: CType | None) -> Value:
    """`left op right` for numbers and pointers; the type of the comparison decides about sign and width."""
    if ctype is None:
        if is_bool(left.ctype) and is_bool(right.ctype):
            ctype = BOOL
        else:
            ctype = INT64
    unsigned, signed = COMPARISONS[op]
    name = signed if is_signed(ctype) and not is_bool(ctype) else unsigned
    return f.b.binary(name, f.number(left, ctype), f.number(right, ctype))


def pointer_arithmetic(f: Frame, op: str, left: Scalar, right: Scalar) -> Scalar:
    """`p + n`, `n + p`, `p - n`: in steps of what the pointer leads to."""
    pointer, count = (left, right) if isinstance(left.ctype, Pointer) else (right, left)
    assert isinstance(pointer.ctype, Pointer)
    from .lower_access import step_of

    place = Memory(pointer.value, 0, pointer.ctype, pointer.space or "any")
    step = step_of(f, place, pointer.ctype.target)
    number = f.wide(count)
    amount = scale(f.b, number, step.imm or 1) if isinstance(step, Const) else f.b.binary("mul", number, step)
    if isinstance(amount, Const):
        amount = Const(-amount.imm if op == "-" else amount.imm)
        op = "+"
    base = f.wide(pointer)
    value = f.b.binary("add" if op == "+" else "sub", base, amount)
    return Scalar(value, pointer.ctype, "kernel" if pointer.space == "btf" else pointer.space)


def _unary(f: Frame, node: ast.Unary) -> Operand:
    return _UNARY[node.op](f, node)


def _not(f: Frame, node: ast.Unary) -> Operand:
    return _as_flag(f, node)


def _negate(f: Frame, node: ast.Unary) -> Operand:
    operand = f.scalar(evaluate(f, node.operand))
    return _widened(f, node, operand, f.b.unary("neg", operand.value))


def _invert(f: Frame, node: ast.Unary) -> Operand:
    operand = f.scalar(evaluate(f, node.operand))
    return _widened(f, node, operand, f.b.binary("xor", operand.value, -1))


def _widened(f: Frame, node: ast.Unary, operand: Scalar, value: Value) -> Scalar:
    """What was computed in the width of the operand, in that of the result."""
    found = f.type(node)
    return Scalar(f.resize(value, operand.ctype, ir_type(found.ctype)), found.ctype, found.space)


def _dereference(f: Frame, node: ast.Unary) -> Operand:
    from .lower_access import dereference

    return dereference(f, node)


def _address(f: Frame, node: ast.Unary) -> Operand:
    """`&$x`, `&@m`: an address in the program's own memory, as a number."""
    target = node.operand
    if isinstance(target, ast.Variable):
        place = variable_place(f, target)
    else:
        from .lower_maps import own_place

        assert isinstance(target, (ast.Map, ast.MapAccess))
        place = own_place(f, target)
    return Scalar(f.address(place), f.type(node).ctype, "own")


def _step(f: Frame, node: ast.Unary) -> Operand:
    """`$x++`, `@m[k]--` and the prefix forms; the value is the old or the new number."""
    target = node.operand
    if not isinstance(target, ast.Variable):
        from .lower_maps import step_map

        assert isinstance(target, (ast.Map, ast.MapAccess))
        return step_map(f, node, target, wanted=True)
    place = variable_place(f, target)
    old = f.load(place)
    step: int = 1 if node.op == "++" else -1
    if isinstance(place.ctype, Pointer):
        step *= sizeof(place.ctype.target) or 1
    new = Scalar(f.b.binary("add", old.value, step), old.ctype, old.space)
    f.store(place, new.value)
    result = old if node.postfix else new
    return Scalar(f.number(result, f.type(node).ctype), f.type(node).ctype, result.space)


_UNARY: dict[str, Callable[[Frame, ast.Unary], Operand]] = {
    "-": _negate,
    "~": _invert,
    "!": _not,
    "*": _dereference,
    "&": _address,
    "++": _step,
    "--": _step,
}


# Tuples -----------------------------------------------------------------------------------------------------------


def _tuple(f: Frame, node: ast.TupleExpr | ast.RecordExpr) -> Operand:
    found = f.type(node)
    place = f.temp(found.ctype)
    place.leads = found.leads
    _write_tuple(f, node, place, True)
    return place


def _write_tuple(f: Frame, node: ast.TupleExpr | ast.RecordExpr, place: Memory, pad: bool) -> bool:
    ctype = place.ctype
    if not isinstance(ctype, Tuple):
        return False
    if pad:
        f.clear_holes(place)
    items: Sequence[ast.Expr] = node.items
    order = list(range(len(items)))
    if isinstance(node, ast.RecordExpr) and isinstance(ctype, RecordType):
        order = [ctype.names.index(n) for n in node.names]
    for item, index in zip(items, order):
        store(f, item, place.part(ctype.offsets[index], ctype.items[index]), pad)
    return True


def _access(f: Frame, node: ast.FieldAccess | ast.TupleAccess | ast.IndexAccess) -> Operand:
    from .lower_access import ACCESS

    return ACCESS[type(node)](f, node)


def _comptime(f: Frame, node: ast.Comptime) -> Operand:
    return evaluate(f, node.operand)


def _cast(f: Frame, node: ast.Cast) -> Operand:
    from .lower_casts import cast

    return cast(f, node)


def _as_flag(f: Frame, node: ast.Node) -> Scalar:
    from .lower_branches import as_flag

    return as_flag(f, node)


def _choice(f: Frame, node: ast.Ternary | ast.IfExpr) -> Operand:
    from .lower_branches import choose

    return choose(f, node)


def _write_choice(f: Frame, node: ast.Ternary | ast.IfExpr, place: Memory, pad: bool) -> bool:
    from .lower_branches import write_choice

    return write_choice(f, node, place, pad)


def _block(f: Frame, node: ast.BlockExpr) -> Operand:
    from .lower_branches import run_block

    return run_block(f, node)


def _write_block(f: Frame, node: ast.BlockExpr, place: Memory, pad: bool) -> bool:
    from .lower_branches import write_block

    return write_block(f, node, place, pad)


EVALUATORS: dict[type, Callable[..., Operand]] = {
    ast.Identifier: _call,
    ast.Call: _call,
    ast.Variable: _variable,
    ast.Map: _map,
    ast.MapAccess: _map,
    ast.Unary: _unary,
    ast.Binary: _binary,
    ast.Ternary: _choice,
    ast.IfExpr: _choice,
    ast.BlockExpr: _block,
    ast.Cast: _cast,
    ast.TupleExpr: _tuple,
    ast.RecordExpr: _tuple,
    ast.Comptime: _comptime,
    ast.FieldAccess: _access,
    ast.TupleAccess: _access,
    ast.IndexAccess: _access,
}
WRITERS: dict[type, Callable[..., bool]] = {
    ast.Identifier: _write_call,
    ast.Call: _write_call,
    ast.Ternary: _write_choice,
    ast.IfExpr: _write_choice,
    ast.BlockExpr: _write_block,
    ast.TupleExpr: _write_tuple,
    ast.RecordExpr: _write_tuple,
}

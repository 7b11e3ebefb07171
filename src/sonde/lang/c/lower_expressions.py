"""Expressions to values. What becomes a branch is in `lower_branches`, calls are in `lower_calls`."""

from __future__ import annotations

from ...compiler.ir import Const
from ...debuginfo.ctype import INT32, Float, Int, Pointer, Struct, sizeof, strip
from ...errors import CompileError
from ...record import replace
from ..source import diagnose
from . import ast
from .analysis import FunctionSymbol
from .lower_frame import failure
from .lower_memory import is_writable
from .lower_numbers import (
    COMPARISONS,
    arithmetic,
    compare_pointers,
    convert,
    elements_in,
    flag,
    move_pointer,
    pointer_difference,
    promoted,
    shift,
    wide_register,
)
from .lower_places import place_of, read, read_name
from .values import OWN, Place, Scalar, Wide, ir_type, is_aggregate, is_pointer, is_wide
from .walkers import address_of, common_root, compare_distances, distances_of, move_walker, set_walker, walker_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ...debuginfo.ctype import CType
    from .analysis import Access, Variable
    from .lower_frame import Frame
    from .values import Operand


def evaluate(f: Frame, node: ast.Node) -> Operand:
    """Return the value of an expression; a struct stays in memory. What has no value gives the number 0."""
    constant = f.program.analysis.constants.get(node)
    if constant is not None:
        return constant_of(f, constant, f.type(node))
    known = f.known.get(node)
    if known is not None:
        return known
    return EVALUATORS[type(node)](f, node)


def constant_of(f: Frame, number: int, ctype: CType) -> Operand:
    """A constant of a type."""
    if is_wide(ctype):
        return Wide(Const(number & (1 << 64) - 1), Const(number >> 64), ctype)
    if is_pointer(ctype):
        return Scalar(Const(number), ctype, "" if number else "null")
    if isinstance(strip(ctype), Float):
        assert f.b.span is not None
        raise failure(f.b.span, "floating point: the kernel's machine has none")
    return Scalar(Const(number, ir_type(ctype)), ctype)


def scalar(f: Frame, node: ast.Node) -> Scalar:
    """The value of an expression that is a pointer or a number of up to 64 bits."""
    operand = evaluate(f, node)
    if isinstance(operand, Wide):
        return Scalar(operand.low, Int("unsigned long", 8, False))
    if isinstance(operand, Place):
        raise failure(node.span, "a struct where a number is wanted")
    return operand


def run(f: Frame, node: ast.Node) -> None:
    """Lower an expression for its effect alone."""
    if isinstance(node, ast.Cast):
        run(f, node.operand)
    elif isinstance(node, ast.Postfix):
        _step(f, node, node.op, node.operand, wanted=False)
    elif isinstance(node, ast.Comma):
        run(f, node.left)
        run(f, node.right)
    elif isinstance(node, ast.Call):
        from .lower_calls import call

        call(f, node, wanted=False)
    elif isinstance(node, ast.Conditional):
        from .lower_branches import choose_effect

        choose_effect(f, node)
    elif isinstance(node, ast.Binary) and node.op in ("&&", "||"):
        from .lower_branches import effect_of_logic

        effect_of_logic(f, node)
    elif isinstance(node, ast.StatementExpr):
        from .lower_statements import run_statement

        run_statement(f, node.body)
    elif node not in f.program.analysis.constants and not isinstance(
        f.program.analysis.symbols.get(node), FunctionSymbol
    ):  # `(void)f;` only names it
        evaluate(f, node)


def put(f: Frame, node: ast.Node, place: Place) -> None:
    """Store the value of an expression into own memory, converted to the type of the place."""
    if isinstance(strip(place.ctype), Struct):
        source = evaluate(f, node)
        assert isinstance(source, Place)
        f.copy(place, source, sizeof(place.ctype))
        return
    f.store(place, convert(f, evaluate(f, node), place.ctype))


# Reading ----------------------------------------------------------------------------------------------------------


def _place(f: Frame, node: ast.Node) -> Operand:
    """A member, an element, what a pointer leads to."""
    packet = packet_access(f, node)
    if packet is not None:
        from .bcc_functions import read_member

        return read_member(f, node, packet)  # type: ignore[arg-type]
    place = place_of(f, node)
    if is_aggregate(place.ctype):
        return read(f, place)
    f.b.span = node.span
    space = f.spaces.of(node) if place.space == "ctx" else None
    return f.load(place, space)


def packet_access(f: Frame, node: ast.Node) -> Access | None:
    """Return the access of a member of a packet header (see `bcc_functions`), or None."""
    if not isinstance(node, ast.Member) or f.program.text.options.dialect != "bcc":
        return None
    from .bcc_functions import packet_member

    return packet_member(f, node)


def _unary(f: Frame, node: ast.Unary) -> Operand:
    return _UNARY[node.op](f, node)


def _address(f: Frame, node: ast.Unary) -> Operand:
    """`&x`: computes, never reads."""
    from .analysis import FunctionSymbol, Table

    ctype = f.type(node)
    symbol = f.program.analysis.symbols.get(node.operand)
    if isinstance(symbol, Table):
        return Scalar(f.program.map(f, symbol), ctype, "map")
    if isinstance(symbol, FunctionSymbol):
        return evaluate(f, node.operand)
    place = place_of(f, node.operand)
    if place.bit_width:
        raise failure(node.span, "the address of a bit-field")
    return Scalar(f.address(place), ctype, place.space)


def _negate(f: Frame, node: ast.Unary) -> Operand:
    ctype = strip(f.type(node))
    operand = convert(f, evaluate(f, node.operand), ctype)
    if isinstance(operand, Wide):
        from .lower_int128 import negate128

        return negate128(f, operand)
    assert isinstance(operand, Scalar)
    return Scalar(f.b.unary("neg", operand.value), ctype)


def _invert(f: Frame, node: ast.Unary) -> Operand:
    ctype = strip(f.type(node))
    operand = convert(f, evaluate(f, node.operand), ctype)
    if isinstance(operand, Wide):
        from .lower_int128 import invert128

        return invert128(f, operand)
    assert isinstance(operand, Scalar)
    return Scalar(f.b.binary("xor", operand.value, -1), ctype)


def _not(f: Frame, node: ast.Unary) -> Operand:
    value = flag(f, evaluate(f, node.operand))
    if isinstance(value, Const):
        return Scalar(Const(1 - value.imm, value.type), INT32)
    return Scalar(f.b.binary("eq", value, 0), INT32)


def _plus(f: Frame, node: ast.Unary) -> Operand:
    return convert(f, evaluate(f, node.operand), f.type(node))


def _prefix(f: Frame, node: ast.Unary) -> Operand:
    return _step(f, node, node.op, node.operand, wanted=True, before=True)


def _postfix(f: Frame, node: ast.Postfix) -> Operand:
    return _step(f, node, node.op, node.operand, wanted=True)


def _step(f: Frame, node: ast.Expr, op: str, target: ast.Node, *, wanted: bool, before: bool = False) -> Operand:
    """`++` and `--`: the value is the new one with `before`, else the old one."""
    walker = walker_of(f, target)
    if walker is not None:
        distances = move_walker(f, walker, Const(1 if op == "++" else -1))
        return address_of(f, walker, distances[before])
    place = own_place(f, target)
    ctype = place.ctype
    old = _read_again(f, target, place)
    one = Scalar(Const(1, ir_type(INT32)), INT32)
    if isinstance(ctype, Pointer):
        assert isinstance(old, Scalar)
        new: Operand = move_pointer(f, old, one, 1 if op == "++" else -1)
    else:
        common = promoted(ctype)
        new = convert(f, arithmetic(f, op[0], old, one, common, node.span), ctype)
    f.store(place, new)
    if not wanted:
        return old
    return _as_stored(f, place, new) if before else old


def _read_again(f: Frame, node: ast.Node, place: Place) -> Operand:
    """The old value of what is about to be changed, with what is known of where it leads."""
    if isinstance(node, ast.Name):
        return read_name(f, node)
    return read(f, place)


def _as_stored(f: Frame, place: Place, operand: Operand) -> Operand:
    """The value of an assignment: of a bit-field, what went into it."""
    return f.load(place) if place.bit_width else operand


# Arithmetic -------------------------------------------------------------------------------------------------------


def _binary(f: Frame, node: ast.Binary) -> Operand:
    op = node.op
    if op in ("&&", "||"):
        from .lower_branches import logic_value

        return logic_value(f, node)
    left_type, right_type = f.type(node.left), f.type(node.right)
    if op in COMPARISONS or op == "-":
        root = common_root(f, node)
        if root is not None:
            return _of_distances(f, node, root)
    left = evaluate(f, node.left)
    right = evaluate(f, node.right)
    f.b.span = node.span
    if is_pointer(left_type) or is_pointer(right_type):
        return _with_pointers(f, op, left, right, node)
    if op in ("<<", ">>"):
        return shift(f, op, left, right, promoted(left_type), node.span)
    return arithmetic(f, op, left, right, f.program.analysis.common.get(node) or f.type(node), node.span)


def _of_distances(f: Frame, node: ast.Binary, root: Variable) -> Operand:
    """A comparison or difference of two addresses, of which it is known how far they are from the same root."""
    left, right = distances_of(f, node, root)
    f.b.span = node.span
    if node.op == "-":
        return elements_in(f, f.b.binary("sub", left, right), f.type(node.left))
    return Scalar(f.b.binary(compare_distances(node.op), left, right), INT32)


def _with_pointers(f: Frame, op: str, left: Operand, right: Operand, node: ast.Binary) -> Operand:
    assert isinstance(left, Scalar)
    if op in COMPARISONS:
        assert isinstance(right, Scalar)
        return compare_pointers(f, op, left, right)
    if not is_pointer(left.ctype):
        assert isinstance(right, Scalar)
        return move_pointer(f, right, left)
    if op == "-" and is_pointer(right.ctype):
        assert isinstance(right, Scalar)
        return pointer_difference(f, left, right)
    return move_pointer(f, left, right, 1 if op == "+" else -1)


# Assignments ------------------------------------------------------------------------------------------------------


def own_place(f: Frame, node: ast.Node) -> Place:
    """A place that is about to be written."""
    place = place_of(f, node)
    if not is_writable(place.space):
        raise _foreign_store(f, node, place.space)
    return place


def _foreign_store(f: Frame, node: ast.Node, space: str) -> CompileError:
    """The error of a store to memory that is not the program's own. It shows where the pointer came from."""
    kind = {"user": "user memory", "any": "memory that is not the program's own"}.get(space, "kernel memory")
    hint = "only bpf_probe_write_user() writes to user memory" if space != "kernel" else ""
    if space.startswith("texts"):
        kind, hint = (
            "a variable that holds pointers to texts, which is constant",
            "keep what changes in another variable",
        )
    error = failure(node.span, f"cannot store here: the pointer leads to {kind}", hint)
    root: ast.Node = node
    while isinstance(root, (ast.Member, ast.Index, ast.Unary, ast.Postfix, ast.Cast)):
        root = root.operand
    variable = f.program.analysis.symbols.get(root)
    flow = f.program.spaces.flow(f.program.analysis.functions[f.symbol.name])
    sources = [value for assigned, value in flow.assigned if assigned is variable]
    notes = tuple(
        diagnose(value.span, "the pointer may come from here", severity="NOTE")
        for value in sources
        if f.spaces.of(value) not in OWN
    )
    if notes and len(sources) > 1:
        notes += tuple(
            diagnose(value.span, "or from here, which could be written", severity="NOTE")
            for value in sources
            if f.spaces.of(value) in OWN
        )
    return CompileError([replace(error.diagnostics[0], notes=notes)])


def _assign(f: Frame, node: ast.Assign) -> Operand:
    if node.op != "=":
        return _compound(f, node)
    target = f.type(node.target)
    if isinstance(strip(target), Struct):
        source = evaluate(f, node.value)
        place = own_place(f, node.target)
        assert isinstance(source, Place)
        f.b.span = node.span
        f.copy(place, source, sizeof(target))
        return place
    walker = walker_of(f, node.target)
    if walker is not None:
        return address_of(f, walker, set_walker(f, walker, node.value))
    operand = convert(f, evaluate(f, node.value), target)
    packet = packet_access(f, node.target)
    if packet is not None:
        from .bcc_functions import write_member

        write_member(f, node.target, packet, operand)  # type: ignore[arg-type]
        return operand
    place = own_place(f, node.target)
    f.b.span = node.span
    f.store(place, operand)
    return _as_stored(f, place, operand)


def _compound(f: Frame, node: ast.Assign) -> Operand:
    """`x op= y`; y comes first, as it may be a call that would not leave the old x in its register."""
    op = node.op[:-1]
    right = evaluate(f, node.value)
    walker = walker_of(f, node.target)
    if walker is not None:
        count = wide_register(f, right)
        if op == "-":
            count = Const(-count.imm) if isinstance(count, Const) else f.b.unary("neg", count)
        return address_of(f, walker, move_walker(f, walker, count)[1])
    place = own_place(f, node.target)
    f.b.span = node.span
    old = _read_again(f, node.target, place)
    ctype = place.ctype
    if isinstance(ctype, Pointer):
        assert isinstance(old, Scalar)
        new: Operand = move_pointer(f, old, right, 1 if op == "+" else -1)
    elif op in ("<<", ">>"):
        new = convert(f, shift(f, op, old, right, promoted(ctype), node.span), ctype)
    else:
        common = f.program.analysis.common.get(node) or promoted(ctype)
        new = convert(f, arithmetic(f, op, old, right, common, node.span), ctype)
    f.store(place, new)
    return _as_stored(f, place, new)


# The rest ---------------------------------------------------------------------------------------------------------


def _cast(f: Frame, node: ast.Cast) -> Operand:
    ctype = strip(f.type(node))
    if f.program.entry.context:
        from .entry import inner_pointer, is_registers

        if is_registers(ctype) and f.spaces.of(node.operand) in ("register", "raw register"):
            return inner_pointer(f, ctype)  # the number itself is not wanted
    operand = evaluate(f, node.operand)
    if not ctype.size and not isinstance(ctype, Pointer):  # (void)
        return Scalar(Const(0, ir_type(INT32)), INT32)
    return convert(f, operand, ctype)


def _comma(f: Frame, node: ast.Comma) -> Operand:
    run(f, node.left)
    return evaluate(f, node.right)


def _conditional(f: Frame, node: ast.Conditional) -> Operand:
    from .lower_branches import choose

    return choose(f, node)


def _call(f: Frame, node: ast.Call) -> Operand:
    from .lower_calls import call

    result = call(f, node, wanted=True)
    return result if result is not None else Scalar(Const(0, ir_type(INT32)), INT32)


def _statements(f: Frame, node: ast.StatementExpr) -> Operand:
    from .lower_statements import note_cleanups, run_statement

    items = node.body.items
    depth = len(f.cleanups)
    for item in items[:-1]:
        run_statement(f, item)
        note_cleanups(f, node, item)
    last = items[-1] if items else None
    while isinstance(last, (ast.Label, ast.Case)):
        last = last.statement
    result: Operand = Scalar(Const(0, ir_type(INT32)), INT32)
    if isinstance(last, ast.ExprStatement) and last.expr is not None:
        result = evaluate(f, last.expr)
    elif last is not None:
        run_statement(f, last)
    f.end_scope(depth)
    return result


def _generic(f: Frame, node: ast.Generic) -> Operand:
    return evaluate(f, f.program.analysis.chosen[node])


EVALUATORS: dict[type, Callable[..., Operand]] = {
    ast.Name: read_name,
    ast.String: _place,
    ast.Unary: _unary,
    ast.Postfix: _postfix,
    ast.Binary: _binary,
    ast.Assign: _assign,
    ast.Conditional: _conditional,
    ast.Comma: _comma,
    ast.Call: _call,
    ast.Member: _place,
    ast.Index: _place,
    ast.Cast: _cast,
    ast.CompoundLiteral: _place,
    ast.StatementExpr: _statements,
    ast.Generic: _generic,
}
_UNARY: dict[str, Callable[..., Operand]] = {
    "&": _address,
    "*": _place,
    "-": _negate,
    "+": _plus,
    "~": _invert,
    "!": _not,
    "++": _prefix,
    "--": _prefix,
}

"""Statements: assignments, loops, jumps, and what may not stand where it does."""

from __future__ import annotations

from ...debuginfo.ctype import Enum, Int, strip
from . import ast
from .analysis import Type
from .stype import NONE, Aggregate, NoneT, Tuple, is_void, type_name
from .typing_maps import assign_map, get_map, is_multi, visit_map_target
from .typing_operators import binary_type, literal_of, visit_condition
from .typing_promotion import literal_type, promote, settle
from .typing_state import CALLS, CHECKS, FLOW, Assignment
from .typing_variables import (
    assign,
    find_variable,
    make_variable,
    own,
    pop_scope,
    push_scope,
    visit_let,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from .typing_state import Typer


def visit_statements(typer: Typer, statements: Sequence[ast.Statement]) -> None:
    """Check statements in their order."""
    ended = False
    for statement in statements:
        if ended:
            typer.warn(statement, "Unreachable statement.")
            ended = False
        if isinstance(statement, ast.ExprStatement):
            _visit_expression(typer, statement, statement is statements[-1])
        else:
            STATEMENTS[type(statement)](typer, statement)
        ended = _ends(statement)


def _ends(statement: ast.Statement) -> bool:
    """Tell whether nothing after this statement is reached."""
    if isinstance(statement, ast.Jump):
        return True
    if not isinstance(statement, ast.ExprStatement):
        return False
    expr = statement.expr
    if isinstance(expr, ast.Call):
        return expr.name == "exit"
    return isinstance(expr, (ast.BlockExpr, ast.IfExpr)) and _block_ends(expr)


def _block_ends(expr: ast.BlockExpr | ast.IfExpr | None) -> bool:
    if isinstance(expr, ast.BlockExpr):
        return any(_ends(s) for s in expr.statements)
    return expr is not None and _block_ends(expr.then) and _block_ends(expr.otherwise)


def _visit_expression(typer: Typer, node: ast.ExprStatement, last: bool) -> None:
    found = typer.visit(node.expr)
    if isinstance(node.expr, ast.Unary) and node.expr.op in ("++", "--"):
        return
    if found is None or found.ctype is NONE or isinstance(found.ctype, NoneT) or is_void(found.ctype):
        return
    if isinstance(node.expr, ast.Call) and node.expr.name == "delete":
        return
    typer.warn(node.expr if last else node, "Return value discarded.")


# Assignments ------------------------------------------------------------------------------------------------------


def _visit_assign(typer: Typer, node: ast.Assign) -> None:
    target = node.target
    if isinstance(target, ast.Identifier):  # `_ = e;`
        typer.visit(node.value)
    elif node.op:
        _assign_operation(typer, node)
    elif isinstance(target, ast.Variable):
        assign(typer, target, node.value, typer.visit(node.value), node)
    else:
        assign_map(typer, target, node.value, node)


def _assign_operation(typer: Typer, node: ast.Assign) -> None:
    """`$x += e`, `@m[k] -= e`: as `$x = $x + e`."""
    from .typing_maps import grow_value

    target = node.target
    assert not isinstance(target, ast.Identifier)
    if isinstance(target, ast.Variable):
        left = typer.visit(target)
        right = typer.visit(node.value)
        if left is None or right is None:
            return
        result = binary_type(typer, node, node.op, left, right, (target, node.value))
        if result is not None:
            assign(typer, target, node.value, Type(result.ctype, result.space), node)
        return
    state = visit_map_target(typer, target)
    right = typer.visit(node.value)
    if state is None:
        return
    state.written = True
    if right is None:
        return
    left = state.value or Type(literal_type(1 << 62))
    if isinstance(left.ctype, Aggregate):
        typer.error(
            node,
            f"Type mismatch for {state.name}: trying to assign value of type '{type_name(right.ctype)}' "
            f"when map already has a type '{type_name(left.ctype)}'",
        )
        return
    result = binary_type(typer, node, node.op, left, right, (target, node.value))
    if result is not None and grow_value(typer, state, result, node):
        typer.type_of[target] = state.value or result
        typer.assignments.append(Assignment(typer.group, node, node, result, state, state.name))


# Loops ------------------------------------------------------------------------------------------------------------


def _visit_body(typer: Typer, kind: str, body: ast.BlockExpr) -> None:
    typer.jumps.append(kind)
    typer.loops += 1
    typer.visit(body)
    typer.loops -= 1
    typer.jumps.pop()


_WHILE_HINT = (
    "For loops support ranges (e.g. `for ($x : $start..$end) { ... }`), and can be used in place of while. These are more "
    "easily proven to be bounded by the verifier."
)


def _visit_while(typer: Typer, node: ast.While) -> None:
    typer.warn(node, "While loops are deprecated and may be removed in the future.", hint=_WHILE_HINT)
    visit_condition(typer, node.condition, node)
    _visit_body(typer, "while", node.body)


def _visit_unroll(typer: Typer, node: ast.Unroll) -> None:
    typer.visit(node.count)
    value = literal_of(typer, node.count)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        typer.error(node, "invalid unroll value", CALLS)
    elif value > 100:
        typer.error(node, "unroll maximum value is 100", CALLS)
    elif value < 1:
        typer.error(node, "unroll minimum value is 1", CALLS)
    typer.visit(node.body)


def _enter_loop(typer: Typer, node: ast.ForRange | ast.ForMap, found: Type | None) -> None:
    name = node.variable.name
    known = find_variable(typer, name)
    if known is not None and known.node is not node:
        from .typing_variables import origin_note

        notes = (origin_note(known),)
        typer.error(node.variable, f"Loop declaration shadows existing variable: {name}", CALLS, notes=notes)
    push_scope(typer)
    info = make_variable(typer, name, node)
    info.assigned = True
    typer.probe.variables[node.variable] = info
    if found is not None:
        info.type = found
        typer.type_of[node.variable] = found
    elif info.type is None:
        typer.unresolved.append(node.variable)
    _visit_body(typer, "for", node.body)
    pop_scope(typer)
    typer.gone.discard(name)  # nobody may read a loop's variable behind the loop


def _visit_for_range(typer: Typer, node: ast.ForRange) -> None:
    start, end = typer.visit(node.start), typer.visit(node.end)
    found = None
    if start is not None and end is not None:
        for side, what in ((start, "start"), (end, "end")):
            if not isinstance(strip(side.ctype), (Int, Enum)):
                typer.error(node, f"Loop range requires an integer for the {what} value")
                return
        common = promote(start.ctype, end.ctype)
        if common is not None:
            found = Type(settle(common))
            typer.probe.operands[node] = found.ctype
    _enter_loop(typer, node, found)


def _visit_for_map(typer: Typer, node: ast.ForMap) -> None:
    state = get_map(typer, node.map)
    if state.scalar is None:
        state.scalar = False
    if state.scalar:
        message = f"{node.map.name} has no explicit keys (scalar map), and cannot be used for iteration"
        typer.error(node.map, message)
        return
    state.key_read = True
    state.value_read |= state.value is not None  # a loop alone gives a map no type
    found = None
    if state.value is not None and is_multi(state.value.ctype):
        typer.error(node.map, f"Loop expression does not support type: {type_name(state.value.ctype)}")
        return
    if state.value is not None and state.key is not None:
        value = own(state.value)
        found = Type(Tuple([settle(state.key), settle(value.ctype)]), "", value.leads or value.space)
    else:
        typer.whole_maps.append((node.map, typer.group))
        typer.unresolved.append(node.map)
    _enter_loop(typer, node, found)


# Jumps ------------------------------------------------------------------------------------------------------------


def _visit_jump(typer: Typer, node: ast.Jump) -> None:
    if node.kind != "return":
        if not typer.jumps:
            where = "function" if typer.subprogram else "probe"
            typer.error(node, f"'{node.kind}' statement is not allowed in a {where}", FLOW)
        return
    if node.value is None:
        return
    found = typer.visit(node.value)
    if found is None or typer.subprogram:
        return
    if not isinstance(strip(found.ctype), (Int, Enum)):
        message = f"Probe return values can only be integers. Found {type_name(found.ctype)}"
        typer.error(node, message, CHECKS)


def _visit_import(typer: Typer, node: ast.LocalImport) -> None:
    """What an import brings was put in before."""


STATEMENTS: dict[type, Callable[[Typer, Any], None]] = {
    ast.Assign: _visit_assign,
    ast.ForMap: _visit_for_map,
    ast.ForRange: _visit_for_range,
    ast.Jump: _visit_jump,
    ast.Let: visit_let,
    ast.LocalImport: _visit_import,
    ast.Unroll: _visit_unroll,
    ast.While: _visit_while,
}

"""The rules for expressions: which function finds the type of which node."""

from __future__ import annotations

from ...debuginfo.ctype import Enum
from . import ast, builtins
from .analysis import Type
from .functions import AGGREGATIONS
from .stype import NONE, RecordType, Tuple, type_name
from .typing_builtins import visit_builtin
from .typing_calls import visit_call
from .typing_fields import visit_field, visit_index, visit_tuple_access
from .typing_maps import is_multi, refuse_aggregation, visit_map, visit_map_access
from .typing_names import visit_cast, visit_offsetof, visit_sizeof
from .typing_operators import (
    constant_type,
    join_branches,
    literal_of,
    put_constant,
    visit_binary,
    visit_condition,
    visit_ternary,
    visit_unary,
)
from .typing_state import CALLS, CHECKS
from .typing_variables import merge_spaces, own, pop_scope, push_scope, visit_variable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from .typing_state import Typer


def _visit_literal(typer: Typer, node: ast.Integer | ast.String | ast.Boolean) -> Type:
    value = node.value
    if isinstance(value, str) and len(value) >= typer.config.max_strlen and not typer.in_format:
        limit = typer.config.max_strlen
        typer.error(node, f"String is too long (over {limit} bytes): {value}", CALLS)
    typer.constant(node, value)
    return constant_type(value)


def _visit_identifier(typer: Typer, node: ast.Identifier) -> Type | None:
    if builtins.is_builtin(node.name):
        return visit_builtin(typer, node, node.name)
    scope = typer.c_scope
    if scope is not None and node.name in scope.constants:  # the preprocessor comes before all enumerations
        return put_constant(typer, node, scope.constants[node.name])
    found = find_enumerator(typer, node.name)
    if found is not None:
        value, enum = found
        typer.constant(node, value)
        if typer.c_scope is None or node.name not in typer.c_scope.enumerators:
            typer.probe.operands[node] = enum
        return Type(enum)
    typer.error(node, f"Unknown identifier: '{node.name}'", CHECKS, hint=_close(node.name))
    return None


def find_enumerator(typer: Typer, name: str) -> tuple[int, Enum] | None:
    """Return the value and the enumeration of an enumeration constant, the script's own or the kernel's."""
    scope = typer.c_scope
    if scope is not None and name in scope.enumerators:
        enum = scope.enumerators[name]
        return enum.values[name], enum
    btf = typer.btf()
    return btf.get_enumerator(name) if btf is not None else None


def _close(name: str) -> str:
    from difflib import get_close_matches

    close = get_close_matches(name, builtins.iter_names(), 1)
    return f"did you mean {close[0]}?" if close else ""


def _visit_call(typer: Typer, node: ast.Call) -> Type | None:
    if node.name in AGGREGATIONS:
        return refuse_aggregation(typer, node)
    return visit_call(typer, node)


def _visit_tuple(typer: Typer, node: ast.TupleExpr) -> Type | None:
    items = _visit_items(typer, node.items, "tuple")
    return None if items is None else Type(Tuple([i.ctype for i in items]), "", _leads(items))


def _visit_record(typer: Typer, node: ast.RecordExpr) -> Type | None:
    items = _visit_items(typer, node.items, "record")
    return None if items is None else Type(RecordType(node.names, [i.ctype for i in items]), "", _leads(items))


def _visit_items(typer: Typer, nodes: Sequence[ast.Expr], what: str) -> list[Type] | None:
    items: list[Type] = []
    for node in nodes:
        found = typer.visit(node)
        if found is None:
            continue
        if is_multi(found.ctype):
            typer.error(node, f"Map type {type_name(found.ctype)} cannot exist inside a {what}.", CHECKS)
            continue
        items.append(own(found))
    return items if len(items) == len(nodes) else None


def _leads(items: Sequence[Type]) -> str:
    """Where the pointers in a tuple lead; one answer for all of them."""
    result = ""
    for item in items:
        result = merge_spaces(result, item.leads or item.space)
    return result


def _visit_comptime(typer: Typer, node: ast.Comptime) -> Type | None:
    found = typer.visit(node.operand)
    value = literal_of(typer, node.operand)
    if value is not None:
        return put_constant(typer, node, value)
    if found is not None:
        typer.error(node, "Unable to resolve comptime expression")
    return None


def visit_block(typer: Typer, node: ast.BlockExpr) -> Type | None:
    """`{ statements; value }`; a block without a value has the type none."""
    from .typing_statements import visit_statements

    push_scope(typer)
    visit_statements(typer, node.statements)
    found = None
    if node.value is not None:
        found = typer.visit(node.value)
        value = literal_of(typer, node.value)
        if value is not None and not node.statements:
            typer.constant(node, value)
    pop_scope(typer)
    return Type(NONE) if node.value is None else found


def visit_if(typer: Typer, node: ast.IfExpr) -> Type | None:
    """`if` as a value or a statement. After `if comptime`, only the branch taken exists."""
    visit_condition(typer, node.condition, node)
    if isinstance(node.condition, ast.Comptime):
        value = literal_of(typer, node.condition)
        if value is None:
            return None
        typer.constant(node.condition, bool(value))
        taken = node.then if value else node.otherwise
        return Type(NONE) if taken is None else typer.visit(taken)
    then = typer.visit(node.then)
    otherwise = Type(NONE) if node.otherwise is None else typer.visit(node.otherwise)
    return join_branches(typer, node, then, otherwise)


def _visit_positional(typer: Typer, node: ast.Positional | ast.PositionalCount) -> Type | None:
    return put_constant(typer, node, 0)  # none are left once the parameters have been put in


def _visit_type_name(typer: Typer, node: ast.TypeName) -> Type | None:
    from .typing_names import resolve_type

    ctype = resolve_type(typer, node)
    return None if ctype is None else Type(ctype)


RULES: dict[type, Callable[[Typer, Any], Type | None]] = {
    ast.Integer: _visit_literal,
    ast.String: _visit_literal,
    ast.Boolean: _visit_literal,
    ast.Identifier: _visit_identifier,
    ast.Positional: _visit_positional,
    ast.PositionalCount: _visit_positional,
    ast.Variable: visit_variable,
    ast.Map: visit_map,
    ast.MapAccess: visit_map_access,
    ast.Call: _visit_call,
    ast.Unary: visit_unary,
    ast.Binary: visit_binary,
    ast.Ternary: visit_ternary,
    ast.Cast: visit_cast,
    ast.FieldAccess: visit_field,
    ast.TupleAccess: visit_tuple_access,
    ast.IndexAccess: visit_index,
    ast.TupleExpr: _visit_tuple,
    ast.RecordExpr: _visit_record,
    ast.Sizeof: visit_sizeof,
    ast.Offsetof: visit_offsetof,
    ast.Comptime: _visit_comptime,
    ast.IfExpr: visit_if,
    ast.BlockExpr: visit_block,
    ast.TypeName: _visit_type_name,
}

"""The rules for functions on maps: print, clear, zero, delete, has_key, find, len."""

from __future__ import annotations

from ...debuginfo.ctype import BOOL, INT64, Array, Enum, Forward, Int, Pointer, Struct, strip
from . import ast
from .analysis import CallInfo, Type
from .stype import KStack, NoneT, Stats, SType, UStack, is_void, type_name
from .typing_calls import VOID_TYPE, check_kind
from .typing_maps import get_map, grow_key, is_multi
from .typing_state import CALLS, CHECKS
from .typing_variables import assign

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .typing_calls import Rule
    from .typing_state import MapState, Typer

    Types = list[Type | None]

_PRINT_IN_LOOP = (
    "Due to it's asynchronous nature using 'print()' in a loop can lead to unexpected behavior. The map will likely be "
    "updated before the runtime can 'print' it."
)


def _use(typer: Typer, node: ast.Map) -> MapState:
    """A whole map is used; that it is one must have been said elsewhere in the script."""
    typer.whole_maps.append((node, typer.group))
    return get_map(typer, node)


# print ------------------------------------------------------------------------------------------------------------


def _print(typer: Typer, node: ast.Call, info: CallInfo, types: Types) -> Type | None:
    target = node.args[0]
    if not isinstance(target, ast.Map):
        return _print_value(typer, node, info)
    state = _use(typer, target)
    for arg in node.args[1:]:
        found = typer.visit(arg)
        if found is None or not check_kind(typer, node, arg, found, "int!"):
            return None
    if typer.loops:
        typer.warn(node, _PRINT_IN_LOOP)
    if state.value is not None and isinstance(state.value.ctype, Stats) and len(node.args) > 1:
        typer.warn(node, "print()'s top and div arguments are ignored when used on stats() maps.")
    info.params["map"] = target.name
    info.params["top"] = node.args[1] if len(node.args) > 1 else None
    info.params["div"] = node.args[2] if len(node.args) > 2 else None
    return VOID_TYPE


def _print_value(typer: Typer, node: ast.Call, info: CallInfo) -> Type | None:
    value = node.args[0]
    found = typer.visit(value)
    for arg in node.args[1:]:
        typer.visit(arg)
    if found is None:
        return None
    ctype = strip(found.ctype)
    if is_multi(ctype) and not isinstance(ctype, Stats):
        typer.error(
            node,
            f"Map type {type_name(ctype)} cannot print the value of individual keys. You must print the whole map.",
            CHECKS,
        )
        return None
    printable = isinstance(ctype, (Int, Enum, Pointer, Array, Struct, SType)) and not isinstance(ctype, NoneT)
    if ctype is typer.probe.context.args:
        printable = False
    if not printable or is_void(ctype) or isinstance(ctype, Forward):
        typer.error(node, f"{type_name(ctype)} type passed to print() is not printable", CHECKS)
        return None
    if len(node.args) > 1:
        typer.error(node, f"Non-map print() only takes 1 argument, {len(node.args)} found", CHECKS)
        return None
    if isinstance(value, ast.MapAccess):
        info.params["entry"] = value
    return VOID_TYPE


# whole maps -------------------------------------------------------------------------------------------------------


def _whole(typer: Typer, node: ast.Call, info: CallInfo, types: Types) -> Type | None:
    """clear(@m), zero(@m)."""
    target = node.args[0]
    if not isinstance(target, ast.Map):
        typer.visit(target)
        typer.error(target, f"{node.name}() expects a map argument", CALLS)
        return None
    _use(typer, target)
    info.params.update(map=target.name, key=None)
    return VOID_TYPE


def _len(typer: Typer, node: ast.Call, info: CallInfo, types: Types) -> Type | None:
    target = node.args[0]
    if not isinstance(target, ast.Map):
        found = typer.visit(target)
        if found is None:
            return None
        if not isinstance(strip(found.ctype), (KStack, UStack)):
            typer.error(node, "len() expects a map or stack to be provided", CHECKS)
            return None
        info.params.update(map="", key=None)
        return Type(INT64)
    state = _use(typer, target)
    if state.scalar is True and state.written:
        message = "call to len() expects a map with explicit keys (non-scalar map)"
        typer.error(node, message, CHECKS)
        return None
    info.params.update(map=target.name, key=None)
    return Type(INT64)


# entries ----------------------------------------------------------------------------------------------------------


def _visit_key(typer: Typer, node: ast.Call, target: ast.Map, key: ast.Expr) -> MapState | None:
    state = get_map(typer, target)
    if state.scalar is None:
        state.scalar = False
    found = typer.visit(key)
    if state.scalar:
        message = f"call to {node.name}() expects a map with explicit keys (non-scalar map)"
        typer.error(node, message)
        return None
    typer.whole_maps.append((target, typer.group))
    if found is not None:
        grow_key(typer, state, found, node, key)
    return state


def _has_key(typer: Typer, node: ast.Call, info: CallInfo, types: Types) -> Type | None:
    target, key = node.args
    if not isinstance(target, ast.Map) or not isinstance(key, ast.Expr):
        typer.error(target, f"{node.name}() expects a map argument", CALLS)
        return None
    _visit_key(typer, node, target, key)
    info.params.update(map=target.name, key=key)
    return Type(BOOL)


def _find(typer: Typer, node: ast.Call, info: CallInfo, types: Types) -> Type | None:
    """find(@m, key, $out): the value goes into the variable when there is one."""
    target, key, out = node.args
    if not isinstance(target, ast.Map) or not isinstance(key, ast.Expr):
        typer.error(target, "find() expects a map argument", CALLS)
        return None
    if not isinstance(out, ast.Variable):
        typer.error(out, "find() expects a variable for its third argument", CALLS)
        return None
    state = _visit_key(typer, node, target, key)
    if state is None:
        return None
    if state.value is None:  # find() alone gives a map no type
        typer.whole_maps.append((target, typer.group))
        typer.unresolved.append(node)
    else:
        state.value_read = True
    assign(typer, out, node, state.value, node)
    info.params.update(map=target.name, key=key, variable=out)
    return Type(BOOL)


def _delete(typer: Typer, node: ast.Call, info: CallInfo, types: Types) -> Type | None:
    """delete(@m, key); delete(@m) of a scalar map; delete(@m[key]) and several of these as old scripts have it."""
    targets = _delete_targets(typer, node)
    if targets is None:
        return None
    first, key = targets[0]
    info.params.update(map=first.name, key=key, targets=tuple((m.name, k) for m, k in targets))
    return Type(BOOL)


def _delete_targets(typer: Typer, node: ast.Call) -> list[tuple[ast.Map, ast.Expr | None]] | None:
    first = node.args[0]
    if len(node.args) == 2 and isinstance(first, ast.Map):
        key = node.args[1]
        known = get_map(typer, first).scalar
        if isinstance(key, ast.Expr) and not (known and isinstance(key, (ast.Map, ast.MapAccess))):
            return [(first, key)] if _visit_key(typer, node, first, key) is not None else None
    targets: list[tuple[ast.Map, ast.Expr | None]] = []
    for arg in node.args:
        target = _delete_one(typer, node, arg)
        if target is None:
            return None
        targets.append(target)
    return targets


def _delete_one(typer: Typer, node: ast.Call, arg: ast.Node) -> tuple[ast.Map, ast.Expr | None] | None:
    if isinstance(arg, ast.MapAccess):
        return (arg.map, arg.key) if _visit_key(typer, node, arg.map, arg.key) is not None else None
    if not isinstance(arg, ast.Map):
        typer.error(arg, "delete() expects a map argument", CALLS)
        return None
    state = _use(typer, arg)
    if state.scalar is False:
        message = "call to delete() with a single argument expects a map without explicit keys (scalar map)"
        typer.error(node, message)
        return None
    return arg, None


RULES: dict[str, Rule] = {}
RAW_RULES: dict[str, Rule] = {
    "clear": _whole,
    "delete": _delete,
    "find": _find,
    "has_key": _has_key,
    "len": _len,
    "print": _print,
    "zero": _whole,
}

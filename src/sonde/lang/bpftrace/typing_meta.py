"""The rules for functions that are answered at compile time: questions about types, assertions, what the kernel has."""

from __future__ import annotations

from ...debuginfo.ctype import UINT64, Array, Enum, Forward, Int, Pointer, Struct, strip
from . import ast
from .analysis import CallInfo, Type
from .stype import KStack, RecordType, Str, SType, UStack, is_bool, type_name
from .typing_calls import VOID_TYPE, kind_name
from .typing_formats import format_literals, parse_format
from .typing_maps import get_map
from .typing_names import map_type, meta_type
from .typing_operators import constant_type, literal_of, put_constant
from .typing_state import CALLS, CHECKS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ...debuginfo.ctype import CType
    from .typing_calls import Rule
    from .typing_state import Typer

    Types = list[Type | None]


def _question(ask: Callable[[CType], bool]) -> Rule:
    """Make the rule of a question about the type of an expression."""

    def rule(typer: Typer, node: ast.Call, info: CallInfo, types: Types) -> Type | None:
        typer.meta += 1
        found = typer.visit(node.args[0])
        typer.meta -= 1
        return None if found is None else put_constant(typer, node, ask(strip(found.ctype)))

    return rule


def _is_integer(ctype: CType) -> bool:
    return isinstance(ctype, (Int, Enum)) and not is_bool(ctype)


def _is_literal(typer: Typer, node: ast.Call, info: CallInfo, types: Types) -> Type | None:
    typer.meta += 1
    typer.visit(node.args[0])
    typer.meta -= 1
    return put_constant(typer, node, literal_of(typer, node.args[0]) is not None)


def _is_scalar(typer: Typer, node: ast.Call, info: CallInfo, types: Types) -> Type | None:
    target = node.args[0]
    if not isinstance(target, ast.Map):
        typer.error(node, "is_scalar() expects a map for the first argument", CALLS)
        return None
    return put_constant(typer, node, get_map(typer, target).scalar is not False)


def _static_assert(typer: Typer, node: ast.Call, info: CallInfo, types: Types) -> Type | None:
    condition = literal_of(typer, node.args[0])
    message = literal_of(typer, node.args[1])
    if condition is None or message is None:
        if None not in types:
            typer.error(node, "static_assert() takes a condition and a message that are known at compile time", CHECKS)
        return None
    if not condition:
        typer.error(node, str(message), CHECKS)
        return None
    return VOID_TYPE


def _fail(typer: Typer, node: ast.Call, info: CallInfo, types: Types) -> Type | None:
    values = [literal_of(typer, arg) for arg in node.args]
    known = [v for v in values if v is not None]
    if len(known) < len(values):
        typer.error(node, "fail() arguments need to be literals", CHECKS)
    elif not isinstance(known[0], str):
        typer.error(node, "first argument to fail() must be a string literal", CHECKS)
    else:
        typer.error(node, format_literals(parse_format(known[0]), known[1:]), CHECKS)
    return None


def _kfunc(typer: Typer, node: ast.Call, info: CallInfo, types: Types) -> Type | None:
    """Whether the kernel has a function by this name in its BTF."""
    btf = typer.btf()
    name = str(literal_of(typer, node.args[0]))
    return put_constant(typer, node, btf is not None and btf.get_func_id(name) != 0)


def _default_str_length(typer: Typer, node: ast.Call, info: CallInfo, types: Types) -> Type | None:
    return put_constant(typer, node, typer.config.max_strlen)


def _comm(typer: Typer, node: ast.Call, info: CallInfo, types: Types) -> Type | None:
    from ...probes.catalogue import probetype_name

    message = f"Syntax comm(PID) is not supported in this probe type yet. Type: {probetype_name(typer.kind)}"
    typer.error(node, message, CHECKS)
    return None


def _dw_ustack(typer: Typer, node: ast.Call, info: CallInfo, types: Types) -> Type | None:
    typer.error(node, "dw_ustack is not supported yet", CALLS, hint="use ustack")
    return None


def _typeinfo(typer: Typer, node: ast.Call, info: CallInfo, types: Types) -> Type | None:
    """`typeinfo(type or expression)`: a record of constants. `btf_id` is a place that bpftrace keeps free so far."""
    typer.check_unstable(node, "typeinfo")
    operand = node.args[0]
    ctype = map_type(typer, operand) if isinstance(operand, ast.Map) else meta_type(typer, operand)
    if ctype is None:
        return None
    full = "string" if isinstance(ctype, Str) and not ctype.size else type_name(ctype)
    base = _base_name(strip(ctype))
    info.params["values"] = typer.config_values[node] = [0, base, full]
    found = [UINT64, constant_type(base).ctype, constant_type(full).ctype]
    return Type(RecordType(("btf_id", "base_type", "full_type"), found))


def _base_name(ctype: CType) -> str:
    if isinstance(ctype, (Struct, Forward)):
        return "c_type"
    if isinstance(ctype, (KStack, UStack)):
        return "kstack" if isinstance(ctype, KStack) else "ustack"
    if isinstance(ctype, SType):
        return ctype.word or ctype.name
    return kind_name(ctype)


RULES: dict[str, Rule] = {
    "comm": _comm,
    "default_str_length": _default_str_length,
    "dw_ustack": _dw_ustack,
    "fail": _fail,
    "kfunc_allowed": _kfunc,
    "kfunc_exist": _kfunc,
    "static_assert": _static_assert,
}
RAW_RULES: dict[str, Rule] = {
    "is_array": _question(lambda t: isinstance(t, Array)),
    "is_integer": _question(_is_integer),
    "is_literal": _is_literal,
    "is_ptr": _question(lambda t: isinstance(t, Pointer)),
    "is_scalar": _is_scalar,
    "is_str": _question(lambda t: isinstance(t, Str)),
    "is_unsigned_integer": _question(lambda t: _is_integer(t) and not t.signed),  # type: ignore[attr-defined]
    "typeinfo": _typeinfo,
}

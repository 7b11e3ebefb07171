"""Calls: arguments checked against the registry, then one small function for what is special to each name.

The rules stand in the files of their kind: `typing_output`, `typing_memory`, `typing_mapcalls`, `typing_meta`.
"""

from __future__ import annotations

from ...debuginfo.ctype import VOID, Array, CType, Enum, Int, Pointer, Struct, strip
from . import ast, builtins
from .analysis import CallInfo, Type
from .functions import Function, get_function
from .stype import CASTABLE, Str, SType, is_bool, is_void
from .typing_builtins import provider, visit_builtin
from .typing_operators import literal_of
from .typing_state import CALLS, CHECKS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from .typing_state import Typer

    Rule = Callable[[Typer, ast.Call, CallInfo, list["Type | None"]], "Type | None"]

_WANTED = {"int": "int", "str": "string", "ptr": "pointer", "mode": "timestamp_mode"}


def visit_call(typer: Typer, node: ast.Call) -> Type | None:
    """`name(args)`, aggregations excluded."""
    name = node.name
    if not node.args and builtins.is_builtin(name):
        return visit_builtin(typer, node, name)
    function = get_function(name)
    if function is None:
        _refuse_unknown(typer, node)
        return None
    if not _may_call(typer, node, function) or not check_count(typer, node, function):
        return None
    raw, rule = _find_rule(name)
    types: list[Type | None] = []
    if not raw:
        for index, arg in enumerate(node.args):
            typer.in_format = index == 0 and "str!" in function.kinds[:1]
            types.append(typer.visit(arg))
            typer.in_format = False
        if not check_kinds(typer, node, function, types):
            return None
    return rule(typer, node, typer.call(node, function, node.args), types)


def _refuse_unknown(typer: Typer, node: ast.Call) -> None:
    from difflib import get_close_matches

    from .functions import iter_names

    if builtins.is_builtin(node.name):
        typer.error(node, f"{node.name}() requires no arguments ({len(node.args)} provided)", CALLS)
        return
    close = get_close_matches(node.name, iter_names(), 1)
    hint = f"did you mean {close[0]}()?" if close else ""
    typer.error(node, f"Unknown function: '{node.name}'", hint=hint)


def _may_call(typer: Typer, node: ast.Call, function: Function) -> bool:
    """Check that the function is allowed at all, and in this kind of probe."""
    ok = True
    if function.unsafe and not typer.options.unsafe:
        hint = "--unsafe allows functions that change the system"
        typer.error(node, f"{function.name}() is an unsafe function being used in safe mode", CALLS, hint=hint)
        ok = False
    inside = function.inside if typer.target.in_process else ()
    if function.probes and typer.kind and typer.kind not in (*function.probes, *inside):
        hint = "it can inside a process: --engine user -p PID" if typer.kind in function.inside else ""
        typer.error(node, f'{function.name} can not be used with "{provider(typer)}" probes', CALLS, hint=hint)
        ok = False
    return ok


def check_count(typer: Typer, node: ast.Call, function: Function) -> bool:
    """Check the number of arguments."""
    given, few, many = len(node.args), function.min_args, function.max_args
    if few <= given <= many:
        return True
    name = function.name
    if function.library:
        takes = _plural(few) if few == many else f"{few} to {_plural(many)}"
        message = f"Call to {name}() has arguments that do not match any definition."
        typer.error(node, message, CALLS, hint=f"{name}() takes {takes}, not {given}")
        return False
    if few == many:
        what = f"requires {_plural(few)}"
    elif given < few:
        what = f"requires at least {_plural(few)}"
    else:
        what = f"takes up to {_plural(many)}"
    typer.error(node, f"{name}() {what} ({given} provided)", CALLS)
    return False


def _plural(count: int) -> str:
    return {0: "no arguments", 1: "one argument"}.get(count, f"{count} arguments")


def check_kinds(typer: Typer, node: ast.Call, function: Function, types: list[Type | None]) -> bool:
    """Check that each argument is of the kind that the registry says, and a literal where it must be one."""
    ok = True
    for kind, arg, found in zip(function.kinds, node.args, types):
        if kind != "-" and found is not None:
            ok &= check_kind(typer, node, arg, found, kind)
    return ok and None not in types


def check_kind(typer: Typer, node: ast.Call, arg: ast.Node, found: Type, kind: str) -> bool:
    """Check one argument; `kind` is a word of the registry."""
    literal = kind.endswith("!")
    wanted = kind.rstrip("!")
    right = _IS_KIND[wanted](strip(found.ctype))
    if literal and (not right or literal_of(typer, arg) is None):
        message = f"{node.name}() expects a {_WANTED[wanted]} literal ({kind_name(found.ctype)} provided)"
        typer.error(node, message, CHECKS)
        return False
    if not right:
        message = f"{node.name}() only supports {_WANTED[wanted]} arguments ({kind_name(found.ctype)} provided)"
        typer.error(node, message, CHECKS)
        return False
    return True


def is_number(ctype: CType) -> bool:
    """Tell whether a value is an integer, or an aggregation that stands for one."""
    plain = strip(ctype)
    return isinstance(plain, (Int, Enum, *CASTABLE)) and not is_bool(plain)


def _is_text(ctype: CType) -> bool:
    """Strings, and what C has instead of them."""
    plain = strip(ctype)
    if isinstance(plain, Array):
        return isinstance(strip(plain.element), Int) and strip(plain.element).size == 1
    return isinstance(plain, (Str, Pointer))


_IS_KIND: dict[str, Callable[[CType], bool]] = {
    "int": is_number,
    "str": _is_text,
    "ptr": lambda t: isinstance(t, Pointer),
    "mode": lambda t: False,
}


def kind_name(ctype: CType) -> str:
    """Return bpftrace's word for the kind of a type: int, string, pointer, array …"""
    plain = strip(ctype)
    if isinstance(plain, SType):
        return plain.word
    if is_bool(plain):
        return "bool"
    for class_, word in ((Int, "int"), (Enum, "int"), (Pointer, "pointer"), (Array, "array"), (Struct, "c_struct")):
        if isinstance(plain, class_):
            return word
    return "void" if is_void(plain) else "none"


def give(ctype: CType, space: str = "") -> Rule:
    """Make the rule of a function whose result always has one type."""
    found = Type(ctype, space)
    return lambda typer, node, info, types: found


VOID_TYPE = Type(VOID)
_rules: dict[str, Rule] = {}
_raw: set[str] = set()


def _find_rule(name: str) -> tuple[bool, Rule]:
    """Return the rule for a function, and whether it visits the arguments itself. Files are read when they are needed."""
    if name not in _rules:
        for file in ("typing_output", "typing_mapcalls", "typing_memory", "typing_meta"):
            module = __import__(f"{__package__}.{file}", fromlist=("RULES",))  # importlib costs 0.6 ms more
            _rules.update(module.RULES)
            _rules.update(module.RAW_RULES)
            _raw.update(module.RAW_RULES)
            if name in _rules:
                break
    return name in _raw, _rules[name]

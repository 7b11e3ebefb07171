"""The rules for functions that put something out: printf and its like, print of values, time, join, exit."""

from __future__ import annotations

from ...debuginfo.ctype import UINT32, Enum, Int, Pointer, strip
from . import ast
from .analysis import CallInfo, Type
from .stype import Str, TimestampT
from .typing_calls import VOID_TYPE, kind_name
from .typing_formats import check_format, parse_format
from .typing_operators import literal_of
from .typing_state import CALLS, CHECKS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...debuginfo.ctype import CType
    from .typing_calls import Rule
    from .typing_state import Typer

_TIME_FORMAT = "%H:%M:%S\n"
_TRACE_KINDS = {"d": (Int, Enum), "u": (Int, Enum), "x": (Int, Enum), "p": (Int, Enum), "s": (Str,)}


def _formatted(typer: Typer, node: ast.Call, info: CallInfo, types: list[Type | None]) -> Type | None:
    """printf(format, …) and all that take a format."""
    text = literal_of(typer, node.args[0])
    assert isinstance(text, str)
    segments = parse_format(text)
    args = [t.ctype for t in types[1:] if t is not None]
    problem = check_format(segments, args)
    if problem:
        typer.error(node, problem, CHECKS)
        return None
    info.params["segments"] = segments
    info.params["args"] = node.args[1:]
    if node.name == "debugf":
        _check_debugf(typer, node, info, args)
    return VOID_TYPE


def _check_debugf(typer: Typer, node: ast.Call, info: CallInfo, args: list[CType]) -> None:
    """bpf_trace_printk() knows less than printf()."""
    typer.warn(
        node,
        "The debugf() builtin is not recommended for production use. For more information see bpf_trace_printk in "
        "bpf-helpers(7).",
    )
    if len(args) > 3:
        typer.error(node, "cannot use more than 3 conversion specifiers", CALLS)
    conversions = [s.conversion for s in info.params["segments"] if s.conversion]
    for conversion, ctype, arg in zip(conversions, args, node.args[1:]):
        if conversion not in _TRACE_KINDS:
            typer.error(node.args[0], f"Invalid format specifier for `debugf`: {conversion}", CHECKS)
        elif not isinstance(strip(ctype), _TRACE_KINDS[conversion]):
            typer.error(arg, f"Type does not match format specifier: {conversion}", CHECKS)


def _time(typer: Typer, node: ast.Call, info: CallInfo, types: list[Type | None]) -> Type | None:
    info.params["format"] = literal_of(typer, node.args[0]) if node.args else _TIME_FORMAT
    return VOID_TYPE


def _strftime(typer: Typer, node: ast.Call, info: CallInfo, types: list[Type | None]) -> Type | None:
    text = str(literal_of(typer, node.args[0]))
    source = typer.probe.calls.get(node.args[1])
    clock = str(source.params.get("clock", "boot")) if source is not None and source.name == "nsecs" else "boot"
    if clock == "monotonic":
        typer.error(node, "strftime() can not take a monotonic timestamp", CHECKS)
        return None
    info.params.update(format=text, clock=clock)
    return Type(TimestampT(clock, text))


def _join(typer: Typer, node: ast.Call, info: CallInfo, types: list[Type | None]) -> Type | None:
    assert types[0] is not None
    if not isinstance(strip(types[0].ctype), (Int, Enum, Pointer)):
        message = f"() only supports int or pointer arguments ({kind_name(types[0].ctype)} provided)"
        typer.error(node, "join" + message, CHECKS)
        return None
    info.params["separator"] = literal_of(typer, node.args[1]) if len(node.args) > 1 else " "
    return VOID_TYPE


def _void(typer: Typer, node: ast.Call, info: CallInfo, types: list[Type | None]) -> Type | None:
    return VOID_TYPE


def _skboutput(typer: Typer, node: ast.Call, info: CallInfo, types: list[Type | None]) -> Type | None:
    info.params["path"] = literal_of(typer, node.args[0])
    return Type(UINT32)


RULES: dict[str, Rule] = {
    "cat": _formatted,
    "debugf": _formatted,
    "errorf": _formatted,
    "exit": _void,
    "join": _join,
    "printf": _formatted,
    "skboutput": _skboutput,
    "strftime": _strftime,
    "system": _formatted,
    "time": _time,
    "unwatch": _void,
    "warnf": _formatted,
}
RAW_RULES: dict[str, Rule] = {}

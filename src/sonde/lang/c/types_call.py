"""Calls: of functions of the text, helpers, builtins, and methods of BCC's tables."""

from __future__ import annotations

from ...debuginfo.ctype import CType, FuncProto
from . import ast
from .analysis import FunctionSymbol, Table
from .arithmetic import is_integer, is_pointer, promoted, shown
from .conversions import convert, value
from .formats import check_format, complaints, parse_format
from .names import function_of, get_function, is_function, undeclared
from .types_builtin import BUILTINS
from .types_method import call_method

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .checker import Checker, Rule


def _call(ck: Checker, node: ast.Call) -> CType:
    function = node.function
    if isinstance(function, ast.Name) and ck.scope.find(function.name) is None:
        rule = BUILTINS.get(function.name)
        if rule is not None:
            return rule(ck, node, function)
        if get_function(ck, function) is None:
            raise undeclared(ck, function, "function")
    elif isinstance(function, ast.Member) and not function.arrow and isinstance(function.operand, ast.Name):
        table = ck.scope.find(function.operand.name)
        if isinstance(table, Table) and table.bcc_kind:
            ck.symbols[function.operand] = table
            return call_method(ck, node, table, function.name)
    ctype = ck.expr(function)
    symbol = function_of(ck, function)
    if symbol is None:
        raise _no_function(ck, node, ctype)
    check_arguments(ck, node, symbol.ctype, f"'{symbol.name}'")
    if ck.dialect == "bcc":
        _check_bcc(ck, node, symbol)
    elif symbol.helper:
        check_format(ck, node, symbol.helper)
    return symbol.ctype.result


def _no_function(ck: Checker, node: ast.Call, ctype: CType) -> Exception:
    if is_function(ctype):
        hint = "BPF programs call functions by name only; choose between them with if or switch"
        return ck.fail(node, "a call through a pointer", hint=hint)
    return ck.fail(node, f"{shown(ctype)} is no function and cannot be called")


def check_arguments(ck: Checker, node: ast.Call, proto: FuncProto, what: str) -> None:
    """Check the arguments of a call against a prototype. Raises CompileError; `what` names the function."""
    args, params = node.args, proto.params
    if len(args) < len(params) or (len(args) > len(params) and not proto.variadic):
        at_least = "at least " if proto.variadic else ""
        few = "few" if len(args) < len(params) else "many"
        words = f"too {few} arguments in call of {what}: it takes {at_least}{len(params)}, {len(args)} given"
        raise ck.fail(node, words, notes=_declared(ck, node))
    for arg, param in zip(args, params):
        convert(ck, arg, value(ck, arg), param.ctype, "passing to")
    for arg in args[len(params) :]:
        ctype = promoted(value(ck, arg))
        if not (is_integer(ctype) or is_pointer(ctype)):
            raise ck.fail(arg, f"{shown(ctype)} cannot be one of a variable number of arguments")


def _declared(ck: Checker, node: ast.Call) -> tuple:  # type: ignore[type-arg]
    symbol = function_of(ck, node.function)
    if symbol is None or symbol.helper or symbol.builtin:
        return ()
    return ck.note(symbol.span, f"'{symbol.name}' is declared here")


# The BCC dialect --------------------------------------------------------------------------------------------------


def _check_bcc(ck: Checker, node: ast.Call, symbol: FunctionSymbol) -> None:
    if symbol.is_program and ck.function is not None:  # `typeof(program(0))` is fine
        hint = "declare it static: what is not static is a program of its own"
        raise ck.fail(node, f"call of the program '{symbol.name}'", hint=hint, notes=_declared(ck, node))
    if symbol.helper == "trace_printk":
        _check_printk(ck, node)


def _check_printk(ck: Checker, node: ast.Call) -> None:
    """The format of bpf_trace_printk: a literal with as many conversions as there are arguments, three at most."""
    form = node.args[0]
    if not isinstance(form, ast.String):
        raise ck.fail(form, "the format of bpf_trace_printk must be a string literal")
    given = len(node.args) - 1
    for message, hint in complaints(ck, form.value, list(node.args[1:])):
        ck.warn(node, message, hint=hint)
    strings = sum(conversion.kind == "string" for conversion in parse_format(form.value))
    if given > 3:
        raise ck.fail(node, f"bpf_trace_printk takes three arguments behind the format, not {given}")
    if strings > 1:
        ck.warn(form, "bpf_trace_printk prints one %s in a format only, on kernels before 5.13")


RULES: dict[type, Rule] = {ast.Call: _call}

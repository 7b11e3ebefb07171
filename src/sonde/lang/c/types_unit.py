"""The analysis of a whole C text: syntax tree and environment to `Analysis`."""

from __future__ import annotations

from ...debuginfo.ctype import Pointer, strip
from ...errors import CompileError
from . import ast
from .analysis import Analysis, FunctionInfo, FunctionSymbol, Variable
from .arithmetic import is_integer, is_void
from .checker import Checker, FunctionState, TooMany, change
from .conversions import complete_object
from .lints import lint_unit
from .options import EXTERN
from .types_call import RULES as CALLS
from .types_decl import base_type, declared_type, parameter_type
from .types_expr import RULES as EXPRESSIONS
from .types_ops import RULES as OPERATORS
from .types_stmt import STATEMENTS, finish_function
from .types_table import declare_table
from .types_var import check_result, check_static_assert, declare_function, declare_globals

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from ...debuginfo.ctype import CType
    from ..source import Source
    from .checker import StatementRule
    from .environment import Environment

MAX_REGISTER_PARAMS = 7  # BCC: the context, and six that registers hold
MAX_SLOT_PARAMS = 13  # the context as an array of numbers, and what a trampoline passes on


def analyse(
    unit: ast.TranslationUnit,
    environment: Environment,
    *,
    dialect: str = "bcc",
    main: Source | None = None,
    linkable: bool = False,
) -> Analysis:
    """Find out what a C text means. Raises CompileError with all errors, up to 20 of them.

    `dialect` is "bcc" or "libbpf". `main` is the text itself; what stands in other sources came from headers: their functions are no programs,
    and those that nobody calls are not looked at. None: all of it is the text. `linkable`: functions that are declared only are another object's.
    Reads of BTF only what the text names.
    """
    ck = Checker(environment, dialect, main)
    ck.linkable = linkable
    ck.rules = {**EXPRESSIONS, **OPERATORS, **CALLS}
    ck.statement_rules = STATEMENTS
    ck.text_tags = {f"{node.kind} {node.name}" for node in _iter_definitions(unit) if node.name}
    try:
        for item in unit.items:
            rule = _ITEMS[item.__class__]
            ck.attempt(lambda rule=rule, item=item: rule(ck, item))  # type: ignore[misc]
        for check in ck.at_end:
            ck.attempt(check)
        _check_wanted(ck)
        _check_calls(ck)
        lint_unit(ck)
    except TooMany:
        pass
    if ck.errors:
        raise CompileError(ck.errors)
    return Analysis(
        unit, ck.functions, ck.globals, ck.tables, ck.types, ck.common, ck.symbols, ck.constants, ck.accesses, ck.literals,
        ck.cases, ck.methods, ck.chosen, ck.cleanups, tuple(ck.warnings), ck.license,
    )  # fmt: skip


def _iter_definitions(unit: ast.TranslationUnit) -> Iterator[ast.StructType]:
    """Yield the structs that the text defines at file scope, also within each other."""
    for item in unit.items:
        if isinstance(item, ast.Declaration):
            yield from _iter_structs(item.specifiers)
        elif isinstance(item, ast.TableDecl):
            for name in (item.key, item.leaf):
                if name is not None:
                    yield from _iter_structs(name.specifiers)


def _iter_structs(specifiers: ast.Specifiers) -> Iterator[ast.StructType]:
    node = specifiers.type
    if isinstance(node, ast.StructType) and node.members is not None:
        yield node
        for member in node.members:
            yield from _iter_structs(member.specifiers)


# Functions --------------------------------------------------------------------------------------------------------


def _define(ck: Checker, node: ast.FunctionDef) -> None:
    ctype = declared_type(ck, base_type(ck, node.specifiers), node.declarator, node.specifiers)
    symbol = declare_function(ck, node.specifiers, node.declarator, ctype, node)
    in_main = ck.in_main(node.span)
    if ck.dialect == "bcc":
        program = in_main and not symbol.static
    else:
        program = bool(symbol.section) and not symbol.section.startswith(".")
    change(symbol, is_program=program)
    ck.types[node.declarator] = symbol.ctype
    if in_main or program:
        _check_body(ck, node, symbol)
    else:
        ck.waiting[symbol.name] = node


def _check_wanted(ck: Checker) -> None:
    """Check the functions of headers that somebody calls, and those that they call in turn."""
    while ck.wanted:
        node = ck.wanted.pop()
        symbol = ck.file_scope.names[node.name]
        assert isinstance(symbol, FunctionSymbol)
        ck.attempt(lambda node=node, symbol=symbol: _check_body(ck, node, symbol))  # type: ignore[misc]


def _check_body(ck: Checker, node: ast.FunctionDef, symbol: FunctionSymbol) -> None:
    check_result(ck, node, symbol.ctype)
    if symbol.ctype.variadic:
        raise ck.fail(node.declarator, f"'{symbol.name}' takes a variable number of arguments, which BPF cannot")
    state = FunctionState(symbol)
    ck.function = state
    ck.open_scope()
    try:
        _declare_params(ck, node, symbol)
        for item in node.body.items:
            ck.statement(item)
        finish_function(ck, state, node.body)
    finally:
        ck.close_scope()
        ck.function = None
    ck.functions[symbol.name] = FunctionInfo(symbol, tuple(state.locals), state.labels, tuple(state.calls))
    ck.edges[symbol] = state.calls


def _declare_params(ck: Checker, node: ast.FunctionDef, symbol: FunctionSymbol) -> None:
    """Declare the parameters in the function's scope."""
    derived = node.declarator.derived[0]
    assert isinstance(derived, ast.FunctionOf)
    params: list[Variable] = []
    for index, param in enumerate(derived.params):
        name = param.declarator.name
        alone = not name and len(derived.params) == 1 and not param.declarator.derived
        if alone and is_void(base_type(ck, param.specifiers)):
            break
        ctype = parameter_type(ck, param)
        complete_object(ck, param, ctype, f"parameter '{name}'")
        variable = Variable(name, ctype, "param", param.declarator.span, index)
        if name in ck.scope.names:
            raise ck.fail(param, f"redefinition of parameter '{name}'", notes=ck.previous(name))
        if name:
            ck.declare(name, variable, param.declarator.span)
        ck.symbols[param.declarator] = variable
        params.append(variable)
    is_array = bool(params) and _leads_to_numbers(params[0].ctype)
    most = MAX_SLOT_PARAMS if is_array else MAX_REGISTER_PARAMS
    if symbol.is_program and ck.dialect == "bcc" and len(params) > most:
        more = "twelve" if is_array else "six"
        raise ck.fail(
            node.declarator, f"'{symbol.name}' has {len(params)} parameters; a program has the context and {more} more"
        )
    change(symbol, params=tuple(params))


def _leads_to_numbers(ctype: CType) -> bool:
    pointer = strip(ctype)
    return isinstance(pointer, Pointer) and is_integer(pointer.target)


def _check_calls(ck: Checker) -> None:
    """Report functions that call themselves, over whatever way, and calls of what is not there."""
    done: set[FunctionSymbol] = set()
    for start in ck.edges:
        path: list[FunctionSymbol] = []
        _walk_calls(ck, start, path, done)


def _walk_calls(ck: Checker, symbol: FunctionSymbol, path: list[FunctionSymbol], done: set[FunctionSymbol]) -> None:
    if symbol in done:
        return
    path.append(symbol)
    for callee, node in ck.edges.get(symbol, {}).items():
        if callee in path:
            names = " → ".join(s.name for s in [*path[path.index(callee) :], callee])
            ck.error(
                node,
                f"'{callee.name}' calls itself ({names}), which BPF cannot",
                hint="turn it into a loop with a bound",
            )
        elif callee.definition is None and not (callee.kfunc or callee.helper or callee.builtin) and ck.linkable:
            change(callee, kfunc=EXTERN + callee.name)
        elif callee.definition is None and not (callee.kfunc or callee.helper or callee.builtin):
            note = ck.note(callee.span, "it is declared here")
            ck.error(node, f"'{callee.name}' is declared, but nowhere defined", notes=note)
        else:
            _walk_calls(ck, callee, path, done)
    path.pop()
    done.add(symbol)


def _assert(ck: Checker, node: ast.StaticAssert) -> None:
    check_static_assert(ck, node)


_ITEMS: dict[type, StatementRule] = {
    ast.FunctionDef: _define,
    ast.Declaration: declare_globals,
    ast.TableDecl: declare_table,
    ast.StaticAssert: _assert,
}

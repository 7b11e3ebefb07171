"""Macro expansion: every call of a macro becomes a block expression, made from the macro's body for that call.

Hygiene: a variable that the body declares or assigns gets a new name; maps must come in as arguments; arguments are
expanded where the call stands. Every node of an expansion has its span in the macro's text and the call as `span.call`.
"""

from __future__ import annotations

from ...errors import CompileError, Diagnostic
from ...record import replace
from ..source import Place, diagnose
from . import ast
from .cursor import MAX_HEIGHT
from .rewrite import copy, height_of, iter_nodes, rewrite_children
from .statements import drop_value
from .stdlib import MACROS, OVERLOADABLE, load_macros
from .typenames import is_builtin

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ...errors import Span

MAX_EXPANSIONS = 2000
MAX_NESTING = 24
MAX_NODES = 100_000  # of all arguments put in: `f(f(f(…)))` doubles with each call when f uses its argument twice


def expand_macros(program: ast.Program) -> ast.Program:
    """Expand the script's own macros and those of the standard library. Raises CompileError.

    The result has no macros; a script that uses none is returned as it is.
    """
    if not program.macros and not program.words & MACROS.keys():
        return program
    expander = _Expander(program.macros)
    try:
        expanded = expander.expand_program(program)
    except RecursionError:
        expanded = None
    if expanded is None or height_of(expanded) > MAX_HEIGHT:
        place = program.macros[-1].span if program.macros else program.span
        raise CompileError([diagnose(place, f"macros expand to trees deeper than {MAX_HEIGHT} levels")])
    return expanded


class _Scope:
    """What names mean in one macro body, for one call."""

    __slots__ = ("call", "chain", "exprs", "fresh", "maps", "variables")

    def __init__(self, call: Place, chain: tuple[str, ...]) -> None:
        self.call = call
        self.chain = chain
        self.variables: dict[str, str] = {}
        self.maps: dict[str, str] = {}
        self.exprs: dict[str, ast.Expr | ast.TypeName] = {}
        self.fresh: dict[str, str] = {}


class _Expander:
    def __init__(self, macros: tuple[ast.Macro, ...]) -> None:
        self.errors: list[Diagnostic] = []
        self.expansions = 0
        self.nodes = 0
        self.macros: dict[str, tuple[ast.Macro, ...]] = {}
        for macro in macros:
            self._define(macro)
        self.own = frozenset(self.macros)
        self._fail_on_errors()

    def _fail_on_errors(self) -> None:
        if self.errors:
            raise CompileError(self.errors)

    def error(self, span: Span, message: str, *, hint: str = "", notes: tuple[Diagnostic, ...] = ()) -> None:
        """Record an error."""
        self.errors.append(diagnose(span, message, hint=hint, notes=notes))

    # definitions ----------------------------------------------------------------------------------------------

    def _define(self, macro: ast.Macro) -> None:
        others = self.macros.get(macro.name, ())
        signature = [p.kind for p in macro.params]
        for other in others:
            if [p.kind for p in other.params] == signature:
                note = diagnose(_head(other), "This is the original definition.")
                self.error(_head(macro), f"Redefinition of macro: {macro.name}", notes=(note,))
        seen: set[str] = set()
        for param in macro.params:
            if param.name in seen:
                what = {"var": "Variable", "map": "Map"}.get(param.kind, "Name")
                self.error(param.span, f"{what} for macro argument has already been used: {param.name}")
            seen.add(param.name)
        for node in iter_nodes(macro.body):
            if isinstance(node, ast.Jump) and node.kind == "return":
                hint = "the last expression of a macro, without `;`, is its value."
                self.error(node.span, "'return' statement is not allowed in a macro", hint=hint)
        self.macros[macro.name] = (*others, macro)

    def _find(self, name: str) -> tuple[ast.Macro, ...]:
        """Return the macros called `name`: the script's own first."""
        found = self.macros.get(name)
        if found is None or (name in self.own and name in MACROS and not _has_library(found)):
            found = (found or ()) + load_macros(name)
            self.macros[name] = found
        return found

    def _select(self, macros: tuple[ast.Macro, ...], args: tuple[Any, ...]) -> ast.Macro | None:
        """The overload that takes these arguments: the most specific one, the script's own before the library's."""
        best: ast.Macro | None = None
        best_score = -1
        for macro in macros:
            if len(macro.params) != len(args):
                continue
            scores = [_match(p, a) for p, a in zip(macro.params, args)]
            if -1 not in scores and sum(scores) > best_score:
                best, best_score = macro, sum(scores)
        return best

    # programs -------------------------------------------------------------------------------------------------

    def expand_program(self, program: ast.Program) -> ast.Program:
        """Expand all bodies. Raises CompileError."""
        probes = tuple(self._expand_caller(p) for p in program.probes)
        subprograms = tuple(self._expand_caller(s) for s in program.subprograms)
        self._fail_on_errors()
        words = program.words
        for name in words & self.macros.keys():
            words |= {w for m in self.macros[name] for w in _words(m.body)}
        return replace(program, macros=(), probes=probes, subprograms=subprograms, words=words)

    def _expand_caller(self, node: Any) -> Any:
        return rewrite_children(node, self._change_caller)

    def _change_caller(self, node: ast.Node) -> ast.Node | None:
        """Expand calls that stand in the script itself."""
        if isinstance(node, ast.ExprStatement):
            return _as_statement(rewrite_children(node, self._change_caller), node)
        if isinstance(node, ast.Call):
            call = rewrite_children(node, self._change_caller)
            return self._expand_call(call, call.name, call.args, ())
        if isinstance(node, ast.Identifier):
            return self._expand_call(node, node.name, (), ())
        return None

    # calls ----------------------------------------------------------------------------------------------------

    def _expand_call(self, node: ast.Expr, name: str, args: tuple[Any, ...], chain: tuple[str, ...]) -> ast.Expr:
        """Return the expansion of a call (or of a bare name) whose arguments are expanded; `node` if it is no macro."""
        bare = isinstance(node, ast.Identifier)
        macros = () if bare and is_builtin(name) else self._find(name)
        if not macros:
            return node
        macro = self._select(macros, args)
        if macro is None:
            if not (name in OVERLOADABLE and name in self.own):
                self._report_mismatch(node, name, args, macros)
            return node
        if name in chain:
            path = " > ".join((*chain[chain.index(name) :], name))
            self.error(node.span, f"Recursive macro call detected. Call chain: {path}")
            return node
        self.expansions += 1
        if self.expansions > MAX_EXPANSIONS or len(chain) >= MAX_NESTING:
            self.error(node.span, f"macros expand to more than {MAX_EXPANSIONS} calls, or deeper than {MAX_NESTING}")
            self._fail_on_errors()
        assert isinstance(node.span, Place)
        return self._expand_body(macro, args, _Scope(node.span, (*chain, name)))

    def _report_mismatch(self, node: ast.Expr, name: str, args: tuple[Any, ...], macros: tuple[ast.Macro, ...]) -> None:
        closest = next((m for m in macros if len(m.params) == len(args)), macros[0])
        if len(closest.params) != len(args):
            message = f"The closest definition of {name}() has a different number of arguments. Expected: "
            notes: tuple[Diagnostic, ...] = (
                diagnose(_head(closest), f"{message}{len(closest.params)} but got {len(args)}"),
            )
        else:
            param, arg = next((p, a) for p, a in zip(closest.params, args) if _match(p, a) < 0)
            kinds = {"var": "variable", "map": "map"}
            got = {ast.Variable: "a variable", ast.Map: "a map"}.get(type(arg), "an expression")
            message = f"Mismatched arg. {name}() expects a {kinds[param.kind]} for arg {param.name} but got {got}."
            notes = (
                diagnose(arg.span, message),
                diagnose(param.span, "This is the argument in the closest definition."),
            )
        self.error(node.span, f"Call to {name}() has arguments that do not match any definition.", notes=notes)

    # bodies ---------------------------------------------------------------------------------------------------

    def _expand_body(self, macro: ast.Macro, args: tuple[Any, ...], scope: _Scope) -> ast.Expr:
        for param, arg in zip(macro.params, args):
            if param.kind == "var":
                scope.variables[param.name] = arg.name
            elif param.kind == "map":
                scope.maps[param.name] = arg.name
            else:
                scope.exprs[param.name] = arg
        for name in _assigned(macro.body):
            if name not in scope.variables:
                scope.fresh[name] = f"$${macro.name}_{name[1:]}" + (
                    f"_{self.expansions}" if self.expansions > 1 else ""
                )
        body: ast.BlockExpr = self._copy(macro.body, scope)
        return body.value if body.value is not None and not body.statements else body

    def _copy(self, node: Any, scope: _Scope) -> Any:
        """Copy a piece of a macro's body for one call, names replaced and inner calls expanded."""
        if type(node) is tuple:
            return tuple(self._copy(item, scope) for item in node)
        if not isinstance(node, ast.Node):
            return node
        special = _COPIERS.get(type(node))
        if special is not None:
            return special(self, node, scope)
        return self._copy_plain(node, scope)

    def _copy_plain(self, node: Any, scope: _Scope) -> Any:
        values: list[Any] = [_placed(node, scope)]
        for field in node._fields[1:]:
            values.append(self._copy(getattr(node, field), scope))
        return type(node)(*values)

    def _copy_identifier(self, node: ast.Identifier, scope: _Scope) -> ast.Expr:
        arg = scope.exprs.get(node.name)
        if arg is None:
            return self._expand_call(self._copy_plain(node, scope), node.name, (), scope.chain)
        if isinstance(arg, ast.TypeName):
            self.error(_placed(node, scope), f"'{node.name}' is a type in this call, it cannot be used as a value")
            return node
        self.nodes += sum(1 for _ in iter_nodes(arg))
        if self.nodes > MAX_NODES:
            self.error(_placed(node, scope), f"macros expand to more than {MAX_NODES} nodes")
            self._fail_on_errors()
        return copy(arg)

    def _copy_call(self, node: ast.Call, scope: _Scope) -> ast.Expr:
        args = tuple(self._copy_operand(a, scope) for a in node.args)
        call = ast.Call(_placed(node, scope), node.name, args)
        return self._expand_call(call, node.name, args, scope.chain)

    def _copy_operand(self, node: Any, scope: _Scope) -> Any:
        """An operand that may be a type: a parameter that was given a type is fine here."""
        if isinstance(node, ast.Identifier) and isinstance(scope.exprs.get(node.name), ast.TypeName):
            return copy(scope.exprs[node.name])
        return self._copy(node, scope)

    def _copy_sizeof(self, node: ast.Sizeof, scope: _Scope) -> ast.Expr:
        return ast.Sizeof(_placed(node, scope), self._copy_operand(node.operand, scope))

    def _copy_offsetof(self, node: ast.Offsetof, scope: _Scope) -> ast.Expr:
        path: tuple[str, ...] = ()
        for name in node.path:
            path += _as_path(scope.exprs.get(name)) or (name,)
        return ast.Offsetof(_placed(node, scope), self._copy_operand(node.operand, scope), path)

    def _copy_type(self, node: ast.TypeName, scope: _Scope) -> ast.TypeName:
        place = _placed(node, scope)
        typeof = self._copy_operand(node.typeof, scope)
        arg = scope.exprs.get(node.name)
        if arg is None:
            return ast.TypeName(place, node.name, node.pointers, node.dims, typeof)
        if isinstance(arg, ast.Identifier):
            return ast.TypeName(place, arg.name, node.pointers, node.dims)
        if isinstance(arg, ast.TypeName) and not node.pointers and not node.dims:
            return copy(arg)
        return ast.TypeName(place, "", node.pointers, node.dims, copy(arg))

    def _copy_variable(self, node: ast.Variable, scope: _Scope) -> ast.Expr:
        name = scope.variables.get(node.name) or scope.fresh.get(node.name, node.name)
        return ast.Variable(_placed(node, scope), name)

    def _copy_map(self, node: ast.Map, scope: _Scope) -> ast.Expr:
        name = scope.maps.get(node.name)
        place = _placed(node, scope)
        if name is None:
            message = f"Unhygienic access to map: {node.name}. Maps must be passed into the macro as arguments."
            self.error(place, message)
            name = node.name
        return ast.Map(place, name)

    def _copy_let(self, node: ast.Let, scope: _Scope) -> ast.Statement:
        name = node.variable.name
        if name in scope.variables:
            self.error(_placed(node, scope), f"Variable declaration shadows macro arg {name}")
        return self._copy_plain(node, scope)  # type: ignore[no-any-return]

    def _copy_statement(self, node: ast.ExprStatement, scope: _Scope) -> ast.Statement:
        return _as_statement(self._copy_plain(node, scope), node)


_COPIERS: dict[type, Any] = {
    ast.Identifier: _Expander._copy_identifier,
    ast.Call: _Expander._copy_call,
    ast.Sizeof: _Expander._copy_sizeof,
    ast.Offsetof: _Expander._copy_offsetof,
    ast.TypeName: _Expander._copy_type,
    ast.Variable: _Expander._copy_variable,
    ast.Map: _Expander._copy_map,
    ast.Let: _Expander._copy_let,
    ast.ExprStatement: _Expander._copy_statement,
}


def _as_statement(new: ast.ExprStatement, old: ast.ExprStatement) -> ast.ExprStatement:
    """Drop the value of an expansion that replaced a call used as a statement."""
    if isinstance(old.expr, (ast.Call, ast.Identifier)):
        return ast.ExprStatement(new.span, drop_value(new.expr))
    return new


def _placed(node: ast.Node, scope: _Scope) -> Place:
    span = node.span
    assert isinstance(span, Place)
    return Place(span.source, span.start, span.end, scope.call)


def _head(macro: ast.Macro) -> Span:
    """`macro name`, which is what diagnostics underline."""
    span = macro.span
    if not isinstance(span, Place):
        return span
    return Place(span.source, span.start, span.source.text.index("(", span.start))


def _match(param: ast.MacroParam, arg: Any) -> int:
    """How well an argument fits a parameter: 1 by kind, 0 as an expression, -1 not at all."""
    if param.kind == "var":
        return 1 if isinstance(arg, ast.Variable) else -1
    if param.kind == "map":
        return 1 if isinstance(arg, ast.Map) else -1
    return 0


def _assigned(body: ast.Node) -> set[str]:
    """The variables that a body declares or assigns."""
    names = set()
    for node in iter_nodes(body):
        if isinstance(node, (ast.Let, ast.ForRange, ast.ForMap)):
            names.add(node.variable.name)
        elif isinstance(node, ast.Assign) and isinstance(node.target, ast.Variable):
            names.add(node.target.name)
    return names


def _as_path(arg: Any) -> tuple[str, ...]:
    """A member path given as an argument: `a` or `a.b`."""
    if isinstance(arg, ast.Identifier):
        return (arg.name,)
    if isinstance(arg, ast.FieldAccess):
        before = _as_path(arg.operand)
        return (*before, arg.name) if before else ()
    return ()


def _words(body: ast.Node) -> set[str]:
    words = set()
    for node in iter_nodes(body):
        if isinstance(node, (ast.Identifier, ast.Call)):
            words.add(node.name)
        elif isinstance(node, ast.Positional):
            words.add(f"${node.number}")
        elif isinstance(node, ast.PositionalCount):
            words.add("$#")
    return words


def _has_library(macros: tuple[ast.Macro, ...]) -> bool:
    return any(m.span.file.startswith("stdlib/") for m in macros)

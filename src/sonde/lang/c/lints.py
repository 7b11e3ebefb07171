"""Warnings about what is right C, and likely not what was meant: those that clang gives by default, and for libbpf's style those of -Wall.

BCC's texts are compiled without -Wall, so that their authors never saw the second kind.
"""

from __future__ import annotations

from ..source import Place
from . import ast
from .types_decl import has_attribute
from .walk import COMPARISONS, iter_nodes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from .analysis import FunctionSymbol, Variable
    from .checker import Checker, FunctionState

_LOOSE = {"&": "&", "|": "|", "^": "^"}
_CHARACTER = range(-128, 256)


def lint_function(ck: Checker, state: FunctionState, body: ast.Compound) -> None:
    """Look over a function whose body has been checked."""
    values: set[ast.Node] = set()  # statements whose value is that of the statement expression around them
    for node in iter_nodes(body):
        if isinstance(node, ast.StatementExpr) and node.body.items:
            values.add(node.body.items[-1])
        rule = _RULES.get(type(node))
        if rule is not None and node not in values:
            rule(ck, node)
    if ck.dialect != "bcc":
        _unused(ck, state)


def lint_unit(ck: Checker) -> None:
    """Look over the functions of a text: those that nobody calls."""
    if ck.dialect == "bcc":
        return
    called = {symbol for calls in ck.edges.values() for symbol in calls} | ck.named_functions
    for info in ck.functions.values():
        symbol = info.symbol
        if symbol.static and symbol not in called and not symbol.is_program and not _is_marked(symbol):
            ck.warn(symbol.span, f"unused function '{symbol.name}'")


def _is_marked(symbol: FunctionSymbol) -> bool:
    node = symbol.definition
    if node is None:
        return True
    attributes = (*node.specifiers.attributes, *node.declarator.attributes)
    return node.specifiers.inline or any(
        has_attribute(attributes, name) for name in ("unused", "always_inline", "used")
    )


def _unused(ck: Checker, state: FunctionState) -> None:
    for variable in state.locals:
        if variable in state.named or variable in ck.cleanups or variable in state.spared:
            continue
        ck.warn(variable.span, f"unused variable '{variable.name}'")
    used = {goto.name for goto in state.gotos}
    for name, label in state.labels.items():
        if name not in used:
            ck.warn(label, f"unused label '{name}'")


# Single nodes -----------------------------------------------------------------------------------------------------


def _condition(ck: Checker, node: ast.If | ast.While | ast.DoWhile) -> None:
    tested = node.condition
    if isinstance(tested, ast.Assign) and tested.op == "=" and not _parentheses(tested, 2):
        ck.warn(tested, "an assignment as a condition", hint="write == to compare; or ((a = b)) when it is meant")
    if isinstance(node, ast.If) and node.no is None and _is_empty(node.yes):
        ck.warn(node.yes, "this 'if' has an empty body", hint="there is a semicolon behind the condition")


def _compound(ck: Checker, node: ast.Compound) -> None:
    reached = True
    for item, following in zip(node.items, (*node.items[1:], None)):
        if isinstance(item, (ast.For, ast.While)) and _is_empty(item.body) and isinstance(following, ast.Compound):
            ck.warn(item.body, "this loop has an empty body", hint="the block behind the semicolon runs once")
        if not reached and ck.dialect != "bcc" and not _is_entered(item):
            ck.warn(_head(item), "this is never reached")
        reached = not isinstance(item, (ast.Return, ast.Break, ast.Continue, ast.Goto))


def _is_entered(item: ast.Node) -> bool:
    """Whether control may come to a statement, or there is nothing in it that could run."""
    if isinstance(item, (ast.Declaration, ast.StaticAssert)) or _is_empty(item) or isinstance(item, ast.Break):
        return not (isinstance(item, ast.Declaration) and any(each.init is not None for each in item.declarators))
    return any(isinstance(each, (ast.Label, ast.Case)) for each in iter_nodes(item))


def _head(item: ast.Node) -> ast.Node:
    return item.condition if isinstance(item, (ast.If, ast.While)) else item


def _is_empty(node: ast.Node) -> bool:
    return isinstance(node, ast.ExprStatement) and node.expr is None and _written_here(node)


def _written_here(node: ast.Node) -> bool:
    return not isinstance(node.span, Place) or node.span.call is None


def _statement(ck: Checker, node: ast.ExprStatement) -> None:
    expr = node.expr
    if isinstance(expr, ast.Binary) and expr.op in COMPARISONS:
        ck.warn(expr, "the result of this comparison is not used", hint="write = to assign" if expr.op == "==" else "")
    elif isinstance(expr, ast.Binary) and expr.op not in ("&&", "||") and ck.dialect != "bcc":
        ck.warn(expr, "the result of this expression is not used")


def _binary(ck: Checker, node: ast.Binary) -> None:
    if node.op in COMPARISONS and ast.String in (type(node.left), type(node.right)):
        hint = "compare texts by bpf_strncmp() or __builtin_strcmp()"
        ck.warn(node, "a comparison with the address of a string, not with its characters", hint=hint)
    if node.op in _LOOSE:
        for side in (node.left, node.right):
            if isinstance(side, ast.Binary) and side.op in COMPARISONS and not _parentheses(side, 1):
                hint = f"put {'the comparison' if side is node.left else f'the {node.op}'} in parentheses"
                ck.warn(node, f"'{side.op}' binds more tightly than '{node.op}'", hint=hint)


def _character(ck: Checker, node: ast.Character) -> None:
    if node.value not in _CHARACTER:
        ck.warn(node, "a character constant of several characters")


def _parentheses(node: ast.Node, count: int) -> bool:
    """Whether so many pairs of parentheses stand around an expression; also True where that cannot be told: in macros."""
    span = node.span
    if not isinstance(span, Place) or span.call is not None:
        return True
    text, start, end = span.source.text, span.start, span.end
    for _ in range(count):
        before, behind = text[:start].rstrip(), len(text) - len(text[end:].lstrip())
        if not before.endswith("(") or not text.startswith(")", behind):
            return False
        start, end = len(before) - 1, behind + 1
    return True


_RULES: dict[type, Callable[..., None]] = {
    ast.If: _condition,
    ast.While: _condition,
    ast.DoWhile: _condition,
    ast.Compound: _compound,
    ast.ExprStatement: _statement,
    ast.Binary: _binary,
    ast.Character: _character,
}


def spares(attributes: tuple[ast.Attribute, ...], variable: Variable) -> bool:
    """Whether a variable may be there without being used."""
    return has_attribute(attributes, "unused") or has_attribute(attributes, "used") or bool(variable.section)

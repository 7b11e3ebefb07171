"""Walking the syntax tree: every expression and statement below a node, and what a function does to its variables."""

from __future__ import annotations

from ...debuginfo.ctype import Array, Pointer, strip
from ...record import Record
from . import ast

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from .analysis import Analysis, FunctionInfo, Variable

COMPARISONS = frozenset(["<", "<=", ">", ">=", "==", "!="])
_LEAVES = (ast.Name, ast.Number, ast.Character, ast.String, ast.TypeName, ast.Specifiers, ast.Goto, ast.Break)


def iter_nodes(root: ast.Node) -> Iterator[ast.Node]:
    """Yield `root` and all nodes below it in the order of the text, types left out."""
    stack = [root]
    while stack:
        node = stack.pop()
        yield node
        if isinstance(node, _LEAVES):
            continue
        below: list[ast.Node] = []
        for name in node._fields:
            part = getattr(node, name)
            if isinstance(part, ast.Node):
                below.append(part)
            elif isinstance(part, tuple):
                below += [each for each in part if isinstance(each, ast.Node)]
        stack += reversed(below)


class Flow(Record, eq=False):
    """What the body of a function does to its variables: values that they are given, whose addresses are taken, what it returns."""

    assigned: tuple[tuple[Variable, ast.Expr], ...]
    returned: tuple[ast.Expr, ...]
    exposed: frozenset[Variable]  # those with `&`
    used: frozenset[Variable]  # those that are named at all
    changed: frozenset[Variable]  # those that are assigned to after their declaration, in any way
    compared: tuple[ast.Binary, ...]  # comparisons and differences of two pointers


def flow_of(analysis: Analysis, info: FunctionInfo) -> Flow:
    """Collect the flow of a function."""
    from .analysis import Variable

    definition = info.symbol.definition
    assert definition is not None
    assigned: list[tuple[Variable, ast.Expr]] = []
    returned: list[ast.Expr] = []
    exposed: set[Variable] = set()
    used: set[Variable] = set()
    changed: set[Variable] = set()
    compared: list[ast.Binary] = []
    for node in iter_nodes(definition.body):
        if isinstance(node, ast.Name):
            symbol = analysis.symbols.get(node)
            if isinstance(symbol, Variable):
                used.add(symbol)
        elif isinstance(node, ast.Assign):
            variable = _named(analysis, node.target)
            if variable is not None:
                changed.add(variable)
                if node.op == "=":
                    assigned.append((variable, node.value))
        elif isinstance(node, ast.Unary) and node.op in ("&", "++", "--"):
            variable = _named(analysis, node.operand)
            if variable is not None:
                (exposed if node.op == "&" else changed).add(variable)
        elif isinstance(node, ast.Postfix):
            variable = _named(analysis, node.operand)
            if variable is not None:
                changed.add(variable)
        elif isinstance(node, ast.Binary):
            if (node.op in COMPARISONS or node.op == "-") and _are_pointers(analysis, node):
                compared.append(node)
        elif isinstance(node, ast.Asm):
            changed.update(v for o in node.outputs if (v := _named(analysis, o.expr)) is not None)
        elif isinstance(node, ast.Declarator):
            variable = analysis.symbols.get(node)  # type: ignore[assignment]
            if isinstance(variable, Variable) and variable.init and len(variable.init) == 1:
                assigned.append((variable, variable.init[0].value))
            if variable in analysis.cleanups:
                exposed.add(variable)
                used.add(variable)
        elif isinstance(node, ast.Return) and node.value is not None:
            returned.append(node.value)
    return Flow(
        tuple(assigned), tuple(returned), frozenset(exposed), frozenset(used), frozenset(changed), tuple(compared)
    )


def _are_pointers(analysis: Analysis, node: ast.Binary) -> bool:
    """Whether both sides lead somewhere; NULL does not."""
    return all(
        each not in analysis.constants and isinstance(strip(analysis.types[each]), (Pointer, Array))
        for each in (node.left, node.right)
    )


def _named(analysis: Analysis, node: ast.Node) -> Variable | None:
    """Return the variable that an expression names as a whole."""
    from .analysis import Variable

    if isinstance(node, ast.Name):
        symbol = analysis.symbols.get(node)
        if isinstance(symbol, Variable):
            return symbol
    return None

"""Expressions to formatted text: parentheses around all operands that are not simple, long lists over several lines."""

from __future__ import annotations

from . import ast
from .expressions import PRECEDENCE
from .fmt_lines import LineWriter, source_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

WIDTH = 90  # of a line up to its last closing bracket
_OVERLONG = 93  # from here on, what cannot be broken goes to a line of its own
_COMPARISONS = frozenset(["==", "!=", "<", "<=", ">", ">="])
_CHAINS = ("&&", "||")
_WRAPPED = (ast.Binary, ast.Ternary, ast.Cast, ast.Unary, ast.IfExpr, ast.BlockExpr, ast.Comptime)


class ExpressionWriter(LineWriter):
    """Adds expressions. What is written at `column` may have several lines; all but the first are indented."""

    def nested(self, value: ast.Expr) -> str:
        """An `if` or a block inside an expression (see the formatter)."""
        raise NotImplementedError

    def condition(self, node: ast.Expr, column: int) -> str:
        """The condition of `if` and `while`: parentheses unless it is simple."""
        text = self.operand(node, column)
        # Behind `if`, a first parenthesis encloses the whole condition.
        return f"({text})" if text.startswith("(") and not isinstance(node, _WRAPPED) else text

    def operand(self, node: ast.Expr, column: int) -> str:
        """An expression inside another one: parentheses unless it is simple."""
        if isinstance(node, _WRAPPED):
            return f"({self.expr(node, column + 1)})"
        return self.expr(node, column)

    def expr(self, node: Any, column: int) -> str:
        """The text of an expression that begins at `column`."""
        writer = _EXPRESSIONS.get(type(node))
        return writer(self, node, column) if writer is not None else source_text(node)

    def _call(self, node: ast.Call, column: int) -> str:
        return self._list(f"{node.name}(", node.args, ")", column)

    def _map_access(self, node: ast.MapAccess, column: int) -> str:
        keys: tuple[ast.Expr, ...] = (node.key,)
        if isinstance(node.key, ast.TupleExpr) and len(node.key.items) > 1:
            keys = node.key.items
        return self._list(f"{node.map.name}[", keys, "]", column)

    def _tuple(self, node: ast.TupleExpr, column: int) -> str:
        if len(node.items) == 1:
            return f"({self.expr(node.items[0], column + 1)},)"
        return self._list("(", node.items, ")", column)

    def _record(self, node: ast.RecordExpr, column: int) -> str:
        items = [f"{name}={self.expr(value, column)}" for name, value in zip(node.names, node.items)]
        return self._fill("(", items, ")", column, ", ")

    def _list(self, opener: str, items: tuple[Any, ...], closer: str, column: int) -> str:
        inner = column + len(opener)
        return self._fill(opener, [self.expr(item, inner) for item in items], closer, column, ", ")

    def _fill(self, opener: str, items: list[str], closer: str, column: int, separator: str) -> str:
        """Lay out a list: on one line, or on several that are filled from the last one up."""
        inner = column + len(opener)
        joined = separator.join(items)
        if inner + len(joined) < WIDTH and "\n" not in joined:
            return opener + joined + closer
        lines: list[str] = []
        rest = items
        while rest:
            count = 1
            while count < len(rest):
                line = separator.join(rest[-count - 1 :])
                if inner + len(line) + (len(separator) if lines else 0) >= WIDTH or "\n" in line:
                    break
                count += 1
            lines.insert(0, separator.join(rest[-count:]))
            rest = rest[:-count]
        widest = max((len(line) for text in lines for line in text.split("\n")), default=0)
        if inner + widest >= _OVERLONG and closer == ")" and "\n" not in joined:
            indent = " " * (self.indent + 2)
            return f"{opener}\n{indent}{joined}\n{' ' * self.indent}{closer}"
        return opener + f"{separator.rstrip()}\n{' ' * inner}".join(lines) + closer

    def _unary(self, node: ast.Unary, column: int) -> str:
        operand = self.operand(node.operand, column + 1)
        return operand + node.op if node.postfix else node.op + operand

    def _binary(self, node: ast.Binary, column: int) -> str:
        if node.op in _CHAINS:
            items = [self._side(item, node.op, False, column) for item in _flatten(node, node.op)]
            return self._fill("", items, "", column, f" {node.op} ")
        left = self._side(node.left, node.op, False, column)
        right = self._side(node.right, node.op, True, column)
        last = left.rsplit("\n", 1)[-1]
        used = len(last) + (0 if "\n" in left else column)
        if used + len(node.op) + 2 + len(right.split("\n", 1)[0]) < WIDTH and "\n" not in left:
            return f"{left} {node.op} {right}"
        return f"{left} {node.op}\n{' ' * column}{right}"

    def _side(self, node: ast.Expr, op: str, right: bool, column: int) -> str:
        """An operand of `op`. A comparison needs no parentheses where it binds tighter."""
        if isinstance(node, ast.Binary) and node.op in _COMPARISONS:
            inner, outer = PRECEDENCE[node.op], PRECEDENCE[op]
            if inner > outer or (inner == outer and not right):
                return self.expr(node, column)
        return self.operand(node, column)

    def _ternary(self, node: ast.Ternary, column: int) -> str:
        condition = self.operand(node.condition, column)
        otherwise = self.operand(node.otherwise, column)
        if node.then is None:
            return f"{condition} ?: {otherwise}"
        then = self.operand(node.then, column)
        text = f"{condition} ? {then} : {otherwise}"
        if column + len(text) < WIDTH or "\n" in text:
            return text
        indent = "\n" + " " * self.indent
        return f"{condition}{indent}? {then}{indent}: {otherwise}"

    def _cast(self, node: ast.Cast, column: int) -> str:
        type_ = f"({self.type_text(node.type)})"
        return type_ + self.operand(node.operand, column + len(type_))

    def _member(self, node: ast.FieldAccess, column: int) -> str:
        return f"{self.operand(node.operand, column)}.{node.name}"

    def _element(self, node: ast.TupleAccess, column: int) -> str:
        return f"{self.operand(node.operand, column)}.{node.index}"

    def _index(self, node: ast.IndexAccess, column: int) -> str:
        operand = self.operand(node.operand, column)
        if isinstance(node.operand, ast.Map):
            operand = f"({operand})"  # the map's value is indexed, not the map
        return f"{operand}[{self.expr(node.index, column)}]"

    def _sizeof(self, node: ast.Sizeof, column: int) -> str:
        return f"sizeof({self.expr(node.operand, column)})"

    def _offsetof(self, node: ast.Offsetof, column: int) -> str:
        return f"offsetof({self.expr(node.operand, column)}, {'.'.join(node.path)})"

    def _comptime(self, node: ast.Comptime, column: int) -> str:
        return f"comptime {self.operand(node.operand, column)}"

    def _block(self, node: ast.Expr, column: int) -> str:
        return self.nested(node)

    def _type(self, node: ast.TypeName, column: int) -> str:
        return self.type_text(node)

    def type_text(self, node: ast.TypeName) -> str:
        """A type as it is written, or `typeof(…)` where it stands in an argument list."""
        if source_text(node).startswith("typeof"):
            suffix = "*" * node.pointers + "".join(f"[{'' if d is None else d}]" for d in node.dims)
            return f"typeof({self.expr(node.typeof, 0)}){suffix}" if node.typeof is not None else source_text(node)
        return _tight(source_text(node))


_EXPRESSIONS: dict[type, Any] = {
    ast.Call: ExpressionWriter._call,
    ast.MapAccess: ExpressionWriter._map_access,
    ast.TupleExpr: ExpressionWriter._tuple,
    ast.RecordExpr: ExpressionWriter._record,
    ast.Unary: ExpressionWriter._unary,
    ast.Binary: ExpressionWriter._binary,
    ast.Ternary: ExpressionWriter._ternary,
    ast.Cast: ExpressionWriter._cast,
    ast.FieldAccess: ExpressionWriter._member,
    ast.TupleAccess: ExpressionWriter._element,
    ast.IndexAccess: ExpressionWriter._index,
    ast.Sizeof: ExpressionWriter._sizeof,
    ast.Offsetof: ExpressionWriter._offsetof,
    ast.Comptime: ExpressionWriter._comptime,
    ast.IfExpr: ExpressionWriter._block,
    ast.BlockExpr: ExpressionWriter._block,
    ast.TypeName: ExpressionWriter._type,
}


def _tight(text: str) -> str:
    """A type name with single spaces between words and none before `*` and `[`."""
    words = " ".join(text.replace("*", " * ").replace("[", " [ ").replace("]", " ] ").split())
    for mark in ("*", "[", "]"):
        words = words.replace(f" {mark}", mark)
    return words.replace("[ ", "[")


def _flatten(node: ast.Expr, op: str) -> list[ast.Expr]:
    """The operands of `a op b op c`."""
    operands: list[ast.Expr] = []
    while isinstance(node, ast.Binary) and node.op == op:
        operands.append(node.right)
        node = node.left
    return [node, *reversed(operands)]

"""Tokens to statements and blocks, with recovery: after an error, parsing goes on behind the next `;` of the same block."""

from __future__ import annotations

from ...errors import Diagnostic
from ..source import Source
from . import ast
from .expressions import ExpressionParser
from .fault import Fault

ASSIGNMENTS = {
    "=": "", "+=": "+", "-=": "-", "*=": "*", "/=": "/", "%=": "%", "&=": "&", "|=": "|", "^=": "^", "<<=": "<<", ">>=": ">>",
}  # fmt: skip
MAX_ERRORS = 10


class GiveUp(Exception):
    """Nothing more can be parsed: the text ended too early, or there were too many errors."""


class StatementParser(ExpressionParser):
    """Adds blocks and statements; collects diagnostics."""

    def __init__(self, source: Source) -> None:
        super().__init__(source)
        self.errors: list[Diagnostic] = []
        self.warnings: list[Diagnostic] = []
        self.keep_values = False  # the formatter wants to see which `;` were left out

    # diagnostics ----------------------------------------------------------------------------------------------

    def report(self, fault: Fault) -> None:
        """Record an error. Raises GiveUp after too many of them."""
        place = self.source.span(fault.start, fault.end)
        self.errors.append(self.source.diagnostic(f"syntax: {fault.message}", place, hint=fault.hint))
        if len(self.errors) >= MAX_ERRORS:
            raise GiveUp

    def warn(self, start: int, message: str, hint: str = "") -> None:
        """Record a warning about the text from `start` to the last token taken."""
        self.warnings.append(self.source.diagnostic(message, self.span(start), severity="WARNING", hint=hint))

    # blocks ---------------------------------------------------------------------------------------------------

    def parse_block(self, value: bool) -> ast.BlockExpr:
        """`{ … }`. If `value`, a last expression without `;` is the value of the block; otherwise it is a statement."""
        self.enter()
        start = self.expect("{").start
        statements: list[ast.Statement] = []
        result: ast.Expr | None = None
        depth = self.depth
        while self.token.kind != "}":
            try:
                result = self._parse_item(statements)
            except Fault as fault:
                self.depth = depth
                self.report(fault)
                self._skip_statement()
        self.expect("}")
        self.depth -= 1
        if result is not None and not value:
            statements.append(self._as_statement(result))
            result = None
        return ast.BlockExpr(self.span(start), tuple(statements), result)

    def _parse_item(self, statements: list[ast.Statement]) -> ast.Expr | None:
        """Parse one statement into `statements`, or return the expression that ends the block."""
        token = self.token
        if token.kind == "name":
            parse = _STATEMENTS.get(token.value)
            if parse is not None:
                statements.append(parse(self))
                return None
        elif token.kind == ";":
            self.take()
            return None
        elif token.kind == "end":
            raise self.fault("expected '}'")
        expr = self.parse_expression()
        if self.token.kind in ASSIGNMENTS:
            statements.append(self._parse_assignment(token.start, expr))
            return None
        if self.token.kind == "}":
            return expr
        if self.token.kind == ";":
            self.take()
        elif not isinstance(expr, (ast.IfExpr, ast.BlockExpr)):
            raise self.fault("expected ';'")
        statements.append(self._as_statement(expr))
        return None

    def _as_statement(self, expr: ast.Expr) -> ast.Statement:
        return ast.ExprStatement(expr.span, expr if self.keep_values else drop_value(expr))

    def _skip_statement(self) -> None:
        """Move behind the next `;` of this block, or to its `}`. Raises GiveUp at the end of the text."""
        depth = 0
        while True:
            kind = self.token.kind
            if kind == "end":
                raise GiveUp
            if kind == "{":
                depth += 1
            elif kind == "}":
                if depth == 0:
                    return
                depth -= 1
            self.take()
            if kind == ";" and depth == 0:
                return

    def expect_end(self) -> None:
        """Take the `;` behind a statement; it may be left out before `}`."""
        if self.token.kind != "}":
            self.expect(";")

    # statements -----------------------------------------------------------------------------------------------

    def _parse_assignment(self, start: int, target: ast.Expr) -> ast.Statement:
        op = ASSIGNMENTS[self.take().kind]
        value = self.parse_expression()
        if isinstance(target, (ast.FieldAccess, ast.TupleAccess)):
            raise self.fault_since(start, _IMMUTABLE)
        discards = isinstance(target, ast.Identifier) and target.name == "_" and not op
        if not discards and not isinstance(target, (ast.Variable, ast.Map, ast.MapAccess)):
            raise self.fault_since(start, "invalid assignment target", "only $variables and @maps can be assigned to.")
        place = self.span(start)
        self.expect_end()
        return ast.Assign(place, target, op, value)  # type: ignore[arg-type]

    def _parse_let(self) -> ast.Statement:
        start = self.take().start
        if self.token.kind != "var":
            raise self.fault("expected variable after 'let'")
        name = self.take()
        variable = ast.Variable(self.span(name.start), name.value)
        type_ = self.parse_type() if self.accept(":") else None
        value = self.parse_expression() if self.accept("=") else None
        place = self.span(start)
        self.expect_end()
        return ast.Let(place, variable, type_, value)

    def _parse_condition(self) -> ast.Expr:
        """A condition; without parentheses only a unary expression, so that the block is not taken for an operand."""
        if self.accept("("):
            condition = self.parse_expression()
            self.expect(")")
            return condition
        return self.parse_unary()

    def _parse_while(self) -> ast.Statement:
        start = self.take().start
        condition = self._parse_condition()
        body = self.parse_block(False)
        return ast.While(self.span(start), condition, body)

    def _parse_unroll(self) -> ast.Statement:
        start = self.take().start
        count = self._parse_condition()
        body = self.parse_block(False)
        return ast.Unroll(self.span(start), count, body)

    def _parse_for(self) -> ast.Statement:
        start = self.take().start
        parenthesis = self.accept("(")
        if self.token.kind != "var":
            raise self.fault("expected variable in for loop", "write `for ($x : 0..10)` or `for ($kv : @map)`.")
        name = self.take()
        variable = ast.Variable(self.span(name.start), name.value)
        self.expect(":")
        at = self.token.start
        first = self.parse_binary(1)
        last = self.parse_binary(1) if self.accept("..") else None
        if last is None and not isinstance(first, ast.Map):
            raise self.fault_since(at, "expected map or range in for loop")
        if parenthesis:
            self.expect(")")
        body = self.parse_block(False)
        if last is not None:
            return ast.ForRange(self.span(start), variable, first, last, body)
        assert isinstance(first, ast.Map)
        return ast.ForMap(self.span(start), variable, first, body)

    def _parse_jump(self) -> ast.Statement:
        token = self.take()
        value = None
        if token.value == "return" and self.token.kind not in (";", "}"):
            value = self.parse_expression()
        place = self.span(token.start)
        self.expect_end()
        return ast.Jump(place, token.value, value)

    def parse_if(self) -> ast.IfExpr:
        """`if c { … } else if d { … } else { … }`; blocks may have values."""
        arms: list[tuple[int, ast.Expr, ast.BlockExpr]] = []
        otherwise: ast.BlockExpr | ast.IfExpr | None = None
        while True:
            start = self.take().start
            condition = self._parse_condition()
            arms.append((start, condition, self.parse_block(True)))
            self.check_chain(len(arms))
            if not self.accept_word("else"):
                break
            if self.token.kind == "{":
                otherwise = self.parse_block(True)
                break
            if self.token.kind != "name" or self.token.value != "if":
                raise self.fault("expected '{' or 'if' after 'else'")
        for start, condition, then in reversed(arms):
            otherwise = ast.IfExpr(self.span(start), condition, then, otherwise)
        assert isinstance(otherwise, ast.IfExpr)
        return otherwise

    def _parse_import(self) -> ast.Statement:
        start = self.take().start
        if self.token.kind != "string":
            raise self.fault("expected string after 'import'")
        path = self.take().value
        self.expect(";")
        self.words.add("import")
        return ast.LocalImport(self.span(start), path)


_STATEMENTS = {
    "let": StatementParser._parse_let,
    "for": StatementParser._parse_for,
    "while": StatementParser._parse_while,
    "unroll": StatementParser._parse_unroll,
    "break": StatementParser._parse_jump,
    "continue": StatementParser._parse_jump,
    "return": StatementParser._parse_jump,
    "import": StatementParser._parse_import,
}
_IMMUTABLE = "Tuples and records are immutable once created. Consider creating a new value and assigning it instead."


def drop_value(expr: ast.Expr) -> ast.Expr:
    """Turn the values of blocks into statements, for an `if` or a block that is itself a statement."""
    if isinstance(expr, ast.IfExpr):
        then = drop_value(expr.then)
        otherwise = None if expr.otherwise is None else drop_value(expr.otherwise)
        if then is expr.then and otherwise is expr.otherwise:
            return expr
        return ast.IfExpr(expr.span, expr.condition, then, otherwise)  # type: ignore[arg-type]
    if isinstance(expr, ast.BlockExpr) and expr.value is not None:
        last = ast.ExprStatement(expr.value.span, drop_value(expr.value))
        return ast.BlockExpr(expr.span, (*expr.statements, last), None)
    return expr

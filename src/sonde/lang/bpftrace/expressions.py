"""Tokens to expressions: precedence climbing over unary, postfix and primary expressions.

Blocks and `if` are expressions too; their statements come from the subclass.
"""

from __future__ import annotations

from ..source import Place
from . import ast
from .lexer import Token, skip_layout
from .typenames import TAGS, TypeNameParser, is_builtin

PRECEDENCE = {
    "||": 1, "&&": 2, "|": 3, "^": 4, "&": 5, "==": 6, "!=": 6, "<": 7, "<=": 7, ">": 7, ">=": 7,
    "<<": 8, ">>": 8, "+": 9, "-": 9, "*": 10, "/": 10, "%": 10,
}  # fmt: skip
_STARTS_OPERAND = frozenset(["name", "int", "string", "var", "map", "param", "(", "-", "!", "~", "*", "&", "bad"])


class ExpressionParser(TypeNameParser):
    """Adds expressions."""

    def parse_expression(self) -> ast.Expr:
        """Any expression: `c ? a : b` binds loosest."""
        start = self.token.start
        condition = self.parse_binary(1)
        if self.token.kind != "?":
            return condition
        self.enter()
        self.take()
        then = None if self.token.kind == ":" else self.parse_expression()
        self.expect(":")
        otherwise = self.parse_expression()
        self.depth -= 1
        return ast.Ternary(self.span(start), condition, then, otherwise)

    def parse_binary(self, level: int) -> ast.Expr:
        """Infix operators that bind at least as tight as `level`."""
        start = self.token.start
        left = self.parse_unary()
        length = 0
        while True:
            op = self.token.kind
            binds = PRECEDENCE.get(op, 0)
            if binds < level or (op == "/" and self._ends_predicate()):
                return left
            length += 1
            self.check_chain(length)
            self.take()
            right = self.parse_binary(binds + 1)
            left = ast.Binary(self.span(start), op, left, right)

    def _ends_predicate(self) -> bool:
        """A `/` directly before a block is the end of a predicate, never a division."""
        return self.text[skip_layout(self.text, self.token.end)] == "{"

    def parse_unary(self) -> ast.Expr:
        """Prefix operators. Whatever nests passes through here, so this is where the depth is counted."""
        self.enter()
        prefixed = _PREFIXES.get(self.token.kind)
        expr = self.parse_postfix() if prefixed is None else prefixed(self)
        self.depth -= 1
        return expr

    def _parse_prefix(self) -> ast.Expr:
        token = self.take()
        operand = self.parse_unary()
        return ast.Unary(self.span(token.start), token.kind, operand)

    def _parse_increment(self) -> ast.Expr:
        token = self.take()
        start = self.token.start
        operand = self.parse_postfix()
        if not isinstance(operand, (ast.Variable, ast.Map, ast.MapAccess)):
            raise self.fault_since(start, _INCREMENT)
        return ast.Unary(self.span(token.start), token.kind, operand)

    def _parse_address(self) -> ast.Expr:
        token = self.take()
        if self.token.kind not in ("var", "map"):
            raise self.fault("address-of operator (&) can only be used on a map or variable")
        operand = self._sigil_alone()
        return ast.Unary(self.span(token.start), token.kind, operand)

    def _sigil_alone(self) -> ast.Expr:
        token = self.take()
        place = Place(self.source, token.start, token.end)
        return ast.Variable(place, token.value) if token.kind == "var" else ast.Map(place, token.value)

    def parse_postfix(self) -> ast.Expr:
        """A primary expression with its members, indices, `++` and `--`."""
        start = self.token.start
        expr = self.parse_primary()
        length = 0
        while True:
            kind = self.token.kind
            if kind == "." or kind == "->":
                expr = self._parse_member(expr, start, kind)
            elif kind == "[":
                self.take()
                index = self.parse_expression()
                self.expect("]")
                expr = ast.IndexAccess(self.span(start), expr, index)
            elif kind == "++" or kind == "--":
                operator = self.take()
                if not isinstance(expr, (ast.Variable, ast.Map, ast.MapAccess)):
                    raise self.fault_since(operator.start, _INCREMENT)
                expr = ast.Unary(self.span(start), kind, expr, True)
            else:
                return expr
            length += 1
            self.check_chain(length)

    def _parse_member(self, operand: ast.Expr, start: int, kind: str) -> ast.Expr:
        self.take()
        if kind == "." and self.token.kind == "int":
            index = self.take().value
            return ast.TupleAccess(self.span(start), operand, index)
        name = self.expect_name(f"expected field name after '{kind}'")
        return ast.FieldAccess(self.span(start), operand, name, kind == "->")

    # primary expressions --------------------------------------------------------------------------------------

    def parse_primary(self) -> ast.Expr:
        """Names, calls, literals, variables, maps, and everything in brackets."""
        token = self.token
        kind = token.kind
        if kind == "name":
            return self._parse_name()
        if kind == "int":
            self.take()
            return ast.Integer(self.span(token.start), token.value, self.text[token.start : token.end])
        if kind == "string":
            self.take()
            return ast.String(self.span(token.start), token.value)
        if kind == "var":
            self.take()
            return ast.Variable(self.span(token.start), token.value)
        if kind == "map":
            return self._parse_map()
        if kind == "param":
            self.take()
            self.words.add(self.text[token.start : token.end])
            place = self.span(token.start)
            return ast.Positional(place, token.value) if token.value else ast.PositionalCount(place)
        if kind == "(":
            return self._parse_parenthesis()
        if kind == "{":
            return self.parse_block(True)
        raise self.fault("expected expression")

    def parse_block(self, value: bool) -> ast.BlockExpr:
        """`{ … }`, whose last expression is its value if `value` (see the statement parser)."""
        raise NotImplementedError

    def parse_if(self) -> ast.IfExpr:
        """`if c { … } else …`; the cursor is on `if`."""
        raise NotImplementedError

    def _parse_map(self) -> ast.Expr:
        token = self.take()
        map_ = ast.Map(self.span(token.start), token.value)
        if self.token.kind != "[":
            return map_
        self.take()
        first = self.token.start
        keys = [self.parse_expression()]
        while self.accept(","):
            keys.append(self.parse_expression())
        key = keys[0] if len(keys) == 1 else ast.TupleExpr(self.span(first), tuple(keys))
        self.expect("]")
        return ast.MapAccess(self.span(token.start), map_, key)

    def _parse_name(self) -> ast.Expr:
        token = self.token
        word = token.value
        special = _SPECIAL.get(word)
        if special is not None:
            return special(self)  # type: ignore[no-any-return]
        self.take()
        self.words.add(word)
        if self.token.kind == "(":
            return self._parse_call(token)
        return ast.Identifier(self.span(token.start), word)

    def _parse_call(self, name: Token) -> ast.Expr:
        self.take()
        args: list[ast.Expr | ast.TypeName] = []
        if self.token.kind != ")":
            args.append(self._parse_argument())
            while self.accept(","):
                args.append(self._parse_argument())
        self.expect(")")
        return ast.Call(self.span(name.start), name.value, tuple(args))

    def _parse_argument(self) -> ast.Expr | ast.TypeName:
        token = self.token
        if token.kind == "name":
            if token.value == "typeof":
                return self.parse_type()
            if token.value in TAGS and self.look().kind == "name":
                return self.parse_type()
        return self.parse_expression()

    def _parse_boolean(self) -> ast.Expr:
        token = self.take()
        return ast.Boolean(self.span(token.start), token.value == "true")

    def _parse_sizeof(self) -> ast.Expr:
        start = self.take().start
        self.expect("(")
        operand = self.parse_type_or_expression(")")
        self.expect(")")
        return ast.Sizeof(self.span(start), operand)

    def _parse_offsetof(self) -> ast.Expr:
        start = self.take().start
        self.expect("(")
        operand = self.parse_type_or_expression(",")
        self.expect(",")
        path = [self.expect_name("expected a member name")]
        while self.accept("."):
            path.append(self.expect_name("expected a member name"))
        self.expect(")")
        return ast.Offsetof(self.span(start), operand, tuple(path))

    def _parse_typeinfo(self) -> ast.Expr:
        start = self.take().start
        self.expect("(")
        operand = self.parse_type_or_expression(")")
        self.expect(")")
        return ast.Call(self.span(start), "typeinfo", (operand,))

    def _parse_comptime(self) -> ast.Expr:
        start = self.take().start
        operand = self.parse_unary()
        return ast.Comptime(self.span(start), operand)

    # parentheses ----------------------------------------------------------------------------------------------

    def _parse_parenthesis(self) -> ast.Expr:
        """Cast, record, tuple or grouping."""
        start = self.take().start
        if self.accept(")"):
            return ast.TupleExpr(self.span(start), ())
        if self.token.kind == "name":
            if self.look().kind == "=" and not is_builtin(self.token.value):
                return self._parse_record(start)
            cast = self._try_cast(start)
            if cast is not None:
                return cast
        first = self.parse_expression()
        if self.token.kind != ",":
            self.expect(")")
            return first
        items = [first]
        while self.accept(",") and self.token.kind != ")":
            items.append(self.parse_expression())
        self.expect(")")
        return ast.TupleExpr(self.span(start), tuple(items))

    def _parse_record(self, start: int) -> ast.Expr:
        names: list[str] = []
        items: list[ast.Expr] = []
        while True:
            at = self.token.start
            name = self.expect_name("expected identifier")
            self.expect("=")
            items.append(self.parse_expression())
            if name in names:
                raise self.fault_since(at, f"Named argument list already contains name: {name}")
            names.append(name)
            if not self.accept(",") or self.token.kind == ")":
                break
        self.expect(")")
        return ast.RecordExpr(self.span(start), tuple(names), tuple(items))

    def _try_cast(self, start: int) -> ast.Expr | None:
        """Parse `T)operand` if that is what follows; else leave the cursor where it was.

        `(x) - 1` with a macro's parameter x is a subtraction; with any other name that is not a builtin it is a cast.
        """
        if is_builtin(self.token.value):
            return None
        if self.token.value == "typeof":
            type_ = self.parse_type()
            self.expect(")")
            return self._finish_cast(start, type_)
        mark = self.mark()
        maybe = self.try_type()
        operand_kind = self.look().kind
        if (
            maybe is None
            or self.token.kind != ")"
            or operand_kind not in _STARTS_OPERAND
            or (maybe.name in self.macro_params and operand_kind in ("-", "*", "&") and not maybe.pointers)
        ):
            self.back_to(mark)
            return None
        self.take()
        return self._finish_cast(start, maybe)

    def _finish_cast(self, start: int, type_: ast.TypeName) -> ast.Expr:
        operand = self.parse_unary()
        return ast.Cast(self.span(start), type_, operand)


_INCREMENT = "increment/decrement requires a variable or map"
_PREFIXES = {
    **dict.fromkeys(["*", "!", "~", "-"], ExpressionParser._parse_prefix),
    **dict.fromkeys(["++", "--"], ExpressionParser._parse_increment),
    "&": ExpressionParser._parse_address,
}
_SPECIAL = {
    "true": ExpressionParser._parse_boolean,
    "false": ExpressionParser._parse_boolean,
    "if": lambda parser: parser.parse_if(),
    "sizeof": ExpressionParser._parse_sizeof,
    "offsetof": ExpressionParser._parse_offsetof,
    "typeinfo": ExpressionParser._parse_typeinfo,
    "comptime": ExpressionParser._parse_comptime,
}

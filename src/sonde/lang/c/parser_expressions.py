"""Expressions of C and of GNU C, from tokens to the tree.

Binary operators are climbed with a stack of operands, not with a function for each level: a parenthesis costs three calls,
an operand one.
"""

from __future__ import annotations

from . import ast
from .parser_cursor import TokenCursor
from .parser_literals import parse_character, parse_integer, parse_string

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    Designator = ast.MemberDesignator | ast.IndexDesignator

PRECEDENCE = {
    "*": 10, "/": 10, "%": 10, "+": 9, "-": 9, "<<": 8, ">>": 8, "<": 7, ">": 7, "<=": 7, ">=": 7, "==": 6, "!=": 6,
    "&": 5, "^": 4, "|": 3, "&&": 2, "||": 1,
}  # fmt: skip
ASSIGNMENTS = frozenset(["=", "+=", "-=", "*=", "/=", "%=", "&=", "|=", "^=", "<<=", ">>="])
_POSTFIX = frozenset(["(", "[", ".", "->", "++", "--"])
_AFTER_CAST = frozenset(["name", "number", "character", "string"])


class ExpressionParser(TokenCursor):
    """Parses expressions. What types and statements need stands in the classes above this one."""

    def type_name(self) -> ast.TypeName:
        """Parse a type as casts have it. Raises Fault."""
        raise NotImplementedError

    def init_list(self) -> ast.InitList:
        """Parse `{ … }` of an initialiser. Raises Fault."""
        raise NotImplementedError

    def compound(self) -> ast.Compound:
        """Parse a block. Raises Fault."""
        raise NotImplementedError

    def expression(self) -> ast.Expr:
        """Parse an expression with commas. Raises Fault."""
        start = self.at
        left = self.assignment()
        count = 0
        while self.kind == ",":
            self.next()
            count += 1
            right = self.assignment()
            left = ast.Comma(self.span(start), left, right)
        if count:
            self.check_chain(count)
        return left

    def assignment(self) -> ast.Expr:
        """Parse an expression without commas. Raises Fault."""
        start = self.at
        left = self.unary()
        kind = self.kind
        if kind in ASSIGNMENTS:
            self.next()
            self.enter()
            value = self.assignment()
            self.depth -= 1
            return ast.Assign(self.span(start), kind, left, value)
        if kind in PRECEDENCE:
            left = self._binary(left, start)
            kind = self.kind
        if kind == "?":
            left = self._conditional(left, start)
            kind = self.kind
        if kind in ASSIGNMENTS:
            hint = "put parentheses around the assignment, if one is meant." if kind == "=" else ""
            raise self.fault(f"the left side of '{kind}' cannot be assigned to", hint=hint)
        return left

    def constant(self) -> ast.Expr:
        """Parse an expression without commas and assignments, as labels, sizes and widths are. Raises Fault."""
        start = self.at
        left = self.unary()
        if self.kind in PRECEDENCE:
            left = self._binary(left, start)
        return self._conditional(left, start) if self.kind == "?" else left

    def _binary(self, left: ast.Expr, start: int) -> ast.Expr:
        """Parse what follows the first operand, up to an operator that binds less than any binary one."""
        kind = self.kind
        precedence = PRECEDENCE[kind]
        operators: list[tuple[int, str]] = []
        operands = [left]
        starts = [start]
        count = 0
        while precedence:
            operators.append((precedence, kind))
            self.next()
            starts.append(self.at)
            operands.append(self.unary())
            count += 1
            kind = self.kind
            precedence = PRECEDENCE.get(kind, 0)
            while operators and operators[-1][0] >= precedence:
                starts.pop()
                right = operands.pop()
                operands[-1] = ast.Binary(self.span(starts[-1]), operators.pop()[1], operands[-1], right)
        self.check_chain(count)
        return operands[0]

    def _conditional(self, condition: ast.Expr, start: int) -> ast.Expr:
        """Parse `? yes : no` behind a condition; a chain of them without recursion."""
        chain: list[tuple[int, ast.Expr, ast.Expr | None]] = []
        last = condition
        while self.kind == "?":
            opened = self.at
            self.next()
            self.enter()
            yes = None if self.kind == ":" else self.expression()
            self.depth -= 1
            self.expect_close(":", opened)
            chain.append((start, last, yes))
            start = self.at
            last = self.unary()
            if self.kind in PRECEDENCE:
                last = self._binary(last, start)
        self.check_chain(len(chain))
        for begin, test, value in reversed(chain):
            last = ast.Conditional(self.span(begin), test, value, last)
        return last

    # operands -------------------------------------------------------------------------------------------------

    def unary(self) -> ast.Expr:
        """Parse an operand with its prefix and postfix operators, casts included. Raises Fault."""
        start = self.at
        if self.kind == "name":
            token = self.tokens[start]
            if self.is_known_type(token.text):
                raise self.fault(f"expected an expression, found the type '{token.text}'")
            self.next()
            expr: ast.Expr = ast.Name(token.span, token.text)
        else:
            parse = _OPERANDS.get(self.kind)
            if parse is None:
                raise self.unexpected("an expression", _WHY_NO_EXPRESSION.get(self.kind, ""))
            expr = parse(self)
        if self.kind in _POSTFIX:
            return self._postfix(expr, start)
        return expr

    def _postfix(self, expr: ast.Expr, start: int) -> ast.Expr:
        count = 0
        while True:
            kind = self.kind
            if kind == "(":
                args = self._arguments()
                expr = ast.Call(self.span(start), expr, args)
            elif kind == "." or kind == "->":
                self.next()
                name = self._member_name(kind)
                expr = ast.Member(self.span(start), expr, name, kind == "->")
            elif kind == "[":
                index = self._subscript()
                expr = ast.Index(self.span(start), expr, index)
            elif kind == "++" or kind == "--":
                self.next()
                expr = ast.Postfix(self.span(start), kind, expr)
            else:
                self.check_chain(count)
                return expr
            count += 1

    def _member_name(self, operator: str) -> str:
        if self.kind != "name":
            raise self.unexpected(f"the name of a member behind '{operator}'")
        name = self.tokens[self.at].text
        self.next()
        return name

    def _subscript(self) -> ast.Expr:
        opened = self.at
        self.next()
        self.enter()
        index = self.expression()
        self.depth -= 1
        self.expect_close("]", opened)
        return index

    def _arguments(self) -> tuple[ast.Expr, ...]:
        opened = self.at
        self.next()
        args: list[ast.Expr] = []
        if self.kind != ")":
            self.enter()
            args.append(self.assignment())
            while self.kind == ",":
                self.next()
                args.append(self.assignment())
            self.depth -= 1
        self.expect_close(")", opened)
        return tuple(args)

    def _prefix(self) -> ast.Expr:
        start = self.at
        operator = self.kind
        self.next()
        self.enter()
        operand = self.unary()
        self.depth -= 1
        return ast.Unary(self.span(start), operator, operand)

    def _extension(self) -> ast.Expr:
        while self.kind == "__extension__":
            self.next()
        return self.unary()

    def _parenthesis(self) -> ast.Expr:
        """Parse what begins with `(`: an expression in parentheses, a cast, a compound literal, a statement expression."""
        start = self.at
        self.next()
        self.enter()
        if self.kind == "{":
            expr: ast.Expr = self._statement_expression(start)
        elif self.at_type():
            expr = self._cast(start)
        else:
            self._refuse_unknown_cast()
            expr = self.expression()
            self._refuse_unknown_type(expr)
            self.expect_close(")", start)
        self.depth -= 1
        return expr

    def _statement_expression(self, start: int) -> ast.StatementExpr:
        body = self.compound()
        self.expect_close(")", start)
        return ast.StatementExpr(self.span(start), body)

    def _cast(self, start: int) -> ast.Expr:
        type_name = self.type_name()
        self.expect_close(")", start)
        if self.kind == "{":
            init = self.init_list()
            return ast.CompoundLiteral(self.span(start), type_name, init)
        operand = self.unary()
        return ast.Cast(self.span(start), type_name, operand)

    def _refuse_unknown_cast(self) -> None:
        """Raise Fault for `(name *)`, `(name **`: what is no expression, whatever `name` may be."""
        kinds, at = self.kinds, self.at
        if self.kind == "name" and kinds[at + 1] == "*" and kinds[at + 2] in ("*", ")"):
            at += 2
            while kinds[at] == "*":
                at += 1
            if kinds[at] == ")":
                raise self.unknown_type()

    def _refuse_unknown_type(self, expr: ast.Expr) -> None:
        """Raise Fault for `(name) operand`: a cast to a type that nobody knows."""
        if self.kind != ")" or type(expr) is not ast.Name or self.kinds[self.at + 1] not in _AFTER_CAST:
            return
        if not self.is_declared(expr.name):
            self.go_to(self.at - 1)
            raise self.unknown_type()

    def _sizeof(self) -> ast.Expr:
        start = self.at
        operator = "sizeof" if self.kind == "sizeof" else "alignof"
        self.next()
        self.enter()
        operand = self._sizeof_operand()
        self.depth -= 1
        return ast.Sizeof(self.span(start), operator, operand)

    def _sizeof_operand(self) -> ast.Expr | ast.TypeName:
        start = self.at
        if self.kind != "(":
            return self.unary()
        self.next()
        if not self.at_type():
            self.go_to(start)
            return self.unary()
        type_name = self.type_name()
        self.expect_close(")", start)
        if self.kind != "{":
            return type_name
        init = self.init_list()
        literal = ast.CompoundLiteral(self.span(start), type_name, init)
        return self._postfix(literal, start) if self.kind in _POSTFIX else literal

    # constants ------------------------------------------------------------------------------------------------

    def _number(self) -> ast.Expr:
        token = self.tokens[self.at]
        self.next()
        try:
            value, suffix, decimal = parse_integer(token.text)
        except ValueError as error:
            raise self.fault(str(error), token.span) from None
        return ast.Number(token.span, value, suffix, decimal)

    def _character(self) -> ast.Expr:
        token = self.tokens[self.at]
        self.next()
        try:
            return ast.Character(token.span, parse_character(token.text))
        except ValueError as error:
            raise self.fault(str(error), token.span) from None

    def string(self) -> ast.String:
        """Parse a string literal and those next to it. Raises Fault."""
        start = self.at
        if self.kind != "string":
            raise self.unexpected("a string")
        parts = []
        while self.kind == "string":
            token = self.tokens[self.at]
            self.next()
            try:
                parts.append(parse_string(token.text))
            except ValueError as error:
                raise self.fault(str(error), token.span) from None
        return ast.String(self.span(start), parts[0] if len(parts) == 1 else b"".join(parts))

    # words with a grammar of their own ------------------------------------------------------------------------

    def _open(self) -> int:
        """Take a word and the parenthesis behind it; return the index of the parenthesis."""
        word = self.kind
        self.next()
        opened = self.at
        self.expect("(", f"behind {word}")
        self.enter()
        return opened

    def _close(self, opened: int) -> None:
        self.depth -= 1
        self.expect_close(")", opened)

    def _generic(self) -> ast.Expr:
        start = self.at
        opened = self._open()
        control = self.assignment()
        choices: list[tuple[ast.TypeName | None, ast.Expr]] = []
        while not choices or self.kind == ",":
            self.expect(",", "behind the expression that _Generic chooses by")
            type_name = None if self.accept("default") else self.type_name()
            self.expect(":", "behind the type")
            choices.append((type_name, self.assignment()))
        self._close(opened)
        return ast.Generic(self.span(start), control, tuple(choices))

    def _offsetof(self) -> ast.Expr:
        start = self.at
        opened = self._open()
        type_name = self.type_name()
        self.expect(",", "behind the type")
        at = self.at
        first = self.expect_name("of a member")
        path: list[Designator] = [ast.MemberDesignator(self.span(at), first)]
        while self.kind in (".", "["):
            path.append(self._offsetof_step())
        self.check_chain(len(path))
        self._close(opened)
        return ast.OffsetOf(self.span(start), type_name, tuple(path))

    def _offsetof_step(self) -> Designator:
        at = self.at
        if self.kind == "[":
            index = self._subscript()
            return ast.IndexDesignator(self.span(at), index)
        self.next()
        name = self._member_name(".")
        return ast.MemberDesignator(self.span(at), name)

    def _types_compatible(self) -> ast.Expr:
        start = self.at
        opened = self._open()
        left = self.type_name()
        self.expect(",", "between the types")
        right = self.type_name()
        self._close(opened)
        return ast.TypesCompatible(self.span(start), left, right)

    def _refuse_va_arg(self) -> ast.Expr:
        raise self.fault(
            "a function of a BPF program cannot read variable arguments",
            hint="pass an array, or a pointer to a struct.",
        )

    def _refuse_label_address(self) -> ast.Expr:
        raise self.fault("the address of a label cannot be taken in a BPF program", hint="use a switch.")

    def unknown_type(self) -> Exception:
        """Make the error that the name at the cursor is no type."""
        raise NotImplementedError


_WHY_NO_EXPRESSION = {"=": "the left side of '=' is missing.", "else": "there is no 'if' that this 'else' belongs to."}
_OPERANDS: dict[str, Callable[[ExpressionParser], ast.Expr]] = {
    "number": ExpressionParser._number,
    "character": ExpressionParser._character,
    "string": ExpressionParser.string,
    "(": ExpressionParser._parenthesis,
    **dict.fromkeys(["+", "-", "!", "~", "*", "&", "++", "--"], ExpressionParser._prefix),
    "sizeof": ExpressionParser._sizeof,
    "_Alignof": ExpressionParser._sizeof,
    "__extension__": ExpressionParser._extension,
    "_Generic": ExpressionParser._generic,
    "__builtin_offsetof": ExpressionParser._offsetof,
    "__builtin_types_compatible_p": ExpressionParser._types_compatible,
    "__builtin_va_arg": ExpressionParser._refuse_va_arg,
    "&&": ExpressionParser._refuse_label_address,
}

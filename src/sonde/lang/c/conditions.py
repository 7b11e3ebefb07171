"""The constant expression of an `#if`: tokens to a number, with C11's arithmetic of intmax_t and uintmax_t (64 bits)."""

from __future__ import annotations

from ...record import Record
from .parser_literals import parse_character, parse_integer
from .tokens import Token, bad_token, c_error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ...errors import CompileError
    from ..source import Place

_U64 = (1 << 64) - 1
_MAX_DEPTH = 100
_LEVELS = {
    "||": 1, "&&": 2, "|": 3, "^": 4, "&": 5, "==": 6, "!=": 6, "<": 7, ">": 7, "<=": 7, ">=": 7,
    "<<": 8, ">>": 8, "+": 9, "-": 9, "*": 10, "/": 10, "%": 10,
}  # fmt: skip
_COMPARISONS = frozenset(["==", "!=", "<", ">", "<=", ">="])


class _Number(Record):
    """A value in range: 0 … 2⁶⁴-1 if unsigned, else -2⁶³ … 2⁶³-1."""

    value: int
    unsigned: bool = False


def evaluate(tokens: list[Token], place: Place) -> int:
    """Return the value of expanded tokens; names that are left are 0. Raises CompileError."""
    parser = _Parser(tokens, place)
    number = parser.comma(True)
    if parser.at < len(tokens):
        token = tokens[parser.at]
        raise bad_token(token) if token.kind == "bad" else parser.fault(f"unexpected '{token.text}' in an #if")
    return number.value


def _wrapped(value: int, unsigned: bool) -> _Number:
    value &= _U64
    return _Number(value if unsigned or value < 1 << 63 else value - (1 << 64), unsigned)


class _Parser:
    """`live` is False for operands that are not evaluated: they may divide by zero."""

    def __init__(self, tokens: list[Token], place: Place) -> None:
        self.tokens = tokens
        self.place = place
        self.at = 0
        self.depth = 0

    def fault(self, message: str) -> CompileError:
        """Make an error about the token at hand, or the directive where there is none."""
        return c_error(self.tokens[self.at].span if self.at < len(self.tokens) else self.place, message)

    def peek(self) -> str:
        """Return the kind of the token at hand; "" at the end."""
        return self.tokens[self.at].kind if self.at < len(self.tokens) else ""

    def comma(self, live: bool) -> _Number:
        """Parse `a, b`."""
        number = self.conditional(live)
        while self.peek() == ",":
            self.at += 1
            number = self.conditional(live)
        return number

    def conditional(self, live: bool) -> _Number:
        """Parse `c ? a : b`, or what binds closer."""
        self.depth += 1
        if self.depth > _MAX_DEPTH:
            raise self.fault(f"an #if that is nested more than {_MAX_DEPTH} levels deep")
        condition = self.binary(1, live)
        if self.peek() == "?":
            self.at += 1
            holds = condition.value != 0
            yes = self.comma(live and holds)
            if self.peek() != ":":
                raise self.fault("expected ':' for the '?' of this #if")
            self.at += 1
            no = self.conditional(live and not holds)
            condition = _wrapped((yes if holds else no).value, yes.unsigned or no.unsigned)
        self.depth -= 1
        return condition

    def binary(self, level: int, live: bool) -> _Number:
        """Parse operators that bind as `level` or closer."""
        left = self.unary(live)
        while _LEVELS.get(self.peek(), 0) >= level:
            op = self.tokens[self.at]
            self.at += 1
            if op.kind in ("&&", "||"):
                decided = (left.value != 0) == (op.kind == "||")
                right = self.binary(_LEVELS[op.kind] + 1, live and not decided)
                left = _Number(int(left.value != 0 if decided else right.value != 0))
            else:
                left = self.apply(op, left, self.binary(_LEVELS[op.kind] + 1, live), live)
        return left

    def apply(self, op: Token, left: _Number, right: _Number, live: bool) -> _Number:
        """Apply an arithmetic operator or a comparison."""
        kind = op.kind
        if kind in ("<<", ">>"):
            return _shifted(left, right.value if kind == "<<" else -right.value)
        unsigned = left.unsigned or right.unsigned
        a, b = _wrapped(left.value, unsigned).value, _wrapped(right.value, unsigned).value
        if kind in _COMPARISONS:
            return _Number(int(_compare(kind, a, b)))
        if kind in ("/", "%"):
            if b == 0:
                if live:
                    raise c_error(op.span, "division by zero in an #if")
                return _Number(0, unsigned)
            quotient = abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)
            return _wrapped(quotient if kind == "/" else a - b * quotient, unsigned)
        return _wrapped(_OPERATORS[kind](a, b), unsigned)

    def unary(self, live: bool) -> _Number:
        """Parse prefix operators and an operand."""
        start = self.at
        while self.peek() in ("-", "+", "!", "~"):
            self.at += 1
        ops = self.tokens[start : self.at]
        number = self.primary(live)
        for op in reversed(ops):
            if op.kind == "!":
                number = _Number(int(number.value == 0))
            elif op.kind != "+":
                number = _wrapped(-number.value if op.kind == "-" else ~number.value, number.unsigned)
        return number

    def primary(self, live: bool) -> _Number:
        """Parse a number, character constant, name or parenthesis."""
        kind = self.peek()
        if kind == "(":
            self.at += 1
            number = self.comma(live)
            if self.peek() != ")":
                raise self.fault("expected ')' in an #if")
            self.at += 1
            return number
        if not kind:
            raise self.fault("an #if that ends where a value is expected")
        token = self.tokens[self.at]
        if kind == "bad":
            raise bad_token(token)
        if kind not in ("number", "char", "name"):
            raise self.fault(f"expected a value in an #if, found '{token.text}'")
        self.at += 1
        return _constant(token)


def _constant(token: Token) -> _Number:
    if token.kind == "name":
        return _Number(0)
    try:
        if token.kind == "char":
            return _Number(parse_character(token.text))
        value, suffix, _ = parse_integer(token.text)
    except ValueError as error:
        raise c_error(token.span, str(error)) from None
    return _wrapped(value, "u" in suffix or value >= 1 << 63)


def _shifted(number: _Number, n: int) -> _Number:
    """Shift left by `n`, or right where it is negative (as gcc has it)."""
    if n >= 64:
        return _Number(0, number.unsigned)
    if n >= 0:
        return _wrapped(number.value << n, number.unsigned)
    return _wrapped(number.value >> min(-n, 64), number.unsigned)


def _compare(kind: str, a: int, b: int) -> bool:
    if kind == "==":
        return a == b
    if kind == "!=":
        return a != b
    if kind in ("<", ">="):
        return (a < b) == (kind == "<")
    return (a > b) == (kind == ">")


_OPERATORS: dict[str, Callable[[int, int], int]] = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "&": lambda a, b: a & b,
    "|": lambda a, b: a | b,
    "^": lambda a, b: a ^ b,
}

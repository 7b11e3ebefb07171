"""Constant integer expressions of C, with the types int, unsigned, long and unsigned long of an LP64 machine."""

from __future__ import annotations

from .cpreproc import CToken, c_error, unquote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ...errors import Span

# The four types by rank: the usual arithmetic conversions give the higher of two.
INT, UINT, LONG, ULONG = range(4)
_BITS = (32, 32, 64, 64)
_LEVELS = {
    "||": 1, "&&": 2, "|": 3, "^": 4, "&": 5, "==": 6, "!=": 6, "<": 7, ">": 7, "<=": 7, ">=": 7,
    "<<": 8, ">>": 8, "+": 9, "-": 9, "*": 10, "/": 10, "%": 10,
}  # fmt: skip
MAX_DEPTH = 100


class CInt:
    """A value and the rank of its type."""

    __slots__ = ("rank", "value")

    def __init__(self, value: int, rank: int) -> None:
        bits = _BITS[rank]
        value &= (1 << bits) - 1
        if rank in (INT, LONG) and value >> (bits - 1):
            value -= 1 << bits
        self.value = value
        self.rank = rank


class Evaluator:
    """Evaluates a list of tokens. `resolve` gives the value of a name, None if it has none.

    `parse_type` is called behind a `(` or sizeof: it returns (size in bytes, signed, next index) if a type name stands at the
    index that it is given, else None.
    """

    def __init__(
        self,
        tokens: list[CToken],
        span: Span,
        resolve: Callable[[str], int | None],
        parse_type: Callable[[int], tuple[int, bool, int] | None] | None = None,
    ) -> None:
        self.tokens = [*tokens, CToken("end", "", span)]
        self.span = span
        self.resolve = resolve
        self.parse_type = parse_type
        self.at = 0
        self.depth = 0

    def evaluate_all(self) -> int:
        """Evaluate all tokens. Raises CompileError when they are not one expression."""
        value = self.evaluate()
        if self.tokens[self.at].kind != "end":
            raise self._error()
        return value

    def evaluate(self) -> int:
        """Evaluate the expression at the cursor and move behind it. Raises CompileError."""
        return self._ternary().value

    def _error(self) -> Exception:
        token = self.tokens[self.at]
        if token.kind == "end":
            return c_error(self.span, "expected a constant expression")
        return c_error(token.span, f"'{token.text}' does not belong in a constant expression")

    def _accept(self, kind: str) -> bool:
        if self.tokens[self.at].kind != kind:
            return False
        self.at += 1
        return True

    def _expect(self, kind: str) -> None:
        if not self._accept(kind):
            raise self._error()

    def _ternary(self) -> CInt:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise c_error(self.span, f"a constant expression nested deeper than {MAX_DEPTH} levels")
        condition = self._binary(1)
        if self._accept("?"):
            then = self._ternary()
            self._expect(":")
            otherwise = self._ternary()
            rank = max(then.rank, otherwise.rank)
            condition = CInt((then if condition.value else otherwise).value, rank)
        self.depth -= 1
        return condition

    def _binary(self, level: int) -> CInt:
        left = self._unary()
        while True:
            op = self.tokens[self.at].kind
            binds = _LEVELS.get(op, 0)
            if binds < level:
                return left
            self.at += 1
            left = self._apply(op, left, self._binary(binds + 1))

    def _apply(self, op: str, left: CInt, right: CInt) -> CInt:
        if op in ("&&", "||"):
            true = (left.value and right.value) if op == "&&" else (left.value or right.value)
            return CInt(int(bool(true)), INT)
        if op in ("<<", ">>"):
            count = right.value & (_BITS[left.rank] - 1)
            return CInt(left.value << count if op == "<<" else left.value >> count, left.rank)
        rank = max(left.rank, right.rank)
        a, b = CInt(left.value, rank).value, CInt(right.value, rank).value
        compare = _COMPARE.get(op)
        if compare is not None:
            return CInt(int(compare(a, b)), INT)
        if op in ("/", "%"):
            if b == 0:
                raise c_error(self.span, "division by zero in a constant expression")
            quotient = abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)
            return CInt(quotient if op == "/" else a - b * quotient, rank)
        return CInt(_ARITHMETIC[op](a, b), rank)

    def _unary(self) -> CInt:
        token = self.tokens[self.at]
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise c_error(self.span, f"a constant expression nested deeper than {MAX_DEPTH} levels")
        value = self._prefixed(token)
        self.depth -= 1
        return value

    def _prefixed(self, token: CToken) -> CInt:
        if token.kind in ("-", "+", "~", "!"):
            self.at += 1
            operand = self._unary()
            if token.kind == "!":
                return CInt(int(not operand.value), INT)
            number = {"-": -operand.value, "+": operand.value, "~": ~operand.value}[token.kind]
            return CInt(number, operand.rank)
        if token.kind == "(":
            return self._parenthesis()
        if token.kind == "name" and token.text in ("sizeof", "__alignof__", "_Alignof"):
            return self._sizeof(token)
        return self._primary(token)

    def _parenthesis(self) -> CInt:
        self.at += 1
        found = self.parse_type(self.at) if self.parse_type else None
        if found is not None:
            size, signed, self.at = found
            self._expect(")")
            value = self._unary().value & ((1 << 8 * size) - 1)
            if signed and size and value >> (8 * size - 1):
                value -= 1 << 8 * size
            return CInt(value, (LONG if signed else ULONG) if size > 4 else (UINT if size == 4 and not signed else INT))
        inner = self._ternary()
        self._expect(")")
        return inner

    def _sizeof(self, token: CToken) -> CInt:
        self.at += 1
        self._expect("(")
        found = self.parse_type(self.at) if self.parse_type else None
        if found is None or token.text != "sizeof":
            raise c_error(token.span, f"{token.text} takes the name of a type here")
        size, _, self.at = found
        self._expect(")")
        return CInt(size, ULONG)

    def _primary(self, token: CToken) -> CInt:
        if token.kind == "number":
            self.at += 1
            return parse_number(token)
        if token.kind == "char":
            self.at += 1
            text = unquote(token)
            if len(text) != 1:
                raise c_error(token.span, "a character constant holds one character")
            return CInt(ord(text), INT)
        if token.kind == "name":
            value = self.resolve(token.text)
            if value is not None:
                self.at += 1
                return CInt(value, INT if -(1 << 31) <= value < 1 << 31 else LONG if value < 1 << 63 else ULONG)
        raise self._error()


def parse_number(token: CToken) -> CInt:
    """Return the value of a number token. Raises CompileError."""
    text = token.text.lower().rstrip("ul")
    suffix = token.text.lower()[len(text) :]
    try:
        if len(text) > 70:
            raise ValueError
        if text[:1] == "0" and text[1:].isdigit():
            value = int(text, 8)
        else:
            value = int(text, 0)
    except ValueError:
        raise c_error(token.span, f"{token.text} is not an integer") from None
    if value >> 64:
        raise c_error(token.span, f"{token.text} is too large for 64 bits")
    decimal = not text.startswith("0") or text == "0"
    for rank in (INT, UINT, LONG, ULONG):
        unsigned = rank in (UINT, ULONG)
        if ("u" in suffix and not unsigned) or ("l" in suffix and rank < LONG):
            continue
        if unsigned and decimal and "u" not in suffix and rank != ULONG:
            continue
        if value >> (_BITS[rank] - (0 if unsigned else 1)) == 0:
            return CInt(value, rank)
    return CInt(value, ULONG)


_COMPARE = {
    "==": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
    "<": lambda a, b: a < b,
    ">": lambda a, b: a > b,
    "<=": lambda a, b: a <= b,
    ">=": lambda a, b: a >= b,
}
_ARITHMETIC = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "&": lambda a, b: a & b,
    "|": lambda a, b: a | b,
    "^": lambda a, b: a ^ b,
}

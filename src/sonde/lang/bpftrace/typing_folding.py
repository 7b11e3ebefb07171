"""Folding: operations on literals are done at compile time, with the meaning that they would have on the machine.

Numbers are those of 64 bits, signed or not; what leaves that range is an error, not a surprise.
"""

from __future__ import annotations

from .typing_state import FLOW

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Union

    from . import ast
    from .typing_state import Typer

    Literal = Union[int, str, bool]

OVERFLOW = "unable to fold literals due to overflow or underflow"
_MIN, _MAX = -(1 << 63), (1 << 64) - 1
_COMPARE = {
    "==": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
    "&&": lambda a, b: bool(a) and bool(b),
    "||": lambda a, b: bool(a) or bool(b),
}


def fold_binary(typer: Typer, node: ast.Binary, a: Literal, b: Literal) -> Literal | None:
    """Return the value of `a op b`; None when it is none that can be had now (an error may have been recorded)."""
    if isinstance(a, str) or isinstance(b, str):
        return _fold_strings(typer, node, a, b)
    if isinstance(a, bool) != isinstance(b, bool) and node.op not in ("&&", "||"):
        return None
    compare = _COMPARE.get(node.op)
    if compare is not None:
        return compare(a, b)  # type: ignore[no-any-return,no-untyped-call]
    value = _arithmetic(node.op, int(a), int(b))
    if value is None or not _MIN <= value <= _MAX:
        typer.error(node, OVERFLOW, FLOW)
        return None
    return bool(value) if isinstance(a, bool) else value


def _arithmetic(op: str, a: int, b: int) -> int | None:
    if op in ("/", "%"):
        if b == 0:
            return None
        quotient = abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)
        return quotient if op == "/" else a - quotient * b
    if op in ("<<", ">>"):
        return _shift(op, a, b)
    return _ARITHMETIC[op](a, b)  # type: ignore[no-any-return]


_ARITHMETIC = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "&": lambda a, b: a & b,
    "|": lambda a, b: a | b,
    "^": lambda a, b: a ^ b,
}


def _shift(op: str, a: int, b: int) -> int | None:
    if not 0 <= b < 64:
        return None
    if op == ">>":
        return a >> b
    value = a << b & _MAX
    return value - (1 << 64) if a < 0 and value >> 63 else value


def _fold_strings(typer: Typer, node: ast.Binary, a: Literal, b: Literal) -> Literal | None:
    text, other = (a, b) if isinstance(a, str) else (b, a)
    assert isinstance(text, str)
    if isinstance(other, str):
        compare = _COMPARE.get(node.op)
        if compare is not None:
            return compare(a, b)  # type: ignore[no-any-return,no-untyped-call]
        if node.op == "+":
            return a + b  # type: ignore[operator]
    elif isinstance(other, bool):
        if node.op in ("&&", "||"):
            return bool(_COMPARE[node.op](a, b))  # type: ignore[no-untyped-call]
        return None
    elif node.op == "+" and other >= 0:
        if other >= len(text):
            typer.warn(node, "literal string will always be empty")
        return text[other:]
    elif other >= 0:
        return None
    typer.error(node, "illegal literal operation with strings", FLOW)
    return None


def fold_unary(typer: Typer, node: ast.Unary, value: Literal) -> Literal | None:
    """Return the value of `op value`, or None."""
    if isinstance(value, str):
        return None
    if node.op == "!":
        return not value
    if isinstance(value, bool):
        return None
    if node.op == "~":
        return ~value & _MAX if value >= 0 else ~value
    if node.op == "-":
        if -value < _MIN:
            typer.error(node, "negative value will underflow", FLOW)
            return None
        return -value
    return None

"""Constant expressions: values of typed expressions, with the semantics of their C types.

Expressions are folded bottom up while they are typed, so that a value is there as soon as somebody asks. Folding follows evaluation:
`0 && f()` is 0, `1 ? 2 : f()` is 2; a division by zero has no value.
"""

from __future__ import annotations

from ...debuginfo.ctype import Int, Pointer, strip
from .arithmetic import UINT128, underlying, wrap

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...debuginfo.ctype import CType
    from . import ast
    from .checker import Checker


def held(value: int, ctype: CType) -> int | None:
    """Return a value as `ctype` holds it; None when that is no number or pointer."""
    number = underlying(ctype)
    if number is not None:
        return wrap(value, number)
    if isinstance(strip(ctype), Pointer):
        return value & 0xFFFF_FFFF_FFFF_FFFF
    return None


def fold_unary(op: str, operand: int, ctype: CType) -> int | None:
    """Return the value of a prefix operator; `ctype` is the type of the result."""
    if op == "!":
        return int(not operand)
    if op not in ("+", "-", "~"):
        return None
    return held(-operand if op == "-" else ~operand if op == "~" else operand, ctype)


def fold_binary(op: str, left: int, right: int, common: CType) -> int | None:
    """Return the value of a binary operator; the operands are brought to `common`. None where C leaves it undefined."""
    number = underlying(common)
    if number is None:
        number = UINT128  # addresses: as large as it takes
    a = wrap(left, number)
    if op in ("<<", ">>"):
        if not 0 <= right < 8 * number.size:
            return None
        return wrap(a << right, number) if op == "<<" else a >> right
    b = wrap(right, number)
    if op in _COMPARE:
        return int(_COMPARE[op](a, b))
    if op in ("/", "%"):
        return _divide(op, a, b, number)
    return wrap(_COMPUTE[op](a, b), number) if op in _COMPUTE else None


def _divide(op: str, a: int, b: int, number: Int) -> int | None:
    """Division of C rounds towards zero, and the remainder has the sign of the dividend."""
    if b == 0:
        return None
    quotient = abs(a) // abs(b)
    if (a < 0) != (b < 0):
        quotient = -quotient
    result = quotient if op == "/" else a - b * quotient
    return result if wrap(quotient, number) == quotient else None


_COMPARE = {
    "==": int.__eq__, "!=": int.__ne__, "<": int.__lt__, ">": int.__gt__, "<=": int.__le__, ">=": int.__ge__,
}  # fmt: skip
_COMPUTE = {
    "+": int.__add__, "-": int.__sub__, "*": int.__mul__, "&": int.__and__, "|": int.__or__, "^": int.__xor__,
}  # fmt: skip


def constant_value(ck: Checker, node: ast.Expr, what: str) -> int:
    """Check an expression and return its value. Raises CompileError when it is no integer constant; `what` names its use."""
    from .conversions import value

    ctype = value(ck, node)
    found = ck.constants.get(node)
    if found is None or underlying(ctype) is None:
        found = constant_variable(ck, node)
    if found is None:
        raise ck.fail(node, f"{what} must be an integer constant")
    return found


def constant_variable(ck: Checker, node: ast.Expr) -> int | None:
    """Return the value of a `const` variable that was initialised with a constant, which GNU C takes here."""
    from .analysis import Variable
    from .arithmetic import qualifiers

    variable = ck.symbols.get(node)
    if not isinstance(variable, Variable) or not variable.init or "const" not in qualifiers(variable.ctype):
        return None
    first = variable.init[0]
    known = ck.constants.get(first.value)
    return held(known, variable.ctype) if known is not None and first.offset == 0 else None

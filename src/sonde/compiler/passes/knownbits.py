"""How many low bits of a value can be other than zero: what spares extensions, masks and signed arithmetic.

Only what the kernel's verifier can tell as well: a mask behind a division may be all that makes an access acceptable to it.
"""

from __future__ import annotations

from ..ir import COMPARE, I64, WIDTH, Const, Inst

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ..ir import Value

_DEPTH = 8


def width_of(value: Value) -> int:
    """The number of bits of a value; pointers have 64."""
    return WIDTH.get(value.type, 64)


def known_width(value: Value, depth: int = _DEPTH) -> int:
    """Return n such that `value` is below 2**n as an unsigned number of its type; at most its width."""
    width = width_of(value)
    if isinstance(value, Const):
        return (value.imm & (1 << width) - 1).bit_length()
    if not isinstance(value, Inst) or not depth:
        return width
    rule = _RULES.get(value.op)
    if rule is None:
        return 1 if value.op in COMPARE else width
    return min(rule(value, depth - 1), width)


def never_negative(value: Value) -> bool:
    """Tell whether the sign bit of a value is known to be 0."""
    return known_width(value) < width_of(value)


def _of(value: Value, index: int, depth: int) -> int:
    return known_width(value.args[index], depth)  # type: ignore[attr-defined]


def _constant(inst: Inst) -> int | None:
    b = inst.args[1]
    return b.imm & (1 << width_of(b)) - 1 if isinstance(b, Const) else None


def _shl(inst: Inst, depth: int) -> int:
    by = _constant(inst)  # a shift by anything else makes the verifier forget what it knew of the value
    return 64 if by is None else _of(inst, 0, depth) + (by & (63 if inst.type == I64 else 31))


def _lshr(inst: Inst, depth: int) -> int:
    by = _constant(inst)
    return 64 if by is None else max(_of(inst, 0, depth) - (by & (63 if inst.type == I64 else 31)), 0)


def _either(inst: Inst, depth: int) -> int:
    return max(_of(inst, 0, depth), _of(inst, 1, depth))


_RULES: dict[str, Callable[[Inst, int], int]] = {
    "zext": lambda i, d: _of(i, 0, d),
    "trunc": lambda i, d: _of(i, 0, d),
    "opaque": lambda i, d: 64,
    "and": lambda i, d: min(_of(i, 0, d), _of(i, 1, d)),
    "or": _either,
    "xor": _either,
    "add": lambda i, d: _either(i, d) + 1,
    "mul": lambda i, d: _of(i, 0, d) + _of(i, 1, d),
    "shl": _shl,
    "lshr": _lshr,
    "bound": lambda i, d: i.imm.bit_length(),
}

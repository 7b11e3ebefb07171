"""What comparisons with constants tell about a value: a range of it as an unsigned, and one as a signed number."""

from __future__ import annotations

from .knownbits import known_width, width_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..ir import Value

    Range = tuple[int, int, int, int]  # unsigned low and high, signed low and high, both included


def range_of(value: Value) -> Range:
    """Return the range that the computation of a value allows."""
    width, known = width_of(value), known_width(value)
    top = (1 << known) - 1
    if known < width:
        return 0, top, 0, top
    return 0, top, -(1 << width - 1), (1 << width - 1) - 1


def narrowed(range_: Range, op: str, imm: int, width: int) -> Range:
    """Return what is left of a range once `value op imm` is known to hold. Contradictions are left alone."""
    ulow, uhigh, slow, shigh = range_
    unsigned = imm & (1 << width) - 1
    signed = unsigned - (1 << width) if unsigned >> width - 1 else unsigned
    if op == "eq":
        return unsigned, unsigned, signed, signed
    if op == "ne":
        ulow += ulow == unsigned
        uhigh -= uhigh == unsigned
        slow += slow == signed
        shigh -= shigh == signed
    elif op in ("ult", "ule"):
        uhigh = min(uhigh, unsigned - (op == "ult"))
    elif op in ("ugt", "uge"):
        ulow = max(ulow, unsigned + (op == "ugt"))
    elif op in ("slt", "sle"):
        shigh = min(shigh, signed - (op == "slt"))
    else:
        slow = max(slow, signed + (op == "sgt"))
    if slow >= 0:  # both views agree on numbers that are not negative
        ulow, uhigh = max(ulow, slow), min(uhigh, shigh)
        slow, shigh = max(slow, ulow), min(shigh, uhigh)
    elif uhigh < 1 << width - 1:
        slow, shigh = max(slow, ulow), min(shigh, uhigh)
    return (ulow, uhigh, slow, shigh) if ulow <= uhigh and slow <= shigh else range_


def outcome(range_: Range, op: str, imm: int, width: int) -> bool | None:
    """Return what `value op imm` gives for every value of a range, or None when it depends."""
    ulow, uhigh, slow, shigh = range_
    unsigned = imm & (1 << width) - 1
    signed = unsigned - (1 << width) if unsigned >> width - 1 else unsigned
    if op in ("eq", "ne"):
        if ulow == uhigh == unsigned:
            return op == "eq"
        outside = not ulow <= unsigned <= uhigh or not slow <= signed <= shigh
        return op == "ne" if outside else None
    low, high, number = (slow, shigh, signed) if op[0] == "s" else (ulow, uhigh, unsigned)
    kind = op[1:]
    if kind in ("lt", "ge"):
        always, never = high < number, low >= number
    else:
        always, never = high <= number, low > number
    if not always and not never:
        return None
    return always if kind in ("lt", "le") else never

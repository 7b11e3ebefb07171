"""Initialisers: `= {}` clears a whole object, padding included; what is stored next need not be cleared first."""

from __future__ import annotations

from ...debuginfo.ctype import Array, sizeof, strip
from . import ast
from .lower_expressions import evaluate, put
from .lower_numbers import convert
from .values import Place, is_aggregate

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .analysis import Initialiser
    from .lower_frame import Frame


def fill(f: Frame, place: Place, initialisers: tuple[Initialiser, ...]) -> None:
    """Give an object its first value."""
    if not is_aggregate(place.ctype):
        if initialisers:
            put(f, initialisers[0].value, place)
        else:
            f.clear(place, sizeof(place.ctype))
        return
    size = sizeof(place.ctype)
    if not _covers(initialisers, size):
        f.clear(place, size)
    for each in initialisers:
        _fill_part(f, place, each)


def _covers(initialisers: tuple[Initialiser, ...], size: int) -> bool:
    """Tell whether the parts leave no byte out."""
    end = 0
    for each in sorted(initialisers, key=lambda i: i.offset):
        if each.offset > end or each.bit_width:
            return False
        if isinstance(each.value, ast.String) and isinstance(strip(each.ctype), Array):
            end = max(end, each.offset + min(len(each.value.value) + 1, sizeof(each.ctype)))
        else:
            end = max(end, each.offset + sizeof(each.ctype))
    return end >= size


def _fill_part(f: Frame, place: Place, part: Initialiser) -> None:
    target = place.part(part.offset, part.ctype)
    target.bit_offset, target.bit_width = part.bit_offset, part.bit_width
    value = part.value
    if isinstance(value, ast.String) and isinstance(target.ctype, Array):
        f.put_bytes(target, (value.value + b"\0")[: sizeof(target.ctype)])
    elif isinstance(target.ctype, Array):
        source = evaluate(f, value)
        assert isinstance(source, Place)
        f.copy(target, source, sizeof(target.ctype))
    elif is_aggregate(target.ctype):
        put(f, value, target)
    else:
        f.store(target, convert(f, evaluate(f, value), target.ctype))

"""The order of a map's entries, and print()'s `top` and `div`: the same for all printers.

Numbers go by value, smallest first, histograms by the sum of their counts, everything else by key; equal values go by key.
"""

from __future__ import annotations

from ..record import replace
from ..spec.engine import Entry
from ..spec.layout import Average, Histogram, LinearHistogram, RecordValue, Stats
from .values import divide

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ..spec.engine import Snapshot

BY_VALUE = frozenset(("int", "count", "sum", "min", "max", "avg", "stats"))
HISTOGRAMS = frozenset(("hist", "lhist"))


def ordered(snapshot: Snapshot) -> list[Entry]:
    """Return the entries to be shown, in order: the last `top` ones, their values divided by `div`."""
    kind = snapshot.view.value.kind
    entries = sorted(snapshot.entries, key=lambda e: sort_key(e.key)) if len(snapshot.entries) > 1 else snapshot.entries
    if kind in BY_VALUE or kind in HISTOGRAMS:
        entries = sorted(entries, key=lambda e: _magnitude(e.value))
    if snapshot.top > 0:
        entries = entries[-snapshot.top :]
    if snapshot.div > 1:
        return [Entry(entry.key, _divided(entry.value, snapshot.div)) for entry in entries]
    return list(entries)


def sort_key(key: Any) -> Any:
    """Return something to sort a key by: numbers as such, texts by their bytes, composites part by part."""
    if key is None or isinstance(key, (int, bytes)):
        return key
    if isinstance(key, str):
        return key.encode("utf-8", "surrogateescape")
    if isinstance(key, tuple):
        return tuple(map(sort_key, key))
    if isinstance(key, RecordValue):
        return tuple(map(sort_key, key.values))
    for field in ("number", "packed", "addr", "uid", "ns", "ident"):
        if hasattr(key, field):
            return getattr(key, field)
    return repr(key)


def _magnitude(value: Any) -> int:
    if isinstance(value, int):
        return value
    if isinstance(value, (Average, Stats)):
        return divide(value.total, value.count)
    return sum(count for _, count in value.buckets)


def _divided(value: Any, div: int) -> Any:
    """Divide what is a measure: numbers, averages (not the total of stats), the counts of a histogram."""
    if isinstance(value, bool):
        return value
    if isinstance(value, int):
        return divide(value, div)
    if isinstance(value, Average):
        return Average(divide(divide(value.total, value.count), div), 1)
    if isinstance(value, (Histogram, LinearHistogram)):
        return replace(value, buckets=tuple((bucket, count // div) for bucket, count in value.buckets))
    return value

"""tseries(): rings of 24-byte slots, one ring for each CPU, to (epoch, value) points. Slots: see spec.layout."""

from __future__ import annotations

from struct import Struct

from ..errors import FormatError
from ..spec.layout import TimeSeries

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..spec.layout import Layout
    from .clocks import Clocks

SLOT_BYTES = 24


def reduce_series(layout: Layout, values: Sequence[bytes], clocks: Clocks | None = None) -> TimeSeries | None:
    """Combine the slots of all CPUs; None when no slot is in use. Raises FormatError for too few bytes."""
    get = layout.get_param
    count, aggregation, interval_ns = get("buckets", 1), get("agg", ""), get("interval_ns", 1)
    unpack = Struct("<QqQ" if layout.signed else "<QQQ").iter_unpack
    slots: dict[int, tuple[int, int]] = {}
    for value in values:
        if len(value) < count * SLOT_BYTES:
            raise FormatError(f"a time series of {count} slots does not fit {len(value)} bytes")
        for epoch, amount, number in unpack(value[: count * SLOT_BYTES]):
            if number:
                slots[epoch] = (
                    _combine(aggregation, slots[epoch], (amount, number)) if epoch in slots else (amount, number)
                )
    if not slots:
        return None
    newest = max(slots)
    points = [(epoch, _finish(aggregation, *slots[epoch])) for epoch in sorted(slots) if epoch > newest - count]
    origin_ns = clocks.offset_ns(get("clock", "tai")) if clocks is not None else 0
    return TimeSeries(interval_ns, count, aggregation, tuple(points), origin_ns)


def _combine(aggregation: str, one: tuple[int, int], other: tuple[int, int]) -> tuple[int, int]:
    """Join what two CPUs have for one interval."""
    if aggregation in ("avg", "sum"):
        return one[0] + other[0], one[1] + other[1]
    if aggregation == "min":
        return min(one, other)
    if aggregation == "max":
        return max(one, other)
    return max(one, other, key=lambda slot: slot[1])  # the latest value


def _finish(aggregation: str, amount: int, number: int) -> int:
    if aggregation != "avg":
        return amount
    return -(-amount // number) if amount < 0 else amount // number

"""Per-CPU aggregations to one value: [bytes of CPU 0, bytes of CPU 1, …] to a count, an average, a histogram …

A map that is not per-CPU is the case of one CPU.
"""

from __future__ import annotations

from struct import Struct

from ..errors import FormatError
from ..spec.layout import Average, Histogram, LinearHistogram, Stats, TimeSeries

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from ..spec.layout import Layout
    from .clocks import Clocks

    Reducer = Callable[[Sequence[bytes]], Any]

# Kinds whose values are combined over CPUs; all others are read from the first value.
AGGREGATIONS = frozenset(("count", "sum", "min", "max", "avg", "stats", "hist", "lhist", "tseries"))


def reducer(layout: Layout, clocks: Clocks | None = None) -> Reducer:
    """Return the function from the values of all CPUs to one Python value, or None where no CPU has set it.

    `clocks` date the intervals of a time series.
    """
    if layout.kind == "tseries":
        from .tseries import reduce_series

        return lambda values: reduce_series(layout, values, clocks)
    make = _REDUCERS.get(layout.kind)
    if make is None:
        raise FormatError(f"a {layout.kind} is not an aggregation")
    return make(layout)


def wrap(number: int, signed: bool) -> int:
    """Return `number` as it looks in 64 bits."""
    number &= (1 << 64) - 1
    return number - (1 << 64) if signed and number >> 63 else number


def _unpacker(code: str, size: int, layout: Layout) -> Callable[[bytes], tuple[int, ...]]:
    unpack = Struct(code).unpack_from

    def read(value: bytes) -> tuple[int, ...]:
        if len(value) < size:
            raise FormatError(f"a {layout.kind} of {len(value)} bytes is shorter than {size}")
        return unpack(value)

    return read


def _count(layout: Layout) -> Reducer:
    read = _unpacker("<Q", 8, layout)
    return lambda values: sum(read(v)[0] for v in values) or None


def _sum(layout: Layout) -> Reducer:
    signed = layout.signed
    if layout.size < 9:  # no flag: always set
        plain = _unpacker("<q" if signed else "<Q", 8, layout)
        return lambda values: wrap(sum(plain(v)[0] for v in values), signed)
    read = _unpacker("<qB" if signed else "<QB", 9, layout)

    def reduce(values: Sequence[bytes]) -> int | None:
        parts = [total for total, is_set in map(read, values) if is_set]
        return wrap(sum(parts), signed) if parts else None

    return reduce


def _extreme(layout: Layout) -> Reducer:
    read = _unpacker("<qB" if layout.signed else "<QB", 9, layout)
    choose: Callable[[Sequence[int]], int] = min if layout.kind == "min" else max

    def reduce(values: Sequence[bytes]) -> int | None:
        parts = [extreme for extreme, is_set in map(read, values) if is_set]
        return choose(parts) if parts else None

    return reduce


def _average(layout: Layout) -> Reducer:
    read = _unpacker("<qQ" if layout.signed else "<QQ", 16, layout)
    signed, make = layout.signed, Average if layout.kind == "avg" else Stats

    def reduce(values: Sequence[bytes]) -> Average | Stats | None:
        total = count = 0
        for part, number in map(read, values):
            total += part
            count += number
        return make(wrap(total, signed), count) if count else None

    return reduce


def sum_buckets(values: Sequence[bytes], count: int) -> tuple[tuple[int, int], ...]:
    """Add up arrays of u64 over CPUs; return (index, sum) where the sum is not 0."""
    unpack = Struct(f"<{count}Q").unpack_from
    if any(len(v) < count * 8 for v in values):
        raise FormatError(f"an array of {count} buckets is too short")
    sums = [sum(column) for column in zip(*map(unpack, values))]
    return tuple((i, n) for i, n in enumerate(sums) if n)


def _histogram(layout: Layout) -> Reducer:
    count = layout.count or layout.size // 8
    bits = layout.get_param("bits", 0)
    return lambda values: make_histogram(layout, sum_buckets(values, count), bits)


def make_histogram(layout: Layout, buckets: tuple[tuple[int, int], ...], bits: int = 0) -> Any:
    """Return the Histogram or LinearHistogram of `buckets`, or None when there are none."""
    if not buckets:
        return None
    if layout.kind == "hist":
        return Histogram(layout.get_param("bits", bits), buckets)
    get = layout.get_param
    return LinearHistogram(get("min", 0), get("max", 0), get("step", 1), buckets)


def zero_value(layout: Layout) -> Any:
    """Return the value of an aggregation that nothing was added to."""
    get = layout.get_param
    if layout.kind == "avg":
        return Average(0, 0)
    if layout.kind == "stats":
        return Stats(0, 0)
    if layout.kind == "hist":
        return Histogram(get("bits", 0), ())
    if layout.kind == "lhist":
        return LinearHistogram(get("min", 0), get("max", 0), get("step", 1), ())
    if layout.kind == "tseries":
        return TimeSeries(get("interval_ns", 1), get("buckets", 1), get("agg", ""), ())
    return 0


_REDUCERS: dict[str, Callable[[Layout], Reducer]] = {
    "count": _count,
    "sum": _sum,
    "min": _extreme,
    "max": _extreme,
    "avg": _average,
    "stats": _average,
    "hist": _histogram,
    "lhist": _histogram,
}

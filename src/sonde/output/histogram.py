"""Histograms as rows of (lowest value, highest value, count), and as bars.

A bucket of hist(x, k) stands for a range whose width grows with its place: after the buckets for negative numbers and for
0 … 2**k - 1, each power of two is cut into 2**k equal parts.
"""

from __future__ import annotations

from ..record import Record
from ..spec.layout import Histogram

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..spec.layout import LinearHistogram

BAR_WIDTH = 52
_UNITS = ("", "K", "M", "G", "T", "P", "E")


class Bucket(Record):
    """One row: values from `low` to `high` (excluded), None where the range is open."""

    low: int | None
    high: int | None
    count: int


def rows(value: Histogram | LinearHistogram) -> list[Bucket]:
    """Return all buckets from the first to the last that is there, empty ones between them included."""
    if not value.buckets:
        return []
    counts = dict(value.buckets)
    span = range(min(counts), max(counts) + 1)
    if isinstance(value, Histogram):
        return [Bucket(*log_range(index, value.bits), counts.get(index, 0)) for index in span]
    return [Bucket(*linear_range(index, value), counts.get(index, 0)) for index in span]


def log_range(index: int, bits: int) -> tuple[int | None, int]:
    """Return the range of bucket `index` of hist(x, bits)."""
    if index == 0:
        return None, 0
    place = index - 1
    parts = 1 << bits
    if place < parts:
        return place, place + 1
    power, part = (place >> bits) - 1, place & (parts - 1)
    low = (parts + part) << power
    return low, low + (1 << power)


def linear_range(index: int, value: LinearHistogram) -> tuple[int | None, int | None]:
    """Return the range of bucket `index` of lhist(x, low, high, step)."""
    if index <= 0:
        return None, value.low
    last = (value.high - value.low) // value.step + 1
    low = value.low + (index - 1) * value.step
    return low, None if index >= last else low + value.step


def histogram_text(value: Histogram | LinearHistogram) -> str:
    """Return one line for each bucket: its range, its count, a bar."""
    buckets = rows(value)
    most = max((bucket.count for bucket in buckets), default=0)
    lines = []
    for bucket in buckets:
        bar = "@" * (bucket.count * BAR_WIDTH // most if most else 0)
        lines.append(f"{_range_text(bucket, value):<16}{bucket.count:>8} |{bar:<{BAR_WIDTH}}|\n")
    return "".join(lines)


def _range_text(bucket: Bucket, value: Histogram | LinearHistogram) -> str:
    def label(number: int) -> str:
        if isinstance(value, Histogram):
            return log_label(number, value.bits)
        return linear_label(number, value.step)

    if bucket.low is None:
        return f"(..., {label(bucket.high or 0)})"
    if bucket.high is None:
        return f"[{label(bucket.low)}, ...)"
    if isinstance(value, Histogram) and bucket.high == bucket.low + 1:
        return f"[{label(bucket.low)}]"
    return f"[{label(bucket.low)}, {label(bucket.high)})"


def log_label(number: int, bits: int) -> str:
    """Return a limit of hist(): 1024 is "1K"; with 2**bits parts a power, the unit changes that much later."""
    unit = max(number.bit_length() - 1 - bits, 0) // 10
    return f"{number >> 10 * unit}{_UNITS[unit]}"


def linear_label(number: int, step: int) -> str:
    """Return a limit of lhist(): in K or M where the step is a multiple of 1024 and the limit one of the unit."""
    if step % 1024 == 0 and number:
        if number % (1 << 20) == 0:
            return f"{number >> 20}M"
        if number % (1 << 10) == 0:
            return f"{number >> 10}K"
    return str(number)

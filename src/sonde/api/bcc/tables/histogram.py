"""Histograms as BCC prints them: rows of stars to standard output, exact to the blank."""

from __future__ import annotations

from time import strftime

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

STARS = 40
LOG2_SLOTS = 65
LINEAR_SLOTS = 1025


def stars(value: int, largest: int, width: int) -> str:
    """Return the bar of `value`: `width` stars for the largest one."""
    return "*" * min(int(width * value / largest), width)


def print_log2(values: Sequence[int], value_type: str, strip_leading_zero: Any = None) -> None:
    """Print counts of powers of two: slot n holds what lies between 2^(n-1) and 2^n - 1."""
    last, largest = _extent(values)
    if last <= 32:
        title, low_width, width = f"     {value_type:<19}", 10, STARS
    else:
        title, low_width, width = f"               {value_type:<29}", 20, STARS // 2
    if last > 0:
        print(f"{title} : count     distribution")
    for slot in range(1, last + 1):
        count = values[slot]
        if strip_leading_zero:
            if not count:
                continue
            strip_leading_zero = False
        low, high = (1 << slot) >> 1, (1 << slot) - 1
        if low == high:
            low -= 1
        bar = stars(count, largest, width)
        print(f"{low:{low_width}d} -> {high:<{low_width}d} : {count:<8d} |{bar:<{width}}|")


def print_linear(values: Sequence[int], value_type: str, strip_leading_zero: Any = None) -> None:
    """Print counts of consecutive numbers from 0 on."""
    last, largest = _extent(values)
    if last >= 0:
        print(f"     {value_type:<13} : count     distribution")
    for slot in range(last + 1):
        count = values[slot]
        if strip_leading_zero:
            if not count:
                continue
            strip_leading_zero = False
        print(f"        {slot:<10d} : {count:<8d} |{stars(count, largest, STARS):<{STARS}}|")


def print_json(values: Sequence[int], value_type: str, section: tuple[str, Any] | None = None) -> None:
    """Print a histogram of powers of two as BCC's dictionary (Python's way to write it, which is nearly JSON)."""
    last = max((slot for slot, count in enumerate(values) if count != 0), default=0)
    rows = []
    start = 0
    for slot in range(1, last + 1):
        end = 1 << slot
        rows.append({"interval-start": start, "interval-end": end - 1, "count": int(values[slot])})
        start = end
    histogram: dict[str, Any] = {"ts": strftime("%Y-%m-%d %H:%M:%S"), "val_type": value_type, "data": rows}
    if section:
        histogram[section[0]] = section[1]
    print(histogram)


def _extent(values: Sequence[int]) -> tuple[int, int]:
    """Return the last slot that counts (-1: none) and the largest count."""
    last, largest = -1, 0
    for slot, count in enumerate(values):
        if count > 0:
            last = slot
        if count > largest:
            largest = count
    return last, largest

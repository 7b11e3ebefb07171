"""Histograms as BCC prints them: rows of stars to standard output, exact to the blank."""

from __future__ import annotations

import ctypes as ct
from time import strftime

from ..values import visible_fields

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
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


class Histograms:
    """The methods of tables that print their counts."""

    Key: Any
    items: Any

    def print_log2_hist(
        self,
        val_type: str = "value",
        section_header: str = "Bucket ptr",
        section_print_fn: Callable[[Any], Any] | None = None,
        bucket_fn: Callable[[Any], Any] | None = None,
        strip_leading_zero: Any = None,
        bucket_sort_fn: Callable[[list[Any]], list[Any]] | None = None,
    ) -> None:
        """Print the counts as histogram of powers of two; a structure as key gives one for each value of its first member."""
        for title, values in self._sections(LOG2_SLOTS, section_header, section_print_fn, bucket_fn, bucket_sort_fn):
            if title:
                print(title)
            print_log2(values, val_type, strip_leading_zero)

    def print_linear_hist(
        self,
        val_type: str = "value",
        section_header: str = "Bucket ptr",
        section_print_fn: Callable[[Any], Any] | None = None,
        bucket_fn: Callable[[Any], Any] | None = None,
        strip_leading_zero: Any = None,
        bucket_sort_fn: Callable[[list[Any]], list[Any]] | None = None,
    ) -> None:
        """Print the counts as histogram of the numbers from 0 on, see `print_log2_hist`. Raises IndexError beyond 1024."""
        for title, values in self._sections(LINEAR_SLOTS, section_header, section_print_fn, bucket_fn, bucket_sort_fn):
            if title:
                print(title)
            print_linear(values, val_type, strip_leading_zero)

    def print_json_hist(
        self,
        val_type: str = "value",
        section_header: str = "Bucket ptr",
        section_print_fn: Callable[[Any], Any] | None = None,
        bucket_fn: Callable[[Any], Any] | None = None,
        bucket_sort_fn: Callable[[list[Any]], list[Any]] | None = None,
    ) -> None:
        """Print the counts of powers of two as a dictionary, see `print_log2_hist`."""
        for bucket, values in self._buckets(LOG2_SLOTS, bucket_fn, bucket_sort_fn):
            section = None
            if bucket is not _WHOLE:
                section = (section_header, section_print_fn(bucket) if section_print_fn else bucket)
            print_json(values, val_type, section)

    def _sections(
        self,
        slots: int,
        header: str,
        print_fn: Callable[[Any], Any] | None,
        bucket_fn: Callable[[Any], Any] | None,
        sort_fn: Callable[[list[Any]], list[Any]] | None,
    ) -> Iterator[tuple[str, list[int]]]:
        for bucket, values in self._buckets(slots, bucket_fn, sort_fn):
            title = ""
            if bucket is not _WHOLE:
                title = f"\n{header} = {print_fn(bucket) if print_fn else repr(bucket)}"
            yield title, values

    def _buckets(
        self,
        slots: int,
        bucket_fn: Callable[[Any], Any] | None,
        sort_fn: Callable[[list[Any]], list[Any]] | None,
    ) -> Iterator[tuple[Any, list[int]]]:
        """Yield each bucket (_WHOLE: the key is only a slot) and its counts."""
        if not issubclass(self.Key, ct.Structure):
            values = [0] * slots
            for key, leaf in self.items():
                _count(values, key.value, leaf)
            yield _WHOLE, values
            return
        bucket_name, slot_name = visible_fields(self.Key)[:2]
        found: dict[Any, list[int]] = {}
        for key, leaf in self.items():
            bucket = getattr(key, bucket_name)
            if bucket_fn:
                bucket = bucket_fn(bucket)
            _count(found.setdefault(bucket, [0] * slots), getattr(key, slot_name), leaf)
        buckets = list(found)
        for bucket in sort_fn(buckets) if sort_fn else buckets:
            yield bucket, found[bucket]


_WHOLE = object()


def _count(values: list[int], slot: int, leaf: Any) -> None:
    try:
        values[slot] = leaf.value
    except IndexError:
        raise IndexError(f"Index in print_linear_hist() of {slot} exceeds max of {len(values)}.") from None

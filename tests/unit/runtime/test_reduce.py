"""Per-CPU values to one value."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sonde.errors import FormatError
from sonde.runtime.reduce import reducer, zero_value
from sonde.spec.layout import Average, Histogram, Layout, LinearHistogram, Stats, TimeSeries

INT64 = st.integers(-(2**63), 2**63 - 1)


def pairs(code: str, *values: tuple[int, int]) -> list[bytes]:
    return [struct.pack(f"<{code}", *value) for value in values]


def test_count_is_summed_and_absent_when_zero() -> None:
    count = reducer(Layout("count", 8))
    assert count([struct.pack("<Q", 3), struct.pack("<Q", 4)]) == 7
    assert count([bytes(8), bytes(8)]) is None


def test_sum_takes_only_cpus_that_set_it() -> None:
    total = reducer(Layout("sum", 16, True))
    assert total(pairs("qB7x", (-5, 1), (99, 0), (2, 1))) == -3
    assert total(pairs("qB7x", (0, 1))) == 0
    assert total(pairs("qB7x", (5, 0))) is None


def test_sum_without_flag_wraps_at_64_bits() -> None:
    assert reducer(Layout("sum", 8))([b"\xff" * 8, struct.pack("<Q", 2)]) == 1
    assert reducer(Layout("sum", 8, True))([struct.pack("<q", -1), struct.pack("<q", -2)]) == -3


@given(st.lists(st.tuples(INT64, st.integers(0, 1)), min_size=1, max_size=8))
def test_extremes(values: list[tuple[int, int]]) -> None:
    present = [value for value, is_set in values if is_set]
    data = pairs("qB7x", *values)
    assert reducer(Layout("min", 16, True))(data) == (min(present) if present else None)
    assert reducer(Layout("max", 16, True))(data) == (max(present) if present else None)


def test_average_and_stats() -> None:
    data = pairs("qQ", (-5, 1), (-2, 1), (0, 0))
    assert reducer(Layout("avg", 16, True))(data) == Average(-7, 2)
    assert reducer(Layout("stats", 16, True))(data) == Stats(-7, 2)
    assert reducer(Layout("avg", 16, True))([bytes(16)]) is None


def test_histograms_add_up() -> None:
    data = [struct.pack("<4Q", 0, 1, 0, 2), struct.pack("<4Q", 0, 1, 0, 0)]
    params = (("max", 10), ("min", 0), ("step", 5))
    assert reducer(Layout("hist", 32, count=4, params=(("bits", 2),)))(data) == Histogram(2, ((1, 2), (3, 2)))
    assert reducer(Layout("lhist", 32, count=4, params=params))(data) == LinearHistogram(0, 10, 5, ((1, 2), (3, 2)))
    assert reducer(Layout("hist", 32))([bytes(32)]) is None


def series(aggregation: str, *cpus: list[tuple[int, int, int]], buckets: int = 3) -> TimeSeries | None:
    layout = Layout(
        "tseries", buckets * 24, True, params=(("agg", aggregation), ("buckets", buckets), ("interval_ns", 100))
    )
    values = [b"".join(struct.pack("<QqQ", *slot) for slot in slots).ljust(buckets * 24, b"\0") for slots in cpus]
    value = reducer(layout)(values)
    assert value is None or isinstance(value, TimeSeries)
    return value


def points(value: TimeSeries | None) -> tuple[tuple[int, int], ...]:
    assert value is not None
    return value.points


def test_time_series_combine_over_cpus() -> None:
    one, other = [(7, -3, 10), (8, 5, 2)], [(7, 4, 20)]
    assert points(series("", one, other)) == ((7, 4), (8, 5))  # the latest
    assert points(series("sum", one, other)) == ((7, 1), (8, 5))
    assert points(series("min", one, other)) == ((7, -3), (8, 5))
    assert points(series("max", one, other)) == ((7, 4), (8, 5))
    assert points(series("avg", [(7, -7, 2)])) == ((7, -3),)


def test_time_series_drops_slots_of_older_rounds() -> None:
    assert points(series("", [(9, 1, 1), (4, 2, 1), (8, 3, 1)])) == ((8, 3), (9, 1))
    assert series("", []) is None


@pytest.mark.parametrize("kind", ["count", "sum", "min", "max", "avg", "stats", "hist", "lhist", "tseries"])
@given(data=st.lists(st.binary(max_size=40), max_size=3))
def test_garbage_is_refused(kind: str, data: list[bytes]) -> None:
    layout = Layout(kind, 24, True, count=3, params=(("bits", 0), ("buckets", 1), ("interval_ns", 1)))
    try:
        reducer(layout)(data)
    except FormatError:
        assert any(len(value) < 24 for value in data)


def test_only_aggregations_reduce() -> None:
    with pytest.raises(FormatError):
        reducer(Layout("int", 8))


def test_zero_values() -> None:
    assert zero_value(Layout("count", 8)) == 0
    assert zero_value(Layout("avg", 16)) == Average(0, 0)
    assert zero_value(Layout("hist", 16, params=(("bits", 3),))) == Histogram(3, ())

"""Maps: order, top and div, titles, histograms, time series; texts printed by bpftrace 0.27.1 unless a test says otherwise."""

from __future__ import annotations

import json as standard_json
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from unit.output.printers import BOOL, ENUM, POINTER, S8, S64, STR, json, record_of, snapshot, text, tuple_of, view

from sonde.output.histogram import linear_range, log_label, log_range
from sonde.spec.layout import (
    Average,
    EnumValue,
    Frame,
    Histogram,
    Layout,
    LinearHistogram,
    RecordValue,
    Stack,
    Stats,
    TimeSeries,
)

COUNT = Layout("count", 8)
AVG = Layout("avg", 16, True)
STATS = Layout("stats", 16, True)
HIST = Layout("hist", 8)


def show(name: str, key: Layout | None, value: Layout, items: dict[object, object], **options: int) -> str:
    shot = snapshot(view(name, key, value), items, **options)
    return text(lambda p: p.snapshot(shot))[0]


def show_json(name: str, key: Layout | None, value: Layout, items: dict[object, object], **options: int) -> str:
    shot = snapshot(view(name, key, value), items, **options)
    return json(lambda p: p.snapshot(shot))[0]


NUMBERS: dict[object, object] = {3: 30, 1: 50, 2: 10, 7: 20, 5: 40}


def test_numbers_go_by_value() -> None:
    assert show("@a", S64, S64, NUMBERS) == "@a[2]: 10\n@a[7]: 20\n@a[3]: 30\n@a[5]: 40\n@a[1]: 50\n"
    assert (
        show_json("@a", S64, COUNT, {3: 1, 1: 3, 7: 2}) == '{"type": "map", "data": {"@a": {"3": 1, "7": 2, "1": 3}}}\n'
    )


def test_negative_numbers_come_first() -> None:
    """bpftrace 0.27.1 sorts them as if unsigned."""
    assert show("@m", S64, Layout("min", 16, True), {1: 5, 2: -40}) == "@m[2]: -40\n@m[1]: 5\n"


def test_top_and_div() -> None:
    assert show("@a", S64, S64, NUMBERS, top=2) == "@a[5]: 40\n@a[1]: 50\n"
    assert show("@a", S64, S64, NUMBERS, top=2, div=10) == "@a[5]: 4\n@a[1]: 5\n"
    assert show("@av", S64, AVG, {1: Average(5, 1), 2: Average(1, 1), 3: Average(3, 1)}, top=2, div=2) == (
        "@av[3]: 1\n@av[1]: 2\n"
    )
    shot = {1: Histogram(0, ((4, 1),)), 3: Histogram(0, ((2, 3),))}
    bar = "@" * 52
    assert show("@h", S8, HIST, shot, top=1, div=2) == f"@h[3]:\n[1]                    1 |{bar}|\n\n"


@pytest.mark.parametrize(
    ("key", "keys", "order"),
    [
        (STR, ["x", "zz", "a"], ["a", "x", "zz"]),
        (tuple_of(S8, STR), [(1, "b"), (1, "a"), (0, "z")], ["0, z", "1, a", "1, b"]),
        (BOOL, [True, False], ["false", "true"]),
        (S64, [3, -1, 20], ["-1", "3", "20"]),
    ],
)
def test_other_values_go_by_key(key: Layout, keys: list[object], order: list[str]) -> None:
    assert show("@s", key, STR, dict.fromkeys(keys, "v")) == "".join(f"@s[{k}]: v\n" for k in order)


def test_equal_values_go_by_key() -> None:
    """bpftrace leaves them in the order of the hash."""
    assert show("@c", STR, COUNT, {"b": 1, "a": 1, "c": 0}) == "@c[c]: 0\n@c[a]: 1\n@c[b]: 1\n"


def test_scalars() -> None:
    assert show("@", None, S64, {None: 5}) == "@: 5\n"
    assert show("@s", None, STR, {None: ""}) == "@s: \n"
    assert show("@avg", None, AVG, {None: Average(-7, 2)}) == "@avg: -3\n"
    assert show("@st", None, STATS, {None: Stats(-7, 2)}) == "@st: { .count = 2, .average = -3, .total = -7 }\n"
    assert show_json("@", None, S64, {None: 5}) == '{"type": "map", "data": {"@": 5}}\n'
    assert show_json("@avg", None, AVG, {None: Average(-7, 2)}) == '{"type": "stats", "data": {"@avg": -3}}\n'
    assert show_json("@st", None, STATS, {None: Stats(-7, 2)}) == (
        '{"type": "stats", "data": {"@st": {"count": 2, "average": -3, "total": -7}}}\n'
    )


def test_keys_of_all_types() -> None:
    pair = tuple_of(S8, tuple_of(S8, S8))
    assert show("@t", tuple_of(pair, STR), S64, {((1, (2, 3)), "x"): 1}) == "@t[(1, (2, 3)), x]: 1\n"
    assert show_json("@t", tuple_of(pair, STR), S64, {((1, (2, 3)), "x"): 1}) == (
        '{"type": "map", "data": {"@t": {"(1,(2,3)),x": 1}}}\n'
    )
    assert (
        show("@r", record_of(a=S8, b=STR), S8, {RecordValue(("a", "b"), (1, "x")): 1}) == "@r[{ .a = 1, .b = x }]: 1\n"
    )
    assert show_json("@r", record_of(a=S8, b=STR), S8, {RecordValue(("a", "b"), (1, "x")): 1}) == (
        '{"type": "map", "data": {"@r": {"{.a=1,.b=x}": 1}}}\n'
    )
    assert show_json("@p", POINTER, POINTER, {5: 9007199254740993}) == (
        '{"type": "map", "data": {"@p": {"0x5": "9007199254740993"}}}\n'
    )
    assert show_json("@e", ENUM, S8, {EnumValue(1, "AA"): 1}) == '{"type": "map", "data": {"@e": {"AA": 1}}}\n'
    array = Layout("array", 2, element=S8, count=2)
    assert show("@b", array, S8, {(5, 0): 1}) == "@b[[5,0]]: 1\n"


def test_blanks_within_json_keys_stay() -> None:
    """bpftrace 0.27.1 takes all blanks out of keys, those of the data too."""
    assert (
        show_json("@k", tuple_of(STR, STR), S8, {("a b", "c,d"): 1})
        == '{"type": "map", "data": {"@k": {"a b,c,d": 1}}}\n'
    )


def test_stacks_as_keys() -> None:
    class Names:
        def resolve(self, space: str, pid: int, addr: int) -> Frame:
            return Frame(addr, "f", addr, "")

    stack = Stack("kernel", (1, 0), (106, 279), 0, "bpftrace", 0, Names())
    key = tuple_of(Layout("kstack", 8), S8)
    assert show("@k", key, COUNT, {(stack, 1): 1}) == "@k[\n        f+106\n        f+279\n, 1]: 1\n"
    assert (
        show_json("@k", key, COUNT, {(stack, 1): 1})
        == '{"type": "map", "data": {"@k": {"\\nf+106\\nf+279\\n,1": 1}}}\n'
    )


def test_single_entries_show_their_value_only() -> None:
    assert show("@c", S8, COUNT, {7: 3}, single=True) == "3\n"
    assert show_json("@c", S8, STATS, {7: Stats(5, 1)}, single=True) == (
        '{"type": "value", "data": {"count": 1, "average": 5, "total": 5}}\n'
    )


def test_empty_maps() -> None:
    assert show("@c", S8, COUNT, {}) == show_json("@c", S8, COUNT, {}) == show_json("@h", S8, HIST, {}) == ""
    assert show_json("@s", S8, STATS, {}) == '{"type": "stats", "data": {"@s": {}}}\n'


def test_histogram() -> None:
    value = Histogram(0, ((0, 1), (1, 1), (2, 1), (4, 1), (12, 2)))
    assert show("@h", None, HIST, {None: value}) == (
        "@h:\n"
        "(..., 0)               1 |@@@@@@@@@@@@@@@@@@@@@@@@@@                          |\n"
        "[0]                    1 |@@@@@@@@@@@@@@@@@@@@@@@@@@                          |\n"
        "[1]                    1 |@@@@@@@@@@@@@@@@@@@@@@@@@@                          |\n"
        "[2, 4)                 0 |                                                    |\n"
        "[4, 8)                 1 |@@@@@@@@@@@@@@@@@@@@@@@@@@                          |\n"
        "[8, 16)                0 |                                                    |\n"
        "[16, 32)               0 |                                                    |\n"
        "[32, 64)               0 |                                                    |\n"
        "[64, 128)              0 |                                                    |\n"
        "[128, 256)             0 |                                                    |\n"
        "[256, 512)             0 |                                                    |\n"
        "[512, 1K)              0 |                                                    |\n"
        "[1K, 2K)               2 |@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@|\n"
        "\n"
    )
    short = Histogram(0, ((0, 1), (1, 1), (3, 1)))
    assert show_json("@h", None, HIST, {None: short}) == (
        '{"type": "hist", "data": {"@h": [{"max": -1, "count": 1},{"min": 0, "max": 0, "count": 1},'
        '{"min": 1, "max": 1, "count": 0},{"min": 2, "max": 3, "count": 1}]}}\n'
    )
    assert show_json("@h", None, HIST, {None: Histogram(0, ((64, 2),))}) == (
        '{"type": "hist", "data": {"@h": [{"min": 4611686018427387904, "max": "9223372036854775807", "count": 2}]}}\n'
    )
    assert show_json("@hk", STR, HIST, {"a": Histogram(0, ((3, 1),)), "b": Histogram(0, ((4, 1),))}) == (
        '{"type": "hist", "data": {"@hk": {"a": [{"min": 2, "max": 3, "count": 1}], '
        '"b": [{"min": 4, "max": 7, "count": 1}]}}}\n'
    )


def test_bars_are_cut_to_whole_marks() -> None:
    value = Histogram(0, ((1, 1), (3, 2), (4, 4), (5, 8), (6, 16), (7, 32), (8, 64), (9, 72)))
    lines = show("@h7", None, HIST, {None: value}).split("\n")[1:-2]
    assert [line.count("@") for line in lines] == [0, 0, 1, 2, 5, 11, 23, 46, 52]


def bucket_of(number: int, bits: int) -> int:
    """The bucket that the language reference puts a number in."""
    if number < 0:
        return 0
    if number < 1 << bits:
        return number + 1
    shift = number.bit_length() - 1 - bits
    return ((shift + 1) << bits) + (number >> shift) - (1 << bits) + 1


@given(st.integers(-(2**63), 2**63 - 1), st.integers(0, 5))
def test_log_ranges_hold_their_numbers(number: int, bits: int) -> None:
    low, high = log_range(bucket_of(number, bits), bits)
    assert (low is None or low <= number) and number < high


@pytest.mark.parametrize(
    ("number", "bits", "label"),
    [
        (512, 0, "512"),
        (1024, 0, "1K"),
        (1 << 20, 0, "1M"),
        (1 << 30, 0, "1G"),
        (1 << 40, 0, "1T"),
        (1 << 50, 0, "1P"),
        (1 << 62, 0, "4E"),
        (1024, 2, "1024"),
        (3584, 2, "3584"),
        (4096, 2, "4K"),
        (1 << 20, 2, "1024K"),
        (0, 3, "0"),
        (70, 5, "70"),
    ],
)
def test_log_labels(number: int, bits: int, label: str) -> None:
    assert log_label(number, bits) == label


def linear(low: int, high: int, step: int, *buckets: tuple[int, int]) -> list[str]:
    value = LinearHistogram(low, high, step, buckets)
    return [
        line.partition("|")[0].rstrip()
        for line in show("@l", None, Layout("lhist", 8), {None: value}).split("\n")[1:-2]
    ]


def test_linear_histograms() -> None:
    assert linear(0, 100, 10, (0, 1), (1, 1), (2, 2), (11, 1)) == [
        "(..., 0)               1",
        "[0, 10)                1",
        "[10, 20)               2",
        *(f"[{n}, {n + 10})               0" for n in range(20, 90, 10)),
        "[90, 100)              0",
        "[100, ...)             1",
    ]
    assert linear(1000, 3000, 500, (0, 1), (1, 1), (2, 1)) == [
        "(..., 1000)            1",
        "[1000, 1500)           1",
        "[1500, 2000)           1",
    ]
    assert linear(0, 10, 3, (1, 1), (4, 2)) == [
        "[0, 3)                 1",
        "[3, 6)                 0",
        "[6, 9)                 0",
        "[9, ...)               2",
    ]
    assert linear(0, 5000, 1000000, (1, 1)) == ["[0, ...)               1"]
    assert linear(0, 3000000, 1000000, (2, 1)) == ["[1000000, 2000000)       1"]


def test_linear_labels_have_units_where_the_step_has() -> None:
    assert linear(0, 10485760, 1048576, (1, 1), (2, 1)) == ["[0, 1M)                1", "[1M, 2M)               1"]
    assert linear(0, 4194304, 524288, (2, 1), (3, 1)) == ["[512K, 1M)             1", "[1M, 1536K)            1"]
    assert linear(0, 5120, 512, (3, 1)) == ["[1024, 1536)           1"]
    assert linear(0, 8589934592, 1073741824, (3, 1)) == ["[2048M, 3072M)         1"]


def test_linear_json_ranges() -> None:
    value = LinearHistogram(0, 100, 50, ((0, 1), (1, 2), (3, 4)))
    assert show_json("@l", None, Layout("lhist", 8), {None: value}) == (
        '{"type": "hist", "data": {"@l": [{"max": -1, "count": 1},{"min": 0, "max": 49, "count": 2},'
        '{"min": 50, "max": 99, "count": 0},{"min": 100, "count": 4}]}}\n'
    )


@given(st.integers(0, 1000), st.integers(1, 1000), st.integers(1, 100), st.integers(-10, 5000))
def test_linear_ranges_hold_their_numbers(low: int, width: int, step: int, number: int) -> None:
    value = LinearHistogram(low, low + width, step, ())
    last = width // step + 1
    index = 0 if number < low else min((number - low) // step + 1, last)
    start, end = linear_range(index, value)
    assert (start is None or start <= number) and (end is None or number < end)


SERIES = Layout("tseries", 24)
SECOND = 1_000_000_000


def series(interval_ns: int, buckets: int, *points: tuple[int, int]) -> TimeSeries:
    return TimeSeries(interval_ns, buckets, "", points, 0)


@pytest.fixture(autouse=True)
def _utc() -> Iterator[None]:
    import time

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TZ", "UTC")
        time.tzset()
        yield
    time.tzset()


def test_time_series() -> None:
    value = series(SECOND // 5, 6, *((5 * 31 + i, 1 + 2 * i) for i in range(5)))
    assert show("@t", None, SERIES, {None: value}) == (
        "@t:\n"
        "             1                                                   9\n"
        "hh:mm:ss.ms  |___________________________________________________|\n"
        "00:00:31.000 *                                                   | 1\n"
        "00:00:31.200 |            *                                      | 3\n"
        "00:00:31.400 |                         *                         | 5\n"
        "00:00:31.600 |                                      *            | 7\n"
        "00:00:31.800 |                                                   * 9\n"
        "             v___________________________________________________v\n"
        "             1                                                   9\n"
        "\n"
    )
    assert show_json("@t", None, SERIES, {None: series(SECOND // 5, 6, (155, 1), (157, 3))}) == (
        '{"type": "tseries", "data": {"@t": [{"interval_start":"1970-01-01 00:00:31.000000000","value":1},'
        '{"interval_start":"1970-01-01 00:00:31.400000000","value":3}]}}\n'
    )


def test_time_series_with_gaps_and_seconds() -> None:
    value = series(SECOND, 5, (31, 7500000000), (33, 19500000000))
    assert show("@t7", STR, SERIES, {"k": value}) == (
        "@t7[k]:\n"
        "         7500000000                                19500000000\n"
        "hh:mm:ss |___________________________________________________|\n"
        "00:00:31 *                                                   | 7500000000\n"
        "00:00:32 |                                                   | -\n"
        "00:00:33 |                                                   * 19500000000\n"
        "         v___________________________________________________v\n"
        "         7500000000                                19500000000\n"
        "\n"
    )


def test_time_series_of_one_point_and_of_microseconds() -> None:
    one = show("@u", None, SERIES, {None: series(100, 3, (7, 5))}).split("\n")
    assert one[1:4] == [
        "                   4                                                   6",
        "hh:mm:ss.ns        |___________________________________________________|",
        "00:00:00.000000700 |                         *                         | 5",
    ]
    micro = show("@u", None, SERIES, {None: series(10_000, 3, (7, 5), (8, 6))}).split("\n")
    assert micro[2:4] == [
        "hh:mm:ss.μs    |___________________________________________________|",
        "00:00:00.000070 *                                                   | 5",
    ]


def test_time_series_forgets_old_intervals() -> None:
    lines = show("@t", None, SERIES, {None: series(SECOND, 2, (1, 5), (9, 6), (10, 7))}).split("\n")
    assert [line[:8] for line in lines[3:5]] == ["00:00:09", "00:00:10"]


@given(st.dictionaries(st.text(max_size=5), st.integers(-(2**63), 2**64 - 1), max_size=5))
def test_json_maps_are_json(items: dict[object, object]) -> None:
    line = show_json("@x", STR, S64, items)
    if items:
        shown = standard_json.loads(line)["data"]["@x"]
        assert {key: int(value) for key, value in shown.items()} == items


@given(st.lists(st.tuples(st.integers(0, 66), st.integers(0, 2**64 - 1)), max_size=5), st.integers(0, 5))
def test_no_histogram_breaks_the_output(buckets: list[tuple[int, int]], bits: int) -> None:
    value = Histogram(bits, tuple(dict(buckets).items()))
    assert show("@h", None, HIST, {None: value}).startswith("@h:\n")
    standard_json.loads(show_json("@h", None, HIST, {None: value}))

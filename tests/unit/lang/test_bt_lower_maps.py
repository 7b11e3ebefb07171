"""Lowering of maps and aggregations: scripts run by the interpreter, and how often their programs ask the kernel."""

from __future__ import annotations

import pytest
from script_machine import World, lower_script, machine, run_body, run_script

BAR = "@" * 52
MAPS = [
    ("@ = 3; print(@++); print(++@); print(@--)", "3\n5\n5\n\n\n@: 4"),
    ('@x["a"]++; @y["a"]--; @z += 5; @z -= 1; @n[1] -= 7; @n[2] |= 6', "@n[1]: -7\n@n[2]: 6\n@x[a]: 1\n@y[a]: -1\n@z: 4"),
    ('print(@m[1]++); print(++@m[1]); print(@m[1])', "0\n2\n2\n\n\n@m[1]: 2"),
    ('@x = "abc"; @x = "abcdefgh"; @s["a"] = 1; @s["abcdefghijk"] = 2', "@s[a]: 1\n@s[abcdefghijk]: 2\n@x: abcdefgh"),
    ('@t[1, "a"] = (1, "bb"); print(@t[1, "a"].1); print(@t[2, "a"].1 == "")', "bb\ntrue\n\n\n@t[1, a]: (1, bb)"),
    ('@b[(1, "x"), 3] = (2, (3, "y")); print(@b[(1, "x"), 3].1.1)', "y\n\n\n@b[(1, x), 3]: (2, (3, y))"),
    ("@a[1] = 1; print(delete(@a, 1)); print(delete(@a, 1)); print(has_key(@a, 1)); print(len(@a))",
     "true\nfalse\nfalse\n0"),
    ("@a[1] = 1; @a[2] = 2; print(len(@a)); print(has_key(@a, 2)); delete(@a[1]); delete(@a[2])", "2\ntrue"),
    ("@x = 5; $a = @x; delete(@x); print(($a, @x))", "(5, 0)"),
    ("@a[1] = 7; if (find(@a, 1, $v)) { print($v) } if (find(@a, 2, $w)) { print($w) } else { print(-1) }",
     "7\n-1\n\n\n@a[1]: 7"),
    ("@a[1] = 5; @b = @a[1] + @a[9]; @c = @a[1]; @c++; print(@a[1])", "5\n\n\n@a[1]: 5\n@b: 5\n@c: 6"),
    ("@arr = (uint8[2])258; print(@arr); @k[(uint8[2])258] = 1", "@arr: [2,1]\n\n\n@arr: [2,1]\n@k[[2,1]]: 1"),
    ("@ = true; @f[false] = 1", "@: true\n@f[false]: 1"),
    ("@a[1] = 1; clear(@a); @b[1] = 5; zero(@b); print(@a)", "@b[1]: 0"),
]  # fmt: skip

AGGREGATIONS = [
    ("@ = count(); @ = count(); print(@); if (@ == 2) { print(1) }", "@: 2\n1\n\n\n@: 2"),
    ("@c[1] = count(); @c[1] = count(); print(@c[1]); print((@c[1], 1)); print(@c[2])", "2\n(2, 1)\n0\n\n\n@c[1]: 2"),
    ("@s = sum(-5); @s = sum(3); print(@s < 0); $x = @s + 1; print($x)", "true\n-1\n\n\n@s: -2"),
    ("@m = max(5); @m = max(7); @m = max(6); @n = min(5); @n = min(-2); print(@m > 6)", "true\n\n\n@m: 7\n@n: -2"),
    ("@m[1] = min(5); @m[1] = min(3); @m[1] = min(7); @x[1] = max(3); @x[1] = max(9)", "@m[1]: 3\n@x[1]: 9"),
    ("@u = max((uint64)-1); @u = max((uint64)1)", "@u: 18446744073709551615"),
    ("@a = avg(3); @a = avg(6); print((int64)@a); @b[1] = avg(-7); @b[1] = avg(-8)", "4\n\n\n@a: 4\n@b[1]: -7"),
    ("@g = stats(4); @g = stats(8); @h[1] = stats(2)",
     "@g: { .count = 2, .average = 6, .total = 12 }\n@h[1]: { .count = 1, .average = 2, .total = 2 }"),
    ("@a[1] = count(); @a[2] = count(); @a[2] = count(); for ($kv : @a) { printf(\"%d %d,\", $kv.0, $kv.1) }",
     "1 1,2 2,\n\n@a[1]: 1\n@a[2]: 2"),
]  # fmt: skip


@pytest.mark.parametrize(("script", "expected"), MAPS + AGGREGATIONS)
def test_prints(script: str, expected: str) -> None:
    assert run_body(script) == expected + "\n"


def histogram(text: str) -> list[tuple[str, int]]:
    """The labels and counts of the rows that are not empty."""
    rows = [line[:25].rsplit(None, 1) for line in text.splitlines() if "|" in line]
    return [(label.strip(), int(count)) for label, count in rows if int(count)]


@pytest.mark.parametrize(
    ("number", "label"),
    [
        (-1, "(..., 0)"), (0, "[0]"), (1, "[1]"), (2, "[2, 4)"), (3, "[2, 4)"), (4, "[4, 8)"), (1023, "[512, 1K)"),
        (1024, "[1K, 2K)"), (65535, "[32K, 64K)"), (65536, "[64K, 128K)"), ((1 << 32) - 1, "[2G, 4G)"), (1 << 32, "[4G, 8G)"),
        (1 << 62, "[4E, 8E)"), (-(1 << 63), "(..., 0)"),
    ],
)  # fmt: skip
def test_buckets_are_powers_of_two(number: int, label: str) -> None:
    assert histogram(run_body(f"@ = hist((int64){number})")) == [(label, 1)]
    assert histogram(run_body(f"@[1] = hist((int64){number})")) == [(label, 1)]


@pytest.mark.parametrize("bits", range(1, 6))
def test_sub_buckets_hold_their_numbers(bits: int) -> None:
    numbers = sorted({0, 1, 2**bits - 1, 2**bits, 2**bits + 1, 100, 1000, 4097, 12345, (1 << 40) + 17, (1 << 62) + 1})
    for number in numbers:
        spec = run_body(f"@ = hist((int64){number}, {bits})")
        [(label, count)] = histogram(spec)
        assert count == 1
        low, _, high = label.strip("[])").partition(", ")
        assert _number(low) <= number and (number < _number(high) if high else number == _number(low)), label


def _number(label: str) -> int:
    units = {"K": 10, "M": 20, "G": 30, "T": 40, "P": 50, "E": 60}
    return int(label[:-1]) << units[label[-1]] if label[-1] in units else int(label)


@pytest.mark.parametrize(
    ("number", "label"),
    [(-1, "(..., 0)"), (0, "[0, 3)"), (2, "[0, 3)"), (3, "[3, 6)"), (8, "[6, 9)"), (9, "[9, ...)"), (10, "[9, ...)"),
     (1 << 40, "[9, ...)"), (-(1 << 40), "(..., 0)")],
)  # fmt: skip
def test_linear_buckets(number: int, label: str) -> None:
    assert histogram(run_body(f"@ = lhist((int64){number}, 0, 10, 3)")) == [(label, 1)]
    assert histogram(run_body(f"@[2] = lhist((int64){number}, 0, 10, 3)")) == [(label, 1)]


def test_the_reciprocal_divides_exactly() -> None:
    from sonde.lang.bpftrace.lower_aggregations import find_reciprocal

    for below, divisor in ((1000, 100), (1000, 7), (10**6, 999), (3, 2), (1 << 20, 12345), (65536, 255)):
        factor, shift = find_reciprocal(below, divisor)
        assert factor, (below, divisor)
        edges = {
            n
            for k in range(0, below // divisor + 1, max(1, below // divisor // 200))
            for n in (k * divisor - 1, k * divisor)
        }
        for number in edges | {0, below - 1}:
            if 0 <= number < below:
                assert number * factor >> shift == number // divisor
    assert find_reciprocal(1 << 40, 3) == (0, 0)  # too large for the verifier to follow


def test_all_buckets_of_a_key_are_deleted() -> None:
    text = run_body(
        "@h[1] = hist(5); @h[1] = hist(500); @h[2] = hist(7); print(delete(@h, 1)); print(has_key(@h, 1)); print(has_key(@h, 2))"
    )
    assert text.startswith("true\nfalse\ntrue\n")
    assert "@h[1]" not in text and "@h[2]" in text


def test_a_full_map_is_counted_and_named(capfd: pytest.CaptureFixture[str]) -> None:
    text = run_script(
        "config = { max_map_keys = 2 } begin { @[1] = 1; @[2] = 2; @[3] = 3; @[4] = 4; @c[1] = count(); @c[1] = count() }"
    )
    assert text == "@[1]: 1\n@[2]: 2\n@c[1]: 2\n"
    message = capfd.readouterr().err
    assert "Map full" in message and "@" in message and "retcode: -7" in message


def test_events_without_room_are_counted(capfd: pytest.CaptureFixture[str]) -> None:
    world = World()
    world.ring_room = 1
    assert run_body("print(1); print(2); print(3)", world) == "1\n"
    assert "Lost 2 events" in capfd.readouterr().err


def test_keys_are_built_and_entries_found_once() -> None:
    world = World()
    run_script("begin { @s[1] = 5 } interval:s:1 /@s[1] && pid/ { @d = @s[1] + @s[1]; delete(@s, 1); exit() }", world)
    assert world.calls.count("map_lookup_elem") == 1
    assert world.calls.count("get_current_pid_tgid") == 1


def test_aggregations_need_no_second_lookup() -> None:
    world = World()
    run_body("@[pid] = count(); @[pid] = count(); @c = count(); @s = sum(1); @h = hist(1)", world)
    assert world.calls.count("map_lookup_elem") == 2
    assert world.calls.count("map_update_elem") == 1


def test_an_entry_that_was_deleted_is_looked_up_again() -> None:
    assert run_body(
        "@a[1] = 5; if (@a[1]) { delete(@a, 1); print(@a[1]); @a[1] = 7; print(@a[1]); @a[1]++; print(@a[1]) }"
    ) == ("0\n7\n8\n\n\n@a[1]: 8\n")
    assert run_body("@a[1] = 5; if (@a[1]) { @a[1] = 6; print(@a[1]); @a[1] += 2; print(@a[1]); print(++@a[1]) }") == (
        "6\n8\n9\n\n\n@a[1]: 9\n"
    )


def test_what_one_branch_knows_the_other_does_not() -> None:
    body = "if (@q) { @a[1] = 1; if (@a[1]) { $x = @a[1] } } else { print(@a[1]) } print(@a[1]); @q = 1"
    assert run_body(body) == "0\n0\n\n\n@q: 1\n"


def test_views_are_sorted_and_small_values_come_first() -> None:
    lowered = lower_script("begin { @z = 1; @h = hist(1); @c = count(); @a[1] = 1; @s = sum(1) }")
    assert [v.name for v in lowered.views] == ["@a", "@c", "@h", "@s", "@z"]
    offsets = {v.name: v.offset for v in lowered.views if v.map == "percpu"}
    assert offsets["@c"] < offsets["@s"] < offsets["@h"]


def test_declared_maps_have_their_kernel_types() -> None:
    script = "let @a = lruhash(10); let @b = percpulruhash(20); begin { @a[1] = 1; @b[1] = count(); @c[1] = count(); @d[1] = 1 }"
    maps = {m.name: (m.type, m.max_entries) for m in lower_script(script).module.maps.values()}
    assert maps["AT_a"] == ("lru_hash", 10)
    assert maps["AT_b"] == ("lru_percpu_hash", 20)
    assert maps["AT_c"] == ("percpu_hash", 4096)
    assert maps["AT_d"] == ("hash", 4096)


def test_time_series_fill_their_slots() -> None:
    text = run_body(
        '@a = tseries(5, 1s, 3); @a = tseries(9, 1s, 3); @m = tseries(5, 1s, 3, "max"); @m = tseries(2, 1s, 3, "max")'
    )
    points = [line.rsplit("|", 1)[1].strip() for line in text.splitlines() if "*" in line]
    assert points == ["9", "5"]


def test_reading_an_aggregation_needs_a_helper() -> None:
    from sonde.errors import FeatureError

    with pytest.raises(FeatureError, match="map_lookup_percpu_elem"):
        lower_script("begin { @ = count(); if (@ > 1) { exit() } }", machine("helper:map_lookup_percpu_elem"))


def test_a_value_that_no_cpu_can_hold_is_refused() -> None:
    from sonde.errors import FeatureError

    with pytest.raises(FeatureError, match="bytes for each CPU"):
        lower_script("begin { @ = tseries(1, 1s, 5000) }")

"""Views over the fake engine's maps."""

from __future__ import annotations

import struct

from sonde.runtime.decode import Surroundings
from sonde.runtime.fake import FakeMap
from sonde.runtime.snapshot import View
from sonde.spec.engine import Entry, Snapshot
from sonde.spec.layout import Average, Histogram, Layout, LayoutField
from sonde.spec.object import MapSpec, ViewSpec

COMM = Layout("string", 16)
U64 = Layout("int", 8)
COUNT = Layout("count", 8)


def u64(*numbers: int) -> bytes:
    return struct.pack(f"<{len(numbers)}Q", *numbers)


def make(spec: ViewSpec, live: FakeMap) -> View:
    return View(spec, live, Surroundings())


def entries(snapshot: Snapshot) -> dict[object, object]:
    return {entry.key: entry.value for entry in snapshot.entries}


def test_keyed_counts_over_cpus() -> None:
    live = FakeMap(MapSpec("AT_c", "percpu_hash", 16, 8, 10), cpus=2)
    live.update_each(b"cat".ljust(16, b"\0"), [u64(2), u64(3)])
    view = make(ViewSpec("@c", "AT_c", COMM, COUNT, per_cpu=True), live)
    assert entries(view.snapshot()) == {"cat": 5}


def test_tuple_keys() -> None:
    key = Layout("tuple", 24, fields=(LayoutField("0", 0, U64), LayoutField("1", 8, COMM)))
    live = FakeMap(MapSpec("AT_", "hash", 24, 8, 10))
    live.update(u64(7) + b"sh".ljust(16, b"\0"), u64(1))
    assert entries(make(ViewSpec("@", "AT_", key, U64), live).snapshot()) == {(7, "sh"): 1}


def test_scalars_share_an_entry() -> None:
    live = FakeMap(MapSpec("globals", "array", 4, 32, 1))
    live.update(bytes(4), u64(11, 22) + b"\1\0" + bytes(14))
    set_one = make(ViewSpec("@a", "globals", None, U64, offset=0, set_offset=16), live)
    unset = make(ViewSpec("@b", "globals", None, U64, offset=8, set_offset=17), live)
    assert set_one.snapshot().entries == (Entry(None, 11),)
    assert unset.snapshot().entries == ()
    assert unset.snapshot(unset=True).entries == (Entry(None, 22 * 0),)


def test_clear_and_zero_leave_neighbours_alone() -> None:
    live = FakeMap(MapSpec("globals", "array", 4, 32, 1))
    live.update(bytes(4), u64(11, 22) + b"\1\1" + bytes(14))
    a = make(ViewSpec("@a", "globals", None, U64, offset=0, set_offset=16), live)
    b = make(ViewSpec("@b", "globals", None, U64, offset=8, set_offset=17), live)
    a.zero()
    assert a.snapshot().entries == (Entry(None, 0),)
    a.clear()
    assert a.snapshot().entries == ()
    assert b.snapshot().entries == (Entry(None, 22),)


def test_per_cpu_scalars() -> None:
    live = FakeMap(MapSpec("percpu", "percpu_array", 4, 24, 1), cpus=2)
    live.update_each(bytes(4), [u64(5, 10, 2), u64(6, 0, 0)])
    count = make(ViewSpec("@c", "percpu", None, COUNT, per_cpu=True), live)
    average = make(ViewSpec("@a", "percpu", None, Layout("avg", 16), per_cpu=True, offset=8), live)
    assert count.snapshot().entries == (Entry(None, 11),)
    assert average.snapshot().entries == (Entry(None, Average(10, 2)),)
    count.clear()
    assert count.snapshot().entries == ()
    assert average.snapshot().entries == (Entry(None, Average(10, 2)),)


def test_zero_keeps_keys_clear_removes_them() -> None:
    live = FakeMap(MapSpec("AT_c", "percpu_hash", 8, 8, 10))
    live.update(u64(1), u64(5))
    view = make(ViewSpec("@c", "AT_c", U64, COUNT, per_cpu=True), live)
    view.zero()
    assert entries(view.snapshot()) == {1: 0}
    view.clear()
    assert entries(view.snapshot()) == {}


def test_buckets_in_the_key_are_collected() -> None:
    live = FakeMap(MapSpec("AT_h", "percpu_hash", 16, 8, 10), cpus=2)
    live.update_each(u64(1, 3), [u64(1), u64(1)])
    live.update_each(u64(1, 5), [u64(4), u64(0)])
    live.update_each(u64(2, 0), [u64(1), u64(0)])
    hist = Layout("hist", 8, params=(("bits", 0),))
    view = make(ViewSpec("@h", "AT_h", U64, hist, per_cpu=True, whole=False, bucket_offset=8), live)
    assert entries(view.snapshot()) == {1: Histogram(0, ((3, 2), (5, 4))), 2: Histogram(0, ((0, 1),))}


def test_one_entry() -> None:
    live = FakeMap(MapSpec("AT_c", "percpu_hash", 8, 8, 10), cpus=2)
    live.update(u64(1), u64(5))
    view = make(ViewSpec("@c", "AT_c", U64, COUNT, per_cpu=True), live)
    assert view.entry(u64(1), 1).entries == (Entry(1, 10),)
    assert view.entry(u64(2), 2).entries == (Entry(2, 0),)
    assert view.entry(u64(1), 1).single

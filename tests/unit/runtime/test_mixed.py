"""Two engines that share a script, in memory: who runs what, maps and rings as one, and what cannot be shared."""

from __future__ import annotations

import struct
import time
from collections.abc import Callable

import pytest

from sonde.errors import ProbeError, TargetError
from sonde.record import replace
from sonde.runtime.fake import FakeEngine, FakeMap, FakeObject, FakeReader
from sonde.runtime.merged import Copies, FirstFound, MergedReader, Overlay
from sonde.runtime.mixed import MixedEngine
from sonde.runtime.session import Session, SessionOptions
from sonde.runtime.sides import KERNEL, USER, divide
from sonde.spec.engine import Row, Snapshot
from sonde.spec.layout import Layout, LayoutField
from sonde.spec.object import (
    STAMP_NS,
    EventSpec,
    MapSpec,
    MapUse,
    ObjectSpec,
    ProbeSpec,
    ProgramSpec,
    Reloc,
    ViewSpec,
)

U64 = Layout("int", 8)
COUNT = Layout("count", 8)
PRINT, CLEAR = 1, 2
MAPS = (
    MapSpec("events", "ringbuf", 0, 0, 4096),
    MapSpec("lost", "array", 4, 16, 1),
    MapSpec("globals", "array", 4, 24, 1),
    MapSpec("percpu", "percpu_array", 4, 16, 1),
    MapSpec("AT_c", "percpu_hash", 8, 8, 16),
    MapSpec("AT_h", "hash", 8, 8, 16),
)
VIEWS = (
    ViewSpec("@c", "AT_c", U64, COUNT, True),
    ViewSpec("@h", "AT_h", U64, U64),
    ViewSpec("@n", "percpu", None, COUNT, True, 0),
    ViewSpec("@m", "percpu", None, COUNT, True, 8),
    ViewSpec("@x", "globals", None, U64, offset=0, set_offset=16),
    ViewSpec("@y", "globals", None, U64, offset=8, set_offset=17),
)
EVENTS = (
    EventSpec(PRINT, "print", 16, (LayoutField("0", 8, U64),)),
    EventSpec(CLEAR, "clear", 8, params=(("view", "@c"),)),
)


def u64(*numbers: int) -> bytes:
    return struct.pack(f"<{len(numbers)}Q", *numbers)


def program(name: str, *uses: str, sends: tuple[int, ...] = ()) -> ProgramSpec:
    """A program that uses maps: "@c add", "@x read write" …"""
    found = tuple(MapUse(text.split()[0], how) for text in uses for how in text.split()[1:])
    views = {use.view for use in found}
    names = dict.fromkeys(view.map for view in VIEWS if view.name in views)
    if sends:
        names.update({"events": None, "lost": None})
    return ProgramSpec(name, "kprobe", b"", tuple(Reloc(0, "map", each) for each in names), uses=found, events=sends)


def probe(program: str, kind: str, **more: str) -> ProbeSpec:
    return ProbeSpec(f"{kind}:{program}", kind, program, **more)


def spec_of(*pairs: tuple[ProgramSpec, ProbeSpec], stamped: bool = False) -> ObjectSpec:
    return ObjectSpec(
        tuple(dict.fromkeys(each for each, _ in pairs)),
        MAPS,
        tuple(each for _, each in pairs),
        EVENTS,
        VIEWS,
        ringbuf="events",
        lost="lost",
        stamped=stamped,
    )


def sides_of(*pairs: tuple[ProgramSpec, ProbeSpec]) -> dict[str, str]:
    spec = spec_of(*pairs)
    sides = divide(spec)
    return {each.program: sides.of(each) for each in spec.probes}


F = program("f", "@c add"), probe("f", "uprobe")
T = program("t", "@c add"), probe("t", "tracepoint", category="sched", event="sched_switch")


# Which side -------------------------------------------------------------------------------------------------------


def test_each_probe_is_where_it_happens() -> None:
    read = program("r"), probe("r", "tracepoint", category="syscalls", event="sys_enter_read")
    other = program("u"), probe("u", "usdt")
    sampled = program("s"), probe("s", "profile")
    begin = program("b"), probe("b", "begin")
    assert sides_of(F, T, read, other, sampled, begin) == {
        "f": USER, "t": KERNEL, "r": KERNEL, "u": USER, "s": KERNEL, "b": KERNEL,
    }  # fmt: skip


def test_what_may_be_anywhere_is_where_its_maps_are() -> None:
    f = program("f", "@x write"), probe("f", "uprobe")
    begin = program("b", "@x write", "@y write"), probe("b", "begin")
    read = program("r", "@y read"), probe("r", "tracepoint", category="syscalls", event="sys_enter_read")
    end = program("e", "@h read"), probe("e", "end")
    t = program("t", "@h write"), T[1]
    assert sides_of(f, begin, read, end, t) == {"f": USER, "b": USER, "r": USER, "e": KERNEL, "t": KERNEL}


def test_halves_have_what_is_theirs() -> None:
    f = program("f", "@c add", "@x write", sends=(PRINT,)), probe("f", "uprobe")
    t = program("t", "@c add", "@h write"), T[1]
    halves = divide(spec_of(f, t)).halves
    assert [each.name for each in halves[USER].maps] == ["events", "lost", "globals", "AT_c"]
    assert [each.name for each in halves[KERNEL].maps] == ["percpu", "AT_c", "AT_h"]  # one is nobody's
    assert [each.ident for each in halves[USER].events] == [PRINT] and not halves[KERNEL].events
    assert (halves[USER].ringbuf, halves[KERNEL].ringbuf) == ("events", "")
    assert [each.name for each in halves[USER].views] == ["@c", "@x"]


def test_a_program_with_probes_of_both_kinds_is_on_both_sides() -> None:
    both = program("p", "@c add")
    spec = spec_of((both, probe("p", "uprobe")), (both, probe("p", "kprobe")))
    sides = divide(spec)
    assert [sides.of(each) for each in spec.probes] == [USER, KERNEL]
    assert [half.programs for half in sides.halves.values()] == [(both,), (both,)]


@pytest.mark.parametrize(
    ("mine", "its", "words"),
    [
        ("@h write", "@h read", "@h is written in the process (uprobe:f) and read in the kernel (tracepoint:t)"),
        ("@h write", "@h write", "@h is written in the process (uprobe:f) and written in the kernel"),
        ("@c add", "@c add read", "@c is added to in the process (uprobe:f) and added to and read in the kernel"),
        ("@n add write", "@n add", "@n is added to and written in the process"),
    ],
)
def test_values_that_one_side_needs_of_the_other_are_named(mine: str, its: str, words: str) -> None:
    with pytest.raises(ProbeError) as failure:
        sides_of((program("f", mine), F[1]), (program("t", its), T[1]))
    assert words in failure.value.message


def test_programs_that_hold_two_sides_together() -> None:
    """An interval that needs the values of both can be on neither side."""
    f, t = (program("f", "@c add"), F[1]), (program("t", "@h write"), T[1])
    tick = program("i", "@c read", "@h read"), probe("i", "interval")
    with pytest.raises(ProbeError, match=r"@[ch] is .*interval:i"):
        sides_of(f, t, tick)


@pytest.mark.parametrize(
    "view",
    [
        ViewSpec("@c", "AT_c", U64, Layout("tseries", 24), True),
        ViewSpec("@c", "AT_c", U64, U64, True),
        ViewSpec("@c", "AT_h", U64, COUNT),
    ],
)
def test_only_what_is_put_together_from_copies_is_shared(view: ViewSpec) -> None:
    spec = spec_of(F, T)
    assert divide(spec)
    with pytest.raises(ProbeError, match="share no memory"):
        divide(replace(spec, views=(view, *VIEWS[1:])))


def test_values_without_keys_are_in_one_memory_where_they_must() -> None:
    """Both halves have the array, the kernel's as one that can be mapped; without need nothing is shared."""
    f, t = (program("f", "@x read write"), F[1]), (program("t", "@x read", "@y write"), T[1])
    begin = program("b", "@x write"), probe("b", "begin")
    sides = divide(spec_of(f, t, begin))
    assert sides.shared == {"globals"} and sides.of_program("b") == KERNEL
    flags = {each.name: each.flags for each in sides.halves[KERNEL].maps}
    assert flags["globals"] == 1 << 10 and not any(flags[name] for name in flags if name != "globals")
    assert not divide(spec_of(f, T, begin)).shared
    with pytest.raises(ProbeError, match="@h is read in the process"):
        divide(spec_of((program("f", "@x read", "@h read"), F[1]), (program("t", "@x write", "@h write"), T[1])))


def test_a_map_that_forgets_is_not_shared() -> None:
    spec = spec_of(F, T)
    maps = tuple(replace(each, type="lru_percpu_hash") if each.name == "AT_c" else each for each in MAPS)
    with pytest.raises(ProbeError, match="share no memory"):
        divide(replace(spec, maps=maps))


def test_a_script_of_one_side_is_not_mixed() -> None:
    begin = program("b"), probe("b", "begin")
    with pytest.raises(ProbeError, match="nothing happens in the kernel") as failure:
        sides_of(F, begin)
    assert failure.value.hint == "use --engine user"
    with pytest.raises(ProbeError, match="nothing happens in the process"):
        sides_of(T, begin)


# Maps and rings ---------------------------------------------------------------------------------------------------


def test_copies_of_both() -> None:
    spec = MapSpec("m", "percpu_hash", 8, 8, 16)
    one, other = FakeMap(spec, 2), FakeMap(spec, 3)
    both = Copies(one, other)
    one.update_each(u64(1), [u64(1), u64(2)])
    other.update_each(u64(1), [u64(3), u64(4), u64(5)])
    other.update(u64(2), u64(7))
    assert both.lookup(u64(1)) == [u64(n) for n in (1, 2, 3, 4, 5)]
    assert both.lookup(u64(3)) is None
    assert dict(both.items()) == {u64(1): [u64(n) for n in (1, 2, 3, 4, 5)], u64(2): [u64(7)] * 3}
    both.update_each(u64(1), [u64(n) for n in (9, 8, 7, 6, 5)])
    assert one.lookup(u64(1)) == [u64(9), u64(8)] and other.lookup(u64(1)) == [u64(7), u64(6), u64(5)]
    both.update(u64(2), u64(0))
    assert one.lookup(u64(2)) is None, "zero() makes no entries"
    assert both.delete(u64(1)) and not both.delete(u64(1))
    assert one.lookup(u64(1)) is other.lookup(u64(1)) is None


def test_bytes_of_one_in_those_of_the_other() -> None:
    spec = MapSpec("m", "array", 4, 24, 1)
    one, other = FakeMap(spec), FakeMap(spec)
    both = Overlay(one, other, [(8, 8)])
    one.update(bytes(4), u64(1, 2, 3))
    other.update(bytes(4), u64(4, 5, 6))
    assert both.lookup(bytes(4)) == [u64(1, 5, 3)]
    both.update(bytes(4), u64(7, 8, 9))
    assert both.lookup(bytes(4)) == one.lookup(bytes(4)) == other.lookup(bytes(4)) == [u64(7, 8, 9)]


def test_what_either_has() -> None:
    spec = MapSpec("stacks", "hash", 8, 8, 16)
    one, other = FakeMap(spec), FakeMap(spec)
    one.update(u64(1), u64(10))
    other.update(u64(2), u64(20))
    both = FirstFound(one, other)
    assert [both.lookup(u64(n)) for n in (1, 2, 3)] == [[u64(10)], [u64(20)], None]
    assert len(dict(both.items())) == 2


def record(stamp: int, number: int) -> bytes:
    return struct.pack("<IIQ", PRINT, stamp % (1 << 32), number)


def soon(number: int) -> int:
    """A stamp that is `number` behind the start of the test."""
    return _START + number


_START = time.monotonic_ns() // STAMP_NS


def drain(reader: MergedReader) -> list[int]:
    found: list[int] = []
    reader.drain(lambda buffer, start, size: found.append(int.from_bytes(buffer[start + 8 : start + 16], "little")))
    return found


@pytest.mark.parametrize("start", [1000, (1 << 32) - 15])
def test_records_of_two_rings_in_order_of_time(start: int) -> None:
    rings = FakeReader(), FakeReader()
    now = [start * STAMP_NS]
    reader = MergedReader(rings, lambda: now[0])
    for at in (1, 4, 20, 30):
        rings[0].feed(record(start + at, at))
    for at in (2, 6, 3, 21):
        rings[1].feed(record(start + at, at))
    now[0] = (start + 10) * STAMP_NS
    assert drain(reader) == [1, 2, 4, 6, 3], "each ring's order stands"
    assert reader.waiting_bytes == 16 * 3
    rings[1].feed(record(start + 22, 22))
    now[0] = (start + 25) * STAMP_NS
    assert drain(reader) == [20, 21, 22]
    now[0] = (start + 40) * STAMP_NS
    assert drain(reader) == [30] and not reader.waiting_bytes
    reader.close()
    reader.close()
    for ring in rings:
        ring.close()


# Sessions ---------------------------------------------------------------------------------------------------------


class Journal:
    """A printer that keeps rows and snapshots."""

    def __init__(self) -> None:
        self.rows: list[object] = []
        self.maps: dict[str, object] = {}

    def row(self, row: Row) -> None:
        self.rows.append(row.values[0])

    def snapshot(self, snapshot: Snapshot) -> None:
        self.maps[snapshot.view.name] = {entry.key: entry.value for entry in snapshot.entries}

    def attached(self, count: int) -> None: ...
    def lost(self, count: int) -> None:
        self.rows.append(("lost", count))

    def ending(self) -> None: ...
    def message(self, severity: str, text: str) -> None: ...
    def flush(self) -> None: ...
    def close(self) -> None: ...


Program = Callable[[FakeObject], object]


def run(
    spec: ObjectSpec, user: dict[str, Program], kernel: dict[str, Program]
) -> tuple[Journal, FakeObject, FakeObject]:
    inside, outside = FakeEngine(user, cpus=5), FakeEngine(kernel)
    journal = Journal()
    Session(MixedEngine(inside, outside), spec, journal, SessionOptions(signals=False)).run()
    return journal, inside.loaded[0], outside.loaded[0]


def add(name: str, key: bytes, number: int) -> Program:
    """Add on one CPU."""

    def body(loaded: FakeObject) -> None:
        values = loaded.maps[name].lookup(key) or [bytes(8)] * loaded.maps[name]._values
        values[-1] = u64(int.from_bytes(values[-1][:8], "little") + number) + values[-1][8:]
        loaded.maps[name].update_each(key, values)

    return body


END = program("e", sends=(PRINT,)), probe("e", "end")
BEGIN = program("b", sends=(PRINT,)), probe("b", "begin")


def finish(loaded: FakeObject) -> None:
    """The end of a session: what its last program does."""
    loaded.emit(3, u64(0))


EXIT = EventSpec(3, "exit", 16, (LayoutField("code", 8, U64),))


def with_exit(spec: ObjectSpec) -> ObjectSpec:
    programs = tuple(replace(each, events=(*each.events, 3)) for each in spec.programs)
    return replace(spec, events=(*spec.events, EXIT), programs=programs)


def test_a_session_adds_up_what_both_sides_count() -> None:
    f = program("f", "@c add", "@n add"), F[1]
    t = program("t", "@c add", "@m add", sends=(PRINT,)), T[1]

    def hit(loaded: FakeObject) -> None:
        add("AT_c", u64(1), 5)(loaded)
        add("AT_c", u64(2), 1)(loaded)
        add("percpu", bytes(4), 7)(loaded)

    def switch(loaded: FakeObject) -> None:
        add("AT_c", u64(1), 3)(loaded)
        loaded.maps["percpu"].update_each(bytes(4), [u64(0, 1), u64(0, 3)])
        finish(loaded)

    journal, inside, outside = run(with_exit(spec_of(f, t, BEGIN, END)), {"f": hit}, {"t": switch})
    assert journal.maps["@c"] == {1: 8, 2: 1}
    assert journal.maps["@n"] == {None: 7} and journal.maps["@m"] == {None: 4}
    assert inside.journal == [("attach", "uprobe:f"), ("close",)]
    assert outside.journal == [("run", "b"), ("attach", "tracepoint:t"), ("run", "e"), ("close",)]
    assert all(each.closed for each in (*inside.links, *outside.links, *inside.maps.values(), *outside.maps.values()))


def test_the_process_is_done_with_before_the_kernel_looks() -> None:
    order: list[str] = []
    spec = with_exit(
        spec_of((program("t", sends=(PRINT,)), T[1]), (program("f"), F[1]), (program("g"), probe("g", "uprobe")))
    )

    def last(loaded: FakeObject) -> None:
        order.append("t")
        finish(loaded)

    run(spec, {"f": lambda _: order.append("f"), "g": lambda _: order.append("g")}, {"t": last})
    assert order == ["f", "g", "t"]


def test_scalars_are_those_of_the_side_that_has_them() -> None:
    f = program("f", "@x write"), F[1]
    t = program("t", "@y write", sends=(PRINT,)), T[1]

    def write(loaded: FakeObject) -> None:
        loaded.maps["globals"].update(bytes(4), u64(11, 0, 1))

    def switch(loaded: FakeObject) -> None:
        loaded.maps["globals"].update(bytes(4), u64(0, 22, 1 << 8))
        finish(loaded)

    journal, _, _ = run(with_exit(spec_of(f, t)), {"f": write}, {"t": switch})
    assert journal.maps["@x"] == {None: 11} and journal.maps["@y"] == {None: 22}


def test_values_without_keys_cross_over() -> None:
    f, t = (program("f", "@x write"), F[1]), (program("t", "@x read", "@y write", sends=(PRINT,)), T[1])

    def write(loaded: FakeObject) -> None:
        loaded.maps["globals"].update(bytes(4), u64(11, 0, 1))

    def switch(loaded: FakeObject) -> None:
        (value,) = loaded.maps["globals"].lookup(bytes(4)) or []
        loaded.maps["globals"].update(bytes(4), value[:8] + u64(int.from_bytes(value[:8], "little") * 2, 0x101))
        finish(loaded)

    journal, _, _ = run(with_exit(spec_of(f, t)), {"f": write}, {"t": switch})
    assert journal.maps["@x"] == {None: 11} and journal.maps["@y"] == {None: 22}


def test_rows_and_controls_of_both_sides() -> None:
    f = program("f", "@c add", sends=(PRINT, CLEAR)), F[1]
    t = program("t", "@c add", sends=(PRINT,)), T[1]

    def hit(loaded: FakeObject) -> None:
        add("AT_c", u64(1), 5)(loaded)
        loaded.ring.feed(record(soon(2), 200))
        loaded.ring.feed(struct.pack("<II", CLEAR, soon(3) % (1 << 32)))
        loaded.ring.feed(record(soon(5), 500))

    def switch(loaded: FakeObject) -> None:
        add("AT_c", u64(1), 3)(loaded)
        loaded.ring.feed(record(soon(1), 100))
        loaded.ring.feed(record(soon(4), 400))
        loaded.ring.feed(struct.pack("<IIQ", 3, soon(6) % (1 << 32), 0))
        loaded.ring.feed(record(soon(7), 700))  # behind the exit

    journal, _, _ = run(with_exit(spec_of(f, t, stamped=True)), {"f": hit}, {"t": switch})
    assert journal.rows == [100, 200, 400, 500]
    assert journal.maps["@c"] == {}


def test_records_that_have_waited_for_minutes_are_not_of_the_future() -> None:
    ring, other = FakeReader(), FakeReader()
    reader = MergedReader((ring, other), lambda: (3 << 30) * STAMP_NS)
    ring.feed(record(5, 1))
    other.feed(record((3 << 30) + 5, 3))
    other.feed(record((3 << 30) - 5, 2))
    assert drain(reader) == [1] and reader.waiting_bytes == 32
    reader.close()
    for each in (ring, other):
        each.close()


def test_losses_of_both_sides_are_told() -> None:
    f = program("f", sends=(PRINT,)), F[1]
    t = program("t", sends=(PRINT,)), T[1]

    def lose(number: int) -> Program:
        return lambda loaded: loaded.maps["lost"].update(bytes(4), u64(number, 0))

    def switch(loaded: FakeObject) -> None:
        lose(3)(loaded)
        loaded.ring.feed(struct.pack("<IIQ", 3, soon(6) % (1 << 32), 0))

    journal, _, _ = run(with_exit(spec_of(f, t, stamped=True)), {"f": lose(4)}, {"t": switch})
    assert journal.rows == [("lost", 7)]


class Failing(FakeEngine):
    def load(self, spec: ObjectSpec) -> FakeObject:
        raise TargetError("the process is gone")


def test_nothing_is_left_of_one_half_when_the_other_fails() -> None:
    outside = FakeEngine()
    with pytest.raises(TargetError, match="gone"):
        MixedEngine(Failing(), outside).load(spec_of(F, T))
    assert outside.loaded[0].journal == [("close",)]

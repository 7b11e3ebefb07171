"""The course of a session on the fake engine: order, rows, controls, signals, losses, failures."""

from __future__ import annotations

import os
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable

import pytest

from sonde.errors import OutputError, TargetError
from sonde.record import replace
from sonde.runtime.child import Child
from sonde.runtime.fake import FakeEngine, FakeObject
from sonde.runtime.session import Session, SessionOptions, attach_groups
from sonde.spec.engine import LineFormat, Row, Snapshot
from sonde.spec.layout import Layout, LayoutField
from sonde.spec.object import EventSpec, FailureSpec, MapSpec, ObjectSpec, ProbeSpec, Settings, ViewSpec

U64 = Layout("int", 8)
PRINT, EXIT, PRINT_MAP, CLEAR, ENTRY, ZERO, UNWATCH = 1, 2, 3, 4, 5, 6, 7
EVENTS = (
    EventSpec(PRINT, "print", 16, (LayoutField("0", 8, U64),)),
    EventSpec(EXIT, "exit", 16, (LayoutField("code", 8, U64),)),
    EventSpec(PRINT_MAP, "print_map", 16, (LayoutField("top", 8, U64),), (("view", "@c"), ("div", 2))),
    EventSpec(CLEAR, "clear", 8, params=(("view", "@c"),)),
    EventSpec(ENTRY, "print_entry", 16, (LayoutField("0", 8, U64),), (("view", "@c"),)),
    EventSpec(ZERO, "zero", 8, params=(("view", "@c"),)),
    EventSpec(UNWATCH, "unwatch", 16, (LayoutField("address", 8, U64),)),
)
SPEC = ObjectSpec(
    (),
    (
        MapSpec("events", "ringbuf", 0, 0, 4096),
        MapSpec("lost", "percpu_array", 4, 16, 1),
        MapSpec("globals", "array", 4, 16, 1),
        MapSpec("AT_c", "percpu_hash", 8, 8, 16),
        MapSpec("AT_b", "hash", 8, 8, 16),
    ),
    events=EVENTS,
    views=(ViewSpec("@c", "AT_c", U64, Layout("count", 8), True), ViewSpec("@b", "AT_b", U64, U64)),
    ringbuf="events",
    lost="lost",
)
QUIET = SessionOptions(signals=False)
Program = Callable[[FakeObject], object]


class Journal:
    """A printer that writes down what it is told."""

    def __init__(self) -> None:
        self.calls: list[tuple[object, ...]] = []

    def attached(self, count: int) -> None:
        self.calls.append(("attached", count))

    def row(self, row: Row) -> None:
        self.calls.append((row.event.kind, *row.values))

    def snapshot(self, snapshot: Snapshot) -> None:
        values = tuple((entry.key, entry.value) for entry in snapshot.entries)
        self.calls.append(("snapshot", snapshot.view.name, values, snapshot.top, snapshot.div, snapshot.single))

    def lost(self, count: int) -> None:
        self.calls.append(("lost", count))

    def ending(self) -> None:
        self.calls.append(("ending",))

    def message(self, severity: str, text: str) -> None:
        self.calls.append(("message", severity))

    def flush(self) -> None:
        self.calls.append(("flush",))

    def close(self) -> None:
        self.calls.append(("close",))

    def of(self, *kinds: str) -> list[tuple[object, ...]]:
        """The calls of some kinds, in order."""
        return [call for call in self.calls if call[0] in kinds]


def u64(*numbers: int) -> bytes:
    return struct.pack(f"<{len(numbers)}Q", *numbers)


def probe(name: str, kind: str = "") -> ProbeSpec:
    return ProbeSpec(name, kind or name, name)


def session(
    programs: dict[str, Program],
    *probes: ProbeSpec,
    spec: ObjectSpec = SPEC,
    options: SessionOptions = QUIET,
    printer: Journal | None = None,
    child: Child | None = None,
) -> tuple[Session, Journal, FakeEngine]:
    engine, journal = FakeEngine(programs), printer or Journal()
    return Session(engine, replace(spec, probes=probes), journal, options, child=child), journal, engine


def run(programs: dict[str, Program], *probes: ProbeSpec, spec: ObjectSpec = SPEC) -> tuple[int, Journal]:
    made, journal, _ = session(programs, *probes, spec=spec)
    return made.run(), journal


def test_begin_and_end_only_leaves_by_itself() -> None:
    code, journal = run(
        {"begin": lambda o: o.emit(PRINT, u64(1)), "end": lambda o: o.emit(PRINT, u64(2))}, probe("begin"), probe("end")
    )
    assert code == 0
    assert journal.of("attached", "print", "ending") == [("attached", 2), ("print", 1), ("print", 2), ("ending",)]


def test_maps_are_printed_by_name_at_the_end() -> None:
    def begin(o: FakeObject) -> None:
        o.maps["AT_c"].update(u64(7), u64(2))
        o.maps["AT_b"].update(u64(1), u64(9))

    _, journal = run({"begin": begin}, probe("begin"))
    assert journal.of("ending", "snapshot") == [
        ("ending",),
        ("snapshot", "@b", ((1, 9),), 0, 0, False),
        ("snapshot", "@c", ((7, 4),), 0, 0, False),
    ]


def test_maps_are_not_printed_when_the_script_says_so() -> None:
    spec = replace(SPEC, settings=Settings(print_maps_on_exit=False), probes=(probe("begin"),))
    journal = Journal()
    Session(FakeEngine(), spec, journal).run()
    assert journal.of("snapshot") == []


def test_exit_drops_the_rest_of_its_batch_but_not_the_end_probe() -> None:
    def begin(o: FakeObject) -> None:
        o.emit(PRINT, u64(1))
        o.emit(EXIT, u64(300))
        o.emit(PRINT, u64(2))

    code, journal = run({"begin": begin, "end": lambda o: o.emit(PRINT, u64(3))}, probe("begin"), probe("end"))
    assert code == 300 & 0xFF
    assert journal.of("print") == [("print", 1), ("print", 3)]


def test_exit_that_comes_again_while_detaching_drops_nothing_of_the_end_probe() -> None:
    """A timer goes on until it is detached: what it says after the exit() that counts is not heard."""

    def detach(o: FakeObject) -> None:
        o.emit(PRINT, u64(2))
        o.emit(EXIT, u64(5))

    programs: dict[str, Program] = {
        "timer": lambda o: o.emit(EXIT, u64(4)),
        "detach": detach,
        "end": lambda o: o.emit(PRINT, u64(3)),
    }
    code, journal = run(programs, probe("timer", "interval"), probe("end"))
    assert code == 4
    assert journal.of("print") == [("print", 3)]


def test_late_exit_before_the_record_of_an_end_probe() -> None:
    """A program that was running on another CPU when it was detached may even say exit() just before the end probe."""

    def end(o: FakeObject) -> None:
        o.emit(EXIT, u64(0))
        o.emit(PRINT, u64(3))

    _, journal = run({"end": end}, probe("begin"), probe("end"))
    assert journal.of("print") == [("print", 3)]


def test_exit_in_an_end_probe_drops_what_those_behind_it_print() -> None:
    programs: dict[str, Program] = {
        "end": lambda o: o.emit(EXIT, u64(6)),
        "last": lambda o: o.emit(PRINT, u64(3)),
    }
    code, journal = run(programs, probe("begin"), probe("end"), probe("last", "end"))
    assert code == 6
    assert journal.of("print") == []


def test_rows_behind_a_record_that_is_not_finished_yet_are_waited_for() -> None:
    def end(o: FakeObject) -> None:
        o.ring.begin(drains=3)
        o.emit(PRINT, u64(3))

    _, journal = run({"end": end}, probe("begin"), probe("end"))
    assert journal.of("print") == [("print", 3)]


def test_a_record_that_is_never_finished_does_not_hold_up_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sonde.runtime.session.UNFINISHED_S", 0.01)
    _, journal = run({"end": lambda o: o.ring.begin(drains=1 << 30)}, probe("begin"), probe("end"))
    assert journal.of("ending") == [("ending",)]


def test_exit_drops_what_arrives_while_its_batch_is_handled() -> None:
    """A row that takes its time (system() does) lets more records arrive behind the one of exit()."""

    class Slow(Journal):
        def row(self, row: Row) -> None:
            super().row(row)
            if row.values == (1,):
                engine.loaded[0].emit(PRINT, u64(2))

    def begin(o: FakeObject) -> None:
        o.emit(PRINT, u64(1))
        o.emit(EXIT, u64(0))

    programs: dict[str, Program] = {"begin": begin, "end": lambda o: o.emit(PRINT, u64(3))}
    made, journal, engine = session(programs, probe("begin"), probe("end"), printer=Slow())
    made.run()
    assert journal.of("print") == [("print", 1), ("print", 3)]


def test_order_of_begin_attach_end_and_release() -> None:
    made, _, engine = session(
        {"t": lambda o: o.emit(EXIT, u64(0))},
        probe("begin"),
        probe("t", "tracepoint"),
        probe("end"),
        probe("u", "uprobe"),
    )
    made.run()
    (loaded,) = engine.loaded
    assert loaded.journal == [("run", "begin"), ("attach", "t"), ("attach", "u"), ("run", "end"), ("close",)]
    assert all(link.closed for link in loaded.links)


def test_controls() -> None:
    def begin(o: FakeObject) -> None:
        o.maps["AT_c"].update(u64(7), u64(5))
        for record in ((PRINT_MAP, u64(3)), (ENTRY, u64(7)), (ENTRY, u64(8)), (ZERO,), (ENTRY, u64(7)), (CLEAR,)):
            o.emit(*record)
        o.emit(PRINT_MAP, u64(0))

    _, journal = run({"begin": begin}, probe("begin"))
    before_end = journal.calls[: journal.calls.index(("ending",))]
    assert [call[1:] for call in before_end if call[0] == "snapshot"] == [
        ("@c", ((7, 10),), 3, 2, False),
        ("@c", ((7, 10),), 0, 0, True),
        ("@c", ((8, 0),), 0, 0, True),
        ("@c", ((7, 0),), 0, 0, True),
        ("@c", (), 0, 2, False),
    ]


def test_unwatch_takes_away_the_watchpoints_of_an_address() -> None:
    watchpoints = [replace(probe(name, "watchpoint"), address=at) for name, at in (("a", 16), ("b", 24), ("c", 16))]
    closed: list[bool] = []

    def begin(o: FakeObject) -> None:
        o.emit(UNWATCH, u64(16))
        o.emit(UNWATCH, u64(99))  # nobody watches there
        o.emit(UNWATCH, u64(16))
        o.emit(EXIT, u64(0))

    class Noting(Journal):
        def flush(self) -> None:
            closed[:] = closed or [link.closed for link in engine.loaded[0].links]

    made, _, engine = session({"begin": begin}, probe("begin"), *watchpoints, printer=Noting())
    made.run()
    assert closed == [True, False, True]


def test_losses_are_told_as_they_grow() -> None:
    def begin(o: FakeObject) -> None:
        o.maps["lost"].update_each(bytes(4), [u64(3, 0), u64(4, 0)])

    def end(o: FakeObject) -> None:
        o.maps["lost"].update_each(bytes(4), [u64(3, 0), u64(9, 0)])

    _, journal = run({"begin": begin, "end": end}, probe("begin"), probe("end"))
    assert sum(call[1] for call in journal.of("lost")) == 12  # type: ignore[misc]


def test_counted_failures_become_a_row() -> None:
    failures = (FailureSpec(8, "map_update_elem", "@c"),)

    def begin(o: FakeObject) -> None:
        o.maps["lost"].update_each(bytes(4), [struct.pack("<Qq", 0, -14), struct.pack("<Qq", 0, -7)])

    _, journal = run({"begin": begin}, probe("begin"), spec=replace(SPEC, failures=failures))
    assert journal.of("helper_error") == [("helper_error", -7)]


def test_short_and_unknown_records_are_counted_not_fatal() -> None:
    def begin(o: FakeObject) -> None:
        o.emit(PRINT, b"short")
        o.emit(99, u64(1))
        o.ring.feed(b"\1")
        o.emit(PRINT, u64(5))

    made, journal, _ = session({"begin": begin}, probe("begin"))
    made.run()
    assert made.garbled == 3
    assert journal.of("print", "message") == [("message", "WARNING"), ("print", 5)]


def test_more_than_256_events() -> None:
    many = tuple(EventSpec(i, "print", 16, (LayoutField("0", 8, U64),)) for i in range(1, 600))
    _, journal = run({"begin": lambda o: o.emit(513, u64(5))}, probe("begin"), spec=replace(SPEC, events=many))
    assert journal.of("print") == [("print", 5)]


def test_printers_that_format_in_one_step() -> None:
    out: list[bytes] = []

    class Fast(Journal):
        def line_format(self, event: EventSpec) -> LineFormat | None:
            return LineFormat(b"<%d>", ("Q",), out.append) if event.kind == "print" else None

    made, _, _ = session({"begin": lambda o: o.emit(PRINT, u64(5))}, probe("begin"), printer=Fast())
    made.run()
    assert out == [b"<5>"]


def test_start_time_is_written_before_anything_runs() -> None:
    seen: list[int] = []

    def begin(o: FakeObject) -> None:
        value = o.maps["globals"].lookup(bytes(4))
        assert value is not None
        seen.append(struct.unpack_from("<Q", value[0], 8)[0])

    before = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    run({"begin": begin}, probe("begin"), spec=replace(SPEC, settings=Settings(start_offset=8)))
    assert before <= seen[0] <= time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def test_iterators_run_once_and_the_session_ends() -> None:
    made, journal, engine = session({"it": lambda o: o.emit(PRINT, u64(5))}, probe("it", "iter"))
    made.run()
    assert ("iterate", "it") in engine.loaded[0].journal
    assert journal.of("print") == [("print", 5)]


def test_failing_output_detaches_everything() -> None:
    class Full(Journal):
        def row(self, row: Row) -> None:
            raise OutputError("the disk is full")

    made, _, engine = session({"t": lambda o: o.emit(PRINT, u64(1))}, probe("t", "tracepoint"), printer=Full())
    with pytest.raises(OutputError):
        made.run()
    assert engine.loaded[0].journal[-1] == ("close",)
    assert all(link.closed for link in engine.loaded[0].links)


def test_failing_attach_releases_what_is_there() -> None:
    class Refusing(FakeEngine):
        def load(self, spec: ObjectSpec) -> FakeObject:
            loaded = super().load(spec)
            original = loaded.attach

            def attach(probes):  # type: ignore[no-untyped-def]
                if probes[0].name == "bad":
                    raise TargetError("no")
                return original(probes)

            loaded.attach = attach  # type: ignore[method-assign]
            return loaded

    engine = Refusing()
    spec = replace(SPEC, probes=(probe("good", "uprobe"), probe("bad", "tracepoint")))
    with pytest.raises(TargetError):
        Session(engine, spec, Journal(), QUIET).run()
    assert engine.loaded[0].links[0].closed
    assert engine.loaded[0].journal[-1] == ("close",)


def test_dry_run_attaches_and_leaves() -> None:
    made, journal, engine = session({}, probe("t", "tracepoint"), options=SessionOptions(signals=False, dry_run=True))
    assert made.run() == 0
    assert engine.loaded[0].journal == [("attach", "t"), ("close",)]
    assert journal.of("ending") == []


def test_verbose_says_how_each_probe_was_attached() -> None:
    made, journal, _ = session(
        {}, probe("t", "tracepoint"), options=SessionOptions(signals=False, dry_run=True, verbose=True)
    )
    made.run()
    assert journal.of("message") == [("message", "INFO")]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_end_in_order_and_handlers_are_put_back(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    made, journal, _ = session(
        {"t": lambda o: os.kill(os.getpid(), number), "end": lambda o: o.emit(PRINT, u64(3))},
        probe("t", "tracepoint"),
        probe("end"),
        options=SessionOptions(),
    )
    assert made.run() == 0
    assert journal.of("print", "ending") == [("print", 3), ("ending",)]
    assert signal.getsignal(number) == before


def test_sigusr1_runs_self_probes() -> None:
    made, journal, _ = session(
        {
            "t": lambda o: os.kill(os.getpid(), signal.SIGUSR1),
            "s": lambda o: (o.emit(PRINT, u64(8)), o.emit(EXIT, u64(0))),
        },
        probe("t", "tracepoint"),
        probe("s", "self"),
        options=SessionOptions(),
    )
    made.run()
    assert journal.of("print") == [("print", 8)]


def test_stop_from_another_thread_side() -> None:
    """A session outside the main thread catches no signals, and ends when its rows say so."""
    made, journal, engine = session({}, probe("t", "tracepoint"), options=SessionOptions())
    thread = threading.Thread(target=made.run)
    thread.start()
    deadline = time.monotonic() + 10
    while ("attached", 1) not in journal.calls and time.monotonic() < deadline:
        time.sleep(0.001)
    engine.loaded[0].emit(EXIT, u64(0))
    thread.join(10)
    assert not thread.is_alive()


def test_end_of_the_child_ends_the_session() -> None:
    child = Child("true")
    made, journal, _ = session({}, probe("t", "tracepoint"), child=child)
    assert made.run() == 0
    assert journal.of("attached", "ending") == [("attached", 1), ("ending",)]
    with pytest.raises(ProcessLookupError):
        os.kill(child.pid, 0)


def test_child_starts_after_attaching_and_dies_with_the_session() -> None:
    child = Child("sleep 100")
    comm_at_attach: list[str] = []

    def hit(o: FakeObject) -> None:
        with open(f"/proc/{child.pid}/comm") as file:
            comm_at_attach.append(file.read().strip())
        o.emit(EXIT, u64(0))

    made, _, _ = session({"t": hit}, probe("t", "tracepoint"), child=child)
    made.run()
    assert comm_at_attach != ["sleep"]
    with pytest.raises(ProcessLookupError):
        os.kill(child.pid, 0)


def test_end_of_the_traced_process_ends_the_session() -> None:
    traced = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    assert traced.stdin is not None
    made, _, _ = session(
        {"t": lambda o: traced.communicate(b"\n")},
        probe("t", "tracepoint"),
        options=SessionOptions(signals=False, pid=traced.pid),
    )
    assert made.run() == 0


def test_traced_process_that_is_not_there() -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    made, _, engine = session({}, probe("begin"), options=SessionOptions(signals=False, pid=gone.pid))
    with pytest.raises(TargetError, match=str(gone.pid)):
        made.run()
    assert engine.loaded[0].journal == [("close",)]


def test_groups_keep_the_order_and_join_neighbours_of_one_program() -> None:
    a1, a2, b = (ProbeSpec(n, "kprobe", p) for n, p in (("a1", "A"), ("a2", "A"), ("b", "B")))
    a3 = ProbeSpec("a3", "tracepoint", "A")
    assert attach_groups((a1, a2, probe("begin"), b, a3)) == [[a1, a2], [b], [a3]]

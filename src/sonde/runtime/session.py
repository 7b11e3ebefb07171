"""A session: an object is loaded, its probes attached, its records turned into rows, and all of it taken out again.

Nothing here waits longer than it must: one epoll holds the ring buffer, the signals, the child and the traced process.
"""

from __future__ import annotations

import os
import select
import time

from ..errors import FormatError, SondeError, TargetError
from ..record import Record
from ..spec.engine import Row, Snapshot
from ..spec.object import EventSpec, layout_kinds
from .clocks import Clocks
from .decode import Surroundings, event_decoder, line_writer, run_writer

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as _signal
    from collections.abc import Callable, Sequence
    from typing import Any

    from ..spec.engine import Engine, Link, LoadedObject, Printer, Reader, Symbolizer, Worker
    from ..spec.object import FailureSpec, ObjectSpec, ProbeSpec
    from .child import Command
    from .snapshot import View
    from .symbols import ProcessWatch

    Handler = Callable[[memoryview, int, int], object]
else:
    import _signal  # `signal` imports enum, which costs 2 ms of start-up

# Probes that the session runs itself, in place of attaching them.
RUN_BY_HAND = ("begin", "end", "self")
ENDS_BY_ITSELF = ("begin", "end", "iter")  # a program with no other probes has nothing to wait for
LOSS_CHECK_S = 0.1  # after records came
FAILURE_CHECK_S = 1.0
NAP_S = 0.001  # after records were printed: while we are behind, the kernel need not wake us for each
UNFINISHED_S = 0.5  # how long to wait at the end for records that a program on another CPU has begun
FIRST = bytes(4)  # the key of the only entry of an array


def _count_lost(losses: Sequence[bytes]) -> int:
    """How many records of programs found no room."""
    return sum(int.from_bytes(value[:8], "little") for value in losses)


class SessionOptions(Record):
    """How to run. `pid`: end with this process. `print_maps`: show the maps at the end. `trailer`: of cut strings."""

    pid: int = 0
    print_maps: bool = True
    dry_run: bool = False
    signals: bool = True  # handle SIGINT, SIGTERM, SIGUSR1; False: the caller does (stop(), and other threads)
    strict: bool = False  # a failed helper call ends the session
    verbose: bool = False  # say how each probe was attached


class Session:
    """One run of one object. `run` may be called once; everything is released when it returns or raises."""

    def __init__(
        self,
        engine: Engine,
        spec: ObjectSpec,
        printer: Printer,
        options: SessionOptions | None = None,
        *,
        child: Command | None = None,
        symbolizer: Symbolizer | None = None,
    ) -> None:
        self.spec = spec
        self.printer = printer
        self.options = options or SessionOptions(print_maps=spec.settings.print_maps_on_exit)
        self.links: list[Link] = []
        self.exit_code = 0
        self.garbled = 0  # records that could not be decoded
        self._engine = engine
        self._child = child
        self._symbolizer = symbolizer
        self._watch: ProcessWatch | None = None
        self._watchpoints: dict[int, list[Link]] = {}  # by address: what unwatch() takes away
        self._recorder: Any = None  # of mappings; see Engine.record_mappings
        self._worker: Worker | None = None
        self._notes_told = 0
        self._views: dict[str, View] = {}
        self._stopping = False
        self._lost_seen = 0
        self._lost_at_exit = -1  # what programs had lost when the first exit() was called; -1: none was
        self._lost_behind = 0  # what they have lost since then, until they were detached: it would not have been shown
        self._failures_seen: dict[int, int] = {}  # offset in the map `lost` -> sum of codes
        self._begun = self._unfinished = 0  # records, see _find_unfinished
        self._loss_check_at = 0.0
        self._signals_seen = 0
        self._wakeup: tuple[int, int] | None = None
        self._old_handlers: list[tuple[int, Any]] = []
        self._pidfd = -1
        self._handlers: list[Handler] = []
        self._runs: dict[int, Callable[[memoryview, int], bool]] = {}  # size of records -> handler of many at once
        self._set_aside: list[Handler] = []  # the handlers while records behind an exit() are dropped
        self._exits = 0  # calls of exit() seen
        self._ending = False  # the end probes run: what comes is theirs

    # The course of a session ------------------------------------------------------------------------------------

    def run(self) -> int:
        """Load, attach, print rows until the end; return the exit code of the script. Raises SondeError."""
        self._loaded: LoadedObject = self._engine.load(self.spec)
        self._inputs: list[tuple[Reader, Handler]] = []  # all readers, with what takes their records
        self._poll = select.epoll()
        try:
            self._prepare()
            self._start()
            if not self.options.dry_run:
                self._loop()
                self._finish()
        except BaseException:
            self._release()  # what went wrong first is what is told
            raise
        failures = self._release()
        if failures:
            raise failures[0]
        return self.exit_code

    def stop(self) -> None:
        """End the session soon, from a signal handler or a row's handler: end probes run, maps are printed."""
        self._stopping = True

    def _prepare(self) -> None:
        """Open the reader, make the handlers, catch the signals."""
        loaded, spec = self._loaded, self.spec
        self._around = Surroundings(spec.strings, clocks=Clocks())
        kinds = layout_kinds(spec)
        if kinds & SYMBOLIC:
            self._prepare_symbols(kinds)
        if spec.views:
            from .snapshot import View

            for view in spec.views:
                self._views[view.name] = View(view, loaded.maps[view.map], self._around)
        self._make_handlers()
        self._set_start_time()
        if spec.ringbuf:
            self._inputs.append((loaded.reader(), self._dispatch))
        if spec.streams:
            self._open_streams()
        for reader, _ in self._inputs:
            self._poll.register(reader.fileno(), select.EPOLLIN)
        self._worker = getattr(loaded, "worker", None)
        if self._worker is not None:
            self._poll.register(self._worker.fileno(), select.EPOLLIN)
        if self.options.signals:
            self._catch_signals()
        if self._child is not None:
            self._poll.register(self._child.fileno(), select.EPOLLIN)
        if self.options.pid:
            self._pidfd = _open_process(self.options.pid)
            if self._watch is not None:
                self._watch.start(self.options.pid)
            self._poll.register(self._pidfd, select.EPOLLIN)

    def _open_streams(self) -> None:
        """Open the buffers whose records are the program's own."""
        from .streams import Stream

        types = {each.name: each.type for each in self.spec.maps}
        for spec in self.spec.streams:
            stream = Stream(spec, types[spec.map] == "perf_event_array", self._around, self.printer)
            self._inputs.append((self._loaded.reader(spec.map), self._guarded(stream.handle)))

    def _prepare_symbols(self, kinds: frozenset[str]) -> None:
        """Make what names addresses: most programs show none, and then none of it is imported."""
        from .stacks import StackSource
        from .symbols import LiveSymbolizer, ProcessWatch

        user = kinds & {"ustack", "usym"}
        cache = self.spec.settings.cache_user_symbols
        if user and not self.options.pid and cache != "NONE":
            self._record_mappings()
        recorded = self._recorder.find if self._recorder is not None else None
        symbolizer = self._symbolizer or LiveSymbolizer(
            demangle=self.spec.settings.cpp_demangle, recorded=recorded, cache=cache
        )
        self._around.symbolizer = symbolizer
        self._around.stacks = StackSource(self._loaded.maps, symbolizer)
        remember = getattr(symbolizer, "remember", None)
        if user and remember is not None and cache != "NONE":
            self._watch = ProcessWatch(remember)

    def _record_mappings(self) -> None:
        """Have the engine tell what processes map: most that are traced end before their addresses are printed."""
        record = getattr(self._engine, "record_mappings", None)
        if record is None:
            return
        try:
            self._recorder = record()
        except SondeError as failure:  # then processes that have ended have no names
            if self.options.verbose:
                self.printer.message("INFO", f"mappings are not recorded: {failure.message}")
            return
        self._poll.register(self._recorder.fileno(), select.EPOLLIN)

    def _set_start_time(self) -> None:
        """Write the time at which the session starts to where programs look for it (`elapsed`)."""
        offset = self.spec.settings.start_offset
        if offset >= 0:
            variables = self._loaded.maps["globals"]
            data = bytearray((variables.lookup(FIRST) or [b""])[0])
            data[offset : offset + 8] = time.clock_gettime_ns(time.CLOCK_BOOTTIME).to_bytes(8, "little")
            variables.update(FIRST, bytes(data))

    def _start(self) -> None:
        """Run the begin probes, attach the others, let the child go, run the iterators."""
        probes = self.spec.probes
        for probe in probes:
            if probe.type == "begin":
                self._loaded.run(probe.program)
        iterators: list[Link] = []
        for group in attach_groups(probes):
            if self._stopping:
                break
            links = self._loaded.attach(group)
            self.links += links
            if self.options.verbose:
                self._tell_how(group, links)
            if group[0].type == "watchpoint":
                for probe, link in zip(group, links):
                    self._watchpoints.setdefault(probe.address, []).append(link)
            if group[0].type == "iter":
                iterators += [link for link, probe in zip(links, group) if not probe.pin]
        self._tell_notes()
        if self.options.dry_run:
            return
        # A USDT probe that stands at several places in a file is one probe for the user.
        self.printer.attached(len({(probe.name, probe.program) for probe in probes if not probe.own}))
        if self._child is not None:
            if self._watch is not None and self._worker is not None:
                self._worker.mapped = self._watch.look
            self._child.release()
            if self._watch is not None:
                self._watch.start(self._child.pid)
        for link in iterators:
            for _ in self._loaded.iterate(link):
                self._drain()
        if all(probe.type in ENDS_BY_ITSELF for probe in probes):
            self._stopping = True

    def _tell_notes(self) -> None:
        """Tell what the engine has noted since the last time."""
        notes = getattr(self._loaded, "notes", ())
        for note in notes[self._notes_told :]:
            self.printer.message("WARNING", note)
        self._notes_told = len(notes)

    def _show_rows(self) -> None:
        """Show what the engine itself has to tell, as data."""
        rows = getattr(self._loaded, "rows", ())
        while rows:
            self.printer.row(rows.pop(0))

    def _tell_how(self, group: Sequence[ProbeSpec], links: Sequence[Link]) -> None:
        names = ", ".join(probe.name for probe in group[:3]) + (", …" if len(group) > 3 else "")
        for how in dict.fromkeys(link.how for link in links):
            self.printer.message("INFO", f"attached {names}: {how}")

    def _loop(self) -> None:
        """Print rows until something ends the session."""
        self._drain()
        self._check_failures_later()
        poll = self._poll.poll
        readers = {reader.fileno() for reader, _ in self._inputs}
        while not self._stopping:
            for fd, _ in poll(self._timeout_s()):
                if fd in readers:
                    self._drain()
                    if not self._stopping:
                        time.sleep(NAP_S)
                elif self._wakeup is not None and fd == self._wakeup[0]:
                    self._handle_signals()
                elif self._recorder is not None and fd == self._recorder.fileno():
                    self._recorder.drain()
                elif self._worker is not None and fd == self._worker.fileno():
                    self._worker.work()
                    self._tell_notes()
                    self._show_rows()
                else:  # the child or the traced process has ended
                    self._stopping = True
            if self._loss_check_at and time.monotonic() >= self._loss_check_at:
                self._report_loss()
                self._check_failures_later()
            if self._watch is not None and self._watch.due:
                self._watch.look()

    def _check_failures_later(self) -> None:
        """Failures that are only counted send no record that would make us look."""
        if self.spec.failures:
            self._loss_check_at = time.monotonic() + FAILURE_CHECK_S

    def _timeout_s(self) -> float:
        """Return how long poll may wait: until the next thing to be looked after, -1 for ever."""
        watch_at = self._watch.next_at if self._watch is not None else 0.0
        due = [at for at in (self._loss_check_at, watch_at) if at]
        return max(min(due) - time.monotonic(), 0.0) if due else -1

    def _finish(self) -> None:
        """Detach, run the end probes, print what is left and the maps."""
        self._drain()
        self._loaded.detach()
        self._drain_rest()
        if self._lost_at_exit >= 0:
            self._lost_behind = max(_count_lost(self._losses()) - self._lost_at_exit, 0)
        self._run_end_probes()
        self._report_loss()
        self._show_rows()
        self.printer.ending()
        if self.options.print_maps:
            for view in sorted(self.spec.views, key=lambda view: view.name):
                if view.declared:
                    self.printer.snapshot(self._views[view.name].snapshot())
        self.printer.flush()

    def _run_end_probes(self) -> None:
        """Run the end probes and show what they print; nothing more of those behind one that calls exit()."""
        self._ending = True
        self._heed_records()
        for probe in self.spec.probes:
            if probe.type == "end":
                exits = self._exits
                self._loaded.run(probe.program)
                self._drain_rest()
                if self._exits > exits:
                    self._ignore_records()

    def _detach(self) -> None:
        """Stop the programs together (the kernel takes 40 ms for each alone), then let go of the links."""
        if self.links:
            self._loaded.detach()
        while self.links:
            self.links.pop().close()

    def _release(self) -> list[Exception]:
        """Take everything out again, whatever happened; return what could not be."""
        steps: list[Callable[[], None]] = [self._detach]
        steps += [reader.close for reader, _ in self._inputs]
        if self._recorder is not None:
            steps.append(self._recorder.close)
        steps.append(self._loaded.close)
        if self._child is not None:
            steps.append(self._child.close)
        steps += [self._poll.close, self._restore_signals, self._close_process]
        failures: list[Exception] = []
        for step in steps:
            try:
                step()
            except (SondeError, OSError) as failure:
                failures.append(failure)
        return failures

    def _close_process(self) -> None:
        if self._pidfd >= 0:
            os.close(self._pidfd)
            self._pidfd = -1

    # Signals ----------------------------------------------------------------------------------------------------

    def _catch_signals(self) -> None:
        """SIGINT and SIGTERM end the session in order, once; SIGUSR1 runs the self probes."""
        self._wakeup = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        wanted = [_signal.SIGINT, _signal.SIGTERM]
        if any(probe.type == "self" for probe in self.spec.probes):
            wanted.append(_signal.SIGUSR1)
        try:
            for number in wanted:
                self._old_handlers.append((number, _signal.signal(number, self._on_signal)))
        except ValueError:  # not the main thread: whoever runs it there has stop()
            return
        self._poll.register(self._wakeup[0], select.EPOLLIN)

    def _on_signal(self, number: int, frame: object) -> None:
        if number == _signal.SIGUSR1:
            self._signals_seen += 1
        else:
            self._stopping = True
            _signal.signal(number, _signal.SIG_DFL)  # the second one does what it always does
        assert self._wakeup is not None
        try:
            os.write(self._wakeup[1], b"s")
        except OSError:
            pass  # the pipe is full: then the loop wakes up anyway

    def _handle_signals(self) -> None:
        assert self._wakeup is not None
        os.read(self._wakeup[0], 4096)
        while self._signals_seen:
            self._signals_seen -= 1
            for probe in self.spec.probes:
                if probe.type == "self":
                    self._loaded.run(probe.program)

    def _restore_signals(self) -> None:
        for number, handler in self._old_handlers:
            _signal.signal(number, handler)
        self._old_handlers.clear()
        if self._wakeup is not None:
            for fd in self._wakeup:
                os.close(fd)
            self._wakeup = None

    # Records ----------------------------------------------------------------------------------------------------

    def _make_handlers(self) -> None:
        """Fill the table from event id to handler; each handler is generated when its first record arrives."""
        count = max((event.ident for event in self.spec.events), default=0) + 1
        self._handlers += [self._unknown] * max(count, 256)
        for event in self.spec.events:
            self._handlers[event.ident] = self._first_record(event)
        handlers = self._handlers
        if count <= 256:  # the first byte of the little-endian id says it all

            def dispatch(buffer: memoryview, start: int, size: int) -> None:
                try:
                    handlers[buffer[start]](buffer, start, size)
                except (FormatError, IndexError) as failure:
                    self._count_garbled(failure)
        else:

            def dispatch(buffer: memoryview, start: int, size: int) -> None:
                try:
                    handlers[int.from_bytes(buffer[start : start + 4], "little")](buffer, start, size)
                except (FormatError, IndexError) as failure:
                    self._count_garbled(failure)

        self._dispatch = dispatch

    def _guarded(self, handle: Handler) -> Handler:
        """A handler that counts what cannot be decoded."""

        def dispatch(buffer: memoryview, start: int, size: int) -> None:
            try:
                handle(buffer, start, size)
            except (FormatError, IndexError) as failure:
                self._count_garbled(failure)

        return dispatch

    def _first_record(self, event: EventSpec) -> Handler:
        def handle(buffer: memoryview, start: int, size: int) -> object:
            handler = self._make_handler(event)
            self._handlers[event.ident] = handler
            return handler(buffer, start, size)

        return handle

    def _make_handler(self, event: EventSpec) -> Handler:
        control = _CONTROLS.get(event.kind)
        if control is None:
            line_format = getattr(self.printer, "line_format", None)
            line = line_format(event) if line_format is not None else None
            if line is not None:
                run = run_writer(event, line)
                if run is not None:
                    self._runs.setdefault(event.size, run)
                return line_writer(event, line)
        decode = event_decoder(event, self._around)
        if control is not None:
            return lambda buffer, start, size: control(self, event, decode(buffer, start, size), buffer, start)
        write = self.printer.row
        return lambda buffer, start, size: write(Row(event, decode(buffer, start, size)))

    def _unknown(self, buffer: memoryview, start: int, size: int) -> None:
        raise FormatError(f"a record of {size} bytes has an id that no event has")

    def _ignore(self, buffer: memoryview, start: int, size: int) -> None:
        """Takes the place of all handlers after exit()."""

    def _ignore_records(self) -> None:
        """Drop all records from here on."""
        if not self._set_aside:
            self._set_aside = self._handlers[:]
            self._handlers[:] = [self._ignore] * len(self._handlers)
            self._runs.clear()

    def _heed_records(self) -> None:
        """Undo `_ignore_records`."""
        if self._set_aside:
            self._handlers[:] = self._set_aside
            self._set_aside = []

    def _count_garbled(self, failure: Exception) -> None:
        self.garbled += 1
        if self.garbled == 1:
            self.printer.message("WARNING", f"a record could not be decoded: {failure}")

    def _drain(self) -> None:
        """Handle all waiting records, then let the output see them."""
        count = 0
        for reader, dispatch in self._inputs:
            count += reader.drain(dispatch, self._runs if dispatch is self._dispatch else {})
        if count:
            self.printer.flush()
            if not self._loss_check_at:
                self._loss_check_at = time.monotonic() + LOSS_CHECK_S

    def _drain_rest(self) -> None:
        """Drain, unfinished records included: one that a stopped program has begun hides all that come behind it."""
        self._drain()
        until = time.monotonic() + UNFINISHED_S
        while any(reader.waiting_bytes for reader, _ in self._inputs) and time.monotonic() < until:
            time.sleep(NAP_S)
            self._drain()

    def _losses(self) -> list[bytes]:
        """What programs count of failures, records without room first, a copy for each CPU or one."""
        return self._loaded.maps[self.spec.lost].lookup(FIRST) or [] if self.spec.lost else []

    def _report_loss(self) -> None:
        """Tell how many more records found no room, and which maps are full, since the last time."""
        self._loss_check_at = 0.0
        values = self._losses()
        lost = _count_lost(values) - self._lost_behind
        lost += sum(getattr(reader, "lost", 0) for reader, _ in self._inputs)  # perf buffers count on the kernel's side
        lost += getattr(self._worker, "lost", 0)
        lost += self._find_unfinished()
        if lost > self._lost_seen:
            self.printer.lost(lost - self._lost_seen)
            self._lost_seen = lost
        for failure in self.spec.failures:
            at = failure.offset
            total = sum(int.from_bytes(value[at : at + 8], "little", signed=True) for value in values)
            seen = self._failures_seen.get(at, 0)
            if total != seen:
                self._failures_seen[at] = total
                self.printer.row(failure_row(failure, total - seen))

    def _find_unfinished(self) -> int:
        """Return how many records programs have begun and never finished: those that had been begun at the last look.

        A program may be between the two just now; once all are detached, none is.
        """
        if not self.spec.attempts:
            return 0
        (value,) = self._loaded.maps[self.spec.attempts].lookup(FIRST) or [bytes(16)]
        begun, finished = int.from_bytes(value[:8], "little"), int.from_bytes(value[8:16], "little")
        before, self._begun = self._begun, begun
        self._unfinished = max(self._unfinished, (begun if self._ending else before) - finished)
        return self._unfinished

    # What rows may ask for (spec.engine.Control) ------------------------------------------------------------------

    def exit(self, code: int) -> None:
        """End the session with `code`; records behind this one are dropped, but for those of the end probes.

        A probe that hits again before it is detached may send another exit(): the first one counts, and none that is
        late drops what an end probe prints.
        """
        self.exit_code = code & 0xFF
        self._stopping = True
        self._exits += 1
        if not self._ending:
            self._ignore_records()

    def clear(self, view: str) -> None:
        """Remove all entries of a view."""
        self._views[view].clear()

    def zero(self, view: str) -> None:
        """Set all values of a view to 0."""
        self._views[view].zero()

    def unwatch(self, address: int) -> None:
        """Take away the watchpoints of an address; one that has none is no error."""
        for link in self._watchpoints.pop(address, ()):
            link.close()

    def snapshot(self, view: str) -> Snapshot:
        """Read a view now."""
        return self._views[view].snapshot(unset=True)

    def _on_exit(self, event: EventSpec, values: Sequence[Any], buffer: memoryview, start: int) -> None:
        self.exit(int(values[0]) if values else 0)
        if self._exits == 1 and len(values) > 1 and not self._ending:
            self._lost_at_exit = int(values[1])

    def _on_clear(self, event: EventSpec, values: Sequence[Any], buffer: memoryview, start: int) -> None:
        self.clear(event.get_param("view"))

    def _on_zero(self, event: EventSpec, values: Sequence[Any], buffer: memoryview, start: int) -> None:
        self.zero(event.get_param("view"))

    def _on_unwatch(self, event: EventSpec, values: Sequence[Any], buffer: memoryview, start: int) -> None:
        self.unwatch(int(values[0]))

    def _on_print_map(self, event: EventSpec, values: Sequence[Any], buffer: memoryview, start: int) -> None:
        named = dict(zip((field.name for field in event.fields), values))
        top = named.get("top", event.get_param("top", 0))
        div = named.get("div", event.get_param("div", 0))
        self.printer.snapshot(self._views[event.get_param("view")].snapshot(top or 0, div or 0, unset=True))

    def _on_print_entry(self, event: EventSpec, values: Sequence[Any], buffer: memoryview, start: int) -> None:
        field = event.fields[0]
        begin = start + field.offset
        view = self._views[event.get_param("view")]
        self.printer.snapshot(view.entry(bytes(buffer[begin : begin + field.layout.size]), values[0]))

    def _on_helper_error(self, event: EventSpec, values: Sequence[Any], buffer: memoryview, start: int) -> None:
        self.printer.row(Row(event, tuple(values)))
        if self.options.strict:
            self.exit_code = 1
            self.stop()


_CONTROLS: dict[str, Callable[[Session, EventSpec, Sequence[Any], memoryview, int], None]] = {
    "exit": Session._on_exit,
    "clear": Session._on_clear,
    "zero": Session._on_zero,
    "unwatch": Session._on_unwatch,
    "print_map": Session._on_print_map,
    "print_entry": Session._on_print_entry,
    "helper_error": Session._on_helper_error,
}


SYMBOLIC = frozenset(("kstack", "ustack", "ksym", "usym"))


def attach_groups(probes: Sequence[ProbeSpec]) -> list[list[ProbeSpec]]:
    """Return the probes to be attached in the script's order, neighbours with one program and type together."""
    groups: list[list[ProbeSpec]] = []
    for probe in probes:
        if probe.type in RUN_BY_HAND:
            continue
        if groups and (groups[-1][0].program, groups[-1][0].type) == (probe.program, probe.type):
            groups[-1].append(probe)
        else:
            groups.append([probe])
    return groups


def failure_row(failure: FailureSpec, codes: int) -> Row:
    """Return the row for calls that failed and were only counted; `codes` is the sum of their return codes."""
    times = max(codes // -E2BIG, 1)
    message = f"Map full; can't update element of {failure.name} ({times} times)." + MAP_FULL_ADVICE
    params = (("helper", failure.helper), ("message", message))
    event = EventSpec(-1, "helper_error", 0, params=params, span=failure.span)
    return Row(event, (-E2BIG,))


E2BIG = 7  # what an update returns when a hash map is full
MAP_FULL_ADVICE = " Raise max_map_keys in the config block, or declare the map with more room: let @name = hash(N);"


def _open_process(pid: int) -> int:
    try:
        return os.pidfd_open(pid)
    except OSError as failure:
        raise TargetError(
            f"cannot trace process {pid}: {failure.strerror}", hint="look for its id with `ps -e`"
        ) from None

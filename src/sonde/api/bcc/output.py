"""What a BPF object gives out: the lines of bpf_trace_printk, and events of perf and ring buffers.

A poll waits until something has come, or until its time is over, and hands out what was there then, however fast more comes: so it
returns in time. A signal's handler does not prolong it.
"""

from __future__ import annotations

import os
import sys
import time

from ...errors import UsageError
from .programs import Programs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any, BinaryIO

    from ...spec.engine import Reader


class Source:
    """A reader and the function that hands out what it has. `left` says that an exception may have left something behind."""

    def __init__(self, reader: Reader, drain: Callable[[], int]) -> None:
        self.reader = reader
        self.drain = drain
        self.left = False

    def consume(self) -> int:
        """Hand out what is there; return the number of events."""
        self.left = True
        count = self.drain()
        self.left = False
        return count


class Output(Programs):
    """Reading what programs send."""

    def _init_output(self) -> None:
        self.tracefile: BinaryIO | None = None
        self.perf_buffers: dict[Any, Source] = {}
        self.ring_buffers: dict[Any, Source] = {}

    # buffers --------------------------------------------------------------------------------------------------

    def add_perf_buffer(self, table: Any, reader: Reader, drain: Callable[[], int]) -> None:
        """Take the perf buffer of a table into what is polled; an older one of the same map is closed."""
        _add(self.perf_buffers, table.live.name, reader, drain)

    def drop_perf_buffer(self, table: Any) -> None:
        """Close the perf buffer of a table, if it is open."""
        source = self.perf_buffers.pop(table.live.name, None)
        if source is not None:
            source.reader.close()

    def add_ring_buffer(self, table: Any, reader: Reader, drain: Callable[[], int]) -> None:
        """Take a ring buffer into what is polled."""
        _add(self.ring_buffers, table.live.name, reader, drain)

    def perf_buffer_poll(self, timeout: int = -1) -> None:
        """Wait for events of any perf buffer, at most `timeout` ms (-1: for ever), and call the callbacks of those that came."""
        _poll(list(self.perf_buffers.values()), timeout)

    def perf_buffer_consume(self) -> None:
        """Call the callbacks of the events that are there, also below `wakeup_events`. Does not wait."""
        _consume(self.perf_buffers.values())

    def kprobe_poll(self, timeout: int = -1) -> None:
        """Do what perf_buffer_poll does: its old name."""
        self.perf_buffer_poll(timeout)

    def ring_buffer_poll(self, timeout: int = -1) -> None:
        """Wait for events of any ring buffer, at most `timeout` ms (-1: for ever), and call the callbacks of those that came.

        Raises UsageError when none is open.
        """
        if not self.ring_buffers:
            raise UsageError("No ring buffers to poll")
        _poll(list(self.ring_buffers.values()), timeout)

    def ring_buffer_consume(self) -> None:
        """Call the callbacks of the events that are there. Does not wait. Raises UsageError when no ring buffer is open."""
        if not self.ring_buffers:
            raise UsageError("No ring buffers to poll")
        _consume(self.ring_buffers.values())

    def _close_output(self) -> None:
        for sources in (self.perf_buffers, self.ring_buffers):
            for source in sources.values():
                source.reader.close()
            sources.clear()
        for table in self.tables.values():
            if hasattr(table, "open_perf_event"):
                table.close()
        if self.tracefile is not None:
            self.tracefile.close()
            self.tracefile = None

    # trace_pipe -----------------------------------------------------------------------------------------------

    def trace_open(self, nonblocking: bool = False) -> BinaryIO:
        """Open trace_pipe, once, and return it. Raises FeatureError, PrivilegeError, OSError."""
        if self.tracefile is None and self.in_process:
            self.tracefile = self.object.open_lines(nonblocking)
        if self.tracefile is None:
            from ...debuginfo.tracefs import find_root

            self.tracefile = open(f"{find_root()}/trace_pipe", "rb")  # noqa: SIM115 - closed with the object
            if nonblocking:
                os.set_blocking(self.tracefile.fileno(), False)
        return self.tracefile

    def trace_readline(self, nonblocking: bool = False) -> bytes | None:
        """Return the next line of trace_pipe, without its end; None when `nonblocking` and there is none."""
        try:
            line = self.trace_open(nonblocking).readline(1024)
        except (BlockingIOError, InterruptedError):
            return None
        return line.rstrip() if line is not None else None

    def trace_fields(self, nonblocking: bool = False) -> tuple[Any, Any, Any, Any, Any, Any]:
        """Return the next line as (task, pid, cpu, flags, seconds, message): text as bytes. Six times None when there is none."""
        while True:
            line = self.trace_readline(nonblocking)
            if not line:
                if nonblocking:
                    return (None,) * 6
                continue
            fields = parse_line(line)
            if fields is not None:
                return fields

    def trace_print(self, fmt: str | None = None) -> None:
        """Print the lines of trace_pipe for ever, or their fields by a format ("pid {1}, msg = {5}")."""
        while True:
            if fmt:
                text: Any = fmt.format(*self.trace_fields(nonblocking=False))
            else:
                text = self.trace_readline(nonblocking=False)
            print(text)
            sys.stdout.flush()

    @classmethod
    def monotonic_time(cls) -> float:
        """Return CLOCK_MONOTONIC in nanoseconds, the clock of bpf_ktime_get_ns()."""
        return float(time.clock_gettime_ns(time.CLOCK_MONOTONIC))


def parse_line(line: bytes) -> tuple[bytes, int, int, bytes, float, bytes] | None:
    """Take a line of trace_pipe apart; None for one that is no event (lost ones, another form)."""
    if line.startswith(b"CPU:"):
        return None
    task, rest = line[:16].lstrip(), line[17:]
    head, _, tail = rest.partition(b":")
    try:
        pid, cpu, flags, seconds = head.split()
        number, on_cpu, at = int(pid), int(cpu[1:-1]), float(seconds)
    except ValueError:
        return None
    # Between time and message stands where it was printed from: an address that no symbol has, or nothing.
    return task, number, on_cpu, flags, at, tail[tail.find(b":") + 2 :]


def _add(sources: dict[Any, Source], name: str, reader: Reader, drain: Callable[[], int]) -> None:
    old = sources.pop(name, None)
    if old is not None:
        old.reader.close()
    sources[name] = Source(reader, drain)


def _poll(sources: list[Source], timeout: int) -> None:
    """Wait for any of `sources` and hand out what they have."""
    import select

    if any(source.left for source in sources):
        _consume(sources)
        return
    poller = select.poll()
    for source in sources:
        poller.register(source.reader.fileno(), select.POLLIN)
    deadline = time.monotonic() + timeout / 1000
    while True:
        wait = None if timeout < 0 else max(deadline - time.monotonic(), 0) * 1000
        ready = poller.poll(wait)
        # A buffer may wake us up for records that an earlier poll has seen, or that are not finished yet.
        if _consume(sources) or (timeout >= 0 and time.monotonic() >= deadline):
            return
        if not ready and timeout >= 0:
            return


def _consume(sources: Iterable[Source]) -> int:
    try:
        return sum(source.consume() for source in sources)
    except BrokenPipeError:  # whoever read our output has gone
        _drop_stdout()
        sys.exit(0)


def _drop_stdout() -> None:
    """Point stdout at /dev/null, so that the interpreter's own flush at exit has nothing to complain about."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.close(null)

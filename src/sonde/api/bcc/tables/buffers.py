"""Tables that carry events: perf buffers (a ring of each CPU) and BPF ring buffers, with a callback for each event.

A callback gets the address and the size of an event, as in BCC; the memory is good until the callback returns. `event(data)` copies
it into an object whose class is made from the C type that the program submits, whatever that is.
"""

from __future__ import annotations

import ctypes as ct
import sys

from ....errors import UsageError
from .arrays import ArrayBase
from .base import TableBase

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ....kernel.maps import KernelMap

    PerfCallback = Callable[[int, int, int], object]
    RingCallback = Callable[[Any, int, int], object]
    Handle = Callable[[memoryview, int, int], object]

_BYTES_AT = bytes.__basicsize__ - 1  # of the first byte in a bytes object


class Events:
    """The event that is being handled, and the class of events."""

    def __init__(self, bpf: Any, name: bytes) -> None:
        self.bpf = bpf
        self.name = name
        self._record = b""
        self._address = 0
        self._class: Any = None

    def take(self, buffer: memoryview, start: int, size: int) -> int:
        """Keep a copy of a record; return where it lies."""
        self._record = record = bytes(buffer[start : start + size])
        self._address = address = id(record) + _BYTES_AT
        return address

    def make(self, data: int | None) -> Any:
        """Return the event at `data` as an object; of the one being handled, no byte beyond its end is read."""
        if self._class is None:
            self._class = self.bpf.find_event_class(self.name)
        size = ct.sizeof(self._class)
        if data == self._address and data:
            record = self._record
        else:
            record = ct.string_at(data or 0, size)
        return self._class.from_buffer_copy(record if len(record) >= size else record.ljust(size, b"\0"))


class PerfEventArray(ArrayBase):
    """A perf buffer, or an array of counters for programs to read. `lost` counts the events that found no room."""

    def __init__(self, bpf: Any, live: KernelMap, keytype: Any, leaftype: Any, name: bytes = b"", **_: Any) -> None:
        super().__init__(bpf, live, keytype, leaftype, name)
        self.lost = 0
        self._events = Events(bpf, name)
        self._counters: dict[int, int] = {}

    def event(self, data: Any) -> Any:
        """Return the event that a callback was given as an object with the members of the C struct."""
        return self._events.make(data)

    def open_perf_buffer(
        self,
        callback: PerfCallback,
        page_cnt: int = 8,
        lost_cb: Callable[[int], object] | None = None,
        wakeup_events: int = 1,
    ) -> None:
        """Have `callback(cpu, data, size)` called for each event when the BPF object is polled.

        Each CPU has a ring of `page_cnt` pages, a power of two. `lost_cb(count)` hears of events that found no room; without it, a
        line on stderr says so. A poll wakes up at each `wakeup_events`-th event of a CPU. Raises UsageError, SondeError.
        """
        if page_cnt < 1 or page_cnt & (page_cnt - 1):
            raise UsageError(f"Perf buffer page_cnt must be a power of two, not {page_cnt}")
        reader = self._open_reader(page_cnt, wakeup_events)
        take = self._events.take

        def handle_of(cpu: int) -> Handle:
            return lambda buffer, start, size: callback(cpu, take(buffer, start, size), size)

        def drain() -> int:
            count = 0
            for _, records, lost in reader.drain_each(handle_of):
                count += records
                if lost:
                    self._tell_lost(lost, lost_cb)
            return count

        self.bpf.add_perf_buffer(self, reader, drain)

    def _open_reader(self, page_cnt: int, wakeup_events: int) -> Any:
        if self.bpf.in_process:
            return self.bpf.object.events(self.live)
        from mmap import PAGESIZE

        from ....kernel.perfbuf import PerfReader

        return PerfReader(self.live, page_cnt * PAGESIZE, wakeup_events)

    def _tell_lost(self, count: int, lost_cb: Callable[[int], object] | None) -> None:
        self.lost += count
        if lost_cb is not None:
            lost_cb(count)
        else:
            print(f"Possibly lost {count} samples", file=sys.stderr)

    def open_perf_event(self, typ: int, config: int, pid: int = -1) -> None:
        """Put a counter for each online CPU into the array, which programs read with perf_read(). Raises SondeError."""
        from ....kernel.abi import perf_event_attr
        from ....kernel.cpus import online_cpus
        from ....kernel.perf_event import open_event
        from ....kernel.refusal import attach_refusal

        for cpu in online_cpus():
            fd = open_event(perf_event_attr(typ, config), pid, cpu)
            if fd < 0:
                raise attach_refusal(f"a counter of perf type {typ}, config {config}", -fd)
            self._counters[cpu] = fd
            self[cpu] = fd

    def __delitem__(self, key: Any) -> None:
        """Take an element out and close the counter there, if any. An element that is not there is no error."""
        cpu = int.from_bytes(self.pack_key(key), "little")
        self.live.delete(self.pack_key(key))
        self._close_counter(cpu)

    def _close_counter(self, cpu: int) -> None:
        from ....kernel.descriptor import close_fd

        close_fd(self._counters.pop(cpu, -1))

    def close(self) -> None:
        """Close the counters and the perf buffer, if it is open. Twice is harmless."""
        for cpu in list(self._counters):
            self._close_counter(cpu)
        self.bpf.drop_perf_buffer(self)


class RingBuf(TableBase):
    """A ring buffer that all CPUs share. It has no entries."""

    def __init__(self, bpf: Any, live: KernelMap, keytype: Any, leaftype: Any, name: bytes = b"", **_: Any) -> None:
        super().__init__(bpf, live, keytype, leaftype, name)
        self._events = Events(bpf, name)

    def __len__(self) -> int:
        return 0

    def __delitem__(self, key: Any) -> None:
        """Do nothing: there are no entries."""

    def event(self, data: Any) -> Any:
        """Return the event that a callback was given as an object with the members of the C struct."""
        return self._events.make(data)

    def open_ring_buffer(self, callback: RingCallback, ctx: Any = None) -> None:
        """Have `callback(ctx, data, size)` called for each event when the BPF object is polled. Raises SondeError.

        Events are read from shared memory in batches, without system calls.
        """
        reader = self._open_reader()
        take = self._events.take

        def handle(buffer: memoryview, start: int, size: int) -> None:
            callback(ctx, take(buffer, start, size), size)

        self.bpf.add_ring_buffer(self, reader, lambda: reader.drain(handle))

    def _open_reader(self) -> Any:
        if self.bpf.in_process:
            return self.bpf.object.ring(self.live)
        from ....kernel.ringbuf import RingReader

        return RingReader(self.live)

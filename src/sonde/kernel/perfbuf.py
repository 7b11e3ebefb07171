"""Perf buffers: a perf event array with a ring of each CPU in it, for kernels (or programs) without BPF ring buffers.

Programs write with bpf_perf_event_output. Each ring is a header page (struct perf_event_mmap_page) and a power of
two of data pages. Records are `struct perf_event_header` (type, misc, size) and, for a sample, u32 size and the bytes;
the kernel puts a record PERF_RECORD_LOST with a count where it had no room. A record may be cut by the end of the
ring; only such a one is copied before it is handed on.

Records of one CPU come in order; between CPUs there is none.
"""

from __future__ import annotations

import os
from errno import EINVAL, EPERM
from struct import Struct

from ..bpf.ring import make_barrier
from ..errors import SondeError
from . import abi, syscall
from .cpus import online_cpus
from .descriptor import close_fd, raise_memlock, warn_forgotten
from .perf_event import open_event
from .refusal import refusal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from mmap import mmap
    from select import epoll

    from .maps import KernelMap

DEFAULT_BYTES = 1 << 18  # of each CPU's ring
_HEADER = Struct("=IHH")  # type, misc, size
_LOST = Struct("=QQ")  # id, lost
_RECORD_LOST, _RECORD_SAMPLE = 2, 9
_HEAD_INDEX, _TAIL_INDEX = 1024 // 8, 1032 // 8  # data_head and data_tail in the header page, as u64
_SAMPLE_BYTES = _HEADER.size + 4  # before the payload


class PerfReader:
    """Reads the perf event array `table` on all CPUs that are online (see spec.engine.Reader). Does not own the map.

    `lost` counts the records for which the kernel found no room. A waiter wakes up at each `wakeup`-th record.
    """

    def __init__(self, table: KernelMap, ring_bytes: int = DEFAULT_BYTES, wakeup: int = 1) -> None:
        import select

        self.table = table
        self.lost = 0
        self._rings: list[Ring] = []
        self._epoll: epoll | None = select.epoll()
        try:
            for cpu in online_cpus():
                ring = Ring(cpu, ring_bytes, wakeup=wakeup)
                self._rings.append(ring)
                table.update(cpu.to_bytes(4, "little"), ring.fd.to_bytes(4, "little"))
                self._epoll.register(ring.fd, select.EPOLLIN)
        except OSError as error:
            self.close()
            raise refusal(f"wait for perf buffer {table.name}", error.errno or EINVAL) from None
        except BaseException:
            self.close()
            raise

    def fileno(self) -> int:
        """Return a descriptor that is readable once records have come (perhaps read since); -1 once closed."""
        return self._epoll.fileno() if self._epoll else -1

    @property
    def waiting_bytes(self) -> int:
        """How many bytes of finished records are not read yet."""
        return sum(ring.waiting_bytes for ring in self._rings)

    def drain(
        self,
        handle: Callable[[memoryview, int, int], object],
        runs: Mapping[int, Callable[[memoryview, int], bool]] | None = None,
    ) -> int:
        """Call handle(buffer, start, size) for each waiting record; return their number. Never blocks. No runs here."""
        return sum(count for _, count, _ in self.drain_each(lambda cpu: handle))

    def drain_each(
        self, handle_of: Callable[[int], Callable[[memoryview, int, int], object]]
    ) -> Iterator[tuple[int, int, int]]:
        """Hand the waiting records of one CPU after the other to handle_of(cpu); yield (CPU, records, newly lost ones)."""
        for ring in self._rings:
            count = 0
            try:
                count = ring.drain(handle_of(ring.cpu))
            finally:
                lost, ring.lost = ring.lost, 0
                self.lost += lost
            yield ring.cpu, count, lost

    def close(self) -> None:
        """Unmap and close all rings. Closing twice is harmless."""
        rings, self._rings = self._rings, []
        for ring in rings:
            ring.close()
        waiter, self._epoll = self._epoll, None
        if waiter is not None:
            waiter.close()

    def __del__(self) -> None:
        if getattr(self, "_epoll", None):
            warn_forgotten(self)
            self.close()


class Ring:
    """One CPU's ring, or one thread's: the perf event (of programs' output, unless `attr` says which), its memory."""

    def __init__(self, cpu: int, size: int, attr: bytearray | None = None, wakeup: int = 1, *, pid: int = -1) -> None:
        from mmap import PAGESIZE

        attr = attr or abi.perf_event_attr(
            abi.PERF_TYPE_SOFTWARE,
            abi.PERF_COUNT_SW_BPF_OUTPUT,
            period=1,
            sample_type=abi.PERF_SAMPLE_RAW,
            wakeup=wakeup,
        )
        self.cpu = cpu
        self.lost = 0
        self._memory: mmap | None = None
        self.fd = open_event(attr, pid, cpu)
        if self.fd < 0:
            whose = f"CPU {cpu}" if pid < 0 else f"thread {pid}"
            raise refusal(f"open the perf buffer of {whose}", -self.fd, needs=("CAP_PERFMON",))
        try:
            self._memory = _map_ring(self.fd, PAGESIZE + size)
            result = syscall.ioctl(self.fd, abi.PERF_EVENT_IOC_ENABLE)
            if result < 0:
                raise refusal(f"enable the perf buffer of CPU {cpu}", -result, needs=("CAP_PERFMON",))
        except BaseException:
            self.close()
            raise
        self._positions = memoryview(self._memory)[:PAGESIZE].cast("Q")
        self._data = memoryview(self._memory)[PAGESIZE : PAGESIZE + size]
        self._mask = size - 1
        self._barrier = None if os.uname().machine == "x86_64" else make_barrier()

    @property
    def waiting_bytes(self) -> int:
        """How many bytes lie between the tail and the head."""
        return self._positions[_HEAD_INDEX] - self._positions[_TAIL_INDEX]

    def drain(
        self,
        handle: Callable[[memoryview, int, int], object] | None,
        other: Callable[[int, int, memoryview, int, int], object] | None = None,
    ) -> int:
        """Hand on all records up to the head, then move the tail there; what programs have written to `handle`.

        Other records, and samples too when there is no `handle`, go to other(type, misc, buffer, start, size), header included.
        """
        tail, head = self._positions[_TAIL_INDEX], self._positions[_HEAD_INDEX]
        if tail == head:
            return 0
        if self._barrier is not None:
            self._barrier()
        data, mask, count = self._data, self._mask, 0
        try:
            while tail < head:
                at = tail & mask
                # Records are 8-byte aligned and so is the ring: a header is never cut.
                kind, misc, size = _HEADER.unpack_from(data, at)
                if size < _HEADER.size:
                    raise SondeError(f"the perf buffer is corrupt: a record of {size} bytes")
                tail += size
                record, start = data, at
                if at + size > mask + 1:
                    record = memoryview(bytes(data[at:]) + bytes(data[: at + size - mask - 1]))
                    start = 0
                if kind == _RECORD_SAMPLE and handle is not None:
                    count += 1
                    length = int.from_bytes(record[start + 8 : start + 12], "little")
                    handle(record, start + _SAMPLE_BYTES, min(length, size - _SAMPLE_BYTES))
                elif kind == _RECORD_LOST:
                    self.lost += _LOST.unpack_from(record, start + _HEADER.size)[1]
                elif other is not None:
                    other(kind, misc, record, start, size)
        finally:
            if self._barrier is not None:
                self._barrier()
            self._positions[_TAIL_INDEX] = tail
        return count

    def close(self) -> None:
        memory, self._memory = self._memory, None
        if memory is not None:
            if hasattr(self, "_data"):
                self._data.release()
                self._positions.release()
            try:
                memory.close()
            except BufferError:  # somebody holds a view of a record: the memory goes with that
                pass
        fd, self.fd = self.fd, -1
        close_fd(fd)


def _map_ring(fd: int, size: int) -> mmap:
    """Map a ring; once more when RLIMIT_MEMLOCK was in the way, against which older kernels count it."""
    from mmap import mmap

    try:
        return mmap(fd, size)
    except OSError as error:
        if error.errno != EPERM or not raise_memlock():
            raise refusal(
                f"map {size >> 10} KiB of perf buffer",
                error.errno or EINVAL,
                needs=("CAP_PERFMON",),
                hint="lower the size, or raise kernel.perf_event_mlock_kb",
            ) from None
    return mmap(fd, size)

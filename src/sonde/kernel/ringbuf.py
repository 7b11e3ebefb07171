"""The consumer's side of a BPF ring buffer (kernel/bpf/ringbuf.c): shared memory to records, without system calls.

Layout: a page with the consumer's position (ours to write), a page with the producers' position, then the data,
mapped twice in a row so that no record is cut in two. A record is an 8-byte header (u32 length, its top bits "busy"
and "discarded"; u32 page offset) and the payload, padded to 8 bytes.

Memory order. Producers store the header with a full barrier once a record is complete, and the position with release
semantics. On x86, loads stay in order and a store does not pass earlier loads, so plain accesses in program order
suffice. Elsewhere the committed range is found first, then comes a barrier, then the payloads are read. Positions are
accessed through memoryview.cast, which copies eight bytes at once; `struct` with an explicit byte order goes byte by
byte and would tear.
"""

from __future__ import annotations

import os
from errno import EINVAL

from ..spec.engine import RUN, run_stride
from .descriptor import warn_forgotten
from .maps import entries_of
from .refusal import refusal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from mmap import mmap

    from .maps import KernelMap

_BUSY, _DISCARDED = 1 << 31, 1 << 30
_LENGTH = _DISCARDED - 1
_HEADER_BYTES = 8
NO_RUNS: Mapping[int, Callable[[memoryview, int], bool]] = {}


class RingReader:
    """Reads the ring buffer `ring` (see spec.engine.Reader). Does not own the map."""

    __slots__ = ("_barrier", "_consumer", "_data", "_headers", "_mappings", "_mask", "_producer", "_share", "ring")

    def __init__(self, ring: KernelMap) -> None:
        from mmap import PAGESIZE, PROT_READ, mmap

        self.ring = ring
        size = entries_of(ring.spec)
        self._mask = size - 1
        self._share = max(size >> 3, PAGESIZE)
        self._barrier = None if os.uname().machine == "x86_64" else make_barrier()
        self._mappings: list[mmap] = []
        try:
            self._mappings.append(mmap(ring.fd, PAGESIZE))
            self._mappings.append(mmap(ring.fd, PAGESIZE + 2 * size, prot=PROT_READ, offset=PAGESIZE))
        except (OSError, ValueError) as error:
            for mapping in self._mappings:
                mapping.close()
            self._mappings.clear()
            errno = getattr(error, "errno", None) or EINVAL
            raise refusal(f"map the memory of ring buffer {ring.name}", errno) from None
        self._consumer = memoryview(self._mappings[0]).cast("Q")
        shared = memoryview(self._mappings[1])
        self._producer = shared[:8].cast("Q")
        self._data = shared[PAGESIZE:]
        self._headers = self._data.cast("I")

    def fileno(self) -> int:
        """Return the descriptor to wait on: readable while records, finished or not, are there."""
        return self.ring.fileno()

    @property
    def waiting_bytes(self) -> int:
        """How many bytes the producers have filled or reserved that are not read yet."""
        return self._producer[0] - self._consumer[0] if self._mappings else 0

    def drain(
        self,
        handle: Callable[[memoryview, int, int], object],
        runs: Mapping[int, Callable[[memoryview, int], bool]] = NO_RUNS,
    ) -> int:
        """Call handle(buffer, start, size) for each waiting record; return their number. Never blocks.

        RUN finished records of one size in a row go to runs[size](buffer, start), and to `handle` when that returns False.

        Room goes back to the producers each time that an eighth of the buffer has been read, and at the end. What
        `handle` raises goes through, and the record that it was called for counts as read. The bytes are
        valid during the call only.
        """
        if not self._mappings:
            return 0
        headers, data, mask = self._headers, self._data, self._mask
        position, limit = self._consumer[0], self._producer[0]
        if self._barrier is not None:
            limit = self._find_committed(position, limit)
        count = 0
        retry_at = 0  # the end of the records that were no run
        while position < limit:
            stop = min(limit, position + self._share)
            try:
                while position < stop:
                    at = position & mask
                    length = headers[at >> 2]
                    if length >= _DISCARDED:
                        if length & _BUSY:
                            limit = position
                            break
                        position += ((length & _LENGTH) + _HEADER_BYTES + 7) & -8
                        continue
                    if length in runs and position >= retry_at:
                        retry_at = position + RUN * run_stride(length)
                        if retry_at <= limit and self._is_run(at, length) and runs[length](data, at + _HEADER_BYTES):
                            position = retry_at
                            count += RUN
                            continue
                    position += (length + _HEADER_BYTES + 7) & -8
                    count += 1
                    handle(data, at + _HEADER_BYTES, length)
            finally:
                if self._barrier is not None:
                    self._barrier()
                self._consumer[0] = position
        return count

    def _is_run(self, at: int, length: int) -> bool:
        """Whether RUN finished records of `length` bytes begin at `at`."""
        step = run_stride(length) >> 2
        first = at >> 2
        return self._headers[first : first + RUN * step : step].tolist() == [length] * RUN

    def _find_committed(self, position: int, limit: int) -> int:
        """Return the end of the finished records, ordered before all reads of what is in them."""
        assert self._barrier is not None
        self._barrier()
        while position < limit:
            length = self._headers[(position & self._mask) >> 2]
            if length & _BUSY:
                break
            position += ((length & _LENGTH) + _HEADER_BYTES + 7) & -8
        self._barrier()
        return position

    def close(self) -> None:
        """Unmap the buffer. Closing twice is harmless."""
        mappings, self._mappings = self._mappings, []
        if not mappings:
            return
        for view in (self._headers, self._data, self._producer, self._consumer):
            view.release()
        for mapping in mappings:
            try:
                mapping.close()
            except BufferError:  # somebody holds a view of a record: the memory goes with that
                pass

    def __del__(self) -> None:
        if getattr(self, "_mappings", None):
            warn_forgotten(self)
            self.close()


def make_barrier() -> Callable[[], None]:
    """Return a function that orders all memory accesses before it with all after it.

    Python has no fence. Releasing a lock and then taking it again is one: a store-release followed by a load-acquire of
    the same location is kept in order with everything around by the architectures in question.
    """
    from _thread import allocate_lock

    lock = allocate_lock()

    def barrier() -> None:
        with lock:
            pass
        with lock:
            pass

    return barrier

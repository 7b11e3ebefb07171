"""The consumer's side of a ring buffer in the kernel's layout: shared memory to records, without system calls.

The rings are those of kernel/bpf/ringbuf.c, or of `maps.ringbuf`, which has the same layout. A word has the consumer's position (ours to write), another the
producers' position; the data is mapped twice in a row so that no record is cut in two. A record is an 8-byte header (u32 length, its top bits "busy"
and "discarded"; u32 page offset, never 0) and the payload, padded to 8 bytes.

Memory order. Producers store the header with a full barrier once a record is complete, and the position with release
semantics. On x86, loads stay in order and a store does not pass earlier loads, so plain accesses in program order
suffice. Elsewhere the committed range is found first, then comes a barrier, then the payloads are read. Positions are
accessed through memoryview.cast, which copies eight bytes at once; `struct` with an explicit byte order goes byte by
byte and would tear.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_BUSY, _DISCARDED = 1 << 31, 1 << 30
_LENGTH = _DISCARDED - 1
_HEADER_BYTES = 8
RUN = 64  # records that a reader hands over at once: 4 times the speed of one by one; more gains little
NO_RUNS: Mapping[int, Callable[[memoryview, int], bool]] = {}


def run_stride(size: int) -> int:
    """Return the bytes from one record of `size` bytes to the next: a header of 8 bytes, all rounded up to 8."""
    return (size + 15) & -8


class RingConsumer:
    """Reads a ring whose parts are memory (see spec.engine.Reader). Whoever maps the memory says how to wait for records.

    `clears`: producers reserve without a lock, so that a record may begin before its header is there; what has been read
    is filled with zeros, and a header of zeros is one to come.
    """

    __slots__ = ("_barrier", "_clears", "_consumer", "_data", "_headers", "_mask", "_producer", "_share")

    def __init__(
        self, consumer: memoryview, producer: memoryview, data: memoryview, page_bytes: int, *, clears: bool = False
    ) -> None:
        """Take the two positions (8 bytes each) and the data, which is there twice."""
        size = len(data) // 2
        self._mask = size - 1
        self._share = max(size >> 3, page_bytes)
        self._clears = clears
        self._barrier = None if os.uname().machine == "x86_64" and not clears else make_barrier()
        self._consumer = consumer.cast("Q")
        self._producer = producer.cast("Q")
        self._data = data
        self._headers = data.cast("I")

    @property
    def waiting_bytes(self) -> int:
        """How many bytes the producers have filled or reserved that are not read yet."""
        return self._producer[0] - self._consumer[0] if self.open else 0

    @property
    def open(self) -> bool:
        """Whether the memory is there."""
        return True

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
        if not self.open:
            return 0
        headers, data, mask = self._headers, self._data, self._mask
        position = begin = self._consumer[0]
        limit = self._producer[0]
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
                if self._clears:
                    data[begin & mask : (begin & mask) + position - begin] = bytes(position - begin)
                    begin = position
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
            at = (position & self._mask) >> 2
            length = self._headers[at]
            if length & _BUSY or (self._clears and not self._headers[at + 1]):
                break
            position += ((length & _LENGTH) + _HEADER_BYTES + 7) & -8
        self._barrier()
        return position

    def release(self) -> None:
        """Give up the views of the memory, so that it can be unmapped."""
        for view in (self._headers, self._data, self._producer, self._consumer):
            view.release()


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

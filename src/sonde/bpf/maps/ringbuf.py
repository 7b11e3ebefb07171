"""The BPF ring buffer without a kernel: a page for our header, then what the kernel's own descriptor maps, page by page.

    the consumer's position (a page) · the producers' position (a page) · the data (max_entries bytes), mapped twice in a row

Producers move their position by compare and swap and write the record's header then. In between the header is zero, because the consumer clears
what it has read: so nobody needs a lock, and a producer that dies in the middle keeps nobody from writing. `bpf.ring` reads it.
"""

from __future__ import annotations

import ctypes
import os
from errno import EAGAIN, EINVAL
from mmap import MAP_ANONYMOUS, MAP_PRIVATE, MAP_SHARED, PAGESIZE, PROT_READ, PROT_WRITE
from weakref import finalize

from ...errors import FeatureError
from ..ring import NO_RUNS, RingConsumer
from .base import BPF_ANY, Plan, SharedMap
from .memory import Region

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

CONSUMER, PRODUCER, DATA = PAGESIZE, 2 * PAGESIZE, 3 * PAGESIZE
BUSY, DISCARDED = 1 << 31, 1 << 30
NO_WAKEUP, FORCE_WAKEUP = 1, 2
AVAIL_DATA, RING_SIZE, CONS_POS, PROD_POS = range(4)
_MAP_FIXED = 0x10


class RingRegion(Region):
    """Memory whose last `size` bytes are there twice, in a row."""

    def __init__(self, total: int, size: int, *, shared: bool = False, fd: int = -1) -> None:
        """Map a memfd of `total` bytes, a new one unless `fd` is given. `shared`: others write at the same time."""
        super().__init__(8)
        super().close()
        self.shared = shared or fd >= 0
        if fd < 0:
            fd = os.memfd_create("sonde-ring", os.MFD_CLOEXEC)
            os.ftruncate(fd, total)
        self.fd = fd
        self.address = map_twice(fd, total, size)
        array = (ctypes.c_char * (total + size)).from_address(self.address)
        finalize(array, _unmap, self.address, total + size)
        self.data = memoryview(array).cast("B")
        self.words = self.data.cast("Q")
        self.use_atomics()


class RingMap(SharedMap):
    """ringbuf. `wake` is called when a record is there and its flags, or the consumer's being at the end, ask for it."""

    wake: Callable[[], object] | None = None

    def check(self) -> None:
        shape, size = self.shape, self.shape.max_entries
        if shape.key_size or shape.value_size or size < PAGESIZE or size & (size - 1):
            hint = f"it has no key and value sizes, and as many bytes as some power of two of pages of {PAGESIZE}"
            raise self.refusal("create", EINVAL, hint=hint)

    @property
    def repeated(self) -> int:
        return self.max_entries

    def make_region(self, shared: bool, fd: int) -> Region:
        return RingRegion(self.layout.size, self.max_entries, shared=shared, fd=fd)

    def plan(self) -> Plan:
        size = self.shape.max_entries
        return Plan(DATA + size, 1, 0, 0, 0, DATA, CONSUMER, size - 1)

    def find_at(self, key: bytes, cpu: int, *, mark: bool = True) -> int:
        raise self.refusal("look up a key in", EINVAL)

    # producers ------------------------------------------------------------------------------------------------

    def reserve(self, size: int) -> int:
        """Reserve a record; return the offset of its bytes in the memory, or 0 when there is no room."""
        region, mask = self.region, self.layout.mask
        length = (size + 15) & ~7
        if size >= DISCARDED or length > mask:
            self.give_up(EAGAIN)
            return 0
        while True:
            position = region.load(PRODUCER)
            if position + length - region.load(CONSUMER) > mask:
                self.give_up(EAGAIN)
                return 0
            if region.cas(PRODUCER, position, position + length):
                break
        at = DATA + (position & mask)
        region.store(at, at // PAGESIZE << 32 | BUSY | size)
        return at + 8

    def commit(self, at: int, flags: int = 0, *, discard: bool = False) -> None:
        """Finish the record at `at`, as ringbuf_submit and ringbuf_discard do."""
        region = self.region
        header = at - 8
        region.add(header, (DISCARDED if discard else 0) - BUSY)
        reached = region.load(CONSUMER) & self.layout.mask == header - DATA
        if self.wake is not None and not flags & NO_WAKEUP and (flags & FORCE_WAKEUP or reached):
            self.wake()

    def output(self, data: bytes, flags: int = 0) -> int:
        """Write a whole record; 0, or -EAGAIN when there is no room."""
        if flags & ~(NO_WAKEUP | FORCE_WAKEUP):
            return -EINVAL
        at = self.reserve(len(data))
        if not at:
            return -EAGAIN
        self.region.data[at : at + len(data)] = data
        self.commit(at, flags)
        return 0

    def query(self, what: int) -> int:
        """What ringbuf_query returns; 0 for what it does not know."""
        consumer, producer = self.region.load(CONSUMER), self.region.load(PRODUCER)
        known = {
            AVAIL_DATA: producer - consumer,
            RING_SIZE: self.layout.mask + 1,
            CONS_POS: consumer,
            PROD_POS: producer,
        }
        return known.get(what, 0)

    def repair(self) -> int:
        """Discard what producers left unfinished, when none of them lives any more, so that the reader gets past it; return how many records that was."""
        region, mask, found = self.region, self.layout.mask, 0
        position, end = region.load(CONSUMER), region.load(PRODUCER)
        while position < end:
            at = DATA + (position & mask)
            header = region.load(at)
            if header and not header & BUSY:
                position += ((header & DISCARDED - 1) + 15) & -8
                continue
            length = header & DISCARDED - 1
            if not header:  # reserved, and nothing written yet: all zeros, up to the next header
                gap = next(
                    (n for n in range(8, end - position, 8) if region.load(DATA + (position + n & mask))),
                    end - position,
                )
                length = gap - 8
            region.store(at, at // PAGESIZE << 32 | DISCARDED | length)
            position += (length + 15) & -8
            self.give_up(EAGAIN)
            found += 1
        return found

    # the consumer ---------------------------------------------------------------------------------------------

    def go_back(self, beyond: int) -> None:
        """Have the next record written at the memory's begin, when all has been read and the positions are `beyond` so many bytes in it.

        For the consumer, which is at the end. A ring that is read in time so stays in its first pages; others cost nobody memory.
        """
        region, mask = self.region, self.layout.mask
        position = region.load(CONSUMER)
        if position & mask >= beyond:
            ahead = position + (-position & mask)
            if region.cas(PRODUCER, position, ahead):  # nothing was written there: it is all zeros
                region.store(CONSUMER, ahead)

    def reader(self) -> RingReader:
        """Return a reader. There is one at a time; the map is to be closed after it."""
        return RingReader(self)

    def update_at(self, key: bytes, value: bytes, flags: int = BPF_ANY, cpu: int = -1) -> int:
        return -EINVAL


class RingReader(RingConsumer):
    """Reads a RingMap of this process (see spec.engine.Reader); its descriptor becomes readable when a record is to be read."""

    __slots__ = ("_event", "_ring")

    def __init__(self, ring: RingMap) -> None:
        data, size = ring.region.data, ring.shape.max_entries
        super().__init__(
            data[CONSUMER : CONSUMER + 8],
            data[PRODUCER : PRODUCER + 8],
            data[DATA : DATA + 2 * size],
            PAGESIZE,
            clears=True,
        )
        self._ring = ring
        self._event = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        ring.wake = self._wake

    def _wake(self) -> None:
        if self._event >= 0:
            os.write(self._event, (1).to_bytes(8, "little"))

    @property
    def open(self) -> bool:
        return self._event >= 0

    def fileno(self) -> int:
        """Return the descriptor to wait on."""
        return self._event

    def drain(
        self,
        handle: Callable[[memoryview, int, int], object],
        runs: Mapping[int, Callable[[memoryview, int], bool]] = NO_RUNS,
    ) -> int:
        """Read what waits; see `RingConsumer.drain`."""
        if self._event >= 0:
            try:
                os.read(self._event, 8)
            except BlockingIOError:
                pass
        return super().drain(handle, runs)

    def close(self) -> None:
        """Give the memory up. Twice is harmless."""
        event, self._event = self._event, -1
        if event >= 0:
            self._ring.wake = None
            self.release()
            os.close(event)


def map_twice(fd: int, total: int, size: int) -> int:
    """Map a memfd, and its last `size` bytes once more right behind; return the address. Raises FeatureError."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
    failed = ctypes.c_void_p(-1).value
    base = libc.mmap(None, total + size, 0, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
    for at, length, offset in ((0, total, 0), (total, size, total - size)):
        if base in (failed, None):
            break
        place = libc.mmap(base + at, length, PROT_READ | PROT_WRITE, MAP_SHARED | _MAP_FIXED, fd, offset)
        base = base if place != failed else failed
    if base in (failed, None):
        raise FeatureError(f"the memory of a ring cannot be mapped twice: {os.strerror(ctypes.get_errno())}")
    return int(base)


def _unmap(address: int, size: int) -> None:
    libc = ctypes.CDLL(None)
    libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    libc.munmap(address, size)

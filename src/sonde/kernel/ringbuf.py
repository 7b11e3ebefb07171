"""The kernel's BPF ring buffers: mapped, and read by `bpf.ring`.

Mapped are a page with the consumer's position, a page with the producers' position, then the data, which the kernel maps
twice in a row.
"""

from __future__ import annotations

from errno import EINVAL

from ..bpf.ring import RingConsumer
from .descriptor import warn_forgotten
from .maps import entries_of
from .refusal import refusal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from mmap import mmap

    from .maps import KernelMap


class RingReader(RingConsumer):
    """Reads the ring buffer `ring` (see spec.engine.Reader). Does not own the map."""

    __slots__ = ("_mappings", "ring")

    def __init__(self, ring: KernelMap) -> None:
        from mmap import PAGESIZE, PROT_READ, mmap

        self.ring = ring
        size = entries_of(ring.spec)
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
        shared = memoryview(self._mappings[1])
        super().__init__(memoryview(self._mappings[0])[:8], shared[:8], shared[PAGESIZE:], PAGESIZE)

    @property
    def open(self) -> bool:
        return bool(self._mappings)

    def fileno(self) -> int:
        """Return the descriptor to wait on: readable while records, finished or not, are there."""
        return self.ring.fileno()

    def close(self) -> None:
        """Unmap the buffer. Closing twice is harmless."""
        mappings, self._mappings = self._mappings, []
        if not mappings:
            return
        self.release()
        for mapping in mappings:
            try:
                mapping.close()
            except BufferError:  # somebody holds a view of a record: the memory goes with that
                pass

    def __del__(self) -> None:
        if getattr(self, "_mappings", None):
            warn_forgotten(self)
            self.close()

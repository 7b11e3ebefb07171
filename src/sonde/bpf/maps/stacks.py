"""Stack traces by number: a number is the bucket that the hash of a trace belongs to, as in the kernel.

A bucket is a word (bits 0..31: the trace's hash; bits 32..62: number of frames plus 1, 0 for an empty bucket; bit 63: being written) and max_depth
program counters. Who walks the stack is the engine; this only keeps what was found.
"""

from __future__ import annotations

from errno import EBUSY, EEXIST, EINVAL, ENOENT

from .base import HEADER_BYTES, Plan, SharedMap, check_sizes
from .hash import mix

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

BPF_F_SKIP_MASK, BPF_F_USER_STACK, BPF_F_FAST_STACK_CMP, BPF_F_REUSE_STACKID = 0xFF, 1 << 8, 1 << 9, 1 << 10
STACK_FLAGS = BPF_F_SKIP_MASK | BPF_F_USER_STACK | BPF_F_FAST_STACK_CMP | BPF_F_REUSE_STACKID
_BUSY = 1 << 63
_MOST_FRAMES = 127  # kernel.perf_event_max_stack


class StackMap(SharedMap):
    """stack_trace."""

    def check(self) -> None:
        check_sizes(self, key=True)
        if self.key_size != 4 or self.value_size % 8 or self.value_size // 8 > _MOST_FRAMES:
            raise self.refusal("create", EINVAL, hint="key 4 bytes, value 8 bytes for each of at most 127 frames")

    def plan(self) -> Plan:
        buckets = 1 << (self.max_entries - 1).bit_length()
        step = 8 + self.value_size
        return Plan(HEADER_BYTES + step * buckets, 1, step, step, 8, HEADER_BYTES, HEADER_BYTES, buckets - 1)

    def put(self, frames: Sequence[int], flags: int) -> int:
        """Keep a trace and return its number; a negative errno when the bucket has another one (EEXIST), or the flags are wrong."""
        if flags & ~STACK_FLAGS:
            return -EINVAL
        frames = frames[: self.value_size // 8]
        h = mix(self.seed, frames)
        number, word = h & self.layout.mask, (len(frames) + 1) << 32 | h & 0xFFFFFFFF
        at = HEADER_BYTES + number * self.stride
        old = self.region.load(at)
        if old & _BUSY:
            return -EBUSY
        if old == word and (flags & BPF_F_FAST_STACK_CMP or self._frames(at) == list(frames)):
            return number
        if old and not flags & BPF_F_REUSE_STACKID:
            return -EEXIST
        if not self.region.cas(at, old, word | _BUSY):
            return -EBUSY
        self.region.words[(at >> 3) + 1 : (at >> 3) + 1 + len(frames)] = memoryview(_packed(frames)).cast("Q")
        self.region.store(at, word)
        return number

    def _frames(self, at: int) -> list[int]:
        count = max((self.region.load(at) >> 32 & 0x7FFFFFFF) - 1, 0)
        return self.region.words[(at >> 3) + 1 : (at >> 3) + 1 + count].tolist()

    def _find(self, key: bytes) -> int:
        number = int.from_bytes(key, "little")
        at = HEADER_BYTES + number * self.stride
        return at if number <= self.layout.mask and self.region.load(at) else 0

    def lookup(self, key: bytes) -> list[bytes] | None:
        at = self._find(self._key(key))
        return [_packed(self._frames(at)).ljust(self.value_size, b"\0")] if at else None

    def update_at(self, key: bytes, value: bytes, flags: int, cpu: int) -> int:
        return -EINVAL

    def delete_at(self, key: bytes) -> int:
        if int.from_bytes(key, "little") > self.layout.mask:
            return -(7)  # E2BIG, as the kernel has it
        at = self._find(key)
        if not at:
            return -ENOENT
        self.region.store(at, 0)
        return 0

    def keys(self) -> Iterator[bytes]:
        for number in range(self.layout.mask + 1):
            if self.region.load(HEADER_BYTES + number * self.stride):
                yield number.to_bytes(4, "little")


def _packed(frames: Sequence[int]) -> bytes:
    return b"".join(pc.to_bytes(8, "little") for pc in frames)

"""Queues, stacks and bloom filters: maps without keys.

A queue or stack is a circle of max_entries + 1 values with a head and a tail (words at `COUNT` and `FRESH`), changed while the map's one claim is held. A
bloom filter is a set of bits, into which anyone may write at any time.
"""

from __future__ import annotations

from errno import E2BIG, EBUSY, EINVAL, ENOENT, EOPNOTSUPP

from .base import (
    BPF_ANY,
    BPF_EXIST,
    BPF_NOEXIST,
    COUNT,
    FRESH,
    HAND,
    HEADER_BYTES,
    Plan,
    SharedMap,
    check_sizes,
    round_up,
)
from .hash import CLAIM_TRIES, mix
from .memory import M, claim_owner

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_HEAD, _TAIL, _CLAIM = COUNT, FRESH, HAND
_DEFAULT_HASHES = 5
_MOST_BITS = 1 << 32


class QueueMap(SharedMap):
    """queue, stack."""

    def check(self) -> None:
        check_sizes(self, key=False)

    def plan(self) -> Plan:
        step = round_up(self.value_size)
        size = HEADER_BYTES + step * (self.max_entries + 1)
        return Plan(size, 1, step, step, 0, HEADER_BYTES, extra=self.max_entries + 1)

    def _claim(self) -> bool:
        from time import sleep

        for attempt in range(CLAIM_TRIES):
            if self.region.load(_CLAIM) == 0 and self.region.cas(_CLAIM, 0, claim_owner()):
                return True
            if attempt % 16 == 15:
                sleep(0)
        return False

    def push_at(self, value: bytes, flags: int) -> int:
        if flags & BPF_NOEXIST or flags > BPF_EXIST:
            return -EINVAL
        if not self._claim():
            return self.give_up(EBUSY)
        try:
            region, slots = self.region, self.layout.extra
            head, tail = region.load(_HEAD), region.load(_TAIL)
            if (head + 1) % slots == tail:
                if not flags & BPF_EXIST:
                    return self.give_up(E2BIG)
                region.store(_TAIL, (tail + 1) % slots)
            at = HEADER_BYTES + head * self.stride
            region.data[at : at + self.value_size] = value
            region.store(_HEAD, (head + 1) % slots)
            return 0
        finally:
            region.store(_CLAIM, 0)

    def take_at(self, *, remove: bool) -> bytes | int:
        if not self._claim():
            return self.give_up(EBUSY)
        try:
            region, slots = self.region, self.layout.extra
            head, tail = region.load(_HEAD), region.load(_TAIL)
            if head == tail:
                return -ENOENT
            queue = self.shape.kind == "queue"
            at = HEADER_BYTES + (tail if queue else (head - 1) % slots) * self.stride
            value = bytes(region.data[at : at + self.value_size])
            if remove and queue:
                region.store(_TAIL, (tail + 1) % slots)
            elif remove:
                region.store(_HEAD, (head - 1) % slots)
            return value
        finally:
            region.store(_CLAIM, 0)

    def repair(self, alive: Callable[[int], bool]) -> int:
        """Free the claim of a thread that is gone; return how many that was. What it was about to store is lost."""
        owner = self.region.load(_CLAIM)
        return int(bool(owner) and not alive(owner) and self.region.cas(_CLAIM, owner, 0))

    def lookup(self, key: bytes) -> list[bytes] | None:
        """Peek, as the kernel has it."""
        self._key(key)
        found = self.peek()
        return None if found is None else [found]

    def update(self, key: bytes, value: bytes, flags: int = 0) -> None:
        """Push, as the kernel has it."""
        self._key(key)
        self.push(value, flags)

    def delete(self, key: bytes) -> bool:
        raise self.refusal("delete a key of", EINVAL)


class BloomMap(SharedMap):
    """bloom_filter: push a value, and peek whether it may have been pushed. Answers "no" are certain."""

    def check(self) -> None:
        check_sizes(self, key=False)
        if self.shape.extra & ~0xF:
            raise self.refusal("create", EINVAL, hint="a bloom filter has at most 15 hash functions")

    def plan(self) -> Plan:
        hashes = self.shape.extra or _DEFAULT_HASHES
        bits = max(64, 1 << (min(self.max_entries * hashes * 7 // 5, _MOST_BITS) - 1).bit_length())
        size = HEADER_BYTES + bits // 8
        return Plan(size, 1, 0, 0, 0, HEADER_BYTES, HEADER_BYTES, bits - 1, hashes)

    def _bits(self, value: bytes) -> list[int]:
        padded = value.ljust(round_up(len(value)), b"\0")
        words = [int.from_bytes(padded[at : at + 8], "little") for at in range(0, len(padded), 8)]
        return [mix(self.seed + number & M, words) & self.layout.mask for number in range(self.layout.extra)]

    def push_at(self, value: bytes, flags: int) -> int:
        if flags != BPF_ANY:
            return -EINVAL
        for bit in self._bits(value):
            self.region.set_bits(HEADER_BYTES + bit // 64 * 8, 1 << bit % 64)
        return 0

    def check_at(self, value: bytes) -> int:
        """0 when the value may have been pushed, -ENOENT when it certainly was not."""
        load = self.region.load
        seen = all(load(HEADER_BYTES + bit // 64 * 8) >> bit % 64 & 1 for bit in self._bits(value))
        return 0 if seen else -ENOENT

    def __contains__(self, value: bytes) -> bool:
        """Whether a value may have been pushed."""
        self._value(value)
        return self.check_at(value) == 0

    def update(self, key: bytes, value: bytes, flags: int = 0) -> None:
        """Push, as the kernel has it."""
        self._key(key)
        self.push(value, flags)

    def take_at(self, *, remove: bool) -> bytes | int:
        return -EOPNOTSUPP

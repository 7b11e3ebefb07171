"""The LPM trie: the longest prefix that matches. Keys are u32 number of bits, then the bytes of an address, in network order.

Prefixes stand in a hash map, by their length and masked bytes; an array of words behind it counts how many there are of each length, so that a look-up
asks for the lengths that exist, from the longest down. So readers and writers go side by side as in any hash map. The value of the hash map is
the key as it was given (the bits beyond the prefix, too, as the kernel keeps them), and then the value.
"""

from __future__ import annotations

from errno import E2BIG, EINVAL, ENOSPC

from ...record import replace
from .base import BPF_EXIST, BPF_F_NO_PREALLOC, Plan, check_sizes, round_up
from .hash import ENTRY_HEADER, HashMap

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_MOST_BYTES = 256


class LpmMap(HashMap):
    """lpm_trie."""

    def check(self) -> None:
        check_sizes(self, key=True)
        if not 5 <= self.key_size <= _MOST_BYTES + 4:
            raise self.refusal("create", EINVAL, hint="the key is a u32 and 1 to 256 bytes")
        if not self.shape.flags & BPF_F_NO_PREALLOC:
            raise self.refusal("create", EINVAL, hint="give it the flag BPF_F_NO_PREALLOC (1)")

    def plan(self) -> Plan:
        self.data_size = self.key_size - 4
        plan = super().plan()
        value = plan.value_offset + round_up(self.data_size)
        stride = value + plan.value_stride
        counts = plan.entries + stride * plan.extra
        self.counts = counts
        size = counts + 8 * (8 * self.data_size + 1)
        return replace(plan, size=size, entry_stride=stride, value_offset=value)

    def _split(self, key: bytes) -> tuple[int, bytes]:
        """The number of bits, and the key with the others masked."""
        bits = int.from_bytes(key[:4], "little")
        return bits, mask_key(key, bits) if bits <= 8 * self.data_size else key

    def find_at(self, key: bytes, cpu: int, *, mark: bool = True) -> int:
        most = int.from_bytes(key[:4], "little")
        if most > 8 * self.data_size:
            return 0
        for bits in range(most, -1, -1):
            if self.region.load(self.counts + 8 * bits):
                found = super().find_at(mask_key(key, bits), cpu, mark=mark)
                if found:
                    return found
        return 0

    def lookup(self, key: bytes) -> list[bytes] | None:
        found = self.find_at(self._key(key), 0)
        return self.values_at(found) if found else None

    def update_at(self, key: bytes, value: bytes, flags: int, cpu: int) -> int:
        bits, masked = self._split(key)
        if bits > 8 * self.data_size or flags > BPF_EXIST:
            return -EINVAL
        given = key[4:].ljust(round_up(self.data_size), b"\0")
        result = super().update_at(masked, given + value, flags, 0)
        return -ENOSPC if result == -E2BIG else result

    def _counter(self, entry: int) -> int:
        """The offset of the word that counts the prefixes as long as the one in an entry."""
        at = entry + ENTRY_HEADER
        return self.counts + 8 * int.from_bytes(self.region.data[at : at + 4], "little")

    def _place(self, h: int, entry: int, reach: int) -> int:
        self.region.add(self._counter(entry), 1)  # first, so that nobody passes over a length that exists
        return super()._place(h, entry, reach)

    def _remove(self, h: int, at: int, entry: int, reach: int) -> int:
        counter = self._counter(entry)
        reach = super()._remove(h, at, entry, reach)
        self.region.add(counter, -1)
        return reach

    def _write(self, at: int, value: bytes, cpu: int) -> None:
        before = round_up(self.data_size)
        self.region.data[at - before : at + self.value_size] = value[: before + self.value_size]

    def delete_at(self, key: bytes) -> int:
        bits, masked = self._split(key)
        if bits > 8 * self.data_size:
            return -EINVAL
        return super().delete_at(masked)

    def keys(self) -> Iterator[bytes]:
        for masked in HashMap.keys(self):
            _, entry = self._find(masked, self.hash(masked))
            if entry:
                at = entry + self.layout.value_offset - round_up(self.data_size)
                yield masked[:4] + bytes(self.region.data[at : at + self.data_size])


def mask_key(key: bytes, bits: int) -> bytes:
    """Return a key with `bits` as its length and zeros beyond."""
    data = key[4:]
    width = 8 * len(data)
    number = int.from_bytes(data, "big") >> width - bits << width - bits
    return bits.to_bytes(4, "little") + number.to_bytes(len(data), "big")

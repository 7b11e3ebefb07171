"""Hash maps that threads and processes read and write at the same time: readers never wait, writers of one bucket take turns.

Cells, a power of two of them and at least twice as many as entries, are two words each:

    home    bits 0..31: how far behind this cell entries stand that belong to it; bits 32..63: the thread that is changing them, or 0
    slot    bits 0..31: number of an entry plus 1, or 0; bits 32..63: the upper half of its key's hash

An entry is two words, the key and the value, each padded to 8 bytes:

    u32 seq      odd while the entry is free or being filled
    u32 next     the next free entry plus 1
    u32 hash     the lower half of the hash: which cell it belongs to
    u32 used     LRU: not 0 when it was used since the clock's hand passed

A key belongs to the cell `hash & mask` and stands in the slot of that cell or of one behind it, at most `reach` further. To look up: read home, then
reach + 1 slots; where the upper half of the hash agrees, read the entry's seq, compare the key, and read seq again. Even and unchanged: found. Another
key: the slot is read again, since its entry may have come to that key after the slot was read; when it says the same, the next slot has its turn.
To change: put the own thread number into home (compare and swap), so that nobody else changes keys that belong there; an absent key goes into a free slot
by compare and swap, since writers of other cells look for one as well. A new value comes in a new entry, which replaces the old one
in its slot: readers see either. Entries are used again at once, like the kernel's preallocated ones.

Who deletes a key that stands in its cell's own slot leaves the entry there, odd: it *rests*, absent for everybody, and the next new key of the same cell takes it as it is. So a
key that comes and goes costs two atomic operations, the claims of its cell, and not seven. The count is of entries in slots. Entries rest only while a quarter of the map is
free; when it is full, those that rest are given back one by one, by a hand that goes round. (LRU maps and tries have none.)

A writer that finds a cell claimed tries again a while and gives up with EBUSY, as the kernel does; so a thread that died in the middle stops
nobody. `repair` frees what it left behind. The order of memory accesses: docs/design/0006-machine.md.
"""

from __future__ import annotations

from errno import E2BIG, EBUSY, EEXIST, EINVAL, ENOENT
from struct import Struct

from .base import (
    BPF_EXIST,
    BPF_F_LOCK,
    BPF_NOEXIST,
    COUNT,
    FREE,
    FRESH,
    HAND,
    HEADER_BYTES,
    RESTS,
    MapShape,
    Plan,
    SharedMap,
    check_sizes,
    round_up,
)
from .memory import M, claim_owner

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

MULTIPLIER = 0x9E3779B97F4A7C15
LANES, LONG_BYTES = 4, 64  # of keys from this size on, four words are hashed side by side
ENTRY_HEADER = 16
LOW = 0xFFFFFFFF
CLAIM_TRIES = 1000
RESTING = ("hash", "percpu_hash")
PER_CPU, LRU = ("percpu_hash", "lru_percpu_hash"), ("lru_hash", "lru_percpu_hash")
_U32 = Struct("<I")


class HashMap(SharedMap):
    """hash, percpu_hash, lru_hash, lru_percpu_hash."""

    def check(self) -> None:
        check_sizes(self, key=True)

    def plan(self) -> Plan:
        shape = self.shape
        copies = shape.cpus if shape.kind in PER_CPU else 1
        step = round_up(shape.value_size)
        value = ENTRY_HEADER + round_up(shape.key_size)
        stride = value + step * copies
        cells = 1 << (2 * shape.max_entries - 1).bit_length()
        spare = shape.cpus + 1  # new values of existing keys, when the map is full
        entries = HEADER_BYTES + 16 * cells
        size = entries + stride * (shape.max_entries + spare)
        return Plan(size, copies, step, stride, value, entries, HEADER_BYTES, cells - 1, shape.max_entries + spare)

    def __init__(self, shape: MapShape, *, shared: bool = False, fd: int = -1) -> None:
        super().__init__(shape, shared=shared, fd=fd)
        plan = self.layout
        self.mask, self.cells, self.entries = plan.mask, plan.cells, plan.entries
        self.lru = self.shape.kind in LRU
        self.rests = self.shape.kind in RESTING
        self.per_cpu = self.shape.kind in PER_CPU
        self._words = Struct(f"<{round_up(self.key_size) // 8}Q")

    # hash and search ------------------------------------------------------------------------------------------

    def hash(self, key: bytes) -> int:
        """Return 64 bits of hash of a key; see `mix` and, for long ones, `gather`."""
        words = self._words.unpack(key.ljust(self._words.size, b"\0"))
        return mix(self.seed, gather(self.seed, words) if self.key_size >= LONG_BYTES else words)

    def _entry(self, slot: int) -> int:
        """The offset of the entry that a slot names."""
        return self.entries + ((slot & LOW) - 1) * self.stride

    def _slot(self, cell: int) -> int:
        """The offset of a cell's slot."""
        return self.cells + 16 * (cell & self.mask) + 8

    def _seq(self, entry: int) -> int:
        return self.region.load(entry) & LOW

    def _unchanged(self, entry: int, seq: int) -> bool:
        """Whether what was read of an entry since its seq was is of one piece."""
        return not seq & 1 and self.region.load_last(entry) & LOW == seq

    def _find(self, key: bytes, h: int) -> tuple[int, int]:
        """Return the offsets of the slot and the entry of a key; (0, 0) when it is absent."""
        load, data, size = self.region.load, self.region.data, self.key_size
        reach = min(load(self.cells + 16 * (h & self.mask)) & LOW, self.mask)
        for distance in range(reach + 1):
            at = self._slot(h + distance)
            slot = load(at)
            while 0 < slot & LOW <= self.layout.extra and slot >> 32 == h >> 32:
                entry = self._entry(slot)
                seq = self._seq(entry)
                same = data[entry + ENTRY_HEADER : entry + ENTRY_HEADER + size] == key
                if self._unchanged(entry, seq):
                    if same:
                        return at, entry
                    seq = -1
                before, slot = (
                    slot,
                    load(at),
                )  # the entry may have been replaced, and given to another key, while we looked at it
                if slot == before and seq in (-1, self._seq(entry)):
                    break  # whoever takes an entry out of use changes its slot first: this memory is damaged
        return 0, 0

    def find_at(self, key: bytes, cpu: int, *, mark: bool = True) -> int:
        _, entry = self._find(key, self.hash(key))
        if not entry:
            return 0
        if mark and self.lru:
            self._set_used(entry, 1)
        return entry + self.layout.value_offset + (cpu * self.layout.value_stride if self.per_cpu else 0)

    # claims ---------------------------------------------------------------------------------------------------

    def _claim(self, h: int, tries: int = CLAIM_TRIES) -> int:
        """Claim the cell that a hash belongs to; return its reach, or -1 when others hold on to it."""
        home, region = self.cells + 16 * (h & self.mask), self.region
        owner = claim_owner() << 32
        for attempt in range(tries):
            word = region.load(home)
            if not word >> 32 and region.cas(home, word, owner | word):
                return min(word, self.mask)
            if attempt % 16 == 15:
                _pause()
        return -1

    def _release(self, h: int, reach: int) -> None:
        self.region.store(self.cells + 16 * (h & self.mask), reach)

    # entries --------------------------------------------------------------------------------------------------

    def _allocate(self) -> int:
        """Take a free entry and return its offset; 0 when there is none."""
        region = self.region
        while True:
            head = region.load(FREE)
            if not 0 < head & LOW <= self.layout.extra:
                break
            entry = self._entry(head)
            following = region.load(entry) >> 32
            if region.cas(FREE, head, (head >> 32) + 1 << 32 & M | following):
                return entry
        while True:
            fresh = region.load(FRESH)
            if fresh >= self.layout.extra:
                return 0
            if region.cas(FRESH, fresh, fresh + 1):
                entry = self.entries + fresh * self.stride
                region.store(entry, 1)
                return entry

    def _free(self, entry: int) -> None:
        """Give an entry back; its seq becomes odd."""
        region = self.region
        number = (entry - self.entries) // self.stride + 1
        seq = (self._seq(entry) | 1) & LOW
        while True:
            head = region.load(FREE)
            region.store(entry, (head & LOW) << 32 | seq)
            if region.cas(FREE, head, (head >> 32) + 1 << 32 & M | number):
                return

    def _fill(self, key: bytes, h: int, value: bytes, cpu: int) -> int:
        """Take a free entry and make it ready to be seen; 0 when there is none."""
        entry = self._allocate()
        if not entry:
            return 0
        self._fill_in(entry, key, h, value, cpu)
        self._show(entry)
        return entry

    def _fill_in(self, entry: int, key: bytes, h: int, value: bytes, cpu: int) -> None:
        data, layout = self.region.data, self.layout
        data[entry + ENTRY_HEADER : entry + ENTRY_HEADER + self.key_size] = key
        data[entry + 8 : entry + 16] = (h & LOW).to_bytes(8, "little")
        at = entry + layout.value_offset
        if self.per_cpu and cpu >= 0:
            data[at : entry + self.stride] = bytes(self.stride - layout.value_offset)
        self._write(at, value, cpu)

    def _show(self, entry: int) -> None:
        """Make an entry's seq even, or odd again."""
        self.region.store(entry, (self._seq(entry) + 1) & LOW)

    def _slot_word(self, h: int, entry: int) -> int:
        """What a slot holds for an entry."""
        return h >> 32 << 32 | (entry - self.entries) // self.stride + 1

    def _write(self, at: int, value: bytes, cpu: int) -> None:
        data, size, step = self.region.data, self.value_size, self.layout.value_stride
        if not self.per_cpu:
            data[at : at + size] = value[:size]
            return
        for number in range(self.copies) if cpu < 0 else (cpu,):
            start = number * step if cpu < 0 else 0
            data[at + number * step : at + number * step + size] = value[start : start + size]

    def _set_used(self, entry: int, used: int) -> None:
        data = self.region.data
        if data[entry + 12] != used:
            data[entry + 12] = used

    # changes --------------------------------------------------------------------------------------------------

    def update_at(self, key: bytes, value: bytes, flags: int, cpu: int) -> int:
        if flags & ~BPF_F_LOCK > BPF_EXIST or flags & BPF_F_LOCK:
            return -EINVAL
        h = self.hash(key)
        while True:
            reach = self._claim(h)
            if reach < 0:
                return self.give_up(EBUSY)
            try:
                reach, result = self._store(key, h, value, flags, cpu, reach)
            finally:
                self._release(h, reach)
            if result != -E2BIG:
                return result
            if not (self._evict() if self.lru else self._wake()):
                return self.give_up(E2BIG)

    def _store(self, key: bytes, h: int, value: bytes, flags: int, cpu: int, reach: int) -> tuple[int, int]:
        """Store a value while the key's cell is claimed; return its new reach, and 0 or a negative errno."""
        region = self.region
        at, old = self._find(key, h)
        if old:
            if flags & BPF_NOEXIST:
                return reach, -EEXIST
            if self.per_cpu:
                self._write(old + self.layout.value_offset, value, cpu)
                return reach, 0
            entry = self._fill(key, h, value, cpu)
            if not entry:
                return reach, self.give_up(EBUSY)  # as many writers at once as there are spare entries
            region.store(at, self._slot_word(h, entry))
            self._free(old)
            return reach, 0
        if flags & BPF_EXIST:
            return reach, -ENOENT
        entry = self._find_resting(h)
        if entry:
            self._fill_in(entry, key, h, value, cpu)
            region.store(self._slot(h), self._slot_word(h, entry))
            self._show(entry)
            return reach, 0
        if region.add(COUNT, 1) >= self.max_entries:
            region.add(COUNT, -1)
            return reach, -E2BIG
        entry = self._fill(key, h, value, cpu)
        if not entry:
            region.add(COUNT, -1)
            return reach, -E2BIG
        return self._place(h, entry, reach), 0

    def _find_resting(self, h: int) -> int:
        """Return the offset of the entry that rests in a claimed cell's own slot, 0 when none does."""
        slot = self.region.load(self._slot(h))
        if not self.rests or not 0 < slot & LOW <= self.layout.extra:
            return 0
        entry = self._entry(slot)
        home = _U32.unpack_from(self.region.data, entry + 8)[0]
        return entry if self._seq(entry) & 1 and not (home ^ h) & self.mask else 0

    def _place(self, h: int, entry: int, reach: int) -> int:
        """Put an entry into a free slot behind its cell; return the cell's reach. Half of all slots are free."""
        region = self.region
        slot = self._slot_word(h, entry)
        for distance in range(self.mask + 1):
            at = self._slot(h + distance)
            if region.load(at) == 0:
                if distance > reach:  # first let readers come so far
                    region.store(self.cells + 16 * (h & self.mask), claim_owner() << 32 | distance)
                    reach = distance
                if region.cas(at, 0, slot):
                    break
        return reach

    def delete_at(self, key: bytes) -> int:
        h = self.hash(key)
        reach = self._claim(h)
        if reach < 0:
            return self.give_up(EBUSY)
        try:
            at, entry = self._find(key, h)
            if not entry:
                return -ENOENT
            if self.rests and at == self._slot(h) and self.region.load(COUNT) < most_resting(self.max_entries):
                self._show(entry)
                self._set_rests()
            else:
                reach = self._remove(h, at, entry, reach)
            return 0
        finally:
            self._release(h, reach)

    def _remove(self, h: int, at: int, entry: int, reach: int) -> int:
        """Take an entry of a claimed cell out of its slot; return the cell's new reach."""
        region = self.region
        region.store(at, 0)
        self._free(entry)
        region.add(COUNT, -1)
        cell = h & self.mask
        while reach:
            slot = region.load(self._slot(cell + reach))
            if (
                0 < slot & LOW <= self.layout.extra
                and _U32.unpack_from(region.data, self._entry(slot) + 8)[0] & self.mask == cell
            ):
                break
            reach -= 1
        return reach

    # LRU ------------------------------------------------------------------------------------------------------

    def _evict(self) -> bool:
        """Throw out an entry that was not used since the hand of the clock last passed it; False when none can be had."""
        region = self.region
        for _ in range(3 * self.layout.extra):
            entry = self.entries + region.add(HAND, 1) % self.layout.extra * self.stride
            if self._seq(entry) & 1 or not region.words[entry >> 3]:  # free, or never used
                continue
            if region.data[entry + 12]:
                region.data[entry + 12] = 0
                continue
            if self._evict_entry(entry):
                return True
        return False

    def _wake(self) -> bool:
        """Give back an entry that rests; False when there is none."""
        region = self.region
        if not region.load(RESTS):
            return False
        region.store(RESTS, 0)
        for _ in range(3 * self.layout.extra):
            entry = self.entries + region.add(HAND, 1) % self.layout.extra * self.stride
            if self._seq(entry) & 1 and self._evict_entry(entry, rests=True):
                region.store(RESTS, 1)
                return True
        return False

    def _set_rests(self) -> None:
        if not self.region.load(RESTS):
            self.region.store(RESTS, 1)

    def _evict_entry(self, entry: int, *, rests: bool = False) -> bool:
        """Take an entry out of its slot; with `rests` only if it does. False when that cannot be done."""
        h = _U32.unpack_from(self.region.data, entry + 8)[0]
        reach = self._claim(h, 1)
        if reach < 0:
            if rests:
                self._set_rests()
            return False
        number = (entry - self.entries) // self.stride + 1
        try:
            for distance in range(reach + 1):
                at = self._slot(h + distance)
                if self.region.load(at) & LOW == number:
                    if rests and not self._seq(entry) & 1:
                        return False
                    reach = self._remove(h, at, entry, reach)
                    return True
            return False
        finally:
            self._release(h, reach)

    # the whole ------------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        """The number of keys, at some moment; where entries may rest it takes a look at all slots."""
        return sum(1 for _ in self.keys()) if self.region.load(RESTS) else self.region.load(COUNT)

    def keys(self) -> Iterator[bytes]:
        data, size = self.region.data, self.key_size
        first = self.cells >> 3
        for start in range(0, self.mask + 1, 4096):
            count = min(4096, self.mask + 1 - start)
            slots = self.region.words[first + 2 * start + 1 : first + 2 * (start + count) : 2].tolist()
            for slot in slots:
                if 0 < slot & LOW <= self.layout.extra:
                    entry = self._entry(slot)
                    seq = self._seq(entry)
                    key = bytes(data[entry + ENTRY_HEADER : entry + ENTRY_HEADER + size])
                    if self._unchanged(entry, seq):
                        yield key

    def lookup(self, key: bytes) -> list[bytes] | None:
        key = self._key(key)
        h = self.hash(key)
        while True:
            _, entry = self._find(key, h)
            if not entry:
                return None
            seq = self._seq(entry)
            values = self.values_at(entry + self.layout.value_offset)
            same = self.region.data[entry + ENTRY_HEADER : entry + ENTRY_HEADER + self.key_size] == key
            if same and self._unchanged(entry, seq):
                return values

    def repair(self, alive: Callable[[int], bool]) -> int:
        """Free the claims of threads that are gone; return their number. What they were about to store is lost."""
        region, freed = self.region, 0
        for cell in range(self.mask + 1):
            word = region.load(self.cells + 16 * cell)
            if word >> 32 and not alive(word >> 32):
                freed += region.cas(self.cells + 16 * cell, word, word & LOW)
        return freed


class HashTableMap(HashMap):
    """hash_of_maps: the value is the number of a map of the engine plus 1; see TableMap."""

    targets: dict[int, object]

    def check(self) -> None:
        super().check()
        if self.value_size != 4:
            raise self.refusal("create", EINVAL, hint="the values of this type have 4 bytes")
        self.targets = {}

    def set(self, key: bytes, thing: object) -> None:
        """Put a map of this process at a key. Raises MapError."""
        number = next((n for n, known in self.targets.items() if known is thing), len(self.targets))
        self.targets[number] = thing
        self.update(key, number.to_bytes(4, "little"))

    def get_target(self, key: bytes) -> object | None:
        """Return the map at a key; None when there is none."""
        found = super().lookup(key)
        return self.targets.get(int.from_bytes(found[0], "little")) if found else None

    def find_at(self, key: bytes, cpu: int, *, mark: bool = True) -> int:
        return 0  # programs get the map, not the place where its number stands


def most_resting(max_entries: int) -> int:
    """How many entries may stand in slots for those of deleted keys to rest there."""
    return max_entries * 3 // 4


def mix(seed: int, words: Iterable[int]) -> int:
    """Hash words of 64 bits: for each h = (h ^ word) * MULTIPLIER, then h ^= h >> 32; and a last round without a word.

    A product's low bits know nothing of the high bits of its factors, and the cell is the low bits: so the last round, which brings down what the
    last byte of a word did.
    """
    h = seed
    for word in words:
        h = (h ^ word) * MULTIPLIER & M
        h ^= h >> 32
    h = h * MULTIPLIER & M
    return h ^ h >> 32


def gather(seed: int, words: Sequence[int]) -> list[int]:
    """Make four words of many, each of every fourth: l = (l ^ word) * MULTIPLIER, then the halves of l change places.

    A processor does the four at the same time, where it would wait for the result of each word's multiplication before the next one's.
    """
    lanes = []
    for first in range(LANES):
        lane = seed + first & M
        for word in words[first::LANES]:
            lane = (lane ^ word) * MULTIPLIER & M
            lane = lane << 32 & M | lane >> 32
        lanes.append(lane)
    return lanes


def _pause() -> None:
    from time import sleep

    sleep(0)

"""What all maps have in common: the shape, the header in memory, and the face that engines and helpers see.

A map is one piece of memory without pointers in it: a header of 512 bytes, then whatever its type needs, at offsets that the header names. So several
processes map it wherever they like, and generated code needs nothing but its address.

    offset  bytes  what
    0       8      "SONDEMAP"
    8       4      version of the layout: 1
    12      4      bytes of the header: 512
    16      24     name of the type, in the kernel's words, padded with NULs
    40      4      key_size
    44      4      value_size
    48      4      max_entries
    52      4      flags, as given at creation
    56      4      number of CPUs: per-CPU types have a copy of each value for each
    60      4      bytes from one CPU's copy to the next
    64      4      bytes from one entry to the next
    68      4      offset of the value in an entry
    72      8      offset of the entries
    80      8      offset of the cells (hash), the bits (bloom filter), the ring's pages
    88      8      number of cells, bits or bytes of a ring less 1: a mask
    96      8      seed of the hash
    104     8      what else the type needs to know
    128     8      count of entries              each of these has a cache line for itself
    192     8      head of the list of free entries
    256     8      entries never used so far
    320     8      hand of the LRU clock, or the claim of maps that have only one
    384     8      changes that were given up: the map was full, or others held on to what they claimed
    448     8      hash: not 0 when entries may rest (see `hash`)

Methods whose names end in `_at` take a CPU and return negative errnos, as helpers do; the others follow spec.engine.Map and raise MapError.
"""

from __future__ import annotations

import os
from errno import E2BIG, EINVAL, ENOENT, EOPNOTSUPP
from struct import Struct

from ...errors import FormatError, MapError
from ...record import Record
from .memory import Region

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

BPF_ANY, BPF_NOEXIST, BPF_EXIST, BPF_F_LOCK = 0, 1, 2, 4
BPF_F_NO_PREALLOC = 1

MAGIC, VERSION, HEADER_BYTES = b"SONDEMAP", 1, 512
HEADER = Struct("<8sII24s8I5Q")
COUNT, FREE, FRESH, HAND, LOST, RESTS = 128, 192, 256, 320, 384, 448
_NO_MORE = 1 << 32  # bytes of one map: more is a mistake


class MapShape(Record):
    """What a map is made of. `kind` is the kernel's name in lower case; sizes in bytes. `cpus` is how many copies per-CPU maps have.

    `extra`: the number of hash functions of a bloom filter. `read_only`: programs may not write values.
    """

    kind: str
    key_size: int
    value_size: int
    max_entries: int
    flags: int = 0
    name: str = "map"
    cpus: int = 1
    extra: int = 0
    read_only: bool = False


class Plan(Record):
    """Where the parts of a map lie; the fields of the header that follow from a shape. `size` is all of it, in bytes."""

    size: int
    copies: int
    value_stride: int
    entry_stride: int
    value_offset: int
    entries: int
    cells: int = 0
    mask: int = 0
    extra: int = 0


def round_up(size: int) -> int:
    """Return the next multiple of eight."""
    return (size + 7) & ~7


class SharedMap:
    """A map in memory. Subclasses say how it is laid out (`plan`), and what the operations do."""

    def __init__(self, shape: MapShape, *, shared: bool = False, fd: int = -1) -> None:
        """Make a new map; `fd` is a memfd to make it in when that is empty or zeros, else to open the map that is there. It is taken over.

        Raises MapError for a shape that the kernel would refuse, FormatError for memory that does not have this shape.
        """
        plan = self.lay_out(shape)
        self.copies, self.stride = plan.copies, plan.entry_stride
        self.padded_size = round_up(shape.value_size)
        if fd >= 0 and not os.pread(fd, HEADER.size, 0).strip(b"\0"):
            os.ftruncate(fd, max(plan.size, os.fstat(fd).st_size))
            os.pwrite(fd, self._header(int.from_bytes(os.urandom(8), "little")), 0)
        if fd >= 0:
            self._check_header(fd)
        self.region = self.make_region(shared, fd)
        if fd < 0:
            self.region.data[: HEADER.size] = self._header(int.from_bytes(os.urandom(8), "little"))
        self.seed = self.region.words[96 >> 3]

    def lay_out(self, shape: MapShape) -> Plan:
        """Take over a shape and plan its memory, which is not touched. Raises MapError for a shape that the kernel would refuse."""
        self.shape = shape
        self.name = shape.name
        self.key_size, self.value_size, self.max_entries = shape.key_size, shape.value_size, shape.max_entries
        self.check()
        plan = self.layout = self.plan()
        if plan.size > _NO_MORE:
            raise self.refusal("create", E2BIG, hint=f"it would take {plan.size >> 20} MiB")
        return plan

    @property
    def repeated(self) -> int:
        """How many bytes at the end of the memory are to be mapped a second time, right behind it."""
        return 0

    def make_region(self, shared: bool, fd: int) -> Region:
        """Allocate the memory, or map `fd`."""
        return Region(self.layout.size, shared=shared, fd=fd)

    def _header(self, seed: int) -> bytes:
        shape, plan = self.shape, self.layout
        return HEADER.pack(
            MAGIC, VERSION, HEADER_BYTES, shape.kind.encode(), shape.key_size, shape.value_size,
            shape.max_entries, shape.flags, shape.cpus, plan.value_stride, plan.entry_stride, plan.value_offset,
            plan.entries, plan.cells, plan.mask, seed, plan.extra,
        )  # fmt: skip

    def _check_header(self, fd: int) -> None:
        found = os.pread(fd, HEADER.size, 0)
        seed = int.from_bytes(found[96:104], "little")
        size = os.fstat(fd).st_size
        if found != self._header(seed) or size < self.layout.size:
            raise FormatError(f"the memory of {size} bytes is not laid out as a {self.shape.kind} map of its sizes is")

    # what a type fills in -------------------------------------------------------------------------------------

    def check(self) -> None:
        """Raise MapError for a shape that the kernel would refuse."""

    def plan(self) -> Plan:
        """Say where the parts lie."""
        raise NotImplementedError

    def find_at(self, key: bytes, cpu: int, *, mark: bool = True) -> int:
        """Return the offset of the value of `key` in the memory, on `cpu`; 0 when it is absent. `mark`: it counts as a use of the entry."""
        return 0

    def update_at(self, key: bytes, value: bytes, flags: int, cpu: int) -> int:
        """Store a value for one CPU as the helper does; 0 or a negative errno. `cpu` -1: `value` has all copies, each padded to 8 bytes."""
        return -EOPNOTSUPP

    def delete_at(self, key: bytes) -> int:
        """Remove a key; 0 or a negative errno."""
        return -EOPNOTSUPP

    def push_at(self, value: bytes, flags: int) -> int:
        """Add a value to a map without keys; 0 or a negative errno."""
        return -EOPNOTSUPP

    def take_at(self, *, remove: bool) -> bytes | int:
        """The next value of a map without keys, or a negative errno."""
        return -EOPNOTSUPP

    def keys(self) -> Iterator[bytes]:
        """Yield the keys, in no particular order. Entries that come or go meanwhile may be seen or missed."""
        raise self.refusal("walk", EOPNOTSUPP)

    # spec.engine.Map ------------------------------------------------------------------------------------------

    def lookup(self, key: bytes) -> list[bytes] | None:
        """Return the value (one item; per-CPU maps: one for each CPU), or None when absent. Raises MapError."""
        found = self.find_at(self._key(key), 0, mark=False)
        return None if not found else self.values_at(found)

    def values_at(self, offset: int) -> list[bytes]:
        """Read all copies of the value of which CPU 0 has its copy at `offset`."""
        data, size, step = self.region.data, self.value_size, self.layout.value_stride
        return [bytes(data[at : at + size]) for at in range(offset, offset + self.copies * step, step)]

    def update(self, key: bytes, value: bytes, flags: int = 0) -> None:
        """Store `value` (per-CPU maps: the same for each CPU). Raises MapError."""
        self._value(value)
        self._done("store a value in", self.update_at(self._key(key), self._padded(value) * self.copies, flags, -1))

    def update_each(self, key: bytes, values: Sequence[bytes], flags: int = 0) -> None:
        """Store one value for each CPU, in CPU order (per-CPU maps only). Raises MapError."""
        if len(values) != self.copies:
            raise MapError(f"{len(values)} values for map {self.name}, which has {self.copies} copies", EINVAL)
        for value in values:
            self._value(value)
        joined = b"".join(self._padded(value) for value in values)
        self._done("store a value in", self.update_at(self._key(key), joined, flags, -1))

    def delete(self, key: bytes) -> bool:
        """Remove `key`; False when it was absent. Raises MapError."""
        result = self.delete_at(self._key(key))
        if result == -ENOENT:
            return False
        self._done("delete a key of", result)
        return True

    def items(self) -> Iterator[tuple[bytes, list[bytes]]]:
        """Yield all entries, in no particular order."""
        for key in self.keys():
            values = self.lookup(key)
            if values is not None:
                yield key, values

    def next_key(self, key: bytes | None) -> bytes | None:
        """Return the key after `key` (None, or one that is absent: the first), or None at the end."""
        walk = list(self.keys())
        at = walk.index(key) + 1 if key is not None and key in walk else 0
        return walk[at] if at < len(walk) else None

    def push(self, value: bytes, flags: int = 0) -> None:
        """Add a value to a queue, stack or bloom filter; BPF_EXIST (2) drops the oldest of a full one. Raises MapError."""
        self._value(value)
        self._done("push a value to", self.push_at(value, flags))

    def pop(self) -> bytes | None:
        """Take the next value out of a queue or stack; None when it is empty. Raises MapError."""
        return self._taken(self.take_at(remove=True))

    def peek(self) -> bytes | None:
        """Return the next value of a queue or stack and leave it there; None when it is empty. Raises MapError."""
        return self._taken(self.take_at(remove=False))

    def move(self, fd: int) -> None:
        """Go on in the memfd `fd`, whole and empty, which is taken over: what is in the map goes with it. Nobody else may use the map meanwhile."""
        old, size = self.region, self.layout.size
        self.region = self.make_region(True, fd)
        self.region.data[:size] = old.data[:size]
        old.close()

    @property
    def lost(self) -> int:
        """How many changes were given up so far: the map was full, or others held on to what they claimed."""
        return self.region.load(LOST)

    def give_up(self, errno: int) -> int:
        """Count a change that cannot be carried out; return the negative errno."""
        self.region.add(LOST, 1)
        return -errno

    def close(self) -> None:
        """Let the memory go. Twice is harmless."""
        self.region.close()

    def __enter__(self) -> SharedMap:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # errors ---------------------------------------------------------------------------------------------------

    def refusal(self, action: str, errno: int, *, hint: str = "") -> MapError:
        """Return the error of a refused operation."""
        if not hint and errno == E2BIG and action != "create":
            hint = f"the map is full ({self.max_entries} entries)"
        return MapError(f"{action} the {self.shape.kind} map {self.name}", errno, hint=hint)

    def _done(self, action: str, result: int) -> None:
        if result < 0:
            raise self.refusal(action, -result)

    def _taken(self, found: bytes | int) -> bytes | None:
        if isinstance(found, int):
            if found == -ENOENT:
                return None
            raise self.refusal("take a value out of", -found)
        return found

    def _key(self, key: bytes) -> bytes:
        if len(key) != self.key_size:
            raise MapError(f"{len(key)} bytes as key of map {self.name}, which has {self.key_size}", EINVAL)
        return bytes(key)

    def _value(self, value: bytes) -> None:
        if len(value) != self.value_size:
            raise MapError(f"{len(value)} bytes as value of map {self.name}, which has {self.value_size}", EINVAL)

    def _padded(self, value: bytes) -> bytes:
        return bytes(value).ljust(self.padded_size, b"\0")


def check_sizes(table: SharedMap, *, key: bool, value: bool = True) -> None:
    """Raise MapError unless there are keys (or none), values and entries as the type has them."""
    shape = table.shape
    if bool(shape.key_size) != key or (value and not shape.value_size) or shape.max_entries <= 0:
        sizes = f"{shape.max_entries} entries of {shape.key_size} + {shape.value_size} bytes"
        raise table.refusal("create", EINVAL, hint=f"a {shape.kind} map cannot have {sizes}")

"""Maps without a kernel: the kernel's types and semantics, in memory that processes share and generated code looks things up in.

    with create(MapShape("hash", 4, 8, 100)) as table:
        table.update(key, value)

`create(…, shared=True)` makes the memory a memfd; whoever has the descriptor opens the same map by `attach(fd)`. Layout: `base`, and each type's module.
"""

from __future__ import annotations

import os

from ...errors import FeatureError, FormatError, MapError
from .base import HEADER, HEADER_BYTES, MAGIC, VERSION
from .base import MapShape as MapShape
from .base import SharedMap as SharedMap

# The kernel's name of a type: the module and the class here.
KINDS = {
    "hash": ("hash", "HashMap"),
    "percpu_hash": ("hash", "HashMap"),
    "lru_hash": ("hash", "HashMap"),
    "lru_percpu_hash": ("hash", "HashMap"),
    "array": ("array", "ArrayMap"),
    "percpu_array": ("array", "ArrayMap"),
    "prog_array": ("array", "TableMap"),
    "perf_event_array": ("array", "TableMap"),
    "array_of_maps": ("array", "TableMap"),
    "hash_of_maps": ("hash", "HashTableMap"),
    "lpm_trie": ("lpm", "LpmMap"),
    "queue": ("queue", "QueueMap"),
    "stack": ("queue", "QueueMap"),
    "bloom_filter": ("queue", "BloomMap"),
    "stack_trace": ("stacks", "StackMap"),
    "ringbuf": ("ringbuf", "RingMap"),
}


def create(shape: MapShape, *, shared: bool = False, fd: int = -1) -> SharedMap:
    """Make a map, in memory of its own or in the memfd `fd`, empty or all zeros, which is taken over.

    Raises MapError with the kernel's errno for a shape that it would refuse, FeatureError for types that are not there.
    """
    return _class_of(shape.kind)(shape, shared=shared, fd=fd)


def measure(shape: MapShape) -> tuple[int, int]:
    """Return how many bytes a map takes, and how many of them, at the end, whoever uses it maps a second time right behind. Raises as `create` does."""
    kind = _class_of(shape.kind)
    blank = kind.__new__(kind)
    return blank.lay_out(shape).size, blank.repeated


def attach(fd: int, name: str = "map") -> SharedMap:
    """Open a map that somebody else made in the memfd `fd`, which stays the caller's. Raises FormatError for anything else."""
    shape = read_shape(os.pread(fd, HEADER_BYTES, 0), name)
    try:
        return _class_of(shape.kind)(shape, fd=os.dup(fd))
    except MapError as error:
        raise FormatError(f"this is not the memory of a map: {error.message}") from None


def read_shape(data: bytes, name: str = "map") -> MapShape:
    """Decode a header. Raises FormatError, FeatureError."""
    if len(data) < HEADER_BYTES or data[:8] != MAGIC:
        raise FormatError("this is not the memory of a map", offset=0)
    _, version, header, kind, key, value, entries, flags, cpus, *_, extra = HEADER.unpack_from(data)
    if (version, header) != (VERSION, HEADER_BYTES):
        raise FormatError(f"layout {version} of a map is not known, only {VERSION}", offset=8)
    word = kind.rstrip(b"\0").decode("ascii", "replace")
    return MapShape(word, key, value, entries, flags, name, cpus, extra if word == "bloom_filter" else 0)


def _class_of(kind: str) -> type[SharedMap]:
    known = KINDS.get(kind)
    if known is None:
        raise FeatureError(f"there are no {kind} maps without a kernel", feature=f"map:{kind}")
    from importlib import import_module

    found: type[SharedMap] = getattr(import_module(f".{known[0]}", __name__), known[1])
    return found

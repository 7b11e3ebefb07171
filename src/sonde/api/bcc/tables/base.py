"""What all tables have: a map of the kernel as a mapping of ctypes values, with batches and histograms.

A table holds no data. `items()` reads in batches where the kernel can, and entries that come or go meanwhile may be seen or missed.
"""

from __future__ import annotations

import ctypes as ct
from collections.abc import MutableMapping

from ..values import to_bytes
from .batches import Batches, operations
from .histogram import Histograms
from .wording import from_text, to_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from typing import Any

    from ....kernel.maps import KernelMap

    Base = MutableMapping[Any, Any]
else:
    Base = MutableMapping


class TableBase(Batches, Histograms, Base):
    """A table of a BPF object. `Key` and `Leaf` are the ctypes classes of keys and values.

    Keys and leaves are given as ctypes values; plain numbers, bytes and tuples of members are taken, too.
    """

    def __init__(self, bpf: Any, live: KernelMap, keytype: Any, leaftype: Any, name: bytes = b"", **_: Any) -> None:
        from ....kernel.abi import map_type
        from ....kernel.maps import entries_of

        self.bpf = bpf
        self.live = live
        self.Key = keytype
        self.Leaf = leaftype
        self.ttype = map_type(live.spec.type)
        self.flags = live.spec.flags
        self.max_entries = entries_of(live.spec)
        self._name = name

    @property
    def map_fd(self) -> int:
        """The map's descriptor."""
        return self.live.fd

    @property
    def map_id(self) -> int:
        """The number by which the kernel knows the map."""
        return int(operations(self.live).read_id(self.live.fd))

    def get_fd(self) -> int:
        """Return the map's descriptor."""
        return self.map_fd

    def __hash__(self) -> int:
        return id(self)

    def __eq__(self, other: object) -> bool:
        return self is other

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._name.decode(errors='replace')}: {self.live.spec.type}>"

    # keys and leaves ------------------------------------------------------------------------------------------

    def pack_key(self, key: Any) -> bytes:
        """Return the bytes of a key. Raises TypeError."""
        return to_bytes(key, self.Key, self.live.spec.key_size, f"a key of {self._name.decode(errors='replace')}")

    def pack_leaf(self, leaf: Any) -> bytes:
        """Return the bytes of a leaf. Raises TypeError."""
        return to_bytes(leaf, self.Leaf, self.live.spec.value_size, f"a leaf of {self._name.decode(errors='replace')}")

    def make_key(self, data: bytes) -> Any:
        """Turn the bytes of a key into a `Key`."""
        return _from_bytes(self.Key, data)

    def make_leaf(self, values: Sequence[bytes]) -> Any:
        """Turn the bytes of a value (per-CPU tables: one for each CPU) into what a look-up returns."""
        return _from_bytes(self.Leaf, values[0])

    def key_sprintf(self, key: Any) -> bytes:
        """Write a key as text."""
        return to_text(key).encode("latin-1")

    def leaf_sprintf(self, leaf: Any) -> bytes:
        """Write a leaf as text."""
        return to_text(leaf).encode("latin-1")

    def key_scanf(self, key_str: str | bytes) -> Any:
        """Read a key from text. Raises ValueError."""
        return from_text(key_str, self.Key)

    def leaf_scanf(self, leaf_str: str | bytes) -> Any:
        """Read a leaf from text. Raises ValueError."""
        return from_text(leaf_str, self.Leaf)

    # the mapping ----------------------------------------------------------------------------------------------

    def __getitem__(self, key: Any) -> Any:
        values = self.live.lookup(self.pack_key(key))
        if values is None:
            raise KeyError(key)
        return self.make_leaf(values)

    def __setitem__(self, key: Any, leaf: Any) -> None:
        self.live.update(self.pack_key(key), self.pack_leaf(leaf))

    def __delitem__(self, key: Any) -> None:
        if not self.live.delete(self.pack_key(key)):
            raise KeyError(key)

    def __iter__(self) -> Iterator[Any]:
        for data in self._read_keys():
            yield self.make_key(data)

    def _read_keys(self) -> Iterable[bytes]:
        """The keys that there are now: an iteration may delete what it sees."""
        return [key for key, _ in self.live.items()]

    def __len__(self) -> int:
        return sum(1 for _ in self.live.items())

    def iter(self) -> Iterator[Any]:
        """Iterate over the keys."""
        return iter(self)

    def keys(self) -> Any:
        """Iterate over the keys."""
        return iter(self)

    def iteritems(self) -> Iterator[tuple[Any, Any]]:
        """Iterate over the entries."""
        for key, values in self.live.items():
            yield self.make_key(key), self.make_leaf(values)

    def itervalues(self) -> Iterator[Any]:
        """Iterate over the leaves."""
        for _, leaf in self.iteritems():
            yield leaf

    def items(self) -> Any:
        """Return the list of all entries."""
        return list(self.iteritems())

    def values(self) -> Any:
        """Return the list of all leaves."""
        return list(self.itervalues())

    def next(self, key: Any) -> Any:
        """Return the key behind `key` in the kernel's order (None: the first one). Raises StopIteration at the end."""
        data = self.live.next_key(None if key is None else self.pack_key(key))
        if data is None:
            raise StopIteration
        return self.make_key(data)

    def clear(self) -> None:
        """Delete all entries."""
        operations(self.live).delete_batch(self.live, list(self._read_keys()))

    def zero(self) -> None:
        """Set all leaves to zero."""
        empty = bytes(self.live.spec.value_size)
        for key in list(self._read_keys()):
            self.live.update(key, empty)


def _from_bytes(kind: Any, data: bytes) -> Any:
    """Make a value of class `kind`; one that is longer or shorter than the data is cut or filled with zeros."""
    size = ct.sizeof(kind)
    return kind.from_buffer_copy(data if len(data) >= size else data.ljust(size, b"\0"))


class HashTable(TableBase):
    """A hash."""


class LruHash(HashTable):
    """A hash that forgets what was not used for long."""


class LpmTrie(TableBase):
    """A trie of prefixes: a key is its length in bits and the data. It has no length."""

    def __len__(self) -> int:
        raise NotImplementedError("a trie cannot tell how many entries it has")


class MapInMapHash(HashTable):
    """A hash of maps: a leaf to store is another table or a map's descriptor; what is read back is its number."""

    def __setitem__(self, key: Any, leaf: Any) -> None:
        super().__setitem__(key, descriptor_of(leaf))


def descriptor_of(leaf: Any) -> Any:
    """Return the descriptor of a table, function or file; other leaves as they are."""
    for name in ("map_fd", "fd"):
        found = getattr(leaf, name, None)
        if isinstance(found, int):
            return found
    return leaf.fileno() if hasattr(leaf, "fileno") else leaf

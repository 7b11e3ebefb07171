"""Whole batches of a table: to read, to take out, to delete, to write."""

from __future__ import annotations

import ctypes as ct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import Any

    from ....kernel.maps import KernelMap


class Batches:
    """The methods of tables for many entries at once. Where the kernel has no batches, it is done entry by entry."""

    live: KernelMap
    max_entries: int
    iteritems: Callable[[], Iterator[tuple[Any, Any]]]
    clear: Callable[[], None]
    make_key: Callable[[bytes], Any]
    make_leaf: Callable[[Sequence[bytes]], Any]
    pack_key: Callable[[Any], bytes]
    pack_leaf: Callable[[Any], bytes]

    def items_lookup_batch(self) -> Iterator[tuple[Any, Any]]:
        """Yield all entries, read in batches."""
        return self.iteritems()

    def items_lookup_and_delete_batch(self) -> Iterator[tuple[Any, Any]]:
        """Take all entries out: yield each, and none of them is in the table any more."""
        for key, values in operations(self.live).take_all(self.live):
            yield self.make_key(key), self.make_leaf(values)

    def items_delete_batch(self, ct_keys: Any = None) -> None:
        """Delete the keys of a ctypes array, or all. Raises TypeError, ValueError for what is no such array."""
        if ct_keys is None:
            self.clear()
        else:
            self._check_arrays(ct_keys)
            operations(self.live).delete_batch(self.live, [self.pack_key(key) for key in _elements(ct_keys)])

    def items_update_batch(self, ct_keys: Any, ct_values: Any) -> None:
        """Store the leaves of one ctypes array at the keys of another. Raises TypeError, ValueError, SondeError."""
        self._check_arrays(ct_keys, ct_values)
        keys = [self.pack_key(key) for key in _elements(ct_keys)]
        operations(self.live).update_batch(self.live, keys, [self.pack_leaf(leaf) for leaf in _elements(ct_values)])

    def _check_arrays(self, *arrays: Any) -> None:
        for array in arrays:
            if not isinstance(array, ct.Array):
                raise TypeError(f"a batch takes ctypes arrays, not a {type(array).__name__}")
            if not 1 <= len(array) <= self.max_entries:
                raise ValueError(f"an array of {len(array)} for a table of {self.max_entries} entries")
        if len({len(array) for array in arrays}) > 1:
            raise ValueError("the arrays of keys and of leaves differ in length")


def operations(live: Any) -> Any:
    """Return what there is to be done with a live map besides its methods: `kernel.mapops`, or what the map has in its place."""
    found = getattr(live, "operations", None)
    if found is not None:
        return found
    from ....kernel import mapops

    return mapops


def _elements(array: Any) -> Iterator[Any]:
    """The elements of a ctypes array as ctypes values (indexing one of numbers gives plain ones)."""
    kind, size = array._type_, ct.sizeof(array._type_)
    data = bytes(array)
    for at in range(0, len(data), size):
        yield kind.from_buffer_copy(data, at)

"""Tables whose keys are the numbers from 0 on: arrays of numbers, of programs, of cgroups, of maps, of devices, of sockets."""

from __future__ import annotations

import ctypes as ct
import os

from ....errors import UsageError
from .base import TableBase, descriptor_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any


class ArrayBase(TableBase):
    """An array. An index may be a plain number; a negative one counts from the end."""

    def pack_key(self, key: Any) -> bytes:
        if isinstance(key, ct._SimpleCData):
            key = key.value
        if not isinstance(key, int):
            raise IndexError("Array index must be an integer type")
        if key < 0:
            key += self.max_entries
        if not 0 <= key < self.max_entries:
            raise IndexError("Array index out of range")
        index: int = key
        return index.to_bytes(self.live.spec.key_size, "little")

    def __len__(self) -> int:
        return self.max_entries

    def _read_keys(self) -> Iterable[bytes]:
        size = self.live.spec.key_size
        return (index.to_bytes(size, "little") for index in range(self.max_entries))

    def iteritems(self) -> Iterator[tuple[Any, Any]]:
        """Iterate over the entries; those of an array of descriptors that are empty are left out."""
        for key in self._read_keys():
            values = self.live.lookup(key)
            if values is not None:
                yield self.make_key(key), self.make_leaf(values)

    def clearitem(self, key: Any) -> None:
        """Set an element to zero."""
        self.live.update(self.pack_key(key), bytes(self.live.spec.value_size))

    def clear(self) -> None:
        """Delete (an array of values: set to zero) every element."""
        for key in self._read_keys():
            self.live.delete(key)


class Array(ArrayBase):
    """An array of values, all of which are always there: deleting one sets it to zero."""

    def __delitem__(self, key: Any) -> None:
        self.clearitem(key)

    def clear(self) -> None:
        self.zero()

    def iteritems(self) -> Iterator[tuple[Any, Any]]:
        for key, values in self.live.items():
            yield self.make_key(key), self.make_leaf(values)


class ProgArray(ArrayBase):
    """An array of programs for tail calls: a leaf to store is a Function or a descriptor."""

    def __setitem__(self, key: Any, leaf: Any) -> None:
        super().__setitem__(key, descriptor_of(leaf))


class CgroupArray(ArrayBase):
    """An array of cgroups: a leaf to store is a descriptor or the path of a directory of the cgroup file system."""

    def __setitem__(self, key: Any, leaf: Any) -> None:
        if isinstance(leaf, (str, bytes, os.PathLike)):
            fd = os.open(leaf, os.O_RDONLY | os.O_CLOEXEC)
            try:
                super().__setitem__(key, fd)
            finally:
                os.close(fd)
        elif isinstance(leaf, (int, ct._SimpleCData)):
            super().__setitem__(key, leaf)
        else:
            raise UsageError("an element of a cgroup array is a descriptor or the path of a cgroup")


class DevMap(ArrayBase):
    """An array of network devices to redirect to; leaves are interface indices."""


class CpuMap(ArrayBase):
    """An array of CPUs to redirect to; leaves are queue lengths."""


class XskMap(ArrayBase):
    """An array of AF_XDP sockets: a leaf to store is a socket or its descriptor."""

    def __setitem__(self, key: Any, leaf: Any) -> None:
        super().__setitem__(key, descriptor_of(leaf))


class MapInMapArray(ArrayBase):
    """An array of maps: a leaf to store is another table or a map's descriptor; what is read back is its number."""

    def __setitem__(self, key: Any, leaf: Any) -> None:
        super().__setitem__(key, descriptor_of(leaf))

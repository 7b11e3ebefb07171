"""Per-CPU tables: a leaf is an array of one value for each possible CPU, which a reducer may turn into one."""

from __future__ import annotations

import ctypes as ct
from functools import reduce

from ..values import to_bytes
from .arrays import Array
from .base import HashTable, TableBase

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from ....kernel.maps import KernelMap


class PerCpuBase(TableBase):
    """What per-CPU tables have in common. `sLeaf` is the class of one CPU's value, `Leaf` that of all of them."""

    def __init__(
        self,
        bpf: Any,
        live: KernelMap,
        keytype: Any,
        leaftype: Any,
        name: bytes = b"",
        reducer: Callable[[Any, Any], Any] | None = None,
        **_: Any,
    ) -> None:
        super().__init__(bpf, live, keytype, leaftype, name)
        self.reducer = reducer
        self.sLeaf = leaftype
        self.total_cpu = live.copies
        self.Leaf = leaftype * self.total_cpu

    def make_leaf(self, values: Sequence[bytes]) -> Any:
        found = self.Leaf.from_buffer_copy(b"".join(values))
        return reduce(self.reducer, found) if self.reducer else found

    def getvalue(self, key: Any) -> Any:
        """Return the array of the values of all CPUs. Raises KeyError."""
        values = self.live.lookup(self.pack_key(key))
        if values is None:
            raise KeyError(key)
        return self.Leaf.from_buffer_copy(b"".join(values))

    def __setitem__(self, key: Any, leaf: Any) -> None:
        """Store an array of one value for each CPU, or one value for all of them."""
        size = self.live.spec.value_size
        what = f"a leaf of {self._name.decode(errors='replace')}"
        if isinstance(leaf, (ct.Array, list, tuple)) and len(leaf) == self.total_cpu:
            self.live.update_each(self.pack_key(key), [to_bytes(value, self.sLeaf, size, what) for value in leaf])
        else:
            self.live.update(self.pack_key(key), to_bytes(leaf, self.sLeaf, size, what))

    def items_update_batch(self, ct_keys: Any, ct_values: Any) -> None:
        """Store arrays of leaves, one after the other."""
        self._check_arrays(ct_keys, ct_values)
        for key, leaf in zip(ct_keys, ct_values):
            self[key] = leaf

    def _numbers(self, key: Any, what: str) -> list[int]:
        if not issubclass(self.sLeaf, ct._SimpleCData):
            raise IndexError(f"Leaf must be an integer type for default {what} functions")
        return list(self.getvalue(key))

    def sum(self, key: Any) -> Any:
        """Return the sum over all CPUs as a leaf of one. Raises KeyError, IndexError for leaves that are no numbers."""
        return self.sLeaf(sum(self._numbers(key, "sum")))

    def max(self, key: Any) -> Any:
        """Return the largest value of any CPU as a leaf of one. Raises what `sum` raises."""
        return self.sLeaf(max(self._numbers(key, "max")))

    def average(self, key: Any) -> float:
        """Return the mean over all possible CPUs. Raises what `sum` raises."""
        total: int = self.sum(key).value
        return total / self.total_cpu


class PerCpuHash(PerCpuBase, HashTable):
    """A hash with one value for each CPU."""


class LruPerCpuHash(PerCpuHash):
    """A per-CPU hash that forgets what was not used for long."""


class PerCpuArray(PerCpuBase, Array):
    """An array with one value for each CPU."""

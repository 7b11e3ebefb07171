"""Queues and stacks: tables without keys, from which values are taken."""

from __future__ import annotations

from ..values import to_bytes
from .batches import operations
from .wording import from_text, to_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from ....kernel.maps import KernelMap


class QueueStack:
    """A queue (first in, first out) or a stack (last in, first out)."""

    BPF_EXIST = 2  # for push: when it is full, drop the oldest

    def __init__(self, bpf: Any, live: KernelMap, keytype: Any, leaftype: Any, name: bytes = b"", **_: Any) -> None:
        from ....kernel.abi import map_type

        self.bpf = bpf
        self.live = live
        self.Leaf = leaftype
        self.ttype = map_type(live.spec.type)
        self.flags = live.spec.flags
        self.max_entries = live.spec.max_entries
        self._name = name

    @property
    def map_fd(self) -> int:
        """The map's descriptor."""
        return self.live.fd

    def get_fd(self) -> int:
        """Return the map's descriptor."""
        return self.live.fd

    def leaf_sprintf(self, leaf: Any) -> bytes:
        """Write a leaf as text."""
        return to_text(leaf).encode("latin-1")

    def leaf_scanf(self, leaf_str: str | bytes) -> Any:
        """Read a leaf from text. Raises ValueError."""
        return from_text(leaf_str, self.Leaf)

    def push(self, leaf: Any, flags: int = 0) -> None:
        """Add a value. Raises KernelError when it is full."""
        size = self.live.spec.value_size
        operations(self.live).push(
            self.live, to_bytes(leaf, self.Leaf, size, f"a leaf of {self._name.decode(errors='replace')}"), flags
        )

    def pop(self) -> Any:
        """Take the next value out. Raises KeyError when there is none."""
        return self._found(operations(self.live).pop(self.live), "Could not pop from table")

    def peek(self) -> Any:
        """Return the next value and leave it there. Raises KeyError when there is none."""
        return self._found(operations(self.live).peek(self.live), "Could not peek table")

    def _found(self, data: bytes | None, message: str) -> Any:
        if data is None:
            raise KeyError(message)
        return self.Leaf.from_buffer_copy(data)

    def itervalues(self) -> Iterator[Any]:
        """Take the values out one after the other, `max_entries` at most."""
        for _ in range(self.max_entries):
            try:
                yield self.pop()
            except KeyError:
                return

    def values(self) -> list[Any]:
        """Take all values out."""
        return list(self.itervalues())

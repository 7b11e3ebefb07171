"""Stack ids to stacks: the addresses are read from the stack trace map when a stack is decoded, its symbols later."""

from __future__ import annotations

from struct import Struct

from ..spec.layout import Stack

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from ..spec.engine import Map, Symbolizer
    from ..spec.layout import Layout


class StackSource:
    """Reads captured stacks of an object's stack trace maps. A stack is read once; ids are never reused by programs."""

    __slots__ = ("_cache", "_maps", "symbolizer")

    def __init__(self, maps: Mapping[str, Map], symbolizer: Symbolizer | None = None) -> None:
        self._maps = maps
        self._cache: dict[tuple[str, int], tuple[int, ...]] = {}
        self.symbolizer = symbolizer

    def decoder(self, layout: Layout) -> Callable[[bytes], Stack]:
        """Return bytes -> Stack for a "kstack" or "ustack" layout; params "map" (its map), "mode", "limit"."""
        space = "kernel" if layout.kind == "kstack" else "user"
        map_name, mode = layout.get_param("map", ""), layout.get_param("mode", "bpftrace")
        limit = layout.get_param("limit", 127)
        map_name = map_name or f"stacks_{limit}"
        unpack: Callable[[Any], tuple[int, ...]] = Struct("<q" if layout.size < 12 else "<qI").unpack_from

        def decode(data: bytes) -> Stack:
            stack_id, *rest = unpack(data)
            pid = rest[0] if rest else 0
            if stack_id < 0:
                return Stack(space, (stack_id, pid), (), pid, mode, -stack_id, self.symbolizer)
            return Stack(space, (stack_id, pid), self.read(map_name, stack_id), pid, mode, 0, self.symbolizer)

        return decode

    def read(self, map_name: str, stack_id: int) -> tuple[int, ...]:
        """Return the addresses of a stack, innermost first; () when the map does not hold it."""
        key = (map_name, stack_id)
        if key not in self._cache:
            stacks = self._maps.get(map_name)
            found = stacks.lookup(stack_id.to_bytes(4, "little")) if stacks is not None else None
            self._cache[key] = _addresses(found[0]) if found else ()
        return self._cache[key]


def _addresses(data: bytes) -> tuple[int, ...]:
    """Return the u64 addresses in `data` up to the first 0."""
    addresses = Struct(f"<{len(data) // 8}Q").unpack_from(data)
    return addresses[: addresses.index(0)] if 0 in addresses else addresses

"""Stack ids to stacks: the addresses are read from the stack trace map when a stack is decoded, its symbols later."""

from __future__ import annotations

from struct import Struct

from ..spec.layout import Frame, Stack

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from ..spec.engine import Map, Symbolizer
    from ..spec.layout import Layout

DEFAULT_LIMIT = 127


class BuildIdStack(Stack, eq=False):
    """A stack of a map with build ids: `build_ids` goes with `pcs`, which are offsets in files ("": an address)."""

    build_ids: tuple[str, ...] = ()

    def frames(self) -> tuple[Frame, ...]:
        """Return the frames; the module is the build id, the offset that in the file."""
        return tuple(Frame(pc, "", pc if ident else 0, ident) for pc, ident in zip(self.pcs, self.build_ids))


class StackSource:
    """Reads the captured stacks of an object's stack trace maps, each of them once."""

    __slots__ = ("_cache", "_maps", "symbolizer")

    def __init__(self, maps: Mapping[str, Map], symbolizer: Symbolizer | None = None) -> None:
        self._maps = maps
        self._cache: dict[tuple[str, int], bytes] = {}
        self.symbolizer = symbolizer

    def decoder(self, layout: Layout) -> Callable[[bytes], Stack]:
        """Return bytes -> Stack for a "kstack" or "ustack" layout; its params are told in spec.layout."""
        space = "kernel" if layout.kind == "kstack" else "user"
        mode = layout.get_param("mode", "bpftrace")
        map_name = layout.get_param("map", "") or f"stacks_{layout.get_param('limit', DEFAULT_LIMIT)}"
        id_bytes = 8 if layout.get_param("hashed") else 4
        unpack: Callable[[Any], tuple[int, ...]] = Struct("<q" if layout.size < 12 else "<qI").unpack_from
        frame_bytes = 32 if mode == "build_id" else 8
        symbolizer = self.symbolizer

        def decode(data: bytes) -> Stack:
            stack_id, *rest = unpack(data)
            pid = rest[0] if rest else 0
            if stack_id < 0:
                return Stack(space, (stack_id, pid), (), pid, mode, -stack_id, symbolizer)
            captured = self.read(map_name, stack_id, id_bytes, frame_bytes)
            if mode == "build_id":
                pcs, build_ids = split_build_ids(captured)
                return BuildIdStack(space, (stack_id, pid), pcs, pid, mode, 0, symbolizer, build_ids)
            return Stack(space, (stack_id, pid), split_addresses(captured), pid, mode, 0, symbolizer)

        return decode

    def read(self, map_name: str, stack_id: int, id_bytes: int = 4, frame_bytes: int = 8) -> bytes:
        """Return the frames of a captured stack; b"" when the map does not hold it.

        Ids of 8 bytes are those of a plain hash, whose values begin with the number of frames.
        """
        key = (map_name, stack_id)
        if key not in self._cache:
            stacks = self._maps.get(map_name)
            found = stacks.lookup(stack_id.to_bytes(8, "little")[:id_bytes]) if stacks is not None else None
            data = found[0] if found else b""
            if id_bytes == 8:
                data = data[8 : 8 + int.from_bytes(data[:8], "little") * frame_bytes]
            else:
                data = data[: _used_bytes(data, frame_bytes)]
            self._cache[key] = data
        return self._cache[key]


def split_addresses(data: bytes) -> tuple[int, ...]:
    """Return the u64 addresses in `data`."""
    return Struct(f"<{len(data) // 8}Q").unpack_from(data)


def split_build_ids(data: bytes) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """Return (offsets or addresses, build ids) of an array of struct bpf_stack_build_id (32 bytes each)."""
    pcs, idents = [], []
    for status, ident, pc in Struct("<i20sQ").iter_unpack(data[: len(data) // 32 * 32]):
        if status == _EMPTY:
            break
        pcs.append(pc)
        idents.append(ident.rstrip(b"\0").hex() if status == _VALID else "")
    return tuple(pcs), tuple(idents)


_EMPTY, _VALID = 0, 1  # BPF_STACK_BUILD_ID_*; 2 is a plain address


def _used_bytes(data: bytes, size: int) -> int:
    """Return how many bytes the items of `size` bytes take that stand before the zeros at the end."""
    return -(-len(data.rstrip(b"\0")) // size) * size

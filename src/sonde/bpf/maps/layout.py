"""Where the parts of a map lie, as plain numbers: what machine code for a map is made of. Maps of equal layout share their code."""

from __future__ import annotations

from ...record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from . import SharedMap

_MOST_KEY_BYTES = 4096  # hashing and comparing are not loops: 100 bytes of code for 16 of the key
_MOST_CELLS = 1 << 27  # so that sixteen bytes each fit a signed 32-bit offset
_MOST_OFFSET = 1 << 31
_MOST_VALUE_BYTES = 1 << 16
_HASHED = ("hash", "percpu_hash", "lru_hash", "lru_percpu_hash", "lpm_trie")
_OTHERS = ("array", "percpu_array", "queue", "stack", "bloom_filter", "ringbuf", "stack_trace")


class MapLayout(Record):
    """The layout of a map, as `maps.base` describes it. Offsets are from the map's address.

    `max_entries` is what the map may hold, `places` how many entries there is room for: hashes have spare ones. `extra` is as in the header.
    """

    kind: str
    key_size: int
    value_size: int
    max_entries: int
    places: int
    entries: int
    entry_stride: int
    value_offset: int
    value_stride: int
    cells: int
    mask: int
    extra: int
    copies: int

    @property
    def hashed(self) -> bool:
        """Whether entries are found by hash."""
        return self.kind in _HASHED

    @property
    def per_cpu(self) -> bool:
        """Whether each CPU has its own copy of a value."""
        return "percpu" in self.kind

    @property
    def lru(self) -> bool:
        """Whether a full map throws out what was not used."""
        return "lru" in self.kind


def layout_of(table: SharedMap) -> MapLayout | None:
    """Return the layout; None for types and sizes that no machine code is made for."""
    shape, plan = table.shape, table.layout
    hashed = shape.kind in _HASHED
    if not (hashed or shape.kind in _OTHERS) or plan.size >= _MOST_OFFSET or shape.value_size > _MOST_VALUE_BYTES:
        return None
    if shape.key_size > _MOST_KEY_BYTES or (hashed and plan.mask >= _MOST_CELLS):
        return None
    return MapLayout(
        shape.kind, shape.key_size, shape.value_size, shape.max_entries, plan.extra if hashed else shape.max_entries, plan.entries,
        plan.entry_stride, plan.value_offset, plan.value_stride, plan.cells, plan.mask, plan.extra, plan.copies,
    )  # fmt: skip

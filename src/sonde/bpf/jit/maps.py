"""Which look-ups of a program the JIT carries out itself: what it must know of the maps, and where a call works on which map."""

from __future__ import annotations

from ...record import Record
from ..isa import CALL, LDDW, Insn

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ..maps import SharedMap

LOOKUP = 1  # bpf_map_lookup_elem
_MOST_KEY_BYTES = 64
_MOST_CELLS = 1 << 27  # so that sixteen bytes each fit a signed 32-bit offset
_MOST_OFFSET = 1 << 31
_INLINED = ("array", "percpu_array", "hash", "percpu_hash", "lru_hash", "lru_percpu_hash")
_MOV64 = 0xBF


class MapLayout(Record):
    """The layout of a map, as `maps.base` describes it: what a look-up in machine code is made of. Offsets are from the map's address."""

    kind: str
    key_size: int
    value_size: int
    max_entries: int  # array: the number of entries; hash: of all places for entries, spare ones included
    entries: int
    entry_stride: int
    value_offset: int
    value_stride: int
    cells: int
    mask: int
    per_cpu: bool
    lru: bool = False


class MapPlan(Record, eq=False):
    """What the JIT looks up itself: layouts by the map's number in the code. Other maps are left to the helper.

    `cpu_code` is machine code that loads the number of the running CPU into the scratch register r11d (x86-64) and changes nothing else: an engine knows how,
    by rseq for example. Without it the number is read at an address that is filled in when the code is placed (relocation "cpu").
    """

    layouts: Mapping[int, MapLayout]
    cpu_code: bytes = b""


def layout_of(table: SharedMap) -> MapLayout | None:
    """Return the layout for look-ups in machine code; None for types and sizes that are left to the helper."""
    shape, plan = table.shape, table.layout
    if shape.kind not in _INLINED or plan.size >= _MOST_OFFSET:
        return None
    hashed = "hash" in shape.kind
    if hashed and (shape.key_size > _MOST_KEY_BYTES or plan.mask >= _MOST_CELLS):
        return None
    return MapLayout(
        shape.kind,
        shape.key_size,
        shape.value_size,
        plan.extra if hashed else shape.max_entries,
        plan.entries,
        plan.entry_stride,
        plan.value_offset,
        plan.value_stride,
        plan.cells,
        plan.mask,
        "percpu" in shape.kind,
        "lru" in shape.kind,
    )


def make_plan(tables: Mapping[int, SharedMap], *, cpu_code: bytes = b"") -> MapPlan:
    """Return the plan for the maps of a program, by their numbers in the code."""
    found = {number: layout_of(table) for number, table in tables.items()}
    return MapPlan({number: layout for number, layout in found.items() if layout is not None}, cpu_code)


def find_lookups(body: Sequence[tuple[int, Insn]], leaders: frozenset[int], plan: MapPlan) -> dict[int, int]:
    """Return the map numbers of look-ups of planned maps, by pc: where the same straight run loads the map before.

    `leaders` are the pcs that jumps lead to, where nothing is known.
    """
    found: dict[int, int] = {}
    known: dict[int, int] = {}  # register to map number
    for pc, insn in body:
        if pc in leaders:
            known.clear()
        class_ = insn.opcode & 7
        if insn.opcode == LDDW and insn.src in (1, 5):
            known[insn.dst] = insn.imm & 0xFFFFFFFF
        elif insn.opcode & ~8 == CALL:
            number = known.get(1, -1)
            if insn.opcode == CALL and insn.src == 0 and insn.imm == LOOKUP and number in plan.layouts:
                found[pc] = number
            for register in range(6):
                known.pop(register, None)
        elif insn.opcode == _MOV64 and insn.off == 0 and insn.src in known:
            known[insn.dst] = known[insn.src]
        elif class_ in (0, 1, 4, 7):
            known.pop(insn.dst, None)
            if class_ == 0:
                known.pop(0, None)
        elif class_ == 3 and insn.opcode & 0xE0 == 0xC0:  # atomics may change either, and r0
            for register in (insn.dst, insn.src, 0):
                known.pop(register, None)
    return found

"""The helpers of maps as eBPF routines, by type of map and number of helper: what the JIT puts behind a program that runs where there is neither a
kernel nor Python.

    routine = make_routine(layout_of(table), 2)       bpf_map_update_elem
    translate(routine.insns, arch)                    position-independent, nothing outside is needed

Routines make no system call and need no library, and any number of threads and processes call them at the same time. See `routines` for how they are called.
"""

from __future__ import annotations

from functools import partial

from ...errors import FeatureError
from ...record import Record
from ..isa import Insn
from . import callback_routines as callbacks
from . import plain_routines as plain
from .base import round_up
from .callback_routines import MOST_COPIED
from .layout import MapLayout
from .lpm_routines import LpmRoutine
from .ring_routines import ring_text
from .routines import HashRoutine

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

LOOKUP, UPDATE, DELETE, PUSH, POP, PEEK, LOOKUP_PERCPU = 1, 2, 3, 87, 88, 89, 195
RING_OUTPUT, RING_RESERVE, RING_SUBMIT, RING_DISCARD, RING_QUERY = 130, 131, 132, 133, 134
FOR_EACH, LOOP = 164, 181
STACK_PUT = 1 << 16  # no helper of programs: what an engine does with a stack that it walked
FINISHERS = (RING_SUBMIT, RING_DISCARD)  # of a record: their first argument is no map
_HASHES = ("hash", "percpu_hash", "lru_hash", "lru_percpu_hash")
_ARRAYS = ("array", "percpu_array")
_RING_NAMES = {
    RING_OUTPUT: "output",
    RING_RESERVE: "reserve",
    RING_SUBMIT: "submit",
    RING_DISCARD: "discard",
    RING_QUERY: "query",
}
_FRAME_BYTES = 96  # of stack, besides a key


NO_MAP = MapLayout("", 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)  # of helpers that work on none


class Routine(Record, eq=False):
    """A helper of one layout of maps. `who`: it takes in r5 a number to claim with, in the lower half, and the number of the CPU, in the upper half."""

    insns: list[Insn]
    who: bool
    stack_bytes: int


def has_routine(layout: MapLayout, helper: int) -> bool:
    """Whether a helper has a routine for maps of a layout."""
    return (layout.kind, helper) in _TEXTS


def make_routine(layout: MapLayout, helper: int) -> Routine:
    """Return the routine of a helper for maps of a layout. Raises FeatureError when there is none."""
    maker = _TEXTS.get((layout.kind, helper))
    if maker is None:
        raise FeatureError(
            f"helper {helper} has no routine for {layout.kind} maps", feature=f"map routine:{layout.kind}"
        )
    key = (layout, helper)
    found = _made.get(key)
    if found is None:
        if len(_made) >= _REMEMBER:
            _made.clear()
        from ..asm import assemble

        insns = assemble("\n".join(maker(layout)))
        who = layout.hashed or layout.per_cpu or layout.kind in ("queue", "stack")
        found = _made[key] = Routine(insns, who, _FRAME_BYTES + min(round_up(layout.key_size), MOST_COPIED))
    return found


_REMEMBER = 500
_made: dict[tuple[MapLayout, int], Routine] = {}


def _percpu_lookup(layout: MapLayout) -> list[str]:
    """A look-up of the copy of the CPU in r3."""
    inner = plain.array_lookup(layout) if layout.kind in _ARRAYS else HashRoutine(layout).lookup()
    return [
        "w3 = w3",
        f"if r3 >= {layout.copies} goto nowhere",
        "r5 = r3",
        "r5 <<= 32",
        "call whose",
        "exit",
        "nowhere: r0 = 0",
        "exit",
        "whose:",
        *inner,
    ]


def _texts() -> dict[tuple[str, int], Callable[[MapLayout], list[str]]]:
    table: dict[tuple[str, int], Callable[[MapLayout], list[str]]] = {}
    for kind in _HASHES:
        table[kind, LOOKUP] = lambda layout: HashRoutine(layout).lookup()
        table[kind, UPDATE] = lambda layout: HashRoutine(layout).update()
        table[kind, DELETE] = lambda layout: HashRoutine(layout).delete()
        table[kind, LOOKUP_PERCPU] = _percpu_lookup
    for kind in _ARRAYS:
        table[kind, LOOKUP], table[kind, UPDATE], table[kind, DELETE] = (
            plain.array_lookup,
            plain.array_update,
            plain.array_delete,
        )
        table[kind, LOOKUP_PERCPU] = _percpu_lookup
    for kind in (*_HASHES, *_ARRAYS):
        table[kind, FOR_EACH] = callbacks.for_each
    table["stack_trace", STACK_PUT] = plain.stack_put
    table["", LOOP] = callbacks.loop
    for kind in ("queue", "stack"):
        table[kind, PUSH], table[kind, POP], table[kind, PEEK] = plain.queue_push, plain.queue_pop, plain.queue_peek
    table["bloom_filter", PUSH], table["bloom_filter", PEEK] = plain.bloom_push, plain.bloom_peek
    table["lpm_trie", LOOKUP] = lambda layout: LpmRoutine(layout).lookup()
    table["lpm_trie", UPDATE] = lambda layout: LpmRoutine(layout).update()
    table["lpm_trie", DELETE] = lambda layout: LpmRoutine(layout).delete()
    for helper, name in _RING_NAMES.items():
        table["ringbuf", helper] = partial(ring_text, name)
    return table


_TEXTS = _texts()

"""Helpers that call back, as eBPF: over all entries of a map, and a number of times. What they call is a local function of the program, by its address.

    for_each(map, function, context, flags, who)    how many entries were visited, or a negative errno: function(map, key, value, context)
    loop(times, function, context, flags)           how many times it was called, or a negative errno: function(number, context)

Both end when the function returns something else than 0. A key of up to MOST_COPIED bytes is copied for its function, so that it stays what it is when its entry goes to
another key meanwhile.
"""

from __future__ import annotations

from errno import E2BIG, EINVAL

from .base import round_up
from .hash import ENTRY_HEADER
from .routines import copy

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .layout import MapLayout

_MOST_LOOPS = 8 << 20
_COUNT, _CPU, _KEY = -8, -16, -24  # in the frame
MOST_COPIED = 264  # bytes of a key: the longest of an LPM trie is copied as well


def for_each(layout: MapLayout) -> list[str]:
    """Visit the entries of a hash map or an array."""
    return [
        "if r4 == 0x0 goto good", f"r0 = {-EINVAL}", "exit",
        "good: r6 = r1", "r7 = r2", "r8 = r3", "r9 = 0", f"*(u64 *)(r10 {_COUNT}) = 0",
        "r5 >>= 32", f"r5 *= {layout.value_stride if layout.per_cpu else 0}", f"*(u64 *)(r10 {_CPU}) = r5",
        *(_entries(layout) if layout.hashed else _elements(layout)),
        f"done: r0 = *(u64 *)(r10 {_COUNT})", "exit",
    ]  # fmt: skip


def _visit(key: list[str]) -> list[str]:
    """Call with the value in r3 and the key, whose address `key` loads into r2 while r0 stays; to "done" when that is enough."""
    return [
        f"r2 = *(u64 *)(r10 {_CPU})", "r3 += r2", f"r1 = *(u64 *)(r10 {_COUNT})", "r1 += 1", f"*(u64 *)(r10 {_COUNT}) = r1",
        "r1 = r6", *key, "r4 = r8", "callx r7", "if r0 != 0x0 goto done",
    ]  # fmt: skip


def _elements(layout: MapLayout) -> list[str]:
    return [
        f"next: *(u64 *)(r10 {_KEY}) = r9", "r3 = r9", f"r3 *= {layout.entry_stride}", "r3 += r6", f"r3 += {layout.entries}",
        *_visit(["r2 = r10", f"r2 += {_KEY}"]), "r9 += 1", f"if r9 < {layout.max_entries} goto next",
    ]  # fmt: skip


def _entries(layout: MapLayout) -> list[str]:
    place, key, copied = _CPU - round_up(layout.key_size), ["r2 = r0", f"r2 += {ENTRY_HEADER}"], list[str]()
    if layout.key_size <= MOST_COPIED:  # longer ones are shown where they stand
        copied = ["r1 = r10", f"r1 += {place}", *key, *_acquired(layout.key_size)]
        key = ["r2 = r10", f"r2 += {place}"]
    return [
        "next: r1 = r9", "r1 <<= 4", "r1 += r6", f"r1 += {layout.cells + 8}", "r0 = load_acquire((u64 *)(r1 +0))",
        "w0 += -1", f"if r0 >= {layout.places} goto skip",
        f"r0 *= {layout.entry_stride}", "r0 += r6", f"r0 += {layout.entries}",
        "r5 = load_acquire((u64 *)(r0 +0))", "w5 = w5", "if r5 & 0x1 goto skip",
        *copied,
        "r1 = *(u32 *)(r0 +0)", "if r1 != r5 goto skip",
        "r3 = r0", f"r3 += {layout.value_offset}", *_visit(key),
        "skip: r9 += 1", f"if r9 <= {layout.mask} goto next",
    ]  # fmt: skip


def _acquired(size: int) -> list[str]:
    """Copy a key so that what is read next is read after it."""
    return [
        line.replace("r3 = *", "r3 = load_acquire(") + ")" if "r3 = *" in line else line for line in copy(size, "key")
    ]


def loop(_: MapLayout) -> list[str]:
    """Call a function a number of times."""
    return [
        "if r4 == 0x0 goto good", f"r0 = {-EINVAL}", "exit",
        "good: w1 = w1", f"if r1 <= {_MOST_LOOPS} goto some", f"r0 = {-E2BIG}", "exit",
        "some: r6 = r1", "r7 = r2", "r8 = r3", "r9 = 0",
        "next: if r9 >= r6 goto done", "r1 = r9", "r2 = r8", "callx r7", "r9 += 1", "if r0 == 0x0 goto next",
        "done: r0 = r9", "exit",
    ]  # fmt: skip

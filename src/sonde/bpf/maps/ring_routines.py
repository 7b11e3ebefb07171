"""Helpers of ring buffers as eBPF: what machine code calls where there is neither a kernel nor Python.

    reserve(map, size, flags)       the record's address, or 0
    submit(record, flags)           0
    discard(record, flags)          0
    output(map, data, size, flags)  0 or a negative errno

    query(map, what)                what ringbuf_query returns

They do what `ringbuf.RingMap` does, but wake nobody: that is for the engine, or the consumer looks now and then. A record that finds no room is
counted in the header (`base.LOST`).
"""

from __future__ import annotations

from errno import EAGAIN, EINVAL
from mmap import PAGESIZE

from .base import LOST
from .ringbuf import AVAIL_DATA, BUSY, CONS_POS, DISCARDED, FORCE_WAKEUP, NO_WAKEUP, PROD_POS, RING_SIZE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .layout import MapLayout

ROUTINES = ("reserve", "submit", "discard", "output", "query")


def ring_text(name: str, layout: MapLayout) -> list[str]:
    """Return the text of a routine for rings of this size."""
    return _TEXTS[name](layout)


def _reserve(plan: MapLayout) -> list[str]:
    """Move the producers' position, and write the header of what it moved over. Nothing but the registers of arguments is used."""
    shift, position = PAGESIZE.bit_length() - 1, plan.cells + PAGESIZE
    consumer = [f"r4 = load_acquire((u64 *)(r1 {-PAGESIZE:+d}))"]
    if PAGESIZE > 1 << 15:
        consumer = ["r4 = r1", f"r4 += {-PAGESIZE}", "r4 = load_acquire((u64 *)(r4 +0))"]
    return [
        "if r3 != 0x0 goto refuse", f"if r2 >= {DISCARDED} goto none", "r5 = r2", "r5 += 15", "r5 &= -8", f"if r5 > {plan.mask} goto none",
        f"r1 += {position}",
        "again: r0 = load_acquire((u64 *)(r1 +0))", *consumer, "r3 = r0", "r3 += r5", "r4 = -r4", "r4 += r3", f"if r4 > {plan.mask} goto full",
        "r4 = r0", "r0 = atomic64_cmpxchg((u64 *)(r1 +0), r0, r3)", "if r0 != r4 goto again",
        f"r0 &= {plan.mask}", f"r0 += {plan.entries}", "r3 = r0", f"r3 >>= {shift}", "r3 <<= 32", f"r4 = {BUSY} ll", "r3 |= r4", "r3 |= r2",
        f"r1 += {-position}", "r0 += r1", "store_release((u64 *)(r0 +0), r3)", "r0 += 8", "exit",
        f"full: r1 += {-position}", "none: r2 = 1", f"lock *(u64 *)(r1 +{LOST}) += r2", "refuse: r0 = 0", "exit",
    ]  # fmt: skip


def _finish(discard: bool) -> list[str]:
    """Take "busy" out of the header of the record in r1. Nobody else changes this word until then, so a store that releases is enough."""
    bits = [f"w2 |= {DISCARDED}"] if discard else []
    return ["r2 = *(u32 *)(r1 -8)", f"w2 &= {BUSY - 1}", *bits, "store_release((u32 *)(r1 -8), r2)", "r0 = 0", "exit"]


def _output(plan: MapLayout) -> list[str]:
    known = NO_WAKEUP | FORCE_WAKEUP
    return [
        f"if r4 <= {known} goto good", f"r0 = {-EINVAL}", "exit",
        "good: r6 = r2", "r7 = r3", "r2 = r3", "r3 = 0", "call take",
        "if r0 != 0x0 goto copy", f"r0 = {-EAGAIN}", "exit",
        "copy: r1 = r0",
        "words: if r7 < 0x8 goto bytes", "r3 = *(u64 *)(r6 +0)", "*(u64 *)(r1 +0) = r3",
        "r6 += 8", "r1 += 8", "r7 += -8", "goto words",
        "bytes: if r7 == 0x0 goto done", "r3 = *(u8 *)(r6 +0)", "*(u8 *)(r1 +0) = r3",
        "r6 += 1", "r1 += 1", "r7 += -1", "goto bytes",
        "done: r1 = r0", *_finish(False), "take:", *_reserve(plan),
    ]  # fmt: skip


def _query(plan: MapLayout) -> list[str]:
    return [
        "r0 = 0", f"if r2 > {RING_SIZE} goto position", f"if r2 == {AVAIL_DATA} goto position", f"r0 = {plan.mask + 1}", "exit",
        "position: r3 = r1", f"r3 += {plan.cells}", "r3 = load_acquire((u64 *)(r3 +0))",
        f"r4 = r1\nr4 += {plan.cells + PAGESIZE}", "r4 = load_acquire((u64 *)(r4 +0))",
        f"if r2 != {AVAIL_DATA} goto consumer", "r0 = r4", "r0 -= r3", "exit",
        f"consumer: if r2 != {CONS_POS} goto producer", "r0 = r3", "exit",
        f"producer: if r2 != {PROD_POS} goto unknown", "r0 = r4", "exit",
        "unknown: r0 = 0", "exit",
    ]  # fmt: skip


_TEXTS = {
    "reserve": _reserve,
    "submit": lambda plan: _finish(False),
    "discard": lambda plan: _finish(True),
    "output": _output,
    "query": _query,
}

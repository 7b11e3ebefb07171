"""Helpers of ring buffers as eBPF: what machine code calls where there is neither a kernel nor Python.

    reserve(map, size, flags)       the record's address, or 0
    submit(record, flags)           0
    discard(record, flags)          0
    output(map, data, size, flags)  0 or a negative errno

They do what `ringbuf.RingMap` does, but wake nobody: that is for the engine, or the consumer looks now and then.
"""

from __future__ import annotations

from errno import EAGAIN, EINVAL
from mmap import PAGESIZE

from ..asm import assemble
from ..isa import Insn
from .ringbuf import BUSY, DISCARDED, FORCE_WAKEUP, NO_WAKEUP

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .base import Plan

ROUTINES = ("reserve", "submit", "discard", "output")


def ring_routine(plan: Plan, name: str) -> list[Insn]:
    """Return the instructions of a routine for rings of this size (`SharedMap.layout`)."""
    return assemble("\n".join(_TEXTS[name](plan)))


def _reserve(plan: Plan) -> list[str]:
    """The local function take(map, size)."""
    shift = PAGESIZE.bit_length() - 1
    return [
        "take: r6 = r1", "r7 = r2", "r8 = r1", f"r8 += {plan.cells + PAGESIZE}",
        f"if r7 >= {DISCARDED} goto none", "r9 = r7", "r9 += 15", "r9 &= -8", f"if r9 > {plan.mask} goto none",
        "again: r0 = load_acquire((u64 *)(r8 +0))", "r3 = r8", f"r3 += {-PAGESIZE}",
        "r3 = load_acquire((u64 *)(r3 +0))", "r4 = r0", "r4 += r9", "r4 -= r3", f"if r4 > {plan.mask} goto none",
        "r3 = r0", "r3 += r9", "r2 = r0", "r0 = atomic64_cmpxchg((u64 *)(r8 +0), r0, r3)", "if r0 != r2 goto again",
        f"r2 &= {plan.mask}", f"r2 += {plan.entries}", "r3 = r2", f"r3 >>= {shift}", "r3 <<= 32",
        f"r4 = {BUSY} ll", "r3 |= r4", "r3 |= r7", "r2 += r6", "store_release((u64 *)(r2 +0), r3)",
        "r0 = r2", "r0 += 8", "exit",
        "none: r0 = 0", "exit",
    ]  # fmt: skip


def _start(plan: Plan) -> list[str]:
    return ["if r3 != 0x0 goto refuse", "call take", "exit", "refuse: r0 = 0", "exit", *_reserve(plan)]


def _finish(bits: int) -> list[str]:
    """Add to the header of the record in r1, whose low half says "busy"."""
    return [f"r2 = {bits & (1 << 64) - 1} ll", "lock *(u64 *)(r1 -8) += r2", "r0 = 0", "exit"]


def _output(plan: Plan) -> list[str]:
    known = NO_WAKEUP | FORCE_WAKEUP
    return [
        f"if r4 <= {known} goto good", f"r0 = {-EINVAL}", "exit",
        "good: r6 = r2", "r7 = r3", "r2 = r3", "call take",
        "if r0 != 0x0 goto copy", f"r0 = {-EAGAIN}", "exit",
        "copy: r1 = r0",
        "words: if r7 < 0x8 goto bytes", "r3 = *(u64 *)(r6 +0)", "*(u64 *)(r1 +0) = r3",
        "r6 += 8", "r1 += 8", "r7 += -8", "goto words",
        "bytes: if r7 == 0x0 goto done", "r3 = *(u8 *)(r6 +0)", "*(u8 *)(r1 +0) = r3",
        "r6 += 1", "r1 += 1", "r7 += -1", "goto bytes",
        "done: r1 = r0", *_finish(-BUSY), *_reserve(plan),
    ]  # fmt: skip


_TEXTS = {
    "reserve": _start,
    "submit": lambda plan: _finish(-BUSY),
    "discard": lambda plan: _finish(DISCARDED - BUSY),
    "output": _output,
}

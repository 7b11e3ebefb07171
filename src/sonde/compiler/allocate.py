"""Register allocation: linear scan over live intervals, with fixed ranges for what calls read and destroy.

A value that lives across a call needs one of r6 to r9; when those run out, the interval that ends last is kept on the
stack, the code is rewritten with a load before each use and a store after each definition, and the scan starts
again. Copies hint that both sides share a register; those that do are dropped.
"""

from __future__ import annotations

from . import mcode as m
from .frame import Frame

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

_ORDER_FREE = (m.R0, m.R5, m.R4, m.R3, m.R2, m.R1, m.R6, m.R7, m.R8, m.R9)


class Interval:
    """Where a virtual register lives: from its first to its last position. `hints` are registers it is copied from or to."""

    __slots__ = ("end", "hints", "register", "start", "tiny", "uses")

    def __init__(self, register: int, start: int) -> None:
        self.register = register
        self.start = start
        self.end = start
        self.hints: list[int] = []
        self.uses = 0
        self.tiny = False


def allocate(blocks: Sequence[m.MBlock], frame: Frame) -> None:
    """Replace all virtual registers of a function by machine registers, in place; spill to `frame` where needed."""
    tiny: set[int] = set()
    while True:
        intervals, busy = _intervals(blocks)
        for register in tiny:
            if register in intervals:
                intervals[register].tiny = True
        assigned, spilled = _scan(intervals, busy)
        if not spilled:
            break
        slots = {register: frame.add_spill() for register in spilled}
        _rewrite(blocks, slots, tiny)
    _apply(blocks, assigned)


def _liveness(blocks: Sequence[m.MBlock]) -> dict[m.MBlock, set[int]]:
    """Return the virtual registers that are live at the end of each block."""
    reads: dict[m.MBlock, set[int]] = {}
    writes: dict[m.MBlock, set[int]] = {}
    for block in blocks:
        read: set[int] = set()
        written: set[int] = set()
        for op in block.ops:
            read.update(r for r in op.uses() if r >= m.FIRST_VIRTUAL and r not in written)
            written.update(op.defs())
        reads[block], writes[block] = read, written
    live_in: dict[m.MBlock, set[int]] = {block: set() for block in blocks}
    live_out: dict[m.MBlock, set[int]] = {block: set() for block in blocks}
    changed = True
    while changed:
        changed = False
        for block in reversed(blocks):
            out: set[int] = set()
            for successor in block.successors():
                out |= live_in[successor]
            into = reads[block] | (out - writes[block])
            if into != live_in[block]:
                live_in[block] = into
                changed = True
            live_out[block] = out
    return live_out


def _intervals(blocks: Sequence[m.MBlock]) -> tuple[dict[int, Interval], list[list[tuple[int, int]]]]:
    """Return the interval of each virtual register and the ranges in which each machine register is taken.

    Operation number i reads at position 2i and writes at 2i + 1.
    """
    live_out = _liveness(blocks)
    intervals: dict[int, Interval] = {}
    busy: list[list[tuple[int, int]]] = [[] for _ in range(m.FP + 1)]
    position = 0
    for block in blocks:
        start = position
        pending: dict[int, int] = {}  # machine register -> position of its last write
        live_in_here: set[int] = set()
        for op in block.ops:
            for register in op.uses():
                if register >= m.FIRST_VIRTUAL:
                    interval = intervals.get(register)
                    if interval is None:
                        interval = intervals[register] = Interval(register, start)
                    interval.end = max(interval.end, position)
                    interval.uses += 1
                elif register < m.FP:
                    busy[register].append((pending.pop(register, start), position))
            if op.form == "call":
                for register in m.CALL_CLOBBERS:
                    busy[register].append((position, position + 1))
            for register in op.defs():
                if register >= m.FIRST_VIRTUAL:
                    interval = intervals.get(register)
                    if interval is None:
                        interval = intervals[register] = Interval(register, position + 1)
                    interval.end = max(interval.end, position + 1)
                    interval.uses += 1
                else:
                    pending[register] = position + 1
            if op.form == "mov" and op.src >= 0:
                _hint(intervals, op.dst, op.src)
            position += 2
        for register in live_out[block]:
            interval = intervals.setdefault(register, Interval(register, start))
            interval.end = max(interval.end, position)
        del live_in_here
    _stretch(blocks, live_out, intervals)
    return intervals, busy


def _stretch(blocks: Sequence[m.MBlock], live_out: dict[m.MBlock, set[int]], intervals: dict[int, Interval]) -> None:
    """Make the interval of a register that is live round a loop cover all blocks it is live through."""
    starts: dict[m.MBlock, int] = {}
    position = 0
    for block in blocks:
        starts[block] = position
        position += 2 * len(block.ops)
    position = 0
    for block in blocks:
        position += 2 * len(block.ops)
        for register in live_out[block]:
            interval = intervals[register]
            interval.end = max(interval.end, position)
            for successor in block.successors():
                if starts[successor] <= starts[block]:  # a jump back
                    interval.start = min(interval.start, starts[successor])


def _hint(intervals: dict[int, Interval], a: int, b: int) -> None:
    for one, other in ((a, b), (b, a)):
        if one >= m.FIRST_VIRTUAL and one in intervals:
            intervals[one].hints.append(other)


def _scan(intervals: dict[int, Interval], busy: list[list[tuple[int, int]]]) -> tuple[dict[int, int], list[int]]:
    """Give each interval a register; return the assignment and the registers to spill."""
    for ranges in busy:
        ranges.sort()
    assigned: dict[int, int] = {}
    spilled: list[int] = []
    active: list[Interval] = []
    for interval in sorted(intervals.values(), key=lambda i: (i.start, i.register)):
        active = [a for a in active if a.end > interval.start]
        taken = {assigned[a.register] for a in active}
        choice = _choose(interval, taken, busy, assigned)
        if choice >= 0:
            assigned[interval.register] = choice
            active.append(interval)
            continue
        victim = _victim(interval, active, busy, assigned)
        if victim is not interval:
            assigned[interval.register] = assigned.pop(victim.register)
            active.remove(victim)
            active.append(interval)
        spilled.append(victim.register)
    return assigned, spilled


def _choose(interval: Interval, taken: set[int], busy: list[list[tuple[int, int]]], assigned: dict[int, int]) -> int:
    """Return a free register for the interval, a hinted one if possible; -1 when there is none."""
    for hint in interval.hints:
        register = assigned.get(hint, hint)
        if register < m.FP and register not in taken and _free(busy[register], interval):
            return register
    for register in _ORDER_FREE:
        if register not in taken and _free(busy[register], interval):
            return register
    return -1


def _free(ranges: list[tuple[int, int]], interval: Interval) -> bool:
    start, end = interval.start, interval.end
    for first, last in ranges:
        if first >= end:
            return True
        if last > start:
            return False
    return True


def _victim(
    interval: Interval, active: list[Interval], busy: list[list[tuple[int, int]]], assigned: dict[int, int]
) -> Interval:
    """Return the interval to keep on the stack: the one that ends last among those whose register would do."""
    best = None if interval.tiny else interval
    for candidate in active:
        if candidate.tiny or not _free(busy[assigned[candidate.register]], interval):
            continue
        if best is None or candidate.end > best.end:
            best = candidate
    assert best is not None, "no register for a single use"
    return best


def _rewrite(blocks: Sequence[m.MBlock], slots: dict[int, int], tiny: set[int]) -> None:
    """Keep the registers of `slots` on the stack: load before each use, store after each definition."""
    number = max((r for b in blocks for op in b.ops for r in (op.dst, op.src)), default=m.FIRST_VIRTUAL)
    for block in blocks:
        ops: list[m.Op] = []
        for op in block.ops:
            used = {r for r in op.uses() if r in slots}
            defined = {r for r in op.defs() if r in slots}
            fresh: dict[int, int] = {}
            for register in sorted(used | defined):
                number += 1
                fresh[register] = number
                tiny.add(number)
                if register in used:
                    reload = m.load(8, number, m.FP, slots[register])
                    reload.span = op.span
                    ops.append(reload)
            op.dst = fresh.get(op.dst, op.dst)
            op.src = fresh.get(op.src, op.src)
            ops.append(op)
            for register in sorted(defined):
                keep = m.store(8, m.FP, slots[register], fresh[register])
                keep.span = op.span
                ops.append(keep)
        block.ops = ops


def _apply(blocks: Sequence[m.MBlock], assigned: dict[int, int]) -> None:
    """Put the machine registers in; drop copies of a register to itself and results that nobody reads."""
    for block in blocks:
        ops = []
        for op in block.ops:
            if op.dst >= m.FIRST_VIRTUAL:
                op.dst = assigned[op.dst]
            if op.src >= m.FIRST_VIRTUAL:
                op.src = assigned[op.src]
            if op.form == "mov" and op.dst == op.src and op.opcode == m.MOV64 | 8:
                continue
            ops.append(op)
        block.ops = ops

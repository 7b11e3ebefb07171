"""Register allocation: virtual registers get machine registers, or a place on the stack.

Live ranges are sets of positions, kept as the bits of Python integers: operation i reads at position 2i and writes at
2i + 1, holes included. Two ranges collide when their intersection is not 0. In this order: copies are coalesced where both sides
never live at once; ranges are coloured by weight (uses for each position), with the registers that copies lead
to or from as hints; a range may drive out lighter ones; what finds no register is kept on the stack, or made again
where it is used, and everything starts over (`spill`).
"""

from __future__ import annotations

from . import machine as m
from .spill import spill

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from .frame import Frame

_FREE_ORDER = (m.R0, m.R5, m.R4, m.R3, m.R2, m.R1, m.R6, m.R7, m.R8, m.R9)
_NEVER = 1e9  # weight of a range that must not be spilled
_LOOP_FACTOR = 8
_ROUNDS = 100


def allocate(blocks: Sequence[m.MBlock], frame: Frame, keep: set[int]) -> None:
    """Replace all virtual registers of a function by machine registers, in place; spill to `frame` where needed.

    `keep` are registers that should not be kept on the stack.
    """
    tiny: dict[int, int] = {}  # made by spilling: 1, used in one stretch of code; 2, used once
    apart: set[int] = set()  # were part of a range that found no register: not coalesced again
    for _ in range(_ROUNDS):
        ranges = Ranges(blocks)
        groups = ranges.coalesce(apart)
        assigned, homeless = _colour(ranges, groups, keep, tiny)
        if not homeless:
            break
        together = [v for v in homeless if len(groups[v]) > 1]
        if together:
            for v in together:
                apart.update(groups[v])
        else:
            tiny.update(spill(blocks, homeless, ranges.masks, frame, tiny))
            apart.update(tiny)
    else:
        raise AssertionError("register allocation does not come to an end")
    _apply(blocks, assigned)


class Ranges:
    """The live ranges of a function's registers, and what the allocator wants to know of each."""

    def __init__(self, blocks: Sequence[m.MBlock]) -> None:
        self.masks: dict[int, int] = dict.fromkeys(range(m.FP), 0)
        self.costs: dict[int, float] = {}  # instructions that a spill would add, loops counted several times
        self.copies: list[tuple[int, int, int]] = []  # (weight, dst, src)
        self.hints: dict[int, dict[int, int]] = {}  # virtual register -> machine register -> weight
        live_out = _live_out(blocks)
        position = 0
        for block in blocks:
            length = len(block.ops)
            self._scan(block, position, live_out[block])
            position += 2 * length

    def _scan(self, block: m.MBlock, start: int, live_out: int) -> None:
        masks, costs = self.masks, self.costs
        weight = _LOOP_FACTOR ** min(block.depth, 3)
        position = start + 2 * len(block.ops)
        until: dict[int, int] = dict.fromkeys(_members(live_out), position)  # live register -> end of its range here
        kept: list[m.Op] = []
        for op in reversed(block.ops):
            position -= 2
            if op.form in m.PURE and op.dst not in until and not op.volatile:
                continue  # nobody reads it
            kept.append(op)
            cost = -weight if op.remakable else weight
            for register in op.defs():
                end = until.pop(register, position + 2)
                masks[register] = masks.get(register, 0) | (1 << end) - (1 << position + 1)
                costs[register] = costs.get(register, 0) + cost
            for register in op.uses():
                until.setdefault(register, position + 1)
                costs[register] = costs.get(register, 0) + weight
            if op.opcode == m.COPY and op.form == "mov":
                self._copy(op.dst, op.src, 2 * weight + block.edge)
        for register, end in until.items():
            masks[register] = masks.get(register, 0) | (1 << end) - (1 << start)
        if len(kept) < len(block.ops):
            kept.reverse()
            block.ops = kept

    def _copy(self, dst: int, src: int, weight: int) -> None:
        if dst >= m.FIRST_VIRTUAL and src >= m.FIRST_VIRTUAL:
            self.copies.append((weight, dst, src))
            return
        for virtual, machine in ((dst, src), (src, dst)):
            if virtual >= m.FIRST_VIRTUAL and machine < m.FP:
                hints = self.hints.setdefault(virtual, {})
                hints[machine] = hints.get(machine, 0) + weight

    def coalesce(self, apart: set[int]) -> dict[int, list[int]]:
        """Unite the ranges of copies where they do not collide; return leader -> members."""
        leaders: dict[int, int] = {}
        groups = {v: [v] for v in self.masks if v >= m.FIRST_VIRTUAL}
        masks = self.masks
        for weight, dst, src in sorted(self.copies, key=lambda copy: -copy[0]):
            if dst in apart or src in apart:
                continue
            a, b = leaders.get(dst, dst), leaders.get(src, src)
            if a == b or masks[a] & masks[b]:
                continue
            masks[a] |= masks[b]
            self.costs[a] = self.costs.get(a, 0) + self.costs.get(b, 0) - weight
            hints = self.hints.get(b)
            if hints:
                mine = self.hints.setdefault(a, {})
                for machine, strength in hints.items():
                    mine[machine] = mine.get(machine, 0) + strength
            groups[a] += groups[b]
            for member in groups.pop(b):
                leaders[member] = a
        return groups


def _live_out(blocks: Sequence[m.MBlock]) -> dict[m.MBlock, int]:
    """Return the registers, as bits, that are live at the end of each block."""
    reads: dict[m.MBlock, int] = {}
    writes: dict[m.MBlock, int] = {}
    for block in blocks:
        read = written = 0
        for op in block.ops:
            for register in op.uses():
                read |= 1 << register & ~written
            for register in op.defs():
                written |= 1 << register
        reads[block], writes[block] = read & ~(1 << m.FP), written
    live_in = dict.fromkeys(blocks, 0)
    live_out = dict.fromkeys(blocks, 0)
    successors = {block: block.successors() for block in blocks}
    changed = True
    while changed:
        changed = False
        for block in reversed(blocks):
            out = 0
            for successor in successors[block]:
                out |= live_in[successor]
            live_out[block] = out
            into = reads[block] | out & ~writes[block]
            if into != live_in[block]:
                live_in[block] = into
                changed = True
    return live_out


def _members(bits: int) -> list[int]:
    """Return the positions of the one-bits."""
    found = []
    while bits:
        low = bits & -bits
        found.append(low.bit_length() - 1)
        bits ^= low
    return found


def _colour(
    ranges: Ranges, groups: dict[int, list[int]], keep: set[int], tiny: dict[int, int]
) -> tuple[dict[int, int], list[int]]:
    """Give each range a register: returns virtual -> machine register, and the leaders that found none."""
    masks = ranges.masks
    taken = [masks[r] for r in range(m.FP)]
    holders: list[list[int]] = [[] for _ in range(m.FP)]
    costs: dict[int, float] = {}
    for v, members in groups.items():
        costs[v] = ranges.costs.get(v, 0)
        if v in tiny:
            costs[v] += 2 * _NEVER * tiny[v]
        elif not keep.isdisjoint(members):
            costs[v] += _NEVER
    weights = {v: cost / (masks[v].bit_count() or 1) for v, cost in costs.items()}
    calls = masks[m.R0] & masks[m.R1] & masks[m.R2] & masks[m.R3] & masks[m.R4] & masks[m.R5]
    # What lives across calls has the fewest registers to choose from; then what has a favourite.
    waiting = sorted(
        groups,
        key=lambda v: (not masks[v] & calls, v not in ranges.hints, -weights[v], masks[v] & -masks[v]),
        reverse=True,
    )
    places: dict[int, int] = {}
    homeless: list[int] = []
    while waiting:
        v = waiting.pop()
        mask = masks[v]
        register = _choose(mask, taken, ranges.hints.get(v))
        if register < 0:
            register, driven_out = _cheapest(v, masks, holders, costs)
            if register < 0:
                homeless.append(v)
                continue
            for other in driven_out:
                holders[register].remove(other)
                taken[register] ^= masks[other]
                waiting.append(other)
        places[v] = register
        taken[register] |= mask
        holders[register].append(v)
    return {member: places[v] for v, members in groups.items() if v in places for member in members}, homeless


def _choose(mask: int, taken: list[int], hints: dict[int, int] | None) -> int:
    """Return a free register, the best hint if possible; -1 when there is none."""
    if hints:
        for register in sorted(hints, key=lambda r: -hints[r]):
            if not taken[register] & mask:
                return register
    for register in _FREE_ORDER:
        if not taken[register] & mask:
            return register
    return -1


def _cheapest(
    v: int, masks: dict[int, int], holders: list[list[int]], costs: dict[int, float]
) -> tuple[int, list[int]]:
    """Return the register whose holders in the way cost least to spill, less than `v` itself, and these holders; or -1."""
    best, least, driven_out = -1, costs[v], []
    for register in _FREE_ORDER:
        if masks[register] & masks[v]:
            continue
        colliding = [h for h in holders[register] if masks[h] & masks[v]]
        cost = sum(costs[h] for h in colliding)
        if cost < least:
            best, least, driven_out = register, cost, colliding
    return best, driven_out


def _apply(blocks: Sequence[m.MBlock], assigned: dict[int, int]) -> None:
    """Put the machine registers in; drop copies of a register to itself."""
    for block in blocks:
        ops = []
        for op in block.ops:
            if op.dst >= m.FIRST_VIRTUAL:
                op.dst = assigned[op.dst]
            if op.src >= m.FIRST_VIRTUAL:
                op.src = assigned[op.src]
            if op.dst != op.src or op.opcode != m.COPY or op.form != "mov":
                ops.append(op)
        block.ops = ops

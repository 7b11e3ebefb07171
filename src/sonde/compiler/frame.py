"""The stack frame of a function: where each slot lies, and which ones are too big and go to per-CPU scratch.

The kernel gives 512 bytes to a program and the functions it calls together. Slots that are never in use at once share their
place. When they do not fit, the biggest become wide scratch: memory in a per-CPU array, looked up once at the start.
"""

from __future__ import annotations

from .passes.graph import predecessors, reachable_blocks
from .passes.memory import Slots

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .ir import Block, Function, Inst

STACK_BYTES = 512


class Frame:
    """Offsets of the slots: `slots` from the frame pointer (negative), `scratch` from the start of the scratch memory."""

    __slots__ = ("_key_slot", "scratch", "scratch_bytes", "size", "slots", "spills")

    def __init__(self, function: Function, budget: int, scratch_start: int = 0) -> None:
        self.slots: dict[Inst, int] = {}
        self.scratch: dict[Inst, int] = {}
        self.size = 0
        self.scratch_bytes = scratch_start
        self.spills: set[int] = set()  # offsets of the places of spilled registers
        self._key_slot = 0
        allocas = [i for i in function.blocks[0].insts if i.op == "alloca"]
        if not allocas:
            return
        masks = _lifetimes(function) if len(allocas) > 1 else {}
        wide: list[Inst] = []
        small = sorted(allocas, key=lambda a: (-a.align, -a.size))
        places, size = _pack(small, masks, cells=True)
        if size > budget:
            places, size = _pack(small, masks)
        while size > budget and small:
            biggest = max(small, key=lambda a: a.size)
            small.remove(biggest)
            wide.append(biggest)
            places, size = _pack(small, masks)
        self.slots = {slot: -end for slot, end in places.items()}
        self.size = size + 7 & ~7
        places, size = _pack(wide, masks)
        self.scratch = {slot: scratch_start + end - _rounded(slot) for slot, end in places.items()}
        self.scratch_bytes = scratch_start + size + 7 & ~7

    @property
    def has_key_slot(self) -> bool:
        """Whether anything asked for `key_slot`."""
        return self._key_slot != 0

    @property
    def key_slot(self) -> int:
        """Offset of the 4 bytes that hold the key 0 of per-CPU arrays."""
        if not self._key_slot:
            self._key_slot = self._add_word()
        return self._key_slot

    def add_spill(self) -> int:
        """Reserve 8 bytes for a register; return their offset from the frame pointer."""
        offset = self._add_word()
        self.spills.add(offset)
        return offset

    def _add_word(self) -> int:
        self.size += 8
        return -self.size


_CELL = 8  # bytes of which the verifier knows what number is in them, if that was stored at their beginning


def _pack(slots: list[Inst], masks: dict[Inst, int], *, cells: bool = False) -> tuple[dict[Inst, int], int]:
    """Give each slot a place: returns where it ends, counted from 0, and the size of all.

    Starts and ends are aligned, as the stack grows down and scratch memory grows up. With `cells` small slots have 8 bytes for themselves, so that
    the verifier knows what is in them: the counter of a loop, say, whose address goes to a helper.
    """
    starts: dict[Inst, int] = {}
    ends: dict[Inst, int] = {}
    total = 0
    for slot in slots:
        align, size = max(slot.align, 1), _rounded(slot)
        if cells and size < _CELL:
            align = size = _CELL
        mask = masks.get(slot, -1)
        taken = sorted((starts[o], ends[o]) for o in ends if masks.get(o, -1) & mask)
        start = 0
        for first, last in taken:
            if start + size <= first:
                break
            start = max(start, last + align - 1 & -align)
        starts[slot], ends[slot] = start, start + size
        total = max(total, start + size)
    return ends, total


def _rounded(slot: Inst) -> int:
    align = max(slot.align, 1)
    return slot.size + align - 1 & -align


def _lifetimes(function: Function) -> dict[Inst, int]:
    """Return when each slot holds something that matters: a set of instructions, as the bits of an integer.

    That is where it may have been accessed before and may be accessed again. A slot that is not private always matters.
    """
    blocks = reachable_blocks(function)
    slots = Slots(function)
    first: dict[Block, dict[Inst, int]] = {}
    last: dict[Block, dict[Inst, int]] = {}
    starts: dict[Block, int] = {}
    position = 0
    for block in blocks:
        starts[block] = position
        begun, ended = first.setdefault(block, {}), last.setdefault(block, {})
        for inst in block.insts:
            for a in inst.args:
                slot = slots.slot_of.get(a)
                if slot is not None and inst.op not in ("ptradd", "cast"):
                    begun.setdefault(slot, position)
                    ended[slot] = position
            position += 1
        position += 1
    earlier, later = _spread(blocks, first)
    masks: dict[Inst, int] = {}
    for block in blocks:
        end = starts[block] + len(block.insts) + 1
        for slot in set(first[block]) | (earlier[block] & later[block]):
            begin = starts[block] if slot in earlier[block] else first[block][slot]
            stop = end if slot in later[block] else last[block][slot] + 1
            masks[slot] = masks.get(slot, 0) | (1 << stop) - (1 << begin)
    for slot in slots.slot_of.values():
        if slot not in slots.private:
            masks[slot] = -1
    return masks


def _spread(
    blocks: list[Block], accessed: dict[Block, dict[Inst, int]]
) -> tuple[dict[Block, set[Inst]], dict[Block, set[Inst]]]:
    """Return which slots may have been accessed before each block, and may be accessed after it."""
    before = predecessors(blocks)
    earlier: dict[Block, set[Inst]] = {block: set() for block in blocks}
    later: dict[Block, set[Inst]] = {block: set() for block in blocks}
    again = True
    while again:
        again = False
        for block in blocks:
            size = len(earlier[block])
            for p in before[block]:
                earlier[block] |= earlier[p]
                earlier[block].update(accessed[p])
            again |= len(earlier[block]) != size
        for block in reversed(blocks):
            size = len(later[block])
            for target, _ in block.end.targets if block.end is not None else ():
                later[block] |= later[target]
                later[block].update(accessed[target])
            again |= len(later[block]) != size
    return earlier, later

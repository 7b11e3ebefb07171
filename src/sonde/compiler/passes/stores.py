"""Stores to slots that nothing reads before they are overwritten or gone are dropped; clearing is cut down to what is read.

Liveness of bytes, backwards: for each private slot a set of bytes, as the bits of an integer.
"""

from __future__ import annotations

from ..ir import Inst, bytes_of
from .memory import Slots, effects_of, place_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...spec.object import MapSpec
    from ..ir import Block, Function, Value
    from .memory import Access

    Live = dict[Inst, int]  # slot -> bytes that may be read later


def drop_dead_stores(function: Function, maps: dict[str, MapSpec]) -> bool:
    """Rewrite `function` in place; tell whether anything changed."""
    blocks = function.blocks
    slots = Slots(function).private
    if not slots:
        return False
    state = _Stores(slots, maps)
    live_in: dict[Block, Live] = {block: {} for block in blocks}
    again = True
    while again:
        again = False
        for block in reversed(blocks):
            live = state.leave(block, live_in)
            for inst in reversed(block.insts):
                state.step(inst, live)
            if live != live_in[block]:
                live_in[block] = live
                again = True
    changed = False
    for block in blocks:
        live = state.leave(block, live_in)
        kept: list[Inst] = []
        for inst in reversed(block.insts):
            left = state.needed(inst, live)
            changed |= left != [inst]
            for one in reversed(left):
                state.step(one, live)
                kept.append(one)
        kept.reverse()
        block.insts = kept
    return changed


class _Stores:
    def __init__(self, slots: set[Value], maps: dict[str, MapSpec]) -> None:
        self.slots = slots
        self.maps = maps

    def leave(self, block: Block, live_in: dict[Block, Live]) -> Live:
        """Return what is live at the end of a block."""
        live: Live = {}
        assert block.end is not None
        for target, _ in block.end.targets:
            for slot, part in live_in[target].items():
                live[slot] = live.get(slot, 0) | part
        return live

    def mask(self, access: Access) -> tuple[Inst | None, int, bool]:
        """Return the private slot of an access, the bytes it may touch, and whether it surely touches them."""
        root, offset, size = access
        if not isinstance(root, Inst) or root not in self.slots:
            return None, 0, False
        whole = (1 << root.size) - 1
        if offset is None or offset < 0:
            return root, whole, False
        if size is None:
            return root, whole & ~((1 << offset) - 1), False
        return root, ((1 << size) - 1) << offset & whole, True

    def read(self, access: Access, live: Live) -> None:
        slot, mask, _ = self.mask(access)
        if slot is not None:
            live[slot] = live.get(slot, 0) | mask

    def written(self, access: Access, live: Live) -> None:
        slot, mask, sure = self.mask(access)
        if slot is not None and sure and live.get(slot, 0) & mask:
            live[slot] &= ~mask

    def target(self, inst: Inst) -> Access:
        root, offset = place_of(inst.args[0])
        size = inst.size if inst.op in ("memset", "memcpy") else bytes_of(inst.args[1].type)
        return root, None if offset is None else offset + inst.offset, size

    def step(self, inst: Inst, live: Live) -> None:
        """Go back over one instruction."""
        op = inst.op
        if op == "store" or op == "memset":
            self.written(self.target(inst), live)
        elif op == "memcpy":
            self.written(self.target(inst), live)
            root, offset = place_of(inst.args[1])
            self.read((root, None if offset is None else offset + inst.src_offset, inst.size), live)
        elif op == "load":
            root, offset = place_of(inst.args[0])
            self.read((root, None if offset is None else offset + inst.offset, bytes_of(inst.type)), live)
        elif op == "atomic":
            self.read(self.target(inst), live)
        elif op in ("call", "callsub", "kfunc", "tailcall"):
            effects = effects_of(inst, self.maps)
            if effects.whole:
                for access in effects.writes:
                    self.written(access, live)
            for access in effects.reads:
                self.read(access, live)

    def needed(self, inst: Inst, live: Live) -> list[Inst]:
        """Return what of an instruction is needed: itself, nothing, or smaller ones."""
        if inst.op not in ("store", "memset", "memcpy") or inst.volatile:
            return [inst]
        root, offset, size = self.target(inst)
        slot, mask, sure = self.mask((root, offset, size))
        if slot is None or not sure or offset is None or size is None:
            return [inst]
        wanted = live.get(slot, 0) & mask
        if not wanted:
            return []
        if inst.op != "memset" or wanted == mask:
            return [inst]
        return _trimmed(inst, wanted >> offset, size)


def _trimmed(inst: Inst, wanted: int, size: int) -> list[Inst]:
    """Return the clearing of just the wanted bytes, in as many pieces as have gaps of a word between them."""
    left: list[Inst] = []
    at = 0
    while wanted >> at:
        at += (wanted >> at & -(wanted >> at)).bit_length() - 1
        end = at + 1
        while end < size and wanted >> end and (wanted >> end) & 0xFF:
            end += 1
        while not wanted >> end - 1 & 1:
            end -= 1
        part = Inst("memset", inst.type, list(inst.args), imm=inst.imm, size=end - at, offset=inst.offset + at,
                    align=_align(inst.align, at), span=inst.span)  # fmt: skip
        left.append(part)
        at = end
    if len(left) == 1 and left[0].size == size:
        return [inst]
    return left


def _align(align: int, at: int) -> int:
    return min(align, at & -at) if at else align

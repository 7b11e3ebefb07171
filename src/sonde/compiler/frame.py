"""The stack frame of a function: where each alloca lies, and which ones are too big and go to per-CPU scratch.

The kernel gives 512 bytes to a program and the functions it calls together. Slots are laid out from the frame pointer
down, the most aligned first; what is left of the budget is for spilled registers.
"""

from __future__ import annotations

from .ir import Function, Inst

STACK_BUDGET = 512
SPILL_RESERVE = 64
CALLEE_BUDGET = 128  # of a function that is called by another


class Frame:
    """Offsets of the slots: `slots` from the frame pointer (negative), `scratch` from the scratch area's start."""

    __slots__ = ("_key_slot", "scratch", "scratch_bytes", "size", "slots", "spills")

    def __init__(self, function: Function, budget: int, scratch_start: int = 0) -> None:
        self.slots: dict[Inst, int] = {}
        self.scratch: dict[Inst, int] = {}
        self.size = 0
        self.scratch_bytes = scratch_start
        self.spills: set[int] = set()  # offsets of the places of spilled registers
        self._key_slot = 0
        allocas = [i for i in function.blocks[0].insts if i.op == "alloca"]
        total = sum(_rounded(a) for a in allocas)
        limit = budget - SPILL_RESERVE
        for big in sorted(allocas, key=lambda a: -a.size):
            if total <= limit:
                break
            self.scratch[big] = self.scratch_bytes
            self.scratch_bytes += big.size + 7 & ~7
            total -= _rounded(big)
        for slot in sorted(allocas, key=lambda a: -a.align):
            if slot not in self.scratch:
                self.size = self.size + slot.size + slot.align - 1 & -max(slot.align, 1)
                self.slots[slot] = -self.size

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
        self.size = self.size + 15 & ~7
        return -self.size


def _rounded(alloca: Inst) -> int:
    return alloca.size + 7 & ~7

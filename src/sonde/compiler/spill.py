"""Spilling: what found no register is kept on the stack, or made again where it is used.

A register is loaded once for each stretch of a block without calls in which it is used; a second time round, once for each use.
Constants and addresses are never stored: they are made again.
"""

from __future__ import annotations

from . import machine as m

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from .frame import Frame


def spill(
    blocks: Sequence[m.MBlock], registers: list[int], masks: dict[int, int], frame: Frame, tiny: dict[int, int]
) -> dict[int, int]:
    """Rewrite the code so that `registers` live on the stack. Returns the short-lived registers that this makes.

    `tiny` are those made before, and how short they are: when they are spilled, they are cut down to single uses.
    """
    sources = _remakable(blocks, set(registers))
    slots = _slots([r for r in registers if r not in sources], masks, frame)
    number = max(masks)
    made: dict[int, int] = {}
    for block in blocks:
        ops: list[m.Op] = []
        here: dict[int, int] = {}  # spilled register -> the one that holds it in this stretch
        for op in block.ops:
            if op.form == "mov" and op.opcode == m.COPY and _one_side(op, slots, sources, here):
                ops.append(_copy_of_spilled(op, slots))  # straight to or from the stack
                here.pop(op.dst, None)
                continue
            changes: dict[int, int] = {}
            for register in op.uses():
                if register not in slots and register not in sources:
                    continue
                if register not in here:
                    number += 1
                    made[number] = tiny.get(register, 0) + 1
                    here[register] = number
                    ops.append(_restore(number, register, slots, sources, op))
                changes[register] = here[register]
            stores = []
            drop = False
            for register in op.defs():
                if register in sources:
                    drop = True  # the original, which is made again at each use
                elif register in slots:
                    if register not in here:
                        number += 1
                        made[number] = tiny.get(register, 0) + 1
                        here[register] = number
                    changes[register] = here[register]
                    keep = m.store(8, m.FP, slots[register], here[register])
                    keep.span = op.span
                    stores.append(keep)
            if drop:
                continue
            if changes:
                op.dst = changes.get(op.dst, op.dst)
                op.src = changes.get(op.src, op.src)
            ops.append(op)
            ops += stores
            if op.form == "call":
                here.clear()
            else:
                for register in [r for r in here if r in tiny]:
                    del here[register]
        block.ops = ops
    return made


def _one_side(op: m.Op, slots: dict[int, int], sources: dict[int, m.Op], here: dict[int, int]) -> bool:
    """Tell whether one side of a copy is on the stack, and only there, and the other in a register."""
    if op.src in sources or op.src in here:
        return False
    return (op.src in slots) != (op.dst in slots)


def _copy_of_spilled(op: m.Op, slots: dict[int, int]) -> m.Op:
    """Return the load or store that a copy with one side on the stack comes to."""
    made = m.load(8, op.dst, m.FP, slots[op.src]) if op.src in slots else m.store(8, m.FP, slots[op.dst], op.src)
    made.span = op.span
    return made


def _restore(number: int, register: int, slots: dict[int, int], sources: dict[int, m.Op], before: m.Op) -> m.Op:
    """Return the operation that brings a spilled register back."""
    source = sources.get(register)
    if source is None:
        op = m.load(8, number, m.FP, slots[register])
    else:
        op = m.Op(source.form, source.opcode, number, source.src, source.off, source.imm, symbol=source.symbol,
                  kind=source.kind)  # fmt: skip
        op.core = source.core
    op.span = before.span
    return op


def _remakable(blocks: Sequence[m.MBlock], registers: set[int]) -> dict[int, m.Op]:
    """Return those registers whose only definition is a constant or the address of map data, with it."""
    found: dict[int, m.Op] = {}
    several: set[int] = set()
    for block in blocks:
        for op in block.ops:
            for register in op.defs():
                if register not in registers:
                    continue
                if register in found or register in several or not op.remakable:
                    several.add(register)
                    found.pop(register, None)
                else:
                    found[register] = op
    return found


def _slots(registers: list[int], masks: dict[int, int], frame: Frame) -> dict[int, int]:
    """Return a stack offset for each register; those that never live at once share one."""
    slots: dict[int, int] = {}
    used: list[tuple[int, int]] = []  # (offset, positions taken)
    for register in registers:
        for i, (offset, taken) in enumerate(used):
            if not taken & masks[register]:
                used[i] = (offset, taken | masks[register])
                break
        else:
            offset = frame.add_spill()
            used.append((offset, masks[register]))
        slots[register] = offset
    return slots

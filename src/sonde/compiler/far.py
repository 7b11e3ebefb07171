"""Jumps beyond what 16 bits can say: led over `gotol`, which has 32 (kernel 6.6)."""

from __future__ import annotations

from ..bpf import isa
from ..errors import FeatureError
from .machine import MBlock, Op

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..spec.target import Target

_REACH = 0x7F00  # slots; some less than the limit, as the code grows while jumps are mended
_FAR = isa.GOTOL


def reach_far(blocks: list[MBlock], target: Target) -> list[MBlock]:
    """Return the blocks, in layout order, with no jump too far. Raises FeatureError where the kernel lacks `gotol`."""
    while True:
        starts: dict[MBlock, int] = {}
        pc = 0
        for block in blocks:
            starts[block] = pc
            pc += sum(op.slots for op in block.ops)
        if pc < _REACH:
            return blocks
        if not _mend(blocks, starts):
            return blocks
        if not target.features.have("isa:v4"):
            raise FeatureError(
                f"the program has {pc} instructions, and a jump in it leads further than this kernel's instructions can",
                feature="isa:v4",
                hint="make the script shorter, or split it into several probes",
            )


def _mend(blocks: list[MBlock], starts: dict[MBlock, int]) -> bool:
    """Replace the jumps that are too far; tell whether there were any."""
    changed = False
    at = 0
    while at < len(blocks):
        block = blocks[at]
        at += 1
        pc = starts.get(block, -1)
        if pc < 0:
            continue  # a step, made just now
        for i, op in enumerate(list(block.ops)):
            pc += op.slots
            if op.target is None or op.opcode == _FAR or abs(starts[op.target] - pc) < _REACH:
                continue
            changed = True
            if op.form == "goto":
                op.opcode = _FAR
                continue
            step = MBlock("step")
            step.ops = [Op("goto", _FAR, target=op.target)]
            op.target = step
            if i == len(block.ops) - 1:  # what follows now stands behind the step
                block.ops.append(Op("goto", isa.JA, target=blocks[at]))
            blocks.insert(at, step)
            starts[step] = -1
    return changed

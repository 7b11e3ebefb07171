"""Instruction selection: IR to machine operations over virtual registers, one block after the other."""

from __future__ import annotations

from . import lower_memory, lower_values
from .lowering import Lowering
from .share import share_addresses

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..spec.target import Target
    from .frame import Frame
    from .ir import Function
    from .lowering import Select
    from .machine import MBlock

_SELECT: Select = {**lower_values.SELECT, **lower_memory.SELECT}


def lower(function: Function, frame: Frame, target: Target) -> tuple[list[MBlock], set[int]]:
    """Return the machine blocks of a function, and the registers that must not be kept on the stack."""
    lowering = Lowering(function, frame, target, _SELECT)
    blocks = lowering.run()
    share_addresses(blocks, lowering.free_register)
    return blocks, lowering.keep

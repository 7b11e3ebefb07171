"""Where aarch64's registers are in the frame of a trampoline, and in instructions."""

from __future__ import annotations

from ...debuginfo.ptregs import get_ptregs
from .. import frame

_LAYOUT = get_ptregs("aarch64")
assert _LAYOUT is not None
LAYOUT = _LAYOUT
OFFSETS = {name: at * 8 for at, name in enumerate(LAYOUT.names)}
# Numbers of registers in instructions, by their names in pt_regs.
NUMBERS = {f"r{n}": n for n in range(31)}
FRAME = 23  # points to the frame while a program runs
FRAME_BYTES = (frame.REGS + 8 * len(LAYOUT.names) + 15) & ~15  # the stack pointer stays a multiple of 16
RECORD = FRAME_BYTES  # for system calls: what their events record
SIGNS = -8  # from where a function with a return probe comes back to; u32: whether it signs its return address
DEPTH_BITS = 8  # of what an entry of the table of returns has at DEPTH; above them is when the call was made, in ticks of the processor's counter

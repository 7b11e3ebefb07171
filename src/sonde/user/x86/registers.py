"""Where x86-64's registers are in the frame of a trampoline, and in instructions."""

from __future__ import annotations

from ...debuginfo.ptregs import get_ptregs
from .. import frame

_LAYOUT = get_ptregs("x86_64")
assert _LAYOUT is not None
OFFSETS = {name: at * 8 for at, name in enumerate(_LAYOUT.names)}
# Numbers of registers in instructions, by their names in pt_regs.
NUMBERS = {"ax": 0, "cx": 1, "dx": 2, "bx": 3, "sp": 4, "bp": 5, "si": 6, "di": 7} | {f"r{n}": n for n in range(8, 16)}
FRAME_BYTES = frame.REGS + 8 * len(_LAYOUT.names)
RECORD = FRAME_BYTES  # for system calls: what their events record
RED_ZONE = 128

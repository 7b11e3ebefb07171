"""USDT notes: the static probe points that a program or library declares in its section .note.stapsdt.

An argument is written as an operand of the assembler ("-4@%edi", "8@-16(%rbp)"); it is decoded into offsets into
struct pt_regs, so that whoever generates code needs to know no register name.
"""

from __future__ import annotations

from ..record import Record


class UsdtArg(Record):
    """Where an argument of a USDT probe is when the probe is hit.

    kind    the value is
    const   `value`
    reg     the register at byte `base` of pt_regs
    mem     the user memory at `value` + register at `base` + register at `index` * `scale`  (-1: no such register)
    none    out of reach of a program (a vector register, an operand that nobody knows): `text` says what it is

    The value has `size` bytes (1, 2, 4, 8) and is extended as `signed` says.
    """

    size: int
    signed: bool
    kind: str
    value: int = 0
    base: int = -1
    index: int = -1
    scale: int = 1
    text: str = ""

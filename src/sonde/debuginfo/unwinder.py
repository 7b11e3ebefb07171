"""Stacks from unwind tables on the reading side: registers and a copy of a stack become the addresses of who called whom.

The user engine's routine for the traced process itself (`user.walking`) follows the same rules.
"""

from __future__ import annotations

from . import cfa
from .ehframe import Row

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

BY_FRAME_POINTER = Row(cfa.FP, 16, 0, cfa.AT_CFA, -16)  # of code that has no table, and keeps frame pointers


def walk(
    find: Callable[[int], Row], read: Callable[[int], int | None], pc: int, sp: int, fp: int, most: int
) -> list[int]:
    """Return up to `most` addresses, `pc` first. `find` gives the row for an address, `read` the word at one (None: it cannot be had); sp and fp are registers."""
    found = [pc]
    called = 0  # 1 where the address is behind a call, which is what was going on
    while len(found) < most:
        row = find(pc - called)
        if row.cfa == cfa.SIGNAL:
            words = [read(sp + offset) for offset in (cfa.SIGNAL_PC, cfa.SIGNAL_SP, cfa.SIGNAL_FP)]
            if None in words:
                break
            pc, sp, fp = words  # type: ignore[assignment]
            called = 0
        else:
            caller = _step(row, read, pc, sp, fp)
            if caller is None:
                break
            pc, sp, fp = caller
            called = 1
        if not pc:
            break
        found.append(pc)
    return found


def _step(row: Row, read: Callable[[int], int | None], pc: int, sp: int, fp: int) -> tuple[int, int, int] | None:
    """The registers of the caller; None where the stack ends, or nobody knows how it goes on."""
    place = {cfa.SP: sp, cfa.PLT: sp, cfa.FP: fp, cfa.DEREF_SP: sp, cfa.DEREF_FP: fp}.get(row.cfa)
    if place is None:
        return None
    beginning: int | None = place + row.offset
    if row.cfa in (cfa.DEREF_SP, cfa.DEREF_FP):
        word = read(place + row.offset)
        beginning = word + row.add if word is not None else None
    elif row.cfa == cfa.PLT and pc & 15 >= row.add:
        beginning = place + row.offset + 8
    if beginning is None or beginning <= sp or beginning & 7:
        return None
    above: int | None = fp if row.fp == cfa.SAME else 0
    if row.fp in (cfa.AT_CFA, cfa.AT_FP):
        above = read((beginning if row.fp == cfa.AT_CFA else fp) + row.fp_offset)
    address = read(beginning - 8)
    return None if above is None or address is None else (address, beginning, above)

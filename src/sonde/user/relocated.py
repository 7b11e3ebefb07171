"""What moving a window's instructions gives, on either architecture."""

from __future__ import annotations

from ..record import Record


class Relocated(Record):
    """Moved instructions, and behind them addresses that they read."""

    code: bytes
    places: tuple[tuple[int, int], ...]
    """(offset in the window, offset in `code`) of each instruction: a thread that stands at the first goes to the second."""
    returns: tuple[tuple[int, int], ...]
    """(offset in `code`, address in the process) of the same state, for taking the window away while a thread is in `code`. A thread at
    another offset is amid instructions that stand for one, and has to step on."""

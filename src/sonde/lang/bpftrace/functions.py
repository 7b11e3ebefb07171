"""The registry of functions: for each name what it takes, where it may be called, and what it gives."""

from __future__ import annotations

from ...record import Record


class Function(Record, eq=False):
    """Facts about one function or builtin."""

    name: str
    min_args: int = 0
    max_args: int = 0
    asynchronous: bool = False
    unsafe: bool = False
    probes: tuple[str, ...] = ()  # probe types where it may be called; () for all

"""Machine code under construction, of whatever processor: bytes, and places in them with names. How jumps to names are written says each processor's `code`."""

from __future__ import annotations

CALL, BEHIND = "the moved call", "behind the call"  # in code for places that make system calls


class Labelled:
    """Code with labels."""

    def __init__(self) -> None:
        self.bytes = bytearray()
        self._places: dict[str, int] = {}
        self._jumps: list[tuple[int, str]] = []  # where the distance to a name is to be filled in

    def add(self, *parts: bytes) -> None:
        """Append instructions."""
        for part in parts:
            self.bytes += part

    def label(self, name: str) -> None:
        """Give the next instruction a name."""
        self._places[name] = len(self.bytes)

    def label_at(self, name: str, offset: int) -> None:
        """Give a name to a place that is `offset` bytes from the beginning, in what will follow the code."""
        self._places[name] = offset

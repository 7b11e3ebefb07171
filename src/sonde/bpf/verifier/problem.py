"""Why a program is refused: what the checks raise, and the door turns into a report."""

from __future__ import annotations


class Problem(Exception):
    """Something that is not safe, or cannot be shown to be. `wants` says what would satisfy the check."""

    def __init__(self, message: str, wants: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.wants = wants

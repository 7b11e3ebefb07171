"""How many probes this process may have open through BPF objects: 1000, or BCC_PROBE_LIMIT."""

from __future__ import annotations

import os

from ...errors import UsageError

DEFAULT_LIMIT = 1000
_open = [0]


def get_probe_limit() -> int:
    """Return the limit."""
    text = os.environ.get("BCC_PROBE_LIMIT", "")
    return int(text) if text.isdigit() else DEFAULT_LIMIT


def check(more: int) -> None:
    """Raise UsageError when `more` probes would be too many."""
    if _open[0] + more > get_probe_limit():
        raise UsageError(
            f"Number of open probes would exceed global quota: {_open[0]} are open, {more} more are wanted",
            hint=f"set BCC_PROBE_LIMIT higher than {get_probe_limit()}",
        )


def add(count: int) -> None:
    """Count probes that were opened (or closed: a negative number)."""
    _open[0] = max(_open[0] + count, 0)

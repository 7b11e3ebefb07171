"""Times as text: strftime with `%f` for microseconds."""

from __future__ import annotations

import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..spec.layout import Timestamp

DEFAULT_FORMAT = "%H:%M:%S\n"


def timestamp_text(stamp: Timestamp) -> str:
    """Return a wall clock time by its own format."""
    return format_time(stamp.format, stamp.ns)


def format_time(text: str, ns: int) -> str:
    """Return local time `ns` (since 1970) by strftime; `%f` is the microsecond in six digits."""
    seconds, rest_ns = divmod(ns, 1_000_000_000)
    if "%f" in text:
        micros = f"{rest_ns // 1000:06d}"
        text = "%%".join([part.replace("%f", micros) for part in text.split("%%")])
    try:
        return time.strftime(text, time.localtime(seconds))
    except (ValueError, OverflowError, OSError):  # a year that the C library cannot show
        return str(ns)


def format_now(text: str) -> str:
    """Return the present local time."""
    return format_time(text or DEFAULT_FORMAT, time.time_ns())

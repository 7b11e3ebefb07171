"""Colours of messages on a terminal: the first line of an error is red, that of a warning yellow, as bpftrace has it.

BPFTRACE_COLOR is "always", "never" or "auto", which is also what anything else means: colours on a terminal only.
"""

from __future__ import annotations

import os

_COLOURS = {"ERROR": "\033[31m", "WARNING": "\033[33m"}
_PLAIN = "\033[0m"


def paint(text: str, fd: int) -> str:
    """Return a rendered message with colours, if `fd`, where it will be written, is to have them."""
    wanted = os.environ.get("BPFTRACE_COLOR", "")
    if wanted == "never" or (wanted != "always" and not _is_terminal(fd)):
        return text
    return "\n".join(map(_paint_line, text.split("\n")))


def _is_terminal(fd: int) -> bool:
    try:
        return os.isatty(fd)
    except OSError:
        return False


def _paint_line(line: str) -> str:
    for severity, colour in _COLOURS.items():
        place, found, _ = line.partition(f"{severity}: ")
        if found and (not place or _is_place(place)):
            return colour + line + _PLAIN
    return line


def _is_place(text: str) -> bool:
    """Tell whether this is `FILE:LINE:COLUMN-COLUMN: ` or `FILE:LINE-LINE: `, and not a line of somebody's script."""
    name, _, numbers = text[:-2].rpartition(":")
    return text.endswith(": ") and bool(name) and numbers.replace("-", "").isdecimal()

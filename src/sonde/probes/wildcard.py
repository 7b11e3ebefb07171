"""Wildcards in probe names: `*` stands for any text, nothing else is special."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


def has_wildcard(text: str) -> bool:
    """Tell whether `text` holds a wildcard."""
    return "*" in text


def make_matcher(pattern: str) -> Callable[[str], bool]:
    """Return a function that tells whether a name matches. The common forms cost one string operation."""
    parts = pattern.split("*")
    first, last, middle = parts[0], parts[-1], [p for p in parts[1:-1] if p]
    if len(parts) == 1:
        return lambda name: name == pattern
    if not middle:
        if not first and not last:
            return lambda name: True
        if not last:
            return lambda name: name.startswith(first)
        if not first:
            return lambda name: name.endswith(last)
    shortest = len(first) + len(last)

    def matches(name: str) -> bool:
        if len(name) < shortest or not name.startswith(first) or not name.endswith(last):
            return False
        at, end = len(first), len(name) - len(last)
        for part in middle:
            at = name.find(part, at, end)
            if at < 0:
                return False
            at += len(part)
        return True

    return matches

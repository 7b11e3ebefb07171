"""Close names, for messages about a name that does not exist."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable


def close_names(name: str, known: Iterable[str], count: int = 3) -> list[str]:
    """Return up to `count` of the known names that a person may have meant, the closest first.

    Cheap tests thin out a long list before difflib sees it: 100,000 names take 0.1 s, on the way to an error.
    """
    from difflib import SequenceMatcher

    if not name:
        return []
    names = list(dict.fromkeys(known))
    few = len(names) < 5000
    slack = max(2, len(name) // 4)
    head, tail = name[:2], name[-3:]
    scored: list[tuple[float, int, str]] = []
    matcher = SequenceMatcher(autojunk=False)
    matcher.set_seq2(name)
    for other in names:
        if other == name:
            continue
        if len(name) > 3 and name in other:
            scored.append((0.9 - 0.001 * min(len(other), 200), len(other), other))
        elif abs(len(other) - len(name)) <= slack and (few or other.startswith(head) or other.endswith(tail)):
            matcher.set_seq1(other)
            if matcher.quick_ratio() >= 0.7:
                ratio = matcher.ratio()
                if ratio >= 0.7:
                    scored.append((ratio, len(other), other))
    scored.sort(key=lambda item: (-item[0], item[1], item[2]))
    return [other for _, _, other in scored[:count]]

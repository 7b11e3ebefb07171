"""Close names, for messages about a name that does not exist."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable


_SHORT = 12  # letters: in longer names a typo changes the ratio by little
_BEGINNING = 0.89  # how well a longer name does that begins as this one, but for a typo


def is_typo(a: str, b: str) -> bool:
    """Whether one letter that is wrong, missing, too many, or two that have changed places make `a` of `b`."""
    start = 0
    while start < min(len(a), len(b)) and a[start] == b[start]:
        start += 1
    x, y = a[start:], b[start:]
    swapped = x[:2] == y[1::-1] and x[2:] == y[2:]
    return x[1:] == y or x == y[1:] or x[1:] == y[1:] or swapped


def _shares_beginning(other: str, name: str) -> bool:
    """Whether a longer name begins as this one does, but for a typo: `bpf_get_curent_pid` and `bpf_get_current_pid_tgid`."""
    if len(name) < _SHORT or len(other) <= len(name):
        return False
    sizes = (len(name) - 1, len(name), len(name) + 1)
    return any(other[size : size + 1] == "_" and is_typo(other[:size], name) for size in sizes)


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
                if ratio < 0.7 and few and len(name) < _SHORT and is_typo(other, name):
                    ratio = 0.7
                if ratio >= 0.7:
                    scored.append((ratio, len(other), other))
        elif few and _shares_beginning(other, name):
            scored.append((_BEGINNING, len(other), other))
    scored.sort(key=lambda item: (-item[0], item[1], item[2]))
    return [other for _, _, other in scored[:count]]

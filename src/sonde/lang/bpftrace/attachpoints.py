"""The text of attach points: where one ends, and its parts.

An attach point is not made of tokens: it is everything up to white space, `,` or `{`, with quoted parts kept whole. A `/` in
it is part of a path where the provider takes one, and otherwise begins the predicate.
"""

from __future__ import annotations

from .fault import Fault
from .lexer import END, NAME, SPACE, skip_layout, skip_name

_PROVIDERS_WITHOUT_PATH = """begin end self test bench kprobe k kretprobe kr fentry f kfunc fexit fr kretfunc tracepoint t
    rawtracepoint rt profile p interval i software s hardware h watchpoint w asyncwatchpoint aw"""
_WITHOUT_PATH = frozenset(_PROVIDERS_WITHOUT_PATH.split())


def find_end(text: str, start: int) -> int:
    """Return the offset behind the attach point that begins at `start`. Raises Fault when there is none.

    Blanks around a ':' do not end it: 0.17 allowed `kprobe : vfs_read`.
    """
    at = start
    paths = False
    while True:
        c = text[at]
        if c == '"':
            at = _skip_quoted(text, at)
            continue
        if c == "{" or c == "," or (c == END and at == len(text) - 1):
            break
        if c == "/" and not paths:
            break
        if c in SPACE:
            after = skip_layout(text, at)
            inside = text[after] == ":" or (text[at - 1 : at] == ":" and text[after] not in "/{,\0")
            if at == start or not inside or "\n" in text[at:after]:
                break
            at = after
            continue
        if c == ":" and not paths:
            paths = text[start:at].strip().lower() not in _WITHOUT_PATH
        at += 1
    if at == start:
        raise Fault("expected attach point", at, max(skip_name(text, at), min(at + 1, len(text) - 1)), _HINT)
    return at


_HINT = "a probe looks like `tracepoint:syscalls:sys_enter_openat { … }`; `-l` lists what there is."


def _skip_quoted(text: str, start: int) -> int:
    at = start + 1
    while text[at] != '"':
        if at >= len(text) - 1:
            raise Fault("unterminated string", start, at)
        at += 2 if text[at] == "\\" and at + 2 < len(text) else 1
    return at + 1


def find_name_end(text: str, start: int) -> int:
    """Return the offset behind `name =` when a probe begins with it, else `start`."""
    at = skip_name(text, start)
    if at == start:
        return start
    after = skip_layout(text, at)
    return after + 1 if text[after] == "=" else start


def split_parts(text: str) -> tuple[str, ...]:
    """Split at the ':' outside quotes; take quotes and the backslashes in them away, and white space around parts."""
    if '"' not in text:
        return tuple(part.strip() for part in text.split(":"))
    parts: list[str] = []
    part = ""
    quoted = False
    at = 0
    while at < len(text):
        c = text[at]
        if c == '"':
            quoted = not quoted
        elif c == "\\" and quoted and at + 1 < len(text):
            at += 1
            part += text[at]
        elif c == ":" and not quoted:
            parts.append(part)
            part = ""
        elif quoted or c not in SPACE:
            part += c
        at += 1
    return (*parts, part)


def iter_parameters(text: str) -> list[tuple[int, int, int]]:
    """Return (start, end, number) of each `$N` of an attach point."""
    found = []
    at = text.find("$")
    while at >= 0:
        end = at + 1
        while end < len(text) and text[end] in NAME and text[end].isdigit():
            end += 1
        if end > at + 1:
            found.append((at, end, int(text[at + 1 : end])))
        at = text.find("$", end)
    return found

"""Listings: which probes there are, by pattern, and with what arguments; what `sonde list` and `bpftrace -l` print."""

from __future__ import annotations

from ..errors import SondeError
from .catalogue import parse_in
from .registry import TYPES, load_module
from .scope import Scope
from .typelist import iter_types, names_type

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..spec.target import Target
    from .model import Pattern
    from .scope import Machine


def iter_probes(
    text: str, target: Target | None, *, pid: int = 0, verbose: bool = False, machine: Machine | None = None
) -> Iterator[str]:
    """Yield the lines of a listing of `text`: one pattern or several with commas between, "" for all of the kernel.

    With `verbose` the arguments of each probe follow it, four blanks before each. "struct NAME", "union", "enum" and
    "typedef" list types of the kernel, with `verbose` their definitions. Raises ProbeError for a pattern of a
    wrong form; a pattern that nothing matches yields nothing. A pattern without ":" is looked for in all types.
    """
    scope = Scope(target, machine, pid=pid, unsafe=True)
    for part in split_list(text) or ["*"]:
        if names_type(part):
            yield from iter_types(part, scope, verbose=verbose)
            continue
        for pattern in _parse(part, scope):
            yield from _iter_lines(pattern, scope, verbose)


def split_list(text: str) -> list[str]:
    """Split at commas outside quotes and drop blanks around the parts."""
    return [part.strip() for part in _split(text, ",") if part.strip()]


def _split(text: str, separator: str) -> list[str]:
    parts, start, quoted = [], 0, False
    at = 0
    while at < len(text):
        char = text[at]
        if char == '"':
            quoted = not quoted
        elif char == "\\" and quoted:
            at += 1
        elif char == separator and not quoted:
            parts.append(text[start:at])
            start = at + 1
        at += 1
    return [*parts, text[start:]]


def _parse(text: str, scope: Scope) -> list[Pattern]:
    parts = tuple(_split(text, ":"))
    if len(parts) > 2 and not parts[-1]:
        parts = parts[:-1]  # `software:cs:`, as the listing itself prints it
    if len(parts) == 1 and "*" not in text:
        kind = next((t for t in TYPES if text.lower() in (t.name, *t.aliases)), None)
        # A word alone is a type, or part of a name: `sched_switch` finds tracepoint:sched:sched_switch.
        parts = (kind.name, "*") if kind else (f"*{text}*",)
    if len(parts) == 2 and parts[0].lower() in ("uprobe", "uretprobe", "usdt", "u", "ur") and "*" not in parts[1]:
        parts = (*parts, "*") if not scope.pid else parts  # a file alone: all that is in it
    return parse_in(parts, scope)


def _iter_lines(pattern: Pattern, scope: Scope, verbose: bool) -> Iterator[str]:
    module = load_module(pattern.type)
    iter_params = getattr(module, "iter_params", None) if verbose else None
    try:
        for name in module.iter_names(pattern, scope):
            yield name
            if iter_params is not None:
                for param in _params(iter_params, name, scope):
                    yield "    " + param
    except SondeError:
        if not pattern.lenient:
            raise


def _params(iter_params: object, name: str, scope: Scope) -> list[str]:
    """All or nothing: an event that vanished between two reads has no arguments."""
    try:
        return list(iter_params(name, scope))  # type: ignore[operator]
    except SondeError:
        return []

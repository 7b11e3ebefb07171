"""software and hardware: counters of perf that run a program every so many events."""

from __future__ import annotations

from ..errors import ProbeError
from ..spec.object import ProbeSpec
from .context import regs_context
from .grammar import read_uint, wrong_count
from .model import Context, Pattern, Probe
from .wildcard import has_wildcard, make_matcher

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..spec.target import Target
    from .scope import Scope

# name -> (alias, default count), by which bpftrace's scripts know the kernel's PERF_COUNT_SW_* and PERF_COUNT_HW_*
EVENTS = {
    "software": {
        "alignment-faults": ("", 1),
        "bpf-output": ("", 1),
        "context-switches": ("cs", 1000),
        "cpu-clock": ("cpu", 1_000_000),
        "cpu-migrations": ("", 1),
        "dummy": ("", 1),
        "emulation-faults": ("", 1),
        "major-faults": ("", 1),
        "minor-faults": ("", 100),
        "page-faults": ("faults", 100),
        "task-clock": ("", 1),
    },
    "hardware": {
        "backend-stalls": ("", 1_000_000),
        "branch-instructions": ("branches", 100_000),
        "branch-misses": ("", 100_000),
        "bus-cycles": ("", 100_000),
        "cache-misses": ("", 1_000_000),
        "cache-references": ("", 1_000_000),
        "cpu-cycles": ("cycles", 1_000_000),
        "frontend-stalls": ("", 1_000_000),
        "instructions": ("", 1_000_000),
        "ref-cycles": ("", 1_000_000),
    },
}


def parse(kind: str, args: tuple[str, ...], scope: Scope) -> Pattern:
    """EVENT[:COUNT]. The name stays as written, an alias too; `event` is the long name."""
    if len(args) not in (1, 2):
        raise wrong_count(kind, "1 or 2", len(args))
    written = args[0]
    count = read_uint(args[1], f"Invalid count for {kind} probe") if len(args) == 2 and args[1] != "*" else 0
    if has_wildcard(written):
        return Pattern(kind, f"{kind}:{written}", event=written, wild=True)
    if not written:
        raise ProbeError(f"{kind} probe must have a {kind} event name")
    for name, (alias, default) in EVENTS[kind].items():
        if written in (name, alias):
            text = f"{kind}:{written}" + (f":{count}" if count else "")
            return Pattern(kind, text, event=name, count=count or default)
    from .close import close_names

    raise ProbeError(f"{written} is not a {kind} probe", close=close_names(written, _words(kind)))


def _words(kind: str) -> list[str]:
    return sorted([*EVENTS[kind], *(alias for alias, _ in EVENTS[kind].values() if alias)])


def expand(pattern: Pattern, scope: Scope) -> list[Probe]:
    """One probe; wildcards serve listings only."""
    if pattern.wild:
        raise ProbeError(f"wildcards are not allowed for {pattern.type} probe type")
    spec = ProbeSpec(pattern.text, pattern.type, "", event=pattern.event, count=pattern.count, pid=scope.pid)
    return [Probe(pattern.type, pattern.text, spec, "perf_event")]


def context_of(probe: Probe, target: Target) -> Context:
    """The registers at the event that was one too many."""
    return regs_context(target.arch, "perf_event")


def iter_names(pattern: Pattern, scope: Scope) -> Iterator[str]:
    """The events and their aliases, in the order of the full names."""
    written = pattern.event if pattern.wild else pattern.text.split(":")[1]
    matches = make_matcher(written)
    yield from sorted(
        f"{pattern.type}:{word}:" for word in _words(pattern.type) if matches(word) or matches(word + ":")
    )

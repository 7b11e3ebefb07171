"""tracepoint:CATEGORY:EVENT: the static events of the kernel, with the record that their tracefs format describes."""

from __future__ import annotations

from ..errors import PrivilegeError, ProbeError
from ..spec.object import ProbeSpec
from .grammar import wrong_count
from .model import Context, Pattern, Probe
from .wildcard import has_wildcard, make_matcher

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..spec.target import Target
    from .scope import Scope


def parse(kind: str, args: tuple[str, ...], scope: Scope) -> Pattern:
    """CATEGORY:EVENT; a lone part with a wildcard looks for the event in every category."""
    if len(args) == 1 and has_wildcard(args[0]):
        args = ("*", args[0])
    if len(args) != 2:
        raise wrong_count(kind, "2", len(args))
    category, event = args
    if not category or not event:
        raise ProbeError("tracepoint probe must have a target", hint="write tracepoint:CATEGORY:EVENT")
    wild = has_wildcard(category) or has_wildcard(event)
    return Pattern(kind, f"{kind}:{category}:{event}", category=category, event=event, wild=wild)


def expand(pattern: Pattern, scope: Scope) -> list[Probe]:
    """A plain name costs one look at its format; a list of events is read for wildcards only."""
    if pattern.wild:
        return [_probe(*name) for name in _find(pattern, scope)]
    if scope.target is not None:
        try:
            scope.target.tracepoint(pattern.category, pattern.event)
        except ProbeError:
            return []
    return [_probe(pattern.category, pattern.event)]


def _find(pattern: Pattern, scope: Scope) -> list[tuple[str, str]]:
    matches = make_matcher(pattern.event)
    if not has_wildcard(pattern.category):
        return [(pattern.category, e) for e in scope.machine.events_of(pattern.category) if matches(e)]
    in_category = make_matcher(pattern.category)
    found = [(c, e) for c, e in scope.machine.events() if matches(e) and in_category(c)]
    return sorted(found, key=":".join)  # by full name: "fib6:x" comes before "fib:x"


def _probe(category: str, event: str) -> Probe:
    name = f"tracepoint:{category}:{event}"
    return Probe("tracepoint", name, ProbeSpec(name, "tracepoint", "", category, event), "tracepoint")


def context_of(probe: Probe, target: Target) -> Context:
    """The event's record, common fields included."""
    form = target.tracepoint(probe.spec.category, probe.spec.event)
    return Context("tracepoint", args=form.struct, format=form)


def close(pattern: Pattern, scope: Scope) -> list[str]:
    """Events that sound like the missing one, in its category or elsewhere."""
    from .close import close_names

    events = scope.machine.events()
    same = [f"tracepoint:{c}:{e}" for c, e in events if e == pattern.event]
    return same[:3] or close_names(pattern.text, (f"tracepoint:{c}:{e}" for c, e in events))


def iter_names(pattern: Pattern, scope: Scope) -> Iterator[str]:
    """The full names, sorted. Raises PrivilegeError when nothing matches among those that this user may know of."""
    found = _find(pattern, scope)
    for category, event in found:
        yield f"tracepoint:{category}:{event}"
    if not found and scope.machine.refusal is not None:
        raise scope.machine.refusal


def iter_params(name: str, scope: Scope) -> Iterator[str]:
    """The fields as the kernel declares them, common ones left out. No type is built: a listing has 2,000 events."""
    _, category, event = name.split(":")
    try:
        with open(f"{scope.machine.tracefs}/events/{category}/{event}/format", errors="replace") as file:
            text = file.read()
    except PrivilegeError:
        from ..debuginfo.syscallargs import syscall_format_text

        text = syscall_format_text(category, event)
    except OSError:
        return  # it went away
    for line in text.partition("\nprint fmt:")[0].split("\n"):
        if line.startswith("\tfield"):
            declaration = line.partition(":")[2].partition(";")[0]
            if not declaration.rpartition(" ")[2].startswith("common_"):
                yield declaration

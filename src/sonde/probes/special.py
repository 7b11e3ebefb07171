"""begin, end, self, test, bench: programs that sonde itself runs."""

from __future__ import annotations

from ..errors import ProbeError
from ..spec.object import ProbeSpec
from .grammar import wrong_count
from .model import Context, Pattern, Probe
from .wildcard import make_matcher

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..spec.target import Target
    from .scope import Scope

SIGNALS = ("SIGUSR1",)


def parse(kind: str, args: tuple[str, ...], scope: Scope) -> Pattern:
    """begin and end take nothing, test and bench a name, self `signal:SIGUSR1`."""
    if kind in ("begin", "end"):
        if args and args != ("*",):
            raise wrong_count(kind, "0", len(args))
        return Pattern(kind, kind)
    if kind in ("test", "bench"):
        if len(args) != 1:
            raise wrong_count(kind, "1", len(args))
        if not args[0]:
            raise ProbeError(f"{kind} probes must have a name")
        return Pattern(kind, f"{kind}:{args[0]}", event=args[0])
    if args == ("*",):
        args = ("signal", "*")
    if len(args) != 2:
        raise wrong_count(kind, "2", len(args))
    trigger, signal = args
    if "*" in trigger + signal:
        return Pattern(kind, f"{kind}:{trigger}:{signal}", category=trigger, event=signal, wild=True)
    if trigger != "signal":
        raise ProbeError(f"{trigger} is not a supported trigger", hint="write self:signal:SIGUSR1")
    if signal not in SIGNALS:
        raise ProbeError(f"{signal} is not a supported signal", hint="supported: " + ", ".join(SIGNALS))
    return Pattern(kind, f"{kind}:signal:{signal}", category="signal", event=signal)


def expand(pattern: Pattern, scope: Scope) -> list[Probe]:
    """One probe."""
    if pattern.wild:
        raise ProbeError(f"wildcards are not allowed for {pattern.type} probe type")
    event = f"signal:{pattern.event}" if pattern.type == "self" else pattern.event
    # The kernel runs a raw tracepoint program on request (BPF_PROG_TEST_RUN) since 5.10.
    return [Probe(pattern.type, pattern.text, ProbeSpec(pattern.text, pattern.type, "", event=event), "raw_tracepoint")]


def context_of(probe: Probe, target: Target) -> Context:
    """There is nothing to reach."""
    return Context("none")


def iter_names(pattern: Pattern, scope: Scope) -> Iterator[str]:
    """Only self has names to list."""
    if pattern.type == "self" and make_matcher(pattern.category)("signal"):
        matches = make_matcher(pattern.event)
        for signal in SIGNALS:
            if matches(signal):
                yield f"self:signal:{signal}"

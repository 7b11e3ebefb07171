"""interval and profile: programs that run by the clock, on one CPU or on each of them."""

from __future__ import annotations

from ..errors import ProbeError
from ..spec.object import ProbeSpec
from .context import regs_context
from .grammar import U64_MAX, read_uint, wrong_count
from .model import Context, Pattern, Probe
from .wildcard import has_wildcard, make_matcher

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..spec.target import Target
    from .scope import Scope

UNITS = {"hz": 0, "ms": 10**6, "s": 10**9, "us": 10**3}  # nanoseconds; hz counts the other way


def parse(kind: str, args: tuple[str, ...], scope: Scope) -> Pattern:
    """UNIT:NUMBER, or a duration in nanoseconds, which a literal such as `10ms` is."""
    if len(args) == 1 and has_wildcard(args[0]):
        return Pattern(kind, f"{kind}:{args[0]}", event=args[0], wild=True)
    if len(args) == 1:
        duration = read_uint(args[0], f"Invalid rate of {kind} probe")
        if duration < 1000:
            raise ProbeError(f"Invalid rate of {kind} probe. Minimum is 1000 or 1us. Found: {duration} nanoseconds")
        return _pattern(kind, "us", duration // 1000)
    if len(args) != 2:
        raise wrong_count(kind, "1 or 2", len(args))
    unit, rate = args
    if unit not in UNITS:
        hint = f"the units are hz, s, ms and us; or write {kind}:{rate}{unit}" if unit in ("m", "h", "d", "ns") else ""
        raise ProbeError(f"{unit} is not an accepted unit of time", hint=hint or "the units are hz, s, ms and us")
    if rate.startswith("-"):
        raise ProbeError(f"{kind} frequency should be a positive integer")
    return _pattern(kind, unit, read_uint(rate, f"Invalid rate of {kind} probe"))


def _pattern(kind: str, unit: str, rate: int) -> Pattern:
    if rate == 0:
        raise ProbeError(f"{kind} frequency should be a positive integer")
    name = f"{kind}:{unit}:{rate}"
    period_ns = rate * UNITS[unit] if unit != "hz" else 10**9 // rate
    if not 0 < period_ns <= U64_MAX >> 1:
        raise ProbeError(f"Invalid rate of {kind} probe: {rate} {unit} cannot be counted in nanoseconds")
    if unit == "hz" and kind == "profile":
        return Pattern(kind, name, frequency_hz=rate)
    return Pattern(kind, name, period_ns=period_ns)


def expand(pattern: Pattern, scope: Scope) -> list[Probe]:
    """One probe; wildcards serve listings only."""
    if pattern.wild:
        raise ProbeError(f"wildcards are not allowed for {pattern.type} probe type")
    spec = ProbeSpec(
        pattern.text,
        pattern.type,
        "",
        period_ns=pattern.period_ns,
        frequency_hz=pattern.frequency_hz,
        pid=scope.pid if pattern.type == "profile" else 0,  # an interval runs whoever is running
    )
    return [Probe(pattern.type, pattern.text, spec, "perf_event")]


def context_of(probe: Probe, target: Target) -> Context:
    """The registers of what was interrupted."""
    return regs_context(target.arch, "perf_event")


def iter_names(pattern: Pattern, scope: Scope) -> Iterator[str]:
    """The units: `interval:hz:` …"""
    matches = make_matcher(pattern.event if pattern.wild else pattern.text.split(":")[1])
    for unit in UNITS:
        if matches(unit) or matches(unit + ":"):
            yield f"{pattern.type}:{unit}:"

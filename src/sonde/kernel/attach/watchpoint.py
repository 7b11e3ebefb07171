"""Watchpoints: the CPU's debug registers, by perf breakpoint events, on each thread of a process or on each CPU."""

from __future__ import annotations

from errno import EBUSY, EINVAL, ENODEV, ENOSPC, EOPNOTSUPP

from ...errors import ProbeError
from .. import abi
from ..cpus import online_cpus
from ..links import attach_each
from ..perf_event import attach_events, open_on_cpus, open_on_threads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from ...spec.object import ProbeSpec
    from ..links import KernelLink
    from ..programs import Program

MODES = {"r": 1, "w": 2, "x": 4}
_EXECUTE = 4
_LONG_BYTES = 8  # what perf wants as the length of an execution breakpoint

HINTS = {
    ENOSPC: "all debug registers of the CPU are in use (x86 has four)",
    EBUSY: "all debug registers of the CPU are in use (x86 has four)",
    ENODEV: "this machine has no debug registers",
    EOPNOTSUPP: "this machine has no debug registers for that",
    EINVAL: "the CPU watches aligned addresses of 1, 2, 4 or 8 bytes; on x86 in mode w, rw or x",
}


def attach(program: Program, probes: Sequence[ProbeSpec], without: frozenset[str]) -> list[KernelLink]:
    """Watch each address."""
    return attach_each(program, probes, _attach_one)


def _attach_one(program: Program, probe: ProbeSpec) -> KernelLink:
    kind = 0
    for letter in probe.mode:
        kind |= MODES.get(letter, 0)
    if not kind or set(probe.mode) - set(MODES):
        raise ProbeError(f"{probe.name}: the mode must be made of r, w and x, it is {probe.mode!r}")
    length = _LONG_BYTES if kind == _EXECUTE else probe.length
    flags = abi.ATTR_INHERIT_THREADS if probe.pid else 0
    attr = abi.perf_event_attr(
        abi.PERF_TYPE_BREAKPOINT, 0, period=1, flags=flags, breakpoint_type=kind, config1=probe.address, config2=length
    )
    events = open_on_threads(probe, attr, HINTS) if probe.pid else open_on_cpus(probe, attr, online_cpus(), HINTS)
    return attach_events(program, probe, events, "breakpoint perf_event")

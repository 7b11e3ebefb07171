"""interval and profile: perf's cpu-clock, a high resolution timer, on one CPU or on each that is online.

A profile of one process (`pid`) follows that process's threads instead, and fires while they run.
"""

from __future__ import annotations

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


def attach(program: Program, probes: Sequence[ProbeSpec], without: frozenset[str]) -> list[KernelLink]:
    """Start a timer for each probe."""
    return attach_each(program, probes, _attach_one)


def _attach_one(program: Program, probe: ProbeSpec) -> KernelLink:
    if probe.period_ns > 0:
        period, flags = probe.period_ns, 0
    elif probe.frequency_hz > 0:
        period, flags = probe.frequency_hz, abi.ATTR_FREQ
    else:
        raise ProbeError(f"{probe.name} has neither a period nor a frequency")
    by_pid = probe.pid and probe.type == "profile"
    if by_pid:
        flags |= abi.ATTR_INHERIT_THREADS
    attr = abi.perf_event_attr(abi.PERF_TYPE_SOFTWARE, abi.PERF_COUNT_SW_CPU_CLOCK, period=period, flags=flags)
    if by_pid:
        return attach_events(program, probe, open_on_threads(probe, attr), "perf_event")
    cpus = online_cpus()
    if probe.type == "interval":
        cpus = cpus[:1]
    return attach_events(program, probe, open_on_cpus(probe, attr, cpus), "perf_event")

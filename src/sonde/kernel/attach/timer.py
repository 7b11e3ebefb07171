"""interval and profile: perf's cpu-clock, a high resolution timer, on one CPU or on each that is online."""

from __future__ import annotations

from ...errors import ProbeError
from .. import abi
from ..cpus import online_cpus
from ..perf_event import attach_events
from . import attach_each
from .counter import open_on_cpus

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
    attr = abi.perf_event_attr(abi.PERF_TYPE_SOFTWARE, abi.PERF_COUNT_SW_CPU_CLOCK, period=period, flags=flags)
    cpus = online_cpus()
    if probe.type == "interval":
        cpus = cpus[:1]
    return attach_events(program, probe, open_on_cpus(probe, attr, cpus), "perf_event")

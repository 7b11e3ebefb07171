"""Software and hardware events: the program runs each time that a counter has advanced by `count`.

With a pid, the event follows the threads of that process; otherwise it counts on each online CPU.
"""

from __future__ import annotations

from errno import ENODEV, ENOENT, EOPNOTSUPP

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

# Perf type of a probe's type, and the numbers of its events (PERF_COUNT_SW_*, PERF_COUNT_HW_*).
TYPES = {"software": abi.PERF_TYPE_SOFTWARE, "hardware": abi.PERF_TYPE_HARDWARE}
EVENTS = {
    "software": {
        "cpu-clock": 0,
        "task-clock": 1,
        "page-faults": 2,
        "context-switches": 3,
        "cpu-migrations": 4,
        "minor-faults": 5,
        "major-faults": 6,
        "alignment-faults": 7,
        "emulation-faults": 8,
        "dummy": 9,
        "bpf-output": 10,
    },
    "hardware": {
        "cpu-cycles": 0,
        "instructions": 1,
        "cache-references": 2,
        "cache-misses": 3,
        "branch-instructions": 4,
        "branch-misses": 5,
        "bus-cycles": 6,
        "frontend-stalls": 7,
        "backend-stalls": 8,
        "ref-cycles": 9,
    },
}

_NO_COUNTER = "this machine (perhaps a virtual one) has no such counter: software:cpu-clock may serve instead"
HINTS = {ENOENT: _NO_COUNTER, EOPNOTSUPP: _NO_COUNTER, ENODEV: _NO_COUNTER}


def attach(program: Program, probes: Sequence[ProbeSpec], without: frozenset[str]) -> list[KernelLink]:
    """Attach to each event."""
    return attach_each(program, probes, _attach_one)


def _attach_one(program: Program, probe: ProbeSpec) -> KernelLink:
    events = EVENTS[probe.type]
    if probe.event not in events:
        raise ProbeError(f"there is no {probe.type} event {probe.event!r}", hint=f"there are: {', '.join(events)}")
    if probe.count <= 0:
        raise ProbeError(f"{probe.name} does not say after how many events it fires")
    flags = abi.ATTR_INHERIT_THREADS if probe.pid else 0
    attr = abi.perf_event_attr(TYPES[probe.type], events[probe.event], period=probe.count, flags=flags)
    fds = open_on_threads(probe, attr, HINTS) if probe.pid else open_on_cpus(probe, attr, online_cpus(), HINTS)
    return attach_events(program, probe, fds, "perf_event")

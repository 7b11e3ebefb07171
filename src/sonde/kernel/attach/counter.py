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

# name -> (perf type, config, default count). The names are those of bpftrace.
EVENTS = {
    "cpu-clock": (abi.PERF_TYPE_SOFTWARE, 0, 1_000_000),
    "task-clock": (abi.PERF_TYPE_SOFTWARE, 1, 1),
    "page-faults": (abi.PERF_TYPE_SOFTWARE, 2, 100),
    "context-switches": (abi.PERF_TYPE_SOFTWARE, 3, 1000),
    "cpu-migrations": (abi.PERF_TYPE_SOFTWARE, 4, 1),
    "minor-faults": (abi.PERF_TYPE_SOFTWARE, 5, 100),
    "major-faults": (abi.PERF_TYPE_SOFTWARE, 6, 1),
    "alignment-faults": (abi.PERF_TYPE_SOFTWARE, 7, 1),
    "emulation-faults": (abi.PERF_TYPE_SOFTWARE, 8, 1),
    "dummy": (abi.PERF_TYPE_SOFTWARE, 9, 1),
    "bpf-output": (abi.PERF_TYPE_SOFTWARE, 10, 1),
    "cpu-cycles": (abi.PERF_TYPE_HARDWARE, 0, 1_000_000),
    "instructions": (abi.PERF_TYPE_HARDWARE, 1, 1_000_000),
    "cache-references": (abi.PERF_TYPE_HARDWARE, 2, 1_000_000),
    "cache-misses": (abi.PERF_TYPE_HARDWARE, 3, 1_000_000),
    "branch-instructions": (abi.PERF_TYPE_HARDWARE, 4, 100_000),
    "branch-misses": (abi.PERF_TYPE_HARDWARE, 5, 100_000),
    "bus-cycles": (abi.PERF_TYPE_HARDWARE, 6, 100_000),
    "frontend-stalls": (abi.PERF_TYPE_HARDWARE, 7, 1_000_000),
    "backend-stalls": (abi.PERF_TYPE_HARDWARE, 8, 1_000_000),
    "ref-cycles": (abi.PERF_TYPE_HARDWARE, 9, 1_000_000),
}
ALIASES = {
    "cpu": "cpu-clock",
    "faults": "page-faults",
    "cs": "context-switches",
    "cycles": "cpu-cycles",
    "branches": "branch-instructions",
}


_NO_COUNTER = "this machine (perhaps a virtual one) has no such counter: software:cpu-clock may serve instead"
HINTS = {ENOENT: _NO_COUNTER, EOPNOTSUPP: _NO_COUNTER, ENODEV: _NO_COUNTER}


def attach(program: Program, probes: Sequence[ProbeSpec], without: frozenset[str]) -> list[KernelLink]:
    """Attach to each event."""
    return attach_each(program, probes, _attach_one)


def _attach_one(program: Program, probe: ProbeSpec) -> KernelLink:
    found = EVENTS.get(ALIASES.get(probe.event, probe.event))
    if found is None or (found[0] == abi.PERF_TYPE_HARDWARE) != (probe.type == "hardware"):
        kind = abi.PERF_TYPE_HARDWARE if probe.type == "hardware" else abi.PERF_TYPE_SOFTWARE
        names = ", ".join(name for name, event in EVENTS.items() if event[0] == kind)
        raise ProbeError(f"there is no {probe.type} event {probe.event!r}", hint=f"there are: {names}")
    kind, config, default = found
    if probe.pid:
        attr = abi.perf_event_attr(kind, config, period=probe.count or default, flags=abi.ATTR_INHERIT_THREADS)
        events = open_on_threads(probe, attr, HINTS)
    else:
        attr = abi.perf_event_attr(kind, config, period=probe.count or default)
        events = open_on_cpus(probe, attr, online_cpus(), HINTS)
    return attach_events(program, probe, events, "perf_event")

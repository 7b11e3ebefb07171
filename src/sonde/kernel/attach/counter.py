"""Software and hardware events: the program runs each time that a counter has advanced by `count`.

With a pid, the event follows the threads of that process; otherwise it counts on each online CPU.
"""

from __future__ import annotations

from errno import ENODEV, ENOENT, EOPNOTSUPP, ESRCH

from ...errors import ProbeError, TargetError
from .. import abi
from ..cpus import online_cpus
from ..perf_event import attach_events, open_event
from ..refusal import attach_refusal
from . import attach_each

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

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
        flags = abi.ATTR_INHERIT | abi.ATTR_INHERIT_THREAD
        attr = abi.perf_event_attr(kind, config, period=probe.count or default, flags=flags)
        events = open_on_threads(probe, attr)
    else:
        attr = abi.perf_event_attr(kind, config, period=probe.count or default)
        events = open_on_cpus(probe, attr, online_cpus())
    return attach_events(program, probe, events, "perf_event")


def open_on_cpus(probe: ProbeSpec, attr: bytearray, cpus: Sequence[int]) -> Iterator[int]:
    """Open the event on each of `cpus`, for every process. A CPU that went offline meanwhile is passed over."""
    opened = 0
    for cpu in cpus:
        fd = open_event(attr, -1, cpu)
        if fd >= 0:
            opened += 1
            yield fd
        elif fd != -ENODEV or (cpu == cpus[-1] and not opened):
            raise event_refusal(probe, -fd)


def open_on_threads(probe: ProbeSpec, attr: bytearray) -> Iterator[int]:
    """Open the event on each thread of `probe.pid`; threads that these start later inherit it.

    The list of threads is read again until it brings nothing new, since one may be started while we look.
    """
    seen: set[int] = set()
    while True:
        fresh = [tid for tid in list_threads(probe.pid) if tid not in seen]
        if not fresh:
            break
        for tid in fresh:
            seen.add(tid)
            fd = open_event(attr, tid, -1)
            if fd >= 0:
                yield fd
            elif fd != -ESRCH:
                raise event_refusal(probe, -fd)
    if not seen:
        raise TargetError(f"attach {probe.name}: there is no process {probe.pid}")


def list_threads(pid: int) -> list[int]:
    """Return the thread ids of a process; none when it is gone."""
    import os

    try:
        return [int(name) for name in os.listdir(f"/proc/{pid}/task")]
    except OSError:
        return []


def event_refusal(probe: ProbeSpec, errno: int) -> Exception:
    """Explain why perf_event_open refused the event of `probe`."""
    hint = ""
    if probe.type == "hardware" and errno in (ENOENT, EOPNOTSUPP, ENODEV):
        hint = "this machine (perhaps a virtual one) has no such hardware counter: software:cpu-clock may serve instead"
    return attach_refusal(probe.name, errno, hint=hint)

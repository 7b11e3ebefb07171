"""list_probes(): the probes that exist on this machine, and those of a script."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..lang.source import Source


def list_probes(pattern: str = "", *, verbose: bool = False, pid: int = 0, traceable: str = "") -> Iterator[str]:
    """Yield the full names of the probes that match `pattern` ("" for all), in bpftrace's order.

    With `verbose`, the arguments of each follow it, four spaces in. `pid` names the process for user probes without
    a target; `traceable` a file in place of the kernel's list of functions. Raises ProbeError for a malformed pattern.
    """
    from ..probes.listing import iter_probes
    from ..probes.scope import Machine
    from .trace import live_target

    machine = Machine(traceable=traceable)
    yield from iter_probes(pattern, live_target(), verbose=verbose, pid=pid, machine=machine)


def probes_of_script(source: Source, *, verbose: bool = False, traceable: str = "") -> Iterator[str]:
    """Yield the probes that the attach points of a script stand for. Raises CompileError, ProbeError."""
    from ..lang.bpftrace.parser import parse

    for probe in parse(source).probes:
        for point in probe.attach_points:
            yield from list_probes(point.text, verbose=verbose, traceable=traceable)

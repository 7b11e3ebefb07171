"""Tracepoints: the event's id from tracefs, a perf event for it, the program tied to that.

One perf event suffices: the program hangs on the tracepoint itself and runs on every CPU and in every process.
"""

from __future__ import annotations

from errno import EACCES, ENOENT, EPERM

from ...errors import FormatError, ProbeError
from .. import abi
from ..links import attach_each
from ..perf_event import attach_events, open_event
from ..refusal import attach_refusal, privilege_error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ...spec.object import ProbeSpec
    from ..links import KernelLink
    from ..programs import Program


def attach(program: Program, probes: Sequence[ProbeSpec], without: frozenset[str]) -> list[KernelLink]:
    """Attach to each tracepoint. Raises ProbeError for one that does not exist."""
    return attach_each(program, probes, _attach_one)


def _attach_one(program: Program, probe: ProbeSpec) -> KernelLink:
    from ...debuginfo.tracefs import find_root

    ident = read_event_id(probe, find_root())
    return attach_events(program, probe, _open(probe, ident), "perf_event")


def _open(probe: ProbeSpec, ident: int) -> Iterator[int]:
    attr = abi.perf_event_attr(abi.PERF_TYPE_TRACEPOINT, ident, period=1)
    fd = open_event(attr)
    if fd < 0:
        raise attach_refusal(probe.name, -fd)
    yield fd


def read_event_id(probe: ProbeSpec, root: str) -> int:
    """Return the number by which perf_event_open knows a tracepoint."""
    path = f"{root}/events/{probe.category}/{probe.event}/id"
    try:
        with open(path, "rb") as file:
            text = file.read(32)
    except OSError as error:
        if error.errno in (EPERM, EACCES):
            raise privilege_error(f"read {path}", "CAP_SYS_ADMIN") from None
        if error.errno == ENOENT:
            raise ProbeError(f"there is no tracepoint {probe.category}:{probe.event} on this kernel") from None
        raise FormatError(f"cannot be read: {error.strerror}", path=path) from None
    if not text.strip().isdigit():
        raise FormatError("is not a number", path=path)
    return int(text)

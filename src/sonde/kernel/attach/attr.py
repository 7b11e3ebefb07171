"""Any perf event: a program on what a struct perf_event_attr of the caller's own describes, on some CPUs."""

from __future__ import annotations

from errno import EINVAL, ENODEV, ENOENT

from ...spec.object import ProbeSpec
from .. import abi
from ..perf_event import attach_events, open_event
from ..refusal import attach_refusal
from .counter import HINTS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ..links import KernelLink
    from ..programs import Program


def attach_attr(
    program: Program, attr: bytearray, *, pid: int = -1, cpus: Sequence[int] = (-1,), group_fd: int = -1
) -> KernelLink:
    """Open the event on each of `cpus` (-1: wherever the process runs) for `pid` (-1: every process) and attach.

    A CPU that went offline meanwhile is passed over. Raises AttachError, PrivilegeError, FeatureError.
    """
    kind, config = (int.from_bytes(attr[at : at + n], "little") for at, n in ((0, 4), (8, 8)))
    probe = ProbeSpec(f"perf event {kind}:{config}", "software", program.name)
    return attach_events(program, probe, _open(probe, attr, pid, cpus, group_fd), "perf_event")


def _open(probe: ProbeSpec, attr: bytearray, pid: int, cpus: Sequence[int], group_fd: int) -> Iterator[int]:
    opened = 0
    for cpu in cpus:
        fd = open_event(attr, pid, cpu, group_fd)
        if fd >= 0:
            opened += 1
            yield fd
        elif fd != -ENODEV or (cpu == cpus[-1] and not opened):
            raise attach_refusal(probe.name, -fd, hint=HINTS.get(-fd, "") or _hint(-fd))


def _hint(errno: int) -> str:
    return "the kernel does not know such an event, or not with this period" if errno in (EINVAL, ENOENT) else ""


def sampling_attr(kind: int, config: int, period: int, frequency_hz: int) -> bytearray:
    """Pack the attr of an event that hits each `period` counts, or `frequency_hz` times a second where that is not 0."""
    return abi.perf_event_attr(
        kind, config, period=frequency_hz or period or 1, flags=abi.ATTR_FREQ if frequency_hz else 0
    )

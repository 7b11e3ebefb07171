"""Perf events as places to attach programs to: open one, and tie a program to it by a BPF link or by ioctl.

The link (Linux 5.15) carries a cookie and detaches by itself; the ioctl is for older kernels.
"""

from __future__ import annotations

from errno import EBADF, EINTR, EINVAL

from ..errors import FeatureError
from . import abi, syscall
from .descriptor import close_fd
from .links import KernelLink, create_link
from .refusal import attach_refusal, reason

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..spec.object import ProbeSpec
    from .programs import Program

_links_refused = ""  # the kernel's answer to the first perf_event link: asked once in a process


def open_event(attr: bytearray, pid: int = -1, cpu: int = 0) -> int:
    """perf_event_open: a descriptor or a negative errno. pid -1 is every process, cpu -1 every CPU."""
    result = -EINTR
    while result == -EINTR:
        result = syscall.perf_event_open(attr, pid, cpu, -1, abi.PERF_FLAG_FD_CLOEXEC)
    return result


def tie(program_fd: int, event_fd: int, cookie: int) -> tuple[int, int]:
    """Tie a program to a perf event. Returns (link descriptor, or -1 for the ioctl) and 0 or a negative errno."""
    global _links_refused
    result = -EINVAL
    if not _links_refused:
        result = create_link(program_fd, event_fd, "perf_event", abi.LINK_PERF_EVENT.pack(cookie))
        if result >= 0:
            return result, 0
        if result not in (-EINVAL, -EBADF):
            return -1, result
    if cookie:
        return -1, result  # without a link there is no place for it
    answer = syscall.ioctl(event_fd, abi.PERF_EVENT_IOC_SET_BPF, program_fd)
    if answer >= 0:
        _links_refused = _links_refused or f"perf_event link: {reason(-result)}"
        answer = syscall.ioctl(event_fd, abi.PERF_EVENT_IOC_ENABLE)
    return -1, min(answer, 0)


def attach_events(
    program: Program, probe: ProbeSpec, event_fds: Iterable[int], method: str, refused: Iterable[str] = ()
) -> KernelLink:
    """Tie `program` to each of the perf events; they are closed with the link, or at once when that fails.

    `event_fds` may be a generator that opens them. Raises AttachError, PrivilegeError or FeatureError.
    """
    fds: list[int] = []
    try:
        for event_fd in event_fds:
            fds.append(event_fd)
            link_fd, result = tie(program.fd_as(), event_fd, probe.cookie)
            if link_fd >= 0:
                fds.append(link_fd)
            elif result < 0:
                raise _tie_refusal(probe, -result)
    except BaseException:
        for fd in reversed(fds):
            close_fd(fd)
        raise
    tried = [*refused, *([_links_refused] if _links_refused else [])]
    return KernelLink([probe], f"{method} {'ioctl' if _links_refused else 'link'}", fds, tried)


def _tie_refusal(probe: ProbeSpec, errno: int) -> Exception:
    if probe.cookie and errno == EINVAL:
        return FeatureError(
            f"attach {probe.name}: this kernel has no cookies for perf events",
            feature="link:perf_event",
            hint="give each probe its own program",
        )
    return attach_refusal(probe.name, errno)

"""Perf events as places to attach programs to: open one, and tie a program to it by a BPF link or by ioctl.

The link (Linux 5.15) carries a cookie and detaches by itself; the ioctl is for older kernels.
"""

from __future__ import annotations

from errno import EACCES, EBADF, EINTR, EINVAL, ENODEV, ESRCH

from ..errors import AttachError, FeatureError, TargetError
from . import abi, syscall
from .descriptor import close_fd, new_descriptor
from .links import KernelLink, create_link
from .refusal import attach_refusal, reason

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from ..spec.object import ProbeSpec
    from .programs import Program

_links_refused = ""  # the kernel's answer to the first perf_event link: asked once in a process


def open_event(attr: bytearray, pid: int = -1, cpu: int = 0, group_fd: int = -1) -> int:
    """perf_event_open: a descriptor or a negative errno. pid -1 is every process, cpu -1 every CPU."""
    result = -EINTR
    while result == -EINTR:
        result = new_descriptor(lambda: syscall.perf_event_open(attr, pid, cpu, group_fd, abi.PERF_FLAG_FD_CLOEXEC))
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
    links: list[int] = []
    events: list[int] = []
    try:
        for event_fd in event_fds:
            events.append(event_fd)
            link_fd, result = tie(program.fd_as(), event_fd, probe.cookie)
            if link_fd >= 0:
                links.append(link_fd)
            elif result < 0:
                raise _tie_refusal(probe, -result)
    except BaseException:
        for fd in links + events:
            close_fd(fd)
        raise
    tried = [*refused, *([_links_refused] if _links_refused else [])]
    return KernelLink([probe], f"{method} {'ioctl' if _links_refused else 'link'}", links, tried, events)


def _tie_refusal(probe: ProbeSpec, errno: int) -> Exception:
    if probe.cookie and errno == EINVAL:
        return FeatureError(
            f"attach {probe.name}: this kernel has no cookies for perf events",
            feature="link:perf_event",
            hint="give each probe its own program",
        )
    if errno == EACCES and probe.type == "tracepoint":  # the one reason for which the kernel says that of a tracepoint
        hint = "its program reads more of its context than the record of this event has (tracefs: events/…/format)"
        return AttachError(f"attach {probe.name}", errno, hint=hint)
    return attach_refusal(probe.name, errno)


def open_on_cpus(
    probe: ProbeSpec, attr: bytearray, cpus: Sequence[int], hints: Mapping[int, str] | None = None
) -> Iterator[int]:
    """Open the event on each of `cpus`, for every process. A CPU that went offline meanwhile is passed over."""
    opened = 0
    for cpu in cpus:
        fd = open_event(attr, -1, cpu)
        if fd >= 0:
            opened += 1
            yield fd
        elif fd != -ENODEV or (cpu == cpus[-1] and not opened):
            raise attach_refusal(probe.name, -fd, hint=(hints or {}).get(-fd, ""))


def open_on_threads(probe: ProbeSpec, attr: bytearray, hints: Mapping[int, str] | None = None) -> Iterator[int]:
    """Open the event on each thread of `probe.pid`; threads that these start later inherit it.

    The list of threads is read again until it brings nothing new, since one may be started while we look.
    """
    from ..debuginfo.procmaps import list_threads

    seen: set[int] = set()
    while True:
        fresh = [tid for tid in list_threads(probe.pid) if tid not in seen]
        if not fresh:
            break
        for tid in fresh:
            seen.add(tid)
            fd = open_event(attr, tid, -1)
            if fd == -EINVAL and _drop_inherit_thread(attr):
                fd = open_event(attr, tid, -1)
            if fd >= 0:
                yield fd
            elif fd != -ESRCH:
                raise attach_refusal(probe.name, -fd, hint=(hints or {}).get(-fd, ""))
    if not seen:
        raise TargetError(f"attach {probe.name}: there is no process {probe.pid}")


def _drop_inherit_thread(attr: bytearray) -> bool:
    """Take the flag of Linux 5.13 out of `attr`, so that child processes inherit the event too; False when it was not in."""
    at = abi.ATTR_FLAGS_OFFSET
    flags = int.from_bytes(attr[at : at + 8], "little")
    attr[at : at + 8] = (flags & ~abi.ATTR_INHERIT_THREAD).to_bytes(8, "little")
    return bool(flags & abi.ATTR_INHERIT_THREAD)

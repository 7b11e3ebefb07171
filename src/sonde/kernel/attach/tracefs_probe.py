"""kprobes and uprobes as entries of tracefs: for kernels whose perf PMU is missing or does not know a symbol.

An entry outlives the process that wrote it. So its name carries our pid (`sonde_PID_N`), it is removed when the link
closes, and entries of processes that are dead are removed before the first new one is written.
"""

from __future__ import annotations

import os
from errno import EACCES, ENOENT, EPERM

from ...errors import FeatureError
from ...spec.object import ProbeSpec
from .. import abi
from ..descriptor import close_fd
from ..perf_event import attach_events, open_event
from ..refusal import attach_refusal, privilege_error
from .tracepoint import read_event_id

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..links import KernelLink
    from ..programs import Program

GROUP = "sonde"
_count = 0


def attach_by_tracefs(program: Program, probe: ProbeSpec, refused: Sequence[str] = ()) -> KernelLink:
    """Write an entry for `probe`, attach to the tracepoint that it makes, and remove it with the link.

    Raises FeatureError where the kernel has no such file, AttachError or PrivilegeError where it refuses the entry.
    """
    from ...debuginfo.tracefs import find_root

    root = find_root()
    path = f"{root}/{'uprobe' if probe.path else 'kprobe'}_events"
    remove_leftovers(path)
    name = _new_name()
    _write(path, probe, f"{definition(probe, name)}\n")
    event_fd = -1
    try:
        place = ProbeSpec(probe.name, "tracepoint", probe.program, GROUP, name)
        attr = abi.perf_event_attr(abi.PERF_TYPE_TRACEPOINT, read_event_id(place, root), period=1)
        event_fd = open_event(attr, probe.pid or -1, -1 if probe.pid else 0)
        if event_fd < 0:
            raise attach_refusal(probe.name, -event_fd)
        link = attach_events(program, probe, iter((event_fd,)), "tracefs entry", refused)
    except BaseException:
        remove(path, name)
        raise
    link.set_undo(lambda: remove(path, name))
    return link


def _new_name() -> str:
    global _count
    _count += 1
    return f"sonde_{os.getpid()}_{_count}"


def definition(probe: ProbeSpec, name: str) -> str:
    """Return the line that makes the probe, in the grammar of kprobe_events and uprobe_events."""
    kind = "r" if probe.type in ("kretprobe", "uretprobe") else "p"
    if probe.path:
        semaphore = f"({probe.semaphore_offset:#x})" if probe.semaphore_offset else ""
        return f"{kind}:{GROUP}/{name} {probe.path}:{probe.offset:#x}{semaphore}"
    module = "" if probe.module in ("", "vmlinux", "kernel") else probe.module + ":"
    place = f"{probe.address:#x}" if probe.address else module + probe.symbol
    return f"{kind}:{GROUP}/{name} {place}" + (f"+{probe.offset}" if probe.offset else "")


def _write(path: str, probe: ProbeSpec, line: str) -> None:
    try:
        fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in (EPERM, EACCES):
            raise privilege_error(f"write to {path}", "CAP_SYS_ADMIN") from None
        raise FeatureError(f"this kernel has no {path}", feature="tracefs:" + path.rsplit("/", 1)[1]) from None
    try:
        os.write(fd, line.encode("utf-8", "surrogateescape"))
    except OSError as error:
        raise attach_refusal(probe.name, error.errno or ENOENT) from None
    finally:
        close_fd(fd)


def remove(path: str, name: str) -> None:
    """Remove one of our entries; it does not matter when it is gone already."""
    try:
        fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
    except OSError:
        return
    try:
        os.write(fd, f"-:{GROUP}/{name}\n".encode())
    except OSError:
        pass
    finally:
        close_fd(fd)


def remove_leftovers(path: str) -> int:
    """Remove entries of processes that are dead (killed before they could); return how many."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            lines = file.read().splitlines()
    except OSError:
        return 0
    removed = 0
    for name in find_leftovers(lines):
        remove(path, name)
        removed += 1
    return removed


def find_leftovers(lines: Sequence[str]) -> list[str]:
    """Return the names of our entries among `lines` whose process does not exist any more."""
    found = []
    for line in lines:
        group, slash, name = line.split(" ", 1)[0].partition(":")[2].partition("/")
        parts = name.split("_")
        if not slash or group != GROUP or len(parts) != 3 or parts[0] != "sonde" or not parts[1].isdigit():
            continue
        if not os.path.exists(f"/proc/{parts[1]}"):
            found.append(name)
    return found

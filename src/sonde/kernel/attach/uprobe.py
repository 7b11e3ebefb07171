"""uprobe, uretprobe and USDT: one uprobe_multi link for all probes in a file, else one perf event for each.

A multi link (Linux 6.6) attaches many places at once, costs less at each hit, and detaches at once. The uprobe PMU (4.17)
takes one place for each perf event. A USDT probe is a uprobe with a semaphore, a counter in the program's memory that
the kernel raises while the probe is attached (`ref_ctr_offset`).
"""

from __future__ import annotations

from errno import EACCES, EBADF, EINVAL, ENOENT, ENOTDIR, EOPNOTSUPP, EPERM, ESRCH
from struct import pack

from ...errors import FeatureError, PrivilegeError, ProbeError, TargetError
from .. import abi
from ..abi import ENOTSUPP
from ..links import KernelLink, attach_each, create_link
from ..perf_event import attach_events, open_event
from ..refusal import attach_refusal, reason
from ..syscall import address

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from ...spec.object import ProbeSpec
    from ..programs import Program

PMU = "/sys/bus/event_source/devices/uprobe"
MULTI = "trace_uprobe_multi"


def attach(program: Program, probes: Sequence[ProbeSpec], without: frozenset[str]) -> list[KernelLink]:
    """Attach at each place. Raises ProbeError, TargetError, AttachError, PrivilegeError or FeatureError."""
    links: list[KernelLink] = []
    try:
        for group in _group(probes):
            links += _attach_group(program, group, without)
    except BaseException:
        for link in reversed(links):
            link.close()
        raise
    return links


def _group(probes: Sequence[ProbeSpec]) -> Iterable[list[ProbeSpec]]:
    """What one multi link can hold: places in one file, for one process or for all."""
    groups: dict[tuple[str, int], list[ProbeSpec]] = {}
    for probe in probes:
        groups.setdefault((probe.path, probe.pid), []).append(probe)
    return groups.values()


def _attach_group(program: Program, probes: list[ProbeSpec], without: frozenset[str]) -> list[KernelLink]:
    refused = "uprobe_multi: switched off"
    if "uprobe_multi" not in without:
        link_fd = _create_multi(program, probes)
        if link_fd >= 0:
            return [KernelLink(probes, "uprobe_multi link", [link_fd])]
        if -link_fd not in (EINVAL, ENOTSUPP, EOPNOTSUPP):
            raise explain(probes[0], -link_fd)
        refused = f"uprobe_multi: {reason(-link_fd)}"
    return attach_each(program, probes, lambda program, probe: _attach_event(program, probe, refused))


def _create_multi(program: Program, probes: list[ProbeSpec]) -> int:
    """Make the multi link; a descriptor or a negative errno."""
    count = len(probes)
    path = probes[0].path.encode("utf-8", "surrogateescape") + b"\0"
    offsets = pack(f"={count}Q", *[p.offset for p in probes])
    semaphores = (
        pack(f"={count}Q", *[p.semaphore_offset for p in probes]) if any(p.semaphore_offset for p in probes) else b""
    )
    cookies = pack(f"={count}Q", *[p.cookie for p in probes]) if any(p.cookie for p in probes) else b""
    flags = abi.BPF_F_PROBE_MULTI_RETURN if probes[0].type == "uretprobe" else 0
    rest = abi.LINK_UPROBE_MULTI.pack(
        address(path), address(offsets), address(semaphores), address(cookies), count, flags, probes[0].pid, 0
    )
    return create_link(program.fd_as(MULTI), 0, MULTI, rest)


def _attach_event(program: Program, probe: ProbeSpec, refused: str) -> KernelLink:
    return attach_events(program, probe, _open(probe), "uprobe perf_event", [refused])


def _open(probe: ProbeSpec) -> Iterator[int]:
    if probe.semaphore_offset >> 32:
        raise ProbeError(f"{probe.name}: its semaphore lies beyond 4 GiB, out of reach for the kernel's uprobe events")
    path = probe.path.encode("utf-8", "surrogateescape") + b"\0"
    attr = abi.perf_event_attr(
        read_pmu_type(PMU),
        (1 if probe.type == "uretprobe" else 0) | probe.semaphore_offset << 32,
        config1=address(path),
        config2=probe.offset,
    )
    fd = open_event(attr, probe.pid or -1, -1 if probe.pid else 0)
    if fd < 0:
        raise explain(probe, -fd)
    yield fd


def read_pmu_type(folder: str) -> int:
    """Return the perf event type of a PMU that is not numbered by the ABI. Raises FeatureError where there is none."""
    try:
        with open(folder + "/type", "rb") as file:
            return int(file.read(32))
    except (OSError, ValueError):
        name = folder.rsplit("/", 1)[1]
        raise FeatureError(
            f"this kernel has no {name} events ({folder} is missing)",
            feature=f"pmu:{name}",
            hint=f"it was built without CONFIG_{name.upper()}_EVENTS",
        ) from None


def explain(probe: ProbeSpec, errno: int) -> Exception:
    """Say why the kernel refused a uprobe."""
    import os

    place = f"{probe.path}+{probe.offset:#x}" + (f" ({probe.symbol})" if probe.symbol else "")
    if errno in (ENOENT, ENOTDIR, EBADF) or not os.path.isfile(probe.path):
        kind = "is not a regular file" if os.path.exists(probe.path) else "does not exist"
        return ProbeError(
            f"attach {probe.name}: {probe.path} {kind}", hint="give the full path of a program or library"
        )
    if errno == ESRCH and probe.pid:
        return TargetError(f"attach {probe.name}: there is no process {probe.pid}")
    if errno in (EPERM, EACCES) and not os.access(probe.path, os.R_OK):
        return PrivilegeError(f"attach {probe.name}: {probe.path} may not be read by this user")
    hint = ""
    if errno in (EINVAL, EOPNOTSUPP, ENOTSUPP):
        hint = f"no probe can stand at {place}: not in the file's code, or on an instruction that the kernel refuses"
        if probe.semaphore_offset:
            hint += "; or another probe stands there that does not share its semaphore"
    return attach_refusal(probe.name, errno, hint=hint)

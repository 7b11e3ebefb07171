"""Memory that sonde and a process share: a memfd that the process makes, mapped in both, of which neither keeps a descriptor in the process.

The process makes it, because a memfd belongs to its maker: so sonde needs no right but that of tracing the process, and the process none on files of
sonde's. sonde takes a descriptor by pidfd_getfd(2) before the process closes its own.
"""

from __future__ import annotations

import os
from errno import EACCES, EEXIST, EINVAL, ENOMEM, ENOSYS, EPERM

from ..errors import KernelError, TargetError
from ..record import Record
from . import ptrace
from .calls import Call, Result

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ..debuginfo.procmaps import Mapping
    from .stopped import StoppedProcess

PROT_READ, PROT_WRITE, PROT_EXEC = 1, 2, 4
SHARED, FIXED_NOREPLACE = 1, 0x100000
_MFD_CLOEXEC, _MFD_NOEXEC_SEAL = 1, 8
PAGE = 4096
_LOWEST, _HIGHEST = 0x10000, 0x7FFF_FFFF_F000
_APART = 16 * PAGE  # from what is mapped
_STACK_ROOM = 128 << 20  # below the main stack, which grows: no less than what the kernel leaves free there
_HEAP_ROOM = 1 << 30  # above the heap, which grows; above all that is mapped where it is not there yet
_TRIES = 5


class Shared(Record):
    """`size` bytes of shared memory, at `address` in the process; `fd` is ours, and whoever holds this closes it.

    The last `repeated` bytes are mapped a second time, right behind the others.
    """

    address: int
    size: int
    fd: int
    repeated: int = 0

    @property
    def extent(self) -> int:
        """How many bytes of the process's addresses it takes."""
        return self.size + self.repeated


def page_up(size: int) -> int:
    """Return the next multiple of a page."""
    return (size + PAGE - 1) & -PAGE


def find_gap(mappings: Sequence[Mapping], size: int, near: tuple[int, int] | None, reach: int = 1 << 31) -> int:
    """Return an address where `size` bytes are free, within `reach` bytes of all of `near`, from its first to its last address.

    The closest gap below is taken, else the closest above, where no heap grows into it. Without `near` it is the highest gap. Raises TargetError.
    """
    low, high = near or (_HIGHEST, _HIGHEST)
    lowest, highest = (
        (max(_LOWEST, high - reach + PAGE), min(_HIGHEST, low + reach - PAGE)) if near else (_LOWEST, _HIGHEST)
    )
    below, above = 0, 0
    end = room = 0
    for start, after, apart, room_above in [*_obstacles(mappings), (_HIGHEST, _HIGHEST, 0, 0)]:
        first, last = max(end + _APART, lowest), min(start - apart, highest) - size & -PAGE
        if first <= last <= low:
            below = last
        elif not above and max(first, end + room) <= last:
            above = max(first, end + room)
        if after >= end:
            end, room = after, room_above
    found = below or above
    if not found:
        where = f" within {reach >> 20} MiB of {low:#x}" if near else ""
        raise TargetError(f"the process has no {size >> 10} KiB of free addresses{where}")
    return found


def _obstacles(mappings: Sequence[Mapping]) -> list[tuple[int, int, int, int]]:
    """First and last address of what is mapped, and how many bytes below it and above it are to be left free."""
    heaps = {m.end for m in mappings if m.path == "[heap]"}
    spans = [
        (
            m.start,
            m.end,
            _STACK_ROOM if m.path == "[stack]" else _APART,
            _APART if heaps and m.end not in heaps else _HEAP_ROOM,
        )
        for m in mappings
    ]
    return [span for span in spans if span[0] < _HIGHEST]


def share(
    stopped: StoppedProcess,
    name: str,
    size: int,
    protection: int,
    *,
    near: tuple[int, int] | None = None,
    reach: int = 1 << 31,
    repeated: int = 0,
) -> Shared:
    """Make `size` bytes of memory (whole pages) that the process sees with `protection` (PROT_…), named `name` in its maps. `near` and `reach`: see `find_gap`.

    Raises TargetError, KernelError, PrivilegeError; nothing is left behind then but what the process could not undo either.
    """
    size, repeated = page_up(size), page_up(repeated)
    pidfd = os.pidfd_open(stopped.pid)
    try:
        for attempt in range(_TRIES):  # what was free when the mappings were read may be taken
            address = find_gap(stopped.maps() if attempt else stopped.mappings(), size + repeated, near, reach)
            made = _make(stopped, pidfd, name, Shared(address, size, -1, repeated), protection)
            if made is not None:
                return made
    finally:
        os.close(pidfd)
    raise TargetError(
        f"process {stopped.pid} maps memory faster than sonde finds free addresses in it", hint="try again"
    )


def share_at(stopped: StoppedProcess, name: str, address: int, size: int, protection: int) -> Shared | None:
    """Make shared memory of whole pages at an address of the process; None when something is there by now. Raises as `share`."""
    pidfd = os.pidfd_open(stopped.pid)
    try:
        return _make(stopped, pidfd, name, Shared(address, size, -1), protection)
    finally:
        os.close(pidfd)


def iter_free(
    mappings: Sequence[Mapping], first: int, last: int, heap_room: int = _HEAP_ROOM
) -> Iterator[tuple[int, int]]:
    """Yield what is free of the addresses from `first` to `last`, in whole pages: (start, end). The main stack keeps the room that it grows into, the heap `heap_room`."""
    first, last = max(first & -PAGE, _LOWEST), min(page_up(last + 1), _HIGHEST)
    # While there is no heap, it will begin behind the program, which is what is mapped first.
    heap = "[heap]" if any(m.path == "[heap]" for m in mappings) else mappings[0].path if mappings else ""
    for start, after, below, above in [
        *((m.start, m.end, _STACK_ROOM * (m.path == "[stack]"), heap_room * (m.path == heap)) for m in mappings),
        (_HIGHEST, _HIGHEST, 0, 0),
    ]:
        if first < min(start - below, last):
            yield first, min(start - below, last)
        first = max(first, after + above)


def _make(stopped: StoppedProcess, pidfd: int, name: str, plan: Shared, protection: int) -> Shared | None:
    """Let the process make the memory that is planned; None when its addresses have been taken meanwhile."""
    taken: list[int] = []

    def fetch(results: Sequence[int]) -> None:
        if min(results) >= 0:
            taken.append(ptrace.fetch_descriptor(pidfd, results[0]))

    fixed = SHARED | FIXED_NOREPLACE
    calls = [
        Call("memfd_create", (name.encode() + b"\0", _memfd_flags())),
        Call("ftruncate", (Result(0), plan.size)),
        Call("mmap", (plan.address, plan.size, protection, fixed, Result(0), 0)),
    ]
    if plan.repeated:
        again = plan.address + plan.size
        calls.append(Call("mmap", (again, plan.repeated, protection, fixed, Result(0), plan.size - plan.repeated)))
    last = len(calls) - 1
    results = stopped.run([*calls, Call("close", (Result(0),))], {last: fetch})
    wanted = (None, None, plan.address, plan.address + plan.size)
    good = all(result >= 0 and want in (None, result) for result, want in zip(results[: last + 1], wanted))
    if good and taken:
        stopped.note_mapping(plan.address, plan.extent)
        return Shared(plan.address, plan.size, taken[0], plan.repeated)
    for fd in taken:
        os.close(fd)
    spans = zip(results[2 : last + 1], (plan.size, plan.repeated))
    unmap(stopped, [(result, length) for result, length in spans if result > 0])
    failed = next((i for i, result in enumerate(results[: last + 1]) if result < 0), None)
    if failed is not None and (failed < 2 or results[failed] != -EEXIST):
        raise _refused(stopped, str(calls[failed].number), -results[failed])
    return None


def _refused(stopped: StoppedProcess, call: str, errno: int) -> KernelError:
    hints = {
        EACCES: "a security module (SELinux) or the mount options of /dev/shm forbid memory with code to this process",
        EPERM: "a seccomp filter or a security module forbids this call to the process",
        ENOMEM: "the process may have no more memory (ulimit -v), or no more mappings (sysctl vm.max_map_count)",
        ENOSYS: "this kernel is too old: memfd_create needs Linux 3.17",
    }
    return KernelError(
        f"process {stopped.pid} could not make shared memory: its call of {call} failed",
        errno,
        hint=hints.get(errno, ""),
    )


_flags: list[int] = []


def _memfd_flags() -> int:
    """The flags of memfd_create: newer kernels are to be told that nobody will execute it as a program, and may insist on it (vm.memfd_noexec)."""
    if not _flags:
        try:
            os.close(os.memfd_create("sonde", _MFD_CLOEXEC | _MFD_NOEXEC_SEAL))
            _flags.append(_MFD_CLOEXEC | _MFD_NOEXEC_SEAL)
        except OSError as error:
            if error.errno not in (EINVAL, ENOSYS):
                raise
            _flags.append(_MFD_CLOEXEC)
    return _flags[0]


def unmap(stopped: StoppedProcess, spans: Sequence[tuple[int, int]]) -> None:
    """Unmap memory in the process: addresses and sizes in bytes. Raises KernelError."""
    for start in range(0, len(spans), 8):
        results = stopped.run([Call("munmap", span) for span in spans[start : start + 8]])
        for result in results:
            if result < 0:
                raise KernelError(f"process {stopped.pid} could not unmap memory", -result)


def merge(memories: Sequence[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    """Join memories (address, size) that lie side by side."""
    merged: list[tuple[int, int]] = []
    for start, size in sorted(memories):
        if merged and sum(merged[-1]) == start:
            merged[-1] = merged[-1][0], merged[-1][1] + size
        else:
            merged.append((start, size))
    return tuple(merged)

"""What holds a program to its probe: descriptors of BPF links and perf events, and what must be undone by hand.

All but entries in tracefs live on descriptors, so that the kernel takes them away also when sonde is killed.
"""

from __future__ import annotations

from . import abi, syscall
from .descriptor import close_fd, new_descriptor, warn_forgotten

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _thread import LockType
    from collections.abc import Callable, Sequence

    from ..spec.object import ProbeSpec
    from .programs import Program

_STOP_THREADS = 32


class KernelLink:
    """A program attached to one or more probes (see spec.engine.Link). Closing detaches; closing twice is harmless.

    `links` are descriptors of BPF links, `events` those of the perf events behind them. A program stops when its
    BPF link is closed. Releasing the events behind it takes the kernel longer, a grace period of 40 ms for each.
    """

    __slots__ = ("_events", "_links", "_undo", "method", "probes", "refused")

    def __init__(
        self,
        probes: Sequence[ProbeSpec],
        method: str,
        links: Sequence[int] = (),
        refused: Sequence[str] = (),
        events: Sequence[int] = (),
    ) -> None:
        self.probes = tuple(probes)
        self.method = method
        self.refused = tuple(refused)
        self._links = list(links)
        self._events = list(events)
        self._undo: Callable[[], None] | None = None

    @property
    def how(self) -> str:
        """The attach method in use, and what the kernel refused before: "perf_event ioctl (perf_event link: EINVAL …)"."""
        return f"{self.method} (refused: {'; '.join(self.refused)})" if self.refused else self.method

    @property
    def fd(self) -> int:
        """The descriptor of the (first) BPF link, or of the perf event where there is none; -1 once closed."""
        return (self._links or self._events or [-1])[0]

    @property
    def bpf_links(self) -> tuple[int, ...]:
        """The descriptors of BPF links, which can be pinned; none where the kernel attached by a perf event alone."""
        return tuple(self._links)

    @property
    def closed(self) -> bool:
        """Whether nothing of it is open."""
        return not self._links and not self._events and self._undo is None

    def set_undo(self, undo: Callable[[], None]) -> None:
        """Have `undo` called once the descriptors are closed: for what does not go away with them."""
        self._undo = undo

    def take_running(self) -> list[int]:
        """Give up the descriptors whose closing stops the program: the caller closes them."""
        if self._links:
            fds, self._links = self._links, []
        else:
            fds, self._events = self._events, []
        return fds

    def close(self) -> None:
        """Detach."""
        fds, self._links, self._events = [*self._events, *self._links], [], []
        for fd in reversed(fds):
            close_fd(fd)
        undo, self._undo = self._undo, None
        if undo is not None:
            undo()

    def __del__(self) -> None:
        if getattr(self, "_links", None) or getattr(self, "_events", None):
            warn_forgotten(self)
            self.close()

    def __repr__(self) -> str:
        names = ", ".join(p.name for p in self.probes[:3]) + (" …" if len(self.probes) > 3 else "")
        return f"<KernelLink {names}: {'closed' if self.closed else self.how}>"


def stop_programs(links: Sequence[KernelLink]) -> None:
    """Stop the programs of all `links` at once; what is behind them stays open until each is closed.

    Each stop waits for a grace period of the kernel (40 ms for tracepoints and kprobes). They pass at the same time when
    they are asked for by several threads: 40 tracepoints stop in 0.05 s, and one after the other in 1.4 s.
    """
    fds = [fd for link in links for fd in link.take_running()]
    if len(fds) < 3:
        for fd in fds:
            close_fd(fd)
        return
    from _thread import allocate_lock, start_new_thread

    def work(done: LockType) -> None:
        while True:
            try:
                close_fd(fds.pop())
            except IndexError:
                break
        done.release()

    working = []
    try:
        for _ in range(min(len(fds), _STOP_THREADS)):
            done = allocate_lock()
            done.acquire()
            start_new_thread(work, (done,))
            working.append(done)
    except RuntimeError:  # no more threads: those that there are do it all, or this one
        pass
    while fds:
        try:
            close_fd(fds.pop())
        except IndexError:
            break
    for done in working:
        done.acquire()


def create_link(program_fd: int, target_fd: int, attach_type: str, rest: bytes = b"", flags: int = 0) -> int:
    """BPF_LINK_CREATE: a new descriptor or a negative errno. `rest` is the part of the attribute for this attach type."""
    attr = bytearray(abi.LINK_CREATE.pack(program_fd, target_fd, abi.attach_type(attach_type), flags) + rest)
    return new_descriptor(lambda: syscall.bpf(abi.BPF_LINK_CREATE, attr))


def attach_each(
    program: Program, probes: Sequence[ProbeSpec], one: Callable[[Program, ProbeSpec], KernelLink]
) -> list[KernelLink]:
    """Attach probes one after the other; close those before when one fails."""
    links: list[KernelLink] = []
    try:
        for probe in probes:
            links.append(one(program, probe))
    except BaseException:
        for link in reversed(links):
            link.close()
        raise
    return links

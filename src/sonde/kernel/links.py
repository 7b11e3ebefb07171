"""What holds a program to its probe: descriptors of BPF links and perf events, and what must be undone by hand.

All but entries in tracefs live on descriptors, so that the kernel takes them away also when sonde is killed.
"""

from __future__ import annotations

from . import abi, syscall
from .descriptor import close_fd, warn_forgotten

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ..spec.object import ProbeSpec
    from .programs import Program


class KernelLink:
    """A program attached to one or more probes (see spec.engine.Link). Closing detaches; closing twice is harmless."""

    __slots__ = ("_fds", "_undo", "method", "probes", "refused")

    def __init__(
        self,
        probes: Sequence[ProbeSpec],
        method: str,
        fds: Sequence[int] = (),
        refused: Sequence[str] = (),
        undo: Callable[[], None] | None = None,
    ) -> None:
        self.probes = tuple(probes)
        self.method = method
        self.refused = tuple(refused)
        self._fds = list(fds)
        self._undo = undo

    @property
    def how(self) -> str:
        """The attach method in use, and what the kernel refused before: "perf_event ioctl (perf_event link: EINVAL …)"."""
        return f"{self.method} (refused: {'; '.join(self.refused)})" if self.refused else self.method

    @property
    def fd(self) -> int:
        """The descriptor of the BPF link, or of the first perf event where there is none; -1 once closed."""
        return self._fds[-1] if self._fds else -1

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        return not self._fds and self._undo is None

    def set_undo(self, undo: Callable[[], None]) -> None:
        """Have `undo` called once the descriptors are closed: for what does not go away with them."""
        self._undo = undo

    def close(self) -> None:
        """Detach."""
        fds, self._fds = self._fds, []
        for fd in reversed(fds):
            close_fd(fd)
        undo, self._undo = self._undo, None
        if undo is not None:
            undo()

    def __del__(self) -> None:
        if getattr(self, "_fds", None):
            warn_forgotten(self)
            self.close()

    def __repr__(self) -> str:
        names = ", ".join(p.name for p in self.probes[:3]) + (" …" if len(self.probes) > 3 else "")
        return f"<KernelLink {names}: {'closed' if self.closed else self.how}>"


def create_link(program_fd: int, target_fd: int, attach_type: str, rest: bytes = b"", flags: int = 0) -> int:
    """BPF_LINK_CREATE: a new descriptor or a negative errno. `rest` is the part of the attribute for this attach type."""
    attr = bytearray(abi.LINK_CREATE.pack(program_fd, target_fd, abi.attach_type(attach_type), flags) + rest)
    return syscall.bpf(abi.BPF_LINK_CREATE, attr)


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

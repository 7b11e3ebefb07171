"""Descriptors that close once, in order, and complain when they are forgotten; limits on locked memory."""

from __future__ import annotations

import os

from . import syscall

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


class Descriptor:
    """Owns one file descriptor. Base of all live handles of this room."""

    __slots__ = ("fd",)

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def fileno(self) -> int:
        """Return the descriptor; -1 once closed."""
        return self.fd

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        return self.fd < 0

    def close(self) -> None:
        """Close it. Closing twice is harmless."""
        fd, self.fd = self.fd, -1
        close_fd(fd)

    def __enter__(self) -> Descriptor:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "fd", -1) >= 0:
            warn_forgotten(self)
            self.close()


def close_fd(fd: int) -> None:
    """Close `fd` unless it is negative. An error of close(2) has no remedy and is ignored."""
    if fd >= 0:
        try:
            os.close(fd)
        except OSError:
            pass


def warn_forgotten(handle: object) -> None:
    """Issue the ResourceWarning for a live handle that is collected unclosed."""
    import warnings

    warnings.warn(f"{type(handle).__name__} was never closed", ResourceWarning, stacklevel=3, source=handle)


_memlock_raised = False


def raise_memlock() -> bool:
    """Raise RLIMIT_MEMLOCK as far as allowed; tell whether that changed anything.

    Kernels before 5.11 count maps and programs against it and answer EPERM when it is used up. Called on EPERM only,
    so newer kernels never see it.
    """
    global _memlock_raised
    if _memlock_raised:
        return False
    _memlock_raised = True
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    for limit in ((resource.RLIM_INFINITY, resource.RLIM_INFINITY), (hard, hard)):
        if limit == (soft, hard):
            return False
        try:
            resource.setrlimit(resource.RLIMIT_MEMLOCK, limit)
        except (OSError, ValueError):
            continue
        return True
    return False


def bpf_new(command: int, pack: Callable[[], bytearray]) -> int:
    """Make a bpf(2) call that gives a descriptor, once more when RLIMIT_MEMLOCK was in the way.

    `pack` is called for each try. Returns the descriptor or a negative errno.
    """
    result = syscall.bpf(command, pack())
    if result == -1 and raise_memlock():  # EPERM
        result = syscall.bpf(command, pack())
    return result

"""Descriptors that close once, in order, and complain when they are forgotten; limits that are in the way of new ones."""

from __future__ import annotations

import os
from errno import EMFILE, EPERM

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


_raised: set[int] = set()


def raise_limit(resource_number: int) -> bool:
    """Raise a resource limit of this process as far as allowed, once; tell whether that changed anything."""
    if resource_number in _raised:
        return False
    _raised.add(resource_number)
    import resource

    soft, hard = resource.getrlimit(resource_number)
    wanted = [(hard, hard)]
    if resource_number == resource.RLIMIT_MEMLOCK:
        wanted.insert(0, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    for limit in wanted:
        if limit == (soft, hard):
            return False
        try:
            resource.setrlimit(resource_number, limit)
        except (OSError, ValueError):
            continue
        return True
    return False


def raise_memlock() -> bool:
    """Raise RLIMIT_MEMLOCK: kernels before 5.11 count maps and programs against it and answer EPERM when it is used up.

    Called on EPERM only, so newer kernels never see it.
    """
    from resource import RLIMIT_MEMLOCK

    return raise_limit(RLIMIT_MEMLOCK)


def raise_open_files() -> bool:
    """Raise RLIMIT_NOFILE: a thousand probes take more descriptors than most shells allow. Called on EMFILE only."""
    from resource import RLIMIT_NOFILE

    return raise_limit(RLIMIT_NOFILE)


def new_descriptor(call: Callable[[], int]) -> int:
    """Make a system call that gives a descriptor, once more when a resource limit was in the way that can be raised.

    Returns the descriptor or a negative errno.
    """
    result = call()
    if (result == -EPERM and raise_memlock()) or (result == -EMFILE and raise_open_files()):
        result = call()
    return result


def bpf_new(command: int, pack: Callable[[], bytearray]) -> int:
    """Make a bpf(2) call that gives a descriptor; `pack` is called for each try."""
    return new_descriptor(lambda: syscall.bpf(command, pack()))

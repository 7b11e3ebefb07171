"""Programs that attach to something with a descriptor: a cgroup, a sockmap, a network namespace; and to a packet socket.

A BPF link is tried first, because it goes away with us. Where the kernel has none for the attach type, BPF_PROG_ATTACH does
it; closing the KernelLink undoes that too, but a killed process leaves it behind.
"""

from __future__ import annotations

import os
from errno import EBADF, EINVAL, ENOENT, EOPNOTSUPP, EPERM

from ...errors import ProbeError, SondeError
from ...spec.object import ProbeSpec
from .. import abi, syscall
from ..abi import ENOTSUPP, PROG_ATTACH
from ..descriptor import close_fd
from ..links import KernelLink, attach_each, create_link
from ..refusal import attach_refusal, reason, refusal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..programs import Program

_ALLOW_MULTI = 2  # BPF_F_ALLOW_MULTI: what a link on a cgroup implies
_TRY_ATTACH = (EINVAL, ENOTSUPP, EOPNOTSUPP, EBADF, EPERM)
_ETH_P_ALL, _SO_ATTACH_BPF = 3, 50


def attach(program: Program, probes: Sequence[ProbeSpec], without: frozenset[str]) -> list[KernelLink]:
    """Attach to each cgroup by its directory. Raises ProbeError, AttachError, PrivilegeError."""
    return attach_each(program, probes, _attach_cgroup)


def _attach_cgroup(program: Program, probe: ProbeSpec) -> KernelLink:
    try:
        fd = os.open(probe.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise ProbeError(f"attach {probe.name}: {probe.path} is no cgroup: {error.strerror}") from None
    try:
        return attach_to(program.fd_as(), fd, program.spec.attach_type, probe=probe)
    finally:
        close_fd(fd)


def attach_to(
    program_fd: int, target_fd: int, attach_type: str, flags: int = 0, *, probe: ProbeSpec | None = None
) -> KernelLink:
    """Attach a program to what `target_fd` stands for. `flags` are those of BPF_PROG_ATTACH. Raises AttachError, PrivilegeError."""
    probe = probe or ProbeSpec(f"{attach_type}:fd {target_fd}", "cgroup", "")
    refused: tuple[str, ...] = ()
    if flags in (0, _ALLOW_MULTI):
        fd = create_link(program_fd, target_fd, attach_type)
        if fd >= 0:
            return KernelLink([probe], f"{attach_type} link", [fd])
        if -fd not in _TRY_ATTACH:
            raise attach_refusal(probe.name, -fd, needs=("CAP_NET_ADMIN", "CAP_BPF"))
        refused = (f"link: {reason(-fd)}",)
    number = abi.attach_type(attach_type)
    result = syscall.bpf(
        abi.BPF_PROG_ATTACH, bytearray(PROG_ATTACH.pack(target_fd & 0xFFFFFFFF, program_fd, number, flags, 0))
    )
    if result < 0:
        raise attach_refusal(probe.name, -result, needs=("CAP_NET_ADMIN", "CAP_BPF"))
    link = KernelLink([probe], f"{attach_type} attach", (), refused)
    keep = os.dup(target_fd), os.dup(program_fd)
    link.set_undo(lambda: _detach(*keep, number))
    return link


def _detach(target_fd: int, program_fd: int, number: int) -> None:
    try:
        detach_from(program_fd, target_fd, number)
    except SondeError:  # the target has gone, and the attachment with it
        pass
    finally:
        close_fd(program_fd)
        close_fd(target_fd)


def detach_from(program_fd: int, target_fd: int, number: int) -> None:
    """BPF_PROG_DETACH: take a program off a target to which BPF_PROG_ATTACH put it. Raises KernelError, ProbeError."""
    result = syscall.bpf(
        abi.BPF_PROG_DETACH, bytearray(PROG_ATTACH.pack(target_fd & 0xFFFFFFFF, program_fd, number, 0, 0))
    )
    if result == -ENOENT:
        raise ProbeError("the program is not attached there")
    if result < 0:
        raise refusal("detach a program", -result, needs=("CAP_NET_ADMIN", "CAP_BPF"))


def open_packet_socket(program_fd: int, device: str) -> int:
    """Open a non-blocking packet socket on `device` ("" for all) that gets what the program lets through; return its descriptor.

    Raises ProbeError, PrivilegeError, AttachError.
    """
    import socket

    from .xdp import find_device

    if device:
        find_device(device)
    try:
        kind = socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
        opened = socket.socket(socket.AF_PACKET, kind, socket.htons(_ETH_P_ALL))
    except OSError as error:
        raise refusal(f"open a packet socket on {device}", error.errno or EINVAL, needs=("CAP_NET_RAW",)) from None
    try:
        if device:
            opened.bind((device, _ETH_P_ALL))
        opened.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_BPF, program_fd)
        return opened.detach()
    except OSError as error:
        opened.close()
        raise attach_refusal(f"a socket filter on {device}", error.errno or EINVAL) from None

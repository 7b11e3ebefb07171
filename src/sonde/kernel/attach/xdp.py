"""XDP: a program at the entrance of a network device, by a BPF link (Linux 5.9) that goes away with its descriptor.

What a link does not hold (a program that another tool left on a device) is taken off by rtnetlink.
"""

from __future__ import annotations

from errno import EBUSY, EEXIST, ENODEV, EOPNOTSUPP
from struct import pack, unpack_from

from ...errors import ProbeError
from ..links import KernelLink, attach_each, create_link
from ..refusal import attach_refusal, refusal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from ...spec.object import ProbeSpec
    from ..programs import Program

# XDP_FLAGS_* of linux/if_link.h.
MODES = {"": 0, "skb": 1 << 1, "drv": 1 << 2, "hw": 1 << 3}
_RTM_SETLINK, _NLM_F_REQUEST, _NLM_F_ACK, _NLMSG_ERROR = 19, 1, 4, 2
_IFLA_XDP, _IFLA_XDP_FD, _IFLA_XDP_FLAGS, _NESTED = 43, 1, 3, 1 << 15
_NETLINK_ROUTE, _AF_NETLINK, _SOCK_RAW = 0, 16, 3


def attach(program: Program, probes: Sequence[ProbeSpec], without: frozenset[str]) -> list[KernelLink]:
    """Attach at each device. Raises ProbeError for a device that does not exist, AttachError, PrivilegeError."""
    return attach_each(program, probes, _attach_one)


def _attach_one(program: Program, probe: ProbeSpec) -> KernelLink:
    index = find_device(probe.event)
    fd = create_link(program.fd_as(), index, "xdp", bytes(16), MODES[probe.mode])
    if fd >= 0:
        return KernelLink([probe], f"xdp link{' in mode ' + probe.mode if probe.mode else ''}", [fd])
    hint = ""
    if -fd in (EBUSY, EEXIST):
        hint = f"another XDP program is on {probe.event}: take it off first (ip link set dev {probe.event} xdp off)"
    elif -fd == EOPNOTSUPP:
        hint = f"the driver of {probe.event} has no XDP of its own: use the mode skb"
    raise attach_refusal(probe.name, -fd, hint=hint, needs=("CAP_NET_ADMIN", "CAP_BPF"))


def find_device(name: str) -> int:
    """Return the index of a network device. Raises ProbeError."""
    import socket

    try:
        return socket.if_nametoindex(name)
    except OSError:
        close = [other for _, other in socket.if_nameindex() if name[:2] == other[:2]]
        raise ProbeError(f"there is no network device {name}", close=close) from None


def remove_program(device: str, flags: int = 0) -> None:
    """Take whatever XDP program is on `device` off, also one of another process. Raises ProbeError, KernelError."""
    import socket

    index = find_device(device)
    inner = pack("=HHi", 8, _IFLA_XDP_FD, -1) + pack("=HHI", 8, _IFLA_XDP_FLAGS, flags)
    body = pack("=BxHiII", 0, 0, index, 0, 0) + pack("=HH", 4 + len(inner), _IFLA_XDP | _NESTED) + inner
    message = pack("=IHHII", 16 + len(body), _RTM_SETLINK, _NLM_F_REQUEST | _NLM_F_ACK, 1, 0) + body
    with socket.socket(_AF_NETLINK, _SOCK_RAW, _NETLINK_ROUTE) as channel:
        channel.send(message)
        answer = channel.recv(4096)
    kind, errno = unpack_from("=4xH10xi", answer) if len(answer) >= 20 else (0, 0)
    if kind == _NLMSG_ERROR and errno:
        if -errno == ENODEV:
            raise ProbeError(f"there is no network device {device}")
        raise refusal(f"take the XDP program off {device}", -errno, needs=("CAP_NET_ADMIN",))

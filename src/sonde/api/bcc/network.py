"""Programs on network devices, sockets and cgroups: XDP, packet sockets, BPF_PROG_ATTACH.

BCC's methods are static: what they attach belongs to the BPF object of the function, and goes away with it.
"""

from __future__ import annotations

from ...errors import UsageError
from .programs import Function, Programs
from .utils import to_str

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...kernel.links import KernelLink

_xdp: dict[str, tuple[Function, KernelLink]] = {}  # what this process has on which device
_MODES = {2: "skb", 4: "drv", 8: "hw"}  # XDP_FLAGS_*_MODE


class Network(Programs):
    """Attaching to devices, sockets and cgroups."""

    def _init_network(self) -> None:
        self.func_links: dict[tuple[int, int, int], KernelLink] = {}

    @staticmethod
    def attach_xdp(dev: str | bytes, fn: Function, flags: int = 0) -> None:
        """Put an XDP function on a network device. `flags` choose the mode (BPF.XDP_FLAGS_SKB_MODE …). Raises SondeError."""
        from ...spec.object import ProbeSpec

        device = to_str(dev)
        mode = next((name for bit, name in _MODES.items() if flags & bit), "")
        probe = ProbeSpec(f"xdp:{device}", "xdp", _checked(fn).program.name, event=device, mode=mode)
        old = _xdp.pop(device, None)
        if old is not None:
            old[0].bpf.object.drop(old[1])
        link = fn.bpf.object.attach([probe])[0]
        _xdp[device] = (fn, link)
        fn.bpf.say(f"{fn.name.decode()}: {probe.name}: {link.how}")

    @staticmethod
    def remove_xdp(dev: str | bytes, flags: int = 0) -> None:
        """Take the XDP program off a network device, also one that another process left there. Raises SondeError."""
        device = to_str(dev)
        held = _xdp.pop(device, None)
        if held is not None and not held[1].closed:
            held[0].bpf.object.drop(held[1])
            return
        from ...kernel.attach.xdp import remove_program

        remove_program(device, flags)

    @staticmethod
    def attach_raw_socket(fn: Function, dev: str | bytes) -> None:
        """Open a packet socket on a device ("" for all) that gets what the function lets through: `fn.sock`. Raises SondeError."""
        from ...kernel.attach.target import open_packet_socket

        fn.sock = open_packet_socket(_checked(fn).fd, to_str(dev))

    @staticmethod
    def attach_func(fn: Function, attachable_fd: int, attach_type: int, flags: int = 0) -> None:
        """Attach a function to what a descriptor stands for: a cgroup's directory, a sockmap. Raises SondeError."""
        from ...kernel.abi import ATTACH_TYPES
        from ...kernel.attach.target import attach_to

        if not 0 <= attach_type < len(ATTACH_TYPES):
            raise UsageError(f"there is no attach type {attach_type}")
        link = attach_to(_checked(fn).fd, attachable_fd, ATTACH_TYPES[attach_type], flags)
        fn.bpf.object.own(link)
        fn.bpf.func_links[fn.fd, attachable_fd, attach_type] = link
        fn.bpf.say(f"{fn.name.decode()}: {link.how}")

    @staticmethod
    def detach_func(fn: Function, attachable_fd: int, attach_type: int) -> None:
        """Undo `attach_func`, also that of another process. Raises SondeError."""
        from ...kernel.attach.target import detach_from

        link = _checked(fn).bpf.func_links.pop((fn.fd, attachable_fd, attach_type), None)
        if link is not None:
            fn.bpf.object.drop(link)
        else:
            detach_from(fn.fd, attachable_fd, attach_type)


def _checked(fn: Function) -> Function:
    if not isinstance(fn, Function):
        raise UsageError("arg 1 must be of type BPF.Function")
    return fn

"""What a program of each type may do with its context: which loads and stores, and what they give. As the kernel's `is_valid_access` functions."""

from __future__ import annotations

from ...record import Record
from . import scalar
from .state import PLAIN, TRUSTED, Reg

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ...debuginfo.ctype import CType

    # access(offset, size, write) -> what a load gives, or a message that says why not
    Access = Callable[[int, int, bool], "Reg | str"]


class Context(Record, eq=False):
    """The rules of one program type. `returns` is the range of what the program may return (None: any); `silent` that nobody asks for it."""

    name: str
    access: Access
    returns: tuple[int, int] | None = None
    packet: bool = False  # direct access to packet data
    packet_loads: bool = False  # the legacy instructions
    silent: bool = False


def _aligned(off: int, size: int) -> str:
    return (
        f"an access of {size} bytes to the context must be at a multiple of {size}, not at {off}" if off % size else ""
    )


def _plain(first: int, end: int, name: str) -> Access:
    """Numbers from `first` to `end`, to be read."""

    def access(off: int, size: int, write: bool) -> Reg | str:
        if write:
            return f"{name} may only be read"
        if off < first or off + size > end:
            return f"{name} has no {size} bytes at {off}: they are from {first} to {end}"
        return _aligned(off, size) or Reg("scalar", scalar.of_size(size))

    return access


def _fields(
    name: str,
    size: int,
    special: dict[int, Reg],
    writable: frozenset[int] = frozenset(),
    *,
    pointer_bytes: int = 4,
) -> Access:
    """A struct of u32 fields, some of which are pointers: into the packet, with `pointer_bytes`, or to a socket, with 8. Writable are u32 fields."""

    def access(off: int, width: int, write: bool) -> Reg | str:
        if off < 0 or off + width > size:
            return f"{name} has no {width} bytes at {off}"
        if write:
            return (
                Reg("scalar", scalar.UNKNOWN)
                if off in writable and width == 4
                else f"{name} may not be written at {off}"
            )
        for place, found in special.items():
            whole = 8 if found.kind.startswith("object") else pointer_bytes
            if off < place + whole and place < off + width:
                what = "a socket" if whole == 8 and found.kind.startswith("object") else "a packet pointer"
                return found if (off, width) == (place, whole) else f"{what} must be read whole, with {whole} bytes"
        return _aligned(off, width) or Reg("scalar", scalar.of_size(width))

    return access


_PACKET, _END, _META = Reg("packet"), Reg("packet_end"), Reg("packet_meta")
_SOCKET, _PERHAPS_SOCKET = Reg("object", thing="socket"), Reg("object?", thing="socket")
_PERHAPS_COMMON = Reg("object?", thing="sock_common")
_SKB_SOCKET = 168
_SKB_MARK, _SKB_PRIORITY, _SKB_CB, _SKB_TC_INDEX, _SKB_TC_CLASSID = 8, 32, range(48, 68, 4), 44, 72
_SKB_WRITABLE = frozenset([_SKB_MARK, _SKB_PRIORITY, _SKB_TC_INDEX, _SKB_TC_CLASSID, *_SKB_CB])


def _regs_bytes(arch: str) -> int:
    return 336 if arch == "aarch64" else 168


def _syscall(off: int, size: int, write: bool) -> Reg | str:
    if off < 0 or off + size > 0xFFFF:
        return f"the context of a syscall program has no {size} bytes at {off}"
    return Reg("scalar", scalar.of_size(size))


def _arguments(types: tuple[CType | None, ...], trust: int = TRUSTED, *, iterator: bool = False) -> Access:
    """The array of arguments that fentry, typed raw tracepoints and the like have. What an iterator has at its end is null."""
    from ...debuginfo.ctype import Pointer, Struct, strip

    def access(off: int, size: int, write: bool) -> Reg | str:
        if write:
            return "the arguments may only be read"
        if off < 0 or off + size > 8 * len(types):
            return f"there are {len(types)} arguments, {8 * len(types)} bytes; nothing is at {off}"
        if off % size:
            return _aligned(off, size)
        ctype = types[off // 8]
        target = None if ctype is None else strip(ctype)
        if isinstance(target, Pointer):
            struct = strip(target.target)
            if isinstance(struct, Struct) and struct.name and not target.tag:
                if size != 8 or off % 8:
                    return "a pointer must be read whole, with 8 bytes"
                return Reg("btf?" if iterator and off else "btf", thing=struct, size=trust)
            return Reg("scalar", scalar.of_size(size))
        return Reg("scalar", scalar.of_size(size))

    return access


def have_context(kind: str, arch: str = "x86_64") -> bool:
    """Tell whether programs of a type are known here."""
    try:
        find_context(kind, arch)
    except KeyError:
        return False
    return True


_RETURNS = {"trace_fentry": (0, 0), "trace_fexit": (0, 0), "trace_fsession": (0, 0), "trace_iter": (0, 1)}


def find_context(
    kind: str, arch: str = "x86_64", types: tuple[CType | None, ...] = (), attach_type: str = ""
) -> Context:
    """Return the rules for a program type, by the kernel's name in lower case. `types` are those of a tracing program's arguments.

    Raises KeyError for a type that is not known here.
    """
    regs = _regs_bytes(arch)
    if kind == "kprobe":
        return Context(kind, _plain(0, regs, "struct pt_regs"))
    if kind == "tracepoint":
        return Context(kind, _plain(8, 8192, "the tracepoint's record"))
    if kind in ("raw_tracepoint", "raw_tracepoint_writable"):
        return Context(kind, _plain(0, 96, "the array of arguments"))
    if kind == "perf_event":
        return Context(kind, _plain(0, regs + 16, "struct bpf_perf_event_data"))
    if kind == "tracing":
        trust = PLAIN if attach_type in ("trace_fentry", "trace_fexit", "modify_return", "trace_fsession") else TRUSTED
        arguments = _arguments(types, trust, iterator=attach_type == "trace_iter")
        return Context(kind, arguments, _RETURNS.get(attach_type))
    if kind in ("struct_ops", "struct_ops_void"):
        return Context(kind, _arguments(types), silent=kind == "struct_ops_void")
    if kind == "lsm":
        return Context(kind, _arguments(types))
    if kind == "syscall":
        return Context(kind, _syscall)
    made = _NETWORK.get(kind)
    if made is not None:
        return made(kind)
    raise KeyError(kind)


# Programs of the network and of cgroups, by their types ----------------------------------------------------------


def _skb(
    pointers: dict[int, Reg], writable: frozenset[int], returns: tuple[int, int] | None = None
) -> Callable[[str], Context]:
    access = _fields("struct __sk_buff", 192, pointers | {_SKB_SOCKET: _PERHAPS_COMMON}, writable)
    return lambda kind: Context(kind, access, returns, packet=76 in pointers, packet_loads=True)


def _struct(
    name: str,
    size: int,
    special: dict[int, Reg],
    writable: tuple[int, ...] = (),
    returns: tuple[int, int] | None = None,
    pointer_bytes: int = 4,
) -> Callable[[str], Context]:
    access = _fields(name, size, special, frozenset(writable), pointer_bytes=pointer_bytes)
    packet = any(found.kind == "packet" for found in special.values())
    return lambda kind: Context(kind, access, returns, packet=packet)


_BOTH_ENDS = {76: _PACKET, 80: _END}
_TC = _skb({**_BOTH_ENDS, 140: _META}, _SKB_WRITABLE)
_NETWORK: dict[str, Callable[[str], Context]] = {
    "xdp": _struct("struct xdp_md", 24, {0: _PACKET, 4: _END, 8: _META}),
    "sched_cls": _TC,
    "sched_act": _TC,
    "socket_filter": _skb({}, frozenset(_SKB_CB)),
    "cgroup_skb": _skb(_BOTH_ENDS, frozenset([_SKB_MARK, _SKB_PRIORITY, *_SKB_CB]), (0, 3)),
    "cgroup_sock": _struct("struct bpf_sock", 80, {}, (0, 12, 16), (0, 1)),
    "cgroup_sock_addr": _struct(
        "struct bpf_sock_addr", 72, {64: _SOCKET}, (4, 8, 12, 16, 20, 24, 40, 44, 48, 52, 56), (0, 3)
    ),
    "cgroup_sockopt": _struct(
        "struct bpf_sockopt", 40, {0: _SOCKET, 8: _PACKET, 16: _END}, (24, 28, 32, 36), (0, 1), 8
    ),
    "cgroup_sysctl": _struct("struct bpf_sysctl", 8, {}, (4,), (0, 1)),
    "cgroup_device": _struct("struct bpf_cgroup_dev_ctx", 12, {}, (), (0, 1)),
    "sock_ops": _struct(
        "struct bpf_sock_ops", 224, {184: _PERHAPS_SOCKET, 192: _PACKET, 200: _END}, (4, 8, 12, 16, 164), None, 8
    ),
}

"""Maps of type struct_ops: a struct of the kernel whose function pointers are BPF programs, registered with the kernel as a whole.

The object's struct and the kernel's are matched by the names of their members, as in libbpf. The kernel's map has a value type of its own, struct
bpf_struct_ops_NAME, whose member `data` is the struct; in place of a function pointer stands the descriptor of its program.
Since Linux 6.4 a link holds the registration, which ends with it; before, the map's entry does, and is deleted.
"""

from __future__ import annotations

from errno import EBUSY, EEXIST, EINVAL

from ..debuginfo.btfwrite import encode
from ..debuginfo.ctype import INT32, FuncProto, Pointer, Struct, essential_name, sizeof, strip
from ..errors import FeatureError, FormatError
from ..record import Record
from . import abi
from .abi import MAP_CREATE
from .btf import kernel_btf, load_btf
from .descriptor import bpf_new, close_fd
from .links import KernelLink, create_link
from .maps import KernelMap
from .refusal import attach_refusal, refusal
from .syscall import address

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..debuginfo.ctype import Member
    from ..spec.object import MapSpec, ProbeSpec
    from .programs import Program

_LINK_FLAG = 1 << 13  # BPF_F_LINK
_ATTACH_TYPE = "struct_ops"
_VALUE_PREFIX = "bpf_struct_ops_"
_KEY = bytes(4)


class Ops(Record):
    """A struct of the kernel's that may be registered: its number in BTF, and that of the map's value type."""

    struct: Struct
    ident: int
    value: Struct
    value_ident: int
    data_offset: int


def find_ops(name: str) -> Ops:
    """Find a struct by its name. Raises FeatureError where this kernel does not take programs in its place."""
    types = kernel_btf()
    name = essential_name(name)
    ident = types.get_type_id(name, "struct")
    value_ident = types.get_type_id(_VALUE_PREFIX + name, "struct")
    struct, value = types.get_struct(f"struct {name}"), types.get_struct(f"struct {_VALUE_PREFIX}{name}")
    field = value.get_member("data") if value is not None else None
    if struct is None or value is None or field is None:
        known = sorted(
            n.removeprefix(_VALUE_PREFIX) for _, n in types.iter_names(("struct",)) if n.startswith(_VALUE_PREFIX)
        )
        raise FeatureError(
            f"this kernel takes no programs in place of struct {name}",
            feature=f"struct_ops:{name}",
            hint=f"it has {', '.join(n for n in known if types.get_type_id(n, 'struct'))}; modules may have more",
        )
    return Ops(struct, ident, value, value_ident, field.offset)


def find_member(place: str) -> tuple[int, int]:
    """Return what a program for "STRUCT.MEMBER" is verified against: the number of the struct, and of the member in it."""
    name, _, label = place.partition(".")
    if not name:
        raise FormatError(
            "a struct_ops program stands in no set of programs", hint="a variable in section .struct_ops is one"
        )
    ops = find_ops(name)
    for index, member in enumerate(ops.struct.members):
        if member.name == label:
            return ops.ident, index
    raise FeatureError(
        f"this kernel's struct {essential_name(name)} has no member {label}", feature=f"struct_ops:{place}"
    )


class StructOpsMap(KernelMap):
    """A live map of type struct_ops. `prepare` gives it its programs, `register` makes the kernel use them."""

    __slots__ = ("content", "linked", "ops")

    def __init__(self, fd: int, spec: MapSpec, ops: Ops, linked: bool) -> None:
        super().__init__(fd, spec)
        self.ops = ops
        self.linked = linked
        self.content = b""
        self._value = bytearray(ops.value.size)

    def prepare(self, programs: Mapping[str, Program]) -> None:
        """Lay the object's struct out as the kernel's, with the descriptors of its programs."""
        own = self.spec.value_type
        if not isinstance(own, Struct):
            raise FormatError(f"map {self.spec.name} has no struct as its type")
        data = bytearray(self.ops.value.size)
        held = dict(self.spec.values)
        for member in own.members:
            raw = self.spec.initial[member.offset : member.offset + sizeof(member.ctype)]
            fd = -1
            if member.offset in held:
                fd = programs[held[member.offset]].fd_as()
            self._put(data, member, raw, fd)
        self.content = bytes(data)

    def _put(self, data: bytearray, member: Member, raw: bytes, fd: int) -> None:
        name, spec = f"struct {self.ops.struct.name}", self.spec
        if fd < 0 and not any(raw):
            return
        found = next((m for m in self.ops.struct.members if m.name == member.name), None)
        if found is None:
            raise FeatureError(
                f"{spec.name} sets {member.name}, which this kernel's {name} does not have",
                feature=f"struct_ops:{name}",
            )
        if member.width_bits or found.width_bits:
            raise FormatError(f"{spec.name} sets {member.name}, a bit-field")
        at = self.ops.data_offset + found.offset
        pointer = strip(found.ctype)
        function = isinstance(pointer, Pointer) and isinstance(strip(pointer.target), FuncProto)
        if fd >= 0:
            if not function:
                raise FormatError(f"{spec.name} has a program in {member.name}, which is no function in this kernel")
            data[at : at + 8] = fd.to_bytes(8, "little")
            return
        if len(raw) != sizeof(found.ctype):
            raise FormatError(
                f"{member.name} of {spec.name} has {len(raw)} bytes, in this kernel {sizeof(found.ctype)}"
            )
        data[at : at + len(raw)] = raw

    def register(self, probe: ProbeSpec) -> KernelLink:
        """Make the kernel use the programs, as long as the link is open. Raises AttachError, FeatureError, KernelError."""
        refused = self._try_update()
        if refused:
            raise attach_refusal(probe.name, refused, hint=_hint(refused, self.ops))
        if not self.linked:
            link = KernelLink([probe], "struct_ops map", [])
            link.set_undo(self._unregister)
            return link
        fd = create_link(self.fd, 0, _ATTACH_TYPE)
        if fd < 0:
            raise attach_refusal(probe.name, -fd, hint=_hint(-fd, self.ops))
        return KernelLink([probe], "struct_ops link", [fd])

    def _unregister(self) -> None:
        self.delete(_KEY)

    def _try_update(self) -> int:
        """Write the entry; return an errno, 0 when the kernel took it."""
        return -self._call(abi.BPF_MAP_UPDATE_ELEM, _KEY, address(self.content))


def create_struct_ops(spec: MapSpec) -> StructOpsMap:
    """Create the map of a set of programs; one that a link registers, where the kernel has that. Raises FeatureError, KernelError."""
    own = spec.value_type
    ops = find_ops(own.name if own is not None else spec.name)
    own_btf = load_btf(encode([INT32])[0])  # the kernel wants one, and looks at nothing in it
    try:
        for flags in (_LINK_FLAG, 0):
            fd = _create(spec, ops, own_btf, flags)
            if fd >= 0:
                return StructOpsMap(fd, spec, ops, bool(flags))
            if fd != -EINVAL:
                break
    finally:
        close_fd(own_btf)
    raise refusal(f"create the struct_ops map {spec.name} (struct {ops.struct.name})", -fd)


def _create(spec: MapSpec, ops: Ops, own_btf: int, flags: int) -> int:
    kind, name = abi.map_type("struct_ops"), abi.object_name(spec.name)

    def pack() -> bytearray:
        sizes = (4, ops.value.size, 1)
        return bytearray(MAP_CREATE.pack(kind, *sizes, flags, 0, 0, name, 0, own_btf, 0, 0, ops.value_ident, 0))

    return bpf_new(abi.BPF_MAP_CREATE, pack)


def _hint(errno: int, ops: Ops) -> str:
    if errno == EEXIST:
        return f"a struct {ops.struct.name} of this name is registered already"
    if errno == EBUSY:
        return "it is registered already"
    return (
        f"the kernel checks a struct {ops.struct.name} as a whole: members that it demands may be missing"
        if errno == EINVAL
        else ""
    )

"""USDT programs made with libbpf's usdt.bpf.h: where each probe's arguments lie, as entries of the map that the programs look into.

The map's value type says how a description is laid out, so that every version of the header is served. The cookie of a probe is the number of its
description; on kernels without cookies (before 5.15) programs find the number by the address of the probe.
"""

from __future__ import annotations

from ..debuginfo.ctype import Array, Enum, Struct, sizeof, strip
from ..errors import FeatureError, FormatError
from ..record import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..bpf.objfile.model import MapDef, ObjectFile
    from ..debuginfo.ctype import Member
    from ..debuginfo.usdt import UsdtArg
    from ..probes.sections import Place
    from ..spec.object import MapSpec, ProbeSpec
    from ..spec.target import Target

_SPECS, _BY_ADDRESS = "__bpf_usdt_specs", "__bpf_usdt_ip_to_spec_id"
_SCALE_BITS = {1: 0, 2: 1, 4: 2, 8: 3}


def find_usdt_specs(found: ObjectFile, target: Target) -> UsdtSpecs | None:
    """Return what fills the maps of an object that was made with usdt.bpf.h, None for another one. Raises FormatError."""
    maps = {each.name: each for each in found.maps}
    return UsdtSpecs(maps[_SPECS], target) if _SPECS in maps else None


class UsdtSpecs:
    """Descriptions of probes, equal ones once."""

    def __init__(self, definition: MapDef, target: Target) -> None:
        self.limit = definition.max_entries
        self.by_cookie = target.features.have("cookie:perf_event")
        self.numbers: dict[bytes, int] = {}
        self.addresses: dict[int, int] = {}
        spec = definition.value
        args = spec.get_member("args") if isinstance(spec, Struct) else None
        array = strip(args.member.ctype) if args is not None else None
        arg = strip(array.element) if isinstance(array, Array) else None
        if not isinstance(spec, Struct) or not isinstance(array, Array) or not isinstance(arg, Struct):
            raise FormatError(f"map {_SPECS} is not that of libbpf's usdt.bpf.h")
        self.spec, self.arg = spec, arg
        self.most = array.count
        kind = arg.get_member("arg_type")
        names = strip(kind.member.ctype) if kind is not None else None
        self.kinds = names.values if isinstance(names, Enum) else {}

    def place(self, place: Place) -> ProbeSpec:
        """Describe one probe; return it with the cookie by which its program finds the description. Raises FeatureError, FormatError."""
        probe = place.spec
        if len(place.usdt_args) > self.most:
            raise FormatError(f"{probe.name} has {len(place.usdt_args)} arguments; usdt.bpf.h takes {self.most}")
        data = bytearray(self.spec.size)
        self._put(data, 0, self.spec, "arg_cnt", len(place.usdt_args))
        for number, arg in enumerate(place.usdt_args):
            self._describe(data, number * sizeof(self.arg), arg, f"argument {number} of {probe.name}")
        ident = self.numbers.setdefault(bytes(data), len(self.numbers))
        if ident >= self.limit:
            raise FormatError(
                f"there are more than {self.limit} probes of different kinds",
                hint="define BPF_USDT_MAX_SPEC_CNT larger",
            )
        if not self.by_cookie:
            self.addresses[_runtime_address(probe)] = ident
        return replace(probe, cookie=ident)

    def _describe(self, data: bytearray, at: int, arg: UsdtArg, what: str) -> None:
        if arg.kind == "const":
            kind = "BPF_USDT_ARG_CONST"
        elif arg.kind == "reg":
            kind = "BPF_USDT_ARG_REG"
        elif arg.kind == "mem" and arg.base >= 0:
            kind = "BPF_USDT_ARG_REG_DEREF" if arg.index < 0 else "BPF_USDT_ARG_SIB"
        else:
            raise FeatureError(f"{what} lies out of reach of a program ({arg.text or arg.kind})", feature="usdt.bpf.h")
        if kind not in self.kinds:
            raise FeatureError(
                f"{what} is found through two registers, which the object's usdt.bpf.h does not know",
                feature="usdt.bpf.h",
                hint="compile it with the header of libbpf 1.7 or newer, or with sonde: sonde build x.bpf.c",
            )
        self._put(data, at, self.arg, "val_off", arg.value)
        self._put(data, at, self.arg, "arg_type", self.kinds[kind])
        self._put(data, at, self.arg, "arg_signed", int(arg.signed))
        self._put(data, at, self.arg, "arg_bitshift", 64 - 8 * arg.size)
        if arg.base >= 0:
            self._put(data, at, self.arg, "reg_off", arg.base)
        if arg.index >= 0:
            self._put(data, at, self.arg, "idx_reg_off", arg.index)
            self._put(data, at, self.arg, "scale_bitshift", _SCALE_BITS[arg.scale])

    def _put(self, data: bytearray, at: int, struct: Struct, name: str, value: int) -> None:
        field = struct.get_member(name)
        if field is None:
            raise FormatError(f"{struct.name} of {_SPECS} has no member {name}: it is not that of libbpf's usdt.bpf.h")
        if field.path[0].name == name:
            _store(data, 8 * at, field.member, value)
        else:
            raise FormatError(f"{name} of {struct.name} lies in an unnamed member")

    def fill(self, spec: MapSpec) -> MapSpec:
        """Return a map with the entries that it is to hold."""
        if spec.name == _SPECS:
            entries = tuple((ident.to_bytes(4, "little"), data) for data, ident in self.numbers.items())
            return replace(spec, entries=entries)
        if spec.name == _BY_ADDRESS and self.addresses:
            entries = tuple(
                (address.to_bytes(spec.key_size, "little"), ident.to_bytes(spec.value_size, "little"))
                for address, ident in self.addresses.items()
            )
            return replace(spec, entries=entries)
        return spec


def _store(data: bytearray, base_bits: int, member: Member, value: int) -> None:
    """Put a number into a member, which may be a bit-field."""
    width = member.width_bits or 8 * sizeof(member.ctype)
    shift = base_bits + member.offset_bits
    mask = (1 << width) - 1
    whole = int.from_bytes(data, "little") & ~(mask << shift) | (value & mask) << shift
    data[:] = whole.to_bytes(len(data), "little")


def _runtime_address(probe: ProbeSpec) -> int:
    """The address at which a probe is hit, which only executables at fixed addresses tell."""
    from ..debuginfo.elf import Elf

    with Elf.open(probe.path) as elf:
        address = elf.get_vaddr(probe.offset) if elf.is_exec else -1
    if address < 0:
        raise FeatureError(
            f"{probe.name}: this kernel has no cookies, and {probe.path} has no fixed addresses by which programs could tell its probes",
            feature="cookie:perf_event",
            hint="compile the source with sonde, which needs neither: sonde build x.bpf.c",
        )
    return address

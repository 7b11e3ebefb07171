"""ELF objects: read_object() turns one into an ObjectSpec that any engine loads, load_object() loads, attaches and pins it.

Sections say what programs are and where they are attached (see probes.sections); places are looked up on the machine that the object is read for.
"""

from __future__ import annotations

from ..errors import Diagnostic, FeatureError, FormatError, ProbeError
from ..record import Record, replace
from ..spec.object import CoreAccess, LineInfo, MapSpec, ObjectSpec, ProgramSpec, Reloc

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..bpf.objfile.model import Extern, Fill, MapDef, ObjectFile, Program
    from ..debuginfo.btf import Btf
    from ..kernel.engine import KernelObject
    from ..kernel.links import KernelLink
    from ..probes.sections import Section
    from ..spec.object import ProbeSpec
    from ..spec.target import Target
    from .structops import StructOps
    from .usdtspecs import UsdtSpecs

_SIZE_LIMIT = 256 << 20  # bytes of an object file
_VIRTUAL = ("LINUX_KERNEL_VERSION", "LINUX_HAS_BPF_COOKIE", "LINUX_HAS_SYSCALL_WRAPPER")
_LINK = 1 << 13  # BPF_F_LINK, of a set of programs
_TRISTATE = {"y": 1, "m": 2, "n": 0, "": 0}


def is_object(path: str) -> bool:
    """Tell whether a file begins as an ELF file does; False also for one that cannot be read."""
    try:
        with open(path, "rb") as file:
            return file.read(4) == b"\x7fELF"
    except OSError:
        return False


def open_object(path: str) -> ObjectFile:
    """Read an object file into plain records (see bpf.objfile.model). Raises FormatError for what is none, or cannot be read."""
    from ..bpf.objfile.read import read_object as read

    try:
        with open(path, "rb") as file:
            data = file.read(_SIZE_LIMIT)
    except OSError as error:
        raise FormatError(f"cannot be read: {error.strerror}", path=path) from None
    return read(data, path)


def read_object(path: str, target: Target | None = None, *, find_places: bool = True) -> ObjectSpec:
    """Read an object file for `target` (the running machine when None).

    Without `find_places`, programs are told by their sections but attached nowhere: nothing is asked of the machine. Raises FormatError; ProbeError
    for a section that is not known, or a place that does not exist.
    """
    return bind(open_object(path), target, find_places=find_places)


def bind(found: ObjectFile, target: Target | None = None, *, find_places: bool = True) -> ObjectSpec:
    """Turn the records of an object file into an ObjectSpec for `target`. Raises as `read_object`."""
    if found.byte_order != "little":
        raise FeatureError(
            "this is a big-endian object: its data and code are for another kind of machine",
            feature="bpfeb",
            hint="compile it with -target bpfel; sonde dump shows what it holds",
        )
    if target is None:
        from .trace import live_target

        target = live_target()
    from .dataaddresses import fill_addresses
    from .externs import find_names, rename
    from .structops import StructOps
    from .usdtspecs import find_usdt_specs

    ops, usdt = StructOps(found), find_usdt_specs(found, target)
    filled, left = fill_addresses(found, target)
    names = find_names(found, target)
    maps = [_map(each) for each in filled if not each.section.startswith("?")]
    configured = [each for each in found.externs if each.section == ".kconfig"]
    if configured:
        maps.append(_kconfig(configured, found.kconfig_size, target))
    programs: list[ProgramSpec] = []
    probes: list[ProbeSpec] = []
    for program in found.programs:
        for spec, places in _programs(program, found.license, target, find_places, ops, usdt):
            programs.append(rename(spec, names))
            probes += [replace(place, program=spec.name) for place in places]
    probes += ops.probes() if find_places else ()
    if not programs and ops.warnings:
        raise FormatError(ops.warnings[0], hint="a set is a variable in section .struct_ops or .struct_ops.link")
    if not programs:
        raise FormatError("every program of this object is optional (its section begins with '?')")
    if usdt is not None:
        maps = [usdt.fill(each) for each in maps]
    warnings = tuple(Diagnostic("WARNING", text) for text in (*found.warnings, *ops.warnings, *left))
    return ObjectSpec(tuple(programs), tuple(maps), tuple(probes), warnings=warnings)


def _programs(
    program: Program, license: str, target: Target, look: bool, ops: StructOps, usdt: UsdtSpecs | None
) -> Iterator[tuple[ProgramSpec, list[ProbeSpec]]]:
    """One program for each thing that it is verified against, with the places it is attached to."""
    from ..probes.sections import find_places, find_section, suggest

    if program.section.startswith("?"):
        return
    section, place = find_section(program.section)
    if section is None:
        text = f"section '{program.section}' of program {program.name} is no type of program that can be loaded"
        raise ProbeError(text, hint=suggest(program.section))
    spec = _program(program, section, license)
    if section.type == "struct_ops":
        member = ops.find_member(program.name)
        if member:
            yield replace(spec, attach_btf=member), []
        return
    if not section.probe or not place or not look:
        yield replace(spec, attach_btf=place if section.type in ("tracing", "lsm") else ""), []
        return
    found: dict[str, list[ProbeSpec]] = {}
    for each in find_places(section, place, target):
        probe = usdt.place(each) if usdt is not None and each.spec.type == "usdt" else each.spec
        found.setdefault(each.attach_btf, []).append(probe)
    for number, (attach_btf, places) in enumerate(found.items()):
        name = f"{spec.name}_{number}" if number else spec.name
        yield replace(spec, name=name, attach_btf=attach_btf), places


def _program(program: Program, section: Section, license: str) -> ProgramSpec:
    return ProgramSpec(
        program.name,
        section.type,
        program.insns,
        tuple(_reloc(fill) for fill in program.fills),
        section.attach_type,
        "",
        tuple(LineInfo(line.pc, line.span) for line in program.lines),
        license,
        section.sleepable,
        flags=section.flags,
        told=True,
    )


def _reloc(fill: Fill) -> Reloc:
    core = None
    if fill.core is not None:
        q = fill.core
        core = CoreAccess(q.kind, q.type_name, q.path, q.value, q.index, q.local)
    kind = "ksym_btf" if fill.kind == "ksym" and fill.typed else fill.kind
    return Reloc(fill.pc, kind, fill.symbol, fill.addend, core, fill.weak)


def _map(found: MapDef) -> MapSpec:
    from ..kernel.abi import MAP_TYPES

    if not 0 < found.type < len(MAP_TYPES):
        raise FeatureError(f"map {found.name} has type {found.type}, which is not known", feature=f"map:{found.type}")
    return MapSpec(
        found.name,
        MAP_TYPES[found.type],
        found.key_size,
        found.value_size,
        found.max_entries,
        found.flags | (_LINK if found.section.endswith(".struct_ops.link") else 0),
        found.initial,
        found.frozen,
        _map(found.inner) if found.inner is not None else None,
        "by_name" if found.pinned else "",
        values=found.values,
        key_type=found.key,
        value_type=found.value,
        extra=found.extra,
    )


def _kconfig(externs: list[Extern], size: int, target: Target) -> MapSpec:
    """The map that holds what the object asks of the kernel's configuration."""
    from ..kernel.abi import BPF_F_RDONLY_PROG

    content = bytearray(size + -size % 8)
    for each in externs:
        value = kconfig_value(each, target)
        content[each.offset : each.offset + len(value)] = value
    return MapSpec(".kconfig", "array", 4, len(content), 1, BPF_F_RDONLY_PROG, bytes(content), frozen=True)


def kconfig_value(extern: Extern, target: Target) -> bytes:
    """Return the bytes of one value of the kernel's configuration. Raises ProbeError for one that the kernel lacks or that does not fit."""
    from ..debuginfo.ctype import Array, Int, sizeof, strip

    ctype, size = strip(extern.ctype), sizeof(extern.ctype)
    if extern.name.startswith("LINUX_"):
        return _virtual(extern.name, target).to_bytes(8, "little")[:size]
    text = target.kconfig(extern.name)
    if not text and not extern.weak:
        raise ProbeError(
            f"this kernel's configuration has no {extern.name}", hint="declare it __weak to get 0 in its place"
        )
    if isinstance(ctype, Array):
        return text.encode()[: max(size - 1, 0)] + b"\0"
    if text in _TRISTATE:
        number = _TRISTATE[text]
        if isinstance(ctype, Int) and ctype.encoding == "bool":
            number = min(number, 1)
        elif isinstance(ctype, Int) and ctype.encoding == "char":
            number = ord(text or "n")
    else:
        number = _number(extern.name, text)
    if not -1 << 8 * size - 1 <= number < 1 << 8 * size:
        raise ProbeError(f"{extern.name} is {text} on this kernel, more than {size} bytes hold")
    return (number & (1 << 8 * size) - 1).to_bytes(size, "little")


def _virtual(name: str, target: Target) -> int:
    """What libbpf answers itself in place of the kernel's configuration."""
    if name == "LINUX_KERNEL_VERSION":
        return target.version_code
    if name == "LINUX_HAS_BPF_COOKIE":
        return int(target.features.have("cookie:perf_event"))
    if name == "LINUX_HAS_SYSCALL_WRAPPER":
        prefix = {"x86_64": "__x64_", "aarch64": "__arm64_"}.get(target.arch, "")
        return int(bool(prefix) and bool(target.ksym(f"{prefix}sys_bpf")))
    raise ProbeError(f"there is no {name} in any kernel's configuration", hint=f"known are {', '.join(_VIRTUAL)}")


def _number(name: str, text: str) -> int:
    try:
        return int(text, 0)
    except ValueError:
        raise ProbeError(f"{name} is {text!r} on this kernel, which is no number") from None


class Loaded(Record, eq=False):
    """An object in the kernel, attached. The caller closes `object`; `pins` are the paths of what was pinned."""

    object: KernelObject
    links: tuple[KernelLink, ...]
    pins: tuple[str, ...] = ()


def load_object(spec: ObjectSpec, *, attach: bool = True, pin: str = "", types: Btf | None = None) -> Loaded:
    """Load an object into the running kernel, attach its programs where their sections say, and pin it all below `pin` on request.

    CO-RE relocations are answered from `types`, from the kernel's own when None (see `api.linking.open_types`).
    Programs, maps and links are pinned by their names under the BPF file system, and stay when the object is closed. Raises SondeError; then nothing is left
    behind, neither attached nor pinned.
    """
    from ..kernel.engine import KernelEngine

    live = KernelEngine(types=types).load(spec)
    pins: list[str] = []
    try:
        links = []
        for program in spec.programs if attach else ():
            links += live.attach([probe for probe in spec.probes if probe.program == program.name])
        if pin:
            from ..kernel.pins import pin_object

            pin_object(live, links, pin, pins)
    except BaseException:
        from ..kernel.pins import unpin

        for path in reversed(pins):
            unpin(path)
        live.close()
        raise
    return Loaded(live, tuple(links), tuple(pins))


def describe_loaded(loaded: Loaded) -> Iterator[str]:
    """Yield a line for each program that was loaded, with where it is attached and how, and for each pin."""
    for name, program in loaded.object.programs.items():
        links = [link for link in loaded.links if link.probes[0].program == name]
        places = [f"{link.probes[0].name} ({link.how})" for link in links]
        yield f"{name}: {program.spec.type}, {'; '.join(places) or 'loaded'}"
    for path in loaded.pins:
        yield f"pinned {path}"

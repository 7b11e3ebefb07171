"""Maps of an object: libbpf's declarations in .maps, which only BTF tells apart, and sections of data, which are maps of one entry."""

from __future__ import annotations

from ...debuginfo.ctype import Array, Enum, FuncProto, Member, Pointer, Struct, alignof, sizeof, strip
from ...errors import FormatError
from ...record import Record
from .model import KCONFIG, KSYMS, MAPS, Extern, MapDef

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from ...debuginfo.btf import Btf
    from ...debuginfo.ctype import CType
    from ...debuginfo.elf import Elf, Section, Symbol

ARRAY, PROG_ARRAY, ARRAY_OF_MAPS, HASH_OF_MAPS = 2, 3, 12, 13
RDONLY_PROG, MMAPABLE = 1 << 7, 1 << 10
_DATA = (".data", ".rodata", ".bss")
_NUMBERS = ("type", "max_entries", "map_flags", "numa_node", "key_size", "value_size", "map_extra", "pinning")
_MOST = 1 << 32
_KCONFIG_LIMIT = 1 << 16  # bytes: no configuration has as much


class Declared(Record):
    """A map and where its symbol stands in section .maps; `values_at` is the offset of `values` in it (-1: none)."""

    spec: MapDef
    offset: int
    size: int
    values_at: int = -1


def is_data(name: str) -> bool:
    """Tell whether a section's name makes its content a map of data."""
    return name in _DATA or name.startswith(tuple(d + "." for d in _DATA))


def read_data_map(elf: Elf, section: Section, places: dict[str, int], btf: Btf | None) -> MapDef:
    """Turn a section of data into the map of one entry that holds it, as libbpf does. `places` are the offsets of its variables.

    The type of the value is a struct of kind "datasec" with a member for each variable that BTF knows: compilers leave their places to the symbols.
    """
    constant = section.name.startswith(".rodata")
    initial = elf.read_section(section)
    if section.size >= _MOST:
        raise FormatError(f"section {section.name} is {section.size} bytes long", path=elf.path)
    flags = MMAPABLE | (RDONLY_PROG if constant else 0)
    known = list(btf.iter_section_vars(section.name)) if btf is not None else []
    laid_out = btf.section_places(section.name) if btf is not None else []
    offsets = laid_out or [
        places.get(name, -1) for name, _ in known
    ]  # static variables of several files may share a name
    members = [Member(name, ctype, 8 * at) for (name, ctype), at in zip(known, offsets) if 0 <= at < section.size]
    members.sort(key=lambda member: member.offset_bits)
    value = Struct("datasec", section.name, section.size, tuple(members)) if members else None
    return MapDef(
        section.name, ARRAY, 4, section.size, 1, section.name, flags, value=value, initial=initial, frozen=constant
    )


def read_maps(elf: Elf, number: int, symbols: Sequence[Symbol], btf: Btf | None) -> list[Declared]:
    """Decode the declarations of section .maps, which has the index `number`. Raises FormatError."""
    types = dict(btf.iter_section_vars(MAPS)) if btf is not None else {}
    found = []
    for symbol in symbols:
        if symbol.section != number or symbol.type not in (1, 0) or not symbol.name:
            continue
        if symbol.name not in types:
            raise FormatError(
                f"BTF says nothing of the map {symbol.name} in section .maps", path=elf.path, hint="compile with -g"
            )
        found.append(_declared(symbol, types[symbol.name], elf.path))
    return sorted(found, key=lambda each: each.offset)


def _declared(symbol: Symbol, ctype: CType, path: str) -> Declared:
    definition = strip(ctype)
    if not isinstance(definition, Struct):
        raise FormatError(f"map {symbol.name} is declared by something else than a struct", path=path)
    try:
        spec = read_definition(symbol.name, definition, 0)
    except FormatError as error:
        raise FormatError(f"map {symbol.name}: {error.message}", path=path, hint=error.hint) from None
    values = definition.get_member("values")
    return Declared(spec, symbol.vaddr, sizeof(definition), values.offset if values else -1)


def read_definition(name: str, definition: Struct, depth: int) -> MapDef:
    """Turn the struct that declares a map into the map. Raises FormatError."""
    numbers: dict[str, int] = {}
    types: dict[str, CType] = {}
    inner: MapDef | None = None
    for member in definition.members:
        if member.name in _NUMBERS:
            numbers[member.name] = _number(member)
        elif member.name in ("key", "value"):
            pointer = strip(member.ctype)
            if not isinstance(pointer, Pointer):
                raise FormatError(f"{member.name} is no pointer to a type")
            types[member.name] = pointer.target
        elif member.name == "values":
            inner = _inner(name, member, depth)
        else:
            raise FormatError(f"a map has no attribute {member.name!r}", hint=f"attributes are {', '.join(_NUMBERS)}")
    return _build(name, numbers, types, inner)


def _build(name: str, numbers: dict[str, int], types: dict[str, CType], inner: MapDef | None) -> MapDef:
    sizes = []
    for word in ("key", "value"):
        size = numbers.get(word + "_size", 0)
        of_type = sizeof(types[word]) if word in types else size
        if size and of_type != size:
            raise FormatError(f"{word}_size is {size}, but the {word} has {of_type} bytes")
        sizes.append(of_type)
    kind = numbers.get("type", 0)
    if not kind:
        raise FormatError("it has no type")
    if kind in (ARRAY_OF_MAPS, HASH_OF_MAPS, PROG_ARRAY):
        sizes[1] = sizes[1] or 4
    if numbers.get("pinning", 0) not in (0, 1):
        raise FormatError(f"pinning {numbers['pinning']} is not known")
    return MapDef(
        name,
        kind,
        sizes[0],
        sizes[1],
        numbers.get("max_entries", 0),
        MAPS,
        numbers.get("map_flags", 0),
        numbers.get("map_extra", 0),
        bool(numbers.get("pinning", 0)),
        inner,
        types.get("key"),
        types.get("value"),
    )


def _number(member: Member) -> int:
    """`__uint(x, N)`: a pointer to an array of N; `__ulong(x, N)`: an enumeration of one constant."""
    ctype = strip(member.ctype)
    if isinstance(ctype, Enum) and len(ctype.values) == 1:
        return next(iter(ctype.values.values()))
    array = strip(ctype.target) if isinstance(ctype, Pointer) else None
    if not isinstance(array, Array):
        raise FormatError(f"{member.name} is not written as __uint({member.name}, …)")
    return array.count


def _inner(name: str, member: Member, depth: int) -> MapDef | None:
    array = strip(member.ctype)
    pointer = strip(array.element) if isinstance(array, Array) else None
    target = strip(pointer.target) if isinstance(pointer, Pointer) else None
    if isinstance(target, FuncProto):
        return None
    if not isinstance(target, Struct) or depth:
        raise FormatError("values is no array of pointers to a map's declaration, or to functions")
    return read_definition(f"{name}.inner", target, depth + 1)


def read_externs(btf: Btf, symbols: Sequence[Symbol]) -> list[Extern]:
    """List what the object leaves to the kernel, and lay out what comes from its configuration."""
    weak = {symbol.name for symbol in symbols if not symbol.section and symbol.binding == 2}
    used = {symbol.name for symbol in symbols if not symbol.section}
    found = []
    offset = 0
    for section in (KCONFIG, KSYMS):
        for name, ctype in btf.iter_section_vars(section):
            if name not in used:
                continue
            if section == KCONFIG:
                if not 0 < sizeof(ctype) <= _KCONFIG_LIMIT:
                    raise FormatError(f"extern {name} of section {KCONFIG} has {sizeof(ctype)} bytes")
                offset += -offset % alignof(ctype)
            found.append(Extern(name, section, ctype, name in weak, offset if section == KCONFIG else 0))
            offset += sizeof(ctype) if section == KCONFIG else 0
            if offset > _KCONFIG_LIMIT:
                raise FormatError(f"the externs of section {KCONFIG} take more than {_KCONFIG_LIMIT} bytes")
    return found

"""Addresses in the data of an object (`const void *where = &vfs_read;`): those of the kernel's symbols are filled in.

Those of the object's own data, maps and functions nobody knows before the kernel has made the map, and a program would read a wrong one: an object
whose programs use such a variable is refused. Where none does, a warning says so.
"""

from __future__ import annotations

from struct import pack_into

from ..debuginfo.ctype import Struct, sizeof
from ..errors import FormatError, ProbeError
from ..record import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..bpf.objfile.model import DataAddress, MapDef, ObjectFile
    from ..spec.target import Target


def fill_addresses(found: ObjectFile, target: Target) -> tuple[tuple[MapDef, ...], list[str]]:
    """Return the maps with their addresses filled in, and warnings. Raises FormatError for one that a program uses and nobody knows."""
    warnings: list[str] = []
    maps = tuple(_fill(found, each, target, warnings) if each.addresses else each for each in found.maps)
    return maps, warnings


def _fill(found: ObjectFile, data: MapDef, target: Target, warnings: list[str]) -> MapDef:
    content = bytearray(data.initial.ljust(data.value_size, b"\0"))
    for address in data.addresses:
        if address.kind == "ksym":
            value = target.ksym(address.symbol)
            if not value and not address.weak:
                raise ProbeError(
                    f"this kernel has no symbol {address.symbol}", hint="declare it __weak to get 0 in its place"
                )
            pack_into("<Q", content, address.offset, value + address.addend & (1 << 64) - 1 if value else 0)
            continue
        name, start, end = _find_variable(data, address)
        what = f"{name} holds the address of {address.symbol}"
        user = _find_user(found, data.name, start, end)
        if user:
            raise FormatError(
                f"{what}, and program {user} uses it: addresses of an object's own data are not known when its maps are made",
                hint="let it hold an index or an offset in place of the address; for texts, use arrays: char names[][8] = {…}",
            )
        warnings.append(f"{what}, which is not known when the map is made: it is left 0")
        pack_into("<Q", content, address.offset, 0)
    return replace(data, initial=bytes(content))


def _find_variable(data: MapDef, address: DataAddress) -> tuple[str, int, int]:
    """Name, start and end of the variable that an address stands in; the whole section where that is not known."""
    if isinstance(data.value, Struct):
        for member in data.value.members:
            end = member.offset + sizeof(member.ctype)
            if member.offset <= address.offset < end:
                return f"variable {member.name}", member.offset, end
    return f"section {data.name}", 0, data.value_size


def _find_user(found: ObjectFile, section: str, start: int, end: int) -> str:
    for program in found.programs:
        for fill in program.fills:
            if fill.kind == "map_value" and fill.symbol == section and start <= fill.addend < end:
                return program.name
    return ""

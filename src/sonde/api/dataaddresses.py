"""Addresses in the data of an object (`const void *where = &vfs_read;`): those of the kernel's symbols are filled in.

Those of the object's own data, maps and functions nobody knows before the kernel has made the map, and a program would read a wrong one: an object
whose programs use such a variable is refused. Where none does, a warning says so.
"""

from __future__ import annotations

from bisect import bisect_left
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
    if not any(each.addresses for each in found.maps):
        return found.maps, warnings
    uses: dict[str, list[tuple[int, str]]] = {}
    for program in found.programs:
        for fill in program.fills:
            if fill.kind == "map_value":
                uses.setdefault(fill.symbol, []).append((fill.addend, program.name))
    for each in uses.values():
        each.sort()
    return tuple(_fill(uses.get(m.name, []), m, target, warnings) if m.addresses else m for m in found.maps), warnings


def _fill(uses: list[tuple[int, str]], data: MapDef, target: Target, warnings: list[str]) -> MapDef:
    content = bytearray(data.initial.ljust(data.value_size, b"\0"))
    members = data.value.members if isinstance(data.value, Struct) else ()
    variables = sorted((m.offset, m.offset + sizeof(m.ctype), m.name) for m in members)
    for address in data.addresses:
        if address.kind == "ksym":
            value = target.ksym(address.symbol)
            if not value and not address.weak:
                raise ProbeError(
                    f"this kernel has no symbol {address.symbol}", hint="declare it __weak to get 0 in its place"
                )
            pack_into("<Q", content, address.offset, value + address.addend & (1 << 64) - 1 if value else 0)
            continue
        name, start, end = _find_variable(data, variables, address)
        what = f"{name} holds the address of {address.symbol}"
        user = _find_user(uses, start, end)
        if user:
            raise FormatError(
                f"{what}, and program {user} uses it: addresses of an object's own data are not known when its maps are made",
                hint="let it hold an index or an offset in place of the address; for texts, use arrays: char names[][8] = {…}",
            )
        warnings.append(f"{what}, which is not known when the map is made: it is left 0")
        pack_into("<Q", content, address.offset, 0)
    return replace(data, initial=bytes(content))


def _find_variable(data: MapDef, variables: list[tuple[int, int, str]], address: DataAddress) -> tuple[str, int, int]:
    """Name, start and end of the variable that an address stands in; the whole section where that is not known."""
    place = bisect_left(variables, (address.offset + 1, 0, "")) - 1
    if place >= 0 and address.offset < variables[place][1]:
        start, end, name = variables[place]
        return f"variable {name}", start, end
    return f"section {data.name}", 0, data.value_size


def _find_user(uses: list[tuple[int, str]], start: int, end: int) -> str:
    place = bisect_left(uses, (start, ""))
    return uses[place][1] if place < len(uses) and uses[place][0] < end else ""

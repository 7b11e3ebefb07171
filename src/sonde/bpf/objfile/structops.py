"""Sections .struct_ops and .struct_ops.link: variables whose function pointers are programs, as maps of type struct_ops.

`MapDef.value` is the struct as the object knows it, `initial` its bytes, `values` the programs by the offset of the pointer.
"""

from __future__ import annotations

from bisect import bisect_left

from ...debuginfo.ctype import Struct, sizeof, strip
from ...errors import FormatError
from .model import R_BPF_64_64, R_BPF_64_ABS64, MapDef

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from ...debuginfo.btf import Btf
    from ...debuginfo.elf import Elf, Symbol
    from .read import Relocation

STRUCT_OPS = 26  # the type of map
_NAMES = (".struct_ops", ".struct_ops.link", "?.struct_ops", "?.struct_ops.link")


def is_struct_ops(name: str) -> bool:
    """Tell whether a section's name makes its variables sets of programs; one that begins with `?` waits to be asked for."""
    return name in _NAMES


def read_struct_ops(
    elf: Elf, number: int, symbols: Sequence[Symbol], btf: Btf | None, relocations: Mapping[int, Relocation]
) -> Iterator[MapDef]:
    """Yield the maps of section `number`. Raises FormatError."""
    section = elf.sections[number]
    if btf is None:
        raise FormatError(
            f"there is no BTF that says what section {section.name} holds", path=elf.path, hint="compile with -g"
        )
    content = elf.read_section(section)
    types = dict(btf.iter_section_vars(section.name))
    seen = 0
    ordered = sorted(relocations.items(), key=lambda item: item[0])
    places = [offset for offset, _ in ordered]
    for symbol in sorted(symbols, key=lambda symbol: symbol.vaddr):
        if symbol.section != number or symbol.name not in types:
            continue
        ctype = strip(types[symbol.name])
        size, start = sizeof(ctype), symbol.vaddr
        if not isinstance(ctype, Struct) or not size or start + size > len(content):
            raise FormatError(f"{symbol.name} in section {section.name} is no struct within it", path=elf.path)
        values = []
        for offset, relocation in ordered[bisect_left(places, start) : bisect_left(places, start + size)]:
            if relocation.type not in (R_BPF_64_64, R_BPF_64_ABS64) or relocation.symbol.type != 2:
                what = relocation.symbol.name or "what has no name"
                raise FormatError(f"{symbol.name} holds the address of {what}, which is no program", path=elf.path)
            values.append((offset - start, relocation.symbol.name))
        seen += len(values)
        data = content[start : start + size]
        yield MapDef(symbol.name, STRUCT_OPS, 4, size, 1, section.name, value=ctype, initial=data, values=tuple(values))
    if seen != len(relocations):
        raise FormatError(f"section {section.name} has an address outside of its variables", path=elf.path)

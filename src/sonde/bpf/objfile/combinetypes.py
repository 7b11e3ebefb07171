"""The types of several objects to those of one: .BTF merged without duplicates, sections of variables laid out anew, .BTF.ext moved along.

Every global name has one record, that of its definition; the other objects' ones are compared with it. Static variables keep their own.
"""

from __future__ import annotations

from struct import pack, unpack_from

from ...debuginfo.btfrecords import add_btf
from ...debuginfo.btfwrite import BtfWriter
from ...debuginfo.ctype import Struct, declare, strip
from ...errors import FormatError
from ...record import replace
from .btfext import iter_extension
from .combine import iter_sections
from .elfwrite import LOCAL, PROGBITS
from .maps import read_definition
from .samedeclaration import same_declaration

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...debuginfo.btf import Btf
    from ...debuginfo.ctype import CType
    from .combine import Global, Input
    from .elfwrite import ElfWriter, OutSection
    from .model import MapDef

    Variable = tuple[int, int, int]  # node, offset, size
    Record = tuple[OutSection, int, tuple[object, ...]]

_FUNC, _VAR, _DATASEC = 12, 14, 15
_VIRTUAL = (".kconfig", ".ksyms")  # sections of BTF that no section of the file stands for
_SIZES = (8, 16, 16)  # bytes of a record of each table of .BTF.ext


def combine_types(inputs: list[Input], globals: dict[str, Global], elf: ElfWriter) -> set[str]:
    """Write .BTF and .BTF.ext; return the names that the kernel has. Raises FormatError for declarations that contradict each other."""
    if not any(each.btf for each in inputs):
        return set()
    merger = _Merger(globals)
    for each, sections in iter_sections(inputs):
        if each.btf is not None:
            merger.add(each, each.btf, sections)
    merger.write(elf)
    return merger.of_kernel


class _Merger:
    """Types on their way to one section."""

    def __init__(self, globals: dict[str, Global]) -> None:
        self.globals = globals
        self.types = BtfWriter()
        self.nodes: dict[str, int] = {}  # of global names
        self.declared: dict[str, tuple[Input, Btf, int]] = {}
        self.sections: dict[str, dict[int, Variable]] = {}
        self.of_kernel: set[str] = set()
        self.tables: tuple[list[Record], ...] = ([], [], [])

    def add(self, each: Input, btf: Btf, sections: dict[str, int]) -> None:
        """Add the types of one object."""
        given: dict[int, int] = {}
        owned: list[int] = []
        lists: list[tuple[str, int]] = []
        known = {symbol.name for symbol in each.symbols if symbol.binding != LOCAL and symbol.name}
        for ident in range(1, btf.count_types() + 1):
            words = btf.record(ident)
            kind = words[1] >> 24 & 31
            if kind == _DATASEC:
                given[ident] = -1
                lists.append((btf.get_name(ident), ident))
            elif kind in (_FUNC, _VAR) and btf.get_name(ident) in known and _is_global(words):
                name = btf.get_name(ident)
                if name not in self.globals:
                    given[ident] = -1  # in the license's section, which another object has
                    continue
                if self.take(each, btf, ident, name):
                    owned.append(ident)
                given[ident] = self.nodes[name]
        nodes = add_btf(self.types, btf, given, owned)
        for name, ident in lists:
            self.add_list(each, btf, name, btf.record(ident), nodes, sections)
        self.add_extension(each, btf, nodes, sections)

    def take(self, each: Input, btf: Btf, ident: int, name: str) -> bool:
        """Tell whether this object's record is the one of a global name; compare it with what was known of it."""
        found = self.globals[name]
        if name not in self.nodes:
            self.nodes[name] = self.types.reserve(1)[0]
        before = self.declared.get(name)
        if before is not None:
            other, theirs, number = before
            if not _agree(name, btf.type_by_id(ident), theirs.type_by_id(number)):
                raise each.error(
                    f"{name} is {declare(btf.type_by_id(ident), name)} here, "
                    f"but {declare(theirs.type_by_id(number), name)} in {other.path}"
                )
        defines = found.owner is each and _linkage(btf.record(ident)) != 2
        if before is None or defines:
            self.declared[name] = (each, btf, ident)
        return defines or (before is None and found.owner is None)

    # Sections of variables ---------------------------------------------------------------------------------------

    def add_list(
        self, each: Input, btf: Btf, name: str, words: tuple[int, ...], nodes: dict[int, int], sections: dict[str, int]
    ) -> None:
        """Append the variables of a section, with their places in the file."""
        if name in _VIRTUAL:
            for ident, size in zip(words[3::3], words[5::3]):
                found = self.globals.get(btf.get_name(ident))
                if found is not None and found.owner is None:
                    self.of_kernel.add(found.name)
                    self.sections.setdefault(name, {})[nodes[ident]] = (nodes[ident], 0, size)
            return
        number = sections.get(name, 0)
        if number not in each.places:
            return
        out, base = each.places[number]
        static: dict[str, list[int]] = {}
        for symbol in each.symbols:
            if symbol.section == number and symbol.binding == LOCAL and symbol.name:
                static.setdefault(symbol.name, []).append(symbol.vaddr)
        listed = self.sections.setdefault(out.name, {})
        for ident, size in zip(words[3::3], words[5::3]):
            label = btf.get_name(ident)
            found = self.globals.get(label) if nodes.get(ident) == self.nodes.get(label) else None
            if found is not None and found.symbol is not None:
                if found.owner is each and found.symbol.section == number:
                    listed[nodes[ident]] = (nodes[ident], base + found.symbol.vaddr, size)
            elif static.get(label):
                listed[nodes[ident]] = (nodes[ident], base + static[label].pop(0), size)
            elif found is not None:
                listed[nodes[ident]] = (nodes[ident], 0, size)  # a map that no object defines

    # .BTF.ext ----------------------------------------------------------------------------------------------------

    def add_extension(self, each: Input, btf: Btf, nodes: dict[int, int], sections: dict[str, int]) -> None:
        """Move the records of .BTF.ext to where the code went; those of code that is gone are left out."""
        section = each.elf.get_section(".BTF.ext")
        if section is None or not section.size:
            return
        data = each.elf.read_section(section)
        for table, name, at in iter_extension(data, btf, f"{each.path} (.BTF.ext)"):
            number = sections.get(name, 0)
            if number not in each.places:
                continue
            place, *rest = unpack_from("<II" if table == 0 else "<IIII", data, at)
            if place >= each.elf.sections[number].size:
                raise FormatError(
                    f"a record is about byte {place} of section {name}, which has {each.elf.sections[number].size}",
                    path=f"{each.path} (.BTF.ext)",
                    offset=at,
                )
            if each.is_dead(number, place):
                continue
            out, base = each.places[number]
            if table == 1:
                made: tuple[object, ...] = (btf.string_at(rest[0]), btf.string_at(rest[1]), rest[2])
            else:
                if rest[0] and rest[0] not in nodes:
                    raise FormatError(f"there is no type {rest[0]}", path=f"{each.path} (.BTF.ext)", offset=at + 4)
                made = ((nodes[rest[0]],),) if table == 0 else ((nodes[rest[0]],), btf.string_at(rest[1]), rest[2])
            self.tables[table].append((out, base + place, made))

    # Writing -----------------------------------------------------------------------------------------------------

    def write(self, elf: ElfWriter) -> None:
        """Write both sections."""
        for name, listed in self.sections.items():
            out = elf.sections.get(name)
            size = max(out.size, len(out.data)) if out is not None else 0
            ordered = sorted(listed.values(), key=lambda variable: variable[1])
            if ordered:
                self.types.add_section(name, size, ordered)
        names = {out.name: self.types.string(out.name) for table in self.tables for out, _, _ in table}
        numbered = [[(out, at, self.words(rest)) for out, at, rest in table] for table in self.tables]
        elf.section(".BTF", PROGBITS, 0, 4).data += self.types.build()
        pieces = [self.pack(table, size, names) for table, size in zip(numbered, _SIZES)]
        head = pack("<HBBI", 0xEB9F, 1, 0, 32)
        at = 0
        for piece in pieces:
            head += pack("<II", at, len(piece))
            at += len(piece)
        elf.section(".BTF.ext", PROGBITS, 0, 4).data += head + b"".join(pieces)

    def words(self, rest: tuple[object, ...]) -> tuple[object, ...]:
        """Names become offsets before the types are written; references become numbers behind that."""
        return tuple(self.types.string(item) if isinstance(item, str) else item for item in rest)

    def pack(self, table: list[Record], size: int, names: dict[str, int]) -> bytes:
        """One table of .BTF.ext, by section and place."""
        if not table:
            return b""
        grouped: dict[str, list[tuple[int, tuple[object, ...]]]] = {}
        for out, at, rest in table:
            grouped.setdefault(out.name, []).append((at, rest))
        made = pack("<I", size)
        for name, each in grouped.items():
            each.sort(key=lambda record: record[0])
            made += pack("<II", names[name], len(each))
            for at, rest in each:
                words = [self.types.ident(item[0]) if isinstance(item, tuple) else item for item in rest]
                made += pack(f"<{1 + len(words)}I", at, *words)
        return made


def _agree(name: str, one: CType, other: CType) -> bool:
    """Compare two declarations of a name; those of maps by what they say, in whatever order and words."""
    if same_declaration(one, other):
        return True
    left, right = strip(one), strip(other)
    if not isinstance(left, Struct) or not isinstance(right, Struct) or left.name or right.name:
        return False
    try:
        return _same_map(read_definition(name, left, 0), read_definition(name, right, 0))
    except FormatError:
        return False


def _same_map(one: MapDef, other: MapDef) -> bool:
    same = replace(one, key=None, value=None, inner=None) == replace(other, key=None, value=None, inner=None)
    for left, right in ((one.key, other.key), (one.value, other.value)):
        same = same and (left is None or right is None or same_declaration(left, right))
    if one.inner is None or other.inner is None:
        return same and one.inner is other.inner
    return same and _same_map(one.inner, other.inner)


def _linkage(words: tuple[int, ...]) -> int:
    """0 static, 1 global, 2 extern."""
    return words[3] if words[1] >> 24 & 31 == _VAR else words[1] & 0xFFFF


def _is_global(words: tuple[int, ...]) -> bool:
    return _linkage(words) != 0

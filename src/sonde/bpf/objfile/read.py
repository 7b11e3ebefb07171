"""The bytes of an ELF object to an `ObjectFile`: the door of the reader.

A section of code that is not .text holds programs, each a global function; .text holds what they call. Each program gets a copy of
all that it calls behind it, as in libbpf, with calls between them as `Fill`s.
"""

from __future__ import annotations

from bisect import bisect_right
from struct import iter_unpack

from ...debuginfo.btf import Btf
from ...debuginfo.ctype import sizeof
from ...debuginfo.elf import ET_REL, SHF_EXECINSTR, Elf
from ...errors import FormatError
from ...record import Record, replace
from .btfext import Extension, read_extension
from .byteorder import is_big_endian, to_little_endian
from .link import Code, Unit, link
from .maps import PROG_ARRAY, Declared, is_data, read_data_map, read_externs, read_maps
from .model import (
    EM_BPF,
    KCONFIG,
    KSYMS,
    LICENSE,
    MAPS,
    R_BPF_64_64,
    R_BPF_64_ABS64,
    TEXT,
    VERSION,
    DataAddress,
    ObjectFile,
)
from .structops import is_struct_ops, read_struct_ops

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from ...debuginfo.elf import Section, Symbol
    from .model import MapDef, Program

_SHT_PROGBITS, _SHT_SYMTAB, _SHT_RELA, _SHT_NOBITS, _SHT_REL = 1, 2, 4, 8, 9
_STT_FUNC = 2
_FIRST_SPECIAL = 0xFF00  # numbers of sections that are none
_LICENSE_BYTES = 128


def read_object(data: bytes, path: str = "") -> ObjectFile:
    """Decode an object file for BPF. Raises FormatError, with the offset, for anything that is no sound one."""
    big = is_big_endian(data)
    if big:
        data = to_little_endian(data, path)
    try:
        return _Reader(Elf(data, path), big).read()
    except RecursionError:
        raise FormatError("its types lie too deep in each other", path=path) from None
    except FormatError as error:
        if error.path or not path:
            raise
        raise FormatError(error.message, path=path, hint=error.hint) from None


class Relocation(Record):
    """One entry of a relocation section: byte `offset` of the section that it is about, and the symbol."""

    offset: int
    type: int
    symbol: Symbol


class _Reader:
    """One object on its way from sections to records."""

    def __init__(self, elf: Elf, big: bool = False) -> None:
        self.elf = elf
        self.big = big
        self.warnings: list[str] = []
        if elf.machine != EM_BPF or elf.type != ET_REL:
            what = f"an object for machine {elf.machine}, type {elf.type}"
            raise FormatError(
                f"this is {what}, not one for BPF",
                path=elf.path,
                offset=16,
                hint="clang -g -O2 -target bpf -c makes one",
            )
        self.symbols: list[Symbol] = self._read_symbols()
        self.btf = self._read_btf()
        self.extension = self._read_extension()
        self.relocations = self._read_relocations()

    def _error(self, message: str, offset: int = -1, hint: str = "") -> FormatError:
        return FormatError(message, path=self.elf.path, offset=offset, hint=hint)

    def read(self) -> ObjectFile:
        """Return what the object says."""
        declared, data = self._read_maps()
        externs = read_externs(self.btf, self.symbols) if self.btf is not None else []
        known = {each.name for each in externs if each.section == KSYMS}
        for number, each in data.items():
            addresses = tuple(self._address(number, r, known) for r in self.relocations.get(number, {}).values())
            data[number] = replace(each, addresses=addresses) if addresses else each
        names = frozenset(each.spec.name for each in declared)
        by_name = {extern.name: extern for extern in externs}
        unit = Unit(self._read_code(), data, {each.offset: each for each in declared}, by_name, names)
        programs = tuple(link(unit, self.elf.path))
        if not programs:
            hint = 'a program is a global function with SEC("…"), such as SEC("tp/sched/sched_switch")'
            raise self._error("there is no program in this object", hint=hint)
        maps = self._with_values(declared, programs)
        for number, section in enumerate(self.elf.sections):
            if is_struct_ops(section.name) and section.type == _SHT_PROGBITS and section.size:
                maps += read_struct_ops(self.elf, number, self.symbols, self.btf, self.relocations.get(number, {}))
        return ObjectFile(
            programs,
            (*maps, *data.values()),
            tuple(externs),
            self._text(LICENSE),
            int.from_bytes(self._bytes(VERSION)[:4], "big" if self.big else "little"),
            max([e.offset + sizeof(e.ctype) for e in externs if e.section == KCONFIG], default=0),
            self.btf,
            tuple(self.warnings),
            "big" if self.big else "little",
        )

    # Sections ----------------------------------------------------------------------------------------------------

    def _bytes(self, name: str) -> bytes:
        section = self.elf.get_section(name)
        return self.elf.read_section(section) if section is not None else b""

    def _text(self, name: str) -> str:
        return self._bytes(name)[:_LICENSE_BYTES].split(b"\0", 1)[0].decode("utf-8", "replace")

    def _read_symbols(self) -> list[Symbol]:
        tables = [table for table in self.elf.tables if table.section.type == _SHT_SYMTAB]
        return list(tables[0]) if tables else []

    def _read_btf(self) -> Btf | None:
        data = self._bytes(".BTF")
        if not data:
            return None
        btf = Btf.from_bytes(data)
        btf.path = f"{self.elf.path} (.BTF)".lstrip()
        btf.count_types()
        return btf

    def _read_extension(self) -> Extension:
        data = self._bytes(".BTF.ext")
        if not data or self.btf is None:
            return Extension({}, {})
        return read_extension(data, self.btf, f"{self.elf.path} (.BTF.ext)".lstrip())

    def _read_relocations(self) -> dict[int, dict[int, Relocation]]:
        """Relocations by the number of the section that they are about, then by byte offset."""
        found: dict[int, dict[int, Relocation]] = {}
        for section in self.elf.sections:
            if section.type == _SHT_RELA:
                raise self._error(f"{section.name} has relocations with addends, which BPF has not", section.offset)
            if section.type != _SHT_REL:
                continue
            if section.info >= len(self.elf.sections):
                raise self._error(f"{section.name} is about section {section.info}, which is none", section.offset)
            about = self.elf.sections[section.info]
            if about.flags & SHF_EXECINSTR or about.name == MAPS or is_struct_ops(about.name):
                found[section.info] = {r.offset: r for r in self._iter_relocations(section, about)}
            elif is_data(about.name):
                found[section.info] = {r.offset: r for r in self._iter_relocations(section, about, 4)}
        return found

    def _iter_relocations(self, section: Section, about: Section, align: int = 8) -> Iterator[Relocation]:
        raw = self.elf.read_section(section)
        if len(raw) % 16:
            raise self._error(f"{section.name} has {len(raw)} bytes: not whole relocations", section.offset)
        for number, (offset, info) in enumerate(iter_unpack("<QQ", raw)):
            place = section.offset + 16 * number
            index, kind = info >> 32, info & 0xFFFFFFFF
            if index >= len(self.symbols):
                raise self._error(f"{section.name}: there is no symbol {index}", place)
            if offset + 8 > about.size or offset % align:
                raise self._error(f"{section.name}: byte {offset} is no place in {about.name}", place)
            yield Relocation(offset, kind, self.symbols[index])

    # Maps --------------------------------------------------------------------------------------------------------

    def _read_maps(self) -> tuple[list[Declared], dict[int, MapDef]]:
        """Return the declared maps, and the maps of data by the number of their section."""
        declared: list[Declared] = []
        data: dict[int, MapDef] = {}
        for number, section in enumerate(self.elf.sections):
            if section.name == MAPS:
                declared += read_maps(self.elf, number, self.symbols, self.btf)
            elif section.name == "maps":
                hint = "declare them in section .maps; libbpf 1.0 and later refuse these as well"
                raise self._error("maps in the old form (section maps) cannot be read", section.offset, hint)
            elif section.type == _SHT_NOBITS and is_data(section.name) and not section.name.startswith(".bss"):
                self.warnings.append(f"section {section.name} has no content in the file, and is left out")
            elif section.type in (_SHT_PROGBITS, _SHT_NOBITS) and is_data(section.name) and section.size:
                places = {s.name: s.vaddr for s in self.symbols if s.section == number and s.name}
                data[number] = read_data_map(self.elf, section, places, self.btf)
        return declared, data

    def _address(self, number: int, relocation: Relocation, known: set[str]) -> DataAddress:
        """What an address in section `number` of data is the address of."""
        section, symbol, at = self.elf.sections[number], relocation.symbol, relocation.offset
        if relocation.type not in (R_BPF_64_64, R_BPF_64_ABS64) or section.type == _SHT_NOBITS:
            raise self._error(f"section {section.name} has a relocation of type {relocation.type} at byte {at}")
        addend = int.from_bytes(self.elf.read_section(section)[at : at + 8], "big" if self.big else "little")
        if not symbol.section:
            if symbol.name not in known and symbol.binding != 2:
                hint = "say __ksym where the kernel has it, or link the object that defines it"
                raise self._error(f"{symbol.name} is declared, but defined nowhere", hint=hint)
            return DataAddress(at, "ksym", symbol.name, addend, symbol.binding == 2)
        if symbol.section >= len(self.elf.sections):
            raise self._error(f"section {section.name} has the address of {symbol.name!r}, which stands nowhere")
        there = self.elf.sections[symbol.section].name
        kind = "map" if there == MAPS else "data" if is_data(there) else "function"
        if kind == "data":
            return DataAddress(at, kind, there, addend + symbol.vaddr)
        return DataAddress(at, kind, symbol.name or there, addend)

    def _with_values(self, declared: list[Declared], programs: tuple[Program, ...]) -> list[MapDef]:
        """Return the maps with what their entries hold at the start, as the relocations of .maps say. `declared` is in order."""
        numbers = [n for n, s in enumerate(self.elf.sections) if s.name == MAPS]
        starts = [each.offset for each in declared]
        names = {program.name for program in programs}, {each.spec.name for each in declared}
        values: dict[int, list[tuple[int, str]]] = {}
        for number in numbers:
            for offset, relocation in sorted(self.relocations.get(number, {}).items()):
                place = bisect_right(starts, offset) - 1
                if place >= 0:
                    values.setdefault(place, []).append(self._value(declared[place], offset, relocation, names))
        return [replace(each.spec, values=tuple(values.get(n, ()))) for n, each in enumerate(declared)]

    def _value(
        self, each: Declared, offset: int, relocation: Relocation, names: tuple[set[str], set[str]]
    ) -> tuple[int, str]:
        """The entry of a map that a relocation is about, and the name of what it holds."""
        slot, rest = divmod(offset - each.offset - each.values_at, 8)
        if each.values_at < 0 or slot < 0 or rest or relocation.type not in (R_BPF_64_64, R_BPF_64_ABS64):
            raise self._error(f"map {each.spec.name} has an address where none belongs", offset)
        if relocation.symbol.name not in names[each.spec.type != PROG_ARRAY]:
            raise self._error(
                f"map {each.spec.name} is to hold {relocation.symbol.name!r}, which the object does not have"
            )
        return slot, relocation.symbol.name

    # Code --------------------------------------------------------------------------------------------------------

    def _read_code(self) -> dict[int, Code]:
        """Return the sections of code by number."""
        found: dict[int, Code] = {}
        for number, section in enumerate(self.elf.sections):
            if section.type != _SHT_PROGBITS or not section.flags & SHF_EXECINSTR or not section.size:
                continue
            if section.size % 8:
                raise self._error(
                    f"section {section.name} has {section.size} bytes: not whole instructions", section.offset
                )
            functions = self._functions(number, section)
            relocations = {offset // 8: r for offset, r in self.relocations.get(number, {}).items()}
            lines, questions = self.extension.lines, self.extension.questions
            asked = {offset // 8: question for offset, question in questions.get(section.name, ())}
            found[number] = Code(
                section.name,
                self.elf.read_section(section),
                functions,
                {pc: (r.type, r.symbol) for pc, r in relocations.items()},
                [(offset // 8, line) for offset, line in lines.get(section.name, ())],
                asked,
                sorted([*relocations, *asked]),
                [offset // 8 for offset, _ in lines.get(section.name, ())],
            )
        return found

    def _functions(self, number: int, section: Section) -> dict[int, Symbol]:
        """The functions of a section by the instruction they start at. Those of program sections must be global."""
        found: dict[int, Symbol] = {}
        for symbol in self.symbols:
            if symbol.section != number or symbol.type != _STT_FUNC or symbol.section >= _FIRST_SPECIAL:
                continue
            if symbol.vaddr % 8 or symbol.size % 8 or not symbol.size or symbol.vaddr + symbol.size > section.size:
                raise self._error(f"function {symbol.name} lies outside section {section.name}", section.offset)
            if section.name != TEXT and symbol.binding == 0:
                raise self._error(f"function {symbol.name} of section {section.name} is static: no program can be")
            found[symbol.vaddr // 8] = symbol
        return found

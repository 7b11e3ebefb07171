"""Several objects to one: sections of the same name follow each other, symbols find their definitions, relocations and types move along.

What symbols mean follows libbpf's linker (src/linker.c): a global symbol has one strong definition, which goes before weak ones; of weak ones the
first is taken; what is left undefined is the kernel's, or another object's. `combinetypes` does .BTF and .BTF.ext.
"""

from __future__ import annotations

from bisect import bisect_right
from struct import iter_unpack, pack_into, unpack_from

from ...debuginfo.btf import Btf
from ...debuginfo.elf import ET_REL, SHF_EXECINSTR, Elf
from ...errors import FormatError
from .. import isa
from .byteorder import is_big_endian, to_big_endian, to_little_endian
from .elfwrite import LOCAL, NOBITS, PROGBITS, SECTION, WEAK, ElfWriter
from .model import (
    EM_BPF,
    LICENSE,
    R_BPF_64_32,
    R_BPF_64_64,
    R_BPF_64_ABS32,
    R_BPF_64_ABS64,
    R_BPF_64_NODYLD32,
    VERSION,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from ...debuginfo.elf import Section, Symbol
    from .elfwrite import OutSection, OutSymbol

_SHT_REL = 9
_STT_FUNC, _STT_FILE = 2, 4
_FIRST_SPECIAL = 0xFF00
_LEFT_OUT = (".debug", ".rel", ".llvm", ".eh_frame", ".BTF", ".strtab", ".symtab", ".note", ".comment", ".discard")
_ALIGN_LIMIT = 4096
_SIZE_LIMIT = 1 << 31  # bytes of a section


class Input:
    """One object to be linked: `places` says by section number where its bytes went, `dead` what no symbol leads to any more."""

    def __init__(self, path: str, data: bytes) -> None:
        self.path = path
        self.big = is_big_endian(data)
        self.elf = Elf(to_little_endian(data, path) if self.big else data, path)
        if self.elf.machine != EM_BPF or self.elf.type != ET_REL:
            raise FormatError(
                "this is no object for BPF", path=path, offset=16, hint="clang -g -O2 -target bpf makes one"
            )
        tables = [table for table in self.elf.tables if table.section.type == 2]
        self.symbols: list[Symbol] = list(tables[0]) if tables else []
        self.btf = self._read_btf()
        self.places: dict[int, tuple[OutSection, int]] = {}
        self.dead: dict[int, list[tuple[int, int]]] = {}  # by section: first byte and end, in order and apart
        self.out: dict[int, OutSymbol] = {}  # symbols by number

    def _read_btf(self) -> Btf | None:
        section = self.elf.get_section(".BTF")
        if section is None or not section.size:
            return None
        btf = Btf.from_bytes(self.elf.read_section(section))
        btf.path = f"{self.path} (.BTF)"
        btf.count_types()
        return btf

    def is_dead(self, section: int, offset: int) -> bool:
        """Tell whether a byte belongs to a weak definition that another one goes before."""
        pieces = self.dead.get(section)
        if not pieces:
            return False
        place = bisect_right(pieces, (offset, _SIZE_LIMIT)) - 1
        return place >= 0 and offset < pieces[place][1]

    def error(self, message: str, offset: int = -1, hint: str = "") -> FormatError:
        """Return an error about this file."""
        return FormatError(message, path=self.path, offset=offset, hint=hint)


class Global:
    """What the objects say of one global name: who defines it, and how."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.owner: Input | None = None  # None: nobody defines it
        self.symbol: Symbol | None = None
        self.weak = True  # as long as all that is known of it is
        self.visibility = 0
        self.users: list[Input] = []
        self.out: OutSymbol | None = None


def combine_objects(objects: Sequence[tuple[str, bytes]], warn: Callable[[str], None] | None = None) -> bytes:
    """Link objects, each a path for messages and its bytes, into one. `warn` hears what stays undefined.

    Raises FormatError, which names both files, where two of them contradict each other.
    """
    if not objects:
        raise FormatError("there is nothing to link")
    inputs = [Input(path, data) for path, data in objects]
    for each in inputs:
        if each.big != inputs[0].big:
            raise each.error(f"this object has another byte order than {inputs[0].path}")
    data = _Combiner(inputs).combine(warn)
    return to_big_endian(data) if inputs[0].big else data


class _Combiner:
    """Objects on their way to one."""

    def __init__(self, inputs: list[Input]) -> None:
        self.inputs = inputs
        self.elf = ElfWriter()
        self.globals: dict[str, Global] = {}

    def combine(self, warn: Callable[[str], None] | None) -> bytes:
        """Return the bytes of the object."""
        from .combinetypes import combine_types

        for each in self.inputs:
            for number, section in enumerate(each.elf.sections):
                if _is_kept(section):
                    self.add_section(each, number, section)
        for each in self.inputs:
            for symbol in each.symbols:
                if symbol.binding != LOCAL and symbol.name:
                    self.add_global(each, symbol)
        for each in self.inputs:
            self.find_dead(each)
        for each in self.inputs:
            for number, symbol in enumerate(each.symbols):
                self.write_symbol(each, number, symbol)
        for each in self.inputs:
            for section in each.elf.sections:
                if section.type == _SHT_REL:
                    self.move_relocations(each, section)
        known = combine_types(self.inputs, self.globals, self.elf)
        for found in self.globals.values():
            if found.owner is None and not found.weak and found.name not in known and warn is not None:
                warn(f"WARNING: {found.name} is used in {found.users[0].path}, and defined in none of the objects")
        return self.elf.build()

    # Sections ----------------------------------------------------------------------------------------------------

    def add_section(self, each: Input, number: int, section: Section) -> None:
        """Append a section to those of its name."""
        if section.align > _ALIGN_LIMIT or section.align & (section.align - 1):
            raise each.error(f"section {section.name} is aligned to {section.align} bytes", section.offset)
        if section.type == PROGBITS and section.name in (LICENSE, VERSION) and section.name in self.elf.sections:
            self.compare_section(each, section)
            return
        out = self.elf.section(section.name, section.type, section.flags, max(section.align, 1))
        if out.type != section.type or (out.flags ^ section.flags) & SHF_EXECINSTR:
            others = [i.path for i in self.inputs if any(place[0] is out for place in i.places.values())]
            raise each.error(
                f"section {section.name} is of another type (code, data, or without content) than in {others[0]}",
                section.offset,
            )
        out.flags |= section.flags
        out.align = max(out.align, section.align)
        length = out.size if section.type == NOBITS else len(out.data)
        offset = length + -length % max(section.align, 1)
        if offset + section.size > _SIZE_LIMIT:
            raise each.error(f"section {section.name} is too large", section.offset)
        if section.type == NOBITS:
            out.size = offset + section.size
        else:
            out.data += bytes(offset - length) + each.elf.read_section(section)
        each.places[number] = (out, offset)

    def compare_section(self, each: Input, section: Section) -> None:
        """License and version are kept once, and must be the same everywhere."""
        kept = bytes(self.elf.sections[section.name].data)
        if each.elf.read_section(section) != kept:
            first = next(i.path for i in self.inputs if i.elf.get_section(section.name) is not None)
            ours = each.elf.read_section(section)[:40].rstrip(b"\0").decode("utf-8", "replace")
            theirs = kept[:40].rstrip(b"\0").decode("utf-8", "replace")
            raise each.error(f"its {section.name} is {ours!r}, that of {first} is {theirs!r}", section.offset)

    # Symbols -----------------------------------------------------------------------------------------------------

    def add_global(self, each: Input, symbol: Symbol) -> None:
        """Take note of a global symbol; a definition may go before another one."""
        if symbol.section and symbol.section not in each.places:
            if symbol.section >= _FIRST_SPECIAL:
                raise each.error(f"{symbol.name} is in no section: a common or absolute symbol", hint="-fno-common")
            return  # license: the other object's is kept
        found = self.globals.setdefault(symbol.name, Global(symbol.name))
        found.users.append(each)
        found.visibility = _stricter(found.visibility, symbol.visibility)
        weak = symbol.binding == WEAK
        if not symbol.section:
            found.weak = found.weak and weak if found.owner is None else found.weak
            return
        if found.owner is not None and found.symbol is not None:
            if not weak and found.symbol.binding != WEAK:
                raise each.error(
                    f"{symbol.name} is defined here and in {found.owner.path}", hint="make one of them __weak"
                )
            if (symbol.type == _STT_FUNC) != (found.symbol.type == _STT_FUNC):
                what = "function" if symbol.type == _STT_FUNC else "variable"
                raise each.error(f"{symbol.name} is a {what} here, but none in {found.owner.path}")
            if weak or found.symbol.binding != WEAK:
                return
        found.owner, found.symbol, found.weak = each, symbol, weak

    def find_dead(self, each: Input) -> None:
        """Find the definitions of an object that others go before."""
        found_pieces: dict[int, list[tuple[int, int]]] = {}
        for symbol in each.symbols:
            found = self.globals.get(symbol.name) if symbol.binding != LOCAL else None
            if found is None or symbol.section not in each.places or found.symbol is symbol:
                continue
            piece = symbol.vaddr, symbol.vaddr + max(symbol.size, 1)
            found_pieces.setdefault(symbol.section, []).append(piece)
        each.dead = {section: _joined(pieces) for section, pieces in found_pieces.items()}

    def write_symbol(self, each: Input, number: int, symbol: Symbol) -> None:
        """Write a symbol, or find the one that stands for it."""
        if symbol.binding != LOCAL and symbol.name in self.globals:
            found = self.globals[symbol.name]
            if found.out is None:
                found.out = self.write_global(found)
            each.out[number] = found.out
        elif symbol.section in each.places and symbol.type not in (SECTION, _STT_FILE):
            out, offset = each.places[symbol.section]
            if symbol.vaddr + symbol.size > each.elf.sections[symbol.section].size:
                raise each.error(f"symbol {symbol.name} lies outside section {out.name}")
            each.out[number] = self.elf.symbol(
                symbol.name, out, offset + symbol.vaddr, symbol.size, symbol.type, symbol.binding
            )

    def write_global(self, found: Global) -> OutSymbol:
        """Write a global symbol where its definition stands, or as undefined."""
        binding = WEAK if found.weak else 1
        if found.owner is None or found.symbol is None:
            made = self.elf.symbol(found.name, None, binding=binding)
        else:
            symbol = found.symbol
            out, offset = found.owner.places[symbol.section]
            if symbol.vaddr + symbol.size > found.owner.elf.sections[symbol.section].size:
                raise found.owner.error(f"symbol {symbol.name} lies outside section {out.name}")
            made = self.elf.symbol(found.name, out, offset + symbol.vaddr, symbol.size, symbol.type, binding)
        made.visibility = found.visibility
        return made

    # Relocations -------------------------------------------------------------------------------------------------

    def move_relocations(self, each: Input, section: Section) -> None:
        """Append the relocations of one section to those of the section that they are about."""
        if section.info not in each.places:
            return
        out, base = each.places[section.info]
        raw = each.elf.read_section(section)
        size = each.elf.sections[section.info].size
        for place, (offset, info) in enumerate(iter_unpack("<QQ", raw[: len(raw) & ~15])):
            at = section.offset + 16 * place
            number, kind = info >> 32, info & 0xFFFFFFFF
            if number >= len(each.symbols):
                raise each.error(f"{section.name}: there is no symbol {number}", at)
            if offset + 8 > size or out.type == NOBITS:
                raise each.error(f"{section.name}: byte {offset} is no place in {out.name}", at)
            if each.is_dead(section.info, offset):
                continue
            symbol = each.symbols[number]
            target = each.out.get(number)
            if target is None:
                if symbol.type != SECTION or symbol.section not in each.places:
                    raise each.error(f"{section.name}: symbol {symbol.name!r} leads nowhere", at)
                there, moved = each.places[symbol.section]
                target = self.elf.section_symbol(there)
                _move_addend(each, out, base + offset, kind, moved, at)
            out.relocations.append((base + offset, target, kind))


def _joined(pieces: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Pieces in order, with those that touch or overlap made one."""
    made: list[tuple[int, int]] = []
    for start, end in sorted(pieces):
        if made and start <= made[-1][1]:
            made[-1] = made[-1][0], max(made[-1][1], end)
        else:
            made.append((start, end))
    return made


def _move_addend(each: Input, out: OutSection, at: int, kind: int, moved: int, place: int) -> None:
    """What a relocation adds to the start of a section grows by where the section went."""
    data = out.data
    order = ">" if each.big else "<"
    if kind == R_BPF_64_64:
        (value,) = unpack_from("<i", data, at + 4)
        pack_into("<I", data, at + 4, value + moved & 0xFFFFFFFF)
    elif kind == R_BPF_64_32 and data[at] == isa.CALL:
        (value,) = unpack_from("<i", data, at + 4)
        pack_into("<I", data, at + 4, value + moved // 8 & 0xFFFFFFFF)
    elif kind == R_BPF_64_ABS64:
        (value,) = unpack_from(f"{order}Q", data, at)
        pack_into(f"{order}Q", data, at, value + moved & (1 << 64) - 1)
    elif kind in (R_BPF_64_ABS32, R_BPF_64_NODYLD32):
        (value,) = unpack_from(f"{order}I", data, at)
        pack_into(f"{order}I", data, at, value + moved & 0xFFFFFFFF)
    else:
        raise each.error(f"a relocation of type {kind} is not known", place)


def _is_kept(section: Section) -> bool:
    return (
        section.type in (PROGBITS, NOBITS)
        and bool(section.name)
        and bool(section.size)
        and not section.name.startswith(_LEFT_OUT)
    )


def _stricter(one: int, other: int) -> int:
    """The visibility that counts where objects differ: internal, hidden, protected, default."""
    return min(one, other, key=lambda each: each or 4)


def iter_sections(inputs: Iterable[Input]) -> Iterator[tuple[Input, dict[str, int]]]:
    """Yield each object with the numbers of its sections by name."""
    for each in inputs:
        yield each, {section.name: number for number, section in reversed(list(enumerate(each.elf.sections)))}

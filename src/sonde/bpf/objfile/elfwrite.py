"""A relocatable ELF64 file in the making: sections with their bytes, symbols, relocations; `build` lays them out."""

from __future__ import annotations

from struct import pack

from ...errors import FormatError
from .model import EM_BPF

PROGBITS, SYMTAB, STRTAB, NOBITS, REL = 1, 2, 3, 8, 9
WRITE, ALLOC, EXECUTE, INFO_LINK = 1, 2, 4, 0x40
OBJECT, FUNC, SECTION = 1, 2, 3
LOCAL, GLOBAL, WEAK = 0, 1, 2
_HEADER_BYTES = 64
_MOST_SECTIONS = 0xFF00


class OutSymbol:
    """A symbol; its index is known once the file is laid out."""

    __slots__ = ("binding", "index", "name", "section", "size", "type", "value", "visibility")

    def __init__(self, name: str, section: OutSection | None, value: int, size: int, kind: int, binding: int) -> None:
        self.name = name
        self.section = section
        self.value = value
        self.size = size
        self.type = kind
        self.binding = binding
        self.index = 0
        self.visibility = 0


class OutSection:
    """A section; `relocations` are (byte offset, symbol, type)."""

    __slots__ = ("align", "data", "flags", "index", "name", "own_symbol", "relocations", "size", "type")

    def __init__(self, name: str, kind: int, flags: int, align: int) -> None:
        self.name = name
        self.type = kind
        self.flags = flags
        self.align = align
        self.data = bytearray()
        self.size = 0  # of a section without bytes in the file
        self.index = 0
        self.own_symbol: OutSymbol | None = None
        self.relocations: list[tuple[int, OutSymbol, int]] = []


class ElfWriter:
    """Collects sections and symbols in the order of their addition."""

    def __init__(self) -> None:
        self.sections: dict[str, OutSection] = {}
        self.symbols: list[OutSymbol] = []

    def section(self, name: str, kind: int = PROGBITS, flags: int = 0, align: int = 1) -> OutSection:
        """Return the section `name`; it is added where it is new."""
        found = self.sections.get(name)
        if found is None:
            found = self.sections[name] = OutSection(name, kind, flags, align)
            found.index = len(self.sections)
        return found

    def symbol(
        self, name: str, section: OutSection | None, value: int = 0, size: int = 0, kind: int = 0, binding: int = GLOBAL
    ) -> OutSymbol:
        """Add a symbol; `section` None: it is defined elsewhere."""
        made = OutSymbol(name, section, value, size, kind, binding)
        self.symbols.append(made)
        return made

    def section_symbol(self, section: OutSection) -> OutSymbol:
        """Return the symbol that stands for the start of a section."""
        if section.own_symbol is None:
            section.own_symbol = self.symbol("", section, kind=SECTION, binding=LOCAL)
        return section.own_symbol

    def build(self) -> bytes:
        """Return the file. Raises FormatError when there are more sections than ELF can count plainly."""
        self.symbols.sort(key=lambda symbol: symbol.binding != LOCAL)  # local ones come first
        for number, symbol in enumerate(self.symbols, 1):
            symbol.index = number
        strings = _Strings()
        sections = list(self.sections.values())
        related = [section for section in sections if section.relocations]
        if len(sections) + len(related) + 3 >= _MOST_SECTIONS:
            raise FormatError(f"an object of {len(sections)} sections cannot be written")
        table_index = len(sections) + len(related) + 1
        body = bytearray(_HEADER_BYTES)
        heads = [bytes(64)]
        for section in sections:
            size = section.size if section.type == NOBITS else len(section.data)
            offset = _append(body, bytes(section.data), section.align)
            heads.append(_head(strings, section.name, section.type, section.flags, offset, size, align=section.align))
        for section in related:
            raw = b"".join(
                pack("<QQ", at, symbol.index << 32 | kind)
                for at, symbol, kind in sorted(section.relocations, key=lambda r: r[0])
            )
            offset = _append(body, raw, 8)
            name = ".rel" + section.name
            heads.append(_head(strings, name, REL, INFO_LINK, offset, len(raw), table_index, section.index, 8, 16))
        raw = bytes(24) + b"".join(_entry(strings, symbol) for symbol in self.symbols)
        offset = _append(body, raw, 8)
        local = 1 + sum(symbol.binding == LOCAL for symbol in self.symbols)
        heads.append(_head(strings, ".symtab", SYMTAB, 0, offset, len(raw), table_index + 1, local, 8, 24))
        name_at = strings.add(".strtab")
        offset = _append(body, bytes(strings.data), 1)
        heads.append(pack("<IIQQQQIIQQ", name_at, STRTAB, 0, 0, offset, len(strings.data), 0, 0, 1, 0))
        table = _append(body, b"".join(heads), 8)
        ident = b"\x7fELF\x02\x01\x01" + bytes(9)
        body[:_HEADER_BYTES] = ident + pack(
            "<HHIQQQIHHHHHH", 1, EM_BPF, 1, 0, 0, table, 0, 64, 0, 0, 64, len(heads), len(heads) - 1
        )
        return bytes(body)


class _Strings:
    """A string table; equal strings stand in it once."""

    def __init__(self) -> None:
        self.data = bytearray(b"\0")
        self._known = {"": 0}

    def add(self, text: str) -> int:
        at = self._known.get(text)
        if at is None:
            at = self._known[text] = len(self.data)
            self.data += text.encode("utf-8", "surrogateescape") + b"\0"
        return at


def _append(body: bytearray, data: bytes, align: int) -> int:
    body += bytes(-len(body) % align)
    offset = len(body)
    body += data
    return offset


def _entry(strings: _Strings, symbol: OutSymbol) -> bytes:
    section = symbol.section.index if symbol.section is not None else 0
    info = symbol.binding << 4 | symbol.type
    return pack("<IBBHQQ", strings.add(symbol.name), info, symbol.visibility, section, symbol.value, symbol.size)


def _head(
    strings: _Strings,
    name: str,
    kind: int,
    flags: int,
    offset: int,
    size: int,
    link: int = 0,
    info: int = 0,
    align: int = 1,
    entry: int = 0,
) -> bytes:
    return pack("<IIQQQQIIQQ", strings.add(name), kind, flags, 0, offset, size, link, info, align, entry)

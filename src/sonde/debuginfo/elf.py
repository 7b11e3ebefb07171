"""ELF files: sections, segments, symbols, notes, build id and the way to separate debug information.

Reads little-endian ELF64 from a mapping of the file, and only what is asked for: finding `malloc` in libc takes 0.2 ms.
Why not pyelftools: its import costs 27 ms and the same look-up 71 ms, more than the whole start-up of a tracer.

Addresses (`vaddr`) are those of the file, before any load bias; `offset` is always an offset in the file.
Every table is checked against the size of the file before it is read: a corrupt file raises FormatError.
"""

from __future__ import annotations

import os
import struct
from bisect import bisect_right

from ..errors import FormatError
from ..record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    import mmap
    from collections.abc import Iterator

    Bytes = bytes | mmap.mmap
    _Entry = tuple[
        int, int, int, int, int
    ]  # of a function: address, size, offset of its name, number of its table, info

EM_X86_64, EM_AARCH64 = 62, 183
ET_REL, ET_EXEC, ET_DYN = 1, 2, 3
PT_LOAD, PT_NOTE = 1, 4
SHT_SYMTAB, SHT_NOTE, SHT_NOBITS, SHT_DYNSYM = 2, 7, 8, 11
STT_FUNC, STT_GNU_IFUNC = 2, 10
SHF_EXECINSTR = 4
NT_GNU_BUILD_ID = 3
_FUNCTIONS = (STT_FUNC, STT_GNU_IFUNC)
_QUESTIONS = 4  # about functions that are answered without an index of names
_BINDINGS = {1: 0, 2: 1}  # global before weak, others last

_NAME_LIMIT = 64 * 1024  # bytes: longer symbol names exist in no real file, but a corrupt one could claim them
_DEBUGDATA_LIMIT = 64 << 20  # bytes that a compressed .gnu_debugdata may unpack to


class Section(Record):
    """One section header; `size` is 0 in the file when `type` is SHT_NOBITS."""

    name: str
    type: int
    flags: int
    addr: int
    offset: int
    size: int
    link: int
    info: int
    align: int
    entry_size: int


class Segment(Record):
    """One program header."""

    type: int
    flags: int  # PF_X 1, PF_W 2, PF_R 4
    offset: int
    vaddr: int
    file_size: int
    memory_size: int


class Symbol(Record):
    """One entry of a symbol table."""

    name: str
    vaddr: int
    size: int
    type: int
    binding: int  # 0 local, 1 global, 2 weak
    section: int  # 0: undefined here
    visibility: int = 0  # 1 internal, 2 hidden, 3 protected; told by iteration only


class Note(Record):
    """One note of a note section or segment."""

    owner: str
    type: int
    data: bytes
    offset: int  # of `data` in the file


class Elf:
    """One ELF file. A context manager; `close` is idempotent. All look-ups are lazy and cached."""

    __slots__ = (
        "_best", "_debug", "_functions", "_names", "_sections", "_segments", "_starts", "_tables",
        "data", "entry", "machine", "path", "type",
    )  # fmt: skip

    def __init__(self, data: Bytes, path: str = "") -> None:
        """Read the header of `data`. Raises FormatError when it is not a little-endian ELF64 file."""
        self.data = data
        self.path = path
        self._sections: list[Section] | None = None
        self._segments: list[Segment] | None = None
        self._tables: list[_SymbolTable] | None = None
        self._functions: list[_Entry] | None = None
        self._names: dict[int, list[_Entry]] = {}  # by address
        self._best: dict[int, _Entry] = {}  # of these, one by address
        self._starts: list[int] = []
        self._debug: Elf | bool | None = False  # False: not looked for yet
        if data[:4] != b"\x7fELF":
            raise FormatError("this is not an ELF file", path=path, offset=0)
        if data[4:5] != b"\x02":
            raise FormatError("this is a 32-bit ELF file; only 64-bit ones can be read", path=path, offset=4)
        if data[5:6] != b"\x01":
            raise FormatError("this is a big-endian ELF file; only little-endian ones can be read", path=path, offset=5)
        self.type, self.machine, _, self.entry = self._unpack("<HHIQ", 16)

    @classmethod
    def open(cls, path: str) -> Elf:
        """Map the file at `path`. Raises OSError, or FormatError for what is not a little-endian ELF64 file."""
        import mmap

        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            size = os.fstat(fd).st_size
            if size < 64:
                raise FormatError("this is not an ELF file", path=path, offset=0)
            data = mmap.mmap(fd, size, mmap.MAP_PRIVATE, mmap.PROT_READ)
        finally:
            os.close(fd)
        try:
            return cls(data, path)
        except FormatError:
            data.close()
            raise

    def close(self) -> None:
        """Unmap the file, and its debug file. The object cannot be used afterwards."""
        if isinstance(self._debug, Elf):
            self._debug.close()
        self._debug = None
        if not isinstance(self.data, bytes):
            self.data.close()

    def __enter__(self) -> Elf:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # Structure -------------------------------------------------------------------------------------------------

    @property
    def arch(self) -> str:
        """The architecture as `spec.target` names it, "" for one that sonde does not know."""
        return {EM_X86_64: "x86_64", EM_AARCH64: "aarch64"}.get(self.machine, "")

    @property
    def is_exec(self) -> bool:
        """Whether the file is loaded at the addresses that it states (ET_EXEC: no load bias)."""
        return self.type == ET_EXEC

    @property
    def sections(self) -> list[Section]:
        """All section headers in order; index 0 is the null section."""
        if self._sections is None:
            self._sections = self._read_sections()
        return self._sections

    @property
    def segments(self) -> list[Segment]:
        """All program headers in order."""
        if self._segments is None:
            (table,) = self._unpack("<Q", 32)
            size, count = self._unpack("<HH", 54)
            if count and size != 56:
                raise FormatError(f"program headers have {size} bytes in place of 56", path=self.path, offset=54)
            raw = self._slice(table, count * 56, "program headers")
            self._segments = [
                Segment(kind, flags, offset, vaddr, file_size, memory_size)
                for kind, flags, offset, vaddr, _, file_size, memory_size, _ in struct.iter_unpack("<IIQQQQQQ", raw)
            ]
        return self._segments

    def get_section(self, name: str) -> Section | None:
        """Return the first section called `name`, or None."""
        for section in self.sections:
            if section.name == name:
                return section
        return None

    def read_section(self, section: Section) -> bytes:
        """Return the bytes of `section`; none for SHT_NOBITS."""
        if section.type == SHT_NOBITS:
            return b""
        return self._slice(section.offset, section.size, section.name)

    def get_segment(self, vaddr: int) -> Segment | None:
        """Return the segment of the file that is loaded at `vaddr`, None when there is none."""
        for s in self.segments:
            if s.type == PT_LOAD and s.vaddr <= vaddr < s.vaddr + s.file_size:
                return s
        return None

    def get_offset(self, vaddr: int) -> int:
        """Return the file offset of what is loaded at `vaddr`, or -1 when that is not backed by the file."""
        segment = self.get_segment(vaddr)
        return vaddr - segment.vaddr + segment.offset if segment is not None else -1

    def get_vaddr(self, offset: int) -> int:
        """Return the address at which the byte at file offset `offset` is loaded, or -1."""
        for s in self.segments:
            if s.type == PT_LOAD and s.offset <= offset < s.offset + s.file_size:
                return offset - s.offset + s.vaddr
        return -1

    def _read_sections(self) -> list[Section]:
        (table,) = self._unpack("<Q", 40)
        size, count, names = self._unpack("<HHH", 58)
        if table == 0:
            return []
        if size != 64:
            raise FormatError(f"section headers have {size} bytes in place of 64", path=self.path, offset=58)
        first = self._unpack("<IIQQQQIIQQ", table)
        count = count or first[5]  # more sections than 16 bits can count
        names = first[6] if names == 0xFFFF else names
        raw = self._slice(table, count * 64, "section headers")
        headers = list(struct.iter_unpack("<IIQQQQIIQQ", raw))
        if names >= len(headers):
            raise FormatError("the section of section names does not exist", path=self.path, offset=62)
        strings = self._slice(headers[names][4], headers[names][5], "section names")
        return [Section(_string(strings, h[0]), *h[1:]) for h in headers]

    def _slice(self, offset: int, size: int, what: str) -> bytes:
        if offset < 0 or size < 0 or offset + size > len(self.data):
            raise FormatError(f"{what}: {size} bytes lie outside the file", path=self.path, offset=offset)
        return self.data[offset : offset + size]

    def _unpack(self, form: str, offset: int) -> tuple[int, ...]:
        if offset + struct.calcsize(form) > len(self.data):
            raise FormatError("the file ends too early", path=self.path, offset=offset)
        return struct.unpack_from(form, self.data, offset)

    # Symbols ---------------------------------------------------------------------------------------------------

    @property
    def tables(self) -> list[_SymbolTable]:
        """The symbol tables of this file and of its .gnu_debugdata: .symtab first, then .dynsym."""
        if self._tables is None:
            found = [s for kind in (SHT_SYMTAB, SHT_DYNSYM) for s in self.sections if s.type == kind]
            self._tables = [_SymbolTable(self, s) for s in found]
            if not any(s.type == SHT_SYMTAB for s in found):
                inner = self._open_debugdata()
                if inner:
                    self._tables[:0] = inner.tables
        return self._tables

    def get_function(self, name: str) -> Symbol | None:
        """Find a defined function by name without decoding whole tables; of several versions, the default one.

        Looks into .dynsym and .symtab, then into the separate debug file. Cost: 0.05 ms to 1 ms.
        """
        for table in reversed(self.tables):
            found = [s for s in table.find(name) if s.type in (STT_FUNC, STT_GNU_IFUNC) and s.section]
            if found:
                return found[0]
        debug = self.debug
        return debug.get_function(name) if debug else None

    def get_symbol(self, name: str) -> Symbol | None:
        """Find a defined symbol of any type by name, or return None."""
        for table in reversed(self.tables):
            for symbol in table.find(name):
                if symbol.section:
                    return symbol
        debug = self.debug
        return debug.get_symbol(name) if debug else None

    def iter_symbols(self) -> Iterator[Symbol]:
        """Yield every entry of the tables of this file (not of its debug file), also undefined ones."""
        for table in self.tables:
            yield from table

    def iter_functions(self) -> Iterator[Symbol]:
        """Yield all defined functions, also those of the debug file; a name may come more than once."""
        for table in self._all_tables():
            for name, info, vaddr, size in table.functions():
                yield Symbol(table.name_at(name), vaddr, size, info & 15, info >> 4, 1)

    def function_names(self) -> list[str]:
        """Return the names of all defined functions, also of the debug file, sorted and unique."""
        names: set[str] = set()
        for table in self._all_tables():
            names.update(table.function_names())
        names.discard("")
        return sorted(names)

    def get_function_at(self, vaddr: int) -> Symbol | None:
        """Return the function that covers the address, or None. The first call builds the index (10 ms for libc).

        Of several names of one function a global one wins over a weak and a local one, and one with fewer leading
        underscores over one with more: `malloc`, not `__libc_malloc`.
        """
        starts = self.function_starts()
        at = bisect_right(starts, vaddr) - 1
        for index in range(at, max(at - 16, -1), -1):  # a function may enclose the starts of others
            _, size, name, table, info = self._best_at(starts[index])
            end = starts[index] + size
            if size == 0:
                end = starts[index + 1] if index + 1 < len(starts) else starts[index] + 1
            if vaddr < end:
                text = self._all_tables()[table].name_at(name)
                return Symbol(text, starts[index], size, info & 15, info >> 4, 1)
        return None

    def function_starts(self) -> list[int]:
        """Return the sorted addresses of all functions, from the index that `get_function_at` uses. The caller leaves the list as it is."""
        if self._functions is None:
            self._functions = [
                (start, size, name, number, info)
                for number, table in enumerate(self._all_tables())
                for name, info, start, size in table.functions()
            ]
            self._starts = sorted({entry[0] for entry in self._functions})
        return self._starts

    def _best_at(self, start: int) -> _Entry:
        """The entry of a function's names that it is to be called by; they are read when somebody asks, and sorted by address once several have been asked for."""
        found = self._best.get(start)
        if found is None:
            assert self._functions is not None
            if len(self._best) < _QUESTIONS:
                entries = [entry for entry in self._functions if entry[0] == start]
            else:
                if not self._names:
                    for entry in self._functions:
                        self._names.setdefault(entry[0], []).append(entry)
                entries = self._names[start]
            found = self._best[start] = min(entries, key=self._rank) if len(entries) > 1 else entries[0]
        return found

    def _rank(self, entry: _Entry) -> tuple[int, int, int]:
        name = self._all_tables()[entry[3]].name_at(entry[2])
        return _BINDINGS.get(entry[4] >> 4, 2), len(name) - len(name.lstrip("_")), len(name)

    def _all_tables(self) -> list[_SymbolTable]:
        debug = None if any(t.section.type == SHT_SYMTAB for t in self.tables) else self.debug
        return self.tables + debug.tables if debug else self.tables

    # Notes and debug files -------------------------------------------------------------------------------------

    def iter_notes(self, section: Section) -> Iterator[Note]:
        """Yield the notes of a note section. Raises FormatError for one that does not end within it."""
        raw = self.read_section(section)
        at = 0
        align = 8 if section.align == 8 else 4
        while at + 12 <= len(raw):
            name_size, size, kind = struct.unpack_from("<III", raw, at)
            start = _align(at + 12 + name_size, align)
            if start + size > len(raw):
                raise FormatError("a note ends outside its section", path=self.path, offset=section.offset + at)
            owner = raw[at + 12 : at + 12 + name_size].rstrip(b"\0").decode("ascii", "replace")
            yield Note(owner, kind, raw[start : start + size], section.offset + start)
            at = _align(start + size, align)

    def build_id(self) -> str:
        """Return the build id in hexadecimal digits, or "" when there is none."""
        section = self.get_section(".note.gnu.build-id")
        if section is not None and section.type == SHT_NOTE:
            for note in self.iter_notes(section):
                if note.type == NT_GNU_BUILD_ID and note.owner == "GNU":
                    return note.data.hex()
        return ""

    def debug_link(self) -> tuple[str, int] | None:
        """Return (file name, CRC-32) of .gnu_debuglink, or None."""
        section = self.get_section(".gnu_debuglink")
        raw = self.read_section(section) if section else b""
        end = raw.find(b"\0")
        at = _align(end + 1, 4)
        if end <= 0 or at + 4 > len(raw):
            return None
        return raw[:end].decode("utf-8", "surrogateescape"), int.from_bytes(raw[at : at + 4], "little")

    @property
    def debug(self) -> Elf | None:
        """The separate debug file, opened on first use and closed with this file; None when there is none."""
        if self._debug is False:
            self._debug = None  # a debug file that links to itself ends here
            self._debug = open_debug_file(self) if self.path else None
        return self._debug  # type: ignore[return-value]

    def _open_debugdata(self) -> Elf | None:
        section = self.get_section(".gnu_debugdata")
        if section is None:
            return None
        import lzma

        try:
            unpacker = lzma.LZMADecompressor()
            return Elf(unpacker.decompress(self.read_section(section), _DEBUGDATA_LIMIT), self.path)
        except (lzma.LZMAError, EOFError):
            raise FormatError(".gnu_debugdata cannot be unpacked", path=self.path, offset=section.offset) from None


class _SymbolTable:
    """One symbol table: found by name in the string table, decoded entry by entry only where asked for."""

    __slots__ = ("count", "elf", "end", "section", "start", "strings_end", "strings_start")

    def __init__(self, elf: Elf, section: Section) -> None:
        self.elf = elf
        self.section = section
        self.start = section.offset
        self.count = section.size // 24
        self.end = self.start + self.count * 24
        if section.link >= len(elf.sections):
            raise FormatError(f"{section.name} has no string table", path=elf.path)
        strings = elf.sections[section.link]
        self.strings_start = strings.offset
        self.strings_end = strings.offset + strings.size
        if max(self.end, self.strings_end) > len(elf.data):
            raise FormatError(f"{section.name} lies outside the file", path=elf.path, offset=self.start)

    def __iter__(self) -> Iterator[Symbol]:
        raw = self.elf.data[self.start : self.end]
        for name, info, other, section, vaddr, size in struct.iter_unpack("<IBBHQQ", raw):
            yield Symbol(self.name_at(name), vaddr, size, info & 15, info >> 4, section, other & 3)

    def name_at(self, at: int) -> str:
        """Return the string at offset `at` of the string table, "" outside it."""
        start = self.strings_start + at
        end = self.elf.data.find(b"\0", start, min(self.strings_end, start + _NAME_LIMIT))
        return self.elf.data[start:end].decode("utf-8", "surrogateescape") if end >= 0 else ""

    def functions(self) -> list[tuple[int, int, int, int]]:
        """Return (name offset, info, address, size) of every defined function."""
        raw = self.elf.data[self.start : self.end]
        return [
            (name, info, vaddr, size)
            for name, info, _, section, vaddr, size in struct.iter_unpack("<IBBHQQ", raw)
            if section and info & 15 in _FUNCTIONS
        ]

    def function_names(self) -> Iterator[str]:
        """Yield the name of every defined function; the whole string table is decoded once."""
        text = self.elf.data[self.strings_start : self.strings_end]
        find = text.find
        for name, *_ in self.functions():
            end = find(b"\0", name)
            if 0 <= end - name < _NAME_LIMIT:
                yield text[name:end].decode("utf-8", "surrogateescape")

    def find(self, name: str) -> list[Symbol]:
        """Return the entries called `name`, those of the default version first."""
        wanted = name.encode("utf-8", "surrogateescape")
        if not wanted or b"\0" in wanted:
            return []
        offsets = self._find_strings(wanted + b"\0")
        if not offsets:
            return []
        indices = self._scan(offsets) if len(offsets) > 4 else self._find_entries(offsets)
        found = []
        for index in sorted(indices):
            _, info, _, section, vaddr, size = self.elf._unpack("<IBBHQQ", self.start + index * 24)
            found.append((self._is_hidden(index), Symbol(name, vaddr, size, info & 15, info >> 4, section)))
        found.sort(key=lambda pair: pair[0])
        return [symbol for _, symbol in found]

    def _find_strings(self, wanted: bytes) -> list[int]:
        """Offsets of the string; it may be the tail of another one, for linkers share tails."""
        offsets = []
        find = self.elf.data.find
        at = find(wanted, self.strings_start, self.strings_end)
        while at >= 0:
            offsets.append(at - self.strings_start)
            at = find(wanted, at + 1, self.strings_end)
        return offsets

    def _find_entries(self, offsets: list[int]) -> list[int]:
        """Look for each offset as the four bytes that open an entry: no entry is decoded."""
        find = self.elf.data.find
        indices = []
        for offset in offsets:
            key = struct.pack("<I", offset)
            at = find(key, self.start, self.end)
            while at >= 0:
                index, rest = divmod(at - self.start, 24)
                if rest == 0:
                    indices.append(index)
                at = find(key, at + 1, self.end)
        return indices

    def _scan(self, offsets: list[int]) -> list[int]:
        wanted = set(offsets)
        raw = self.elf.data[self.start : self.end]
        return [i for i, (name,) in enumerate(struct.iter_unpack("<I20x", raw)) if name in wanted]

    def _is_hidden(self, index: int) -> bool:
        """Tell whether the entry is an old version of a symbol (memcpy@GLIBC_2.2.5)."""
        if self.section.type != SHT_DYNSYM:
            return False
        versions = self.elf.get_section(".gnu.version")
        if versions is None or (index + 1) * 2 > versions.size:
            return False
        return bool(self.elf._unpack("<H", versions.offset + index * 2)[0] & 0x8000)


def open_debug_file(elf: Elf, dirs: tuple[str, ...] = ("/usr/lib/debug",), root: str = "") -> Elf | None:
    """Find and open the file that holds the debug information of `elf`, by build id or by .gnu_debuglink.

    `root` goes before the global directories (/proc/PID/root for a process in a container). The build id, or the
    CRC where there is none, must agree. Returns None when no such file exists. The caller closes it.
    """
    ident = elf.build_id()
    link = elf.debug_link()
    paths = [f"{root}{d}/.build-id/{ident[:2]}/{ident[2:]}.debug" for d in dirs] if len(ident) > 2 else []
    if link and "/" not in link[0]:
        here = os.path.dirname(_real_path(elf.path))
        inside = here[len(root) :] if root and here.startswith(root) else here
        paths += [f"{here}/{link[0]}", f"{here}/.debug/{link[0]}", *(f"{root}{d}{inside}/{link[0]}" for d in dirs)]
    for path in paths:
        try:
            debug = Elf.open(path)
        except (OSError, FormatError):
            continue
        if _belongs(debug, ident, link):
            debug._debug = None
            return debug
        debug.close()
    return None


def _real_path(path: str) -> str:
    try:
        return os.path.realpath(path)
    except OSError:  # /proc/PID/map_files/… of a process that has ended since
        return path


def _belongs(debug: Elf, ident: str, link: tuple[str, int] | None) -> bool:
    try:
        other = debug.build_id()
    except FormatError:
        return False
    if ident and other:
        return ident == other
    if link is None:
        return False
    import zlib

    return zlib.crc32(debug.data) == link[1]


def _align(value: int, to: int) -> int:
    return (value + to - 1) & -to


def _string(strings: bytes, at: int) -> str:
    end = strings.find(b"\0", at)
    return strings[at : end if end >= 0 else len(strings)].decode("utf-8", "replace")

"""One ELF file to the windows of probes in it: everything that the file tells about who jumps where is looked up once.

Functions come from the symbol tables and from the index of unwind information, which stripped files have too. Targets come from the relocations
of position-independent files (tables of function pointers and labels), and in others from every aligned word that could be an address.
"""

from __future__ import annotations

import struct
from bisect import bisect_right

from ...debuginfo.elf import SHF_EXECINSTR, SHT_NOBITS, Elf, Section
from ...errors import FormatError
from .survey import Survey
from .window import RUNGS, Window, plan_window

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

_SHT_RELA, _SHT_RELR = 4, 19
_R_RELATIVE, _R_IRELATIVE = 8, 37
_SHF_ALLOC = 2
# struct rseq_cs (include/uapi/linux/rseq.h): version, flags, start_ip, post_commit_offset, abort_ip; aligned to its size.
_RSEQ = struct.Struct("<IIQQQ")
_SIGNATURE_BYTES = 4
_TABLE_SECTIONS = (".rodata", ".data.rel.ro", ".data")
_WHOLE_BYTES = (
    32 << 20
)  # of a text section, up to which the jumps between functions are looked at too: 60 ms, or 2 s for many probes


class Text:
    """The code of one file for x86-64. Addresses are those of the file; the caller adds the load bias to `addr`, and to `low` of puns."""

    def __init__(self, elf: Elf) -> None:
        """Nothing is read before it is needed. `elf` stays open as long as this is used."""
        self.elf = elf
        self._starts: list[int] | None = None
        self._surveys: dict[str, Survey] = {}
        self._expected = 0
        self._code: dict[str, bytes] = {}
        self._targets: frozenset[int] | None = None
        self._data: list[tuple[int, bytes]] | None = None
        self._reserved: tuple[tuple[int, int], ...] | None = None

    def plan(
        self,
        at: int,
        *,
        reserved: Sequence[tuple[int, int]] = (),
        calls: bool = True,
        rungs: Collection[str] = RUNGS,
        early: bool = False,
    ) -> Window:
        """Return the window of a probe at address `at`. The arguments are those of `plan_window`. Raises FormatError for a corrupt file.

        The first call costs 10 ms for libc, the next ones 3 ms; after twenty, or at once where many are expected, an index is made, which takes 40 ms, and they cost 50 µs.
        """
        section = self._section_at(at)
        if section is None:
            return Window("none", at, 0, 0, b"", (), reason="the address is in no section of the file that holds code")
        code = self._code_of(section)
        start, end, limit = self._function_at(section, at)
        return plan_window(
            code, at, start=start, end=end, base=section.addr, limit=limit, survey=self._survey_of(section),
            targets=self.targets, data=self.data, reserved=reserved, calls=calls, rungs=rungs, early=early,
        )  # fmt: skip

    def expect(self, count: int) -> None:
        """Say how many windows will be asked for."""
        self._expected = count
        for survey in self._surveys.values():
            survey.expect(count)

    @property
    def data(self) -> list[tuple[int, bytes]]:
        """Address and bytes of each section that may hold jump tables."""
        if self._data is None:
            sections = [s for s in self.elf.sections if s.name.startswith(_TABLE_SECTIONS) and s.type != SHT_NOBITS]
            self._data = [(s.addr, self.elf.read_section(s)) for s in sections]
        return self._data

    @property
    def targets(self) -> frozenset[int]:
        """Addresses that data leads to: of functions, of labels, and in a file without relocations what looks like one."""
        if self._targets is None:
            found: set[int] = set()
            for section in self.elf.sections:
                if section.type == _SHT_RELA and section.flags & _SHF_ALLOC:
                    raw = self.elf.read_section(section)
                    entries = struct.iter_unpack("<QQq", raw[: len(raw) // 24 * 24])
                    found.update(
                        addend for _, info, addend in entries if info & 0xFFFFFFFF in (_R_RELATIVE, _R_IRELATIVE)
                    )
                elif section.type == _SHT_RELR:
                    found.update(self._read_words(iter_relr(self.elf.read_section(section))))
            code = [(s.addr, s.addr + s.size) for s in self.elf.sections if s.flags & SHF_EXECINSTR]
            if self.elf.is_exec and code:
                low, high = min(code)[0], max(end for _, end in code)
                for _, content in self.data:
                    found.update(find_addresses(content, low, high))
            self._targets = frozenset(a for low, high in code for a in found if low <= a < high)
        return self._targets

    @property
    def reserved(self) -> tuple[tuple[int, int], ...]:
        """Ranges (first address, first behind) of the restartable sequences that the section `__rseq_cs` describes, by convention of those who use rseq(2),
        and of what the kernel looks at where they are aborted: the signature before the handler."""
        if self._reserved is None:
            section = self.elf.get_section("__rseq_cs")
            found: list[tuple[int, int]] = []
            if section is not None and section.type != SHT_NOBITS:
                raw, moved = self.elf.read_section(section), self._addends(section)
                for at in range(0, len(raw) - _RSEQ.size + 1, _RSEQ.size):
                    _, _, start, size, abort = _RSEQ.unpack_from(raw, at)
                    start, abort = (
                        moved.get(section.addr + at + 8, start),
                        moved.get(section.addr + at + 24, abort),
                    )
                    found += [(start, start + size), (abort - _SIGNATURE_BYTES, abort + 1)]
            self._reserved = tuple(span for span in found if 0 < span[0] < span[1])
        return self._reserved

    def _addends(self, section: Section) -> dict[int, int]:
        """What relocations with addends put into a section, by address: the file has zeros there."""
        found: dict[int, int] = {}
        for table in self.elf.sections:
            if table.type == _SHT_RELA and table.flags & _SHF_ALLOC:
                raw = self.elf.read_section(table)
                for place, info, addend in struct.iter_unpack("<QQq", raw[: len(raw) // 24 * 24]):
                    if info & 0xFFFFFFFF == _R_RELATIVE and section.addr <= place < section.addr + section.size:
                        found[place] = addend
        return found

    def _read_words(self, places: Collection[int]) -> list[int]:
        """The words at some addresses, of those that the file has."""
        found, data = [], self.elf.data
        first = behind = offset = 0  # of the segment that the last place was in: nearly all are in one
        for place in places:
            if not first <= place < behind - 7:
                segment = self.elf.get_segment(place)
                if segment is None:
                    continue
                first, behind, offset = segment.vaddr, segment.vaddr + segment.file_size, segment.offset
            at = place - first + offset
            if at <= len(data) - 8:
                found.append(int.from_bytes(data[at : at + 8], "little"))
        return found

    def _section_at(self, at: int) -> Section | None:
        for section in self.elf.sections:
            if (
                section.flags & SHF_EXECINSTR
                and section.type != SHT_NOBITS
                and section.addr <= at < section.addr + section.size
            ):
                return section
        return None

    def _code_of(self, section: Section) -> bytes:
        if section.name not in self._code:
            self._code[section.name] = bytes(self.elf.read_section(section))
        return self._code[section.name]

    def _survey_of(self, section: Section) -> Survey | None:
        if section.size > _WHOLE_BYTES:
            return None
        if section.name not in self._surveys:
            self._surveys[section.name] = Survey(self._code_of(section), section.addr, self.starts)
            self._surveys[section.name].expect(self._expected)
        return self._surveys[section.name]

    @property
    def starts(self) -> list[int]:
        """The sorted addresses at which functions begin, or parts of them."""
        if self._starts is None:
            section = self.elf.get_section(".eh_frame_hdr")
            unwound = read_unwind_index(self.elf.read_section(section), section.addr) if section else []
            self._starts = sorted({*self.elf.function_starts(), *unwound})
        return self._starts

    def begins_function(self, at: int) -> bool:
        """Whether a function begins at an address; the parts that compilers put elsewhere because they are rarely run (`.cold`) do not count where they have names."""
        index = bisect_right(self.starts, at)
        if not index or self.starts[index - 1] != at:
            return False
        symbol = self.elf.get_function_at(at)
        return symbol is None or symbol.vaddr != at or ".cold" not in symbol.name

    def _function_at(self, section: Section, at: int) -> tuple[int, int, int]:
        """Return start and end of the function around an address, and where the next one begins. An unknown function begins at the probe."""
        section_end = section.addr + section.size
        index = bisect_right(self.starts, at)
        limit = min(self.starts[index], section_end) if index < len(self.starts) else section_end
        symbol = self.elf.get_function_at(at)
        if (
            symbol is not None
            and section.addr <= symbol.vaddr
            and symbol.size
            and at < symbol.vaddr + symbol.size <= section_end
        ):
            end = symbol.vaddr + symbol.size
            return symbol.vaddr, end, max(limit, end)
        start = self.starts[index - 1] if index else at
        return (start if start >= section.addr else at), limit, limit


def find_addresses(content: bytes, low: int, high: int) -> set[int]:
    """Return the aligned words of 8 bytes that are from `low` to `high` - 1.

    Where these are below 4 GiB, as in programs with fixed addresses, bytes of the same rank are looked at together: 4 ms a megabyte, a twentieth of what looking at each word takes.
    """
    count = len(content) // 8
    words = memoryview(content[: 8 * count]).cast("Q")
    if high >> 32 or low < 1 << 16:
        return {word for word in set(words) if low <= word < high}
    zero, other = bytes([1] + [0] * 255), bytes([0] + [1] * 255)
    upper = bytes(low >> 24 <= value <= high >> 24 for value in range(256))

    def rank(at: int, table: bytes) -> int:
        return int.from_bytes(content[at : 8 * count : 8].translate(table), "little")

    marks = (rank(2, other) | rank(3, other)) & rank(3, upper)
    for at in range(4, 8):
        marks &= rank(at, zero)
    marked = marks.to_bytes(count, "little")
    found = set()
    at = marked.find(1)
    while at >= 0:
        found.add(words[at])
        at = marked.find(1, at + 1)
    return {word for word in found if low <= word < high}


def iter_relr(raw: bytes) -> list[int]:
    """Return the places that a section of type SHT_RELR relocates: an address, then bitmaps of the 63 words behind it."""
    places: list[int] = []
    here = 0
    for (word,) in struct.iter_unpack("<Q", raw[: len(raw) & -8]):
        if word & 1 == 0:
            places.append(word)
            here = word + 8
            continue
        places += [here + 8 * bit for bit in range(63) if word >> (bit + 1) & 1]
        here += 8 * 63
    return places


def read_unwind_index(raw: bytes, addr: int) -> list[int]:
    """Return the addresses of functions in .eh_frame_hdr (LSB, "The .eh_frame_hdr section"), none where it has another form than linkers write."""
    if raw[:4] != b"\x01\x1b\x03\x3b" or len(raw) < 12:
        return []
    (count,) = struct.unpack_from("<I", raw, 8)
    if 12 + 8 * count > len(raw):
        raise FormatError(f".eh_frame_hdr: {count} entries do not fit into its {len(raw)} bytes")
    return [addr + start for start, _ in struct.iter_unpack("<ii", raw[12 : 12 + 8 * count])]

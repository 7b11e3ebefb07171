"""Unwind information: the .eh_frame section of an ELF file becomes one sorted table of rows, in the manner of the kernel's ORC.

    table = read_unwind_table(elf)
    row = table.find(vaddr)        what holds from an address on: where the caller's stack begins, where its frame pointer is

Two flat arrays are the table: addresses from `base` on, and an entry for each (see `cfa`). Format: DWARF 5, chapter 6.4, as the Linux Standard Base changes it for .eh_frame.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from struct import Struct

from ..errors import FormatError
from ..record import Record
from .cfa import (
    ADD_SHIFT,
    BEGIN,
    CFA_SHIFT,
    FP_OFFSET_SHIFT,
    FP_SHIFT,
    PC,
    STOP_ENTRY,
    Factors,
    Rules,
    read_sleb,
    read_uleb,
    run,
)
from .elf import EM_X86_64

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .elf import Elf

    _Function = tuple[int, int, list[tuple[int, int]]]  # start, end, rows

_MOST_BYTES = 1 << 32  # from the first function to the last one: addresses in the table have 32 bits
_ABSOLUTE, _OMITTED, _RELATIVE, _KINDS = 0x00, 0xFF, 0x10, 0x70
_NUMBERS = {
    form: Struct("<" + letter)
    for form, letter in ((0, "Q"), (2, "H"), (3, "I"), (4, "Q"), (10, "h"), (11, "i"), (12, "q"))
}
_WORD = Struct("<I")


class Row(Record):
    """An entry, taken apart (see `cfa`)."""

    cfa: int
    offset: int
    add: int
    fp: int
    fp_offset: int


class UnwindTable(Record):
    """`entries[i]` holds from address `base + pcs[i]` up to the next; the last one is STOP. Both are empty for a file without unwind information."""

    base: int
    pcs: array[int]
    entries: array[int]

    def find(self, vaddr: int) -> Row:
        """Return what holds at an address of the file."""
        at = bisect_right(self.pcs, vaddr - self.base) - 1
        entry = self.entries[at] if at >= 0 else STOP_ENTRY
        offset, fp_offset = _signed(entry, 32), _signed(entry >> FP_OFFSET_SHIFT, 16)
        return Row(entry >> CFA_SHIFT & 15, offset, entry >> ADD_SHIFT & 255, entry >> FP_SHIFT, fp_offset)


def _signed(value: int, bits: int) -> int:
    value &= (1 << bits) - 1
    return value - (value >> bits - 1 << bits)


def read_unwind_table(elf: Elf) -> UnwindTable:
    """Compile the unwind information of a file. Raises FormatError for a section that is none, and for processors other than x86-64. 0.1 s for a big library."""
    if elf.machine != EM_X86_64:
        raise FormatError("unwind tables are read for x86-64 only", path=elf.path)
    section = elf.get_section(".eh_frame")
    data = elf.read_section(section) if section is not None else b""
    if section is None:
        return UnwindTable(0, array("I"), array("Q"))
    return _join(_Reader(data, section.addr, elf.path).read())


def _join(functions: list[_Function]) -> UnwindTable:
    """Put the rows of functions one behind the other; what lies between them is STOP."""
    functions.sort(key=lambda function: function[0])
    base = here = functions[0][0] if functions else 0
    pcs, entries = array("I"), array("Q")
    last = -1
    for start, end, rows in functions:
        if start < here or end - base >= _MOST_BYTES:  # two claim the same code: the first one has it
            continue
        if start > here and last != STOP_ENTRY:
            pcs.append(here - base)
            entries.append(STOP_ENTRY)
            last = STOP_ENTRY
        for offset, entry in rows:
            if entry != last:
                pcs.append(start - base + offset)
                entries.append(entry)
                last = entry
        here = end
    if functions and last != STOP_ENTRY:
        pcs.append(here - base)
        entries.append(STOP_ENTRY)
    return UnwindTable(base, pcs, entries)


class _Common(Record):
    """What many functions share (a CIE): how addresses are written, and the rules that their programs begin with."""

    number: Struct
    relative: bool
    augmented: bool
    factors: Factors
    rules: Rules


class _Reader:
    """Reads a section that is loaded at `vaddr`."""

    def __init__(self, data: bytes, vaddr: int, path: str) -> None:
        self._data = data
        self._vaddr = vaddr
        self._path = path
        self._known: dict[tuple[int, bytes], list[tuple[int, int]]] = {}  # many functions have the same program

    def read(self) -> list[_Function]:
        """Read all functions. Raises FormatError."""
        data, size = self._data, len(self._data)
        functions: list[tuple[int, int, int]] = []
        commons: dict[int, _Common | None] = {}
        at = 0
        while at + 4 <= size:
            length: int = _WORD.unpack_from(data, at)[0]
            start, end = at + 8, at + 4 + length
            if not length:
                break
            if length < 4 or end > size:
                raise FormatError(f"a record of .eh_frame has {length} bytes", path=self._path, offset=at)
            back: int = _WORD.unpack_from(data, at + 4)[0]
            if back:
                functions.append((at + 4 - back, start, end))
            else:
                commons[at] = self._read_common(data[start:end])
            at = end
        found = (self._read_function(commons.get(owner), *rest) for owner, *rest in functions)
        return [function for function in found if function is not None]

    def _read_common(self, data: bytes) -> _Common | None:
        """Read what functions share; None where it says something that nobody knows."""
        try:
            version, end = data[0], data.index(0, 1)
            letters = data[1:end].decode("latin-1")
            code, at = read_uleb(data, end + 1)
            factor, at = read_sleb(data, at)
            register, at = (data[at], at + 1) if version == 1 else read_uleb(data, at)
            encoding, behind = _ABSOLUTE, at
            if letters.startswith("z"):
                size, at = read_uleb(data, at)
                encoding, behind = _read_augmentation(letters[1:], data, at), at + size
            elif letters:
                return None
        except (IndexError, ValueError, KeyError):
            return None
        if (
            version not in (1, 3)
            or register != PC
            or encoding & 15 not in _NUMBERS
            or encoding & ~15 not in (0, _RELATIVE)
        ):
            return None
        factors = Factors(code, factor)
        rules, _ = run(data[behind:], factors, BEGIN, BEGIN)
        return _Common(_NUMBERS[encoding & 15], encoding & _KINDS == _RELATIVE, bool(letters), factors, rules)

    def _read_function(self, common: _Common | None, at: int, end: int) -> _Function | None:
        """Read a function; None for one that lies nowhere."""
        if common is None or at + 2 * common.number.size > end:
            return None
        data, width = self._data, common.number.size
        start: int = common.number.unpack_from(data, at)[0]
        size: int = common.number.unpack_from(data, at + width)[0] & (1 << 8 * width) - 1
        if common.relative:
            start += self._vaddr + at
        at += 2 * width
        if common.augmented:
            try:
                length, at = read_uleb(data, at)
            except IndexError:
                return None
            at += length
        if at > end or not 0 < size < _MOST_BYTES or not 0 < start < 1 << 63:
            return None
        program = data[at:end].rstrip(b"\0")  # nothing is to be done for these, but the last one's numbers may be zeros
        key = id(common), program
        rows = self._known.get(key)
        if rows is None:
            rows = self._known[key] = run(program + b"\0\0", common.factors, common.rules, common.rules)[1]
        if rows[-1][0] >= size:
            rows = [row for row in rows if row[0] < size]
        return start, start + size, rows


def _read_augmentation(letters: str, data: bytes, at: int) -> int:
    """Return how the addresses of functions are written. Raises IndexError, KeyError for what nobody knows."""
    encoding = _ABSOLUTE
    for letter in letters:
        if letter == "R":
            encoding = data[at]
            at += 1
        elif letter == "P":
            at += 1 + (0 if data[at] == _OMITTED else _NUMBERS[data[at] & 15].size)
        else:
            at += {"L": 1, "S": 0}[letter]
    return encoding

"""The byte order of an object: a big-endian one to the same object in little-endian order, and the way back.

All that ELF, BTF and the instruction set lay down is turned: headers, symbols, relocations, code, types. Sections of data stay as they are: only the
program knows what they hold. Offsets do not change, so that an error names the place in the file that was given.
"""

from __future__ import annotations

from array import array
from struct import Struct as Layout
from struct import error as StructError

from ...errors import FormatError

_HEADER = "16sHHIQQQIHHHHHH"
_SECTION, _SYMBOL, _REL, _RELA = "IIQQQQIIQQ", "IBBHQQ", "QQ", "QQq"
_TABLES = {2: _SYMBOL, 4: _RELA, 9: _REL, 11: _SYMBOL}  # by type of section
_PROGBITS, _EXECUTE = 1, 4
_SECTIONS_LIMIT = 1 << 16
_SWAPPED = bytes((each & 15) << 4 | each >> 4 for each in range(256))


def is_big_endian(data: bytes) -> bool:
    """Tell whether an ELF64 file says of itself that it is big-endian."""
    return data[:6] == b"\x7fELF\x02\x02"


def to_little_endian(data: bytes, path: str = "") -> bytes:
    """Return a big-endian object in little-endian order. Raises FormatError."""
    return _turn(data, ">", "<", path)


def to_big_endian(data: bytes, path: str = "") -> bytes:
    """Return a little-endian object in big-endian order. Raises FormatError."""
    return _turn(data, "<", ">", path)


def _turn(data: bytes, source: str, target: str, path: str) -> bytes:
    made = bytearray(data)
    made[5:6] = b"\1" if target == "<" else b"\2"
    turn = _Turner(data, made, source, target)
    at = 0
    try:
        header = turn.table(_HEADER, 0, 64, keep=6)[0]
        table, count = int(header[6]), min(int(header[12]), _SECTIONS_LIMIT)
        at = table
        sections = turn.table(_SECTION, table, 64 * count)
        if not count:
            raise FormatError("an object without sections cannot be read", path=path, offset=60)
        names = sections[int(header[13])][4]
        for section in sections:
            at = int(section[4])
            start = int(names) + int(section[0])
            name = bytes(data[start : data.find(b"\0", start)]) if start < len(data) else b""
            turn.section(name, int(section[1]), int(section[2]), at, int(section[5]))
    except (StructError, IndexError, ValueError):
        raise FormatError("a big-endian object is cut off", path=path, offset=min(at, len(data))) from None
    return bytes(made)


class _Turner:
    """Turns pieces of one file."""

    def __init__(self, data: bytes, made: bytearray, source: str, target: str) -> None:
        self.data = data
        self.made = made
        self.source = source
        self.target = target
        self.left = 4 * len(data)  # bytes to turn: sections of a sound file do not overlap

    def spend(self, at: int, size: int) -> None:
        """Refuse what lies outside the file, and files whose sections lie on each other again and again."""
        self.left -= size
        if at + size > len(self.data) or self.left < 0:
            raise IndexError

    def table(self, form: str, at: int, size: int, keep: int = 0) -> list[tuple[int, ...]]:
        """Turn records of one form; return them. The first `keep` bytes of the file stay as they were made."""
        source, target = Layout(self.source + form), Layout(self.target + form)
        size -= size % source.size
        self.spend(at, size)
        found = list(source.iter_unpack(self.data[at : at + size]))
        turned = b"".join(target.pack(*record) for record in found)
        self.made[at + keep : at + size] = turned[keep:]
        return found

    def section(self, name: bytes, kind: int, flags: int, at: int, size: int) -> None:
        """Turn what a section holds."""
        if kind in _TABLES:
            self.table(_TABLES[kind], at, size)
        elif kind != _PROGBITS or not size:
            return
        self.spend(at, size)
        if flags & _EXECUTE:
            self.code(at, size - size % 8)
        elif name in (b".BTF", b".BTF.ext"):
            self.types(at, size, name == b".BTF.ext")

    def code(self, at: int, size: int) -> None:
        """Turn instructions: the registers change places, offset and immediate their bytes."""
        raw, made = self.data[at : at + size], bytearray(size)
        made[0::8] = raw[0::8]
        made[1::8] = raw[1::8].translate(_SWAPPED)
        for to, of in ((2, 3), (3, 2), (4, 7), (5, 6), (6, 5), (7, 4)):
            made[to::8] = raw[of::8]
        self.made[at : at + size] = made

    def types(self, at: int, size: int, extension: bool) -> None:
        """Turn .BTF or .BTF.ext: words, but for the strings and the first four bytes."""
        raw = self.data[at : at + size]
        if size < 24:
            raise IndexError
        header, offset, length = Layout(self.source + "4xIII").unpack_from(raw)
        end = size if extension else header + offset + length
        words = bytearray(raw)
        _turn_words(words, 4, min(header, size))
        _turn_words(words, header, min(end, size))
        words[:2] = raw[1::-1]
        self.made[at : at + size] = words


def _turn_words(raw: bytearray, start: int, end: int) -> None:
    end -= (end - start) % 4
    if start >= end:
        return
    words = array("I", bytes(raw[start:end]))
    words.byteswap()
    raw[start:end] = words.tobytes()

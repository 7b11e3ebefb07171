"""Machine code to the addresses that its jumps lead to: who lands within the bytes that a probe is to replace?

Reading every instruction of a library takes Python seconds. So this goes the other way round: any byte that could be the opcode of a
relative jump, with a displacement that leads to the bytes in question, is a candidate; only candidates are then held against the
instructions of their function. What cannot be followed counts as a jump.

Indirect jumps: the tables of `switch` statements are found by the `lea` that names them, as compilers write position-independent code,
or by the displacement of `jmp *table(,%reg,8)`.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from struct import Struct

from ...debuginfo.x86length import MAP_0F, MAP_ONE, OPCODES, scan
from ...record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

# Opcode bytes of short jumps, for bytes.translate.
_SHORT = bytes(1 if 0x70 <= n < 0x80 or 0xE0 <= n < 0xE4 or n == 0xEB else 0 for n in range(256))
# Opcodes that a displacement of 4 bytes follows, and how many bytes they have: call and jmp, jcc, xbegin.
_NEAR = ((re.compile(rb"[\xe8\xe9]"), 1), (re.compile(rb"\x0f[\x80-\x8f]"), 2), (re.compile(rb"\xc7\xf8"), 2))
_DISPLACEMENT = Struct("<i")
# By their upper two bytes, displacements that lead nearby: the first of 256 with the same upper three bytes, and those.
_CLOSE = {
    upper: [(finer << 8, finer.to_bytes(3, "little", signed=True)) for finer in range(upper << 8, upper + 1 << 8)]
    for upper in (0, -1)
}
_STRIDE_BYTES = 256
_QUESTIONS = 20  # that are answered without an index, in the time that it takes to make one
_LONGEST = 15  # bytes of an instruction
_TABLE_ENTRIES = 4096  # of one jump table


class Jump(Record):
    """One relative jump or call. `source` is the address of its opcode (behind prefixes)."""

    source: int
    target: int


class Survey:
    """The jumps of a whole text section by target. A question costs 2 ms; after some, an index is made, which costs 20 ms a megabyte."""

    def __init__(self, code: bytes, base: int, starts: Sequence[int] = ()) -> None:
        """`code` is loaded at `base`, and an instruction begins there; `starts`: sorted addresses at which others begin (functions)."""
        self.code, self.base, self.starts = code, base, starts
        self._asked = 0
        self._targets: list[int] = []
        self._sources: list[int] = []
        self._known: dict[int, list[int]] = {}  # by function: where instructions begin, one in each stride

    def expect(self, count: int) -> None:
        """Say how many questions there will be: for many the index is made at once."""
        self._asked = max(self._asked, count)

    def jumps_into(self, low: int, high: int) -> list[Jump]:
        """Return the jumps to addresses from `low` to `high` - 1, without those that `starts` shows to be no instructions."""
        self._asked += 1
        if self._asked <= _QUESTIONS:
            near = [Jump(source, target) for source, target in find_near(self.code, self.base, low, high)]
        else:
            self._index()
            base = self.base
            first, last = bisect_left(self._targets, low - base), bisect_left(self._targets, high - base)
            near = [Jump(base + self._sources[n], base + self._targets[n]) for n in range(first, last)]
        short = [Jump(source, target) for source, target in iter_short(self.code, self.base, low, high)]
        return [jump for jump in near + short if self._is_jump(jump.source)]

    def _index(self) -> None:
        """Sort all near jumps of the section by target, once."""
        if self._targets:
            return
        end = len(self.code)
        found = sorted([jump for jump in _find_all_near(self.code) if 0 <= jump[0] < end])
        self._targets = [target for target, _ in found]
        self._sources = [source for _, source in found]

    def _is_jump(self, source: int) -> bool:
        index = bisect_right(self.starts, source) - 1
        start = max(self.starts[index], self.base) - self.base if index >= 0 else 0
        at = source - self.base
        known = self._known.setdefault(start, [start])
        while at - known[-1] > _STRIDE_BYTES:  # functions of many kilobytes are read once
            there = _skip(self.code, known[-1], known[-1] + _STRIDE_BYTES)
            if there < 0:
                return True
            known.append(there)
        return is_opcode(self.code, known[bisect_right(known, at) - 1], at)


def jumps_into(code: bytes, base: int, start: int, end: int, low: int, high: int) -> list[Jump]:
    """Return the jumps of the function from `start` to `end` - 1 to addresses from `low` to `high` - 1; `code` is loaded at `base`."""
    body = code[start - base : end - base]
    found = [Jump(source, target) for source, target in iter_near(body, start) if low <= target < high]
    found += [Jump(source, target) for source, target in iter_short(body, start, low, high)]
    return [jump for jump in found if is_opcode(body, 0, jump.source - start)]


def iter_near(code: bytes, base: int) -> Iterator[tuple[int, int]]:
    """Yield (place of the opcode, target) of everything that could be a jump or call with a displacement of 4 bytes."""
    return ((base + source, base + target) for target, source in _find_all_near(code))


def _find_all_near(code: bytes) -> list[tuple[int, int]]:
    """The same, the target first, as offsets in the code. A library has tens of thousands."""
    found: list[tuple[int, int]] = []
    displacement_at = _DISPLACEMENT.unpack_from
    for opcode, size in _NEAR:
        places = [match.start() for match in opcode.finditer(code, 0, max(len(code) - _DISPLACEMENT.size, 0))]
        behind = size + _DISPLACEMENT.size
        found += [(at + behind + by, at) for at in places for (by,) in [displacement_at(code, at + size)]]
    return found


def find_near(code: bytes, base: int, low: int, high: int) -> Iterator[tuple[int, int]]:
    """Yield the same for targets from `low` to `high` - 1.

    Displacements whose upper two bytes are the same stand in 64 KiB of code, where these two bytes are looked for. In the code nearby they are zeros or ones, which are everywhere: there it
    is the upper three bytes, in 256 bytes of code.
    """
    least, most = low - (base + len(code)), high - (base + 4)
    for upper in range(max(least >> 16, -0x8000), min(most >> 16, 0x7FFF) + 1):
        for least, pattern in (
            _CLOSE[upper] if upper in _CLOSE else [(upper << 16, upper.to_bytes(2, "little", signed=True))]
        ):
            lower = 4 - len(pattern)
            # The places of such displacements: where the first would lead to the last address, and the last to the first.
            first, last = low - base - 3 - least - (1 << 8 * lower), high - base - 5 - least
            if last < 0:
                continue
            at = code.find(pattern, max(first, 0) + lower, last + 4)
            while at >= 0:
                place = at - lower
                target = base + place + 4 + int.from_bytes(code[place : place + 4], "little", signed=True)
                opcode_at = _opcode_before(code, place) if low <= target < high else -1
                if opcode_at >= 0:
                    yield base + opcode_at, target
                at = code.find(pattern, at + 1, last + 4)


def _opcode_before(code: bytes, place: int) -> int:
    """Return where the opcode of a jump with a displacement at `place` begins, -1 when no jump has it."""
    if place >= 1 and code[place - 1] in (0xE8, 0xE9):
        return place - 1
    if place >= 2:
        pair = code[place - 2], code[place - 1]
        if (pair[0] == 0x0F and pair[1] & 0xF0 == 0x80) or pair == (0xC7, 0xF8):
            return place - 2
    return -1


def iter_short(code: bytes, base: int, low: int, high: int) -> Iterator[tuple[int, int]]:
    """Yield (place of the opcode, target) of everything that could be a short jump to an address from `low` to `high` - 1."""
    first, last = max(low - base - 129, 0), min(high - base + 126, len(code) - 1)
    marks = code[first:last].translate(_SHORT)
    at = marks.find(1)
    while at >= 0:
        displacement = code[first + at + 1]
        target = base + first + at + 2 + (displacement - 256 if displacement > 127 else displacement)
        if low <= target < high:
            yield base + first + at, target
        at = marks.find(1, at + 1)


def is_opcode(code: bytes, start: int, at: int) -> bool:
    """Tell whether the byte at `at` is the opcode of an instruction, when one begins at `start`.

    True also where that cannot be told, because something between the two is no instruction.
    """
    start = _skip(code, start, at - _LONGEST)
    try:
        while 0 <= start <= at:
            end, number, opcode, opcode_at, *_ = scan(code, start)
            if number == MAP_ONE and OPCODES[opcode] == "i":
                return True
            if end > at:
                return opcode_at - number == at if number <= MAP_0F else False
            start = end
    except IndexError:
        return True
    return start < 0


def _skip(code: bytes, start: int, at: int) -> int:
    """Return where the first instruction at or behind `at` begins, when one begins at `start`; -1 when that cannot be told."""
    try:
        while start < at:
            start, number, opcode, *_ = scan(code, start)
            if number == MAP_ONE and OPCODES[opcode] == "i":
                return -1
    except IndexError:
        return -1
    return start


class Tables(Record):
    """The jump tables that a function uses."""

    targets: frozenset[int]  # within the function, perhaps with some that are none
    complete: bool  # no indirect jump that could be a switch, or a table for it


def read_tables(code: bytes, base: int, start: int, end: int, data: Sequence[tuple[int, bytes]]) -> Tables:
    """Find the jump tables of the function from `start` to `end` - 1. `data`: address and bytes of each section that may hold them."""
    body = code[start - base : end - base]
    jumps = list(_iter_indirect(body))
    if not jumps:
        return Tables(frozenset(), True)
    text = (base, base + len(code))
    targets: set[int] = set()
    found = 0
    for address in _iter_lea(body, start):
        entries = set(_iter_entries(data, address, 4, text))
        targets |= entries
        found += any(start <= entry < end for entry in entries)
    for place in jumps:
        address = _absolute_table(body, place)
        if address:
            entries = set(_iter_entries(data, address, 8, text))
            targets |= entries
            found += bool(entries)
    complete = found > 0 or not any(is_opcode(body, 0, place) for place in jumps)
    return Tables(frozenset(t for t in targets if start <= t < end), complete)


def _iter_indirect(body: bytes) -> Iterator[int]:
    """Yield where `jmp *register` or `jmp *table(,register,8)` could be: `jmp *offset(register)` is the tail call of a method."""
    at = body.find(0xFF)
    while 0 <= at < len(body) - 1:
        modrm = body[at + 1]
        if modrm & 0xF8 == 0xE0 or modrm == 0x24:
            yield at
        at = body.find(0xFF, at + 1)


def _absolute_table(body: bytes, place: int) -> int:
    """Return the address in `jmp *table(,register,8)`, 0 in another jump."""
    if body[place + 1] == 0x24 and body[place + 2 : place + 3] and body[place + 2] & 0xC7 == 0xC5:
        return int.from_bytes(body[place + 3 : place + 7], "little", signed=True)
    return 0


def _iter_lea(body: bytes, start: int) -> Iterator[int]:
    """Yield the addresses that `lea address(%rip), register` could name."""
    at = body.find(0x8D)
    while 0 <= at <= len(body) - 6:
        if at and body[at - 1] & 0xFB == 0x48 and body[at + 1] & 0xC7 == 5:
            yield start + at + 6 + int.from_bytes(body[at + 2 : at + 6], "little", signed=True)
        at = body.find(0x8D, at + 1)


def _iter_entries(data: Sequence[tuple[int, bytes]], address: int, size: int, text: tuple[int, int]) -> Iterator[int]:
    """Yield the targets of the table at `address` up to the first that is not in the text; entries of 4 bytes are relative to the table."""
    for base, content in data:
        if base <= address < base + len(content):
            first = address - base
            for at in range(first, min(len(content) - size + 1, first + size * _TABLE_ENTRIES), size):
                entry = int.from_bytes(content[at : at + size], "little", signed=True)
                target = entry + address if size == 4 else entry
                if not text[0] <= target < text[1]:
                    return
                yield target
            return

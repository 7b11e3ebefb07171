"""Bytes of a process that belong to nobody and can be executed: what the last page of a segment with code has behind the segment's end.

A segment ends somewhere in a page, and the rest of that page is mapped all the same. Its bytes are in no section, so no code and no data of the program lies there.
"""

from __future__ import annotations

import os
import struct

from ..debuginfo.procmaps import find_mapping
from ..errors import FormatError, TargetError
from ..record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from ..debuginfo.procmaps import Mapping

    Reader = Callable[[int, int], bytes]

_PT_LOAD, _PF_X = 1, 1
_PHDR = struct.Struct("<IIQQQQQQ")
_PAGE = 4096
_ALIGN = 16
_APART = 48  # from what was left: its own last bytes may be zeros


def find_slack(mappings: Sequence[Mapping], read: Reader, size: int, exe: str = "") -> int:
    """Return the address of `size` bytes without an owner. `read(address, size)` gives memory; the program `exe` comes first, then the vdso: nothing unmaps these.

    Zeros are preferred: other bytes may be what a killed sonde has left, where a thread may still have to go on. Raises TargetError when there is no such place.
    """
    found = 0
    code = [mapping for mapping in mappings if mapping.perms[2:] == "xp"]
    for mapping in sorted(code, key=lambda m: (m.path != exe, m.path != "[vdso]", m.start)):
        end = _end_of_code(mapping, mappings, read)
        start = (end + _ALIGN - 1) & -_ALIGN if end is not None else mapping.end
        if start + size > mapping.end:
            continue
        used = len(read(start, mapping.end - start).rstrip(b"\0"))
        clean = (start + used + _APART) & -_ALIGN if used else start
        if clean + size <= mapping.end:
            return clean
        found = found or start
    if not found:
        raise TargetError(
            f"no segment of code in this process has {size} unused bytes behind it, which sonde needs for its first system calls"
        )
    return found


class Leftover(Record):
    """Bytes behind the code that are not `original` any more."""

    address: int
    original: bytes


def find_leftovers(mappings: Sequence[Mapping], read: Reader, pid: int) -> list[Leftover]:
    """Return where something lies behind the code of the program of `pid` and of the vdso: a killed sonde may have left it. Raises TargetError."""
    found, exe = [], path_of(pid)
    for mapping in mappings:
        if mapping.path in (exe, "[vdso]") and mapping.perms[2:] == "xp":
            end = _end_of_code(mapping, mappings, read)
            size = mapping.end - end if end is not None else 0
            memory = read(end, size) if end is not None and size else b""
            if end is not None and memory.strip(b"\0"):
                original = bytes(size) if mapping.path == "[vdso]" else _file_bytes(pid, mapping, end, size)
                if memory != original:
                    found.append(Leftover(end, original))
    return found


def path_of(pid: int) -> str:
    """The path of a process's program, as mappings have it; "" where that may not be known."""
    try:
        return os.readlink(f"/proc/{pid}/exe").removesuffix(" (deleted)")
    except OSError:
        return ""


def _file_bytes(pid: int, mapping: Mapping, address: int, size: int) -> bytes:
    """What the program's file gives memory that shows it; zeros behind its end, or when it cannot be read."""
    try:
        with open(f"/proc/{pid}/exe", "rb", buffering=0) as file:
            data = os.pread(file.fileno(), size, mapping.offset + address - mapping.start)
    except OSError:
        data = b""
    return data.ljust(size, b"\0")


def is_slack(mappings: Sequence[Mapping], read: Reader, address: int, ends: dict[int, int | None]) -> bool:
    """True when `address` is where `find_slack` may find a place: a thread there runs what a sonde has put there. `ends` keeps what is found for the next question."""
    mapping = find_mapping(mappings, address)
    if mapping is None or mapping.perms[2:] != "xp" or mapping.end - address > _PAGE:
        return False
    if mapping.start not in ends:
        ends[mapping.start] = _end_of_code(mapping, mappings, read)
    end = ends[mapping.start]
    return end is not None and address >= end


def _end_of_code(mapping: Mapping, mappings: Sequence[Mapping], read: Reader) -> int | None:
    """Where the segment that `mapping` shows ends, None when that cannot be told."""
    for header in reversed(mappings):
        same = (header.path, header.inode, header.dev, header.offset) == (mapping.path, mapping.inode, mapping.dev, 0)
        if same and header.path and header.start <= mapping.start:
            try:
                segments = list(_iter_code_segments(read, header.start))
            except (FormatError, OSError, struct.error):
                continue
            for offset, size in segments:
                if offset & -_PAGE == mapping.offset & -_PAGE:
                    end = mapping.start + offset - mapping.offset + size
                    return end if mapping.start < end <= mapping.end and mapping.end - end < _PAGE else None
    return None


def _iter_code_segments(read: Reader, base: int) -> Iterator[tuple[int, int]]:
    """Yield file offset and size of the segments with code of the ELF image at `base`."""
    head = read(base, 64)
    if head[:5] != b"\x7fELF\x02":
        raise FormatError("this is not a 64-bit ELF image")
    table, size, count = struct.unpack_from("<Q", head, 32)[0], *struct.unpack_from("<HH", head, 54)
    if size != _PHDR.size or table + size * count > _PAGE:
        raise FormatError("the program headers of the image are not on its first page")
    data = read(base + table, size * count)
    for at in range(0, len(data), size):
        kind, flags, offset, _, _, file_size, memory_size, _ = _PHDR.unpack_from(data, at)
        if kind == _PT_LOAD and flags & _PF_X and file_size == memory_size:
            yield offset, file_size

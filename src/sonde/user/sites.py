"""From a probe to the places in one process where it stands: file offsets become addresses, and memory is held against the file.

Bytes that differ from the file belong to somebody else: another tracer, or a kernel's breakpoint. Such a place is refused.
"""

from __future__ import annotations

import os

from ..debuginfo.procmaps import Mapping, read_maps
from ..errors import ProbeError
from ..record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ..debuginfo.elf import Elf
    from ..spec.object import ProbeSpec

_ALIGN = 16
_UNKNOWN_BYTES = 64  # of a function whose end nobody knows


class Site(Record):
    """A place in a process: `address`, in a function from `start` to `end` (addresses). `code` are its bytes, as in the file, and those behind it up to
    `limit`, where the next function may begin."""

    address: int
    start: int
    end: int
    limit: int
    code: bytes
    path: str

    @property
    def is_entry(self) -> bool:
        """Whether a function begins here."""
        return self.address == self.start


class Files:
    """The files that a process has mapped, opened once each. A context manager."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._elves: dict[str, Elf] = {}

    def mappings(self) -> list[Mapping]:
        """Return the mappings as they are now."""
        return read_maps(self.pid)

    def open(self, path: str) -> Elf:
        """Return the ELF file at `path`, as the process sees it. Raises FormatError, OSError."""
        from ..debuginfo.elf import Elf

        if path not in self._elves:
            inside = f"/proc/{self.pid}/root{path}"
            self._elves[path] = Elf.open(inside if os.path.exists(inside) else path)
        return self._elves[path]

    def function_at(self, path: str, vaddr: int) -> tuple[int, int]:
        """Return the bounds of the function that holds an address of the file; a guess where there is no symbol."""
        symbol = self.open(path).get_function_at(vaddr)
        if symbol is not None and symbol.vaddr <= vaddr < symbol.vaddr + symbol.size:
            return symbol.vaddr, symbol.vaddr + symbol.size
        return vaddr, vaddr + _UNKNOWN_BYTES

    def next_function(self, path: str, vaddr: int) -> int:
        """Return up to where there may be padding behind a function that ends at `vaddr`: functions begin at multiples of 16."""
        elf = self.open(path)
        for at in range(vaddr, (vaddr + _ALIGN - 1) & -_ALIGN):
            if elf.get_function_at(at) is not None:
                return at
        return (vaddr + _ALIGN - 1) & -_ALIGN

    def close(self) -> None:
        """Close the files. Twice is harmless."""
        while self._elves:
            self._elves.popitem()[1].close()


def find_sites(probe: ProbeSpec, files: Files, read: Callable[[int, int], bytes]) -> list[Site]:
    """Return the places of a probe with a path and a file offset; none where the process has not mapped the file.

    `read(address, size)` gives the memory of the process. Raises ProbeError for memory that differs from the file.
    """
    found = []
    for mapping in _mappings_of(probe.path, files):
        if mapping.executable and mapping.offset <= probe.offset < mapping.offset + mapping.end - mapping.start:
            found.append(_site(probe, mapping, files, read))
    return found


def _mappings_of(path: str, files: Files) -> Sequence[Mapping]:
    """The mappings of the file at `path`, by what the file is rather than by its name."""
    try:
        status = os.stat(path)
    except OSError:
        return [m for m in files.mappings() if m.path == path]
    dev = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}"
    return [m for m in files.mappings() if (m.inode == status.st_ino and m.dev == dev) or m.path == path]


def _site(probe: ProbeSpec, mapping: Mapping, files: Files, read: Callable[[int, int], bytes]) -> Site:
    elf = files.open(mapping.path)
    address = mapping.start + probe.offset - mapping.offset
    vaddr = elf.get_vaddr(probe.offset)
    start, end = files.function_at(mapping.path, vaddr)
    limit = files.next_function(mapping.path, end)
    expected = bytes(elf.data[probe.offset - (vaddr - start) : probe.offset - vaddr + limit])
    memory = read(address - (vaddr - start), len(expected))
    window = vaddr - start
    if memory[window : window + 16] != expected[window : window + 16]:
        raise ProbeError(
            f"{probe.name}: the process has other instructions at {address:#x} than {mapping.path}: "
            f"{memory[window : window + 8].hex(' ')} in place of {expected[window : window + 8].hex(' ')}",
            hint="another tracer has changed them; end it, or use --engine kernel",
        )
    first = address - window
    return Site(address, first, first + end - start, first + len(expected), expected, mapping.path)


def find_data(probe: ProbeSpec, offset: int, files: Files) -> list[int]:
    """Return the addresses of a byte of the probe's file, where the process can write it."""
    return [
        m.start + offset - m.offset
        for m in _mappings_of(probe.path, files)
        if m.perms[1] == "w" and m.offset <= offset < m.offset + m.end - m.start
    ]


def find_functions(names: Sequence[str], files: Files) -> list[Site]:
    """Return the places of functions by name, in all files that the process has mapped to execute."""
    from ..errors import FormatError

    found = []
    for mapping in files.mappings():
        if not (mapping.executable and mapping.is_file):
            continue
        try:
            elf = files.open(mapping.path)
            symbols = [symbol for name in names if (symbol := elf.get_function(name)) is not None]
        except (OSError, FormatError):
            continue
        for symbol in symbols:
            offset = elf.get_offset(symbol.vaddr)
            if symbol.section and mapping.offset <= offset < mapping.offset + mapping.end - mapping.start:
                start = mapping.start + offset - mapping.offset
                code = bytes(elf.data[offset : offset + symbol.size])
                end = start + symbol.size
                found.append(Site(start, start, end, end, code, mapping.path))
    return found

"""From a probe to the places in one process where it stands: file offsets become addresses, of all mappings of the file.

What stands there, and what can be done with it, `windows` looks at.
"""

from __future__ import annotations

import os

from ..debuginfo.procmaps import Mapping, read_maps
from ..record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ..debuginfo.ehframe import UnwindTable
    from ..debuginfo.elf import Elf, Symbol
    from ..spec.object import ProbeSpec
    from .x86.text import Text
    from .x86.window import Window


class Site(Record):
    """A place in a process: `address`, which the file at `path` has at `vaddr`. `is_entry`: a function begins there."""

    address: int
    vaddr: int
    path: str
    is_entry: bool = False


class Files:
    """The files that a process has mapped, opened once each, and what was found in them. A context manager.

    `windows` are those that were planned, with the addresses of the file: by path, address, and whether they may begin early. `calls` are the places that make system
    calls, as offset and number: by path and offset of the mapped part. `unwinding` has what `unwindtables` has compiled.
    """

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._elves: dict[str, Elf] = {}
        self._stamps: dict[str, tuple[int, ...]] = {}
        self._texts: dict[str, Text] = {}
        self._names: dict[str, str] = {}  # by each path of a file the first one
        self.windows: dict[tuple[str, int, bool, bool], Window] = {}
        self.calls: dict[tuple[str, int], list[tuple[int, int]]] = {}
        self.unwinding: dict[tuple[str, str, int], UnwindTable | None] = {}

    def mappings(self) -> list[Mapping]:
        """Return the mappings as they are now."""
        return read_maps(self.pid)

    def open(self, path: str) -> Elf:
        """Return the ELF file at `path`, as the process sees it. Raises FormatError, OSError."""
        from ..debuginfo.elf import Elf

        path = self.name_of(path)
        if path not in self._elves:
            inside = self._reach(path)
            self._stamps[path] = _stamp(inside)
            self._elves[path] = Elf.open(inside)
        return self._elves[path]

    def name_of(self, path: str) -> str:
        """Return the one path by which a file is known here that has several."""
        if path not in self._names:
            stamp = _stamp(self._reach(path))
            known = (name for name, other in self._stamps.items() if other == stamp and stamp)
            self._names[path] = next(known, path)
        return self._names[path]

    def _reach(self, path: str) -> str:
        inside = f"/proc/{self.pid}/root{path}"
        return inside if os.path.exists(inside) else path

    def refresh(self) -> None:
        """Forget files that are others by now under the same name: another program of the process begins."""
        self._names.clear()
        for path in [path for path in self._elves if _stamp(self._reach(path)) != self._stamps[path]]:
            self._elves.pop(path).close()
            del self._stamps[path]
            self._texts.pop(path, None)
            self.windows = {key: window for key, window in self.windows.items() if key[0] != path}
            self.calls = {key: calls for key, calls in self.calls.items() if key[0] != path}
            self.unwinding = {key: table for key, table in self.unwinding.items() if key[0] != path}

    def text(self, path: str) -> Text:
        """Return what is known about the code of the file at `path`. Raises FormatError, OSError."""
        from .x86.text import Text

        path = self.name_of(path)
        if path not in self._texts:
            self._texts[path] = Text(self.open(path))
        return self._texts[path]

    def close(self) -> None:
        """Close the files. Twice is harmless."""
        self._texts.clear()
        self.windows.clear()
        self.calls.clear()
        self.unwinding.clear()
        while self._elves:
            self._elves.popitem()[1].close()


def _stamp(path: str) -> tuple[int, ...]:
    """What tells a file from another at the same path."""
    try:
        status = os.stat(path)
    except OSError:
        return ()
    return status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size


def find_sites(probe: ProbeSpec, files: Files) -> list[Site]:
    """Return the places of a probe with a path and a file offset; none where the process has not mapped the file. Raises FormatError, OSError."""
    found = []
    for mapping in _mappings_of(probe.path, files):
        if mapping.executable and mapping.offset <= probe.offset < mapping.offset + mapping.end - mapping.start:
            vaddr = files.open(mapping.path).get_vaddr(probe.offset)
            is_entry = files.text(mapping.path).begins_function(vaddr)
            found.append(Site(mapping.start + probe.offset - mapping.offset, vaddr, mapping.path, is_entry))
    return found


def find_in_file(probe: ProbeSpec, files: Files) -> Site | None:
    """Return the place of a probe in its file, with the file's addresses, whether the process has mapped that or not; None where it has no code. Raises FormatError, OSError."""
    elf = files.open(probe.path)
    for segment in elf.segments:
        inside = segment.offset <= probe.offset < segment.offset + segment.file_size
        if segment.type == 1 and segment.flags & 1 and inside:
            vaddr = elf.get_vaddr(probe.offset)
            return Site(vaddr, vaddr, probe.path, files.text(probe.path).begins_function(vaddr))
    return None


def _mappings_of(path: str, files: Files) -> Sequence[Mapping]:
    """The mappings of the file at `path`, by what the file is rather than by its name."""
    try:
        status = os.stat(path)
    except OSError:
        return [m for m in files.mappings() if m.path == path]
    dev = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}"
    return [m for m in files.mappings() if (m.inode == status.st_ino and m.dev == dev) or m.path == path]


def find_data(probe: ProbeSpec, offset: int, files: Files) -> list[int]:
    """Return the addresses of a byte of the probe's file, where the process can write it."""
    return [
        m.start + offset - m.offset
        for m in _mappings_of(probe.path, files)
        if m.perms[1] == "w" and m.offset <= offset < m.offset + m.end - m.start
    ]


def find_functions(names: Sequence[str], files: Files) -> list[Site]:
    """Return the places of functions by name, in all files that the process has mapped to execute."""
    return [site for site, _ in iter_functions(names, files)]


def iter_functions(names: Sequence[str], files: Files) -> Iterator[tuple[Site, Symbol]]:
    """Yield the places of functions by name, in all files that the process has mapped to execute, with what the file says of them."""
    from ..errors import FormatError

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
                yield Site(mapping.start + offset - mapping.offset, symbol.vaddr, mapping.path, True), symbol

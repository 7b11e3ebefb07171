"""Addresses to names: the kernel's by kallsyms, a process's by its mappings and the symbol tables of its files.

What a process maps is read when it is first asked about, and again when an address is in none of its mappings (it has
loaded a library since). Of a process that has ended nothing can be read any more: `remember` takes the mappings while
it runs, and `recorded` knows what the kernel has told. Files are found through the process (/proc/PID/map_files, /proc/PID/root), so containers and deleted files work
like any other, and each file is indexed once however many processes map it.
"""

from __future__ import annotations

import os
import time

from ..errors import SondeError
from ..spec.layout import Frame

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ..debuginfo.elf import Elf
    from ..debuginfo.kallsyms import Kallsyms
    from ..debuginfo.procmaps import Mapping

    Recorded = Callable[[int], list[Mapping]]  # what a process is known to have mapped

REREAD_S = 0.1  # how soon an unknown address makes the mappings be read again


class LiveSymbolizer:
    """Names addresses of this machine. Nothing is read before the first question.

    `cache` says what is kept of user space: "PER_PID" (and "") the mappings and names of each process, "PER_PROGRAM" those
    of the first process of each executable for all that run it, which is wrong where addresses are random, "NONE" nothing.
    """

    def __init__(self, *, demangle: bool = True, recorded: Recorded | None = None, cache: str = "") -> None:
        self._demangle = demangle
        self._recorded = recorded
        self._cache = cache
        self._programs: dict[
            tuple[int, int], int
        ] = {}  # device and inode of an executable: the process that stands for it
        self._kernel: Kallsyms | None = None
        self._processes: dict[int, Process] = {}
        self._files = FileSymbols()
        self._frames: dict[tuple[str, int, int], Frame] = {}

    def resolve(self, space: str, pid: int, addr: int) -> Frame:
        """Return what is known about `addr` of the kernel or of process `pid`; never raises."""
        if space != "kernel" and self._cache:
            if self._cache == "NONE":
                return self._resolve_once(pid, addr)
            pid = self._representative(pid)
        key = (space, pid, addr)
        frame = self._frames.get(key)
        if frame is None:
            frame = self._resolve_kernel(addr) if space == "kernel" else self._resolve_user(pid, addr)
            if frame.symbol or space == "kernel":
                self._frames[key] = frame
        return frame

    def remember(self, pid: int) -> None:
        """Take the mappings of a process now, for addresses that are asked about after its end."""
        if self._cache != "NONE":
            self._process(self._representative(pid) if self._cache else pid).reread()

    def _representative(self, pid: int) -> int:
        """Return the process whose mappings and names serve for `pid` as well."""
        if self._cache != "PER_PROGRAM":
            return pid
        try:
            found = os.stat(f"/proc/{pid}/exe")
        except OSError:
            return pid  # it has ended
        return self._programs.setdefault((found.st_dev, found.st_ino), pid)

    def _resolve_once(self, pid: int, addr: int) -> Frame:
        """Find a name, and keep nothing of what was read for it."""
        try:
            return self._resolve_user(pid, addr)
        finally:
            self._processes.clear()
            self._files.close()

    def close(self) -> None:
        """Close all files. Asking again opens them again."""
        self._files.close()
        if self._kernel is not None:
            self._kernel.close()

    def _process(self, pid: int) -> Process:
        process = self._processes.get(pid)
        if process is None:
            process = self._processes[pid] = Process(pid, self._recorded)
        return process

    def _resolve_kernel(self, addr: int) -> Frame:
        if self._kernel is None:
            from ..debuginfo.kallsyms import Kallsyms

            self._kernel = Kallsyms()
        try:
            found = self._kernel.resolve(addr)
        except SondeError:
            found = None
        return Frame(addr, *found) if found is not None else Frame(addr, "", 0, "")

    def _resolve_user(self, pid: int, addr: int) -> Frame:
        process = self._process(pid)
        mapping = process.find(addr)
        if mapping is None:
            return Frame(addr, "", 0, "")
        name, offset = "", 0
        if mapping.is_file or mapping.path == "[vdso]":
            name, offset = self._files.find(process, mapping, addr)
        if not name:  # JIT compilers also use files: /memfd:…, /dev/zero
            name, offset = process.find_jitted(addr)
        if name and self._demangle and name.startswith("_Z"):
            from ..debuginfo.demangle import demangle

            name = demangle(name)
        return Frame(addr, name, offset, mapping.path)


class ProcessWatch:
    """Keeps the mappings of one process fresh while it runs, so that its addresses have names after its end.

    Costs one read of /proc/PID/maps now and then: often at first, when libraries are being loaded, then once a second.
    """

    def __init__(self, remember: Callable[[int], None]) -> None:
        self.next_at = 0.0  # on the monotonic clock; 0: never
        self._remember = remember
        self._pid = 0
        self._pause_s = 0.005

    def start(self, pid: int) -> None:
        """Watch process `pid` from now on."""
        self._pid = pid
        self.look()

    @property
    def due(self) -> bool:
        """Whether it is time to look."""
        return 0 < self.next_at <= time.monotonic()

    def look(self) -> None:
        """Read the mappings, and set the time of the next look."""
        self._remember(self._pid)
        self.next_at = time.monotonic() + self._pause_s
        self._pause_s = min(self._pause_s * 2, 1.0)


class Process:
    """The mappings of one process, and the functions that its JIT compiler has told about."""

    __slots__ = ("_jitted", "_maps", "_read_at", "_recorded", "pid")

    def __init__(self, pid: int, recorded: Recorded | None = None) -> None:
        self.pid = pid
        self._recorded = recorded
        self._maps: list[Mapping] = []
        self._read_at = 0.0
        self._jitted: list[tuple[int, int, str]] | None = None

    def reread(self) -> None:
        """Read the mappings again, and keep the old ones when the process has gone."""
        self._read_at = time.monotonic()
        from ..debuginfo.procmaps import read_maps

        try:
            maps = [mapping for mapping in read_maps(self.pid) if mapping.executable]
        except (SondeError, OSError):
            return
        if maps:  # a process on its way out still has the file, but no mappings
            self._maps = maps
            self._jitted = None

    def find(self, addr: int) -> Mapping | None:
        """Return the executable mapping that holds `addr`, or None."""
        from ..debuginfo.procmaps import find_mapping

        mapping = find_mapping(self._maps, addr)
        if mapping is None and time.monotonic() - self._read_at >= REREAD_S:
            self.reread()
            mapping = find_mapping(self._maps, addr)
        if mapping is None and self._recorded is not None:
            mapping = find_mapping(self._recorded(self.pid), addr)
        return mapping

    def paths(self, mapping: Mapping) -> list[str]:
        """Return the names under which a mapping's file may be opened, the surest first."""
        found = [f"/proc/{self.pid}/map_files/{mapping.start:x}-{mapping.end:x}"]
        if not mapping.deleted:
            found += [f"/proc/{self.pid}/root{mapping.path}", mapping.path]
        return found

    def find_jitted(self, addr: int) -> tuple[str, int]:
        """Return (name, offset) from the file that JIT compilers write for perf; ("", 0) when it has no answer."""
        if self._jitted is None:
            self._jitted = read_perf_map(self.pid)
        from bisect import bisect_right

        index = bisect_right(self._jitted, addr, key=lambda entry: entry[0]) - 1
        if index >= 0:
            start, size, name = self._jitted[index]
            if addr < start + size:
                return name, addr - start
        return "", 0


class FileSymbols:
    """The ELF files of all processes, opened once each."""

    def __init__(self) -> None:
        self._files: dict[tuple[str, int], Elf | None] = {}

    def find(self, process: Process, mapping: Mapping, addr: int) -> tuple[str, int]:
        """Return (name, offset in it) of the function at `addr`; ("", 0) when it is unknown."""
        key = (mapping.dev, mapping.inode)
        if key not in self._files:
            self._files[key] = _open_vdso() if mapping.path == "[vdso]" else _open(process, mapping)
        elf = self._files[key]
        if elf is None:
            return "", 0
        try:
            vaddr = elf.get_vaddr(addr - mapping.start + mapping.offset)
            symbol = elf.get_function_at(vaddr) if vaddr >= 0 else None
        except (SondeError, ValueError):  # a damaged file: without names then
            return "", 0
        return (symbol.name, vaddr - symbol.vaddr) if symbol is not None else ("", 0)

    def close(self) -> None:
        """Close all files."""
        for elf in self._files.values():
            if elf is not None:
                elf.close()
        self._files.clear()


def _open(process: Process, mapping: Mapping) -> Elf | None:
    """Open the file of a mapping; None when it cannot be had, or another file has taken its name."""
    from ..debuginfo.elf import Elf

    for path in process.paths(mapping):
        try:
            if os.stat(path).st_ino == mapping.inode:
                return Elf.open(path)
        except (OSError, SondeError, ValueError):
            continue
    return None


def _open_vdso() -> Elf | None:
    """Read the vDSO from our own memory: the kernel gives each process the same."""
    from ..debuginfo.elf import Elf
    from ..debuginfo.procmaps import read_maps

    try:
        for mapping in read_maps(os.getpid()):
            if mapping.path == "[vdso]":
                with open("/proc/self/mem", "rb", buffering=0) as memory:
                    memory.seek(mapping.start)
                    return Elf(memory.read(mapping.end - mapping.start), "[vdso]")
    except (OSError, SondeError):
        pass
    return None


def read_perf_map(pid: int) -> list[tuple[int, int, str]]:
    """Read /tmp/perf-PID.map of a process, in its own file system: (start, size, name), by address; [] without one."""
    for path in (f"/proc/{pid}/root/tmp/perf-{_inner_pid(pid)}.map", f"/tmp/perf-{pid}.map"):
        try:
            with open(path, encoding="utf-8", errors="surrogateescape") as file:
                return parse_perf_map(file.read())
        except OSError:
            continue
    return []


def parse_perf_map(text: str) -> list[tuple[int, int, str]]:
    """Parse lines of "START SIZE NAME" (hexadecimal numbers); lines that are none of these are left out."""
    functions = {}
    for line in text.split("\n"):
        start, _, rest = line.partition(" ")
        size, _, name = rest.partition(" ")
        try:
            functions[int(start, 16)] = (int(size, 16), name)  # code that was made anew replaces the old
        except ValueError:
            continue
    return [(start, *functions[start]) for start in sorted(functions)]


def _inner_pid(pid: int) -> int:
    """Return the id that a process has in its own namespace."""
    try:
        with open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as file:
            for line in file:
                if line.startswith("NSpid:"):
                    return int(line.split()[-1])
    except (OSError, ValueError):
        pass
    return pid

"""System calls of one process as probes: where its code makes them, and which calls each place may make.

The number of the call is a constant in nearly all places of a C library: those that load another are left alone. Not seen: system calls from code that is made later (JIT compilers).
"""

from __future__ import annotations

import os

from ..debuginfo.syscalls import syscall_number
from ..errors import FormatError, ProbeError
from ..record import Record
from .machine import get_native
from .sites import Site, iter_functions

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ..debuginfo.elf import Elf
    from ..debuginfo.procmaps import Mapping
    from ..spec.object import ProbeSpec
    from .sites import Files

ANY = -1  # every call: raw_syscalls
# Functions of C libraries that call exec, or any call; how many bytes of those are looked at whose size nobody tells.
_EXEC_FUNCTIONS, _EXEC_BYTES = ("execve", "execveat", "fexecve", "syscall"), 64


class CallSite(Record):
    """A place that makes system calls; `number` is the only one that it can make, -1 when that is not known."""

    site: Site
    number: int


class Wanted(Record):
    """What a probe wants to see: calls of `number` (ANY: all), when they begin or when they have returned."""

    number: int
    exits: bool


def wanted_of(probe: ProbeSpec, machine: str = "") -> Wanted:
    """Return what a tracepoint probe asks for, by the numbers of a processor (this one's if none is named). Raises ProbeError for events that are no system calls."""
    way = "sys_exit" if probe.event.startswith("sys_exit") else "sys_enter"
    if probe.category == "raw_syscalls" and probe.event in ("sys_enter", "sys_exit"):
        return Wanted(ANY, way == "sys_exit")
    number = (
        syscall_number(probe.event[len(way) + 1 :], machine or os.uname().machine)
        if probe.category == "syscalls"
        else -1
    )
    if number < 0:
        raise ProbeError(
            f"{probe.name}: of the kernel's events the user engine sees the system calls only",
            hint="use --engine kernel",
        )
    return Wanted(number, way == "sys_exit")


def find_calls(numbers: frozenset[int], files: Files) -> list[CallSite]:
    """Return the places in files of the process that may make one of the calls `numbers` (with ANY in it: all places)."""
    found = []
    for mapping in files.mappings():
        if mapping.executable and mapping.is_file and not mapping.path.startswith("/memfd:"):
            try:
                elf = files.open(mapping.path)
            except (OSError, FormatError):
                continue
            base = elf.get_vaddr(mapping.offset)
            key = mapping.path, mapping.offset
            if key not in files.calls:
                files.calls[key] = list(_calls_of(mapping, elf, base))
            found += [
                CallSite(Site(mapping.start + at, base + at, mapping.path), number)
                for at, number in files.calls[key]
                if number < 0 or ANY in numbers or number in numbers
            ]
    return found


def find_exec_calls(numbers: Sequence[int], files: Files) -> list[CallSite]:
    """Return the places that call exec (`numbers`), by the functions that a C library has for it: looking at all code would take long."""
    numbers = (-1, *numbers)
    found: dict[int, CallSite] = {}
    for site, symbol in iter_functions(_EXEC_FUNCTIONS, files):
        elf = files.open(site.path)
        offset = elf.get_offset(symbol.vaddr)
        code = bytes(elf.data[offset : offset + (symbol.size or _EXEC_BYTES)])
        for at, number in get_native().find_calls(code, lambda at: 0):
            if number in numbers:
                where = Site(site.address + at, site.vaddr + at, site.path)
                found[where.address] = CallSite(where, number)
    return list(found.values())


def _calls_of(mapping: Mapping, elf: Elf, base: int) -> Iterator[tuple[int, int]]:
    """Yield where in what is mapped system calls are made, and the number as in `CallSite`."""
    code = bytes(elf.data[mapping.offset : mapping.offset + mapping.end - mapping.start])

    def start_of(at: int) -> int:
        symbol = elf.get_function_at(base + at)
        return symbol.vaddr - base if symbol is not None else -1

    return get_native().find_calls(code, start_of) if base >= 0 else iter(())

"""The libraries that the dynamic loader will map for a program: its DT_NEEDED entries and theirs, looked for where ld.so(8) says.

    find_needed("/usr/bin/ls", "x86_64")    # ["/lib/x86_64-linux-gnu/libselinux.so.1", …]

What only the loader knows is left out: $LIB and $PLATFORM, libraries by processor features (glibc-hwcaps), audit libraries. Who can wait asks the process.
"""

from __future__ import annotations

import os
import struct

from ..errors import FormatError
from .elf import Elf
from .ldcache import get_library

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    _Wanted = tuple[str, list[str], list[str]]  # a name, folders of DT_RPATH, folders of DT_RUNPATH

_PT_DYNAMIC = 2
_NEEDED, _STRTAB, _RPATH, _RUNPATH = 1, 5, 15, 29
_MOST = 4096  # libraries of a program, and entries of one: a corrupt file may claim more
_MOST_NAME = 4096


class Dynamic:
    """What an ELF file tells the loader to look for: names of libraries, and folders."""

    def __init__(self, elf: Elf) -> None:
        """Raises FormatError for a table that is not within the file."""
        self.needed: list[str] = []
        self.rpath: list[str] = []
        self.runpath: list[str] = []
        entries = _entries(elf)
        strings = elf.get_offset(dict(entries).get(_STRTAB, -1))
        if strings < 0:
            return
        for tag, value in entries:
            if tag == _NEEDED:
                self.needed.append(_string(elf, strings + value))
            elif tag in (_RPATH, _RUNPATH):
                (self.rpath if tag == _RPATH else self.runpath).extend(_string(elf, strings + value).split(":"))


def _entries(elf: Elf) -> list[tuple[int, int]]:
    segment = next((s for s in elf.segments if s.type == _PT_DYNAMIC), None)
    if segment is None:
        return []
    size = min(segment.file_size & -16, 16 * _MOST)
    if segment.offset + size > len(elf.data):
        raise FormatError("the dynamic section lies outside the file", path=elf.path, offset=segment.offset)
    entries = list(struct.iter_unpack("<QQ", elf.data[segment.offset : segment.offset + size]))
    end = next((at for at, (tag, _) in enumerate(entries) if not tag), len(entries))
    return entries[:end]


def _string(elf: Elf, offset: int) -> str:
    data = bytes(elf.data[offset : offset + _MOST_NAME])
    return data.partition(b"\0")[0].decode("utf-8", "surrogateescape")


def find_needed(path: str, arch: str, environ: Mapping[str, str] | None = None, root: str = "") -> list[str]:
    """Return the paths of the libraries of the program at `path`, in the order in which the loader maps them; what cannot be found or read is left out.

    `environ` is the program's environment (LD_LIBRARY_PATH, LD_PRELOAD). `root` goes before every path that is looked at.
    """
    environ = environ or {}
    found: dict[str, None] = {}
    waiting: list[_Wanted] = [(name, [], []) for name in environ.get("LD_PRELOAD", "").replace(":", " ").split()]
    waiting += _wanted(root, path, [])
    while waiting and len(found) < _MOST:
        name, rpath, runpath = waiting.pop(0)
        library = _locate(name, rpath, runpath, arch, environ, root)
        if library and library not in found:
            found[library] = None
            waiting += _wanted(root, library, rpath)
    return list(found)


def _wanted(root: str, path: str, inherited: list[str]) -> list[_Wanted]:
    """What a file needs: each name with the folders of DT_RPATH, which who needs it hands on, and of DT_RUNPATH, which are its own."""
    try:
        with Elf.open(root + path) as elf:
            dynamic = Dynamic(elf)
    except (OSError, FormatError):
        return []
    origin = os.path.dirname(os.path.realpath(root + path))
    rpath = [] if dynamic.runpath else [*_expand(dynamic.rpath, origin), *inherited]
    return [(name, rpath, _expand(dynamic.runpath, origin)) for name in dynamic.needed]


def _expand(folders: list[str], origin: str) -> list[str]:
    return [folder.replace("${ORIGIN}", origin).replace("$ORIGIN", origin) for folder in folders if folder]


def _locate(name: str, rpath: list[str], runpath: list[str], arch: str, environ: Mapping[str, str], root: str) -> str:
    if "/" in name:
        return name if os.path.exists(root + name) else ""
    for folder in (*rpath, *environ.get("LD_LIBRARY_PATH", "").replace(";", ":").split(":"), *runpath):
        path = f"{folder or '.'}/{name}"
        if os.path.exists(root + path):
            return path
    return get_library(name, arch, root)

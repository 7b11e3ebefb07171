"""Programs and libraries by BCC's names: "c" is libc, "/bin/bash" itself; as a process sees them, where one is named."""

from __future__ import annotations

import os

from ...debuginfo.elf import Elf
from ...errors import ProbeError, SondeError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


def find_library(name: str, pid: int = 0) -> str:
    """Return the path of a library by its name without "lib" and ".so"; "" when there is none. With a pid, the one that it uses."""
    for path in mapped_files(pid) if pid > 0 else ():
        base = path.rpartition("/")[2]
        if base.startswith((f"lib{name}.so", f"lib{name}-")):
            return path
    from ...debuginfo.ldcache import get_library

    return get_library(f"lib{name}.so" if ".so" not in name else name, os.uname().machine)


def find_exe(name: str) -> str:
    """Return the path of a program on PATH, "" when there is none; a path stays what it is."""
    if os.path.dirname(name):
        return name if _is_program(name) else ""
    for folder in os.environ.get("PATH", os.defpath).split(os.pathsep):
        path = os.path.join(folder.strip('"'), name)
        if _is_program(path):
            return path
    return ""


def _is_program(path: str) -> bool:
    return os.path.isfile(path) and os.access(path, os.X_OK)


def find_binary(name: str, pid: int = 0) -> str:
    """Return the path by which we reach a program or library that is called `name`. Raises ProbeError when there is none."""
    if "/" in name:
        path = through_process(name, pid)
        if os.path.isfile(path):
            return path
        raise ProbeError(f"there is no file {name}" + (f" for process {pid}" if pid > 0 else ""))
    found = find_library(name, pid) or find_exe(name)
    if not found:
        raise ProbeError(f"there is neither a library lib{name}.so nor a program {name} here")
    return through_process(found, pid)


def through_process(path: str, pid: int) -> str:
    """Return the path by which this process reaches `path` of another one, which may live in a container."""
    if pid <= 0 or path.startswith("/proc/"):
        return path
    try:
        if os.readlink(f"/proc/{pid}/ns/mnt") == os.readlink("/proc/self/ns/mnt"):
            return path
    except OSError:
        return path
    return f"/proc/{pid}/root{path}"


def mapped_files(pid: int) -> Iterator[str]:
    """Yield the files that a process maps for execution, each once. Raises TargetError, PrivilegeError."""
    from ...debuginfo.procmaps import read_maps

    seen: set[str] = set()
    for mapping in read_maps(pid):
        if mapping.executable and mapping.is_file and not mapping.deleted and mapping.path not in seen:
            seen.add(mapping.path)
            yield mapping.path


def find_place(path: str, symbol: str, address: int | None, offset: int = 0) -> int:
    """Return the file offset of a function, or of an address of the file. Raises ProbeError."""
    with _open(path) as elf:
        if address is None:
            found = elf.get_function(symbol) or (elf.debug.get_function(symbol) if elf.debug else None)
            if found is None:
                from difflib import get_close_matches

                close = get_close_matches(symbol, elf.function_names(), 3)
                raise ProbeError(f"could not determine address of symbol {symbol} in {path}", close=close)
            address = found.vaddr
        place = elf.get_offset(address)
        if place < 0:
            raise ProbeError(f"address {address:#x} is in no part of {path}")
        return place + offset


def find_places(path: str, addresses: Iterable[int]) -> list[int]:
    """Return the file offsets of addresses of the file, in order and each once; those in no part of it are left out."""
    with _open(path) as elf:
        return sorted({place for place in map(elf.get_offset, addresses) if place >= 0})


def list_functions(path: str) -> list[tuple[bytes, int]]:
    """Return (name, address in the file) of each function of a binary. Raises ProbeError, FormatError."""
    with _open(path) as elf:
        return [(symbol.name.encode(), symbol.vaddr) for symbol in elf.iter_functions()]


def _open(path: str) -> Elf:
    try:
        return Elf.open(path)
    except OSError as error:
        raise ProbeError(f"{path} cannot be read: {error.strerror}") from None
    except SondeError as error:
        raise ProbeError(f"{path} is no program or library: {error.message}") from None

"""What becomes of a traced process: another program by exec, its end, libraries that it loads, processes that it forks. Learned without keeping it under ptrace.

exec and the end: a descriptor of /proc/PID/mem belongs to the memory that was there when it was opened, and reads nothing once that is gone (`Watch`). That is seen
afterwards; a thread that comes to exec by a place known to sonde tells it before (`halts`), and is followed (`execs`).
Libraries: the dynamic loader calls an empty function before and after it changes its list, so that debuggers can stand there (`find_loader_hook`). There is a halt in it.
fork: a child has probes and shared memory like its parent, so it keeps being traced; only taking out must find it (`cleaning.clean_children`).
"""

from __future__ import annotations

import os
import struct

from ..errors import FormatError, TargetError
from ..record import Record
from .ptrace import read_exactly
from .refusal import explain

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .sites import Files

_AT_BASE, _AT_ENTRY = 7, 9
_HOOK, _DEBUG, _STATE_AT = "_dl_debug_state", "_r_debug", 24


class Watch:
    """Tells when the program of a process is gone, by exec or by its end: one system call a look. A context manager."""

    def __init__(self, pid: int) -> None:
        """Begin to watch the program that `pid` runs now. Raises TargetError, PrivilegeError."""
        self.pid = pid
        try:
            self._memory = os.open(f"/proc/{pid}/mem", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            raise explain(pid) from None
        self._entry = read_auxiliary(pid).get(_AT_ENTRY, 0)  # an address that stays mapped

    def is_gone(self) -> bool:
        """True once the memory of then exists no more; whether there is a new program, or none, /proc tells."""
        try:
            return self._memory < 0 or not os.pread(self._memory, 1, self._entry)
        except OSError:
            return False  # unmapped by the program itself

    def read(self, address: int, size: int) -> bytes:
        """Read memory of the program. Raises TargetError where nothing is mapped, or the program is gone."""
        return read_exactly(self._memory, address, size, self.pid)

    def close(self) -> None:
        """Stop watching. Twice is harmless."""
        if self._memory >= 0:
            os.close(self._memory)
            self._memory = -1

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def read_auxiliary(pid: int) -> dict[int, int]:
    """Return the auxiliary vector that the kernel gave to a process's program (getauxval(3)). Raises TargetError, PrivilegeError."""
    try:
        with open(f"/proc/{pid}/auxv", "rb") as file:
            data = file.read()
    except OSError:
        raise explain(pid) from None
    return dict(struct.iter_unpack("<QQ", data[: len(data) & -16]))


def read_entry(pid: int) -> int:
    """Return the address of the first instruction of a process's program: its executable's, not its loader's. Raises TargetError."""
    entry = read_auxiliary(pid).get(_AT_ENTRY)
    if entry is None:
        raise TargetError(f"process {pid} has no AT_ENTRY in its auxiliary vector")
    return entry


class LoaderHook(Record):
    """The function that the dynamic loader calls when libraries come or go, at `address` of the file at `path`. It does nothing but return: so debuggers can stand there.

    `changing` is the address of a word that is not 0 while its list of libraries is not complete; 0: nobody tells it.
    """

    address: int
    vaddr: int
    path: str
    changing: int


def find_loader_hook(files: Files) -> LoaderHook | None:
    """Return the hook of a process's loader, from its first instruction on; None for a program without one, or with one that has no names.

    glibc's and musl's _dl_debug_state; glibc's _r_debug is the struct r_debug of <link.h>, whose r_state says whether the list is complete.
    """
    auxiliary = read_auxiliary(files.pid)
    place = auxiliary.get(_AT_BASE) or auxiliary.get(_AT_ENTRY, 0)
    mappings = files.mappings()
    loader = next((m for m in mappings if m.start <= place < m.end and m.is_file), None)
    if loader is None:
        return None
    first = next(m for m in mappings if (m.path, m.inode) == (loader.path, loader.inode))
    try:
        elf = files.open(loader.path)
        function, debug = elf.get_function(_HOOK), elf.get_symbol(_DEBUG)
    except (OSError, FormatError):
        return None
    if function is None:
        return None
    bias = first.start - elf.get_vaddr(first.offset)
    changing = bias + debug.vaddr + _STATE_AT if debug is not None else 0
    return LoaderHook(bias + function.vaddr, function.vaddr, loader.path, changing)

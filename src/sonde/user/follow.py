"""What becomes of a traced process: another program by exec, its end, libraries that it loads, processes that it forks. Learned without keeping it under ptrace.

exec and the end: a descriptor of /proc/PID/mem belongs to the memory that was there when it was opened, and reads nothing once that is gone (`Watch`).
Libraries: the dynamic loader calls an empty function before and after it changes its list, so that debuggers can stand there (r_debug.r_brk of <link.h>). A probe on it that
counts tells sonde, which reads the count in shared memory, to look at the mappings again (`find_loader_hook`).
fork: a child has probes and shared memory like its parent, so it keeps being traced; only taking out must find it (`cleaning.clean_children`).
"""

from __future__ import annotations

import os
import struct

from ..errors import TargetError
from .refusal import explain

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .stopped import StoppedProcess

_AT_PHDR, _AT_PHNUM, _AT_ENTRY = 3, 5, 9
_PT_DYNAMIC, _PT_PHDR = 2, 6
_DT_DEBUG = 21
_PHDR = struct.Struct("<IIQQQQQQ")


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


def find_loader_hook(stopped: StoppedProcess) -> int:
    """Return the address of the function that the dynamic loader calls when libraries come or go; 0 for a static program, or before the loader has begun.

    It does nothing but return: glibc's and musl's _dl_debug_state.
    """
    auxiliary = read_auxiliary(stopped.pid)
    table, count = auxiliary.get(_AT_PHDR, 0), auxiliary.get(_AT_PHNUM, 0)
    headers = list(_PHDR.iter_unpack(stopped.read_some(table, _PHDR.size * count))) if table else []
    bias = next((table - header[3] for header in headers if header[0] == _PT_PHDR), 0)
    for header in headers:
        if header[0] == _PT_DYNAMIC:
            entries = stopped.read_some(bias + header[3], header[6])
            for tag, value in struct.iter_unpack("<QQ", entries[: len(entries) & -16]):
                if tag == _DT_DEBUG and value:
                    return int.from_bytes(stopped.read_some(value + 16, 8), "little")
    return 0

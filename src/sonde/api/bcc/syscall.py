"""BCC's `syscall`: the names of this machine's system calls by number, as bytes."""

from __future__ import annotations

import os

from ...debuginfo.syscalls import UNKNOWN
from ...debuginfo.syscalls import syscall_name as _name

_MOST = 600  # no architecture has a number above that


TYPE_CHECKING = False
if TYPE_CHECKING:
    syscalls: dict[int, bytes]

_known: dict[int, bytes] = {}


def _all() -> dict[int, bytes]:
    if not _known:
        machine = os.uname().machine
        named = ((number, _name(number, machine)) for number in range(_MOST))
        _known.update((number, name.encode()) for number, name in named if name != UNKNOWN)
    return _known


def __getattr__(name: str) -> dict[int, bytes]:
    """Make the dictionary `syscalls` when somebody asks for it."""
    if name != "syscalls":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return _all()


def syscall_name(syscall_num: int) -> bytes:
    """Return the name of a system call, or b"[unknown: N]"."""
    return _all().get(syscall_num, b"[unknown: %d]" % syscall_num)

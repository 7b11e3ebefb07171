"""Where goroutines that do not run will go on: Go preempts them by a signal, at almost any instruction, and keeps their counters on stacks of its own.

runtime.asyncPreempt is called as if by the interrupted instruction, so what matters is a return address close to the top of the stack that the goroutine has in runtime.allgs. Go's garbage
collector ends the process when it finds a return address there that is no Go code, so such a goroutine cannot be sent elsewhere: it has to run on first.
src/runtime/preempt.go, runtime2.go (type g: stack.lo, stack.hi at 0 and 8, sched.sp at 56).
"""

from __future__ import annotations

import struct

from ..debuginfo.elf import Elf
from ..errors import FormatError, TargetError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from .stopped import StoppedProcess

_ARENA, _ARENAS_END = 0xC0_0000_0000, 0xC1_0000_0000  # where Go's heap begins on 64-bit machines
_G = struct.Struct("<QQ40xQ")
_TOP_BYTES = 1024  # frames of asyncPreempt and what it calls, with all registers: some 600 bytes
_MOST = 100_000


def is_go(stopped: StoppedProcess) -> bool:
    """True for a program whose heap is Go's."""
    return any(_ARENA <= mapping.start < _ARENAS_END and not mapping.is_file for mapping in stopped.mappings())


def iter_stack_tops(stopped: StoppedProcess) -> Iterator[bytes]:
    """Yield the last words that each goroutine has put on its stack; nothing for a program without symbols."""
    address = _find_all(stopped)
    if not address:
        return
    table, count = struct.unpack("<QQ", stopped.read(address, 16))
    pointers = stopped.read_some(table, 8 * min(count, _MOST))
    for (pointer,) in struct.iter_unpack("<Q", pointers[: len(pointers) & -8]):
        head = stopped.read_some(pointer, _G.size)
        if len(head) == _G.size:
            low, high, top = _G.unpack(head)
            if low < top < high:
                yield stopped.read_some(top, min(high - top, _TOP_BYTES))


def _find_all(stopped: StoppedProcess) -> int:
    """The address of runtime.allgs in the process, 0 without symbols."""
    path = f"/proc/{stopped.pid}/exe"
    try:
        with Elf.open(path) as elf:
            symbol = elf.get_symbol("runtime.allgs")
            if symbol is None:
                return 0
            first = next((segment for segment in elf.segments if segment.type == 1), None)
            if elf.is_exec or first is None:
                return symbol.vaddr
            import os

            name = os.readlink(path)
            start = next((m.start for m in stopped.mappings() if m.path == name), 0)
            return symbol.vaddr + start - first.vaddr if start else 0
    except (OSError, FormatError, TargetError):
        return 0

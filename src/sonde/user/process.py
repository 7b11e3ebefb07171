"""Facts about a stopped process that its trampolines depend on: where a thread finds its CPU, its own number, the time."""

from __future__ import annotations

from . import ptrace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .stopped import StoppedProcess

_TID_OFFSETS = (0x2D0, 0x30)  # struct pthread.tid of glibc 2.2 to 2.41 on x86-64; of musl
_CLOCK_NAMES = ("__vdso_clock_gettime", "clock_gettime")


def find_rseq(stopped: StoppedProcess) -> int | None:
    """Return how far from the thread pointer threads have their struct rseq; None unless all that were stopped agree."""
    found = set()
    for tid in stopped.threads:
        address = ptrace.get_rseq_address(tid)
        found.add(address - stopped.registers(tid)["fs_base"] if address else None)
    return found.pop() if len(found) == 1 else None


def find_tid_offset(stopped: StoppedProcess) -> int:
    """Return how far from the thread pointer the C library keeps the thread's number; -1 unless it is found there for all that were stopped."""
    for offset in _TID_OFFSETS:
        words = [stopped.read_some(stopped.registers(tid)["fs_base"] + offset, 4) for tid in stopped.threads]
        if all(word == tid.to_bytes(4, "little") for word, tid in zip(words, stopped.threads)):
            return offset
    return -1


def find_clock(stopped: StoppedProcess) -> int:
    """Return the address of the vdso's clock_gettime in the process, 0 if it has none."""
    from ..debuginfo.elf import Elf
    from ..errors import FormatError, TargetError

    vdso = next((m for m in stopped.maps() if m.path == "[vdso]"), None)
    if vdso is None:
        return 0
    try:
        elf = Elf(stopped.read(vdso.start, vdso.end - vdso.start))
        symbol = next((s for name in _CLOCK_NAMES if (s := elf.get_function(name)) is not None), None)
    except (FormatError, TargetError):
        return 0
    return vdso.start + symbol.vaddr if symbol is not None else 0

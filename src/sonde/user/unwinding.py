"""Return probes and those who look at the stack: exceptions, backtraces, and sonde's own leaving.

A function with a return probe has an address of ours as its return address. Whoever unwinds the stack would be lost there. So before libgcc's unwinder begins, the addresses of the
thread's stack are put back to what they were: these calls end without being seen, nothing else changes. `longjmp` needs nothing: what it skips, later calls write over.
"""

from __future__ import annotations

import struct

from ..bpf.asm import assemble
from . import frame
from .frames import find_values, iter_slots
from .helpers import NUMBERS
from .trampoline import HASH, PROBES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from ..bpf.isa import Insn
    from .stopped import StoppedProcess

# Where unwinding begins: of exceptions (C++, Rust), of pthread_exit and pthread_cancel, of backtrace().
UNWINDERS = (
    "_Unwind_RaiseException", "_Unwind_Resume", "_Unwind_Resume_or_Rethrow", "_Unwind_ForcedUnwind", "_Unwind_Backtrace",
)  # fmt: skip
_MOST_PAGES = 2048  # of a stack that are looked through: 8 MiB
_PLACE = struct.Struct("<QQ")


def restorer(private: int, spans: Iterable[tuple[int, int]]) -> list[Insn]:
    """A program for the entry of an unwinder: put back the return addresses above the stack pointer. `spans` are the memory of our code (address, size)."""
    inside = [
        line
        for start, size in spans
        for line in ("r2 = r1", f"r3 = {start} ll", "r2 -= r3", f"if r2 < {size} goto ours")
    ]
    last = (16 << frame.RETURN_BITS) - 1
    return assemble("\n".join([
        f"r6 = *(u64 *)(r1 +{frame.OFFSETS['sp']})", "r6 &= -8", f"r7 = {_MOST_PAGES}",
        "page: r1 = r6", f"call {NUMBERS['check']}", "if r0 != 0x0 goto done", "r8 = r6", "r8 |= 0xfff", "r8 += 1",
        "word: r1 = *(u64 *)(r6 +0)", *inside,
        "next: r6 += 8", "if r6 < r8 goto word", "r7 += -1", "if r7 != 0x0 goto page",
        "done: r0 = 0", "exit",
        f"ours: r2 = {HASH} ll", "r2 *= r6", f"r2 >>= {64 - frame.RETURN_BITS}", "r2 <<= 4",
        f"r3 = {private + frame.RETURNS} ll", f"r4 = {PROBES}",
        "look: r5 = r3", "r5 += r2", "r0 = *(u64 *)(r5 +0)", "if r0 == r6 goto found",
        "r2 += 16", f"r2 &= {last}", "r4 += -1", "if r4 != 0x0 goto look", "goto next",
        "found: r0 = *(u64 *)(r5 +8)", "*(u64 *)(r6 +0) = r0", "goto next",
    ]))  # fmt: skip


def put_back(stopped: StoppedProcess, private: int, returns: Collection[int]) -> int:
    """Put the return addresses on all stacks back, so that nobody comes to our code any more; return how many there were."""
    table = stopped.read(private + frame.RETURNS, 16 << frame.RETURN_BITS)
    originals = {place: address for place, address in _PLACE.iter_unpack(table) if place}
    count = 0
    for tid in stopped.threads:
        for slot in iter_slots(stopped, tid, lambda words: find_values(words, returns)):
            if slot.place in originals:
                stopped.write(slot.place, originals[slot.place].to_bytes(8, "little"))
                count += 1
    return count

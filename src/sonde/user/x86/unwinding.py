"""Return addresses put back on x86-64: the place of each on the stack is its key in the table."""

from __future__ import annotations

from ...bpf.asm import assemble
from .. import frame
from ..helpers import call
from ..unwinding import MOST_PAGES
from .registers import OFFSETS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from ...bpf.isa import Insn


def restorer(private: int, spans: Iterable[tuple[int, int]]) -> list[Insn]:
    """See `user.machine`."""
    inside = [
        line
        for start, size in spans
        for line in ("r2 = r1", f"r3 = {start} ll", "r2 -= r3", f"if r2 < {size} goto ours")
    ]
    last = frame.RETURNS_BYTES - 1
    return assemble("\n".join([
        f"r6 = *(u64 *)(r1 +{OFFSETS['sp']})", "r6 &= -8", f"r7 = {MOST_PAGES}",
        "page: r1 = r6", call("check"), "if r0 != 0x0 goto done", "r8 = r6", "r8 |= 0xfff", "r8 += 1",
        "word: r1 = *(u64 *)(r6 +0)", *inside,
        "next: r6 += 8", "if r6 < r8 goto word", "r7 += -1", "if r7 != 0x0 goto page",
        "done: r0 = 0", "exit",
        f"ours: r2 = {frame.HASH} ll", "r2 *= r6", f"r2 >>= {64 - frame.RETURN_BITS}", f"r2 <<= {frame.RETURN_SHIFT}",
        f"r3 = {private + frame.RETURNS} ll", f"r4 = {frame.PROBES}",
        "look: r5 = r3", "r5 += r2", "r0 = *(u64 *)(r5 +0)", "if r0 == r6 goto found",
        f"r2 += {1 << frame.RETURN_SHIFT}", f"r2 &= {last}", "r4 += -1", "if r4 != 0x0 goto look", "goto next",
        f"found: r0 = *(u64 *)(r5 +{frame.RETURN_ADDRESS})", "*(u64 *)(r6 +0) = r0", "goto next",
    ]))  # fmt: skip

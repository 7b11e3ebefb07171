"""Return addresses put back on aarch64: where a function keeps x30 is its own business, and the table goes by the stack pointer it began with.

What is found at a place P of the stack was kept by a function that began with a stack pointer S above P. Other entries of the table above P that have given out the same address are those of frames
further out, of calls that longjmp dropped, or of calls that returned, and these are marked. All of them are older: while a function runs, nobody begins above its
frame. So S is the newest entry above P that has given out what is found there. (A word that is left over from an earlier call gets an address as well, which nobody asks for.)

Stacks that follow each other without a page between that cannot be read, as some coroutines have them, would be taken for one.

An address that its function has signed (pointer authentication) is signed again. A signature has few bits, seven with addresses of 48, and may well be 0: then the address does not tell
whether it is signed, and what is known of its function decides. (That is wrong where a function that signs has jumped to one without a probe that does not.)
"""

from __future__ import annotations

from ...bpf.asm import assemble
from .. import frame
from ..helpers import call
from ..unwinding import MOST_PAGES
from .registers import DEPTH_BITS, OFFSETS, SIGNS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from ...bpf.isa import Insn

_ADDRESS = (1 << 48) - 1  # above it is a signature

# On the stack: where the context is and where the stack ends; what was found, with its signature; of the best entry so far its time plus 1, its key, the address it keeps.
_CONTEXT, _END, _SIGNED, _TIME, _KEY, _KEPT = (f"*(u64 *)(r10 -{8 * n})" for n in range(1, 7))


def restorer(private: int, spans: Iterable[tuple[int, int]]) -> list[Insn]:
    """See `user.machine`. r6 goes up the stack from word to word; r7: what was found there, r8: above it, from key to key."""
    spans = list(spans)
    return assemble("\n".join([
        f"{_CONTEXT} = r1", f"r6 = *(u64 *)(r1 +{OFFSETS['sp']})", f"r1 = *(u64 *)(r1 +{OFFSETS['r30']})",
        *_inside(spans, "linked"), "goto measure",
        # The unwinder was jumped to, so that its caller's place is its own.
        "linked: r1 = r6", "call find", "if r0 == 0x0 goto measure", f"r2 = *(u64 *)(r0 +{frame.RETURN_ADDRESS})",
        f"r1 = {_CONTEXT}", f"*(u64 *)(r1 +{OFFSETS['r30']}) = r2",
        "measure: r7 = r6", f"r8 = {MOST_PAGES}",
        "page: r1 = r7", call("check"), "if r0 != 0x0 goto measured", "r7 |= 0xfff", "r7 += 1", "r8 += -1", "if r8 != 0x0 goto page",
        f"measured: {_END} = r7", "goto more",
        "word: r1 = *(u64 *)(r6 +0)", f"{_SIGNED} = r1", f"r2 = {_ADDRESS} ll", "r1 &= r2", *_inside(spans, "ours"),
        "next: r6 += 8", f"more: r1 = {_END}", "if r6 < r1 goto word", "r0 = 0", "exit",
        "ours: r7 = r1", "r1 = 0", f"{_TIME} = r1", "r8 = r6", "r8 &= -16",
        "key: r8 += 16", f"r1 = {_END}", "if r8 > r1 goto decided", "r1 = r8", "call find", "if r0 == 0x0 goto key",
        f"r1 = *(u64 *)(r0 +{frame.TAIL})", "if r1 != r7 goto key",
        f"r1 = *(u64 *)(r0 +{frame.DEPTH})", f"r1 >>= {DEPTH_BITS}", "r1 += 1", f"r2 = {_TIME}", "if r1 <= r2 goto key",
        f"{_TIME} = r1", f"{_KEY} = r8", f"r1 = *(u64 *)(r0 +{frame.RETURN_ADDRESS})", f"{_KEPT} = r1", "goto key",
        f"decided: r1 = {_TIME}", "if r1 == 0x0 goto next", f"r2 = {_SIGNED}", "if r2 != r7 goto signed",
        "r1 = r7", f"r2 = {_KEY}", call("sign"), "if r0 != r7 goto plain", f"r1 = *(u32 *)(r7 {SIGNS})", "if r1 == 0x0 goto plain",
        f"signed: r1 = {_KEPT}", f"r2 = {_KEY}", call("sign"), f"{_KEPT} = r0",
        f"plain: r1 = {_KEPT}", "*(u64 *)(r6 +0) = r1", "goto next",
        f"find: r2 = {frame.HASH} ll", "r2 *= r1", f"r2 >>= {64 - frame.RETURN_BITS}", f"r2 <<= {frame.RETURN_SHIFT}",
        f"r3 = {private + frame.RETURNS} ll", f"r4 = {frame.PROBES}",
        "probe: r0 = r3", "r0 += r2", "r5 = *(u64 *)(r0 +0)", "if r5 == r1 goto found", "if r5 == 0x0 goto none",
        f"r2 += {1 << frame.RETURN_SHIFT}", f"r2 &= {frame.RETURNS_BYTES - 1}", "r4 += -1", "if r4 != 0x0 goto probe",
        "none: r0 = 0", "found: exit",
    ]))  # fmt: skip


def _inside(spans: Iterable[tuple[int, int]], label: str) -> list[str]:
    """Go to a label if the address in r1 is one of ours."""
    return [
        line
        for start, size in spans
        for line in ("r2 = r1", f"r3 = {start} ll", "r2 -= r3", f"if r2 < {size} goto {label}")
    ]

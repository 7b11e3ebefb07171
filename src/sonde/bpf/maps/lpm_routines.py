"""Helpers of LPM tries as eBPF: those of a hash map (`routines`) behind a key with the bits beyond its prefix masked.

A look-up asks for each length that exists, from the longest down (`lpm`). The masked key is made on the stack; behind it stands the address of the key as it was given.
"""

from __future__ import annotations

from errno import E2BIG, EINVAL, ENOSPC

from .base import round_up
from .routines import HashRoutine, pieces

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .layout import MapLayout

_FRAME = 64  # bytes of stack that the routines of a hash use themselves


class LpmRoutine(HashRoutine):
    """lookup, update and delete of an LPM trie."""

    def __init__(self, layout: MapLayout) -> None:
        super().__init__(layout)
        self.data_size = layout.key_size - 4
        self.counts = layout.entries + layout.entry_stride * layout.places
        self.given = round_up(layout.key_size)  # from the masked key to the address of the given one
        self.masked = -_FRAME - 8 - self.given

    def lookup(self) -> list[str]:
        return [
            *self._start(), "r9 = r5", "if r8 > r0 goto none",
            "length: r1 = r8", *self._counter(), "r1 = load_acquire((u64 *)(r1 +0))", "if r1 == 0x0 goto shorter",
            *self._mask(), *self._call("probe"), "if r0 != 0x0 goto done",
            "shorter: if r8 == 0x0 goto none", "r8 += -1", "goto length",
            "none: r0 = 0", "done: exit", "probe:", *super().lookup(),
        ]  # fmt: skip

    def update(self) -> list[str]:
        return [
            *self._start(), "r9 = r5", "if r8 > r0 goto wrong", "if r4 > 0x2 goto wrong",
            f"*(u64 *)(r10 {-_FRAME}) = r4", "r0 = r3", *self._mask(), "r3 = r0", f"r4 = *(u64 *)(r10 {-_FRAME})", *self._call("store"),
            f"r1 = {-E2BIG}", "if r0 != r1 goto done", f"r0 = {-ENOSPC}", "done: exit",
            f"wrong: r0 = {-EINVAL}", "exit", "store:", *super().update(),
        ]  # fmt: skip

    def delete(self) -> list[str]:
        return [
            *self._start(), "r9 = r5", "if r8 > r0 goto wrong", *self._mask(), *self._call("remove"), "exit",
            f"wrong: r0 = {-EINVAL}", "exit", "remove:", *super().delete(),
        ]  # fmt: skip

    def _start(self) -> list[str]:
        """The map to r6, the key to r7, its number of bits to r8, the most there are to r0."""
        return ["r6 = r1", "r7 = r2", "r8 = *(u32 *)(r7 +0)", f"r0 = {8 * self.data_size}"]

    def _counter(self) -> list[str]:
        """From a number of bits in r1 to the address of the word that counts prefixes of that length."""
        return ["r1 <<= 3", "r1 += r6", f"r1 += {self.counts}"]

    def _mask(self) -> list[str]:
        """Write the masked key of r8 bits; r0 stays. Words of the address are turned into numbers, so that shifts clear the bits beyond the prefix."""
        at = self.masked
        lines = [f"*(u32 *)(r10 {at}) = r8", f"*(u64 *)(r10 {at + self.given}) = r7"]
        for start, size in pieces(self.data_size):
            place, turn = f"*(u{8 * size} *)", f"r1 = bswap{8 * size} r1"
            turns = [turn] if size > 1 else []
            lines += [
                f"r1 = {place}(r7 +{4 + start})", f"r2 = {8 * (start + size)}", "r2 -= r8", f"if r2 s< 0x1 goto whole{start}",
                f"if r2 s> {8 * size - 1:#x} goto none{start}", *turns, "r1 >>= r2", "r1 <<= r2", *turns, f"goto whole{start}",
                f"none{start}: r1 = 0", f"whole{start}:", f"{place}(r10 {at + 4 + start:+d}) = r1",
            ]  # fmt: skip
        return lines

    def _call(self, function: str) -> list[str]:
        return ["r1 = r6", "r2 = r10", f"r2 += {self.masked}", "r5 = r9", f"call {function}"]

    def _more_value(self) -> list[str]:
        """The bytes of the key as it was given stand before the value."""
        lead = round_up(self.data_size)
        at = self.layout.value_offset - lead
        clear = [f"*(u64 *)(r1 +{lead - 8}) = 0"] if self.data_size % 8 else []
        return [
            "r1 = r0",
            f"r1 += {at}",
            *clear,
            f"r2 = *(u64 *)(r7 +{self.given})",
            "r2 += 4",
            *self._copy(self.data_size),
        ]

    def _before_place(self) -> list[str]:
        """Nobody may pass over a length that exists: it is counted before its entry can be found."""
        return self._count(1)

    def _after_removal(self) -> list[str]:
        return self._count(-1)

    def _count(self, by: int) -> list[str]:
        place = ["r3 = *(u32 *)(r7 +0)", "r3 <<= 3", "r3 += r6", f"r3 += {self.counts}"]
        return [*place, f"r4 = {by}", "lock *(u64 *)(r3 +0) += r4"]

"""Helpers of hash maps as eBPF: what machine code calls where there is no kernel and no Python to change a map.

The text is translated by the JIT for any of its CPUs, and the interpreter runs it as well. A routine takes the arguments of the helper, the map's
address first, and in r5 who asks: bits 0..31 a number to claim with (of the thread or the process; not 0), bits 32..63 the number of the CPU.

    lookup(map, key, -, -, who)          the value's address, or 0
    update(map, key, value, flags, who)  0 or a negative errno
    delete(map, key, -, -, who)          0 or a negative errno

They follow the protocol of `maps.hash` word by word. Keys of entries are compared by acquiring loads, so that the second look at seq comes after them.
"""

from __future__ import annotations

from errno import E2BIG, EBUSY, EEXIST, EINVAL, ENOENT

from .base import COUNT, FREE, FRESH, HAND, LOST, RESTS
from .hash import CLAIM_TRIES, ENTRY_HEADER, LANES, LONG_BYTES, MULTIPLIER, RESTING, most_resting

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from .layout import MapLayout

ROUTINES = ("lookup", "update", "delete")
_UNROLLED = 128  # bytes copied without a loop
SEED = 96  # where it stands in the header


def pieces(size: int) -> Iterator[tuple[int, int]]:
    """Cut a size into loads: (offset, bytes)."""
    at = 0
    for step in (8, 4, 2, 1):
        while size - at >= step:
            yield at, step
            at += step


def copy(size: int, name: str) -> list[str]:
    """Copy `size` bytes from r2 to r1; r3 and r4 are used, r0 stays. `name` is a label of its own."""
    if size <= _UNROLLED:
        pairs = [(f"r3 = *(u{8 * n} *)(r2 +{at})", f"*(u{8 * n} *)(r1 +{at}) = r3") for at, n in pieces(size)]
        return [line for pair in pairs for line in pair]
    words = [f"r4 = {size // 8}", f"{name}: r3 = *(u64 *)(r2 +0)", "*(u64 *)(r1 +0) = r3", "r1 += 8", "r2 += 8"]
    return [*words, "r4 += -1", f"if r4 != 0x0 goto {name}", *copy(size % 8, name)]


_LANES = ("r0", "r4", "r5", "r8")


class HashRoutine:
    """Writes the text. Frame of the main functions: r6 map, r7 key, r8 home cell, r9 hash; on the stack what `_SLOTS` names."""

    FLAGS, OWNER, REACH, VALUE, CPU, SLOT, ENTRY, RESULT = (f"*(u64 *)(r10 -{8 * n})" for n in range(1, 9))
    SLOT_OFFSET = -48

    def __init__(self, layout: MapLayout) -> None:
        self.layout = layout
        self.labels = 0
        self.rests = layout.kind in RESTING

    # the routines ---------------------------------------------------------------------------------------------

    def lookup(self) -> list[str]:
        mark = ["r1 = *(u8 *)(r0 +12)", "if r1 != 0x0 goto used", "*(u8 *)(r0 +12) = 1", "used:"]
        found = [*(mark if self.layout.lru else []), f"r0 += {self.layout.value_offset}"]
        if self.layout.per_cpu:
            found += [f"r1 = {self.CPU}", "r0 += r1"]
        return [*self._begin(), *self._call_find(), "if r0 == 0x0 goto out", *found, "out: exit", *self._find()]

    def update(self) -> list[str]:
        result, lost = self._result, self._lost()
        full = [f"r1 = {self.REACH}", "store_release((u64 *)(r8 +0), r1)", "r1 = r6", f"r2 = {self.OWNER}", "call evict",
                "if r0 != 0x0 goto known", *lost, f"r0 = {-E2BIG}", "exit"]  # fmt: skip
        if self.rests:
            full = [f"r1 = *(u64 *)(r6 +{RESTS})", "if r1 != 0x0 goto wake", *lost, *result(-E2BIG), "wake:", *full]
        return [
            f"{self.VALUE} = r3", f"{self.FLAGS} = r4",
            *self._begin(),
            f"r1 = {self.FLAGS}", "if r1 <= 0x2 goto known", f"r0 = {-EINVAL}", "exit",
            "known:", *self._claim(), *self._call_find(), "if r0 == 0x0 goto absent",
            f"{self.ENTRY} = r0",
            f"r1 = {self.FLAGS}", "if r1 != 0x1 goto replace", *result(-EEXIST),
            "replace:", *(self._write_in_place() if self.layout.per_cpu else self._replace()),
            "absent:", f"r1 = {self.FLAGS}", "if r1 != 0x2 goto insert", *result(-ENOENT),
            "insert:", *(self._use_resting() if self.rests else []), *self._insert(),
            "full:", "r1 = -1", f"lock *(u64 *)(r6 +{COUNT}) += r1", *(full if self.layout.lru or self.rests else [*lost, *result(-E2BIG)]),
            "release:", *self._release(),
            *self._find(), *self._allocate(), *self._free(), *(self._evict() if self.layout.lru or self.rests else []),
        ]  # fmt: skip

    def delete(self) -> list[str]:
        return [
            *self._begin(), *self._claim(), *self._call_find(), "if r0 != 0x0 goto there", *self._result(-ENOENT),
            "there:", *(self._rest() if self.rests else []), f"r1 = {self.SLOT}", "r2 = 0", "store_release((u64 *)(r1 +0), r2)",
            "r1 = r6", "r2 = r0", "call free", "r1 = -1", f"lock *(u64 *)(r6 +{COUNT}) += r1",
            *self._shrink(), *self._after_removal(), *self._result(0), "release:", *self._release(), *self._find(), *self._free(),
        ]  # fmt: skip

    # pieces of them -------------------------------------------------------------------------------------------

    def _begin(self) -> list[str]:
        """Set up the frame, and compute the hash."""
        lines = [
            "r6 = r1", "r7 = r2", "r1 = r5", "r1 <<= 32", f"{self.OWNER} = r1",
            "r5 >>= 32", f"r5 *= {self.layout.value_stride}", f"{self.CPU} = r5",
            f"r9 = *(u64 *)(r6 +{SEED})", f"r1 = {MULTIPLIER} ll",
        ]  # fmt: skip
        turn = ["r9 *= r1", "r2 = r9", "r2 >>= 32", "r9 ^= r2"]
        if self.layout.key_size >= LONG_BYTES:
            lines += self._gather()
            for lane in _LANES:
                lines += [f"r9 ^= {lane}", *turn]
        else:
            for start in range(0, self.layout.key_size, 8):
                lines += [*self._word(start), "r9 ^= r2", *turn]
        return [*lines, *turn, "r8 = r9", *self._cell("r8"), "r8 += r6", f"r8 += {self.layout.cells}"]

    def _word(self, start: int) -> list[str]:
        """r2: the eight bytes of the key from `start` on, or what there is of them; r3 is used."""
        lines = []
        for at, size in pieces(min(8, self.layout.key_size - start)):
            register = "r3" if at else "r2"
            lines.append(f"{register} = *(u{8 * size} *)(r7 +{start + at})")
            lines += [f"r3 <<= {8 * at}", "r2 |= r3"] if at else []
        return lines

    def _gather(self) -> list[str]:
        """Make the four lanes of a long key, from the seed in r9; see `hash.gather`."""
        lines = [line for first, lane in enumerate(_LANES) for line in (f"{lane} = r9", f"{lane} += {first}")]
        for start in range(0, self.layout.key_size, 8):
            lane = _LANES[start // 8 % LANES]
            lines += [
                *self._word(start),
                f"{lane} ^= r2",
                f"{lane} *= r1",
                f"r2 = {lane}",
                "r2 <<= 32",
                f"{lane} >>= 32",
                f"{lane} |= r2",
            ]
        return lines

    def _cell(self, register: str) -> list[str]:
        """From a hash, or the number of a cell, to sixteen times its cell."""
        word = "w" + register[1:]
        return [f"{word} = {word}", f"{word} &= {self.layout.mask}", f"{register} <<= 4"]

    def _claim(self) -> list[str]:
        return [
            f"r5 = {CLAIM_TRIES}",
            "claim: r0 = load_acquire((u64 *)(r8 +0))", "r2 = r0", "r2 >>= 32", "if r2 != 0x0 goto busy",
            f"r3 = {self.OWNER}", "r3 |= r0", "r2 = r0", "r0 = atomic64_cmpxchg((u64 *)(r8 +0), r0, r3)",
            "if r0 == r2 goto claimed",
            "busy: r5 += -1", "if r5 != 0x0 goto claim", *self._lost(), f"r0 = {-EBUSY}", "exit",
            "claimed:", f"r1 = {self.layout.mask}", "if r0 <= r1 goto sane", "r0 = r1", "sane:", f"{self.REACH} = r0",
        ]  # fmt: skip

    def _release(self) -> list[str]:
        return [f"r1 = {self.REACH}", "store_release((u64 *)(r8 +0), r1)", f"r0 = {self.RESULT}", "exit"]

    def _result(self, result: int) -> list[str]:
        return [f"r0 = {result}", f"{self.RESULT} = r0", "goto release"]

    def _call_find(self) -> list[str]:
        return ["r1 = r6", "r2 = r7", "r3 = r9", "r4 = r10", f"r4 += {self.SLOT_OFFSET}", "call find"]

    def _write_in_place(self) -> list[str]:
        value = ["r1 = r0", f"r1 += {self.layout.value_offset}", f"r2 = {self.CPU}", "r1 += r2", f"r2 = {self.VALUE}"]
        return [*value, *self._copy(self.layout.value_size), *self._result(0)]

    def _replace(self) -> list[str]:
        return [
            *self._fill("none"),
            *self._slot_word(), f"r1 = {self.SLOT}", "store_release((u64 *)(r1 +0), r2)",
            "r1 = r6", f"r2 = {self.ENTRY}", "call free", *self._result(0),
            "none:", *self._lost(), *self._result(-EBUSY),
        ]  # fmt: skip

    def _rest(self) -> list[str]:
        """Let the entry in r0 rest, if it stands in its cell's own slot and the map is not getting full."""
        return [
            f"r1 = {self.SLOT}", "r1 += -8", "if r1 != r8 goto drop",
            f"r1 = *(u64 *)(r6 +{COUNT})", f"if r1 >= {most_resting(self.layout.max_entries)} goto drop", *self._show(),
            f"r1 = *(u64 *)(r6 +{RESTS})", "if r1 != 0x0 goto rested", f"*(u64 *)(r6 +{RESTS}) = 1", "rested:",
            *self._result(0), "drop:",
        ]  # fmt: skip

    def _use_resting(self) -> list[str]:
        """Take the entry that rests in the cell's own slot for the new key: nobody else may, as long as the cell is claimed."""
        layout = self.layout
        return [
            "r0 = load_acquire((u64 *)(r8 +8))", "w0 += -1", f"if r0 >= {layout.places} goto new",
            f"r0 *= {layout.entry_stride}", "r0 += r6", f"r0 += {layout.entries}",
            "r2 = *(u32 *)(r0 +0)", "r2 &= 1", "if r2 == 0x0 goto new",
            "r2 = *(u32 *)(r0 +8)", "r2 ^= r9", f"w2 &= {layout.mask}", "if r2 != 0x0 goto new",
            *self._fill_in(), *self._slot_word(), "store_release((u64 *)(r8 +8), r2)", *self._show(), *self._result(0),
            "new:",
        ]  # fmt: skip

    def _insert(self) -> list[str]:
        return [
            "r1 = 1", f"r1 = atomic64_fetch_add((u64 *)(r6 +{COUNT}), r1)",
            f"if r1 >= {self.layout.max_entries} goto full",
            *self._fill("full"), *self._slot_word(), *self._before_place(), *self._place(), *self._result(0),
        ]  # fmt: skip

    def _fill(self, none: str) -> list[str]:
        """Take a free entry and fill it; it is in r0 then. To `none` when there is none."""
        return ["r1 = r6", "call allocate", f"if r0 == 0x0 goto {none}", *self._fill_in(), *self._show()]

    def _fill_in(self) -> list[str]:
        """Write key, hash and value into the entry in r0, which stays."""
        layout = self.layout
        lines = ["r1 = r0", f"r1 += {ENTRY_HEADER}", "r2 = r7", *self._copy(layout.key_size)]
        lines += ["r1 = r9", "w1 = w1", "*(u64 *)(r0 +8) = r1"]
        if layout.per_cpu:
            lines += [f"*(u64 *)(r0 +{at}) = 0" for at in range(layout.value_offset, layout.entry_stride, 8)]
        lines += ["r1 = r0", f"r1 += {layout.value_offset}", f"r2 = {self.CPU}"]
        lines += ["r1 += r2"] if layout.per_cpu else []
        return [*lines, f"r2 = {self.VALUE}", *self._copy(self.layout.value_size), *self._more_value()]

    def _show(self) -> list[str]:
        """Make the seq of the entry in r0 even, so that everybody sees it; or odd."""
        return ["r1 = *(u32 *)(r0 +0)", "w1 += 1", "store_release((u64 *)(r0 +0), r1)"]

    def _copy(self, size: int) -> list[str]:
        self.labels += 1
        return copy(size, f"copy{self.labels}")

    def _slot_word(self) -> list[str]:
        """What a slot holds for the entry in r0, to r2."""
        number = [
            "r2 = r0",
            "r2 -= r6",
            f"r2 += {-self.layout.entries}",
            f"r2 /= {self.layout.entry_stride}",
            "r2 += 1",
        ]
        return [*number, "r1 = r9", "r1 >>= 32", "r1 <<= 32", "r2 |= r1"]

    def _place(self) -> list[str]:
        """Put the slot word in r2 into a free slot behind the home cell."""
        layout = self.layout
        return [
            "r4 = 0", "r5 = r9", *self._cell("r5"),
            "place: r1 = r6", "r1 += r5", f"r1 += {layout.cells + 8}", "r0 = load_acquire((u64 *)(r1 +0))",
            "if r0 != 0x0 goto taken",
            f"r3 = {self.REACH}", "if r4 <= r3 goto near", f"{self.REACH} = r4",
            f"r3 = {self.OWNER}", "r3 |= r4", "store_release((u64 *)(r8 +0), r3)",
            "near: r0 = 0", "r0 = atomic64_cmpxchg((u64 *)(r1 +0), r0, r2)", "if r0 == 0x0 goto placed",
            "taken: r4 += 1", f"if r4 > {layout.mask} goto placed", "r5 += 16", f"w5 &= {layout.mask << 4}", "goto place",
            "placed:",
        ]  # fmt: skip

    def _shrink(self) -> list[str]:
        """Lower the reach to the last entry that belongs to the cell."""
        layout = self.layout
        return [
            "r4 = r9", f"w4 &= {layout.mask}", f"r5 = {self.REACH}",
            "shrink: if r5 == 0x0 goto shrunk",
            "r1 = r4", "r1 += r5", *self._cell("r1"), "r1 += r6", f"r1 += {layout.cells + 8}",
            "r1 = load_acquire((u64 *)(r1 +0))", "w1 = w1", "w1 += -1", f"if r1 >= {layout.places} goto lower",
            f"r1 *= {layout.entry_stride}", "r1 += r6", f"r1 += {layout.entries}", "r1 = *(u32 *)(r1 +8)",
            f"w1 &= {layout.mask}", "if r1 == r4 goto shrunk",
            "lower: r5 += -1", "goto shrink",
            "shrunk:", f"{self.REACH} = r5",
        ]  # fmt: skip

    # local functions ------------------------------------------------------------------------------------------

    def _find(self) -> list[str]:
        """find(map, key, hash, where): the entry or 0; the address of its slot is stored at `where`."""
        layout = self.layout
        slot = ["r1 = r6", "r1 += r8", f"r1 += {layout.cells + 8}"]
        compare = []
        for at, size in pieces(layout.key_size):
            place = f"r1 = load_acquire((u{8 * size} *)(r0 +{ENTRY_HEADER + at}))"
            compare += [f"r4 = *(u{8 * size} *)(r7 +{at})", place, "if r4 != r1 goto different"]
        return [
            "find: r6 = r1", "r7 = r2", "r8 = r3", *self._cell("r8"), "r9 = r3", "r9 >>= 32", "*(u64 *)(r10 -8) = r4",
            "r1 = r6", "r1 += r8", f"r1 += {layout.cells}", "r5 = load_acquire((u64 *)(r1 +0))", "w5 = w5",
            f"if r5 <= {layout.mask} goto fslot", f"r5 = {layout.mask}",
            "fslot:", *slot, "r2 = load_acquire((u64 *)(r1 +0))",
            "fagain: r3 = r2", "r3 >>= 32", "if r3 != r9 goto fnext",
            "r0 = r2", "w0 += -1", f"if r0 >= {layout.places} goto fnext",
            f"r0 *= {layout.entry_stride}", "r0 += r6", f"r0 += {layout.entries}",
            "r3 = load_acquire((u64 *)(r0 +0))", "w3 = w3", "r4 = r3", "r4 &= 1", "if r4 != 0x0 goto fretry",
            *compare, *self._look_again(), "if r4 != r3 goto fretry",
            *slot, "r2 = *(u64 *)(r10 -8)", "*(u64 *)(r2 +0) = r1", "exit",
            "different:", *self._look_again(), "if r4 != r3 goto fretry",
            "r4 = r2", *slot, "r2 = load_acquire((u64 *)(r1 +0))", "if r2 == r4 goto fnext", "goto fagain",
            "fretry: r4 = r2", *slot, "r2 = load_acquire((u64 *)(r1 +0))", "if r2 != r4 goto fagain",
            *self._look_again(), "if r4 != r3 goto fagain",
            "fnext: if r5 == 0x0 goto fnone", "r5 += -1", "r8 += 16", f"w8 &= {layout.mask << 4}", "goto fslot",
            "fnone: r0 = 0", "exit",
        ]  # fmt: skip

    def _look_again(self) -> list[str]:
        """The seq of the entry in r0 to r4. It comes after the loads of the key and the slot, which acquire."""
        return ["r4 = *(u32 *)(r0 +0)"]

    def _more_value(self) -> list[str]:
        """Fill in what an entry has besides key and value; it is in r0, which stays."""
        return []

    def _before_place(self) -> list[str]:
        """What comes before an entry can be seen; r0 to r2 stay."""
        return []

    def _after_removal(self) -> list[str]:
        """What comes after an entry was taken out."""
        return []

    def _lost(self) -> list[str]:
        """Count a change that was given up."""
        return ["r1 = 1", f"lock *(u64 *)(r6 +{LOST}) += r1"]

    def _evict(self) -> list[str]:
        """evict(map, owner): throw out an entry that was not used since the clock's hand passed it, or one that rests; 1, or 0 when none can be had."""
        layout = self.layout
        tries, cell = "*(u64 *)(r10 -8)", "*(u64 *)(r10 -32)"
        choose = [
            "if r1 & 0x1 goto hand",
            "r1 = *(u8 *)(r7 +12)",
            "if r1 == 0x0 goto idle",
            "*(u8 *)(r7 +12) = 0",
            "goto hand",
        ]
        if self.rests:  # of those that do not, some are free or being filled: these are in no slot
            choose = ["if r1 & 0x1 goto idle", "goto hand"]
        still = ["r2 = *(u32 *)(r7 +0)", "r2 &= 1", "if r2 == 0x0 goto ekeep"] if self.rests else []
        return [
            "evict: r6 = r1", f"{self.OWNER} = r2", f"{tries} = {3 * layout.places}",
            *([f"*(u64 *)(r6 +{RESTS}) = 0"] if self.rests else []),
            "hand:", f"r1 = {tries}", "if r1 == 0x0 goto stuck", "r1 += -1", f"{tries} = r1",
            "r9 = 1", f"r9 = atomic64_fetch_add((u64 *)(r6 +{HAND}), r9)", f"r9 %= {layout.places}",
            "r7 = r9", f"r7 *= {layout.entry_stride}", "r7 += r6", f"r7 += {layout.entries}",
            "r1 = load_acquire((u64 *)(r7 +0))", "if r1 == 0x0 goto hand", *choose,
            "idle: r9 += 1", "r8 = *(u32 *)(r7 +8)", f"w8 &= {layout.mask}", f"{cell} = r8",
            "r8 <<= 4", "r8 += r6", f"r8 += {layout.cells}",
            "r0 = load_acquire((u64 *)(r8 +0))", "r2 = r0", "r2 >>= 32", "if r2 != 0x0 goto ebusy",
            f"r3 = {self.OWNER}", "r3 |= r0", "r2 = r0", "r0 = atomic64_cmpxchg((u64 *)(r8 +0), r0, r3)", "if r0 != r2 goto ebusy",
            f"r1 = {layout.mask}", "if r0 <= r1 goto ereach", "r0 = r1", "ereach:", f"{self.REACH} = r0",
            "r4 = 0",
            "eslot:", f"r1 = {cell}", "r1 += r4", *self._cell("r1"), "r1 += r6", f"r1 += {layout.cells + 8}",
            "r0 = load_acquire((u64 *)(r1 +0))", "w0 = w0", "if r0 == r9 goto found",
            "r4 += 1", f"r3 = {self.REACH}", "if r4 <= r3 goto eslot",
            f"ekeep: r1 = {self.REACH}", "store_release((u64 *)(r8 +0), r1)", "goto hand",
            "found:", *still, "r2 = 0", "store_release((u64 *)(r1 +0), r2)", "r1 = r6", "r2 = r7", "call free",
            "r1 = -1", f"lock *(u64 *)(r6 +{COUNT}) += r1", f"r9 = {cell}", *self._shrink(),
            f"r1 = {self.REACH}", "store_release((u64 *)(r8 +0), r1)",
            *([f"*(u64 *)(r6 +{RESTS}) = 1"] if self.rests else []), "r0 = 1", "exit",
            "ebusy:", *([f"*(u64 *)(r6 +{RESTS}) = 1"] if self.rests else []), "goto hand",
            "stuck: r0 = 0", "exit",
        ]  # fmt: skip

    def _allocate(self) -> list[str]:
        """allocate(map): a free entry, or 0."""
        layout = self.layout
        entry = [f"r4 *= {layout.entry_stride}", "r4 += r1", f"r4 += {layout.entries}"]
        return [
            f"allocate: r0 = load_acquire((u64 *)(r1 +{FREE}))", "r4 = r0", "w4 += -1",
            f"if r4 >= {layout.places} goto fresh",
            *entry, "r5 = load_acquire((u64 *)(r4 +0))", "r5 >>= 32",
            "r3 = r0", "r3 >>= 32", "r3 += 1", "r3 <<= 32", "r3 |= r5",
            "r2 = r0", f"r0 = atomic64_cmpxchg((u64 *)(r1 +{FREE}), r0, r3)", "if r0 != r2 goto allocate",
            "r0 = r4", "exit",
            f"fresh: r0 = load_acquire((u64 *)(r1 +{FRESH}))", f"if r0 >= {layout.places} goto nothing",
            "r3 = r0", "r3 += 1", "r2 = r0", f"r0 = atomic64_cmpxchg((u64 *)(r1 +{FRESH}), r0, r3)",
            "if r0 != r2 goto fresh",
            "r4 = r0", *entry, "*(u64 *)(r4 +0) = 1", "r0 = r4", "exit",
            "nothing: r0 = 0", "exit",
        ]  # fmt: skip

    def _free(self) -> list[str]:
        """free(map, entry)."""
        layout = self.layout
        return [
            "free: r5 = r2", "r5 -= r1", f"r5 += {-layout.entries}", f"r5 /= {layout.entry_stride}", "r5 += 1",
            "r4 = *(u32 *)(r2 +0)", "r4 |= 1",
            f"push: r0 = load_acquire((u64 *)(r1 +{FREE}))", "r3 = r0", "r3 <<= 32", "r3 |= r4",
            "store_release((u64 *)(r2 +0), r3)",
            "r3 = r0", "r3 >>= 32", "r3 += 1", "r3 <<= 32", "r3 |= r5", "*(u64 *)(r10 -8) = r0",
            f"r0 = atomic64_cmpxchg((u64 *)(r1 +{FREE}), r0, r3)", "r3 = *(u64 *)(r10 -8)", "if r0 != r3 goto push",
            "r0 = 0", "exit",
        ]  # fmt: skip

"""Helpers of arrays, queues, stacks, bloom filters and stack traces as eBPF: what machine code calls where there is no kernel and no Python to change a map.

Arguments are those of the helper, the map's address first, and in r5 who asks (see `routines`):

    array         lookup(map, key), update(map, key, value, flags, who), delete
    queue, stack  push(map, value, flags, -, who), pop(map, value, -, -, who), peek(map, value, -, -, who)
    bloom filter  push(map, value, flags), peek(map, value)
    stack trace   put(map, frames, count, flags): what bpf_get_stackid does with a walked stack

Arrays are written in place, like the kernel's. A queue or stack is changed while its one claim is held: whoever does not get it in `CLAIM_TRIES` gives up
with EBUSY, so that a thread that died with the claim stops nobody. Bits of a filter are set by atomic or.
"""

from __future__ import annotations

from errno import E2BIG, EBUSY, EEXIST, EINVAL, ENOENT

from .base import COUNT, FRESH, HAND, LOST
from .hash import CLAIM_TRIES, MULTIPLIER
from .routines import SEED, copy, pieces
from .stacks import BPF_F_FAST_STACK_CMP, BPF_F_REUSE_STACKID, STACK_FLAGS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .layout import MapLayout

_HEAD, _TAIL, _CLAIM = COUNT, FRESH, HAND


# Arrays -----------------------------------------------------------------------------------------------------------


def _element(layout: MapLayout, beyond: str) -> list[str]:
    """The value's address to r0; to `beyond` when there is no such entry. r2 is the key; the CPU's number comes in r5."""
    lines = [
        "r2 = *(u32 *)(r2 +0)",
        f"if r2 >= {layout.max_entries} goto {beyond}",
        f"r2 *= {layout.entry_stride}",
        "r0 = r1",
        "r0 += r2",
    ]
    if layout.per_cpu:
        lines += ["r5 >>= 32", f"r5 *= {layout.value_stride}", "r0 += r5"]
    return [*lines, f"r0 += {layout.entries}"]


def array_lookup(layout: MapLayout) -> list[str]:
    """An array's look-up."""
    return [*_element(layout, "beyond"), "exit", "beyond: r0 = 0", "exit"]


def array_update(layout: MapLayout) -> list[str]:
    """An array's update: all keys exist."""
    return [
        "r0 = r4", "r0 &= -5", "if r0 > 0x2 goto wrong", *_element(layout, "beyond"),
        "if r4 & 0x1 goto exists", "if r4 & 0x4 goto wrong", "r1 = r0", "r2 = r3",
        *copy(layout.value_size, "c"), "r0 = 0", "exit",
        f"wrong: r0 = {-EINVAL}", "exit",
        f"beyond: r0 = {-E2BIG}", "exit", f"exists: r0 = {-EEXIST}", "exit",
    ]  # fmt: skip


def array_delete(_: MapLayout) -> list[str]:
    """Nothing can be deleted."""
    return [f"r0 = {-EINVAL}", "exit"]


# Queues and stacks ------------------------------------------------------------------------------------------------


def _claim() -> list[str]:
    return [
        f"r4 = {CLAIM_TRIES}", "w5 = w5",
        f"claim: r0 = load_acquire((u64 *)(r1 +{_CLAIM}))", "if r0 != 0x0 goto busy",
        f"r0 = atomic64_cmpxchg((u64 *)(r1 +{_CLAIM}), r0, r5)", "if r0 == 0x0 goto claimed",
        "busy: r4 += -1", "if r4 != 0x0 goto claim", "r2 = 1", f"lock *(u64 *)(r1 +{LOST}) += r2", f"r0 = {-EBUSY}", "exit",
        "claimed:", f"r7 = *(u64 *)(r1 +{_HEAD})", f"r8 = *(u64 *)(r1 +{_TAIL})",
    ]  # fmt: skip


def _release() -> list[str]:
    return ["release: r2 = 0", f"store_release((u64 *)(r6 +{_CLAIM}), r2)", "exit"]


def _bounded(layout: MapLayout) -> list[str]:
    """Head and tail are numbers of slots, whatever somebody wrote there."""
    slots = layout.extra
    return [f"if r7 < {slots} goto head", "r7 = 0", f"head: if r8 < {slots} goto tail", "r8 = 0", "tail:"]


def _slot(layout: MapLayout, number: str) -> list[str]:
    """The address of a slot, to r1."""
    return [f"r1 = {number}", f"r1 *= {layout.entry_stride}", "r1 += r6", f"r1 += {layout.entries}"]


def queue_push(layout: MapLayout) -> list[str]:
    """Add a value at the head; BPF_EXIST drops the oldest of a full map."""
    slots = layout.extra
    return [
        "r6 = r1", "r9 = r2", "if r3 == 0x0 goto good", "if r3 == 0x2 goto good", f"r0 = {-EINVAL}", "exit",
        "good:", *_claim(), *_bounded(layout),
        "r4 = r7", "r4 += 1", f"if r4 < {slots} goto inside", "r4 = 0", "inside: if r4 != r8 goto room",
        "if r3 == 0x2 goto drop", "r2 = 1", f"lock *(u64 *)(r6 +{LOST}) += r2", f"r0 = {-E2BIG}", "goto release",
        "drop: r8 += 1", f"if r8 < {slots} goto dropped", "r8 = 0", f"dropped: *(u64 *)(r6 +{_TAIL}) = r8",
        "room: r8 = r4", *_slot(layout, "r7"), "r2 = r9", *copy(layout.value_size, "c"),
        f"*(u64 *)(r6 +{_HEAD}) = r8", "r0 = 0", *_release(),
    ]  # fmt: skip


def _take(layout: MapLayout, remove: bool) -> list[str]:
    slots, queue = layout.extra, layout.kind == "queue"
    last = ["r4 = r7", "if r4 != 0x0 goto behind", f"r4 = {slots}", "behind: r4 += -1"]
    next_tail = ["r8 += 1", f"if r8 < {slots} goto moved", "r8 = 0", f"moved: *(u64 *)(r6 +{_TAIL}) = r8"]
    leave = next_tail if queue else [f"*(u64 *)(r6 +{_HEAD}) = r9"]
    zeros = (
        [f"*(u{8 * n} *)(r9 +{at}) = 0" for at, n in pieces(layout.value_size)]
        if layout.value_size <= 128
        else _zeros(layout)
    )
    return [
        "r6 = r1", "r9 = r2", *_claim(), *_bounded(layout), "if r7 == r8 goto empty",
        *(_slot(layout, "r8") if queue else [*last, *_slot(layout, "r4")]),
        "r2 = r1", "r1 = r9", *([] if queue else ["r9 = r4"]), *copy(layout.value_size, "c"),
        *(leave if remove else []), "r0 = 0", "goto release",
        "empty:", *zeros, f"r0 = {-ENOENT}", *_release(),
    ]  # fmt: skip


def _zeros(layout: MapLayout) -> list[str]:
    rest = [f"*(u{8 * n} *)(r9 +{at}) = 0" for at, n in pieces(layout.value_size % 8)]
    return [
        f"r4 = {layout.value_size // 8}",
        "zero: *(u64 *)(r9 +0) = 0",
        "r9 += 8",
        "r4 += -1",
        "if r4 != 0x0 goto zero",
        *rest,
    ]


def queue_pop(layout: MapLayout) -> list[str]:
    """Take the next value out; when there is none, the place for it is filled with zeros."""
    return _take(layout, True)


def queue_peek(layout: MapLayout) -> list[str]:
    """As pop, and the value stays."""
    return _take(layout, False)


# Stack traces -----------------------------------------------------------------------------------------------------


def stack_put(layout: MapLayout) -> list[str]:
    """put(map, frames, count, flags): keep a trace that somebody walked; its number, or a negative errno. Flags are those of bpf_get_stackid."""
    most = layout.value_size // 8
    frame = ["r9 = r5", "r9 <<= 3", "r9 += r7", "r9 = *(u64 *)(r9 +0)"]
    turn = ["r0 *= r1", "r2 = r0", "r2 >>= 32", "r0 ^= r2"]
    known, fast, reuse = STACK_FLAGS, BPF_F_FAST_STACK_CMP, BPF_F_REUSE_STACKID
    return [
        f"if r4 > {known} goto wrong", "r6 = r1", "r7 = r2", "r8 = r3", f"if r8 <= {most} goto fits", f"r8 = {most}",
        f"fits: r0 = *(u64 *)(r6 +{SEED})", f"r1 = {MULTIPLIER} ll", "r5 = 0",
        "hash: if r5 >= r8 goto hashed", *frame, "r0 ^= r9", *turn, "r5 += 1", "goto hash",
        "hashed:", *turn,
        # r6: the bucket; r3: what its word is to say; r8: how many frames; r2: its number
        "r3 = r0", "w3 = w3", "r2 = r8", "r2 += 1", "r2 <<= 32", "r3 |= r2",
        "r2 = r0", f"r1 = {layout.mask}", "r2 &= r1", "r1 = r2", f"r1 *= {layout.entry_stride}", "r6 += r1", f"r6 += {layout.entries}",
        "r0 = load_acquire((u64 *)(r6 +0))", "if r0 s< 0x0 goto busy", "if r0 != r3 goto other",
        f"if r4 & {fast} goto same", "r5 = 0",
        "compare: if r5 >= r8 goto same", *frame, "r1 = r5", "r1 <<= 3", "r1 += r6", "r1 = *(u64 *)(r1 +8)", "if r1 != r9 goto other",
        "r5 += 1", "goto compare",
        "same: r0 = r2", "exit",
        "other: if r0 == 0x0 goto take", f"if r4 & {reuse} goto take", f"r0 = {-EEXIST}", "exit",
        "take: r5 = 1", "r5 <<= 63", "r5 |= r3", "r1 = r0", "r0 = atomic64_cmpxchg((u64 *)(r6 +0), r0, r5)", "if r0 != r1 goto busy",
        "r5 = 0",
        "write: if r5 >= r8 goto written", *frame, "r1 = r5", "r1 <<= 3", "r1 += r6", "*(u64 *)(r1 +8) = r9", "r5 += 1", "goto write",
        "written: store_release((u64 *)(r6 +0), r3)", "goto same",
        f"busy: r0 = {-EBUSY}", "exit", f"wrong: r0 = {-EINVAL}", "exit",
    ]  # fmt: skip


# Bloom filters ----------------------------------------------------------------------------------------------------


def _bits(layout: MapLayout, each: list[str]) -> list[str]:
    """For each hash function: the address of the bit's word to r1, the bit to r3, then `each`, which keeps r6 to r9."""
    turn = ["r9 *= r0", "r2 = r9", "r2 >>= 32", "r9 ^= r2"]
    words = []
    for start in range(0, layout.value_size, 8):
        for at, size in pieces(min(8, layout.value_size - start)):
            register = "r3" if at else "r2"
            words.append(f"{register} = *(u{8 * size} *)(r7 +{start + at})")
            words += [f"r3 <<= {8 * at}", "r2 |= r3"] if at else []
        words += ["r9 ^= r2", *turn]
    return [
        "r6 = r1", "r7 = r2", "r8 = 0",
        f"next: r0 = {MULTIPLIER} ll", f"r9 = *(u64 *)(r6 +{SEED})", "r9 += r8", *words, *turn,
        f"r1 = {layout.mask}", "r9 &= r1", "r1 = r9", "r1 >>= 6", "r1 <<= 3", "r1 += r6", f"r1 += {layout.entries}",
        "r3 = 1", "r3 <<= r9", *each, "r8 += 1", f"if r8 < {layout.extra} goto next", "r0 = 0", "exit",
    ]  # fmt: skip


def bloom_push(layout: MapLayout) -> list[str]:
    """Set the bits of a value."""
    set_bit = ["lock *(u64 *)(r1 +0) |= r3"]
    return ["if r3 != 0x0 goto wrong", *_bits(layout, set_bit), f"wrong: r0 = {-EINVAL}", "exit"]


def bloom_peek(layout: MapLayout) -> list[str]:
    """0 when all bits of a value are set, so that it may have been pushed."""
    look = ["r2 = *(u64 *)(r1 +0)", "r2 &= r3", "if r2 == 0x0 goto absent"]
    return [*_bits(layout, look), f"absent: r0 = {-ENOENT}", "exit"]

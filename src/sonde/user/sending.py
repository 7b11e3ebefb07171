"""Helpers of BCC programs beyond those of scripts, as eBPF routines: perf events, lines of bpf_trace_printk, stacks by number, tail calls.

There is no perf event array in a process: what programs send to one goes into a ring that all CPUs share, each record led by the number of its CPU.

    u32  CPU
    ...  the data, filled up with zeros so that four bytes and the data are a multiple of eight, as the kernel does

A line is kept as its format and what the format asks for, and is put together by whoever reads it:

    0    u64  monotonic time, ns        32   u32  CPU
    8    u64  pid_tgid                  40   3 u64: the arguments
    16   16   comm                      64   the format, cut after FORMAT_BYTES, then a string for each argument that one is printed of
"""

from __future__ import annotations

from errno import E2BIG, EFAULT, ENOSPC, EPERM
from struct import Struct

from ..bpf.isa import MAX_TAIL_CALLS
from ..bpf.maps.machine import STACK_PUT
from ..record import Record
from . import frame
from .helpers import USER_STACK, call

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

_MOST_EVENT_BYTES = 0xFFFF
_FRAMES = 127  # of a stack
_STACK_FLAGS = 0xFF | USER_STACK  # what bpf_get_stack knows of the flags: frames to skip, whose stack

FORMAT_BYTES, STRING_BYTES, ARGUMENTS = 256, 128, 3
_FORMAT, _STRINGS = 64, 64 + FORMAT_BYTES
LINE_BYTES = _STRINGS + ARGUMENTS * STRING_BYTES
_HEAD = Struct("<QQ16sII3Q")

_RESERVE, _SUBMIT, _READ_STR, _TIME, _STACK = 131, 132, 114, 5, 67

# (ctx, map, flags, data, size): r6 data, r7 bytes left, r8 the record, r9 its bytes.
_EVENT = [
    "r6 = r4", "r7 = r5", f"if r7 <= {_MOST_EVENT_BYTES} goto fits", f"r0 = {-E2BIG}", "exit",
    "fits: r9 = r7", "r9 += 11", "r9 &= -8", "r1 = r2", "r2 = r9", "r3 = 0", f"call {_RESERVE}",
    "if r0 != 0x0 goto room", f"r0 = {-ENOSPC}", "exit",
    "room: r8 = r0", "r9 += r8", "*(u64 *)(r9 -8) = 0", call("cpu"), "*(u32 *)(r8 +0) = r0", "r1 = r8", "r1 += 4",
    "words: if r7 < 0x8 goto bytes", "r2 = *(u64 *)(r6 +0)", "*(u64 *)(r1 +0) = r2", "r6 += 8", "r1 += 8", "r7 += -8", "goto words",
    "bytes: if r7 == 0x0 goto done", "r2 = *(u8 *)(r6 +0)", "*(u8 *)(r1 +0) = r2", "r6 += 1", "r1 += 1", "r7 += -1", "goto bytes",
    "done: r1 = r8", "r2 = 0", f"call {_SUBMIT}", "r0 = 0", "exit",
]  # fmt: skip

# (ctx, map, flags): the stack is walked into our own frame, and kept by the map's routine.
STACK_BYTES = _FRAMES * 8 + 64
_STACK_ID = [
    "r6 = r2", "r7 = r3", f"if r7 & {USER_STACK} goto user", f"r0 = {-EFAULT}", "exit",
    "user: r2 = r10", f"r2 += {-_FRAMES * 8}", f"r3 = {_FRAMES * 8}", "r4 = r7", f"r4 &= {_STACK_FLAGS}", f"call {_STACK}",
    "if r0 s> 0x0 goto some", f"r0 = {-EFAULT}", "exit",
    "some: r3 = r0", "r3 >>= 3", "r1 = r6", "r2 = r10", f"r2 += {-_FRAMES * 8}", "r4 = r7", f"call {STACK_PUT}", "exit",
]  # fmt: skip


def _tail_call() -> list[str]:
    """(ctx, map, index): the address of the program to go on in, 0 for none. The map is an array of addresses."""
    tails = frame.TAILS - frame.REGS
    return [
        "r6 = r2", "r7 = r3", "w7 = w7", call("registers"), f"r1 = *(u64 *)(r0 {tails:+d})", f"if r1 >= {MAX_TAIL_CALLS} goto none",
        "r2 = *(u32 *)(r6 +48)", "if r7 >= r2 goto none", "r2 = *(u64 *)(r6 +72)", "r6 += r2", "r7 <<= 3", "r6 += r7",
        "r2 = *(u64 *)(r6 +0)", "if r2 == 0x0 goto none", "r1 += 1", f"*(u64 *)(r0 {tails:+d}) = r1", "r0 = r2", "exit",
        "none: r0 = 0", "exit",
    ]  # fmt: skip


def _string(number: int) -> list[str]:
    """Keep the string that an argument points to, if the conversion of that number (r5) takes one and it can be read."""
    return [
        f"if r5 != {number} goto not{number}", "r1 = r8", f"r1 += {_STRINGS + number * STRING_BYTES}", f"r2 = {STRING_BYTES}",
        f"r3 = *(u64 *)(r8 +{40 + 8 * number})", "*(u64 *)(r10 -48) = r5", f"call {_READ_STR}", "r5 = *(u64 *)(r10 -48)", f"not{number}:",
    ]  # fmt: skip


def line_routine(ring: int) -> list[str]:
    """trace_printk(format, bytes, three arguments), for the ring at an address. r8 is the record, r6 and r7 the format and its bytes."""
    return [
        "r6 = r1", "r7 = r2", f"if r7 <= {FORMAT_BYTES - 1} goto fits", f"r7 = {FORMAT_BYTES - 1}",
        "fits: *(u64 *)(r10 -24) = r3", "*(u64 *)(r10 -32) = r4", "*(u64 *)(r10 -40) = r5",
        f"r1 = {ring} ll", f"r2 = {LINE_BYTES}", "r3 = 0", f"call {_RESERVE}", "if r0 != 0x0 goto room", f"r0 = {-EPERM}", "exit",
        "room: r8 = r0",
        *(line for n in range(ARGUMENTS) for line in (f"r1 = *(u64 *)(r10 {-24 - 8 * n})", f"*(u64 *)(r8 +{40 + 8 * n}) = r1")),
        f"call {_TIME}", "*(u64 *)(r8 +0) = r0", call("pid_tgid"), "*(u64 *)(r8 +8) = r0", call("cpu"), "*(u32 *)(r8 +32) = r0",
        "*(u32 *)(r8 +36) = 0", "r1 = r8", "r1 += 16", call("comm"),
        *(f"*(u8 *)(r8 +{_STRINGS + n * STRING_BYTES}) = 0" for n in range(ARGUMENTS)),
        "r1 = r8", f"r1 += {_FORMAT}", "r9 = r1", "r9 += r7", "*(u8 *)(r9 +0) = 0",
        # The format is the program's own, so it is there; r9: what is left of it, r5: conversions so far, r4: within one.
        "r9 = r7", "r5 = 0", "r4 = 0",
        "next: if r9 == 0x0 goto done", "r2 = *(u8 *)(r6 +0)", "*(u8 *)(r1 +0) = r2", "r6 += 1", "r1 += 1", "r9 += -1",
        "if r2 == 0x0 goto done", "if r4 != 0x0 goto inside", "if r2 != 37 goto next", "r4 = 1", "goto next",
        "inside: if r2 == 37 goto outside", "if r2 == 115 goto string",  # %% · s, also of pks and pus
        "if r2 < 58 goto next", "if r2 == 108 goto next", "if r2 == 112 goto next",  # digits, signs · l · p, which letters may follow
        "if r2 == 107 goto next", "if r2 == 117 goto unsigned", "r5 += 1", "outside: r4 = 0", "goto next",
        "unsigned: r3 = *(u8 *)(r6 +0)", "if r3 == 115 goto next", "r5 += 1", "r4 = 0", "goto next",
        "string: *(u64 *)(r10 -56) = r1",
        *(line for n in range(ARGUMENTS) for line in _string(n)),
        "r1 = *(u64 *)(r10 -56)", "r5 += 1", "r4 = 0", "goto next",
        "done: r1 = r8", "r2 = 0", f"call {_SUBMIT}", "r0 = r7", "exit",
    ]  # fmt: skip


# Name to the lines of the routine; bpf_trace_printk's is made for its ring.
ROUTINES = {"perf_event_output": _EVENT, "get_stackid": _STACK_ID, "tail_call": _tail_call()}
NAMES = frozenset([*ROUTINES, "trace_printk"])


class Line(Record):
    """What one bpf_trace_printk was: `strings` are those that its arguments point to, "" for others."""

    time_ns: int
    pid_tgid: int
    comm: bytes
    cpu: int
    format: bytes
    arguments: tuple[int, ...]
    strings: tuple[bytes, ...]


def read_line(record: bytes) -> Line:
    """Decode a record of a line."""
    time_ns, pid_tgid, comm, cpu, _, *arguments = _HEAD.unpack_from(record)
    pieces: Sequence[bytes] = [record[at : at + STRING_BYTES] for at in range(_STRINGS, LINE_BYTES, STRING_BYTES)]
    strings = tuple(piece.partition(b"\0")[0] for piece in pieces)
    text = record[_FORMAT:_STRINGS].partition(b"\0")[0]
    return Line(time_ns, pid_tgid, comm.partition(b"\0")[0], cpu, text, tuple(arguments), strings)

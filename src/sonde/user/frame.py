"""The frame that a trampoline makes on the stack of the traced thread, and sonde's own memory in the process: who finds what where.

A register that programs leave alone (r12, x23) points to the frame while a program runs:

    0    u32  slot: which copy of per-CPU values belongs to this run
    4    u32  number of the running CPU
    8    u64  flags of the processor, saved
    16   u64  bpf_get_attach_cookie()
    24   u64  what stands here: ENTRY, RETURN or INSIDE
    32   u64  address of the function, or of the place that is probed
    40   u64  OVERRIDDEN: the function is not to run, what it returns is in the context's ax; KEPT: here that cannot be; else 0
    48   u64  how many tail calls this run has made
    56        struct pt_regs: the program's context, as far as it is read

The state is shared with sonde; the private memory is the process's own (a child of fork has its copy).
"""

from __future__ import annotations

SLOT, CPU, FLAGS, COOKIE, KIND, PLACE, OVERRIDE, TAILS, REGS = 0, 4, 8, 16, 24, 32, 40, 48, 56
ENTRY, RETURN, INSIDE = 0, 1, 2
OVERRIDDEN, KEPT = 1, 2
RECORD_BYTES = 64  # behind it, for system calls: what their events record

# The state: words that sonde and the process share.
MISSED = 0  # u64: runs that found no slot
RANDOM = 8  # u64: of the random numbers
# Halts (`halts`), u32 each: at which sonde waits (EXEC, FILES), the number drawn last, the number served last, the thread in exec.
HALTS, ASKED, SERVED, EXECING = 16, 20, 24, 28
PATIENT = 32  # u32: not 0 where threads wait as long as sonde lives, 0 where it is for PATIENCE_NS
VFORKS = 36  # u32: how many calls may be on their way by which a child runs in its parent's memory
EXEC, FILES = 1, 2
PATIENCE_NS = 1_000_000_000
EXEC_CALL, EXEC_CALL_WORDS = 256, 6  # u64 each: number of its call, then its arguments
CLOCK = 64  # u64: offset of the line that time is read from, 0 while there is none (see `clock`)
LINES = (
    128,
    192,
)  # of each: counter of the processor, boot time in ns there, ns for 2^32 ticks, monotonic less boot time
OWNER = 4096 - 24  # u32: not 0 while sonde lives (see `owner`)
BUSY = 4096  # for each slot 64 bytes, the first of which says that a run has it
BUSY_STRIDE = 64

# The private memory: a page that the kernel empties in a child of fork, then the table of returns, then a page for what a child has too.
PROCESS = 0  # u64: number of the process; 0: ask the kernel
RETURNS = 4096
RETURN_BITS, RETURN_SHIFT = 16, 5  # so many places, of four words each
RETURNS_BYTES = 1 << RETURN_BITS + RETURN_SHIFT
# Of a place, behind its key: the return address; our own address that stands in its stead; how many functions were jumped to since the call.
RETURN_ADDRESS, TAIL, DEPTH = 8, 16, 24
HASH = 0x9E3779B97F4A7C15  # a key times this: its upper bits are the first place to look at
PROBES = 64  # places that are looked at before a return is given up
MOST_JUMPS = 64  # from one probed function to the next, before returns are given up: as the kernel has it
UNWIND = RETURNS + RETURNS_BYTES  # u64: address of the index of unwind tables, 0: none (see `walking`)
GUARDED = UNWIND + 8  # u32: not 0 while faults of reads are mended (see `guards`)
DEPTH_SHIFT = 48  # of a key: addresses of stacks are below

# Of a ring: what the process has in its tables from the start, and what it uses of a ring that is read in time
WARM_BYTES = 512 << 10


def state_bytes(slots: int) -> int:
    """The size of the state, whole pages."""
    return (BUSY + slots * BUSY_STRIDE + 4095) & ~4095


def private_bytes() -> int:
    """The size of the private memory, whole pages."""
    return UNWIND + 4096

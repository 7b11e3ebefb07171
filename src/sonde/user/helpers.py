"""The helpers of the user engine as machine code: what programs may call in a foreign process, where there is neither a kernel behind them nor Python.

Most are written as eBPF, which the JIT translates; what eBPF cannot say (a system call, the frame of the trampoline) is a *primitive*, a few
instructions that they call by a number from PRIMITIVE on. Helpers of maps come from `bpf.maps`.

UNSAFE are those that change what the process does: only programs of who asked for it may call them, and they do nothing any more once sonde is gone (see `owner`).

A program's own reads are never trusted: `probe_read` asks the kernel whether the page is there (rt_sigprocmask with an impossible request reads eight bytes and
changes nothing) before it touches it, or, if that is wanted, reads a byte of it and has the fault mended (`guards`). What is the kernel's for programs in the kernel is their own here, stack and values
of maps: `probe_read_kernel` reads that, without asking, and nothing else.
"""

from __future__ import annotations

from errno import EFAULT, EINVAL, EOPNOTSUPP

from ..record import Record
from . import frame

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..debuginfo.ptregs import PtRegs

PRIMITIVE = 1 << 12
_NAMES = (
    "check", "clock", "boot_time", "monotonic_time", "pid_tgid", "uid_gid", "comm", "cpu", "cookie", "function", "random", "tgkill", "registers",
    "check_write", "override", "node", "sign", "own",
)  # fmt: skip
NUMBERS = {name: PRIMITIVE + at for at, name in enumerate(_NAMES)}
PRIMITIVE_NAMES = {number: name for name, number in NUMBERS.items()}
USER_STACK = 256


class Facts(Record):
    """What helpers must know of the process: addresses in it. `clock` is that of its vdso's clock_gettime (0: none).

    `tid_offset` is where the C library keeps the number of the thread, from the thread pointer (-1: nobody knows).
    `knows_cpu`: threads find the number of their CPU in a struct rseq. `vforks`: calls that may make a child in this memory are counted.
    `memories`: what sonde has there of its own for programs, maps and all (address, size).
    """

    state: int
    private: int
    clock: int = 0
    tid_offset: int = -1
    knows_cpu: bool = True
    vforks: bool = False
    memories: tuple[tuple[int, int], ...] = ()


# Helpers as eBPF ----------------------------------------------------------------------------------------------------


def call(name: str) -> str:
    """The instruction that calls a primitive."""
    return f"call {NUMBERS[name]}"


def _zero(dst: str, size: str, label: str) -> list[str]:
    """Fill `size` bytes at `dst` with zeros; both registers change."""
    return [
        f"{label}: if {size} < 0x20 goto {label}_bytes", *(f"*(u64 *)({dst} +{at}) = 0" for at in range(0, 32, 8)),
        f"{dst} += 32", f"{size} += -32", f"goto {label}",
        f"{label}_bytes: if {size} == 0x0 goto {label}_end", f"*(u8 *)({dst} +0) = 0", f"{dst} += 1", f"{size} += -1",
        f"goto {label}_bytes", f"{label}_end:",
    ]  # fmt: skip


# r6 to, r7 bytes left, r8 from; on the stack what the caller gave, for the case that it goes wrong.
_BEGIN_READ = ["r6 = r1", "r7 = r2", "r8 = r3", "*(u64 *)(r10 -8) = r1", "*(u64 *)(r10 -16) = r2"]
_FAULT = [
    "fault: r1 = *(u64 *)(r10 -8)", "r2 = *(u64 *)(r10 -16)", *_zero("r1", "r2", "zero"), f"r0 = {-EFAULT}", "exit",
]  # fmt: skip
# r9: how many of the bytes that are left lie in the page that r8 points to.
_IN_PAGE = ["r1 = r8", "r1 &= 0xfff", "r9 = 4096", "r9 -= r1", "if r9 <= r7 goto piece", "r9 = r7", "piece:"]


def _read(check: str) -> list[str]:
    """`check`: the primitive that says whether a page may be read."""
    return [
        *_BEGIN_READ,
        "next: if r7 == 0x0 goto done", "r1 = r8", call(check), "if r0 != 0x0 goto fault",
        *_IN_PAGE, "r7 -= r9",
        "words: if r9 < 0x8 goto bytes", "r1 = *(u64 *)(r8 +0)", "*(u64 *)(r6 +0) = r1",
        "r8 += 8", "r6 += 8", "r9 += -8", "goto words",
        "bytes: if r9 == 0x0 goto next", "r1 = *(u8 *)(r8 +0)", "*(u8 *)(r6 +0) = r1",
        "r8 += 1", "r6 += 1", "r9 += -1", "goto bytes",
        "done: r0 = 0", "exit",
        *_FAULT,
    ]  # fmt: skip


def _read_str(check: str) -> list[str]:
    """The NUL counts; a string that does not fit is cut, and its last byte is the NUL."""
    return [
        *_BEGIN_READ, "if r7 == 0x0 goto empty",
        "next: r1 = r8", call(check), "if r0 != 0x0 goto fault",
        *_IN_PAGE, "r7 -= r9",
        "words: if r9 < 0x8 goto bytes", "r1 = *(u64 *)(r8 +0)", "r2 = r1",
        "r3 = 0x101010101010101 ll", "r2 -= r3", "r4 = r1", "r4 ^= -1", "r2 &= r4", "r3 <<= 7", "r2 &= r3",
        "if r2 != 0x0 goto bytes", "*(u64 *)(r6 +0) = r1", "r8 += 8", "r6 += 8", "r9 += -8", "goto words",
        "bytes: if r9 == 0x0 goto page", "r1 = *(u8 *)(r8 +0)", "*(u8 *)(r6 +0) = r1",
        "r8 += 1", "r6 += 1", "r9 += -1", "if r1 != 0x0 goto bytes",
        "r0 = r6", "r1 = *(u64 *)(r10 -8)", "r0 -= r1", "exit",
        "page: if r7 != 0x0 goto next", "*(u8 *)(r6 -1) = 0", "r0 = *(u64 *)(r10 -16)", "exit",
        "empty: r0 = 0", "exit",
        *_FAULT,
    ]  # fmt: skip


# All pages are asked for before the first byte is written; r9: the end.
_WRITE = [
    "r6 = r1", "r7 = r3", "r8 = r2", "r9 = r1", "r9 += r3", "*(u64 *)(r10 -8) = r1", "if r9 < r6 goto fault",
    "page: if r6 >= r9 goto write", "r1 = r6", call("check_write"), "if r0 != 0x0 goto fault",
    "r6 |= 0xfff", "r6 += 1", "goto page",
    "write: r6 = *(u64 *)(r10 -8)",
    "eight: if r7 < 0x8 goto four", "r1 = *(u64 *)(r8 +0)", "*(u64 *)(r6 +0) = r1", "r8 += 8", "r6 += 8", "r7 += -8", "goto eight",
    "four: if r7 < 0x4 goto two", "r1 = *(u32 *)(r8 +0)", "*(u32 *)(r6 +0) = r1", "r8 += 4", "r6 += 4", "r7 += -4",
    "two: if r7 < 0x2 goto one", "r1 = *(u16 *)(r8 +0)", "*(u16 *)(r6 +0) = r1", "r8 += 2", "r6 += 2", "r7 += -2",
    "one: if r7 == 0x0 goto done", "r1 = *(u8 *)(r8 +0)", "*(u8 *)(r6 +0) = r1",
    "done: r0 = 0", "exit",
    f"fault: r0 = {-EFAULT}", "exit",
]  # fmt: skip

_COMM = [
    "r6 = r1", "r7 = r2", "if r7 != 0x0 goto some", f"r0 = {-EINVAL}", "exit",
    "some: *(u64 *)(r10 -16) = 0", "*(u64 *)(r10 -8) = 0", "r1 = r10", "r1 += -16", call("comm"),
    "r8 = r10", "r8 += -16", "r9 = 15",
    "next: r7 += -1", "if r7 == 0x0 goto last", "r1 = 0", "if r9 == 0x0 goto store",
    "r1 = *(u8 *)(r8 +0)", "r8 += 1", "r9 += -1",
    "store: *(u8 *)(r6 +0) = r1", "r6 += 1", "goto next",
    "last: *(u8 *)(r6 +0) = 0", "r0 = 0", "exit",
]  # fmt: skip

_STRNCMP = [
    "r4 = 0",
    "next: if r4 >= r2 goto same", "r5 = *(u8 *)(r1 +0)", "r0 = *(u8 *)(r3 +0)", "if r5 != r0 goto differ",
    "if r5 == 0x0 goto same", "r1 += 1", "r3 += 1", "r4 += 1", "goto next",
    "same: r0 = 0", "exit",
    "differ: r5 -= r0", "r0 = r5", "exit",
]  # fmt: skip


def take(name: str) -> list[str]:
    """Add the address in r1 to the stack at r7, unless it is one of those to be skipped (r10 - 24: how many); r8: the room that is left. Goes to "done" when there is none."""
    return [
        "r2 = *(u64 *)(r10 -24)", f"if r2 == 0x0 goto {name}", "r2 += -1", "*(u64 *)(r10 -24) = r2", f"goto {name}_end",
        f"{name}:", "if r8 < 0x8 goto done", "*(u64 *)(r7 +0) = r1", "r7 += 8", "r8 += -8", f"{name}_end:",
    ]  # fmt: skip


def load(name: str) -> list[str]:
    """r1: the word at the address in r1; goes to "done" where it cannot be read. r10 - 32: the page that was asked for last; r10 - 40 is used."""
    return [
        "r2 = r1", "r2 &= 7", "if r2 != 0x0 goto done", "r2 = r1", "r2 &= -4096", "r3 = *(u64 *)(r10 -32)", f"if r2 == r3 goto {name}",
        "*(u64 *)(r10 -40) = r1", call("check"), "if r0 != 0x0 goto done", "r1 = *(u64 *)(r10 -40)",
        "r2 = r1", "r2 &= -4096", "*(u64 *)(r10 -32) = r2", f"{name}: r1 = *(u64 *)(r1 +0)",
    ]  # fmt: skip


def _stack(registers: PtRegs) -> list[str]:
    """get_stack(ctx, buffer, bytes, flags): the user stack by frame pointers.

    At a function's first instruction its caller is on top of the stack, or in the register for it.
    """
    kind = frame.KIND - frame.REGS
    ip, sp, fp = (registers.get_offset(name) for name in (registers.ip, registers.sp, registers.fp))
    caller = f"*(u64 *)(r6 +{registers.get_offset(registers.link)})" if registers.link else "*(u64 *)(r9 +0)"
    return [
        "*(u64 *)(r10 -8) = r3", "r5 = r4", "r5 &= 255", "*(u64 *)(r10 -24) = r5", "r4 &= -256",
        f"if r4 == {USER_STACK} goto user", f"r0 = {-EOPNOTSUPP}", "exit",
        "user: r7 = r2", "r8 = r3", call("registers"), "r6 = r0",
        f"r1 = *(u64 *)(r6 +{ip})", *take("first"),
        f"r9 = *(u64 *)(r6 +{sp})",
        f"r1 = *(u64 *)(r6 {kind:+d})", f"if r1 != {frame.ENTRY} goto frames",
        f"r1 = {caller}", *take("caller"),
        f"frames: r6 = *(u64 *)(r6 +{fp})", "*(u64 *)(r10 -32) = 1",
        "walk: if r6 < r9 goto done", "r1 = r6", *load("pointer"), "*(u64 *)(r10 -16) = r1",
        "r1 = r6", "r1 += 8", *load("return"), "if r1 == 0x0 goto done", *take("frame"),
        "r9 = r6", "r9 += 16", "r6 = *(u64 *)(r10 -16)", "goto walk",
        "done: r0 = *(u64 *)(r10 -8)", "r0 -= r8", "r0 &= -8", "exit",
    ]  # fmt: skip


def _signal(thread: int) -> list[str]:
    return [f"r2 = {thread}", call("tgkill"), "exit"]


# Name to the lines of the routine.
ROUTINES: dict[str, list[str]] = {
    "probe_read": _read("check"),
    "probe_read_user": _read("check"),
    "probe_read_str": _read_str("check"),
    "probe_read_user_str": _read_str("check"),
    "probe_read_kernel": _read("own"),
    "probe_read_kernel_str": _read_str("own"),
    "ktime_get_coarse_ns": ["r1 = 6", call("clock"), "exit"],
    "ktime_get_tai_ns": ["r1 = 11", call("clock"), "exit"],
    "probe_write_user": _WRITE,
    "get_current_comm": _COMM,
    "strncmp": _STRNCMP,
    "send_signal": _signal(0),
    "send_signal_thread": _signal(1),
}


def lines_of(name: str, registers: PtRegs) -> list[str] | None:
    """The routine of a helper, as it is where the context has these registers; None where there is none."""
    return _stack(registers) if name == "get_stack" else ROUTINES.get(name)


# Helpers that are primitives themselves.
DIRECT = {
    "ktime_get_ns": "monotonic_time",
    "ktime_get_boot_ns": "boot_time",
    "get_current_pid_tgid": "pid_tgid",
    "get_current_uid_gid": "uid_gid",
    "get_smp_processor_id": "cpu",
    "get_attach_cookie": "cookie",
    "get_func_ip": "function",
    "override_return": "override",
    "get_prandom_u32": "random",
    "get_numa_node_id": "node",
}

# Helpers that the JIT puts behind each program that calls them (bpf.maps.machine): of maps, the first argument is one.
OF_MAPS = frozenset([
    "map_lookup_elem", "map_update_elem", "map_delete_elem", "map_lookup_percpu_elem", "map_push_elem", "map_pop_elem", "map_peek_elem",
    "for_each_map_elem", "ringbuf_output", "ringbuf_reserve", "ringbuf_query",
])  # fmt: skip
IN_PROGRAMS = frozenset(["loop", "ringbuf_submit", "ringbuf_discard"])
UNSAFE = frozenset(["probe_write_user", "override_return"])
NAMES = (frozenset([*ROUTINES, *DIRECT, "get_stack", "tail_call"]) | OF_MAPS | IN_PROGRAMS) - UNSAFE

# Those that read memory which may not be there.
READING = frozenset(["probe_read", "probe_read_user", "probe_read_str", "probe_read_user_str", "get_stack"])

# What helpers make of system calls in the process, for those who would see them there. Time is read by system call where nothing better is known.
_READS, CLOCKS, _IDS = ("rt_sigprocmask",), ("clock_gettime",), ("getpid", "gettid")
SYSTEM_CALLS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(READING, _READS),
    **dict.fromkeys(["ktime_get_ns", "ktime_get_boot_ns", "ktime_get_coarse_ns", "ktime_get_tai_ns"], CLOCKS),
    "get_current_pid_tgid": _IDS,
    "get_current_uid_gid": ("getuid", "getgid"),
    "get_current_comm": ("prctl",),
    "probe_write_user": ("futex",),
    **dict.fromkeys(["send_signal", "send_signal_thread"], (*_IDS, "kill", "tgkill")),
}

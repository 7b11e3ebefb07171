"""The helpers of the user engine as machine code: what programs may call in a foreign process, where there is neither a kernel behind them nor Python.

Most are written as eBPF, which the JIT translates; what eBPF cannot say (a system call, the frame of the trampoline) is a *primitive*, a few
instructions that they call by a number from PRIMITIVE on. Helpers of maps come from `bpf.maps`.

UNSAFE are those that change what the process does: only programs of who asked for it may call them.

A program's own reads are never trusted: `probe_read` asks the kernel whether the page is there (rt_sigprocmask with an impossible request reads eight bytes and
changes nothing) before it touches it.
"""

from __future__ import annotations

from errno import EFAULT, EINVAL, EOPNOTSUPP

from ..bpf.jit.x86_encoding import (
    R8,
    R9,
    R10,
    R12,
    RAX,
    RBP,
    RCX,
    RDI,
    RDX,
    RSI,
    RSP,
    SYSCALL,
    alu_imm,
    imm,
    mem,
    mov,
    mov_imm,
    pop,
    push,
    rr,
)
from ..record import Record
from . import frame

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

PRIMITIVE = 1 << 12
_NAMES = (
    "check", "clock", "boot_time", "monotonic_time", "pid_tgid", "uid_gid", "comm", "cpu", "cookie", "function", "random", "tgkill", "registers",
    "check_write", "override",
)  # fmt: skip
NUMBERS = {name: PRIMITIVE + at for at, name in enumerate(_NAMES)}
PRIMITIVE_NAMES = {number: name for name, number in NUMBERS.items()}
_FUTEX, _FUTEX_WAKE_OP_PRIVATE = 202, 5 | 128
_ADD_0_IF_ODD = 1 << 28 | 0x800  # add 0 to the second word; wake who waits for it if it was -2048, which nobody's is
_RT_SIGPROCMASK, _PRCTL, _GETTID, _GETPID, _GETUID, _GETGID, _TGKILL, _KILL = 14, 157, 186, 39, 102, 104, 234, 62
_PR_GET_NAME = 16
_USER_STACK = 256


class Facts(Record):
    """What helpers must know of the process: addresses in it. `clock` is that of its vdso's clock_gettime (0: none).

    `tid_offset` is where the C library keeps the number of the thread, from the thread pointer (-1: nobody knows).
    """

    state: int
    private: int
    clock: int = 0
    tid_offset: int = -1


def primitive(name: str, facts: Facts) -> bytes:
    """The code of a primitive: arguments and result as helpers have them."""
    return _PRIMITIVES[name](facts)


def _system_call(number: int) -> bytes:
    return mov_imm(RAX, number) + SYSCALL


def _check(facts: Facts) -> bytes:
    """check(address): 0 when the eight bytes around it can be read. The kernel takes the null page for "no request"."""
    ask = mov_imm(RDI, 0xFFFFFFFF) + mov_imm(RDX, 0) + mov_imm(R10, 8) + _system_call(_RT_SIGPROCMASK)
    ask += alu_imm(7, RAX, -EFAULT, True) + b"\x0f\x94\xc0\x0f\xb6\xc0\xc3"  # sete al; movzx eax, al
    return mov_imm(RAX, 1) + mov(RSI, RDI) + alu_imm(4, RSI, -8, True) + bytes([0x75, 1, 0xC3]) + ask


def _check_write(facts: Facts) -> bytes:
    """check_write(address): 0 when the page can be written to. The kernel adds 0 to a word there, as one step, so that nobody sees anything.

    It is the system call that every program with threads makes, also one that is confined. Nobody waits at the word that it is to wake waiters of.
    """
    code = mov(R8, RDI) + alu_imm(4, R8, -4, True) + mov_imm(RDI, facts.state) + mov_imm(RSI, _FUTEX_WAKE_OP_PRIVATE)
    code += mov_imm(RDX, 0) + mov_imm(R10, 0) + mov_imm(R9, _ADD_0_IF_ODD) + _system_call(_FUTEX)
    return code + rr(b"\xc1", 5, RAX, False) + b"\x1f\xc3"  # shr eax, 31: errors are negative


def _override(facts: Facts) -> bytes:
    """override(context, value): what the function, or the place where it returns, is to return."""
    code = mem(b"\x89", RSI, R12, frame.REGS + frame.OFFSETS["ax"], True)
    return code + mem(b"\xc7", 0, R12, frame.OVERRIDE, True) + imm(1) + rr(b"\x31", RAX, RAX, False) + b"\xc3"


def _clock(facts: Facts) -> bytes:
    """clock(number): nanoseconds."""
    code = push(RBP) + mov(RBP, RSP) + alu_imm(5, RSP, 32, True) + alu_imm(4, RSP, -16, True) + mov(RSI, RSP)
    if facts.clock:
        code += mov_imm(RAX, facts.clock) + b"\xff\xd0"
    else:
        code += _system_call(228)
    code += mem(b"\x8b", RAX, RSP, 0, True) + rr(b"\x69", RAX, RAX, True) + imm(1_000_000_000)
    return code + mem(b"\x03", RAX, RSP, 8, True) + mov(RSP, RBP) + pop(RBP) + b"\xc3"


def _counted(number: int, offset: int) -> Callable[[Facts], bytes]:
    """A clock by the processor's counter, along the line that sonde keeps up to date; by system call as long as there is none."""

    def make(facts: Facts) -> bytes:
        code = mov_imm(R8, facts.state) + mem(b"\x8b", R9, R8, frame.CLOCK, True) + rr(b"\x85", R9, R9, True)
        slow = mov_imm(RDI, number) + _clock(facts)
        fast = (
            rr(b"\x01", R8, R9, True) + b"\x0f\x31" + rr(b"\xc1", 4, RDX, True) + b"\x20" + rr(b"\x09", RDX, RAX, True)
        )
        fast += (
            mem(b"\x2b", RAX, R9, 0, True) + mem(b"\xf7", 4, R9, 16, True) + b"\x48\x0f\xac\xd0\x20"
        )  # shrd rax, rdx, 32
        fast += mem(b"\x03", RAX, R9, 8, True) + (mem(b"\x03", RAX, R9, offset, True) if offset else b"") + b"\xc3"
        return code + bytes([0x74, len(fast)]) + fast + slow

    return make


def _tgid(facts: Facts) -> bytes:
    """The number of the process to eax: kept in a page that is empty in a child."""
    ask = _system_call(_GETPID) + mov_imm(RDX, facts.private + frame.PROCESS) + mem(b"\x89", RAX, RDX, 0, True)
    look = mov_imm(RAX, facts.private + frame.PROCESS) + mem(b"\x8b", RAX, RAX, 0, True)
    return look + rr(b"\x85", RAX, RAX, True) + bytes([0x75, len(ask)]) + ask


def _tid(facts: Facts) -> bytes:
    if facts.tid_offset >= 0:
        return b"\x64\x8b\x04\x25" + imm(facts.tid_offset)
    return _system_call(_GETTID)


def _pid_tgid(facts: Facts) -> bytes:
    code = _tid(facts) + mov(R8, RAX, False) + _tgid(facts)
    return code + rr(b"\xc1", 4, RAX, True) + b"\x20" + rr(b"\x09", R8, RAX, True) + b"\xc3"


def _uid_gid(facts: Facts) -> bytes:
    code = _system_call(_GETUID) + mov(R8, RAX, False) + _system_call(_GETGID)
    return code + rr(b"\xc1", 4, RAX, True) + b"\x20" + rr(b"\x09", R8, RAX, True) + b"\xc3"


def _comm(facts: Facts) -> bytes:
    """comm(buffer of 16 bytes)."""
    return mov(RSI, RDI) + mov_imm(RDI, _PR_GET_NAME) + _system_call(_PRCTL) + b"\xc3"


def _word(offset: int, wide: bool) -> bytes:
    return mem(b"\x8b", RAX, R12, offset, wide) + b"\xc3"


def _random(facts: Facts) -> bytes:
    """A step of a counter, mixed (splitmix64). What two threads read at the same time may be the same."""
    code = mov_imm(RDX, facts.state + frame.RANDOM) + mov_imm(RAX, 0x9E3779B97F4A7C15)
    code += b"\xf0" + mem(b"\x0f\xc1", RAX, RDX, 0, True)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB), (31, 0)):
        code += mov(RCX, RAX) + rr(b"\xc1", 5, RCX, True) + bytes([shift]) + rr(b"\x31", RCX, RAX, True)
        code += mov_imm(RCX, factor) + rr(b"\x0f\xaf", RAX, RCX, True) if factor else b""
    return code + mov(RAX, RAX, False) + b"\xc3"


def _tgkill(facts: Facts) -> bytes:
    """tgkill(signal, 1: the thread, 0: the process)."""
    thread = mov(RDX, RDI, False) + mov(RDI, R9) + mov(RSI, R8) + _system_call(_TGKILL) + b"\xc3"
    process = mov(RSI, RDI, False) + mov(RDI, R9) + _system_call(_KILL) + b"\xc3"
    code = push(RDI) + push(RSI) + _tid(facts) + mov(R8, RAX, False) + _tgid(facts) + mov(R9, RAX, False)
    code += pop(RSI) + pop(RDI) + rr(b"\x85", RSI, RSI, False)
    return code + bytes([0x74, len(thread)]) + thread + process


def _registers(facts: Facts) -> bytes:
    """The address of the frame's struct pt_regs."""
    return mem(b"\x8d", RAX, R12, frame.REGS, True) + b"\xc3"


_PRIMITIVES: dict[str, Callable[[Facts], bytes]] = {
    "check": _check,
    "clock": _clock,
    "boot_time": _counted(7, 0),
    "monotonic_time": _counted(1, 24),
    "pid_tgid": _pid_tgid,
    "uid_gid": _uid_gid,
    "comm": _comm,
    "cpu": lambda facts: _word(frame.CPU, False),
    "cookie": lambda facts: _word(frame.COOKIE, True),
    "function": lambda facts: _word(frame.PLACE, True),
    "random": _random,
    "tgkill": _tgkill,
    "registers": _registers,
    "check_write": _check_write,
    "override": _override,
}


# Helpers as eBPF ----------------------------------------------------------------------------------------------------


def _call(name: str) -> str:
    return f"call {NUMBERS[name]}"


def _zero(dst: str, size: str, label: str) -> list[str]:
    """Fill `size` bytes at `dst` with zeros; both registers change."""
    return [
        f"{label}: if {size} == 0x0 goto {label}_end", f"*(u8 *)({dst} +0) = 0", f"{dst} += 1", f"{size} += -1",
        f"goto {label}", f"{label}_end:",
    ]  # fmt: skip


# r6 to, r7 bytes left, r8 from; on the stack what the caller gave, for the case that it goes wrong.
_BEGIN_READ = ["r6 = r1", "r7 = r2", "r8 = r3", "*(u64 *)(r10 -8) = r1", "*(u64 *)(r10 -16) = r2"]
_FAULT = [
    "fault: r1 = *(u64 *)(r10 -8)", "r2 = *(u64 *)(r10 -16)", *_zero("r1", "r2", "zero"), f"r0 = {-EFAULT}", "exit",
]  # fmt: skip
# r9: how many of the bytes that are left lie in the page that r8 points to.
_IN_PAGE = ["r1 = r8", "r1 &= 0xfff", "r9 = 4096", "r9 -= r1", "if r9 <= r7 goto piece", "r9 = r7", "piece:"]

_READ = [
    *_BEGIN_READ,
    "next: if r7 == 0x0 goto done", "r1 = r8", _call("check"), "if r0 != 0x0 goto fault",
    *_IN_PAGE, "r7 -= r9",
    "words: if r9 < 0x8 goto bytes", "r1 = *(u64 *)(r8 +0)", "*(u64 *)(r6 +0) = r1",
    "r8 += 8", "r6 += 8", "r9 += -8", "goto words",
    "bytes: if r9 == 0x0 goto next", "r1 = *(u8 *)(r8 +0)", "*(u8 *)(r6 +0) = r1",
    "r8 += 1", "r6 += 1", "r9 += -1", "goto bytes",
    "done: r0 = 0", "exit",
    *_FAULT,
]  # fmt: skip

# The NUL counts; a string that does not fit is cut, and its last byte is the NUL.
_READ_STR = [
    *_BEGIN_READ, "if r7 == 0x0 goto empty",
    "next: r1 = r8", _call("check"), "if r0 != 0x0 goto fault",
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

_NOT_HERE = ["r6 = r2", *_zero("r1", "r6", "zero"), f"r0 = {-EFAULT}", "exit"]  # the kernel's memory

# All pages are asked for before the first byte is written; r9: the end.
_WRITE = [
    "r6 = r1", "r7 = r3", "r8 = r2", "r9 = r1", "r9 += r3", "*(u64 *)(r10 -8) = r1", "if r9 < r6 goto fault",
    "page: if r6 >= r9 goto write", "r1 = r6", _call("check_write"), "if r0 != 0x0 goto fault",
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
    "some: *(u64 *)(r10 -16) = 0", "*(u64 *)(r10 -8) = 0", "r1 = r10", "r1 += -16", _call("comm"),
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


def _take(name: str) -> list[str]:
    """Add the address in r1 to the stack at r7, unless it is one of those to be skipped; r8: the room that is left."""
    return [
        "r2 = *(u64 *)(r10 -24)", f"if r2 == 0x0 goto {name}", "r2 += -1", "*(u64 *)(r10 -24) = r2", f"goto {name}_end",
        f"{name}:", "if r8 < 0x8 goto done", "*(u64 *)(r7 +0) = r1", "r7 += 8", "r8 += -8", f"{name}_end:",
    ]  # fmt: skip


def _stack() -> list[str]:
    """get_stack(ctx, buffer, bytes, flags): the user stack by frame pointers; at a function's first instruction its caller is on top of the stack."""
    regs, kind = frame.OFFSETS, frame.KIND - frame.REGS
    return [
        "*(u64 *)(r10 -8) = r3", "r5 = r4", "r5 &= 255", "*(u64 *)(r10 -24) = r5", "r4 &= -256",
        f"if r4 == {_USER_STACK} goto user", f"r0 = {-EOPNOTSUPP}", "exit",
        "user: r7 = r2", "r8 = r3", _call("registers"), "r6 = r0",
        f"r1 = *(u64 *)(r6 +{regs['ip']})", *_take("first"),
        f"r9 = *(u64 *)(r6 +{regs['sp']})",
        f"r1 = *(u64 *)(r6 {kind:+d})", f"if r1 != {frame.ENTRY} goto frames",
        "r1 = *(u64 *)(r9 +0)", *_take("caller"),
        f"frames: r6 = *(u64 *)(r6 +{regs['bp']})",
        "walk: if r6 < r9 goto done", "r1 = r6", "r1 &= 7", "if r1 != 0x0 goto done",
        "r1 = r6", _call("check"), "if r0 != 0x0 goto done", "r1 = r6", "r1 += 8", _call("check"), "if r0 != 0x0 goto done",
        "r1 = *(u64 *)(r6 +8)", "if r1 == 0x0 goto done", *_take("frame"),
        "r9 = r6", "r9 += 16", "r6 = *(u64 *)(r6 +0)", "goto walk",
        "done: r0 = *(u64 *)(r10 -8)", "r0 -= r8", "r0 &= -8", "exit",
    ]  # fmt: skip


def _signal(thread: int) -> list[str]:
    return [f"r2 = {thread}", _call("tgkill"), "exit"]


# Name to the lines of the routine.
ROUTINES: dict[str, list[str]] = {
    "probe_read": _READ,
    "probe_read_user": _READ,
    "probe_read_str": _READ_STR,
    "probe_read_user_str": _READ_STR,
    "probe_read_kernel": _NOT_HERE,
    "probe_read_kernel_str": _NOT_HERE,
    "ktime_get_coarse_ns": ["r1 = 6", _call("clock"), "exit"],
    "ktime_get_tai_ns": ["r1 = 11", _call("clock"), "exit"],
    "probe_write_user": _WRITE,
    "get_current_comm": _COMM,
    "strncmp": _STRNCMP,
    "get_stack": _stack(),
    "send_signal": _signal(0),
    "send_signal_thread": _signal(1),
}

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
}

# Helpers that the JIT puts behind each program that calls them (bpf.maps.machine): of maps, the first argument is one.
OF_MAPS = frozenset([
    "map_lookup_elem", "map_update_elem", "map_delete_elem", "map_lookup_percpu_elem", "map_push_elem", "map_pop_elem", "map_peek_elem",
    "for_each_map_elem", "ringbuf_output", "ringbuf_reserve", "ringbuf_query",
])  # fmt: skip
IN_PROGRAMS = frozenset(["loop", "ringbuf_submit", "ringbuf_discard"])
UNSAFE = frozenset(["probe_write_user", "override_return"])
NAMES = (frozenset([*ROUTINES, *DIRECT]) | OF_MAPS | IN_PROGRAMS) - UNSAFE


def caller_stub() -> bytes:
    """r5 = who asks, as routines of maps want to know it: the slot plus 1 (a thread, for them), and the slot as the number of a CPU."""
    code = mem(b"\x8b", R8, R12, frame.SLOT, False) + mem(b"\x8d", R9, R8, 1, False)
    return code + rr(b"\xc1", 4, R8, True) + b"\x20" + rr(b"\x09", R9, R8, True)

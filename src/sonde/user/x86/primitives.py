"""The primitives of helpers as x86-64 code, and the door of those that work on any map."""

from __future__ import annotations

from errno import EFAULT, EINVAL, EOPNOTSUPP, EPERM

from ...bpf.jit.x86_encoding import (
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
from .. import frame
from .code import BELOW, NOT_EQUAL, Code
from .registers import OFFSETS, RECORD

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ..helpers import Facts

_FUTEX_TID_MASK = (1 << 30) - 1
_FUTEX, _FUTEX_WAKE_OP_PRIVATE = 202, 5 | 128
_ADD_0_IF_ODD = 1 << 28 | 0x800  # add 0 to the second word; wake who waits for it if it was -2048, which nobody's is
_RT_SIGPROCMASK, _PRCTL, _GETTID, _GETPID, _GETUID, _GETGID, _TGKILL, _KILL = 14, 157, 186, 39, 102, 104, 234, 62
_PR_GET_NAME = 16


def _system_call(number: int) -> bytes:
    return mov_imm(RAX, number) + SYSCALL


def own_page() -> bytes:
    """Return 0 for an address in the frame's own page, which need not be asked for; else go on."""
    return mov(RAX, RDI) + rr(b"\x31", R12, RAX, True) + rr(b"\xc1", 5, RAX, True) + b"\x0c\x75\x01\xc3"  # shr 12; jne


def ask_for_page() -> bytes:
    """Return 0 when the kernel can read the eight bytes around an address. It takes the null page for "no request"."""
    ask = mov_imm(RDI, 0xFFFFFFFF) + mov_imm(RDX, 0) + mov_imm(R10, 8) + _system_call(_RT_SIGPROCMASK)
    ask += alu_imm(7, RAX, -EFAULT, True) + b"\x0f\x94\xc0\x0f\xb6\xc0\xc3"  # sete al; movzx eax, al
    return mov_imm(RAX, 1) + mov(RSI, RDI) + alu_imm(4, RSI, -8, True) + bytes([0x75, 1, 0xC3]) + ask


def _check(facts: Facts) -> bytes:
    """check(address): 0 when the eight bytes around it can be read."""
    return own_page() + ask_for_page()


def _while_owned(facts: Facts) -> bytes:
    """Return -EPERM when sonde has ended."""
    code, end = mov_imm(RAX, facts.state + frame.OWNER), mov_imm(RAX, -EPERM) + b"\xc3"
    return code + mem(b"\xf7", 0, RAX, 0, False) + imm(_FUTEX_TID_MASK) + bytes([0x75, len(end)]) + end  # test, jnz


def _check_write(facts: Facts) -> bytes:
    """check_write(address): 0 when the page can be written to. The kernel adds 0 to a word there, as one step, so that nobody sees anything.

    It is the system call that every program with threads makes, also one that is confined. Nobody waits at the word that it is to wake waiters of.
    """
    code = _while_owned(facts) + mov(R8, RDI) + alu_imm(4, R8, -4, True) + mov_imm(RDI, facts.state)
    code += (
        mov_imm(RSI, _FUTEX_WAKE_OP_PRIVATE)
        + mov_imm(RDX, 0)
        + mov_imm(R10, 0)
        + mov_imm(R9, _ADD_0_IF_ODD)
        + _system_call(_FUTEX)
    )
    return code + rr(b"\xc1", 5, RAX, False) + b"\x1f\xc3"  # shr eax, 31: errors are negative


def _override(facts: Facts) -> bytes:
    """override(context, value): what the function, or the place where it returns, is to return; -EINVAL elsewhere, where a tail call may have come from."""
    end = mov_imm(RAX, -EINVAL) + b"\xc3"
    code = _while_owned(facts) + mem(b"\x83", 7, R12, frame.OVERRIDE, True) + bytes([frame.KEPT, 0x75, len(end)]) + end
    code += mem(b"\x89", RSI, R12, frame.REGS + OFFSETS["ax"], True)
    code += mem(b"\xc7", 0, R12, frame.OVERRIDE, True) + imm(frame.OVERRIDDEN)
    return code + rr(b"\x31", RAX, RAX, False) + b"\xc3"


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
    """Who is running. A child of vfork finds its parent's numbers in memory: while there may be one the kernel is asked."""
    both = rr(b"\xc1", 4, RAX, True) + b"\x20" + rr(b"\x09", R8, RAX, True) + b"\xc3"
    known = _tid(facts) + mov(R8, RAX, False) + _tgid(facts) + both
    if not facts.vforks:
        return known
    asked = _system_call(_GETTID) + mov(R8, RAX, False) + _system_call(_GETPID) + both
    look = mov_imm(RAX, facts.state + frame.VFORKS) + mem(b"\x83", 7, RAX, 0, False) + b"\0"  # cmp
    return look + bytes([0x75, len(known)]) + known + asked  # jne


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


def _node(facts: Facts) -> bytes:
    """The memory node of the CPU, which the kernel keeps for the vdso above the CPU's number: mov eax, 0x7b; lsl eax, eax; shr eax, 12."""
    return b"\xb8\x7b\x00\x00\x00\x0f\x03\xc0\xc1\xe8\x0c\xc3"


def _registers(facts: Facts) -> bytes:
    """The address of the frame's struct pt_regs."""
    return mem(b"\x8d", RAX, R12, frame.REGS, True) + b"\xc3"


def _own(facts: Facts) -> bytes:
    """own(address): 0 for one in the stack of the program that runs, or in memory of sonde's: pages have it as a whole, or not. The page of the stack pointer is there, and so is all up to the frame."""
    code = Code()
    code.add(mov(RAX, RSP), alu_imm(4, RAX, -4096, True), rr(b"\x39", RAX, RDI, True))
    code.jump("above", BELOW)
    code.add(mem(b"\x8d", RAX, R12, RECORD + frame.RECORD_BYTES, True), rr(b"\x39", RAX, RDI, True))
    code.jump("own", BELOW)
    code.label("above")
    for start, size in facts.memories:
        code.add(mov(RAX, RDI), mov_imm(RCX, start), rr(b"\x29", RCX, RAX, True), mov_imm(RCX, size))
        code.add(rr(b"\x39", RCX, RAX, True))
        code.jump("own", BELOW)
    code.add(mov_imm(RAX, 1), b"\xc3")
    code.label("own")
    code.add(rr(b"\x31", RAX, RAX, False), b"\xc3")
    return code.finish()


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
    "node": _node,
    "check_write": _check_write,
    "override": _override,
    "own": _own,
}


def primitive(name: str, facts: Facts) -> bytes:
    """The code of a primitive: arguments and result as helpers have them."""
    return _PRIMITIVES[name](facts)


def map_door(routines: Iterable[tuple[int, int, bool]]) -> bytes:
    """A helper of maps for calls that do not say which map. `routines`: the map's address, that of its routine, whether it wants to know who asks."""
    code = Code()
    for at, (table, target, who) in enumerate(routines):
        code.add(mov_imm(RAX, table), rr(b"\x39", RAX, RDI, True))
        code.jump(str(at), NOT_EQUAL)
        code.add(_caller() if who else b"", mov_imm(RAX, target), b"\xff\xe0")
        code.label(str(at))
    code.add(mov_imm(RAX, -EOPNOTSUPP), b"\xc3")
    return code.finish()


def _caller() -> bytes:
    """r5 = who asks, as routines of maps want to know it: the slot plus 1 (a thread, for them), and the slot as the number of a CPU."""
    code = mem(b"\x8b", R8, R12, frame.SLOT, False) + mem(b"\x8d", R9, R8, 1, False)
    return code + rr(b"\xc1", 4, R8, True) + b"\x20" + rr(b"\x09", R9, R8, True)

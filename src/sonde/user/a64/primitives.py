"""The primitives of helpers as aarch64 code, and the door of those that work on any map.

They use the registers that the trampoline keeps (`trampoline`); what calls code of the vdso, which is C, saves the others.
"""

from __future__ import annotations

from errno import EFAULT, EINVAL, EOPNOTSUPP, EPERM

from ...bpf.jit.a64_encoding import (
    FP,
    LOAD,
    LR,
    SP,
    STORE,
    SYSCALL,
    X0,
    X1,
    X2,
    X3,
    X4,
    X5,
    X7,
    X8,
    X9,
    X10,
    X11,
    X16,
    ZERO,
    add_imm,
    memory,
    mov,
    mov_imm,
    pop,
    push,
    word,
)
from .. import frame
from .code import (
    BELOW,
    EQUAL,
    READ_COUNTER,
    READ_THREAD,
    RET,
    Code,
    add_shifted,
    compare,
    exclusive_load,
    exclusive_store,
    multiply,
    or_shifted,
    shift_right,
    subtract,
)
from .registers import FRAME, OFFSETS, RECORD

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ..helpers import Facts

_FUTEX, _CLOCK_GETTIME, _KILL, _TGKILL, _RT_SIGPROCMASK, _PRCTL = 98, 113, 129, 131, 135, 167
_GETCPU, _GETPID, _GETUID, _GETGID, _GETTID = 168, 172, 174, 176, 178
_PR_GET_NAME = 16
_FUTEX_WAKE_OP_PRIVATE = 5 | 128
_ADD_0_IF_ODD = 1 << 28 | 0x800  # see x86.primitives
_PACIA1716 = 0xD503211F
_OTHERS = ((6, 12), (13, 14), (15, 17))  # what C functions may change and trampolines do not save


def _system_call(number: int) -> bytes:
    return mov_imm(X8, number) + SYSCALL


def _load(register: int, base: int, offset: int, wide: bool = True) -> bytes:
    return memory(LOAD, 2 + wide, register, base, offset)


def _check(facts: Facts) -> bytes:
    """check(address): 0 when the eight bytes around it can be read. The kernel takes the null page for "no request", and need not be asked for the frame's own page."""
    code = Code()
    code.add(word(0xCA000001 | FRAME << 16), word(0xD34CFC21))  # eor x1, x0, frame; lsr x1, x1, 12
    code.jump_if_zero("here", X1)
    code.add(word(0x927DF000 | X0 << 5 | X1), mov_imm(X0, 1))  # and x1, x0, -8
    code.jump_if_zero("null", X1)
    code.add(mov_imm(X0, 0xFFFFFFFF), mov_imm(X2, 0), mov_imm(X3, 8), _system_call(_RT_SIGPROCMASK))
    code.add(add_imm(X0, X0, EFAULT), word(0xF100001F | X0 << 5), word(0x9A9F07E0 | (EQUAL ^ 1) << 12 | X0))  # cset eq
    code.label("null")
    code.add(RET)
    code.label("here")
    code.add(mov_imm(X0, 0), RET)
    return code.finish()


def _while_owned(code: Code, facts: Facts) -> None:
    """Return -EPERM when sonde has ended. Uses x9."""
    code.add(mov_imm(X9, facts.state + frame.OWNER), _load(X9, X9, 0, False), word(0x12007400 | X9 << 5 | X9))
    code.jump_if_zero("owned", X9, wide=False, is_zero=False)  # the and has taken the bits above FUTEX_TID_MASK
    code.add(mov_imm(X0, -EPERM), RET)
    code.label("owned")


def _check_write(facts: Facts) -> bytes:
    """check_write(address): 0 when the page can be written to, see x86.primitives."""
    code = Code()
    _while_owned(code, facts)
    code.add(word(0x927EF400 | X0 << 5 | X4), mov_imm(X0, facts.state), mov_imm(X1, _FUTEX_WAKE_OP_PRIVATE))  # and x4
    code.add(mov_imm(X2, 0), mov_imm(X3, 0), mov_imm(X5, _ADD_0_IF_ODD), _system_call(_FUTEX))
    code.add(shift_right(X0, X0, 63), RET)
    return code.finish()


def _override(facts: Facts) -> bytes:
    """override(context, value): what the function, or the place where it returns, is to return; -EINVAL elsewhere, where a tail call may have come from."""
    code = Code()
    _while_owned(code, facts)
    code.add(_load(X9, FRAME, frame.OVERRIDE), add_imm(X9, X9, -frame.KEPT), mov_imm(X0, -EINVAL))
    code.jump_if_zero("kept", X9)
    code.add(memory(STORE, 3, X1, FRAME, frame.REGS + OFFSETS["r0"]), mov_imm(X0, frame.OVERRIDDEN))
    code.add(memory(STORE, 3, X0, FRAME, frame.OVERRIDE), mov_imm(X0, 0))
    code.label("kept")
    code.add(RET)
    return code.finish()


def _clock(facts: Facts) -> bytes:
    """clock(number): nanoseconds."""
    code = push(FP, LR) + b"".join(push(*pair) for pair in _OTHERS) + add_imm(SP, SP, -16) + add_imm(X1, SP, 0)
    if facts.clock:
        code += mov_imm(X16, facts.clock) + word(0xD63F0000 | X16 << 5)  # blr
    else:
        code += _system_call(_CLOCK_GETTIME)
    code += _load(X0, SP, 0) + _load(X1, SP, 8) + mov_imm(X2, 1_000_000_000) + multiply(X0, X0, X2)
    code += add_shifted(X0, X0, X1) + add_imm(SP, SP, 16) + b"".join(pop(*pair) for pair in reversed(_OTHERS))
    return code + pop(FP, LR) + RET


def _counted(number: int, offset: int) -> Callable[[Facts], bytes]:
    """A clock by the processor's counter, along the line that sonde keeps up to date; by system call as long as there is none."""

    def make(facts: Facts) -> bytes:
        code = Code()
        code.add(mov_imm(X9, facts.state), _load(X10, X9, frame.CLOCK))
        code.jump_if_zero("slow", X10)
        code.add(add_shifted(X9, X9, X10), _load(X1, X9, 0), word(READ_COUNTER | X0))
        code.add(word(0xEB000000 | X1 << 16 | X0 << 5 | X0))  # subs: the counter may have been read before the line
        code.add(word(0x9A800000 | ZERO << 16 | 2 << 12 | X0 << 5 | X0))  # csel: 0 then
        code.add(_load(X2, X9, 16), word(0x9BC07C00 | X2 << 16 | X0 << 5 | X3), multiply(X0, X0, X2))  # umulh
        code.add(word(0x93C00000 | X0 << 16 | 32 << 10 | X3 << 5 | X0))  # extr: bits 32 to 95 of the product
        code.add(_load(X1, X9, 8), add_shifted(X0, X0, X1))
        if offset:
            code.add(_load(X1, X9, offset), add_shifted(X0, X0, X1))
        code.add(RET)
        code.label("slow")
        code.add(mov_imm(X0, number), _clock(facts))
        return code.finish()

    return make


def _tgid(code: Code, facts: Facts) -> None:
    """The number of the process to w0: kept in a page that is empty in a child. Uses x8, x9."""
    code.add(mov_imm(X9, facts.private + frame.PROCESS), _load(X0, X9, 0, False))
    code.jump_if_zero("known", X0, wide=False, is_zero=False)
    code.add(_system_call(_GETPID), memory(STORE, 2, X0, X9, 0))
    code.label("known")


def _tid(facts: Facts) -> bytes:
    """The number of the thread to w0. Uses x8, x11."""
    if facts.tid_offset != -1:
        return word(READ_THREAD | X0) + _load(X0, X0, facts.tid_offset, False)
    return _system_call(_GETTID)


def _pid_tgid(facts: Facts) -> bytes:
    code = Code()
    code.add(_tid(facts), mov(X7, X0, False))
    _tgid(code, facts)
    code.add(or_shifted(X0, X7, X0, 32), RET)
    return code.finish()


def _uid_gid(facts: Facts) -> bytes:
    code = _system_call(_GETUID) + mov(X7, X0, False) + _system_call(_GETGID)
    return code + or_shifted(X0, X7, X0, 32) + RET


def _comm(facts: Facts) -> bytes:
    """comm(buffer of 16 bytes)."""
    return mov(X1, X0) + mov_imm(X0, _PR_GET_NAME) + _system_call(_PRCTL) + RET


def _word(offset: int, wide: bool) -> Callable[[Facts], bytes]:
    return lambda facts: _load(X0, FRAME, offset, wide) + RET


def _cpu(facts: Facts) -> bytes:
    """The number of the CPU: the frame's, where threads have it from the kernel."""
    if facts.knows_cpu:
        return _load(X0, FRAME, frame.CPU, False) + RET
    return _getcpu(0)


def _getcpu(word_at: int) -> bytes:
    """getcpu(2): the number of the CPU, and four bytes on that of its memory node."""
    code = add_imm(SP, SP, -16) + add_imm(X0, SP, 0) + add_imm(X1, SP, 4) + mov_imm(X2, 0) + _system_call(_GETCPU)
    return code + _load(X0, SP, word_at, False) + add_imm(SP, SP, 16) + RET


def _random(facts: Facts) -> bytes:
    """A step of a counter, mixed (splitmix64)."""
    code = Code()
    code.add(mov_imm(X9, facts.state + frame.RANDOM), mov_imm(X10, frame.HASH))
    code.label("again")
    code.add(exclusive_load(X0, X9), add_shifted(X11, X0, X10), exclusive_store(X16, X11, X9))
    code.jump_if_zero("again", X16, wide=False, is_zero=False)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB), (31, 0)):
        code.add(word(0xCA400000 | X0 << 16 | shift << 10 | X0 << 5 | X0))  # eor x0, x0, x0, lsr
        code.add(mov_imm(X10, factor) + multiply(X0, X0, X10) if factor else b"")
    code.add(mov(X0, X0, False), RET)
    return code.finish()


def _tgkill(facts: Facts) -> bytes:
    """tgkill(signal, 1: the thread, 0: the process)."""
    code = Code()
    code.add(mov(X4, X0), mov(X5, X1), _tid(facts), mov(X7, X0, False))
    _tgid(code, facts)
    code.jump_if_zero("process", X5, wide=False)
    code.add(mov(X1, X7), mov(X2, X4, False), _system_call(_TGKILL), RET)
    code.label("process")
    code.add(mov(X1, X4, False), _system_call(_KILL), RET)
    return code.finish()


def _registers(facts: Facts) -> bytes:
    """The address of the frame's struct user_pt_regs."""
    return add_imm(X0, FRAME, frame.REGS) + RET


def _sign(facts: Facts) -> bytes:
    """sign(address, stack pointer): as `paciasp` signs it, where the processor and the process do that."""
    code = push(X16, 17) + mov(17, X0) + mov(X16, X1) + word(_PACIA1716)
    return code + mov(X0, 17) + pop(X16, 17) + RET


def _own(facts: Facts) -> bytes:
    """own(address): see x86.primitives."""
    code = Code()
    code.add(add_imm(X9, SP, 0), word(0x9274CC00 | X9 << 5 | X9), compare(X0, X9))  # and x9, x9, -4096
    code.jump("above", BELOW)
    code.add(add_imm(X9, FRAME, RECORD + frame.RECORD_BYTES), compare(X0, X9))
    code.jump("own", BELOW)
    code.label("above")
    for start, size in facts.memories:
        code.add(mov_imm(X9, start), subtract(X9, X0, X9), mov_imm(X10, size), compare(X9, X10))
        code.jump("own", BELOW)
    code.add(mov_imm(X0, 1), RET)
    code.label("own")
    code.add(mov_imm(X0, 0), RET)
    return code.finish()


_PRIMITIVES: dict[str, Callable[[Facts], bytes]] = {
    "check": _check,
    "clock": _clock,
    "boot_time": _counted(7, 0),
    "monotonic_time": _counted(1, 24),
    "pid_tgid": _pid_tgid,
    "uid_gid": _uid_gid,
    "comm": _comm,
    "cpu": _cpu,
    "cookie": _word(frame.COOKIE, True),
    "function": _word(frame.PLACE, True),
    "random": _random,
    "tgkill": _tgkill,
    "registers": _registers,
    "sign": _sign,
    "check_write": _check_write,
    "override": _override,
    "own": _own,
    "node": lambda facts: _getcpu(4),
}


def primitive(name: str, facts: Facts) -> bytes:
    """The code of a primitive: arguments and result as helpers have them."""
    return _PRIMITIVES[name](facts)


def map_door(routines: Iterable[tuple[int, int, bool]]) -> bytes:
    """See `user.machine`. Who asks is the slot plus 1 (a thread, for routines of maps), and the slot as the number of a CPU."""
    code = Code()
    for at, (table, target, who) in enumerate(routines):
        code.add(mov_imm(X9, table), subtract(X9, X9, X0))
        code.jump_if_zero(str(at), X9, is_zero=False)
        if who:
            code.add(_load(X9, FRAME, frame.SLOT, False), add_imm(X4, X9, 1), or_shifted(X4, X4, X9, 32))
        code.add(mov_imm(X16, target), word(0xD61F0000 | X16 << 5))  # br
        code.label(str(at))
    code.add(mov_imm(X0, -EOPNOTSUPP), RET)
    return code.finish()

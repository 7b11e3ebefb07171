"""The machine code of halts (see `user.halts`): routines that trampolines call like programs. r12 is the frame; integer registers but those that calls keep are lost."""

from __future__ import annotations

from errno import EAGAIN, EINTR, ETIMEDOUT

from ...bpf.jit.x86_encoding import (
    R8,
    R9,
    R10,
    R12,
    RAX,
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
    rr,
)
from .. import frame
from .code import BELOW, EQUAL, NOT_EQUAL, Code, jump_to
from .registers import NUMBERS, RECORD
from .trampoline import event

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..ptrace import Registers
    from ..runners import Calls, Surroundings

EXEC_NUMBERS = (59, 322)  # execve, execveat
VFORK_NUMBERS = (58, 56, 435)  # vfork, clone, clone3: all of these, as what they ask for is not looked at
_FUTEX, _GETPID, _GETTID, _CLOCK_GETTIME = 202, 39, 186, 228
_WAIT_UNTIL, _MONOTONIC = 9, 1  # FUTEX_WAIT_BITSET: the time is a moment, so that signals do not prolong the wait
_OWNED = 0x3FFFFFFF  # FUTEX_TID_MASK: the kernel leaves another bit when the owner has died
_SECOND_NS = 1_000_000_000
_ADD, _SUB, _CMP = 0, 5, 7
_SIGN_CLEAR = 9
_TIME, _NUMBER, _ROOM = 0, 16, 24  # on the stack: a timespec, the number drawn
_LOAD, _STORE, _TEST, _SET = b"\x8b", b"\x89", b"\xf7", b"\xc7"


def exec_halt(state: int, pid: int) -> bytes:
    """The routine before a call of exec, of which the frame's record tells. `state` is where the process has it, `pid` what the process calls itself."""
    code = _open(Code(), state, frame.EXEC, pid)
    code.add(mov_imm(RAX, _GETTID), SYSCALL, mov(RDX, RAX, False), rr(b"\x31", RAX, RAX, False))
    code.add(b"\xf0", mem(b"\x0f\xb1", RDX, R8, frame.EXECING, False))  # lock cmpxchg
    code.jump("pass", NOT_EQUAL)  # another thread is at it: one of the two will be killed
    for place in range(frame.EXEC_CALL_WORDS):
        code.add(mem(_LOAD, RAX, R12, RECORD + 8 + 8 * place, True))
        code.add(mem(_STORE, RAX, R8, frame.EXEC_CALL + 8 * place, True))
    return _wait(code)


def exec_done(state: int) -> bytes:
    """The routine behind a call of exec that has failed."""
    code = Code()
    code.add(mov_imm(R8, state), mem(_LOAD, RDX, R8, frame.EXECING, False), rr(b"\x85", RDX, RDX, False))
    code.jump("pass", EQUAL)
    code.add(mov_imm(RAX, _GETTID), SYSCALL, rr(b"\x39", RAX, RDX, False))
    code.jump("pass", NOT_EQUAL)
    code.add(mem(_SET, 0, R8, frame.EXECING, False) + imm(0))
    code.label("pass")
    code.add(b"\xc3")
    return code.finish()


def vfork_begins(state: int) -> bytes:
    """The routine before a call that may make a child in this memory: until it ends, threads ask the kernel who they are."""
    code = Code()
    code.add(mov_imm(R8, state), b"\xf0", mem(b"\xff", 0, R8, frame.VFORKS, False), b"\xc3")  # lock inc
    return code.finish()


def vfork_ends(state: int) -> bytes:
    """The routine behind it, in the parent: a child finds 0 in rax, and the call goes on."""
    code = Code()
    code.add(mov_imm(R8, state), mem(b"\x83", _CMP, R12, RECORD + 16, True) + b"\0")
    code.jump("child", EQUAL)
    code.add(b"\xf0", mem(b"\xff", 1, R8, frame.VFORKS, False))  # lock dec
    code.label("child")
    code.add(b"\xc3")
    return code.finish()


def files_halt(state: int, pid: int, changing: int) -> bytes:
    """The routine in the loader's function. `changing` is the address of a word that is not 0 while its list is not complete; 0: nobody knows of one."""
    code = Code()
    if changing:
        code.add(mov_imm(RAX, changing), mem(b"\x83", _CMP, RAX, 0, False) + b"\0")
        code.jump("pass", NOT_EQUAL)
    return _wait(_open(code, state, frame.FILES, pid))


def born(at: int, call: Sequence[int], calls: Calls, around: Surroundings, registers: Registers) -> bytes:
    """The code before the first instruction of a program, at `registers`: the begin and the end of the `call` of exec (number and arguments) that has led there, then that instruction."""
    code = Code()
    enters, exits = ([runner for _, runner in runners] for runners in (calls.enters, calls.exits))
    if enters:
        for register, value in zip((RAX, RDI, RSI, RDX, R10, R8, R9), (*call, *[0] * 7)):
            code.add(mov_imm(register, value))
        event(code, at, enters, around, registers.pc, exits=False)
    if exits:
        code.add(mov_imm(RAX, 0), mov_imm(RCX, call[0]))
        event(code, at, exits, around, registers.pc, exits=True)
    for name in ("ax", "cx", "di", "si", "dx", "r8", "r9", "r10", "r11"):
        code.add(mov_imm(NUMBERS[name], registers[name if name[0] == "r" else f"r{name}"]))
    code.add(jump_to(at + len(code.bytes), registers.pc))
    return code.finish()


def _open(code: Code, state: int, halt: int, pid: int) -> Code:
    """Pass where sonde does not wait, or is dead, and where the thread is not of this process. r8: the state."""
    code.add(mov_imm(R8, state), mem(_TEST, 0, R8, frame.HALTS, False) + imm(halt))
    code.jump("pass", EQUAL)
    code.add(mem(_TEST, 0, R8, frame.OWNER, False) + imm(_OWNED))
    code.jump("pass", EQUAL)
    code.add(mov_imm(RAX, _GETPID), SYSCALL, rr(b"\x81", _CMP, RAX, False) + imm(pid))
    code.jump("pass", NOT_EQUAL)
    return code


def _wait(code: Code) -> bytes:
    """Draw a number and wait until it is served; then return to whoever called the routine."""
    code.add(alu_imm(_SUB, RSP, _ROOM, True))
    code.add(mov_imm(RAX, _CLOCK_GETTIME), mov_imm(RDI, _MONOTONIC), mov(RSI, RSP), SYSCALL)
    code.add(mem(_LOAD, RAX, RSP, _TIME + 8, True), alu_imm(_ADD, RAX, frame.PATIENCE_NS, True))
    code.add(alu_imm(_CMP, RAX, _SECOND_NS, True))
    code.jump("soon", BELOW)
    code.add(alu_imm(_SUB, RAX, _SECOND_NS, True), mem(b"\x83", _ADD, RSP, _TIME, True) + b"\x01")
    code.label("soon")
    code.add(mem(_STORE, RAX, RSP, _TIME + 8, True))
    code.add(mov_imm(RAX, 1), b"\xf0", mem(b"\x0f\xc1", RAX, R8, frame.ASKED, False))  # lock xadd
    code.add(alu_imm(_ADD, RAX, 1, False), mem(_STORE, RAX, RSP, _NUMBER, False))
    code.label("again")
    code.add(mem(_LOAD, RDX, R8, frame.SERVED, False), mov(RAX, RDX, False), mem(b"\x2b", RAX, RSP, _NUMBER, False))
    code.jump("leave", _SIGN_CLEAR)
    code.add(mem(b"\x8d", RDI, R8, frame.SERVED, True), mov_imm(RSI, _WAIT_UNTIL), mov(R10, RSP))
    code.add(mov_imm(R9, 0xFFFFFFFF), mov_imm(RAX, _FUTEX), SYSCALL)
    for result in (0, -EAGAIN, -EINTR):
        code.add(alu_imm(_CMP, RAX, result, True))
        code.jump("again", EQUAL)
    code.add(alu_imm(_CMP, RAX, -ETIMEDOUT, True))
    code.jump("leave", NOT_EQUAL)  # it may not wait
    code.add(mem(_TEST, 0, R8, frame.OWNER, False) + imm(_OWNED))
    code.jump("give up", EQUAL)
    code.add(mem(b"\x83", _CMP, R8, frame.PATIENT, False) + b"\0")
    code.jump("give up", EQUAL)
    code.add(mem(b"\x83", _ADD, RSP, _TIME, True) + b"\x01")
    code.jump("again")
    code.label("give up")
    code.add(mem(_SET, 0, R8, frame.HALTS, False) + imm(0))
    code.label("leave")
    code.add(alu_imm(_ADD, RSP, _ROOM, True))
    code.label("pass")
    code.add(b"\xc3")
    return code.finish()

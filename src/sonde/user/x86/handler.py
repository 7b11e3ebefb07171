"""The signal handlers of `user.handlers` on x86-64. For a breakpoint the counter stands behind int3, for a fault on the instruction."""

from __future__ import annotations

from ...bpf.jit.x86_encoding import (
    R8,
    R9,
    R10,
    RAX,
    RCX,
    RDI,
    RDX,
    RSI,
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
from .code import EQUAL, NOT_EQUAL, Code

BREAKPOINT = b"\xcc"
_SIGTRAP, _SI_KERNEL = 5, 0x80
_RT_SIGACTION, _RT_SIGRETURN, _GETPID, _GETTID, _TGKILL = 13, 15, 39, 186, 234
_RIP = 168  # of the interrupted code, in struct ucontext
_SI_CODE, _FLAGS = 8, 8  # in siginfo_t; in the kernel's struct sigaction, where bit 31 is SA_RESETHAND
_LOAD, _STORE, _CMP, _SET = b"\x8b", b"\x89", 7, b"\xc7"
_NOT_ABOVE, _NOT_GREATER, _GREATER, _SIGN_CLEAR = 6, 14, 15, 9  # of jumps


def signal_handler(signal: int, old: int, default: int, table: int, flag: int) -> tuple[bytes, int]:
    """See `user.machine`."""
    code = Code()
    code.add(mem(_LOAD, R9, RSI, _SI_CODE, False))
    code.add(rr(b"\x81", _CMP, R9, False) + imm(_SI_KERNEL if signal == _SIGTRAP else 0))
    code.jump("other", NOT_EQUAL if signal == _SIGTRAP else _NOT_GREATER)  # what no instruction has caused
    code.add(mem(_LOAD, RAX, RDX, _RIP, True), mov_imm(RCX, table))
    code.label("next")
    code.add(mem(_LOAD, R8, RCX, 0, True), rr(b"\x85", R8, R8, True))
    code.jump("other", EQUAL)
    code.add(rr(b"\x39", R8, RAX, True))
    code.jump("found", EQUAL)
    code.add(alu_imm(0, RCX, 16, True))
    code.jump("next")
    code.label("found")
    code.add(mem(_LOAD, RAX, RCX, 8, True), mem(_STORE, RAX, RDX, _RIP, True), b"\xc3")
    code.label("other")  # as it would have been: 0 is the default, 1 ignores what no instruction has caused
    code.add(mov_imm(RAX, old), mem(_LOAD, R8, RAX, 0, True), alu_imm(_CMP, R8, 1, True))
    code.jump("default", _NOT_ABOVE)
    if flag:
        code.add(mov_imm(RCX, flag), mem(_SET, 0, RCX, 0, False) + imm(0))
    code.add(mem(b"\x83", _CMP, RAX, _FLAGS, False) + b"\0")
    code.jump("go", _SIGN_CLEAR)
    code.add(push(RDI), push(RSI), push(RDX), push(R8), *_default(signal, default))
    code.add(pop(R8), pop(RDX), pop(RSI), pop(RDI))
    code.label("go")
    code.add(b"\x41\xff\xe0")  # jmp r8
    code.label("default")
    code.jump("end", NOT_EQUAL)
    code.add(rr(b"\x85", R9, R9, False))
    code.jump("end", _GREATER)  # the kernel has sent it
    code.add(b"\xc3")
    code.label("end")
    code.add(*_default(signal, default))
    if signal != _SIGTRAP:  # the instruction that has caused it is the one to do so again
        code.add(rr(b"\x85", R9, R9, False))
        code.jump("again", _GREATER)
    code.add(mov_imm(RAX, _GETTID), SYSCALL, mov(RSI, RAX, False))
    code.add(mov_imm(RAX, _GETPID), SYSCALL, mov(RDI, RAX, False), mov_imm(RDX, signal))
    code.add(mov_imm(RAX, _TGKILL), SYSCALL)
    code.label("again")
    code.add(b"\xc3")
    returns = len(code.bytes)
    code.add(mov_imm(RAX, _RT_SIGRETURN), SYSCALL)
    return code.finish(), returns


def _default(signal: int, default: int) -> tuple[bytes, ...]:
    """Ask for the default action. r9 stays."""
    arguments = mov_imm(RDI, signal), mov_imm(RSI, default), mov_imm(RDX, 0), mov_imm(R10, 8)
    return *arguments, mov_imm(RAX, _RT_SIGACTION), SYSCALL

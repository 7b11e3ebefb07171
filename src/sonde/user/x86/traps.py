"""The handler for breakpoints of `user.traps` on x86-64: int3 leaves the counter behind itself."""

from __future__ import annotations

from ...bpf.jit.x86_encoding import R8, R10, RAX, RCX, RDI, RDX, RSI, SYSCALL, alu_imm, mem, mov, mov_imm, rr
from .code import EQUAL, NOT_EQUAL, Code

BREAKPOINT = b"\xcc"
_SIGTRAP, _SI_KERNEL = 5, 0x80
_RT_SIGACTION, _RT_SIGRETURN, _GETPID, _GETTID, _TGKILL = 13, 15, 39, 186, 234
_RIP = 168  # of the interrupted code, in struct ucontext
_LOAD, _STORE, _CMP = b"\x8b", b"\x89", 7


def trap_handler(old: int, default: int, table: int) -> tuple[bytes, int]:
    """See `user.machine`."""
    code = Code()
    code.add(mem(b"\x81", _CMP, RSI, 8, False) + _SI_KERNEL.to_bytes(4, "little"))
    code.jump("other", NOT_EQUAL)
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
    code.add(mov_imm(RAX, old), mem(_LOAD, RAX, RAX, 0, True), alu_imm(_CMP, RAX, 1, True))
    code.jump("default", 6)  # jbe
    code.add(b"\xff\xe0")
    code.label("default")
    code.jump("end", NOT_EQUAL)
    code.add(mem(b"\x81", _CMP, RSI, 8, False) + bytes(4))
    code.jump("end", 15)  # jg: the kernel has sent it
    code.add(b"\xc3")
    code.label("end")
    code.add(mov_imm(RDI, _SIGTRAP), mov_imm(RSI, default), mov_imm(RDX, 0), mov_imm(R10, 8))
    code.add(mov_imm(RAX, _RT_SIGACTION), SYSCALL, mov_imm(RAX, _GETTID), SYSCALL, mov(RSI, RAX, False))
    code.add(mov_imm(RAX, _GETPID), SYSCALL, mov(RDI, RAX, False), mov_imm(RDX, _SIGTRAP))
    code.add(mov_imm(RAX, _TGKILL), SYSCALL, b"\xc3")
    returns = len(code.bytes)
    code.add(mov_imm(RAX, _RT_SIGRETURN), SYSCALL)
    return code.finish(), returns

"""The machine code of guarded reads (see `user.guards`) on x86-64. r12 is the frame."""

from __future__ import annotations

from ...bpf.jit.x86_encoding import (
    R8,
    R12,
    RAX,
    RCX,
    RDI,
    RDX,
    SYSCALL,
    imm,
    mem,
    mov,
    mov_imm,
    rr,
)
from .. import frame
from .code import EQUAL, NOT_EQUAL, Code
from .primitives import ask_for_page, own_page
from .registers import OFFSETS, RECORD

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from ..helpers import Facts

SIGACTION = 13
SIGACTION_FIELDS = frozenset(["di", "dx"])  # what `handler_told` reads of the registers
_GETPID = 39
_LOAD, _STORE, _CMP, _SET = b"\x8b", b"\x89", 7, b"\xc7"
_SIGN = 8  # of jumps
_RESULT, _SIGNAL, _ACTION = RECORD + 16, RECORD + 16, RECORD + 24


def check(facts: Facts) -> tuple[bytes, int, int]:
    """See `user.machine`."""
    code = Code()
    code.add(own_page(), mov_imm(RAX, facts.private + frame.GUARDED), mem(b"\x83", _CMP, RAX, 0, False) + b"\0")
    code.jump("ask", EQUAL)
    if facts.vforks:  # a child of vfork has handlers of its own
        code.add(mov_imm(RAX, facts.state + frame.VFORKS), mem(b"\x83", _CMP, RAX, 0, False) + b"\0")
        code.jump("ask", NOT_EQUAL)
    code.add(rr(b"\x85", RDI, RDI, True))
    code.jump("fault", _SIGN)  # the kernel's
    code.add(mov(RAX, RDI), rr(b"\xc1", 5, RAX, True) + b"\x0c")  # shr rax, 12
    code.jump("fault", EQUAL)
    load = len(code.bytes)
    code.add(mem(b"\x0f\xb6", RAX, RDI, 0, False), rr(b"\x31", RAX, RAX, False), b"\xc3")  # movzx
    code.label("fault")
    fault = len(code.bytes)
    code.add(mov_imm(RAX, 1), b"\xc3")
    code.label("ask")
    code.add(ask_for_page())
    return code.finish(), load, fault


def handler_changes(signals: Collection[int], private: int, asks: bool) -> bytes:
    """See `user.machine`. The number of the process is 0 in `private` where nobody has asked for it, as in a child of fork."""
    code = Code()
    for signal in signals:
        code.add(mem(b"\x83", _CMP, R12, _SIGNAL, False) + bytes([signal]))
        code.jump("one of ours", EQUAL)
    code.add(b"\xc3")
    code.label("one of ours")
    code.add(mem(b"\x83", _CMP, R12, _ACTION, True) + b"\0")
    code.jump("pass", EQUAL)
    code.add(mov_imm(R8, private))
    if asks:
        code.add(mem(b"\x83", _CMP, R8, frame.PROCESS, False) + b"\0")
        code.jump("off", EQUAL)
        code.add(mov_imm(RAX, _GETPID), SYSCALL, mem(b"\x3b", RAX, R8, frame.PROCESS, False))
        code.jump("pass", NOT_EQUAL)
        code.label("off")
    code.add(mem(_SET, 0, R8, frame.GUARDED, False) + imm(0))
    code.label("pass")
    code.add(b"\xc3")
    return code.finish()


def handler_told(handlers: Mapping[int, tuple[int, int]]) -> bytes:
    """See `user.machine`."""
    code = Code()
    code.add(mem(b"\x83", _CMP, R12, _RESULT, True) + b"\0")
    code.jump("pass", NOT_EQUAL)
    code.add(mem(_LOAD, RDX, R12, frame.REGS + OFFSETS["dx"], True), rr(b"\x85", RDX, RDX, True))
    code.jump("pass", EQUAL)
    for signal, (handler, old) in handlers.items():
        code.add(mem(b"\x83", _CMP, R12, frame.REGS + OFFSETS["di"], False) + bytes([signal]))
        code.jump(f"not {signal}", NOT_EQUAL)
        code.add(mov_imm(RAX, handler), mem(b"\x39", RAX, RDX, 0, True))
        code.jump("pass", NOT_EQUAL)
        code.add(mov_imm(RCX, old))
        for at in range(0, 32, 8):
            code.add(mem(_LOAD, RAX, RCX, at, True), mem(_STORE, RAX, RDX, at, True))
        code.add(b"\xc3")
        code.label(f"not {signal}")
    code.label("pass")
    code.add(b"\xc3")
    return code.finish()

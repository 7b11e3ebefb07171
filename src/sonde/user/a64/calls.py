"""System calls in a stopped process (`calls`) as aarch64 code.

    mov x0, 4096 … mov x8, 222; svc     for each call
    mov x8, 135 … svc                   the signal mask as it was
    mov x0, … ; b                       the registers as they were

No register is free for the last jump, so that the code has to be within 128 MiB of where the thread goes on. Of constants behind the code it makes the addresses itself.
"""

from __future__ import annotations

from ...bpf.jit.a64_encoding import SYSCALL, X0, X8, mov, mov_imm
from ...debuginfo.syscalls import syscall_number
from ...errors import TargetError
from ...record import Record
from ..calls import Call, Result
from .code import Code, jump_to

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..ptrace import Registers

_KEPT = range(19, 29)  # where results wait for later calls
_SET_MASK = 2  # SIG_SETMASK


class NearCode(Record):
    """Code without its last jump, which leads to the address `after`, and the constants behind that."""

    code: bytes
    constants: bytes
    after: int

    def __len__(self) -> int:
        return len(self.code) + 4 + len(self.constants)

    def at(self, address: int) -> bytes:
        """See `user.machine`."""
        try:
            jump = jump_to(address + len(self.code), self.after)
        except OverflowError:
            raise TargetError(
                f"the thread is at {self.after:#x}, and {address:#x} is the nearest place for system calls of sonde: too far for a jump"
            ) from None
        return self.code + jump + self.constants


def _number_of(call: Call) -> int:
    return syscall_number(call.number, "aarch64") if isinstance(call.number, str) else call.number


def assemble_calls(calls: list[Call], registers: Registers, signal_mask: int) -> NearCode:
    """See `user.machine`."""
    wanted = [a.index for call in calls for a in call.arguments if isinstance(a, Result)]
    kept = {index: _KEPT[n] for n, index in enumerate(dict.fromkeys(wanted))}
    code = Code()
    constants = bytearray()

    def constant(data: bytes) -> str:
        """The name of a constant, whose place is known in the end."""
        names.append((f"constant {len(constants)}", len(constants)))
        constants.extend(data.ljust(-len(data) % 8 + len(data), b"\0"))
        return names[-1][0]

    names: list[tuple[str, int]] = []
    for index, call in enumerate(
        [*calls, Call("rt_sigprocmask", (_SET_MASK, signal_mask.to_bytes(8, "little"), 0, 8))]
    ):
        for register, argument in enumerate(call.arguments):
            if isinstance(argument, Result):
                code.add(mov(register, kept[argument.index]))
            elif isinstance(argument, bytes):
                code.load_address(register, constant(argument))
            else:
                code.add(mov_imm(register, argument))
        code.add(mov_imm(X8, _number_of(call)), SYSCALL)
        if index in kept:
            code.add(mov(kept[index], X0))
    for register in (*range(6), X8, *kept.values()):
        code.add(mov_imm(register, registers[f"x{register}"]))
    for name, offset in names:
        code.label_at(name, len(code.bytes) + 4 + offset)
    return NearCode(code.finish(), bytes(constants), registers.pc)

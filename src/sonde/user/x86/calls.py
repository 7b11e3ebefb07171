"""System calls in a stopped process (`calls`) as x86-64 code.

    mov rdi, 4096 … mov eax, 9; syscall      for each call
    mov eax, 14 … syscall                    the signal mask as it was
    mov rax, … ; jmp [pc]                    the registers as they were

Constants stand behind the code, which loads their addresses by ten bytes each.
"""

from __future__ import annotations

from ...bpf.jit.x86_encoding import (
    R8,
    R9,
    R10,
    R12,
    R13,
    R14,
    R15,
    RAX,
    RBP,
    RBX,
    RDI,
    RDX,
    RSI,
    SYSCALL,
    imm,
    mov,
    mov_imm,
    rex,
)
from ...record import Record
from ..calls import Call, Result
from ..interrupted import restarted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..ptrace import Registers


_ARGUMENTS = (RDI, RSI, RDX, R10, R8, R9)
_KEPT = (R12, R13, R14, R15, RBX, RBP)  # where results wait for later calls
_NAMES = ["rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15"]

# Numbers of x86-64.
_NUMBERS = {
    "close": 3, "mmap": 9, "munmap": 11, "rt_sigaction": 13, "rt_sigprocmask": 14, "madvise": 28, "getpid": 39, "ftruncate": 77, "gettid": 186, "memfd_create": 319, "prctl": 157,
}  # fmt: skip


def _number_of(call: Call) -> int:
    """Return the number of a call."""
    return _NUMBERS[call.number] if isinstance(call.number, str) else call.number


def _load(register: int, value: int) -> bytes:
    """Load a number and leave the flags alone."""
    known = _loads.get((register, value))
    if known is None:
        if value & (1 << 64) - 1 == 0:
            known = rex(False, 0, register) + bytes([0xB8 | register & 7]) + imm(0)
        else:
            known = mov_imm(register, value)
        if len(_loads) >= _MOST_LOADS:
            _loads.clear()
        _loads[register, value] = known
    return known


_MOST_LOADS = 1024
_loads: dict[tuple[int, int], bytes] = {}  # the same registers are given back after every run


class Assembled(Record):
    """Code, and the constants behind it. `places`: where in the code the address of a constant goes, and that constant's offset."""

    code: bytes
    constants: bytes
    places: tuple[tuple[int, int], ...]

    def __len__(self) -> int:
        return len(self.code) + len(self.constants)

    def at(self, address: int) -> bytes:
        """Return all of it for an address."""
        code = bytearray(self.code)
        for place, constant in self.places:
            code[place : place + 8] = imm(address + len(code) + constant, 8)
        return bytes(code) + self.constants


def assemble_calls(calls: list[Call], registers: Registers, signal_mask: int) -> Assembled:
    """See `user.machine`."""
    wanted = [a.index for call in calls for a in call.arguments if isinstance(a, Result)]
    kept = {index: _KEPT[n] for n, index in enumerate(dict.fromkeys(wanted))}
    after = restarted(registers)
    constants = after.pc.to_bytes(8, "little") + signal_mask.to_bytes(8, "little")
    code = bytearray()
    places: list[tuple[int, int]] = []  # where the address of a constant goes, and which one's

    def name(register: int, constant: int) -> None:
        """Load the address of a constant by ten bytes, whatever it is."""
        code.extend(rex(True, 0, register) + bytes([0xB8 | register & 7]) + bytes(8))
        places.append((len(code) - 8, constant))

    for index, call in enumerate(calls):
        for register, argument in zip(_ARGUMENTS, call.arguments):
            if isinstance(argument, Result):
                code += mov(register, kept[argument.index])
            elif isinstance(argument, bytes):
                name(register, len(constants))
                constants += argument
            else:
                code += _load(register, argument)
        code += _load(RAX, _number_of(call)) + SYSCALL
        if index in kept:
            code += mov(kept[index], RAX)
    # rt_sigprocmask(SIG_SETMASK, &mask, NULL, 8)
    code += _load(RDI, 2)
    name(RSI, 8)
    code += _load(RDX, 0) + _load(R10, 8) + _load(RAX, _NUMBERS["rt_sigprocmask"]) + SYSCALL
    for register_name in (
        "rax",
        "rcx",
        "r11",
        "rdi",
        "rsi",
        "rdx",
        "r10",
        "r8",
        "r9",
        *(_NAMES[r] for r in kept.values()),
    ):
        code += _load(_NAMES.index(register_name), after[register_name])
    code += b"\xff\x25" + imm(0)  # jmp [rip + 0]: the constants follow
    return Assembled(bytes(code), constants, tuple(places))

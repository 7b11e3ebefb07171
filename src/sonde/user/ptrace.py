"""ptrace(2), waitpid(2), pidfd_getfd(2) and futex(2) as plain functions, and a thread's registers by name.

The kernel ties a traced thread to the thread that seized it: all requests for it must come from that one. Requests raise ProcessLookupError
when the thread has ended or is not stopped, and KernelError for anything else; who may trace whom is explained by `refusal`.
Numbers and layouts: include/uapi/linux/ptrace.h, and user_regs_struct of each architecture.
"""

from __future__ import annotations

import ctypes
import os
from errno import ESRCH

from ..errors import FeatureError, KernelError, TargetError
from ..record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

CONT, SYSCALL, DETACH = 7, 24, 17
SETOPTIONS = 0x4200
GETREGSET, SETREGSET = 0x4204, 0x4205
SEIZE, INTERRUPT, LISTEN = 0x4206, 0x4207, 0x4208
SETSIGMASK, GETSIGMASK = 0x420B, 0x420A
GET_RSEQ_CONFIGURATION = 0x420F
GETSIGINFO = 0x4202
GET_SYSCALL_USER_DISPATCH_CONFIG = 0x4211
POKEDATA = 5

# Options of SEIZE and SETOPTIONS.
O_TRACESYSGOOD, O_TRACEEXEC = 1, 16
O_EXITKILL, O_SUSPEND_SECCOMP = 1 << 20, 1 << 21

# What a stop is about: the third byte of a wait status.
EVENT_EXEC, EVENT_STOP = 4, 128

WALL = 0x40000000  # waitid: threads too, not only children
SIGTRAP = 5
SYSCALL_STOP = SIGTRAP | 0x80  # the signal of a stop at a system call, with O_TRACESYSGOOD

_NT_PRSTATUS = 1
_ENDED = (1, 2, 3)  # CLD_EXITED, CLD_KILLED, CLD_DUMPED
_PIDFD_GETFD = 438  # the same number on every architecture
_FUTEX = 202


class Machine(Record):
    """How one architecture lays out NT_PRSTATUS: names of its 64-bit registers in order, and which of them are the pc, the stack pointer,
    the number of a system call that has not returned yet ("" where the layout has none), its result, and its arguments."""

    names: tuple[str, ...]
    pc: str
    sp: str
    number: str
    result: str
    arguments: tuple[str, ...]


_X86_64 = "r15 r14 r13 r12 rbp rbx r11 r10 r9 r8 rax rcx rdx rsi rdi orig_rax rip cs eflags rsp ss fs_base gs_base ds es fs gs"
MACHINES = {
    "x86_64": Machine(
        tuple(_X86_64.split()), "rip", "rsp", "orig_rax", "rax", ("rdi", "rsi", "rdx", "r10", "r8", "r9")
    ),
    "aarch64": Machine(
        (*(f"x{n}" for n in range(31)), "sp", "pc", "pstate"),
        "pc",
        "sp",
        "",
        "x0",
        ("x0", "x1", "x2", "x3", "x4", "x5"),
    ),
}


def find_machine() -> Machine:
    """Return the layout of this machine. Raises FeatureError."""
    name = os.uname().machine
    found = MACHINES.get(name)
    if found is None:
        raise FeatureError(
            f"the user engine does not know the registers of {name}; it knows {', '.join(MACHINES)}", feature="arch"
        )
    return found


class Registers:
    """The general registers of one stopped thread, by name: `registers["rip"] += 2`. Values are unsigned 64-bit numbers."""

    __slots__ = ("_index", "machine", "words")

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.words = (ctypes.c_uint64 * len(machine.names))()
        self._index = _indices(machine)

    def __getitem__(self, name: str) -> int:
        value: int = self.words[self._index[name]]
        return value

    def __setitem__(self, name: str, value: int) -> None:
        self.words[self._index[name]] = value & 0xFFFFFFFFFFFFFFFF

    @property
    def pc(self) -> int:
        """The address of the next instruction."""
        return self[self.machine.pc]

    @pc.setter
    def pc(self, value: int) -> None:
        self[self.machine.pc] = value

    @property
    def sp(self) -> int:
        """The stack pointer."""
        return self[self.machine.sp]

    @sp.setter
    def sp(self, value: int) -> None:
        self[self.machine.sp] = value

    def copy(self) -> Registers:
        """Return a copy that changes by itself."""
        other = Registers(self.machine)
        ctypes.memmove(other.words, self.words, ctypes.sizeof(self.words))
        return other

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Registers) and bytes(self.words) == bytes(other.words)

    def __hash__(self) -> int:
        return hash(bytes(self.words))

    def __repr__(self) -> str:
        return f"Registers({', '.join(f'{name}={self[name]:#x}' for name in self.machine.names)})"


_index_of: dict[tuple[str, ...], dict[str, int]] = {}


def _indices(machine: Machine) -> dict[str, int]:
    found = _index_of.get(machine.names)
    if found is None:
        found = _index_of[machine.names] = {name: index for index, name in enumerate(machine.names)}
    return found


class _Iovec(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("length", ctypes.c_size_t)]


class _RseqConfiguration(ctypes.Structure):
    _fields_ = [
        ("pointer", ctypes.c_uint64),
        ("size", ctypes.c_uint32),
        ("signature", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
        ("pad", ctypes.c_uint32),
    ]


_functions: list[Callable[..., int]] = []


def _bind() -> list[Callable[..., int]]:
    """The functions ptrace and syscall of libc."""
    if not _functions:
        libc = ctypes.CDLL(None, use_errno=True)
        libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
        libc.ptrace.restype = ctypes.c_long
        libc.syscall.argtypes = [ctypes.c_long] * 7
        libc.syscall.restype = ctypes.c_long
        _functions.extend((libc.ptrace, libc.syscall))
    return _functions


def request(number: int, tid: int, address: int = 0, data: int = 0) -> int:
    """Make one request. Raises ProcessLookupError, or KernelError."""
    result = _bind()[0](number, tid, address, data)
    if result >= 0:
        return result
    errno = ctypes.get_errno()
    if errno == ESRCH:
        raise ProcessLookupError(errno, f"thread {tid} has ended or is not stopped")
    raise KernelError(f"ptrace request {number:#x} for thread {tid}", errno)


def seize(tid: int, options: int = 0) -> None:
    """Begin to trace a thread, which keeps running. Raises as `request` does: KernelError with EPERM where it may not be traced."""
    request(SEIZE, tid, 0, options)


def resume(tid: int, how: int = CONT, signal: int = 0) -> None:
    """Let a stopped thread run: CONT, SYSCALL (to the next system call) or DETACH. `signal` is delivered if it stopped for one."""
    request(how, tid, 0, signal)


def get_registers(tid: int, machine: Machine) -> Registers:
    """Read the registers of a stopped thread. Raises FeatureError for a thread that runs 32-bit code."""
    registers = Registers(machine)
    size = ctypes.sizeof(registers.words)
    iovec = _Iovec(ctypes.addressof(registers.words), size)
    request(GETREGSET, tid, _NT_PRSTATUS, ctypes.addressof(iovec))
    if iovec.length != size:
        raise FeatureError(f"thread {tid} is a 32-bit program's; the user engine is for 64-bit ones", feature="arch")
    return registers


def set_registers(tid: int, registers: Registers) -> None:
    """Write all registers of a stopped thread."""
    iovec = _Iovec(ctypes.addressof(registers.words), ctypes.sizeof(registers.words))
    request(SETREGSET, tid, _NT_PRSTATUS, ctypes.addressof(iovec))


def get_signal_mask(tid: int) -> int:
    """Return the blocked signals of a stopped thread, signal n as bit n - 1: those that hold once it is back from a sigsuspend."""
    mask = ctypes.c_uint64()
    request(GETSIGMASK, tid, 8, ctypes.addressof(mask))
    return mask.value


def set_signal_mask(tid: int, mask: int) -> None:
    """Block signals in a stopped thread, as `get_signal_mask` counts them."""
    word = ctypes.c_uint64(mask)
    request(SETSIGMASK, tid, 8, ctypes.addressof(word))


def get_rseq_address(tid: int) -> int:
    """Return where a stopped thread has registered its struct rseq, 0 if it has none (or Linux is older than 5.13)."""
    found = _RseqConfiguration()
    try:
        request(GET_RSEQ_CONFIGURATION, tid, ctypes.sizeof(found), ctypes.addressof(found))
    except KernelError:
        return 0
    return int(found.pointer)


def is_breakpoint(tid: int) -> bool:
    """Whether the signal that a thread is stopped for is that of a breakpoint instruction: si_code is SI_KERNEL."""
    info = ctypes.create_string_buffer(128)
    request(GETSIGINFO, tid, 0, ctypes.addressof(info))
    return int.from_bytes(info.raw[8:12], "little") == 0x80


def is_dispatched(tid: int) -> bool:
    """True when a stopped thread has its system calls turned into signals (syscall user dispatch). Linux 6.4: older ones do not tell."""
    found = (ctypes.c_uint64 * 4)()  # mode, address of the selector, the range that is exempt
    try:
        request(GET_SYSCALL_USER_DISPATCH_CONFIG, tid, ctypes.sizeof(found), ctypes.addressof(found))
    except KernelError:
        return False
    return bool(found[0])


def wait(tid: int) -> int | None:
    """Return the wait status of a traced thread that has stopped, 0 if it has ended (which `reap` takes note of), None when nothing happened.

    Raises ProcessLookupError when there is nothing to wait for. Linux 4.7.
    """
    options = os.WSTOPPED | os.WNOHANG | WALL
    try:
        found = os.waitid(os.P_PID, tid, options | os.WEXITED | os.WNOWAIT)
    except ChildProcessError:
        raise ProcessLookupError(ESRCH, f"thread {tid} is gone") from None
    if found is None:
        return None
    if found.si_code in _ENDED:
        return 0
    try:
        found = os.waitid(os.P_PID, tid, options)  # takes note of the stop, and of nothing but a stop
    except ChildProcessError:
        return None  # killed in between
    return None if found is None else found.si_status << 8 | 0x7F


def reap(tid: int) -> bool:
    """Take note of the end of a traced thread: until then it stays a zombie, and so does its process. False while it cannot be told yet."""
    try:
        return os.waitpid(tid, WALL | os.WNOHANG)[0] == tid
    except ChildProcessError:
        return True


def futex(address: int, operation: int, value: int) -> int:
    """Make a futex(2) call of x86-64 on a word of ours; return its result, or -1."""
    return _bind()[1](_FUTEX, address, operation, value, 0, 0, 0)


def read_exactly(memory: int, address: int, size: int, pid: int) -> bytes:
    """Read memory of a process by a descriptor of its /proc/PID/mem. Raises TargetError where nothing is mapped, or less than `size` bytes."""
    try:
        data = os.pread(memory, size, address)
    except (OSError, OverflowError):
        data = b""
    if len(data) != size:
        raise TargetError(f"process {pid} has no {size} readable bytes at {address:#x}")
    return data


def fetch_descriptor(pidfd: int, number: int) -> int:
    """Return a descriptor of ours for what descriptor `number` of the process behind `pidfd` is open for. Raises KernelError. Linux 5.6."""
    result = _bind()[1](_PIDFD_GETFD, pidfd, number, 0, 0, 0, 0)
    if result < 0:
        errno = ctypes.get_errno()
        raise KernelError(f"fetch descriptor {number} of the traced process (pidfd_getfd)", errno)
    os.set_inheritable(result, False)
    return result

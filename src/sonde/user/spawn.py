"""A command taken to the first instruction of its process, the loader's for a dynamic program, or on to that of its program.

    child = Child("ls -l")                    # forked, waiting to exec
    run_to_exec(child.pid, child.release)
    with StoppedProcess(child.pid, held=[child.pid]) as stopped: …

The kernel starts a dynamic program in its loader, which then jumps to AT_ENTRY of the auxiliary vector; there a breakpoint waits for who goes on (`run_on_to_entry`). A static program begins there. For
a script it is the interpreter's entry. Constructors of shared libraries have run by then; those of the program itself, and main, have not.

Between exec and its first stop, and on the way to the entry, the command depends on sonde, so it ends with sonde should sonde be killed in that millisecond; from then on it does not. Under an
unprivileged tracer a set-uid program runs without its privileges (ptrace(2)).
"""

from __future__ import annotations

import os
from errno import EPERM
from time import monotonic, sleep

from ..errors import KernelError, TargetError
from . import ptrace
from .follow import read_auxiliary, read_entry
from .refusal import explain

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from .stopped import StoppedProcess

_EXECVE, _AT_EXECFN = 59, 31
_DEPENDENT = ptrace.O_TRACESYSGOOD | ptrace.O_TRACEEXEC | ptrace.O_EXITKILL
_BREAKPOINTS = {"x86_64": b"\xcc", "aarch64": b"\x00\x00\x20\xd4"}


def run_to_exec(pid: int, release: Callable[[], object], limit_s: float = 10.0) -> None:
    """Seize the process `pid`, which will call exec once `release` is called, and stop it before the first instruction of what it becomes.

    It stays seized and stopped, by the calling thread: hand it to `StoppedProcess` as held. Raises TargetError when it ends before, or does
    not get there within `limit_s`; what `release` raises; PrivilegeError.
    """
    deadline = monotonic() + limit_s
    try:
        ptrace.seize(pid, _DEPENDENT)
    except ProcessLookupError:
        raise TargetError(f"there is no process {pid}") from None
    except KernelError as error:
        raise explain(pid) if error.errno == EPERM else error from None
    try:
        release()
        _wait_for_exec(pid, deadline)
        _be_held(pid, deadline)
    except ProcessLookupError:
        raise _ended(pid) from None


def run_on_to_entry(pid: int, limit_s: float = 10.0) -> None:
    """Let a process run on from there to its program's entry, and stop it again. Raises TargetError."""
    deadline = monotonic() + limit_s
    try:
        ptrace.request(ptrace.SETOPTIONS, pid, 0, _DEPENDENT)
        while not _reach_entry(pid, deadline):
            pass  # it became another program on the way
        _be_held(pid, deadline)
    except ProcessLookupError:
        raise _ended(pid) from None


def _be_held(pid: int, deadline: float) -> None:
    stand_still(pid, deadline)
    ptrace.request(ptrace.SETOPTIONS, pid, 0, ptrace.O_TRACESYSGOOD)


def _ended(pid: int) -> TargetError:
    return TargetError(
        f"the command (process {pid}) ended before its program began",
        hint="run it without sonde: its loader may lack a library",
    )


def _wait_for_exec(pid: int, deadline: float) -> None:
    while True:
        status = _next_stop(pid, deadline)
        if status >> 16 == ptrace.EVENT_EXEC:
            return
        _pass_on(pid, status)


def _next_stop(pid: int, deadline: float) -> int:
    """Wait for a stop. Raises TargetError at the deadline, ProcessLookupError when the process has ended."""
    pause = 0.00005
    while True:
        status = ptrace.wait(pid)
        if status == 0:
            raise ProcessLookupError(pid)
        if status is not None:
            return status
        if monotonic() > deadline:
            raise TargetError(f"the command (process {pid}) did not come to its program's first instruction in time")
        sleep(pause)
        pause = min(2 * pause, 0.002)


def _pass_on(pid: int, status: int) -> None:
    """Let the process go on from a stop that is not the one waited for; a signal reaches it."""
    ptrace.resume(pid, ptrace.CONT, 0 if status >> 16 else status >> 8 & 0x7F)


def _reach_entry(pid: int, deadline: float) -> bool:
    """From the stop after exec to the entry; False when another exec came first."""
    machine = ptrace.find_machine()
    entry = read_entry(pid)
    if ptrace.get_registers(pid, machine).pc == entry:
        return True
    trap = _BREAKPOINTS[os.uname().machine]
    memory = os.open(f"/proc/{pid}/mem", os.O_RDWR | os.O_CLOEXEC)
    try:
        original = os.pread(memory, len(trap), entry)
        os.pwrite(memory, trap, entry)
        ptrace.resume(pid)
        while True:
            status = _next_stop(pid, deadline)
            if status >> 16 == ptrace.EVENT_EXEC:
                return False
            registers = ptrace.get_registers(pid, machine)
            if status >> 8 == ptrace.SIGTRAP and registers.pc in (entry, entry + 1):
                break
            _pass_on(pid, status)
        os.pwrite(memory, original, entry)
    finally:
        os.close(memory)
    registers.pc = entry
    ptrace.set_registers(pid, registers)
    return True


def stand_still(pid: int, deadline: float) -> None:
    """From whatever stop, without one more instruction, to that of an interrupted process: signals that it should have got meanwhile it gets."""
    signal = 0
    while True:
        ptrace.request(ptrace.INTERRUPT, pid)
        ptrace.resume(pid, ptrace.CONT, signal)
        status = _next_stop(pid, deadline)
        if status >> 16 == ptrace.EVENT_STOP:
            return
        signal = 0 if status >> 16 else status >> 8 & 0x7F


def read_exec(pid: int, stopped: StoppedProcess) -> tuple[int, ...]:
    """Return the call of exec that a process stands behind, number and arguments, as far as its new program has them: a script's interpreter has its own words before them.

    Raises TargetError.
    """
    (tid,) = stopped.threads
    stack = stopped.registers(tid).sp
    words = int.from_bytes(stopped.read(stack, 8), "little")
    return _EXECVE, read_auxiliary(pid).get(_AT_EXECFN, 0), stack + 8, stack + 8 * (words + 2)

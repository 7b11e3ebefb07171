"""What a stop does to a system call that a thread is waiting in, and how the call goes on as if nothing had been.

A wait in the kernel ends with an error code of the kernel's own when the thread is stopped: -ERESTARTSYS and its like, upon which the kernel makes the call again when the
thread runs on with its registers unchanged. Some calls return -EINTR instead (signal(7), "interruption by stop signals"): the program would see an error that no
signal of its own has caused. For those where that is safe, the result is replaced by -ERESTARTNOHAND while the thread is stopped, so that the call is
made again unless a handler of the program runs first. arch/x86/kernel/signal.c, arch_do_signal_or_restart.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .ptrace import Registers

EINTR = 4
ERESTARTSYS, ERESTARTNOINTR, ERESTARTNOHAND, ERESTART_RESTARTBLOCK = 512, 513, 514, 516
RESTART_SYSCALL = 219  # x86-64

# Calls of x86-64 that return EINTR only when they have done nothing yet, so that they can be made again. connect is not among them: a second one fails.
_REPEATABLE = {
    0: "read", 1: "write", 17: "pread64", 18: "pwrite64", 19: "readv", 20: "writev", 43: "accept", 44: "sendto", 45: "recvfrom",
    46: "sendmsg", 47: "recvmsg", 65: "semop", 128: "rt_sigtimedwait", 208: "io_getevents", 220: "semtimedop", 232: "epoll_wait",
    281: "epoll_pwait", 288: "accept4", 295: "preadv", 296: "pwritev", 299: "recvmmsg", 307: "sendmmsg", 333: "io_pgetevents", 426: "io_uring_enter",
    441: "epoll_pwait2",
}  # fmt: skip


def _signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value


def is_in_system_call(registers: Registers) -> bool:
    """True for a thread that stopped inside a system call (x86-64)."""
    return registers["orig_rax"] < 1 << 32


def needs_restart(registers: Registers) -> bool:
    """True when the kernel will make the thread's system call again as soon as it runs (x86-64)."""
    codes = (ERESTARTSYS, ERESTARTNOINTR, ERESTARTNOHAND, ERESTART_RESTARTBLOCK)
    return is_in_system_call(registers) and -_signed(registers["rax"]) in codes


def mend(registers: Registers) -> bool:
    """Change -EINTR into -ERESTARTNOHAND where the stop has caused it; tell whether anything was changed (x86-64)."""
    if _signed(registers["rax"]) != -EINTR or registers["orig_rax"] not in _REPEATABLE:
        return False
    registers["rax"] = -ERESTARTNOHAND
    return True


def restarted(registers: Registers) -> Registers:
    """Return the registers with which a thread outside the kernel makes its interrupted call again by itself (x86-64).

    The kernel does better where it can: it lets a call like pause(2) end when a handler has run. This is for threads that have no tracer any more.
    """
    result = registers.copy()
    if needs_restart(registers):
        block = -_signed(registers["rax"]) == ERESTART_RESTARTBLOCK
        result["rax"] = RESTART_SYSCALL if block else registers["orig_rax"]
        result["rip"] -= 2
    return result

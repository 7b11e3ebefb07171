"""Threads of a process seized, interrupted and let go again: what ptrace(2) and waitpid(2) make of threads that end, are killed, or do not stop.

Seizing does not stop a thread; so all are seized before any is interrupted, and once more those that were made meanwhile. A tracer gets to know of the end of its
threads, and as long as it has not taken note of one the whole process stays a zombie.
"""

from __future__ import annotations

import os
from _thread import get_native_id
from time import monotonic, monotonic_ns, sleep

from ..errors import KernelError, TargetError
from . import ptrace
from .refusal import explain, read_status

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as _signal
    from collections.abc import Iterable, Sequence
else:
    import _signal  # `signal` imports enum, which costs 2 ms of start-up

_NEWS = (_signal.SIGCHLD,)
_OURS = (_signal.SIGINT, _signal.SIGTERM, _signal.SIGHUP, _signal.SIGQUIT, *_NEWS)  # what must not end a stop half-way
_EPERM = 1
_KERNEL_FLAGS = 0x204010  # PF_KTHREAD, PF_USER_WORKER, PF_IO_WORKER
# How long to wait, when all are let go, for threads that do not stop, and for those that are dying.
_PATIENCE_S, _PATIENCE_DEAD_S = 0.2, 5.0
_TRIES = 20 if (os.cpu_count() or 1) > 1 else 0


class SeizedThreads:
    """Threads of process `pid`: all of them, or one that can be stopped (`thread`, if that is given). `stop` them, `close` lets them go; signals to sonde wait in between.

    `stopped_ns` says for how long the process stood still, from the first thread's stop to the last one's going on, once it is over. `held` are threads
    that this thread of ours has seized and stopped already. All methods raise TargetError, or PrivilegeError.
    """

    def __init__(self, pid: int, all_threads: bool, limit_s: float, held: Iterable[int], thread: int = 0) -> None:
        self.pid = pid
        self.limit_s = limit_s
        self.stopped_ns = 0
        self._begun_ns = self._news = 0
        self.all_threads = all_threads
        self._held = tuple(held)
        self._thread = thread
        self._seized: dict[int, bool] = {}  # tid: is it stopped
        self._gone: set[int] = set()
        self._old_mask: set[int] | None = None
        self._first_ended = False
        self._nice: int | None = None  # what it was, while we hurry

    def stop(self) -> list[int]:
        """Stop the threads; return those that stand, perhaps none."""
        self._old_mask = _signal.pthread_sigmask(_signal.SIG_BLOCK, _OURS)
        if not self._held:
            self._hurry()
        deadline = monotonic() + self.limit_s
        self._wait_for_the_uninterruptible(deadline)
        self._stop(deadline)
        return [tid for tid, stopped in self._seized.items() if stopped]

    def _hurry(self) -> None:
        """While others stand still for it, this thread of ours does not wait for its turn, if it may do that: it needs CAP_SYS_NICE, or a limit by ulimit -e."""
        nice = os.getpriority(os.PRIO_PROCESS, 0)
        try:
            os.setpriority(os.PRIO_PROCESS, 0, -20)
        except OSError:
            return
        self._nice = nice

    def seize_only(self, tid: int, options: int) -> None:
        """Seize one thread, which keeps running."""
        if not self._seize(tid, options):
            raise TargetError(f"thread {tid} of process {self.pid} has ended")

    def look(self) -> int | None:
        """The status of the only thread when it has stopped by now, else None. Exec gives it the number of its process. Raises ProcessLookupError when it has ended."""
        (tid,) = self._seized
        try:
            status = ptrace.wait(tid)
        except ProcessLookupError:
            if tid == self.pid:
                raise
            status, tid = ptrace.wait(self.pid), self.pid
            self._seized = {tid: False}
        if status == 0:
            self._reap_ended(tid)
            raise ProcessLookupError(tid)
        if status is not None:
            self._seized[tid] = True
        return status

    def _reap_ended(self, tid: int) -> None:
        """Take note of the end of the only thread; that of a child of ours is for whoever started it."""
        self._seized.pop(tid, None)
        if (tid != self.pid or not self._is_ours()) and not ptrace.reap(tid):
            self._first_ended = True

    def resume(self, how: int, signal: int = 0) -> None:
        """Let the only thread go on. Raises ProcessLookupError."""
        (tid,) = self._seized
        ptrace.resume(tid, how, signal)
        self._seized[tid] = False

    def take(self) -> int:
        """Give up the only thread, as it is; return its number."""
        (tid,) = self._seized
        self._seized = {}
        return tid

    def let_go_after_exec(self) -> None:
        """Let the thread run that has got the number of its process while it was being let go."""
        if read_status(self.pid).get("TracerPid") == str(get_native_id()):
            self._let_go(self.pid)

    def close(self) -> None:
        """Let all threads run. Twice is harmless."""
        seized, self._seized = self._seized, {}
        rest = [tid for tid, stopped in seized.items() if not (stopped and _detach(tid))]
        rest.sort(key=lambda tid: tid == self.pid)  # the first thread's end is told after that of all others
        for tid in rest:
            self._let_go(tid)
        self._reap_first()
        if self._begun_ns:
            self.stopped_ns, self._begun_ns = monotonic_ns() - self._begun_ns, 0
        if self._nice is not None:
            os.setpriority(os.PRIO_PROCESS, 0, self._nice)
            self._nice = None
        if self._old_mask is not None:
            _signal.pthread_sigmask(_signal.SIG_SETMASK, self._old_mask)
            self._old_mask = None
            if self._news and _signal.getsignal(_signal.SIGCHLD) not in (_signal.SIG_DFL, _signal.SIG_IGN):
                # Some of it may have been about another child: whoever handles that looks.
                os.kill(os.getpid(), _signal.SIGCHLD)

    def _let_go(self, tid: int) -> None:
        """Detach a thread that runs: it has to stop for that. One that has died must be taken note of, or its process never ends."""
        patience = _PATIENCE_S
        try:
            ptrace.request(ptrace.INTERRUPT, tid)
        except ProcessLookupError:
            patience = _PATIENCE_DEAD_S
        status = self._wait(tid, monotonic() + patience)
        if status is not None and _is_stop(status):
            signal = status >> 8 & 0x7F if not status >> 16 else 0
            _detach(tid, signal if signal != ptrace.SIGTRAP or ptrace.is_breakpoint(tid) else 0)

    def _reap_first(self) -> None:
        """Take note of the first thread's end, after that of all others."""
        deadline = monotonic() + _PATIENCE_DEAD_S
        while self._first_ended and not self._is_ours() and not ptrace.reap(self.pid) and monotonic() < deadline:
            sleep(0.0001)
        self._first_ended = False

    def _wait(self, tid: int, deadline: float) -> int | None:
        """The next status of a thread, 0 when it has ended, None at the deadline or when it is gone."""
        pause = 0.00005
        tries = _TRIES  # most stops come sooner than this thread of ours could go to sleep and wake up
        while True:
            try:
                status = ptrace.wait(tid)
            except ProcessLookupError:
                return None
            if status == 0 and (tid != self.pid or not self._is_ours()):
                ptrace.reap(tid)  # a child of ours is for whoever started it
            if status is not None:
                return status
            if tid == self.pid and pause > 0.001 and state_of(tid, tid) == "Z":
                self._first_ended = True  # which is told only when all other threads have been taken note of
                return 0
            if monotonic() > deadline:
                return None
            if tries:
                tries -= 1
                continue
            # A stop sends the signal; the time is for a thread of ours that is not told.
            if _signal.sigtimedwait(_NEWS, pause) is not None:
                self._news += 1
            else:
                pause = min(2 * pause, 0.005)

    def _is_ours(self) -> bool:
        """True for a child of this very process."""
        return read_status(self.pid).get("PPid") == str(os.getpid())

    def _wait_for_the_uninterruptible(self, deadline: float) -> None:
        """Wait until every thread was seen awake: one that sleeps uninterruptibly for long, once interrupted, could not be let go before it wakes up."""
        stuck = [tid for tid in self._list_threads() if tid not in self._held]
        while True:
            stuck = [tid for tid in stuck if state_of(self.pid, tid) == "D" and not runs_kernel_code(self.pid, tid)]
            if not stuck:
                return
            if monotonic() > deadline:
                raise self._cannot_stop(stuck)
            sleep(0.001)

    def _cannot_stop(self, tids: Sequence[int]) -> TargetError:
        place = _read(f"/proc/{self.pid}/task/{tids[0]}/wchan").strip("0")
        where = f" (in {place})" if place else ""
        count = f"thread {tids[0]}" if len(tids) == 1 else f"{len(tids)} threads ({', '.join(map(str, tids[:5]))} …)"
        return TargetError(
            f"{count} of process {self.pid} did not stop within {self.limit_s:g} s: it waits in the kernel and cannot be interrupted{where}",
            hint="it may wait for a child that it has made by vfork, or for a disk or a network file system: try again later",
        )

    def _list_threads(self) -> list[int]:
        """The threads that may be stopped."""
        if self._thread:
            return [self._thread]
        try:
            return [int(name) for name in os.listdir(f"/proc/{self.pid}/task")]
        except (FileNotFoundError, ProcessLookupError):
            raise TargetError(f"there is no process {self.pid}") from None

    def _stop(self, deadline: float) -> None:
        """Seize what is there, without stopping it; then interrupt all, and again those that were made meanwhile."""
        self._seized.update((tid, True) for tid in self._held)
        if self.all_threads:
            while self._seize_new():
                pass
        else:
            self._seize_one()
        self._begun_ns = monotonic_ns()
        while True:
            running = [tid for tid, stopped in self._seized.items() if not stopped]
            for tid in running:
                try:
                    ptrace.request(ptrace.INTERRUPT, tid)
                except ProcessLookupError:
                    pass  # it has ended: seen below
            for tid in running:
                self._await_stop(tid, deadline)
            if not self.all_threads or not self._seize_new():
                return

    def _seize_new(self) -> bool:
        new = [tid for tid in self._list_threads() if tid not in self._seized and tid not in self._gone]
        return sum(self._seize(tid) for tid in new) > 0

    def _seize_one(self) -> None:
        for tid in sorted(self._list_threads(), key=lambda tid: tid != self.pid):
            if self._seized or self._seize(tid):
                return

    def _seize(self, tid: int, options: int = ptrace.O_TRACESYSGOOD) -> bool:
        try:
            ptrace.seize(tid, options)
        except ProcessLookupError:
            self._gone.add(tid)
            return False
        except KernelError as error:
            if error.errno != _EPERM:
                raise
            ended = state_of(self.pid, tid) in ("Z", "X", "")  # perhaps the first thread of a process that goes on
            if (ended and (tid != self.pid or len(self._list_threads()) > 1)) or runs_kernel_code(self.pid, tid):
                self._gone.add(tid)
                return False
            raise explain(self.pid) from None
        self._seized[tid] = False
        return True

    def _await_stop(self, tid: int, deadline: float) -> None:
        """Wait until an interrupted thread stands; a signal that it was about to take, it takes first."""
        while True:
            status = self._wait(tid, deadline)
            if status is None and monotonic() > deadline:
                raise self._cannot_stop([tid])
            if status is None or not _is_stop(status):
                del self._seized[tid]
                self._gone.add(tid)
                return
            if status >> 16 == ptrace.EVENT_STOP:
                self._seized[tid] = True
                return
            try:
                ptrace.request(ptrace.INTERRUPT, tid)
                ptrace.resume(tid, ptrace.CONT, 0 if status >> 16 else status >> 8 & 0x7F)
            except ProcessLookupError:
                continue  # killed: its end is the next status

    def let_run(self, tid: int) -> None:
        """Let one thread run for a moment."""
        try:
            ptrace.resume(tid)
            self._seized[tid] = False
            sleep(0.0001)
            ptrace.request(ptrace.INTERRUPT, tid)
        except ProcessLookupError:
            pass
        self._await_stop(tid, monotonic() + self.limit_s)
        if tid not in self._seized:
            raise self.killed()

    def go(self, tid: int, how: int) -> None:
        """Run a thread to its next stop: at a system call (SYSCALL) or because it was interrupted (CONT)."""
        signal = 0
        deadline = monotonic() + self.limit_s
        while True:
            ptrace.resume(tid, how, signal)
            self._seized[tid] = False
            status = self._wait(tid, deadline)
            if status is None or not _is_stop(status):
                if status is None and monotonic() > deadline:
                    raise self._cannot_stop([tid])
                self._seized.pop(tid)
                raise self.killed()
            self._seized[tid] = True
            number, event = status >> 8 & 0xFF, status >> 16
            if event == ptrace.EVENT_STOP if how == ptrace.CONT else number == ptrace.SYSCALL_STOP:
                return
            signal = 0 if event or number == ptrace.SYSCALL_STOP else number  # SIGSTOP, which cannot be blocked

    def killed(self) -> TargetError:
        """The error of a process that ended meanwhile."""
        return TargetError(f"process {self.pid} was killed while sonde held it")


def _detach(tid: int, signal: int = 0) -> bool:
    """Let a stopped thread go, with a signal that it was stopped for; False when it has died."""
    try:
        ptrace.resume(tid, ptrace.DETACH, signal)
    except ProcessLookupError:
        return False
    return True


def _is_stop(status: int) -> bool:
    return status & 0xFF == 0x7F


def runs_kernel_code(pid: int, tid: int) -> bool:
    """True for threads that the kernel has made in a process and that never run the process's code (io_uring, vhost). Linux 5.12, 6.4."""
    fields = _read(f"/proc/{pid}/task/{tid}/stat").rpartition(") ")[2].split()
    return len(fields) > 6 and bool(int(fields[6]) & _KERNEL_FLAGS)


def state_of(pid: int, tid: int) -> str:
    """The state of a thread, one letter; "" when it is gone."""
    return _read(f"/proc/{pid}/task/{tid}/stat").rpartition(") ")[2][:1]


def _read(path: str) -> str:
    try:
        with open(path, errors="replace") as file:
            return file.read()
    except OSError:
        return ""

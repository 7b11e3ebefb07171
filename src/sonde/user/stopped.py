"""All threads of a process stopped, for as long as a `with` block lasts: their registers, the process's memory, system calls made in it.

    with StoppedProcess(pid) as stopped:
        stopped.write(address, code)

Threads are seized and interrupted, never sent a signal: nobody but ptrace sees the stop. A signal that a thread was about to take is delivered
before it stops (it then stands at the handler's first instruction); others wait in the kernel. System calls go on afterwards (`interrupted`); a process that was stopped by
SIGSTOP stays stopped. Should sonde die meanwhile, the kernel lets all threads run on as they are.

What remains: a process that shares the memory without being a thread (a child of vfork, clone with CLONE_VM alone) is not stopped. While such a child of vfork
lives, its parent's thread cannot be stopped either, and that is an error.
"""

from __future__ import annotations

import os
from time import monotonic, monotonic_ns, sleep

from ..errors import FeatureError, KernelError, PrivilegeError, TargetError
from . import ptrace
from .calls import Call, assemble
from .interrupted import is_in_system_call, mend
from .refusal import explain, is_confined, read_status
from .slack import find_slack, is_slack

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as _signal
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from ..debuginfo.procmaps import Mapping as MemoryMapping
    from .ptrace import Registers

    Step = Callable[[Sequence[int]], None]
else:
    import _signal  # `signal` imports enum, which costs 2 ms of start-up

_ALL_SIGNALS = (1 << 64) - 1
_NEWS = (_signal.SIGCHLD,)
_OURS = (_signal.SIGINT, _signal.SIGTERM, _signal.SIGHUP, _signal.SIGQUIT, *_NEWS)  # what must not end a stop half-way
_EIO, _EPERM = 5, 1
_KERNEL_FLAGS = 0x204010  # PF_KTHREAD, PF_USER_WORKER, PF_IO_WORKER
_PATIENCE_S, _PATIENCE_DEAD_S = (
    0.2,
    5.0,
)  # when all are let go: with threads that do not stop, and with those that are dying


class StoppedProcess:
    """A process whose threads (`threads`, by tid) stand still. A context manager; leaving it lets them run.

    `all_threads` False stops one thread only, enough for system calls in the process. `limit_s` bounds the wait for threads that do not stop. All
    use must be in one thread of ours. Raises TargetError or PrivilegeError, and has left everything running then.
    """

    def __init__(self, pid: int, *, all_threads: bool = True, limit_s: float = 2.0, held: Iterable[int] = ()) -> None:
        """`held` are threads that this thread of ours has seized and stopped already."""
        self.pid = pid
        self.machine = ptrace.find_machine()
        self.threads: list[int] = []
        self.stopped_ns = (
            0  # how long it stood still, from the first thread's stop to the last one's going on; known once it is over
        )
        self._begun_ns = self._news = 0
        self._all = all_threads
        self._limit_s = limit_s
        self._held = tuple(held)
        self._seized: dict[int, bool] = {}  # tid: is it stopped
        self._gone: set[int] = set()
        self._registers: dict[int, Registers] = {}
        self._memory = -1
        self._slack = (0, 0)
        self._mappings: list[MemoryMapping] = []
        self._old_mask: set[int] | None = None
        self._checked = self._settled = self._first_ended = False

    # stopping and going on -------------------------------------------------------------------------------------

    def __enter__(self) -> StoppedProcess:
        self._old_mask = _signal.pthread_sigmask(_signal.SIG_BLOCK, _OURS)
        try:
            deadline = monotonic() + self._limit_s
            self._wait_for_the_uninterruptible(deadline)
            self._stop(deadline)
            self.threads = [tid for tid, stopped in self._seized.items() if stopped]
            for tid in list(self.threads):
                self._look_at(tid)
                if not self._registers[tid].pc and _runs_kernel_code(self.pid, tid):
                    self.threads.remove(tid)
            if not self.threads:
                raise TargetError(f"process {self.pid} has ended")
            self._memory = os.open(f"/proc/{self.threads[0]}/mem", os.O_RDWR | os.O_CLOEXEC)
        except (ProcessLookupError, FileNotFoundError):
            self.close()
            raise self._killed() from None
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

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
        self.threads = []
        if self._memory >= 0:
            os.close(self._memory)
            self._memory = -1
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
            _detach(tid, 0 if signal == ptrace.SIGTRAP else signal)

    def _reap_first(self) -> None:
        """Take note of the first thread's end, after that of all others."""
        deadline = monotonic() + _PATIENCE_DEAD_S
        while self._first_ended and not self._is_ours() and not ptrace.reap(self.pid) and monotonic() < deadline:
            sleep(0.0001)
        self._first_ended = False

    def _wait(self, tid: int, deadline: float) -> int | None:
        """The next status of a thread, 0 when it has ended, None at the deadline or when it is gone."""
        pause = 0.00005
        while True:
            try:
                status = ptrace.wait(tid)
            except ProcessLookupError:
                return None
            if status == 0 and (tid != self.pid or not self._is_ours()):
                ptrace.reap(tid)  # a child of ours is for whoever started it
            if status is not None:
                return status
            if tid == self.pid and pause > 0.001 and _state(tid, tid) == "Z":
                self._first_ended = True  # which is told only when all other threads have been taken note of
                return 0
            if monotonic() > deadline:
                return None
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
            stuck = [tid for tid in stuck if _state(self.pid, tid) == "D" and not _runs_kernel_code(self.pid, tid)]
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
            f"{count} of process {self.pid} did not stop within {self._limit_s:g} s: it waits in the kernel and cannot be interrupted{where}",
            hint="it may wait for a child that it has made by vfork, or for a disk or a network file system: try again later",
        )

    def _list_threads(self) -> list[int]:
        try:
            return [int(name) for name in os.listdir(f"/proc/{self.pid}/task")]
        except (FileNotFoundError, ProcessLookupError):
            raise TargetError(f"there is no process {self.pid}") from None

    def _stop(self, deadline: float) -> None:
        """Seize what is there, without stopping it; then interrupt all, and again those that were made meanwhile."""
        self._seized.update((tid, True) for tid in self._held)
        if self._all:
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
            if not self._all or not self._seize_new():
                return

    def _seize_new(self) -> bool:
        new = [tid for tid in self._list_threads() if tid not in self._seized and tid not in self._gone]
        return sum(self._seize(tid) for tid in new) > 0

    def _seize_one(self) -> None:
        for tid in sorted(self._list_threads(), key=lambda tid: tid != self.pid):
            if self._seized or self._seize(tid):
                return

    def _seize(self, tid: int) -> bool:
        try:
            ptrace.seize(tid, ptrace.O_TRACESYSGOOD)
        except ProcessLookupError:
            self._gone.add(tid)
            return False
        except KernelError as error:
            if error.errno != _EPERM:
                raise
            ended = _state(self.pid, tid) in ("Z", "X", "")  # perhaps the first thread of a process that goes on
            if (ended and (tid != self.pid or len(self._list_threads()) > 1)) or _runs_kernel_code(self.pid, tid):
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

    def _look_at(self, tid: int) -> None:
        """Read the registers of a thread that has just stopped, and keep its system call from ending with an error."""
        registers = self._registers[tid] = ptrace.get_registers(tid, self.machine)
        if self.machine.number and mend(registers):
            ptrace.set_registers(tid, registers)

    def settle(self) -> None:
        """Let threads come out of system calls that another sonde made in them and was killed meanwhile. Raises TargetError.

        Until then it is not known where they are in the program. They need no other thread, and some microseconds.
        """
        deadline = monotonic() + self._limit_s
        for tid in self.threads:
            while is_slack(self.mappings(), self.read, self.get_pc(tid)):
                if monotonic() > deadline:
                    raise TargetError(
                        f"thread {tid} of process {self.pid} does not come out of system calls that a killed sonde made in it"
                    )
                self._let_run(tid, deadline)
        self._settled = True

    def _let_run(self, tid: int, deadline: float) -> None:
        """Let one thread run for a moment."""
        try:
            ptrace.resume(tid)
            self._seized[tid] = False
            sleep(0.0001)
            ptrace.request(ptrace.INTERRUPT, tid)
        except ProcessLookupError:
            pass
        self._await_stop(tid, deadline)
        if tid not in self._seized:
            raise self._killed()
        self._look_at(tid)

    # registers and memory --------------------------------------------------------------------------------------

    def registers(self, tid: int) -> Registers:
        """Return a copy of a thread's registers."""
        return self._registers[tid].copy()

    def set_registers(self, tid: int, registers: Registers) -> None:
        """Write a thread's registers. Raises TargetError when it was killed."""
        try:
            ptrace.set_registers(tid, registers)
        except ProcessLookupError:
            raise self._killed() from None
        self._registers[tid] = registers.copy()

    def get_pc(self, tid: int) -> int:
        """Return the address of a thread's next instruction; behind a system call that has not returned, the one after it."""
        return self._registers[tid].pc

    def set_pc(self, tid: int, pc: int) -> None:
        """Let a thread go on elsewhere."""
        registers = self.registers(tid)
        registers.pc = pc
        self.set_registers(tid, registers)

    def is_in_system_call(self, tid: int) -> bool:
        """True when a thread stopped in a system call: its counter is behind the instruction, which the kernel may run again (x86-64)."""
        return is_in_system_call(self._registers[tid])

    def read(self, address: int, size: int) -> bytes:
        """Read memory. Raises TargetError where nothing is mapped, or less than `size` bytes."""
        try:
            data = os.pread(self._memory, size, address)
        except (OSError, OverflowError):
            data = b""
        if len(data) != size:
            raise TargetError(f"process {self.pid} has no {size} readable bytes at {address:#x}")
        return data

    def read_some(self, address: int, size: int) -> bytes:
        """Read up to `size` bytes: what is mapped from `address` on, perhaps nothing."""
        try:
            return os.pread(self._memory, size, address)
        except (OSError, OverflowError):
            return b""

    def write(self, address: int, data: bytes) -> None:
        """Write memory in one go, also where the process itself may not. Raises TargetError."""
        try:
            done = os.pwrite(self._memory, data, address)
        except OSError as error:
            if error.errno != _EIO:
                raise TargetError(f"cannot write to {address:#x} of process {self.pid}: {error.strerror}") from None
            self._poke(
                address, data
            )  # Linux can be told that /proc/PID/mem must respect protection: proc_mem.force_override
            return
        if done != len(data):
            raise TargetError(f"process {self.pid} has no {len(data)} bytes at {address:#x}")

    def _poke(self, address: int, data: bytes) -> None:
        """Write by words, with ptrace."""
        start, end = address & -8, address + len(data) + 7 & -8
        words = bytearray(self.read(start, end - start))
        words[address - start : address - start + len(data)] = data
        try:
            for at in range(0, len(words), 8):
                ptrace.request(
                    ptrace.POKEDATA, self.threads[0], start + at, int.from_bytes(words[at : at + 8], "little")
                )
        except (ProcessLookupError, KernelError):
            raise TargetError(f"cannot write to {address:#x} of process {self.pid}") from None

    def maps(self) -> list[MemoryMapping]:
        """Return the mappings as they are now."""
        from ..debuginfo.procmaps import read_maps

        self._mappings = read_maps(self.threads[0])
        return self._mappings

    def mappings(self) -> list[MemoryMapping]:
        """Return the mappings as they were when they were last read: with all threads stopped only sonde changes them."""
        return self._mappings or self.maps()

    def _killed(self) -> TargetError:
        return TargetError(f"process {self.pid} was killed while sonde held it")

    # system calls ----------------------------------------------------------------------------------------------

    def system_call(self, number: int | str, *arguments: int | bytes) -> int:
        """Make one system call in the process; return its result, or a negative errno. Raises TargetError when it cannot be made."""
        return self.run([Call(number, arguments)])[0]

    def run(self, calls: list[Call], after: Mapping[int, Step] | None = None) -> list[int]:
        """Make system calls in the first stopped thread; return their results, negative ones are errnos.

        They follow each other whatever the results are. `after` has functions to be called when call number n has returned, with the
        results so far. If sonde dies, the rest is done all the same, and the thread goes on (`calls`). Raises TargetError.
        """
        try:
            self._check_system_calls()
            if not self._settled:
                self.settle()
            tid = self.threads[0]
            registers = self._outside_rseq(tid)
            mask = ptrace.get_signal_mask(tid)
            size = len(assemble(calls, registers, mask, 0))
            place = self._find_slack(size)
            there = self.read(place, size)
            self.write(place, assemble(calls, registers, mask, place))
            start = registers.copy()
            start.pc, start["orig_rax"] = place, -1
            ptrace.set_registers(tid, start)
            ptrace.set_signal_mask(tid, _ALL_SIGNALS)
            try:
                results = self._follow(tid, calls, after or {})
            finally:
                self._call_back(tid, registers, mask)
                self.write(place, there)
        except ProcessLookupError:
            raise self._killed() from None
        return results

    def _follow(self, tid: int, calls: list[Call], after: Mapping[int, Step]) -> list[int]:
        results: list[int] = []
        for index in range(len(calls)):
            self._go(tid, ptrace.SYSCALL)
            self._go(tid, ptrace.SYSCALL)
            value = ptrace.get_registers(tid, self.machine)[self.machine.result]
            results.append(value - (1 << 64) if value >> 63 else value)
            if index in after:
                after[index](results)
        return results

    def _call_back(self, tid: int, registers: Registers, mask: int) -> None:
        """From the stop behind a system call to one from where the kernel makes interrupted calls again; then all is as it was."""
        ptrace.request(ptrace.INTERRUPT, tid)
        self._go(tid, ptrace.CONT)
        ptrace.set_signal_mask(tid, mask)
        ptrace.set_registers(tid, registers)

    def _go(self, tid: int, how: int) -> None:
        """Run a thread to its next stop: at a system call (SYSCALL) or because it was interrupted (CONT)."""
        signal = 0
        deadline = monotonic() + self._limit_s
        while True:
            ptrace.resume(tid, how, signal)
            self._seized[tid] = False
            status = self._wait(tid, deadline)
            if status is None or not _is_stop(status):
                if status is None and monotonic() > deadline:
                    raise self._cannot_stop([tid])
                self._seized.pop(tid)
                raise self._killed()
            self._seized[tid] = True
            number, event = status >> 8 & 0xFF, status >> 16
            if event == ptrace.EVENT_STOP if how == ptrace.CONT else number == ptrace.SYSCALL_STOP:
                return
            signal = 0 if event or number == ptrace.SYSCALL_STOP else number  # SIGSTOP, which cannot be blocked

    def _find_slack(self, size: int) -> int:
        if self._slack[1] < size:
            try:
                exe = os.readlink(f"/proc/{self.pid}/exe").removesuffix(" (deleted)")
            except OSError:
                exe = ""
            self._slack = find_slack(self.maps(), self.read, size, exe), size
        return self._slack[0]

    def _check_system_calls(self) -> None:
        """Raise where a system call of ours could end the process, or is not known how to be made."""
        if self._checked:
            return
        if not self.machine.number:
            raise FeatureError(
                f"system calls in another process are made on x86-64 only, not on {os.uname().machine}", feature="arch"
            )
        tid = self.threads[0]
        if ptrace.is_dispatched(tid):
            raise TargetError(
                f"thread {tid} of process {self.pid} handles its system calls itself (prctl(PR_SET_SYSCALL_USER_DISPATCH)), and would get those of sonde too",
                hint="use the kernel engine",
            )
        if is_confined(tid):
            try:
                ptrace.request(ptrace.SETOPTIONS, tid, 0, ptrace.O_TRACESYSGOOD | ptrace.O_SUSPEND_SECCOMP)
            except (KernelError, ProcessLookupError):
                raise PrivilegeError(
                    f"process {self.pid} has confined itself by seccomp: a system call that sonde makes in it could end it",
                    capability="CAP_SYS_ADMIN",
                    hint="run sonde with CAP_SYS_ADMIN, which can suspend the filter for its own calls, or use the kernel engine",
                ) from None
        self._checked = True

    def _outside_rseq(self, tid: int) -> Registers:
        """The registers of a thread; one in a restartable sequence (rseq(2)) is at its abort handler, where the kernel would have sent it.

        The kernel forgets the sequence when the thread runs elsewhere.
        """
        registers = self.registers(tid)
        area = 0 if is_in_system_call(registers) else ptrace.get_rseq_address(tid)
        descriptor = int.from_bytes(self.read_some(area + 8, 8), "little") if area else 0
        if descriptor:
            data = self.read_some(descriptor, 32)
            start, length, abort = (int.from_bytes(data[at : at + 8], "little") for at in (8, 16, 24))
            if start <= registers.pc < start + length:
                registers.pc = abort
                self._registers[tid] = registers.copy()
        return registers


def _detach(tid: int, signal: int = 0) -> bool:
    """Let a stopped thread go, with a signal that it was stopped for; False when it has died."""
    try:
        ptrace.resume(tid, ptrace.DETACH, signal)
    except ProcessLookupError:
        return False
    return True


def _is_stop(status: int) -> bool:
    return status & 0xFF == 0x7F


def _runs_kernel_code(pid: int, tid: int) -> bool:
    """True for threads that the kernel has made in a process and that never run the process's code (io_uring, vhost). Linux 5.12, 6.4."""
    fields = _read(f"/proc/{pid}/task/{tid}/stat").rpartition(") ")[2].split()
    return len(fields) > 6 and bool(int(fields[6]) & _KERNEL_FLAGS)


def _state(pid: int, tid: int) -> str:
    """The state of a thread, one letter; "" when it is gone."""
    return _read(f"/proc/{pid}/task/{tid}/stat").rpartition(") ")[2][:1]


def _read(path: str) -> str:
    try:
        with open(path, errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def is_alive(pid: int) -> bool:
    """Tell whether a process runs a program: it has not ended, not even if nobody has taken note of that yet."""
    return _state(pid, pid) not in ("", "Z", "X")

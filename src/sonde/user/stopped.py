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
from time import monotonic

from ..errors import FeatureError, KernelError, PrivilegeError, TargetError
from . import ptrace
from .calls import Call
from .frames import find_between, iter_slots
from .interrupted import is_in_system_call, mend
from .machine import get_native
from .refusal import is_confined
from .seized import SeizedThreads, runs_kernel_code, state_of
from .slack import find_leftovers, find_slack, is_slack, path_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from ..debuginfo.procmaps import Mapping as MemoryMapping
    from .ptrace import Registers

    Step = Callable[[Sequence[int]], int | None]

_ALL_SIGNALS = (1 << 64) - 1
_EIO = 5


class StoppedProcess:
    """A process whose threads (`threads`, by tid) stand still. A context manager; leaving it lets them run.

    `all_threads` False stops one thread only, enough for system calls in the process; `thread` stops that one. `limit_s` bounds the wait for threads that do not stop. All
    use must be in one thread of ours. Raises TargetError or PrivilegeError, and has left everything running then.
    """

    def __init__(
        self, pid: int, *, all_threads: bool = True, thread: int = 0, limit_s: float = 2.0, held: Iterable[int] = ()
    ) -> None:
        """`held` are threads that this thread of ours has seized and stopped already."""
        self.pid = pid
        self.machine = ptrace.find_machine()
        self.threads: list[int] = []
        self._seized = SeizedThreads(pid, all_threads and not thread, limit_s, held, thread)
        self._registers: dict[int, Registers] = {}
        self._memory = -1
        self._slack = (0, 0)
        self._mappings: list[MemoryMapping] = []
        self._checked = self._settled = False

    # stopping and going on -------------------------------------------------------------------------------------

    def __enter__(self) -> StoppedProcess:
        try:
            self.threads = self._seized.stop()
            for tid in list(self.threads):
                self._look_at(tid)
                if not self._registers[tid].pc and runs_kernel_code(self.pid, tid):
                    self.threads.remove(tid)
            if not self.threads:
                raise TargetError(f"process {self.pid} has ended")
            self._memory = os.open(f"/proc/{self.threads[0]}/mem", os.O_RDWR | os.O_CLOEXEC)
        except (ProcessLookupError, FileNotFoundError):
            self.close()
            raise self._seized.killed() from None
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let all threads run. Twice is harmless."""
        self._seized.close()
        self.threads = []
        if self._memory >= 0:
            os.close(self._memory)
            self._memory = -1

    def go_to_entry(self) -> None:
        """Let a process with one thread, which stands before its first instruction, run on to its program's (see `spawn`). Raises TargetError."""
        from .spawn import run_on_to_entry

        (tid,) = self.threads
        run_on_to_entry(tid)
        self._look_at(tid)
        os.close(self._memory)
        self._memory = os.open(f"/proc/{tid}/mem", os.O_RDWR | os.O_CLOEXEC)
        self._mappings, self._slack, self._settled = [], (0, 0), False

    @property
    def stopped_ns(self) -> int:
        """For how many nanoseconds it stood still, from the first thread's stop to the last one's going on; 0 until that is over."""
        return self._seized.stopped_ns

    def _look_at(self, tid: int) -> None:
        """Read the registers of a thread that has just stopped, and keep its system call from ending with an error."""
        registers = self._registers[tid] = ptrace.get_registers(tid, self.machine)
        if self.machine.number and mend(registers):
            ptrace.set_registers(tid, registers)

    def settle(self) -> None:
        """Let threads come out of system calls that another sonde made in them and was killed meanwhile, and take its code away. Raises TargetError.

        Until then it is not known where they are in the program. They need no other thread, and some microseconds.
        """
        deadline = monotonic() + self._seized.limit_s
        leftovers = find_leftovers(self.mappings(), self.read, self.pid)
        left = [(each.address, len(each.original)) for each in leftovers]
        ends: dict[int, int | None] = {}
        for tid in self.threads:
            while self._is_in_calls(tid, left, ends):
                if monotonic() > deadline:
                    raise TargetError(
                        f"thread {tid} of process {self.pid} does not come out of system calls that a killed sonde made in it"
                    )
                self._seized.let_run(tid)
                self._look_at(tid)
        for each in leftovers if self._seized.all_threads else ():
            self.write(each.address, each.original)
        self._settled = True

    def _is_in_calls(self, tid: int, left: list[tuple[int, int]], ends: dict[int, int | None]) -> bool:
        """True when a thread is in code like that of `run`, or in a signal handler that interrupted it."""
        if is_slack(self.mappings(), self.read, self.get_pc(tid), ends):
            return True
        if not left:
            return False
        return any(slot.in_frame for slot in iter_slots(self, tid, lambda words: find_between(words, left)))

    # registers and memory --------------------------------------------------------------------------------------

    def registers(self, tid: int) -> Registers:
        """Return a copy of a thread's registers."""
        return self._registers[tid].copy()

    def set_registers(self, tid: int, registers: Registers) -> None:
        """Write a thread's registers. Raises TargetError when it was killed."""
        try:
            ptrace.set_registers(tid, registers)
        except ProcessLookupError:
            raise self._seized.killed() from None
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
        return ptrace.read_exactly(self._memory, address, size, self.pid)

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

    def note_mapping(self, address: int, size: int) -> None:
        """Take note of memory that sonde has mapped, in place of reading all mappings again."""
        from ..debuginfo.procmaps import Mapping

        mapping = Mapping(address, address + size, "----", 0, "00:00", 0, "")
        self._mappings = sorted([*self.mappings(), mapping], key=lambda m: m.start)

    # system calls ----------------------------------------------------------------------------------------------

    def system_call(self, number: int | str, *arguments: int | bytes) -> int:
        """Make one system call in the process; return its result, or a negative errno. Raises TargetError when it cannot be made."""
        return self.run([Call(number, arguments)])[0]

    def run(self, calls: list[Call], after: Mapping[int, Step] | None = None) -> list[int]:
        """Make system calls in the first stopped thread; return their results, negative ones are errnos.

        They follow each other whatever the results are. `after` has functions to be called when call number n has returned, with the
        results so far; what they return, if that is not None, becomes the result. If sonde dies, the rest is done all the same, and the thread goes on (`calls`). Raises TargetError.
        """
        try:
            self._check_system_calls()
            if not self._settled:
                self.settle()
            tid = self.threads[0]
            registers = self._outside_rseq(tid)
            mask = ptrace.get_signal_mask(tid)
            code = get_native().assemble_calls(calls, registers, mask)
            place = self._find_slack(len(code))
            there = self.read(place, len(code))
            self.write(place, code.at(place))
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
            raise self._seized.killed() from None
        return results

    def _follow(self, tid: int, calls: list[Call], after: Mapping[int, Step]) -> list[int]:
        results: list[int] = []
        for index in range(len(calls)):
            self._seized.go(tid, ptrace.SYSCALL)
            self._seized.go(tid, ptrace.SYSCALL)
            registers = ptrace.get_registers(tid, self.machine)
            value = registers[self.machine.result]
            results.append(value - (1 << 64) if value >> 63 else value)
            instead = after[index](results) if index in after else None
            if instead is not None:
                results[-1] = instead
                registers[self.machine.result] = instead & (1 << 64) - 1
                ptrace.set_registers(tid, registers)
        return results

    def _call_back(self, tid: int, registers: Registers, mask: int) -> None:
        """From the stop behind a system call to one from where the kernel makes interrupted calls again; then all is as it was."""
        ptrace.request(ptrace.INTERRUPT, tid)
        self._seized.go(tid, ptrace.CONT)
        ptrace.set_signal_mask(tid, mask)
        ptrace.set_registers(tid, registers)

    def _find_slack(self, size: int) -> int:
        if self._slack[1] < size:
            self._slack = find_slack(self.maps(), self.read, size, path_of(self.pid)), size
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


def is_alive(pid: int) -> bool:
    """Tell whether a process runs a program: it has not ended, not even if nobody has taken note of that yet."""
    return state_of(pid, pid) not in ("", "Z", "X")

"""Samples that are taken by stopping threads: for `profile` where the kernel takes none for us.

Debian and Ubuntu keep perf events from ordinary users (kernel.perf_event_paranoid 3 and 4), container engines from everybody in a container. What is left is ptrace: a thread that has used the CPU for another
period, and runs, is stopped for as long as it takes to copy its registers and the top of its stack. So samples are as many as the CPU time has periods, but where in a period is chosen by sonde's timer and not by the thread's clock;
a thread that is found in a system call was in the kernel, whose samples the kernel would not give us either.
"""

from __future__ import annotations

import os
import struct
import time

from ..debuginfo.procmaps import list_threads
from ..debuginfo.ptregs import get_ptregs
from ..errors import PrivilegeError, ProbeError, TargetError
from ..spec.engine import Sample
from .stopped import StoppedProcess
from .worker import expirations, make_timer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ..debuginfo.ptregs import PtRegs
    from ..spec.object import ProbeSpec

STACK_BYTES = 8192  # of a stack that is copied
MOST_FRAMES = 127  # as the kernel has it
_MOST_OWED = 4  # periods that a thread is behind with
_LIMIT_S = 0.02  # how long to wait for one thread
_FRAME = struct.Struct("<QQ")
_CPU = 36  # of the fields of stat from the state on


class StoppingSampler:
    """Samples the threads of `probe.pid`, a `profile` probe. Raises ProbeError, TargetError, PrivilegeError."""

    def __init__(self, probe: ProbeSpec, arch: str) -> None:
        layout = get_ptregs(arch)
        assert layout is not None, "who samples has entered the process"
        if probe.type != "profile":
            raise ProbeError(f"{probe.name}: only the kernel counts that")
        self.probe = probe
        self.lost = 0  # samples of threads that ran on without having been caught
        self._layout: PtRegs = layout
        self._period = probe.period_ns or 1_000_000_000 // probe.frequency_hz
        self._used: dict[int, int] = {}  # CPU time of each thread that has been counted
        with StoppedProcess(probe.pid, all_threads=False):
            self.look()
        self._timer = make_timer(self._period)

    def fileno(self) -> int:
        """Return a descriptor that is readable when it is time for samples."""
        return self._timer

    def look(self) -> int:
        """Begin with threads that are new, forget those that have ended; return how many there are."""
        tids = list_threads(self.probe.pid)
        self._used = {tid: self._used[tid] if tid in self._used else self._cpu_time(tid) for tid in tids}
        return len(tids)

    def _cpu_time(self, tid: int) -> int:
        """Nanoseconds that a thread has run for; 0 for one that has ended."""
        try:
            with open(f"/proc/{self.probe.pid}/task/{tid}/schedstat", "rb", buffering=0) as file:
                return int(file.read().split()[0])
        except (OSError, IndexError):
            return 0

    def drain(self, handle: Callable[[Sample], object]) -> None:
        """Take the samples that are due and hand them over."""
        if self._timer < 0 or not expirations(self._timer):
            return
        for tid in list(self._used):
            owed = (self._cpu_time(tid) - self._used[tid]) // self._period
            stat = self._stat(tid) if owed > 0 else []
            if stat[:1] == [b"R"]:
                beyond = max(owed - _MOST_OWED, 0)
                self.lost += beyond
                self._used[tid] += self._period * (beyond + 1)
                sample = self._take(tid, int(stat[_CPU]) if len(stat) > _CPU else 0)
                if sample is not None:
                    handle(sample)

    def _stat(self, tid: int) -> list[bytes]:
        """The fields of a thread's stat from its state on, as many as there are."""
        try:
            with open(f"/proc/{self.probe.pid}/task/{tid}/stat", "rb", buffering=0) as file:
                return file.read().rpartition(b") ")[2].split()
        except OSError:
            return []

    def _take(self, tid: int, cpu: int) -> Sample | None:
        """Stop a thread and copy what a sample has; None for one that is in the kernel, or cannot be stopped."""
        try:
            with StoppedProcess(self.probe.pid, thread=tid, limit_s=_LIMIT_S) as stopped:
                now = time.monotonic_ns()
                registers = stopped.registers(tid)
                in_kernel = stopped.is_in_system_call(tid)
                stack = b"" if in_kernel else stopped.read_some(registers.sp, STACK_BYTES)
                raw = bytes(registers.words)[: 8 * len(self._layout.names)]
                chain = () if in_kernel else self._follow(stopped, registers.pc, raw, registers.sp, stack)
        except (TargetError, PrivilegeError):
            return None
        if in_kernel:
            return None
        return Sample(self.probe.pid, tid, cpu, now, 0, self._period, chain, raw, stack)

    def _follow(self, stopped: StoppedProcess, pc: int, raw: bytes, sp: int, stack: bytes) -> tuple[int, ...]:
        """The program counters of a stack by frame pointers, the innermost first. What was copied of it need not be read again."""
        at = self._layout.get_offset(self._layout.fp)
        frame = int.from_bytes(raw[at : at + 8], "little")
        chain = [pc]
        while len(chain) < MOST_FRAMES:
            inside = 0 <= frame - sp <= len(stack) - _FRAME.size
            data = stack[frame - sp :][: _FRAME.size] if inside else stopped.read_some(frame, _FRAME.size)
            if len(data) < _FRAME.size:
                break
            frame, caller = _FRAME.unpack(data)
            if not caller:
                break
            chain.append(caller)
        return tuple(chain)

    def close(self) -> None:
        """End sampling. Twice is harmless."""
        if self._timer >= 0:
            os.close(self._timer)
            self._timer = -1

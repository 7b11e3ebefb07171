"""What sonde does itself while a session of the user engine runs: interval probes, samples, and the clock of the process (see spec.engine.Worker)."""

from __future__ import annotations

import os
import select
import time

from ..bpf.maps.ringbuf import RingMap, RingReader
from ..bpf.ring import NO_RUNS
from . import frame
from .clock import FIRST_NS, THEN_NS, Clock, is_trusted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Protocol

    from ..spec.engine import Sample
    from ..spec.object import ProbeSpec

    class Sampler(Protocol):
        """Samples of the process (see kernel.sampling.Sampler)."""

        lost: int

        @property
        def probe(self) -> ProbeSpec: ...

        def fileno(self) -> int: ...
        def look(self) -> int: ...
        def drain(self, handle: Callable[[Sample], object]) -> None: ...
        def close(self) -> None: ...


POLL_NS = 10_000_000  # how often a ring is looked at: nobody in the process tells us
_LOOK_NS = 10_000_000  # how often the process is looked at: new threads, files, programs
_SOON_NS = 500_000


class Worker:
    """Runs `run(program)` for timers and `run_on(program, sample)` for samples, when it is called. A context manager."""

    def __init__(
        self,
        run: Callable[[str], object],
        run_on: Callable[[str, Sample], object],
        look: Callable[[], object],
        state: memoryview | None,
        soon: bool = False,
    ) -> None:
        """`look` is called now and then, and `soon` for the first time; `state` is the memory that the clock of the process is kept in, if there is one."""
        self._run = run
        self._run_on = run_on
        self._epoll = select.epoll()
        self._timers: dict[int, str] = {}
        self._samplers: dict[int, tuple[str, Sampler]] = {}
        self._state = state
        self._lost = 0  # of samplers that have ended
        self._clock = Clock(state) if state is not None and is_trusted() else None
        self._tick = self._watch(make_timer(FIRST_NS, THEN_NS)) if self._clock is not None else -1
        self._look_at_process = look
        self.mapped: Callable[[], object] | None = None  # see spec.engine.Worker
        self._look = self._watch(make_timer(_SOON_NS if soon else _LOOK_NS, _LOOK_NS)) if state is not None else -1

    def _watch(self, fd: int) -> int:
        self._epoll.register(fd, select.EPOLLIN)
        return fd

    def fileno(self) -> int:
        """A descriptor that is readable when `work` is due."""
        return self._epoll.fileno()

    def add_interval(self, probe: ProbeSpec) -> None:
        """Run the program of a probe again and again."""
        self._timers[self._watch(make_timer(probe.period_ns))] = probe.program

    def add_sampler(self, probe: ProbeSpec, sampler: Sampler) -> None:
        """Run the program of a probe on each sample."""
        self._samplers[self._watch(sampler.fileno())] = probe.program, sampler
        if self._look < 0:
            self._look = self._watch(make_timer(_LOOK_NS))

    def remove_sampler(self, probe: ProbeSpec) -> None:
        """End the samples of a probe. Twice is harmless."""
        for fd, (program, sampler) in list(self._samplers.items()):
            if program == probe.program and sampler.probe == probe:
                self._epoll.unregister(fd)
                del self._samplers[fd]
                self._lost += sampler.lost
                sampler.close()

    @property
    def lost(self) -> int:
        """How many samples found no room, and runs in the process no slot (or returns no place in the table)."""
        missed = self._state[frame.MISSED // 8] if self._state is not None else 0
        return missed + self._lost + sum(sampler.lost for _, sampler in self._samplers.values())

    def work(self) -> None:
        """Run what is due, once for each time that it was; timers of the same moment in the script's order."""
        places = {fd: place for place, fd in enumerate(self._timers)}
        for fd in sorted((fd for fd, _ in self._epoll.poll(0)), key=lambda fd: places.get(fd, -1)):
            if fd in self._timers:
                for _ in range(expirations(fd)):
                    self._run(self._timers[fd])
            elif fd == self._look:
                expirations(fd)
                self._look_at_process()
                for _, sampler in self._samplers.values():
                    sampler.look()
            elif fd == self._tick and self._clock is not None:
                expirations(fd)
                self._clock.update()
        self._drain()

    def _drain(self) -> None:
        """Run programs on the samples that wait. A perf event says only once that there are some: whoever polled us may have heard it in our place."""
        for program, sampler in list(self._samplers.values()):
            sampler.drain(lambda sample, program=program: self._run_on(program, sample))  # type: ignore[misc]

    def stop(self) -> None:
        """Run nothing more. Twice is harmless."""
        for timer in self._timers:
            os.close(timer)
        self._timers.clear()
        self._drain()
        self._lost += sum(sampler.lost for _, sampler in self._samplers.values())
        for _, sampler in self._samplers.values():
            sampler.close()
        self._samplers.clear()

    def close(self) -> None:
        """Let go of all. Twice is harmless."""
        self.stop()
        for fd in (self._tick, self._look):
            if fd >= 0:
                os.close(fd)
        self._tick = self._look = -1
        if self._clock is not None:
            self._clock.close()
        if not self._epoll.closed:
            self._epoll.close()

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class PolledReader(RingReader):
    """Reads a ring to which the process writes without telling anybody: its descriptor becomes readable at fixed intervals."""

    __slots__ = ("_timer",)

    def __init__(self, ring: RingMap) -> None:
        super().__init__(ring)
        self._timer = make_timer(POLL_NS)

    def fileno(self) -> int:
        """Return the descriptor to wait on."""
        return self._timer

    def reads(self, ring: object) -> bool:
        """Whether this reads a ring."""
        return self._timer >= 0 and self._ring is ring

    def reopen(self) -> None:
        """Go on where the ring has moved to (see `SharedMap.move`)."""
        timer = self._timer
        super().close()
        super().__init__(self._ring)
        self._timer = timer

    def drain(
        self,
        handle: Callable[[memoryview, int, int], object],
        runs: Mapping[int, Callable[[memoryview, int], bool]] = NO_RUNS,
    ) -> int:
        """Read what waits; see `RingConsumer.drain`."""
        if self._timer >= 0:
            expirations(self._timer)
        count = super().drain(handle, runs)
        self._ring.go_back(frame.WARM_BYTES // 2)
        return count

    def close(self) -> None:
        """Give the memory up. Twice is harmless."""
        timer, self._timer = self._timer, -1
        if timer >= 0:
            os.close(timer)
        super().close()


def make_timer(first_ns: int, period_ns: int = 0) -> int:
    """Return a timer that becomes readable after `first_ns`, and then every `period_ns` (0: the same). The caller closes it."""
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    fd = int(libc.timerfd_create(time.CLOCK_MONOTONIC, os.O_CLOEXEC | os.O_NONBLOCK))
    if fd < 0:
        raise OSError(ctypes.get_errno(), "timerfd_create")
    spec = (ctypes.c_long * 4)(*divmod(period_ns or first_ns, 1_000_000_000), *divmod(first_ns, 1_000_000_000))
    libc.timerfd_settime(fd, 0, spec, None)
    return fd


def expirations(timer: int) -> int:
    """Return how often a timer has been due since it was asked last."""
    try:
        return int.from_bytes(os.read(timer, 8), "little")
    except BlockingIOError:
        return 0

"""The time in the traced process, by the counter of the processor: a line that sonde draws from the kernel's clock and keeps up to date.

    ns = base + (counter - counter at base) * slope

Reading it costs what the instruction for it costs, on x86-64 a third of the vdso's clock. Every second the line bends so that it meets the kernel's clock again a second later; it never jumps,
so that times of one thread are in order. Used only where the kernel itself trusts the counter (its clock source is the machine's CLOCK_SOURCE).
"""

from __future__ import annotations

import os
import time

from ..bpf.jit.code import MachineCode
from ..bpf.jit.here import Placed
from ..errors import FeatureError
from . import frame
from .machine import get_machine

_SOURCE = "/sys/devices/system/clocksource/clocksource0/current_clocksource"
FIRST_NS, THEN_NS = 100_000_000, 1_000_000_000  # when to draw it: after so long, then every
_TRIES = 7


def is_trusted() -> bool:
    """Whether the kernel keeps time by the processor's counter."""
    try:
        with open(_SOURCE) as file:
            return file.read().strip() == get_machine(os.uname().machine).CLOCK_SOURCE
    except (OSError, FeatureError):
        return False


class Clock:
    """Keeps the line in the state of a process. A context manager. Call `update` after FIRST_NS, then every THEN_NS."""

    def __init__(self, words: memoryview) -> None:
        """`words` is the state as 64-bit words."""
        self._words = words
        machine = get_machine(os.uname().machine)
        self._counter = Placed(MachineCode(machine.NAME, machine.COUNTER, (), ()))
        self._line = 0
        self._slope = 0
        self._last = self._sample()

    def _sample(self) -> tuple[int, int]:
        """The counter and the boot time (ns) of one moment, as near as can be."""
        best: tuple[int, int, int] | None = None
        for _ in range(_TRIES):
            before = self._counter.run()
            now = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
            after = self._counter.run()
            if best is None or after - before < best[0]:
                best = after - before, (before + after) // 2, now
        assert best is not None
        return best[1], best[2]

    def update(self) -> None:
        """Draw the next piece of the line."""
        counter, now = self._sample()
        ticks, passed = counter - self._last[0], now - self._last[1]
        if ticks <= 0 or passed <= 0:
            return
        slope = (passed << 32) // ticks
        shown = self._at(counter) if self._line else now
        # From where the old line is now to where the clock will be in a second.
        drawn = slope * max(THEN_NS + now - shown, THEN_NS // 2) // THEN_NS if self._line else slope
        self._line = frame.LINES[1] if self._line == frame.LINES[0] else frame.LINES[0]
        offset = time.clock_gettime_ns(time.CLOCK_MONOTONIC) - time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        if abs(offset) < 1_000_000:  # it counts sleep only: what is less than that is the time between two calls
            offset = 0
        for at, value in enumerate((counter, shown, drawn, offset & (1 << 64) - 1)):
            self._words[self._line // 8 + at] = value
        self._words[frame.CLOCK // 8] = self._line
        self._last = counter, now

    def _at(self, counter: int) -> int:
        """What the line shows at a counter."""
        base, shown, slope, _ = self._words[self._line // 8 : self._line // 8 + 4]
        return int(shown + ((counter - base) * slope >> 32))

    def close(self) -> None:
        """Free the code. Twice is harmless."""
        self._counter.close()

"""From the kernel's clocks to the wall clock: what to add to nanoseconds since boot to get nanoseconds since 1970."""

from __future__ import annotations

import time

_CLOCK_TAI = 11
_CLOCK_IDS = {
    "monotonic": time.CLOCK_MONOTONIC,
    "boot": time.CLOCK_BOOTTIME,
    "tai": _CLOCK_TAI,
    "sw_tai": _CLOCK_TAI,
}
_SECOND_NS = 1_000_000_000


class Clocks:
    """The offsets between clocks, measured once for each clock: later changes of the wall clock do not show."""

    __slots__ = ("_offsets",)

    def __init__(self) -> None:
        self._offsets: dict[str, int] = {"real": 0}

    def offset_ns(self, clock: str) -> int:
        """Return wall clock minus `clock` ("monotonic", "boot", "tai", "real") in ns; unknown names count as boot."""
        if clock not in self._offsets:
            clock_id = _CLOCK_IDS.get(clock, time.CLOCK_BOOTTIME)
            offset = _measure_ns(clock_id)
            if clock_id == _CLOCK_TAI:  # leap seconds: a whole number of them
                offset = round(offset / _SECOND_NS) * _SECOND_NS
            self._offsets[clock] = offset
        return self._offsets[clock]


def _measure_ns(clock_id: int) -> int:
    """Return the offset by the tightest of five readings of the wall clock around one of the other."""
    best = (1 << 62, 0)
    for _ in range(5):
        before = time.time_ns()
        other = time.clock_gettime_ns(clock_id)
        after = time.time_ns()
        best = min(best, (after - before, (before + after) // 2 - other))
    return best[1]

"""Overhead budgets: how many hits of a probe are looked at in a second, and the account of those that were passed over.

Words behind the state (`frame`), which the process and sonde share:

    0            u64  allowed: how many hits of any one probe may have been looked at by now; sonde lets it grow by the limit each second
    64 + 64 n    u64  looked at: hits of probe n, counted by the process
    and then, for each slot, a u64 for each probe: hits that were passed over

The process compares and counts; it needs no clock, and sonde no look at each probe at each tick. If sonde is killed, nothing is allowed any more.
"""

from __future__ import annotations

from ..record import Record
from ..spec.engine import Row
from ..spec.object import EventSpec

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

_LINE_BYTES = 64
_SWEEP_NS, _REPORT_NS = 100_000_000, 1_000_000_000
_NEVER = 1 << 62  # as many as nobody will ever be allowed


class Limit(Record):
    """What a user wants: so many hits of a probe in a second at most, and whether a probe that has more is switched off rather than thinned."""

    hits_per_s: int
    off: bool = False


class Gates(Record):
    """Where the process finds the words: their address there, for how many probes and slots."""

    address: int
    probes: int
    slots: int

    @property
    def stride(self) -> int:
        """Bytes from the words of one slot to those of the next."""
        return -(-8 * self.probes // _LINE_BYTES) * _LINE_BYTES

    @property
    def size(self) -> int:
        """Of all words, in bytes."""
        return _LINE_BYTES * (1 + self.probes) + self.stride * self.slots

    def looked_at(self, probe: int) -> int:
        """The address of a probe's hits that were looked at."""
        return self.address + _LINE_BYTES * (1 + probe)

    def passed_over(self, probe: int) -> int:
        """The address of a probe's hits that were passed over, of slot 0."""
        return self.address + _LINE_BYTES * (1 + self.probes) + 8 * probe


class Budget:
    """The accounts of a session. `names` are those of the probes in the process; `slots` as for per-CPU values."""

    def __init__(self, limit: Limit, names: Sequence[str], slots: int) -> None:
        self.limit = limit
        self._numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
        self._names = [[name] for name in self._numbers]
        self.gates = Gates(0, len(self._names), slots)
        self.rows: list[Row] = []  # to be shown
        self._off: set[int] = set()
        self._words: memoryview | None = None
        self._since_ns = self._swept_ns = self._reported_ns = 0
        self._lifted = [0] * len(self._names)  # of what was looked at: what sonde has added, so that nobody saves up
        self._told = [(0, 0)] * len(self._names)  # hits looked at and passed over, as the last row says

    def open(self, words: memoryview, now_ns: int) -> None:
        """Begin, with the words (u64) as sonde has them: a second's hits may come at once."""
        self._words = words
        self._since_ns = self._swept_ns = self._reported_ns = now_ns
        words[0] = self.limit.hits_per_s

    def join(self, names: Sequence[str]) -> int:
        """Return the number of the account that probes have at a place that they share: the first one's. What happens to one happens to all there."""
        number = min(self._numbers[name] for name in names)
        self._names[number] += [name for name in names if name not in self._names[number]]
        return number

    def tick(self, now_ns: int) -> list[int]:
        """Allow what time has brought; return the accounts that are to be switched off, and then reported. Called as often as hits are to be spread."""
        words = self._words
        if words is None:
            return []
        words[0] = allowed = self.limit.hits_per_s * (now_ns - self._since_ns + 1_000_000_000) // 1_000_000_000
        if now_ns - self._swept_ns < _SWEEP_NS:
            return []
        self._swept_ns = now_ns
        looked_at = self._looked_at()
        saved = allowed - self.limit.hits_per_s
        for number in [number for number, count in enumerate(looked_at) if count < saved]:
            self._lift(number, saved)
        if now_ns - self._reported_ns >= _REPORT_NS:
            self.report(now_ns)
        return self._switch_off() if self.limit.off else []

    def report(self, now_ns: int) -> None:
        """Make a row for each probe that has been passed over since the last time."""
        seconds = (now_ns - self._reported_ns) / 1e9
        self._reported_ns = now_ns
        if self._words is None:
            return
        for number, (seen, passed) in enumerate(zip(self._looked_at(), self._passed_over())):
            account = seen - self._lifted[number], passed
            before, self._told[number] = self._told[number], account
            if passed > before[1]:
                self._make_row(number, (account[0] - before[0], passed - before[1]), passed, seconds)

    def _switch_off(self) -> list[int]:
        """Let nothing more of those probes be looked at that have been passed over; return which are new among them."""
        fresh = [number for number, passed in enumerate(self._passed_over()) if passed and number not in self._off]
        self._off.update(fresh)
        for number in fresh:
            self._lift(number, _NEVER)
        return fresh

    def _lift(self, number: int, count: int) -> None:
        assert self._words is not None
        at = self.gates.looked_at(number) - self.gates.address
        self._lifted[number] += count - self._words[at // 8]
        self._words[at // 8] = count

    def _looked_at(self) -> list[int]:
        assert self._words is not None
        step = _LINE_BYTES // 8
        return self._words[step : step * (1 + self.gates.probes) : step].tolist()

    def _passed_over(self) -> list[int]:
        assert self._words is not None
        first, step, count = self.gates.passed_over(0) // 8, self.gates.stride // 8, self.gates.probes
        slots = [self._words[at : at + count].tolist() for at in (first + step * n for n in range(self.gates.slots))]
        return [sum(counts) for counts in zip(*slots)]

    def _make_row(self, number: int, counts: tuple[int, int], total: int, seconds: float) -> None:
        params = (
            ("probes", tuple(self._names[number])), ("limit", self.limit.hits_per_s), ("off", number in self._off),
        )  # fmt: skip
        self.rows.append(Row(EventSpec(-1, "thinned", 0, params=params), (*counts, total, seconds)))

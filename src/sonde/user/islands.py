"""Jumps of which only some bytes can be chosen to trampolines that may be anywhere: small pieces of code where such a jump can lead.

    islands = Islands(agent)
    way = islands.make(stopped, window.puns)
    way.lead(trampoline)

An island is one jump. Islands share pages where puns reach them; other pages are mapped where the process has nothing.
"""

from __future__ import annotations

from ..bpf.jit.x86_encoding import imm
from ..record import Record
from .memory import PAGE, iter_free, page_up
from .x86.code import jump_to

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from mmap import mmap

    from .agent import Agent
    from .stopped import StoppedProcess
    from .x86.window import Pun

_BYTES = 16  # of an island, at most
_NEAR = (1 << 31) - 4096
# What is left free above the heap: much where that can be had. A heap that cannot grow on is continued elsewhere by C libraries.
_HEAP_ROOMS = (1 << 30, 64 << 20)


class _Page:
    """Memory of ours with islands: `taken` are the addresses at which they begin."""

    def __init__(self, address: int, memory: mmap) -> None:
        self.address, self.memory = address, memory
        self.taken: list[int] = []

    def find(self, low: int, high: int) -> int:
        """Return a place for another island that begins at an address from `low` to `high`, 0 without."""
        at = max(low, self.address)
        for other in sorted(self.taken):
            if other < at + _BYTES and at < other + _BYTES:
                at = other + _BYTES
        return at if at <= min(high, self.address + len(self.memory) - _BYTES) else 0


class Islands:
    """The islands that lead to the trampolines of one agent, and go with it."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._pages: list[_Page] = []

    def make(self, stopped: StoppedProcess, puns: Sequence[Pun]) -> Way | None:
        """Take a place for an island where one of the puns can lead. None: nothing is free there.

        Raises TargetError, KernelError, PrivilegeError.
        """
        for pun in puns:
            for page in self._pages:
                at = page.find(pun.low, pun.low + pun.size - 1)
                if at:
                    return _take(pun, page, at)
        for room in _HEAP_ROOMS:
            for pun in puns:
                made = self._map(stopped, pun, room)
                if made is not None:
                    return _take(pun, *made)
        return None

    def _map(self, stopped: StoppedProcess, pun: Pun, room: int) -> tuple[_Page, int] | None:
        """Map memory where a pun can lead; return it, and a place in it."""
        most = pun.low + pun.size - 1
        for start, end in iter_free(stopped.maps(), pun.low, most + _BYTES, room):
            at, last = max(start, pun.low), min(end - _BYTES, most)
            if at > last:
                continue
            if page_up(at) <= last:  # a whole page for those to come
                at = page_up(at)
            first = at & -PAGE
            memory = self._agent.map_island(stopped, first, page_up(at + _BYTES) - first)
            if memory is not None:
                self._pages.append(_Page(first, memory))
                return self._pages[-1], at
        return None


def _take(pun: Pun, page: _Page, at: int) -> Way:
    page.taken.append(at)
    return Way(pun, at, page)


class Way(Record, eq=False):
    """A pun, and the place of the island that it leads to."""

    pun: Pun
    island: int
    page: _Page

    def lead(self, target: int) -> None:
        """Make the island jump to `target`, by code that changes nothing but the counter."""
        near = abs(target - self.island) < _NEAR
        code = (
            jump_to(self.island, target) if near else b"\xff\x25" + imm(0) + target.to_bytes(8, "little")
        )  # jmp *0(%rip)
        at = self.island - self.page.address
        self.page.memory[at : at + len(code)] = code

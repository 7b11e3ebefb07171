"""Sites of one program to patches: the trampoline placed in an image, the jump to it, and what must be known of both to leave again.

    places.make_way(stopped, image, site)                  memory where a shorter jump can lead to, if that is what fits
    places.begin(taken, read)                              what stands already is not displaced
    patch, how = places.place_probes(image, site, name, before, after)
    patch = places.place_call(image, site, calls)
    places.leave(stopped, …)                               threads go on where they came from

Nothing of the process's own code is changed here (`patches` does that), and but for `make_way` and `leave` the process may run.
"""

from __future__ import annotations

from ..errors import ProbeError
from ..record import Record
from . import frame
from .handlers import MOST, SIGTRAP, Handler, restore
from .patches import Patch
from .relocated import Relocated
from .windows import Claims, NoWindowError, fits, hold_against_file, original, plan, refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from .agent import Agent
    from .image import Image
    from .islands import Way
    from .machine import Machine
    from .runners import Calls, Runner
    from .sites import Files, Site
    from .stopped import StoppedProcess
    from .windows import Read
    from .x86.window import Window


class _Placed(Record):
    """A patch: the site that it is for, and the end of what its jump displaces or consists of."""

    site: int
    end: int


class Places:
    """What stands where in one program, or is about to. `files` are those of its process."""

    def __init__(self, files: Files, machine: Machine) -> None:
        self._files = files
        self._machine = machine
        self.allows_traps = False  # breakpoints where no jump fits
        self.blocking = 0  # a thread that blocks SIGTRAP
        self.returns: list[int] = []  # where functions with a return probe come back to
        self._traps: Handler | None = None
        self._placed: dict[int, _Placed] = {}  # by a patch's address
        self._claims = Claims()
        self._read: Read = _read_nothing
        self._ways: dict[int, Way] = {}  # by the address of the window
        self._ways_back: dict[
            int, tuple[int, int]
        ] = {}  # from a state in our code: address, bytes of ours on the stack

    def make_way(self, stopped: StoppedProcess, image: Image, site: Site, *, early: bool = False) -> None:
        """Have memory where the jump of a site can lead to, when its bytes do not reach the trampoline; where that cannot be, planning says so."""
        if fits(site, self._files, early=early):
            window = plan(site, self._files, early=early)
            if window.kind == "punned" and window.addr not in self._ways:
                way = image.islands.make(stopped, window.puns)
                if way is not None:
                    self._ways[window.addr] = way

    def note_way_back(self, code: int, address: int) -> None:
        """A thread that stands at `code` of ours has not begun it: it goes on at `address` once that is taken out."""
        self._ways_back[code] = address, 0

    def begin(self, taken: Collection[int], read: Read) -> None:
        """Plan anew, around the patches that are in (their addresses). `read` gives the memory of the process."""
        self._read = read
        self._claims = Claims((address, self._placed[address].end) for address in taken)

    def site_of(self, patch: int) -> int:
        """The address of the site that a patch is for."""
        return self._placed[patch].site

    def drop(self, patch: int) -> None:
        """Forget a patch that has been taken out."""
        del self._placed[patch]

    def sites(self) -> set[int]:
        """The addresses of the sites of all patches, also of those that are not in yet."""
        return {placed.site for placed in self._placed.values()}

    # patches --------------------------------------------------------------------------------------------------

    def place(self, image: Image, site: Site, name: str, before: list[Runner]) -> Patch:
        """Return the patch of what is sonde's own at a site: a jump. Raises NoWindowError, ProbeError."""
        return self._place(image, site, name, plan(site, self._files), before, [])

    def place_probes(
        self, image: Image, site: Site, name: str, before: list[Runner], after: list[Runner]
    ) -> tuple[Patch, str]:
        """Return the patch of a site, and how it is made: a jump, or where none fits and it was asked for a breakpoint. Raises NoWindowError, ProbeError."""
        try:
            window = plan(site, self._files)
            patch = self._place(image, site, name, window, before, after)
            return patch, f"{window.kind} window of {window.length} bytes"
        except NoWindowError as failure:
            if self.allows_traps:
                window = self._plan_trap(image, site, failure)
                patch = self._place(image, site, name, window, before, after)
                return patch, f"breakpoint, some microseconds a hit: {window.reason}"
            if fits(site, self._files, trap=True):
                failure.message += " (--traps puts a breakpoint there)"
            raise

    def _plan_trap(self, image: Image, site: Site, failure: NoWindowError) -> Window:
        """The window of a breakpoint, where no jump fits for the reason of `failure`; the process gets a handler for it when it is put in."""
        reason = ""
        if self.blocking:
            reason = f"a breakpoint would end the process, as thread {self.blocking} blocks SIGTRAP"
        elif self._traps is not None and self._traps.is_full:
            reason = f"there are {MOST} breakpoints already"
        if reason:
            raise NoWindowError(f"{failure.message}; and {reason}", hint=failure.hint)
        window = plan(site, self._files, trap=True)
        self._traps = self._traps or Handler(image.agent, self._machine, SIGTRAP)
        return window

    def _hold(self, name: str, site: Site, window: Window) -> None:
        hold_against_file(name, site, window, self._files, self._read, self._claims)

    def _place(
        self, image: Image, site: Site, name: str, window: Window, before: list[Runner], after: list[Runner]
    ) -> Patch:
        """Place the trampoline of a site, with what the window displaces behind it. Raises NoWindowError, ProbeError."""
        self._hold(name, site, window)
        kind = frame.ENTRY if site.is_entry else frame.INSIDE
        if kind == frame.INSIDE and any(runner.overrides for runner in before):
            raise ProbeError(
                f"override() replaces functions, and at {site.vaddr:#x} of {site.path} none begins",
                hint="probe the function's first instruction",
            )
        start = image.agent.reserve(0)
        if after:
            head, tail = self._machine.returning(start, before, after, image.around, site.address, window.signs)
            code, back = head + tail, start + len(head)
        else:
            code, back = self._machine.entry(start, before, image.around, kind, site.address), 0
        moved = self._move(site, window.code, window.addr, start + len(code), window.patch)
        patch = self._patch(image, site, window, start, [(code, None, 0), (moved.code, moved, 0)])
        if back:
            self.returns.append(back)
        return patch

    def _patch(
        self,
        image: Image,
        site: Site,
        window: Window,
        start: int,
        parts: Sequence[tuple[bytes, Relocated | None, int]],
    ) -> Patch:
        """Place a trampoline, made for the address `start`; return the jump to it.

        `parts` follow each other: code, and for moved instructions what became of them and where in the window they were.
        """
        end = window.addr + max(window.length, window.keep)
        if not self._claims.add(window.addr, end):
            raise refused(site, "another probe displaces some of the same instructions")
        try:
            jump = self._jump(site, window, start)
        except ProbeError:
            self._claims.remove(window.addr)
            raise
        code = b"".join(part for part, _, _ in parts)
        image.agent.reserve(len(code))
        image.agent.write(start, code)
        moves: dict[int, int] = {}
        here = start
        for part, moved, first in parts:
            if moved is not None:
                self._ways_back.update((here + offset, (address, 0)) for offset, address in moved.returns)
                moves.update((first + offset, here + place) for offset, place in moved.places)
            here += len(part)
        self._placed[window.addr] = _Placed(site.address, end)
        return Patch(window.addr, original(site, self._files, window.addr, window.patch), jump, moves)

    def _jump(self, site: Site, window: Window, start: int) -> bytes:
        """The bytes that make a window's first ones lead to `start`. Raises NoWindowError where nothing can be placed in reach of a shorter jump."""
        if window.kind == "trap":
            assert self._traps is not None
            self._traps.add(window.addr + len(self._machine.BREAKPOINT), start)
            return self._machine.BREAKPOINT
        if window.kind != "punned":
            return self._machine.jump_to(window.addr, start)
        way = self._ways.get(window.addr)
        if way is None:
            raise refused(site, f"{window.reason}; and nothing is free where a shorter jump could lead to")
        way.lead(start)
        self._ways_back[way.island] = window.addr, 0
        return (way.pun.prefix + self._machine.jump_to(window.addr + len(way.pun.prefix), way.island))[: window.patch]

    def _move(self, site: Site, code: bytes, old: int, new: int, patch: int, *, falls: bool = False) -> Relocated:
        """Instructions of a window for another address, see `relocate`. Raises NoWindowError for what cannot be that far away."""
        try:
            return self._machine.relocate(code, old, new, patch=patch, falls=falls)
        except ProbeError as failure:
            raise refused(site, failure.message) from None

    def place_call(self, image: Image, site: Site, calls: Calls) -> Patch:
        """Return the patch of a place that makes system calls: a jump, or where none fits and it was asked for a breakpoint. Raises ProbeError."""
        try:
            return self._build_call(image, site, calls, plan(site, self._files, early=True))
        except NoWindowError as failure:
            if not self.allows_traps:
                raise
            return self._build_call(image, site, calls, self._plan_trap(image, site, failure))

    def _build_call(self, image: Image, site: Site, calls: Calls, window: Window) -> Patch:
        """Place the trampoline of a system call, between what the window displaces before the call and the call with what follows."""
        self._hold("a system call", site, window)
        start, split = image.agent.reserve(0), window.probe
        head = Relocated(b"", (), ())
        if split:
            head = self._move(site, window.code[:split], window.addr, start, split, falls=True)
        middle, size = start + len(head.code), len(self._machine.SYSCALL)
        rest, replaced = window.code[split:], max(window.patch - split, 0)
        tail, behind = self._move(site, rest, site.address, middle, replaced), -1
        while behind != (offset := _offset_of(tail, site.address + size, size)):  # as a rule the same wherever it is
            behind = offset
            code, waits = self._machine.system_calls(middle, calls, image.around, site.address, behind)
            tail = self._move(site, rest, site.address, middle + len(code), replaced)
        patch = self._patch(
            image, site, window, start, [(head.code, head, 0), (code, None, 0), (tail.code, tail, split)]
        )
        self._ways_back.update((place, (site.address + size, below)) for place, below in waits)
        return patch

    # in and out -----------------------------------------------------------------------------------------------

    def install_handler(self, stopped: StoppedProcess) -> None:
        """Give the process the handler that breakpoints need, if there is one. Twice is harmless."""
        if self._traps is not None:
            self._traps.install(stopped)

    def restore_handler(self, pid: int, agents: Sequence[Agent]) -> list[str]:
        """Take the handler away again, once all breakpoints are out; return the reason why that cannot be."""
        spans = [span for agent in agents for span in agent.spans]
        if self._traps is None or restore(pid, spans) is not None:
            return []
        return ["a thread has run into a breakpoint and does not go on"]

    def leave(self, stopped: StoppedProcess) -> None:
        """Let threads that stand in moved instructions, or wait in a system call of theirs, go on where these came from."""
        for tid in stopped.threads:
            way = self._ways_back.get(stopped.get_pc(tid))
            if way is not None:
                registers = stopped.registers(tid)
                registers.pc = way[0]
                registers.sp += way[1]
                stopped.set_registers(tid, registers)


def _read_nothing(address: int, size: int) -> bytes:
    raise ProbeError(f"nobody has said how to read {size} bytes at {address:#x}")


def _offset_of(moved: Relocated, address: int, offset: int) -> int:
    """Where moved code goes on for what was at an address, `offset` bytes behind its first: at an instruction, or at the jump back."""
    places = dict(moved.places)
    return places[offset] if offset in places else next(at for at, origin in moved.returns if origin == address)

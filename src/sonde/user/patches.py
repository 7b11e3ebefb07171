"""Code of a stopped process replaced, and put back: all sites or none.

    with StoppedProcess(pid) as stopped:
        put_in(stopped, agents, patches)
    …
    with StoppedProcess(pid) as stopped:
        take_out(stopped, agents, patches)
    remove_when_left(pid, agents)

A site is replaced only where memory is what the caller expects: other bytes are another tracer's. A thread that stands between the first and the last of the replaced
instructions goes on in their moved copy, also one that a signal handler will return there. The order makes the process complete at every moment: the copies are there before a thread is sent to
them, the table knows a site before it changes, threads are moved before the bytes change, and memory goes when nothing leads to it any more.
"""

from __future__ import annotations

from time import monotonic, sleep

from ..bpf.jit.x86_encoding import SYSCALL
from ..errors import BusyError, TargetError
from ..record import Record
from .agent import Site
from .frames import STACK_BYTES, Slot, find_between, find_values, iter_slots
from .goroutines import is_go, iter_stack_tops
from .interrupted import needs_restart
from .stopped import StoppedProcess

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from .agent import Agent

_DEEP_STACK = 8 << 20  # bytes of a stack that are searched for return addresses


class Patch(Record):
    """A site: `original` at `address` becomes `replacement`, of the same length. `moves` says for the offset of each instruction where its copy is."""

    address: int
    original: bytes
    replacement: bytes
    moves: Mapping[int, int]


# in ---------------------------------------------------------------------------------------------------------------


def put_in(stopped: StoppedProcess, agents: Sequence[Agent], patches: Sequence[Patch]) -> None:
    """Replace all sites. Every site is entered in the table of the closest agent that has room.

    Raises TargetError for a site that is not as expected, BusyError when a thread stands where it cannot be moved from: nothing has been changed then.
    """
    patches = sorted(patches, key=lambda patch: patch.address)
    stopped.settle()
    _check(stopped, patches)
    moves = _plan_moves(stopped, patches)
    for patch in patches:
        with_room = [agent for agent in agents if agent.room[1] > 0] or agents
        nearest = min(with_room, key=lambda agent: abs(agent.address - patch.address))
        nearest.enter_site(Site(patch.address, patch.original, patch.replacement))
    for tid, pc in moves.threads.items():
        stopped.set_pc(tid, pc)
    for place, pc in moves.frames.items():
        stopped.write(place, pc.to_bytes(8, "little"))
    done: list[Patch] = []
    try:
        for patch in patches:
            stopped.write(patch.address, patch.replacement)
            done.append(patch)
    except TargetError:
        for patch in done:
            stopped.write(patch.address, patch.original)
        for agent in agents:
            agent.clear_sites([patch.address for patch in patches])
        raise


def put_in_soon(pid: int, agents: Sequence[Agent], patches: Sequence[Patch], limit_s: float = 1.0) -> int:
    """Stop a process and replace all sites, again and again while threads stand where they cannot be moved from, for `limit_s` at most.

    Returns for how many nanoseconds the process stood still the last time. Raises as `put_in`.
    """
    deadline, pause = monotonic() + limit_s, 0.0005
    while True:
        stopped = StoppedProcess(pid)
        try:
            with stopped:
                put_in(stopped, agents, patches)
            return stopped.stopped_ns
        except BusyError:
            if monotonic() > deadline:
                raise
        sleep(pause)
        pause = min(2 * pause, 0.05)


def _check(stopped: StoppedProcess, patches: Sequence[Patch]) -> None:
    end = 0
    for patch in patches:
        if patch.address < end:
            raise TargetError(f"two probes of process {stopped.pid} would both replace the bytes at {patch.address:#x}")
        end = patch.address + len(patch.original)
        if len(patch.original) != len(patch.replacement):
            raise ValueError(f"{len(patch.original)} bytes cannot be replaced by {len(patch.replacement)}")
        found = stopped.read(patch.address, len(patch.original))
        if found != patch.original:
            raise TargetError(
                f"the code at {patch.address:#x} of process {stopped.pid} is {found.hex(' ')}, not {patch.original.hex(' ')}: "
                "another tracer has a probe there, or the program changes its own code",
                hint="end the other tracer, or trace this process by the kernel engine",
            )


class _Moves:
    """Where threads are to go on (`threads`), and handlers' returns (`frames`, by the place of the saved counter)."""

    def __init__(self) -> None:
        self.threads: dict[int, int] = {}
        self.frames: dict[int, int] = {}


def _plan_moves(stopped: StoppedProcess, patches: Sequence[Patch]) -> _Moves:
    """Find the threads that stand in a site, and what on their stacks will lead into one. Raises BusyError."""
    inside: dict[int, tuple[Patch, int]] = {}
    for patch in patches:
        inside.update((patch.address + offset, (patch, offset)) for offset in range(1, len(patch.original)))
    starts = {patch.address: patch for patch in patches}
    moves = _Moves()
    for tid in stopped.threads:
        target = _moved(stopped, tid, inside, starts)
        if target:
            moves.threads[tid] = target
    boundaries = {address for address, (patch, offset) in inside.items() if offset in patch.moves}
    if boundaries:
        go = is_go(stopped)
        if go:
            _check_goroutines(stopped, boundaries, inside)
        for tid in stopped.threads:
            for slot in iter_slots(stopped, tid, lambda words: find_values(words, boundaries)):
                patch, offset = inside[slot.value]
                if slot.in_frame and not go:
                    moves.frames[slot.place] = patch.moves[offset]
                elif slot.in_frame or _may_follow_call(patch.original, offset):
                    raise _busy(stopped, f"thread {tid}", patch, "will return to a place")
    return moves


def _check_goroutines(stopped: StoppedProcess, boundaries: set[int], inside: Mapping[int, tuple[Patch, int]]) -> None:
    """Raise BusyError when a goroutine that waits for its turn stands in a site."""
    for top in iter_stack_tops(stopped):
        found = boundaries.intersection(memoryview(top[: len(top) & -8]).cast("Q"))
        if found:
            raise _busy(stopped, "a goroutine", inside[found.pop()][0], "stands")


def _moved(
    stopped: StoppedProcess, tid: int, inside: Mapping[int, tuple[Patch, int]], starts: Mapping[int, Patch]
) -> int:
    """Where a thread is to go on, 0 where it is. One whose system call the kernel will make again stands on the call, not behind it."""
    registers = stopped.registers(tid)
    back = len(SYSCALL) if needs_restart(registers) else 0
    at = registers.pc - back
    patch, offset = inside.get(at, (None, 0))
    if patch is None:
        patch = starts.get(at) if back else None
    if patch is None:
        return 0
    target = patch.moves.get(offset)
    if target is None or (back and stopped.read(target, back) != SYSCALL):
        raise _busy(stopped, f"thread {tid}", patch, "stands")
    return target + back


def _busy(stopped: StoppedProcess, who: str, patch: Patch, what: str) -> BusyError:
    text = f"{who} of process {stopped.pid} {what} within the code at {patch.address:#x} that a probe would replace"
    return BusyError(text, hint="try again")


def _may_follow_call(code: bytes, offset: int) -> bool:
    """True when the bytes before an offset could be a call instruction: e8 and four bytes, or ff /2 of two to seven bytes."""
    if offset >= 5 and code[offset - 5] == 0xE8:
        return True
    return any(offset >= n and code[offset - n] == 0xFF and code[offset - n + 1] >> 3 & 7 == 2 for n in range(2, 8))


# out --------------------------------------------------------------------------------------------------------------


def take_out(stopped: StoppedProcess, agents: Sequence[Agent], patches: Sequence[Patch]) -> list[Patch]:
    """Put the original bytes of all sites back. Returns the sites that somebody else has changed meanwhile, which are left alone:
    what they lead to must stay. Raises TargetError when the process has been killed."""
    foreign = []
    for patch in patches:
        found = stopped.read_some(patch.address, len(patch.replacement))
        if found == patch.replacement:
            stopped.write(patch.address, patch.original)
        elif found and found != patch.original:
            foreign.append(patch)
    kept = {patch.address for patch in foreign}
    gone = [patch.address for patch in patches if patch.address not in kept]
    for agent in agents:
        agent.clear_sites(gone)
    return foreign


def find_inside(
    stopped: StoppedProcess,
    spans: Sequence[tuple[int, int]],
    returns: Collection[int] | None = (),
    harmless: Collection[int] = (),
) -> list[str]:
    """Say which threads are in the memory `spans` (address, size), or will come back there: from a signal handler, or to one of the addresses `returns`.

    `returns` None: to any of its addresses that is on a stack, be it a return address or what is left of one, but for those that are `harmless`.
    """
    stopped.settle()
    reasons = []
    for tid in stopped.threads:
        pc = stopped.get_pc(tid)
        if any(start <= pc < start + size for start, size in spans):
            reasons.append(f"thread {tid} is in it, at {pc:#x}")
            continue
        slots = _slots_into(stopped, tid, spans, _DEEP_STACK if returns or returns is None else STACK_BYTES)
        slots = [s for s in slots if s.value not in harmless]
        slot = next((s for s in slots if s.in_frame or returns is None or s.value in returns), None)
        if slot is not None:
            what = "a signal handler of" if slot.in_frame else "a function called by"
            reasons.append(f"{what} thread {tid} will return to {slot.value:#x}")
    return reasons


def _slots_into(stopped: StoppedProcess, tid: int, spans: Sequence[tuple[int, int]], limit: int) -> list[Slot]:
    return list(iter_slots(stopped, tid, lambda words: find_between(words, spans), limit))


def when_left(
    pid: int,
    spans: Sequence[tuple[int, int]],
    then: Callable[[StoppedProcess], None],
    *,
    returns: Collection[int] | None = (),
    harmless: Collection[int] = (),
    first: Callable[[StoppedProcess], object] | None = None,
    limit_s: float = 1.0,
) -> list[str]:
    """Stop a process until no thread is in the memory `spans` (see `find_inside`), and call `then` while it stands still. Each time `first` is called first. Returns the
    reasons why that has not come within `limit_s`, an empty list when it has. Raises TargetError, PrivilegeError."""
    deadline, pause = monotonic() + limit_s, 0.001
    while True:
        with StoppedProcess(pid) as stopped:
            if first is not None:
                first(stopped)
            reasons = find_inside(stopped, spans, returns, harmless)
            if not reasons:
                then(stopped)
                return []
        if monotonic() > deadline:
            return reasons
        sleep(pause)
        pause = min(2 * pause, 0.1)


def remove_when_left(
    pid: int,
    agents: Sequence[Agent],
    returns: Collection[int] | None = (),
    limit_s: float = 1.0,
    first: Callable[[StoppedProcess], object] | None = None,
    last: Callable[[StoppedProcess], object] | None = None,
) -> list[str]:
    """Unmap the memory of agents as soon as no thread is in it, after `last`. As `when_left`; it also stays while a site that is still in a table may lead to it."""
    sites = [address for agent in agents for address in agent.site_addresses()]
    if sites:
        return [f"the code at {address:#x} was changed by somebody else, and may lead to it" for address in sites]

    def remove(stopped: StoppedProcess) -> None:
        if last is not None:
            last(stopped)
        for agent in agents:
            agent.remove(stopped)

    spans = [span for agent in agents for span in agent.spans]
    return when_left(pid, spans, remove, returns=returns, first=first, limit_s=limit_s)

"""A probe's address to its window: the bytes that a jump to the trampoline replaces, and the instructions that move there for them.

A jump has five bytes. From the best to the worst:

    nop         five bytes that do nothing: an existing nop, a patchable entry, the nops of a USDT probe
    relocated   whole instructions of five bytes or more, none but the first of which anything jumps to
    punned      fewer bytes: the jump's last ones are those of the code behind it, so that only some addresses can be jumped to
    trap        one byte: int3, and a signal handler
    none        `reason` says why

Rules that keep the process whole (`reason` names the one that was in the way):

* a call is the last instruction of its window: its return address stays one of the function's own, which unwinders look up;
* behind an instruction that never goes on to the next one (jump, return) only padding is taken, up to the next function;
* what reports its own address (int3, ud2, hlt) is not moved; nor is code that the process knows by its bytes or addresses.

Nothing here reads a process or a file. Addresses may be those of the file or of the process, as long as all are of one kind.
"""

from __future__ import annotations

from ...debuginfo.x86length import is_boundary, measure
from ...errors import FormatError
from ...record import Record
from .decode import ENDS, Instruction, decode
from .relocate import unmovable
from .survey import jumps_into, read_tables

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from .survey import Survey

JUMP_BYTES = 5
RUNGS = ("nop", "relocated", "punned", "trap")
_ENDBR = b"\xf3\x0f\x1e\xfa"
# Code that the process knows by its bytes or its addresses, and how much before these bytes belongs to it.
_KNOWN_CODE = (
    # mov $15, %rax; syscall: libgcc, gdb and others know a signal's frame by these bytes.
    (b"\x48\xc7\xc0\x0f\0\0\0\x0f\x05", 0),
    (b"\xb8\x0f\0\0\0\x0f\x05", 0),
    # System calls that pthread_cancel may interrupt, in glibc since 2.41 and in musl: its signal handler asks whether the thread is between the look at the
    # flag, before these bytes, and the system call at their end.
    (bytes.fromhex("4889f0 4889d7 4889ce 4c89c2 4d89ca 4c8b442408 4c8b4c2410 4c895c2408 0f05"), 14),
)
_EARLIER = 3  # instructions before a probe that its window may begin with
_LOOK_BYTES = 64  # on both sides of a probe: longer than a window, and than those
# Prefixes that mean nothing to a near jump (cs, REX.W): the displacement of a longer jump stands on other bytes.
_PUN_PREFIXES = (b"", b"\x2e", b"\x2e\x48", b"\x2e\x2e\x48")


class Pun(Record):
    """One way to write a jump of which only the first bytes can be chosen."""

    prefix: bytes  # before the E9
    low: int  # the first address that it can lead to
    size: int  # how many follow from there on


class Window(Record):
    """What a probe at one address displaces."""

    kind: str  # a word of RUNGS, or "none"
    addr: int  # of the first byte that is replaced: behind the endbr64, where one stands at the probe's address
    length: int  # bytes of the displaced instructions; behind them execution goes on
    patch: int  # bytes that are replaced: 5, 1, or those of a pun that can be chosen; more than `length` where padding is used
    code: bytes  # the displaced instructions
    instructions: tuple[Instruction, ...]
    puns: tuple[Pun, ...] = ()
    keep: int = 0  # bytes from `addr` on that the jump consists of: other probes leave them alone
    reason: str = ""  # why no better kind; "" for the two best
    probe: int = 0  # offset in `code` of the probe's instruction, where the window was allowed to begin before it
    signs: bool = False  # no function signs its return address here


class _Place(Record):
    """The code around a probe, and what is known about it; the arguments of `plan_window`."""

    code: bytes
    base: int
    start: int
    end: int
    limit: int
    survey: Survey | None
    targets: Collection[int]
    data: Sequence[tuple[int, bytes]]
    reserved: Sequence[tuple[int, int]]
    calls: bool


def plan_window(
    code: bytes,
    at: int,
    *,
    start: int,
    end: int,
    base: int = 0,
    limit: int = 0,
    survey: Survey | None = None,
    targets: Collection[int] = (),
    data: Sequence[tuple[int, bytes]] = (),
    reserved: Sequence[tuple[int, int]] = (),
    calls: bool = True,
    rungs: Collection[str] = RUNGS,
    early: bool = False,
) -> Window:
    """Return the best window of the allowed `rungs` for a probe at address `at` of the function from `start` to `end` - 1.

    `code` is loaded at `base` and holds the function. `limit`: where the next function begins; padding up to there may be used.
    `survey`: jumps from the whole text section, else those of the function alone are looked at. `targets`: addresses that something else
    leads to (relocations, debug information). `data`: address and bytes of sections that may hold jump tables. `reserved`: ranges (first
    address, first behind) whose addresses mean something to the process: restartable sequences, cancellation points. `calls`: False keeps
    calls where they are, for processes with a shadow stack: a moved call pushes its return address itself. `early`: where no jump fits at `at`,
    the window may begin up to three instructions before, and `probe` says where in it the probe is. Cost: 20 µs and 1 µs for 20 bytes of the function.
    """
    reserved = (*reserved, *_known_code(code, base, at))
    place = _Place(code, base, start, end, max(limit, end), survey, targets, data, reserved, calls)
    reason = _refusal(place, at)
    if reason:
        return Window("none", at, 0, 0, b"", (), reason=reason)
    behind = at + len(_ENDBR)
    if code[at - base : behind - base] == _ENDBR and behind < end and not _jumps(place, behind, behind + 1):
        at = behind
    instructions, patch, reason = _collect(place, at)
    if not instructions:
        return Window("none", at, 0, 0, b"", (), reason=reason)
    # Fewer bytes displace fewer instructions, and a jump that is not displaced may land among those that are.
    while True:
        displaced = instructions[: _count_before(instructions, patch)]
        fewer, conflict = _conflict(place, at, displaced, patch)
        if not conflict:
            break
        patch, reason = fewer, conflict
    chosen = _choose(place, at, instructions, patch, reason, rungs)
    if early and chosen.kind not in RUNGS[:2] and "relocated" in rungs:
        return _plan_early(place, at) or chosen
    return chosen


def _plan_early(place: _Place, at: int) -> Window | None:
    """Return a window that begins before `at` and reaches behind the instruction there: nothing jumps to what is between, or from there."""
    begins = [place.start]
    while begins[-1] < at:
        begins.append(begins[-1] + measure(place.code, begins[-1] - place.base))
    for first in reversed(begins[-1 - _EARLIER : -1]):
        instructions, patch, _ = _collect(place, first, at + 1)
        reached = sum(i.length for i in instructions)
        before = instructions[: _count_before(instructions, at - first)]
        if patch < JUMP_BYTES or first + reached <= at or any(i.target_at >= 0 for i in before):
            continue
        if _jumps(place, first + 1, at + 1):
            continue
        if not _conflict(place, first, instructions, patch)[1]:
            code = place.code[first - place.base : first - place.base + reached]
            return Window("relocated", first, reached, patch, code, tuple(instructions), keep=patch, probe=at - first)
    return None


def _refusal(place: _Place, at: int) -> str:
    """Return why no probe can stand at `at`, whatever the code looks like behind it."""
    if not place.start <= at < place.end:
        return f"the address is outside the function ({place.start:#x} to {place.end:#x})"
    if place.start < place.base or place.end > place.base + len(place.code):
        return "the function is outside the code that was read"
    first = place.start - place.base
    if at > place.start and not is_boundary(place.code[first : at - place.base + _LOOK_BYTES], at - place.start):
        return "no instruction begins there"
    if place.code[at - place.base] == 0xCC:
        return "int3 stands there: a breakpoint of another tracer, or the program's own"
    return ""


def _known_code(code: bytes, base: int, at: int) -> list[tuple[int, int]]:
    """Return the address ranges of code around `at` that must not move."""
    first = max(at - base - _LOOK_BYTES, 0)
    near = code[first : at - base + _LOOK_BYTES]
    if b"\x0f\x05" not in near:
        return []
    found = [
        (base + first + near.find(pattern), len(pattern), more) for pattern, more in _KNOWN_CODE if pattern in near
    ]
    return [(addr - more, addr + size) for addr, size, more in found]


def _collect(place: _Place, at: int, until: int = 0) -> tuple[list[Instruction], int, str]:
    """Return the instructions of a window at `at`, how many bytes from there on may be replaced, and why those are less than five.

    No instruction at all where the first cannot be moved. The window goes at least up to `until`.
    """
    found: list[Instruction] = []
    here = at
    while here < max(at + JUMP_BYTES, until):
        ended = bool(found) and found[-1].kind in ENDS
        if ended or here >= place.end:
            if ended and _is_padding(place, here, at + JUMP_BYTES):
                return found, JUMP_BYTES, ""
            return found, min(here - at, JUMP_BYTES), _END_REASON if ended else "the function ends"
        if found and found[-1].kind in ("call", "indirect_call"):
            return found, min(here - at, JUMP_BYTES), "a call would not be the last instruction of the window"
        try:
            instruction = decode(place.code, here - place.base)
        except FormatError as error:
            return found, min(here - at, JUMP_BYTES), error.message
        last = here + instruction.length
        reason = unmovable(instruction, place.code[here - place.base : last - place.base])
        if not place.calls and instruction.kind in ("call", "indirect_call"):
            reason = "a call cannot be moved in a process with a shadow stack"
        if any(low < last and here < high for low, high in place.reserved):
            reason = "the process compares or looks up the addresses of these instructions"
        if not reason and last > place.end:
            reason = "the function ends within an instruction"
        if reason:
            return found, min(here - at, JUMP_BYTES), reason
        found.append(instruction)
        here = last
    return found, JUMP_BYTES, ""


_END_REASON = "the code ends with less than five bytes, and what follows is not padding"


def _is_padding(place: _Place, here: int, end: int) -> bool:
    """Tell whether nops or int3 fill the space up to `end`: nothing falls into them from before."""
    while here < end:
        if here - place.base >= len(place.code):
            return False
        try:
            instruction = decode(place.code, here - place.base)
        except FormatError:
            return False
        here += instruction.length
        if here > place.limit or (instruction.kind != "nop" and instruction.opcode != 0xCC):
            return False
    return True


def _jumps(place: _Place, low: int, high: int) -> list[tuple[int, int]]:
    """Return (source, target) of the jumps to addresses from `low` to `high` - 1; source 0: not a relative jump."""
    if place.survey:
        found = place.survey.jumps_into(low, high)
    else:
        found = jumps_into(place.code, place.base, place.start, place.end, low, high)
    others = [addr for addr in range(low, high) if addr in place.targets] if place.targets else []
    return [(jump.source, jump.target) for jump in found] + [(0, addr) for addr in others]


def _conflict(place: _Place, at: int, instructions: list[Instruction], patch: int) -> tuple[int, str]:
    """Return how many bytes may be replaced without a jump landing among them, and the reason why not `patch`; "" if it may."""
    if patch < 2:
        return patch, ""
    end = at + sum(i.length for i in instructions)
    begins = {at}
    for instruction in instructions:
        begins.add(max(begins) + instruction.length)
    lands = [
        (target, f"a jump at {source:#x} leads to {target:#x}" if source else f"something leads to {target:#x}")
        for source, target in _jumps(place, at + 1, at + patch)
        if not (at <= source < end and target in begins)  # moved along with the window
    ]
    if len(instructions) > 1 or patch > end - at:
        tables = read_tables(place.code, place.base, place.start, place.end, place.data)
        lands += [(t, f"a jump table leads to {t:#x}") for t in tables.targets if at < t < at + patch]
        if (
            not tables.complete
            and at != place.start
            and place.code[place.start - place.base : at - place.base] != _ENDBR
        ):
            second = at + instructions[0].length
            if second < at + patch:
                lands.append((second, "the function has an indirect jump whose table was not found"))
    if not lands:
        return patch, ""
    target, reason = min(lands)
    return target - at, reason


def _choose(
    place: _Place, at: int, instructions: list[Instruction], patch: int, reason: str, rungs: Collection[str]
) -> Window:
    """Return the best kind when `patch` bytes may be replaced."""

    def window(kind: str, count: int, patch: int, puns: tuple[Pun, ...] = (), keep: int = 0) -> Window:
        chosen = tuple(instructions[:count])
        length = sum(i.length for i in chosen)
        code = place.code[at - place.base : at - place.base + length]
        return Window(kind, at, length, patch, code, chosen, puns, keep or patch, "" if kind in RUNGS[:2] else reason)

    if patch == JUMP_BYTES:
        if "nop" in rungs and all(i.kind == "nop" for i in instructions):
            return window("nop", len(instructions), patch)
        if "relocated" in rungs:
            return window("relocated", len(instructions), patch)
        reason = "another kind was asked for"
    elif "punned" in rungs:
        puns = _puns(place, at, patch)
        if puns:
            keep = max(len(pun.prefix) for pun in puns) + JUMP_BYTES
            return window("punned", _count_before(instructions, patch), patch, puns, keep)
    if "trap" in rungs:
        return window("trap", 1, 1)
    return Window("none", at, 0, 0, b"", (), reason=reason)


def _count_before(instructions: list[Instruction], patch: int) -> int:
    """Return how many instructions begin within the first `patch` bytes."""
    at = count = 0
    while count < len(instructions) and at < patch:
        at += instructions[count].length
        count += 1
    return count


def _puns(place: _Place, at: int, patch: int) -> tuple[Pun, ...]:
    """Return the jumps whose last bytes are those of the code from `at` + `patch` on."""
    found = []
    first = at - place.base
    for prefix in _PUN_PREFIXES:
        head = len(prefix) + 1
        fixed = place.code[first + patch : first + head + 4]
        if head > patch or len(fixed) < head + 4 - patch:
            continue
        free = patch - head
        displacement = int.from_bytes(bytes(free) + fixed, "little", signed=True)
        found.append(Pun(prefix, at + head + 4 + displacement, 256**free))
    return tuple(found)

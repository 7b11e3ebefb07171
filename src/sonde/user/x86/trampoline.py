"""Trampolines: the machine code between a patched instruction and the programs that run there.

    site:    jmp entry
    entry:   a frame on the stack (`frame`), the registers that programs read or change; the programs; the registers back;
             the instructions that the jump took the place of; jmp behind it

Integer registers are all that programs and helpers use, so nothing else is saved. Where a function begins nobody expects flags or a red zone;
elsewhere both are kept.

Where there is a budget, a hit is counted first, and passed over when there have been too many (`budget`): then nothing of all this happens, neither at the
function's entry nor at its return.

For returns the entry notes the return address in a table, by its own place on the stack, and calls the function's moved beginning. So the processor's guesses
about returns stay right; the thread needs no storage of its own; and a place that longjmp left behind is used again by the next call there. A function that is
jumped to by a probed one (a tail call) finds our own address there: both returns are seen, its own first.
"""

from __future__ import annotations

from ...bpf.jit.x86_encoding import (
    R8,
    R9,
    R10,
    R11,
    R12,
    RAX,
    RCX,
    RDI,
    RDX,
    RSI,
    RSP,
    SYSCALL,
    alu_imm,
    imm,
    mem,
    mov,
    mov_imm,
    rr,
)
from .. import frame
from ..labels import BEHIND, CALL
from .code import BELOW, EQUAL, LESS, NOT_EQUAL, Code, jump_to
from .registers import FRAME_BYTES, NUMBERS, OFFSETS, RECORD, RED_ZONE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..runners import Calls, Runner, Surroundings

_LEA, _LOAD, _STORE = b"\x8d", b"\x8b", b"\x89"
_VOLATILE = ("ax", "cx", "dx", "si", "di", "r8", "r9", "r10", "r11")  # what a called function may change
_CMP = 7


def entry(at: int, runners: Sequence[Runner], around: Surroundings, kind: int, site: int) -> bytes:
    """The code up to the moved instructions, which stand right behind it. `at` is its address, `site` that of the probe."""
    code = Code()
    _pass_over(code, runners, around, kind, "end")
    _open(code, runners, kind, RED_ZONE if kind == frame.INSIDE else 0, site)
    _run(code, at, runners, around)
    if kind == frame.ENTRY and _ask_for_override(code, runners, "moved"):
        _close(code, kind, 0)
        code.add(b"\xc3")
        code.label("moved")
    _close(code, kind, RED_ZONE if kind == frame.INSIDE else 0)
    code.label("end")
    return code.finish()


def _ask_for_override(code: Code, runners: Sequence[Runner], otherwise: str) -> bool:
    """Go on behind this only when a program has said that the function is not to run, at `otherwise` when none has. False (no code): none can."""
    if not _may_override(runners):
        return False
    code.add(mem(b"\x83", _CMP, R12, frame.OVERRIDE, True) + bytes([frame.OVERRIDDEN]))
    code.jump(otherwise, NOT_EQUAL)
    return True


def _may_override(runners: Sequence[Runner]) -> bool:
    return any(runner.overrides or "tails" in runner.fields for runner in runners)


def _pass_over(code: Code, runners: Sequence[Runner], around: Surroundings, kind: int, end: str) -> None:
    """Count a hit of a probe that has a budget; go to the label `end` when no more of them may be looked at. Nothing is changed.

    Passing over costs two loads and one addition to a word that this CPU has for itself.
    """
    account = min((runner.account for runner in runners), default=-1)  # see Budget.join
    if around.gates is None or account < 0:
        return
    gates, size = around.gates, 24 + (RED_ZONE if kind == frame.INSIDE else 0)
    look = f"look {len(code.bytes)}"
    code.add(mem(_LEA, RSP, RSP, -size, True), mem(_STORE, RAX, RSP, 0, True), mem(_STORE, RCX, RSP, 8, True))
    back = mem(_LOAD, RCX, RSP, 8, True)
    if kind == frame.INSIDE:
        code.add(_SAVE_FLAGS, mem(_STORE, RAX, RSP, 16, True))
        back += mem(_LOAD, RAX, RSP, 16, True) + _RESTORE_FLAGS
    back += mem(_LOAD, RAX, RSP, 0, True) + mem(_LEA, RSP, RSP, size, True)
    code.add(mov_imm(RAX, gates.address), mem(_LOAD, RAX, RAX, 0, True), mov_imm(RCX, gates.looked_at(account)))
    code.add(mem(b"\x39", RAX, RCX, 0, True))  # cmp [rcx], rax
    code.jump(look, LESS)
    code.add(around.cpu_code, alu_imm(_CMP, RAX, gates.slots, False), b"\x72\x02", rr(b"\x31", RAX, RAX, False))
    code.add(rr(b"\x69", RAX, RAX, True) + imm(gates.stride), mov_imm(RCX, gates.passed_over(account)))
    code.add(rr(b"\x01", RAX, RCX, True), mem(b"\x83", 0, RCX, 0, True) + b"\x01", back)
    code.jump(end)
    code.label(look)
    code.add(b"\xf0", mem(b"\x83", 0, RCX, 0, True) + b"\x01", back)


_SAVE_FLAGS = b"\x9f\x0f\x90\xc0"  # lahf; seto al
_RESTORE_FLAGS = b"\x04\x7f\x9e"  # add al, 127: overflow as it was; sahf
_READ_FLAGS = b"\x9c\x58"  # pushfq; pop rax
_ALWAYS = {"cs": 0x33, "ss": 0x2B, "orig_ax": -1}  # of user space, outside of system calls


def _saved(runners: Sequence[Runner]) -> list[str]:
    """The registers to store: what programs may change, and what they read."""
    wanted = set(_VOLATILE).union(*(runner.fields for runner in runners))
    return [name for name in OFFSETS if name in wanted and name in NUMBERS and name not in ("sp", "r12")]


def _field(name: str) -> int:
    return frame.REGS + OFFSETS[name]


def _open(code: Code, runners: Sequence[Runner], kind: int, gap: int, site: int) -> None:
    """Make the frame. Nothing here changes flags before they are saved."""
    size = FRAME_BYTES + gap
    code.add(mem(_LEA, RSP, RSP, -size, True))
    for name in [*_saved(runners), "r12"]:
        code.add(mem(_STORE, NUMBERS[name], RSP, _field(name), True))
    if kind == frame.INSIDE:
        code.add(_SAVE_FLAGS, mem(_STORE, RAX, RSP, frame.FLAGS, True))
    code.add(mov(R12, RSP))
    if _may_override(runners):
        code.add(mem(b"\xc7", 0, RSP, frame.OVERRIDE, True) + imm(frame.KEPT if kind == frame.INSIDE else 0))
    fields = frozenset().union(*(runner.fields for runner in runners))
    if "flags" in fields:
        code.add(_READ_FLAGS, mem(_STORE, RAX, RSP, _field("flags"), True))
    for name, value in _ALWAYS.items():
        if name in fields:
            code.add(mem(b"\xc7", 0, RSP, _field(name), True) + imm(value))
    if "sp" in fields:
        code.add(mem(_LEA, RAX, RSP, size + (8 if kind == frame.RETURN else 0), True))
        code.add(mem(_STORE, RAX, RSP, _field("sp"), True))
    if "ip" in fields and kind != frame.RETURN:
        code.add(mov_imm(RAX, site), mem(_STORE, RAX, RSP, _field("ip"), True))
    if "place" in fields:
        code.add(mov_imm(RAX, site), mem(_STORE, RAX, RSP, frame.PLACE, True))
    if "kind" in fields:
        code.add(mem(b"\xc7", 0, RSP, frame.KIND, True) + imm(kind))
    if "tails" in fields:
        code.add(mem(b"\xc7", 0, RSP, frame.TAILS, True) + imm(0))


def _close(code: Code, kind: int, gap: int, keep: tuple[str, ...] = ()) -> None:
    """Give back the registers and the stack."""
    if kind == frame.INSIDE:
        code.add(mem(_LOAD, RAX, R12, frame.FLAGS, True), _RESTORE_FLAGS)
    for name in _VOLATILE:
        if name not in keep:
            code.add(mem(_LOAD, NUMBERS[name], RSP, _field(name), True))
    code.add(mem(_LOAD, R12, RSP, _field("r12"), True), mem(_LEA, RSP, RSP, FRAME_BYTES + gap, True))


def _run(code: Code, at: int, runners: Sequence[Runner], around: Surroundings) -> None:
    """Find a slot and run the programs, the exclusive ones only while nobody else has it. `at`: the address of the code."""
    code.add(around.cpu_code, mem(_STORE, RAX, R12, frame.CPU, False))
    exclusive = any(runner.exclusive for runner in runners)
    if exclusive:
        code.add(jump_to(at + len(code.bytes), around.claim, b"\xe8"))  # eax: the slot, or -1
        code.add(rr(b"\x85", RAX, RAX, False))
        code.jump("skip", 8)  # js
    else:
        code.add(alu_imm(_CMP, RAX, around.slots, False), b"\x72\x02", rr(b"\x31", RAX, RAX, False))
    code.add(mem(_STORE, RAX, R12, frame.SLOT, False))
    for runner in runners:
        if runner.cookie:
            code.add(mov_imm(RAX, runner.cookie), mem(_STORE, RAX, R12, frame.COOKIE, True))
        code.add(mem(_LEA, RDI, R12, runner.context, True))
        code.add(jump_to(at + len(code.bytes), runner.address, b"\xe8"))
    if exclusive:
        code.add(mem(_LOAD, RAX, R12, frame.SLOT, False), rr(b"\xc1", 4, RAX, True) + b"\x06")
        code.add(mov_imm(RCX, around.state + frame.BUSY), rr(b"\x01", RCX, RAX, True))
        code.add(mem(b"\xc7", 0, RAX, 0, False) + imm(0))
        code.label("skip")


# rt_sigreturn does not come back; a child of these comes back on a stack that has no frame of ours.
_NO_RETURN, _CHILDREN = 15, (56, 57, 58, 435)
_ARGUMENTS = (RDI, RSI, RDX, R10, R8, R9)
_GAP = RED_ZONE + frame.RECORD_BYTES


def system_calls(
    at: int, calls: Calls, around: Surroundings, site: int, behind: int
) -> tuple[bytes, list[tuple[int, int]]]:
    """The code for a place that makes system calls, and (address, bytes) of where a thread waits in one, with so many bytes of ours on its stack.

    The moved `syscall` is to stand right behind it, and what follows the call `behind` bytes further on.

    Which programs run is found by comparing the number. What a call does to registers it does here: rcx and r11 are lost anyway, and compilers expect nothing of
    the flags.
    """
    code = Code()
    waits: list[tuple[int, int]] = []
    everything = [number for number, _ in (*calls.enters, *calls.exits) if number < 0]
    for number in calls.numbers():
        code.add(b"\x3d" + imm(number))  # cmp eax, number
        code.jump(f"call {number}", EQUAL)
    special = (_NO_RETURN, *_CHILDREN)
    if everything:
        for number in special:
            code.add(b"\x3d" + imm(number))
            code.jump(f"special {number}", EQUAL)
        _any_call(code, at, calls, around, site, waits)
    code.label("plain")
    code.jump(CALL)
    for number in calls.numbers():
        code.label(f"call {number}")
        _one_call(code, at, number, calls, around, site, waits)
    for number in special if everything else ():
        code.label(f"special {number}")
        if number not in calls.numbers():
            _one_call(code, at, number, calls, around, site, waits)
        else:
            code.jump(f"call {number}")
    code.label(CALL)
    code.label_at(BEHIND, len(code.bytes) + behind)
    return code.finish(), waits


def _of(runners: Sequence[tuple[int, Runner]], number: int) -> list[Runner]:
    return [runner for wanted, runner in runners if wanted in (number, -1)]


def _one_call(
    code: Code,
    at: int,
    number: int,
    calls: Calls,
    around: Surroundings,
    site: int,
    waits: list[tuple[int, int]],
) -> None:
    """A call whose number is known: a frame before it and another after it, so that none is needed meanwhile."""
    enters, exits = _of(calls.enters, number), _of(calls.exits, number) if number != _NO_RETURN else []
    _pass_over(code, [*enters, *exits], around, frame.INSIDE, "plain")
    if enters:
        event(code, at, enters, around, site, exits=False)
    if not exits:
        code.jump(CALL)
        return
    code.add(SYSCALL)
    waits.append((at + len(code.bytes), 0))
    code.add(mov_imm(RCX, number))
    event(code, at, exits, around, site, exits=True)
    code.jump(BEHIND)


def _any_call(
    code: Code,
    at: int,
    calls: Calls,
    around: Surroundings,
    site: int,
    waits: list[tuple[int, int]],
) -> None:
    """A call of any number: it waits on the stack, below the red zone."""
    enters, exits = _of(calls.enters, -1), _of(calls.exits, -1)
    _pass_over(code, [*enters, *exits], around, frame.INSIDE, "plain")
    if enters:
        event(code, at, enters, around, site, exits=False)
    if not exits:
        code.jump(CALL)
        return
    below = RED_ZONE + 8
    code.add(mem(_LEA, RSP, RSP, -below, True), mem(_STORE, RAX, RSP, 0, True), SYSCALL)
    waits.append((at + len(code.bytes), below))
    code.add(mem(_LOAD, RCX, RSP, 0, True), mem(_LEA, RSP, RSP, below, True))
    event(code, at, exits, around, site, exits=True)
    code.jump(BEHIND)


def event(code: Code, at: int, runners: Sequence[Runner], around: Surroundings, site: int, *, exits: bool) -> None:
    """Run programs on the record of an event: the number of the call is in rax at its beginning, in rcx at its end."""
    inner = Code()
    start = at + len(code.bytes)
    _open(inner, runners, frame.INSIDE, _GAP, site)
    number = RCX if exits else RAX
    inner.add(mem(_LOAD, RAX, RSP, _field("ax"), True))  # the flags were there meanwhile
    record = RECORD
    inner.add(mem(b"\xc7", 0, RSP, record, True) + imm(0), mem(_STORE, number, RSP, record + 8, True))
    for place, register in enumerate((RAX,) if exits else _ARGUMENTS):
        inner.add(mem(_STORE, register, RSP, record + 16 + 8 * place, True))
    _run(inner, start, runners, around)
    _close(inner, frame.INSIDE, _GAP)
    code.add(inner.finish())


def claim_routine(around: Surroundings) -> bytes:
    """Claim a slot: that of the CPU in eax when it is free, else any; the slot comes back in eax, -1 when there is none.

    A run that is interrupted keeps its slot: who comes then, on this CPU or in a signal handler, takes another. Uses ecx, rdx, r8 to r10.
    """
    code = Code()
    code.add(mov_imm(R8, around.state + frame.BUSY), mov_imm(R9, around.slots))
    code.add(alu_imm(_CMP, RAX, around.slots, False), b"\x72\x02", rr(b"\x31", RAX, RAX, False))
    code.label("again")
    code.add(mov(RDX, RAX, False), rr(b"\xc1", 4, RDX, True) + b"\x06", rr(b"\x01", R8, RDX, True))
    code.add(mov_imm(RCX, 1), mem(b"\x87", RCX, RDX, 0, False))  # xchg
    code.add(rr(b"\x85", RCX, RCX, False))
    code.jump("next", NOT_EQUAL)
    code.add(b"\xc3")
    code.label("next")
    code.add(alu_imm(0, RAX, 1, False), alu_imm(_CMP, RAX, around.slots, False))
    code.jump("inside", BELOW)
    code.add(rr(b"\x31", RAX, RAX, False))
    code.label("inside")
    code.add(alu_imm(5, R9, 1, False))
    code.jump("again", NOT_EQUAL)
    code.add(mov_imm(RDX, around.state + frame.MISSED), b"\xf0", mem(b"\x83", 0, RDX, 0, True) + b"\x01")
    code.add(mov_imm(RAX, -1), b"\xc3")
    return code.finish()


def returning(
    at: int, before: Sequence[Runner], after: Sequence[Runner], around: Surroundings, site: int, signs: bool = False
) -> tuple[bytes, bytes]:
    """A trampoline for the return of a function: the code up to its moved beginning, and what stands behind that beginning's jump back.

    The first part ends with a call of the moved beginning, which is to stand behind both parts.

    `before` are programs that run at its entry as well.
    """
    head = _head(at, before, after, around, site)
    tail = _tail(at + len(head), after, around, site)
    moved = at + len(head) + len(tail)
    fixed = bytearray(head)
    skip, call = head.find(_SKIP), len(head) - 4
    fixed[skip : skip + 4] = imm(moved - (at + skip + 4))
    fixed[call:] = imm(moved - (at + len(head)))
    return bytes(fixed), tail


_SKIP = b"\xde\xad\xbe\xef"  # stands for the distance to the moved beginning until that is known


def _table(code: Code, around: Surroundings, key: int) -> None:
    """rax: the place of the key (a register) in the table of returns; r11: the table."""
    code.add(mov_imm(RAX, frame.HASH), rr(b"\x0f\xaf", RAX, key, True))
    code.add(rr(b"\xc1", 5, RAX, True) + bytes([64 - frame.RETURN_BITS]))
    code.add(rr(b"\xc1", 4, RAX, True) + bytes([frame.RETURN_SHIFT]))
    code.add(mov_imm(R11, around.private + frame.RETURNS))


def _next(code: Code) -> None:
    """rax: the place behind it in the table."""
    code.add(alu_imm(0, RAX, 1 << frame.RETURN_SHIFT, False), alu_imm(4, RAX, frame.RETURNS_BYTES - 1, False))


def _claim_place(code: Code, around: Surroundings, key: int, name: str) -> None:
    """rdx: the entry of a key in the table of returns, a new one if there is none; jumps to "missed" where the table is full there. Uses rax, rcx, r8, r10, r11."""
    _table(code, around, key)
    code.add(mov_imm(R8, frame.PROBES))
    code.label(f"look {name}")
    code.add(b"\x49\x8d\x14\x03")  # lea rdx, [r11 + rax]
    code.add(mem(_LOAD, RCX, RDX, 0, True), rr(b"\x39", key, RCX, True))
    code.jump(f"mine {name}", EQUAL)
    code.add(rr(b"\x85", RCX, RCX, True))
    code.jump(f"other {name}", NOT_EQUAL)
    code.add(mov(R10, RAX), rr(b"\x31", RAX, RAX, False))
    code.add(b"\xf0", mem(b"\x0f\xb1", key, RDX, 0, True))  # lock cmpxchg: the place is free
    code.jump(f"mine {name}", EQUAL)
    code.add(mov(RAX, R10))
    code.label(f"other {name}")
    _next(code)
    code.add(alu_imm(5, R8, 1, False))
    code.jump(f"look {name}", NOT_EQUAL)
    code.jump("missed")
    code.label(f"mine {name}")


def _find_place(code: Code, around: Surroundings, key: int, name: str) -> None:
    """rdx: the entry of a key that is in the table. Uses rax, r11."""
    _table(code, around, key)
    code.label(f"look {name}")
    code.add(b"\x49\x8d\x14\x03", mem(b"\x39", key, RDX, 0, True))
    code.jump(f"mine {name}", EQUAL)
    _next(code)
    code.jump(f"look {name}")
    code.label(f"mine {name}")


def _chain_key(code: Code) -> None:
    """rdi: the key of the return address that the `rdi`th function found which was jumped to, and not called, at the stack's place r9."""
    code.add(rr(b"\xc1", 4, RDI, True) + bytes([frame.DEPTH_SHIFT]), rr(b"\x09", R9, RDI, True))


def _head(at: int, before: Sequence[Runner], after: Sequence[Runner], around: Surroundings, site: int) -> bytes:
    """Note the return address, and call. Where a probed function *jumps* to this one, the return address is that function's tail, which keeps its own:

    what is found then has an entry of its own, whose key tells how many jumps have led here.
    """
    code = Code()
    _pass_over(code, [*before, *after], around, frame.ENTRY, "unseen")
    _open(code, before, frame.ENTRY, 0, site)
    if before:
        _run(code, at, before, around)
    code.add(mem(_LEA, R9, RSP, FRAME_BYTES, True))  # where the return address is
    _claim_place(code, around, R9, "first")
    code.add(mem(_LOAD, RCX, R9, 0, True), mem(b"\x3b", RCX, RDX, frame.TAIL, True))
    code.jump("jumped to", EQUAL)
    code.add(mem(_STORE, RCX, RDX, frame.RETURN_ADDRESS, True), mem(b"\xc7", 0, RDX, frame.DEPTH, True) + imm(0))
    code.label("noted")
    code.load_address(RAX, "tail")
    code.add(mem(_STORE, RAX, RDX, frame.TAIL, True))
    if _ask_for_override(code, before, "moved"):  # as if it had returned: its return probes see the value
        _close(code, frame.ENTRY, 0)
        code.add(mem(_LEA, RSP, RSP, 8, True))
        code.jump("tail")
        code.label("moved")
    _close(code, frame.ENTRY, 0)
    code.add(mem(_LEA, RSP, RSP, 8, True))
    code.jump("call")
    code.label("jumped to")
    code.add(mov(RSI, RDX), mem(_LOAD, RDI, RSI, frame.DEPTH, True), alu_imm(0, RDI, 1, True))
    code.add(alu_imm(_CMP, RDI, frame.MOST_JUMPS, True))
    code.jump("missed", EQUAL)
    _chain_key(code)
    _claim_place(code, around, RDI, "jumped to")
    code.add(mem(_LOAD, RCX, R9, 0, True), mem(_STORE, RCX, RDX, frame.RETURN_ADDRESS, True))
    code.add(rr(b"\xc1", 5, RDI, True) + bytes([frame.DEPTH_SHIFT]), mem(_STORE, RDI, RSI, frame.DEPTH, True))
    code.add(mov(RDX, RSI))
    code.jump("noted")
    code.label("missed")
    code.add(mov_imm(RDX, around.state + frame.MISSED), b"\xf0", mem(b"\x83", 0, RDX, 0, True) + b"\x01")
    if _ask_for_override(code, before, "not seen"):
        _close(code, frame.ENTRY, 0)
        code.add(b"\xc3")
        code.label("not seen")
    _close(code, frame.ENTRY, 0)
    code.label("unseen")
    code.add(b"\xe9", _SKIP)  # nobody will see this return
    code.label("call")
    code.add(b"\xe8", bytes(4))
    code.label("tail")
    return code.finish()


def _tail(at: int, after: Sequence[Runner], around: Surroundings, site: int) -> bytes:
    """Where the function returns to: rsp is as the caller will have it."""
    code = Code()
    code.add(mem(_LEA, RSP, RSP, -8, True))  # the place of the return address, to be filled again
    _open(code, after, frame.RETURN, 0, site)
    code.add(mem(_LEA, R9, RSP, FRAME_BYTES, True))
    _find_place(code, around, R9, "first")
    if any("ip" in runner.fields for runner in after):
        code.add(mem(_LOAD, RCX, RDX, frame.RETURN_ADDRESS, True), mem(_STORE, RCX, RSP, _field("ip"), True))
    code.add(mem(_LOAD, RDI, RDX, frame.DEPTH, True), rr(b"\x85", RDI, RDI, True))
    code.jump("jumped to", NOT_EQUAL)
    code.label("back")
    code.add(mem(_LOAD, RCX, RDX, frame.RETURN_ADDRESS, True), mem(_STORE, RCX, R9, 0, True))
    _run(code, at, after, around)
    _close(code, frame.RETURN, 0)
    code.add(b"\xc3")
    code.label("jumped to")
    code.add(mem(_LEA, RCX, RDI, -1, True), mem(_STORE, RCX, RDX, frame.DEPTH, True))
    _chain_key(code)
    _find_place(code, around, RDI, "jumped to")
    code.jump("back")
    return code.finish()


_CPU_BY_SEGMENT = b"\xb8\x7b\x00\x00\x00\x0f\x03\xc0\x25\xff\x0f\x00\x00"  # mov eax, 0x7b; lsl eax, eax; and eax, 0xfff


def cpu_code(rseq: int | None, slots: int) -> bytes:
    """mov eax, fs:[offset + 4]: cpu_id of the thread's struct rseq, which stands that far from the thread pointer; else by the segment that the kernel keeps it in."""
    return _CPU_BY_SEGMENT if rseq is None else b"\x64\x8b\x04\x25" + imm(rseq + 4)

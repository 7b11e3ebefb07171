"""Trampolines of aarch64: the machine code between a patched instruction and the programs that run there.

    site:    b entry
    entry:   a frame on the stack (`frame`), the registers that programs read or change; the programs; the registers back;
             the instruction that the jump took the place of; b behind it

What `x86.trampoline` says holds here too, but for what this processor has otherwise. The return address is in x30, so that a place in the table of returns has the stack
pointer for its key: that is the same where a function begins and where it has returned. Below the stack pointer nothing is expected to last. The kernel changes
no register but x0, so that the number of a call is still there when it has returned, and no frame is needed meanwhile whatever the number is.

x23 points to the frame. Programs, routines and primitives use what _VOLATILE names, and the rest only after having saved it.
"""

from __future__ import annotations

from ...bpf.jit.a64_encoding import (
    LOAD,
    LR,
    SP,
    STORE,
    SYSCALL,
    X0,
    X2,
    X3,
    X4,
    X5,
    X7,
    X8,
    X9,
    X10,
    X11,
    X16,
    ZERO,
    add_imm,
    bit_pattern,
    memory,
    mov,
    mov_imm,
    pop,
    push,
    rrr,
    word,
)
from .. import frame
from ..labels import BEHIND, CALL
from .code import (
    NOT_EQUAL,
    READ_COUNTER,
    READ_FLAGS,
    READ_THREAD,
    RET,
    WRITE_FLAGS,
    Code,
    add_shifted,
    below_or_zero,
    call_to,
    count_one,
    exclusive_load,
    exclusive_store,
    jump_to,
    multiply,
    or_shifted,
    shift_left,
    shift_right,
    subtract,
)
from .registers import DEPTH_BITS, FRAME, FRAME_BYTES, NUMBERS, OFFSETS, RECORD

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ..runners import Calls, Runner, Surroundings

_VOLATILE = (X0, 1, X2, X3, X4, X5, X7, X8, X9, X10, X11, X16, LR)
_STORE_PAIR, _LOAD_PAIR = 0xA9000000, 0xA9400000
_NO_RETURN = 139  # rt_sigreturn
_ARGUMENTS = 6


def _load(register: int, base: int, offset: int) -> bytes:
    return memory(LOAD, 3, register, base, offset)


def _store(register: int, base: int, offset: int) -> bytes:
    return memory(STORE, 3, register, base, offset)


def _field(name: str) -> int:
    return frame.REGS + OFFSETS[name]


def entry(at: int, runners: Sequence[Runner], around: Surroundings, kind: int, site: int) -> bytes:
    """See `user.machine`."""
    code = Code()
    _pass_over(code, runners, around, "end")
    _open(code, runners, kind, 0, site)
    _run(code, at, runners, around)
    if kind == frame.ENTRY and _ask_for_override(code, runners, "moved"):
        _close(code, kind, 0)
        code.add(RET)
        code.label("moved")
    _close(code, kind, 0)
    code.label("end")
    return code.finish()


def _ask_for_override(code: Code, runners: Sequence[Runner], otherwise: str) -> bool:
    """Go on behind this only when a program has said that the function is not to run, at `otherwise` when none has. False (no code): none can."""
    if not _may_override(runners):
        return False
    code.add(_load(X9, FRAME, frame.OVERRIDE), add_imm(X9, X9, -frame.OVERRIDDEN))
    code.jump_if_zero(otherwise, X9, is_zero=False)
    return True


def _may_override(runners: Sequence[Runner]) -> bool:
    return any(runner.overrides or "tails" in runner.fields for runner in runners)


def _pass_over(code: Code, runners: Sequence[Runner], around: Surroundings, end: str) -> bool:
    """Count a hit of a probe that has a budget; go to the label `end` when no more of them may be looked at. Nothing is changed, flags neither.

    False (no code): there is no budget.
    """
    account = min((runner.account for runner in runners), default=-1)  # see Budget.join
    if around.gates is None or account < 0:
        return False
    gates, look = around.gates, f"look {len(code.bytes)}"
    code.add(push(X10, X11), push(X0, X9))
    back = pop(X0, X9) + pop(X10, X11)
    code.add(mov_imm(X9, gates.address), _load(X9, X9, 0), mov_imm(X10, gates.looked_at(account)), _load(X11, X10, 0))
    code.add(subtract(X9, X11, X9))
    code.jump_if_negative(look, X9)
    code.add(around.cpu_code, mov_imm(X10, gates.slots), subtract(X9, X0, X10))
    code.add(word(0x937FFC00 | X9 << 5 | X9), rrr(0x0A000000, X0, X0, X9, True))  # asr #63; and: 0 what is no slot's
    code.add(mov_imm(X9, gates.stride), multiply(X0, X0, X9), mov_imm(X10, gates.passed_over(account)))
    code.add(add_shifted(X10, X10, X0), count_one(X10, X9, X11), back)
    code.jump(end)
    code.label(look)
    code.add(count_one(X10, X9, X11), back)
    return True


def _pairs(numbers: Iterable[int]) -> list[tuple[int, ...]]:
    """Registers whose places in the frame are neighbours, two and two."""
    found: list[tuple[int, ...]] = []
    for number in sorted(numbers):
        if found and len(found[-1]) == 1 and found[-1][0] == number - 1:
            found[-1] = (number - 1, number)
        else:
            found.append((number,))
    return found


def _all(numbers: Iterable[int], *, load: bool) -> bytes:
    """Load or store registers at their places in the frame that the stack pointer points to."""
    code = b""
    for first, *second in _pairs(numbers):
        place = _field(f"r{first}")
        if second:
            opcode = _LOAD_PAIR if load else _STORE_PAIR
            code += word(opcode | place // 8 << 15 | second[0] << 10 | SP << 5 | first)
        else:
            code += memory(LOAD if load else STORE, 3, first, SP, place)
    return code


def _open(code: Code, runners: Sequence[Runner], kind: int, more: int, site: int) -> None:
    """Make the frame, with so many bytes more behind it. Nothing here changes flags."""
    size = FRAME_BYTES + more
    fields = frozenset().union(*(runner.fields for runner in runners))
    code.add(add_imm(SP, SP, -size))
    code.add(_all({*_VOLATILE, FRAME, *(NUMBERS[name] for name in fields if name in NUMBERS)}, load=False))
    code.add(add_imm(FRAME, SP, 0))
    if kind == frame.INSIDE or "pstate" in fields:
        code.add(word(READ_FLAGS | X9), _store(X9, SP, frame.FLAGS))
    if "pstate" in fields:
        code.add(_store(X9, SP, _field("pstate")))
    if _may_override(runners):
        code.add(mov_imm(X9, frame.KEPT if kind == frame.INSIDE else 0), _store(X9, SP, frame.OVERRIDE))
    if "sp" in fields:
        code.add(add_imm(X9, SP, size), _store(X9, SP, _field("sp")))
    if "pc" in fields and kind != frame.RETURN:
        code.add(mov_imm(X9, site), _store(X9, SP, _field("pc")))
    if "place" in fields:
        code.add(mov_imm(X9, site), _store(X9, SP, frame.PLACE))
    if "kind" in fields:
        code.add(mov_imm(X9, kind), _store(X9, SP, frame.KIND))
    if "tails" in fields:
        code.add(_store(ZERO, SP, frame.TAILS))


def _close(code: Code, kind: int, more: int) -> None:
    """Give back the registers and the stack."""
    if kind == frame.INSIDE:
        code.add(_load(X9, SP, frame.FLAGS), word(WRITE_FLAGS | X9))
    code.add(_all({*_VOLATILE, FRAME}, load=True), add_imm(SP, SP, FRAME_BYTES + more))


def _run(code: Code, at: int, runners: Sequence[Runner], around: Surroundings) -> None:
    """Find a slot and run the programs, the exclusive ones only while nobody else has it. `at`: the address of the code."""
    code.add(around.cpu_code, memory(STORE, 2, X0, FRAME, frame.CPU))
    exclusive = any(runner.exclusive for runner in runners)
    if exclusive:
        code.add(call_to(at + len(code.bytes), around.claim))  # w0: the slot, or -1
        code.jump_if_negative("skip", X0, bit=31)
    else:
        code.add(below_or_zero(X0, around.slots, X9))
    code.add(memory(STORE, 2, X0, FRAME, frame.SLOT))
    for runner in runners:
        if runner.cookie:
            code.add(mov_imm(X9, runner.cookie), _store(X9, FRAME, frame.COOKIE))
        code.add(add_imm(X0, FRAME, runner.context), call_to(at + len(code.bytes) + 4, runner.address))
    if exclusive:
        code.add(memory(LOAD, 2, X9, FRAME, frame.SLOT), mov_imm(X10, around.state + frame.BUSY))
        code.add(add_shifted(X10, X10, X9, 6), word(0x889FFC00 | X10 << 5 | ZERO))  # stlr wzr
        code.label("skip")


# System calls --------------------------------------------------------------------------------------------------------


def system_calls(
    at: int, calls: Calls, around: Surroundings, site: int, behind: int
) -> tuple[bytes, list[tuple[int, int]]]:
    """See `user.machine`. Which programs run is found by comparing the number, without touching flags."""
    code = Code()
    waits: list[tuple[int, int]] = []
    numbers = calls.numbers()
    if numbers:
        code.add(push(X16, ZERO))
        for number in numbers:
            code.add(mov_imm(X16, number), subtract(X16, X16, X8, False))
            code.jump_if_zero(f"call {number}", X16, wide=False)
        code.add(pop(X16, ZERO))
    _one_call(code, at, -1, calls, around, site, waits)
    for number in numbers:
        code.label(f"call {number}")
        code.add(pop(X16, ZERO))
        _one_call(code, at, number, calls, around, site, waits)
    code.label(CALL)
    code.label_at(BEHIND, len(code.bytes) + behind)
    return code.finish(), waits


def _one_call(
    code: Code,
    at: int,
    number: int,
    calls: Calls,
    around: Surroundings,
    site: int,
    waits: list[tuple[int, int]],
) -> None:
    """The call of a number, -1: of any that no program asks for. A frame before it and another after it, so that none is needed meanwhile."""
    enters, exits = (
        [runner for wanted, runner in runners if wanted in (number, -1)] for runners in (calls.enters, calls.exits)
    )
    if number == _NO_RETURN:
        exits = []
    passes = _pass_over(code, [*enters, *exits], around, f"plain {number}")
    if enters:
        _event(code, at, enters, around, site, range(_ARGUMENTS))
    if exits:
        code.add(SYSCALL)
        waits.append((at + len(code.bytes), 0))
        _event(code, at, exits, around, site, (X0,))
        code.jump(BEHIND)
    if passes or not exits:
        code.label(f"plain {number}")
        code.jump(CALL)


def _event(
    code: Code, at: int, runners: Sequence[Runner], around: Surroundings, site: int, registers: Iterable[int]
) -> None:
    """Run programs on the record of an event: the number of the call is in x8."""
    inner = Code()
    start = at + len(code.bytes)
    _open(inner, runners, frame.INSIDE, frame.RECORD_BYTES, site)
    inner.add(_store(ZERO, SP, RECORD), _store(X8, SP, RECORD + 8))
    for place, register in enumerate(registers):
        inner.add(_store(register, SP, RECORD + 16 + 8 * place))
    _run(inner, start, runners, around)
    _close(inner, frame.INSIDE, frame.RECORD_BYTES)
    code.add(inner.finish())


def claim_routine(around: Surroundings) -> bytes:
    """Claim a slot: that of the number in w0 when it is free, else any; the slot comes back in w0, -1 when there is none.

    A run that is interrupted keeps its slot: who comes then, on this CPU or in a signal handler, takes another. Uses x2 to x4, x9 to x11.
    """
    code = Code()
    code.add(mov_imm(X9, around.state + frame.BUSY), mov_imm(X10, around.slots), mov_imm(X3, 1))
    code.add(below_or_zero(X0, around.slots, X11))
    code.label("again")
    code.add(add_shifted(X11, X9, X0, 6))
    code.label("try")
    code.add(exclusive_load(X2, X11, False))
    code.jump_if_zero("next", X2, wide=False, is_zero=False)
    code.add(exclusive_store(X4, X3, X11, False))
    code.jump_if_zero("try", X4, wide=False, is_zero=False)
    code.add(RET)
    code.label("next")
    code.add(add_imm(X0, X0, 1), below_or_zero(X0, around.slots, X11), word(0xF1000400 | X10 << 5 | X10))  # subs
    code.jump("again", NOT_EQUAL)
    code.add(mov_imm(X9, around.state + frame.MISSED), count_one(X9, X10, X11), mov_imm(X0, -1), RET)
    return code.finish()


# Returns -------------------------------------------------------------------------------------------------------------


def returning(
    at: int, before: Sequence[Runner], after: Sequence[Runner], around: Surroundings, site: int, signs: bool = False
) -> tuple[bytes, bytes]:
    """See `user.machine`. The first part ends with a call of the moved beginning, which is to stand behind both parts."""
    tail = _tail(at + len(_head(at, before, after, around, site, signs, 0)), after, around, site)
    return _head(at, before, after, around, site, signs, len(tail)), tail


def _table(code: Code, around: Surroundings, key: int) -> None:
    """x10: the place of the key (a register) in the table of returns; x11: the table."""
    code.add(mov_imm(X10, frame.HASH), multiply(X10, key, X10), shift_right(X10, X10, 64 - frame.RETURN_BITS))
    code.add(shift_left(X10, X10, frame.RETURN_SHIFT), mov_imm(X11, around.private + frame.RETURNS))


def _next(code: Code) -> None:
    """x10: the place behind it in the table."""
    pattern = bit_pattern(frame.RETURNS_BYTES - 1, True)
    assert pattern is not None
    code.add(add_imm(X10, X10, 1 << frame.RETURN_SHIFT), word(0x92000000 | pattern << 10 | X10 << 5 | X10))  # and


def _claim_place(code: Code, around: Surroundings, key: int, name: str) -> None:
    """x2: the entry of a key in the table of returns, a new one if there is none; jumps to "missed" where the table is full there. Uses x3, x4, x10, x11, x16."""
    _table(code, around, key)
    code.add(mov_imm(X4, frame.PROBES))
    code.label(f"look {name}")
    code.add(add_shifted(X2, X11, X10))
    code.label(f"try {name}")
    code.add(exclusive_load(X3, X2), subtract(X16, X3, key))
    code.jump_if_zero(f"mine {name}", X16)
    code.jump_if_zero(f"other {name}", X3, is_zero=False)
    code.add(exclusive_store(X16, key, X2))
    code.jump_if_zero(f"try {name}", X16, wide=False, is_zero=False)
    code.jump(f"mine {name}")
    code.label(f"other {name}")
    _next(code)
    code.add(add_imm(X4, X4, -1))
    code.jump_if_zero(f"look {name}", X4, is_zero=False)
    code.jump("missed")
    code.label(f"mine {name}")


def _find_place(code: Code, around: Surroundings, key: int, name: str) -> None:
    """x2: the entry of a key that is in the table. Uses x3, x10, x11."""
    _table(code, around, key)
    code.label(f"look {name}")
    code.add(add_shifted(X2, X11, X10), _load(X3, X2, 0), subtract(X3, X3, key))
    code.jump_if_zero(f"mine {name}", X3)
    _next(code)
    code.jump(f"look {name}")
    code.label(f"mine {name}")


def _depth_of(register: int, word_of: int) -> bytes:
    """How many functions were jumped to, from what an entry has of it: `unwinding` wants to know when it was made, too."""
    return word(0x92401C00 | word_of << 5 | register)  # and 255


def _head(
    at: int,
    before: Sequence[Runner],
    after: Sequence[Runner],
    around: Surroundings,
    site: int,
    signs: bool,
    tail_bytes: int,
) -> bytes:
    """Note the return address, and call. Where a probed function *jumps* to this one, x30 is that function's tail, which keeps its own:

    what is found then has an entry of its own, whose key tells how many jumps have led here.
    """
    code = Code()
    _pass_over(code, [*before, *after], around, "unseen")
    _open(code, before, frame.ENTRY, 0, site)
    if before:
        _run(code, at, before, around)
    code.add(add_imm(X9, SP, FRAME_BYTES))
    _claim_place(code, around, X9, "first")
    code.add(_load(X3, SP, _field("r30")), _load(X5, X2, frame.TAIL), subtract(X5, X5, X3))
    code.jump_if_zero("jumped to", X5)
    code.add(_store(X3, X2, frame.RETURN_ADDRESS), word(READ_COUNTER | X4), shift_left(X4, X4, DEPTH_BITS))
    code.add(_store(X4, X2, frame.DEPTH))
    code.label("noted")
    code.load_address(X3, "tail")
    code.add(_store(X3, X2, frame.TAIL))
    if _ask_for_override(code, before, "moved"):  # as if it had returned: its return probes see the value
        _close(code, frame.ENTRY, 0)
        code.jump("tail")
        code.label("moved")
    _close(code, frame.ENTRY, 0)
    code.jump("call")
    code.label("jumped to")
    code.add(mov(X5, X2), _load(X7, X5, frame.DEPTH), add_imm(X7, X7, 1), _depth_of(X8, X7))
    code.add(add_imm(X3, X8, -frame.MOST_JUMPS))
    code.jump_if_zero("missed", X3)
    code.add(or_shifted(X8, X9, X8, frame.DEPTH_SHIFT))
    _claim_place(code, around, X8, "jumped to")
    code.add(_load(X3, SP, _field("r30")), _store(X3, X2, frame.RETURN_ADDRESS))
    code.add(_store(X7, X5, frame.DEPTH), mov(X2, X5))
    code.jump("noted")
    code.label("missed")
    code.add(mov_imm(X9, around.state + frame.MISSED), count_one(X9, X10, X11))
    if _ask_for_override(code, before, "not seen"):
        _close(code, frame.ENTRY, 0)
        code.add(RET)
        code.label("not seen")
    _close(code, frame.ENTRY, 0)
    code.label("unseen")
    code.add(jump_to(0, 12 + tail_bytes))  # nobody will see this return
    code.add(word(signs))  # at SIGNS from the tail
    code.label("call")
    code.add(call_to(0, 4 + tail_bytes))
    code.label("tail")
    return code.finish()


def _tail(at: int, after: Sequence[Runner], around: Surroundings, site: int) -> bytes:
    """Where the function returns to: the stack pointer is where it was when the function began."""
    code = Code()
    _open(code, after, frame.RETURN, 0, site)
    code.add(add_imm(X9, SP, FRAME_BYTES))
    _find_place(code, around, X9, "first")
    if any("pc" in runner.fields for runner in after):
        code.add(_load(X3, X2, frame.RETURN_ADDRESS), _store(X3, SP, _field("pc")))
    code.add(_load(X7, X2, frame.DEPTH), _depth_of(X8, X7))
    code.jump_if_zero("jumped to", X8, is_zero=False)
    code.add(_store(ZERO, X2, frame.TAIL))  # it has returned
    code.label("back")
    code.add(_load(X3, X2, frame.RETURN_ADDRESS), _store(X3, SP, _field("r30")))
    _run(code, at, after, around)
    _close(code, frame.RETURN, 0)
    code.add(RET)
    code.label("jumped to")
    code.add(add_imm(X3, X7, -1), _store(X3, X2, frame.DEPTH), or_shifted(X8, X9, X8, frame.DEPTH_SHIFT))
    _find_place(code, around, X8, "jumped to")
    code.jump("back")
    return code.finish()


def cpu_code(rseq: int | None, slots: int) -> bytes:
    """Load a number of this CPU's own into w0: cpu_id of the thread's struct rseq, which stands `rseq` bytes from the thread pointer.

    Where nobody has registered one, a number of the thread's own has to do. Uses x9 to x11.
    """
    if rseq is not None:
        return word(READ_THREAD | X9) + memory(LOAD, 2, X0, X9, rseq + 4)
    code = word(READ_THREAD | X0) + mov_imm(X9, frame.HASH) + multiply(X0, X0, X9) + shift_right(X0, X0, 48)
    return code + mov_imm(X9, slots) + multiply(X0, X0, X9) + shift_right(X0, X0, 16)

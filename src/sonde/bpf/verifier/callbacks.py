"""Helpers that call a function of the program any number of times: bpf_loop, bpf_for_each_map_elem and the like.

The function is followed from its start with what the first call gives; when it returns, both happens: the helper returns, and the function is called again
with what the memory it can reach has become. So that this comes to an end, numbers on the stack of the callers that differ from one round to the next are
forgotten. A timer's function runs by itself, some time later.
"""

from __future__ import annotations

from . import scalar
from .problem import Problem
from .state import NONE, PLAIN, Frame, Reg, State

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .arguments import Call
    from .explore import Walker

MAX_FRAMES = 8


class Rounds:
    """One call of such a helper: what the function is given each time, and what the last round began with."""

    __slots__ = ("args", "held", "name", "pc", "result")

    def __init__(self, name: str, pc: int, args: tuple[Reg, ...], result: Reg, held: frozenset[int]) -> None:
        self.name = name
        self.held = held  # what the program held when it made the call
        self.pc = pc
        self.args = args
        self.result = result


def enter_callback(walker: Walker, state: State, call: Call) -> None:
    """Follow the helper's return without a call, later, and enter the function now. Raises Problem."""
    describe = _DESCRIBE.get(call.helper.name)
    if describe is None:
        raise Problem(f"bpf_{call.helper.name} calls back in a way that cannot be followed here")
    rounds = describe(walker, state, call)
    if call.helper.name == "timer_set_callback":
        _run_alone(walker, rounds)
        _return(state, rounds)
        return
    none_called = state.copy()
    _return(none_called, rounds)
    walker.push(none_called, walker.pc + 1)
    walker.unbounded = True
    state.mark(-walker.pc - 1)
    _enter(walker, state, rounds, walker.pc + 1)


def _run_alone(walker: Walker, rounds: Rounds) -> None:
    """The function of a timer runs with a stack of its own, and nothing in hand."""
    alone = State()
    frame = alone.frames[0] = Frame(0, rounds.pc, -1, rounds)
    frame.regs[1 : len(rounds.args) + 1] = list(rounds.args)
    walker.push(alone, rounds.pc)


def _errors_to(most: int) -> Reg:
    return Reg("scalar", scalar.of_signed_range(-4095, most))


def _loop(walker: Walker, state: State, call: Call) -> Rounds:
    """(count, function, context, flags): function(index, context)."""
    regs = state.regs
    count = regs[1].number.umax if regs[1].kind == "scalar" else 0
    index = Reg("scalar", scalar.of_range(0, max(min(count, 1 << 23) - 1, 0)))
    return Rounds("loop", _pc(regs[2]), (index, regs[3]), _errors_to(1 << 23), state.held)


def _for_each(walker: Walker, state: State, call: Call) -> Rounds:
    """(map, function, context, flags): function(map, key, value, context)."""
    regs, table = state.regs, call.table
    key = Reg("mem", thing="ro", size=table.key_size)  # type: ignore[attr-defined]
    arguments = (regs[1], key, Reg("value", thing=table), regs[3])
    return Rounds("for_each_map_elem", _pc(regs[2]), arguments, _errors_to(1 << 31), state.held)


def _timer(walker: Walker, state: State, call: Call) -> Rounds:
    """(timer, function): function(map, key, value), later."""
    field = call.pointer
    assert field is not None
    table = field.thing
    key = Reg("mem", thing="ro", size=table.key_size)  # type: ignore[attr-defined]
    arguments = (Reg("map", thing=table), key, Reg("value", thing=table))
    return Rounds("timer_set_callback", _pc(state.regs[2]), arguments, _errors_to(0), frozenset())


def _find_vma(walker: Walker, state: State, call: Call) -> Rounds:
    """(task, address, function, context, flags): function(task, vma, context)."""
    regs, vma = state.regs, walker.find_struct("vm_area_struct")
    if vma is None:
        raise Problem("struct vm_area_struct is not known here")
    arguments = (regs[1], Reg("btf", thing=vma, size=PLAIN), regs[4])
    return Rounds("find_vma", _pc(regs[3]), arguments, _errors_to(0), state.held)


def _drain(walker: Walker, state: State, call: Call) -> Rounds:
    """(map, function, context, flags): function(dynptr, context)."""
    regs = state.regs
    dynptr = Reg("object", thing="dynptr", ident=walker.new_ident())
    return Rounds("user_ringbuf_drain", _pc(regs[2]), (dynptr, regs[3]), _errors_to(1 << 31), state.held)


_DESCRIBE = {
    "loop": _loop,
    "for_each_map_elem": _for_each,
    "timer_set_callback": _timer,
    "find_vma": _find_vma,
    "user_ringbuf_drain": _drain,
}


def _pc(reg: Reg) -> int:
    if not isinstance(reg.thing, int):
        raise Problem(f"the callback must be a function, not {reg}")
    return reg.thing


def _return(state: State, rounds: Rounds) -> None:
    for index in range(1, 6):
        state.regs[index] = NONE
    state.regs[0] = rounds.result


def _enter(walker: Walker, state: State, rounds: Rounds, return_pc: int) -> None:
    if len(state.frames) >= MAX_FRAMES:
        raise Problem(f"calls are nested more than {MAX_FRAMES} deep")
    frame = Frame(len(state.frames), rounds.pc, return_pc, rounds)
    for index, reg in enumerate(rounds.args):
        frame.regs[index + 1] = reg
    state.frames.append(frame)
    walker.go(rounds.pc)


def leave_callback(walker: Walker, state: State) -> None:
    """The function has returned: go on behind the helper, and, later, call it again. Raises Problem."""
    frame = state.frames[-1]
    rounds = frame.callback
    assert isinstance(rounds, Rounds)
    result = frame.regs[0]
    if rounds.name == "timer_set_callback":
        _leave_alone(walker, state, result)
        return
    if result.kind != "scalar" or result.number.umin > 1 or result.number.umax > 1:
        raise Problem(f"the function that bpf_{rounds.name} calls must return 0 or 1, not {result}")
    state.frames.pop()
    if state.held != rounds.held or state.lock is not None:
        raise Problem(f"the function that bpf_{rounds.name} calls must give back what it takes")
    for given in rounds.args:
        if given.kind == "object":  # a sample of a ring: gone when the function returns
            state.release(given.ident)
    again = state.copy()
    again.widen(-frame.return_pc)
    _enter(walker, again, rounds, frame.return_pc)
    walker.push(again, rounds.pc)
    _return(state, rounds)
    walker.go(frame.return_pc)


def _leave_alone(walker: Walker, state: State, result: Reg) -> None:
    if result.kind != "scalar" or result.number.const != 0:
        raise Problem(f"the function of a timer must return 0, not {result}")
    if state.held or state.lock is not None or state.rcu or state.preempt:
        raise Problem("the function of a timer must give back what it takes")
    walker.stop()

"""Helpers that call a function of the program any number of times: bpf_loop, bpf_for_each_map_elem and the like.

The function is followed from its start with what the first call gives; when it returns, both happens: the helper returns, and the function is called again with what the
memory it can reach has become. So that this comes to an end, numbers on the stack of the callers that differ from one round to the next are forgotten.
"""

from __future__ import annotations

from . import scalar
from .problem import Problem
from .state import INVALID, MISC, NONE, UNKNOWN, Frame, Reg

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .calls import Call
    from .explore import Walker
    from .state import State

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


def enter_callback(walker: Walker, state: State, call: Call) -> bool:
    """Follow the helper's return without a call, later, and enter the function now. Raises Problem."""
    rounds = _describe(state, call)
    if rounds is None:
        raise Problem(f"bpf_{call.helper.name} calls back in a way that cannot be followed here")
    none_called = state.copy()
    _return(none_called, rounds)
    walker.push(none_called, walker.pc + 1)
    walker.unbounded = True
    _enter(walker, state, rounds, walker.pc + 1)
    return True


def _describe(state: State, call: Call) -> Rounds | None:
    regs = state.regs
    name = call.helper.name
    if name == "loop":  # (count, function, context, flags): function(index, context)
        count = regs[1].number.umax if regs[1].kind == "scalar" else 0
        index = Reg("scalar", scalar.of_range(0, max(min(count, 1 << 23) - 1, 0)))
        return Rounds(
            name, _pc(regs[2]), (index, regs[3]), Reg("scalar", scalar.of_signed_range(-4095, 1 << 23)), state.held
        )
    if name == "for_each_map_elem":  # (map, function, context, flags): function(map, key, value, context)
        table = call.table
        key = Reg("mem", thing="ro", size=table.key_size)  # type: ignore[attr-defined]
        value = Reg("value", thing=table)
        return Rounds(
            name,
            _pc(regs[2]),
            (regs[1], key, value, regs[3]),
            Reg("scalar", scalar.of_signed_range(-4095, 1 << 31)),
            state.held,
        )
    return None


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
    if result.kind != "scalar" or result.number.umin > 1 or result.number.umax > 1:
        raise Problem(f"the function that bpf_{rounds.name} calls must return 0 or 1, not {result}")
    state.frames.pop()
    if state.held != rounds.held:
        raise Problem(f"the function that bpf_{rounds.name} calls must give back what it takes")
    again = state.copy()
    forget_numbers(again)
    _enter(walker, again, rounds, frame.return_pc)
    walker.push(again, rounds.pc)
    _return(state, rounds)
    walker.go(frame.return_pc)


def forget_numbers(state: State, *, registers: bool = False) -> None:
    """Numbers on the stacks may be others in the next round, with `registers` those in registers, too; addresses stay."""
    for frame in state.frames:
        for slot, kept in frame.slots.items():
            if isinstance(kept, Reg):
                if kept.kind == "scalar":
                    frame.slots[slot] = UNKNOWN
            else:
                frame.slots[slot] = bytes(MISC if kind != INVALID else kind for kind in kept)
        if registers:
            frame.regs = [UNKNOWN if reg.kind == "scalar" else reg for reg in frame.regs]

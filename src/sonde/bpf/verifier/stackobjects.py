"""Things that lie on the stack and only helpers and kernel functions may touch: dynptrs (two slots each) and iterators.

Each has an ident of its own. What a dynptr or an iterator hands out has that ident as its parent, so that it goes with it; a dynptr in a ring buffer has
as its parent what must be submitted.
"""

from __future__ import annotations

from ..isa import MAX_STACK_BYTES
from . import scalar
from .memory import give_up, read_bytes
from .problem import Problem
from .state import IN_RCU, OPAQUE, OPAQUE_KINDS, TRUSTED, ZERO, Frame, Reg, number

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .explore import Walker
    from .state import State

DYNPTR_BYTES = 16


def _place(state: State, reg: Reg, size: int, what: str) -> tuple[Frame, int]:
    """The frame and the offset of a whole object on the stack. Raises Problem."""
    if reg.kind != "stack" or reg.number.const is None:
        raise Problem(f"it must be the address of a {what} on the stack, not {reg}")
    low = reg.off + scalar.to_signed(reg.number.const)
    if low % 8 or low < -MAX_STACK_BYTES or low + size > 0:
        raise Problem(f"a {what} of {size} bytes cannot be at r10{low:+d}")
    return state.frames[reg.size], low


def _slots(low: int, size: int) -> range:
    """The slots of `size` bytes, from the lowest address on."""
    return range((-low - 1) // 8, (-low - 1) // 8 - size // 8, -1)


def _put(walker: Walker, state: State, reg: Reg, size: int, made: Reg, what: str) -> None:
    frame, low = _place(state, reg, size, what)
    if any(isinstance(kept := frame.slots.get(slot), Reg) and kept.kind in OPAQUE_KINDS for slot in _slots(low, size)):
        give_up(state, frame, low, low + size)
    walker.note_use(reg, 0, size)
    for part, slot in enumerate(_slots(low, size)):
        frame.slots[slot] = made.change(off=part)


def _find(state: State, reg: Reg, size: int, kind: str) -> Reg:
    """The object at an address: its first slot. Raises Problem when it is not whole."""
    frame, low = _place(state, reg, size, kind)
    parts = [frame.slots.get(slot) for slot in _slots(low, size)]
    first = parts[0]
    if not isinstance(first, Reg) or first.kind != kind:
        raise Problem(f"there is no initialised {kind} at r10{low:+d}")
    for index, part in enumerate(parts):
        if not isinstance(part, Reg) or part.kind != kind or part.off != index or part.ident != first.ident:
            raise Problem(f"the {kind} at r10{low:+d} is not whole")
    return first


# Dynptrs ----------------------------------------------------------------------------------------------------------


def make_dynptr(walker: Walker, state: State, reg: Reg, origin: str) -> None:
    """Initialise a dynptr at `reg`, over memory that is "local" or in a "ringbuf", which must be given back. Raises Problem."""
    ident = walker.new_ident()
    parent = 0
    if origin == "ringbuf":
        parent = walker.new_ident()
        state.held |= {parent}
    _put(walker, state, reg, DYNPTR_BYTES, Reg("dynptr", thing=origin, ident=ident, parent=parent), "dynptr")


def find_dynptr(state: State, reg: Reg) -> Reg:
    """The dynptr that an argument leads to. Raises Problem."""
    if reg.kind == "object" and reg.thing == "dynptr":
        return reg
    return _find(state, reg, DYNPTR_BYTES, "dynptr")


def check_unused(state: State, reg: Reg) -> None:
    """Check that a dynptr may be made at `reg`. Raises Problem."""
    frame, low = _place(state, reg, DYNPTR_BYTES, "dynptr")
    if OPAQUE in read_bytes(frame, low, DYNPTR_BYTES):
        give_up(state, frame, low, low + DYNPTR_BYTES)


# Iterators --------------------------------------------------------------------------------------------------------


class Kind:
    """A kind of iterator: how large it is, and what each step gives."""

    __slots__ = ("bytes", "name", "result", "size")

    def __init__(self, name: str, bytes_: int, result: str, size: int = 0) -> None:
        self.name = name
        self.bytes = bytes_
        self.result = result  # "mem" of `size` bytes, or the name of a struct
        self.size = size


ITERATORS = {
    kind.name: kind
    for kind in (
        Kind("num", 8, "mem", 4),
        Kind("task", 24, "task_struct"),
        Kind("task_vma", 8, "vm_area_struct"),
        Kind("css", 24, "cgroup_subsys_state"),
        Kind("css_task", 8, "task_struct"),
        Kind("bits", 16, "mem", 4),
    )
}


def make_iterator(walker: Walker, state: State, reg: Reg, name: str) -> None:
    """Begin to go over something. Raises Problem."""
    kind = ITERATORS[name]
    ident = walker.new_ident()
    _put(walker, state, reg, kind.bytes, Reg("iter", thing=kind.name, size=1, ident=ident), "iterator")
    state.held |= {ident}


def find_iterator(state: State, reg: Reg, name: str) -> Reg:
    """The iterator that an argument leads to. Raises Problem."""
    found = _find(state, reg, ITERATORS[name].bytes, "iter")
    if found.thing != name:
        raise Problem(f"this is an iterator over {found.thing}, not over {name}")
    return found


def step(walker: Walker, state: State, found: Reg) -> Reg:
    """One step: later, the path on which the iterator is at its end and r0 is null; now, what it found. The numbers of open loops are forgotten."""
    kind = ITERATORS[str(found.thing)]
    if not found.size:
        return number(0)
    ended = state.copy()
    for frame in ended.frames:
        for slot, kept in frame.slots.items():
            if isinstance(kept, Reg) and kept.kind == "iter" and kept.ident == found.ident:
                frame.slots[slot] = kept.change(size=0)
    for index in range(6):
        ended.regs[index] = number(0) if not index else Reg("none")
    walker.push(ended, walker.pc + 1)
    walker.unbounded = True
    state.widen(walker.pc)
    if kind.result == "mem":
        return Reg("mem", ZERO, 0, "ro", kind.size, parent=found.ident)
    struct = walker.find_struct(kind.result)
    if struct is None:
        raise Problem(f"struct {kind.result} is not known here")
    return Reg("btf", thing=struct, size=IN_RCU if kind.name in ("task", "css") else TRUSTED, parent=found.ident)


def iterator_at(state: State) -> int:
    """The ident of the iterator that r1 leads to; 0 for none."""
    reg = state.regs[1]
    if reg.kind != "stack" or reg.number.const is None:
        return 0
    found = state.frames[reg.size].slots.get((-reg.off - scalar.to_signed(reg.number.const) - 1) // 8)
    return found.ident if isinstance(found, Reg) and found.kind == "iter" else 0

"""Conditional jumps: which ways can be taken, and what is known behind each."""

from __future__ import annotations

from ..flow import jump_target
from ..isa import Insn, get_op
from . import scalar
from .problem import Problem
from .state import Reg, number

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .explore import Walker
    from .state import State

_SIGNS = {"jeq": "==", "jne": "!=", "jgt": ">", "jge": ">=", "jlt": "<", "jle": "<=", "jsgt": "s>", "jsge": "s>=", "jslt": "s<",
          "jsle": "s<=", "jset": "&"}  # fmt: skip


def branch(walker: Walker, insn: Insn) -> None:
    """Divide the path at a conditional jump, or follow the one way there is. Raises Problem."""
    op = get_op(insn)
    target = jump_target(walker.pc, insn)
    assert op is not None and target is not None
    sign, wide = _SIGNS[op.name.removesuffix("_imm")[:-2]], "64" in op.name
    a = walker.read(insn.dst)
    from_register = not op.name.endswith("_imm")
    b = (
        walker.read(insn.src)
        if from_register
        else Reg("scalar", scalar.const(insn.imm if wide else insn.imm & 0xFFFFFFFF))
    )
    if a.kind == "scalar" and b.kind == "scalar":
        _numbers(walker, insn, sign, wide, target, from_register)
    elif _is_null_check(a, b, sign) and wide:
        _null(walker, a, sign, target)
    elif from_register and _is_null_check(b, a, sign) and wide:
        _null(walker, b, sign, target)
    elif wide and {a.kind, b.kind} in ({"packet", "packet_end"}, {"packet_meta", "packet"}):
        _packet(walker, a, b, sign, target)
    else:
        walker.push(walker.state.copy(), target)


def _numbers(walker: Walker, insn: Insn, sign: str, wide: bool, target: int, from_register: bool) -> None:
    state = walker.state
    a = state.regs[insn.dst]
    b = (
        state.regs[insn.src]
        if from_register
        else Reg("scalar", scalar.const(insn.imm if wide else insn.imm & 0xFFFFFFFF))
    )
    if from_register and insn.dst == insn.src:
        walker.push(state.copy(), target)
        return
    yes = scalar.assume(sign, wide, a.number, b.number)
    no = scalar.assume(scalar.NEGATED[sign], wide, a.number, b.number)
    can, cannot = not (yes[0].empty or yes[1].empty), not (no[0].empty or no[1].empty)
    if not can and not cannot:
        raise Problem("what is known of the operands contradicts itself")
    if can and cannot:
        taken = state.copy()
        _learn(taken, insn.dst, yes[0])
        if from_register:
            _learn(taken, insn.src, yes[1])
        walker.push(taken, target)
        _learn(state, insn.dst, no[0])
        if from_register:
            _learn(state, insn.src, no[1])
        return
    walker.decided.add(walker.pc)
    if can:
        _learn(state, insn.dst, yes[0])
        if from_register:
            _learn(state, insn.src, yes[1])
        walker.go(target)
    else:
        _learn(state, insn.dst, no[0])
        if from_register:
            _learn(state, insn.src, no[1])


def _learn(state: State, index: int, known: scalar.Scalar) -> None:
    """Note what is known of a register, and of all that are equal to it."""
    reg = state.regs[index]
    if reg.ident:
        state.map_regs(reg.ident, lambda r: Reg("scalar", known, ident=r.ident))
    elif index < 10:
        state.regs[index] = Reg("scalar", known)


# Null -------------------------------------------------------------------------------------------------------------


def _is_null_check(pointer: Reg, other: Reg, sign: str) -> bool:
    return pointer.may_be_null and sign in ("==", "!=") and other.kind == "scalar" and other.number.const == 0


def _null(walker: Walker, pointer: Reg, sign: str, target: int) -> None:
    state = walker.state
    taken = state.copy()
    _settle(taken, pointer.ident, null=sign == "==")
    _settle(state, pointer.ident, null=sign != "==")
    walker.push(taken, target)


def _settle(state: State, ident: int, *, null: bool) -> None:
    """A pointer is known to be null, or not to be; so is every copy of it."""
    if null:
        state.held -= {ident}
        state.map_regs(ident, lambda reg: number(0))
    else:
        held = ident in state.held
        state.map_regs(
            ident, lambda reg: reg.change(kind=reg.kind.rstrip("?"), ident=ident if held or _has_lock(reg) else 0)
        )


def _has_lock(reg: Reg) -> bool:
    """Whether it matters which value it is: the one whose lock is held."""
    return reg.kind == "value?" and any(what == "spin_lock" for _, _, what in reg.thing.special)  # type: ignore[attr-defined]


# Packets ----------------------------------------------------------------------------------------------------------

# For `packet OP end`: whether the packet reaches up to the pointer (0) or beyond it by a byte (1), in which of the ways.
_REACHES = {">": ("no", 0), ">=": ("no", 1), "<": ("yes", 1), "<=": ("yes", 0)}
_TURNED = {">": "<", ">=": "<=", "<": ">", "<=": ">="}


def _packet(walker: Walker, a: Reg, b: Reg, sign: str, target: int) -> None:
    state = walker.state
    taken = state.copy()
    pointer, end = a, b
    if (b.kind == "packet" and a.kind == "packet_end") or (b.kind == "packet_meta" and a.kind == "packet"):
        pointer, end, sign = b, a, _TURNED.get(sign, sign)
    is_end = end.kind == "packet_end" or (end.kind == "packet" and not end.off and end.number.const == 0)
    way, more = _REACHES.get(sign, ("", 0))
    if way and is_end:
        _extend(taken if way == "yes" else state, pointer, pointer.off + more)
    walker.push(taken, target)


def _extend(state: State, pointer: Reg, size: int) -> None:
    """All pointers that began like this one may be used up to `size` bytes."""
    if pointer.off < 0 or pointer.number.umax > 0xFFFF:
        return
    for frame in state.frames:
        for index, reg in enumerate(frame.regs):
            if _alike(reg, pointer):
                frame.regs[index] = reg.change(size=max(reg.size, size))
        for slot, kept in frame.slots.items():
            if isinstance(kept, Reg) and _alike(kept, pointer):
                frame.slots[slot] = kept.change(size=max(kept.size, size))


def _alike(reg: Reg, pointer: Reg) -> bool:
    return reg.kind == pointer.kind and reg.ident == pointer.ident and reg.number == pointer.number

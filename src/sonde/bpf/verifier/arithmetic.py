"""Arithmetic: numbers by `scalar`, addresses by adding and subtracting numbers."""

from __future__ import annotations

from ..isa import Insn, get_op
from . import scalar
from .problem import Problem
from .state import Reg

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .explore import Walker

MAX_OFFSET = 1 << 29
_NO_ARITHMETIC = frozenset(["map", "packet_end", "func", "object"])


def operate(walker: Walker, insn: Insn) -> None:
    """Carry out an instruction of the arithmetic classes. Raises Problem."""
    op = get_op(insn)
    assert op is not None
    base, immediate = op.name.removesuffix("_imm"), op.name.endswith("_imm")
    if base in ("cast", "percpu"):
        raise Problem("arenas and per-CPU addresses cannot be followed here")
    if base.startswith("mov"):
        walker.write(insn.dst, _move(walker, insn, base, immediate))
        return
    value = walker.read(insn.dst)
    if base.startswith(("le", "be", "bswap")):
        bits = insn.imm
        walker.write(insn.dst, Reg("scalar", scalar.of_size(bits // 8)))
        return
    if base.startswith("neg"):
        zero, name = scalar.const(0), "sub64" if base.endswith("64") else "sub32"
        walker.write(insn.dst, Reg("scalar", scalar.OPERATIONS[name](zero, _number(value))))
        return
    other = Reg("scalar", scalar.const(insn.imm)) if immediate else walker.read(insn.src)
    walker.write(insn.dst, combine(walker, base, value, other, insn))


def _number(reg: Reg) -> scalar.Scalar:
    """The number that a register holds; of an address nothing is known."""
    return reg.number if reg.kind == "scalar" else scalar.UNKNOWN


def _move(walker: Walker, insn: Insn, base: str, immediate: bool) -> Reg:
    if base.startswith("movsx"):
        value = walker.read(insn.src)
        width, bits = base[5:].split("_")
        made = scalar.sign_extend(_number(value), int(bits))
        return Reg("scalar", made if width == "64" else scalar.low32(made))
    if immediate:
        return Reg("scalar", scalar.const(insn.imm if base == "mov64" else insn.imm & 0xFFFFFFFF))
    value = walker.read(insn.src)
    if base == "mov32":
        return Reg("scalar", scalar.low32(value.number) if value.kind == "scalar" else scalar.of_size(4))
    return identified(walker, insn.src, value)


def identified(walker: Walker, index: int, value: Reg) -> Reg:
    """What register `index` holds, which is about to be copied: numbers from now on known to be equal have the same ident."""
    if value.kind == "scalar" and value.number.const is None and not value.ident:
        value = Reg("scalar", value.number, ident=walker.new_ident())
        walker.state.regs[index] = value
    return value


def combine(walker: Walker, base: str, a: Reg, b: Reg, insn: Insn) -> Reg:
    """Two operands to a result. Raises Problem."""
    if not a.is_pointer and not b.is_pointer:
        return Reg("scalar", scalar.OPERATIONS[base](a.number, b.number))
    if base.endswith("32"):
        return Reg("scalar", scalar.of_size(4))
    if base == "add64":
        return _offset(walker, a, b) if a.is_pointer else _offset(walker, b, a)
    if base == "sub64":
        if a.is_pointer and b.is_pointer:
            return Reg("scalar", scalar.UNKNOWN)
        if a.is_pointer:
            return _offset(walker, a, b, minus=True)
        raise Problem(f"{b} cannot be subtracted from a number")
    raise Problem(f"{a if a.is_pointer else b} is an address, with which only numbers can be added and subtracted")


def _offset(walker: Walker, pointer: Reg, by: Reg, *, minus: bool = False) -> Reg:
    if by.is_pointer:
        raise Problem(f"{pointer} and {by} cannot be added")
    if pointer.may_be_null:
        raise Problem(f"{pointer} is used without a check", "compare it with null first")
    if pointer.kind in _NO_ARITHMETIC:
        raise Problem(f"nothing can be added to {pointer}")
    number = by.number.const
    if number is not None:
        step = scalar.to_signed(number)
        off = pointer.off - step if minus else pointer.off + step
        if not -MAX_OFFSET < off < MAX_OFFSET:
            raise Problem(f"{pointer} would be moved by {step}, further than anything reaches")
        return pointer.change(off=off)
    if not -MAX_OFFSET < by.number.smin < MAX_OFFSET:  # the other end is looked at where the address is used
        raise Problem(
            f"{pointer} would be moved by {by.number}, which is not limited",
            "compare the index with its limits before, or mask it with &",
        )
    moved = scalar.OPERATIONS["sub64" if minus else "add64"](pointer.number, by.number)
    if not -MAX_OFFSET < moved.smin < MAX_OFFSET:
        raise Problem(f"{pointer} would be moved further than anything reaches")
    if pointer.kind in ("packet", "packet_meta"):
        return pointer.change(number=moved, size=0, ident=walker.new_ident())
    return pointer.change(number=moved)

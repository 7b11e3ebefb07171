"""Instruction selection for arithmetic, comparisons as values, and conversions."""

from __future__ import annotations

from ..bpf import isa
from . import machine as m
from .ir import BINARY, COMPARE, Const, Inst
from .lowering import fits, signed, width_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from .ir import Value
    from .lowering import Lowering

_ALU = {
    "add": isa.BPF_ADD, "sub": isa.BPF_SUB, "mul": isa.BPF_MUL, "and": isa.BPF_AND, "or": isa.BPF_OR,
    "xor": isa.BPF_XOR, "shl": isa.BPF_LSH, "lshr": isa.BPF_RSH, "ashr": isa.BPF_ARSH, "udiv": isa.BPF_DIV,
    "umod": isa.BPF_MOD, "sdiv": isa.BPF_DIV, "smod": isa.BPF_MOD,
}  # fmt: skip
_COMMUTATIVE = frozenset(["add", "mul", "and", "or", "xor"])
_NEEDS_ZEXT = frozenset(["lshr", "udiv", "umod"])
_NEEDS_SEXT = frozenset(["ashr", "sdiv", "smod"])
_SHIFTS = frozenset(["shl", "lshr", "ashr"])
_DIVISIONS = frozenset(["udiv", "umod", "sdiv", "smod"])


def _binary(l: Lowering, inst: Inst) -> None:
    if inst in l.fused:
        return
    op, (a, b) = inst.op, inst.args
    if op in _COMMUTATIVE and (isinstance(a, Const) or (l.uses[a] > 1 == l.uses[b] and not isinstance(b, Const))):
        a, b = b, a  # what is not used again may be changed in place
    width = width_of(inst)
    if op in ("sdiv", "smod") and not l.target.features.have("isa:v4"):
        _divide_signed(l, inst)
        return
    if op == "and" and width == 64 and isinstance(b, Const) and b.imm & (1 << 64) - 1 == 0xFFFFFFFF:
        l.set(inst, l.new(), 32)
        l.emit(m.Op("mov", m.MOV32 | isa.BPF_X, l.registers[inst], l.register(a)))
        return
    sign = op in _NEEDS_SEXT
    narrow = width not in (32, 64) and (sign or op in _NEEDS_ZEXT)  # upper bits would end up in the result
    result = l.new()
    if narrow:
        l.emit(m.mov(result, l.clean(a, sign=sign)))
    else:
        l.into(result, a)
    off = 1 if op in ("sdiv", "smod") else 0
    wide = width == 64
    if isinstance(b, Const):
        better, imm = _immediate(op, b, width)
        if fits(imm) or (op == "and" and wide and 0 <= imm < 1 << 32):
            wide = wide and fits(imm)
            l.emit(m.alu(_ALU[better], result, imm=signed(imm, 32), wide=wide, off=off))
            bits = min(_bits_after(better, imm, l.bits.get(a, 64), width), 64 if wide else 32)
            l.set(inst, result, bits)
            return
    source = l.clean(b, sign=sign) if narrow else l.register(b)
    l.emit(m.alu(_ALU[op], result, source, wide=wide, off=off))
    l.set(inst, result, 64 if wide else 32)


def _immediate(op: str, b: Const, width: int) -> tuple[str, int]:
    """Return the operation and immediate for a constant right side; an immediate that does not fit where there is none."""
    imm = b.imm & (1 << width) - 1 if op in _NEEDS_ZEXT and width < 32 else signed(b.imm, width)
    if op in _SHIFTS:
        return op, imm & (63 if width == 64 else 31)
    if op in _DIVISIONS and not imm:
        return op, 1 << 40
    if op == "sub":
        return "add", -imm
    if op == "and" and width == 64 and imm < 0 and not fits(imm):
        return op, 1 << 40
    return op, imm


def _bits_after(op: str, imm: int, bits: int, width: int) -> int:
    """Return from which bit up the register is zero after an operation with a constant; `bits` says it of the operand."""
    machine = 64 if width == 64 else 32
    bits = min(bits, machine)
    if op == "lshr":
        return max(bits - imm, 0)
    if op == "shl":
        return min(bits + imm, machine)
    if op == "and" and imm >= 0:
        return min(bits, imm.bit_length())
    if op == "umod" and imm > 0:
        return min(bits, (imm - 1).bit_length())
    if op == "udiv" and imm > 0:
        return max(bits - imm.bit_length() + 1, 0)
    if op in ("or", "xor") and imm >= 0:
        return max(bits, imm.bit_length())
    return machine


def _divide_signed(l: Lowering, inst: Inst) -> None:
    """Signed division without the instruction: divide the absolute values, then mend the sign."""
    a, b = inst.args
    dividend, mask = _absolute(l, a)
    operation = _ALU[inst.op]
    if isinstance(b, Const) and fits(abs(signed(b.imm, width_of(b)))) and b.imm:
        divisor = signed(b.imm, width_of(b))
        l.emit(m.alu(operation, dividend, imm=abs(divisor)))
        if divisor < 0 and inst.op == "sdiv":
            l.emit(m.alu(isa.BPF_XOR, mask, imm=-1))
    else:
        divisor_register, divisor_mask = _absolute(l, b)
        l.emit(m.alu(operation, dividend, divisor_register))
        if inst.op == "sdiv":
            l.emit(m.alu(isa.BPF_XOR, mask, divisor_mask))
    l.emit(m.alu(isa.BPF_XOR, dividend, mask))
    l.emit(m.alu(isa.BPF_SUB, dividend, mask))
    l.set(inst, dividend)


def _absolute(l: Lowering, value: Value) -> tuple[int, int]:
    """Return registers with the absolute value and with its sign: 0 or -1. Both may be changed."""
    result, mask = l.new(), l.new()
    source = l.clean(value, sign=True)
    l.emit(m.mov(mask, source))
    l.emit(m.alu(isa.BPF_ARSH, mask, imm=63))
    l.emit(m.mov(result, source))
    l.emit(m.alu(isa.BPF_XOR, result, mask))
    l.emit(m.alu(isa.BPF_SUB, result, mask))
    return result, mask


def _neg(l: Lowering, inst: Inst) -> None:
    result = l.copy(inst.args[0])
    l.emit(m.Op("unary", isa.BPF_ALU64 | isa.BPF_NEG, result))
    l.set(inst, result)


def _bswap(l: Lowering, inst: Inst) -> None:
    result = l.copy(inst.args[0])
    width = width_of(inst)
    if width > 8:
        l.emit(m.Op("unary", isa.BPF_ALU | isa.BPF_END | isa.BPF_TO_BE, result, imm=width))
    l.set(inst, result, width if width > 8 else l.bits.get(inst.args[0], 64))


def _compare(l: Lowering, inst: Inst) -> None:
    if inst in l.fused:
        return
    result, on, zero = l.new(), l.split("compared"), l.split("not")
    l.emit(m.mov_imm(result, 1))
    l.branch_on(inst, on, zero)
    l.start(zero)
    l.emit(m.mov_imm(result, 0))
    l.fall_into(on)
    l.set(inst, result, 1)


def _convert(l: Lowering, inst: Inst) -> None:
    value = inst.args[0]
    if inst.op in ("trunc", "cast"):
        if isinstance(value, Const):
            value = Const(value.imm, inst.type)
        l.set(inst, l.register(value), l.bits.get(value, 64))
    elif inst.op == "zext":
        register = l.clean(value, sign=False)
        l.set(inst, register, min(width_of(value), l.bits.get(value, 64)))
        l.note_extension(value, register, inst.op)
    else:
        bits = l.bits.get(value, 64)
        register = l.clean(value, sign=True)
        l.set(inst, register, bits if bits < width_of(value) else 64)
        l.note_extension(value, register, inst.op)


def _bound(l: Lowering, inst: Inst) -> None:
    """Clamp: a value above the upper limit becomes it, one below the lower limit likewise; all unsigned.

    Every kernel's verifier learns the range from the comparison or the mask.
    """
    result = l.new()
    l.emit(m.mov(result, l.clean(inst.args[0], sign=False)))
    mask = inst.imm
    if not inst.low and mask & mask + 1 == 0 and fits(mask):
        l.emit(m.alu(isa.BPF_AND, result, imm=mask))
    else:
        _clamp(l, result, isa.BPF_JLE, inst.imm)
        if inst.low:
            _clamp(l, result, isa.BPF_JGE, inst.low)
    l.keep.add(result)
    l.set(inst, result, inst.imm.bit_length())


def _clamp(l: Lowering, register: int, operation: int, limit: int) -> None:
    on, clamp = l.split("bounded"), l.split("clamp")
    if fits(limit):
        l.emit(m.jump(operation, register, on, imm=limit))
    else:
        l.emit(m.jump(operation, register, on, l.register(Const(limit))))
    l.fall_into(clamp)
    l.constant(register, Const(limit))
    l.fall_into(on)


def _opaque(l: Lowering, inst: Inst) -> None:
    l.set(inst, l.copy(inst.args[0]), l.bits.get(inst.args[0], 64))


def _const(l: Lowering, inst: Inst) -> None:
    l.set(inst, l.register(Const(inst.imm, inst.type)))


SELECT: dict[str, Callable[[Lowering, Inst], None]] = {
    **dict.fromkeys(BINARY, _binary),
    **dict.fromkeys(COMPARE, _compare),
    **dict.fromkeys(("zext", "sext", "trunc", "cast"), _convert),
    "neg": _neg,
    "bswap": _bswap,
    "bound": _bound,
    "opaque": _opaque,
    "const": _const,
}

"""Constant folding and algebra: operations whose result is known, or which a simpler one can replace."""

from __future__ import annotations

from ..ir import BINARY, COMPARE, I1, WIDTH, Block, Const, Function, Inst, Terminator, Value, is_pointer
from .graph import substitute

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_LIMIT = 8


def fold(function: Function) -> bool:
    """Rewrite `function` in place; tell whether anything changed."""
    changed = False
    for _ in range(_LIMIT):
        changes: dict[Value, Value] = {}
        for block in function.blocks:
            kept = []
            for inst in block.insts:
                inst.args = [changes.get(a, a) for a in inst.args]
                value = _simplify(inst)
                if value is None:
                    kept.append(inst)
                else:
                    changes[inst] = value
            block.insts = kept
        substitute(function, changes)
        ends = [_fold_end(block) for block in function.blocks]
        if not changes and not any(ends):
            break
        changed = True
    return changed


def _fold_end(block: Block) -> bool:
    """A branch on a constant becomes a jump; a branch on `ne x, 0` of a one-bit x branches on x."""
    end = block.end
    if end is None or end.op != "branch":
        return False
    condition = end.args[0]
    if isinstance(condition, Const):
        block.end = Terminator("jump", [], [end.targets[0 if condition.imm & 1 or condition.imm else 1]], end.span)
        return True
    if isinstance(condition, Inst) and condition.op in ("ne", "eq") and _is_zero(condition.args[1]):
        inner = condition.args[0]
        while isinstance(inner, Inst) and inner.op == "zext":
            inner = inner.args[0]
        if inner.type == I1:
            targets = end.targets if condition.op == "ne" else end.targets[::-1]
            block.end = Terminator("branch", [inner], targets, end.span)
            return True
    return False


def _is_zero(v: Value) -> bool:
    return isinstance(v, Const) and v.imm == 0


def _simplify(inst: Inst) -> Value | None:
    """Return what `inst` can be replaced by, or None; may turn `inst` itself into something simpler."""
    op = inst.op
    if op in BINARY or op in COMPARE:
        return _simplify_binary(inst)
    if op in ("zext", "sext", "trunc", "cast"):
        return _simplify_conversion(inst)
    if op == "neg" and isinstance(inst.args[0], Const):
        return Const(-inst.args[0].imm, inst.type)
    if op == "ptradd":
        return _simplify_ptradd(inst)
    return None


def _simplify_binary(inst: Inst) -> Value | None:
    a, b = inst.args
    op = inst.op
    if isinstance(a, Const) and isinstance(b, Const):
        return Const(evaluate(op, a.imm, b.imm, 64 if is_pointer(a.type) else WIDTH[a.type]), inst.type)
    if isinstance(a, Const) and op in ("add", "mul", "and", "or", "xor", "eq", "ne"):
        inst.args = [b, a]
        a, b = b, a
    if isinstance(b, Const) and op in BINARY:
        return _with_constant(inst, op, a, b)
    return None


def _with_constant(inst: Inst, op: str, a: Value, b: Const) -> Value | None:
    imm = b.imm & (1 << (64 if is_pointer(inst.type) else WIDTH[inst.type])) - 1
    if imm == 0 and op in ("add", "sub", "or", "xor", "shl", "lshr", "ashr"):
        return a
    if imm == 1 and op in ("mul", "udiv", "sdiv"):
        return a
    if imm == 0 and op in ("mul", "and"):
        return Const(0, inst.type)
    power = imm.bit_length() - 1
    if imm and imm == 1 << power and power:
        if op in ("mul", "udiv"):
            inst.op, inst.args = ("shl" if op == "mul" else "lshr"), [a, Const(power, b.type)]
        elif op == "umod":
            inst.op, inst.args = "and", [a, Const(imm - 1, b.type)]
    return None


def _simplify_conversion(inst: Inst) -> Value | None:
    value = inst.args[0]
    if isinstance(value, Const):
        imm = value.imm
        if not is_pointer(value.type):
            width = WIDTH[value.type]
            imm &= (1 << width) - 1
            if inst.op == "sext" and imm >> width - 1:
                imm -= 1 << width
        return Const(imm, inst.type)
    if inst.op == "trunc" and isinstance(value, Inst) and value.op in ("zext", "sext", "trunc"):
        inner = value.args[0]
        if inner.type == inst.type:
            return inner
        if WIDTH.get(inner.type, 64) > WIDTH[inst.type]:
            inst.args = [inner]
    if inst.op == value_op(value) and inst.op in ("zext", "sext") and isinstance(value, Inst):
        inst.args = [value.args[0]]
    return None


def value_op(value: Value) -> str:
    """Return the operation of an instruction, "" of other values."""
    return value.op if isinstance(value, Inst) else ""


def _simplify_ptradd(inst: Inst) -> Value | None:
    base, offset = inst.args
    if _is_zero(offset):
        return base
    if isinstance(offset, Const) and isinstance(base, Inst) and base.op == "ptradd":
        inner = base.args[1]
        if isinstance(inner, Const):
            inst.args = [base.args[0], Const(offset.imm + inner.imm)]
    return None


def evaluate(op: str, a: int, b: int, width: int) -> int:
    """Return the result of an operation on two `width`-bit numbers, as an unsigned number of its type."""
    mask = (1 << width) - 1
    a &= mask
    b &= mask
    sa = a - (1 << width) if a >> width - 1 else a
    sb = b - (1 << width) if b >> width - 1 else b
    if op in COMPARE:
        x, y = (sa, sb) if op[0] == "s" else (a, b)
        return int(_COMPARISONS[op.lstrip("su") if op not in ("eq", "ne") else op](x, y))
    return _ARITHMETIC[op](a, b, sa, sb, width) & mask


_COMPARISONS: dict[str, Callable[[int, int], bool]] = {
    "eq": lambda x, y: x == y,
    "ne": lambda x, y: x != y,
    "lt": lambda x, y: x < y,
    "le": lambda x, y: x <= y,
    "gt": lambda x, y: x > y,
    "ge": lambda x, y: x >= y,
}

_ARITHMETIC: dict[str, Callable[[int, int, int, int, int], int]] = {
    "add": lambda a, b, sa, sb, w: a + b,
    "sub": lambda a, b, sa, sb, w: a - b,
    "mul": lambda a, b, sa, sb, w: a * b,
    "and": lambda a, b, sa, sb, w: a & b,
    "or": lambda a, b, sa, sb, w: a | b,
    "xor": lambda a, b, sa, sb, w: a ^ b,
    "shl": lambda a, b, sa, sb, w: a << (b & _shift_mask(w)),
    "lshr": lambda a, b, sa, sb, w: a >> (b & _shift_mask(w)),
    "ashr": lambda a, b, sa, sb, w: sa >> (b & _shift_mask(w)),
    "udiv": lambda a, b, sa, sb, w: a // b if b else 0,
    "umod": lambda a, b, sa, sb, w: a % b if b else a,
    "sdiv": lambda a, b, sa, sb, w: _quotient(sa, sb),
    "smod": lambda a, b, sa, sb, w: sa - _quotient(sa, sb) * sb if b else sa,
}


def _shift_mask(width: int) -> int:
    """The machine masks shifts by its register width: narrow values live in 32-bit operations."""
    return 63 if width == 64 else 31


def _quotient(a: int, b: int) -> int:
    if not b:
        return 0
    q = abs(a) // abs(b)
    return q if (a < 0) == (b < 0) else -q

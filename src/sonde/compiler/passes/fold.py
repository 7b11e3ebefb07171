"""Constant folding and algebra: operations whose result is known, or which a simpler one can replace."""

from __future__ import annotations

from ..ir import BINARY, COMPARE, I1, Const, Inst, Terminator
from .graph import order_blocks, substitute
from .knownbits import known_width, never_negative, width_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ..ir import Block, Function, Value

_LIMIT = 8
INVERSE = {"eq": "ne", "ne": "eq", "ult": "uge", "uge": "ult", "ugt": "ule", "ule": "ugt", "slt": "sge", "sge": "slt",
           "sgt": "sle", "sle": "sgt"}  # fmt: skip
_SWAPPED = {"eq": "eq", "ne": "ne", "ult": "ugt", "ugt": "ult", "ule": "uge", "uge": "ule", "slt": "sgt", "sgt": "slt",
            "sle": "sge", "sge": "sle", "add": "add", "mul": "mul", "and": "and", "or": "or", "xor": "xor"}  # fmt: skip
_UNSIGNED = {"sdiv": "udiv", "smod": "umod", "ashr": "lshr"}
_TRUE_OF_EQUAL = frozenset(["eq", "ule", "uge", "sle", "sge"])


def fold(function: Function) -> bool:
    """Rewrite `function` in place; tell whether anything changed."""
    changed = redirected = False
    for _ in range(_LIMIT):
        changes: dict[Value, Value] = {}
        mended = False
        for block in function.blocks:
            kept = []
            for inst in block.insts:
                if changes:
                    inst.args = [changes.get(a, a) for a in inst.args]
                before = inst.op, inst.args
                value = simplify(inst)
                if value is None:
                    kept.append(inst)
                    mended |= (inst.op, inst.args) != before
                else:
                    changes[inst] = value
            block.insts = kept
        substitute(function, changes)
        for block in function.blocks:
            redirected |= _fold_end(block)
        if not changes and not mended:
            break
        changed = True
    if redirected:
        order_blocks(function)
    return changed or redirected


def _fold_end(block: Block) -> bool:
    """A branch on a constant becomes a jump; one on `x == 0` or `x != 0` of a one-bit x branches on x."""
    end = block.end
    if end is None or end.op != "branch":
        return False
    condition = end.args[0]
    if isinstance(condition, Const):
        truth = condition.imm & (1 << width_of(condition)) - 1
        block.end = Terminator("jump", [], [end.targets[0 if truth else 1]], end.span)
        return True
    if isinstance(condition, Inst) and condition.op in ("ne", "eq") and _is_zero(condition.args[1]):
        inner = condition.args[0]
        while isinstance(inner, Inst) and inner.op == "zext":
            inner = inner.args[0]
        if inner.type == I1:
            targets = end.targets if condition.op == "ne" else end.targets[::-1]
            block.end = Terminator("branch", [inner], targets, end.span)
            return True
    if isinstance(condition, Inst) and condition.op == "zext":
        block.end = Terminator("branch", [condition.args[0]], end.targets, end.span)
        return True
    if isinstance(condition, Inst) and condition.op == "xor" and condition.type == I1 and _is_one(condition.args[1]):
        block.end = Terminator("branch", [condition.args[0]], end.targets[::-1], end.span)
        return True
    return False


def _is_zero(v: Value) -> bool:
    return isinstance(v, Const) and not v.imm & (1 << width_of(v)) - 1


def _is_one(v: Value) -> bool:
    return isinstance(v, Const) and v.imm & (1 << width_of(v)) - 1 == 1


def simplify(inst: Inst) -> Value | None:
    """Return what `inst` can be replaced by, or None; may turn `inst` itself into something simpler."""
    op = inst.op
    if op in BINARY or op in COMPARE:
        return _simplify_binary(inst)
    rule = _RULES.get(op)
    return rule(inst) if rule is not None else None


# Arithmetic and comparisons -----------------------------------------------------------------------------------------


def _simplify_binary(inst: Inst) -> Value | None:
    a, b = inst.args
    op = inst.op
    if isinstance(a, Const):
        if isinstance(b, Const):
            return Const(evaluate(op, a.imm, b.imm, width_of(a)), inst.type)
        if op in _SWAPPED:
            inst.op = op = _SWAPPED[op]
            inst.args = [b, a]
            a, b = b, a
    if a is b:
        return _of_equal(op, a, inst)
    if op in COMPARE:
        return _simplify_compare(inst)
    if op in _UNSIGNED and never_negative(a) and (op == "ashr" or never_negative(b)):
        inst.op = op = _UNSIGNED[op]
    if isinstance(b, Const):
        return _with_constant(inst, op, a, b)
    return None


def _of_equal(op: str, a: Value, inst: Inst) -> Value | None:
    """`x op x`."""
    if op in COMPARE:
        return Const(int(op in _TRUE_OF_EQUAL), I1)
    if op in ("sub", "xor"):
        return Const(0, inst.type)
    return a if op in ("and", "or") else None


def _with_constant(inst: Inst, op: str, a: Value, b: Const) -> Value | None:
    """`a op constant`."""
    width = width_of(inst)
    imm = b.imm & (1 << width) - 1
    if imm == 0 and op in ("add", "sub", "or", "xor", "shl", "lshr", "ashr"):
        return a
    if imm == 1 and op in ("mul", "udiv", "sdiv"):
        return a
    if imm == 0 and op in ("mul", "and"):
        return Const(0, inst.type)
    if op == "and" and imm & (1 << known_width(a)) - 1 == (1 << known_width(a)) - 1:
        return a
    if op == "lshr" and known_width(a) <= imm < width:
        return Const(0, inst.type)
    if op in ("udiv", "umod") and imm >> known_width(a):
        return Const(0, inst.type) if op == "udiv" else a
    power = imm.bit_length() - 1
    if imm and imm == 1 << power and power:
        if op in ("mul", "udiv"):
            inst.op, inst.args = ("shl" if op == "mul" else "lshr"), [a, Const(power, b.type)]
            return None
        if op == "umod":
            inst.op, inst.args = "and", [a, Const(imm - 1, b.type)]
            return None
    if op == "sub":
        inst.op, inst.args = "add", [a, Const(-imm & (1 << width) - 1, b.type)]
        return None
    return _reassociate(inst, op, a, imm, width)


def _reassociate(inst: Inst, op: str, a: Value, imm: int, width: int) -> Value | None:
    """`(x op c) op d`: one operation."""
    if not isinstance(a, Inst) or not isinstance(a.args[1] if len(a.args) == 2 else None, Const):
        return None
    x, c = a.args
    assert isinstance(c, Const)
    first, mask = c.imm & (1 << width) - 1, (1 << width) - 1
    if op == a.op and op in ("add", "mul", "and", "or", "xor"):
        inst.args = [x, Const(evaluate(op, first, imm, width), c.type)]
    elif op == a.op and op in ("shl", "lshr") and first + imm < width:
        inst.args = [x, Const(first + imm, c.type)]
    elif op == "lshr" and a.op == "shl" and first == imm < width:
        inst.op, inst.args = "and", [x, Const(mask >> imm, x.type)]
    elif op == "shl" and a.op == "lshr" and first == imm < width:
        inst.op, inst.args = "and", [x, Const(mask << imm & mask, x.type)]
    return None


def _simplify_compare(inst: Inst) -> Value | None:
    a, b = inst.args
    op = inst.op
    if not isinstance(b, Const):
        return _narrow_both(inst, a, b)
    width = width_of(a)
    imm = b.imm & (1 << width) - 1
    if a.type == I1 and op in ("eq", "ne"):
        if imm == (op == "ne"):
            return _opposite(inst, a)
        return a
    limit = known_width(a)
    if imm >> limit and (op[0] != "s" or limit < width):  # the constant is beyond what a can be
        negative = op[0] == "s" and imm >> width - 1
        return Const(int(op in (("sgt", "sge", "ne") if negative else ("ult", "ule", "slt", "sle", "ne"))), I1)
    if limit < width and op[0] == "s":
        inst.op = op = "u" + op[1:]
    if imm == 0 and op in ("ult", "uge"):
        return Const(int(op == "uge"), I1)
    if (imm == 0 and op in ("ugt", "ule")) or (imm == 1 and op in ("ult", "uge")):
        more = op in ("ugt", "uge")
        if width in (32, 64):  # older verifiers learn from `> 0` that a number is not 0, and from `!= 0` nothing
            inst.op = "ugt" if more else "ule"
        else:
            inst.op = "ne" if more else "eq"
        if imm:
            inst.args = [a, Const(0, b.type)]
        return None
    return _narrow_compare(inst, a, imm, width)


def _opposite(inst: Inst, a: Value) -> Value | None:
    """`a == 0` of a comparison is the opposite comparison."""
    if isinstance(a, Inst) and a.op in COMPARE:
        inst.op, inst.args = INVERSE[a.op], list(a.args)
    else:
        inst.op, inst.args = "xor", [a, Const(1, I1)]
    return None


def _narrow_compare(inst: Inst, a: Value, imm: int, width: int) -> Value | None:
    """Compare before an extension rather than after it."""
    if not isinstance(a, Inst) or a.op not in ("zext", "sext"):
        return None
    inner = a.args[0]
    narrow = width_of(inner)
    if a.op == "zext" and imm >> narrow == 0 and inst.op[0] != "s":
        inst.args = [inner, Const(imm, inner.type)]
    elif a.op == "sext" and narrow >= 32 and inst.op[0] != "u":
        number = imm - (1 << width) if imm >> width - 1 else imm
        if -(1 << narrow - 1) <= number < 1 << narrow - 1:
            inst.args = [inner, Const(number, inner.type)]
    return None


def _narrow_both(inst: Inst, a: Value, b: Value) -> Value | None:
    if not isinstance(a, Inst) or not isinstance(b, Inst) or a.op != b.op or a.op not in ("zext", "sext"):
        return None
    if (
        a.args[0].type == b.args[0].type
        and width_of(a.args[0]) >= 32
        and inst.op[0] != ("s" if a.op == "zext" else "u")
    ):
        inst.args = [a.args[0], b.args[0]]
    return None


# Conversions and addresses ------------------------------------------------------------------------------------------


def _simplify_extension(inst: Inst) -> Value | None:
    value = inst.args[0]
    width = width_of(value)
    if isinstance(value, Const):
        imm = value.imm & (1 << width) - 1
        if inst.op == "sext" and imm >> width - 1:
            imm -= 1 << width
        return Const(imm, inst.type)
    if not isinstance(value, Inst):
        return None
    if inst.op == "sext" and never_negative(value):
        inst.op = "zext"
    if value.op == inst.op or (value.op == "zext" and inst.op == "sext"):
        inst.op, inst.args = value.op, [value.args[0]]
    elif value.op == "trunc" and known_width(value.args[0]) <= width - (inst.op == "sext"):
        return _resized(inst, value.args[0])
    return None


def _resized(inst: Inst, source: Value) -> Value | None:
    """Make `inst` bring `source`, which is small enough for both, to its type."""
    if source.type == inst.type:
        return source
    inst.op, inst.args = ("zext" if width_of(source) < width_of(inst) else "trunc"), [source]
    return None


def _simplify_trunc(inst: Inst) -> Value | None:
    value = inst.args[0]
    if isinstance(value, Const):
        return Const(value.imm, inst.type)
    if isinstance(value, Inst) and value.op in ("zext", "sext", "trunc"):
        inner = value.args[0]
        if inner.type == inst.type:
            return inner
        inst.op = value.op if width_of(inner) < width_of(inst) else "trunc"
        inst.args = [inner]
    elif isinstance(value, Inst) and value.op == "and" and isinstance(value.args[1], Const):
        mask = (1 << width_of(inst)) - 1
        if value.args[1].imm & mask == mask:
            inst.args = [value.args[0]]
    return None


def _simplify_cast(inst: Inst) -> Value | None:
    value = inst.args[0]
    if isinstance(value, Const):
        return Const(value.imm, inst.type)
    if isinstance(value, Inst) and value.op == "cast":
        if value.args[0].type == inst.type:
            return value.args[0]
        inst.args = [value.args[0]]
    return None


def _simplify_ptradd(inst: Inst) -> Value | None:
    base, offset = inst.args
    if _is_zero(offset):
        return base
    if isinstance(offset, Const) and isinstance(base, Inst) and base.op == "ptradd":
        inner = base.args[1]
        if isinstance(inner, Const):
            inst.args = [base.args[0], Const(offset.imm + inner.imm)]
    return None


def _simplify_unary(inst: Inst) -> Value | None:
    value = inst.args[0]
    if isinstance(value, Const):
        width = width_of(value)
        imm = value.imm & (1 << width) - 1
        if inst.op == "neg":
            return Const(-imm & (1 << width) - 1, inst.type)
        return Const(int.from_bytes(imm.to_bytes(max(width // 8, 1), "little"), "big"), inst.type)
    if isinstance(value, Inst) and value.op == inst.op:
        return value.args[0]
    return None


def _simplify_bound(inst: Inst) -> Value | None:
    value = inst.args[0]
    if isinstance(value, Const):
        number = value.imm & (1 << width_of(value)) - 1
        mask = inst.imm
        clamped = number & mask if not inst.low and mask & mask + 1 == 0 else max(min(number, mask), inst.low)
        return Const(clamped, inst.type)
    return None


_RULES: dict[str, Callable[[Inst], "Value | None"]] = {
    "zext": _simplify_extension,
    "sext": _simplify_extension,
    "trunc": _simplify_trunc,
    "cast": _simplify_cast,
    "ptradd": _simplify_ptradd,
    "neg": _simplify_unary,
    "bswap": _simplify_unary,
    "bound": _simplify_bound,
}


# What operations mean -----------------------------------------------------------------------------------------------


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

"""Numbers: conversions between types, arithmetic, comparisons, pointer arithmetic."""

from __future__ import annotations

from ...compiler.access import scale
from ...compiler.ir import COMPARE, I1, I64, WIDTH, Const, is_pointer
from ...debuginfo.ctype import BOOL, INT32, INT64, UINT64, Array, Enum, Float, Int, Pointer, Struct, sizeof, strip
from .lower_frame import failure
from .values import Place, Scalar, Wide, ir_type, is_bool, is_signed, is_wide, join, leads, pointer_type, step_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...compiler.ir import Value
    from ...debuginfo.ctype import CType
    from ...errors import Span
    from .lower_frame import Frame
    from .values import Operand

_SIGNED = {"/": "sdiv", "%": "smod", ">>": "ashr", "<": "slt", "<=": "sle", ">": "sgt", ">=": "sge"}
_UNSIGNED = {"/": "udiv", "%": "umod", ">>": "lshr", "<": "ult", "<=": "ule", ">": "ugt", ">=": "uge"}
_PLAIN = {"+": "add", "-": "sub", "*": "mul", "&": "and", "|": "or", "^": "xor", "<<": "shl", "==": "eq", "!=": "ne"}
COMPARISONS = frozenset(["==", "!=", "<", "<=", ">", ">="])


def promoted(ctype: CType) -> CType:
    """Return the type that a value has in arithmetic: what is smaller than int becomes int; arrays become pointers."""
    ctype = strip(ctype)
    if isinstance(ctype, (Int, Enum)) and ctype.size < 4:
        return INT32
    if isinstance(ctype, Array):
        return Pointer(ctype.element)
    return ctype


# Conversions ------------------------------------------------------------------------------------------------------


def convert(f: Frame, operand: Operand, ctype: CType) -> Operand:
    """Bring a value to a type, as an assignment or a cast does."""
    ctype = strip(ctype)
    if isinstance(operand, Place) or isinstance(ctype, Struct):
        return operand
    if is_bool(ctype):
        return operand if is_bool(operand.ctype) else Scalar(flag(f, operand), BOOL)
    if is_wide(ctype):
        return widen(f, operand, ctype)
    if isinstance(operand, Wide):
        operand = Scalar(operand.low, UINT64)
    if isinstance(ctype, (Pointer, Array)):
        return to_pointer(f, operand, ctype)
    return Scalar(_number(f, operand, ctype), ctype, operand.space)


def _number(f: Frame, scalar: Scalar, ctype: CType) -> Value:
    value = f.as_number(scalar.value) if is_pointer(scalar.value.type) else scalar.value
    return f.resize(value, _extends_by_sign(scalar.ctype), ir_type(ctype))


def _extends_by_sign(ctype: CType) -> bool:
    return is_signed(ctype) and not is_bool(ctype)


def to_pointer(f: Frame, scalar: Scalar, ctype: CType) -> Scalar:
    """Make a pointer of a number, or of a pointer to another type."""
    value = scalar.value
    if scalar.space in ("register", "raw register"):
        from .entry import inner_pointer, is_registers

        if is_registers(ctype):
            return inner_pointer(f, ctype)
    if not is_pointer(value.type):
        value = f.resize(value, _extends_by_sign(scalar.ctype), I64)
    if isinstance(value, Const) and not value.imm:
        return Scalar(value, ctype, "null")
    space = leads(ctype, "" if scalar.space == "null" else scalar.space, f.program.external)
    return Scalar(value if value.type == pointer_type(space) else f.as_pointer(value, space), ctype, space)


def widen(f: Frame, operand: Operand, ctype: CType) -> Wide:
    """Make 128 bits of a number."""
    if isinstance(operand, Wide):
        return Wide(operand.low, operand.high, ctype)
    assert isinstance(operand, Scalar)
    low = wide_register(f, operand)
    if not _extends_by_sign(operand.ctype):
        return Wide(low, Const(0), ctype)
    if isinstance(low, Const):
        return Wide(low, Const(-1 if low.imm & 1 << 63 or low.imm < 0 else 0), ctype)
    return Wide(low, f.b.binary("ashr", low, 63), ctype)


def wide_register(f: Frame, operand: Operand) -> Value:
    """A number or an address in 64 bits, extended by its own sign; a pointer stays what it is."""
    if isinstance(operand, Wide):
        return operand.low
    assert isinstance(operand, Scalar)
    if is_pointer(operand.value.type):
        return operand.value
    return f.resize(operand.value, _extends_by_sign(operand.ctype), I64)


def number(f: Frame, operand: Operand, ctype: CType) -> Value:
    """A value in one register, as a number of `ctype`, or as a pointer."""
    converted = convert(f, operand, ctype)
    assert isinstance(converted, Scalar)
    return converted.value


def flag(f: Frame, operand: Operand) -> Value:
    """One bit: is this not 0?"""
    value = truth(f, operand)
    if isinstance(value, Const):
        return Const(int(bool(value.imm)), I1)
    return value if value.type == I1 else f.b.binary("ne", value, 0)


def truth(f: Frame, operand: Operand) -> Value:
    """Something to branch on: anything but 0 is true."""
    if isinstance(operand, Wide):
        return f.b.binary("or", operand.low, operand.high)
    assert isinstance(operand, Scalar)
    value = operand.value
    if isinstance(value, Const):
        width = WIDTH.get(value.type, 64)
        return Const(int(value.imm & (1 << width) - 1 != 0), I1)
    return f.b.binary("ne", value, 0) if is_pointer(value.type) else value


# Arithmetic -------------------------------------------------------------------------------------------------------


def arithmetic(f: Frame, op: str, left: Operand, right: Operand, common: CType, span: Span) -> Operand:
    """`left op right` of integers, in the type `common`; for comparisons too."""
    if isinstance(strip(common), Float):
        raise failure(span, "floating point: the kernel's machine has none", "count in integers, scaled")
    if is_wide(common):
        from .lower_int128 import arithmetic128

        return arithmetic128(f, op, widen(f, left, common), widen(f, right, common), common, span)
    name = _PLAIN.get(op) or (_SIGNED if is_signed(common) else _UNSIGNED)[op]
    a, b = number(f, left, common), number(f, right, common)
    value = compute(f, name, a, b, span)
    return Scalar(value, INT32 if name in COMPARE else common)


def shift(f: Frame, op: str, left: Operand, right: Operand, ctype: CType, span: Span) -> Operand:
    """`left << right`: the type is that of the left side alone."""
    if is_wide(ctype):
        from .lower_int128 import shift128

        count = number(f, right, UINT64)
        return shift128(f, op, widen(f, left, ctype), count, ctype)
    name = "shl" if op == "<<" else ("ashr" if is_signed(ctype) else "lshr")
    value = number(f, left, ctype)
    return Scalar(compute(f, name, value, number(f, right, ctype), span), ctype)


def compute(f: Frame, name: str, a: Value, b: Value, span: Span) -> Value:
    """One operation on two registers of one type."""
    if name in ("udiv", "umod", "sdiv", "smod") and isinstance(b, Const) and b.imm & (1 << WIDTH[b.type]) - 1 == 0:
        return Const(0, a.type) if name in ("udiv", "sdiv") else a  # as the machine has it; the analysis has warned
    return f.b.binary(name, a, b)


# Pointers ---------------------------------------------------------------------------------------------------------


def move_pointer(f: Frame, pointer: Scalar, count: Operand, sign: int = 1) -> Scalar:
    """`pointer + count` or, with `sign` -1, `pointer - count`; count is in elements."""
    distance = wide_register(f, count)
    if is_pointer(distance.type):
        distance = f.as_number(distance)
    distance = scale(f.b, distance, step_of(pointer.ctype))
    if sign < 0:
        distance = Const(-distance.imm) if isinstance(distance, Const) else f.b.unary("neg", distance)
    return Scalar(advance(f, pointer.value, distance), pointer.ctype, pointer.space)


def advance(f: Frame, pointer: Value, distance: Value) -> Value:
    """The address `distance` bytes further."""
    if isinstance(distance, Const):
        if not distance.imm:
            return pointer
        if isinstance(pointer, Const):
            return Const(pointer.imm + distance.imm, pointer.type)
    if is_pointer(pointer.type):
        return f.b.ptradd(pointer, distance)
    return f.b.binary("add", pointer, distance)


def pointer_difference(f: Frame, left: Scalar, right: Scalar) -> Operand:
    """`left - right`, in elements."""
    return elements_in(f, f.b.binary("sub", f.as_number(left.value), f.as_number(right.value)), left.ctype)


def elements_in(f: Frame, bytes_: Value, ctype: CType) -> Operand:
    """How many elements, of what the pointer type `ctype` leads to, a distance in bytes is."""
    step = step_of(ctype)
    if step == 1:
        return Scalar(bytes_, INT64)
    if step & step - 1 == 0:
        return Scalar(f.b.binary("ashr", bytes_, step.bit_length() - 1), INT64)
    return Scalar(f.b.binary("sdiv", bytes_, step), INT64)


def compare_pointers(f: Frame, op: str, left: Scalar, right: Scalar) -> Scalar:
    """Compare addresses; with the constant 0 it is the null check that the verifier wants to see."""
    a, b = address_register(f, left), address_register(f, right)
    if isinstance(a, Const) and not isinstance(b, Const):
        a = Const(a.imm, b.type)
    elif isinstance(b, Const):
        b = Const(b.imm, a.type)
    elif is_pointer(a.type) != is_pointer(b.type):
        a, b = f.as_number(a), f.as_number(b)
    name = _PLAIN.get(op) or _UNSIGNED[op]
    return Scalar(f.b.binary(name, a, b), INT32)


def address_register(f: Frame, scalar: Scalar) -> Value:
    """The register of a pointer, or of a number that is compared with one."""
    return scalar.value if is_pointer(scalar.value.type) else wide_register(f, scalar)


def fit(f: Frame, scalar: Scalar, ctype: CType, space: str) -> Value:
    """A pointer or number of `ctype` in the IR type that pointers to `space` have."""
    if not isinstance(strip(ctype), (Pointer, Array)):
        return number(f, scalar, ctype)
    value = scalar.value if is_pointer(scalar.value.type) else wide_register(f, scalar)
    type_ = pointer_type(space)
    return value if value.type == type_ else f.as_pointer(f.as_number(value), space)


def meet(a: Scalar, b: Scalar) -> str:
    """The space of a pointer that is one of two."""
    return join(a.space, b.space)


def size_of(ctype: CType) -> int:
    """`sizeof` as GNU C has it: 1 for void and functions."""
    return sizeof(ctype) or 1

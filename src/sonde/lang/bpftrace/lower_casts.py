"""Casts: numbers, pointers, arrays and strings taken for something else."""

from __future__ import annotations

from ...compiler.ir import I1, I64, INT_OF_BYTES, WIDTH, Const
from ...debuginfo.ctype import Array, Pointer, Struct, sizeof, strip
from . import ast
from .lower_expr import evaluate
from .lower_values import Memory, Scalar, Text, ir_type, is_scalar
from .stype import Str, Tuple, is_bool

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...debuginfo.ctype import CType
    from .lower_frame import Frame
    from .lower_values import Operand


# Casts ------------------------------------------------------------------------------------------------------------


def cast(f: Frame, node: ast.Cast) -> Operand:
    found = f.type(node)
    target = strip(found.ctype)
    operand = evaluate(f, node.operand)
    if isinstance(target, (Struct, Tuple)) or (isinstance(target, Str) and not isinstance(operand, Text)):
        if isinstance(operand, Memory) and (isinstance(target, Struct) or sizeof(operand.ctype) == sizeof(target)):
            return operand
        place = f.temp(target)
        f.put(operand, place)
        return place
    if isinstance(operand, Text):
        if is_bool(target):
            return Scalar(Const(int(bool(operand.data)), ir_type(target)), target)
        return Text(operand.data, target)
    if isinstance(target, Array):
        return _cast_to_array(f, operand, target)
    return _cast_to_number(f, node, operand, target)


def _cast_to_array(f: Frame, operand: Operand, target: Array) -> Operand:
    """A number becomes its bytes; an array or string of the same size stays what it is."""
    if isinstance(operand, Memory) and not is_scalar(operand.ctype):
        return Memory(operand.pointer, operand.offset, target, operand.space, leads=operand.leads)
    place = f.temp(target)
    scalar = f.scalar(operand)
    size = sizeof(target)
    value = scalar.value if size == sizeof(scalar.ctype) else f.wide(scalar)
    if size in (1, 2, 4, 8):
        f.store(place, f.resize(value, scalar.ctype, INT_OF_BYTES[size]))
    else:
        slot = f.b.alloca(8)
        f.b.store(slot, f.resize(value, scalar.ctype, I64))
        f.copy(place, Memory(slot, 0, target), size)
    return place


def _cast_to_number(f: Frame, node: ast.Cast, operand: Operand, target: CType) -> Operand:
    source = operand.ctype
    if isinstance(operand, Memory) and not is_scalar(source):
        if isinstance(target, Pointer):  # of an array: where it is
            return Scalar(f.raw_address(operand), target, operand.space)
        if is_bool(target):
            from .lower_branches import truth

            return Scalar(truth(f, node.operand), target)
        return f.load(Memory(operand.pointer, operand.offset, target, operand.space))
    scalar = f.scalar(operand)
    if is_bool(target):
        value = scalar.value
        return Scalar(value if value.type == I1 else f.b.binary("ne", value, 0), target)
    space = scalar.space if scalar.space == "btf" else f.type(node).space
    if isinstance(target, Pointer):
        value = scalar.value if scalar.space == "btf" else f.wide(scalar)
        return Scalar(value, target, space)
    if WIDTH.get(scalar.value.type, 64) == WIDTH[ir_type(target)]:
        return Scalar(scalar.value, target, space)
    return Scalar(f.number(scalar, target), target, space)

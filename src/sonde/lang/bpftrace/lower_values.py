"""Operands: what lowering an expression gives. A number in a register, something in memory, or a text not yet anywhere.

Memory is lazy: a field of a kernel struct is only read once somebody needs it, and then straight to where it is needed.
"""

from __future__ import annotations

from ...compiler.ir import I1, INT_OF_BYTES, Value
from ...debuginfo.ctype import CType, Enum, Float, Int, Pointer, sizeof, strip
from .stype import Aggregate, Buffer, Str, SType, Tuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Union

    from .lower_relocated import Route

    Operand = Union["Scalar", "Memory", "Text"]

OWN = ""  # address space of the program's own memory: stack, scratch, map values, ring buffer records
DIRECT = frozenset(["", "ctx", "btf"])  # spaces that load instructions reach


class Scalar:
    """A value in a register. `space` says where it leads as an address, as in `analysis.Type`."""

    __slots__ = ("ctype", "space", "value")

    def __init__(self, value: Value, ctype: CType, space: str = "") -> None:
        self.value = value
        self.ctype = strip(ctype)
        self.space = space


class Memory:
    """A value of type `ctype` that lies `offset` bytes behind `pointer`, to be read as `space` says.

    `pointer` is a typed pointer for own memory, the context and trusted pointers; a bare address (i64) for other spaces.
    `leads` is the space of the pointers inside.
    """

    __slots__ = ("bit_offset", "bit_width", "ctype", "leads", "offset", "pointer", "route", "space")

    def __init__(
        self,
        pointer: Value,
        offset: int,
        ctype: CType,
        space: str = OWN,
        *,
        leads: str = "",
        bit_offset: int = 0,
        bit_width: int = 0,
    ) -> None:
        self.pointer = pointer
        self.offset = offset
        self.ctype = strip(ctype)
        self.space = space
        self.leads = leads
        self.bit_offset = bit_offset  # of a bit-field, from the lowest bit of its bytes
        self.bit_width = bit_width
        self.route: Route | None = None  # how it was found in a kernel type that may be laid out in another way

    def part(self, offset: int, ctype: CType) -> Memory:
        """A piece of this memory."""
        return Memory(self.pointer, self.offset + offset, ctype, self.space, leads=self.leads)


class Text:
    """A string constant: bytes without the NUL."""

    __slots__ = ("ctype", "data")

    def __init__(self, data: bytes, ctype: CType) -> None:
        self.data = data
        self.ctype = strip(ctype)


def is_scalar(ctype: CType) -> bool:
    """Tell whether values of this type fit a register."""
    ctype = strip(ctype)
    if isinstance(ctype, (Int, Enum, Pointer)):
        return ctype.size in INT_OF_BYTES
    if isinstance(ctype, (Str, Buffer, Tuple, Aggregate)):
        return False
    return isinstance(ctype, (SType, Float)) and ctype.size in INT_OF_BYTES and ctype.align == ctype.size


def ir_type(ctype: CType) -> str:
    """Return the IR type of a scalar in memory. Pointers and addresses are i64."""
    return INT_OF_BYTES[sizeof(ctype)]


def is_flag(value: Value) -> bool:
    """Tell whether a value is the result of a comparison."""
    return value.type == I1

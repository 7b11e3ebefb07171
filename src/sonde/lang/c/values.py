"""Operands: what lowering an expression gives. A number in a register or in two, or something in memory that is read when needed.

A pointer's address space says how what it leads to may be read:

space     leads to                                                     read by
stack     a local variable                                             loads and stores
map       map values and global data                                   loads and stores
mem       ring buffer records, memory that a helper gave               loads and stores
own       one of the three above                                       loads and stores
ctx       the program's context                                        loads (some fields: stores)
texts     a global variable with pointers to texts in it (see `texts`)  loads
texts?    the same, where some are NULL                                loads
packet    packet data, within the bounds that the program checked      loads and stores
sock      a socket as helpers give it (UAPI layout)                    loads
btf       a kernel object that the verifier trusts                     loads
kernel    kernel memory                                                probe_read_kernel
user      user memory                                                  probe_read_user
any       an address that may be any of the last two, or own memory    probe_read
inner     the registers of a system call's caller, where the context is that of a tracepoint (see `entry`)   not as they are
clash     "texts" or something else: what lies there cannot be told    nothing
null      nowhere (a null pointer: it takes the space of what it meets)
register  what the first register of a system call's function holds: the address of the inner registers, or the first argument ("raw register": in a raw tracepoint)
slot      not known yet: an argument in the context of a tracing program, which is `btf` once it becomes a pointer to a struct
""        a number, no address
"""

from __future__ import annotations

from ...compiler.ir import BTF, CTX, I64, INT_OF_BYTES, MAP, MEM, PACKET, STACK
from ...debuginfo.ctype import Array, Enum, Int, Pointer, Qualified, Struct, Typedef, Void, sizeof, strip

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Union

    from ...compiler.ir import Value
    from ...debuginfo.ctype import CType

    Operand = Union["Scalar", "Wide", "Place"]

OWN = frozenset(["stack", "map", "mem", "own"])
DIRECT = OWN | {"texts", "texts?", "ctx", "packet", "sock", "btf", "inner"}
EXTERNAL = frozenset(["kernel", "user", "any"])
_IR_OF_SPACE = {
    "stack": STACK,
    "own": STACK,
    "map": MAP,
    "texts": MAP,
    "texts?": MAP,
    "mem": MEM,
    "sock": MEM,
    "ctx": CTX,
    "packet": PACKET,
    "btf": BTF,
}


class Scalar:
    """A value in a register: an integer of up to 64 bits, or a pointer that leads to `space`.

    `followed` is what to use in place of `value` where the pointer is followed at once, so that it cannot be NULL.
    """

    __slots__ = ("ctype", "followed", "space", "value")

    def __init__(self, value: Value, ctype: CType, space: str = "", followed: Value | None = None) -> None:
        self.followed = followed
        self.value = value
        self.ctype = strip(ctype)
        self.space = space


class Wide:
    """A 128-bit integer in two registers of 64 bits."""

    __slots__ = ("ctype", "high", "low")

    def __init__(self, low: Value, high: Value, ctype: CType) -> None:
        self.low = low
        self.high = high
        self.ctype = strip(ctype)


class Place:
    """Memory of type `ctype`, `offset` bytes behind `pointer`, which is a typed pointer in direct spaces and a bare address (i64) else.

    A bit-field lies `bit_offset` bits into the bytes of its type and is `bit_width` wide. `core` is the access whose value, on the target,
    is a part of the distance between `pointer` and the place (it is in `offset` as well, unless the object is to be relocatable).
    """

    __slots__ = ("bit_offset", "bit_width", "ctype", "offset", "pointer", "space", "volatile")

    def __init__(
        self,
        pointer: Value,
        offset: int,
        ctype: CType,
        space: str,
        *,
        bit_offset: int = 0,
        bit_width: int = 0,
    ) -> None:
        self.pointer = pointer
        self.offset = offset
        self.volatile = is_volatile(ctype)
        self.ctype = strip(ctype)
        self.space = space
        self.bit_offset = bit_offset
        self.bit_width = bit_width

    def part(self, offset: int, ctype: CType) -> Place:
        """A piece of this memory, `offset` bytes into it."""
        return Place(self.pointer, self.offset + offset, ctype, self.space)


# Types ------------------------------------------------------------------------------------------------------------


def is_volatile(ctype: CType) -> bool:
    """Tell whether a type is qualified `volatile`."""
    while isinstance(ctype, (Typedef, Qualified)):
        if isinstance(ctype, Qualified) and ctype.name == "volatile":
            return True
        ctype = ctype.target
    return False


def is_pointer(ctype: CType) -> bool:
    """Tell whether a type is a pointer, or an array, which becomes one."""
    return isinstance(strip(ctype), (Pointer, Array))


def is_aggregate(ctype: CType) -> bool:
    """Tell whether values of a type stay in memory: structs, unions, arrays."""
    return isinstance(strip(ctype), (Struct, Array))


def is_wide(ctype: CType) -> bool:
    """Tell whether a type is an integer of 128 bits."""
    ctype = strip(ctype)
    return isinstance(ctype, Int) and ctype.size == 16


def is_bool(ctype: CType) -> bool:
    """Tell whether a type is `_Bool`."""
    ctype = strip(ctype)
    return isinstance(ctype, Int) and ctype.encoding == "bool"


def is_signed(ctype: CType) -> bool:
    """Tell whether a type is a signed integer."""
    ctype = strip(ctype)
    return isinstance(ctype, (Int, Enum)) and ctype.signed


def pointed_type(ctype: CType) -> CType:
    """Return what a pointer leads to, or of what an array consists."""
    ctype = strip(ctype)
    assert isinstance(ctype, (Pointer, Array)), ctype
    return ctype.target


def step_of(ctype: CType) -> int:
    """Return by how many bytes adding 1 moves a pointer; as in GNU C, 1 for what has no size."""
    return sizeof(pointed_type(ctype)) or 1


def ir_type(ctype: CType, space: str = "") -> str:
    """Return the IR type of a scalar; a pointer's follows from its space."""
    ctype = strip(ctype)
    if isinstance(ctype, (Pointer, Array)):
        return pointer_type(space)
    return INT_OF_BYTES[ctype.size or 8]


def pointer_type(space: str) -> str:
    """Return the IR type of pointers to a space: bare addresses are i64."""
    return _IR_OF_SPACE.get(space, I64)


# Spaces -----------------------------------------------------------------------------------------------------------


def join(a: str, b: str) -> str:
    """Return the space of a pointer that may come from either of two."""
    if a == b or b in ("", "null"):
        return a
    if a in ("", "null"):
        return b
    if a.startswith("texts") or b.startswith("texts") or "clash" in (a, b):
        return "texts?" if a.startswith("texts") and b.startswith("texts") else "clash"
    if a in OWN and b in OWN:
        return "own"
    if {a, b} == {"btf", "kernel"}:
        return "kernel"
    return "any"


def leads(ctype: CType, space: str, external: str = "any") -> str:
    """Return where a pointer leads whose value is a number of `space`; `external` is what a mere number is."""
    if space in ("register", "raw register"):
        from .entry import is_registers

        return ("inner" if space == "register" else "kernel") if is_registers(ctype) else "user"
    if space == "slot":
        target = strip(pointed_type(ctype))
        pointer = strip(ctype)
        if isinstance(pointer, Pointer) and pointer.tag == "user":
            return "user"
        if isinstance(target, Void):
            return space
        return "btf" if isinstance(target, Struct) and target.name else "kernel"
    return space or external


def loaded_space(ctype: CType, space: str, external: str = "any") -> str:
    """Return where a pointer leads that was loaded from memory in `space`."""
    ctype = strip(ctype)
    if not isinstance(ctype, Pointer):
        return ""
    if ctype.tag == "user":
        return "user"
    if space in ("kernel", "user", "sock", "clash"):
        return space
    if space.startswith("texts"):
        return "map"
    if space == "btf":
        target = strip(ctype.target)
        trusted = isinstance(target, Struct) and bool(target.name) and ctype.tag in ("", "rcu")
        return "btf" if trusted else "kernel"
    return external if space == "ctx" else "any"

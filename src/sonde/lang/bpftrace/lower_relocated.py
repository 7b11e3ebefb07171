"""Kernel types in objects that go to other kernels: what depends on a type's layout becomes a question that is answered at load time.

A member is found by its path from the outermost struct with a name. Numbers are read in the size and with the sign that they have
on the target, as bit-fields too: a kernel may make one into the other. An object that stays here uses the layouts of its own target, and
says so (`Unit.fix`).
"""

from __future__ import annotations

from ...compiler.ir import I64, Const
from ...debuginfo.ctype import Array, Enum, Int, Struct, declare, strip
from ...record import Record, replace
from ...spec.object import CoreAccess
from . import ast
from .lower_expr import LAID_OUT
from .lower_values import DIRECT, Memory

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...compiler.builder import Builder
    from ...compiler.ir import Value
    from ...debuginfo.ctype import CType, Field
    from .lower_frame import Frame
    from .lower_memory import MemoryAccess


class Route(Record, eq=False):
    """How a place in a kernel type was reached: `path` from `struct`, which lies at `pointer`."""

    pointer: Value
    struct: Struct
    path: tuple[str | int, ...]

    def ask(self, b: Builder, kind: str) -> Value:
        """A question about the place, with the answer of the compiler's own target."""
        return ask(b, kind, self.struct, self.path)


def ask(b: Builder, kind: str, ctype: Struct | Enum, path: tuple[str | int, ...] = ()) -> Value:
    """A question about a type with a name."""
    from ...debuginfo.corerelo import local_answer

    keyword = ctype.kind if isinstance(ctype, Struct) else "enum"
    access = CoreAccess(kind, f"{keyword} {ctype.name}".rstrip(), path, 0, 0, ctype)
    return b.core(replace(access, value=local_answer(access)))


def member_route(b: Builder, base: Memory, struct: Struct, field: Field) -> Route | None:
    """The way to a member of a struct in memory; None when no struct with a name is on it."""
    names = tuple(m.name for m in field.path if m.name)
    if base.route is not None and base.ctype is struct:
        return Route(base.route.pointer, base.route.struct, (*base.route.path, *names))
    if not struct.name:
        return None
    return Route(b.ptradd(base.pointer, base.offset), struct, names)


def element_route(base: Memory, index: int) -> Route | None:
    """The way to an element of an array that lies in a kernel type."""
    if (
        base.route is None
        or not isinstance(base.ctype, Array)
        or index < 0
        or (base.ctype.count and index >= base.ctype.count)
    ):
        return None
    return Route(base.route.pointer, base.route.struct, (*base.route.path, index))


def at_route(b: Builder, route: Route, base: Memory, ctype: CType, leads: str) -> Memory:
    """The memory that a route leads to; it lies in the same address space as `base`."""
    found = Memory(b.ptradd(route.pointer, route.ask(b, "field_byte_offset")), 0, ctype, base.space, leads=leads)
    found.route = route
    return found


def element_size(b: Builder, base: Memory, element: CType) -> Value | None:
    """The size of what a pointer or array holds, where it depends on the kernel; None where it does not."""
    struct = strip(element)
    if base.route is not None and isinstance(base.ctype, Array):
        return ask(b, "field_byte_size", base.route.struct, (*base.route.path, 0))
    if isinstance(struct, Struct) and struct.type_id and struct.name:
        return ask(b, "type_size", struct)
    return None


def reads_as_bits(memory: Memory) -> bool:
    """Whether a number must be read in the size of the target. Direct loads are resized by themselves; elements of arrays never are."""
    route = memory.route
    if route is None or not isinstance(memory.ctype, (Int, Enum)) or isinstance(route.path[-1], int):
        return False
    return memory.bit_width > 0 or memory.space not in DIRECT


def load_bits(m: MemoryAccess, memory: Memory) -> Value:
    """Read a number of a kernel struct: the bytes that hold it, moved to the top of 64 bits and back down by its sign."""
    b, route = m.b, memory.route
    assert route is not None
    slot = b.alloca(8, 8, "read")
    b.store(slot, Const(0))
    place = Memory(memory.pointer, memory.offset, memory.ctype, "kernel" if memory.space in DIRECT else memory.space)
    m.read_into(slot, place, route.ask(b, "field_byte_size"))
    top = b.binary("shl", b.load(I64, slot), route.ask(b, "field_lshift_u64"))
    down = route.ask(b, "field_rshift_u64")
    signed, unsigned, done = b.new_block("signed"), b.new_block("unsigned"), b.new_block("bits", [I64])
    b.branch(b.binary("ne", route.ask(b, "field_signed"), 0), signed, unsigned)
    for block, shift in ((signed, "ashr"), (unsigned, "lshr")):
        b.at(block)
        b.jump(done, b.binary(shift, top, down))
    b.at(done)
    return done.params[0]


def constant(f: Frame, node: ast.Node) -> Value | None:
    """The number that sizeof, offsetof or the name of an enumerator stands for, where it is the kernel's; None where it is not."""
    if not f.unit.relocatable or not _depends(f, node):
        return None
    known = strip(f.operands[node])
    if not isinstance(known, (Enum, Struct)) or not (known.name or isinstance(known, Enum)):
        return None
    f.unit.asked.add(node)
    if isinstance(node, ast.Identifier):
        return ask(f.b, "enumval_value", known, (node.name,))
    if isinstance(node, ast.Offsetof):
        return ask(f.b, "field_byte_offset", known, node.path)
    return ask(f.b, "type_size", known)


def _depends(f: Frame, node: ast.Node) -> bool:
    """Whether a constant is the kernel's: the operand of an enumerator is its enumeration, if that is not the script's own."""
    known = strip(f.operands[node]) if node in f.operands else None
    return (
        isinstance(known, Enum) if isinstance(node, ast.Identifier) else isinstance(known, Struct) and known.type_id > 0
    )


def fix_constants(f: Frame) -> None:
    """Note the kernel's constants that went into a program as they are, by themselves or within a larger constant."""
    for node in f.operands:
        if isinstance(node, LAID_OUT) and node not in f.unit.asked and _depends(f, node):
            known = strip(f.operands[node])
            what = node.name if isinstance(node, ast.Identifier) else f"the layout of {declare(known)}"
            f.unit.fix(what)

"""Reaching into values: fields of structs and records, elements of arrays and tuples, what a pointer leads to.

The result is lazy memory in the address space of its base. Fields of kernel structs are found by CO-RE accesses, so that the
program also fits kernels that lay the struct out in another way.
"""

from __future__ import annotations

from ...compiler.access import scale
from ...compiler.ir import BTF, I64, Const
from ...debuginfo.ctype import INT8, UINT64, Array, Enum, Int, Pointer, Struct, bit_field_place, sizeof, strip
from . import ast
from .lower_expr import evaluate, in_memory
from .lower_values import Memory, Scalar, Text, is_scalar
from .stype import RecordType, Str, Tuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ...compiler.ir import Value
    from ...debuginfo.ctype import CType, Field
    from .analysis import FieldInfo
    from .lower_frame import Frame
    from .lower_values import Operand


def value_type(ctype: CType) -> CType:
    """Return the type that memory of a C type has as a value: arrays of char are strings."""
    from .typing_fields import value_type as found

    return found(ctype)


def _field(f: Frame, node: ast.FieldAccess) -> Operand:
    info = f.fields[node]
    if info.struct is None:
        return _record_field(f, node, info)
    base_type = f.ctype(node.operand)
    if f.space(node.operand) == "ctx" and base_type is f.probe.context.args and node.operand not in f.overrides:
        return argument(f, node, info)
    if info.struct is f.probe.context.args and f.probe.context.kind == "iter":
        return argument(f, node, info)
    base = evaluate(f, node.operand)
    memory = struct_memory(f, base, node.operand)
    return member(f, memory, info)


def struct_memory(f: Frame, base: Operand, node: ast.Node) -> Memory:
    """The struct that an operand is or leads to, through any number of pointers."""
    if isinstance(base, Memory) and isinstance(base.ctype, Struct):
        return base
    scalar = f.scalar(base)
    space = scalar.space or f.space(node)
    ctype = scalar.ctype
    while isinstance(ctype, Pointer):
        target = strip(ctype.target)
        memory = pointed(f, scalar, target, space)
        if not isinstance(target, Pointer):
            return memory
        scalar = f.load(memory)
        ctype = target
        space = memory.leads
    raise AssertionError(f"no struct behind {ctype!r}")


def pointed(f: Frame, pointer: Scalar, ctype: CType, space: str) -> Memory:
    """The memory that a pointer leads to."""
    if space == "own":
        return Memory(pointer.value, 0, ctype)
    if space == "ctx":
        return Memory(f.ctx, 0, ctype, "ctx", leads="kernel")
    if space == "btf" and pointer.value.type != BTF:
        space = "kernel"
    return Memory(pointer.value, 0, ctype, space or "any", leads=space or "any")


def member(f: Frame, base: Memory, info: FieldInfo) -> Operand:
    """A member of a struct in memory."""
    field = info.field
    assert field is not None and isinstance(info.struct, Struct)
    last = field.member
    ctype = value_type(last.ctype)
    if base.space not in ("", "ctx") and info.struct.type_id:
        found = _relocated(f, base, info.struct, field)
        if found is not None:
            return found
    offset = base.offset + field.offset
    bit_offset = bit_width = 0
    if last.width_bits:
        start, bit_offset = bit_field_place(field.offset_bits, last.width_bits, sizeof(ctype), info.struct.size)
        offset, bit_width = base.offset + start, last.width_bits
    if (
        isinstance(ctype, Str) and base.space == ""
    ):  # a copy of a struct: its strings may hold anything behind their end
        return Memory(f.raw_address(base.part(offset - base.offset, ctype)), 0, ctype, "kernel")
    leads = _leads(ctype, base)
    return Memory(base.pointer, offset, ctype, base.space, leads=leads, bit_offset=bit_offset, bit_width=bit_width)


def _relocated(f: Frame, base: Memory, struct: Struct, field: Field) -> Memory | None:
    """A member of a kernel struct, for an object that goes elsewhere. For one that stays, the compiler's target knows the offset."""
    if f.unit.relocatable:
        from .lower_relocated import at_route, member_route

        route = member_route(f.b, base, struct, field)
        if route is not None:
            ctype = value_type(field.member.ctype)
            found = at_route(f.b, route, base, ctype, _leads(ctype, base))
            found.bit_width = field.member.width_bits
            return found
    f.unit.fix(f"{struct.kind} {struct.name or '{...}'}.{field.member.name}")
    return None


def _leads(ctype: CType, base: Memory) -> str:
    """Where a pointer leads that lies in `base`."""
    if not isinstance(ctype, Pointer):
        return base.leads
    from .typing_fields import pointer_space

    if base.space == "btf":
        return "btf" if _is_trusted(ctype) else pointer_space(ctype, "kernel")
    return pointer_space(ctype, base.space or base.leads)


def _is_trusted(ctype: Pointer) -> bool:
    """Tell whether the verifier lets programs follow a pointer that was loaded from a trusted struct."""
    target = strip(ctype.target)
    return isinstance(target, Struct) and bool(target.name) and ctype.tag in ("", "rcu")


def _record_field(f: Frame, node: ast.Node, info: FieldInfo) -> Operand:
    operand = node.operand  # type: ignore[attr-defined]
    pair = f.pairs.get(f.probe.variables[operand]) if isinstance(operand, ast.Variable) and f.pairs else None
    if pair is not None:
        part = pair[info.index]
        return f.load(part) if is_scalar(part.ctype) else part
    base = evaluate(f, operand)
    assert isinstance(base, Memory) and isinstance(base.ctype, Tuple)
    ctype = base.ctype
    index = info.index
    if isinstance(ctype, RecordType) and isinstance(node, ast.FieldAccess):
        index = ctype.names.index(node.name)
    part = base.part(ctype.offsets[index], ctype.items[index])
    return f.load(part) if is_scalar(part.ctype) else part


# The arguments of a probe -----------------------------------------------------------------------------------------


def argument(f: Frame, node: ast.FieldAccess, info: FieldInfo) -> Operand:
    """`args.name`."""
    kind = f.probe.context.kind
    field = info.field
    assert field is not None
    ctype = value_type(field.member.ctype)
    if kind == "tracepoint":
        return _tracepoint_field(f, node, info, ctype)
    if kind == "tracing":
        return _tracing_argument(f, field.offset, ctype, f.type(node).space)
    place = Memory(f.ctx, field.offset, ctype, "ctx")
    if isinstance(ctype, Pointer) and kind == "iter":
        return iterated(f, field.offset, ctype)
    place.leads = f.type(node).space if isinstance(ctype, Pointer) else ""
    return f.load(place) if is_scalar(ctype) else place


def iterated(f: Frame, offset: int, ctype: CType) -> Scalar:
    """A pointer in the context of an iterator. The program has checked it at its start; the verifier knows that of the
    very register only.
    """
    pointer = f.facts.recall(("iterated", offset))
    return Scalar(pointer if pointer is not None else f.b.load(BTF, f.ctx, offset), ctype, "btf")


def _tracepoint_field(f: Frame, node: ast.FieldAccess, info: FieldInfo, ctype: CType) -> Operand:
    field = info.field
    assert field is not None
    for probe in f.probe.probes:
        event = f"{probe.spec.category}:{probe.spec.event}"
        f.unit.assume("tracepoint_field", f"{event}.{field.member.name}", field.offset, sizeof(field.member.ctype))
    if info.tracepoint is not None and info.tracepoint.dynamic:
        return _dynamic_field(f, field.offset, info.tracepoint.dynamic, f.type(node).space)
    place = Memory(f.ctx, field.offset, ctype, "ctx", leads=f.type(node).space)
    if field.member.width_bits:
        start, bit = bit_field_place(field.offset_bits, field.member.width_bits, sizeof(ctype), 1 << 16)
        place.offset, place.bit_offset, place.bit_width = start, bit, field.member.width_bits
    return f.load(place) if is_scalar(ctype) else place


def _dynamic_field(f: Frame, offset: int, kind: str, space: str) -> Scalar:
    """The address of data behind the record: its place stands in the low 16 bits of the field."""
    from ...compiler.ir import I32

    b = f.b
    word = b.convert("zext", b.load(I32, f.ctx, offset), I64)
    start = b.binary("and", word, 0xFFFF)
    base = b.ptradd(f.ctx, offset + 4) if kind == "rel_loc" else f.ctx
    address = b.convert("cast", b.ptradd(base, start), I64)
    return Scalar(address, UINT64, space or "kernel")


def _tracing_argument(f: Frame, offset: int, ctype: CType, space: str) -> Operand:
    """One slot of the array of arguments; what is narrower lies in its low bytes."""
    if isinstance(ctype, Pointer):
        target = strip(ctype.target)
        if isinstance(target, Struct) and space == "btf":
            return Scalar(f.b.load(BTF, f.ctx, offset), ctype, "btf")
        return Scalar(f.b.load(I64, f.ctx, offset), ctype, "kernel" if space == "btf" else space)
    if is_scalar(ctype):
        whole = f.b.load(I64, f.ctx, offset)
        return Scalar(f.resize(whole, UINT64, _ir(ctype)), ctype, space)
    return Memory(f.ctx, offset, ctype, "ctx")


def _ir(ctype: CType) -> str:
    from .lower_values import ir_type

    return ir_type(ctype)


def tracing_slot(f: Frame, offset: int, ctype: CType, space: str) -> Operand:
    """A slot of the context of fentry, fexit and typed raw tracepoints (`retval`)."""
    return _tracing_argument(f, offset, value_type(ctype), space)


# Elements ---------------------------------------------------------------------------------------------------------


def _index(f: Frame, node: ast.IndexAccess) -> Operand:
    info = f.fields.get(node)
    if info is not None and info.index >= 0:
        return _record_field(f, node, info)
    base = evaluate(f, node.operand)
    if isinstance(base, Text):
        base = in_memory(f, node.operand)
    if isinstance(base, Memory) and not is_scalar(base.ctype):
        ctype = base.ctype
        element = strip(ctype.element) if isinstance(ctype, Array) else INT8
        return _read(f, element_of(f, base, element, _count(ctype), node.index))
    scalar = f.scalar(base)
    assert isinstance(scalar.ctype, Pointer)
    memory = pointed(f, scalar, strip(scalar.ctype.target), scalar.space or f.space(node.operand))
    if memory.space == "btf":
        memory.space, memory.leads = "kernel", "kernel"
    return _read(f, element_of(f, memory, strip(scalar.ctype.target), 0, node.index))


def _count(ctype: CType) -> int:
    return ctype.count if isinstance(ctype, Array) else sizeof(ctype)


def _read(f: Frame, memory: Memory) -> Operand:
    """Own memory is read at once, as it may change; other memory when it is needed."""
    return f.load(memory) if memory.space == "" and is_scalar(memory.ctype) else memory


def element_of(f: Frame, base: Memory, element: CType, count: int, index: ast.Node) -> Memory:
    """Element `index` of an array in memory; `count` is 0 when nobody knows how many there are."""
    from .lower_expr import wide

    ctype = value_type(element)
    at = wide(f, index)
    leads = _leads(ctype, base)
    if f.unit.relocatable and isinstance(at, Const):
        from .lower_relocated import at_route, element_route

        route = element_route(base, at.imm)
        if route is not None:
            return at_route(f.b, route, base, ctype, leads)
    step = step_of(f, base, element)
    if isinstance(at, Const) and isinstance(step, Const):
        return Memory(base.pointer, base.offset + at.imm * step.imm, ctype, base.space, leads=leads)
    space = base.space
    if space == "" and count:
        at = f.b.bound(at, count - 1)
    elif space in ("ctx", "btf"):
        space = "kernel"
    pointer = base.pointer if space == "" else f.raw_address(base)
    offset = base.offset if space == "" else 0
    return Memory(
        f.b.ptradd(pointer, f.b.binary("mul", at, step) if not isinstance(step, Const) else scale(f.b, at, step.imm)),
        offset,
        ctype,
        space,
        leads=leads,
    )


def step_of(f: Frame, base: Memory, element: CType) -> Value:
    """The bytes from one element to the next."""
    if f.unit.relocatable and base.space not in ("", "ctx"):
        from .lower_relocated import element_size

        found = element_size(f.b, base, element)
        if found is not None:
            return found
    struct = strip(element)
    if isinstance(struct, Struct) and struct.type_id and base.space not in ("", "ctx"):
        f.unit.fix(f"the size of {struct.kind} {struct.name}")
    return Const(sizeof(element))


def _tuple_item(f: Frame, node: ast.TupleAccess) -> Operand:
    return _record_field(f, node, f.fields[node])


def dereference(f: Frame, node: ast.Unary) -> Operand:
    """`*p`; of a number: 8 bytes from there; of the context: the context."""
    operand = evaluate(f, node.operand)
    if isinstance(operand, Memory) and isinstance(operand.ctype, Struct):
        return operand
    scalar = f.scalar(operand)
    space = scalar.space or f.space(node.operand)
    if isinstance(scalar.ctype, Pointer):
        target = value_type(scalar.ctype.target)
        memory = pointed(f, scalar, target, space)
        memory.leads = _leads(target, memory)
        return _read(f, memory)
    if isinstance(scalar.ctype, (Int, Enum)):
        found = f.type(node)
        if space in ("btf", "ctx"):  # where the number was read: no address that the verifier knows
            space = "kernel"
        return Memory(f.wide(scalar), 0, UINT64, space or found.space or "any", leads=found.space)
    raise AssertionError(f"{scalar.ctype!r} leads nowhere")


ACCESS: dict[type, Callable[..., Operand]] = {
    ast.FieldAccess: _field,
    ast.IndexAccess: _index,
    ast.TupleAccess: _tuple_item,
}

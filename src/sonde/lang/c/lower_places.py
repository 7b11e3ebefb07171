"""Places: what may stand left of an assignment. Variables, members, elements, what pointers lead to; and reading them."""

from __future__ import annotations

from ...compiler.access import scale
from ...compiler.ir import Const
from ...debuginfo.ctype import Array, FuncProto, Pointer, Struct, bit_field_place, sizeof, strip
from ...spec.object import CoreAccess
from . import ast
from .analysis import EnumConstant, FunctionSymbol, Table, Variable
from .lower_frame import failure
from .lower_numbers import wide_register
from .values import DIRECT, EXTERNAL, Place, Scalar, leads, pointed_type

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ...compiler.ir import Value
    from ...debuginfo.ctype import CType
    from .analysis import Access
    from .lower_frame import Frame
    from .values import Operand


def place_of(f: Frame, node: ast.Node) -> Place:
    """Return the place that an expression names. Nothing is read but the pointers on the way."""
    rule = _PLACES.get(type(node))
    if rule is not None:
        return rule(f, node)
    from .lower_expressions import evaluate

    operand = evaluate(f, node)
    if isinstance(operand, Place):
        return operand
    raise failure(node.span, "this is a value, which has no address", "put it into a variable first")


def read(f: Frame, place: Place) -> Operand:
    """Return the value of a place: numbers are loaded, arrays become pointers, structs stay where they are."""
    if isinstance(place.ctype, Array):
        return decay(f, place)
    if isinstance(place.ctype, Struct):
        return place
    return f.load(place)


def decay(f: Frame, place: Place) -> Scalar:
    """The address of the first element of an array."""
    element = place.ctype.element if isinstance(place.ctype, Array) else place.ctype
    return Scalar(f.address(place), Pointer(element), place.space)


def pointed(f: Frame, pointer: Scalar, ctype: CType) -> Place:
    """The place that a pointer leads to."""
    space = leads(Pointer(ctype), "" if pointer.space == "null" else pointer.space, f.program.external)
    space = "kernel" if space == "slot" else space
    if space == "clash":
        assert f.b.span is not None
        message = "this pointer leads to a table of texts or to other memory, which are not read alike"
        raise failure(f.b.span, message, "use a pointer of its own for each")
    value = pointer.followed or pointer.value
    if value is not pointer.value:
        pointer = Scalar(value, pointer.ctype, pointer.space)
    if space in DIRECT:
        from .lower_numbers import fit

        return Place(fit(f, pointer, Pointer(ctype), space), 0, ctype, space)
    return Place(f.as_number(value) if not isinstance(value, Const) else Const(value.imm), 0, ctype, space)


# Names ------------------------------------------------------------------------------------------------------------


def _name(f: Frame, node: ast.Name) -> Place:
    symbol = f.program.analysis.symbols.get(node)
    if isinstance(symbol, Variable):
        return variable_place(f, symbol)
    if isinstance(symbol, Table):
        raise failure(
            node.span,
            f"table {symbol.name} is used as a variable",
            "call one of its methods, or pass its address to a helper",
        )
    raise failure(node.span, f"{node.name} has no address that a program could use")


def variable_place(f: Frame, variable: Variable) -> Place:
    """Where a variable lies; a local one gets its memory when it is first met."""
    known = f.variables.get(variable)
    if known is None:
        if variable.storage in ("auto", "param", "register"):
            known = f.variables[variable] = f.local(variable.ctype, variable.name)
        else:
            known = f.program.globals.place(f, variable)
    return known


def read_name(f: Frame, node: ast.Name) -> Operand:
    """The value of a name."""
    symbol = f.program.analysis.symbols.get(node)
    if isinstance(symbol, EnumConstant):
        from .values import ir_type

        return Scalar(Const(symbol.value, ir_type(symbol.ctype)), symbol.ctype)
    if isinstance(symbol, FunctionSymbol) and symbol.kfunc and not f.program.relocatable:
        there = (
            f.program.target.btf().get_func(symbol.kfunc) is not None
        )  # bpf_ksym_exists(): is there such a function?
        return Scalar(Const(int(there)), symbol.ctype)
    if isinstance(symbol, FunctionSymbol):
        raise failure(
            node.span,
            f"the address of function {symbol.name} as a value",
            "functions can be called, and handed to helpers that call back",
        )
    return read_variable(f, symbol) if isinstance(symbol, Variable) else read(f, _name(f, node))


def read_variable(f: Frame, symbol: Variable) -> Operand:
    """The value of a variable."""
    place = variable_place(f, symbol)
    if symbol in f.spaces.variables and not isinstance(place.ctype, (Array, Struct)):
        space = f.spaces.variables[symbol]
        if isinstance(place.ctype, Pointer):
            if symbol in f.walkers:
                from .walkers import read_walker

                return read_walker(f, symbol)
            space = leads(place.ctype, "" if space == "null" else space, f.program.external)
        return f.load(place, space)
    return read(f, place)


# Members, elements, pointers --------------------------------------------------------------------------------------


def _member(f: Frame, node: ast.Member) -> Place:
    access = f.program.analysis.accesses[node]
    if node.arrow:
        from .lower_expressions import evaluate

        pointer = evaluate(f, node.operand)
        assert isinstance(pointer, Scalar)
        base = pointed(f, pointer, access.struct)
    else:
        base = place_of(f, node.operand)
    if f.program.entry.context:
        from .entry import is_fiction, register_place

        if is_fiction(f.program, base, access):
            return register_place(f, base, access, f.type(node), node.span)
    return member_place(f, base, access, f.type(node))


def member_place(f: Frame, base: Place, access: Access, ctype: CType) -> Place:
    """A member of the struct at `base`."""
    field = access.field
    last = field.member
    offset = field.offset
    bit_offset = bit_width = 0
    if last.width_bits:
        start, bit_offset = bit_field_place(field.offset_bits, last.width_bits, sizeof(ctype), sizeof(access.struct))
        offset, bit_width = start, last.width_bits
    pointer, start = base.pointer, base.offset + offset
    if f.program.relocatable and not access.own and base.space in (*EXTERNAL, "btf") and not bit_width:
        pointer, start = _relocated(f, base, access)
    place = Place(pointer, start, ctype, base.space, bit_offset=bit_offset, bit_width=bit_width)
    place.volatile |= base.volatile
    return place


def _relocated(f: Frame, base: Place, access: Access) -> tuple[Value, int]:
    """Base and offset of a member of a kernel struct whose offset is looked up again where the object is loaded."""
    struct = access.struct
    if not isinstance(struct, Struct) or not struct.name:
        return base.pointer, base.offset + access.field.offset
    path = tuple(m.name for m in access.field.path if m.name)
    core = f.b.core(
        CoreAccess("field_byte_offset", f"{struct.kind} {struct.name}", path, access.field.offset, 0, struct)
    )
    start = f.address(base)
    return (f.b.ptradd(start, core) if base.space in DIRECT else f.b.binary("add", start, core)), 0


def _index(f: Frame, node: ast.Index) -> Place:
    from .lower_expressions import evaluate

    base_node, index_node = node.operand, node.index
    base_type = strip(f.type(base_node))
    if not isinstance(base_type, (Pointer, Array)):
        base_node, index_node = index_node, base_node
        base_type = strip(f.type(base_node))
    element = pointed_type(base_type)
    if isinstance(base_type, Array):
        base = place_of(f, base_node)
    else:
        pointer = evaluate(f, base_node)
        assert isinstance(pointer, Scalar)
        base = pointed(f, pointer, element)
    index = f.program.analysis.constants.get(index_node)
    if index is not None:
        return base.part(index * sizeof(element), element)
    from .lower_numbers import advance

    distance = scale(f.b, wide_register(f, evaluate(f, index_node)), sizeof(element))
    return Place(advance(f, base.pointer, distance), base.offset, element, base.space)


def _deref(f: Frame, node: ast.Unary) -> Place:
    from .lower_expressions import evaluate

    if node.op != "*":
        raise failure(node.span, "this is a value, which has no address")
    pointer = evaluate(f, node.operand)
    assert isinstance(pointer, Scalar)
    return pointed(f, pointer, f.type(node))


def _string(f: Frame, node: ast.String) -> Place:
    return f.program.globals.string(f, node.value)


def _literal(f: Frame, node: ast.CompoundLiteral) -> Place:
    from .lower_initialisers import fill

    place = f.local(f.type(node), "literal")
    fill(f, place, f.program.analysis.literals[node])
    return place


def _comma(f: Frame, node: ast.Comma) -> Place:
    from .lower_expressions import run

    run(f, node.left)
    return place_of(f, node.right)


_PLACES: dict[type, Callable[..., Place]] = {
    ast.Name: _name,
    ast.Member: _member,
    ast.Index: _index,
    ast.Unary: _deref,
    ast.String: _string,
    ast.CompoundLiteral: _literal,
    ast.Comma: _comma,
}


def is_function(ctype: CType) -> bool:
    """Tell whether a type is a function, or a pointer to one."""
    ctype = strip(ctype)
    return isinstance(ctype, FuncProto) or (isinstance(ctype, Pointer) and isinstance(strip(ctype.target), FuncProto))

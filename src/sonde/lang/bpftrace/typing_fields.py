"""Reaching into values: `a.b`, `a->b`, `a[i]`, `a.0`, `*a`. How the memory is read is inherited from the base.

A pointer field leads where its BTF tag says, or else where its base lies; struct pointers reached from a trusted pointer
are trusted too. Arrays of char are strings wherever a value is wanted.
"""

from __future__ import annotations

from ...debuginfo.ctype import (
    INT8,
    INT64,
    UINT64,
    Array,
    CType,
    Enum,
    Forward,
    Int,
    Pointer,
    Struct,
    sizeof,
    strip,
)
from . import ast
from .analysis import FieldInfo, Type
from .stype import RecordType, Str, Tuple, int_type, type_name
from .typing_state import CHECKS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...debuginfo.ctype import Field
    from .typing_state import Typer

_TAGS = {"user": "user", "percpu": "kernel", "rcu": ""}  # "": as the base


def value_type(ctype: CType) -> CType:
    """Return the type that memory of a C type has as a value: arrays of char are strings."""
    plain = strip(ctype)
    if isinstance(plain, Array) and plain.count and is_char(plain.element):
        return Str(plain.count)
    return plain


def is_char(ctype: CType) -> bool:
    """Tell whether this is C's plain `char`."""
    plain = strip(ctype)
    return isinstance(plain, Int) and plain.size == 1 and (plain.encoding == "char" or plain.name == "char")


def member_type(ctype: CType, space: str, leads: str = "") -> Type:
    """Return the type of what lies in memory of address space `space` as a member or element."""
    value = value_type(ctype)
    if isinstance(value, Pointer):
        return Type(value, pointer_space(value, leads if space in ("", "own") else space))
    if isinstance(value, (Struct, Array, Str, Forward)):
        return Type(value, space, leads)
    return Type(value, "" if space in ("", "ctx", "btf", "own") else space)


def pointer_space(pointer: Pointer, space: str) -> str:
    """Return where a pointer leads that lies in memory of address space `space`."""
    tagged = _TAGS.get(pointer.tag, "")
    if tagged:
        return tagged
    if space == "btf":
        return "btf" if isinstance(strip(pointer.target), Struct) else "kernel"
    return "kernel" if space == "ctx" else space


# Fields -----------------------------------------------------------------------------------------------------------


def visit_field(typer: Typer, node: ast.FieldAccess) -> Type | None:
    """`a.name` and `a->name`: both go through any number of pointers."""
    base = typer.visit(node.operand)
    if base is None:
        return None
    ctype = strip(base.ctype)
    if base.space == "ctx" and isinstance(ctype, Struct) and ctype is typer.probe.context.args:
        return argument_type(typer, node, ctype)
    while isinstance(ctype, Pointer):
        ctype = strip(ctype.target)
    if isinstance(ctype, RecordType):
        return _record_field(typer, node, ctype, base)
    if isinstance(ctype, Forward):
        typer.error(node, f"Unknown struct/union: '{type_name(ctype)}'")
        return None
    if not isinstance(ctype, Struct):
        typer.error(node, f"Can not access field '{node.name}' on expression of type '{type_name(ctype)}'")
        return None
    field = ctype.get_member(node.name)
    if field is None:
        _missing(typer, node, ctype, ctype.iter_names())
        return None
    typer.field(node, FieldInfo(ctype, field))
    return member_type(field.member.ctype, base.space, base.leads)


def _missing(typer: Typer, node: ast.FieldAccess, ctype: Struct, names: object) -> None:
    from difflib import get_close_matches

    close = get_close_matches(node.name, list(names), 1)  # type: ignore[call-overload]
    typer.error(
        node,
        f"Struct/union of type '{_struct_name(typer, ctype)}' does not contain a field named '{node.name}'",
        hint=f"did you mean {close[0]}?" if close else "",
    )


def _struct_name(typer: Typer, ctype: Struct) -> str:
    if ctype is typer.probe.context.args and typer.probe.probes:
        return f"struct {typer.probe.probes[0].name}_args"
    return type_name(ctype)


def _record_field(typer: Typer, node: ast.FieldAccess, ctype: RecordType, base: Type) -> Type | None:
    if node.name not in ctype.names:
        typer.error(node, f"Record does not contain a field named '{node.name}'")
        return None
    index = ctype.names.index(node.name)
    typer.field(node, FieldInfo(None, None, None, index))
    operand = node.operand
    if isinstance(operand, ast.RecordExpr) and operand.items[index] in typer.constants:
        typer.constant(node, typer.constants[operand.items[index]])
    config = typer.config_values.get(operand)
    if config is not None:
        typer.constant(node, config[index])
    return member_type(ctype.items[index], "", base.leads)


# The arguments of a probe -----------------------------------------------------------------------------------------


def argument_type(typer: Typer, node: ast.FieldAccess, ctype: Struct) -> Type | None:
    """`args.name`: a member of the context."""
    kind = typer.probe.context.kind
    field = ctype.get_member(node.name)
    if field is None:
        if kind == "tracing":
            typer.error(node, f"Can't find function parameter {node.name}", hint=_params_hint(ctype))
        else:
            _missing(typer, node, ctype, ctype.iter_names())
        return None
    if kind == "tracepoint":
        return _tracepoint_field(typer, node, ctype, field)
    index = field.offset // 8 if kind == "tracing" else -1
    typer.field(node, FieldInfo(ctype, field, None, index))
    value = value_type(field.member.ctype)
    if isinstance(value, Pointer):
        return Type(value, "kernel" if typer.probe.context.foreign else pointer_space(value, "btf"))
    if isinstance(value, (Struct, Array, Str)):
        return Type(value, "ctx")
    return Type(value)


def _params_hint(ctype: Struct) -> str:
    names = list(ctype.iter_names())
    return f"its parameters are {', '.join(names)}" if names else ""


def _tracepoint_field(typer: Typer, node: ast.FieldAccess, ctype: Struct, field: Field) -> Type | None:
    form = typer.probe.context.format
    info = form.get_field(node.name) if form is not None else None
    if field.offset < 8:
        typer.error(node, "BPF does not support accessing common tracepoint fields", CHECKS)
        return None
    typer.field(node, FieldInfo(ctype, field, info))
    space = "user" if form is not None and form.category == "syscalls" else "kernel"
    if info is not None and info.dynamic:
        return Type(INT64, "kernel")  # the address of the data, which lies behind the record
    value = value_type(field.member.ctype)
    if isinstance(value, Pointer):
        return Type(value, _TAGS.get(value.tag, "") or space)
    if isinstance(value, (Struct, Array, Str)):
        return Type(value, "ctx")
    if isinstance(value, Int) and info is not None and info.size in (1, 2, 4, 8) and value.encoding != "bool":
        value = int_type(info.size, info.signed)  # a system call's argument fills its slot, whatever its C type is
    return Type(value, space)


# Elements ---------------------------------------------------------------------------------------------------------


def visit_index(typer: Typer, node: ast.IndexAccess) -> Type | None:
    """`a[i]` of an array, a pointer, a string or a tuple."""
    from .typing_operators import literal_of

    base = typer.visit(node.operand)
    index = typer.visit(node.index)
    if base is None or index is None:
        return None
    ctype = strip(base.ctype)
    value = literal_of(typer, node.index)
    if type(ctype) is Tuple:
        return _tuple_item(typer, node, ctype, value, base)
    if not isinstance(ctype, (Array, Pointer, Str)):
        typer.error(
            node,
            f"The array index operator [] can only be used on arrays, pointers, and tuples, found {type_name(ctype)}.",
        )
        return None
    if isinstance(ctype, Pointer) and sizeof(ctype.target) == 0:
        message = "The array index operator [] cannot be used on a pointer to an unsized type (void *)."
        typer.error(node, message, CHECKS)
        return None
    if not _check_index(typer, node, ctype, index, value):
        return None
    if isinstance(ctype, Str):
        return Type(INT8)
    space = "kernel" if base.space == "btf" and isinstance(ctype, Pointer) else base.space
    found = member_type(ctype.target, space, base.leads)
    return Type(found.ctype, "kernel") if found.space == "btf" and isinstance(found.ctype, Pointer) else found


def _check_index(typer: Typer, node: ast.IndexAccess, ctype: CType, index: Type, value: object) -> bool:
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        count = ctype.count if isinstance(ctype, Array) else ctype.size if isinstance(ctype, Str) else 0
        if count and value >= count:
            typer.error(node, f"the index {value} is out of bounds for array of size {count}", CHECKS)
            return False
        return True
    plain = strip(index.ctype)
    if not isinstance(plain, (Int, Enum)) or (plain.signed and value is not None):
        typer.error(
            node,
            f"The array index operator [] only accepts non-negative integer indices. Got: {type_name(plain)}",
            CHECKS,
        )
        return False
    if plain.signed:
        typer.warn(node.index, "a negative index reads what lies before the array", hint="cast it to uint64")
    return True


def visit_tuple_access(typer: Typer, node: ast.TupleAccess) -> Type | None:
    """`a.0`."""
    base = typer.visit(node.operand)
    if base is None:
        return None
    ctype = strip(base.ctype)
    if type(ctype) is not Tuple:
        message = f"Can not access index '{node.index}' on expression of type '{type_name(ctype)}'"
        typer.error(node, message, CHECKS)
        return None
    return _tuple_item(typer, node, ctype, node.index, base)


def _tuple_item(
    typer: Typer, node: ast.TupleAccess | ast.IndexAccess, ctype: Tuple, index: object, base: Type
) -> Type | None:
    if not isinstance(index, int) or isinstance(index, bool) or not 0 <= index < len(ctype.items):
        message = f"Invalid tuple index: {index}. Found {len(ctype.items)} elements in tuple."
        typer.error(node, message, CHECKS)
        return None
    typer.field(node, FieldInfo(None, None, None, index))
    items = node.operand.items if isinstance(node.operand, ast.TupleExpr) else ()
    if items and items[index] in typer.constants:
        typer.constant(node, typer.constants[items[index]])
    return member_type(ctype.items[index], "", base.leads)


def dereference(typer: Typer, node: ast.Unary, found: Type) -> Type | None:
    """`*a`; `*args` is `args`."""
    ctype = strip(found.ctype)
    if isinstance(ctype, Pointer):
        target = strip(ctype.target)
        if sizeof(target) == 0 and not isinstance(target, (Struct, Array)):
            typer.error(node, f"Can not dereference type '{type_name(ctype)}'. It points to nothing with a size.")
            return None
        return member_type(target, found.space)
    if isinstance(ctype, Struct):
        if found.space == "ctx":
            return found
        message = f"Can not dereference struct/union of type '{type_name(ctype)}'. It is not a pointer."
        typer.error(node, message)
        return None
    if isinstance(ctype, (Int, Enum)):
        from .typing_variables import default_space

        return Type(UINT64, found.space or default_space(typer.kind))
    typer.error(node, f"The * operator can not be used on expressions of type '{type_name(ctype)}'")
    return None

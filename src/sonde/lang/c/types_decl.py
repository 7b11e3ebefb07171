"""Type syntax to C types: basic types, typedefs, structs with their layout, enumerations, declarators, typeof.

What the text defines goes before what the target defines. A tag that the text defines further below is a TextStruct without members until then.
"""

from __future__ import annotations

from ...debuginfo.ctype import (
    VOID,
    Array,
    CType,
    Enum,
    Float,
    Forward,
    FuncProto,
    Param,
    Pointer,
    Qualified,
    Struct,
    Typedef,
    Void,
    alignof,
    sizeof,
    strip,
)
from ...debuginfo.layout import MemberDecl, lay_out
from ...errors import CompileError, SondeError
from . import ast
from .analysis import EnumConstant, TextStruct
from .arithmetic import (
    INT,
    LONG,
    UINT,
    ULONG,
    compatible,
    fits,
    integer_of_words,
    is_integer,
    qualifiers,
    shown,
    underlying,
    unqualified,
)
from .checker import POISON, Silent
from .constants import constant_value, constant_variable
from .conversions import complete_object

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    from .checker import Checker

MAX_BYTES = 1 << 40
_MODES = {"QI": ("char",), "HI": ("short",), "SI": ("int",), "DI": ("long",), "TI": ("__int128",)}


# Attributes -------------------------------------------------------------------------------------------------------


def has_attribute(attributes: Iterable[ast.Attribute], name: str) -> bool:
    """Tell whether an attribute is there."""
    return any(a.name == name for a in attributes)


def attribute_text(attributes: Iterable[ast.Attribute], name: str) -> str:
    """Return the string argument of an attribute; the last one counts. "" without one."""
    found = ""
    for attribute in attributes:
        if attribute.name == name and attribute.args and isinstance(attribute.args[0], ast.String):
            found = attribute.args[0].value.decode("utf-8", "replace")
    return found


def alignment(ck: Checker, attributes: Iterable[ast.Attribute]) -> int:
    """Return the largest alignment (bytes) that `aligned` attributes ask for; 0 without one. Raises CompileError."""
    largest = 0
    for attribute in attributes:
        if attribute.name != "aligned":
            continue
        wanted = 16
        if attribute.args:
            arg = attribute.args[0]
            wanted = (
                alignof(type_name(ck, arg))
                if isinstance(arg, ast.TypeName)
                else constant_value(ck, arg, "an alignment")
            )
        if wanted < 0 or wanted & (wanted - 1) or wanted > 1 << 28:
            raise ck.fail(attribute, f"an alignment of {wanted} is not a power of two")
        largest = max(largest, wanted)
    return largest


# Specifiers -------------------------------------------------------------------------------------------------------


def base_type(ck: Checker, specifiers: ast.Specifiers) -> CType:
    """Return the type that specifiers name, qualified. Raises CompileError."""
    found = ck.bases.get(specifiers)
    if found is None:
        found = _SYNTAX[specifiers.type.__class__](ck, specifiers.type)
        for attribute in specifiers.attributes:
            if attribute.name == "mode":
                found = _with_mode(ck, attribute, found)
            elif attribute.name == "vector_size":
                raise ck.fail(attribute, "BPF has no vectors")
        for qualifier in specifiers.qualifiers:
            found = Qualified(qualifier, found)
        ck.bases[specifiers] = found
    return found


def _with_mode(ck: Checker, attribute: ast.Attribute, ctype: CType) -> CType:
    arg = attribute.args[0] if attribute.args else None
    words = _MODES.get(arg.name.strip("_")) if isinstance(arg, ast.Name) else None
    number = underlying(ctype)
    if words is None or number is None:
        raise ck.fail(attribute, "a mode that BPF has not")
    return integer_of_words(words if number.signed else ("unsigned", *words)) or ctype


def _basic_type(ck: Checker, node: ast.BasicType) -> CType:
    words = node.words
    number = integer_of_words(words)
    if number is not None:
        return number
    if words == ("void",):
        return VOID
    if "_Complex" in words:
        raise ck.fail(node, "BPF has no complex numbers")
    if words == ("__auto_type",):
        raise ck.fail(node, "'__auto_type' stands for the type of an initialiser only")
    return Float(
        " ".join(words), {"float": 4, "_Float32": 4, "_Float16": 2}.get(words[-1], 16 if "long" in words else 8)
    )


def _named_type(ck: Checker, node: ast.NamedType) -> CType:
    found = ck.scope.find(node.name)
    if found is None:
        found = ck.environment.get_typedef(node.name)
    if found is POISON:
        raise Silent
    if not isinstance(found, CType):
        close = ck.environment.close_types("typedef", node.name, _typedef_names(ck))
        raise ck.fail(node, f"unknown type name '{node.name}'", hint=did_you_mean(close))
    return found


def _typedef_names(ck: Checker) -> list[str]:
    return [n for n in ck.scope.iter_names() if isinstance(ck.scope.find(n), CType)]


def did_you_mean(close: list[str]) -> str:
    """Make a hint of close names; "" of none."""
    quoted = [f"'{name}'" for name in close]
    return f"did you mean {', '.join(quoted[:-1]) + ' or ' if quoted[1:] else ''}{quoted[-1]}?" if quoted else ""


def _typeof(ck: Checker, node: ast.TypeofType) -> CType:
    found = type_name(ck, node.operand) if isinstance(node.operand, ast.TypeName) else ck.expr(node.operand)
    return _unqualified_whole(found) if node.unqualified else found


def _unqualified_whole(ctype: CType) -> CType:
    """A type without qualifiers, of an array also without those of its elements."""
    plain = unqualified(ctype)
    inner = strip(plain)
    if isinstance(inner, Array) and qualifiers(inner.element):
        return Array(_unqualified_whole(inner.element), inner.count)
    return plain


def type_name(ck: Checker, node: ast.TypeName) -> CType:
    """Return the type of a type name. Raises CompileError."""
    found = ck.types.get(node)
    if found is None:
        found = ck.types[node] = declared_type(ck, base_type(ck, node.specifiers), node.declarator, node.specifiers)
    return found


# Declarators ------------------------------------------------------------------------------------------------------


def declared_type(
    ck: Checker, base: CType, declarator: ast.Declarator, specifiers: ast.Specifiers | None = None
) -> CType:
    """Return what a declarator makes of the type before it. `int a[]` is an array of 0. Raises CompileError."""
    ctype = base
    tag = attribute_text(specifiers.attributes, "btf_type_tag") if specifiers is not None else ""
    for derived in reversed(declarator.derived):
        if isinstance(derived, ast.PointerTo):
            ctype = Pointer(ctype, tag=tag)
            tag = attribute_text(derived.attributes, "btf_type_tag")
            for qualifier in derived.qualifiers:
                ctype = Qualified(qualifier, ctype)
        elif isinstance(derived, ast.ArrayOf):
            ctype = _array(ck, derived, ctype)
        else:
            ctype = _function(ck, derived, ctype)
    for attribute in declarator.attributes:
        if attribute.name == "mode":
            ctype = _with_mode(ck, attribute, ctype)
    return ctype


def _array(ck: Checker, node: ast.ArrayOf, element: CType) -> CType:
    if isinstance(strip(element), FuncProto):
        raise ck.fail(node, "an array of functions")
    complete_object(ck, node, element, "the element of an array")
    count = 0
    if node.size is not None:
        if _is_variable(ck, node.size):
            raise ck.fail(
                node.size,
                "BPF has no arrays of variable length",
                hint="give the array a constant size; a map holds what may grow",
            )
        count = constant_value(ck, node.size, "the size of an array")
        if count < 0 or count * max(sizeof(element), 1) > MAX_BYTES:
            raise ck.fail(node.size, f"an array cannot have {count} elements")
    return Array(element, count)


def _is_variable(ck: Checker, node: ast.Expr) -> bool:
    """Whether the size of an array is a number that is not known before the program runs."""
    return is_integer(ck.expr(node)) and node not in ck.constants and constant_variable(ck, node) is None


def _function(ck: Checker, node: ast.FunctionOf, result: CType) -> FuncProto:
    if isinstance(strip(result), (Array, FuncProto)):
        raise ck.fail(node, f"a function cannot return {shown(result)}")
    params = node.params
    if len(params) == 1 and not params[0].declarator.name and not params[0].declarator.derived:
        only = base_type(ck, params[0].specifiers)
        if isinstance(strip(only), Void):
            return FuncProto(result, (), node.variadic)
    ck.open_scope()  # a struct that only a prototype names lives in it
    try:
        made = tuple(Param(p.declarator.name, parameter_type(ck, p)) for p in params)
    finally:
        ck.close_scope()
    return FuncProto(result, made, node.variadic)


def parameter_type(ck: Checker, node: ast.ParamDecl) -> CType:
    """Return the type of a parameter: arrays and functions have become pointers. Raises CompileError."""
    found = ck.types.get(node.declarator)
    if found is None:
        found = declared_type(ck, base_type(ck, node.specifiers), node.declarator, node.specifiers)
        inner = strip(found)
        if isinstance(inner, Array):
            found = Pointer(inner.element)
        elif isinstance(inner, FuncProto):
            found = Pointer(found)
        elif isinstance(inner, Void):
            raise ck.fail(node, "a parameter cannot have type 'void'")
        ck.types[node.declarator] = found
    return found


# struct and union -------------------------------------------------------------------------------------------------


def _struct(ck: Checker, node: ast.StructType) -> CType:
    key = f"{node.kind} {node.name}"
    if node.members is None:
        return _tag_reference(ck, node, node.kind, node.name)
    struct = ck.scope.tags.get(key) if node.name else None
    if struct is None or not isinstance(struct, TextStruct):
        struct = TextStruct(node.kind, node.name, node.span)
        if node.name:
            ck.scope.tags[key] = struct
    elif struct.defined:
        note = ck.note(struct.span, "the previous definition is here")
        raise ck.fail(node, f"redefinition of '{key}'", notes=note)
    struct.span = node.span
    _define_struct(ck, node, struct)
    return struct


def _define_struct(ck: Checker, node: ast.StructType, struct: TextStruct) -> None:
    members: list[MemberDecl] = []
    for member in node.members or ():
        try:
            made = _member(ck, node, member)
        except (CompileError, Silent) as error:
            struct.broken = True
            if isinstance(error, CompileError):
                ck.report_all(error)
        else:
            members += [made] if made is not None else []
    _check_members(ck, node, members)
    packed = has_attribute(node.attributes, "packed")
    layout = lay_out(
        node.kind,
        node.name,
        members,
        packed=packed,
        aligned=alignment(ck, node.attributes),
        max_align=_pragma_pack(node.attributes),
        arch=ck.environment.target.arch,
    )
    if layout.size > MAX_BYTES:
        raise ck.fail(node, f"{node.kind} {node.name} is too large")
    struct.define(layout, _marks(node.attributes, packed))


def _pragma_pack(attributes: tuple[ast.Attribute, ...]) -> int:
    """What `#pragma pack` says where a struct is defined, in bytes; 0 for nothing."""
    for attribute in attributes:
        if attribute.name == "pragma_pack" and isinstance(attribute.args[0], ast.Number):
            return attribute.args[0].value
    return 0


def _marks(attributes: tuple[ast.Attribute, ...], packed: bool) -> frozenset[str]:
    marks = {"packed"} if packed else set()
    if has_attribute(attributes, "preserve_access_index"):
        marks.add("preserve_access_index")
    if attribute_text(attributes, "deprecated") == "packet":
        marks.add("packet")
    return frozenset(marks)


def _member(ck: Checker, struct: ast.StructType, node: ast.MemberDecl) -> MemberDecl | None:
    """Return a member before it has a place; None for a declaration that declares none."""
    base = base_type(ck, node.specifiers)
    attributes = (*node.specifiers.attributes, *node.attributes)
    if node.declarator is None:
        ctype, name = base, ""
        if node.width is None and not (isinstance(strip(base), (Struct, Forward)) and not strip(base).name):
            if isinstance(node.specifiers.type, (ast.StructType, ast.EnumType)):
                return None  # `struct s { … };` inside another one defines a type only
            raise ck.fail(node, f"a member of {struct.kind} '{struct.name}' without a name")
    else:
        ctype, name = declared_type(ck, base, node.declarator, node.specifiers), node.declarator.name
        attributes += node.declarator.attributes
    if isinstance(strip(ctype), FuncProto):
        raise ck.fail(node, f"member '{name}' is declared as a function")
    flexible = isinstance(strip(ctype), Array) and sizeof(ctype) == 0
    if not flexible:
        complete_object(ck, node, ctype, f"member '{name}'")
    width = -1 if node.width is None else _width(ck, node.width, ctype, name)
    own = ck.alignments.get(ctype, 0)  # a typedef's alignment may also be less than that of its type
    aligned = max(alignment(ck, attributes), own)
    return MemberDecl(name, ctype, width, aligned, own > 0 or has_attribute(attributes, "packed"))


def _width(ck: Checker, node: ast.Expr, ctype: CType, name: str) -> int:
    number = underlying(ctype)
    if number is None:
        raise ck.fail(node, f"bit-field '{name}' has type {shown(ctype)}, which is no integer")
    width = constant_value(ck, node, "the width of a bit-field")
    limit = 1 if number.encoding == "bool" else 8 * number.size
    if width < 0 or width > limit:
        raise ck.fail(node, f"the width of bit-field '{name}' ({width} bits) exceeds its type ({limit} bits)")
    if width == 0 and name:
        raise ck.fail(node, f"bit-field '{name}' has no width")
    return width


def _check_members(ck: Checker, node: ast.StructType, members: list[MemberDecl]) -> None:
    seen: set[str] = set()
    for member in members:
        inner = strip(member.ctype)
        names = [member.name] if member.name else list(inner.iter_names()) if isinstance(inner, Struct) else []
        for name in names:
            if name in seen:
                raise ck.fail(node, f"duplicate member '{name}' in {node.kind} '{node.name}'")
            seen.add(name)


def _tag_reference(ck: Checker, node: ast.Node, kind: str, name: str) -> CType:
    """Return the type of a tag: of the text, else of the target, else one that is not defined."""
    key = f"{kind} {name}"
    found = ck.scope.find_tag(key)
    if found is not None:
        return found
    if key in ck.text_tags:
        found = TextStruct(kind, name, node.span)
    else:
        try:
            found = ck.environment.get_tag(kind, name)
        except SondeError as error:
            raise ck.fail(node, error.message, hint=error.hint) from None
        if found is None:
            found = TextStruct(kind, name, node.span) if kind != "enum" else Forward(kind, name)
    ck.file_scope.tags[key] = found
    return found


# enum -------------------------------------------------------------------------------------------------------------


def _enum(ck: Checker, node: ast.EnumType) -> CType:
    if node.enumerators is None:
        return _tag_reference(ck, node, "enum", node.name)
    key = f"enum {node.name}"
    if node.name and isinstance(ck.scope.tags.get(key), Enum) and key in ck.scope.spans:
        note = ck.note(ck.scope.spans[key], "the previous definition is here")
        raise ck.fail(node, f"redefinition of '{key}'", notes=note)
    values = _enumerators(ck, node)
    enum = _make_enum(node, values)
    if node.name:
        ck.scope.tags[key] = enum
        ck.scope.spans[key] = node.span
    small = all(fits(v, INT) for v in values.values())
    for name in values:
        ck.scope.names[name] = EnumConstant(name, values[name], INT if small else underlying(enum) or INT)
    return enum


def _enumerators(ck: Checker, node: ast.EnumType) -> dict[str, int]:
    values: dict[str, int] = {}
    following = 0
    for enumerator in node.enumerators or ():
        name = enumerator.name
        if name in ck.scope.names:
            raise ck.fail(enumerator, f"redefinition of '{name}'", notes=ck.previous(name))
        value = following
        if enumerator.value is not None:
            value = constant_value(ck, enumerator.value, f"the value of '{name}'")
        values[name] = value
        ctype = INT if fits(value, INT) else UINT if fits(value, UINT) else LONG if fits(value, LONG) else ULONG
        ck.declare(name, EnumConstant(name, value, ctype), enumerator.span)
        following = value + 1
    return values


def _make_enum(node: ast.EnumType, values: dict[str, int]) -> Enum:
    """The enumeration with the smallest type that its values, and its attributes, ask for: 4 bytes or 8, fewer if packed."""
    low, high = min(values.values(), default=0), max(values.values(), default=0)
    signed = low < 0
    sizes = (1, 2, 4) if has_attribute(node.attributes, "packed") else (4,)
    for size in sizes:
        bits = 8 * size - signed
        if high >> bits == 0 and low >= -1 << bits:
            return Enum(node.name, size, signed, values)
    return Enum(node.name, 8, signed, values)


# typedef ----------------------------------------------------------------------------------------------------------


def declare_typedef(ck: Checker, node: ast.Declarator, ctype: CType, attributes: tuple[ast.Attribute, ...]) -> None:
    """Declare a typedef name in the current scope. Raises CompileError when it meant something else there."""
    previous = ck.scope.names.get(node.name)
    if previous is not None and previous is not POISON:
        if not isinstance(previous, CType):
            raise ck.fail(
                node, f"redefinition of '{node.name}' as another kind of symbol", notes=ck.previous(node.name)
            )
        if not compatible(previous, ctype):
            words = f"typedef redefinition with different types: {shown(ctype)} after {shown(strip(previous))}"
            raise ck.fail(node, words, notes=ck.previous(node.name))
        return
    made = Typedef(node.name, ctype)
    aligned = alignment(ck, attributes)
    if aligned:
        ck.alignments[made] = aligned
    ck.declare(node.name, made, node.span)


_SYNTAX: dict[type, Callable[[Checker, Any], CType]] = {
    ast.BasicType: _basic_type,
    ast.NamedType: _named_type,
    ast.StructType: _struct,
    ast.EnumType: _enum,
    ast.TypeofType: _typeof,
}

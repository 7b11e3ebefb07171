"""C types to layouts: what a value of a C type looks like to a reader of an event, a key or a map value."""

from __future__ import annotations

from ..debuginfo.ctype import Array, Enum, Float, Int, Pointer, Struct, bit_field_place, sizeof, strip
from .layout import Layout, LayoutField

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ..debuginfo.ctype import CType, Member

    LayoutOf = Callable[[CType], Layout]


def layout_of(ctype: CType, inner: LayoutOf | None = None) -> Layout:
    """Return the layout of a C type; `inner` gives those of members and elements. Raises KeyError for what is no C type of data.

    An array of char is a string; void is nothing; an integer of a size that no register has is raw bytes.
    """
    ctype = strip(ctype)
    maker = _MAKERS.get(type(ctype))
    return maker(ctype, inner or layout_of) if maker is not None else _other(ctype, inner or layout_of)


def _other(ctype: CType, inner: LayoutOf) -> Layout:
    """The layout of a type that a front end has derived from one of ours, or of none of them."""
    for base, maker in _MAKERS.items():
        if isinstance(ctype, base):
            return maker(ctype, inner)
    return Layout("raw", ctype.size) if ctype.size else Layout("none", 0)


def _integer(ctype: Int, inner: LayoutOf) -> Layout:
    if ctype.encoding == "bool":
        return Layout("bool", ctype.size)
    if ctype.size > 8:
        return Layout("raw", ctype.size)
    return Layout("int", ctype.size, ctype.signed)


def _enum(ctype: Enum, inner: LayoutOf) -> Layout:
    names = tuple((number, name) for name, number in ctype.values.items())
    return Layout("enum", ctype.size, ctype.signed, name=ctype.name, params=(("names", names),))


def _array(ctype: Array, inner: LayoutOf) -> Layout:
    element = strip(ctype.element)
    size = sizeof(ctype)
    if isinstance(element, Int) and element.encoding == "char" and ctype.count:
        return Layout("string", size)
    return Layout("array", size, element=inner(element), count=ctype.count)


def _struct(ctype: Struct, inner: LayoutOf) -> Layout:
    layout = Layout("struct", ctype.size, name=ctype.name)
    layout.fields = tuple(_member(m, ctype.size, inner) for m in ctype.members)  # type: ignore[misc]
    return layout


def _member(member: Member, size: int, inner: LayoutOf) -> LayoutField:
    layout = inner(member.ctype)
    if not member.width_bits:
        return LayoutField(member.name, member.offset, layout)
    offset, bit = bit_field_place(member.offset_bits, member.width_bits, layout.size, size)
    return LayoutField(member.name, offset, layout, bit, member.width_bits)


_MAKERS: dict[type, Callable[..., Layout]] = {
    Int: _integer,
    Enum: _enum,
    Float: lambda ctype, inner: Layout("raw", ctype.size),
    Pointer: lambda ctype, inner: Layout("pointer", 8),
    Array: _array,
    Struct: _struct,
}

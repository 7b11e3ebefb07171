"""The C type model: what BTF, DWARF, tracefs formats and C source are all decoded into.

Types are compared by identity or by `same_type`; they may be recursive (a struct holds a pointer to itself), so every
reference to another type may be a thunk that is resolved on first use. Sizes and offsets are bytes unless
a name ends in `_bits`. The layout is that of the target of the type source, never computed from the host.
"""

from __future__ import annotations

from ..errors import FormatError
from ..record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Union

    TypeRef = Union["CType", Callable[[], "CType"]]
    MembersRef = Union["tuple[Member, ...]", Callable[[], "tuple[Member, ...]"]]


class CType:
    """Base of all C types. `size` is in bytes; 0 for void, functions, forward declarations, flexible arrays."""

    __slots__ = ("name", "size")

    def __init__(self, name: str, size: int) -> None:
        self.name = name
        self.size = size

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {declare(self)}>"

    @property
    def align(self) -> int:
        """Natural alignment in bytes (1 at least)."""
        return max(self.size, 1) if self.size in (1, 2, 4, 8, 16) else 1


class Void(CType):
    """`void`."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__("void", 0)


class Int(CType):
    """An integer, `char` or `bool`. `encoding` is "int", "char" or "bool"."""

    __slots__ = ("encoding", "signed")

    def __init__(self, name: str, size: int, signed: bool, encoding: str = "int") -> None:
        super().__init__(name, size)
        self.signed = signed
        self.encoding = encoding


class Float(CType):
    """`float`, `double`, `long double`: only their size matters here."""

    __slots__ = ()


class _Ref(CType):
    """A type that refers to one other type, perhaps not decoded yet."""

    __slots__ = ("_target",)

    def __init__(self, name: str, size: int, target: TypeRef) -> None:
        super().__init__(name, size)
        self._target = target

    @property
    def target(self) -> CType:
        """The type referred to; decoded on first use."""
        if not isinstance(self._target, CType):
            self._target = self._target()
        return self._target


class Pointer(_Ref):
    """A pointer. `tag` is a BTF type tag such as "user", "percpu", "rcu", or ""."""

    __slots__ = ("_tag",)

    def __init__(self, target: TypeRef, size: int = 8, tag: str | Callable[[], str] = "") -> None:
        super().__init__("", size, target)
        self._tag = tag

    @property
    def tag(self) -> str:
        """The tag; read from the type source on first use."""
        if not isinstance(self._tag, str):
            self._tag = self._tag()
        return self._tag


class Array(_Ref):
    """`target name[count]`; a flexible array member has count 0. A matrix is an array of arrays."""

    __slots__ = ("count",)

    def __init__(self, target: TypeRef, count: int) -> None:
        super().__init__("", 0, target)
        self.count = count

    @property
    def element(self) -> CType:
        """The element type."""
        return self.target

    @property
    def align(self) -> int:
        return _align_of(self, 0)


class Qualified(_Ref):
    """`const`, `volatile`, `restrict` or a BTF type tag (in `name`) around another type."""

    __slots__ = ()

    def __init__(self, qualifier: str, target: TypeRef) -> None:
        super().__init__(qualifier, 0, target)


class Typedef(_Ref):
    """A named alias."""

    __slots__ = ()

    def __init__(self, name: str, target: TypeRef) -> None:
        super().__init__(name, 0, target)


class Member(Record, eq=False):
    """One member of a struct or union. An anonymous struct or union member has the name ""."""

    name: str
    ctype: CType
    offset_bits: int
    width_bits: int = 0  # of a bit-field; 0: not a bit-field

    @property
    def offset(self) -> int:
        """Offset in bytes (of a bit-field: of the byte in which it starts)."""
        return self.offset_bits >> 3


class Struct(CType):
    """A struct or a union (`kind`). Its members are decoded on first use. `align` 0: to be concluded from the members."""

    __slots__ = ("_align", "_members", "kind", "type_id")

    def __init__(
        self, kind: str, name: str, size: int, members: MembersRef, type_id: int = 0, *, align: int = 0
    ) -> None:
        super().__init__(name, size)
        self._align = align
        self.kind = kind
        self._members = members
        self.type_id = type_id

    @property
    def members(self) -> tuple[Member, ...]:
        """The members in the order of their declaration."""
        if not isinstance(self._members, tuple):
            self._members = self._members()
        return self._members

    @property
    def align(self) -> int:
        return _align_of(self, 0)

    def get_member(self, name: str) -> Field | None:
        """Find a member by name, also inside anonymous structs and unions; None when there is none."""
        return self._find_member(name, set())

    def _find_member(self, name: str, seen: set[Struct]) -> Field | None:
        for member in self.members:
            if member.name == name:
                return Field((member,), member.offset_bits)
        for member, inner in self._iter_anonymous(seen):
            found = inner._find_member(name, seen)
            if found:
                return Field((member, *found.path), member.offset_bits + found.offset_bits)
        return None

    def _iter_anonymous(self, seen: set[Struct]) -> Iterator[tuple[Member, Struct]]:
        """Yield the anonymous structs and unions in this one, each of them once in a whole search."""
        seen.add(self)
        for member in self.members:
            inner = None if member.name else strip(member.ctype)
            if isinstance(inner, Struct) and inner not in seen:
                if len(seen) > _ANONYMOUS_LIMIT:
                    raise FormatError(f"{self.kind} {self.name} holds anonymous members without end")
                yield member, inner

    def iter_names(self) -> Iterator[str]:
        """Yield every name that `get_member` finds, in order of declaration."""
        return iter(self._collect_names(set()))

    def _collect_names(self, seen: set[Struct]) -> list[str]:
        inner = dict(self._iter_anonymous(seen))
        names: list[str] = []
        for member in self.members:
            if member.name:
                names.append(member.name)
            elif member in inner:
                names += inner[member]._collect_names(seen)
        return names


class Field(Record, eq=False):
    """A member found by name: the path of members to it through anonymous ones, and its offset from the outermost."""

    path: tuple[Member, ...]
    offset_bits: int

    @property
    def member(self) -> Member:
        """The member that carries the name."""
        return self.path[-1]

    @property
    def offset(self) -> int:
        """Offset in bytes from the start of the outermost struct."""
        return self.offset_bits >> 3


class Enum(CType):
    """An enumeration; `values` maps each name to its number."""

    __slots__ = ("signed", "values")

    def __init__(self, name: str, size: int, signed: bool, values: dict[str, int]) -> None:
        super().__init__(name, size)
        self.signed = signed
        self.values = values

    def find_names(self, number: int) -> list[str]:
        """Return every name of `number`, in order of declaration."""
        return [n for n, v in self.values.items() if v == number]


class Param(Record, eq=False):
    """One parameter of a function prototype; the name may be ""."""

    name: str
    ctype: CType


class FuncProto(CType):
    """A function type."""

    __slots__ = ("_params", "_result", "variadic")

    def __init__(
        self, result: TypeRef, params: tuple[Param, ...] | Callable[[], tuple[Param, ...]], variadic: bool = False
    ) -> None:
        super().__init__("", 0)
        self._result = result
        self._params = params
        self.variadic = variadic

    @property
    def result(self) -> CType:
        """The type of the returned value."""
        if not isinstance(self._result, CType):
            self._result = self._result()
        return self._result

    @property
    def params(self) -> tuple[Param, ...]:
        """The parameters in order."""
        if not isinstance(self._params, tuple):
            self._params = self._params()
        return self._params


class Forward(CType):
    """A struct, union or enum that is declared but not defined."""

    __slots__ = ("kind",)

    def __init__(self, kind: str, name: str) -> None:
        super().__init__(name, 0)
        self.kind = kind


VOID = Void()
BOOL = Int("bool", 1, False, "bool")
CHAR = Int("char", 1, True, "char")
INT8, UINT8 = Int("int8", 1, True), Int("uint8", 1, False)
INT16, UINT16 = Int("int16", 2, True), Int("uint16", 2, False)
INT32, UINT32 = Int("int32", 4, True), Int("uint32", 4, False)
INT64, UINT64 = Int("int64", 8, True), Int("uint64", 8, False)

_DEPTH_LIMIT = 64  # a chain of typedefs, qualifiers or arrays longer than this is a loop in corrupt debug information
_ANONYMOUS_LIMIT = 256  # anonymous members in one struct, nested ones included
_DECLARE_LIMIT = 256  # types in one declaration


def strip(ctype: CType) -> CType:
    """Return the type below typedefs and qualifiers. Raises FormatError when they form a loop."""
    for _ in range(_DEPTH_LIMIT):
        if not isinstance(ctype, (Typedef, Qualified)):
            return ctype
        ctype = ctype.target
    raise FormatError("typedefs and qualifiers form a loop")


def essential_name(name: str) -> str:
    """Return a type's name without its flavour: what stands behind the last three underscores, no more and no fewer.

    libbpf's rule: programs call their own view of "task_struct" "task_struct___old" where two of them must live side by side.
    """
    at = name.rfind("___")
    while at > 0:
        if name[at - 1] != "_" and name[at + 3 : at + 4] not in ("", "_"):
            return name[:at]
        at = name.rfind("___", 0, at + 2)
    return name


def _strip_arrays(ctype: CType) -> tuple[CType, int]:
    """Return the type below typedefs, qualifiers and arrays, and how many of it the arrays hold."""
    count = 1
    for _ in range(_DEPTH_LIMIT):
        ctype = strip(ctype)
        if not isinstance(ctype, Array):
            return ctype, count
        count *= ctype.count
        ctype = ctype.target
    raise FormatError("arrays form a loop")


def sizeof(ctype: CType) -> int:
    """Return the size in bytes, through typedefs, qualifiers and arrays. 0 for incomplete types."""
    ctype, count = _strip_arrays(ctype)
    return count * ctype.size


def alignof(ctype: CType) -> int:
    """Return the alignment in bytes, through typedefs, qualifiers and arrays; 1 for a struct that is packed."""
    return _align_of(ctype, 0)


def _align_of(ctype: CType, depth: int) -> int:
    ctype, _ = _strip_arrays(ctype)
    if not isinstance(ctype, Struct):
        return ctype.align
    if not ctype._align:
        if depth > _DEPTH_LIMIT:
            raise FormatError(f"{ctype.kind} {ctype.name} holds other structs without end")
        ctype._align = _struct_align(ctype, depth)
    return ctype._align


def _struct_align(struct: Struct, depth: int) -> int:
    """The largest alignment of the members, or 1 when one of them, or the size, shows that the struct is packed."""
    largest = 1
    for member in struct.members:
        align = _align_of(member.ctype, depth + 1)
        if not member.width_bits and member.offset_bits % (8 * align):
            return 1
        largest = max(largest, align)
    return largest if struct.size % largest == 0 else 1


def bit_field_place(offset_bits: int, width_bits: int, type_bytes: int, struct_bytes: int) -> tuple[int, int]:
    """Return (byte offset, lowest bit) of a bit-field within `type_bytes` bytes that hold all of it, in a struct of `struct_bytes`."""
    natural = (offset_bits // (8 * type_bytes)) * type_bytes
    if offset_bits + width_bits > (natural + type_bytes) * 8 or natural + type_bytes > struct_bytes:
        natural = max(min(offset_bits >> 3, struct_bytes - type_bytes), 0)
    return natural, offset_bits - natural * 8


def declare(ctype: CType, name: str = "") -> str:
    """Return a C declaration of `name` with this type ("struct foo *name[4]"); structs by name, not by body.

    Raises FormatError for types that refer to themselves in a way that C cannot express.
    """
    return _declare(ctype, name, [_DECLARE_LIMIT])


def _declare(ctype: CType, name: str, left: list[int]) -> str:
    left[0] -= 1
    if left[0] < 0:
        raise FormatError("a declaration without end")
    if isinstance(ctype, Pointer):
        inner = f"*{name}"
        if isinstance(ctype.target, (Array, FuncProto)):
            inner = f"({inner})"
        return _declare(ctype.target, inner, left)
    if isinstance(ctype, Array):
        return _declare(ctype.target, f"{name}[{ctype.count or ''}]", left)
    if isinstance(ctype, FuncProto):
        params = [_declare(p.ctype, p.name, left) for p in ctype.params]
        if ctype.variadic:
            params.append("...")
        return _declare(ctype.result, f"{name}({', '.join(params) or 'void'})", left)
    if isinstance(ctype, Qualified):
        if isinstance(ctype.target, Pointer):
            return _declare(ctype.target, f"{ctype.name} {name}".rstrip(), left)
        return f"{ctype.name} {_declare(ctype.target, name, left)}"
    if isinstance(ctype, (Struct, Forward)):
        base = f"{ctype.kind} {ctype.name or '{...}'}"
    elif isinstance(ctype, Enum):
        base = f"enum {ctype.name or '{...}'}"
    else:
        base = ctype.name
    return f"{base} {name}" if name and not name.startswith("[") else base + name

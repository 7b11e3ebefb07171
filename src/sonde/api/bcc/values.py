"""C types to ctypes classes: what keys, leaves and events of a BCC program are made of.

The layout is that of the C type, always: a class is first declared as ctypes would lay it out by itself, and when a member then lies
elsewhere than in C (packed, aligned, odd bit-fields), it is declared byte by byte, with the gaps as members `__pad_N`. BCC's choices:
`char` is c_char (an array of it reads as bytes), __int128 is two 64-bit numbers, a pointer is a number, an anonymous member is `__anonN`.
"""

from __future__ import annotations

import ctypes as ct

from ...debuginfo.ctype import Array, Enum, Int, Pointer, Struct, sizeof, strip
from ...errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ...debuginfo.ctype import CType, Member

PAD = "__pad_"
_INTS: dict[tuple[int, bool], Any] = {
    (1, True): ct.c_byte,
    (1, False): ct.c_ubyte,
    (2, True): ct.c_short,
    (2, False): ct.c_ushort,
    (4, True): ct.c_int,
    (4, False): ct.c_uint,
    (8, True): ct.c_longlong,
    (8, False): ct.c_ulonglong,
    (16, True): ct.c_int64 * 2,
    (16, False): ct.c_uint64 * 2,
}


class ValueClasses:
    """The ctypes classes of one program's types: one class for each C type, however often it is asked for."""

    def __init__(self) -> None:
        self._known: dict[CType, Any] = {}

    def find(self, ctype: CType) -> Any:
        """Return the class of `ctype`. Raises UsageError for a type that has no values (void, a function, an unfinished struct)."""
        found = self._known.get(ctype)
        if found is None:
            found = self._known[ctype] = self._make(ctype)
        return found

    def _make(self, ctype: CType) -> Any:
        plain = strip(ctype)
        if isinstance(plain, Int):
            return _int_class(plain)
        if isinstance(plain, Enum):
            return _INTS[plain.size, plain.signed]
        if isinstance(plain, Pointer):
            return ct.c_ulonglong
        if isinstance(plain, Array):
            return self.find(plain.element) * plain.count
        if isinstance(plain, Struct):
            return self._make_struct(plain)
        raise UsageError(f"values of type {plain.name or type(plain).__name__} have no layout")

    def _make_struct(self, struct: Struct) -> Any:
        names = _member_names(struct)
        fields = [self._natural_field(name, member) for name, member in zip(names, struct.members)]
        anonymous = [name for name, member in zip(names, struct.members) if not member.name]
        base: Any = ct.Union if struct.kind == "union" else ct.Structure
        if all(fields):
            try:
                found = type(struct.name, (base,), {"_anonymous_": anonymous, "_fields_": fields})
            except TypeError:  # a bit-field of a type that ctypes has none of
                pass
            else:
                if _fits(found, struct, names):
                    return found
        return self._make_exact(struct, names, anonymous, base)

    def _natural_field(self, name: str, member: Member) -> tuple[Any, ...]:
        if not member.width_bits:
            return (name, self.find(member.ctype))
        return (name, _bit_class(member.ctype), member.width_bits) if member.name else ()

    def _make_exact(self, struct: Struct, names: list[str], anonymous: list[str], base: Any) -> Any:
        """Declare every byte: members where C has them, and what lies between."""
        builder = _Exact(sizeof(struct), struct.kind == "union")
        for name, member in zip(names, struct.members):
            if member.width_bits:
                builder.add_bits(name if member.name else "", member)
            else:
                builder.add(name, self.find(member.ctype), member.offset)
        builder.finish()
        body = {"_pack_": 1, "_layout_": "ms", "_anonymous_": anonymous, "_fields_": builder.fields}
        return type(struct.name, (base,), {**body, **builder.properties})


def _int_class(ctype: Int) -> Any:
    if ctype.encoding == "bool":
        return ct.c_bool
    if ctype.name == "char":
        return ct.c_char
    try:
        return _INTS[ctype.size, ctype.signed]
    except KeyError:
        raise UsageError(f"integers of {ctype.size} bytes ({ctype.name}) are unknown") from None


def _bit_class(ctype: CType) -> Any:
    plain = strip(ctype)
    signed = isinstance(plain, (Int, Enum)) and plain.signed
    if isinstance(plain, Int) and plain.encoding == "bool":
        return ct.c_bool
    return _INTS[plain.size, signed]


def _member_names(struct: Struct) -> list[str]:
    """Return the members' names; anonymous ones are counted."""
    names, count = [], 0
    for member in struct.members:
        if member.name:
            names.append(member.name)
        else:
            names.append(f"__anon{count}")
            count += 1
    return names


def _fits(found: Any, struct: Struct, names: list[str]) -> bool:
    """Whether ctypes lays out `found` as C does."""
    if ct.sizeof(found) != sizeof(struct):
        return False
    for name, member in zip(names, struct.members):
        place = getattr(found, name)
        bits = place.offset * 8 + (place.size & 0xFFFF if member.width_bits else 0)
        if bits != member.offset_bits:
            return False
    return True


class _Exact:
    """Collects the members of a class whose every byte is declared."""

    def __init__(self, size: int, union: bool) -> None:
        self.size = size
        self.union = union
        self.fields: list[tuple[str, Any]] = []
        self.properties: dict[str, property] = {}
        self._end = 0
        self._bits: tuple[str, int] = ("", 0)  # the bytes that the last bit-fields share: name, start
        self._pads = 0

    def add(self, name: str, kind: Any, offset: int) -> None:
        """Add a member at `offset` bytes."""
        self._fill(offset)
        self.fields.append((name, kind))
        self._end = max(self._end, offset + ct.sizeof(kind))
        self._bits = ("", 0)

    def add_bits(self, name: str, member: Member) -> None:
        """Add a bit-field: bytes that it shares with its neighbours, and a property on them."""
        first, last = member.offset_bits >> 3, (member.offset_bits + member.width_bits + 7) >> 3
        shared, start = self._bits
        if self.union or not shared or first < start:
            shared, start = self._new_name("bits"), first
            self._fill(first)
            self.fields.append((shared, ct.c_ubyte * (last - first)))
        elif last > self._end:
            shared, start = self.fields.pop()[0], start
            self.fields.append((shared, ct.c_ubyte * (last - start)))
        self._end = max(self._end, last)
        self._bits = (shared, start)
        if name:
            plain = strip(member.ctype)
            signed = isinstance(plain, (Int, Enum)) and plain.signed
            self.properties[name] = _bit_property(shared, member.offset_bits - 8 * start, member.width_bits, signed)

    def finish(self) -> None:
        """Fill up to the end."""
        if self.union and self.size > self._end:
            self.fields.append((self._new_name("pad"), ct.c_ubyte * self.size))
        self._fill(self.size)

    def _fill(self, offset: int) -> None:
        if not self.union and offset > self._end:
            self.fields.append((self._new_name("pad"), ct.c_ubyte * (offset - self._end)))
            self._end = offset

    def _new_name(self, what: str) -> str:
        self._pads += 1
        return f"__{what}_{self._pads}"


def _bit_property(shared: str, shift: int, width: int, signed: bool) -> property:
    """A property that reads and writes `width` bits at bit `shift` of the byte array `shared`."""
    mask = (1 << width) - 1

    def read(self: Any) -> int:
        value = int.from_bytes(bytes(getattr(self, shared)), "little") >> shift & mask
        return value - (1 << width) if signed and value >> (width - 1) else value

    def write(self: Any, value: int) -> None:
        array = getattr(self, shared)
        old = int.from_bytes(bytes(array), "little")
        array[:] = ((old & ~(mask << shift)) | (value & mask) << shift).to_bytes(len(array), "little")

    return property(read, write)


def to_bytes(value: Any, kind: Any, size: int, what: str) -> bytes:
    """Return the `size` bytes of a key or leaf of class `kind`; numbers, bytes and tuples of members are taken, too.

    Raises TypeError for a value that cannot be one, with `what` it is for.
    """
    if not isinstance(value, (ct._SimpleCData, ct.Structure, ct.Union, ct.Array)):
        value = _convert(value, kind, what)
    elif isinstance(value, ct._SimpleCData) and ct.sizeof(value) != size and isinstance(value.value, int):
        value = _convert(value.value, kind, what)
    data = bytes(value)
    if len(data) != size:
        raise TypeError(f"{what} takes {size} bytes, not the {len(data)} of a {type(value).__name__}")
    return data


def _convert(value: Any, kind: Any, what: str) -> Any:
    try:
        if issubclass(kind, ct.Array) and isinstance(value, (bytes, bytearray, str)):
            data = value.encode() if isinstance(value, str) else bytes(value)
            return kind.from_buffer_copy(data.ljust(ct.sizeof(kind), b"\0")[: ct.sizeof(kind)])
        if issubclass(kind, (ct.Structure, ct.Array)) and isinstance(value, (tuple, list)):
            return kind(*value)
        return kind(value)
    except (TypeError, ValueError) as error:
        raise TypeError(f"{what} takes a {kind.__name__}, not {value!r}: {error}") from None


def visible_fields(kind: Any) -> list[str]:
    """Return the names of a structure's members, without padding."""
    return [field[0] for field in kind._fields_ if not field[0].startswith(PAD)]

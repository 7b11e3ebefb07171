"""The integers of C as a BPF compiler has them (LP64, `char` signed), and the conversions between them: C11 6.3.1.

Types of BTF, of tracefs and of the text come with names of their own ("long unsigned int"); `integer` says which of the
standard integers each of them is.
"""

from __future__ import annotations

from ...debuginfo.ctype import (
    BOOL,
    CHAR,
    Array,
    CType,
    Enum,
    Float,
    Forward,
    FuncProto,
    Int,
    Member,
    Pointer,
    Qualified,
    Struct,
    Typedef,
    Void,
    declare,
    strip,
)

SCHAR, UCHAR = Int("signed char", 1, True, "char"), Int("unsigned char", 1, False, "char")
SHORT, USHORT = Int("short", 2, True), Int("unsigned short", 2, False)
INT, UINT = Int("int", 4, True), Int("unsigned int", 4, False)
LONG, ULONG = Int("long", 8, True), Int("unsigned long", 8, False)
LLONG, ULLONG = Int("long long", 8, True), Int("unsigned long long", 8, False)
INT128, UINT128 = Int("__int128", 16, True), Int("unsigned __int128", 16, False)

_RANKS = {
    BOOL: 0, CHAR: 1, SCHAR: 1, UCHAR: 1, SHORT: 2, USHORT: 2, INT: 3, UINT: 3, LONG: 4, ULONG: 4, LLONG: 5, ULLONG: 5,
    INT128: 6, UINT128: 6,
}  # fmt: skip
_UNSIGNED = {INT: UINT, LONG: ULONG, LLONG: ULLONG, INT128: UINT128}
_BY_SIZE = {
    (1, True): SCHAR, (1, False): UCHAR, (2, True): SHORT, (2, False): USHORT, (4, True): INT, (4, False): UINT,
    (8, True): LONG, (8, False): ULONG, (16, True): INT128, (16, False): UINT128,
}  # fmt: skip

_named: dict[tuple[str, int, bool], Int] = {}


def integer_of_words(words: list[str] | tuple[str, ...]) -> Int | None:
    """Return the integer that words such as ("long", "unsigned", "int") name, in any order; None when it is none."""
    rest = [w for w in words if w not in ("int", "signed", "unsigned")]
    unsigned, signed = "unsigned" in words, "signed" in words
    if rest == ["char"]:
        return UCHAR if unsigned else SCHAR if signed else CHAR
    if rest in (["_Bool"], ["bool"]):
        return BOOL
    key = " ".join(rest)
    plain = {"": INT, "short": SHORT, "long": LONG, "long long": LLONG, "__int128": INT128}.get(key)
    if plain is None or not words:
        return None
    return {SHORT: USHORT, **_UNSIGNED}[plain] if unsigned else plain


def integer(ctype: Int) -> Int:
    """Return the standard integer that `ctype` is: by the words of its name, else by its size and sign."""
    key = ctype.name, ctype.size, ctype.signed
    found = _named.get(key)
    if found is None:
        found = BOOL if ctype.encoding == "bool" else integer_of_words(ctype.name.split())
        if found is None or found.size != ctype.size or (found.signed != ctype.signed and found is not CHAR):
            found = _BY_SIZE[ctype.size, ctype.signed]
        _named[key] = found
    return found


def underlying(ctype: CType) -> Int | None:
    """Return the standard integer that values of an integer or enumeration type are; None for other types."""
    ctype = strip(ctype)
    if isinstance(ctype, Int):
        return integer(ctype)
    if isinstance(ctype, Enum):
        return _BY_SIZE[ctype.size or 4, ctype.signed]
    return None


def promoted(ctype: CType) -> CType:
    """Apply the integer promotions to a value; types that are no integer stay as they are."""
    number = underlying(ctype)
    if number is None:
        return ctype
    if number.size < 4:
        return INT
    return number


def common_integer(left: CType, right: CType) -> Int | None:
    """Return the type that the usual arithmetic conversions bring two operands to; None when one is no integer."""
    a, b = underlying(left), underlying(right)
    if a is None or b is None:
        return None
    a = INT if a.size < 4 else a
    b = INT if b.size < 4 else b
    if a is b:
        return a
    if a.signed == b.signed:
        return a if _RANKS[a] >= _RANKS[b] else b
    positive, negative = (b, a) if a.signed else (a, b)
    if _RANKS[positive] >= _RANKS[negative]:
        return positive
    return negative if negative.size > positive.size else _UNSIGNED[negative]


def wrap(value: int, number: Int) -> int:
    """Return `value` as the type `number` holds it."""
    if number.encoding == "bool":
        return int(value != 0)
    bits = 8 * number.size
    value &= (1 << bits) - 1
    return value - (1 << bits) if number.signed and value >> (bits - 1) else value


def fits(value: int, number: Int) -> bool:
    """Tell whether the type `number` can hold `value`."""
    return wrap(value, number) == value


# Predicates -------------------------------------------------------------------------------------------------------


def is_integer(ctype: CType) -> bool:
    """Integers, `char`, `bool` and enumerations."""
    return isinstance(strip(ctype), (Int, Enum))


def is_pointer(ctype: CType) -> bool:
    """Pointers only: no arrays."""
    return isinstance(strip(ctype), Pointer)


def is_scalar(ctype: CType) -> bool:
    """What a condition may be."""
    return isinstance(strip(ctype), (Int, Enum, Pointer))


def is_void(ctype: CType) -> bool:
    """`void`, qualified or not."""
    return isinstance(strip(ctype), Void)


def is_incomplete(ctype: CType) -> bool:
    """A type that no object can have: void, functions, structs without members in sight."""
    inner = strip(ctype)
    while isinstance(inner, Array):
        inner = strip(inner.element)
    return isinstance(inner, (Void, Forward, FuncProto)) or (isinstance(inner, Struct) and is_undefined(inner))


def is_undefined(struct: Struct) -> bool:
    """A struct of the text whose definition has not been seen yet."""
    return not getattr(struct, "defined", True)


# Shapes -----------------------------------------------------------------------------------------------------------

_QUALIFIERS = frozenset(["const", "volatile", "restrict", "_Atomic"])


def const_member(ctype: CType) -> Member | None:
    """Return the first member of a struct or union, or of what is in it, that is `const`: then the whole cannot be assigned to."""
    inner = strip(ctype)
    for member in inner.members if isinstance(inner, Struct) else ():
        part = member.ctype
        while isinstance(strip(part), Array) and "const" not in qualifiers(part):
            part = strip(part).target  # type: ignore[attr-defined]
        if "const" in qualifiers(part):
            return member
        found = const_member(part)
        if found is not None:
            return found
    return None


def qualifiers(ctype: CType) -> frozenset[str]:
    """Return the qualifiers of a type, those inside typedefs included."""
    found: set[str] = set()
    while isinstance(ctype, (Qualified, Typedef)):
        if isinstance(ctype, Qualified) and ctype.name in _QUALIFIERS:
            found.add(ctype.name)
        ctype = ctype.target
    return frozenset(found) if found else _NONE


_NONE: frozenset[str] = frozenset()


def unqualified(ctype: CType) -> CType:
    """Return the type without its own qualifiers; a typedef keeps its name unless qualifiers are inside it."""
    while isinstance(ctype, Qualified):
        ctype = ctype.target
    if isinstance(ctype, Typedef) and isinstance(ctype.target, (Qualified, Typedef)) and qualifiers(ctype):
        return strip(ctype)
    return ctype


def decayed(ctype: CType) -> CType:
    """Return the type of the value that an expression of this type has: arrays and functions become pointers."""
    inner = strip(ctype)
    if isinstance(inner, Array):
        return Pointer(inner.element)
    if isinstance(inner, FuncProto):
        return Pointer(inner)
    return unqualified(ctype)


_DEPTH = 24  # of types within types; deeper ones are taken as equal


def compatible(left: CType, right: CType, exact: bool = False, depth: int = 0) -> bool:
    """Tell whether two types are compatible, their own qualifiers aside.

    With `exact`, qualifiers of what they are made of count, as `_Generic` wants it. Structs are compatible by name.
    """
    a, b = strip(left), strip(right)
    if a is b or depth > _DEPTH:
        return True
    if isinstance(a, (Int, Enum)) and isinstance(b, (Int, Enum)):
        if isinstance(a, Enum) and isinstance(b, Enum) and (a.name or b.name):
            return a.name == b.name
        return underlying(a) is underlying(b)
    if isinstance(a, (Struct, Forward)) and isinstance(b, (Struct, Forward)):
        return a.kind == b.kind and a.name == b.name and bool(a.name)
    if isinstance(a, Array) and isinstance(b, Array):
        return (a.count == b.count or not a.count or not b.count) and _inner(a.target, b.target, exact, depth)
    if isinstance(a, Pointer) and isinstance(b, Pointer):
        return _inner(a.target, b.target, exact, depth)
    if isinstance(a, FuncProto) and isinstance(b, FuncProto):
        return _same_function(a, b, exact, depth)
    if isinstance(a, Float) and isinstance(b, Float):
        return a.size == b.size
    return isinstance(a, Void) and isinstance(b, Void)


def _inner(a: CType, b: CType, exact: bool, depth: int) -> bool:
    if exact and qualifiers(a) != qualifiers(b):
        return False
    return compatible(a, b, exact, depth + 1)


def _same_function(a: FuncProto, b: FuncProto, exact: bool, depth: int) -> bool:
    if len(a.params) != len(b.params) or a.variadic != b.variadic:
        return False
    pairs = zip(a.params, b.params)
    return compatible(a.result, b.result, exact, depth + 1) and all(
        compatible(p.ctype, q.ctype, exact, depth + 1) for p, q in pairs
    )


# Words for messages -----------------------------------------------------------------------------------------------


def shown(ctype: CType) -> str:
    """Return a type in quotes as a C compiler writes it: 'u32 *' (aka 'unsigned int *')."""
    name = declare(ctype)
    plain = declare(_without_typedefs(ctype))
    return f"'{name}'" if plain == name else f"'{name}' (aka '{plain}')"


def _without_typedefs(ctype: CType) -> CType:
    if isinstance(ctype, Typedef):
        return _without_typedefs(strip(ctype))
    if isinstance(ctype, Int):
        return integer(ctype)
    if isinstance(ctype, Pointer):
        return Pointer(_without_typedefs(ctype.target))
    if isinstance(ctype, Array):
        return Array(_without_typedefs(ctype.target), ctype.count)
    if isinstance(ctype, Qualified):
        return Qualified(ctype.name, _without_typedefs(ctype.target))
    return ctype

"""Types that meet: which type holds the values of both, and whether the values of one fit into another.

The rules are those of bpftrace 0.27. Integers of different sign meet in a signed type wide enough for both, int64 at
most; a number in the text has no sign of its own and takes that of the other side. Strings and tuples grow.
"""

from __future__ import annotations

from ...debuginfo.ctype import INT64, UINT64, Array, CType, Enum, Forward, Int, Pointer, Struct, strip
from .stype import Aggregate, Buffer, LiteralInt, RecordType, Str, Tuple, int_type, is_bool, same

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

_LITERALS = {size: LiteralInt(size) for size in (1, 2, 4, 8)}


def literal_type(value: int) -> Int:
    """Return the type of a number in the text: the smallest signed one; uint64 beyond int64."""
    if value >= 1 << 63:
        return UINT64
    size = _signed_size(value)
    return _LITERALS[size] if value >= 0 else int_type(size, True)


def _signed_size(value: int) -> int:
    magnitude = value if value >= 0 else ~value
    return 1 if magnitude < 1 << 7 else 2 if magnitude < 1 << 15 else 4 if magnitude < 1 << 31 else 8


def settle(ctype: CType) -> CType:
    """Return the type with the sign of all numbers in it decided: signed."""
    if isinstance(ctype, LiteralInt):
        return int_type(ctype.size, True)
    if isinstance(ctype, Tuple):
        items = [settle(i) for i in ctype.items]
        if all(a is b for a, b in zip(items, ctype.items)):
            return ctype
        return RecordType(ctype.names, items) if isinstance(ctype, RecordType) else Tuple(items)
    if isinstance(ctype, Pointer):
        target = ctype.target
        return Pointer(settle(target), ctype.size) if isinstance(target, (LiteralInt, Tuple)) else ctype
    return ctype


def promote(a: CType | None, b: CType) -> CType | None:
    """Return the type that holds values of both `a` (what is known so far, perhaps nothing) and `b`; None if none does."""
    if a is None or a is b:
        return b
    plain_a, plain_b = strip(a), strip(b)
    if isinstance(plain_a, (Int, Enum)) and isinstance(plain_b, (Int, Enum)):
        return _promote_ints(a, b, plain_a, plain_b)
    if isinstance(plain_a, Str) and isinstance(plain_b, Str):
        return a if plain_a.size >= plain_b.size else b
    if isinstance(plain_a, Buffer) and isinstance(plain_b, Buffer):
        return a if plain_a.size >= plain_b.size else b
    if isinstance(plain_a, Tuple) and isinstance(plain_b, Tuple):
        return _promote_tuples(plain_a, plain_b)
    if isinstance(plain_a, Aggregate) and type(plain_a) is type(plain_b):
        return _promote_aggregates(a, b)
    if isinstance(plain_a, Pointer) and isinstance(plain_b, Pointer):
        return b if _pointers_meet(plain_a, plain_b) else None
    return a if same(plain_a, plain_b) else None


def _promote_ints(a: CType, b: CType, plain_a: Int | Enum, plain_b: Int | Enum) -> CType | None:
    if is_bool(plain_a) != is_bool(plain_b):
        return None
    if isinstance(plain_a, Enum) or isinstance(plain_b, Enum):
        if same(plain_a, plain_b):
            return a
        a = plain_a = UINT64 if isinstance(plain_a, Enum) else plain_a
        b = plain_b = UINT64 if isinstance(plain_b, Enum) else plain_b
    if isinstance(plain_a, LiteralInt):
        if isinstance(plain_b, LiteralInt):
            return a if plain_a.size >= plain_b.size else b
        return _promote_literal(plain_a, b, plain_b)
    if isinstance(plain_b, LiteralInt):
        return _promote_literal(plain_b, a, plain_a)
    if plain_a.signed == plain_b.signed:
        return a if plain_a.size >= plain_b.size else b
    signed, unsigned = (plain_a, plain_b) if plain_a.signed else (plain_b, plain_a)
    if signed.size > unsigned.size:
        return a if signed is plain_a else b
    return int_type(min(unsigned.size * 2, 8), True)


def _promote_literal(literal: LiteralInt, other: CType, plain: Int | Enum) -> CType:
    return other if plain.size >= literal.size else int_type(literal.size, plain.signed)


def _promote_tuples(a: Tuple, b: Tuple) -> CType | None:
    if type(a) is not type(b) or len(a.items) != len(b.items):
        return None
    if isinstance(a, RecordType) and isinstance(b, RecordType):
        if set(a.names) != set(b.names):
            return None
        by_name = dict(zip(b.names, b.items))
        items = _promote_each(a.items, [by_name[n] for n in a.names])
        return RecordType(a.names, items) if items is not None else None
    items = _promote_each(a.items, b.items)
    if items is None:
        return None
    return a if all(x is y for x, y in zip(items, a.items)) else Tuple(items)


def _promote_each(a: Sequence[CType], b: Sequence[CType]) -> list[CType] | None:
    items = [promote(x, y) for x, y in zip(a, b)]
    return None if None in items else [i for i in items if i is not None]


def _promote_aggregates(a: CType, b: CType) -> CType | None:
    plain_a, plain_b = strip(a), strip(b)
    if same(plain_a, plain_b):
        return a
    assert isinstance(plain_a, Aggregate) and isinstance(plain_b, Aggregate)
    if plain_a.key()[:-1] == plain_b.key()[:-1] and type(plain_a).__init__ is Aggregate.__init__:
        return a if plain_a.signed else b
    return None


def _pointers_meet(a: Pointer, b: Pointer) -> bool:
    """As in bpftrace: pointers to integers of any size meet, pointers to different structs do not."""
    to_a, to_b = strip(a.target), strip(b.target)
    if isinstance(to_a, Int) and isinstance(to_b, Int):
        return True
    if isinstance(to_a, Pointer) and isinstance(to_b, Pointer):
        return _pointers_meet(to_a, to_b)
    if isinstance(to_a, (Struct, Forward)) and isinstance(to_b, (Struct, Forward)):
        return to_a is to_b or same(to_a, to_b)
    if isinstance(to_a, Array) and isinstance(to_b, Array):
        return same(to_a, to_b)
    return type(to_a) is type(to_b)


def number_fits(value: int, target: CType) -> bool:
    """Tell whether the integer type `target` can hold `value`."""
    plain = strip(target)
    if not isinstance(plain, (Int, Enum)) or is_bool(plain):
        return False
    bits = plain.size * 8
    if plain.signed:
        return -(1 << bits - 1) <= value < 1 << bits - 1
    return 0 <= value < 1 << bits


def fits(ctype: CType, target: CType) -> bool:
    """Tell whether every value of `ctype` can be assigned to `target`, as bpftrace's implicit conversions allow."""
    if ctype is target or same(ctype, target):
        return True
    source, target = strip(ctype), strip(target)
    if isinstance(source, (Int, Enum)) and isinstance(target, (Int, Enum)):
        return is_bool(source) == is_bool(target)  # with a warning where values may change: see `loses`
    if isinstance(source, Aggregate):
        return isinstance(target, (Int, Enum)) and target.size == 8
    if isinstance(source, (Str, Buffer)):
        return type(source) is type(target) and source.size <= target.size
    if isinstance(source, Tuple) and isinstance(target, Tuple):
        return _tuple_fits(source, target)
    if isinstance(source, Pointer) and isinstance(target, Pointer):
        return _pointers_meet(source, target)
    return False


def loses(ctype: CType, target: CType) -> bool:
    """Tell whether the conversion of an integer type to another may change values, as bpftrace warns of."""
    source, plain = strip(ctype), strip(target)
    if not isinstance(source, (Int, Enum)) or not isinstance(plain, (Int, Enum)) or isinstance(source, LiteralInt):
        return False
    if is_bool(source) or is_bool(plain):
        return False
    if source.signed == plain.signed:
        return source.size > plain.size
    return source.signed or source.size >= plain.size


def _tuple_fits(source: Tuple, target: Tuple) -> bool:
    if type(source) is not type(target) or len(source.items) != len(target.items):
        return False
    if isinstance(source, RecordType) and isinstance(target, RecordType):
        if set(source.names) != set(target.names):
            return False
        by_name = dict(zip(target.names, target.items))
        return all(fits(i, by_name[n]) for n, i in zip(source.names, source.items))
    return all(map(fits, source.items, target.items))


def arithmetic_type(a: CType, b: CType) -> Int:
    """Return the type of `a op b` for integers: 64 bits, unsigned only if neither side has a sign."""
    plain_a, plain_b = strip(a), strip(b)
    open_a, open_b = isinstance(plain_a, LiteralInt), isinstance(plain_b, LiteralInt)
    if open_a and open_b:
        return INT64
    if open_a or open_b:
        other = plain_b if open_a else plain_a
        return INT64 if other.signed else UINT64  # type: ignore[attr-defined]
    return INT64 if plain_a.signed or plain_b.signed else UINT64  # type: ignore[attr-defined]

"""Whether two C types are the same, all that they refer to included: written for tests, apart from what the product does."""

from __future__ import annotations

from sonde.debuginfo.ctype import (
    Array,
    CType,
    Enum,
    Float,
    Forward,
    FuncProto,
    Int,
    Pointer,
    Qualified,
    Struct,
    Typedef,
    Void,
)


def find_difference(one: CType, other: CType) -> str:
    """Return where two types differ first, "" when they do not. Types that are being compared already count as equal."""
    seen: set[tuple[int, int]] = set()
    queue = [(one, other, repr(one))]
    while queue:
        a, b, where = queue.pop()
        if (id(a), id(b)) in seen:
            continue
        seen.add((id(a), id(b)))
        if type(a) is not type(b) or _facts(a) != _facts(b):
            return f"{where}: {type(a).__name__} {_facts(a)} is not {type(b).__name__} {_facts(b)}"
        queue += [(x, y, f"{where} > {x!r}") for x, y in zip(_inner(a), _inner(b))]
    return ""


def _facts(ctype: CType) -> tuple[object, ...]:
    facts: tuple[object, ...] = (ctype.name, ctype.size)
    if isinstance(ctype, Int):
        facts += (ctype.signed, ctype.encoding)
    elif isinstance(ctype, Pointer):
        facts += (ctype.tag,)
    elif isinstance(ctype, Array):
        facts += (ctype.count,)
    elif isinstance(ctype, Struct):
        facts += (ctype.kind, tuple((m.name, m.offset_bits, m.width_bits) for m in ctype.members))
    elif isinstance(ctype, Enum):
        facts += (ctype.signed, tuple(ctype.values.items()))
    elif isinstance(ctype, FuncProto):
        facts += (ctype.variadic, tuple(p.name for p in ctype.params))
    elif isinstance(ctype, Forward):
        facts += (ctype.kind,)
    else:
        assert isinstance(ctype, (Float, Qualified, Typedef, Void))
    return facts


def _inner(ctype: CType) -> list[CType]:
    if isinstance(ctype, Struct):
        return [m.ctype for m in ctype.members]
    if isinstance(ctype, FuncProto):
        return [ctype.result, *(p.ctype for p in ctype.params)]
    if isinstance(ctype, (Pointer, Array, Qualified, Typedef)):
        return [ctype.target]
    return []

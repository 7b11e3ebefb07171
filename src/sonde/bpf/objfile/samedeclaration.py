"""When declarations of one name in two objects agree: what C asks of them, as far as BTF keeps it.

Qualifiers and typedefs count nowhere; a struct that is only declared agrees with every one of its name; an array without length
with every length.
"""

from __future__ import annotations

from ...debuginfo.ctype import Array, Enum, Forward, FuncProto, Int, Pointer, Struct, strip
from ...errors import FormatError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...debuginfo.ctype import CType

    Pairs = list[tuple[CType, CType]]

_PAIRS_LIMIT = 1 << 16


def same_declaration(one: CType, other: CType) -> bool:
    """Tell whether two declarations agree. Raises FormatError where types go on without end."""
    queue = [(one, other)]
    seen: set[tuple[CType, CType]] = set()
    while queue:
        left, right = (strip(each) for each in queue.pop())
        if left is right or (left, right) in seen:
            continue
        seen.add((left, right))
        if len(seen) > _PAIRS_LIMIT:
            raise FormatError("types go on without end")
        more = _compare(left, right)
        if more is None:
            return False
        queue += more
    return True


def _compare(one: CType, other: CType) -> Pairs | None:
    """Compare two types themselves; return what they lead to, None where they differ."""
    if isinstance(one, Forward) or isinstance(other, Forward):
        kinds = [each.kind for each in (one, other) if isinstance(each, (Forward, Struct))]
        return [] if len(kinds) == 2 and kinds[0] == kinds[1] and one.name == other.name else None
    if type(one) is not type(other) or (one.size != other.size and not isinstance(one, Array)):
        return None
    if isinstance(one, Pointer) and isinstance(other, Pointer):
        return [(one.target, other.target)]
    if isinstance(one, Array) and isinstance(other, Array):
        return [(one.element, other.element)] if one.count == other.count or not one.count * other.count else None
    if isinstance(one, Struct) and isinstance(other, Struct):
        places = [[(m.name, m.offset_bits, m.width_bits) for m in each.members] for each in (one, other)]
        if (one.kind, one.name) != (other.kind, other.name) or places[0] != places[1]:
            return None
        return [(m.ctype, n.ctype) for m, n in zip(one.members, other.members)]
    if isinstance(one, FuncProto) and isinstance(other, FuncProto):
        if len(one.params) != len(other.params) or one.variadic != other.variadic:
            return None
        return [(one.result, other.result), *((p.ctype, q.ctype) for p, q in zip(one.params, other.params))]
    if isinstance(one, Enum) and isinstance(other, Enum):
        differ = one.name != other.name or (one.values and other.values and one.values != other.values)
        return None if differ else []
    if isinstance(one, Int) and isinstance(other, Int):
        return [] if (one.signed, one.encoding == "bool") == (other.signed, other.encoding == "bool") else None
    return []

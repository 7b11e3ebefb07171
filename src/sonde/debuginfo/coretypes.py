"""When a type of the program and one of the kernel are the same to CO-RE: three relations, from loose to strict.

`fields_compatible` is asked of members on a path, `types_compatible` of types that are looked up as a whole, `types_match` of types
whose members matter. Typedefs and qualifiers count nowhere. Follows libbpf (src/relo_core.c).
"""

from __future__ import annotations

from ..errors import FormatError
from .ctype import Array, Enum, Float, Forward, FuncProto, Int, Pointer, Struct, Void, essential_name, strip

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .ctype import CType

    Memo = dict[tuple[CType, CType, bool], bool]

_DEPTH_LIMIT = 32  # types within types


def fields_compatible(own: CType, there: CType) -> bool:
    """Tell whether a member of the type `there` may stand for one of the type `own`.

    Any struct or union for any other, any pointer, integer (of whatever size and sign) or float for another; enumerations and
    forward declarations by name, where both have one; arrays by their elements.
    """
    for _ in range(_DEPTH_LIMIT):
        own, there = strip(own), strip(there)
        if isinstance(own, Struct) or isinstance(there, Struct):
            return isinstance(own, Struct) and isinstance(there, Struct)
        if type(own) is not type(there):
            return False
        if isinstance(own, (Enum, Forward)):
            names = essential_name(own.name), essential_name(there.name)
            return names[0] == names[1] or not all(names)
        if not isinstance(own, Array) or not isinstance(there, Array):
            return isinstance(own, (Pointer, Float, Int))
        own, there = own.element, there.element
    raise _too_deep()


def types_compatible(own: CType, there: CType, depth: int = _DEPTH_LIMIT) -> bool:
    """Tell whether a type found by the name of `own` is of the same kind, and leads to the same kinds."""
    while depth:
        depth -= 1
        own, there = strip(own), strip(there)
        if type(own) is not type(there) or (isinstance(own, Struct) and own.kind != there.kind):  # type: ignore[attr-defined]
            return False
        if isinstance(own, FuncProto) and isinstance(there, FuncProto):
            if len(own.params) != len(there.params) or own.variadic != there.variadic:
                return False
            if not all(types_compatible(p.ctype, q.ctype, depth) for p, q in zip(own.params, there.params)):
                return False
            own, there = own.result, there.result
        elif isinstance(own, (Pointer, Array)) and isinstance(there, (Pointer, Array)):
            own, there = own.target, there.target
        else:
            return isinstance(own, (Void, Struct, Enum, Forward, Int))
    raise _too_deep()


def types_match(own: CType, there: CType) -> bool:
    """Tell whether the type `there` has all that the program's `own` has: members, enumerators, parameters, sizes of integers.

    A struct behind a pointer counts by its name and kind, and may be declared only.
    """
    return _match(own, there, False, _DEPTH_LIMIT, {})


def _match(own: CType, there: CType, behind: bool, depth: int, memo: Memo) -> bool:
    if not depth:
        raise _too_deep()
    own, there = strip(own), strip(there)
    key = own, there, behind
    if key not in memo:
        memo[key] = True  # a type that holds itself matches if all else in it does
        memo[key] = _match_plain(own, there, behind, depth, memo)
    return memo[key]


def _match_plain(own: CType, there: CType, behind: bool, depth: int, memo: Memo) -> bool:
    if isinstance(own, Int) and isinstance(there, Int):
        same = own.size == there.size and own.signed == there.signed
        return same and _one_spelling(own.name) == _one_spelling(there.name)
    if essential_name(own.name) != essential_name(there.name):
        return False
    if isinstance(own, (Struct, Forward)) and isinstance(there, (Struct, Forward)):
        if own.kind != there.kind or (type(own) is not type(there) and not behind):
            return False
        full = isinstance(own, Struct) and isinstance(there, Struct) and not behind
        return not full or _match_members(own, there, depth, memo)  # type: ignore[arg-type]
    if type(own) is not type(there):
        return False
    if isinstance(own, Enum) and isinstance(there, Enum):
        return own.size == there.size and _names(own) <= _names(there)
    if isinstance(own, Pointer) and isinstance(there, Pointer):
        return _match(own.target, there.target, True, depth - 1, memo)
    if isinstance(own, Array) and isinstance(there, Array):
        return own.count == there.count and _match(own.element, there.element, behind, depth - 1, memo)
    if isinstance(own, FuncProto) and isinstance(there, FuncProto):
        return _match_prototypes(own, there, behind, depth, memo)
    return isinstance(own, Void)


def _match_members(own: Struct, there: Struct, depth: int, memo: Memo) -> bool:
    if len(own.members) > len(there.members):
        return False
    by_name: dict[str, list[CType]] = {}
    for member in there.members:
        by_name.setdefault(essential_name(member.name), []).append(member.ctype)
    return all(
        any(
            _match(member.ctype, ctype, False, depth - 1, memo)
            for ctype in by_name.get(essential_name(member.name), ())
        )
        for member in own.members
    )


def _match_prototypes(own: FuncProto, there: FuncProto, behind: bool, depth: int, memo: Memo) -> bool:
    if len(own.params) != len(there.params) or own.variadic != there.variadic:
        return False
    pairs = [(own.result, there.result), *((p.ctype, q.ctype) for p, q in zip(own.params, there.params))]
    return all(_match(p, q, behind, depth - 1, memo) for p, q in pairs)


def _names(enum: Enum) -> set[str]:
    return {essential_name(name) for name in enum.values}


def _one_spelling(name: str) -> str:
    """The words of an integer's name in one order, without those that change nothing."""
    words = name.split()
    if len(words) > 1:
        words = [word for word in words if word not in ("int", "signed") or words == ["signed", "char"]]
    return " ".join(sorted(words))


def _too_deep() -> FormatError:
    return FormatError(f"types lie more than {_DEPTH_LIMIT} deep in each other")

"""Types cut down to what CO-RE relocations ask of them, so that an object carries a few lines in place of the kernel's headers.

A struct keeps the members that some path goes through, where they were, and its size. What a pointer leads to is kept by name only.
"""

from __future__ import annotations

from ..errors import FormatError
from .ctype import VOID, Array, Forward, FuncProto, Member, Param, Pointer, Qualified, Struct, Typedef, strip

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .ctype import CType

_DEPTH_LIMIT = 64


def flatten(ctype: CType) -> CType:
    """Return a type as it lies in memory: whole, but what its pointers lead to by name only; prototypes stay. Raises FormatError."""
    reducer = Reducer(prototypes=True)
    queue = [ctype]
    while queue:
        each = strip(queue.pop())
        while isinstance(each, Array):
            each = strip(each.element)
        if isinstance(each, Struct):
            reducer.use("type_matches", each, ())
            queue += [member.ctype for member in each.members]
    return reducer.reduce(ctype)


class Reducer:
    """First `use` of everything that is asked for, then `reduce`: a struct's members are taken when its type is first looked into."""

    def __init__(self, *, prototypes: bool = False) -> None:
        self._prototypes = prototypes  # whether pointers to functions stay what they are
        self._used: dict[Struct, set[int]] = {}
        self._whole: set[Struct] = set()
        self._made: dict[CType, CType] = {}

    def use(self, kind: str, root: CType | None, path: tuple[str | int, ...]) -> None:
        """Keep what a relocation of this kind asks of `root`: the members on a path, or, for a match of whole types, all. Raises FormatError."""
        if root is None:
            return
        ctype = strip(root)
        if kind == "type_matches" and isinstance(ctype, Struct):
            self._whole.add(ctype)
        if not kind.startswith("field_"):
            return
        for step in path:
            ctype = strip(ctype)
            if isinstance(step, int) and isinstance(ctype, Array):
                ctype = ctype.element
                continue
            field = ctype.get_member(step) if isinstance(ctype, Struct) and isinstance(step, str) else None
            if field is None:
                raise FormatError(f"{ctype!r} has no member {step}")
            for member in field.path:
                assert isinstance(ctype, Struct)
                self._used.setdefault(ctype, set()).add(ctype.members.index(member))
                ctype = strip(member.ctype)

    def reduce(self, ctype: CType, depth: int = 0) -> CType:
        """Return the type with nothing in it that was not asked for. The same type gives the same object."""
        made = self._made.get(ctype)
        if made is None:
            if depth > _DEPTH_LIMIT:
                raise FormatError("types lie too deep in each other")
            made = self._made[ctype] = self._reduce(ctype, depth + 1)
        return made

    def _reduce(self, ctype: CType, depth: int) -> CType:
        if isinstance(ctype, Struct):
            kept = range(len(ctype.members)) if ctype in self._whole else sorted(self._used.get(ctype, ()))
            chosen = [ctype.members[i] for i in kept]
            members = tuple(Member(m.name, self.reduce(m.ctype, depth), m.offset_bits, m.width_bits) for m in chosen)
            return Struct(ctype.kind, ctype.name, ctype.size, members)
        if isinstance(ctype, Pointer):
            return Pointer(self._behind(ctype.target, depth), ctype.size)
        if isinstance(ctype, Array):
            return Array(self.reduce(ctype.element, depth), ctype.count)
        if isinstance(ctype, Typedef):
            return Typedef(ctype.name, self.reduce(ctype.target, depth))
        if isinstance(ctype, Qualified):
            return Qualified(ctype.name, self.reduce(ctype.target, depth))
        if isinstance(ctype, FuncProto):
            params = tuple(Param(p.name, self.reduce(p.ctype, depth)) for p in ctype.params)
            return FuncProto(self.reduce(ctype.result, depth), params, ctype.variadic)
        return ctype

    def _behind(self, ctype: CType, depth: int) -> CType:
        """What a pointer leads to: by name, or void."""
        inner = strip(ctype)
        if isinstance(inner, Struct) and inner.name:
            return Forward(inner.kind, inner.name)
        if isinstance(inner, FuncProto) and self._prototypes:
            return self.reduce(inner, depth)
        if isinstance(inner, (Struct, FuncProto, Pointer, Array)):
            return VOID
        return self.reduce(ctype, depth)

"""A kernel's types cut down to what the CO-RE relocations of some objects ask of them: BTF to ship to kernels that have none.

The answers from the cut are those from the whole. Types that fit are kept by name and size, structs with the members on the paths that are asked
for; what a member that is a pointer leads to is asked of nobody. A whole type that is compared (type_exists, type_matches …) keeps what the comparison
looks at. Numbers of types differ: `type_id_target` has a meaning in the running kernel's own BTF only.
"""

from __future__ import annotations

from .btfwrite import BtfWriter
from .corerelo import iter_fits
from .ctype import VOID, Array, FuncProto, Member, Param, Pointer, Qualified, Struct, Typedef, strip

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from .btf import Btf
    from .corerelo import Access
    from .ctype import CType

_FIELD, _SHAPE, _WHOLE = range(
    3
)  # how much of a type is kept: what is on paths; what kinds it leads to; its members as well


def cut_btf(target: Btf, accesses: Iterable[Access]) -> bytes:
    """Return BTF that answers `accesses` as `target` does. Raises FormatError as `corerelo.resolve`."""
    cutter = _Cutter()
    roots: list[CType] = []
    for access in accesses:
        if access.kind == "type_id_local":
            continue
        for ctype in iter_fits(access, target):
            depth = _FIELD if access.kind.startswith("field_") else _SHAPE
            if access.kind == "type_matches":
                depth = _WHOLE
                cutter.use_whole(ctype)
            elif depth == _FIELD:
                cutter.use_path(ctype, access.path)
            roots.append(cutter.cut(ctype, depth))
    writer = BtfWriter()
    for root in roots:
        writer.add(root)
    return writer.build()


class _Cutter:
    """First everything that is used, then `BtfWriter` asks for the members."""

    def __init__(self) -> None:
        self._used: dict[Struct, set[int]] = {}
        self._made: dict[tuple[CType, int], CType] = {}
        self._whole: set[Struct] = set()

    def use_path(self, root: CType, path: tuple[str | int, ...]) -> None:
        """Keep the members on a path that `root` has."""
        ctype = strip(root)
        for step in path:
            ctype = strip(ctype)
            if isinstance(step, int) and isinstance(ctype, Array):
                ctype = ctype.element
                continue
            field = ctype.get_member(step) if isinstance(ctype, Struct) and isinstance(step, str) else None
            for member in field.path if field is not None else ():
                assert isinstance(ctype, Struct)
                self._use(ctype, member)
                ctype = strip(member.ctype)

    def _use(self, struct: Struct, member: Member) -> None:
        used = self._used.setdefault(struct, set())
        used.add(struct.members.index(member))
        inner = strip(member.ctype)
        if isinstance(inner, Array) and not inner.count:
            used.add(len(struct.members) - 1)  # whether it is the last decides about its bounds

    def use_whole(self, root: CType) -> None:
        """Keep the members of a struct, and of those in it."""
        queue = [root]
        while queue:
            ctype = strip(queue.pop())
            while isinstance(ctype, Array):
                ctype = strip(ctype.element)
            if isinstance(ctype, Struct) and ctype not in self._whole:
                self._whole.add(ctype)
                self._used[ctype] = set(range(len(ctype.members)))
                queue += [member.ctype for member in ctype.members]

    def cut(self, ctype: CType, depth: int) -> CType:
        """Return a type with what is kept of it; the same type gives the same object."""
        key = ctype, 0 if isinstance(ctype, Struct) else depth
        made = self._made.get(key)
        if made is None:
            made = self._made[key] = self._cut(ctype, depth)
        return made

    def _cut(self, ctype: CType, depth: int) -> CType:
        if isinstance(ctype, Struct):
            return Struct(ctype.kind, ctype.name, ctype.size, lambda: self._members(ctype))
        if isinstance(ctype, Pointer):
            return Pointer(lambda: VOID if depth == _FIELD else self.cut(ctype.target, depth), ctype.size)
        if isinstance(ctype, Array):
            return Array(lambda: self.cut(ctype.element, depth), ctype.count)
        if isinstance(ctype, Typedef):
            return Typedef(ctype.name, lambda: self.cut(ctype.target, depth))
        if isinstance(ctype, Qualified):
            return Qualified(ctype.name, lambda: self.cut(ctype.target, depth))
        if isinstance(ctype, FuncProto):
            return FuncProto(
                lambda: self.cut(ctype.result, depth),
                lambda: tuple(Param(p.name, self.cut(p.ctype, depth)) for p in ctype.params),
                ctype.variadic,
            )
        return ctype

    def _members(self, ctype: Struct) -> tuple[Member, ...]:
        depth = _WHOLE if ctype in self._whole else _FIELD
        kept = [ctype.members[index] for index in sorted(self._used.get(ctype, ()))]
        return tuple(Member(m.name, self.cut(m.ctype, depth), m.offset_bits, m.width_bits) for m in kept)

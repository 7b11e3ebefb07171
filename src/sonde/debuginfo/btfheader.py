"""All types of a BTF as one C header that compiles: in an order in which everything is known before it is used, each name once.

What lies in a type by value comes before it; what a pointer leads to is declared only (`struct x;`). Types of one name, and enumerators of one name, get
a number behind it (`name___2`), as bpftool gives them. The definitions are those of `btfdump`. Walks with a stack of its own: kernel types nest deep.
"""

from __future__ import annotations

from ..errors import FormatError
from .btfdump import definition
from .ctype import Array, Enum, Forward, FuncProto, Pointer, Qualified, Struct, Typedef

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from .btf import Btf
    from .ctype import CType

    Step = tuple[str, CType]

_BUILTIN = frozenset(["__builtin_va_list"])  # typedefs that compilers have themselves


def iter_header(btf: Btf) -> Iterator[str]:
    """Yield the declarations and definitions of all named types, and of enumerations without a name. Names in `btf` are made unique.

    Raises FormatError for corrupt BTF; a type that C cannot express is a comment.
    """
    writer = _Header()
    types = []
    for ident in range(1, btf.count_types() + 1):
        if btf.kind_of(ident) in ("struct", "union", "enum", "enum64", "fwd", "typedef"):
            types.append(btf.type_by_id(ident))
    for ctype in types:
        writer.name(ctype)
    seen: set[CType] = set()
    inside = {ctype for each in types for ctype in _iter_inside(each, seen)}
    for ctype in types:
        if ctype.name or (isinstance(ctype, Enum) and ctype not in inside):
            yield from writer.write(ctype)


def _iter_inside(ctype: CType, seen: set[CType]) -> Iterator[CType]:
    """Yield the enumerations without a name whose text stands inside a type's. What was `seen` is not looked into again."""
    parts = [member.ctype for member in ctype.members] if isinstance(ctype, Struct) else []
    queue = [*parts, ctype.target] if isinstance(ctype, Typedef) else parts
    while queue:
        each = queue.pop()
        if each in seen:
            continue
        seen.add(each)
        if isinstance(each, FuncProto):
            queue += [each.result, *(param.ctype for param in each.params)]
        elif isinstance(each, (Pointer, Qualified, Array)):
            queue.append(each.target)
        elif isinstance(each, Enum) and not each.name:
            yield each


class _Header:
    """One header in the making. `state` of a type: "open" as long as its parts are being written, then "defined"."""

    def __init__(self) -> None:
        self.state: dict[CType, str] = {}
        self.named: dict[tuple[str, str], int] = {}
        self.forwards: set[tuple[str, str]] = set()
        self.seen: set[Step] = set()
        self.complete: set[CType] = set()  # typedefs that were used by value
        self.alone = False

    def name(self, ctype: CType) -> None:
        """Make a type's name, and its enumerators' names, unique."""
        space = "" if isinstance(ctype, Typedef) else "tag"
        if ctype.name and not isinstance(ctype, Forward):
            ctype.name = self._unique(space, ctype.name)
        if isinstance(ctype, Enum):
            ctype.values = {self._unique("", name): value for name, value in ctype.values.items()}

    def _unique(self, space: str, name: str) -> str:
        count = self.named[space, name] = self.named.get((space, name), 0) + 1
        return f"{name}___{count}" if count > 1 else name

    def write(self, root: CType) -> Iterator[str]:
        """Yield a type with all that has to stand before it."""
        self.alone = isinstance(root, Enum)  # the root; others without a name stand where they are used
        stack: list[Step] = [("define", root)]
        while stack:
            what, ctype = step = stack.pop()
            if isinstance(ctype, (Pointer, Qualified, Array, FuncProto)):
                if step in self.seen:  # what it leads to stands already; a corrupt one leads to itself
                    continue
                self.seen.add(step)
            if what == "text":
                self.state[ctype] = "defined"
                yield from self._text(ctype)
            elif what == "declare":
                yield from self._declare(ctype, stack)
            elif what == "mention" and isinstance(ctype, Typedef):
                self._mention(ctype, stack)
            else:
                self._define(ctype, stack)

    def _declare(self, ctype: CType, stack: list[Step]) -> Iterator[str]:
        """What must stand before a pointer to a type."""
        if isinstance(ctype, (Struct, Forward)) and ctype.name:
            tag = _keyword(ctype), ctype.name
            if tag not in self.forwards and self.state.get(ctype) != "defined":
                self.forwards.add(tag)
                yield f"{tag[0]} {tag[1]};"
            return
        if isinstance(ctype, Typedef):
            self._mention(ctype, stack)
        elif isinstance(ctype, Qualified):
            stack.append(("declare", ctype.target))
        else:
            self._define(ctype, stack)

    def _define(self, ctype: CType, stack: list[Step]) -> None:
        """What must stand before a type is used by value, and the type itself."""
        if isinstance(ctype, (Pointer, Qualified, Array, FuncProto)):
            self._push_parts(ctype, stack)
        elif isinstance(ctype, Typedef):
            if ctype not in self.complete:  # a corrupt one may lead to itself
                self.complete.add(ctype)
                stack += [("define", ctype.target), ("mention", ctype)]
        elif isinstance(ctype, Forward):
            if ctype.name:
                stack.append(("declare", ctype))
        elif isinstance(ctype, (Struct, Enum)) and not self.state.get(ctype):
            self.state[ctype] = "open"
            if ctype.name or (isinstance(ctype, Enum) and self.alone):
                stack.append(("text", ctype))
            if isinstance(ctype, Struct):
                stack += [("define", member.ctype) for member in reversed(ctype.members)]

    def _mention(self, ctype: Typedef, stack: list[Step]) -> None:
        """A typedef, with what must stand before it: of a struct with a name the declaration only."""
        if self.state.get(ctype):
            return
        self.state[ctype] = "open"
        named = isinstance(ctype.target, (Struct, Forward)) and ctype.target.name
        stack += [("text", ctype), ("declare" if named else "define", ctype.target)]

    def _push_parts(self, ctype: CType, stack: list[Step]) -> None:
        if isinstance(ctype, Pointer):
            stack.append(("declare", ctype.target))
        elif isinstance(ctype, (Qualified, Array)):
            stack.append(("define", ctype.target))
        elif isinstance(ctype, FuncProto):
            stack += [("declare", each) for each in (*(p.ctype for p in ctype.params), ctype.result)]

    def _text(self, ctype: CType) -> Iterator[str]:
        if isinstance(ctype, Typedef) and ctype.name in _BUILTIN:
            return
        if isinstance(ctype, Enum) and not ctype.values:
            return  # C has no enumeration without constants
        try:
            yield definition(ctype)
        except FormatError as error:
            yield f"/* {_keyword(ctype)} {ctype.name}: {error.message} */"


def _keyword(ctype: CType) -> str:
    if isinstance(ctype, (Struct, Forward)):
        return ctype.kind
    return "enum" if isinstance(ctype, Enum) else "typedef"

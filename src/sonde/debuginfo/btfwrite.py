"""C types to BTF: what `Btf` decodes, the other way round. Equal types are written once.

Every type that is reached becomes a node: words, names, and references to other nodes. Two nodes are the same type when their words and names
are equal and their references lead to the same types. Types are recursive, so that is found from above: nodes are first sorted by what they say
themselves, and then apart by where they lead, until nothing changes (the partition refinement that minimises automata, Hopcroft 1971). What is left
together is written once, in the order in which it was added. Nothing recurses: the kernel's types nest thousands deep.

A declaration without a body (`struct x;`) is the same as the definition of that name, where all definitions of the name are one type: first taken as
such, and parted again when the definitions part. Variables and sections are never merged: two static variables may look alike.

Follows Documentation/bpf/btf.rst. An enumeration of 64-bit values needs Linux 6.0 to load, a type tag 5.17, a float 5.13.
"""

from __future__ import annotations

from array import array
from struct import Struct as Layout

from ..errors import FormatError
from .ctype import Array, Enum, Float, Forward, FuncProto, Int, Pointer, Qualified, Struct, Typedef, Void

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import Any, Union

    from .btf import Btf
    from .ctype import CType

    # A node's record: words, names (str), and references to nodes (a tuple of one; () is void).
    Item = Union[int, str, tuple[int], tuple[()]]
    Entry = list[Item]

_INT, _PTR, _ARRAY, _STRUCT, _UNION, _ENUM, _FWD, _TYPEDEF, _VOLATILE, _CONST, _RESTRICT = range(1, 12)
_FUNC, _FUNC_PROTO, _VAR, _DATASEC, _FLOAT, _DECL_TAG, _TYPE_TAG, _ENUM64 = range(12, 20)
_QUALIFIERS = {"volatile": _VOLATILE, "const": _CONST, "restrict": _RESTRICT}
_HEADER = Layout("<HBBIIIII")
_MAGIC = 0xEB9F
_FLAG = 1 << 31
_MOST_ENTRIES = 0xFFFF  # of one type: the field has 16 bits
_INDEX = Int("__ARRAY_SIZE_TYPE__", 4, False)
STATIC, GLOBAL, EXTERN = 0, 1, 2  # linkage of functions and variables


class BtfWriter:
    """Collects types, functions, variables and strings; `build` gives the bytes, `ident` the numbers in them."""

    def __init__(self, base: Btf | None = None) -> None:
        """With `base`, the result is split BTF: types and strings that the base has are those of the base."""
        self.base = base
        self._based: dict[int, int] = {}  # numbers of nodes that are types of the base
        self._records: list[Entry] = []
        self._nodes: dict[CType, int] = {}
        self._waiting: list[tuple[int, CType]] = []
        self._strings = bytearray(b"" if base is not None else b"\0")
        self._offsets: dict[str, int] = {"": 0}
        self._idents: list[int] = []

    # adding -----------------------------------------------------------------------------------------------------

    def add(self, ctype: CType) -> int:
        """Add a type with all that it refers to; return its node, for the other methods and for `ident`. Raises FormatError.

        void has the node -1.
        """
        node = self._node(ctype)
        while self._waiting:
            place, waiting = self._waiting.pop()
            self._records[place] = _find_encoder(waiting)(self, waiting)
        return node

    def add_function(self, name: str, proto: CType, linkage: int = STATIC) -> int:
        """Add a function of this prototype."""
        return self._new(_record(_FUNC, name, _ref(self.add(proto)), entries=linkage))

    def add_variable(self, name: str, ctype: CType, linkage: int = GLOBAL) -> int:
        """Add a variable."""
        return self._new([*_record(_VAR, name, _ref(self.add(ctype))), linkage])

    def add_section(self, name: str, size: int, variables: Sequence[tuple[int, int, int]]) -> int:
        """Add a section of variables or functions: (node, offset in bytes, size in bytes) of each, sorted by offset."""
        record = _record(_DATASEC, name, size, entries=len(variables))
        for node, offset, extent in variables:
            record += (_ref(node), offset, extent)
        return self._new(record)

    def add_tag(self, name: str, node: int, component: int = -1) -> int:
        """Add a declaration tag for a struct, union, variable, function or typedef (-1), or one of its members or parameters."""
        return self._new([*_record(_DECL_TAG, name, _ref(node)), component & 0xFFFFFFFF])

    def string(self, text: str) -> int:
        """Return the offset of `text` in the string section; it is added where it is new."""
        offset = self._offsets.get(text)
        if offset is None:
            offset = self.base.find_string(text) if self.base is not None else -1
            if offset < 0:
                offset = len(self._strings) + (self.base.strings_end if self.base is not None else 0)
                self._strings += text.replace("\0", "").encode("utf-8", "replace") + b"\0"
            self._offsets[text] = offset
        return offset

    def reserve(self, count: int) -> range:
        """Add nodes whose records will be `put`, for types that refer to each other; one without a record is not written."""
        start = len(self._records)
        self._records += [[] for _ in range(count)]
        return range(start, start + count)

    def put(self, node: int, record: Entry) -> None:
        """Give a node its record: name, info word, size or type, entries."""
        self._records[node] = record

    def based(self, ident: int) -> int:
        """Return the node that stands for type `ident` of the base. Raises FormatError where there is none."""
        if self.base is None:
            raise FormatError("split BTF needs its base")
        self.base.kind_of(ident)
        node = self._new([ident])  # shorter than any record, so that it is never taken for one
        self._based[node] = ident
        return node

    def _new(self, record: Entry) -> int:
        self._records.append(record)
        return len(self._records) - 1

    def _node(self, ctype: CType) -> int:
        if isinstance(ctype, Void):
            return -1
        node = self._nodes.get(ctype)
        if node is None:
            _find_encoder(ctype)
            node = self._nodes[ctype] = self._new([])
            self._waiting.append((node, ctype))
        return node

    def ref(self, ctype: CType) -> Item:
        """Return what stands for a type in a record."""
        return _ref(self._node(ctype))

    # writing ----------------------------------------------------------------------------------------------------

    def ident(self, node: int) -> int:
        """Return the number of a node's type, once `build` was called."""
        return self._idents[node] if node >= 0 else 0

    def build(self) -> bytes:
        """Return the BTF of all that was added."""
        classes, forwards = _classes(self._records)
        known = {classes[node]: ident for node, ident in self._based.items()}
        if self.base is not None:
            from .btfsplit import find_in_base

            known = find_in_base(self._records, classes, forwards, known, self.base)
        numbers = dict(known)
        following = self.base.count_types() if self.base is not None else 0
        chosen = []
        for node, each in enumerate(classes):
            if each not in numbers and node not in forwards and self._records[node]:
                following += 1
                numbers[each] = following
                chosen.append(node)
        self._idents = [numbers.get(each, 0) for each in classes]
        types = array("I")
        for node in chosen:
            types.extend(self._word(item) for item in self._records[node])
        body = types.tobytes()
        sizes = (len(body), len(body), len(self._strings))
        return _HEADER.pack(_MAGIC, 1, 0, _HEADER.size, 0, *sizes) + body + bytes(self._strings)

    def _word(self, item: Item) -> int:
        if isinstance(item, int):
            return item
        if isinstance(item, str):
            return self.string(item)
        return self._idents[item[0]] if item else 0


def encode(types: Sequence[CType]) -> tuple[bytes, list[int]]:
    """Return BTF that holds `types` and all that they refer to, and the number of each. Raises FormatError."""
    writer = BtfWriter()
    nodes = [writer.add(each) for each in types]
    data = writer.build()
    return data, [writer.ident(node) for node in nodes]


def _classes(records: list[Entry]) -> tuple[list[int], dict[int, int]]:
    """Return a number for each node, equal for equal types, and the definitions that declarations without a body stand for."""
    forwards = _find_forwards(records)
    while True:
        classes = _refine(records, forwards)
        apart = _find_apart(records, classes, forwards)
        if not apart:
            return classes, forwards
        forwards = {node: to for node, to in forwards.items() if _defined(records[to]) not in apart}


def _refine(records: list[Entry], forwards: dict[int, int]) -> list[int]:
    """Part the nodes by what they say, and then by where they lead, until nothing changes.

    In each round only those are looked at that lead to a node whose class was new in the round before; of a class that parts, the largest piece keeps its
    number. So a chain of n pointers takes n steps, not n rounds over all nodes.
    """
    refs = [[forwards.get(i[0], i[0]) for i in record if isinstance(i, tuple) and i] for record in records]
    users: list[list[int]] = [[] for _ in records]
    for node, targets in enumerate(refs):
        for target in targets:
            users[target].append(node)
    seen: dict[tuple[object, ...], int] = {}
    classes = [seen.setdefault(_plain(node, record), len(seen)) for node, record in enumerate(records)]
    members: list[set[int]] = [set() for _ in seen]
    for node, each in enumerate(classes):
        members[each].add(node)
    looked_at = {node for node, targets in enumerate(refs) if targets}
    while looked_at:
        moved = [group for each in _by_class(looked_at, classes) for group in _part(each, members, classes, refs)]
        looked_at = set()
        for group in moved:
            members[classes[group[0]]].difference_update(group)
            for node in group:
                classes[node] = len(members)
                looked_at.update(users[node])
            members.append(set(group))
    for node, definition in forwards.items():
        classes[node] = classes[definition]
    return classes


def _plain(node: int, record: Entry) -> tuple[object, ...]:
    """What a node says itself."""
    return (_first_class(node, record), *(bool(item) if isinstance(item, tuple) else (item,) for item in record))


def _by_class(nodes: set[int], classes: list[int]) -> Iterator[list[int]]:
    grouped: dict[int, list[int]] = {}
    for node in nodes:
        grouped.setdefault(classes[node], []).append(node)
    yield from grouped.values()


def _part(nodes: list[int], members: list[set[int]], classes: list[int], refs: list[list[int]]) -> Iterator[list[int]]:
    """Yield the groups that leave a class: some of its nodes lead elsewhere than the rest, which is not looked at and leads to one place."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for node in nodes:
        groups.setdefault(tuple([classes[target] for target in refs[node]]), []).append(node)
    whole = members[classes[nodes[0]]]
    if len(nodes) < len(whole):
        other = _find_other(whole, set(nodes))
        groups.pop(tuple([classes[target] for target in refs[other]]), None)
    else:
        groups.pop(max(groups, key=lambda key: len(groups[key])))
    yield from groups.values()


def _find_other(whole: set[int], nodes: set[int]) -> int:
    """Return one of a class that is not among some of its nodes. By `pop`, since iterating over a set that was emptied from its start takes long."""
    popped = []
    while True:
        popped.append(whole.pop())
        if popped[-1] not in nodes:
            whole.update(popped)
            return popped[-1]


def _first_class(node: int, record: Entry) -> int:
    info = record[1] if len(record) > 1 else 0
    unique = isinstance(info, int) and info >> 24 & 31 in (_VAR, _DATASEC)
    return node + 1 if unique else 0


def _defined(record: Entry) -> tuple[str, str] | None:
    """The keyword and the name of what a record defines, or None."""
    if len(record) < 3:
        return None
    name, info = record[0], record[1]
    if not isinstance(name, str) or not name or not isinstance(info, int):
        return None
    kind = info >> 24 & 31
    if kind in (_STRUCT, _UNION):
        return ("struct" if kind == _STRUCT else "union"), name
    return ("enum", name) if kind in (_ENUM, _ENUM64) and info & 0xFFFF else None


def _declared(record: Entry) -> tuple[str, str] | None:
    """The keyword and the name of what a record declares without a body, or None."""
    if len(record) != 3:
        return None
    name, info = record[0], record[1]
    if not isinstance(name, str) or not name or not isinstance(info, int):
        return None
    if info >> 24 & 31 == _FWD:
        return ("union" if info & _FLAG else "struct"), name
    return ("enum", name) if info >> 24 & 31 == _ENUM and not info & 0xFFFF else None


def _find_forwards(records: list[Entry]) -> dict[int, int]:
    """Return the first definition of the same name for each node that declares only."""
    declared = {node: what for node, record in enumerate(records) if (what := _declared(record))}
    if not declared:
        return {}
    defined: dict[tuple[str, str], int] = {}
    for node, record in enumerate(records):
        what = _defined(record)
        if what is not None:
            defined.setdefault(what, node)
    return {node: defined[what] for node, what in declared.items() if what in defined}


def _find_apart(records: list[Entry], classes: list[int], forwards: dict[int, int]) -> set[tuple[str, str] | None]:
    """Return what was declared, and is defined in several ways."""
    asked = {_defined(records[to]): classes[to] for to in forwards.values()}
    apart = set()
    for node, record in enumerate(records) if asked else ():
        what = _defined(record)
        if what in asked and classes[node] != asked[what]:
            apart.add(what)
    return apart


def _ref(node: int) -> Item:
    return (node,) if node >= 0 else ()


def _record(kind: int, name: str, third: Item, *, entries: int = 0, flag: bool = False) -> Entry:
    if entries > _MOST_ENTRIES:
        raise FormatError(f"BTF cannot describe {name or 'a type'} with {entries} members, {_MOST_ENTRIES} at most")
    return [name, kind << 24 | entries | (_FLAG if flag else 0), third]


# Encoders: one for each class of type ----------------------------------------------------------------------------


def _int(writer: BtfWriter, ctype: Int) -> Entry:
    encoding = {"bool": 4, "char": 2 if ctype.name != "char" else 0}.get(ctype.encoding, 0) | ctype.signed
    return [*_record(_INT, ctype.name, ctype.size), encoding << 24 | ctype.size * 8]


def _float(writer: BtfWriter, ctype: Float) -> Entry:
    return _record(_FLOAT, ctype.name, ctype.size)


def _pointer(writer: BtfWriter, ctype: Pointer) -> Entry:
    target = writer.ref(ctype.target)
    if ctype.tag:
        target = _ref(writer._new(_record(_TYPE_TAG, ctype.tag, target)))
    return _record(_PTR, "", target)


def _array(writer: BtfWriter, ctype: Array) -> Entry:
    return [*_record(_ARRAY, "", 0), writer.ref(ctype.element), writer.ref(_INDEX), ctype.count]


def _struct(writer: BtfWriter, ctype: Struct) -> Entry:
    members = ctype.members
    if ctype.kind == "datasec":
        return _section(writer, ctype)
    flag = any(member.width_bits for member in members)
    record = _record(
        _STRUCT if ctype.kind == "struct" else _UNION, ctype.name, ctype.size, entries=len(members), flag=flag
    )
    for member in members:
        if flag and (member.offset_bits >= 1 << 24 or member.width_bits >= 1 << 8):
            raise FormatError(
                f"BTF cannot describe the bit-field at bit {member.offset_bits} of {ctype.kind} {ctype.name}"
            )
        record += (member.name, writer.ref(member.ctype), member.offset_bits | member.width_bits << 24)
    return record


def _section(writer: BtfWriter, ctype: Struct) -> Entry:
    from .ctype import sizeof

    record = _record(_DATASEC, ctype.name, ctype.size, entries=len(ctype.members))
    for member in ctype.members:
        variable = writer._new([*_record(_VAR, member.name, writer.ref(member.ctype)), GLOBAL])
        record += (_ref(variable), member.offset, sizeof(member.ctype))
    return record


def _enum(writer: BtfWriter, ctype: Enum) -> Entry:
    wide = ctype.size == 8 or any(not -1 << 31 <= value < 1 << 32 for value in ctype.values.values())
    kind = _ENUM64 if wide else _ENUM
    record = _record(kind, ctype.name, ctype.size, entries=len(ctype.values), flag=ctype.signed)
    for name, value in ctype.values.items():
        record += (name, value & 0xFFFFFFFF)
        if wide:
            record.append(value >> 32 & 0xFFFFFFFF)
    return record


def _forward(writer: BtfWriter, ctype: Forward) -> Entry:
    if ctype.kind == "enum":
        return _record(_ENUM, ctype.name, 4)  # no enumerators: that is how compilers declare one
    return _record(_FWD, ctype.name, 0, flag=ctype.kind == "union")


def _typedef(writer: BtfWriter, ctype: Typedef) -> Entry:
    return _record(_TYPEDEF, ctype.name, writer.ref(ctype.target))


def _qualified(writer: BtfWriter, ctype: Qualified) -> Entry:
    kind = _QUALIFIERS.get(ctype.name)
    if kind is None:
        return _record(_TYPE_TAG, ctype.name, writer.ref(ctype.target))
    return _record(kind, "", writer.ref(ctype.target))


def _prototype(writer: BtfWriter, ctype: FuncProto) -> Entry:
    record = _record(_FUNC_PROTO, "", writer.ref(ctype.result), entries=len(ctype.params) + ctype.variadic)
    for param in ctype.params:
        record += (param.name, writer.ref(param.ctype))
    return [*record, "", ()] if ctype.variadic else record


def _find_encoder(ctype: CType) -> Callable[[BtfWriter, Any], Entry]:
    for each in type(ctype).__mro__:  # front ends have structs of their own
        if each in _ENCODERS:
            return _ENCODERS[each]
    raise FormatError(f"BTF has no types of the kind {type(ctype).__name__}")


_ENCODERS: dict[type[CType], Callable[[BtfWriter, Any], Entry]] = {
    Int: _int,
    Float: _float,
    Pointer: _pointer,
    Array: _array,
    Struct: _struct,
    Enum: _enum,
    Forward: _forward,
    Typedef: _typedef,
    Qualified: _qualified,
    FuncProto: _prototype,
}

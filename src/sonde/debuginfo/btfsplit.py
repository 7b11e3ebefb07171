"""Split BTF: which types of a `BtfWriter` the base has already, so that they are not written again.

Types with a name are looked for by it, and followed with all that they refer to: where both sides say the same until they come back to a pair that is
being compared, all pairs on the way are the same types. What has no name (pointers, arrays, prototypes) is the same where it leads to the same types.
Not found: structs without a name that nothing with a name contains. They are written again, which costs room only.
"""

from __future__ import annotations

from .btf import KINDS
from .btfrecords import read_record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from .btf import Btf
    from .btfwrite import Entry

    Pair = tuple[int, int]  # a class of nodes, and a type of the base

_ARRAY, _STRUCT, _UNION, _FWD, _FUNC, _FUNC_PROTO = 3, 4, 5, 7, 12, 13
_NAMED = frozenset([1, 4, 5, 6, 7, 8, 12, 16, 19])
_LEADING = frozenset([2, 3, 9, 10, 11, 13, 17, 18])  # pointers, arrays, qualifiers, prototypes, tags
_PAIRS_LIMIT = 1 << 18


def find_in_base(
    records: list[Entry], classes: list[int], forwards: dict[int, int], known: dict[int, int], base: Btf
) -> dict[int, int]:
    """Return the number in the base of each class of nodes that it has; `known` are those that are so by themselves."""
    search = _Search(base, known)
    for node, record in enumerate(records):
        if node not in forwards and len(record) > 1:
            search.records.setdefault(classes[node], _by_class(record, classes))
    for each in search.records:
        search.find_named(each)
    search.find_leading()
    return search.same


def _by_class(record: Entry, classes: list[int]) -> Entry:
    return _without_index([(classes[item[0]],) if isinstance(item, tuple) and item else item for item in record])


def _without_index(record: Entry) -> Entry:
    """An array's type of index says nothing, and compilers have different ones."""
    info = record[1]
    if isinstance(info, int) and info >> 24 & 31 == _ARRAY:
        record[4] = ()
    return record


class _Search:
    """One comparison of new types with those of a base."""

    def __init__(self, base: Btf, known: dict[int, int]) -> None:
        self.base = base
        self.records: dict[int, Entry] = {}
        self.same = dict(known)
        self._read: dict[int, Entry] = {}
        self._functions: dict[int, list[int]] | None = None

    def theirs(self, ident: int) -> Entry:
        """Return a record of the base; references are numbers of types."""
        found = self._read.get(ident)
        if found is None:
            base = self.base
            found = read_record(base.record(ident), base.string_at, lambda word: (word,) if word else ())
            self._read[ident] = found = _without_index(found)
        return found

    def find_named(self, each: int) -> None:
        """Look for a type by its name."""
        record = self.records[each]
        name, info = record[0], record[1]
        if not isinstance(name, str) or not name or not isinstance(info, int) or each in self.same:
            return
        for ident in self._candidates(name, info):
            found = self.compare(each, ident)
            if found is not None:
                self.same.update(found)
                return

    def _candidates(self, name: str, info: int) -> Iterator[int]:
        kind = info >> 24 & 31
        if kind not in _NAMED:
            return
        if kind == _FUNC:
            if self._functions is None:
                self._functions = self._list_functions()
            yield from self._functions.get(self.base.find_string(name), ())
            return
        kinds = [("union" if info >> 31 else "struct")] if kind == _FWD else []
        for each in (*kinds, "enum" if KINDS[kind].startswith("enum") else KINDS[kind]):
            yield from (ident for ident in self.base.find_namesakes(name, each) if self.base.get_name(ident) == name)

    def _list_functions(self) -> dict[int, list[int]]:
        """The base's functions by the place of their names: a search for each costs as much as this."""
        found: dict[int, list[int]] = {}
        for ident in range(1, self.base.count_types() + 1):
            if self.base.kind_of(ident) == "func":
                found.setdefault(self.base.record(ident)[0], []).append(ident)
        return found

    def compare(self, each: int, ident: int) -> dict[int, int] | None:
        """Compare a class with a type of the base; return all pairs that are the same with it, or None."""
        pairs = {each: ident}
        queue = [(each, ident)]
        while queue:
            ours, number = queue.pop()
            mine, their = self.records.get(ours), self.theirs(number)
            if mine is None:
                return None
            if _is_declared(mine, their):
                continue
            if len(mine) != len(their):
                return None
            for item, other in zip(mine, their):
                if not isinstance(item, tuple) or not isinstance(other, tuple):
                    if item != other:
                        return None
                    continue
                if bool(item) != bool(other) or len(pairs) > _PAIRS_LIMIT:
                    return None
                if item and other:
                    have = self.same.get(item[0], pairs.get(item[0]))
                    if have is not None and have != other[0]:
                        return None
                    if have is None:
                        pairs[item[0]] = other[0]
                        queue.append((item[0], other[0]))
        return pairs

    def find_leading(self) -> None:
        """Look for types without a name that lead to what was found; what leads to them is looked at again."""
        users: dict[int, list[int]] = {}
        for each, record in self.records.items():
            for target in _targets(record) if _kind(record) in _LEADING else ():
                users.setdefault(target, []).append(each)
        queue = [each for each, record in self.records.items() if _kind(record) in _LEADING]
        index = self._make_index() if queue else {}
        while queue:
            each = queue.pop()
            record = self.records[each]
            if each in self.same or any(target not in self.same for target in _targets(record)):
                continue
            key = tuple((self.same[i[0]],) if isinstance(i, tuple) and i else i for i in record)
            for number in index.get(_short(key), []):
                if tuple(self.theirs(number)) == key:
                    self.same[each] = number
                    queue += users.get(each, ())
                    break

    def _make_index(self) -> dict[tuple[object, ...], list[int]]:
        """The base's types without a name, by what they lead to; names of parameters are left out."""
        index: dict[tuple[object, ...], list[int]] = {}
        base = self.base
        for ident in range(1, base.count_types() + 1):
            words = base.record(ident)
            if words[1] >> 24 & 31 in _LEADING:
                index.setdefault(_numbers(words), []).append(ident)
        return index


def _kind(record: Entry) -> int:
    info = record[1]
    return info >> 24 & 31 if isinstance(info, int) else 0


def _targets(record: Entry) -> list[int]:
    return [item[0] for item in record if isinstance(item, tuple) and item]


def _is_declared(mine: Entry, their: Entry) -> bool:
    """Whether ours is a declaration of what the base defines."""
    info, other = mine[1], their[1]
    if not isinstance(info, int) or not isinstance(other, int) or info >> 24 & 31 != _FWD or mine[0] != their[0]:
        return False
    return other >> 24 & 31 == (_UNION if info >> 31 else _STRUCT)


def _short(key: tuple[object, ...]) -> tuple[object, ...]:
    """The same as `_numbers`, of a record of ours."""
    plain = [0 if isinstance(item, str) else item[0] if isinstance(item, tuple) and item else item for item in key]
    return tuple(0 if item == () else item for item in plain)


def _numbers(words: tuple[int, ...]) -> tuple[object, ...]:
    if words[1] >> 24 & 31 == _FUNC_PROTO:
        return (0, *words[1:3], *(word if at % 2 else 0 for at, word in enumerate(words[3:])))
    if words[1] >> 24 & 31 == _ARRAY:
        return (0, *words[1:4], 0, words[5])
    return (0, *words[1:])

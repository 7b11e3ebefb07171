"""What two halves of an object have, as one: maps that follow spec.engine.Map, and a reader of two rings in the order of time.

Which map becomes what: `merge_maps`.
"""

from __future__ import annotations

import select
import time

from ..spec.object import STAMP_NS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from ..spec.engine import Map, Reader
    from ..spec.object import ObjectSpec

    Handler = Callable[[memoryview, int, int], object]

_WRAP = 1 << 32
_AHEAD = (
    1 << 24
)  # stamps that are up to a second ahead are of the future; all others of the past, which may be minutes ago when sonde was stopped
_STAMP_AT, _STAMP_END = 4, 8


def merge_maps(
    spec: ObjectSpec, one: Mapping[str, Map], other: Mapping[str, Map], views: frozenset[str]
) -> dict[str, Map]:
    """Return the maps of an object of which each half has some. `views` are those whose values `other` has, of scalars that are not per-CPU."""
    merged: dict[str, Map] = {**other, **one}
    for each in spec.maps:
        if each.name not in one or each.name not in other:
            continue
        both = one[each.name], other[each.name]
        mine = [view for view in spec.views if view.map == each.name]
        if each.name == spec.lost or any(view.per_cpu for view in mine):
            merged[each.name] = Copies(*both)
        elif mine or each.name == "globals":
            spans = [(view.offset, view.value.size) for view in mine if view.name in views]
            spans += [(view.set_offset, 1) for view in mine if view.name in views and view.set_offset >= 0]
            merged[each.name] = Overlay(*both, spans)
        else:
            merged[each.name] = FirstFound(*both)
    return merged


class Pair:
    """Two maps of one shape. What is removed is removed from both."""

    def __init__(self, one: Map, other: Map) -> None:
        self.both = one, other

    def lookup(self, key: bytes) -> list[bytes] | None:
        """Return what is at `key`."""
        raise NotImplementedError

    def update(self, key: bytes, value: bytes, flags: int = 0) -> None:
        """Store `value` in both."""
        for each in self.both:
            each.update(key, value, flags)

    def update_each(self, key: bytes, values: Sequence[bytes]) -> None:
        """Store the values that a lookup gave, changed."""
        one, other = self.both
        first = len(one.lookup(key) or ())
        if values[:first]:
            one.update_each(key, values[:first])
        if values[first:]:
            other.update_each(key, values[first:])

    def delete(self, key: bytes) -> bool:
        """Remove `key`; False when it was absent."""
        one, other = (each.delete(key) for each in self.both)
        return one or other

    def items(self) -> Iterator[tuple[bytes, list[bytes]]]:
        """Yield all entries."""
        keys = dict.fromkeys(key for each in self.both for key, _ in each.items())
        for key in keys:
            values = self.lookup(key)
            if values is not None:
                yield key, values

    def close(self) -> None:
        """The halves close their maps."""


class Copies(Pair):
    """The copies that one has of a value, and behind them those that the other has."""

    def lookup(self, key: bytes) -> list[bytes] | None:
        found = [each.lookup(key) for each in self.both]
        return None if found == [None, None] else [value for values in found for value in values or ()]

    def items(self) -> Iterator[tuple[bytes, list[bytes]]]:
        found: dict[bytes, list[bytes]] = {}
        for each in self.both:
            for key, values in each.items():
                found.setdefault(key, []).extend(values)
        yield from found.items()

    def update(self, key: bytes, value: bytes, flags: int = 0) -> None:
        """Store `value` in each copy that there is; in all when there is none."""
        having = [each for each in self.both if each.lookup(key) is not None]
        for each in having or self.both:
            each.update(key, value, flags)


class FirstFound(Pair):
    """Entries that are equal in both where both have them: captured stacks by their hash."""

    def lookup(self, key: bytes) -> list[bytes] | None:
        one, other = self.both
        found = one.lookup(key)
        return other.lookup(key) if found is None else found


class Overlay(Pair):
    """An array whose bytes at `spans` (offset, size) are the other's."""

    def __init__(self, one: Map, other: Map, spans: Sequence[tuple[int, int]]) -> None:
        super().__init__(one, other)
        self._spans = list(spans)

    def lookup(self, key: bytes) -> list[bytes] | None:
        one, other = (each.lookup(key) for each in self.both)
        if not one or not other:
            return one or other
        data = bytearray(one[0])
        for offset, size in self._spans:
            data[offset : offset + size] = other[0][offset : offset + size]
        return [bytes(data)]


class MergedReader:
    """Reads two rings whose records say when they were made (see ObjectSpec.stamped), each in its order and both in that of time.

    A record that is younger than the last look at the other ring waits for the next look.
    """

    def __init__(self, readers: Sequence[Reader], now_ns: Callable[[], int] = time.monotonic_ns) -> None:
        self._readers = list(readers)
        self._now_ns = now_ns
        self._waiting: list[list[bytes]] = [[] for _ in readers]
        self._epoll = select.epoll()
        for reader in readers:
            self._epoll.register(reader.fileno(), select.EPOLLIN)

    @property
    def waiting_bytes(self) -> int:
        """How many bytes wait in the rings, or for their turn."""
        mine = sum(len(record) for records in self._waiting for record in records)
        return mine + sum(reader.waiting_bytes for reader in self._readers)

    @property
    def lost(self) -> int:
        """Records that the readers count as lost."""
        return sum(getattr(reader, "lost", 0) for reader in self._readers)

    def fileno(self) -> int:
        """Return a descriptor that is readable when one of the rings is to be looked at."""
        return self._epoll.fileno()

    def drain(self, handle: Handler, runs: Mapping[int, Callable[[memoryview, int], bool]] | None = None) -> int:
        """Hand over the records whose turn it is; return their number."""
        now = self._now_ns() // STAMP_NS % _WRAP
        for reader, waiting in zip(self._readers, self._waiting):
            _collect(reader, waiting)
        count = 0
        for record in self._take(now):
            handle(memoryview(record), 0, len(record))
            count += 1
        return count

    def _take(self, now: int) -> list[bytes]:
        """Take out what is no younger than `now`. A ring's order stands: what is behind a younger record waits with it."""
        aged: list[tuple[int, bytes]] = []
        for number, records in enumerate(self._waiting):
            least, ready = _WRAP, 0
            ages = [_age(now, record) for record in records]
            while ready < len(ages) and ages[ready] >= 0:
                least = min(least, ages[ready])
                aged.append((-least, records[ready]))
                ready += 1
            self._waiting[number] = records[ready:]
        return [record for _, record in sorted(aged, key=lambda item: item[0])]

    def close(self) -> None:
        """Let go. The halves close their readers. Twice is harmless."""
        if not self._epoll.closed:
            self._epoll.close()


def _collect(reader: Reader, waiting: list[bytes]) -> None:
    """Put copies of what a ring holds behind what waits already."""
    reader.drain(lambda buffer, start, size: waiting.append(bytes(buffer[start : start + size])))


def _age(now: int, record: bytes) -> int:
    """How long ago a record was made, negative for one of the future, in units of stamps."""
    age = (now - int.from_bytes(record[_STAMP_AT:_STAMP_END], "little")) % _WRAP
    return age - _WRAP if age > _WRAP - _AHEAD else age

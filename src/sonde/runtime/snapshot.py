"""Live maps to snapshots: reads a view's entries, reduces them over CPUs, decodes keys and values."""

from __future__ import annotations

from ..spec.engine import Entry, Snapshot
from .decode import layout_decoder
from .reduce import AGGREGATIONS, make_histogram, reducer, zero_value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import Any

    from ..spec.engine import Map
    from ..spec.layout import Layout
    from ..spec.object import ViewSpec
    from .decode import Surroundings

_FIRST = (0).to_bytes(4, "little")


class View:
    """A ViewSpec over its live map. Decoders are made on first use and kept."""

    __slots__ = ("_around", "_key", "_map", "_value", "_zeroed", "spec")

    def __init__(self, spec: ViewSpec, live: Map, around: Surroundings) -> None:
        self.spec = spec
        self._map = live
        self._around = around
        self._key: Callable[[bytes], Any] | None = None
        self._value: Callable[[Sequence[bytes]], Any] | None = None
        self._zeroed = False  # a scalar that zero() has set shows its zero until it is cleared

    def snapshot(self, top: int = 0, div: int = 0, *, unset: bool = False) -> Snapshot:
        """Read all entries. A scalar that was never set has none; with `unset` it shows its zero value instead."""
        spec = self.spec
        if spec.key is None:
            entries = self._scalar()
            if (unset or self._zeroed) and not entries and spec.value.kind not in ("hist", "lhist", "tseries"):
                entries = (Entry(None, self._nothing),)
        elif spec.whole:
            entries = self._keyed(self._map.items())
        else:
            entries = self._bucketed(self._map.items())
        return Snapshot(spec, entries, top, div)

    def entry(self, raw_key: bytes, key: Any) -> Snapshot:
        """Read the entry of one key, whose decoded form is `key`; its zero value when it is absent."""
        spec = self.spec
        if not spec.whole:
            size = len(raw_key)
            found = [(k, v) for k, v in self._map.items() if k[:size] == raw_key]
            return Snapshot(spec, self._bucketed(found), single=True)
        values = self._map.lookup(raw_key)
        value = self._reduce(values) if values else None
        return Snapshot(spec, (Entry(key, self._nothing if value is None else value),), single=True)

    def clear(self) -> None:
        """Remove all entries; a scalar becomes unset."""
        self._zeroed = False
        if self.spec.key is None:
            self._zero_scalar(unset=True)
        else:
            for key in [key for key, _ in self._map.items()]:
                self._map.delete(key)

    def zero(self) -> None:
        """Set all values to 0 and keep the keys."""
        self._zeroed = True
        if self.spec.key is None:
            self._zero_scalar(unset=False)
            return
        nothing = b"\0" * self.spec.value.size
        for key in [key for key, _ in self._map.items()]:
            self._map.update(key, nothing)

    def _zero_scalar(self, unset: bool) -> None:
        spec = self.spec
        values = self._map.lookup(_FIRST) or []
        changed = []
        for value in values:
            data = bytearray(value)
            data[spec.offset : spec.offset + spec.value.size] = bytes(spec.value.size)
            if unset and spec.set_offset >= 0:
                data[spec.set_offset] = 0
            changed.append(bytes(data))
        if len(changed) == 1:
            self._map.update(_FIRST, changed[0])
        elif changed:
            self._map.update_each(_FIRST, changed)

    def _scalar(self) -> tuple[Entry, ...]:
        spec = self.spec
        values = self._map.lookup(_FIRST) or []
        if spec.set_offset >= 0:
            values = [value for value in values if value[spec.set_offset]]
        if not values:
            return ()
        value = self._reduce([value[spec.offset : spec.offset + spec.value.size] for value in values])
        return () if value is None else (Entry(None, value),)

    def _keyed(self, items: Iterable[tuple[bytes, list[bytes]]]) -> tuple[Entry, ...]:
        decode, reduce = self._decode_key, self._reduce
        entries = []
        for raw_key, values in items:
            if self.spec.sparse and not any(map(any, values)):
                continue
            value = reduce(values)
            entries.append(Entry(decode(raw_key), self._nothing if value is None else value))
        return tuple(entries)

    def _bucketed(self, items: Iterable[tuple[bytes, list[bytes]]]) -> tuple[Entry, ...]:
        """Collect the buckets that lie in the keys into one histogram for each key before them."""
        spec = self.spec
        groups: dict[bytes, list[tuple[int, int]]] = {}
        for raw_key, values in items:
            bucket = int.from_bytes(raw_key[spec.bucket_offset :], "little")
            count = sum(int.from_bytes(value[:8], "little") for value in values)
            groups.setdefault(raw_key[: spec.bucket_offset], []).append((bucket, count))
        entries = []
        for raw_key, buckets in groups.items():
            value = make_histogram(spec.value, tuple(sorted(b for b in buckets if b[1])))
            if value is not None:
                entries.append(Entry(self._decode_key(raw_key), value))
        return tuple(entries)

    @property
    def _nothing(self) -> Any:
        """What shows where there is no value, or nothing was added to it since zero()."""
        layout = self.spec.value
        if layout.kind in AGGREGATIONS:
            return zero_value(layout)
        return layout_decoder(layout, self._around)(bytes(layout.size))

    def _decode_key(self, raw: bytes) -> Any:
        if self._key is None:
            assert self.spec.key is not None
            self._key = layout_decoder(self.spec.key, self._around)
        return self._key(raw)

    def _reduce(self, values: Sequence[bytes]) -> Any:
        if self._value is None:
            layout = self.spec.value
            if layout.kind in AGGREGATIONS:
                self._value = reducer(layout, self._around.clocks)
            else:
                self._value = self._plain_reducer(layout)
        return self._value(values)

    def _plain_reducer(self, layout: Layout) -> Callable[[Sequence[bytes]], Any]:
        """Return what makes one value of those of all CPUs, where the layout does not say: the sum of integers, else a tuple."""
        per_cpu = self.spec.per_cpu
        if per_cpu and layout.kind == "array" and not layout.count and layout.element is not None:
            each = layout_decoder(layout.element, self._around)
            return lambda values: tuple(map(each, values))
        decode = layout_decoder(layout, self._around)
        if per_cpu and layout.kind == "int":
            return lambda values: sum(map(decode, values))
        return lambda values: decode(values[0])

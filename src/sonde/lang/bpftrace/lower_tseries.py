"""tseries(): a ring of intervals, each a slot of 24 bytes: epoch, value, number (see spec.layout)."""

from __future__ import annotations

from ...compiler.ir import I64, Const
from .stype import TSeries

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...compiler.ir import Value
    from .lower_frame import Frame
    from .lower_unit import MapPlace

SLOT_BYTES = 24


def add_to_series(f: Frame, pointer: Value, number: Value, place: MapPlace) -> None:
    """Put a number into the slot of the current interval; an older epoch there is over."""
    from .lower_aggregations import keep_within
    from .lower_builtins import clock

    series = place.value
    assert isinstance(series, TSeries)
    b = f.b
    now = clock(f, "tai")
    epoch = b.binary("udiv", now, series.interval_ns)
    index = (
        keep_within(f, b.binary("umod", epoch, series.buckets), series.buckets - 1) if series.buckets > 1 else Const(0)
    )
    slot = b.ptradd(pointer, b.binary("mul", index, SLOT_BYTES))
    same, fresh, done = b.new_block("same"), b.new_block("fresh"), b.new_block("done")
    in_use, current = b.new_block("used"), b.load(I64, slot)
    b.branch(b.binary("eq", current, epoch), in_use, fresh)
    b.at(in_use)
    b.branch(b.binary("ne", b.load(I64, slot, 16), 0), same, fresh)
    b.at(fresh)
    b.store(slot, epoch)
    b.store(slot, number, 8)
    b.store(slot, now if not series.aggregation else Const(1), 16)
    b.jump(done)
    b.at(same)
    _combine(f, series, slot, number, now)
    b.jump(done)
    b.at(done)


def _combine(f: Frame, series: TSeries, slot: Value, number: Value, now: Value) -> None:
    b = f.b
    kind = series.aggregation
    if not kind:  # the last value counts
        b.store(slot, number, 8)
        b.store(slot, now, 16)
        return
    before = b.load(I64, slot, 8)
    if kind in ("avg", "sum"):
        b.store(slot, b.binary("add", before, number), 8)
        if kind == "avg":
            b.store(slot, b.binary("add", b.load(I64, slot, 16), 1), 16)
        return
    comparison = ("s" if series.signed else "u") + ("lt" if kind == "min" else "gt")
    f.diamond(b.binary(comparison, number, before), lambda: b.store(slot, number, 8))

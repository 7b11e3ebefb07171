"""Semantic types to layouts: what a value of a bpftrace type looks like in an event, a key or a map value."""

from __future__ import annotations

from ...debuginfo.ctype import Array, CType, Enum, Float, Int, Pointer, Struct, strip
from ...spec.clayout import layout_of
from ...spec.layout import Layout, LayoutField
from .stype import (
    Aggregate,
    Avg,
    Buffer,
    CgroupPath,
    Count,
    Hist,
    Inet,
    KStack,
    KSym,
    LHist,
    MacAddr,
    Max,
    Min,
    NoneT,
    ProbeName,
    RecordType,
    SignalName,
    Stats,
    Str,
    Strerror,
    Sum,
    SyscallName,
    TimestampT,
    TSeries,
    Tuple,
    Username,
    UStack,
    USym,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from .config import Config

AF_INET_BYTES = 20


class Layouts:
    """Makes layouts; each type of a compilation once."""

    __slots__ = ("_known", "config", "stack_maps")

    def __init__(self, config: Config) -> None:
        self.config = config
        self.stack_maps: dict[tuple[int, str], str] = {}  # (limit, mode) -> map: of the stacks that some layout has
        self._known: dict[int, tuple[CType, Layout]] = {}

    def of(self, ctype: CType) -> Layout:
        """Return the layout of values of `ctype`."""
        ctype = strip(ctype)
        known = self._known.get(id(ctype))
        if known is not None:
            return known[1]
        layout = _MAKERS[type(ctype)](self, ctype)
        self._known[id(ctype)] = (ctype, layout)  # with the type, so that its id is not used again
        return layout

    def stack_map(self, limit: int, mode: str) -> str:
        """Return the name of the map that holds stacks of up to `limit` frames."""
        kind = "build_id" if mode == "build_id" else ""
        return self.stack_maps.setdefault((limit, kind), f"stacks_{limit}{kind}")

    def fields_of(self, ctype: Tuple) -> tuple[LayoutField, ...]:
        """Return the fields of a tuple or record."""
        names = ctype.names if isinstance(ctype, RecordType) else map(str, range(len(ctype.items)))
        return tuple(
            LayoutField(name, offset, self.of(item)) for name, offset, item in zip(names, ctype.offsets, ctype.items)
        )


def scalar_aggregate(ctype: CType) -> Layout:
    """Return the layout of an aggregation that is not in an entry of its own: it says itself whether it was set."""
    return _aggregate(ctype, 16, ctype.size)


def keyed_aggregate(ctype: CType) -> Layout:
    """Return the layout of an aggregation under a key: a sum that is there was set, a histogram has one count an entry."""
    return _aggregate(ctype, 8 if isinstance(ctype, Sum) else 16, 8)


def _aggregate(ctype: CType, size: int, buckets_size: int) -> Layout:
    if isinstance(ctype, Count):
        return Layout("count", 8)
    if isinstance(ctype, Hist):
        return Layout("hist", buckets_size, count=ctype.buckets, params=(("bits", ctype.bits),))
    if isinstance(ctype, LHist):
        params = (("max", ctype.high), ("min", ctype.low), ("step", ctype.step))
        return Layout("lhist", buckets_size, count=ctype.buckets, params=params)
    if isinstance(ctype, TSeries):
        series = (("agg", ctype.aggregation), ("buckets", ctype.buckets), ("interval_ns", ctype.interval_ns))
        return Layout("tseries", ctype.size, ctype.signed, params=series)
    assert isinstance(ctype, Aggregate)
    return Layout(_AGGREGATES[type(ctype)], size, ctype.signed)


_AGGREGATES: dict[type, str] = {Sum: "sum", Min: "min", Max: "max", Avg: "avg", Stats: "stats"}


def _of_c(layouts: Layouts, ctype: CType) -> Layout:
    return layout_of(ctype, layouts.of)


def _string(layouts: Layouts, ctype: Str) -> Layout:
    """Strings that were read up to the limit show that they may have been longer, if nothing less ended them."""
    limit = layouts.config.max_strlen
    if limit <= ctype.size <= limit + 1:
        return Layout("string", limit, params=(("trailer", layouts.config.str_trunc_trailer),))
    return Layout("string", ctype.size)


def _kstack(layouts: Layouts, ctype: KStack | UStack) -> Layout:
    kind = "kstack" if isinstance(ctype, KStack) else "ustack"
    params = (
        ("hashed", True),
        ("limit", ctype.limit),
        ("map", layouts.stack_map(ctype.limit, ctype.mode)),
        ("mode", ctype.mode),
    )
    return Layout(kind, ctype.size, params=params)


def _tuple(layouts: Layouts, ctype: Tuple) -> Layout:
    return Layout("tuple", ctype.size, fields=layouts.fields_of(ctype))


def _record(layouts: Layouts, ctype: RecordType) -> Layout:
    return Layout("record", ctype.size, fields=layouts.fields_of(ctype))


def _timestamp(layouts: Layouts, ctype: TimestampT) -> Layout:
    return Layout("timestamp", 8, params=(("clock", ctype.clock), ("format", ctype.format)))


def _plain(kind: str) -> Callable[[Layouts, CType], Layout]:
    return lambda layouts, ctype: Layout(kind, ctype.size)


def _number(layouts: Layouts, ctype: CType) -> Layout:
    """The one number of an aggregation, as an integer."""
    return Layout("int", 8, getattr(ctype, "signed", False))


_MAKERS: dict[type, Callable[..., Layout]] = {
    **dict.fromkeys((Int, Enum, Float, Pointer, Array, Struct), _of_c),
    Str: _string,
    Buffer: _plain("buffer"),
    Tuple: _tuple,
    RecordType: _record,
    KStack: _kstack,
    UStack: _kstack,
    KSym: _plain("ksym"),
    USym: _plain("usym"),
    Inet: _plain("inet"),
    Username: _plain("username"),
    TimestampT: _timestamp,
    MacAddr: _plain("mac"),
    CgroupPath: lambda layouts, ctype: Layout("cgroup_path", 8, params=(("filter", ctype.filter),)),
    Strerror: _plain("strerror"),
    SignalName: _plain("signal_name"),
    SyscallName: _plain("syscall_name"),
    ProbeName: _plain("probe"),
    NoneT: _plain("none"),
    Count: _number,
    Sum: _number,
    Min: _number,
    Max: _number,
    Avg: _number,
}

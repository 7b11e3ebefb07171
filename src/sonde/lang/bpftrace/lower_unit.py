"""Unit: what all programs of one compilation share. Events, strings, maps and the places of scalar maps in them.

Scalar maps lie side by side in entry 0 of the array `globals`, scalar aggregations in that of the per-CPU array `percpu`;
a map with keys is a kernel map `AT_name`. See docs/design/0001-first-light.md.
"""

from __future__ import annotations

from ...compiler.ir import Module
from ...debuginfo.ctype import CType, sizeof
from ...errors import FeatureError
from ...record import Record
from ...spec.layout import Layout, LayoutField
from ...spec.object import Assumption, EventSpec, FailureSpec, MapSpec, ViewSpec
from .layouts import Layouts, keyed_aggregate, scalar_aggregate
from .stype import Aggregate, Count, Hist, LHist, TSeries

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from ...errors import Span
    from ...spec.target import Target
    from .analysis import Analysis, MapInfo
    from .ast import Node
    from .config import Config
    from .options import Options

GLOBALS, PERCPU, EVENTS, LOST = "globals", "percpu", "events", "lost"
HEADER_BYTES = 8  # of an event: its id and a reserved word
PERCPU_LIMIT = 32768  # the kernel's limit for one per-CPU value
RINGBUF_BYTES_PER_CPU = 256 << 10
RINGBUF_BYTES_MIN = (
    4 << 20
)  # 0.1 s of a tracepoint that hits a million times a second; mapped twice, it costs 8 MiB of RSS
RINGBUF_BYTES_MAX = 16 << 20
KERNEL_MAP_TYPES = {"": "hash", "hash": "hash", "lruhash": "lru_hash", "percpuhash": "percpu_hash",
                    "percpulruhash": "lru_percpu_hash"}  # fmt: skip


class MapPlace(Record, eq=False):
    """Where the values of a map of the script lie.

    `key` is None for a scalar map: then `offset` and `set_offset` (-1: the value itself tells) are bytes of entry 0 of the
    kernel map. `bucket_offset` is where the bucket stands in the keys of histograms (-1: the value holds all of them).
    """

    name: str
    kernel_map: str
    key: CType | None
    value: CType
    layout: Layout  # of the value
    per_cpu: bool
    offset: int = 0
    set_offset: int = -1
    bucket_offset: int = -1
    key_bytes: int = 0  # of the kernel map
    lru: bool = False


class Unit:
    """The state of one compilation from typed scripts to IR."""

    def __init__(self, analysis: Analysis, target: Target, config: Config, options: Options) -> None:
        self.analysis = analysis
        self.target = target
        self.config = config
        self.options = options
        self.module = Module()
        self.layouts = Layouts(config)
        self.events: list[EventSpec] = []
        self.sent: dict[int, None] = {}  # events of the program that is being made
        self.failures: list[FailureSpec] = []
        self.views: list[ViewSpec] = []
        self.maps: dict[str, MapPlace] = {}
        self.start_offset = -1
        self.relocatable = options.relocatable
        self.fixed = ""
        self.assumed: dict[Assumption, None] = {}
        self.asked: set[Node] = set()  # constants that are asked for when the object is loaded
        self._strings: list[str] = []
        self._string_numbers: dict[str, int] = {}
        self._event_idents: dict[tuple[Any, ...], EventSpec] = {}
        self._globals_bytes = 0
        self._zeros = (0, 0)  # offset, size
        self._percpu_bytes = 0
        for info in sorted(analysis.maps.values(), key=_placing_order):
            self._place(info)
        self.views.sort(key=lambda view: view.name)

    # Facts about the target -------------------------------------------------------------------------------------

    def have(self, feature: str) -> bool:
        """Tell whether the target has a feature."""
        return self.target.features.have(feature)

    def fix(self, what: str) -> None:
        """Note that programs have something from the target's kernel for good: another kernel cannot run them."""
        self.fixed = self.fixed or what

    def assume(self, kind: str, name: str, *value: int) -> None:
        """Note what another machine has to have too, for the programs to run there."""
        self.assumed[Assumption(kind, name, value)] = None

    def have_helper(self, name: str) -> bool:
        """Tell whether programs on the target may call a helper."""
        return self.target.features.have("helper:" + name)

    def need_helper(self, name: str, what: str) -> None:
        """Raise FeatureError when the target lacks a helper that `what` cannot do without."""
        if not self.have_helper(name):
            message = f"{what} needs the kernel's helper bpf_{name}, which {self.target.release} does not have"
            raise FeatureError(message, feature="helper:" + name, hint="a newer kernel has it; see `sonde features`")

    # Strings and events -----------------------------------------------------------------------------------------

    def intern(self, text: str) -> int:
        """Return the index of a string in the object's table."""
        known = self._string_numbers.get(text)
        if known is None:
            known = self._string_numbers[text] = len(self._strings)
            self._strings.append(text)
        return known

    def intern_all(self, texts: Sequence[str]) -> int:
        """Put strings into the object's table one behind the other; return the index of the first."""
        start = len(self._strings)
        self._strings += texts
        return start

    @property
    def strings(self) -> tuple[str, ...]:
        """The table of strings."""
        return tuple(self._strings)

    def event(
        self, kind: str, fields: Sequence[tuple[str, Layout, int, int]] = (), span: Span | None = None, **params: Any
    ) -> EventSpec:
        """Make an event with these fields: (name, layout, bytes to reserve, alignment) each, laid out in order."""
        placed = []
        at = HEADER_BYTES
        for name, layout, size, align in fields:
            at = -(-at // align) * align
            placed.append(LayoutField(name, at, layout))
            at += size
        size = max(-(-at // 8) * 8, HEADER_BYTES)
        key = (kind, tuple(placed), tuple(sorted(params.items())), span)
        known = self._event_idents.get(key) if not fields else None
        if known is None:
            ident = len(self.events) + 1
            known = EventSpec(ident, kind, size, tuple(placed), tuple(sorted(params.items())), span)
            self.events.append(known)
            if not fields:
                self._event_idents[key] = known
        self.sent[known.ident] = None
        return known

    def failure(self, helper: str, name: str, span: Span | None) -> int:
        """Return the offset in the map `lost` where failures of this call are added up."""
        offset = 8 * (len(self.failures) + 1)
        self.failures.append(FailureSpec(offset, helper, name, span))
        return offset

    # Maps -------------------------------------------------------------------------------------------------------

    def global_slot(self, size: int, align: int = 8) -> int:
        """Reserve bytes in the map `globals`; return their offset."""
        self._globals_bytes = -(-self._globals_bytes // align) * align + size
        return self._globals_bytes - size

    def zeros(self, size: int) -> int:
        """Return the offset in `globals` of so many bytes that nobody writes: the value of what is absent."""
        if self._zeros[1] < size:
            self._zeros = (self.global_slot(size), size)
        return self._zeros[0]

    def start_time_offset(self) -> int:
        """Return the offset in `globals` of the time at which the session began."""
        if self.start_offset < 0:
            self.start_offset = self.global_slot(8)
        return self.start_offset

    def _percpu_slot(self, size: int) -> int:
        self._percpu_bytes += size + 7 & ~7
        return self._percpu_bytes - (size + 7 & ~7)

    def _place(self, info: MapInfo) -> None:
        if info.key is None:
            place = self._place_scalar(info)
        else:
            place = self._place_keyed(info)
        self.maps[info.name] = place
        key = None if info.key is None else self.layouts.of(info.key)
        self.views.append(
            ViewSpec(
                info.name,
                place.kernel_map,
                key,
                place.layout,
                place.per_cpu,
                place.offset,
                place.set_offset,
                whole=place.bucket_offset < 0,
                bucket_offset=max(place.bucket_offset, 0),
            )
        )

    def _place_scalar(self, info: MapInfo) -> MapPlace:
        value = info.value
        if not isinstance(value, Aggregate):
            layout = self.layouts.of(value)
            offset = self.global_slot(sizeof(value))
            set_offset = self.global_slot(1, 1)
            return MapPlace(info.name, GLOBALS, None, value, layout, False, offset, set_offset)
        layout = scalar_aggregate(value)
        size = layout.size + reserve_beyond(value)
        if size > PERCPU_LIMIT:
            raise FeatureError(
                f"{info.name} needs {size} bytes for each CPU, the kernel allows {PERCPU_LIMIT}",
                hint="fewer buckets would do",
            )
        if self._percpu_bytes + size <= PERCPU_LIMIT:
            return MapPlace(info.name, PERCPU, None, value, layout, True, self._percpu_slot(size))
        name = kernel_name(info.name)
        self.module.add_map(MapSpec(name, "percpu_array", 4, size, 1))
        return MapPlace(info.name, name, None, value, layout, True)

    def _place_keyed(self, info: MapInfo) -> MapPlace:
        value = info.value
        assert info.key is not None
        kind = KERNEL_MAP_TYPES[info.declared]
        key_bytes = max(sizeof(info.key), 1)
        bucket_offset = -1
        if isinstance(value, (Hist, LHist)):
            bucket_offset = key_bytes + 3 & ~3
            key_bytes = bucket_offset + 4
            layout = keyed_aggregate(value)
            size = 8
        elif isinstance(value, Aggregate):
            layout = keyed_aggregate(value)
            size = layout.size
        else:
            layout = self.layouts.of(value)
            size = max(sizeof(value), 1)
        if isinstance(value, Aggregate):
            kind = "lru_percpu_hash" if "lru" in kind else "percpu_hash"
        name = kernel_name(info.name)
        self.module.add_map(
            MapSpec(name, kind, key_bytes, size, max(info.max_entries, 1), key=self.layouts.of(info.key), value=layout)
        )
        return MapPlace(
            info.name, name, info.key, value, layout, "percpu" in kind, bucket_offset=bucket_offset,
            key_bytes=key_bytes, lru="lru" in kind,
        )  # fmt: skip

    def finish(self) -> None:
        """Make the maps whose size is known only now."""
        module = self.module
        if self._globals_bytes:
            module.add_map(MapSpec(GLOBALS, "array", 4, self._globals_bytes + 7 & ~7, 1))
        if self._percpu_bytes:
            module.add_map(MapSpec(PERCPU, "percpu_array", 4, self._percpu_bytes, 1))
        for (limit, mode), name in self.layouts.stack_maps.items():
            from .lower_stacks import stack_map

            module.add_map(stack_map(self, name, limit, mode))
        if self.events:
            module.add_map(MapSpec(EVENTS, "ringbuf", 0, 0, ringbuf_bytes(self.target, self.config)))
        if self.events or self.failures:
            module.add_map(MapSpec(LOST, "array", 4, 8 * (len(self.failures) + 1), 1))


def _placing_order(info: MapInfo) -> tuple[bool, int, str]:
    """Small values first, so that those of one hit share a cache line."""
    return (isinstance(info.value, (Hist, LHist, TSeries)), 0 if isinstance(info.value, Count) else 1, info.name)


def reserve_beyond(value: CType) -> int:
    """Bytes behind a histogram that its arithmetic may seem to reach, as the verifier sees it."""
    return 32 if isinstance(value, (Hist, LHist)) else 0


def kernel_name(name: str) -> str:
    """Return the name of the kernel map of a map of the script."""
    return "AT_" + name[1:]


def ringbuf_bytes(target: Target, config: Config) -> int:
    """Return the size of the ring buffer: a power of two, more for more CPUs, or what the config block says."""
    if config.perf_rb_pages:
        wanted = config.perf_rb_pages * target.page_bytes
    else:
        wanted = min(max(RINGBUF_BYTES_PER_CPU * target.possible_cpus, RINGBUF_BYTES_MIN), RINGBUF_BYTES_MAX)
    size = target.page_bytes
    while size < wanted:
        size *= 2
    return size

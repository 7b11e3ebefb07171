"""Typed byte layouts: how an event field, a map key or a map value lies in memory, and what it means to a reader.

One vocabulary serves events, keys and values. The compiler's front ends write layouts, `runtime` generates decoders
from them, `output` formats the decoded Python objects by `kind`. Numbers are little-endian, as on every target so far.

kind          bytes                                    decodes to
------------  ---------------------------------------  ---------------------------------------------
int           1, 2, 4, 8, 16; `signed`                 int
bool          1                                        bool
pointer       8                                        int
enum          1, 2, 4, 8; params["names"]              EnumValue (int with .name); names: ((number, name), …)
string        `size`, ends at the first NUL            str (UTF-8, surrogateescape); `params["trailer"]` see below
buffer        u32 length, then `size - 4` bytes        bytes
inet          u32 family (AF_*), then 16 bytes         Inet
mac           6 bytes                                  bytes
kstack        s64 stack id or negative errno           Stack; params "map", "mode", "limit": see below
ustack        s64 stack id, u32 pid, u32 probe id      Stack
ksym          u64 address                              Symbol
usym          u64 address, u32 pid, u32 probe id       Symbol
username      u32 or u64 uid                           Username
timestamp     u64 ns, `params["clock"]`, ["format"]    Timestamp
cgroup_path   u64 cgroup id, `params["filter"]`        str
strerror      s32 errno                                str
signal_name   s32                                      str
syscall_name  s32 or s64                               str
probe         u32 index into ObjectSpec.strings        str
text          u32 index into ObjectSpec.strings        str
array         `count` x `element`                      tuple
tuple         `fields` at their offsets                tuple
record        `fields` at their offsets                RecordValue (names and values, in order)
struct        `fields` (C members; bit-fields too)     RecordValue
none          0 bytes                                  None
count         u64, summed over CPUs                    int
sum           s64/u64 total, u8 is_set at +8           int
min, max      s64/u64, u8 is_set at +8                 int
avg           s64/u64 total, u64 count                 Average
stats         s64/u64 total, u64 count                 Stats
hist          params "bits" (k); `count` x u64         Histogram, when whole; else u64 and the bucket in the key
lhist         params "min" "max" "step"; count x u64   LinearHistogram
tseries       params "interval_ns" "buckets" "agg"     TimeSeries; see below
raw           `size` bytes                             bytes
dump          `size` bytes of an unknown type           bytes

A string whose layout has params["trailer"] ("..") may have been cut by the program: when no NUL is among its `size` bytes,
the trailer is appended. Strings without that param (comm, a char array) may fill their bytes without being cut.

The stacks of a map are found by their id. In a stack trace map (param "hashed" absent) the key is the id as a u32, the
value the addresses up to the first 0. With "hashed" the map is a plain hash: the key is the id itself, 8 bytes, which is a
hash of the stack's content, so that no stack takes the place of another; the value is a u64 with the number of frames and
behind it the frames (u64 addresses, or struct bpf_stack_build_id in mode "build_id").

A tseries is "buckets" slots of 24 bytes: u64 epoch, s64/u64 value, u64 number. The epoch is the time of clock
params["clock"] ("tai" when absent) divided by the interval, its slot is epoch % buckets. The number is how many values an
"avg" has (`value` is their sum), the time in ns of the last value where there is no aggregation, else 1; 0: an empty slot.
"""

from __future__ import annotations

from ..record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Layout(Record):
    """One typed piece of memory of `size` bytes. The table above says which other fields a kind uses."""

    kind: str
    size: int
    signed: bool = False
    fields: tuple[LayoutField, ...] = ()
    element: Layout | None = None
    count: int = 0
    name: str = ""  # the C type name of a struct or enum, where it has one
    params: tuple[tuple[str, Any], ...] = ()  # sorted pairs, so that layouts stay hashable

    def get_param(self, name: str, default: Any = None) -> Any:
        """Return the parameter `name`, or `default`."""
        for key, value in self.params:
            if key == name:
                return value
        return default


class LayoutField(Record):
    """A named part of a tuple, record, struct or event. Tuple fields have the names "0", "1", …"""

    name: str
    offset: int  # bytes
    layout: Layout
    bit_offset: int = 0  # of a bit-field within the `layout.size` bytes at `offset`, from the lowest bit
    bit_width: int = 0  # 0: not a bit-field


def layout_int(size: int, signed: bool) -> Layout:
    """Return the layout of an integer of `size` bytes."""
    return Layout("int", size, signed)


# Decoded values that are more than a Python int, str, bytes, bool or tuple ---------------------------------------


class RecordValue(Record):
    """A struct or record by name: prints as `{ .a = 1, .b = q }`."""

    names: tuple[str, ...]
    values: tuple[Any, ...]


class EnumValue(Record):
    """A number of an enumeration with its first name; `name` is "" for a number that has none."""

    number: int
    name: str


class Inet(Record):
    """An IPv4 (4 bytes) or IPv6 (16 bytes) address."""

    packed: bytes


class Username(Record):
    """A user id, printed by its name on this machine."""

    uid: int


class Timestamp(Record):
    """Nanoseconds of `clock` ("monotonic", "boot", "tai", "real") with the strftime `format` to print them by."""

    ns: int
    clock: str
    format: str


class Frame(Record):
    """One frame of a stack. `symbol` is "" when unknown; `module` is a file or kernel module name."""

    pc: int
    symbol: str
    offset: int
    module: str


class Stack(Record, eq=False):
    """A captured stack, innermost frame first. `resolve` turns it into frames, once it is asked for.

    `error` is the errno (positive) of a failed capture, 0 otherwise; `ident` is equal for equal stacks of one map.
    """

    space: str  # "kernel" or "user"
    ident: tuple[int, int]  # (stack id, pid)
    pcs: tuple[int, ...]
    pid: int
    mode: str  # "bpftrace", "perf", "raw", "build_id"
    error: int = 0
    resolver: Any = None  # Symbolizer

    def frames(self) -> tuple[Frame, ...]:
        """Return the symbolised frames; raw addresses where nothing is known."""
        if self.resolver is None:
            return tuple(Frame(pc, "", 0, "") for pc in self.pcs)
        return tuple(self.resolver.resolve(self.space, self.pid, pc) for pc in self.pcs)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Stack) and (self.space, self.ident, self.mode) == (
            other.space,
            other.ident,
            other.mode,
        )

    def __hash__(self) -> int:
        return hash((self.space, self.ident, self.mode))


class Symbol(Record, eq=False):
    """An address to be shown as a symbol (`ksym`, `usym`, `func`)."""

    space: str
    addr: int
    pid: int
    resolver: Any = None  # Symbolizer

    def frame(self) -> Frame:
        """Return the symbolised address."""
        if self.resolver is None:
            return Frame(self.addr, "", 0, "")
        return self.resolver.resolve(self.space, self.pid, self.addr)  # type: ignore[no-any-return]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Symbol) and (self.space, self.addr, self.pid) == (other.space, other.addr, other.pid)

    def __hash__(self) -> int:
        return hash((self.space, self.addr, self.pid))


class Average(Record):
    """`avg()`: prints total / count, truncated toward zero as C does."""

    total: int
    count: int


class Stats(Record):
    """`stats()`: count, average, total."""

    total: int
    count: int


class Histogram(Record):
    """`hist(x, k)`: bucket number -> count, zero counts left out. `bits` is k: 2**k buckets a power of two."""

    bits: int
    buckets: tuple[tuple[int, int], ...]


class LinearHistogram(Record):
    """`lhist(x, min, max, step)`: bucket 0 is below min, 1 is [min, min+step), …, the last is from max up."""

    low: int
    high: int
    step: int
    buckets: tuple[tuple[int, int], ...]


class TimeSeries(Record):
    """`tseries(x, interval, n)`: (epoch number of the interval, value) pairs, oldest first.

    The interval of epoch n starts `origin_ns + n * interval_ns` after 1970.
    """

    interval_ns: int
    buckets: int
    aggregation: str  # "", "avg", "min", "max", "sum"
    points: tuple[tuple[int, int], ...]
    origin_ns: int = 0

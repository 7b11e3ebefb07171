"""The types that bpftrace values have beyond C's: strings, tuples, stacks, symbols, times, the values of aggregations.

They are subclasses of `debuginfo.ctype.CType`, beside which they stand in tuples, maps and signatures. `size` is that of
the value in a map, an event or on the stack, as `spec.layout` lays it out. `type_name` spells a type as bpftrace 0.27 does.

Contract with the lowering:
* integers are `ctype.Int` (INT8 … UINT64, BOOL, or a C one: only size and signedness count), C types come as they are
* a C array of char is an `Str` of its size wherever a value is wanted; where it lies says `Type.space`
* `Str.size` counts the NUL; `Buffer.size` the u32 length before the data; `Tuple` and `RecordType` are laid out as C structs
"""

from __future__ import annotations

from ...debuginfo.ctype import (
    INT8,
    INT16,
    INT32,
    INT64,
    UINT8,
    UINT16,
    UINT32,
    UINT64,
    VOID,
    Array,
    CType,
    Enum,
    Float,
    Forward,
    FuncProto,
    Int,
    Pointer,
    Struct,
    declare,
    sizeof,
    strip,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


class SType(CType):
    """Base of the types that C has not. `word` is how bpftrace writes the type."""

    __slots__ = ()
    word = ""
    bytes = 0

    def __init__(self) -> None:
        super().__init__(self.word, self.bytes)

    @property
    def align(self) -> int:
        return min(self.size, 8) if self.size in (1, 2, 4, 8, 16) else 1

    def key(self) -> tuple[object, ...]:
        """What, beside the class, two equal types of this kind have in common."""
        return ()


class Str(SType):
    """`string[size]`; the NUL counts."""

    __slots__ = ()
    word = "string"

    def __init__(self, size: int) -> None:
        CType.__init__(self, "string", size)

    @property
    def align(self) -> int:
        return 1

    def key(self) -> tuple[object, ...]:
        return (self.size,)


class Buffer(SType):
    """Bytes with their number in a u32 before them; `size` is both together."""

    __slots__ = ()
    word = "buffer"

    def __init__(self, size: int) -> None:
        CType.__init__(self, "buffer", size)

    @property
    def capacity(self) -> int:
        """How many bytes of data there may be."""
        return self.size - 4

    @property
    def align(self) -> int:
        return 4

    def key(self) -> tuple[object, ...]:
        return (self.size,)


class Tuple(SType):
    """`(a, b)`: immutable, laid out as a C struct. `offsets` has the byte offset of each item."""

    __slots__ = ("_align", "items", "offsets")
    word = "tuple"

    def __init__(self, items: Sequence[CType]) -> None:
        self.items = tuple(items)
        self.offsets, size, self._align = lay_out(self.items)
        CType.__init__(self, "tuple", size)

    @property
    def align(self) -> int:
        return self._align


class RecordType(Tuple):
    """`(x=1, y="s")`: a tuple whose items have names."""

    __slots__ = ("names",)
    word = "record"

    def __init__(self, names: Sequence[str], items: Sequence[CType]) -> None:
        super().__init__(items)
        self.names = tuple(names)

    def key(self) -> tuple[object, ...]:
        return self.names


class _Stack(SType):
    """A captured stack: `mode` is "bpftrace", "perf", "raw" or "build_id", `limit` the largest number of frames."""

    __slots__ = ("limit", "mode")

    def __init__(self, mode: str, limit: int) -> None:
        super().__init__()
        self.mode = mode
        self.limit = limit

    def key(self) -> tuple[object, ...]:
        return self.mode, self.limit


class KStack(_Stack):
    """A kernel stack."""

    __slots__ = ()
    word, bytes = "kstack", 8


class UStack(_Stack):
    """A user stack, with the process whose it is."""

    __slots__ = ()
    word, bytes = "ustack", 16


class KSym(SType):
    """An address in the kernel, shown as a symbol."""

    __slots__ = ()
    word, bytes = "ksym_t", 8


class USym(SType):
    """An address in a process, shown as a symbol."""

    __slots__ = ()
    word, bytes = "usym_t", 16


class Inet(SType):
    """An IPv4 or IPv6 address with its family."""

    __slots__ = ()
    word, bytes = "inet", 20

    @property
    def align(self) -> int:
        return 4


class Username(SType):
    """A user id, shown as a name."""

    __slots__ = ()
    word, bytes = "username_t", 8


class TimestampT(SType):
    """Nanoseconds of `clock`, shown by the strftime format `format`."""

    __slots__ = ("clock", "format")
    word, bytes = "timestamp", 8

    def __init__(self, clock: str, format: str) -> None:
        super().__init__()
        self.clock = clock
        self.format = format

    def key(self) -> tuple[object, ...]:
        return self.clock, self.format


class MacAddr(SType):
    """A MAC address: 6 bytes."""

    __slots__ = ()
    word, bytes = "mac_address", 6


class CgroupPath(SType):
    """A cgroup id, shown as the paths under the hierarchies that `filter` (a glob) lets through."""

    __slots__ = ("filter",)
    word, bytes = "cgroup_path_t", 8

    def __init__(self, filter: str = "*") -> None:
        super().__init__()
        self.filter = filter

    def key(self) -> tuple[object, ...]:
        return (self.filter,)


class Strerror(SType):
    """An errno, shown by its message."""

    __slots__ = ()
    word, bytes = "strerror", 4


class SignalName(SType):
    """A signal number, shown by its name."""

    __slots__ = ()
    word, bytes = "signal_name", 4


class SyscallName(SType):
    """A system call number, shown by its name."""

    __slots__ = ()
    word, bytes = "syscall_name", 8


class ProbeName(SType):
    """The name of the probe, as an index into the table of strings."""

    __slots__ = ()
    word, bytes = "probe", 4


class TimestampMode(SType):
    """A clock by its name, as an argument of `nsecs` and `strftime`. No value at run time."""

    __slots__ = ()
    word = "timestamp_mode"


class StackMode(SType):
    """A stack mode by its name, as an argument of `kstack` and `ustack`. No value at run time."""

    __slots__ = ()
    word = "stack_mode"


class NoneT(SType):
    """The type of what has no value."""

    __slots__ = ()
    word = "none"


class Aggregate(SType):
    """Base of the values that only maps hold, made by `count()` and its like."""

    __slots__ = ("signed",)

    def __init__(self, signed: bool = True) -> None:
        super().__init__()
        self.signed = signed

    def key(self) -> tuple[object, ...]:
        return (self.signed,)


class Count(Aggregate):
    """`count()`."""

    __slots__ = ()
    word, bytes = "count_t", 8


class Sum(Aggregate):
    """`sum(n)`."""

    __slots__ = ()
    word, bytes = "sum_t", 16


class Min(Aggregate):
    """`min(n)`."""

    __slots__ = ()
    word, bytes = "min_t", 16


class Max(Aggregate):
    """`max(n)`."""

    __slots__ = ()
    word, bytes = "max_t", 16


class Avg(Aggregate):
    """`avg(n)`."""

    __slots__ = ()
    word, bytes = "avg_t", 16


class Stats(Aggregate):
    """`stats(n)`."""

    __slots__ = ()
    word, bytes = "stats_t", 16


class Hist(Aggregate):
    """`hist(n, bits)`: 2**bits buckets for each power of two. `buckets` counts all, the one below 0 included."""

    __slots__ = ("bits", "buckets")
    word = "hist_t"

    def __init__(self, bits: int) -> None:
        super().__init__()
        self.bits = bits
        self.buckets = (65 - bits << bits) + 1
        self.size = self.buckets * 8

    def key(self) -> tuple[object, ...]:
        return (self.bits,)


class LHist(Aggregate):
    """`lhist(n, low, high, step)`. `buckets` counts all, those below `low` and from `high` up included."""

    __slots__ = ("buckets", "high", "low", "step")
    word = "lhist_t"

    def __init__(self, low: int, high: int, step: int) -> None:
        super().__init__()
        self.low = low
        self.high = high
        self.step = step
        self.buckets = (high - low) // step + 2
        self.size = self.buckets * 8

    def key(self) -> tuple[object, ...]:
        return self.low, self.high, self.step


class TSeries(Aggregate):
    """`tseries(n, interval, buckets, aggregation)`; `aggregation` is "", "avg", "min", "max" or "sum"."""

    __slots__ = ("aggregation", "buckets", "interval_ns")
    word = "tseries_t"

    def __init__(self, interval_ns: int, buckets: int, aggregation: str, signed: bool) -> None:
        super().__init__(signed)
        self.interval_ns = interval_ns
        self.buckets = buckets
        self.aggregation = aggregation
        self.size = buckets * 24

    def key(self) -> tuple[object, ...]:
        return self.interval_ns, self.buckets, self.aggregation, self.signed


class LiteralInt(Int):
    """The type of a number without a sign of its own: as `int8` until it meets a type that says otherwise.

    It takes part in promotions as a signed or unsigned integer, whichever the other side is.
    """

    __slots__ = ()

    def __init__(self, size: int) -> None:
        super().__init__(f"int{size * 8}", size, True)


NONE = NoneT()

_SIGNED = {1: INT8, 2: INT16, 4: INT32, 8: INT64}
_UNSIGNED = {1: UINT8, 2: UINT16, 4: UINT32, 8: UINT64}
CASTABLE = (Count, Sum, Min, Max, Avg)  # aggregates that have one number


def lay_out(items: Sequence[CType]) -> tuple[tuple[int, ...], int, int]:
    """Lay types out as a C struct does: their offsets, the size and the alignment of the whole."""
    offsets = []
    at, align = 0, 1
    for item in items:
        step = item.align
        at = -(-at // step) * step
        offsets.append(at)
        at += sizeof(item)
        align = max(align, step)
    return tuple(offsets), -(-at // align) * align, align


def int_type(size: int, signed: bool) -> Int:
    """Return the integer of `size` bytes."""
    return (_SIGNED if signed else _UNSIGNED)[size]


def is_int(ctype: CType) -> bool:
    """Tell whether a value of this type is an integer: int, char, bool or enum."""
    return isinstance(strip(ctype), (Int, Enum))


def is_bool(ctype: CType) -> bool:
    """Tell whether this is the boolean type."""
    ctype = strip(ctype)
    return isinstance(ctype, Int) and ctype.encoding == "bool"


def is_signed(ctype: CType) -> bool:
    """Tell whether the integer or enum is signed."""
    ctype = strip(ctype)
    return isinstance(ctype, (Int, Enum, Aggregate)) and ctype.signed


def is_pointer(ctype: CType) -> bool:
    """Tell whether this is a pointer."""
    return isinstance(strip(ctype), Pointer)


def is_void(ctype: CType) -> bool:
    """Tell whether this is `void`."""
    return strip(ctype) is VOID


def same(a: CType, b: CType) -> bool:
    """Tell whether two types are equal: equal layout and meaning; typedefs and qualifiers do not count."""
    a, b = strip(a), strip(b)
    if a is b:
        return True
    if isinstance(a, SType) or isinstance(b, SType):
        if type(a) is not type(b):
            return False
        assert isinstance(a, SType) and isinstance(b, SType)
        if isinstance(a, Tuple) and isinstance(b, Tuple) and not _same_items(a.items, b.items):
            return False
        return a.key() == b.key()
    return _same_c(a, b)


def _same_items(a: Sequence[CType], b: Sequence[CType]) -> bool:
    return len(a) == len(b) and all(map(same, a, b))


def _same_c(a: CType, b: CType) -> bool:
    if isinstance(a, Int) and isinstance(b, Int):
        return a.size == b.size and a.signed == b.signed and (a.encoding == "bool") == (b.encoding == "bool")
    if isinstance(a, Pointer) and isinstance(b, Pointer):
        return same(a.target, b.target)
    if isinstance(a, Array) and isinstance(b, Array):
        return a.count == b.count and same(a.element, b.element)
    if isinstance(a, (Struct, Forward)) and isinstance(b, (Struct, Forward)):
        return bool(a.name) and (a.kind, a.name) == (b.kind, b.name)
    if isinstance(a, Enum) and isinstance(b, Enum):
        return bool(a.name) and a.name == b.name
    return False


def type_name(ctype: CType) -> str:
    """Spell a type as bpftrace does: int64, string[16], (int64,string[16]), struct task_struct *."""
    ctype = strip(ctype)
    spell = _SPELLINGS.get(type(ctype))
    if spell is not None:
        return spell(ctype)  # type: ignore[no-any-return]
    return ctype.name if isinstance(ctype, SType) else declare(ctype)


def _name_int(t: Int) -> str:
    if t.encoding == "bool":
        return "bool"
    return f"{'' if t.signed else 'u'}int{t.size * 8}"


def _name_record(t: RecordType) -> str:
    return "record { " + ", ".join(f".{n} = {type_name(i)}" for n, i in zip(t.names, t.items)) + " }"


def _name_aggregate(t: Aggregate) -> str:
    return t.name if t.signed else "u" + t.name


_SPELLINGS = {
    Int: _name_int,
    LiteralInt: _name_int,
    Enum: lambda t: f"enum {t.name}".rstrip(),
    Struct: lambda t: f"{t.kind} {t.name}".rstrip(),
    Forward: lambda t: f"{t.kind} {t.name}",
    Pointer: lambda t: f"{type_name(t.target)} *",
    Array: lambda t: f"{type_name(t.element)}[{t.count}]",
    FuncProto: lambda t: "void",
    Float: lambda t: t.name,
    Str: lambda t: f"string[{t.size}]",
    Buffer: lambda t: f"buffer[{t.size}]",
    Tuple: lambda t: "(" + ",".join(map(type_name, t.items)) + ")",
    RecordType: _name_record,
    KStack: lambda t: f"kstack_{t.mode}_{t.limit}",
    UStack: lambda t: f"ustack_{t.mode}_{t.limit}",
    Sum: _name_aggregate,
    Min: _name_aggregate,
    Max: _name_aggregate,
    Avg: _name_aggregate,
    Stats: _name_aggregate,
}

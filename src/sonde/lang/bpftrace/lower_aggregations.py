"""Aggregations: `@ = count()` and its like, added in place to this CPU's value.

Without a key that is a fixed place of the per-CPU array; with one an entry that is looked up once, and made when it is
absent. Keyed histograms have an entry for each bucket, as most buckets of most keys stay empty.
"""

from __future__ import annotations

from ...compiler.ir import I8, I64, Const
from . import ast
from .lower_expr import wide
from .lower_maps import bucket_key, key_memory, known_entry, lookup, update
from .lower_values import Memory
from .stype import Avg, Count, Hist, LHist, Max, Min, Stats, Sum, TSeries

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ...compiler.ir import Value
    from .lower_frame import Frame
    from .lower_unit import MapPlace

    Numbers = tuple[Value, ...]


def aggregate(f: Frame, place: MapPlace, target: ast.Map | ast.MapAccess, node: ast.Assign) -> None:
    """Lower `@m = count()`, `@m[k] = hist(x)` …"""
    call = node.value
    while isinstance(call, ast.BlockExpr) and call.value is not None:
        call = call.value
    assert isinstance(call, ast.Call)
    info = f.calls[call]
    value = place.value
    numbers: Numbers = (wide(f, info.args[0]),) if info.args else ()
    if isinstance(value, (Hist, LHist)):
        bucket = BUCKETS[type(value)](f, value, numbers[0])
        if isinstance(target, ast.Map):
            increment(f, Memory(f.b.ptradd(_home(f, place), f.b.binary("shl", bucket, 3)), 0, value))
        else:
            key = bucket_key(f, place, target.key, bucket)
            _into_entry(f, place, key, None, _add_one, _one, (), call)
        return
    add, initial = _RULES[type(value)]
    if isinstance(target, ast.Map):
        add(f, _home(f, place), numbers, place)
    else:
        memory, identity = key_memory(f, place, target.key)
        _into_entry(f, place, memory, identity, add, initial, numbers, call)


def _home(f: Frame, place: MapPlace) -> Value:
    return f.b.percpu_value(place.kernel_map, place.offset)


def _into_entry(
    f: Frame,
    place: MapPlace,
    key: Memory,
    identity: object,
    add: Callable[[Frame, Value, Numbers, MapPlace], None],
    initial: Callable[[Frame, Value, Numbers, MapPlace], None],
    numbers: Numbers,
    node: ast.Call,
) -> None:
    """Add to an entry, or make it."""
    entry = known_entry(f, place, identity)
    if entry is not None:
        add(f, entry, numbers, place)
        return
    entry = lookup(f, place, key)

    def insert() -> None:
        size = 8 if place.bucket_offset >= 0 else place.layout.size
        slot = f.b.alloca(size, 8, "first")
        initial(f, slot, numbers, place)
        update(f, place, key, slot, node.span, rare=True)

    f.diamond(f.b.binary("ne", entry, 0), lambda: add(f, entry, numbers, place), insert)


# What each of them adds -------------------------------------------------------------------------------------------


def increment(f: Frame, memory: Memory) -> None:
    """Add one to a u64 of this CPU."""
    old = f.b.load(I64, memory.pointer, memory.offset)
    f.b.store(memory.pointer, f.b.binary("add", old, 1), memory.offset)


def _accumulate(f: Frame, pointer: Value, offset: int, number: Value | int) -> None:
    old = f.b.load(I64, pointer, offset)
    f.b.store(pointer, f.b.binary("add", old, number), offset)


def _add_one(f: Frame, pointer: Value, numbers: Numbers, place: MapPlace) -> None:
    _accumulate(f, pointer, 0, 1)


def _one(f: Frame, slot: Value, numbers: Numbers, place: MapPlace) -> None:
    f.b.store(slot, Const(1))


def _flagged(place: MapPlace) -> bool:
    """Tell whether the value says itself that it was set."""
    return place.layout.size > 8


def _set_flag(f: Frame, pointer: Value, place: MapPlace, whole: bool = False) -> None:
    if _flagged(place):
        f.b.store(pointer, Const(1, I64 if whole else I8), 8)


def _add_sum(f: Frame, pointer: Value, numbers: Numbers, place: MapPlace) -> None:
    _accumulate(f, pointer, 0, numbers[0])
    _set_flag(f, pointer, place)


def _first_number(f: Frame, slot: Value, numbers: Numbers, place: MapPlace) -> None:
    f.b.store(slot, numbers[0])
    _set_flag(f, slot, place, whole=True)


def _extreme(f: Frame, pointer: Value, numbers: Numbers, place: MapPlace) -> None:
    """Take the number over when nothing was set yet, or when it is beyond what was."""
    b = f.b
    take, compare, done = b.new_block("take"), b.new_block("compare"), b.new_block("done")
    b.branch(b.binary("ne", b.load(I8, pointer, 8), 0), compare, take)
    b.at(compare)
    signed = getattr(place.value, "signed", True)
    comparison = ("s" if signed else "u") + ("lt" if isinstance(place.value, Min) else "gt")
    b.branch(b.binary(comparison, numbers[0], b.load(I64, pointer)), take, done)
    b.at(take)
    b.store(pointer, numbers[0])
    b.store(pointer, Const(1, I8), 8)
    b.jump(done)
    b.at(done)


def _add_average(f: Frame, pointer: Value, numbers: Numbers, place: MapPlace) -> None:
    _accumulate(f, pointer, 0, numbers[0])
    _accumulate(f, pointer, 8, 1)


def _first_average(f: Frame, slot: Value, numbers: Numbers, place: MapPlace) -> None:
    f.b.store(slot, numbers[0])
    f.b.store(slot, Const(1), 8)


def _add_series(f: Frame, pointer: Value, numbers: Numbers, place: MapPlace) -> None:
    from .lower_tseries import add_to_series

    add_to_series(f, pointer, numbers[0], place)


def _first_series(f: Frame, slot: Value, numbers: Numbers, place: MapPlace) -> None:
    f.clear(slot, place.layout.size)
    _add_series(f, slot, numbers, place)


_RULES = {
    Count: (_add_one, _one),
    Sum: (_add_sum, _first_number),
    Min: (_extreme, _first_number),
    Max: (_extreme, _first_number),
    Avg: (_add_average, _first_average),
    Stats: (_add_average, _first_average),
    TSeries: (_add_series, _first_series),
}


# Buckets ----------------------------------------------------------------------------------------------------------


def hist_bucket(f: Frame, value: Hist, number: Value) -> Value:
    """The bucket of a histogram with 2**bits buckets for each power of two; 0 is for what is negative.

    With s = max(log2(n) - bits, 0) the bucket is (s << bits) + (n >> s) + 1. Without sub-buckets that is log2(n) + 2, and
    1 for 0: the number is halved by 32, 16, 8 and 4 bits, the last 4 bits are looked up in a constant.
    """
    b = f.b
    positive, done = b.new_block("positive"), b.new_block("bucket", [I64])
    b.branch(b.binary("sge", number, 0), positive, done, [], [Const(0)])
    b.at(positive)
    if not value.bits:
        b.jump(done, _log2(f, number, _LOG2_PLUS_2))
    else:
        shift = _log2(f, b.binary("lshr", number, value.bits), _LOG2)
        whole = b.binary("add", b.binary("shl", shift, value.bits), b.binary("lshr", number, shift))
        b.jump(done, keep_within(f, b.binary("add", whole, 1), value.buckets - 1))
    b.at(done)
    return done.params[0]


def _log2(f: Frame, number: Value, table: int) -> Value:
    """The number of bits shifted out until 4 are left, and what `table` has for those."""
    b = f.b
    count: Value = Const(0)
    for bits in (32, 16, 8, 4):
        big, next_ = b.new_block(f"above{bits}"), b.new_block(f"below{bits}", [I64, I64])
        if bits == 32:
            high = b.binary("lshr", number, 32)
            b.branch(b.binary("ne", high, 0), big, next_, [], [number, count])
        else:
            b.branch(b.binary("ugt", number, (1 << bits) - 1), big, next_, [], [number, count])
        b.at(big)
        shifted = b.binary("lshr", number, bits)
        b.jump(next_, shifted, b.binary("add", count, bits) if bits < 32 else Const(bits))
        b.at(next_)
        number, count = next_.params
    nibble = b.binary("and", b.binary("lshr", Const(table), b.binary("shl", number, 2)), 7)
    return b.binary("add", count, nibble)


# A nibble for each number below 16: constants in place of branches.
_LOG2_PLUS_2 = sum((1 if n == 0 else n.bit_length() + 1) << 4 * n for n in range(16))
_LOG2 = sum((0 if n == 0 else n.bit_length() - 1) << 4 * n for n in range(16))


def keep_within(f: Frame, number: Value, limit: int) -> Value:
    """The smaller of a number (unsigned) and a constant, in a way that the verifier understands."""
    b = f.b
    done = b.new_block("limited", [I64])
    over = b.new_block("over")
    b.branch(b.binary("ule", number, limit), done, over, [number])
    b.at(over)
    b.jump(done, Const(limit))
    b.at(done)
    return done.params[0]


def lhist_bucket(f: Frame, value: LHist, number: Value) -> Value:
    """The bucket of a linear histogram: 0 below its range, the last one from its end on."""
    b = f.b
    last = value.buckets - 1
    done = b.new_block("bucket", [I64])
    above, inside = b.new_block("above"), b.new_block("inside")
    b.branch(b.binary("sge", number, value.low), above, done, [], [Const(0)])
    b.at(above)
    distance = b.binary("sub", number, value.low) if value.low else number
    b.branch(b.binary("ult", distance, value.high - value.low), inside, done, [], [Const(last)])
    b.at(inside)
    b.jump(done, b.binary("add", _divide(f, distance, value), 1))
    b.at(done)
    return done.params[0]


def _divide(f: Frame, distance: Value, value: LHist) -> Value:
    """`distance / step`, by a multiplication: that is faster, and the verifier can tell how large the result gets."""
    if value.step == 1:
        return distance
    factor, shift = find_reciprocal(value.high - value.low, value.step)
    if not factor:
        return keep_within(f, f.b.binary("udiv", distance, value.step), value.buckets - 2)
    return f.b.binary("lshr", f.b.binary("mul", distance, factor), shift)


def find_reciprocal(below: int, divisor: int) -> tuple[int, int]:
    """Return (factor, shift) with n * factor >> shift == n // divisor for all n < `below`; (0, 0) if there is none.

    Both factors stay within 31 bits: the verifier gives up on larger products.
    """
    for shift in range(62):
        factor = -(-(1 << shift) // divisor)
        if factor >= 1 << 31 or below >= 1 << 32:
            break
        if (factor * divisor - (1 << shift)) * below <= 1 << shift and (below - 1) * factor < 1 << 63:
            return factor, shift
    return 0, 0


BUCKETS: dict[type, Callable[..., Value]] = {Hist: hist_bucket, LHist: lhist_bucket}

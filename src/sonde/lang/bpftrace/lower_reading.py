"""Reading aggregations inside a program: the sum, extreme or average over all CPUs, as one number."""

from __future__ import annotations

from ...compiler.ir import I8, I32, I64, MAP, Const
from ...debuginfo.ctype import INT64, UINT64
from . import ast
from .lower_maps import key_memory
from .lower_values import Memory, Scalar
from .stype import Avg, Count, Max, Min, Stats

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...compiler.ir import Value
    from .lower_frame import Frame
    from .lower_unit import MapPlace


def read_aggregate(f: Frame, node: ast.Map | ast.MapAccess, place: MapPlace) -> Scalar:
    """The value of `@c` or `@c[k]` where the map holds an aggregation."""
    if isinstance(node, ast.MapAccess):
        key, _ = key_memory(f, place, node.key)
    else:
        key = Memory(f.b.alloca(4, 4, "zero"), 0, place.value)
        f.b.store(key.pointer, Const(0, I32))
    return over_cpus(f, place, key)


def entry_number(f: Frame, place: MapPlace, key: Memory, entry: Value) -> Scalar:
    """The number of an entry that was found."""
    return over_cpus(f, place, key)


def over_cpus(f: Frame, place: MapPlace, key: Memory) -> Scalar:
    """Look at the values of all CPUs in turn, and bring them together."""
    f.unit.need_helper("map_lookup_percpu_elem", f"reading {place.name}")
    copies = f.unit.target.copies or f.unit.target.possible_cpus
    f.unit.assume("possible_cpus", "", copies)
    b = f.b
    value = place.value
    loop, found = b.new_block("cpus", [I64, I64, I64]), b.new_block("found")
    next_, done = b.new_block("next", [I64, I64]), b.new_block("all", [I64, I64])
    b.jump(loop, Const(0), Const(0), Const(0))
    b.at(loop)
    cpu, total, count = loop.params
    entry = b.call("map_lookup_percpu_elem", [b.map(place.kernel_map), f.address(key), cpu], MAP)
    b.branch(b.binary("ne", entry, 0), found, next_, [], [total, count])
    b.at(found)
    _join(f, place, entry, total, count, next_)
    b.at(next_)
    following = b.binary("add", cpu, 1)
    b.branch(b.binary("ult", following, copies), loop, done, [following, *next_.params], next_.params)
    b.at(done)
    total, count = done.params
    signed = getattr(value, "signed", False) and not isinstance(value, Count)
    ctype = INT64 if signed else UINT64
    if isinstance(value, (Avg, Stats)):
        return Scalar(_average(f, total, count, signed), ctype)
    return Scalar(total, ctype)


def _join(f: Frame, place: MapPlace, entry: Value, total: Value, count: Value, next_: object) -> None:
    """Bring the value of one CPU together with those before; ends the block with a jump to `next_`."""
    from ...compiler.ir import Block

    assert isinstance(next_, Block)
    b = f.b
    number = b.load(I64, entry, place.offset)
    value = place.value
    if isinstance(value, (Min, Max)):
        is_set, compare, take = b.new_block("set"), b.new_block("compare"), b.new_block("take")
        b.branch(b.binary("ne", b.load(I8, entry, place.offset + 8), 0), is_set, next_, [], [total, count])
        b.at(is_set)
        b.branch(b.binary("ne", count, 0), compare, take)
        b.at(compare)
        comparison = ("s" if value.signed else "u") + ("lt" if isinstance(value, Min) else "gt")
        b.branch(b.binary(comparison, number, total), take, next_, [], [total, count])
        b.at(take)
        b.jump(next_, number, Const(1))
        return
    more = b.load(I64, entry, place.offset + 8) if isinstance(value, (Avg, Stats)) else Const(0)
    b.jump(next_, b.binary("add", total, number), b.binary("add", count, more))


def _average(f: Frame, total: Value, count: Value, signed: bool) -> Value:
    b = f.b
    divide, done = b.new_block("divide"), b.new_block("average", [I64])
    b.branch(b.binary("ne", count, 0), divide, done, [], [Const(0)])
    b.at(divide)
    b.jump(done, b.binary("sdiv" if signed else "udiv", total, count))
    b.at(done)
    return done.params[0]

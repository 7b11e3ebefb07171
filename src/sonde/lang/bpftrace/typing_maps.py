"""Maps: keys and values whose types grow with their uses, and the functions whose results only maps hold."""

from __future__ import annotations

from ...debuginfo.ctype import INT64, Enum, Int, strip
from . import ast
from .analysis import Type
from .functions import AGGREGATIONS, get_function
from .stype import (
    CASTABLE,
    Aggregate,
    Avg,
    Count,
    Hist,
    LHist,
    Max,
    Min,
    NoneT,
    Stats,
    Sum,
    TSeries,
    is_bool,
    is_void,
    same,
    type_name,
)
from .typing_promotion import literal_type, promote
from .typing_state import CALLS, CHECKS, SUGAR, Assignment, MapState
from .typing_variables import integer_of, merge, own, same_type

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...debuginfo.ctype import CType
    from .typing_state import Typer

_MULTI = (Hist, LHist, TSeries, Stats)  # aggregates that are more than one number
_HINTS = {
    Count: "count()",
    Sum: "sum(retval)",
    Min: "min(retval)",
    Max: "max(retval)",
    Avg: "avg(retval)",
    Hist: "hist(retval)",
    LHist: "lhist(rand %10, 0, 10, 1)",
    TSeries: "tseries(rand %10, 10s, 1)",
    Stats: "stats(arg2)",
}


def get_map(typer: Typer, node: ast.Map) -> MapState:
    """Return what is known of a map."""
    state = typer.maps.get(node.name)
    if state is None:
        state = typer.maps[node.name] = MapState(node.name, node)
    return state


def visit_map(typer: Typer, node: ast.Map) -> Type | None:
    """A scalar map's value is read."""
    state = visit_map_target(typer, node)
    return None if state is None else read_value(typer, state, node)


def visit_map_access(typer: Typer, node: ast.MapAccess) -> Type | None:
    """`@m[key]` is read."""
    state = visit_map_target(typer, node)
    return None if state is None else read_value(typer, state, node)


def read_value(typer: Typer, state: MapState, node: ast.Node) -> Type | None:
    """Return the type of a map's values."""
    state.value_read = True
    if state.value is None:
        typer.unresolved.append(node)
    return state.value


def visit_map_target(typer: Typer, node: ast.Map | ast.MapAccess, whole: ast.Node | None = None) -> MapState | None:
    """A map is used with or without a key: check that all uses agree, and let the key's type grow.

    A key that does not fit is an error about `whole`, or the access itself.
    """
    if isinstance(node, ast.Map):
        state = get_map(typer, node)
        if state.scalar is None:
            state.scalar = True
        if not state.scalar:
            typer.error(
                node,
                f"{node.name} used as a map without an explicit key (scalar map), "
                "previously used with an explicit key (non-scalar map)",
            )
            return None
        return state
    state = get_map(typer, node.map)
    if state.scalar is None:
        state.scalar = False
    key = typer.visit(node.key)
    if state.scalar:
        typer.error(
            node,
            f"{node.map.name} used as a map with an explicit key (non-scalar map), "
            "previously used without an explicit key (scalar map)",
        )
        return None
    if key is not None:
        grow_key(typer, state, key, whole or node, node.key)
    return state


def grow_key(typer: Typer, state: MapState, key: Type, node: ast.Node, key_node: ast.Node) -> None:
    """Let the type of a map's keys hold values of type `key` too."""
    ctype = key.ctype
    if isinstance(ctype, CASTABLE):
        ctype = integer_of(ctype)
    if isinstance(ctype, Aggregate) or is_void(ctype) or isinstance(ctype, NoneT):
        typer.error(node, f"Value '{type_name(ctype)}' cannot be used as a map key.")
        return
    if key.space == "ctx" and not _has_value(ctype):
        typer.error(key_node, "context cannot be part of a map key", CHECKS)
        return
    typer.keys.append((key_node, ctype, state))
    promoted = promote(state.key, ctype)
    if promoted is None:
        assert state.key is not None
        typer.error(
            node,
            f"Argument mismatch for {state.name}: trying to access with arguments: '{type_name(ctype)}' "
            f"when map expects arguments: '{type_name(state.key)}'",
        )
        return
    if promoted is not state.key:
        if state.key_read and (state.key is None or not same(promoted, state.key)):
            typer.changed = True
        state.key = promoted


def _has_value(ctype: CType) -> bool:
    from ...debuginfo.ctype import Array
    from .stype import Str

    return isinstance(ctype, (Str, Array, Int, Enum))


def grow_value(typer: Typer, state: MapState, value: Type, node: ast.Node) -> bool:
    """Let the type of a map's values hold `value` too; False after an error."""
    before = state.value
    ctype = None
    if before is None or not isinstance(before.ctype, Aggregate):
        ctype = promote(before.ctype if before else None, value.ctype)
    if ctype is None:
        _mismatch(typer, state, value.ctype, node)
        return False
    set_value(typer, state, merge(ctype, before, value))
    return True


def _mismatch(typer: Typer, state: MapState, ctype: CType, node: ast.Node) -> None:
    assert state.value is not None
    typer.error(
        node,
        f"Type mismatch for {state.name}: trying to assign value of type '{type_name(ctype)}' "
        f"when map already has a type '{type_name(state.value.ctype)}'",
    )


def set_value(typer: Typer, state: MapState, value: Type) -> None:
    """Change the type of a map's values."""
    if not same_type(state.value, value):
        state.value = value
        if state.value_read:
            typer.changed = True


# Assignment -------------------------------------------------------------------------------------------------------


def assign_map(typer: Typer, target: ast.Map | ast.MapAccess, value: ast.Expr, node: ast.Assign) -> None:
    """`@m = value`, `@m[k] = value`, aggregations included."""
    call = aggregation_of(value)
    state = visit_map_target(typer, target, call)
    if call is not None:
        found = visit_aggregation(typer, call)
        if state is not None and found is not None:
            state.written = True
            _aggregate(typer, state, call, found)
        if found is not None:
            typer.type_of[call] = typer.type_of[value] = found
        return
    type_ = typer.visit(value)
    if state is None:
        return
    state.written = True
    if type_ is None:
        return
    stored = _stored_type(typer, state, type_, value, node)
    if stored is not None and grow_value(typer, state, stored, node):
        if state.value is not None:
            typer.type_of[target] = state.value
        typer.assignments.append(Assignment(typer.group, node, value, stored, state, state.name))


def aggregation_of(value: ast.Expr) -> ast.Call | None:
    """Return the call of an aggregation that an assigned value is, perhaps as the value of a block."""
    while isinstance(value, ast.BlockExpr) and value.value is not None and not value.statements:
        value = value.value
    return value if isinstance(value, ast.Call) and value.name in AGGREGATIONS else None


def _stored_type(typer: Typer, state: MapState, value: Type, value_node: ast.Expr, node: ast.Assign) -> Type | None:
    ctype = value.ctype
    if is_void(ctype) or isinstance(ctype, NoneT):
        typer.error(node, f"Value '{type_name(ctype)}' cannot be assigned to a map.")
        return None
    if isinstance(ctype, Aggregate):
        number = state.value is not None and isinstance(strip(state.value.ctype), (Int, Enum))
        if isinstance(ctype, CASTABLE) and number:
            return Type(integer_of(ctype))
        hint = ""
        if isinstance(ctype, CASTABLE) and isinstance(value_node, (ast.Map, ast.MapAccess)):
            name = (value_node.map if isinstance(value_node, ast.MapAccess) else value_node).name
            hint = (
                f"Add a cast to integer if you want the value of the aggregate, e.g. `{state.name} = (int64){name};`."
            )
        typer.error(
            node,
            f"Map value '{type_name(ctype)}' cannot be assigned from one map to another. The function that returns "
            f"this type must be called directly e.g. `{state.name} = {_HINTS[type(ctype)]};`.",
            hint=hint,
        )
        return None
    return own(value)


# Aggregations -----------------------------------------------------------------------------------------------------


def refuse_aggregation(typer: Typer, node: ast.Call) -> Type | None:
    """An aggregation anywhere else than directly in an assignment to a map."""
    typer.error(node, f"{node.name}() must be assigned directly to a map", SUGAR)
    return None


def visit_aggregation(typer: Typer, node: ast.Call) -> Type | None:
    """`count()` and its like: the type of the map's value."""
    from .typing_calls import check_count

    function = get_function(node.name)
    assert function is not None
    if not check_count(typer, node, function):
        return None
    types = [typer.visit(a) for a in node.args]
    info = typer.call(node, function, node.args)
    if node.name == "count":
        return Type(Count(False))
    if types[0] is None:
        return None
    number = strip(types[0].ctype)
    if isinstance(number, CASTABLE):
        number = integer_of(number)
    if not isinstance(number, (Int, Enum)) or is_bool(number):
        _refuse_argument(typer, node, types[0].ctype)
        return None
    made = _AGGREGATES[node.name](typer, node, number.signed)
    if made is None:
        return None
    info.params.update({name: getattr(made, name) for name in _PARAMS.get(node.name, ())})
    return Type(made)


def _refuse_argument(typer: Typer, node: ast.Call, ctype: CType) -> None:
    from .typing_calls import kind_name

    if node.name in ("hist", "lhist", "tseries"):
        message = f"{node.name}() only supports int arguments ({kind_name(ctype)} provided)"
        typer.error(node, message, CHECKS)
    else:
        typer.error(node, f"{node.name}() only supports integer arguments ({type_name(ctype)} provided)")


_PARAMS = {
    "hist": ("bits",),
    "lhist": ("low", "high", "step"),
    "tseries": ("interval_ns", "buckets", "aggregation"),
}


def _number(typer: Typer, node: ast.Call, index: int, what: str) -> int | None:
    from .typing_operators import literal_of

    value = literal_of(typer, node.args[index])
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    typer.error(node, what, CALLS)
    return None


def _make_hist(typer: Typer, node: ast.Call, signed: bool) -> Hist | None:
    if len(node.args) == 1:
        return Hist(0)
    bits = _number(typer, node, 1, "hist: invalid bits value, need integer literal")
    if bits is None:
        return None
    if bits > 5:
        typer.error(node, f"hist: bits {bits} must be 0..5", CALLS)
        return None
    return Hist(bits)


def _make_lhist(typer: Typer, node: ast.Call, signed: bool) -> LHist | None:
    low = _number(typer, node, 1, "lhist: invalid min value (must be non-negative literal)")
    high = None if low is None else _number(typer, node, 2, "lhist: invalid max value (must be non-negative literal)")
    step = None if high is None else _number(typer, node, 3, "lhist: invalid step value")
    if low is None or high is None or step is None:
        return None
    before = len(typer.errors)
    if step <= 0:
        typer.error(node, f"lhist() step must be >= 1 ({step} provided)", CALLS)
    elif (high - low) // step > 1000:
        needed = (high - low) // step
        typer.error(node, f"lhist() too many buckets, must be <= 1000 (would need {needed})", CALLS)
    if low > high:
        typer.error(node, f"lhist() min must be less than max (provided min {low} and max {high})", CALLS)
    elif high - low < step:
        message = f"lhist() step is too large for the given range (provided step {step} for range {high - low})"
        typer.error(node, message, CALLS)
    return LHist(low, high, step) if len(typer.errors) == before else None


def _make_tseries(typer: Typer, node: ast.Call, signed: bool) -> TSeries | None:
    interval = _number(typer, node, 1, "tseries: invalid interval_ns value (must be non-negative literal)")
    buckets = _number(typer, node, 2, "tseries: invalid num_intervals value (must be non-negative literal)")
    if interval is None or buckets is None:
        return None
    aggregation: object = ""
    before = len(typer.errors)
    if interval == 0:
        typer.error(node, "tseries() interval_ns must be >= 1 (0 provided)", CALLS)
    if buckets == 0:
        typer.error(node, "tseries() num_intervals must be >= 1 (0 provided)", CALLS)
    elif buckets > 1_000_000:
        typer.error(node, f"tseries() num_intervals must be < 1000000 ({buckets} provided)", CALLS)
    if len(node.args) == 4:
        from .typing_operators import literal_of

        aggregation = literal_of(typer, node.args[3])
        if aggregation not in ("avg", "max", "min", "sum"):
            what = "tseries() expects one of the following aggregation functions: avg, max, min, sum"
            typer.error(node, f'{what} ("{aggregation}" provided)', CALLS)
    typer.check_unstable(node, "tseries")
    return TSeries(interval, buckets, str(aggregation), signed) if len(typer.errors) == before else None


_AGGREGATES = {
    "avg": lambda typer, node, signed: Avg(signed),
    "hist": _make_hist,
    "lhist": _make_lhist,
    "max": lambda typer, node, signed: Max(signed),
    "min": lambda typer, node, signed: Min(signed),
    "stats": lambda typer, node, signed: Stats(signed),
    "sum": lambda typer, node, signed: Sum(signed),
    "tseries": _make_tseries,
}


def _aggregate(typer: Typer, state: MapState, call: ast.Call, value: Type) -> None:
    """Put the value of an aggregation into a map: all of them must be of one kind."""
    made = value.ctype
    assert isinstance(made, Aggregate)
    if call.args and type(made) in (Avg, Max, Min, Stats, Sum):
        made = _common_sign(typer, state, call, made)
    before = state.value
    if before is None:
        set_value(typer, state, Type(made))
        return
    if type(before.ctype) is not type(made):
        _mismatch(typer, state, made, call)
        return
    if isinstance(made, (Hist, LHist, TSeries)) and not same(before.ctype, made):
        _different_buckets(typer, state, call)
        return
    if not same(before.ctype, made):
        set_value(typer, state, Type(made))


def _common_sign(typer: Typer, state: MapState, call: ast.Call, made: Aggregate) -> Aggregate:
    """What sum() and its like are called with decides whether the map's values have a sign."""
    argument = typer.type_of[call.args[0]].ctype
    if isinstance(argument, CASTABLE):
        argument = integer_of(argument)
    state.aggregate_arg = promote(state.aggregate_arg, argument) or INT64
    plain = strip(state.aggregate_arg)
    signed = isinstance(plain, (Int, Enum)) and plain.signed
    return made if made.signed == signed else type(made)(signed)


def _different_buckets(typer: Typer, state: MapState, call: ast.Call) -> None:
    typer.error(
        call,
        f"Different {call.name}() arguments for {state.name}: all calls for one map must have the same",
    )


def default_value() -> Type:
    """Return the type of the values of a map that is never assigned."""
    return Type(literal_type(1 << 62))


def is_multi(ctype: CType) -> bool:
    """Tell whether this is an aggregate of more than one number."""
    return isinstance(ctype, _MULTI)

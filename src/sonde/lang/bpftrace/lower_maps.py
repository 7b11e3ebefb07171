"""Maps: reading, assigning, stepping, deleting; in place wherever the entry is at hand.

A key is written to the stack once and used again by later accesses with the same key; an entry that was found is known until
the map changes. Scalar maps are plain memory, with a byte beside them that tells whether they were ever assigned.
"""

from __future__ import annotations

from ...compiler.ir import I8, I32, I64, MAP, Const
from ...debuginfo.ctype import BOOL, INT64, Int, Pointer, sizeof, strip
from . import ast
from .lower_expr import arithmetic, evaluate, in_memory, store
from .lower_unit import GLOBALS, LOST, MapPlace
from .lower_values import Memory, Scalar, ir_type, is_scalar
from .stype import Aggregate

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ...compiler.ir import Value
    from ...debuginfo.ctype import CType
    from .lower_frame import Frame
    from .lower_values import Operand

# Builtins that are the same throughout one run of a program.
_CONSTANT_BUILTINS = frozenset(
    [
        "pid",
        "tid",
        "uid",
        "gid",
        "comm",
        "curtask",
        "cgroup",
        "cpid",
        "username",
        "retval",
        "func",
        "probe",
        "numaid",
        "cpu",
    ]
)


# Keys -------------------------------------------------------------------------------------------------------------


def key_identity(f: Frame, node: ast.Node) -> Any:
    """Return what two expressions have in common that always give the same value in one run; None if one may change."""
    constant = f.constants.get(node)
    if constant is not None:
        return type(constant).__name__, constant
    if isinstance(node, (ast.Identifier, ast.Call)):
        info = f.calls.get(node)
        if info is None or info.args:
            return None
        if info.name in _CONSTANT_BUILTINS or (info.name.startswith("arg") and "index" in info.params):
            return info.name, tuple(sorted((k, v) for k, v in info.params.items() if isinstance(v, (int, str))))
        return None
    if isinstance(node, ast.FieldAccess) and f.space(node.operand) == "ctx":
        return ("args", node.name) if f.fields[node].struct is f.probe.context.args else None
    if isinstance(node, ast.TupleExpr):
        items = [key_identity(f, item) for item in node.items]
        return None if None in items else ("tuple", *items)
    return None


def key_memory(f: Frame, place: MapPlace, node: ast.Node) -> tuple[Memory, Any]:
    """The key in our own memory, and its identity (None when it may change)."""
    assert place.key is not None
    ctype = strip(place.key)
    identity = key_identity(f, node)
    known = f.facts.recall(_key_fact(ctype, identity)) if identity is not None else None
    if known is not None:
        return known, identity
    memory = in_memory(f, node, ctype)
    if identity is not None:
        f.facts.remember(_key_fact(ctype, identity), memory)
    return memory, identity


def _key_fact(ctype: CType, identity: Any) -> Any:
    return "key", identity, sizeof(ctype) if is_scalar(ctype) else ctype


def bucket_key(f: Frame, place: MapPlace, node: ast.Node, bucket: Value | None) -> Memory:
    """The key of one bucket of a histogram: the user's key, and behind it the bucket."""
    assert place.key is not None
    memory = Memory(f.b.alloca(place.key_bytes, 8, "key"), 0, place.key)
    store(f, node, memory)
    f.clear(memory.pointer, place.bucket_offset - sizeof(place.key), sizeof(place.key))
    if bucket is not None:
        f.b.store(memory.pointer, f.resize(bucket, INT64, I32), place.bucket_offset)
    return memory


# Entries ----------------------------------------------------------------------------------------------------------


def lookup(f: Frame, place: MapPlace, key: Memory) -> Value:
    """Look an entry up: its address, or null."""
    return f.b.call("map_lookup_elem", [f.b.map(place.kernel_map), f.address(key)], MAP)


def known_entry(f: Frame, place: MapPlace, identity: Any) -> Value | None:
    """The address of an entry that was found before, if it is still there."""
    return f.facts.recall(("entry", place.name, identity)) if identity is not None else None


def with_entry(
    f: Frame, place: MapPlace, node: ast.Node, found: Callable[[Value], None], absent: Callable[[Memory], None] | None
) -> None:
    """Look an entry up and run `found` with its address, or `absent` with its key."""
    key, identity = key_memory(f, place, node)
    entry = known_entry(f, place, identity)
    if entry is not None:
        found(entry)
        return
    entry = lookup(f, place, key)
    present = f.b.binary("ne", entry, 0)
    f.diamond(present, lambda: found(entry), (lambda: absent(key)) if absent is not None else None)


def update(f: Frame, place: MapPlace, key: Memory, value: Value, span: Any, *, rare: bool = False) -> None:
    """Write an entry; a map that is full is counted, or reported where the user wants each failure.

    `rare`: this is not what happens at most hits, so a short program is better than a fast one.
    """
    b = f.b
    result = b.call("map_update_elem", [b.map(place.kernel_map), f.address(key), value, 0])
    f.facts.forget_map(place.name)
    if place.lru:
        return
    if f.unit.options.helper_errors:
        from .lower_events import emit_helper_error

        emit_helper_error(f, "map_update_elem", result, span)
        return
    offset = f.unit.failure("map_update_elem", place.name, span)
    if rare:
        _count_failure(f, offset, result)  # a success adds nothing
    else:
        f.diamond(b.binary("ne", result, 0), lambda: _count_failure(f, offset, result))


def _count_failure(f: Frame, offset: int, code: Value) -> None:
    f.b.atomic("add", f.b.map_value(LOST), code, offset=offset)


# Reading ----------------------------------------------------------------------------------------------------------


def read_map(f: Frame, node: ast.Map | ast.MapAccess) -> Operand:
    """The value of a scalar map or an entry; zeros when there is none."""
    place = f.unit.maps[_name(node)]
    if isinstance(place.value, Aggregate):
        from .lower_reading import read_aggregate

        return read_aggregate(f, node, place)
    leads = f.space(node)
    found = f.type_of.get(node)
    if found is not None and found.leads:
        leads = found.leads
    if isinstance(node, ast.Map):
        memory = scalar_memory(f, place)
        memory.leads = leads
        return f.load(memory) if is_scalar(memory.ctype) else memory
    return _read_entry(f, node, place, leads)


def _name(node: ast.Map | ast.MapAccess) -> str:
    return node.map.name if isinstance(node, ast.MapAccess) else node.name


def scalar_memory(f: Frame, place: MapPlace) -> Memory:
    """Where a scalar map lies."""
    return Memory(f.b.map_value(place.kernel_map, place.offset), 0, place.value)


def _read_entry(f: Frame, node: ast.MapAccess, place: MapPlace, leads: str) -> Operand:
    ctype = strip(place.value)
    key, identity = key_memory(f, place, node.key)
    entry = known_entry(f, place, identity)
    if entry is not None:
        value = f.facts.recall(("value", place.name, identity))
        if value is not None:
            return Scalar(value, ctype, leads)
        memory = Memory(entry, 0, ctype, leads=leads)
        return f.load(memory) if is_scalar(ctype) else memory
    b = f.b
    entry = lookup(f, place, key)
    found, absent = b.new_block("found"), b.new_block("absent")
    done = b.new_block("value", [ir_type(ctype) if is_scalar(ctype) else MAP])
    b.branch(b.binary("ne", entry, 0), found, absent)
    b.at(found)
    b.jump(done, b.load(ir_type(ctype), entry) if is_scalar(ctype) else entry)
    b.at(absent)
    if is_scalar(ctype):
        _report_absent(f, node)
        b.jump(done, Const(0, ir_type(ctype)))
    else:
        _report_absent(f, node)
        b.jump(done, b.map_value(GLOBALS, f.unit.zeros(sizeof(ctype))))
    b.at(done)
    if is_scalar(ctype):
        return Scalar(done.params[0], ctype, leads)
    return Memory(done.params[0], 0, ctype, leads=leads)


def _report_absent(f: Frame, node: ast.Node) -> None:
    if f.unit.options.helper_errors:
        from .lower_events import emit_failure

        emit_failure(f, "map_lookup_elem", Const(0), node.span)


def branch_on_entry(f: Frame, node: ast.MapAccess, yes: Any, no: Any, sole: bool) -> bool:
    """Branch on whether an entry is there and not 0; False when that is not what the condition means.

    Where only this condition leads to `yes`, the entry is known there.
    """
    place = f.unit.maps[node.map.name]
    ctype = strip(place.value)
    assert place.key is not None
    if not is_scalar(ctype) or isinstance(place.value, Aggregate) or f.unit.options.helper_errors:
        return False
    key, identity = key_memory(f, place, node.key)
    entry = known_entry(f, place, identity)
    b = f.b
    if entry is None:
        entry = lookup(f, place, key)
        found = b.new_block("found")
        b.branch(b.binary("ne", entry, 0), found, no)
        b.at(found)
    value = b.load(ir_type(ctype), entry)
    b.branch(value, yes, no)
    if sole and identity is not None:
        f.facts.expect(yes, ("entry", place.name, identity), entry)
        f.facts.expect(yes, ("value", place.name, identity), value)
        f.facts.expect(yes, _key_fact(strip(place.key), identity), key)
    return True


def own_place(f: Frame, node: ast.Map | ast.MapAccess) -> Memory:
    """`&@m`, `&@m[k]`: where the value lies."""
    place = f.unit.maps[_name(node)]
    if isinstance(node, ast.Map):
        return scalar_memory(f, place)
    key, _ = key_memory(f, place, node.key)
    return Memory(lookup(f, place, key), 0, place.value)


# Assigning --------------------------------------------------------------------------------------------------------


def assign(f: Frame, node: ast.Assign) -> None:
    """`@m = value`, `@m[k] = value`."""
    target = node.target
    assert isinstance(target, (ast.Map, ast.MapAccess))
    place = f.unit.maps[_name(target)]
    if isinstance(place.value, Aggregate):
        from .lower_aggregations import aggregate

        aggregate(f, place, target, node)
    elif isinstance(target, ast.Map):
        _assign_scalar(f, place, node)
    else:
        _assign_entry(f, place, target, node)


def _assign_scalar(f: Frame, place: MapPlace, node: ast.Assign) -> None:
    ctype = strip(place.value)
    if is_scalar(ctype):
        value = f.number(evaluate(f, node.value), ctype)
        f.store(scalar_memory(f, place), value)
    elif _mentions(node.value, place.name):  # it may be read while it is written
        temp = f.temp(ctype)
        store(f, node.value, temp)
        f.copy(scalar_memory(f, place), temp, sizeof(ctype))
    else:
        store(f, node.value, scalar_memory(f, place))
    mark_set(f, place)


def mark_set(f: Frame, place: MapPlace) -> None:
    """Note that a scalar map has been assigned."""
    f.b.store(f.b.map_value(GLOBALS, place.set_offset), Const(1, I8))


def _mentions(node: ast.Node, name: str) -> bool:
    from .rewrite import iter_nodes

    return any(isinstance(n, ast.Map) and n.name == name for n in iter_nodes(node))


def _assign_entry(f: Frame, place: MapPlace, target: ast.MapAccess, node: ast.Assign) -> None:
    ctype = strip(place.value)
    key, identity = key_memory(f, place, target.key)
    if is_scalar(ctype):
        value = f.number(evaluate(f, node.value), ctype)
        entry = known_entry(f, place, identity)
        if entry is not None:
            f.store(Memory(entry, 0, ctype), value)
            f.facts.forget_values(place.name)
            return
        slot = f.temp(ctype, "value")
        f.store(slot, value)
    else:
        slot = in_memory(f, node.value, ctype)
    update(f, place, key, f.address(slot), node.span)


def assign_operation(f: Frame, node: ast.Assign) -> None:
    """`@m op= value`, `@m[k] op= value`."""
    target = node.target
    assert isinstance(target, (ast.Map, ast.MapAccess))
    place = f.unit.maps[_name(target)]
    ctype = strip(place.value)
    right = f.scalar(evaluate(f, node.value))
    computed = f.operands.get(node) or ctype

    def combine(old: Scalar) -> Value:
        if isinstance(ctype, Pointer):
            from .lower_expr import pointer_arithmetic

            return pointer_arithmetic(f, node.op, old, right).value
        value = arithmetic(f, node.op, old, right, computed, node)
        return f.resize(value, computed, ir_type(ctype))

    amount = None
    if node.op in ("+", "-") and isinstance(ctype, Int):
        amount = f.resize(right.value, right.ctype, ir_type(ctype))
        if node.op == "-":
            amount = Const(-amount.imm, amount.type) if isinstance(amount, Const) else f.b.unary("neg", amount)
    _modify(f, place, target, combine, amount, node.span)


def step_map(f: Frame, node: ast.Unary, target: ast.Map | ast.MapAccess, wanted: bool) -> Scalar:
    """`@m++`, `--@m[k]` …; `wanted` says whether somebody uses the value."""
    place = f.unit.maps[_name(target)]
    ctype = strip(place.value)
    step: int = 1 if node.op == "++" else -1
    if isinstance(ctype, Pointer):
        step *= sizeof(ctype.target) or 1
    old: list[Scalar] = []

    def combine(before: Scalar) -> Value:
        old.append(before)
        return f.b.binary("add", before.value, step)

    if not wanted:
        _modify(f, place, target, combine, Const(step, ir_type(ctype)), node.span)
        return Scalar(Const(0), INT64)
    slot = f.temp(ctype, "old")

    def keep(before: Scalar) -> Value:
        after = combine(before)
        f.store(slot, before.value if node.postfix else after)
        return after

    _modify(f, place, target, keep, None, node.span)
    result = f.load(slot)
    found = f.type(node)
    return Scalar(f.number(result, found.ctype), found.ctype, found.space)


def _modify(
    f: Frame,
    place: MapPlace,
    target: ast.Map | ast.MapAccess,
    combine: Callable[[Scalar], Value],
    amount: Value | None,
    span: Any,
) -> None:
    """Change a value: by an atomic addition of `amount` where that is all there is to it."""
    ctype = strip(place.value)
    if amount is not None and sizeof(ctype) not in (4, 8):
        amount = None

    def change(memory: Memory) -> None:
        f.facts.forget_values(place.name)
        if amount is not None:
            f.b.atomic("add", memory.pointer, amount, offset=memory.offset)
        else:
            f.store(memory, combine(f.load(memory)))

    if isinstance(target, ast.Map):
        change(scalar_memory(f, place))
        mark_set(f, place)
        return

    def insert(key: Memory) -> None:
        slot = f.temp(ctype, "value")
        f.store(slot, amount if amount is not None else combine(Scalar(Const(0, ir_type(ctype)), ctype)))
        update(f, place, key, f.address(slot), span)

    with_entry(f, place, target.key, lambda entry: change(Memory(entry, 0, ctype)), insert)


# Functions on maps ------------------------------------------------------------------------------------------------


def delete(f: Frame, node: ast.Call, info: Any) -> Operand:
    """`delete(@m, k)`, `delete(@m)`, and the old `delete(@m[k], …)`; whether the last one was there."""
    result: Operand = Scalar(Const(0, I8), BOOL)
    for name, key in info.params["targets"]:
        place = f.unit.maps[name]
        if key is None:
            result = _delete_scalar(f, place)
        elif place.bucket_offset >= 0:
            result = _delete_buckets(f, place, key)
        else:
            memory, _ = key_memory(f, place, key)
            code = f.b.call("map_delete_elem", [f.b.map(place.kernel_map), f.address(memory)])
            f.facts.forget_map(name)
            result = Scalar(f.b.binary("eq", code, 0), BOOL)
    return result


def _delete_scalar(f: Frame, place: MapPlace) -> Scalar:
    if place.set_offset < 0:
        size = place.layout.size
        f.clear(f.b.percpu_value(place.kernel_map, place.offset), size)
        return Scalar(Const(1, I8), BOOL)
    flag = f.b.map_value(GLOBALS, place.set_offset)
    before = f.b.load(I8, flag)
    f.b.store(flag, Const(0, I8))
    memory = scalar_memory(f, place)
    f.clear(memory.pointer, sizeof(place.value))
    return Scalar(f.b.binary("ne", before, 0), BOOL)


def _delete_buckets(f: Frame, place: MapPlace, key: ast.Node) -> Scalar:
    """All buckets of one key of a histogram."""
    memory = bucket_key(f, place, key, Const(0, I32))
    b = f.b
    count = getattr(place.value, "buckets", 1)
    loop, done = b.new_block("buckets", [I64, I64]), b.new_block("deleted", [I64])
    b.jump(loop, Const(0), Const(0))
    b.at(loop)
    number, gone = loop.params
    b.store(memory.pointer, b.convert("trunc", number, I32), place.bucket_offset)
    code = b.call("map_delete_elem", [b.map(place.kernel_map), memory.pointer])
    any_gone = b.binary("or", gone, b.convert("zext", b.binary("eq", code, 0), I64))
    following = b.binary("add", number, 1)
    b.branch(b.binary("ult", following, count), loop, done, [following, any_gone], [any_gone])
    b.at(done)
    return Scalar(b.binary("ne", done.params[0], 0), BOOL)


def has_key(f: Frame, node: ast.Call, info: Any) -> Operand:
    """`has_key(@m, k)`."""
    place = f.unit.maps[info.params["map"]]
    if place.bucket_offset >= 0:
        return _has_buckets(f, place, info.params["key"])
    key, identity = key_memory(f, place, info.params["key"])
    if known_entry(f, place, identity) is not None:
        return Scalar(Const(1, I8), BOOL)
    return Scalar(f.b.binary("ne", lookup(f, place, key), 0), BOOL)


def _has_buckets(f: Frame, place: MapPlace, key: ast.Node) -> Scalar:
    memory = bucket_key(f, place, key, Const(0, I32))
    b = f.b
    count = getattr(place.value, "buckets", 1)
    loop, more, done = b.new_block("buckets", [I64]), b.new_block("more"), b.new_block("found", [I64])
    b.jump(loop, Const(0))
    b.at(loop)
    number = loop.params[0]
    b.store(memory.pointer, b.convert("trunc", number, I32), place.bucket_offset)
    entry = lookup(f, place, memory)
    b.branch(b.binary("ne", entry, 0), done, more, [Const(1)])
    b.at(more)
    following = b.binary("add", number, 1)
    b.branch(b.binary("ult", following, count), loop, done, [following], [Const(0)])
    b.at(done)
    return Scalar(b.binary("ne", done.params[0], 0), BOOL)


def find(f: Frame, node: ast.Call, info: Any) -> Operand:
    """`find(@m, k, $out)`: the value goes to the variable, when there is one."""
    from ...compiler.ir import I1
    from .lower_expr import variable_place

    place = f.unit.maps[info.params["map"]]
    variable = variable_place(f, info.params["variable"])
    key, _ = key_memory(f, place, info.params["key"])
    entry = lookup(f, place, key)
    b = f.b
    found, done = b.new_block("found"), b.new_block("done", [I1])
    b.branch(b.binary("ne", entry, 0), found, done, [], [Const(0, I1)])
    f.branch_to(found)
    if isinstance(place.value, Aggregate):
        from .lower_reading import entry_number

        f.put(entry_number(f, place, key, entry), variable)
    else:
        f.put(Memory(entry, 0, place.value), variable)
    b.jump(done, Const(1, I1))
    f.leave_branch()
    b.at(done)
    return Scalar(done.params[0], BOOL)


CALLS = {"delete": delete, "has_key": has_key, "find": find}

"""The methods of BCC's tables: `table.lookup(&key)` and its like are calls of helpers with the table as their map."""

from __future__ import annotations

from ...compiler.ir import MAP, MEM, Const
from ...debuginfo.ctype import INT32, VOID, Pointer, sizeof
from . import ast
from .analysis import Table
from .lower_calls import helper_result
from .lower_expressions import evaluate, put
from .lower_frame import failure
from .lower_numbers import arithmetic, convert, wide_register
from .lower_places import decay, read
from .values import Place, Scalar, pointer_type

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ...compiler.ir import Value
    from .lower_frame import Frame
    from .values import Operand

CURRENT_CPU = 0xFFFFFFFF
ANY, NOEXIST = 0, 1
_CREATES = frozenset(["hash", "lru_hash", "percpu_hash", "lru_percpu_hash"])  # increment() makes what is not there


def call_method(f: Frame, node: ast.Call, table: Table, name: str, *, wanted: bool) -> Operand | None:
    """Lower a call of a method; None for what gives no value."""
    rule = METHODS.get(name)
    if rule is None:
        raise failure(node.span, f"table {table.name} has no method {name}")
    f.b.span = node.span
    return rule(f, node, table)


def _argument(f: Frame, node: ast.Node) -> Value:
    operand = evaluate(f, node)
    return wide_register(f, decay(f, operand) if isinstance(operand, Place) else operand)


def _number(f: Frame, node: ast.Node) -> Value:
    return f.as_number(_argument(f, node))


def _own(f: Frame, node: ast.Node, size: int) -> Value:
    """A key or value that a helper is to read: memory of the program. What lies elsewhere is copied first."""
    operand = evaluate(f, node)
    if isinstance(operand, Place):
        operand = decay(f, operand)
    assert isinstance(operand, Scalar)
    if operand.space not in ("kernel", "user", "any"):
        return wide_register(f, operand)
    copy = f.b.alloca(max(size, 1), 8 if size > 4 else 4, "copy")
    f.read_into(copy, Place(f.as_number(operand.value), 0, VOID, operand.space), size)
    return copy


def _key(f: Frame, node: ast.Node, table: Table) -> Value:
    return _own(f, node, sizeof(table.key) if table.key is not None else 4)


def _leaf(f: Frame, node: ast.Node, table: Table) -> Value:
    return _own(f, node, sizeof(table.leaf) if table.leaf is not None else 8)


def _map(f: Frame, table: Table, node: ast.Call) -> Value:
    f.b.span = node.span
    return f.program.map(f, table)


def _integer(f: Frame, result: Value) -> Scalar:
    return Scalar(f.resize(result, True, "i32"), INT32)


def _pointer(table: Table, value: Value, space: str = "map") -> Scalar:
    return Scalar(value, Pointer(table.leaf if table.leaf is not None else VOID), space)


# Entries ----------------------------------------------------------------------------------------------------------


def _find(f: Frame, node: ast.Call, table: Table, key: Value) -> Value:
    """The address of the value of a key, or null. A local copy of the key is read by each call anew."""
    return f.b.call("map_lookup_elem", [_map(f, table, node), key], MAP)


def _lookup(f: Frame, node: ast.Call, table: Table) -> Operand:
    return _pointer(table, _find(f, node, table, _key(f, node.args[0], table)))


def _lookup_or_init(f: Frame, node: ast.Call, table: Table) -> Operand:
    """What is not there is inserted; when that fails, the function returns 0."""
    return _or_init(f, node, table, gives_up=True)


def _lookup_or_try_init(f: Frame, node: ast.Call, table: Table) -> Operand:
    return _or_init(f, node, table, gives_up=False)


def _or_init(f: Frame, node: ast.Call, table: Table, *, gives_up: bool) -> Operand:
    b = f.b
    key, value = _key(f, node.args[0], table), _leaf(f, node.args[1], table)
    found = _find(f, node, table, key)
    missing, done = b.new_block("missing"), b.new_block("found", [MAP])
    b.branch(b.binary("ne", found, 0), done, missing, [found])
    b.at(missing)
    b.call("map_update_elem", [_map(f, table, node), key, value, NOEXIST])
    again = _find(f, node, table, key)
    if gives_up:
        none = b.new_block("none")
        b.branch(b.binary("ne", again, 0), done, none, [again])
        b.at(none)
        f.finish(Scalar(Const(0, "i32"), INT32))
    else:
        b.jump(done, again)
    b.at(done)
    return _pointer(table, done.params[0])


def _store(flags: int) -> Callable[..., Operand]:
    def run(f: Frame, node: ast.Call, table: Table) -> Operand:
        key, value = _key(f, node.args[0], table), _leaf(f, node.args[1], table)
        chosen = _number(f, node.args[2]) if len(node.args) > 2 else Const(flags)
        return _integer(f, f.b.call("map_update_elem", [_map(f, table, node), key, value, chosen]))

    return run


def _delete(f: Frame, node: ast.Call, table: Table) -> Operand:
    key = _key(f, node.args[0], table)
    return _integer(f, f.b.call("map_delete_elem", [_map(f, table, node), key]))


def _increment(f: Frame, node: ast.Call, table: Table, *, atomic: bool = False) -> None:
    """`table.increment(key[, n])`: the key is a value; a new entry begins at n, where the kind of map can have new ones."""
    assert table.key is not None and table.leaf is not None
    b = f.b
    key = f.local(table.key, "key")
    put(f, node.args[0], key)
    by: Operand = Scalar(Const(1, "i32"), INT32)
    if len(node.args) > 1:
        by = evaluate(f, node.args[1])
    by = convert(f, by, table.leaf)
    b.span = node.span
    found = _find(f, node, table, f.address(key))
    there, done = b.new_block("there"), b.new_block("done")
    missing = b.new_block("missing") if table.kind in _CREATES else done
    b.branch(b.binary("ne", found, 0), there, missing)
    b.at(there)
    place = Place(found, 0, table.leaf, "map")
    if atomic and isinstance(by, Scalar) and sizeof(table.leaf) in (4, 8):
        b.atomic("add", found, by.value)
    else:
        f.store(place, convert(f, arithmetic(f, "+", read(f, place), by, table.leaf, node.span), table.leaf))
    b.jump(done)
    if missing is not done:
        b.at(missing)
        first = f.local(table.leaf, "first")
        f.store(first, by)
        b.call("map_update_elem", [_map(f, table, node), f.address(key), f.address(first), NOEXIST])
        b.jump(done)
    b.at(done)


def _atomic_increment(f: Frame, node: ast.Call, table: Table) -> None:
    _increment(f, node, table, atomic=True)


# Output -----------------------------------------------------------------------------------------------------------


def _perf_submit(f: Frame, node: ast.Call, table: Table) -> Operand:
    ctx, data, size = (_argument(f, arg) for arg in node.args)
    code = f.b.call("perf_event_output", [ctx, _map(f, table, node), CURRENT_CPU, data, f.as_number(size)])
    return _integer(f, code)


def _perf_submit_skb(f: Frame, node: ast.Call, table: Table) -> Operand:
    """The number of bytes of the packet to append stands in the upper half of the flags."""
    ctx, length, data, size = (_argument(f, arg) for arg in node.args)
    flags = f.b.binary("or", f.b.binary("shl", f.as_number(length), 32), CURRENT_CPU)
    code = f.b.call("perf_event_output", [ctx, _map(f, table, node), flags, data, f.as_number(size)])
    return _integer(f, code)


def _ringbuf_output(f: Frame, node: ast.Call, table: Table) -> Operand:
    data, size, flags = (_argument(f, arg) for arg in node.args)
    return _integer(f, f.b.call("ringbuf_output", [_map(f, table, node), data, size, flags]))


def _ringbuf_reserve(f: Frame, node: ast.Call, table: Table) -> Operand:
    size = _number(f, node.args[0])
    record = f.b.call("ringbuf_reserve", [_map(f, table, node), size, 0], MEM)
    return Scalar(record, Pointer(VOID), "mem")


def _ringbuf_end(helper: str) -> Callable[..., None]:
    def run(f: Frame, node: ast.Call, table: Table) -> None:
        record, flags = (_argument(f, arg) for arg in node.args)
        f.b.call(helper, [record, flags])

    return run


# Everything that is one helper call ---------------------------------------------------------------------------------


def _plain(helper: str, order: str, result: str = "int") -> Callable[..., Operand | None]:
    """A method that is a helper: `order` says for each of its arguments where it comes from.

    m: the map; a digit: that argument; k, l followed by a digit: that argument, a key or a value; 0 as "z": the number 0.
    """

    def run(f: Frame, node: ast.Call, table: Table) -> Operand | None:
        values: list[Value | int] = []
        for word in order.split():
            if word == "m":
                values.append(_map(f, table, node))
            elif word == "z":
                values.append(0)
            elif word[0] == "k":
                values.append(_key(f, node.args[int(word[1:])], table))
            elif word[0] == "l":
                values.append(_leaf(f, node.args[int(word[1:])], table))
            else:
                index = int(word)
                values.append(_argument(f, node.args[index]) if index < len(node.args) else 0)
        f.b.span = node.span
        if result == "leaf":
            return _pointer(table, f.b.call(helper, values, pointer_type("map")))
        return helper_result(f, helper, values, f.type(node))

    return run


def _call(f: Frame, node: ast.Call, table: Table) -> None:
    """`table.call(ctx, index)`: goes on in another program, or falls through where there is none."""
    ctx, index = _argument(f, node.args[0]), _number(f, node.args[1])
    f.b.tailcall(ctx, _map(f, table, node), index)


METHODS: dict[str, Callable[..., Operand | None]] = {
    "lookup": _lookup,
    "lookup_or_init": _lookup_or_init,
    "lookup_or_try_init": _lookup_or_try_init,
    "update": _store(ANY),
    "insert": _store(NOEXIST),
    "delete": _delete,
    "increment": _increment,
    "atomic_increment": _atomic_increment,
    "call": _call,
    "perf_submit": _perf_submit,
    "perf_submit_skb": _perf_submit_skb,
    "perf_read": _plain("perf_event_read", "m 0"),
    "perf_counter_value": _plain("perf_event_read_value", "m 0 1 2"),
    "ringbuf_output": _ringbuf_output,
    "ringbuf_reserve": _ringbuf_reserve,
    "ringbuf_submit": _ringbuf_end("ringbuf_submit"),
    "ringbuf_discard": _ringbuf_end("ringbuf_discard"),
    "ringbuf_query": _plain("ringbuf_query", "m 0"),
    "get_stackid": _plain("get_stackid", "0 m 1"),
    "check_current_task": _plain("current_task_under_cgroup", "m 0"),
    "push": _plain("map_push_elem", "m l0 1"),
    "pop": _plain("map_pop_elem", "m 0"),
    "peek": _plain("map_peek_elem", "m 0"),
    "redirect_map": _plain("redirect_map", "m 0 1"),
    "sock_map_update": _plain("sock_map_update", "0 m k1 2"),
    "sock_hash_update": _plain("sock_hash_update", "0 m k1 2"),
    "msg_redirect_hash": _plain("msg_redirect_hash", "0 m k1 2"),
    "sk_redirect_hash": _plain("sk_redirect_hash", "0 m k1 2"),
    "msg_redirect_map": _plain("msg_redirect_map", "0 m 1 2"),
    "sk_redirect_map": _plain("sk_redirect_map", "0 m 1 2"),
    "get_local_storage": _plain("get_local_storage", "m 0", "leaf"),
    "sk_storage_get": _plain("sk_storage_get", "m 0 1 2", "leaf"),
    "sk_storage_delete": _plain("sk_storage_delete", "m 0"),
    "inode_storage_get": _plain("inode_storage_get", "m 0 1 2", "leaf"),
    "inode_storage_delete": _plain("inode_storage_delete", "m 0"),
    "task_storage_get": _plain("task_storage_get", "m 0 1 2", "leaf"),
    "task_storage_delete": _plain("task_storage_delete", "m 0"),
}

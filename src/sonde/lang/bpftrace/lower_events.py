"""Events: what programs send to user space. A record is reserved in the ring buffer, filled in place and submitted.

Arguments that take work are evaluated before the reservation; what is cheap and cannot fail is written straight into the
record, strings of the traced program included.
"""

from __future__ import annotations

from ...compiler.ir import I32, I64, MEM, Const
from ...debuginfo.ctype import INT32, INT64, UINT64, sizeof, strip
from ...spec.layout import Layout
from ...spec.object import STAMP_NS
from ..source import diagnose
from . import ast
from .lower_expr import evaluate, in_memory, store
from .lower_unit import EVENTS, LOST
from .lower_values import Memory, Scalar, is_scalar
from .stype import Aggregate, Str

STAMP_OFFSET = 4

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from ...compiler.ir import Value
    from ...debuginfo.ctype import CType
    from ...errors import Span
    from .lower_frame import Frame
    from .lower_values import Operand


class Field:
    """A field of an event in the making: how it lies in the record, and who writes it there."""

    __slots__ = ("align", "layout", "name", "size", "write")

    def __init__(self, name: str, layout: Layout, size: int, align: int, write: Callable[[Value, int], None]) -> None:
        self.name = name
        self.layout = layout
        self.size = size
        self.align = align
        self.write = write  # (record, offset)


def send(f: Frame, kind: str, fields: Sequence[Field] = (), span: Span | None = None, **params: Any) -> None:
    """Reserve a record, fill it, submit it; count it when there is no room."""
    b = f.b
    event = f.unit.event(kind, [(x.name, x.layout, x.size, x.align) for x in fields], span, **params)
    record = b.call("ringbuf_reserve", [b.map(EVENTS), event.size, 0], MEM)

    def fill() -> None:
        b.store(record, Const(event.ident, I64))
        if f.unit.options.stamped:
            b.store(record, stamp(f), STAMP_OFFSET)
        for field, where in zip(fields, event.fields):
            field.write(record, where.offset)
        b.call("ringbuf_submit", [record, 0])

    f.diamond(b.binary("ne", record, 0), fill, lambda: count_lost(f))


def stamp(f: Frame) -> Value:
    """The time now, in the units of stamps."""
    return f.b.convert("trunc", f.b.binary("udiv", f.b.call("ktime_get_ns"), STAMP_NS), I32)


def count_lost(f: Frame) -> None:
    """Count an event that found no room."""
    f.b.atomic("add", f.b.map_value(LOST), Const(1))


# Fields -----------------------------------------------------------------------------------------------------------


def fields_of(f: Frame, nodes: Sequence[ast.Node]) -> list[Field]:
    """Make the fields for expressions: what may be evaluated late is, as long as nothing before it needs order."""
    last = max((i for i, node in enumerate(nodes) if not is_simple(f, node)), default=-1)
    return [make_field(f, str(i), node, late=i > last) for i, node in enumerate(nodes)]


def make_field(f: Frame, name: str, node: ast.Node, late: bool = True) -> Field:
    """The field for one expression. `late`: it may be evaluated while the record is being filled."""
    constant = f.constants.get(node)
    if isinstance(constant, str):
        return make_text(f, name, constant)
    info = f.calls.get(node)
    if info is not None and info.name == "probe":
        return _probe_field(f, name)
    ctype = _plain(f.ctype(node))
    layout, size, align = shape(f, ctype)
    place_type: CType = Str(size) if isinstance(ctype, Str) else ctype
    if late and is_simple(f, node):
        return Field(name, layout, size, align, lambda r, at: store(f, node, Memory(r, at, place_type), False))
    if is_scalar(ctype):
        value = f.number(evaluate(f, node), ctype)
        return Field(name, layout, size, align, lambda r, at: f.store(Memory(r, at, ctype), value))
    memory = in_memory(f, node)
    return Field(name, layout, size, align, lambda r, at: f.put(memory, Memory(r, at, place_type), False))


def make_text(f: Frame, name: str, text: str) -> Field:
    """The field for a constant string: its number in the object's table."""
    index = f.unit.intern(text)
    return Field(name, Layout("text", 4), 4, 4, lambda record, at: f.b.store(record, Const(index, I32), at))


def _probe_field(f: Frame, name: str) -> Field:
    """The field for the name of the probe that fired, of several: its number in the object's table."""
    from .lower_builtins import probe_number

    start = f.unit.intern_all([p.name for p in f.probe.probes])
    number = f.b.binary("add", f.b.convert("trunc", probe_number(f), I32), start)
    return Field(name, Layout("probe", 4), 4, 4, lambda record, at: f.b.store(record, number, at))


def number_field(name: str, f: Frame, value: Value, ctype: CType) -> Field:
    """The field for a number that is at hand."""
    return Field(
        name, f.unit.layouts.of(ctype), sizeof(ctype), sizeof(ctype), lambda r, at: f.store(Memory(r, at, ctype), value)
    )


def _plain(ctype: CType) -> CType:
    if isinstance(ctype, Aggregate):
        return INT64 if ctype.signed else UINT64
    return ctype


def shape(f: Frame, ctype: CType) -> tuple[Layout, int, int]:
    """Layout, bytes and alignment of a field. A string that may be cut gets a byte more, to tell whether it was."""
    layout = f.unit.layouts.of(ctype)
    size = sizeof(ctype)
    if isinstance(ctype, Str) and size == f.unit.config.max_strlen:
        return layout, size + 1, 1
    return layout, size, max(min(ctype.align, 8), 1)


_SIMPLE_BUILTINS = frozenset(
    ["pid", "tid", "uid", "gid", "comm", "cpu", "nsecs", "cgroup", "cpid", "curtask", "rand", "ncpus", "jiffies", "username",
     "retval", "func", "numaid", "has_cpid", "usermode", "args", "ctx", "probe", "elapsed"]
)  # fmt: skip
_SIMPLE_CALLS = frozenset(
    ["str", "buf", "ksym", "usym", "reg", "kaddr", "uaddr", "kptr", "uptr", "strftime", "ntop", "macaddr", "bswap", "strerror",
     "signal_name", "syscall_name", "cgroup_path", "nsecs"]
)  # fmt: skip


def is_simple(f: Frame, node: ast.Node) -> bool:
    """Tell whether an expression only reads: no branch that may leave the program, no effect, no other record."""
    if f.constants.get(node) is not None or isinstance(node, ast.Variable):
        return True
    if isinstance(node, (ast.Identifier, ast.Call)):
        info = f.calls.get(node)
        if info is None:
            return False
        if not info.args:
            return info.name in _SIMPLE_BUILTINS or info.name.startswith("arg")
        return info.name in _SIMPLE_CALLS and all(is_simple(f, a) for a in info.args if isinstance(a, ast.Expr))
    if isinstance(node, ast.Map):
        return not isinstance(strip(f.unit.maps[node.name].value), Aggregate)
    if isinstance(node, ast.Binary):
        return (
            node.op not in ("/", "%", "&&", "||", "==", "!=") and is_simple(f, node.left) and is_simple(f, node.right)
        )
    if isinstance(node, ast.Unary):
        return node.op not in ("++", "--", "&") and is_simple(f, node.operand)
    if isinstance(node, (ast.Cast, ast.FieldAccess, ast.TupleAccess)):
        return is_simple(f, node.operand)
    if isinstance(node, ast.IndexAccess):
        return is_simple(f, node.operand) and is_simple(f, node.index)
    if isinstance(node, (ast.TupleExpr, ast.RecordExpr)):
        return all(is_simple(f, item) for item in node.items)
    return False


# Functions --------------------------------------------------------------------------------------------------------


def _formatted(f: Frame, node: ast.Call, info: Any) -> Operand:
    """printf, errorf, warnf, cat, system: the arguments, to be formatted where they are read."""
    params = {"segments": info.params["segments"]}
    if info.name == "cat":
        params["max_bytes"] = f.unit.config.max_cat_bytes
    span = node.span if info.name in ("errorf", "warnf") else None
    send(f, info.name, fields_of(f, info.params["args"]), span, **params)
    return NOTHING


NOTHING = Scalar(Const(0), INT64)


def _print(f: Frame, node: ast.Call, info: Any) -> Operand:
    name = info.params.get("map")
    if name is not None:
        params: dict[str, Any] = {}
        for which in ("top", "div"):
            arg = info.params.get(which)
            value = f.constants.get(arg) if arg is not None else None
            if value is not None:
                params[which] = value
        send(f, "print_map", view=name, **params)
        return NOTHING
    value = info.args[0]
    if isinstance(value, ast.MapAccess) and isinstance(strip(f.unit.maps[value.map.name].value), Aggregate):
        _print_entry(f, value)
        return NOTHING
    send(f, "print", fields_of(f, [value]))
    return NOTHING


def _print_entry(f: Frame, node: ast.MapAccess) -> None:
    """`print(@m[k])` of an aggregation: the session reads the entry."""
    from .lower_maps import key_memory

    place = f.unit.maps[node.map.name]
    assert place.key is not None
    key, _ = key_memory(f, place, node.key)
    ctype = strip(place.key)
    layout, size = f.unit.layouts.of(ctype), sizeof(ctype)
    field = Field("key", layout, size, 8, lambda r, at: f.copy(Memory(r, at, ctype), key, size))
    send(f, "print_entry", [field], view=node.map.name)


def _exit(f: Frame, node: ast.Call, info: Any) -> Operand:
    """`exit([code])` also ends the run of the program. What is lost from then on nobody wants to see: the record says how much was lost before."""
    code = f.number(evaluate(f, info.args[0]), INT32) if info.args else Const(0, I32)
    lost = f.b.load(I64, f.b.map_value(LOST))
    send(f, "exit", [number_field("code", f, code, INT32), number_field("lost", f, lost, INT64)])
    f.finish(0)
    return NOTHING


def _time(f: Frame, node: ast.Call, info: Any) -> Operand:
    send(f, "time", format=info.params["format"])
    return NOTHING


def _whole_map(f: Frame, node: ast.Call, info: Any) -> Operand:
    """clear(@m), zero(@m)."""
    send(f, info.name, view=info.params["map"])
    return NOTHING


def _join(f: Frame, node: ast.Call, info: Any) -> Operand:
    from .lower_strings import join

    join(f, node, info)
    return NOTHING


# Reports of what went wrong ---------------------------------------------------------------------------------------


def emit_runtime_error(f: Frame, message: str, span: Span) -> None:
    """Report something that the program has mended itself."""
    send(f, "runtime_error", (), span, message=message, excerpt=_excerpt(span))


def emit_helper_error(f: Frame, helper: str, code: Value, span: Span) -> None:
    """Report a helper's failure, if it failed."""
    f.diamond(f.b.binary("slt", code, 0), lambda: emit_failure(f, helper, code, span))


def emit_failure(f: Frame, helper: str, code: Value, span: Span) -> None:
    """Report a helper's failure."""
    field = number_field("code", f, f.resize(code, INT64, I32), INT32)
    send(f, "helper_error", [field], span, helper=helper, message=MESSAGES.get(helper, ""), excerpt=_excerpt(span))


# What a failure of these helpers means; for others the text of the errno will do.
MESSAGES = {
    "map_lookup_elem": "Can't lookup map element because it does not exist.",
    "map_update_elem": "Map full; can't update element. Try increasing max_map_keys config or manually setting the max "
    "entries in a map declaration e.g. `let @a = hash(5000)`",
}


def _excerpt(span: Span) -> str:
    """The lines of the script that a span is on."""
    return diagnose(span, "").excerpt


CALLS: dict[str, Callable[..., Operand]] = {
    "printf": _formatted,
    "errorf": _formatted,
    "warnf": _formatted,
    "cat": _formatted,
    "system": _formatted,
    "print": _print,
    "exit": _exit,
    "time": _time,
    "clear": _whole_map,
    "zero": _whole_map,
    "join": _join,
}

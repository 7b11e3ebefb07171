"""Strings and bytes: read from where they are, compared, searched, joined."""

from __future__ import annotations

from ...compiler.ir import I8, I32, I64, Const
from ...debuginfo.ctype import Array, Int, Pointer, sizeof, strip
from . import ast
from .lower_expr import evaluate, in_memory, wide
from .lower_frame import Frame
from .lower_values import Memory, Scalar, Text, is_scalar
from .stype import Buffer, Str

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ...compiler.ir import Value
    from .lower_values import Operand


# Where a string is ------------------------------------------------------------------------------------------------


def string_address(f: Frame, node: ast.Node) -> tuple[Value, str, int]:
    """Address, address space and size (0: unknown) of the string that an expression is or leads to."""
    operand = evaluate(f, node)
    if isinstance(operand, Text):
        operand = in_memory(f, node, Str(len(operand.data) + 1))
    if isinstance(operand, Memory) and not is_scalar(operand.ctype):
        return f.raw_address(operand), operand.space, sizeof(operand.ctype)
    scalar = f.scalar(operand)
    space = scalar.space or f.space(node) or "any"
    if isinstance(scalar.ctype, Pointer):
        target = strip(scalar.ctype.target)
        size = sizeof(target) if isinstance(target, Array) else 0
    else:
        size = 0
    return f.wide(scalar), "" if space == "own" else space, size


def read_short(f: Frame, node: ast.Node, size: int) -> tuple[Memory, bool]:
    """A string of which only the first `size` bytes matter, and one more: memory that loads can reach, and whether what is
    behind the NUL is zeros.
    """
    info = f.calls.get(node)
    if info is not None and info.name == "str" and info.params.get("length") is None:
        address, space, _ = string_address(f, info.args[0])
        limit = min(size + 1, info.params["size"])
        place = Memory(f.b.alloca(limit, 8, "text"), 0, Str(limit))
        f.read_string(place.pointer, limit, address, space)
        return place, False
    if f.ctype(node) and isinstance(node, (ast.Identifier, ast.Call, ast.Ternary, ast.IfExpr, ast.BlockExpr)):
        return in_memory(f, node), True
    operand = evaluate(f, node)
    if isinstance(operand, Memory) and operand.space == "":
        return operand, True
    if isinstance(operand, Memory) and operand.space == "ctx":
        return operand, False
    if isinstance(operand, Memory):
        limit = min(size + 1, sizeof(operand.ctype))
        place = Memory(f.b.alloca(limit, 8, "text"), 0, Str(limit))
        if limit == sizeof(operand.ctype):
            f.read_into(place.pointer, operand, limit)  # a full array has no NUL
        else:
            f.read_string(place.pointer, limit, f.raw_address(operand), operand.space)
        return place, False
    return in_memory(f, node), True


# str and buf ------------------------------------------------------------------------------------------------------


def _length(f: Frame, node: ast.Node | None, limit: int) -> Value | int:
    """How many bytes to read: at most `limit`, and less where the script says so."""
    if node is None:
        return limit
    length = wide(f, node)
    if isinstance(length, Const):
        return min(max(length.imm, 0), limit)
    return at_most(f, length, limit)


def at_most(f: Frame, number: Value, limit: int) -> Value:
    """The smaller of a number (unsigned) and a constant."""
    from .lower_aggregations import keep_within

    return keep_within(f, number, limit)


def _write_str(f: Frame, node: ast.Call, info: Any, place: Memory, pad: bool) -> None:
    """`str(p[, n])`: up to the NUL, straight into its place."""
    config_limit = f.unit.config.max_strlen
    room = sizeof(place.ctype)
    address, space, size = string_address(f, info.args[0])
    if pad:
        f.clear(place.pointer, room, place.offset)
    if size:
        room = min(room, size if info.params["length"] is None else room)
    length = _length(f, info.params["length"], room)
    target = f.address(place)
    if not pad and not isinstance(length, int):
        f.b.store(target, Const(0, I8))  # a read of no bytes writes nothing
    if isinstance(length, int) and length == 0:
        f.b.store(target, Const(0, I8))
        return
    count = f.read_string(target, length, address, space)
    if pad and info.params["length"] is None and room == config_limit:
        _keep_last(f, place, address, space, count, room)


def _keep_last(f: Frame, place: Memory, address: Value, space: str, count: Value, room: int) -> None:
    """Show that a string was cut: it fills its place to the last byte, which is no NUL."""
    b = f.b

    def read_last() -> None:
        last = Memory(b.binary("add", address, room - 1), 0, Int("char", 1, True, "char"), space or "kernel")
        f.read_into(b.ptradd(place.pointer, place.offset + room - 1), last, 1)

    f.diamond(b.binary("eq", count, room), read_last)


def _write_buf(f: Frame, node: ast.Call, info: Any, place: Memory, pad: bool) -> None:
    """`buf(p, n)`: the number of bytes, and the bytes."""
    ctype = place.ctype
    assert isinstance(ctype, Buffer)
    constant = f.constants.get(info.args[0])
    limit = min(info.params["size"], ctype.capacity)
    length = _length(f, info.params["length"], limit)
    if isinstance(constant, str) and isinstance(length, int):
        data = constant.encode("utf-8", "surrogateescape").ljust(length, b"\0")[:length]
        f.put(Text(data, ctype), place, pad)
        return
    address, space, _ = string_address(f, info.args[0])
    if pad:
        f.clear(place.pointer, ctype.size, place.offset)
    number = Const(length, I32) if isinstance(length, int) else f.b.convert("trunc", length, I32)
    f.b.store(place.pointer, number, place.offset)
    if isinstance(length, int) and length == 0:
        return
    target = f.b.ptradd(place.pointer, place.offset + 4)
    helper = {"user": "probe_read_user", "any": ""}.get(space, "probe_read_kernel")
    if helper:
        f.checked(helper, f.b.call(helper, [target, length, address]))
    else:
        f.read_anywhere("probe_read_user", "probe_read_kernel", target, length, address)


def _write_path(f: Frame, node: ast.Call, info: Any, place: Memory, pad: bool) -> None:
    """`path(&file->f_path)`: by the kernel's d_path()."""
    f.unit.need_helper("d_path", "path()")
    operand = evaluate(f, info.args[0])
    pointer = (
        f.address(operand) if isinstance(operand, Memory) and not is_scalar(operand.ctype) else f.scalar(operand).value
    )
    if pad:
        f.clear(place.pointer, sizeof(place.ctype), place.offset)
    else:
        f.b.store(place.pointer, Const(0, I8), place.offset)
    f.b.call("d_path", [pointer, f.address(place), sizeof(place.ctype)])


# Questions --------------------------------------------------------------------------------------------------------


def _strlen(f: Frame, node: ast.Call, info: Any) -> Operand:
    """The helper that copies a string says how long it is."""
    address, space, size = string_address(f, info.args[0])
    limit = min(size or f.unit.config.max_strlen, f.unit.config.max_strlen) + (0 if size else 1)
    slot = f.b.alloca(limit, 8, "text")
    count = f.read_string(slot, limit, address, space)
    b = f.b
    done, less = b.new_block("length", [I64]), b.new_block("read")
    b.branch(b.binary("sgt", count, 0), less, done, [], [Const(0)])
    b.at(less)
    b.jump(done, b.binary("sub", count, 1))
    b.at(done)
    return Scalar(done.params[0], f.ctype(node))


def _strncmp(f: Frame, node: ast.Call, info: Any) -> Operand:
    """0 when the first n bytes are equal, else 1."""
    from .lower_compare import branch_if_bytes, branch_if_text

    b = f.b
    size = info.params["size"]
    yes, no, done = b.new_block("equal"), b.new_block("unequal"), b.new_block("result", [I64])
    left, right = info.args[0], info.args[1]
    for text, other in ((left, right), (right, left)):
        constant = f.constants.get(text)
        if isinstance(constant, str):
            data = constant.encode("utf-8", "surrogateescape")
            branch_if_text(f, other, data[:size], yes, no, prefix=len(data) >= size)
            break
    else:
        a, c = in_memory(f, left), in_memory(f, right)
        branch_if_bytes(f, a, c, min(size, sizeof(a.ctype), sizeof(c.ctype)), yes, no)
    b.at(yes)
    b.jump(done, Const(0))
    b.at(no)
    b.jump(done, Const(1))
    b.at(done)
    return Scalar(done.params[0], f.ctype(node))


def _memcmp(f: Frame, node: ast.Call, info: Any) -> Operand:
    """-1, 0 or 1, as the first n bytes of one are below, equal to or above those of the other."""
    limit = f.constants.get(info.args[2])
    size = int(limit) if limit is not None else f.unit.config.max_strlen
    size = min(size, f.unit.config.max_strlen)
    left, right = bytes_of(f, info.args[0], size), bytes_of(f, info.args[1], size)
    b = f.b
    below, above, done = b.new_block("below"), b.new_block("above"), b.new_block("order", [I32])
    count = Const(size) if limit is not None else at_most(f, wide(f, info.args[2]), size)
    loop, more = b.new_block("bytes", [I64]), b.new_block("more")
    differ, next_ = b.new_block("differ"), b.new_block("next")
    b.jump(loop, Const(0))
    b.at(loop)
    at = loop.params[0]
    b.branch(b.binary("ult", at, count), more, done, [], [Const(0, I32)])
    b.at(more)
    one, other = (b.load(I8, b.ptradd(x.pointer, at), x.offset) for x in (left, right))
    b.branch(b.binary("eq", one, other), next_, differ)
    b.at(next_)
    b.jump(loop, b.binary("add", at, 1))
    b.at(differ)
    b.branch(b.binary("ult", one, other), below, above)
    b.at(below)
    b.jump(done, Const(-1, I32))
    b.at(above)
    b.jump(done, Const(1, I32))
    b.at(done)
    return Scalar(done.params[0], f.ctype(node))


def bytes_of(f: Frame, node: ast.Node, size: int) -> Memory:
    """The first `size` bytes of what an expression is or leads to, in own memory; zeros behind its end."""
    operand = evaluate(f, node)
    if isinstance(operand, Text):
        place = Memory(f.b.alloca(max(size, 1), 8, "bytes"), 0, Str(max(size, 1)))
        f.put_bytes(operand.data.ljust(size, b"\0")[:size], place)
        return place
    if isinstance(operand, Memory) and not is_scalar(operand.ctype):
        have = sizeof(operand.ctype)
        if operand.space == "" and have >= size:
            return operand
    else:
        scalar = f.scalar(operand)
        space = scalar.space or f.space(node) or "any"
        have = size
        operand = Memory(f.wide(scalar), 0, Str(size), "kernel" if space == "own" else space)
    place = Memory(f.b.alloca(max(size, 1), 8, "bytes"), 0, Str(max(size, 1)))
    f.copy(place, operand, min(have, size))
    f.clear(place.pointer, size - have, have)
    return place


def _write_concat(f: Frame, node: ast.Call, info: Any, place: Memory, pad: bool) -> None:
    """`str_concat(a, b)`: the second string is read to where the first one ended."""
    b = f.b
    limit = info.params["size"]
    whole = b.alloca(2 * limit, 8, "both")
    f.clear(whole, limit)
    first, space, size = string_address(f, info.args[0])
    count = f.read_string(whole, min(size or limit, limit), first, space)
    second, space, size = string_address(f, info.args[1])
    less, joined = b.new_block("first"), b.new_block("joined", [I64])
    b.branch(b.binary("sgt", count, 0), less, joined, [], [Const(0)])
    b.at(less)
    b.jump(joined, b.binary("sub", count, 1))
    b.at(joined)
    end = at_most(f, joined.params[0], limit - 1)
    f.read_string(b.ptradd(whole, end), min(size or limit, limit), second, space)
    f.copy(place, Memory(whole, 0, Str(limit)), min(limit, sizeof(place.ctype)))
    if pad:
        f.clear(place.pointer, sizeof(place.ctype) - limit, place.offset + limit)


def _strcap(f: Frame, node: ast.Call, info: Any) -> Operand:
    return Scalar(Const(f.unit.config.max_strlen), f.ctype(node))


def _strcontains(f: Frame, node: ast.Call, info: Any) -> Operand:
    from .lower_search import find

    place = find(f, info.args[0], info.args[1])
    return Scalar(f.b.binary("sge", place, 0), f.ctype(node))


def _strstr(f: Frame, node: ast.Call, info: Any) -> Operand:
    from .lower_search import find

    return Scalar(f.b.convert("trunc", find(f, info.args[0], info.args[1]), I32), f.ctype(node))


JOIN_PARTS, JOIN_BYTES = 16, 1024  # as many as bpftrace takes


def join(f: Frame, node: ast.Call, info: Any) -> None:
    """`join(argv)`: the strings that an array of pointers leads to, up to the first null."""
    from .lower_events import Field, make_text, send

    pointer = f.scalar(evaluate(f, info.args[0]))
    space = pointer.space or f.space(info.args[0]) or "any"
    base = f.wide(pointer)
    slot = f.b.alloca(8, 8, "part")
    layout = f.unit.layouts.of(Str(JOIN_BYTES))

    def write_parts(record: Value, at: int) -> None:
        b = f.b
        done = b.new_block("joined")
        for index in range(JOIN_PARTS):
            b.store(record, Const(0, I8), at + index * JOIN_BYTES)
        for index in range(JOIN_PARTS):
            f.read_into(slot, Memory(base, 8 * index, Int("long", 8, True), space), 8)
            address = b.load(I64, slot)
            there = b.new_block("part")
            b.branch(b.binary("ne", address, 0), there, done)
            b.at(there)
            f.read_string(b.ptradd(record, at + index * JOIN_BYTES), JOIN_BYTES, address, space)
        b.jump(done)
        b.at(done)

    fields = [Field(str(i), layout, JOIN_BYTES, 8, lambda record, at: None) for i in range(JOIN_PARTS)]
    fields[0].write = write_parts  # the parts lie one behind the other
    send(f, "join", [*fields, make_text(f, "separator", info.params["separator"])])


WRITERS: dict[str, Callable[..., None]] = {
    "buf": _write_buf,
    "path": _write_path,
    "str": _write_str,
    "str_concat": _write_concat,
}
CALLS: dict[str, Callable[..., Any]] = {
    "memcmp": _memcmp,
    "strcap": _strcap,
    "strcontains": _strcontains,
    "strlen": _strlen,
    "strncmp": _strncmp,
    "strstr": _strstr,
}

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
        f.b.call(helper, [target, length, address])
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


WRITERS: dict[str, Callable[..., None]] = {"str": _write_str, "buf": _write_buf, "path": _write_path}
CALLS: dict[str, Callable[..., Any]] = {"strlen": _strlen, "strncmp": _strncmp}

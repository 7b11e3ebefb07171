"""Texts and memory of sizes that are known only when the program runs: strlen, strcmp, strncmp, memcmp, memcpy, memset.

The verifier wants to see an end of every loop and of every access. It is the end of the array that an argument lies in, as far as the argument's
expression tells (`name`, `&name[2]`, `name + i`, "text", a member that is an array); a text that is compared with a literal is looked at no
farther than that is long. In programs for tracing, memory of any size is copied and cleared by bpf_probe_read_kernel.
"""

from __future__ import annotations

from ...compiler.ir import I8, I32, I64, Const
from ...debuginfo.ctype import INT32, Array, Int, Pointer, sizeof, strip
from . import ast
from .lower_expressions import evaluate, scalar
from .lower_frame import failure
from .lower_numbers import number, wide_register
from .lower_places import place_of, pointed
from .values import DIRECT, Place, Scalar

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...compiler.ir import Value
    from .lower_frame import Frame
    from .values import Operand

_UNROLLED = 16  # bytes that are compared without a loop
_MOST = 4096  # bytes that a loop goes over
_BYTE, _SIZE = Int("unsigned char", 1, False), Int("unsigned long", 8, False)


class _Bytes:
    """Memory that is read or written byte by byte: from `start` bytes behind `place` to `end` (None: not known)."""

    __slots__ = ("end", "literal", "place", "start")

    def __init__(self, place: Place, start: Value, end: int | None, literal: bytes | None = None) -> None:
        self.place = place
        self.start = start
        self.end = end
        self.literal = literal

    def length(self) -> int | None:
        """How many bytes there are; None where that depends on a variable."""
        return self.end - self.start.imm if self.end is not None and isinstance(self.start, Const) else None

    def load(self, f: Frame, index: Value) -> Value:
        """Load the byte at an index from `start`, as 32 bits."""
        if isinstance(index, Const) and isinstance(self.start, Const):
            at = self.start.imm + index.imm
            if self.literal is not None:
                return Const(self.literal[at] if at < len(self.literal) else 0, I32)
            return f.b.convert("zext", f.b.load(I8, self.place.pointer, self.place.offset + at), I32)
        where = f.b.ptradd(self.place.pointer, f.b.binary("add", self.start, index))
        return f.b.convert("zext", f.b.load(I8, where, self.place.offset), I32)


def _bytes_of(f: Frame, node: ast.Node) -> _Bytes:
    """The memory that a pointer argument leads to."""
    while isinstance(node, ast.Cast) and isinstance(strip(f.type(node.operand)), (Pointer, Array)):
        node = node.operand
    ctype = strip(f.type(node))
    if isinstance(node, ast.String):
        text = node.value + b"\0"
        return _Bytes(f.program.globals.string(f, node.value), Const(0), len(text), text)
    if isinstance(ctype, Array):
        return _Bytes(place_of(f, node), Const(0), sizeof(ctype) or None)
    if isinstance(node, ast.Unary) and node.op == "&":
        inner = node.operand
        if isinstance(inner, ast.Index) and isinstance(strip(f.type(inner.operand)), Array):
            return _moved(f, inner.operand, inner.index)
        return _Bytes(place_of(f, inner), Const(0), sizeof(f.type(inner)))
    if isinstance(node, ast.Binary) and node.op == "+" and isinstance(strip(f.type(node.left)), Array):
        return _moved(f, node.left, node.right)
    return _Bytes(pointed(f, scalar(f, node), _BYTE), Const(0), None)


def _moved(f: Frame, base: ast.Node, index: ast.Node) -> _Bytes:
    """`base + index`, where `base` is an array."""
    array = strip(f.type(base))
    assert isinstance(array, Array)
    known = f.program.analysis.constants.get(index)
    size = sizeof(array.element)
    if known is not None:
        start: Value = Const(known * size)
    else:
        start = f.b.binary("mul", wide_register(f, evaluate(f, index)), size)
    return _Bytes(place_of(f, base), start, sizeof(array) or None)


def _near(f: Frame, memory: _Bytes, size: int) -> _Bytes:
    """The same bytes where loads reach them: what lies in the kernel or in user memory is copied to the stack, up to its NUL."""
    if memory.place.space in DIRECT:
        return memory
    copy = f.b.alloca(size, 8, "text")
    reader = f.program.reader(memory.place.space) + "_str"
    address = f.b.binary("add", f.raw_address(memory.place), memory.start)
    f.b.memset(copy, size, 0, align=8)
    f.b.call(reader, [copy, size, address])
    return _Bytes(Place(copy, 0, _BYTE, "stack"), Const(0), size)


def _unknown(node: ast.Call, what: str) -> Exception:
    hint = "the verifier wants to see where it ends: pass an array, or read it by bpf_probe_read_kernel_str() before, which gives the length"
    return failure(node.span, f"{what} of memory whose size is not known here", hint)


# Texts ------------------------------------------------------------------------------------------------------------


def strlen(f: Frame, node: ast.Call, name: str) -> Operand:
    """The number of bytes before the NUL; at most to the end of the array."""
    text = _bytes_of(f, node.args[0])
    if text.end is None or text.end > _MOST:
        raise _unknown(node, "the length")
    text = _near(f, text, text.end)
    b = f.b
    head, body, again = b.new_block("length", [I64]), b.new_block("byte"), b.new_block("again")
    done = b.new_block("ended", [I64])
    b.jump(head, Const(0))
    b.at(head)
    index = head.params[0]
    assert text.end is not None
    b.branch(b.binary("ult", b.binary("add", text.start, index), text.end), body, done, [], [index])
    b.at(body)
    b.branch(b.binary("ne", text.load(f, index), 0), again, done, [], [index])
    b.at(again)
    b.jump(head, b.binary("add", index, 1))
    b.at(done)
    return Scalar(done.params[0], _SIZE)


def strcmp(f: Frame, node: ast.Call, name: str) -> Operand:
    """The difference of the first bytes that differ, up to the NUL; strncmp looks at so many bytes."""
    limit = _limit(f, node) if name == "strncmp" else None
    return _compared(f, node, limit, text=True)


def memcmp(f: Frame, node: ast.Call, name: str) -> Operand:
    """The difference of the first bytes that differ, of a number that is not constant."""
    return _compared(f, node, _limit(f, node), text=False)


def _limit(f: Frame, node: ast.Call) -> Value:
    known = f.program.analysis.constants.get(node.args[2])
    return Const(known) if known is not None else number(f, evaluate(f, node.args[2]), _SIZE)


def _compared(f: Frame, node: ast.Call, limit: Value | None, text: bool) -> Operand:
    sides = [_bytes_of(f, arg) for arg in node.args[:2]]
    f.b.span = node.span
    known = [length for side in sides if (length := side.length()) is not None]
    ends = [side.end for side in sides if side.end is not None]
    if isinstance(limit, Const):
        known.append(limit.imm)
        ends.append(limit.imm)
    if not ends or min(ends) > _MOST:
        raise _unknown(node, "a comparison")
    most = min(known, default=min(ends))
    sides = [_near(f, side, max(most, 1)) for side in sides]
    constant = all(isinstance(side.start, Const) for side in sides) and isinstance(limit, (Const, type(None)))
    if most <= _UNROLLED and known and constant:
        return _unrolled(f, sides, most, text)
    return _looped(f, sides, limit, text)


def _unrolled(f: Frame, sides: list[_Bytes], size: int, text: bool) -> Operand:
    b = f.b
    done = b.new_block("compared", [I32])
    for at in range(size):
        left, right = (side.load(f, Const(at)) for side in sides)
        following = b.new_block("next")
        _step(f, left, right, done, following, text and at < size - 1)
        b.at(following)
    b.jump(done, Const(0, I32))
    b.at(done)
    return Scalar(done.params[0], INT32)


def _step(f: Frame, left: Value, right: Value, done, following, text: bool) -> None:  # type: ignore[no-untyped-def]
    """Leave for `done` with the difference of two bytes, or with 0 where a text ends on both sides."""
    b = f.b
    if isinstance(left, Const) and isinstance(right, Const):
        if left.imm != right.imm or (text and not left.imm):
            b.jump(done, Const(left.imm - right.imm, I32))
        else:
            b.jump(following)
        return
    same = following if not text else b.new_block("same")
    difference = b.binary("sub", left, right)
    b.branch(b.binary("ne", left, right), done, same, [difference])
    if not text:
        return
    b.at(same)
    ends = right if isinstance(right, Const) else left
    if isinstance(ends, Const):
        b.jump(following) if ends.imm else b.jump(done, Const(0, I32))
        return
    b.branch(b.binary("ne", ends, 0), following, done, [], [Const(0, I32)])


def _looped(f: Frame, sides: list[_Bytes], limit: Value | None, text: bool) -> Operand:
    b = f.b
    head, again, done = b.new_block("compare", [I64]), b.new_block("again"), b.new_block("compared", [I32])
    b.jump(head, Const(0))
    b.at(head)
    index = head.params[0]
    conditions = [b.binary("ult", index, limit)] if limit is not None else []
    conditions += [
        b.binary("ult", b.binary("add", side.start, index), side.end) for side in sides if side.end is not None
    ]
    for condition in conditions:
        inside = b.new_block("inside")
        b.branch(condition, inside, done, [], [Const(0, I32)])
        b.at(inside)
    left, right = (side.load(f, index) for side in sides)
    _step(f, left, right, done, again, text)
    b.at(again)
    b.jump(head, b.binary("add", index, 1))
    b.at(done)
    return Scalar(done.params[0], INT32)


# Memory -----------------------------------------------------------------------------------------------------------


def memcpy(f: Frame, node: ast.Call, dst: Place, name: str) -> None:
    """Copy a number of bytes that is not constant."""
    source = _bytes_of(f, node.args[1])
    size = number(f, evaluate(f, node.args[2]), _SIZE)
    if name == "memmove":
        source = _aside(f, node, source, size)
    if f.program.is_tracing or source.place.space not in DIRECT:
        address = f.b.binary("add", f.raw_address(source.place), source.start)
        reader = f.program.reader("kernel" if source.place.space in DIRECT else source.place.space)
        f.b.call(reader, [f.address(dst), size, address])
        return
    _each(f, node, _bytes_of(f, node.args[0]), size, source, None)


def _aside(f: Frame, node: ast.Call, source: _Bytes, size: Value) -> _Bytes:
    """A copy of what is to be moved, so that source and target may overlap."""
    if source.end is None or source.end > _MOST:
        raise _unknown(node, "a move")
    copy = _Bytes(Place(f.b.alloca(source.end, 8, "moved"), 0, _BYTE, "stack"), Const(0), source.end)
    f.b.memset(copy.place.pointer, source.end, 0, align=8)
    if f.program.is_tracing:
        address = f.b.binary("add", f.raw_address(source.place), source.start)
        f.b.call(f.program.reader("kernel"), [copy.place.pointer, f.b.bound(size, source.end), address])
    else:
        _each(f, node, copy, size, source, None)
    return copy


def memset(f: Frame, node: ast.Call, dst: Place) -> None:
    """Fill a number of bytes that is not constant."""
    size = number(f, evaluate(f, node.args[2]), _SIZE)
    byte = f.program.analysis.constants.get(node.args[1])
    if byte is not None and not byte & 255 and f.program.is_tracing:
        f.b.call("probe_read_kernel", [f.address(dst), size, 0])  # a read of address 0 fails, and a failed read clears
        return
    value = number(f, evaluate(f, node.args[1]), _BYTE)
    _each(f, node, _bytes_of(f, node.args[0]), size, None, value)


def _each(f: Frame, node: ast.Call, dst: _Bytes, size: Value, src: _Bytes | None, byte: Value | None) -> None:
    """Store byte by byte: what lies in `src`, or `byte`."""
    limits = [each for each in (dst, src) if each is not None and each.end is not None]
    if not limits or min(each.end or 0 for each in limits) > _MOST:
        raise _unknown(node, "a copy" if src is not None else "a fill")
    b = f.b
    head, done = b.new_block("bytes", [I64]), b.new_block("filled")
    b.jump(head, Const(0))
    b.at(head)
    index = head.params[0]
    conditions = [b.binary("ult", index, size)]
    conditions += [b.binary("ult", b.binary("add", each.start, index), each.end or 0) for each in limits]
    for condition in conditions:
        inside = b.new_block("inside")
        b.branch(condition, inside, done)
        b.at(inside)
    value = byte
    if src is not None:
        where = b.ptradd(src.place.pointer, b.binary("add", src.start, index))
        value = b.load(I8, where, src.place.offset)
    assert value is not None
    b.store(b.ptradd(dst.place.pointer, b.binary("add", dst.start, index)), value, dst.place.offset)
    b.jump(head, b.binary("add", index, 1))
    b.at(done)

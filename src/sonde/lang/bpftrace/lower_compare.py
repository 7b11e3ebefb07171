"""Comparing what no register holds: strings, tuples, arrays, structs. All of it ends in branches, word by word.

Strings in our own memory are filled up with zeros, so two of them are equal when the bytes of the shorter one are.
"""

from __future__ import annotations

from ...compiler.ir import I1, I8, I64, INT_OF_BYTES, Const
from ...debuginfo.ctype import sizeof
from .lower_expr import evaluate, in_memory
from .lower_values import Memory, Scalar, Text, is_scalar
from .stype import Buffer, Str, Tuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...compiler.ir import Block, Value
    from .ast import Node
    from .lower_frame import Frame
    from .lower_values import Operand

UNROLL_BYTES = 64  # longer memory is compared in a loop


def compare(f: Frame, op: str, left: Node, right: Node) -> Value:
    """`==` or `!=` as a value."""
    yes, no, done = f.b.new_block("equal"), f.b.new_block("unequal"), f.b.new_block("flag", [I1])
    branch_if_equal(f, left, right, yes, no)
    f.b.at(yes)
    f.b.jump(done, Const(int(op == "=="), I1))
    f.b.at(no)
    f.b.jump(done, Const(int(op != "=="), I1))
    f.b.at(done)
    return done.params[0]


def branch_if_equal(f: Frame, left: Node, right: Node, yes: Block, no: Block) -> None:
    """End the current block with the comparison of two values that registers do not hold."""
    a, b = f.constants.get(left), f.constants.get(right)
    if isinstance(a, str) and isinstance(b, str):
        f.b.jump(yes if a == b else no)
    elif isinstance(b, str):
        branch_if_text(f, left, b.encode("utf-8", "surrogateescape"), yes, no)
    elif isinstance(a, str):
        branch_if_text(f, right, a.encode("utf-8", "surrogateescape"), yes, no)
    else:
        _branch_if_same(f, left, right, yes, no)


def _branch_if_same(f: Frame, left: Node, right: Node, yes: Block, no: Block) -> None:
    ctype, other = f.ctype(left), f.ctype(right)
    if is_scalar(ctype) and is_scalar(other):
        first = f.wide(evaluate(f, left))
        f.b.branch(f.b.binary("eq", first, f.wide(evaluate(f, right))), yes, no)
        return
    if isinstance(ctype, Tuple) and isinstance(other, Tuple):
        from .typing_promotion import promote, settle

        common = promote(ctype, other)
        assert common is not None
        common = settle(common)
        branch_if_bytes(f, in_memory(f, left, common), in_memory(f, right, common), sizeof(common), yes, no)
        return
    a, b = in_memory(f, left), in_memory(f, right)
    size = min(sizeof(a.ctype), sizeof(b.ctype))
    branch_if_bytes(f, a, b, size, yes, no)


# Texts ------------------------------------------------------------------------------------------------------------


def branch_if_text(f: Frame, node: Node, data: bytes, yes: Block, no: Block, prefix: bool = False) -> None:
    """Compare a string with a constant; with `prefix` only as far as the constant goes."""
    from .lower_strings import read_short

    wanted = data if prefix else data + b"\0"
    memory, padded = read_short(f, node, len(wanted))
    size = sizeof(memory.ctype)
    if isinstance(memory.ctype, Buffer):
        memory, size = memory.part(4, Str(size - 4)), size - 4
    if size < len(data):
        f.b.jump(no)
        return
    wanted = wanted[:size]
    if padded and not prefix:
        wanted = wanted.ljust(min(_rounded(len(wanted)), size), b"\0")
    at = 0
    while at < len(wanted):
        step = _step(len(wanted) - at, memory.offset + at)
        word = f.b.load(INT_OF_BYTES[step], memory.pointer, memory.offset + at)
        same = f.b.binary("eq", word, int.from_bytes(wanted[at : at + step], "little"))
        at += step
        following = f.b.new_block("same") if at < len(wanted) else yes
        f.b.branch(same, following, no)
        if at < len(wanted):
            f.b.at(following)
    if not wanted:
        f.b.jump(yes)


def _rounded(size: int) -> int:
    """The least number of bytes, `size` at least, whose last part is one load."""
    whole, rest = size & ~7, size & 7
    return whole + (1 << (rest - 1).bit_length() if rest else 0)


def _step(left: int, offset: int) -> int:
    step = 8
    while step > left or offset % step:
        step //= 2
    return step


def first_byte(f: Frame, operand: Memory) -> Value:
    """The first byte of a string: 0 when it is empty."""
    if operand.space == "":
        return f.b.load(I8, operand.pointer, operand.offset)
    from ...debuginfo.ctype import UINT8

    return f.load(Memory(operand.pointer, operand.offset, UINT8, operand.space)).value


# Memory -----------------------------------------------------------------------------------------------------------


def branch_if_bytes(f: Frame, a: Memory, b: Memory, size: int, yes: Block, no: Block) -> None:
    """Compare `size` bytes of own memory."""
    if size > UNROLL_BYTES:
        whole = size & ~7
        _branch_loop(f, a, b, whole, no)
        a, b, size = a.part(whole, a.ctype), b.part(whole, b.ctype), size - whole
    at = 0
    while at < size:
        step = min(_step(size - at, a.offset + at), _step(size - at, b.offset + at))
        type_ = INT_OF_BYTES[step]
        left = f.b.load(type_, a.pointer, a.offset + at)
        right = f.b.load(type_, b.pointer, b.offset + at)
        at += step
        following = f.b.new_block("same")
        f.b.branch(f.b.binary("eq", left, right), following, no)
        f.b.at(following)
    f.b.jump(yes)


def _branch_loop(f: Frame, a: Memory, b: Memory, size: int, no: Block) -> None:
    """Compare words in a loop; go on in a new block when all of them are equal."""
    builder = f.b
    loop, more, done = builder.new_block("words", [I64]), builder.new_block("more"), builder.new_block("same")
    builder.jump(loop, Const(0))
    builder.at(loop)
    at = loop.params[0]
    left = builder.load(I64, builder.ptradd(a.pointer, at), a.offset)
    right = builder.load(I64, builder.ptradd(b.pointer, at), b.offset)
    builder.branch(builder.binary("eq", left, right), more, no)
    builder.at(more)
    following = builder.binary("add", at, 8)
    builder.branch(builder.binary("ult", following, size), loop, done, [following])
    builder.at(done)


def as_memory(f: Frame, operand: Operand) -> Memory:
    """An operand in own memory."""
    if isinstance(operand, Memory) and operand.space == "":
        return operand
    ctype = operand.ctype if not isinstance(operand, Text) else Str(len(operand.data) + 1)
    place = f.temp(ctype)
    assert not isinstance(operand, Scalar) or is_scalar(ctype)
    f.put(operand, place)
    return place

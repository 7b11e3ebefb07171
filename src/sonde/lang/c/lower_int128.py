"""Integers of 128 bits: two registers, low and high. Division is in `lower_divide128`."""

from __future__ import annotations

from ...compiler.ir import I64, Const
from ...debuginfo.ctype import INT32
from .lower_frame import failure
from .values import Scalar, Wide, is_signed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...compiler.ir import Value
    from ...debuginfo.ctype import CType
    from ...errors import Span
    from .lower_frame import Frame
    from .values import Operand

_HALF = 0xFFFFFFFF


def arithmetic128(f: Frame, op: str, a: Wide, b: Wide, ctype: CType, span: Span) -> Operand:
    """`a op b`; a comparison gives an int."""
    rule = _OPERATIONS.get(op)
    if rule is not None:
        return rule(f, a, b, ctype)  # type: ignore[no-any-return]
    if op in ("==", "!="):
        return Scalar(equal(f, a, b, op), INT32)
    if op in ("<", "<=", ">", ">="):
        return Scalar(ordered(f, op, a, b, is_signed(ctype)), INT32)
    if op in ("/", "%"):
        from .lower_divide128 import divide128

        return divide128(f, op, a, b, ctype)
    raise failure(span, f"`{op}` of 128-bit integers")


def _bitwise(name: str):  # type: ignore[no-untyped-def]
    def run(f: Frame, a: Wide, b: Wide, ctype: CType) -> Operand:
        return Wide(f.b.binary(name, a.low, b.low), f.b.binary(name, a.high, b.high), ctype)

    return run


def add128(f: Frame, a: Wide, b: Wide, ctype: CType) -> Operand:
    """The sum; the low half has wrapped around when it is less than what was added."""
    low = f.b.binary("add", a.low, b.low)
    carry = f.b.convert("zext", f.b.binary("ult", low, b.low), I64)
    return Wide(low, f.b.binary("add", f.b.binary("add", a.high, b.high), carry), ctype)


def _subtract(f: Frame, a: Wide, b: Wide, ctype: CType) -> Operand:
    borrow = f.b.convert("zext", f.b.binary("ult", a.low, b.low), I64)
    high = f.b.binary("sub", f.b.binary("sub", a.high, b.high), borrow)
    return Wide(f.b.binary("sub", a.low, b.low), high, ctype)


def _multiply(f: Frame, a: Wide, b: Wide, ctype: CType) -> Operand:
    low, carry = _product(f, a.low, b.low)
    cross = f.b.binary("add", f.b.binary("mul", a.high, b.low), f.b.binary("mul", a.low, b.high))
    return Wide(low, f.b.binary("add", carry, cross), ctype)


def _product(f: Frame, a: Value, b: Value) -> tuple[Value, Value]:
    """64 x 64 bits to 128, by halves."""
    a0, a1 = f.b.binary("and", a, Const(_HALF)), f.b.binary("lshr", a, Const(32))
    b0, b1 = f.b.binary("and", b, Const(_HALF)), f.b.binary("lshr", b, Const(32))
    low, middle = f.b.binary("mul", a0, b0), f.b.binary("mul", a1, b0)
    middle = f.b.binary("add", middle, f.b.binary("lshr", low, Const(32)))
    other = f.b.binary("add", f.b.binary("mul", a0, b1), f.b.binary("and", middle, Const(_HALF)))
    high = f.b.binary("add", f.b.binary("mul", a1, b1), f.b.binary("lshr", middle, Const(32)))
    high = f.b.binary("add", high, f.b.binary("lshr", other, Const(32)))
    return f.b.binary("or", f.b.binary("and", low, Const(_HALF)), f.b.binary("shl", other, Const(32))), high


def negate128(f: Frame, a: Wide) -> Wide:
    """`-a`."""
    result = _subtract(f, Wide(Const(0), Const(0), a.ctype), a, a.ctype)
    assert isinstance(result, Wide)
    return result


def invert128(f: Frame, a: Wide) -> Wide:
    """`~a`."""
    return Wide(f.b.binary("xor", a.low, Const(-1)), f.b.binary("xor", a.high, Const(-1)), a.ctype)


def swap128(f: Frame, a: Wide) -> Wide:
    """The bytes in the opposite order."""
    return Wide(_swap(f, a.high), _swap(f, a.low), a.ctype)


def _swap(f: Frame, value: Value) -> Value:
    if isinstance(value, Const):
        return Const(int.from_bytes((value.imm & (1 << 64) - 1).to_bytes(8, "little"), "big"))
    return f.b.unary("bswap", value)


def equal(f: Frame, a: Wide, b: Wide, op: str) -> Value:
    """`a == b` or `a != b`."""
    difference = f.b.binary("or", f.b.binary("xor", a.low, b.low), f.b.binary("xor", a.high, b.high))
    return f.b.binary("eq" if op == "==" else "ne", difference, 0)


def ordered(f: Frame, op: str, a: Wide, b: Wide, signed: bool) -> Value:
    """`a < b` and its like: by the high halves, or, where these are equal, by the low ones."""
    if op in (">", "<="):  # a > b is b < a; a <= b is not b < a
        a, b = b, a
    high = f.b.binary("slt" if signed else "ult", a.high, b.high)
    same, low = f.b.binary("eq", a.high, b.high), f.b.binary("ult", a.low, b.low)
    less = f.b.binary("or", high, f.b.binary("and", same, low))
    return f.b.binary("xor", less, 1) if op in ("<=", ">=") else less


def shift128(f: Frame, op: str, a: Wide, count: Value, ctype: CType) -> Wide:
    """`a << count`, `a >> count`."""
    signed = is_signed(ctype)
    if isinstance(count, Const):
        return _shift_constant(f, op, a, count.imm & 127, ctype)
    fill: Value = f.b.binary("ashr", a.high, 63) if signed and not isinstance(a.high, Const) else Const(0)
    b = f.b
    far, near, some, done = (
        b.new_block("far"),
        b.new_block("near"),
        b.new_block("some"),
        b.new_block("shifted", [I64, I64]),
    )
    rest = f.b.binary("and", count, Const(63))
    down = "ashr" if signed else "lshr"
    b.branch(b.binary("ne", b.binary("and", count, 64), 0), far, near)
    b.at(far)
    if op == "<<":
        b.jump(done, Const(0), f.b.binary("shl", a.low, rest))
    else:
        b.jump(done, f.b.binary(down, a.high, rest), fill)
    b.at(near)
    b.branch(b.binary("eq", rest, 0), done, some, [a.low, a.high])
    b.at(some)
    back = f.b.binary("sub", Const(64), rest)
    if op == "<<":
        over = f.b.binary("lshr", a.low, back)
        b.jump(done, f.b.binary("shl", a.low, rest), f.b.binary("or", f.b.binary("shl", a.high, rest), over))
    else:
        over = f.b.binary("shl", a.high, back)
        b.jump(done, f.b.binary("or", f.b.binary("lshr", a.low, rest), over), f.b.binary(down, a.high, rest))
    b.at(done)
    return Wide(done.params[0], done.params[1], ctype)


def _shift_constant(f: Frame, op: str, a: Wide, count: int, ctype: CType) -> Wide:
    if not count:
        return Wide(a.low, a.high, ctype)
    down = "ashr" if is_signed(ctype) else "lshr"
    if count >= 64:
        rest = Const(count - 64)
        if op == "<<":
            return Wide(Const(0), f.b.binary("shl", a.low, rest), ctype)
        high = f.b.binary("ashr", a.high, Const(63)) if down == "ashr" else Const(0)
        return Wide(f.b.binary(down, a.high, rest), high, ctype)
    here, over = Const(count), Const(64 - count)
    if op == "<<":
        high = f.b.binary("or", f.b.binary("shl", a.high, here), f.b.binary("lshr", a.low, over))
        return Wide(f.b.binary("shl", a.low, here), high, ctype)
    low = f.b.binary("or", f.b.binary("lshr", a.low, here), f.b.binary("shl", a.high, over))
    return Wide(low, f.b.binary(down, a.high, here), ctype)


_OPERATIONS = {
    "+": add128, "-": _subtract, "*": _multiply, "&": _bitwise("and"), "|": _bitwise("or"), "^": _bitwise("xor"),
}  # fmt: skip

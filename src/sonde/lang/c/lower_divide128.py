"""Division of 128-bit integers, which the kernel's machine has not: where both numbers fit 64 bits by its own division, else bit by bit.

The long way is restoring division: 128 rounds of shifting a bit of the dividend into the remainder and subtracting the divisor where it fits. The
rounds do not branch, so that the verifier walks through each of them once.
"""

from __future__ import annotations

from ...compiler.builder import Builder
from ...compiler.ir import I64, STACK, Const, Function, Param
from .lower_int128 import negate128
from .values import Wide, is_signed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...compiler.ir import Module, Value
    from ...debuginfo.ctype import CType
    from .lower_frame import Frame

_NAME = "divide128"
_ROUNDS = 128
_LOW, _HIGH, _REST_LOW, _REST_HIGH = 0, 8, 16, 24  # where the function leaves quotient and remainder


def divide128(f: Frame, op: str, a: Wide, b: Wide, ctype: CType) -> Wide:
    """`a / b` or `a % b`, rounded toward zero."""
    function = f.program.module.functions.get(_NAME) or _make_function(f.program.module)
    if not is_signed(ctype):
        return _call(f, function, op, a, b, ctype)
    sign_a, sign_b = f.b.binary("ashr", a.high, Const(63)), f.b.binary("ashr", b.high, Const(63))
    result = _call(f, function, op, _with_sign(f, a, sign_a), _with_sign(f, b, sign_b), ctype)
    return _with_sign(f, result, sign_a if op == "%" else f.b.binary("xor", sign_a, sign_b))


def _with_sign(f: Frame, a: Wide, sign: Value) -> Wide:
    """`-a` where `sign` is all ones, `a` where it is 0."""
    minus = negate128(f, a)
    b = f.b
    low = b.binary("xor", a.low, b.binary("and", b.binary("xor", a.low, minus.low), sign))
    high = b.binary("xor", a.high, b.binary("and", b.binary("xor", a.high, minus.high), sign))
    return Wide(low, high, a.ctype)


def _call(f: Frame, function: Function, op: str, a: Wide, b: Wide, ctype: CType) -> Wide:
    slot = f.b.alloca(32, 8, "quotient")
    f.b.callsub(function, [slot, a.low, a.high, b.low, b.high])
    low, high = (_LOW, _HIGH) if op == "/" else (_REST_LOW, _REST_HIGH)
    return Wide(f.b.load(I64, slot, low), f.b.load(I64, slot, high), ctype)


def _make_function(module: Module) -> Function:
    """The function divide128(result, low, high, by_low, by_high)."""
    names = ("low", "high", "by_low", "by_high")
    function = Function(_NAME, [Param(STACK, "result"), *(Param(I64, name) for name in names)])
    b = Builder(module, function)
    out, low, high, by_low, by_high = function.params
    short, long = b.new_block("short"), b.new_block("long")
    b.branch(b.binary("eq", b.binary("or", high, by_high), 0), short, long)
    b.at(short)
    for value, at in ((b.binary("udiv", low, by_low), _LOW), (b.binary("umod", low, by_low), _REST_LOW)):
        b.store(out, value, at)
        b.store(out, Const(0), at + 8)
    b.ret(0)
    b.at(long)
    _long_division(b, out, (low, high), (by_low, by_high))
    return function


def _long_division(b: Builder, out: Value, dividend: tuple[Value, Value], divisor: tuple[Value, Value]) -> None:
    head, body, done = b.new_block("round", [I64] * 5), b.new_block("body"), b.new_block("divided")
    b.jump(head, *dividend, Const(0), Const(0), Const(0))
    b.at(head)
    values: list[Value] = [*head.params]
    low, high, rest_low, rest_high, count = values
    b.branch(b.binary("ult", count, _ROUNDS), body, done)
    b.at(body)
    top = b.binary("lshr", rest_high, 63)  # what the shift loses: then the divisor fits for sure
    rest_high = b.binary("or", b.binary("shl", rest_high, 1), b.binary("lshr", rest_low, 63))
    rest_low = b.binary("or", b.binary("shl", rest_low, 1), b.binary("lshr", high, 63))
    high = b.binary("or", b.binary("shl", high, 1), b.binary("lshr", low, 63))
    low = b.binary("shl", low, 1)
    less_low, borrow = _subtract(b, rest_low, divisor[0])
    less_high, borrow_high = _subtract(b, rest_high, divisor[1])
    less_high, borrow_both = _subtract(b, less_high, borrow)
    fits = b.binary("or", top, b.binary("xor", b.binary("or", borrow_high, borrow_both), 1))
    mask = b.unary("neg", fits)
    rest_low = b.binary("xor", rest_low, b.binary("and", b.binary("xor", rest_low, less_low), mask))
    rest_high = b.binary("xor", rest_high, b.binary("and", b.binary("xor", rest_high, less_high), mask))
    b.jump(head, b.binary("or", low, fits), high, rest_low, rest_high, b.binary("add", count, 1))
    b.at(done)
    for value, at in zip(head.params[:4], (_LOW, _HIGH, _REST_LOW, _REST_HIGH)):
        b.store(out, value, at)
    b.ret(0)


def _subtract(b: Builder, left: Value, right: Value) -> tuple[Value, Value]:
    """`left - right` in 64 bits, and the borrow (0 or 1), which is found without a comparison: that would be a branch."""
    result = b.binary("sub", left, right)
    inverted = b.binary("xor", left, -1)
    same = b.binary("xor", b.binary("xor", left, right), -1)
    borrow = b.binary("or", b.binary("and", inverted, right), b.binary("and", same, result))
    return result, b.binary("lshr", borrow, 63)

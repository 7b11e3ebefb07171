"""What the compiler believes of values must be true: known bits, ranges, folding, by trying all or many values."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ir_machine import INTERESTING, OPS, evaluate

from sonde.compiler.ir import COMPARE, I1, I8, I16, I32, I64, WIDTH, Const, Inst, Param
from sonde.compiler.passes.fold import evaluate as fold_evaluate
from sonde.compiler.passes.fold import simplify
from sonde.compiler.passes.knownbits import known_width
from sonde.compiler.passes.ranges import narrowed, outcome

COMPARISONS = sorted(COMPARE)
WIDTH_BITS = 4
ALL = (0, 15, -8, 7)


def signed(n: int) -> int:
    return n - 16 if n >= 8 else n


def inside(range_: tuple[int, int, int, int], n: int) -> bool:
    return range_[0] <= n <= range_[1] and range_[2] <= signed(n) <= range_[3]


@pytest.mark.parametrize("first", COMPARISONS)
@pytest.mark.parametrize("second", COMPARISONS)
def test_ranges_hold_for_all_numbers_of_four_bits(first: str, second: str) -> None:
    for a in range(16):
        for b in range(16):
            range_ = narrowed(narrowed(ALL, first, a, WIDTH_BITS), second, b, WIDTH_BITS)
            left = [n for n in range(16) if evaluate(first, n, a, 4) and evaluate(second, n, b, 4)]
            assert all(inside(range_, n) for n in left), (a, b)


@pytest.mark.parametrize("op", COMPARISONS)
def test_outcomes_are_those_of_all_numbers_in_the_range(op: str) -> None:
    for low in range(16):
        for high in range(low, 16):
            numbers = range(low, high + 1)
            range_ = (low, high, min(map(signed, numbers)), max(map(signed, numbers)))
            for imm in range(16):
                results = {bool(evaluate(op, n, imm, 4)) for n in numbers}
                said = outcome(range_, op, imm, 4)
                assert said is None or results == {said}, (low, high, imm)


VALUES = st.one_of(st.sampled_from(INTERESTING), st.integers(0, (1 << 64) - 1))


@settings(max_examples=400, deadline=None)
@given(op=st.sampled_from(OPS), a=VALUES, b=VALUES, mask=VALUES, t=st.sampled_from([I8, I16, I32, I64]))
def test_known_width_bounds_the_value(op: str, a: int, b: int, mask: int, t: str) -> None:
    top = (1 << WIDTH[t]) - 1
    x = Inst("and", t, [Param(t), Const(mask & top, t)])
    shift = op in ("shl", "lshr", "ashr")
    right = b % WIDTH[t] if shift else b & top
    inst = Inst(op, t, [x, Const(right, t)])
    assert evaluate(op, a & mask & top, right, WIDTH[t]) < 1 << known_width(inst)


@pytest.mark.parametrize("op", ["shl", "lshr", "ashr"])
def test_a_shift_by_a_variable_has_any_width(op: str) -> None:
    """The verifier forgets what it knew of a value that is shifted by no constant: masks behind one must stay."""
    x = Inst("and", I32, [Param(I32), Const(1, I32)])
    by = Inst("and", I32, [Param(I32), Const(7, I32)])
    assert known_width(Inst(op, I32, [x, by])) == 32


@settings(max_examples=400, deadline=None)
@given(op=st.sampled_from(OPS + COMPARISONS), a=VALUES, b=VALUES, t=st.sampled_from([I1, I8, I16, I32, I64]))
def test_folded_constants_are_what_the_interpreter_says(op: str, a: int, b: int, t: str) -> None:
    assert fold_evaluate(op, a, b, WIDTH[t]) == evaluate(op, a, b, WIDTH[t])


@settings(max_examples=600, deadline=None)
@given(
    op=st.sampled_from(OPS + COMPARISONS),
    c=VALUES,
    x=VALUES,
    inner=st.sampled_from(["", "zext", "sext", *OPS]),
    d=VALUES,
    t=st.sampled_from([I8, I16, I32, I64]),
)
def test_simplified_operations_mean_the_same(op: str, c: int, x: int, inner: str, d: int, t: str) -> None:
    """`(x inner d) op c` before and after the rules for one instruction."""
    width = WIDTH[t]
    source = {I16: I8, I32: I16, I64: I32}.get(t, t)
    param = Param(source if inner in ("zext", "sext") else t)
    values = {param: x & (1 << WIDTH[param.type]) - 1}

    def mean(value: object) -> int:
        if isinstance(value, Const):
            return value.imm & (1 << WIDTH[value.type]) - 1
        if not isinstance(value, Inst):
            return values[value]  # type: ignore[index]
        a = [mean(arg) for arg in value.args]
        if value.op in ("zext", "trunc"):
            return a[0] & (1 << WIDTH[value.type]) - 1
        if value.op == "sext":
            have = WIDTH[value.args[0].type]
            return (a[0] - (1 << have) if a[0] >> have - 1 else a[0]) & (1 << WIDTH[value.type]) - 1
        return evaluate(value.op, a[0], a[1], WIDTH[value.args[0].type])

    def right(op_: str, n: int) -> Const:
        return Const(n % width if op_ in ("shl", "lshr", "ashr") else n & (1 << width) - 1, t)

    first: object = param
    if inner in ("zext", "sext") and source != t:
        first = Inst(inner, t, [param])
    elif inner in OPS:
        first = Inst(inner, t, [param, right(inner, d)])
    if getattr(first, "type", t) != t:
        return
    inst = Inst(op, I1 if op in COMPARE else t, [first, right(op, c)])  # type: ignore[list-item]
    expected = mean(inst)
    for _ in range(4):
        simpler = simplify(inst)
        if simpler is not None:
            assert mean(simpler) == expected
            return
        assert mean(inst) == expected

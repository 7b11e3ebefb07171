"""Soundness of what the verifier knows of numbers: every result covers what the interpreter computes for covered operands."""

from __future__ import annotations

import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sonde.bpf.asm import assemble
from sonde.bpf.interp import Machine, Program
from sonde.bpf.verifier import scalar, tnum
from sonde.bpf.verifier.scalar import M, Scalar, W, to_signed

EDGES = [
    0,
    1,
    2,
    7,
    8,
    31,
    32,
    63,
    64,
    255,
    256,
    0x7FFFFFFF,
    0x80000000,
    W,
    1 << 32,
    (1 << 63) - 1,
    1 << 63,
    M,
    M - 1,
    M - 0x7FFFFFFF,
]


@st.composite
def numbers(draw: st.DrawFn) -> int:
    """Any 64-bit number, often one where something happens."""
    base = draw(st.sampled_from(EDGES) | st.integers(0, M))
    return (base + draw(st.integers(-3, 3))) & M


@st.composite
def known(draw: st.DrawFn) -> tuple[Scalar, int]:
    """Something known of a number, and a number of which it is true."""
    number = draw(numbers())
    others = [number, *draw(st.lists(numbers(), max_size=3))]
    mask = 0
    for other in others:
        mask |= number ^ other
    mask |= draw(st.sampled_from([0, 0, 0xFF, W, M, M & ~W]))
    parts: list[int] = []
    for view in (lambda n: n, to_signed, lambda n: n & W, lambda n: to_signed(n & W, 32)):
        seen = [view(n) for n in others]
        parts += [min(seen), max(seen)]
    everything = scalar._parts(scalar.UNKNOWN)
    for at in range(0, 8, 2):
        if draw(st.booleans()):
            parts[at : at + 2] = everything[at : at + 2]
    made = scalar.refined((number & ~mask, mask), *parts)
    assert all(made.covers(other) for other in others)
    return made, number


EXAMPLES = int(os.environ.get("SONDE_FUZZ_EXAMPLES", "60"))
_programs: dict[str, Program] = {}
_machine = Machine()
_operands = bytearray(16)
_address = _machine.memory.add(_operands)


def compute(text: str, a: int, b: int) -> int:
    """What the interpreter makes of r1 and r2."""
    program = _programs.get(text)
    if program is None:
        program = _programs[text] = Program(assemble(f"r2 = *(u64 *)(r1 +8)\nr1 = *(u64 *)(r1 +0)\n{text}\nexit"))
    _operands[:] = a.to_bytes(8, "little") + b.to_bytes(8, "little")
    return _machine.run(program, _address)


SIGNS = {"add": "+=", "sub": "-=", "mul": "*=", "and": "&=", "or": "|=", "xor": "^=", "lsh": "<<=", "rsh": ">>=", "arsh": "s>>=",
         "div": "/=", "mod": "%=", "sdiv": "s/=", "smod": "s%=", "mov": "="}  # fmt: skip


@pytest.mark.parametrize("name", scalar.OPERATIONS)
@settings(deadline=None, max_examples=EXAMPLES)
@given(known(), known())
def test_operations_are_sound(name: str, left: tuple[Scalar, int], right: tuple[Scalar, int]) -> None:
    register = "r" if name.endswith("64") else "w"
    op = SIGNS[name[:-2]]
    result = compute(f"{register}1 {op} {register}2\nr0 = r1", left[1], right[1])
    known_result = scalar.OPERATIONS[name](left[0], right[0])
    assert not known_result.empty
    assert known_result.covers(result), (str(left[0]), str(right[0]), str(known_result), result)


@pytest.mark.parametrize("bits", [8, 16, 32])
@settings(deadline=None, max_examples=EXAMPLES)
@given(known())
def test_sign_extension_is_sound(bits: int, pair: tuple[Scalar, int]) -> None:
    assert scalar.sign_extend(pair[0], bits).covers(to_signed(pair[1], bits) & M)


CONDITIONS = ["==", "!=", ">", ">=", "<", "<=", "s>", "s>=", "s<", "s<=", "&"]


@pytest.mark.parametrize("wide", [True, False])
@pytest.mark.parametrize("op", CONDITIONS)
@settings(deadline=None, max_examples=EXAMPLES)
@given(known(), known())
def test_assumptions_are_sound(op: str, wide: bool, left: tuple[Scalar, int], right: tuple[Scalar, int]) -> None:
    register = "r" if wide else "w"
    holds = compute(f"r0 = 1\nif {register}1 {op} {register}2 goto +1\nr0 = 0", left[1], right[1])
    a, b = scalar.assume(op if holds else scalar.NEGATED[op], wide, left[0], right[0])
    assert a.covers(left[1]) and b.covers(right[1]), (str(left[0]), str(right[0]), str(a), str(b))


@given(known(), known())
def test_what_contains_covers(left: tuple[Scalar, int], right: tuple[Scalar, int]) -> None:
    if left[0].contains(right[0]):
        assert left[0].covers(right[1])


@pytest.mark.parametrize(
    ("op", "a", "b", "umin", "umax"),
    [
        ("add64", (0, 10), (5, 7), 5, 17), ("sub64", (20, 30), (1, 5), 15, 29), ("and64", (0, M), (0, 15), 0, 15),
        ("rsh64", (0, M), (60, 60), 0, 15), ("mod64", (0, M), (10, 10), 0, 9), ("div64", (0, 100), (10, 10), 0, 10),
        ("lsh64", (0, 15), (4, 4), 0, 240), ("mul64", (0, 15), (8, 8), 0, 120), ("add32", (0, 10), (5, 7), 5, 17),
        ("mov32", (0, 0), (0, M), 0, W),
    ],
)  # fmt: skip
def test_operations_are_precise(op: str, a: tuple[int, int], b: tuple[int, int], umin: int, umax: int) -> None:
    found = scalar.OPERATIONS[op](scalar.of_range(*a), scalar.of_range(*b))
    assert (found.umin, found.umax) == (umin, umax)


def test_comparisons_narrow() -> None:
    a, _ = scalar.assume("<", True, scalar.UNKNOWN, scalar.const(16))
    assert (a.umin, a.umax, a.smin, a.smax, a.bits) == (0, 15, 0, 15, (0, 15))
    a, _ = scalar.assume("s>=", True, scalar.UNKNOWN, scalar.const(0))
    assert a.umax == (1 << 63) - 1
    a, _ = scalar.assume("<=", False, scalar.low32(scalar.UNKNOWN), scalar.const(100))
    assert a.umax == 100
    assert scalar.assume("==", True, scalar.const(1), scalar.const(2))[0].empty
    assert scalar.assume("!&", True, scalar.const(4), scalar.const(4))[0].empty
    a, _ = scalar.assume("&", True, scalar.UNKNOWN, scalar.const(8))
    assert a.bits == (8, M & ~8) and a.umin == 8


@given(numbers(), numbers(), st.integers(0, M), st.integers(0, M))
def test_known_bits_are_sound(a: int, b: int, mask_a: int, mask_b: int) -> None:
    left, right = (a & ~mask_a, mask_a), (b & ~mask_b, mask_b)
    assert tnum.covers(tnum.add(left, right), (a + b) & M)
    assert tnum.covers(tnum.sub(left, right), (a - b) & M)
    assert tnum.covers(tnum.mul(left, right), a * b & M)
    assert tnum.covers(tnum.and_(left, right), a & b)
    assert tnum.covers(tnum.or_(left, right), a | b)
    assert tnum.covers(tnum.xor(left, right), a ^ b)
    low, high = min(a, b), max(a, b)
    assert tnum.covers(tnum.of_range(low, high), a) and tnum.covers(tnum.of_range(low, high), b)

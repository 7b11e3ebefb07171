"""Numbers: literals, promotion, arithmetic, folding, conversions that may change values."""

from __future__ import annotations

import pytest
from bt_typing import errors, typed, variables, warnings
from hypothesis import given
from hypothesis import strategies as st

from sonde.debuginfo.ctype import INT8, INT16, INT32, INT64, UINT8, UINT16, UINT32, UINT64, CType, Pointer
from sonde.lang.bpftrace.stype import LiteralInt, RecordType, Str, Tuple, same, type_name
from sonde.lang.bpftrace.typing_promotion import fits, literal_type, loses, number_fits, promote, settle

INTS = (INT8, INT16, INT32, INT64, UINT8, UINT16, UINT32, UINT64)
ints = st.sampled_from(INTS)
types = st.recursive(
    ints | st.integers(1, 70).map(Str), lambda inner: st.lists(inner, max_size=3).map(Tuple), max_leaves=5
)


@pytest.mark.parametrize(
    ("number", "name"),
    [
        ("0", "int8"),
        ("127", "int8"),
        ("128", "int16"),
        ("-128", "int8"),
        ("-129", "int16"),
        ("32768", "int32"),
        ("0xffffffff", "int64"),
        ("9223372036854775807", "int64"),
        ("9223372036854775808", "uint64"),
        ("-9223372036854775808", "int64"),
        ("1s", "int32"),
    ],
)
def test_a_literal_has_the_smallest_signed_type(number: str, name: str) -> None:
    assert variables(f"$x = {number};") == {"$x": name}


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("$x = 1; $x = 1000;", "int16"),
        ("$x = 1; $x = (uint32)5;", "uint32"),
        ("$x = (int8)1; $x = (uint32)5;", "int64"),
        ("$x = -1; $x = (uint32)5;", "int64"),
        ("$x = (uint8)1; $x = -1;", "int16"),
        ("$x = (uint8)1; $x = 200;", "uint16"),
        ("$x = (uint16)1; $x = (int16)1;", "int32"),
        ("$x = (uint64)1; $x = (int64)1;", "int64"),
        ("$x = 5; $x++;", "int64"),
        ("$x = (uint8)5; $x++;", "uint64"),
        ("$x = 5; $x += 1000;", "int64"),
        ("$x = (uint64)5; $x -= 1;", "int64"),
        ("$y = (uint32)7; $x = 1; $z = $x; $x = $y;", "uint32"),
        ("let $x : uint8 = 200;", "uint8"),
        ("let $x : uint64 = nsecs; $x = 5;", "uint64"),
    ],
)
def test_a_variable_grows(text: str, name: str) -> None:
    assert variables(text)["$x"] == name


@pytest.mark.parametrize(
    ("expression", "name"),
    [
        ("nsecs + 1", "uint64"),
        ("nsecs - 1", "int64"),
        ("nsecs + -1", "int64"),
        ("(uint8)5 + (int8)3", "int64"),
        ("(uint32)5 * (uint8)3", "uint64"),
        ("pid << 3", "uint64"),
        ("(uint64)1 << (int64)2", "int64"),
        ("-nsecs", "uint64"),
        ("~pid", "uint64"),
        ("!pid", "bool"),
        ("pid == 5", "bool"),
        ("pid && uid", "bool"),
        ("true + true", "bool"),
        ("pid ? 2 : 1000", "int16"),
        ("pid ?: 5", "uint32"),
    ],
)
def test_types_of_operations(expression: str, name: str) -> None:
    assert variables(f"$x = {expression};") == {"$x": name}


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("1 + 2 * 3", 7),
        ("1 - 2", -1),
        ("-7 / 2", -3),
        ("-7 % 2", -1),
        ("1 << 62", 1 << 62),
        ("~0", (1 << 64) - 1),
        ("18446744073709551614 + 1", (1 << 64) - 1),
        ('"a" + "b"', "ab"),
        ('"abc" == "abc"', True),
        ('"abcdef" + 2', "cdef"),
        ("1 == 2 || 3 > 2", True),
        ("1 ? 2 : 3", 2),
        ("sizeof(uint32) + 1", 5),
        ("comptime (5 - 6)", -1),
        ("!0", True),
    ],
)
def test_operations_on_literals_are_folded(expression: str, value: object) -> None:
    probe = typed(f"$x = {expression};").probes[0]
    assign = probe.body.statements[0]
    assert probe.constants[assign.value] == value  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "expression", ["1 / 0", "1 % 0", "1 << 64", "18446744073709551615 + 1", "-9223372036854775808 - 1"]
)
def test_folding_refuses_what_no_number_holds(expression: str) -> None:
    assert errors(f"$x = {expression};") == ["unable to fold literals due to overflow or underflow"]


def test_a_negative_number_below_all() -> None:
    assert errors("$x = -9223372036854775809;") == ["negative value will underflow"]


@pytest.mark.parametrize(
    ("text", "given", "known"),
    [
        ('$x = 1; $x = "x";', "string[2]", "int8"),
        ("$x = true; $x = 5;", "int8", "bool"),
        ("let $x : int8 = 300;", "int16", "int8"),
        ("let $x : uint8 = -1;", "int8", "uint8"),
        ("$x = 18446744073709551615; $x = -1;", "uint64", "int64"),
        ("$x = kstack(3); $x = kstack(5);", "kstack_bpftrace_5", "kstack_bpftrace_3"),
        ("$x = (int32*)0; $x = 0;", "int8", "int32 *"),
    ],
)
def test_what_a_variable_cannot_hold(text: str, given: str, known: str) -> None:
    message = (
        f"Type mismatch for $x: trying to assign value of type '{given}' when variable already has a type '{known}'"
    )
    assert errors(text) == [message]


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("$x = nsecs < (int64)5;", 1),
        ("$x = nsecs < 5;", 0),
        ("$x = pid < -5;", 0),
        ("$x = nsecs - nsecs;", 2),
        ("let $x : int8 = (int16)5;", 1),
        ("let $x : int64 = (int16)5;", 0),
        ("@a[-1] = 1; @a[nsecs] = 1;", 1),
    ],
)
def test_conversions_that_may_change_values_are_warned_of(text: str, count: int) -> None:
    found = [w for w in warnings(text) if "This may cause unexpected results" in w]
    assert len(found) == count


def test_signed_division_is_warned_of() -> None:
    assert [w for w in warnings("$x = (int16)5; $y = $x / 2;") if w.startswith("signed operands for '/'")]
    assert not warnings("$x = nsecs; $y = $x / 2;")


@given(ints, ints)
def test_promotion_is_symmetric_and_holds_both(a: CType, b: CType) -> None:
    both = promote(a, b)
    assert both is not None and same(both, promote(b, a))  # type: ignore[arg-type]
    for side in (a, b):
        assert not loses(side, both) or (side is UINT64 and same(both, INT64))


@given(types, types)
def test_a_promoted_type_takes_both_sides(a: CType, b: CType) -> None:
    both = promote(a, b)
    if both is not None:
        assert fits(a, both) and fits(b, both)
        assert same(promote(both, a) or a, both)


@given(st.integers(-(1 << 63), (1 << 64) - 1))
def test_a_literal_fits_its_type(value: int) -> None:
    ctype = literal_type(value)
    assert number_fits(value, ctype)
    assert type_name(settle(ctype)) == type_name(ctype)


@given(st.integers(0, (1 << 63) - 1), ints)
def test_a_literal_takes_the_sign_of_the_other_side(value: int, other: CType) -> None:
    both = promote(literal_type(value), other)
    assert both is not None and both.signed == other.signed  # type: ignore[attr-defined]
    assert number_fits(value, both)


def test_records_are_promoted_by_name() -> None:
    a = RecordType(("x", "y"), (INT8, Str(4)))
    b = RecordType(("y", "x"), (Str(9), INT32))
    both = promote(a, b)
    assert both is not None and type_name(both) == "record { .x = int32, .y = string[9] }"
    assert promote(a, RecordType(("x", "z"), (INT8, Str(4)))) is None


def test_every_number_has_a_sign_in_the_end() -> None:
    analysis = typed("$x = (1, (2, comm)); @m[3] = $x; $y = &$x; $z = (a=4).a; print($z + 5);")
    found = [t.ctype for p in analysis.probes for t in p.type_of.values()]
    found += [info.type.ctype for p in analysis.probes for info in p.variables.values() if info.type]
    found += [m.value for m in analysis.maps.values()] + [m.key for m in analysis.maps.values() if m.key]
    while found:
        ctype = found.pop()
        assert not isinstance(ctype, LiteralInt)
        found += ctype.items if isinstance(ctype, Tuple) else ()
        found += [ctype.target] if isinstance(ctype, Pointer) and isinstance(ctype.target, Tuple) else []

"""Record keeps the promises of a frozen data class."""

from __future__ import annotations

import pytest

from sonde.errors import Diagnostic, Span
from sonde.record import Record, replace


class Point(Record):
    x: int
    y: int = 2


class Point3(Point):
    z: int = 3


class Node(Record, eq=False):
    x: int


def test_values_by_position_name_and_default() -> None:
    assert (Point(1).x, Point(1).y, Point(1, 5).y, Point(x=7).x) == (1, 2, 5, 7)
    assert Point3(1) == Point3(1, 2, 3)
    assert repr(Point3(1)) == "Point3(x=1, y=2, z=3)"


@pytest.mark.parametrize("bad", [lambda: Point(), lambda: Point(1, 2, 3), lambda: Point(1, z=2)])
def test_wrong_values_are_type_errors(bad) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(TypeError):
        bad()


def test_equality_and_hash() -> None:
    assert Point(1) == Point(1, 2)
    assert hash(Point(1)) == hash(Point(1, 2))
    assert Point(1) != Point3(1)
    assert Node(1) != Node(1)
    assert len({Node(1), Node(1)}) == 2


def test_slots_and_replace() -> None:
    with pytest.raises(AttributeError):
        Point(1).other = 1  # type: ignore[attr-defined]
    assert replace(Point(1), y=9) == Point(1, 9)


def test_match() -> None:
    match Point(1, 2):
        case Point(a, b):
            assert (a, b) == (1, 2)


def test_diagnostic_underlines_its_span() -> None:
    span = Span("stdin", 2, 3, 2, 6)
    text = Diagnostic("ERROR", "no such thing", span, "\tabcdef", hint="try another").render()
    assert text.splitlines() == ["stdin:2:3-6: ERROR: no such thing", "    abcdef", "     ~~~", "HINT: try another"]

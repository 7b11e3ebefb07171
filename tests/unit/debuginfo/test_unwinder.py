"""Walking a copy of a stack: each kind of row, and where the walk ends."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sonde.debuginfo import cfa
from sonde.debuginfo.ehframe import Row
from sonde.debuginfo.unwinder import BY_FRAME_POINTER, walk

SP = 0x7000


def row(kind: int, offset: int = 0, add: int = 0, fp: int = cfa.SAME, fp_offset: int = 0) -> Row:
    return Row(kind, offset, add, fp, fp_offset)


def run(rows: dict[int, Row], words: dict[int, int], fp: int = 0, most: int = 20) -> list[int]:
    """Walk from 0x100 on; a row holds for the 16 addresses up to its own."""
    find = lambda pc: rows.get(pc | 15, row(cfa.STOP))  # noqa: E731
    return walk(find, words.get, 0x100, SP, fp, most)


@pytest.mark.parametrize(
    ("first", "words", "fp", "found"),
    [
        (row(cfa.SP, 24), {SP + 16: 0x500}, 0, [0x100, 0x500]),
        (row(cfa.FP, 16), {SP + 40: 0x500}, SP + 32, [0x100, 0x500]),
        (row(cfa.DEREF_SP, 8, 8), {SP + 8: SP + 64, SP + 64: 0x500}, 0, [0x100, 0x500]),
        (row(cfa.DEREF_FP, -8), {SP + 24: SP + 64, SP + 56: 0x500}, SP + 32, [0x100, 0x500]),
        (row(cfa.PLT, 8, 1), {SP: 0x500, SP + 8: 0x600}, 0, [0x100, 0x500]),
        (row(cfa.PLT, 8, 0), {SP: 0x500, SP + 8: 0x600}, 0, [0x100, 0x600]),
        (row(cfa.SP, 8), {SP: 0}, 0, [0x100]),
        (row(cfa.SP, 8), {}, 0, [0x100]),
        (row(cfa.SP, 0), {SP - 8: 0x500}, 0, [0x100]),  # no way up
        (row(cfa.SP, 12), {SP + 4: 0x500}, 0, [0x100]),  # no whole word
        (row(cfa.SP, 16, 0, cfa.AT_CFA, -16), {SP + 8: 0x500}, 0, [0x100]),  # the frame pointer cannot be read
        (row(cfa.DEREF_SP, 8), {}, 0, [0x100]),
        (row(cfa.SIGNAL), {SP + cfa.SIGNAL_PC: 0x500}, 0, [0x100]),
        (row(cfa.END), {SP: 0x500}, 0, [0x100]),
        (row(cfa.STOP), {SP: 0x500}, 0, [0x100]),
    ],
)
def test_one_step(first: Row, words: dict[int, int], fp: int, found: list[int]) -> None:
    assert run({0x10F: first}, words, fp) == found


def test_the_frame_pointer_is_followed_through_frames_that_save_it() -> None:
    rows = {
        0x10F: row(cfa.SP, 16, 0, cfa.AT_CFA, -16),
        0x20F: row(cfa.FP, 16, 0, cfa.AT_FP, 0),
        0x30F: BY_FRAME_POINTER,
        0x40F: row(cfa.SP, 8, 0, cfa.LOST),
        0x50F: row(cfa.FP, 16),
    }
    words = {
        SP: SP + 32,
        SP + 8: 0x201,
        SP + 32: SP + 64,
        SP + 40: 0x301,
        SP + 64: SP + 512,
        SP + 72: 0x401,
        SP + 80: 0x501,
    }
    assert run(rows, words) == [0x100, 0x201, 0x301, 0x401, 0x501]
    assert run(rows, words, most=3) == [0x100, 0x201, 0x301]


def test_what_a_signal_has_interrupted_is_looked_up_where_it_was() -> None:
    """On another stack, further down; its address is not behind a call."""
    words = {SP + cfa.SIGNAL_PC: 0x200, SP + cfa.SIGNAL_SP: 0x2000, SP + cfa.SIGNAL_FP: 0x2100, 0x2000: 0x310}
    rows = {0x10F: row(cfa.SIGNAL), 0x20F: row(cfa.SP, 8), 0x30F: row(cfa.FP, 16)}
    assert run(rows, {**words, 0x2108: 0x500}) == [0x100, 0x200, 0x310, 0x500]


@given(
    st.integers(0, 7), st.integers(-40, 40), st.integers(0, 255), st.integers(0, 3), st.integers(-40, 40), st.integers()
)
def test_it_ends_whatever_rows_say(kind: int, offset: int, add: int, fp: int, fp_offset: int, word: int) -> None:
    anything = row(kind, offset, add, fp, fp_offset)
    assert 1 <= len(walk(lambda pc: anything, lambda address: word, 0x100, SP, SP, 50)) <= 50

"""The terminal of `screen` against what curses was told to draw: text in random places, over other text, with lines cleared between."""

from __future__ import annotations

import json
import random
import sys

import pytest
from oracle.screen import show
from oracle.toolrun import SCREEN, watch_tool

DRAW = """
import curses, json, sys
def main(screen):
    for step in json.loads(sys.argv[1]):
        if step is None:
            screen.refresh()
        elif len(step) == 1:
            screen.move(step[0], 0); screen.clrtoeol()
        else:
            screen.addstr(*step)
    screen.refresh()
curses.wrapper(main)
"""


def steps_of(rng: random.Random) -> tuple[list[list[int | str] | None], list[str]]:
    """Return what to draw, and the lines that then stand on the screen. The last line is left to what ends curses."""
    rows = [" " * SCREEN[1] for _ in range(SCREEN[0])]
    steps: list[list[int | str] | None] = []
    for _ in range(60):
        y, x = rng.randrange(SCREEN[0] - 1), rng.randrange(SCREEN[1] - 1)
        what = rng.randrange(8)
        if what == 0:
            steps.append(None)
        elif what == 1:
            steps.append([y])
            rows[y] = " " * SCREEN[1]
        else:
            text = "".join(rng.choice("ab  12") for _ in range(rng.randrange(1, SCREEN[1] - x)))
            steps.append([y, x, text])
            rows[y] = rows[y][:x] + text + rows[y][x + len(text) :]
    return steps, [row.rstrip() for row in rows]


@pytest.mark.parametrize("seed", range(4))
def test_shows_what_curses_drew(seed: int) -> None:
    steps, rows = steps_of(random.Random(seed))
    seen = watch_tool(
        [sys.executable, "-c", DRAW, json.dumps(steps)],
        "true",
        terminal=True,
        by_descriptors=True,
        env={"TERM": "vt100"},
    )
    assert (seen["status"], seen["err"], seen["interrupted"]) == (0, "", False)
    assert show(seen["out"]).split("\n")[:-1] == rows[:-1]


def test_scrolls_and_wraps() -> None:
    assert show("one\r\ntwo\r\nthree and more", 2, 10).split("\n") == ["three and", "more"]
    assert show("x" * 12 + "\b\by", 3, 5).split("\n") == ["xxxxx", "xxxxx", "yx"]

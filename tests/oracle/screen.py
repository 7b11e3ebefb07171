"""What a terminal shows after a program has written to it: the output of a tool that draws by curses, as lines of text.

Understands what the terminfo entry "vt100" makes ncurses send: ECMA-48's CUP, CUU, CUD, CUF, CUB, ED and EL, the control characters BS, LF and
CR, and the scrolling at the last line. Colours, character sets and the like are passed over.
"""

from __future__ import annotations

import re

from oracle.toolrun import SCREEN

_TOKEN = re.compile(r"\x1b\[([?0-9;]*)([@-~])|\x1b[()*+].|\x1b.|([\x00-\x1f])|([^\x00-\x1f\x1b]+)", re.S)


def show(text: str, lines: int = SCREEN[0], columns: int = SCREEN[1]) -> str:
    """Return what stands on a screen of so many lines and columns once `text` was written to it, lines without blanks at their end."""
    screen = Screen(lines, columns)
    for match in _TOKEN.finditer(text):
        arguments, final, control, plain = match.groups()
        if plain:
            screen.write(plain)
        elif control:
            screen.control(control)
        elif final and "?" not in arguments:
            screen.sequence(final, [int(word or 0) for word in arguments.split(";")])
    return "\n".join("".join(row).rstrip() for row in screen.rows)


class Screen:
    """The characters of a terminal and where its cursor is."""

    def __init__(self, lines: int, columns: int) -> None:
        self.columns = columns
        self.rows = [[" "] * columns for _ in range(lines)]
        self.y = self.x = 0

    def write(self, text: str) -> None:
        """Put characters at the cursor; what is too long goes on in the next line."""
        for character in text:
            if self.x == self.columns:
                self.x = 0
                self.line_feed()
            self.rows[self.y][self.x] = character
            self.x += 1

    def line_feed(self) -> None:
        """Go down a line; at the last one everything moves up."""
        if self.y + 1 < len(self.rows):
            self.y += 1
        else:
            self.rows = [*self.rows[1:], [" "] * self.columns]

    def control(self, character: str) -> None:
        """Obey a control character."""
        if character == "\r":
            self.x = 0
        elif character == "\n":
            self.line_feed()
        elif character == "\b":
            self.x = max(self.x - 1, 0)

    def sequence(self, final: str, arguments: list[int]) -> None:
        """Obey a control sequence."""
        first = arguments[0]
        count = first or 1
        if final == "H":
            column = arguments[1] if len(arguments) > 1 else 1
            self.y, self.x = count - 1, (column or 1) - 1
        elif final in "AB":
            self.y += count if final == "B" else -count
        elif final in "CD":
            self.x += count if final == "C" else -count
        elif final == "J":
            self.erase_lines(first)
        elif final == "K":
            self.erase_in_line(first)
        self.y = min(max(self.y, 0), len(self.rows) - 1)
        self.x = min(max(self.x, 0), self.columns - 1)

    def erase_lines(self, which: int) -> None:
        """Clear from the cursor to the end (0), from the start to the cursor (1), or all (2)."""
        self.erase_in_line(which)
        below, above = which in (0, 2), which in (1, 2)
        for y, row in enumerate(self.rows):
            if (y > self.y and below) or (y < self.y and above):
                row[:] = " " * self.columns

    def erase_in_line(self, which: int) -> None:
        """Clear the line of the cursor: behind it (0), before it (1), or all of it (2)."""
        start = self.x if which == 0 else 0
        end = self.x + 1 if which == 1 else self.columns
        self.rows[self.y][start:end] = " " * (min(end, self.columns) - start)

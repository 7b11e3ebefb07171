"""Source: a program text that can say where in it something stands."""

from __future__ import annotations

from bisect import bisect_right

from ..errors import Diagnostic, Span


class Source:
    """A text and its name ("stdin" for -e, a file's path otherwise)."""

    __slots__ = ("_starts", "name", "text")

    def __init__(self, name: str, text: str) -> None:
        self.name = name
        self.text = text
        self._starts: list[int] = []

    def _line_starts(self) -> list[int]:
        if not self._starts:
            starts = [0]
            find = self.text.find
            at = find("\n")
            while at >= 0:
                starts.append(at + 1)
                at = find("\n", at + 1)
            self._starts = starts
        return self._starts

    def span(self, start: int, end: int) -> Span:
        """Return the Span of the characters start..end (end excluded)."""
        starts = self._line_starts()
        line = bisect_right(starts, start)
        end_line = bisect_right(starts, end)
        return Span(self.name, line, start - starts[line - 1] + 1, end_line, end - starts[end_line - 1] + 1)

    def line(self, number: int) -> str:
        """Return the text of line `number` (from 1), without its newline; "" beyond the end."""
        starts = self._line_starts()
        if not 1 <= number <= len(starts):
            return ""
        end = starts[number] - 1 if number < len(starts) else len(self.text)
        return self.text[starts[number - 1] : end]

    def diagnostic(
        self, message: str, span: Span, *, severity: str = "ERROR", hint: str = "", notes: tuple[Diagnostic, ...] = ()
    ) -> Diagnostic:
        """Make a Diagnostic about `span` of this text."""
        return Diagnostic(severity, message, span, self.line(span.line), hint, notes)

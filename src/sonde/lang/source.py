"""Source: a program text that can say where in it something stands.

A `Place` is a `Span` that knows its text: it holds two offsets, and counts lines and columns only when somebody asks.
A parser makes one for each node, nearly all of which nobody ever looks at.
"""

from __future__ import annotations

from ..errors import Diagnostic, Span

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator


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

    def span(self, start: int, end: int) -> Place:
        """Return the Span of the characters start..end (end excluded)."""
        return Place(self, start, end)

    def locate(self, offset: int) -> tuple[int, int]:
        """Return line and column, both from 1, of the character at `offset`."""
        from bisect import bisect_right

        starts = self._line_starts()
        line = bisect_right(starts, offset)
        return line, offset - starts[line - 1] + 1

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
        """Make a Diagnostic about `span` of this text; a Place of another text is quoted from that one."""
        if isinstance(span, Place):
            if span.source is not self:
                return span.source.diagnostic(message, span, severity=severity, hint=hint, notes=notes)
            notes += tuple(p.source.diagnostic("expanded from", p, severity=severity) for p in span.iter_calls())
        excerpt = "\n".join(self.line(n) for n in range(span.line, span.end_line + 1))
        return Diagnostic(severity, message, span, excerpt, hint, notes)


class Place(Span):
    """A Span of `source.text[start:end]`, counted out on first use. It equals any Span of the same place.

    What a macro expansion made stands in the macro's text; `call` is then the place of the call, and diagnostics say so.
    """

    __slots__ = ("call", "end", "source", "start")

    def __init__(self, source: Source, start: int, end: int, call: Place | None = None) -> None:
        self.source = source
        self.start = start
        self.end = end
        self.call = call

    def __getattr__(self, name: str) -> object:
        """Fill the fields of Span; only called while they are unset."""
        if name not in Span._fields:
            raise AttributeError(name)
        self.file = self.source.name  # type: ignore[misc]
        self.line, self.column = self.source.locate(self.start)  # type: ignore[misc]
        self.end_line, self.end_column = self.source.locate(self.end)  # type: ignore[misc]
        return object.__getattribute__(self, name)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Place):
            return (self.source, self.start, self.end) == (other.source, other.start, other.end)
        if isinstance(other, Span):
            return all(getattr(self, f) == getattr(other, f) for f in Span._fields)
        return NotImplemented

    def __hash__(self) -> int:
        return hash((Span, *(getattr(self, f) for f in Span._fields)))

    def __repr__(self) -> str:
        return f"Place({self.file}:{self.line}:{self.column}-{self.end_line}:{self.end_column})"

    @property
    def excerpt(self) -> str:
        """The source lines that the place covers, without the last newline."""
        return "\n".join(self.source.line(n) for n in range(self.line, self.end_line + 1))

    def iter_calls(self) -> Iterator[Place]:
        """Yield the places of the macro calls that led here, innermost first."""
        place = self.call
        while place is not None:
            yield Place(place.source, place.start, place.end)
            place = place.call

    @property
    def text(self) -> str:
        """The characters covered."""
        return self.source.text[self.start : self.end]


def diagnose(
    span: Span, message: str, *, severity: str = "ERROR", hint: str = "", notes: tuple[Diagnostic, ...] = ()
) -> Diagnostic:
    """Make a Diagnostic about `span`, with its source line when the span is a Place (as in every parsed tree)."""
    if isinstance(span, Place):
        return span.source.diagnostic(message, span, severity=severity, hint=hint, notes=notes)
    return Diagnostic(severity, message, span, "", hint, notes)

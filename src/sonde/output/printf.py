"""Format strings: a tuple of Segments becomes one function from values to bytes, as bpftrace prints them.

bpftrace writes through C++ streams, so: precision, the blank flag and `*` change nothing; the sign of a padded number
follows the zeros; a width pads the first piece of a composite value only.
"""

from __future__ import annotations

from ..spec.engine import LineFormat
from .values import value_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from ..spec.layout import Layout
    from ..spec.object import EventSpec, Segment

    Formatter = Callable[[Sequence[Any]], bytes]


def line_format(event: EventSpec, emit: Callable[[bytes], object]) -> LineFormat | None:
    """Return the event as one `%` operation on raw bytes, or None where a conversion needs more than that."""
    pattern: list[bytes] = []
    takes: list[str] = []
    fields = iter(event.fields)
    for segment in event.get_param("segments", ()):
        if not segment.conversion:
            pattern.append(encode(segment.text).replace(b"%", b"%%"))
            continue
        field = next(fields, None)
        simple = _simple(segment, field.layout) if field is not None and not field.bit_width else None
        if simple is None:
            return None
        pattern.append(simple[0])
        takes.append(simple[1])
    if next(fields, None) is not None:
        return None
    return LineFormat(b"".join(pattern), tuple(takes), emit)


def _simple(segment: Segment, layout: Layout) -> tuple[bytes, str] | None:
    """Return (conversion, what it takes) when Python's `%` prints the very same, else None."""
    width = str(segment.width) if segment.width else ""
    if set(segment.flags) - {"-"} or segment.width < 0:
        return None
    conversion, left = segment.conversion, "-" if "-" in segment.flags else ""
    if conversion == "s" and layout.kind == "string" and not layout.get_param("trailer"):
        return f"%{left}{width}s".encode(), "bytes"
    if layout.kind == "int" and conversion in "dis":
        return f"%{left}{width}d".encode(), "signed" if layout.signed else "unsigned"
    if layout.kind == "int" and conversion in "ux" and not layout.signed:
        return f"%{left}{width}{conversion}".encode(), "unsigned"
    return None


def compile_segments(segments: Sequence[Segment], layouts: Sequence[Layout]) -> Formatter:
    """Return values -> bytes for a whole format string."""
    pieces: list[Callable[[Sequence[Any]], bytes]] = []
    index = 0
    for segment in segments:
        if segment.conversion:
            pieces.append(_conversion(segment, layouts[index], index))
            index += 1
        else:
            pieces.append(_literal(encode(segment.text)))
    return lambda values: b"".join([piece(values) for piece in pieces])


def _literal(text: bytes) -> Callable[[Sequence[Any]], bytes]:
    return lambda values: text


def _conversion(segment: Segment, layout: Layout, index: int) -> Callable[[Sequence[Any]], bytes]:
    width = -segment.width if "-" in segment.flags else segment.width

    def piece(values: Sequence[Any]) -> bytes:
        return pad(encode(convert(segment, layout, values[index])), width)

    return piece


def pad(text: bytes, width: int) -> bytes:
    """Pad to `width` bytes: on the left, or with a negative width on the right."""
    return text.ljust(-width) if width < 0 else text.rjust(width)


def convert(segment: Segment, layout: Layout, value: Any) -> str:
    if isinstance(value, int) and segment.conversion in "xXou":
        value &= (1 << 8 * layout.size) - 1
        return format(value, {"u": "d"}.get(segment.conversion, segment.conversion))
    return value_text(value, layout)


def encode(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")

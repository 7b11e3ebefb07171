"""Format strings: a tuple of Segments becomes one function from values to bytes, as bpftrace 0.27 prints them.

bpftrace formats through C++ streams, and that shows: precision, the blank flag and `*` change nothing; zeros are
put before a sign or a `0x`; a width pads the first piece of a tuple or record only. Integers are cut to the width of the
length modifier as in C: without one, to 32 bits. Widths count bytes.
"""

from __future__ import annotations

from ..spec.engine import LineFormat
from .values import buffer_text, value_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from ..spec.layout import Layout
    from ..spec.object import EventSpec, Segment

    Formatter = Callable[[Sequence[Any]], bytes]

_LENGTH_BYTES = {"hh": 1, "h": 2, "": 4}  # all others are 8
_CODES = {(1, False): "B", (2, False): "H", (4, False): "I", (8, False): "Q"} | {
    (1, True): "b",
    (2, True): "h",
    (4, True): "i",
    (8, True): "q",
}


def encode(text: str) -> bytes:
    """Return the bytes of decoded text; what was no UTF-8 comes out as it went in."""
    return text.encode("utf-8", "surrogateescape")


def compile_segments(segments: Sequence[Segment], layouts: Sequence[Layout]) -> Formatter:
    """Return values -> bytes for a whole format string; `layouts` are those of the values."""
    pieces: list[Formatter] = []
    index = 0
    for segment in segments:
        if not segment.conversion:
            pieces.append(_literal(encode(segment.text)))
        elif index < len(layouts):
            pieces.append(_conversion(segment, layouts[index], index))
            index += 1
    return lambda values: b"".join([piece(values) for piece in pieces])


def _literal(text: bytes) -> Formatter:
    return lambda values: text


def _conversion(segment: Segment, layout: Layout, index: int) -> Formatter:
    convert = converter(segment, layout)
    flags, width = segment.flags, segment.width
    if not width:
        return lambda values: encode(convert(values[index]))
    fill = b"0" if "0" in flags else b" "
    first = _FIRST_PIECE.get(layout.kind, 0) if segment.conversion == "s" else 0

    def piece(values: Sequence[Any]) -> bytes:
        text = encode(convert(values[index]))
        head, tail = (text[:first], text[first:]) if first else (text, b"")
        head = head.ljust(width, fill) if "-" in flags else head.rjust(width, fill)
        return head + tail

    return piece


_FIRST_PIECE = {"tuple": 1, "record": 2, "struct": 2, "array": 1}


def converter(segment: Segment, layout: Layout) -> Callable[[Any], str]:
    """Return value -> text for one conversion, before padding."""
    conversion = segment.conversion
    if conversion in ("r", "rx", "rh"):
        return _buffer_converter(conversion)
    if conversion == "gr":
        from .gfpflags import gfp_text

        return lambda value: gfp_text(as_number(value))
    if conversion == "c":
        return lambda value: bytes((as_number(value) & 0xFF,)).decode("utf-8", "surrogateescape")
    if conversion == "p":
        return lambda value: f"0x{as_number(value) & _U64:x}" if as_number(value) else "0"
    if conversion in ("d", "i", "u", "o", "x", "X") and layout.kind not in _TEXT_KINDS:
        return _number_converter(segment)
    if "+" in segment.flags and layout.kind in _SIGNED_KINDS:
        return lambda value: f"{value:+d}"
    return lambda value: value_text(value, layout)


_U64 = (1 << 64) - 1
_SIGNED_KINDS = ("int", "sum", "min", "max")
_TEXT_KINDS = frozenset(
    ("string", "buffer", "tuple", "record", "struct", "array", "inet", "mac", "kstack", "ustack", "none")
)


def as_number(value: Any) -> int:
    """Return the number behind a decoded value: of an enum, a symbol, a user, an average …"""
    if isinstance(value, int):
        return int(value)
    for field in ("number", "addr", "uid", "ns", "total"):
        if hasattr(value, field):
            return int(getattr(value, field))
    return 0


def _buffer_converter(conversion: str) -> Callable[[Any], str]:
    if conversion == "r":
        return buffer_text
    if conversion == "rx":
        return lambda data: "".join([f"\\x{b:02x}" for b in data])
    return lambda data: " ".join([f"{b:02x}" for b in data])


def _number_converter(segment: Segment) -> Callable[[Any], str]:
    """d and i: signed, the others unsigned, both cut to the length modifier's width."""
    conversion, flags = segment.conversion, segment.flags
    bits = 8 * _LENGTH_BYTES.get(segment.length, 8)
    mask, sign = (1 << bits) - 1, 1 << (bits - 1)
    if conversion in "di":
        form = "+d" if "+" in flags else "d"
        return lambda value: format(((as_number(value) & mask) ^ sign) - sign, form)
    form = "d" if conversion == "u" else conversion
    base = {"o": "0", "x": "0x", "X": "0X"}.get(conversion, "") if "#" in flags else ""

    def convert(value: Any) -> str:
        number = as_number(value) & mask
        return f"{base if number else ''}{number:{form}}"

    return convert


# The fast way: the whole format as one `%` operation ---------------------------------------------------------------


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
    conversion, flags = segment.conversion, segment.flags
    if set(flags) - {"-"}:
        return None
    form = f"%{flags[:1]}{segment.width or ''}"
    if conversion == "s" and layout.kind == "string":
        return f"{form}s".encode(), "s"
    if layout.kind != "int":
        return None
    if conversion == "s":
        return f"{form}d".encode(), _CODES[layout.size, layout.signed]
    if conversion == "c":
        return f"{form}c".encode(), "B"
    if conversion not in "diuxXo":
        return None
    size = min(layout.size, _LENGTH_BYTES.get(segment.length, 8))
    signed = conversion in "di"
    if size == layout.size < _LENGTH_BYTES.get(segment.length, 8):  # widened by its own sign
        if layout.signed and not signed:
            return None
        signed = layout.signed
    return f"{form}{'d' if conversion in 'diu' else conversion}".encode(), _CODES[size, signed]

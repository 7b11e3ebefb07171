"""Format strings: parsed into segments, and checked against the arguments.

The grammar is bpftrace's: `%`, the flags `-`, `+`, blank, `#` in this order, width, precision, length, conversion; text that
does not follow it is no conversion. A width or precision `*` is taken for none.
"""

from __future__ import annotations

from ...debuginfo.ctype import Enum, Int, Pointer, strip
from ...spec.object import Segment
from .stype import CASTABLE, Buffer, type_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from ...debuginfo.ctype import CType

_CONVERSIONS = "diouxXeEfFgGaAcspn%"
_LENGTHS = frozenset("hlLjzt")
_FLAGS = "-+ #"
_SUPPORTED = frozenset(["d", "i", "u", "o", "x", "X", "c", "s", "p", "r", "rx", "rh", "gr"])
_NUMBERS = frozenset(["d", "i", "u", "o", "x", "X", "c", "p", "gr"])
_BUFFERS = frozenset(["r", "rx", "rh"])


def parse_format(text: str) -> tuple[Segment, ...]:
    """Split a format string into literal text and conversions."""
    segments: list[Segment] = []
    plain = ""
    at = 0
    while True:
        percent = text.find("%", at)
        if percent < 0:
            plain += text[at:]
            break
        plain += text[at:percent]
        found = _scan(text, percent)
        if found is None:
            plain += "%"
            at = percent + 1
            continue
        segment, at = found
        if segment.conversion == "%":
            plain += "%"
            continue
        if plain:
            segments.append(Segment(plain))
            plain = ""
        segments.append(segment)
    if plain:
        segments.append(Segment(plain))
    return tuple(segments)


def _scan(text: str, at: int) -> tuple[Segment, int] | None:
    """Read the conversion that begins at text[at]; return it and where it ends, or None if it is none."""
    at += 1
    flags = ""
    for flag in _FLAGS:
        if text[at : at + 1] == flag:
            flags += flag
            at += 1
    if text[at : at + 1] == "0":
        flags += "0"
    width, at = _scan_number(text, at)
    precision = -1
    if text[at : at + 1] == ".":
        number, after = _scan_number(text, at + 1)
        if after == at + 1:
            return None
        precision, at = number, after
        if text[at - 1] == "*":
            precision = -1
    start = at
    while text[at : at + 1] in _LENGTHS and text[at : at + 1]:
        at += 1
    length = text[start:at]
    two = text[at : at + 2]
    if two in ("rx", "rh", "gr"):
        return Segment("", two, flags, width, precision, length), at + 2
    one = text[at : at + 1]
    if one and (one in _CONVERSIONS or one == "r"):
        return Segment("", one, flags, width, precision, length), at + 1
    return None


def _scan_number(text: str, at: int) -> tuple[int, int]:
    if text[at : at + 1] == "*":
        return 0, at + 1
    start = at
    while text[at : at + 1].isdigit() and text[at].isascii():
        at += 1
    return (int(text[start : min(at, start + 6)]) if at > start else 0), at


def check_format(segments: Sequence[Segment], args: Sequence[CType]) -> str:
    """Return what is wrong with the arguments for a format; "" if nothing is."""
    conversions = [s.conversion for s in segments if s.conversion]
    if len(args) != len(conversions):
        few = "not enough" if len(args) < len(conversions) else "too many"
        return f"{few} arguments for format string ({len(args)} supplied, {len(conversions)} expected)"
    for conversion, ctype in zip(conversions, args):
        if conversion not in _SUPPORTED:
            return f"unsupported format specifier: {conversion}"
        if not _takes(conversion, ctype):
            return f"unsupported format specifier for type '{type_name(ctype)}': {conversion}"
    return ""


def _takes(conversion: str, ctype: CType) -> bool:
    plain = strip(ctype)
    if conversion in _NUMBERS:
        return isinstance(plain, (Int, Enum, Pointer, *CASTABLE))
    if conversion in _BUFFERS:
        return isinstance(plain, Buffer)
    return True


def format_literals(segments: Sequence[Segment], values: Sequence[int | str | bool]) -> str:
    """Put literals into a format, as `fail()` does."""
    rest = list(values)
    text = ""
    for segment in segments:
        text += segment.text
        if segment.conversion and rest:
            value = rest.pop(0)
            if segment.conversion in ("x", "X") and not isinstance(value, str):
                text += format(value, segment.conversion)
            else:
                text += str(value).lower() if isinstance(value, bool) else str(value)
    return text

"""Pieces of the probe grammar that several types share: quoted parts, numbers, offsets, argument counts."""

from __future__ import annotations

from ..errors import ProbeError

_DURATIONS = {"ns": 1, "us": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9, "d": 86400 * 10**9}
U64_MAX = (1 << 64) - 1


def unquote(part: str) -> str:
    """Take the double quotes out of one part of an attach point; inside them a backslash protects the next character."""
    if '"' not in part:
        return part
    text = ""
    quoted = False
    chars = iter(part)
    for char in chars:
        if char == '"':
            quoted = not quoted
        elif char == "\\" and quoted:
            text += next(chars, "")
        else:
            text += char
    return text


def to_uint(text: str) -> int:
    """Read an unsigned number as scripts write it: 10, 0x1f, 017, 1e6, 1_000, 10ull, 5ms. Raises ValueError."""
    digits = text.replace("_", "").lower()
    if not digits[:1].isdecimal() or not digits.isascii():
        raise ValueError(f"invalid integer: {text}")
    try:
        value = _read_number(digits)
    except ValueError:
        raise ValueError(f"invalid integer: {text}") from None
    if value > U64_MAX:
        raise ValueError(f"invalid integer: {text} does not fit into 64 bits")
    return value


def _read_number(digits: str) -> int:
    if digits.startswith("0x"):
        return int(digits.rstrip("ul"), 16)
    number = digits.rstrip("abcdefghijklmnopqrstuvwxyz")
    suffix = digits[len(number) :]
    if suffix in _DURATIONS:
        return int(number) * _DURATIONS[suffix]
    if suffix not in ("", "u", "l", "ul", "ll", "ull"):
        raise ValueError(digits)
    mantissa, e, exponent = number.partition("e")
    if e:
        if len(mantissa) != 1 or len(exponent) > 2:
            raise ValueError(digits)
        value: int = int(mantissa) * 10 ** int(exponent)
        return value
    return int(number, 8) if number.startswith("0") and len(number) > 1 else int(number)


def read_uint(text: str, what: str) -> int:
    """Like `to_uint`, with a ProbeError that begins with `what` ("Invalid offset")."""
    try:
        return to_uint(text)
    except ValueError as error:
        raise ProbeError(f"{what}: {error}") from None


def split_offset(text: str, *, allowed: bool) -> tuple[str, int]:
    """Split "func+0x10" into name and offset in bytes."""
    name, plus, offset = text.partition("+")
    if not plus:
        return text, 0
    if not allowed:
        raise ProbeError("Offset not allowed", hint="only the entry of a function can be probed here")
    if "+" in offset:
        raise ProbeError("Cannot take more than one offset")
    if not name or not offset:
        raise ProbeError("Invalid offset", hint="write FUNCTION+OFFSET")
    return name, read_uint(offset, "Invalid offset")


def wrong_count(kind: str, wanted: str, found: int) -> ProbeError:
    """Make the error for a wrong number of parts; `wanted` is "2" or "1 or 2"."""
    return ProbeError(f"{kind} probe type requires {wanted} arguments, found {found}")

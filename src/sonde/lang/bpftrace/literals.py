"""Integer and string literals to values. Text handed in ends in a NUL, so no scan runs past it."""

from __future__ import annotations

from .fault import Fault

_NUMBER = frozenset("0123456789_")
_HEX = frozenset("0123456789abcdefABCDEF")
_HEX_NUMBER = _HEX | {"_"}
_OCTAL = frozenset("01234567")
_LETTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_")
_WORD = _LETTERS | _NUMBER

U64_MAX = (1 << 64) - 1

# suffix -> (largest number that may carry it, factor)
SUFFIXES = {
    "": (U64_MAX, 1),
    "u": ((1 << 32) - 1, 1),
    "ul": (U64_MAX, 1),
    "ull": (U64_MAX, 1),
    "l": ((1 << 63) - 1, 1),
    "ll": ((1 << 63) - 1, 1),
    "ns": (U64_MAX, 1),
    "us": (U64_MAX, 1_000),
    "ms": (U64_MAX, 1_000_000),
    "s": (U64_MAX, 1_000_000_000),
    "m": (U64_MAX, 60_000_000_000),
    "h": (U64_MAX, 3_600_000_000_000),
    "d": (U64_MAX, 86_400_000_000_000),
}

_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", '"': '"', "\\": "\\"}


def scan_integer(text: str, at: int) -> tuple[int, int]:
    """Return the value of the integer literal at `at`, and the offset behind it. Raises Fault."""
    start = at
    is_hex = text[at] == "0" and text[at + 1] in "xX"
    allowed = _HEX_NUMBER if is_hex else _NUMBER
    if is_hex:
        at += 2
    while text[at] in allowed:
        at += 1
    _refuse_trailing_underscore(text, at)
    digits = text[start:at].replace("_", "")
    exponent = ""
    if not is_hex and text[at] in "eE":
        first = at = at + 1
        while text[at] in _NUMBER:
            at += 1
        _refuse_trailing_underscore(text, at)
        exponent = text[first:at].replace("_", "")
        if not exponent or exponent[0] == "0":
            raise _fault("invalid trailing bytes", text, start, at)
    first = at
    while text[at] in _WORD:
        at += 1
    suffix = text[first:at].lower()
    if suffix not in SUFFIXES:
        raise Fault(f"invalid integer suffix '{text[first:at]}'", first, at, _SUFFIX_HINT)
    value = _evaluate(digits, exponent, text, start, at)
    limit, factor = SUFFIXES[suffix]
    if value > limit or value * factor > U64_MAX:
        raise _overflow(text, start, at, limit)
    return value * factor, at


_SUFFIX_HINT = "a number may end in ns, us, ms, s, m, h, d (all give nanoseconds) or u, ul, ull, l, ll."


def _evaluate(digits: str, exponent: str, text: str, start: int, end: int) -> int:
    if digits[:2] in ("0x", "0X"):
        if len(digits) == 2:
            raise _fault("invalid integer", text, start, end)
        return int(digits, 16) if len(digits) < 64 else U64_MAX + 1
    if exponent:
        if len(digits) != 1 or digits == "0":
            raise _fault("coefficient part of scientific literal must be 1-9", text, start, end)
        return int(digits) * 10 ** int(exponent) if len(exponent) < 3 else U64_MAX + 1
    if digits[0] == "0" and len(digits) > 1:
        if "8" in digits or "9" in digits:
            raise _fault("invalid trailing bytes", text, start, end)
        return int(digits, 8) if len(digits) < 64 else U64_MAX + 1
    return int(digits) if len(digits) < 64 else U64_MAX + 1


def _refuse_trailing_underscore(text: str, at: int) -> None:
    if text[at - 1] == "_":
        raise Fault("trailing underscore in integer literal", at - 1, at)


def _fault(message: str, text: str, start: int, end: int) -> Fault:
    return Fault(f"{message}: {text[start:end]}", start, end)


def _overflow(text: str, start: int, end: int, limit: int) -> Fault:
    return _fault(f"overflow error, maximum value is {limit}", text, start, end)


def scan_string(text: str, at: int) -> tuple[str, int]:
    """Return the value of the string literal that begins with the quote at `at`, and the offset behind it.

    Escapes that make bytes beyond ASCII are decoded as UTF-8, with surrogate escapes for what is not. Raises Fault.
    """
    end = text.find('"', at + 1)
    value = text[at + 1 : end]
    if end > 0 and "\\" not in value and "\n" not in value:
        return value, end + 1
    return _scan_escaped(text, at)


def _scan_escaped(text: str, start: int) -> tuple[str, int]:
    raw = bytearray()
    at = start + 1
    while text[at] != '"':
        c = text[at]
        if c == "\n" or at >= len(text) - 1:
            raise Fault("unterminated string", start, at)
        if c != "\\":
            raw += c.encode("utf-8", "surrogateescape")
            at += 1
            continue
        c = text[at + 1]
        if c in _ESCAPES:
            raw += _ESCAPES[c].encode()
            at += 2
        elif c in _OCTAL or c in "xX":
            byte, at = _scan_byte(text, at)
            raw.append(byte)
        else:
            raise Fault(f"invalid escape character '\\{c}'" if c >= " " else "unterminated string", at, at + 2)
    return raw.decode("utf-8", "surrogateescape"), at + 1


def _scan_byte(text: str, start: int) -> tuple[int, int]:
    """Scan `\\ooo` or `\\xhh`."""
    at = start + 1
    base, digits, longest = (16, _HEX, 2) if text[at] in "xX" else (8, _OCTAL, 3)
    if base == 16:
        at += 1
    first = at
    while text[at] in digits and at - first < longest:
        at += 1
    if at == first:
        raise Fault("invalid hex escape sequence", start, at)
    value = int(text[first:at], base)
    if value > 255:
        raise Fault(f"octal escape sequence out of range '{text[start:at]}'", start, at)
    return value, at

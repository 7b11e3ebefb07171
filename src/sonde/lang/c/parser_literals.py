"""The spelling of a constant to its value: integers with their suffixes, character constants, string literals.

Spellings are those of C11 §6.4.4 and §6.4.5 with GNU's `0b` and `\\e`. A fault is a ValueError whose text is the diagnostic.
"""

from __future__ import annotations

U64_MAX = (1 << 64) - 1

_SUFFIXES = {
    "": "",
    "u": "u",
    "l": "l",
    "ul": "ul",
    "lu": "ul",
    "ll": "ll",
    "ull": "ull",
    "llu": "ull",
}
_SIMPLE_ESCAPES = {
    "n": 10,
    "t": 9,
    "r": 13,
    "a": 7,
    "b": 8,
    "f": 12,
    "v": 11,
    "e": 27,
    "E": 27,
    "\\": 92,
    "'": 39,
    '"': 34,
    "?": 63,
}
_OCTAL = frozenset("01234567")
_HEX = frozenset("0123456789abcdefABCDEF")
_UNICODE_DIGITS = {"u": 4, "U": 8}

_WIDE = ("L", "u", "U")


def parse_integer(text: str) -> tuple[int, str, bool]:
    """Return value, suffix ("u", "l", "ul", "ll", "ull" or "") and whether it is decimal. Raises ValueError."""
    if text.isdigit() and (text[0] != "0" or len(text) == 1):
        return _checked(int(text) if len(text) < 21 else U64_MAX + 1), "", True
    base, digits, suffix = _split(text)
    if "ll" not in suffix and "LL" not in suffix and suffix.lower().count("l") > 1:
        raise ValueError(f"invalid suffix '{suffix}' on an integer constant")
    if suffix.lower() not in _SUFFIXES:
        _refuse_float(text, base)
        raise ValueError(f"invalid suffix '{suffix}' on an integer constant")
    if not digits:
        raise ValueError(f"'{text}' has no digits")
    if base == 8:
        for digit in digits:
            if digit not in _OCTAL:
                raise ValueError(f"invalid digit '{digit}' in an octal constant")
    value = int(digits, base) if len(digits) < 70 else U64_MAX + 1
    return _checked(value), _SUFFIXES[suffix.lower()], base == 10


def _split(text: str) -> tuple[int, str, str]:
    """Return the base, the digits without a prefix, and what stands behind them."""
    head = text[:2].lower()
    base, at, allowed = 10, 0, "0123456789"
    if head == "0x":
        base, at, allowed = 16, 2, "0123456789abcdefABCDEF"
    elif head == "0b":
        base, at, allowed = 2, 2, "01"
    elif text[0] == "0":
        base = 8
    end = at
    while end < len(text) and text[end] in allowed:
        end += 1
    return base, text[at:end], text[end:]


def _refuse_float(text: str, base: int) -> None:
    marks = ".pP" if base == 16 else ".eE"
    if base != 2 and any(mark in text for mark in marks):
        raise ValueError(f"'{text}' is a floating-point constant, and programs for BPF have no floating-point numbers")


def _checked(value: int) -> int:
    if value > U64_MAX:
        raise ValueError("integer constant is too large: it does not fit 64 bits")
    return value


def parse_character(text: str) -> int:
    """Return the value of a character constant, quotes included: an int, as gcc counts it. Raises ValueError."""
    prefix, body = _unquote(text, "'")
    if not body:
        raise ValueError("empty character constant")
    if prefix in _WIDE:
        return _wide_character(prefix, body)
    data = decode_escapes(body)
    if len(data) == 1:
        return data[0] - 256 if data[0] > 127 else data[0]
    if len(data) > 4:
        raise ValueError("character constant is longer than an int")
    value = int.from_bytes(data, "big")
    return value - (1 << 32) if value >= 1 << 31 else value


def _wide_character(prefix: str, body: str) -> int:
    if body[0] == "\\" and body[1:2] not in _UNICODE_DIGITS:
        data = decode_escapes(body)
        if len(data) == 1:
            return data[0]
    text = decode_escapes(body).decode("utf-8", "replace")
    if len(text) != 1 or (prefix == "u" and ord(text) > 0xFFFF):
        raise ValueError("a wide character constant holds one character")
    return ord(text)


def parse_string(text: str) -> bytes:
    """Return the bytes of one string literal, quotes included in `text`, without a NUL at its end. Raises ValueError."""
    prefix, body = _unquote(text, '"')
    if prefix in _WIDE:
        raise ValueError(f'wide strings ({prefix}"…") are not supported: leave the {prefix} out')
    return decode_escapes(body) if "\\" in body else body.encode("utf-8", "surrogateescape")


def _unquote(text: str, quote: str) -> tuple[str, str]:
    start = text.find(quote)
    if len(text) < start + 2 or text[-1] != quote:
        raise ValueError(f"missing closing {quote}")
    return text[:start], text[start + 1 : -1]


def decode_escapes(body: str) -> bytes:
    """Return the bytes of what stands between quotes. Raises ValueError on an escape that C does not know."""
    out = bytearray()
    at = 0
    while True:
        slash = body.find("\\", at)
        if slash < 0:
            return bytes(out + body[at:].encode("utf-8", "surrogateescape"))
        out += body[at:slash].encode("utf-8", "surrogateescape")
        at = slash + 1
        letter = body[at : at + 1]
        if letter in _SIMPLE_ESCAPES:
            out.append(_SIMPLE_ESCAPES[letter])
            at += 1
        elif letter in _OCTAL:
            at = _octal_escape(body, at, out)
        elif letter == "x":
            at = _hex_escape(body, at, out)
        elif letter in _UNICODE_DIGITS:
            at = _unicode_escape(body, at, out)
        else:
            raise ValueError(f"unknown escape sequence '\\{letter}'")


def _octal_escape(body: str, at: int, out: bytearray) -> int:
    end = at
    while end < at + 3 and body[end : end + 1] in _OCTAL:
        end += 1
    value = int(body[at:end], 8)
    if value > 255:
        raise ValueError(f"octal escape '\\{body[at:end]}' is larger than a byte")
    out.append(value)
    return end


def _hex_escape(body: str, at: int, out: bytearray) -> int:
    end = at + 1
    while body[end : end + 1] in _HEX:
        end += 1
    digits = body[at + 1 : end].lstrip("0")
    if end == at + 1:
        raise ValueError("'\\x' has no hexadecimal digits behind it")
    if len(digits) > 2:
        raise ValueError(f"hex escape '\\{body[at:end]}' is larger than a byte")
    out.append(int(digits or "0", 16))
    return end


def _unicode_escape(body: str, at: int, out: bytearray) -> int:
    count = _UNICODE_DIGITS[body[at]]
    digits = body[at + 1 : at + 1 + count]
    if len(digits) != count or not _HEX.issuperset(digits):
        raise ValueError(f"'\\{body[at]}' needs {count} hexadecimal digits")
    value = int(digits, 16)
    if value > 0x10FFFF or 0xD800 <= value < 0xE000:
        raise ValueError(f"'\\{body[at]}{digits}' is not a character")
    out += chr(value).encode()
    return at + 1 + count

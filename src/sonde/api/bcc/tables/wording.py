"""Keys and leaves as text and back, in BCC's form: 0x2, "name", [ 0x1 0x2 ], { 0x1 { 0x2 0x3 } }."""

from __future__ import annotations

import ctypes as ct

from ..values import PAD

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any


def to_text(value: Any) -> str:
    """Write a ctypes value; numbers in hexadecimal, as unsigned ones."""
    return _write(value, type(value))


def _write(value: Any, kind: Any) -> str:
    """Write a value of class `kind`, which ctypes may have turned into a plain number or bytes."""
    if issubclass(kind, (ct.Structure, ct.Union)):
        fields = [field for field in kind._fields_ if not field[0].startswith(PAD)]
        return "{ " + "".join(_write(getattr(value, field[0]), field[1]) + " " for field in fields) + "}"
    if issubclass(kind, ct.Array):
        if kind._type_ is ct.c_char:
            return '"' + _escape(value if isinstance(value, bytes) else value.value) + '"'
        return "[ " + "".join(_write(item, kind._type_) + " " for item in value) + "]"
    number = value.value if isinstance(value, ct._SimpleCData) else value
    if isinstance(number, bytes):
        number = number[0]
    return f"{int(number or 0) & ((1 << 8 * ct.sizeof(kind)) - 1):#x}"


def _escape(text: bytes) -> str:
    return "".join(chr(c) if 32 <= c < 127 and c not in b'"\\' else f"\\x{c:02x}" for c in text)


def from_text(text: str | bytes, kind: Any) -> Any:
    """Read what `to_text` wrote as a value of class `kind`; numbers may be decimal. Raises ValueError."""
    words = _words(text.decode("latin-1") if isinstance(text, bytes) else text)
    value = _read(words, kind)
    rest = next(words, None)
    if rest is not None:
        raise ValueError(f"{rest!r} is too much for a {kind.__name__}")
    return value


def _words(text: str) -> Iterator[str]:
    at = 0
    while at < len(text):
        if text[at].isspace():
            at += 1
            continue
        end = at + 1
        if text[at] == '"':
            while end < len(text) and text[end] != '"':
                end += 1
            end += 1
        elif text[at] not in "{}[]":
            while end < len(text) and not text[end].isspace() and text[end] not in "{}[]":
                end += 1
        yield text[at:end]
        at = end


def _read(words: Iterator[str], kind: Any) -> Any:
    if issubclass(kind, (ct.Structure, ct.Union)):
        _expect(words, "{")
        value = kind()
        for field in kind._fields_:
            if not field[0].startswith(PAD):
                member = _read(words, field[1])
                plain = isinstance(member, ct._SimpleCData) or (
                    isinstance(member, ct.Array) and member._type_ is ct.c_char
                )
                setattr(value, field[0], member.value if plain else member)
        _expect(words, "}")
        return value
    if issubclass(kind, ct.Array) and kind._type_ is ct.c_char:
        return kind.from_buffer_copy(_unescape(_next(words)).ljust(ct.sizeof(kind), b"\0")[: ct.sizeof(kind)])
    if issubclass(kind, ct.Array):
        _expect(words, "[")
        items = [_read(words, kind._type_) for _ in range(kind._length_)]
        _expect(words, "]")
        return kind(*items)
    word = _next(words)
    number = int(word, 0)
    return kind(bytes([number & 0xFF])) if kind is ct.c_char else kind(number)


def _unescape(word: str) -> bytes:
    if len(word) < 2 or word[0] != '"' or word[-1] != '"':
        raise ValueError(f"{word!r} is no text in quotes")
    parts = word[1:-1].split("\\x")
    return parts[0].encode("latin-1") + b"".join(
        bytes([int(part[:2], 16)]) + part[2:].encode("latin-1") for part in parts[1:]
    )


def _next(words: Iterator[str]) -> str:
    word = next(words, None)
    if word is None:
        raise ValueError("the text ends too early")
    return word


def _expect(words: Iterator[str], wanted: str) -> None:
    word = _next(words)
    if word != wanted:
        raise ValueError(f"{word!r} stands where {wanted!r} is due")

"""Text to tokens, for everything in a bpftrace script but attach points and C definitions.

The grammar needs no tokens outside predicates and blocks, so `scan` works one block at a time: from a given offset to the
brace that closes what it opens. What is wrong with a token becomes a token of the kind "bad", so that the parser reports it
when it gets there, in the order of the text. No `re`: importing it costs more than lexing a script.
"""

from __future__ import annotations

from ..source import Source
from .fault import Fault
from .literals import scan_integer, scan_string

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

SPACE = " \t\n\r\f\v"
DIGITS = frozenset("0123456789")
NAME_START = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_")
NAME = NAME_START | DIGITS
END = "\0"  # stands after the last character, so that no scan has to compare offsets

_LONE = frozenset("(){}[];,:?~")
_PAIRS = frozenset(
    [
        "==",
        "!=",
        "<=",
        ">=",
        "<<",
        ">>",
        "&&",
        "||",
        "++",
        "--",
        "->",
        "..",
        "+=",
        "-=",
        "*=",
        "/=",
        "%=",
        "&=",
        "|=",
        "^=",
    ]
)
_SINGLES = frozenset("+-*/%&|^<>=!.")


class Token:
    """One token. `kind` is "name", "int", "string", "var", "map", "param", "end", "bad", or an operator's own spelling.

    `value` is a name, number, string, parameter number (0 for `$#`), or the Fault of a bad token.
    """

    __slots__ = ("end", "kind", "start", "value")

    def __init__(self, kind: str, value: Any, start: int, end: int) -> None:
        self.kind = kind
        self.value = value
        self.start = start
        self.end = end


class Lexer:
    """Scans one source. Offsets are indices into `source.text`; `text` is the same with END behind it."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.text = source.text + END

    def scan(self, at: int) -> list[Token]:
        """Return the tokens from `at` to the `}` that closes the first block, or to the end of the text."""
        text = self.text
        tokens: list[Token] = []
        add = tokens.append
        depth = 0
        while True:
            c = text[at]
            if c in SPACE:
                at += 1
            elif c in NAME_START:
                start = at
                at += 1
                while text[at] in NAME:
                    at += 1
                add(Token("name", text[start:at], start, at))
            elif c in _LONE:
                add(Token(c, None, at, at + 1))
                at += 1
                if c == "{":
                    depth += 1
                elif c == "}":
                    depth -= 1
                    if depth <= 0:
                        return tokens
            elif c == "/" and text[at + 1] in "/*":
                comment = at
                at = skip_comment(text, at)
                if text[comment + 1] == "*" and text[at - 2 : at] != "*/":
                    add(_bad(Fault("unterminated comment", comment, comment + 2)))
            else:
                token = self._scan_other(c, at)
                add(token)
                at = token.end
                if token.kind == "end":
                    return tokens

    def _scan_other(self, c: str, at: int) -> Token:
        """Scan sigils, literals and operators: what does not begin with a letter or a bracket."""
        text = self.text
        if c == "$" or c == "@":
            return self._scan_sigil(c, at)
        if c in DIGITS:
            return self._literal("int", at)
        if c == '"':
            return self._literal("string", at)
        pair = text[at : at + 2]
        if pair in _PAIRS:
            if text[at + 2] == "=" and (pair == "<<" or pair == ">>"):
                pair += "="
            return Token(pair, None, at, at + len(pair))
        if c in _SINGLES:
            return Token(c, None, at, at + 1)
        if c == END and at == len(text) - 1:
            return Token("end", None, at, at)
        return _bad(Fault(f"unexpected character {c!r}", at, at + 1))

    def _literal(self, kind: str, at: int) -> Token:
        try:
            value, end = scan_integer(self.text, at) if kind == "int" else scan_string(self.text, at)
        except Fault as fault:
            return Token("bad", fault, at, min(fault.end, len(self.text) - 1))
        return Token(kind, value, at, end)

    def _scan_sigil(self, c: str, at: int) -> Token:
        text = self.text
        end = at + 1
        if text[end] in NAME_START:
            while text[end] in NAME:
                end += 1
            return Token("var" if c == "$" else "map", text[at:end], at, end)
        if c == "@":
            return Token("map", "@", at, end)
        if text[end] == "#":
            return Token("param", 0, at, end + 1)
        while text[end] in DIGITS:
            end += 1
        if end == at + 1:
            return _bad(Fault("expected identifier after '$'", at, end))
        number = int(text[at + 1 : end]) if end - at < 21 else 0
        if not 1 <= number < 1 << 63:
            message = f"param {text[at:end]} is out of integer range [1, {(1 << 63) - 1}]"
            return _bad(Fault(message, at, end))
        return Token("param", number, at, end)


def _bad(fault: Fault, start: int = -1) -> Token:
    return Token("bad", fault, fault.start if start < 0 else start, fault.end)


def skip_comment(text: str, at: int) -> int:
    """Return the offset behind the comment that begins at `at`; the end of the text when it is not closed."""
    end = text.find("\n", at) if text[at + 1] == "/" else text.find("*/", at + 2)
    if end < 0:
        return len(text) - 1
    return end + 2 if text[at + 1] == "*" else end


def skip_layout(text: str, at: int) -> int:
    """Return the offset of the next character that is neither white space nor in a comment."""
    while True:
        c = text[at]
        if c in SPACE:
            at += 1
        elif c == "/" and text[at + 1] in "/*":
            at = skip_comment(text, at)
        else:
            return at


def skip_name(text: str, at: int) -> int:
    """Return the offset behind the name that begins at `at` (`at` itself when none does)."""
    if text[at] not in NAME_START:
        return at
    while text[at] in NAME:
        at += 1
    return at

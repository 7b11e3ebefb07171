"""C text to preprocessing tokens: C11's, and GNU's where they differ.

What is wrong with a token becomes a token of the kind "bad", because text that an #if skips may hold anything; whoever meets one in
text that counts raises `bad_token`. No `re`: importing it costs more than lexing a program.
"""

from __future__ import annotations

from ...errors import CompileError
from ..source import Place, Source, diagnose

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...errors import Span

DIGITS = frozenset("0123456789")
NAME_START = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_$")
NAME = NAME_START | DIGITS
PREFIXES = frozenset(["L", "u8", "u", "U"])
_BLANK = frozenset(" \t\f\v\r")
_LONE = frozenset("(){}[];,?~")
_NUMBER = NAME | {"."}
_SIGNED = frozenset("eEpP")  # a sign behind one of these belongs to the number
_TRIPLES = frozenset(["...", "<<=", ">>="])
_PAIRS = frozenset(
    [
        "##",
        "<<",
        ">>",
        "<=",
        ">=",
        "==",
        "!=",
        "&&",
        "||",
        "->",
        "++",
        "--",
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
_SINGLES = frozenset("+-*/%&|^<>=!.:#")
_END = "\0"  # stands after the last character, so that no scan has to compare offsets


class Token:
    """A token. `kind` is "name", "number", "char", "string", "pragma", "bad", "end", or the punctuation itself; `text` is as written.
    A "pragma" says how to unroll the loop behind it: its text is "unroll", "unroll 4", "nounroll", "clang loop unroll(full)" …

    `span.call` is the place of the macro call that made the token, if one did. `space`: white space stands before it; `line_start`:
    it is the first of its line. `hidden`: the name of a macro that was met in its own expansion, and never expands any more.
    """

    __slots__ = ("hidden", "kind", "line_start", "space", "span", "text")

    def __init__(
        self, kind: str, text: str, span: Place, space: bool = False, line_start: bool = False, hidden: bool = False
    ) -> None:
        self.kind = kind
        self.text = text
        self.span = span
        self.space = space
        self.line_start = line_start
        self.hidden = hidden

    def __repr__(self) -> str:
        return f"Token({self.kind!r}, {self.text!r})"


def c_error(span: Span, message: str, hint: str = "") -> CompileError:
    """Make the error that stops the processing of C text."""
    return CompileError([diagnose(span, message, hint=hint)])


def bad_token(token: Token) -> CompileError:
    """Make the error for a token of the kind "bad"."""
    c = token.text.lstrip("Lu8U")[:1]
    if c == '"':
        return c_error(token.span, 'a string without its closing "', "a string ends on the line on which it begins.")
    if c == "'":
        message = (
            "an empty character constant" if token.text.endswith("''") else "a character constant without its closing '"
        )
        return c_error(token.span, message)
    if c == "\0":
        return c_error(token.span, "a NUL byte in the text")
    return c_error(token.span, f"unexpected character {c!r}")


def tokenize(source: Source) -> list[Token]:
    """Return the tokens of a text; the last is of the kind "end". Raises CompileError for a comment that is never closed."""
    if "\\" in source.text and _is_split(source.text):
        return _tokenize_split(source)
    return _scan(source)


def _scan(source: Source) -> list[Token]:
    text = source.text + _END
    tokens: list[Token] = []
    add = tokens.append
    space, first = False, True
    at = 0
    while True:
        c = text[at]
        if c in NAME_START:
            start = at
            at += 1
            while text[at] in NAME:
                at += 1
            name = text[start:at]
            c = text[at]
            if (c == '"' or c == "'") and name in PREFIXES:
                token = _quoted(source, text, start, at, space, first)
                at = token.span.end
                add(token)
            elif c > "\x7f":
                token = _scan_foreign(source, text, start, space, first)
                at = token.span.end
                add(token)
            else:
                add(Token("name", name, Place(source, start, at), space, first))
        elif c in _BLANK:
            at += 1
            space = True
            continue
        elif c == "\n":
            at += 1
            space = first = True
            continue
        elif c in _LONE:
            add(Token(c, c, Place(source, at, at + 1), space, first))
            at += 1
        elif c == "/" and text[at + 1] in "/*":
            at = _skip_comment(source, text, at)
            space = True
            continue
        elif c == "\\" and _continues(text, at):
            at = text.index("\n", at) + 1
            space = True
            continue
        else:
            token = _scan_other(source, text, at, space, first)
            add(token)
            if token.kind == "end":
                return tokens
            at = token.span.end
        space = first = False


def _scan_other(source: Source, text: str, at: int, space: bool, first: bool) -> Token:
    """Scan a number, literal or operator, the end, or what is none of these."""
    c = text[at]
    if c in DIGITS or (c == "." and text[at + 1] in DIGITS):
        end = at + 1
        while text[end] in _NUMBER or (text[end] in "+-" and text[end - 1] in _SIGNED):
            end += 1
        return Token("number", text[at:end], Place(source, at, end), space, first)
    if c == '"' or c == "'":
        return _quoted(source, text, at, at, space, first)
    kind = text[at : at + 2]
    if kind in _PAIRS or kind == "..":
        triple = text[at : at + 3]
        kind = triple if triple in _TRIPLES else c if kind == ".." else kind
    elif c in _SINGLES:
        kind = c
    elif c == _END and at == len(text) - 1:
        return Token("end", "", Place(source, at, at), space, True)
    else:
        return _scan_foreign(source, text, at, space, first)
    return Token(kind, kind, Place(source, at, at + len(kind)), space, first)


def _scan_foreign(source: Source, text: str, at: int, space: bool, first: bool) -> Token:
    """Scan a name with letters beyond ASCII, or a character that no token begins with."""
    end = at
    while text[end] in NAME or (text[end] > "\x7f" and ("_" + text[end]).isidentifier()):
        end += 1
    kind = "name" if end > at and text[at:end].isidentifier() else "bad"
    end = end if kind == "name" else at + 1
    return Token(kind, text[at:end], Place(source, at, end), space, first)


def _quoted(source: Source, text: str, start: int, at: int, space: bool, first: bool) -> Token:
    """Scan a string or character constant whose quote is at `at`, and whose prefix begins at `start`."""
    quote = text[at]
    last = len(text) - 1
    end = at + 1
    c = text[end]
    while c != quote and c != "\n" and end < last:
        end += 2 if c == "\\" else 1
        c = text[end] if end < last else "\n"
    end = min(end, last)
    closed = c == quote and not (quote == "'" and end == at + 1)
    if c == quote:
        end += 1
    kind = "bad" if not closed else "string" if quote == '"' else "char"
    written = text[start:end]
    if "\\" in written:
        written = written.replace("\\\n", "").replace("\\\r\n", "")
    if _END in written:  # no C string can hold it, and the file is probably no text at all
        kind, end = "bad", text.index(_END, start) + 1
        start, written = end - 1, _END
    return Token(kind, written, Place(source, start, end), space, first)


def _skip_comment(source: Source, text: str, at: int) -> int:
    """Return the offset behind the comment that begins at `at`: at the newline, or behind the `*/`."""
    if text[at + 1] == "*":
        end = text.find("*/", at + 2)
        if end < 0:
            raise c_error(Place(source, at, at + 2), "a comment that is never closed")
        return end + 2
    end = text.find("\n", at)
    while end >= 0 and text[end - 1] == "\\":
        end = text.find("\n", end + 1)
    return len(text) - 1 if end < 0 else end


# continued lines --------------------------------------------------------------------------------------------------


def _continues(text: str, at: int) -> bool:
    """Tell whether the backslash at `at` joins its line to the next; GNU allows white space behind it."""
    at += 1
    while text[at] in _BLANK:
        at += 1
    return text[at] == "\n"


def _is_split(text: str) -> bool:
    """Tell whether a continued line may end in the middle of a token: white space stands on neither side of the break."""
    at = text.find("\\\n")
    while at >= 0:
        if text[at - 1 : at].strip() and text[at + 2 : at + 3].strip():
            return True
        at = text.find("\\\n", at + 2)
    return False


def _tokenize_split(source: Source) -> list[Token]:
    """Tokenise the text without its line breaks, and put the places right afterwards."""
    from bisect import bisect_right

    parts = source.text.split("\\\n")
    breaks: list[int] = []  # offsets in the joined text at which two characters are missing
    at = 0
    for part in parts[:-1]:
        at += len(part)
        breaks.append(at)

    def original(place: Place) -> Place:
        start = place.start + 2 * bisect_right(breaks, place.start)
        return Place(source, start, max(start, place.end + 2 * bisect_right(breaks, place.end - 1)))

    try:
        tokens = _scan(Source(source.name, "".join(parts)))
    except CompileError as error:
        diagnostic = error.diagnostics[0]
        assert isinstance(diagnostic.span, Place)
        raise c_error(original(diagnostic.span), diagnostic.message) from None
    for token in tokens:
        token.span = original(token.span)
    return tokens

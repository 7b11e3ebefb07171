"""The lexer of the C front end: kinds, spaces, places, and what is no token."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sonde.errors import CompileError
from sonde.lang.c.tokens import Token, bad_token, tokenize
from sonde.lang.source import Source


def lex(text: str) -> list[Token]:
    return tokenize(Source("t.c", text))


def kinds(text: str) -> list[tuple[str, str]]:
    tokens = lex(text)
    assert tokens[-1].kind == "end"
    return [(t.kind, t.text) for t in tokens[:-1]]


def texts(text: str) -> list[str]:
    return [t.text for t in lex(text)[:-1]]


def test_every_punctuator_is_its_own_kind() -> None:
    every = "... <<= >>= ## << >> <= >= == != && || -> ++ -- += -= *= /= %= &= |= ^="
    every += " + - * / % & | ^ < > = ! . : # ( ) { } [ ] ; , ? ~"
    assert kinds(every) == [(p, p) for p in every.split()]
    assert texts("a+++b") == ["a", "++", "+", "b"]
    assert texts("a>>=b>>c>=d..e") == ["a", ">>=", "b", ">>", "c", ">=", "d", ".", ".", "e"]


def test_names_numbers_strings_characters() -> None:
    assert kinds("_a1 x$y grün") == [("name", "_a1"), ("name", "x$y"), ("name", "grün")]
    assert kinds("0x1fULL .5 1.e+5 1e-3 0b11 1..2 0xE+1 7") == [
        ("number", n) for n in ["0x1fULL", ".5", "1.e+5", "1e-3", "0b11", "1..2", "0xE+1", "7"]
    ]
    assert kinds(r'"a\"b" L"x" u8"y" U"z" u"w" R"v"') == [
        ("string", r'"a\"b"'), ("string", 'L"x"'), ("string", 'u8"y"'), ("string", 'U"z"'), ("string", 'u"w"'),
        ("name", "R"), ("string", '"v"'),
    ]  # fmt: skip
    assert kinds(r"'a' '\'' L'\\' 'ab'") == [("char", r"'a'"), ("char", r"'\''"), ("char", r"L'\\'"), ("char", "'ab'")]


def test_spaces_and_line_starts() -> None:
    tokens = lex("a b/*x\n*/c\n d(e // f\n)")
    assert [(t.text, t.space, t.line_start) for t in tokens[:-1]] == [
        ("a", False, True),
        ("b", True, False),
        ("c", True, False),  # a comment is one space, also over lines
        ("d", True, True),
        ("(", False, False),
        ("e", False, False),
        (")", True, True),
    ]


def test_places() -> None:
    tokens = lex("ab\n  cd")
    assert (tokens[1].span.line, tokens[1].span.column, tokens[1].span.end_column) == (2, 3, 5)
    assert tokens[1].span.text == "cd"
    assert tokens[2].kind == "end" and tokens[2].line_start


def test_continued_lines() -> None:
    tokens = lex("#define A \\\n 1\nx")
    assert [t.text for t in tokens if t.line_start] == ["#", "x", ""]
    tokens = lex("#define A \\  \n 1\nx")
    assert [t.text for t in tokens if t.line_start] == ["#", "x", ""]
    assert texts("// a \\\n b\nc") == ["c"]
    assert texts('"a \\\n b"') == ['"a  b"']


def test_a_token_broken_over_lines_keeps_its_place() -> None:
    tokens = lex("int ma\\\nin = 1\\\n2 >\\\n\\\n> 3; \\\n x")
    assert [t.text for t in tokens[:-1]] == ["int", "main", "=", "12", ">>", "3", ";", "x"]
    assert tokens[1].span.text == "ma\\\nin"
    assert (tokens[1].span.line, tokens[1].span.end_line) == (1, 2)
    assert tokens[4].span.text == ">\\\n\\\n>"
    assert tokens[5].span.text == "3"
    assert tokens[7].span.text == "x"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('x = "abc\n', "without its closing"),
        ("x = 'a\n", "without its closing"),
        ("x = ''", "empty character"),
        ('L"abc', "without its closing"),
        ("a @ b", "unexpected character '@'"),
        ("a \\ b", "unexpected character"),
        ("a\0b", "NUL byte"),
        ('"a\0b"', "NUL byte"),
        ("\udc80", "unexpected character"),
    ],
)
def test_bad_tokens_say_what_is_wrong(text: str, says: str) -> None:
    bad = [t for t in lex(text) if t.kind == "bad"]
    error = bad_token(bad[0])
    assert says in error.message
    assert error.diagnostics[0].span is not None


@pytest.mark.parametrize("text", ["a /* b", "a\\\nb /* c"])
def test_a_comment_must_end(text: str) -> None:
    with pytest.raises(CompileError, match="never closed") as caught:
        lex(text)
    span = caught.value.diagnostics[0].span
    assert span is not None
    assert (span.line, span.column) == (1 + text.count("\n"), text.split("\n")[-1].index("/*") + 1)


PIECES = st.sampled_from(
    [
        "a",
        "x1",
        " ",
        "\n",
        "\\\n",
        "\\",
        '"',
        "'",
        "0",
        "1.5e+",
        "/*",
        "*/",
        "//",
        "#",
        "##",
        "..",
        "...",
        "<<=",
        "\0",
        "L",
        "é",
    ]
)


@given(st.lists(PIECES | st.text(max_size=3), max_size=30).map("".join))
def test_any_text_gives_tokens_in_order_or_an_error(text: str) -> None:
    try:
        tokens = lex(text)
    except CompileError as error:
        assert error.diagnostics[0].span is not None
        return
    assert tokens[-1].kind == "end"
    at = 0
    for token in tokens:
        assert at <= token.span.start <= token.span.end <= len(text)
        at = token.span.end
        if "\\\n" not in text and "\\\r\n" not in text and token.kind != "bad":
            assert token.span.text == token.text

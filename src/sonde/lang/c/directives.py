"""The directives of the preprocessor, one function for each; what they need to know about the line on which they stand."""

from __future__ import annotations

from ..source import Place, diagnose
from .macros import Macro, parse_macro
from .tokens import bad_token, c_error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from .preprocessor import Preprocessor
    from .tokens import Token


class Condition:
    """An open #if: its place, whether one of its groups has been taken, whether its #else has been met."""

    __slots__ = ("has_else", "is_taken", "place")

    def __init__(self, place: Place, is_taken: bool) -> None:
        self.place = place
        self.is_taken = is_taken
        self.has_else = False


def whole_line(sign: Token, line: list[Token]) -> Place:
    """Return the place of a directive: `#`, and the tokens behind it on its line."""
    return Place(sign.span.source, sign.span.start, max(line[-1].span.end, sign.span.end) if line else sign.span.end)


def name_of(sign: Token, line: list[Token]) -> str:
    """Return the name behind #ifdef, #ifndef or #undef. Raises CompileError."""
    if len(line) < 2 or line[1].kind != "name":
        raise c_error(whole_line(sign, line), f"#{line[0].text} needs the name of a macro")
    return line[1].text


def _run_define(pp: Preprocessor, sign: Token, line: list[Token]) -> None:
    macro = parse_macro(line[1:], whole_line(sign, line))
    old = pp.macros.get(macro.name)
    if isinstance(old, Macro) and not old.builtin and not _is_same(old, macro):
        first = diagnose(old.place, "first defined here", severity="NOTE")
        pp.warn(macro.place, f"the macro {macro.name} is defined again, as something else", notes=(first,))
    pp.macros[macro.name] = macro


def _is_same(a: Macro, b: Macro) -> bool:
    def key(macro: Macro) -> object:
        body = [(t.text, t.space and i > 0) for i, t in enumerate(macro.body)]
        return macro.params, macro.variadic, body

    return key(a) == key(b)


def _run_undef(pp: Preprocessor, sign: Token, line: list[Token]) -> None:
    pp.macros.pop(name_of(sign, line), None)


def _run_if(pp: Preprocessor, sign: Token, line: list[Token]) -> None:
    place = whole_line(sign, line)
    if line[0].text == "if":
        holds = pp.test(line[1:], place)
    else:
        holds = pp.is_defined(name_of(sign, line)) == (line[0].text == "ifdef")
    condition = Condition(place, holds)
    pp.file.conditions.append(condition)
    if not holds:
        pp.skip_group(condition)


def _run_branch(pp: Preprocessor, sign: Token, line: list[Token]) -> None:
    """`#elif` or `#else` behind a group that was taken, or `#endif`."""
    word = line[0].text
    if not pp.file.conditions:
        raise c_error(whole_line(sign, line), f"#{word} without its #if")
    if word == "endif":
        pp.file.conditions.pop()
        return
    condition = pp.file.conditions[-1]
    check_branch(condition, sign, word)
    condition.has_else = word == "else"
    pp.skip_group(condition)


def check_branch(condition: Condition, sign: Token, word: str) -> None:
    """Raise CompileError for a branch behind an #else."""
    if condition.has_else:
        note = diagnose(condition.place, "the #if is here", severity="NOTE")
        error = c_error(sign.span, f"#{word} behind the #else of the same #if")
        error.diagnostics = (diagnose(sign.span, error.message, notes=(note,)),)
        raise error


def _run_include(pp: Preprocessor, sign: Token, line: list[Token]) -> None:
    place = whole_line(sign, line)
    name, quoted = header_name(pp, line[1:], place)
    pp.include(name, place, pp.file.directory if quoted else None, once=line[0].text == "import")


def header_name(pp: Preprocessor, tokens: list[Token], place: Place) -> tuple[str, bool]:
    """Return the name of the header that tokens spell, and whether it stands in quotes. Raises CompileError."""
    for attempt in (tokens, None):
        if attempt is None:
            attempt = pp.expand_list(tokens, place)
        first = attempt[0] if attempt else None
        if first is not None and first.kind == "bad":
            raise bad_token(first)
        if first is not None and first.kind == "string" and len(first.text) > 2:
            return first.text[1:].partition('"')[0], True
        if first is not None and first.kind == "<":
            if attempt is tokens:  # as written: `//` in it is no comment
                text = first.span.source.text
                end = text.find("\n", first.span.end)
                name, closed, _ = text[first.span.end : end if end >= 0 else None].partition(">")
            else:
                spelt = "".join(" " * (t.space and i > 1) + t.text for i, t in enumerate(attempt))
                name, closed, _ = spelt[1:].partition(">")
            if closed and name:
                return name.strip(), False
        if not any(t.kind == "name" for t in tokens):
            break
    raise c_error(place, '#include needs "own.h" or <header.h>')


def _run_error(pp: Preprocessor, sign: Token, line: list[Token]) -> None:
    text = _rest(line)
    if line[0].text == "error":
        raise c_error(whole_line(sign, line), f"#error {text}".rstrip())
    pp.warn(whole_line(sign, line), f"#warning {text}".rstrip())


def _rest(line: list[Token]) -> str:
    """What stands behind the directive's name, as written."""
    if len(line) < 2:
        return ""
    source = line[0].span.source
    return source.text[line[1].span.start : line[-1].span.end]


def run_line(pp: Preprocessor, sign: Token, line: list[Token]) -> None:
    """`#line 12 "file"`, and `# 12 "file"`, which a preprocessor leaves behind."""
    expanded = pp.expand_list(line[1:], whole_line(sign, line))
    if not expanded or not expanded[0].text.isdecimal() or len(expanded[0].text) > 10:
        raise c_error(whole_line(sign, line), "#line needs a number, and may name a file")
    pp.file.line_shift = int(expanded[0].text) - sign.span.line - 1
    if len(expanded) > 1 and expanded[1].kind == "string":
        pp.file.name = expanded[1].text[1:-1]


def _run_pragma(pp: Preprocessor, sign: Token, line: list[Token]) -> None:
    pp.run_pragma(line[1:], whole_line(sign, line))


def _run_nothing(pp: Preprocessor, sign: Token, line: list[Token]) -> None:
    """`#ident` and `#sccs` say nothing about the program."""


BRANCHES = frozenset(["elif", "elifdef", "elifndef", "else", "endif"])
DIRECTIVES: dict[str, Callable[[Preprocessor, Token, list[Token]], None]] = {
    "define": _run_define,
    "undef": _run_undef,
    "include": _run_include,
    "include_next": _run_include,
    "import": _run_include,
    "if": _run_if,
    "ifdef": _run_if,
    "ifndef": _run_if,
    "elif": _run_branch,
    "elifdef": _run_branch,
    "elifndef": _run_branch,
    "else": _run_branch,
    "endif": _run_branch,
    "error": _run_error,
    "warning": _run_error,
    "line": run_line,
    "pragma": _run_pragma,
    "ident": _run_nothing,
    "sccs": _run_nothing,
}

"""The comments of a script, in order, for the formatter."""

from __future__ import annotations

from ..source import Place, Source
from . import ast
from .lexer import END, SPACE, skip_comment
from .literals import scan_string
from .rewrite import iter_nodes


class Comment:
    """One comment. `lines` are its lines without `//`, `/*` and the usual stars; `own_line`: nothing stands before it."""

    __slots__ = ("end", "lines", "own_line", "start")

    def __init__(self, start: int, end: int, lines: list[str], own_line: bool) -> None:
        self.start = start
        self.end = end
        self.lines = lines
        self.own_line = own_line


def find_comments(source: Source, program: ast.Program) -> list[Comment]:
    """Return all comments but those in C definitions, which are kept verbatim."""
    from .fault import Fault

    opaque = {}
    for node in (*program.c_definitions, *iter_nodes(program)):
        if isinstance(node, (ast.AttachPoint, ast.CDefinition)) and isinstance(node.span, Place):
            opaque[node.span.start] = node.span.end
    text = source.text + END
    comments: list[Comment] = []
    at = text.find("\n") if text.startswith("#!") else 0
    while 0 <= at < len(text) - 1:
        if at in opaque:
            at = max(opaque[at], at + 1)
        elif text[at] == '"':
            try:
                at = scan_string(text, at)[1]
            except Fault:
                at += 1
        elif text[at] == "/" and text[at + 1] in "/*":
            end = skip_comment(text, at)
            comments.append(_make(text, at, end))
            at = end
        else:
            at += 1
    return comments


def _make(text: str, start: int, end: int) -> Comment:
    before = start
    while before > 0 and text[before - 1] in " \t":
        before -= 1
    own_line = before == 0 or text[before - 1] in SPACE
    if text[start + 1] == "/":
        return Comment(start, end, [_without_space(text[start + 2 : end]).rstrip()], own_line)
    inside = text[start + 2 : end - 2 if text[end - 2 : end] == "*/" else end]
    lines = [_without_space(line) if i == 0 else _without_stars(line) for i, line in enumerate(inside.split("\n"))]
    lines = [line.rstrip() for line in lines]
    if len(lines) > 1 and not lines[0]:
        lines = lines[1:]
    if len(lines) > 1 and not lines[-1]:
        lines = lines[:-1]
    return Comment(start, end, lines, own_line)


def _without_space(text: str) -> str:
    return text[1:] if text.startswith(" ") else text


def _without_stars(line: str) -> str:
    stripped = line.lstrip(" \t")
    rest = stripped.lstrip("*")
    return _without_space(rest) if rest != stripped else stripped

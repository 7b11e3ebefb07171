"""Lines of formatted text, and the comments and blank lines that are carried over into them."""

from __future__ import annotations

from ..source import Place, Source
from . import ast
from .comments import Comment, find_comments
from .rewrite import iter_nodes


class LineWriter:
    """Writes lines. `last` is the offset in the source up to which everything is written."""

    def __init__(self, source: Source, program: ast.Program) -> None:
        self.source = source
        self.text = source.text
        self.program = program
        self.comments = find_comments(source, program)
        self.next_comment = 0
        self.lines: list[str] = []
        self.indent = 0
        self.last = 0

    def write(self, text: str) -> None:
        """Write text that may have several lines; all but the first are indented already."""
        self.lines.append(" " * self.indent + text if text else "")

    def blank_lines(self, start: int) -> None:
        """Keep the blank lines of the source before `start`, but none at the top."""
        if self.lines:
            newlines = self.text.count("\n", self.last, start)
            self.lines += [""] * (newlines - 1)

    def flush_comments(self, end: int) -> None:
        """Write the comments that begin before `end`, each on lines of its own."""
        while self.next_comment < len(self.comments) and self.comments[self.next_comment].start < end:
            comment = self.comments[self.next_comment]
            self.next_comment += 1
            self.blank_lines(comment.start)
            self._write_comment(comment)
            self.last = max(self.last, comment.end)

    def _write_comment(self, comment: Comment) -> None:
        for line in comment.lines:
            self.write(f"// {line}".rstrip())

    def finish(self, end: int) -> None:
        """Everything up to `end` is written; a comment behind it in the same line stays there."""
        self.last = max(self.last, end)
        if self.next_comment < len(self.comments):
            comment = self.comments[self.next_comment]
            between = self.text[self.last : comment.start]
            if comment.start >= self.last and not between.strip(" \t;,") and len(comment.lines) == 1:
                self.lines[-1] += f" // {comment.lines[0]}".rstrip()
                self.next_comment += 1
                self.last = comment.end

    def begin(self, node: ast.Node) -> None:
        """Write what stands before a node: blank lines, comments."""
        start, end = range_of(node)
        self.flush_comments(start)
        self.blank_lines(start)
        if is_plain(node):
            self.flush_comments(end)  # comments inside expressions go above them
        self.last = max(self.last, start)

    def has_comment(self, end: int) -> bool:
        """Tell whether a comment that begins before `end` is still to be written."""
        return self.next_comment < len(self.comments) and self.comments[self.next_comment].start < end


def range_of(node: ast.Node) -> tuple[int, int]:
    """Return where in the source a node begins and ends."""
    span = node.span
    assert isinstance(span, Place)
    return span.start, span.end


def source_text(node: ast.Node) -> str:
    """Return a node as it was written."""
    span = node.span
    assert isinstance(span, Place)
    return span.text


def is_plain(node: ast.Node) -> bool:
    """Tell whether a node is a statement or expression without any block in it."""
    return isinstance(node, (ast.ExprStatement, ast.Assign, ast.Let, ast.Jump, ast.Expr)) and not has_block(node)


def has_block(node: ast.Node) -> bool:
    """Tell whether a node holds an `if` or a block."""
    return any(isinstance(n, (ast.IfExpr, ast.BlockExpr)) for n in iter_nodes(node))

"""C headers that scripts include: files found beside the script and in the directories of -I, as lines that the preprocessor can run.

Of a header only what scripts can use counts: types, enumerations, macros. Functions and variables are passed over by the parser (see `cdefs`).
"""

from __future__ import annotations

from ..source import Place, Source
from . import ast
from .cpreproc import c_error
from .lexer import skip_comment

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ...errors import Span

MAX_BYTES = 1 << 24
MAX_NESTING = 64
MAX_FILES = 2000


class Headers:
    """Finds and reads headers. `directories` are those of -I, in order."""

    def __init__(self, directories: Sequence[str] = ()) -> None:
        self.directories = tuple(directories)
        self.depth = 0
        self.count = 0
        self.sources: set[Source] = set()  # what was read

    def find(self, path: str, quoted: bool, span: Span) -> str:
        """Return the file that a name stands for, "" when there is none. Quoted names are looked for beside the file that asks, too."""
        import os

        beside = [os.path.dirname(span.file) or "."] if quoted else []
        for directory in (*beside, *self.directories):
            found = os.path.join(directory, path)
            if os.path.isfile(found):
                return found
        return ""

    def lines(self, path: str, span: Span) -> Iterator[ast.CDefinition]:
        """Yield a file's directives and what stands between them, comments taken out. Raises CompileError."""
        self.count += 1
        if self.depth > MAX_NESTING or self.count > MAX_FILES:
            raise c_error(span, f"#include {path}: headers include each other without end")
        source = Source(path, _read(path, span))
        self.sources.add(source)
        text = _without_comments(source.text)
        start = at = 0
        while at < len(text):
            end = _logical_end(text, at)
            line = text[at:end]
            if line.lstrip().startswith("#"):
                if text[start:at].strip():
                    yield ast.CDefinition(source.span(start, at), text[start:at])
                indent = len(line) - len(line.lstrip())
                yield ast.CDefinition(source.span(at + indent, end), line.strip())
                start = end
            at = end
        if text[start:].strip():
            yield ast.CDefinition(source.span(start, len(text)), text[start:])


def _read(path: str, span: Span) -> str:
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise c_error(span, f"#include {path}: cannot be read: {error.strerror}") from None
    if len(data) > MAX_BYTES:
        raise c_error(span, f"#include {path}: a header of more than {MAX_BYTES >> 20} MiB")
    return data.decode("utf-8", "surrogateescape").replace("\r\n", "\n")


def _logical_end(text: str, at: int) -> int:
    """Where a line ends that may go on behind a backslash."""
    while True:
        end = text.find("\n", at)
        if end < 0:
            return len(text)
        if text[end - 1 : end] != "\\":
            return end + 1
        at = end + 1


def _without_comments(text: str) -> str:
    """The text with blanks in place of its comments, so that places stay as they are."""
    pieces: list[str] = []
    text += "\0"
    start = at = 0
    while at < len(text) - 1:
        c = text[at]
        if c in "\"'":
            at += 1
            while text[at] not in (c, "\n", "\0"):
                at += 2 if text[at] == "\\" and text[at + 1] != "\0" else 1
            at += text[at] == c
        elif c == "/" and text[at + 1] in "/*":
            end = min(skip_comment(text, at), len(text) - 1)
            pieces += [text[start:at], "".join("\n" if each == "\n" else " " for each in text[at:end])]
            start = at = end
        else:
            at += 1
    return "".join(pieces) + text[start:-1]


def included_first(names: Sequence[str]) -> tuple[ast.CDefinition, ...]:
    """The directives for headers that the command line wants before the script (--include)."""
    made = []
    for name in names:
        source = Source("command line", f'#include "{name}"')
        made.append(ast.CDefinition(Place(source, 0, len(source.text)), source.text))
    return tuple(made)

"""Imports: other scripts become part of the program, each once.

`import "x.bt";` and `import "directory";` at the top of a script are relative to the script. What others could have
written is refused. The standard library needs no import here, so importing it does nothing.
"""

from __future__ import annotations

from ...errors import CompileError
from ...record import replace
from ..source import Place, Source, diagnose
from . import ast
from .rewrite import rewrite_children

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ...errors import Span

_C_SUFFIXES = (".c", ".h", ".o")
MAX_FILES = 500


def resolve_imports(program: ast.Program, *, local_imports: bool = False) -> ast.Program:
    """Read all imported scripts and put them before the program. Raises CompileError.

    `local_imports`: the config variable unstable_import_statement allows imports inside blocks.
    """
    if "import" in program.words:
        program = _drop_local_imports(program, local_imports)
    if not program.imports:
        return program
    loader = _Loader()
    loader.add_imports(program)
    return loader.merge(program)


class _Loader:
    """Collects imported programs, in the order in which they take effect."""

    def __init__(self) -> None:
        self.programs: list[ast.Program] = []
        self.seen: set[tuple[int, int]] = set()

    def add_imports(self, program: ast.Program) -> None:
        """Load what `program` imports, what that imports first."""
        for item in program.imports:
            self._add_import(item, _directory_of(item.span))

    def merge(self, program: ast.Program) -> ast.Program:
        """Put everything that was loaded before the program's own items."""
        parts = [*self.programs, program]
        joined: dict[str, Any] = {}
        for field in ("c_definitions", "map_decls", "macros", "subprograms", "probes", "warnings"):
            joined[field] = tuple(item for part in parts for item in getattr(part, field))
        words = frozenset(word for part in parts for word in part.words)
        return replace(program, imports=(), words=words, **joined)

    def _add_import(self, item: ast.Import, directory: str) -> None:
        import os

        path = item.path
        if path == "stdlib" or path.startswith("stdlib/"):
            return
        if path.endswith(_C_SUFFIXES):
            hint = "write the C definitions that the script needs into the script itself."
            raise _error(item.span, "imports of C files are not supported yet", hint=hint)
        path = os.path.join(directory, path)
        if os.path.isdir(path):
            self._check_writable(item.span, path)
            names = sorted(n for n in os.listdir(path) if n.endswith(".bt"))
            for name in names:
                self._add_file(item.span, os.path.join(path, name))
        elif path.endswith(".bt") and os.path.isfile(path):
            self._add_file(item.span, path)
        else:
            hint = f"looked for {path}; a script's name ends in .bt, and paths are relative to the importing script."
            raise _error(item.span, "Unable to find suitable path for import", hint=hint)

    def _add_file(self, span: Span, path: str) -> None:
        import os

        from .parser import parse

        try:
            with open(path, encoding="utf-8", errors="surrogateescape") as file:
                status = os.fstat(file.fileno())
                self._check_writable(span, path)
                if (status.st_dev, status.st_ino) in self.seen:
                    return
                self.seen.add((status.st_dev, status.st_ino))
                text = file.read()
        except OSError as error:
            raise _error(span, f"cannot read {path}: {error.strerror}") from None
        if len(self.seen) > MAX_FILES:
            raise _error(span, f"more than {MAX_FILES} imported files")
        program = parse(Source(path, text))
        if program.config:
            raise _error(
                program.config[0].span, "invalid `config` within import", hint="only the main script may have one."
            )
        if "import" in program.words:
            program = _drop_local_imports(program, False)
        self.add_imports(program)
        self.programs.append(program)

    def _check_writable(self, span: Span, path: str) -> None:
        import os

        if os.stat(path).st_mode & 0o002:
            hint = f"anybody could change what you trace: `chmod o-w {path}`."
            raise _error(span, f"refused to import {path}: everybody may write to it", hint=hint)


def _directory_of(span: Span) -> str:
    import os

    return os.path.dirname(span.source.name if isinstance(span, Place) else span.file)


def _drop_local_imports(program: ast.Program, allowed: bool) -> ast.Program:
    """Check the imports inside blocks, and take them out. Raises CompileError."""

    def change(node: ast.Node) -> ast.Node | None:
        if not isinstance(node, ast.LocalImport):
            return None
        if not allowed:
            hint = "import at the top of the script; the standard library needs no import at all."
            raise _error(node.span, "import statements inside blocks are an unstable feature", hint=hint)
        if not node.path.startswith("stdlib/"):
            raise _error(node.span, "import statements inside blocks are limited to the standard library")
        return ast.ExprStatement(node.span, ast.BlockExpr(node.span, ()))

    return rewrite_children(program, change)


def _error(span: Span, message: str, *, hint: str = "") -> CompileError:
    return CompileError([diagnose(span, message, hint=hint)])

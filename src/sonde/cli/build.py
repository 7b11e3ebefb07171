"""`sonde build`: compile a script, or C in libbpf's style, to an ELF object that sonde, libbpf and bpftool load."""

from __future__ import annotations

import os
import sys

from ..errors import OutputError, UsageError
from .options import HELP, Option, format_help, parse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

OPTIONS = (
    Option("output", ("-o", "--output"), "write the object to FILE", "FILE"),
    Option("program", ("-e",), "the text of the script", "PROGRAM"),
    Option("unsafe", ("--unsafe",), "allow functions that change the system"),
    Option("include_dir", ("-I",), "search headers and imports in DIR", "DIR"),
    HELP,
)
USAGE = "sonde build [option...] -o FILE.o -e PROGRAM | SCRIPT | FILE.bpf.c"


def main(words: Sequence[str]) -> int:
    """Run the subcommand; returns 0 once the object is written."""
    arguments = parse(OPTIONS, words)
    if arguments.have("help"):
        sys.stdout.write(format_help(USAGE, OPTIONS))
        return 0
    path = arguments.get("output")
    if not path:
        raise UsageError("where to? give -o FILE.o", hint=f"usage: {USAGE}")
    from ..api.build import build
    from .script import find_source, trace_options

    source, parameters = find_source(arguments)
    data = build(source, trace_options(arguments, parameters), warn=lambda text: print(text, file=sys.stderr))
    _write(path, data)
    return 0


def _write(path: str, data: bytes) -> None:
    """Write the file as a whole or not at all."""
    partial = f"{path}.{os.getpid()}.part"
    try:
        with open(partial, "wb") as file:
            file.write(data)
        os.replace(partial, path)
    except OSError as error:
        try:
            os.unlink(partial)
        except OSError:
            pass
        raise OutputError(f"cannot write {path}: {error.strerror}") from None

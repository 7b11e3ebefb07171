"""`sonde build`: scripts and C to ELF objects that sonde, libbpf and bpftool load; objects linked to one; the types that an object needs of a kernel."""

from __future__ import annotations

import os
import sys

from ..errors import OutputError, UsageError
from .options import HELP, Option, format_help, parse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from .options import Arguments

OPTIONS = (
    Option("output", ("-o", "--output"), "write the object to FILE", "FILE"),
    Option("program", ("-e",), "the text of the script", "PROGRAM"),
    Option("unsafe", ("--unsafe",), "allow functions that change the system"),
    Option("include_dir", ("-I",), "search C headers in DIR; may be repeated", "DIR", many=True),
    Option("include", ("--include",), "include the C header FILE before the program", "FILE", many=True),
    Option(
        "min_btf", ("--min-btf",), "write the part of a kernel's types (BTF) that objects need, for load --btf", "BTF"
    ),
    HELP,
)
USAGE = """sonde build [option...] -o FILE.o -e PROGRAM | SCRIPT | FILE.bpf.c
       sonde build [option...] -o FILE.o FILE.o|FILE.bpf.c...       link several to one
       sonde build -o FILE.o TOOL.py [-- argument...]               what a BCC tool loads and attaches
       sonde build --min-btf BTF -o FILE.btf FILE.o..."""


def main(words: Sequence[str]) -> int:
    """Run the subcommand; returns 0 once the object is written."""
    arguments = parse(OPTIONS, words)
    if arguments.have("help"):
        sys.stdout.write(format_help(USAGE, OPTIONS))
        return 0
    path = arguments.get("output")
    if not path:
        raise UsageError("where to? give -o FILE.o", hint=f"usage: {USAGE}")
    _write(path, _make(arguments))
    return 0


def _make(arguments: Arguments) -> bytes:
    from ..api.linking import cut_types, is_linking, link, open_types

    words = arguments.positionals
    if arguments.get("min_btf"):
        if not words:
            raise UsageError("the types of which objects? name them", hint=f"usage: {USAGE}")
        return cut_types(open_types(arguments.get("min_btf")), words)
    from .script import find_source, trace_options

    if "program" not in arguments.options and is_linking(words):
        return link(words, trace_options(arguments, ()), warn=_warn)
    from ..api.build import build, build_tool

    if "program" not in arguments.options and words and _is_tool(words[0]):
        return build_tool(words[0], (*words[1:], *arguments.rest), warn=_warn)
    source, parameters = find_source(arguments)
    return build(source, trace_options(arguments, parameters), warn=_warn)


def _is_tool(path: str) -> bool:
    from ..api.bcc.recording import is_tool

    return not path.endswith((".bt", ".c")) and is_tool(path)


def _warn(text: str) -> None:
    print(text, file=sys.stderr)


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

"""`sonde dump`: show what an ELF object holds: maps, externs, programs with their source lines, types as C; or types alone, as a header."""

from __future__ import annotations

import sys

from ..errors import UsageError
from .options import HELP, Option, format_help, parse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

OPTIONS = (
    Option("types", ("--types",), "show the C definitions of all types as well"),
    Option(
        "header",
        ("--header",),
        "write the types only, as a C header: of an object, or of BTF (/sys/kernel/btf/vmlinux)",
    ),
    HELP,
)
USAGE = "sonde dump [option...] FILE.o|BTF"


def main(words: Sequence[str]) -> int:
    """Run the subcommand; returns the exit status."""
    arguments = parse(OPTIONS, words)
    if arguments.have("help"):
        sys.stdout.write(format_help(USAGE, OPTIONS))
        return 0
    if len(arguments.positionals) != 1:
        raise UsageError("dump takes one object file", hint=f"usage: {USAGE}")
    from ..api.linking import is_btf

    if arguments.have("header") or is_btf(arguments.positionals[0]):
        from ..api.linking import open_types
        from ..api.objectdump import dump_types

        for line in dump_types(open_types(arguments.positionals[0])):
            print(line)
        return 0
    from ..api.objectdump import dump_object
    from ..api.objects import open_object

    for line in dump_object(open_object(arguments.positionals[0]), types=bool(arguments.have("types"))):
        print(line)
    return 0

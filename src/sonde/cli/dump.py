"""`sonde dump`: show what an ELF object holds: maps, externs, programs with their source lines, types as C."""

from __future__ import annotations

import sys

from ..errors import UsageError
from .options import HELP, Option, format_help, parse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

OPTIONS = (Option("types", ("--types",), "show the C definitions of all types as well"), HELP)
USAGE = "sonde dump [option...] FILE.o"


def main(words: Sequence[str]) -> int:
    """Run the subcommand; returns the exit status."""
    arguments = parse(OPTIONS, words)
    if arguments.have("help"):
        sys.stdout.write(format_help(USAGE, OPTIONS))
        return 0
    if len(arguments.positionals) != 1:
        raise UsageError("dump takes one object file", hint=f"usage: {USAGE}")
    from ..api.objectdump import dump_object
    from ..api.objects import open_object

    for line in dump_object(open_object(arguments.positionals[0]), types=bool(arguments.have("types"))):
        print(line)
    return 0

"""`sonde list`: the probes that match patterns, with their arguments under -v."""

from __future__ import annotations

import sys

from .options import HELP, Option, format_help, parse
from .script import TRACEABLE, find_traceable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

OPTIONS = (
    Option("verbose", ("-v", "--verbose"), "show the arguments of each probe"),
    Option("pid", ("-p", "--pid"), "list the user probes of this process", "PID"),
    TRACEABLE,
    HELP,
)
USAGE = "sonde list [option...] [PATTERN...]"


def main(words: Sequence[str]) -> int:
    """Run the subcommand; returns the exit status."""
    arguments = parse(OPTIONS, words)
    if arguments.have("help"):
        sys.stdout.write(format_help(USAGE, OPTIONS))
        return 0
    pid = int(arguments.get("pid") or 0)
    return list_probes(
        arguments.positionals, verbose=bool(arguments.have("verbose")), pid=pid, traceable=find_traceable(arguments)
    )


def list_probes(patterns: Sequence[str], *, verbose: bool, pid: int, traceable: str = "") -> int:
    """Print what matches; 1 when a pattern was given and nothing did."""
    from ..api.listing import list_probes as matching

    write = sys.stdout.write
    count = 0
    for pattern in patterns or ("",):
        for line in matching(pattern, verbose=verbose, pid=pid, traceable=traceable):
            write(line + "\n")
            count += 1
    return 0 if count or not patterns else 1

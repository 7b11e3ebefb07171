"""`sonde trace`: run a bpftrace script, or explain how it would be compiled."""

from __future__ import annotations

import sys

from .options import HELP, Option, format_help, parse
from .script import SCRIPT_OPTIONS, run_script

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

OPTIONS = (
    *SCRIPT_OPTIONS,
    Option(
        "engine", ("--engine",), "run it in the kernel, in the process of -p or -c (user), or in both (mixed)", "ENGINE"
    ),
    Option("budget", ("--budget",), "look at N hits of a probe in a second at most (100k, 2M); user engine", "N"),
    Option("over_budget", ("--over-budget",), "what becomes of a probe that fires more often: thin or off", "WHAT"),
    Option("traps", ("--traps",), "put breakpoints where no jump fits, 2 us a hit, by a SIGTRAP handler; user engine"),
    Option(
        "fast_reads",
        ("--fast-reads",),
        "read memory without asking the kernel, 100 ns faster, by a SIGSEGV handler; user engine",
    ),
    Option("on_exec", ("--on-exec",), "when the process runs another program: follow it, or drop; user engine", "WHAT"),
    Option(
        "unwind", ("--unwind",), "walk user stacks by frame pointers (fp) or unwind tables (dwarf); user engine", "HOW"
    ),
    Option("explain", ("--explain",), "print syntax tree, types, IR, bytecode and attach plan; run nothing"),
    HELP,
)
USAGE = "sonde trace [option...] -e 'PROGRAM' | FILE | - [PARAMETER...] [-- --NAME=VALUE...]"


def main(words: Sequence[str]) -> int:
    """Run the subcommand; returns the exit status."""
    arguments = parse(OPTIONS, words)
    if arguments.have("help"):
        sys.stdout.write(format_help(USAGE, OPTIONS))
        return 0
    return run_script(arguments, any_engine=True)

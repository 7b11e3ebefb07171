"""`sonde clean`: take out of processes what a sonde that was killed has left in them."""

from __future__ import annotations

import sys

from .options import HELP, Option, format_help, parse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

OPTIONS = (
    Option("pid", ("-p", "--pid"), "look into this process only", "PID"),
    Option("living", ("--living",), "take out the probes of sondes that run, too"),
    HELP,
)
USAGE = "sonde clean [-p PID]"


def main(words: Sequence[str]) -> int:
    """Run the subcommand; returns 1 when something had to be left where it is."""
    arguments = parse(OPTIONS, words)
    if arguments.have("help"):
        sys.stdout.write(format_help(USAGE, OPTIONS))
        return 0
    from ..api.clean import clean
    from .script import read_pid

    status = 0
    for left in clean(read_pid(arguments.get("pid")), living=bool(arguments.have("living"))):
        print(
            f"process {left.pid}: {left.probes} places in its code put back"
            + (f"; {left.failure}" if left.failure else "")
        )
        status = status or bool(left.failure)
    return int(status)

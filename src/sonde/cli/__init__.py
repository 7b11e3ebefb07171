"""The command line: one file for each subcommand, no logic."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn


def main() -> int:
    """Run the command line of this process; started under the name `bpftrace`, take bpftrace's own options."""
    import sys

    from .main import run

    return run(sys.argv[0], sys.argv[1:])


def start() -> NoReturn:
    """Entry point of the `sonde` command: main(), in a process that has no other purpose."""
    import gc
    import os
    import sys

    # Start-up makes 50,000 objects that stay: looking for garbage among them costs 3 ms of 45, and there is none.
    gc.set_threshold(100_000)
    is_tool = sys.argv[1:2] == ["bcc"]
    status = main()
    if is_tool:  # it may have left something to be done at exit
        sys.exit(status)
    # All files are closed. Taking the interpreter apart would cost 4 ms more.
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(status)

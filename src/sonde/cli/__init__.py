"""The command line: one file for each subcommand, no logic."""

from __future__ import annotations


def main() -> int:
    """Entry point of the `sonde` command; started under the name `bpftrace` it takes bpftrace's own options."""
    import sys

    from .main import run

    return run(sys.argv[0], sys.argv[1:])

"""`sonde features`: what this kernel can do for tracing, found by trying."""

from __future__ import annotations

import sys

from .options import HELP, Option, format_help, parse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

OPTIONS = (Option("format", ("-f",), "text or json", "FORMAT"), HELP)
USAGE = "sonde features [option...]"


def main(words: Sequence[str]) -> int:
    """Run the subcommand; returns the exit status."""
    arguments = parse(OPTIONS, words)
    if arguments.have("help"):
        sys.stdout.write(format_help(USAGE, OPTIONS))
        return 0
    from ..api.features import iter_features

    rows = list(iter_features())
    if arguments.get("format") == "json":
        import json

        print(json.dumps({name: have for name, have, _ in rows}))
        return 0
    width = max(len(name) for name, _, _ in rows)
    for name, have, note in rows:
        print(f"{name:<{width}}  {'yes' if have else 'no':<3}  {note}".rstrip())
    return 0

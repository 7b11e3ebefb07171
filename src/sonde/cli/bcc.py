"""`sonde bcc`: run a tool that was written for BCC, unmodified."""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

USAGE = """usage: sonde bcc [--verbose] TOOL [argument...]
       sonde bcc --path

Run a script that begins with `from bcc import BPF`, without BCC, LLVM or kernel headers.
TOOL is the path of a script, or the name of an installed tool (opensnoop, opensnoop-bpfcc).

  --path         print the directory that makes `import bcc` find sonde: PYTHONPATH=$(sonde bcc --path) ./script.py
  -v, --verbose  say how each probe was attached, and what was refused before
  -h, --help     show this help
"""


def main(words: Sequence[str]) -> int:
    """Run the subcommand; returns the exit status."""
    from ..errors import UsageError

    rest = list(words)
    if rest[:1] in (["-v"], ["--verbose"]):
        import os

        os.environ["SONDE_BCC_VERBOSE"] = "1"
        del rest[0]
    if rest[:1] in (["-h"], ["--help"]):
        sys.stdout.write(USAGE)
        return 0
    if rest == ["--path"]:
        from ..api.bcc import shim_path

        print(shim_path())
        return 0
    if not rest or rest[0].startswith("-"):
        raise UsageError(
            f"sonde bcc takes no option {rest[0]}" if rest else "sonde bcc needs a tool", hint="see sonde bcc --help"
        )
    from ..api.bcc.tool import find_tool, run_tool

    return run_tool(find_tool(rest[0]), rest[1:])

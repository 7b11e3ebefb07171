"""`sonde bcc`: run a tool that was written for BCC, unmodified."""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

USAGE = """usage: sonde bcc [-v] [--engine kernel|user] [--unsafe] [--unwind fp|dwarf] [-p PID] TOOL [argument...]
       sonde bcc --path

Run a script that begins with `from bcc import BPF`, without BCC, LLVM or kernel headers.
TOOL is the path of a script, or the name of an installed tool (opensnoop, opensnoop-bpfcc).

  --path         print the directory that makes `import bcc` find sonde: PYTHONPATH=$(sonde bcc --path) ./script.py
  --engine NAME  run its programs in the kernel, or inside a process without privileges (user: probes of user space and
                 system calls); kernel where this user may, unless you say so
  -p, --pid PID  the process, where neither the tool's own -p nor its probes say which
  --unsafe       in a process: let programs write to its memory and replace its functions
  --unwind HOW   in a process: walk user stacks by frame pointers (fp), or by unwind tables (dwarf)
  -v, --verbose  say how each probe was attached, and what was refused before
  -h, --help     show this help
"""


def main(words: Sequence[str]) -> int:
    """Run the subcommand; returns the exit status."""
    from ..errors import UsageError

    rest = _take_options(words)
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


_VARIABLES = {"-p": "SONDE_PID", "--pid": "SONDE_PID", "--engine": "SONDE_ENGINE", "--unwind": "SONDE_UNWIND"}


def _take_options(words: Sequence[str]) -> list[str]:
    """Put the options before the tool into the environment, which its children have too; return what follows them."""
    import os

    from ..errors import UsageError

    rest = list(words)
    while rest:
        name, equals, value = rest[0].partition("=")
        if name in ("-v", "--verbose"):
            os.environ["SONDE_BCC_VERBOSE"] = "1"
            del rest[0]
        elif name == "--unsafe":
            os.environ["SONDE_UNSAFE"] = "1"
            del rest[0]
        elif name in _VARIABLES:
            if not equals and len(rest) < 2:
                raise UsageError(f"sonde bcc: {name} needs a value", hint="see sonde bcc --help")
            os.environ[_VARIABLES[name]] = value if equals else rest[1]
            del rest[: 1 if equals else 2]
        else:
            break
    return rest

"""`sonde load`: load an ELF object into the running kernel, attach its programs where their sections say, pin it on request."""

from __future__ import annotations

import sys

from ..errors import UsageError
from .options import HELP, Option, format_help, parse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

OPTIONS = (
    Option("pin", ("--pin",), "pin programs, maps and links below DIR of the BPF file system, and leave", "DIR"),
    Option("btf", ("--btf",), "the kernel's types are those in FILE, as build --min-btf writes it", "FILE"),
    Option("no_attach", ("--no-attach",), "load only"),
    Option("dry_run", ("--dry-run",), "load and attach, then leave at once"),
    HELP,
)
USAGE = "sonde load [option...] FILE.o"


def main(words: Sequence[str]) -> int:
    """Run the subcommand; returns 0 once the object is pinned, or was attached until a signal came."""
    arguments = parse(OPTIONS, words)
    if arguments.have("help"):
        sys.stdout.write(format_help(USAGE, OPTIONS))
        return 0
    if len(arguments.positionals) != 1:
        raise UsageError("load takes one object file", hint=f"usage: {USAGE}")
    from ..api.objects import describe_loaded, load_object, read_object

    attach = not arguments.have("no_attach")
    pin = arguments.get("pin")
    spec = read_object(arguments.positionals[0], find_places=attach)
    for warning in spec.warnings:
        print(warning.render(), file=sys.stderr)
    types = None
    if arguments.get("btf"):
        from ..api.linking import open_types

        types = open_types(arguments.get("btf"))
    loaded = load_object(spec, attach=attach, pin=pin, types=types)
    with loaded.object:
        for line in describe_loaded(loaded):
            print(line, flush=True)
        if attach and not pin and not arguments.have("dry_run"):
            _wait()
    return 0


def _wait() -> None:
    """Wait for SIGINT or SIGTERM, at which the programs are detached in order."""
    import signal

    signals = {signal.SIGINT, signal.SIGTERM}
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    print("attached; Ctrl-C detaches", file=sys.stderr)
    signal.sigwait(signals)

"""bpftrace's own command line: `sonde bpftrace …`, or sonde started through a link that is called bpftrace."""

from __future__ import annotations

import os
import sys

from ..errors import FeatureError, UsageError
from .options import HELP, Option, format_help, parse
from .script import SCRIPT_OPTIONS, find_source, find_traceable, run_script, trace_options

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from .options import Arguments

OPTIONS = (
    *SCRIPT_OPTIONS,
    Option("list", ("-l", "--list"), "list probes that match the pattern or script"),
    Option("info", ("--info",), "show what this kernel can do"),
    Option("fmt", ("--fmt",), "format the script"),
    Option("mode", ("--mode",), "only 'format' and 'codegen' are known here", "MODE"),
    Option("debug", ("-d", "--debug"), "print a stage: ast, types, codegen, dis, all", "STAGE"),
    Option("version", ("-V", "--version"), "print the version"),
    Option("btf", ("-b", "--btf"), "ignored", hidden=True),
    Option("usdt_activation", ("--usdt-file-activation",), "accepted; semaphores are always activated", hidden=True),
    Option("emit_elf", ("--emit-elf",), "", "FILE", hidden=True),
    Option("emit_llvm", ("--emit-llvm",), "", "FILE", hidden=True),
    Option("verify_llvm", ("--verify-llvm-ir",), "", hidden=True),
    Option("aot", ("--aot",), "", "FILE", hidden=True),
    Option("test", ("--test",), "", hidden=True),
    Option("bench", ("--bench",), "", hidden=True),
    Option("debuginfo", ("--debuginfo",), "", "DIR", hidden=True),
    Option("dwarf_pid", ("--dwarf-pid",), "", "PID", hidden=True),
    HELP,
)
USAGE = "bpftrace [option...] FILE | -e 'PROGRAM' | - [PARAMETER...] [-- --NAME=VALUE...]"

# The newest bpftrace whose language and output are followed; what `--version` says to scripts that ask.
FOLLOWED_VERSION = "v0.27.1"

NOT_HERE = {
    "emit_elf": "writing object files",
    "emit_llvm": "LLVM text (there is no LLVM inside)",
    "verify_llvm": "LLVM text (there is no LLVM inside)",
    "aot": "ahead-of-time programs",
    "test": "test probes",
    "bench": "bench probes",
    "debuginfo": "DWARF debug information",
    "dwarf_pid": "DWARF stack unwinding",
}

MODES = ("codegen", "format")

STAGES = {"ast": "syntax tree", "types": "types", "codegen": "IR", "codegen-opt": "optimised IR", "dis": "bytecode"}


def main(words: Sequence[str]) -> int:
    """Run bpftrace's command line; returns the exit status."""
    set_comm("bpftrace")
    arguments = parse(OPTIONS, words)
    if arguments.have("help"):
        sys.stdout.write(format_help(USAGE, OPTIONS))
        return 0
    if arguments.have("version"):
        sys.stdout.write(f"bpftrace {FOLLOWED_VERSION}\n")
        return 0
    for key, what in NOT_HERE.items():
        if arguments.have(key) or arguments.get(key):
            raise FeatureError(f"{what}: not supported yet")
    if arguments.have("info"):
        from .features import main as features

        return features([])
    if arguments.have("list"):
        return _list(arguments.positionals, arguments.get("program"), arguments)
    if arguments.have("fmt") or arguments.get("mode") == "format":
        return _format(arguments)
    if arguments.get("debug"):
        return _debug(arguments)
    if arguments.get("mode"):
        return _compile_only(arguments)
    return run_script(arguments)


def set_comm(name: str) -> None:
    """Set this thread's comm: scripts that leave out `comm == "bpftrace"` rely on it."""
    try:
        with open("/proc/self/comm", "w") as file:
            file.write(name)
    except OSError:
        pass  # no /proc: nothing depends on it then


def _list(patterns: tuple[str, ...], program: str, arguments: Arguments) -> int:
    from .list import list_probes

    if program or (patterns and os.path.isfile(patterns[0]) and ":" not in patterns[0]):
        from ..api.listing import probes_of_script

        source, _ = find_source(arguments)
        traceable = find_traceable(arguments)
        for line in probes_of_script(source, verbose=bool(arguments.have("verbose")), traceable=traceable):
            print(line)
        return 0
    options = trace_options(arguments, ())
    verbose = bool(arguments.have("verbose"))
    return list_probes(patterns, verbose=verbose, pid=options.pid, traceable=options.traceable_functions)


def _format(arguments: Arguments) -> int:
    from ..api.trace import format_script
    from ..output.file import write_atomically

    source, _ = find_source(arguments)
    text = format_script(source)
    if arguments.get("output"):
        write_atomically(arguments.get("output"), text)
    else:
        sys.stdout.write(text)
    return 0


def _compile_only(arguments: Arguments) -> int:
    """`--mode codegen`: compile, say what is wrong, load nothing."""
    from ..api.trace import explain

    if arguments.get("mode") not in MODES:
        raise UsageError(f"--mode takes {', '.join(MODES)}, not {arguments.get('mode')!r}")
    source, parameters = find_source(arguments)
    explain(source, trace_options(arguments, parameters))
    return 0


def _debug(arguments: Arguments) -> int:
    from ..api.trace import explain

    wanted = arguments.get("debug")
    if wanted != "all" and wanted not in STAGES:
        raise UsageError(f"-d takes one of {', '.join(STAGES)}, all; not {wanted!r}")
    source, parameters = find_source(arguments)
    for stage, text in explain(source, trace_options(arguments, parameters)):
        if wanted == "all" or stage.startswith(STAGES[wanted]):
            sys.stdout.write(f"== {stage}\n{text}\n\n")
    return 0

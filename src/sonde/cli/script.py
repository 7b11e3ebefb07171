"""What `sonde trace` and `bpftrace` share: the options that run a script, and the step from them to the API."""

from __future__ import annotations

import os
import sys

from ..api.trace import TraceOptions
from ..errors import UsageError
from ..record import replace
from .options import Option

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..lang.source import Source
    from .options import Arguments

TRACEABLE = Option("traceable", ("--traceable-functions",), "read the kernel's traceable functions from FILE", "FILE")
SCRIPT_OPTIONS = (
    Option("program", ("-e",), "the program text", "PROGRAM"),
    Option("command", ("-c", "--cmd"), "start COMMAND, trace until it ends", "COMMAND"),
    Option("pid", ("-p", "--pid"), "trace this process only; ends with it", "PID"),
    Option("format", ("-f",), "output format: text or json", "FORMAT"),
    Option("output", ("-o", "--output"), "write the output to FILE", "FILE"),
    Option("buffering", ("-B",), "output buffering: none, line or full", "MODE"),
    Option("quiet", ("-q", "--quiet"), "no message but the script's own and errors"),
    Option("verbose", ("-v", "--verbose"), "say how each probe was attached"),
    Option("warnings", ("-k", "--warnings"), "show failed helper calls (twice: end on them)"),
    Option("no_warnings", ("--no-warnings",), "hide the compiler's warnings"),
    Option("unsafe", ("--unsafe",), "allow functions that change the system: signal(), system(), override() ..."),
    Option("dry_run", ("--dry-run",), "attach, then leave at once"),
    Option("include_dir", ("-I",), "search C headers in DIR; may be repeated", "DIR", many=True),
    Option("include", ("--include",), "include the C header FILE before the program", "FILE", many=True),
    Option("probe_filter", ("--probe-filter",), "attach only probes whose full name matches REGEX", "REGEX"),
    Option("without", ("--no-feature",), "do without these kernel features: kprobe_multi,uprobe_multi ...", "LIST"),
    TRACEABLE,
)

# What --no-feature takes.
OPTIONAL_FEATURES = ("kprobe_multi", "kprobe_session", "uprobe_multi")


def run_script(arguments: Arguments, *, any_engine: bool = False) -> int:
    """Run (or explain) the script that a command line names; returns the exit status. `any_engine`: in the process, where that serves."""
    source, parameters = find_source(arguments)
    options = replace(trace_options(arguments, parameters), any_engine=any_engine)
    if arguments.have("explain"):
        from ..api.trace import explain

        for stage, text in explain(source, options):
            sys.stdout.write(f"== {stage}\n{text}\n\n")
        return 0
    from ..api.trace import trace

    return trace(source, options)


def find_source(arguments: Arguments) -> tuple[Source, tuple[str, ...]]:
    """Return the script (from -e, a file, or "-" for stdin) and its positional parameters."""
    from ..lang.source import Source

    words = arguments.positionals
    if "program" in arguments.options:
        if not arguments.options["program"].strip():
            raise UsageError("the program is empty", hint="-e 'begin { printf(\"hello\\n\"); }' is a small one")
        return Source("stdin", arguments.options["program"]), words
    if not words:
        raise UsageError("no program: give -e 'PROGRAM', a file, or - for standard input")
    if words[0] == "-":
        return Source("stdin", sys.stdin.read()), words[1:]
    try:
        with open(words[0], encoding="utf-8", errors="surrogateescape") as file:
            return Source(words[0], file.read()), words[1:]
    except OSError as error:
        hint = f"to run it as a program text: -e '{words[0]}'" if "{" in words[0] else ""
        raise UsageError(f"cannot read the script {words[0]}: {error.strerror}", hint=hint) from None


def trace_options(arguments: Arguments, parameters: tuple[str, ...]) -> TraceOptions:
    """Turn a command line's words into TraceOptions. Raises UsageError."""
    named = []
    for word in arguments.rest:
        if not word.startswith("--"):
            parameters = (*parameters, word)
            continue
        name, equals, value = word[2:].partition("=")
        named.append((name, value if equals else None))
    if arguments.get("pid") and arguments.get("command"):
        raise UsageError("-p and -c exclude each other: a command that is started here has a process of its own")
    return TraceOptions(
        pid=read_pid(arguments.get("pid")),
        command=arguments.get("command"),
        unsafe=bool(arguments.have("unsafe")),
        params=parameters,
        named=tuple(named),
        format=_choice(arguments, "format", ("text", "json")),
        output=arguments.get("output"),
        buffering=_choice(arguments, "buffering", ("", "none", "line", "full")),
        quiet=bool(arguments.have("quiet")),
        verbose=bool(arguments.have("verbose")),
        warnings=0 if arguments.have("no_warnings") else 1 + arguments.have("warnings"),
        dry_run=bool(arguments.have("dry_run")),
        probe_filter=arguments.get("probe_filter"),
        without=_features(arguments.get("without")),
        include=arguments.all("include_dir"),
        headers=arguments.all("include"),
        traceable_functions=find_traceable(arguments),
        engine=_choice(arguments, "engine", ("", "kernel", "user", "mixed")),
        budget=_read_budget(arguments.get("budget")),
        traps=bool(arguments.have("traps")),
        fast_reads=bool(arguments.have("fast_reads")),
        on_exec=_choice(arguments, "on_exec", ("follow", "drop")),
        unwind=_choice(arguments, "unwind", ("fp", "dwarf")),
        over_budget=_choice(arguments, "over_budget", ("thin", "off")),
        notify="__BPFTRACE_NOTIFY_PROBES_ATTACHED" in os.environ,
    )


def _read_budget(text: str) -> int:
    """Return how many hits in a second --budget allows, 0 for no limit."""
    number, factor = (text[:-1], _FACTORS[text[-1:]]) if text[-1:] in _FACTORS else (text, 1)
    if not text:
        return 0
    if not number.isascii() or not number.isdigit() or not 0 < int(number) * factor <= _MOST_HITS:
        raise UsageError(f"--budget needs a number of hits in a second, as 5000, 100k or 2M, not {text!r}")
    return int(number) * factor


_FACTORS = {"k": 1000, "M": 1_000_000}
_MOST_HITS = 10**9


def _features(text: str) -> tuple[str, ...]:
    names = tuple(filter(None, text.split(",")))
    for name in names:
        if name not in OPTIONAL_FEATURES:
            raise UsageError(f"--no-feature takes {', '.join(OPTIONAL_FEATURES)}, not {name!r}")
    return names


def find_traceable(arguments: Arguments) -> str:
    """Return the file that --traceable-functions names, "" for none. Raises UsageError when it cannot be read."""
    path = arguments.get("traceable")
    if path and not os.access(path, os.R_OK):
        raise UsageError(f"cannot read the traceable functions from {path}")
    return path


def read_pid(text: str) -> int:
    """Return the process that -p names, 0 for none. Raises UsageError."""
    if not text:
        return 0
    if not text.isdigit() or not 0 < int(text) < 1 << 22:
        raise UsageError(f"-p needs a process id, not {text!r}")
    return int(text)


def _choice(arguments: Arguments, key: str, choices: tuple[str, ...]) -> str:
    value = arguments.get(key, choices[0])
    if value not in choices:
        raise UsageError(f"{key} must be one of {', '.join(c for c in choices if c)}, not {value!r}")
    return value

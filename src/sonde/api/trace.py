"""compile() and trace(): from a program text to an ObjectSpec, and from there to rows on a stream.

Everything heavy is imported when it is called for: the kernel engine is not touched for a program that does not compile.
"""

from __future__ import annotations

import os
import sys

from ..errors import ProbeError
from ..record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ..lang.bpftrace.options import Options
    from ..lang.source import Source
    from ..spec.engine import Printer
    from ..spec.object import ObjectSpec
    from ..spec.target import Target


class TraceOptions(Record):
    """How to compile and run a script. Names are those of the command line."""

    pid: int = 0  # trace this process only
    command: str = ""  # start this command, trace it, end with it
    unsafe: bool = False  # allow functions that change the system
    params: tuple[str, ...] = ()  # $1, $2 …
    named: tuple[tuple[str, str | None], ...] = ()  # getopt() parameters
    format: str = "text"  # or "json"
    output: str = ""  # a file to write to in place of stdout
    buffering: str = ""  # "none", "line", "full"
    quiet: bool = False  # no "Attached N probes", no maps' names … (bpftrace -q)
    verbose: bool = False  # say how each probe was attached
    warnings: int = 1  # 0: no compiler warnings; 2: runtime warnings too; 3: runtime errors end the session
    dry_run: bool = False  # stop right after attaching
    probe_filter: str = ""  # regular expression on full probe names
    without: tuple[str, ...] = ()  # features not to use ("kprobe_multi" …)
    notify: bool = False  # print __BPFTRACE_NOTIFY_PROBES_ATTACHED once attached
    include: tuple[str, ...] = ()  # directories of C headers (-I)
    headers: tuple[str, ...] = ()  # C headers that are included before the text (--include)
    traceable_functions: str = ""  # a file in place of available_filter_functions
    # "kernel", "user" (inside the process of `pid` or `command`), "mixed" (both); "": whichever serves
    engine: str = ""
    budget: int = 0  # user engine: so many hits of a probe in a second are looked at; 0: all
    traps: bool = False  # user engine: breakpoints where no jump fits
    fast_reads: bool = False  # user engine: memory is read without asking the kernel
    on_exec: str = "follow"  # user engine: probe the next program too, or "drop" its process
    unwind: str = "fp"  # user engine: how stacks are walked, by frame pointers ("fp") or unwind tables ("dwarf")
    over_budget: str = "thin"  # what becomes of a probe that fires more often: "thin", "off"
    linkable: bool = False  # C: what is declared and not defined is another object's, to be linked with
    any_engine: bool = (
        False  # where `engine` is open, also to those who may use the kernel's: the user engine if it serves
    )
    stamped: bool = False  # events say when they were made (see ObjectSpec.stamped)
    relocatable: bool = False  # the object may go to another kernel: struct members are looked up when it is loaded


def compile(
    program: str | Source,
    target: Target | None = None,
    options: TraceOptions | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    child_pid: int = 0,
    explain: Callable[[str, str], None] | None = None,
    warn: Callable[[str], None] | None = None,
) -> ObjectSpec:
    """Compile a bpftrace script for `target` (the running machine when None), or C in libbpf's style when its name ends in ".c".

    Raises CompileError, ProbeError. `explain(stage, text)` is called with the result of each stage: syntax tree, types, IR, bytecode,
    attach plan.
    """
    from ..lang.bpftrace.compile import compile_script
    from ..lang.source import Source

    source = Source("stdin", program) if isinstance(program, str) else program
    if source.name.endswith(".c"):
        return _compile_c(source, target or live_target(options), options or TraceOptions(), explain, warn)
    return compile_script(
        source,
        target or live_target(options),
        _language_options(options or TraceOptions(), child_pid),
        environ=os.environ if environ is None else environ,
        trace=explain,
        warn=warn,
    )


def _compile_c(
    source: Source,
    target: Target,
    options: TraceOptions,
    explain: Callable[[str, str], None] | None,
    warn: Callable[[str], None] | None,
) -> ObjectSpec:
    from ..lang.c.options import Options
    from ..lang.c.sections import compile_object

    flags = (*(f"-I{each}" for each in options.include), *(f"-include{each}" for each in options.headers))
    folder = os.path.dirname(source.name) or "."
    language = Options("libbpf", flags, folder, relocatable=options.relocatable, linkable=options.linkable)
    spec = compile_object(source, target, language, pid=options.pid, trace=explain)
    for warning in spec.warnings if warn is not None and options.warnings else ():
        if warning.severity != "INFO" or options.verbose:
            warn(warning.render())  # type: ignore[misc]
    return spec


def _why_no_probes(spec: ObjectSpec) -> str:
    if not spec.programs:
        return "sonde list shows what there is here"
    names = ", ".join(f"{each.name} ({each.type})" for each in spec.programs)
    return (
        f"no section says where to attach: {names}; sonde build makes an object of them, sonde load loads and pins it"
    )


def trace(program: str | Source, options: TraceOptions | None = None, *, printer: Printer | None = None) -> int:
    """Compile a script, run it in the kernel or in the traced process until it ends, and return its exit code.

    Rows go to `printer` (the text or JSON printer on stdout or `options.output` when None). SIGINT and SIGTERM end the trace in
    order: end probes run and maps are printed. Raises SondeError; whatever happened, nothing stays attached.
    """
    options = options or TraceOptions()
    from .engines import choose_engine

    choice = choose_engine(program, options)
    own_printer = printer is None
    try:
        spec = choice.spec
        if not spec.probes:
            raise ProbeError("No probes to attach", hint=_why_no_probes(spec))
        printer = printer or open_printer(options)
        from ..runtime.session import Session, SessionOptions

        if options.verbose:
            printer.message("INFO", f"engine: {choice.engine.name} ({choice.reason})")
        session = Session(
            choice.engine,
            spec,
            printer,
            SessionOptions(
                pid=options.pid,
                print_maps=spec.settings.print_maps_on_exit,
                dry_run=options.dry_run,
                strict=options.warnings > 2,
                verbose=options.verbose,
            ),
            child=choice.child,
        )
        return session.run()
    finally:
        choice.close()
        if own_printer and printer is not None:
            printer.close()


def explain(program: str | Source, options: TraceOptions | None = None) -> list[tuple[str, str]]:
    """Compile a script for the running machine; return (stage, text) pairs: tree, types, IR, bytecode, attach plan."""
    stages: list[tuple[str, str]] = []
    compile(program, None, options, explain=lambda stage, text: stages.append((stage, text)))
    return stages


def format_script(source: Source) -> str:
    """Return a script in the standard layout (bpftrace --fmt). Needs no privilege. Raises CompileError."""
    from ..lang.bpftrace.fmt import format_source

    return format_source(source)


def open_printer(options: TraceOptions) -> Printer:
    """Open the text or JSON printer that `options` ask for. Raises OutputError."""
    from ..output.file import open_sink

    sink = open_sink(options.output, options.buffering)
    if options.format == "json":
        from ..output.jsonlines import JsonPrinter

        return JsonPrinter(sink, quiet=options.quiet, notify=options.notify)
    from ..output.text import TextPrinter

    return TextPrinter(sink, quiet=options.quiet, notify=options.notify)


def live_target(options: TraceOptions | None = None) -> Target:
    """Return the Target of the running machine."""
    from ..kernel.target import live_target as target

    return target()


def _language_options(options: TraceOptions, child_pid: int) -> Options:
    from ..lang.bpftrace.options import Options

    return Options(
        pid=options.pid,
        command_path=options.command.split()[0] if options.command.split() else "",
        unsafe=options.unsafe,
        filter_probes=options.probe_filter,
        child_pid=child_pid,
        helper_errors=options.warnings > 1,
        traceable_functions=options.traceable_functions,
        directories=options.include,
        headers=options.headers,
        params=options.params,
        named=options.named,
        relocatable=options.relocatable,
        stamped=options.stamped,
    )


def _warner(options: TraceOptions) -> Callable[[str], None]:
    if not options.warnings:
        return lambda text: None
    from ..output.colour import paint

    return lambda text: print(paint(text, 2), file=sys.stderr)

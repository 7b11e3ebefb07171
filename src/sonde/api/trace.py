"""compile() and trace(): from a program text to an ObjectSpec, and from there to rows on a stream.

Everything heavy is imported when it is called for: the kernel engine is not touched for a program that does not compile.
"""

from __future__ import annotations

import os
import sys

from ..errors import UsageError
from ..record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any, TextIO

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
    buffering: str = "full"  # "none", "line"
    quiet: bool = False  # no "Attached N probes", no maps' names … (bpftrace -q)
    verbose: bool = False  # say how each probe was attached
    warnings: int = 1  # 0: no compiler warnings; 2: runtime warnings too; 3: runtime errors end the session
    dry_run: bool = False  # stop right after attaching
    probe_filter: str = ""  # regular expression on full probe names
    without: tuple[str, ...] = ()  # features not to use ("kprobe_multi" …)
    notify: bool = False  # print __BPFTRACE_NOTIFY_PROBES_ATTACHED once attached
    include: tuple[str, ...] = ()  # directories for imports
    traceable_functions: str = ""  # a file in place of available_filter_functions


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
    """Compile a bpftrace script for `target` (the running machine when None). Raises CompileError, ProbeError.

    `explain(stage, text)` is called with the result of each stage: syntax tree, types, IR, bytecode, attach plan.
    """
    from ..lang.bpftrace.compile import compile_script
    from ..lang.source import Source

    source = Source("stdin", program) if isinstance(program, str) else program
    return compile_script(
        source,
        target or live_target(options),
        language_options(options or TraceOptions(), child_pid),
        environ=os.environ if environ is None else environ,
        trace=explain,
        warn=warn,
    )

"""Which engine runs a script: the kernel, or the traced process itself. What was chosen, and why, is said in verbose mode.

The kernel's can do everything, for whoever may use it. The user engine needs no privilege, and a hit costs nanoseconds; it serves one process,
and those probes that happen in it. Both can share a script (docs/design/0009-mixed-sessions.md).
"""

from __future__ import annotations

import os

from ..errors import CompileError, FeatureError, ProbeError, SondeError, UsageError
from .inprocess import Choice, InProcess, own_options

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..lang.source import Source
    from ..spec.engine import Engine, LoadedObject
    from ..spec.object import ObjectSpec
    from .trace import TraceOptions

ENGINES = ("kernel", "user", "mixed")
_BREAKPOINTS = ("uprobe", "uretprobe", "usdt")  # of the kernel's
_NEEDS = ("CAP_BPF", "CAP_PERFMON")


def choose_engine(program: str | Source, options: TraceOptions) -> Choice:
    """Compile a program for the engine that serves it best, or the one that `options` insist on. The caller closes the result.

    Raises CompileError, ProbeError, UsageError; what the engine that was asked for cannot do is told with the reason.
    """
    from .trace import _warner

    choice = _choose(program, options)
    for text in choice.warnings:
        _warner(options)(text)
    return choice


def _choose(program: str | Source, options: TraceOptions) -> Choice:
    wanted = options.engine or os.environ.get("SONDE_ENGINE", "")
    if wanted not in ("", *ENGINES):
        raise UsageError(f"SONDE_ENGINE is {wanted!r}; it may be {' or '.join(ENGINES)}")
    if wanted == "user":
        return _user(program, options, "asked for")
    own = own_options(options)
    if own and not wanted:
        return _user(program, options, f"{own[0][0]} is its option")
    if wanted == "mixed":
        return _mixed(program, options)
    if wanted == "kernel":
        return _kernel(program, options, "asked for")
    from ..kernel.refusal import missing_capability

    missing = missing_capability(*_NEEDS)
    if not missing:
        if not options.pid or not options.any_engine:
            return _kernel(program, options, "this user may use it")
        return _best(program, options)
    try:
        return _user(program, options, f"bpf(2) needs {missing}")
    except (FeatureError, ProbeError) as failure:
        # What only the kernel can do is refused as the kernel engine refuses it: the capability is what is missing.
        try:
            choice = _kernel(program, options, f"the user engine cannot: {failure.message}")
        except SondeError:
            raise failure from None
        return choice


# Words that name a probe in a process. A script without any is not compiled for a process first, which takes some 20 ms.
_IN_PROCESS = r"(?<!\w)(u|ur|U|uprobe|uretprobe|usdt|syscalls|raw_syscalls|profile|p|software|s|hardware|h|(async)?(watchpoint|w|aw))\s*:"


def _best(program: str | Source, options: TraceOptions) -> Choice:
    """For those who may use every engine: as much in the process as can be."""
    import re

    text = program if isinstance(program, str) else program.text
    if not re.search(_IN_PROCESS, text) and "SEC" not in text:
        return _kernel(program, options, "no probe of it is in a process")
    try:
        return _complete(_loaded(_user(program, options, "all of it happens in one process")))
    except SondeError as failure:
        reason = f"the user engine cannot: {failure.message}"
        if isinstance(failure, CompileError):
            return _kernel(program, options, reason)
    try:
        return _complete(_loaded(_mixed(program, options)))
    except SondeError as failure:
        return _kernel(program, options, f"{reason}; nor can both together: {failure.message}")


class _Loaded:
    """An engine whose object is in place already: what could go wrong has not."""

    def __init__(self, engine: Engine, loaded: LoadedObject) -> None:
        self.name = engine.name
        self._loaded = loaded

    def load(self, spec: ObjectSpec) -> LoadedObject:
        """Return the object, which is the caller's now."""
        return self._loaded


def _loaded(choice: Choice) -> Choice:
    """Put the object into the process now. Raises what loading raises, and ProbeError when nothing in it is the process's own."""
    if all(probe.type in ("begin", "end", "self", "interval") for probe in choice.spec.probes):
        raise ProbeError("no probe stands in the process")
    choice.engine = _Loaded(choice.engine, choice.engine.load(choice.spec))
    return choice


def _complete(choice: Choice) -> Choice:
    """Raise ProbeError for a loaded object that does not have all probes: the kernel has them."""
    loaded = choice.engine.load(choice.spec)
    missing = getattr(loaded, "missing", ())
    if missing:
        loaded.close()
        raise ProbeError(missing[0])
    return choice


def _kernel(program: str | Source, options: TraceOptions, reason: str) -> Choice:
    for option, why in own_options(options):
        raise UsageError(f"{option} is the user engine's, {why}", hint=f"leave out --engine kernel, or {option}")
    from ..kernel.engine import KernelEngine
    from .trace import _warner, compile, live_target

    child = None
    if options.command:
        from ..runtime.child import Child

        child = Child(options.command)
    try:
        spec = compile(program, None, options, child_pid=child.pid if child else 0, warn=_warner(options))
        if not isinstance(program, str) and program.name.endswith(".c"):
            from ..lang.c.printk import with_lines

            spec = with_lines(spec, live_target(options))
        if options.pid and any(probe.type in _BREAKPOINTS for probe in spec.probes):
            from ..user.breakpoints import check_breakpoints

            check_breakpoints(options.pid, spec.probes)
    except BaseException:
        if child is not None:
            child.close()
        raise
    return Choice(KernelEngine(without=options.without), spec, reason, child)


def _user(program: str | Source, options: TraceOptions, reason: str) -> Choice:
    from ..user.checks import PLACED, check_probes
    from ..user.target import user_target
    from .trace import live_target

    with InProcess(program, options, user_target(live_target(options), unsafe=options.unsafe)) as inside:
        spec = inside.compile()
        check_probes(spec, inside.pid)
        if options.budget and not any(probe.type in PLACED for probe in spec.probes):
            raise UsageError(f"--budget limits {', '.join(PLACED)} probes, and there is none")
        return inside.choice(inside.engine(), spec, reason)


def _mixed(program: str | Source, options: TraceOptions) -> Choice:
    from .mixing import choose_mixed

    return choose_mixed(program, options)

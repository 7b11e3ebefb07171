"""Which engine runs a script: the kernel, or the traced process itself. What was chosen, and why, is said in verbose mode.

The kernel's can do everything, for whoever may use it. The user engine needs no privilege, and a hit costs nanoseconds; it serves one process,
and those probes that happen in it.
"""

from __future__ import annotations

import os

from ..errors import CompileError, FeatureError, ProbeError, SondeError, UsageError
from ..record import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..lang.source import Source
    from ..runtime.child import Command
    from ..spec.engine import Engine, LoadedObject
    from ..spec.object import ObjectSpec
    from .trace import TraceOptions

ENGINES = ("kernel", "user")
_NEEDS = ("CAP_BPF", "CAP_PERFMON")


class Choice:
    """An engine with the object compiled for it, and the command that waits to be traced."""

    def __init__(self, engine: Engine, spec: ObjectSpec, reason: str, child: Command | None) -> None:
        self.engine = engine
        self.spec = spec
        self.reason = reason
        self.child = child

    def close(self) -> None:
        """End the command if it still runs. Twice is harmless."""
        if self.child is not None:
            self.child.close()


def choose_engine(program: str | Source, options: TraceOptions) -> Choice:
    """Compile a program for the engine that serves it best, or the one that `options` insist on. The caller closes the result.

    Raises CompileError, ProbeError, UsageError; what the engine that was asked for cannot do is told with the reason.
    """
    wanted = options.engine or os.environ.get("SONDE_ENGINE", "")
    if wanted not in ("", *ENGINES):
        raise UsageError(f"SONDE_ENGINE is {wanted!r}; it may be {' or '.join(ENGINES)}")
    if wanted == "user":
        return _user(program, options, "asked for")
    if options.budget and not wanted:
        return _user(program, options, "--budget is its option")
    if options.traps and not wanted:
        return _user(program, options, "--traps is its option")
    if wanted == "kernel":
        return _kernel(program, options, "asked for")
    from ..kernel.refusal import missing_capability

    missing = missing_capability(*_NEEDS)
    if not missing:
        if not options.pid or not options.any_engine:
            return _kernel(program, options, "this user may use it")
        try:
            return _loaded(_user(program, options, "all of it happens in one process"))
        except SondeError as failure:
            return _kernel(program, options, f"the user engine cannot: {failure.message}")
    try:
        return _user(program, options, f"bpf(2) needs {missing}")
    except (FeatureError, ProbeError) as failure:
        # What only the kernel can do is refused as the kernel engine refuses it: the capability is what is missing.
        try:
            choice = _kernel(program, options, f"the user engine cannot: {failure.message}")
        except SondeError:
            raise failure from None
        return choice


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


def _kernel(program: str | Source, options: TraceOptions, reason: str) -> Choice:
    if options.traps:
        raise UsageError(
            "--traps is the user engine's, the kernel's probes are breakpoints wherever they stand",
            hint="leave out --engine kernel, or --traps",
        )
    if options.budget:
        raise UsageError(
            "--budget is the user engine's, the kernel's probes cannot be thinned",
            hint="leave out --engine kernel, or --budget",
        )
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
    except BaseException:
        if child is not None:
            child.close()
        raise
    return Choice(KernelEngine(without=options.without), spec, reason, child)


def _user(program: str | Source, options: TraceOptions, reason: str) -> Choice:
    from ..kernel.sampling import Sampler
    from ..user.budget import Limit
    from ..user.engine import PLACED, UserEngine, check_probes
    from ..user.target import user_target
    from .trace import _warner, compile, live_target

    target = user_target(live_target(options), unsafe=options.unsafe)
    child = HeldCommand(options.command) if options.command else None
    warnings: list[str] = []
    try:
        pid = child.pid if child is not None else options.pid
        inside = replace(options, pid=pid, command="")
        spec = compile(program, target, inside, child_pid=child.pid if child else 0, warn=warnings.append)
        check_probes(spec, pid)
        if options.budget and not any(probe.type in PLACED for probe in spec.probes):
            raise UsageError(f"--budget limits {', '.join(PLACED)} probes, and there is none")
        for text in warnings:  # only now: where another engine runs it, that one warns
            _warner(options)(text)
    except BaseException as failure:
        if isinstance(failure, CompileError) and not options.any_engine:
            for text in warnings:
                _warner(options)(text)
        if child is not None:
            child.close()
        raise
    limit = Limit(options.budget, options.over_budget == "off") if options.budget else None
    held = child.stopped if child is not None else None
    engine = UserEngine(
        pid, held, lambda probe: Sampler(probe, target.arch), limit, unsafe=options.unsafe, traps=options.traps
    )
    return Choice(engine, spec, reason, child)


class HeldCommand:
    """A command that stands at the first instruction of its program, with its libraries in place (see runtime.child.Command)."""

    begun = True

    def __init__(self, command: str) -> None:
        from ..runtime.child import Child
        from ..user.spawn import run_to_entry
        from ..user.stopped import StoppedProcess

        self._child = Child(command)
        self.pid = self._child.pid
        try:
            run_to_entry(self.pid, self._child.release)
            self.stopped = StoppedProcess(self.pid, held=[self.pid]).__enter__()
        except BaseException:
            self._child.close()
            raise

    def fileno(self) -> int:
        """A descriptor that is readable once the command has ended."""
        return self._child.fileno()

    def release(self) -> None:
        """Let the command run. Twice is harmless."""
        self.stopped.close()

    def close(self) -> None:
        """End the command when it still runs, and reap it. Twice is harmless."""
        self.stopped.close()
        self._child.close()

"""A program that is compiled for one process, and the command that waits in it: what engines that work inside a process are made of."""

from __future__ import annotations

from ..errors import CompileError
from ..record import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..lang.source import Source
    from ..runtime.child import Command
    from ..spec.engine import Engine
    from ..spec.object import ObjectSpec
    from ..spec.target import Target
    from ..user.engine import UserEngine
    from .trace import TraceOptions


class Choice:
    """An engine with the object compiled for it, and the command that waits to be traced."""

    def __init__(
        self, engine: Engine, spec: ObjectSpec, reason: str, child: Command | None, warnings: tuple[str, ...] = ()
    ) -> None:
        """`warnings` of the compiler are to be told once this is what runs: of an engine that runs nothing nobody wants to hear them."""
        self.engine = engine
        self.spec = spec
        self.reason = reason
        self.child = child
        self.warnings = warnings

    def close(self) -> None:
        """End the command if it still runs. Twice is harmless."""
        if self.child is not None:
            self.child.close()


def own_options(options: TraceOptions) -> list[tuple[str, str]]:
    """Return the options in use that are the user engine's, and why the kernel's has no such thing."""
    known = (
        (options.budget, "--budget", "the kernel's probes cannot be thinned"),
        (options.traps, "--traps", "the kernel's probes are breakpoints wherever they stand"),
        (options.fast_reads, "--fast-reads", "the kernel's programs read memory themselves"),
        (options.unwind != "fp", "--unwind", "the kernel follows frame pointers"),
        (options.on_exec == "drop", "--on-exec", "the kernel's probes go on in the next program"),
    )
    return [(option, why) for used, option, why in known if used]


class InProcess:
    """A program that is compiled for a process: that of `options.pid`, or the command's, which waits before its first instruction. A context manager, which ends the command if there is no choice."""

    def __init__(self, program: str | Source, options: TraceOptions, target: Target) -> None:
        self._program = program
        self._target = target
        self._options = options
        self._warnings: list[str] = []
        self._chosen = False
        self._child = HeldCommand(options.command) if options.command else None
        self.pid = self._child.pid if self._child is not None else options.pid

    def compile(self, *, stamped: bool = False) -> ObjectSpec:
        """Compile the program, with the target's features (`stamped`: see ObjectSpec). Raises what compiling raises."""
        from .trace import compile

        self._warnings.clear()
        inside = replace(self._options, pid=self.pid, command="", stamped=stamped)
        child_pid = self._child.pid if self._child is not None else 0
        return compile(self._program, self._target, inside, child_pid=child_pid, warn=self._warnings.append)

    def engine(self) -> UserEngine:
        """Make the engine for the process."""
        from ..kernel.sampling import Sampler
        from ..user.budget import Limit
        from ..user.engine import UserEngine

        options, arch = self._options, self._target.arch
        limit = Limit(options.budget, options.over_budget == "off") if options.budget else None
        held = self._child.stopped if self._child is not None else None
        return UserEngine(
            self.pid,
            held,
            lambda probe: Sampler(probe, arch, stacks=options.unwind == "dwarf"),
            limit,
            unsafe=options.unsafe,
            traps=options.traps,
            fast_reads=options.fast_reads,
            follow=options.on_exec == "follow",
            unwind=options.unwind,
        )

    def choice(self, engine: Engine, spec: ObjectSpec, reason: str) -> Choice:
        """Choose this."""
        self._chosen = True
        return Choice(engine, spec, reason, self._child, tuple(self._warnings))

    def __enter__(self) -> InProcess:
        return self

    def __exit__(self, _: object, failure: object, __: object) -> None:
        if isinstance(failure, CompileError) and not self._options.any_engine:
            from .trace import _warner

            for text in self._warnings:
                _warner(self._options)(text)
        if not self._chosen and self._child is not None:
            self._child.close()


class HeldCommand:
    """A command that stands before its first instruction (see runtime.child.Command)."""

    def __init__(self, command: str) -> None:
        from ..runtime.child import Child
        from ..user.spawn import run_to_exec
        from ..user.stopped import StoppedProcess

        self._child = Child(command)
        self.pid = self._child.pid
        try:
            run_to_exec(self.pid, self._child.release)
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
        """End the command when it still runs, and reap it; one that was not released has not run one instruction then. Twice is harmless."""
        self._child.close()
        self.stopped.close()

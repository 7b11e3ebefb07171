"""A script for two engines: what happens in the process runs there, the rest in the kernel (docs/design/0009-mixed-sessions.md)."""

from __future__ import annotations

from ..errors import ProbeError, UsageError
from ..record import replace
from .inprocess import Choice, InProcess, own_options

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..lang.source import Source
    from ..spec.object import ObjectSpec, ProbeSpec
    from ..spec.target import Features, Target
    from .trace import TraceOptions


def choose_mixed(program: str | Source, options: TraceOptions) -> Choice:
    """Compile a script for both engines. The caller closes the result. Raises what compiling raises, ProbeError with the reason where both cannot share it, UsageError."""
    from ..kernel.engine import KernelEngine
    from ..runtime.mixed import MixedEngine
    from ..runtime.sides import divide
    from .trace import live_target

    if not isinstance(program, str) and program.name.endswith(".c"):
        raise UsageError("mixed sessions are for scripts: who uses which map of a C program is not known")
    for option, _ in own_options(options):
        raise UsageError(f"{option} is the user engine's, and part of the script is the kernel's", hint="leave it out")
    with InProcess(program, options, _mixed_target(live_target(options))) as inside:
        spec = inside.compile()
        sides = divide(spec)
        if all(half.ringbuf for half in sides.halves.values()):  # two rings, to be read in order of time
            spec = inside.compile(stamped=True)
            sides = divide(spec)
        _check_unseen(sides.halves["user"], sides.halves["kernel"])
        engine = MixedEngine(inside.engine(), KernelEngine(without=options.without))
        return inside.choice(engine, spec, sides.describe())


def _check_unseen(inside: ObjectSpec, kernel: ObjectSpec) -> None:
    """Raise ProbeError where probes in the kernel would see system calls that programs in the process make for themselves."""
    from ..user.clock import is_trusted
    from ..user.helpers import CLOCKS, SYSTEM_CALLS

    none = frozenset(
        CLOCKS if is_trusted() else ()
    )  # the counter tells the time, and the kernel's code in the process reads it too
    for program in inside.programs:
        calls = {
            call: helper for helper in program.helpers for call in SYSTEM_CALLS.get(helper, ()) if call not in none
        }
        for probe in kernel.probes:
            seen = next((call for call in sorted(calls) if _sees(probe, call)), "")
            if seen:
                asks = next(each.name for each in inside.probes if each.program == program.name)
                raise ProbeError(
                    f"{probe.name} would see system calls of sonde's own: in the process, bpf_{calls[seen]} of {asks} may call {seen}",
                    hint="use --engine kernel",
                )


def _sees(probe: ProbeSpec, call: str) -> bool:
    """Whether a probe in the kernel is one on a system call."""
    if probe.type == "tracepoint" and probe.category == "syscalls":
        return probe.event in (f"sys_enter_{call}", f"sys_exit_{call}")
    of_all = probe.category == "raw_syscalls" if probe.type == "tracepoint" else probe.type == "rawtracepoint"
    return of_all and probe.event in ("sys_enter", "sys_exit")


class _BothFeatures:
    """What both engines have, of what code for one is code for the other: map types and instructions. The rest is the kernel's to say."""

    def __init__(self, one: Features, other: Features) -> None:
        self._both = one, other

    def have(self, name: str) -> bool:
        """Tell whether the engines have feature `name` (see spec.target.Features)."""
        asked = self._both if name.startswith(("map:", "isa:")) else self._both[:1]
        return all(each.have(name) for each in asked)


def _mixed_target(machine: Target) -> Target:
    from ..user.target import user_target

    inside = user_target(machine)
    return replace(machine, features=_BothFeatures(machine.features, inside.features), copies=inside.copies)

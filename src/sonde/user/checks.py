"""What may run in a process: probes that this engine serves, programs that the verifier accepts with the helpers there are."""

from __future__ import annotations

from ..bpf.isa import decode
from ..errors import Diagnostic, FeatureError, ProbeError, UnsafeError
from ..spec.object import find_span, layout_kinds
from ..spec.relocation import relocate
from . import helpers
from .syscalls import wanted_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ..bpf.helpers import Helper
    from ..bpf.isa import Insn
    from ..bpf.verifier import Refusal
    from ..spec.object import ObjectSpec, ProgramSpec

LOCAL = ("begin", "end", "self", "interval")  # run by sonde itself
SAMPLED = ("profile", "software", "hardware", "watchpoint")  # run by sonde on samples of the process
PLACED = ("uprobe", "uretprobe", "usdt", "tracepoint")
# Instructions that are followed to verify a program, a tenth of a second for each 10,000.
_MOST, _MOST_LOCAL = 200_000, 20_000


def check_probes(spec: ObjectSpec, pid: int) -> None:
    """Raise ProbeError for an object with probes that this engine does not serve in process `pid` (0: in none)."""
    for kind in sorted(layout_kinds(spec) & {"kstack", "ksym"}):
        raise FeatureError(
            f"{kind} is the kernel's, which the user engine does not look into",
            feature=kind,
            hint="use --engine kernel",
        )
    overriding = {program.name for program in spec.programs if "override_return" in program.helpers}
    for probe in spec.probes:
        if probe.program in overriding and probe.type not in ("uprobe", "uretprobe"):
            raise ProbeError(f"{probe.name}: override() replaces a function or what it returns", hint="use a uprobe")
        if probe.type in (*PLACED, *SAMPLED) and not pid:
            raise ProbeError(
                f"{probe.name}: the user engine probes one process: which?",
                hint="give -p PID, or -c COMMAND to start one",
            )
        if probe.type == "tracepoint":
            wanted_of(probe)
        if probe.type not in (*LOCAL, *PLACED, *SAMPLED):
            raise ProbeError(
                f"{probe.name}: the user engine serves {', '.join((*PLACED, *SAMPLED, *LOCAL))}, no {probe.type} probes",
                hint="use --engine kernel",
            )


def number_maps(spec: ObjectSpec) -> dict[str, int]:
    """The numbers that maps have in the code of programs, by name."""
    return {each.name: number for number, each in enumerate(spec.maps, 1)}


def check_program(
    spec: ObjectSpec, program: ProgramSpec, names: frozenset[str], *, local: bool, own: Mapping[str, int]
) -> tuple[list[Insn], bool]:
    """Hold a program against the verifier; return its instructions, and whether they were verified: what sonde runs itself may be too long for that.

    `names` are the helpers that there are; `local`: sonde runs it itself; `own`: numbers of maps that go before others. Raises UnsafeError, FeatureError.
    """
    from ..bpf.verifier import MapInfo, verify

    numbers = number_maps(spec) | dict(own)
    infos = {
        number: MapInfo(m.name, m.type, m.key_size, m.value_size, m.max_entries, m.frozen, initial=m.initial)
        for number, m in enumerate(spec.maps, 1)
    }
    _check_helpers(spec, program, names, local)
    insns = decode(bytes(relocate(program, numbers)))
    most = _MOST_LOCAL if local else _MOST
    verdict = verify(insns, program.type, infos, helpers=_only(names), max_insns=most)
    if verdict.refusal is not None and not (local and verdict.processed >= most):
        raise _refused(program, verdict.refusal)
    return insns, verdict.refusal is None


def _check_helpers(spec: ObjectSpec, program: ProgramSpec, names: frozenset[str], local: bool) -> None:
    missing = next((name for name in program.helpers if name not in names), "")
    if missing in helpers.UNSAFE and not local:
        raise UnsafeError(
            f"{_probe_of(spec, program)} calls bpf_{missing}, which changes what the process does",
            program.name,
            hint="--unsafe allows it",
        )
    if missing:
        raise FeatureError(
            f"{_probe_of(spec, program)} calls bpf_{missing}, which only the kernel has",
            feature=f"helper:{missing}",
            hint="use --engine kernel",
        )


def _only(names: frozenset[str]) -> Callable[[Helper], bool]:
    return lambda helper: helper.name in names


def _probe_of(spec: ObjectSpec, program: ProgramSpec) -> str:
    return next((probe.name for probe in spec.probes if probe.program == program.name), program.name)


def _refused(program: ProgramSpec, refusal: Refusal) -> UnsafeError:
    span = find_span(program.lines, refusal.pc)
    found = Diagnostic("ERROR", refusal.message, span, span.excerpt) if span is not None else None
    message = f"program {program.name} may not run in another process: {refusal.message} (instruction {refusal.pc})"
    return UnsafeError(message, program.name, diagnostic=found, hint=refusal.wants)

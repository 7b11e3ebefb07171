"""Lowering: a typed program to an IR module, and beside it what user space needs to make sense of what the programs write.

This file makes the programs, with their predicates and what surrounds a body; `lower_*` lower what stands in it. Only these
files know both the syntax tree and the IR.
"""

from __future__ import annotations

from ...compiler.builder import Builder
from ...compiler.ir import BTF, CTX, I64, Function, Param
from ...record import Record, replace
from .lower_branches import branch_on
from .lower_expr import LAID_OUT
from .lower_frame import Frame
from .lower_statements import run_statements
from .lower_unit import EVENTS, LOST, Unit
from .uses import find_uses

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...compiler.ir import Module
    from ...probes.model import Probe
    from ...spec.object import Assumption, EventSpec, FailureSpec, MapUse, ProbeSpec, ViewSpec
    from ...spec.target import Target
    from .analysis import AnalysedProbe, Analysis
    from .config import Config
    from .options import Options

# Probe types that the kernel cannot restrict to one process.
_UNFILTERED = frozenset(
    [
        "kprobe",
        "kretprobe",
        "fentry",
        "fexit",
        "tracepoint",
        "rawtracepoint",
        "profile",
        "software",
        "hardware",
        "interval",
    ]
)


class Lowered(Record, eq=False):
    """What lowering gives."""

    module: Module
    probes: tuple[ProbeSpec, ...]
    events: tuple[EventSpec, ...]
    views: tuple[ViewSpec, ...]
    failures: tuple[FailureSpec, ...]
    strings: tuple[str, ...]
    ringbuf: str
    lost: str
    start_offset: int
    assumed: tuple[Assumption, ...]
    fixed: str
    uses: dict[str, tuple[MapUse, ...]]  # by program, as in ProgramSpec
    sent: dict[str, tuple[int, ...]]


def lower(analysis: Analysis, target: Target, config: Config, options: Options) -> Lowered:
    """Lower a typed program. Raises FeatureError for what the target cannot do."""
    unit = Unit(analysis, target, config, options)
    probes: list[ProbeSpec] = []
    uses: dict[str, tuple[MapUse, ...]] = {}
    sent: dict[str, tuple[int, ...]] = {}
    for number, probe in enumerate(part for whole in analysis.probes for part in _parts(whole)):
        name = _program_name(probe, number)
        unit.sent = {}
        _lower_probe(unit, probe, name)
        uses[name], sent[name] = find_uses(probe, analysis.maps), tuple(unit.sent)
        probes += _attach(probe, name)
    unit.finish()
    return Lowered(
        unit.module,
        tuple(probes),
        tuple(unit.events),
        tuple(unit.views),
        tuple(unit.failures),
        unit.strings,
        EVENTS if unit.events else "",
        LOST if unit.events or unit.failures else "",
        unit.start_offset,
        tuple(unit.assumed),
        unit.fixed,
        uses,
        sent,
    )


def _attach(probe: AnalysedProbe, program: str) -> list[ProbeSpec]:
    """The probes to attach a program to; with a number each, where the program asks which of them it was."""
    specs = [replace(p.spec, program=program, span=probe.node.span) for p in probe.probes]
    if len(specs) > 1 and any(info.name == "probe" for info in probe.calls.values()):
        return [replace(spec, cookie=number) for number, spec in enumerate(specs)]
    return specs


def _parts(probe: AnalysedProbe) -> list[AnalysedProbe]:
    """Probes that cannot share a program after all: uaddr() reckons from the very place of the probe."""
    if len(probe.probes) == 1 or all(info.name != "uaddr" for info in probe.calls.values()):
        return [probe]
    return [replace(probe, probes=(each,)) for each in probe.probes]


def _program_name(probe: AnalysedProbe, number: int) -> str:
    """A name that tells the probe, of characters and length that the kernel takes."""
    text = probe.probes[0].name if probe.probes else "none"
    last = text.rsplit(":", 1)[-1]
    plain = "".join(c if c.isascii() and (c.isalnum() or c == "_") else "_" for c in last)
    return f"p{number}_{plain}"[:63]


def _lower_probe(unit: Unit, probe: AnalysedProbe, name: str) -> None:
    first = probe.probes[0]
    ctx = Param(CTX, "ctx")
    function = Function(
        name,
        [ctx],
        I64,
        program=first.program_type,
        attach_type=first.attach_type,
        attach_btf=first.attach_btf,
        license=unit.config.license,
    )
    builder = Builder(unit.module, function)
    builder.span = probe.node.span
    frame = Frame(unit, probe, builder, ctx)
    _restrict_to_process(frame, first)
    if first.type == "iter":
        _check_iterated(frame)
    if probe.predicate is not None:
        body, leave = builder.new_block("body"), builder.new_block("leave")
        builder.span = probe.predicate.span
        branch_on(frame, probe.predicate, body, leave, True)
        builder.at(leave)
        builder.ret(0)
        frame.branch_to(body)
    run_statements(frame, probe.body.statements)
    if probe.body.value is not None:
        from .lower_branches import run

        run(frame, probe.body.value)
    builder.ret(0)
    if any(isinstance(node, LAID_OUT) for node in probe.operands):
        from .lower_relocated import fix_constants

        fix_constants(frame)


def _restrict_to_process(f: Frame, probe: Probe) -> None:
    """-p: where the kernel cannot filter, the program does. In a command only it and its children run, all of which belong to -c."""
    options = f.unit.options
    pid = options.pid if not (f.unit.target.in_process and options.child_pid) else 0
    if not pid or probe.type not in _UNFILTERED or probe.type == "interval":
        return
    from .lower_builtins import ids

    b = f.b
    go, leave = b.new_block("wanted"), b.new_block("other")
    process = b.binary("lshr", ids(f), 32)
    b.branch(b.binary("eq", process, pid), go, leave)
    b.at(leave)
    b.ret(0)
    b.at(go)


def _check_iterated(f: Frame) -> None:
    """An iterator's program is called once more at the end, with null pointers: nothing is done then."""
    args = f.probe.context.args
    if args is None:
        return
    used = {
        info.field.offset: info.field for info in f.fields.values() if info.struct is args and info.field is not None
    }
    from ...debuginfo.ctype import Pointer, strip

    b = f.b
    for offset, field in sorted(used.items()):  # fields may lie in anonymous unions: members of `args` say nothing
        if field.member.name == "meta" or not isinstance(strip(field.member.ctype), Pointer):
            continue
        pointer = b.load(BTF, f.ctx, offset)
        there, leave = b.new_block("there"), b.new_block("end")
        b.branch(b.binary("ne", pointer, 0), there, leave)
        b.at(leave)
        b.ret(0)
        b.at(there)
        f.facts.remember(("iterated", offset), pointer)

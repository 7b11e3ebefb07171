"""libbpf's style: the section of a function says what its program is and where it is attached; a text becomes an object.

What sections mean stands in `probes.sections`.
"""

from __future__ import annotations

from ...errors import CompileError, ProbeError
from ...probes.sections import find_section, suggest
from ...record import replace
from ...spec.object import ObjectSpec, ProbeSpec
from ..source import diagnose
from .analysis import FunctionSymbol
from .losses import ATTEMPTS
from .options import EXTERN, Entry, Options
from .places import places_of, plan_instead
from .struct_ops import place_programs, probes_of
from .views import streams_of, views_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from ...debuginfo.ctype import CType
    from ...errors import Diagnostic
    from ...spec.object import MapSpec, ProgramSpec
    from ...spec.target import Target
    from ..source import Source
    from .compile import Text, Trace


def compile_object(
    source: Source, target: Target, options: Options, *, pid: int = 0, trace: Trace | None = None, shown: bool = True
) -> ObjectSpec:
    """Compile a text in libbpf's style to an object with all its programs, and the places that they are attached to.

    `pid` keeps user probes to one process; `shown`: the object has views of its maps and variables. Raises CompileError; ProbeError for a place that does not exist on `target`.
    """
    from .compile import compile_c

    options = replace(options, dialect="libbpf", count_losses=shown and not options.relocatable)
    text = compile_c(source, target, options, trace=trace)
    maps: dict[str, MapSpec] = {spec.name: spec for spec in text.maps}
    programs: list[ProgramSpec] = []
    probes: list[ProbeSpec] = []
    notes: list[Diagnostic] = []
    for name in text.programs:
        symbol = text.analysis.functions[name].symbol
        planned = plan(symbol, target, pid=pid, notes=None if options.relocatable else notes)
        for number, (entry, places) in enumerate(planned):
            program = _compile(text, name, entry, maps, trace)
            section, _ = find_section(symbol.section)
            program = replace(program, flags=section.flags if section is not None else 0)
            if number:
                program = replace(program, name=f"{name}_{number}")
            programs.append(program)
            probes += [replace(place, program=program.name, span=symbol.span) for place in places]
    if not programs:
        raise CompileError([_no_program(source)])
    programs = list(place_programs(programs, maps.values()))
    probes += probes_of(maps.values())
    spec = ObjectSpec(
        tuple(programs),
        tuple(maps.values()),
        tuple(probes),
        views=views_of(text) if shown else (),
        streams=streams_of(text) if shown else (),
        attempts=ATTEMPTS if ATTEMPTS in maps else "",
        externs=tuple(_iter_externs(text)),
        warnings=(*text.warnings, *notes),
    )
    if trace is not None:
        from .explain import show_plan, show_programs

        trace("bytecode", show_programs(spec))
        trace("attach plan", show_plan(spec))
    return spec


def _iter_externs(text: Text) -> Iterator[tuple[str, CType]]:
    """Yield the functions that another object defines, with their prototypes."""
    seen: set[str] = set()
    for symbol in text.analysis.symbols.values():
        if isinstance(symbol, FunctionSymbol) and symbol.kfunc.startswith(EXTERN) and symbol.kfunc not in seen:
            seen.add(symbol.kfunc)
            yield symbol.name, symbol.ctype


def _no_program(source: Source) -> Diagnostic:
    hint = 'a program is a function with SEC("…"), such as SEC("tp/sched/sched_switch").'
    return source.diagnostic("there is no program in this text", source.span(0, 0), hint=hint)


def _compile(text: Text, name: str, entry: Entry, maps: dict[str, MapSpec], trace: Trace | None) -> ProgramSpec:
    """Compile one program; maps of its own get names of their own among those of the object."""
    compiled = text.compile_program(name, entry, trace=trace)
    program = compiled.program
    for spec in compiled.maps:
        new = spec.name
        while new in maps and maps[new] != spec:
            new = f"{new}_"
        maps[new] = replace(spec, name=new)
        if new != spec.name:
            relocs = [replace(r, symbol=new) if r.symbol == spec.name else r for r in program.relocs]
            program = replace(program, relocs=tuple(relocs))
    return program


def plan(
    symbol: FunctionSymbol, target: Target, *, pid: int = 0, notes: list[Diagnostic] | None = None
) -> list[tuple[Entry, list[ProbeSpec]]]:
    """Return what a function is compiled for, each with the places it is attached to; several where USDT arguments lie differently.

    Where `target` cannot attach what the section asks for, something else serves if it can, and `notes` says so; with None nothing else is tried.
    Raises CompileError for a section that is not known, ProbeError for a place that does not exist.
    """
    name = symbol.section
    if name.startswith("?"):
        return []
    section, place = find_section(name)
    if section is None:
        raise CompileError([_unknown(symbol)])
    if not section.probe or not place:
        return [(Entry(section.type, section.attach_type, sleepable=section.sleepable, user=section.user), [])]
    try:
        if notes is not None:
            found = plan_instead(symbol, section, place, target, notes)
            if found:
                return found
        return places_of(section, place, target, pid)
    except ProbeError as error:
        where = f'{symbol.span.file}:{symbol.span.line}: SEC("{name}")'
        raise ProbeError(f"{where}: {error.message}", close=error.close, hint=error.hint) from None


def _unknown(symbol: FunctionSymbol) -> Diagnostic:
    message = f"section '{symbol.section}' of '{symbol.name}' is no type of program"
    return diagnose(symbol.span, message, hint=suggest(symbol.section))

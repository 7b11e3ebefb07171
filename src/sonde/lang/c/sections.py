"""libbpf's style: the section of a function says what its program is and where it is attached; a text becomes an object.

Section names are those of libbpf 1.7 (section_defs in libbpf.c). A section without a place to attach to (`SEC("kprobe")`, `SEC("xdp")`)
gives a program that is loaded only; one that begins with `?` gives nothing unless somebody asks for it.
"""

from __future__ import annotations

from ...errors import CompileError, ProbeError
from ...record import Record, replace
from ...spec.object import ObjectSpec, ProbeSpec
from ..source import diagnose
from .options import Entry, Options

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...errors import Diagnostic
    from ...spec.object import MapSpec, ProgramSpec
    from ...spec.target import Target
    from ..source import Source
    from .analysis import FunctionSymbol
    from .compile import Text, Trace


class Section(Record):
    """What a section's name means. `probe` is the probe type of the place behind it, "" where nothing is attached."""

    type: str
    attach_type: str = ""
    probe: str = ""
    sleepable: bool = False
    user: bool = False


def _kinds() -> dict[str, Section]:
    kinds: dict[str, Section] = {}
    for name in ("kprobe", "kretprobe", "ksyscall", "kretsyscall"):
        kinds[name] = Section("kprobe", probe=name)
    for name in ("kprobe", "kretprobe"):
        kinds[name + ".multi"] = Section("kprobe", probe=name)
    for name in ("uprobe", "uretprobe", "usdt"):
        for suffix in ("", ".s", ".multi", ".multi.s"):
            if name != "usdt" or "multi" not in suffix:
                kinds[name + suffix] = Section("kprobe", probe=name, sleepable=suffix.endswith(".s"), user=True)
    for name in ("tracepoint", "tp"):
        kinds[name] = Section("tracepoint", probe="tracepoint")
    for name in ("raw_tracepoint", "raw_tp"):
        kinds[name] = Section("raw_tracepoint", probe="rawtracepoint")
        kinds[name + ".w"] = Section("raw_tracepoint_writable", probe="rawtracepoint")
    kinds["tp_btf"] = Section("tracing", "trace_raw_tp", "rawtracepoint")
    for name, attach_type in (("fentry", "trace_fentry"), ("fexit", "trace_fexit"), ("fmod_ret", "modify_return")):
        kinds[name] = Section("tracing", attach_type, name)
        kinds[name + ".s"] = Section("tracing", attach_type, name, sleepable=True)
    for suffix in ("", ".s"):
        kinds["lsm" + suffix] = Section("lsm", "lsm_mac", "lsm", sleepable=bool(suffix))
        kinds["iter" + suffix] = Section("tracing", "trace_iter", "iter", sleepable=bool(suffix))
    return kinds | _LOADED_ONLY


_LOADED_ONLY = {
    "perf_event": Section("perf_event"),
    "xdp": Section("xdp", "xdp"),
    "xdp.frags": Section("xdp", "xdp"),
    "socket": Section("socket_filter"),
    "tc": Section("sched_cls"),
    "classifier": Section("sched_cls"),
    "tcx/ingress": Section("sched_cls", "tcx_ingress"),
    "tcx/egress": Section("sched_cls", "tcx_egress"),
    "action": Section("sched_act"),
    "cgroup_skb/ingress": Section("cgroup_skb", "cgroup_inet_ingress"),
    "cgroup_skb/egress": Section("cgroup_skb", "cgroup_inet_egress"),
    "cgroup/skb": Section("cgroup_skb"),
    "cgroup/connect4": Section("cgroup_sock_addr", "cgroup_inet4_connect"),
    "cgroup/connect6": Section("cgroup_sock_addr", "cgroup_inet6_connect"),
    "sockops": Section("sock_ops", "cgroup_sock_ops"),
    "sk_lookup": Section("sk_lookup", "sk_lookup"),
    "sk_msg": Section("sk_msg", "sk_msg_verdict"),
    "flow_dissector": Section("flow_dissector", "flow_dissector"),
    "syscall": Section("syscall", sleepable=True),
}
_SYSCALLS = {"x86_64": "__x64_sys_", "aarch64": "__arm64_sys_"}


def compile_object(
    source: Source, target: Target, options: Options, *, pid: int = 0, trace: Trace | None = None
) -> ObjectSpec:
    """Compile a text in libbpf's style to an object with all its programs, and the places that they are attached to.

    `pid` keeps user probes to one process. Raises CompileError; ProbeError for a place that does not exist on `target`.
    """
    from .compile import compile_c

    text = compile_c(source, target, replace(options, dialect="libbpf"))
    maps: dict[str, MapSpec] = {spec.name: spec for spec in text.maps}
    programs: list[ProgramSpec] = []
    probes: list[ProbeSpec] = []
    for name in text.programs:
        symbol = text.analysis.functions[name].symbol
        for number, (entry, places) in enumerate(plan(symbol, target, pid=pid)):
            program = _compile(text, name, entry, maps, trace)
            if number:
                program = replace(program, name=f"{name}_{number}")
            programs.append(program)
            probes += [replace(place, program=program.name, span=symbol.span) for place in places]
    if not programs:
        raise CompileError([_no_program(source)])
    return ObjectSpec(tuple(programs), tuple(maps.values()), tuple(probes), warnings=text.warnings)


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


def plan(symbol: FunctionSymbol, target: Target, *, pid: int = 0) -> list[tuple[Entry, list[ProbeSpec]]]:
    """Return what a function is compiled for, each with the places it is attached to; several where USDT arguments lie differently.

    Raises CompileError for a section that is not known, ProbeError for a place that does not exist.
    """
    name = symbol.section
    if name.startswith("?"):
        return []
    section, place = find_section(symbol)
    if section is None:
        raise CompileError([_unknown(symbol)])
    if not section.probe or not place:
        return [(Entry(section.type, section.attach_type, sleepable=section.sleepable, user=section.user), [])]
    try:
        return _places(section, place, target, pid)
    except ProbeError as error:
        where = f'{symbol.span.file}:{symbol.span.line}: SEC("{name}")'
        raise ProbeError(f"{where}: {error.message}", close=error.close, hint=error.hint) from None


def find_section(symbol: FunctionSymbol) -> tuple[Section | None, str]:
    """Return the meaning of a function's section, and the place that it names behind a `/` ("" for none)."""
    kinds = _kinds()
    name = symbol.section.lstrip("?")
    if name in kinds:
        return kinds[name], ""
    prefix, slash, place = name.partition("/")
    return (kinds.get(prefix), place) if slash else (None, "")


def _unknown(symbol: FunctionSymbol) -> Diagnostic:
    from ...probes.close import close_names

    close = close_names(symbol.section.partition("/")[0], sorted(_kinds()))
    hint = (
        f"did you mean {', '.join(close)}?"
        if close
        else "sections are those of libbpf: kprobe/…, tp/…, fentry/…, uprobe/…"
    )
    return diagnose(symbol.span, f"section '{symbol.section}' of '{symbol.name}' is no type of program", hint=hint)


def _places(section: Section, place: str, target: Target, pid: int) -> list[tuple[Entry, list[ProbeSpec]]]:
    """Ask the catalogue of probes for a place, and sort what it finds by what the program has to be compiled for."""
    if section.probe in ("fmod_ret", "lsm"):
        spec = ProbeSpec(f"{section.probe}:{place}", section.probe, "", symbol=place)
        return [(Entry(section.type, section.attach_type, place, sleepable=section.sleepable), [spec])]
    from ...probes.catalogue import expand_all, parse_attach_point

    kind, parts = _attach_point(section.probe, place, target)
    found: dict[Entry, list[ProbeSpec]] = {}
    for probe in expand_all(parse_attach_point((kind, *parts), pid=pid), target, pid=pid):
        attach_btf = probe.attach_btf if section.type == "tracing" else ""
        entry = Entry(
            section.type,
            section.attach_type,
            attach_btf,
            sleepable=section.sleepable,
            user=section.user,
            usdt=probe.usdt_args,
        )
        found.setdefault(entry, []).append(probe.spec)
    return list(found.items())


def _attach_point(kind: str, place: str, target: Target) -> tuple[str, tuple[str, ...]]:
    """Return the probe type and its parts, as the grammar of probes has them."""
    if kind in ("ksyscall", "kretsyscall"):
        return ("kprobe" if kind == "ksyscall" else "kretprobe"), (_SYSCALLS.get(target.arch, "sys_") + place,)
    if kind == "tracepoint":
        return kind, tuple(place.split("/", 1))
    if kind in ("uprobe", "uretprobe"):
        path, _, symbol = place.rpartition(":")
        return kind, (path, symbol) if path else (place,)
    if kind == "usdt":
        return kind, tuple(place.rsplit(":", 2))
    return kind, (place,)

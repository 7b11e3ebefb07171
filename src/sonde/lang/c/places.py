"""Where a program of libbpf's style goes: the places that its section names, and others on a machine that cannot attach those.

A trampoline (fentry, fexit) becomes a kprobe or kretprobe where the kernel has no trampolines or its BTF not the function; a kprobe on a system
call's function becomes the call's tracepoint, or the raw tracepoint of all calls with a test of the number; tp_btf becomes raw_tp. What the machine
has was found by trying (see `Target.features`).
"""

from __future__ import annotations

from ...debuginfo.syscalls import syscall_number
from ...errors import Diagnostic, ProbeError, SondeError
from ...probes.sections import find_places, find_section, get_syscall
from ...record import replace
from ...spec.object import ProbeSpec
from .entry import arguments_word
from .options import Entry

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from ...probes.sections import Section
    from ...spec.target import Target
    from .analysis import FunctionSymbol

    Planned = list[tuple[Entry, list[ProbeSpec]]]

_TRAMPOLINES = {"fentry": "kprobe", "fexit": "kretprobe"}


def places_of(section: Section, place: str, target: Target, pid: int) -> list[tuple[Entry, list[ProbeSpec]]]:
    """Sort the places that a section names by what the program has to be compiled for. Raises ProbeError."""
    found: dict[Entry, list[ProbeSpec]] = {}
    for each in find_places(section, place, target, pid):
        entry = Entry(
            section.type,
            section.attach_type,
            each.attach_btf,
            sleepable=section.sleepable,
            user=section.user,
            usdt=each.usdt_args,
        )
        found.setdefault(entry, []).append(each.spec)
    return list(found.items())


def plan_instead(
    symbol: FunctionSymbol, section: Section, place: str, target: Target, notes: list[Diagnostic]
) -> Planned:
    """Return what a function is compiled for in place of what its section says, and where it is attached; nothing where the section will do.

    `notes` gets a word on each step. Raises ProbeError.
    """
    asked, said = section, len(notes)
    if section.probe in _TRAMPOLINES and arguments_word(symbol) == "tracing":
        why = _no_trampoline(place, target)
        if why:
            section = replace(asked, type="kprobe", attach_type="", probe=_TRAMPOLINES[asked.probe], sleepable=False)
            _say(notes, symbol, f"{why}; {section.probe}:{place} serves instead")
    if asked.attach_type == "trace_raw_tp" and not target.features.have("program:tracing:raw_tp"):
        section, _ = find_section("raw_tp")  # type: ignore[assignment]
        _say(notes, symbol, "this kernel has no tp_btf programs; raw_tp serves instead")
    call = get_syscall(section, place, target)
    if call and not target.features.have("pmu:kprobe"):
        found = next(_syscall_places(section, call, target), None)
        if found is not None:
            _say(notes, symbol, f"this kernel has no kprobes; {found[1][0].name} serves instead")
            return [found]
    if section is asked:
        return []
    if section.probe in _TRAMPOLINES.values() and not target.features.have("pmu:kprobe"):
        del notes[said:]
        return []  # then what was asked for is what is said to be missing
    returns = section.probe == "kretprobe"
    return [(replace(entry, returns=returns), places) for entry, places in places_of(section, place, target, 0)]


def _say(notes: list[Diagnostic], symbol: FunctionSymbol, text: str) -> None:
    notes.append(Diagnostic("INFO", f'SEC("{symbol.section}"): {text}', symbol.span))


def _no_trampoline(place: str, target: Target) -> str:
    """Why a function cannot have a trampoline, "" where it can."""
    if not target.features.have("program:tracing:fentry"):
        return "this kernel has no trampolines"
    try:
        known = target.btf().get_func(place) is not None or ":" in place or "*" in place
    except SondeError:
        known = False
    return "" if known else f"this kernel's BTF has no function {place}"


def _syscall_places(section: Section, call: str, target: Target) -> Iterator[tuple[Entry, list[ProbeSpec]]]:
    """Yield where a program for the function of a system call can go instead: to the call's tracepoint, to that of all.

    Its parameters, and what it reads of registers, are then had from the tracepoint's record, or the caller's registers.
    """
    context = "sys_exit" if "ret" in section.probe else "sys_enter"
    event = f"{context}_{call}"
    try:
        target.tracepoint("syscalls", event)
    except ProbeError:
        pass
    else:
        probe = ProbeSpec(f"tracepoint:syscalls:{event}", "tracepoint", "", category="syscalls", event=event)
        yield Entry("tracepoint", context=context, event=call), [probe]
    number = syscall_number(call, target.arch)
    if number >= 0:
        raw = Entry("raw_tracepoint", context=context.replace("sys", "raw"), event=call, number=number)
        yield raw, [ProbeSpec(f"rawtracepoint:{context}", "rawtracepoint", "", event=context)]

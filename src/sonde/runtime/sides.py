"""Which program of a script runs where: from one ObjectSpec to two, one for the process and one for the kernel (docs/design/0009-mixed-sessions.md).

Programs that hand values to each other through a map must be on one side. An aggregation that all only add to is no such map: each side has copies of its own.
Nor is one without keys where that cannot be: arrays can be in memory that both have.
"""

from __future__ import annotations

from ..errors import ProbeError
from ..record import Record, replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from ..spec.object import MapSpec, ObjectSpec, ProbeSpec, ProgramSpec, ViewSpec

USER, KERNEL, OPEN = "user", "kernel", ""
PLACES = {USER: "in the process", KERNEL: "in the kernel"}
_IN_PROCESS = frozenset(["uprobe", "uretprobe", "usdt"])
_ANYWHERE = frozenset(["begin", "end", "self", "interval"])
_SYSTEM_CALLS = frozenset(["syscalls", "raw_syscalls"])
# Put together from copies, in any order, without anything being dropped.
_ADDED_UP = frozenset(["count", "sum", "min", "max", "avg", "stats", "hist", "lhist"])
_MMAPABLE = 1 << 10  # BPF_F_MMAPABLE
_SHOWN = 4  # probes that are named in a list of them


class Part(Record):
    """A program with those of its probes that have the same choice: `kind` is USER, KERNEL or OPEN."""

    program: ProgramSpec
    kind: str
    probes: tuple[ProbeSpec, ...]

    def how(self, view: str) -> frozenset[str]:
        """What the program does to a view."""
        return frozenset(use.how for use in self.program.uses if use.view == view)


class Sides(Record, eq=False):
    """An object in two halves. `parts` says on which side the probes of one kind of a program are, `shared` which arrays both halves must have in one memory."""

    halves: Mapping[str, ObjectSpec]
    parts: Mapping[tuple[str, str], str]  # (program, kind) -> side
    users: Mapping[str, frozenset[str]]  # view -> the sides that use it
    shared: frozenset[str]

    def of(self, probe: ProbeSpec) -> str:
        """The side of a probe."""
        return self.parts[probe.program, kind_of(probe)]

    def of_program(self, program: str) -> str:
        """The side of a program that is run by hand."""
        return self.parts.get((program, OPEN), KERNEL)

    def describe(self) -> str:
        """Say which probes are where."""
        return "; ".join(f"{PLACES[side]} {_names(self.halves[side].probes)}" for side in (USER, KERNEL))


def kind_of(probe: ProbeSpec) -> str:
    """Where probes of this type can be."""
    if probe.type in _IN_PROCESS:
        return USER
    if probe.type in _ANYWHERE or (probe.type == "tracepoint" and probe.category in _SYSTEM_CALLS):
        return OPEN
    return KERNEL


def divide(spec: ObjectSpec) -> Sides:
    """Divide an object. Raises ProbeError where there is nothing for one of the sides, or programs of both need each other's values."""
    parts = list(_parts(spec))
    tied = [view.name for view in spec.views if not _is_added_up(view, spec, parts)]
    try:
        sides, shared = _spread(parts, tied), frozenset[str]()
    except ProbeError:
        shared = frozenset(view.map for view in spec.views if view.name in tied and _is_in_an_array(view, spec))
        sides = _spread(parts, [view.name for view in spec.views if view.name in tied and view.map not in shared])
    for here, other in ((USER, KERNEL), (KERNEL, USER)):
        there = [probe for part, side in zip(parts, sides) if side == here for probe in part.probes]
        if all(probe.type in _ANYWHERE for probe in there):
            raise ProbeError(f"nothing happens {PLACES[here]}", hint=f"use --engine {other}")
    if shared:
        maps = [replace(each, flags=each.flags | _MMAPABLE) if each.name in shared else each for each in spec.maps]
        spec = replace(spec, maps=tuple(maps))
    halves = {side: _half(spec, parts, sides, side) for side in (USER, KERNEL)}
    where = {(part.program.name, part.kind): side for part, side in zip(parts, sides)}
    users = {
        view.name: frozenset(side for part, side in zip(parts, sides) if part.how(view.name)) for view in spec.views
    }
    both = frozenset.intersection(*(frozenset(each.name for each in half.maps) for half in halves.values()))
    return Sides(halves, where, users, shared & both)


def _parts(spec: ObjectSpec) -> Iterable[Part]:
    for program in spec.programs:
        groups: dict[str, list[ProbeSpec]] = {}
        for probe in spec.probes:
            if probe.program == program.name:
                groups.setdefault(kind_of(probe), []).append(probe)
        for kind, probes in groups.items():
            yield Part(program, kind, tuple(probes))


def _is_added_up(view: ViewSpec, spec: ObjectSpec, parts: Sequence[Part]) -> bool:
    """Whether the copies of both sides make the whole."""
    kind = next(each.type for each in spec.maps if each.name == view.map)
    hows = frozenset().union(*(part.how(view.name) for part in parts))
    return view.per_cpu and "lru" not in kind and view.value.kind in _ADDED_UP and hows <= {"add"}


def _is_in_an_array(view: ViewSpec, spec: ObjectSpec) -> bool:
    """Whether a view is memory of one place, which can be mapped."""
    return view.key is None and any(each.name == view.map and each.type == "array" for each in spec.maps)


def _spread(parts: Sequence[Part], tied: Iterable[str]) -> list[str]:
    """Return the side of each part: those that share a view of `tied` are together, and where nothing else says so they are in the kernel. Raises ProbeError."""
    sides = [part.kind for part in parts]
    waiting = [number for number, side in enumerate(sides) if side]
    views = list(tied)
    while waiting:
        number = waiting.pop(0)
        for view in [view for view in views if parts[number].how(view)]:
            for other, part in enumerate(parts):
                if not part.how(view) or sides[other] == sides[number]:
                    continue
                if sides[other]:
                    raise _conflict(view, parts, sides)
                sides[other] = sides[number]
                waiting.append(other)
    return [side or KERNEL for side in sides]


def _conflict(view: str, parts: Sequence[Part], sides: Sequence[str]) -> ProbeError:
    """The error for a view that both sides would have to share."""
    told = []
    for side in (USER, KERNEL):
        here = [part for part, its in zip(parts, sides) if its == side and part.how(view)]
        hows = sorted(frozenset().union(*(part.how(view) for part in here)), key=["add", "write", "read"].index)
        words = " and ".join({"add": "added to", "write": "written", "read": "read"}[how] for how in hows)
        told.append(f"{words} {PLACES[side]} ({_names([probe for part in here for probe in part.probes])})")
    return ProbeError(f"{view} is {' and '.join(told)}, which share no memory", hint="use --engine kernel")


def _names(probes: Sequence[ProbeSpec]) -> str:
    names = list(dict.fromkeys(probe.name for probe in probes if not probe.own))
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")


def _half(spec: ObjectSpec, parts: Sequence[Part], sides: Sequence[str], side: str) -> ObjectSpec:
    """What one side has to do with: its programs and probes, and the maps, events and views of these. Maps of nobody are the kernel's."""
    mine = [part for part, its in zip(parts, sides) if its == side]
    names = {part.program.name for part in mine}
    programs = tuple(program for program in spec.programs if program.name in names)
    probes = {id(probe) for part in mine for probe in part.probes}
    maps = _maps_of(spec, programs)
    if side == KERNEL:
        elsewhere = {each.name for each in _maps_of(spec, spec.programs)} - {each.name for each in maps}
        maps = [each for each in spec.maps if each.name not in elsewhere]
    have = {each.name for each in maps}
    views = {use.view for program in programs for use in program.uses}
    events = {ident for program in programs for ident in program.events}
    return replace(
        spec,
        programs=programs,
        maps=tuple(maps),
        probes=tuple(probe for probe in spec.probes if id(probe) in probes),
        events=tuple(event for event in spec.events if event.ident in events),
        views=tuple(view for view in spec.views if view.name in views),
        ringbuf=spec.ringbuf if spec.ringbuf in have else "",
        lost=spec.lost if spec.lost in have else "",
    )


def _maps_of(spec: ObjectSpec, programs: Iterable[ProgramSpec]) -> list[MapSpec]:
    names = {reloc.symbol for program in programs for reloc in program.relocs if reloc.kind in ("map", "map_value")}
    return [each for each in spec.maps if each.name in names]

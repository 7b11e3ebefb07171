"""usdt:BINARY:[PROVIDER:]NAME: the static probes of a program, with their arguments."""

from __future__ import annotations

from ..errors import ProbeError
from ..spec.object import ProbeSpec
from .binaries import distinct_files, find_binaries, mapped_files
from .context import regs_context
from .grammar import wrong_count
from .model import Context, Pattern, Probe
from .uprobe import read_binary
from .wildcard import has_wildcard, make_matcher

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import TypeVar

    from ..debuginfo.elf import Elf
    from ..debuginfo.usdt import UsdtNote
    from ..spec.target import Target
    from .scope import Scope

    T = TypeVar("T")


def parse(kind: str, args: tuple[str, ...], scope: Scope) -> Pattern:
    """BINARY:[PROVIDER:]NAME; with -p or -c the binary may be left out or empty."""
    process = scope.pid or scope.command_path
    if process and len(args) == 1:
        args = ("", *args)
    if len(args) not in (2, 3):
        raise wrong_count(kind, "2 or 3", len(args))
    path, event = args[0], args[-1]
    provider = args[1] if len(args) == 3 else ""
    if not event:
        raise ProbeError("usdt probe must have a target function or wildcard")
    if not path and not process:
        raise ProbeError(
            "usdt probe must specify at least path or pid to probe. To target all paths/pids set the path to '*'."
        )
    wild = any(has_wildcard(part) for part in args)
    return Pattern(kind, ":".join((kind, *args)), path=path, category=provider, event=event, wild=wild)


def expand(pattern: Pattern, scope: Scope) -> list[Probe]:
    """One probe for each location; those of one name stand together and count from 0 in `spec.cookie`."""
    paths = distinct_files(_paths(pattern, scope))
    return [probe for path in paths for probe in _read(pattern, path, scope, lambda e: _expand_in(pattern, e, scope))]


def _expand_in(pattern: Pattern, elf: Elf, scope: Scope) -> list[Probe]:
    from ..debuginfo.usdt import parse_args

    probes = []
    number: dict[str, int] = {}
    for note in _match(pattern, elf):
        name = f"usdt:{elf.path}:{note.provider}:{note.name}"
        number[name] = number.get(name, -1) + 1
        spec = ProbeSpec(
            name,
            "usdt",
            "",
            category=note.provider,
            event=note.name,
            path=elf.path,
            offset=note.offset,
            semaphore_offset=note.semaphore_offset,
            pid=scope.pid,
            cookie=number[name],
        )
        probes.append(Probe("usdt", name, spec, "kprobe", usdt_args=parse_args(note, elf)))
    return probes


def _match(pattern: Pattern, elf: Elf) -> list[UsdtNote]:
    """Return the matching locations in a file, sorted by provider and name."""
    from ..debuginfo.usdt import read_notes

    in_provider, wanted = make_matcher(pattern.category or "*"), make_matcher(pattern.event)
    notes = [n for n in read_notes(elf) if wanted(n.name) and in_provider(n.provider)]
    return sorted(notes, key=lambda note: (note.provider, note.name))


def _read(pattern: Pattern, path: str, scope: Scope, read: Callable[[Elf], list[T]]) -> list[T]:
    return read_binary(path, scope, bool(pattern.path) and not has_wildcard(pattern.path), read)


def _paths(pattern: Pattern, scope: Scope) -> list[str]:
    """A process offers the probes of all files that it has mapped; a command those of its program."""
    if not pattern.path and scope.pid:
        return mapped_files(scope)
    return find_binaries("usdt", pattern.path, scope)


def context_of(probe: Probe, target: Target) -> Context:
    """The registers, and where the arguments are at this location."""
    return regs_context(target.arch, usdt_args=probe.usdt_args)


def close(pattern: Pattern, scope: Scope) -> list[str]:
    """Probes of the same files that sound alike."""
    from .close import close_names

    everything = Pattern("usdt", "", path=pattern.path, event="*", wild=True)
    full = {name.rpartition(":")[2]: name for name in iter_names(everything, scope)}
    return [full[name] for name in close_names(pattern.event.strip("*"), full)]


def iter_names(pattern: Pattern, scope: Scope) -> Iterator[str]:
    """Each name once, sorted."""
    names: set[str] = set()
    for path in _paths(pattern, scope):
        found = _read(pattern, path, scope, lambda elf: _match(pattern, elf))
        names.update(f"usdt:{path}:{note.provider}:{note.name}" for note in found)
    yield from sorted(names)

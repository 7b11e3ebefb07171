"""From an attach point to concrete probes and their contexts: the one interface of this room to the front ends.

for pattern in parse_attach_point(("tracepoint", "sched", "sched_*")):
    for probe in expand(pattern, target):
        context = context_of(probe, target)
"""

from __future__ import annotations

from ..errors import MissingProbeError, ProbeError, SondeError
from ..record import replace
from .registry import TYPES, find_type, load_module
from .wildcard import has_wildcard, make_matcher

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..spec.target import Target
    from .model import Context, Pattern, Probe
    from .registry import ProbeType
    from .scope import Machine, Scope

MISSING = "Probe has no valid attach points. If this is expected, set the 'missing_probes' config variable to 'warn'."


def parse_attach_point(
    parts: tuple[str, ...], *, pid: int = 0, command_path: str = "", unsafe: bool = False
) -> list[Pattern]:
    """Parse an attach point that was split at ':' outside quotes; a wildcard provider gives several patterns.

    `pid` and `command_path` (the program that -p or -c names) allow to leave out a target; `unsafe` allows kernel
    addresses. Raises ProbeError with bpftrace's words where the form is wrong.
    """
    from .scope import Scope

    return parse_in(parts, Scope(None, pid=pid, command_path=command_path, unsafe=unsafe))


def parse_in(parts: tuple[str, ...], scope: Scope) -> list[Pattern]:
    """Like `parse_attach_point`, in a scope that is there already."""
    from .grammar import unquote

    args = tuple(unquote(part) for part in parts)
    if not args or not args[0]:
        raise ProbeError("Invalid attachpoint definition")
    if not has_wildcard(args[0]):
        kind = find_type(args[0])
        pattern: Pattern = load_module(kind.name).parse(kind.name, args[1:], scope)
        return [pattern]
    rest = args[1:] or args  # a lone part is looked for in all types
    return _parse_each(args[0], _wild_types(args, scope), rest, scope)


def _wild_types(args: tuple[str, ...], scope: Scope) -> list[ProbeType]:
    """The types that a wildcard provider may mean: those of user space where a process or a path is named."""
    listed = "user" if scope.pid or (len(args) > 1 and "/" in args[1]) else "kernel"
    matches = make_matcher(args[0].lower() if len(args) > 1 else "*")
    return [t for t in TYPES if t.listed == listed and matches(t.name)]


def _parse_each(provider: str, kinds: list[ProbeType], rest: tuple[str, ...], scope: Scope) -> list[Pattern]:
    patterns = []
    for kind in kinds:
        try:
            patterns.append(replace(load_module(kind.name).parse(kind.name, rest, scope), lenient=True))
        except ProbeError:
            continue  # not the form of this type
    if not patterns:
        raise ProbeError(
            f"No probe type matched for {provider}", hint="the types are " + ", ".join(t.name for t in TYPES)
        )
    return patterns


def expand(
    pattern: Pattern,
    target: Target,
    *,
    pid: int = 0,
    command_path: str = "",
    missing: str = "error",
    unsafe: bool = False,
    machine: Machine | None = None,
) -> list[Probe]:
    """Return the concrete probes that `pattern` stands for on `target`, in the order in which they are attached.

    Raises ProbeError with close names when nothing matches, unless `missing` is "warn" or "ignore": then the result
    is empty. `machine` keeps the lists of the running kernel between calls; give `Machine.offline()` when the target
    is another machine. Cost: a plain tracepoint reads one format file; a plain uprobe maps one file.
    """
    return expand_all(
        [pattern], target, pid=pid, command_path=command_path, missing=missing, unsafe=unsafe, machine=machine
    )


def expand_all(
    patterns: Sequence[Pattern],
    target: Target,
    *,
    pid: int = 0,
    command_path: str = "",
    missing: str = "error",
    unsafe: bool = False,
    machine: Machine | None = None,
) -> list[Probe]:
    """Expand several patterns; it is an error (unless `missing` says otherwise) only when none of them matches."""
    from .scope import Scope

    scope = Scope(target, machine, pid=pid, command_path=command_path, unsafe=unsafe)
    probes: list[Probe] = []
    for pattern in patterns:
        try:
            probes += load_module(pattern.type).expand(pattern, scope)
        except SondeError:  # not only ProbeError: a list may be unreadable
            if not pattern.lenient:
                raise
    if not probes and patterns and missing == "error":
        raise _missing(patterns[0], scope)
    return probes


def _missing(pattern: Pattern, scope: Scope) -> MissingProbeError:
    find_close = getattr(load_module(pattern.type), "close", None)
    try:
        close = find_close(pattern, scope) if find_close else []
    except SondeError:
        close = []  # the list cannot be read: the message must not suffer
    kind, _, rest = pattern.text.partition(":")
    message = MISSING if pattern.wild else f"No matches for {kind} {rest}."
    if close:
        return MissingProbeError(message, close=close)
    if pattern.type == "tracepoint" and scope.machine.refusal is not None:
        refusal = scope.machine.refusal
        return MissingProbeError(
            message, hint=f"{refusal.message}, so that there are only those of system calls; {refusal.hint}"
        )
    what = "nothing matches" if pattern.wild else "there is no"
    return MissingProbeError(
        message, hint=f"{what} {pattern.text} here; sonde list '{pattern.type}:*' shows what there is"
    )


def context_of(probe: Probe, target: Target) -> Context:
    """Describe what a program attached to `probe` can reach. Raises ProbeError where the types are unknown."""
    context: Context = load_module(probe.type).context_of(probe, target)
    return context


def probetype_name(kind: str) -> str:
    """Return what the builtin `probetype` prints for a probe of type `kind`."""
    found = find_type(kind)
    return found.builtin or found.name

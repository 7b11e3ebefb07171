"""From the probes of a script to programs: attach points expanded, and those grouped that may share one program.

Concrete probes share a program when the kernel wants the same kind of program for them and everything that the body
asks of its context is the same: its arguments, its name, the file that it lies in.
"""

from __future__ import annotations

from ...errors import CompileError, MissingProbeError, ProbeError, UsageError
from ...record import replace
from ..source import diagnose
from . import ast
from .analysis import AnalysedProbe
from .rewrite import iter_nodes
from .typing_state import Group

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from ...errors import Diagnostic
    from ...probes.model import Probe
    from ...probes.scope import Machine
    from ...spec.target import Target
    from .config import Config
    from .options import Options


def expand_probes(
    program: ast.Program, target: Target, config: Config, options: Options, warnings: list[Diagnostic]
) -> list[Group]:
    """Return one Group for each program to be made, in the order of the script. Raises CompileError."""
    from ...probes.scope import Machine

    groups: list[Group] = []
    errors: list[Diagnostic] = []
    machine = Machine(traceable=options.traceable_functions)  # of all probes: lists are read, and files opened, once
    for node in program.probes:
        try:
            probes = _expand(node, target, config, options, machine, warnings)
        except _Failed as failed:
            errors.append(failed.diagnostic)
            continue
        groups += _group(node, probes, target, errors)
    if errors:
        raise CompileError(errors)
    _check_number(sum(len(group.probe.probes) for group in groups), config.max_probes)
    return _without_tests(groups)


def _check_number(count: int, limit: int) -> None:
    if count > limit:
        hint = "raise max_probes in the config block or BPFTRACE_MAX_PROBES; many probes make a system slow"
        message = f"Can't attach to {count} probes because it exceeds the current limit of {limit} probes."
        raise UsageError(message, hint=hint)


def _without_tests(groups: list[Group]) -> list[Group]:
    """Leave out test and bench probes: they only run when somebody asks for tests. Raises UsageError if none is left."""
    left = [group for group in groups if group.probe.probes[0].type not in _TESTS]
    if groups and not left:
        kind = groups[0].probe.probes[0].type
        raise UsageError(f"No probes attached; use --{kind} to run {_TESTS[kind]} probes.")
    return left


_UNFILTERED = ("begin", "end", "self")
_TESTS = {"test": "test", "bench": "benchmark"}


class _Failed(Exception):
    def __init__(self, diagnostic: Diagnostic) -> None:
        super().__init__()
        self.diagnostic = diagnostic


def _expand(
    node: ast.Probe, target: Target, config: Config, options: Options, machine: Machine, warnings: list[Diagnostic]
) -> list[Probe]:
    """Expand each attach point; see to those that match nothing as `missing_probes` says.

    Unless somebody chose "error", a missing one among others that exist is a warning: tools name a function's old and
    new names side by side.
    """
    probes: list[Probe] = []
    missing: list[Diagnostic] = []
    for point in node.attach_points:
        try:
            probes += _expand_point(point, target, options, machine)
        except ProbeError as error:
            wrong = not isinstance(error, MissingProbeError)
            fault = diagnose(point.span, error.message, hint=error.hint)
            if wrong:
                raise _Failed(fault) from None
            missing.append(fault)
    wanted = config.missing_probes
    if missing and wanted == "error" and (config.missing_probes_chosen or not probes):
        raise _Failed(missing[0])
    if wanted != "ignore":
        warnings += [_skipped(fault) for fault in missing]
        if not probes and missing:
            span = node.attach_points[0].span
            warnings.append(diagnose(span, _REMOVED, severity="WARNING"))
    return _filter(probes, options)


_REMOVED = "Probe has no valid attach points. It is being removed which may cause issues with program behavior."


def _expand_point(point: ast.AttachPoint, target: Target, options: Options, machine: Machine) -> list[Probe]:
    """Return the probes that one attach point means. Raises ProbeError, MissingProbeError when there are none."""
    from ...probes.catalogue import expand_all, parse_attach_point

    path, unsafe = options.command_path, options.unsafe
    patterns = parse_attach_point(point.parts, pid=options.pid, command_path=path, unsafe=unsafe)
    return expand_all(patterns, target, pid=options.pid, command_path=path, unsafe=unsafe, machine=machine)


def _skipped(fault: Diagnostic) -> Diagnostic:
    return replace(fault, severity="WARNING", message=f"{fault.message} Skipping.")


def _filter(probes: list[Probe], options: Options) -> list[Probe]:
    """Keep what the user's filter matches, and what sonde itself runs: without begin and end a script is another one."""
    if not options.filter_probes:
        return probes
    import re

    try:
        wanted = re.compile(options.filter_probes)
    except re.error as error:
        raise UsageError(f"--probe-filter {options.filter_probes!r} is no regular expression: {error}") from None
    return [p for p in probes if wanted.search(p.name) or p.type in _UNFILTERED]


def _group(node: ast.Probe, probes: Sequence[Probe], target: Target, errors: list[Diagnostic]) -> list[Group]:
    from ...probes.catalogue import context_of

    words = _words(node) if len(probes) > 1 else frozenset()
    if "probe" in words and _by_cookie(probes, target):
        words -= {"probe"}
    by_key: dict[object, list[Probe]] = {}
    for probe in probes:
        by_key.setdefault(_key(probe, words), []).append(probe)
    groups = []
    for members in by_key.values():
        try:
            context = context_of(members[0], target)
        except ProbeError as error:
            errors.append(diagnose(node.attach_points[0].span, error.message, hint=error.hint))
            continue
        analysed = AnalysedProbe(node, tuple(members), context, node.body, node.predicate, {}, {}, {}, {}, {}, {})
        groups.append(Group(analysed))
    return groups


def _words(node: ast.Probe) -> frozenset[str]:
    """The names of builtins and functions that the program of a probe uses."""
    parts = (node.body,) if node.predicate is None else (node.predicate, node.body)
    return frozenset(n.name for part in parts for n in iter_nodes(part) if isinstance(n, (ast.Identifier, ast.Call)))


_COOKIE_TYPES = frozenset(["kprobe", "kretprobe", "uprobe", "uretprobe", "tracepoint"])
_COOKIES_FROM = 8  # fewer probes than this have a program each, in which their name is a constant


def _by_cookie(probes: Sequence[Probe], target: Target) -> bool:
    """Tell whether one program can find out at run time which of the probes it was attached to has fired."""
    if len(probes) < _COOKIES_FROM or not all(p.type in _COOKIE_TYPES for p in probes):
        return False
    return target.features.have("cookie:perf_event")


def _key(probe: Probe, words: frozenset[str]) -> object:
    """Two probes with equal keys may share a program."""
    key: list[object] = [probe.type, probe.program_type, probe.attach_type, probe.attach_btf]
    if probe.attach_btf:
        key.append(probe.spec.module)
    if "probe" in words:
        key.append(probe.name)
    if "uaddr" in words:
        key.append(probe.spec.path)
    if probe.type == "tracepoint" and "args" in words:
        key.append((probe.spec.category, probe.spec.event))
    if probe.usdt_args and any(w[:3] == "arg" for w in words):
        key.append(probe.usdt_args)
    if probe.type in ("uprobe", "rawtracepoint") and "args" in words:
        key.append(probe.name)
    return tuple(key)

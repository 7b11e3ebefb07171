"""rawtracepoint:[MODULE:]EVENT: the arguments of a tracepoint as kernel code passes them, before any record is made."""

from __future__ import annotations

from ..debuginfo.ctype import FuncProto, Pointer, strip
from ..errors import ProbeError
from ..spec.object import ProbeSpec
from .context import args_context, describe
from .functions import KERNEL, iter_btfs
from .grammar import wrong_count
from .model import Context, Pattern, Probe
from .wildcard import has_wildcard, make_matcher

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..debuginfo.btf import Btf
    from ..debuginfo.ctype import Param
    from ..spec.target import Target
    from .scope import Scope

_PREFIX = "btf_trace_"
_RAW_ARGS = 12  # the kernel passes that many at most


def parse(kind: str, args: tuple[str, ...], scope: Scope) -> Pattern:
    """[MODULE:]EVENT."""
    if len(args) not in (1, 2):
        raise wrong_count(kind, "2 or 1", len(args))
    module = args[0] if len(args) == 2 else ""
    event = args[-1]
    if not event:
        raise ProbeError("rawtracepoint should be attached to a function")
    text = f"{kind}:{module}:{event}" if module else f"{kind}:{event}"
    return Pattern(kind, text, module=module, event=event, wild=has_wildcard(event) or has_wildcard(module))


def expand(pattern: Pattern, scope: Scope) -> list[Probe]:
    """BTF names them all; without BTF a plain name is taken on trust, its arguments as bare numbers."""
    if scope.btf() is None:
        if pattern.wild:
            raise ProbeError(f"{pattern.text}: without BTF nobody can list raw tracepoints", hint="use tracepoint:…")
        spec = ProbeSpec(pattern.text, "rawtracepoint", "", event=pattern.event, module=pattern.module)
        return [Probe("rawtracepoint", pattern.text, spec, "raw_tracepoint")]
    if not pattern.wild:
        for module, btf in iter_btfs(pattern.module, scope):
            if btf.get_typedef(_PREFIX + pattern.event) is not None:
                return [_probe(module, pattern.event)]
        return []
    return [_probe(module, event) for module, event in _match(pattern, scope)]


def _match(pattern: Pattern, scope: Scope) -> list[tuple[str, str]]:
    wanted = make_matcher(pattern.event)
    return sorted(
        {
            (module, name[len(_PREFIX) :])
            for module, btf in iter_btfs(pattern.module, scope)
            for _, name in btf.iter_names(("typedef",))
            if name.startswith(_PREFIX) and wanted(name[len(_PREFIX) :])
        }
    )


def _probe(module: str, event: str) -> Probe:
    name = f"rawtracepoint:{module}:{event}"
    spec = ProbeSpec(name, "rawtracepoint", "", event=event, module=module)
    return Probe("rawtracepoint", name, spec, "tracing", "trace_raw_tp", event)


def context_of(probe: Probe, target: Target) -> Context:
    """The arguments by name and type, where BTF has them."""
    if probe.program_type == "raw_tracepoint":
        return Context("raw_tracepoint", arg_offsets=tuple(range(0, 8 * _RAW_ARGS, 8)))
    from .scope import Machine, Scope

    spec = probe.spec
    scope = Scope(target, Machine() if spec.module != KERNEL else Machine.offline())
    for _, btf in iter_btfs(spec.module, scope):
        params = _params(btf, spec.event)
        if params is not None:
            return args_context(spec.event, params)
    raise ProbeError(f"{probe.name}: BTF does not describe this event")


def _params(btf: Btf, event: str) -> tuple[Param, ...] | None:
    """The parameters after the private first one. The typedef is exact, but only functions have names for them."""
    for function in ("__probestub_" + event, "__traceiter_" + event):
        proto = btf.get_func(function)
        if proto is not None:
            return proto.params[1:]
    typedef = btf.get_typedef(_PREFIX + event)
    pointer = strip(typedef) if typedef else None
    target = strip(pointer.target) if isinstance(pointer, Pointer) else None
    return target.params[1:] if isinstance(target, FuncProto) else None


def close(pattern: Pattern, scope: Scope) -> list[str]:
    """Events that sound alike."""
    from .close import close_names

    everything = Pattern("rawtracepoint", "", event="*", wild=True)
    names = close_names(pattern.event, (event for _, event in _match(everything, scope)))
    return [f"rawtracepoint:{name}" for name in names]


def iter_names(pattern: Pattern, scope: Scope) -> Iterator[str]:
    """All that BTF names."""
    for module, event in _match(pattern, scope):
        yield f"rawtracepoint:{module}:{event}"


def iter_params(name: str, scope: Scope) -> Iterator[str]:
    """The arguments."""
    _, module, event = name.split(":")
    for _, btf in iter_btfs(module, scope):
        for number, param in enumerate(_params(btf, event) or ()):
            yield describe(param.ctype, param.name or f"arg{number}")

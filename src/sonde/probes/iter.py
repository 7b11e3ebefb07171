"""iter:NAME[:PIN]: a program that visits every object of one kind (tasks, files, maps …), one after the other."""

from __future__ import annotations

from ..errors import ProbeError
from ..spec.object import ProbeSpec
from .context import describe
from .model import Context, Pattern, Probe
from .wildcard import has_wildcard, make_matcher

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..spec.target import Target
    from .scope import Scope

_PREFIX = "bpf_iter__"


def parse(kind: str, args: tuple[str, ...], scope: Scope) -> Pattern:
    """NAME[:PIN]; a pin is relative to /sys/fs/bpf."""
    if len(args) not in (1, 2):
        raise ProbeError("iter probe type takes 2 arguments (1 optional)")
    pin = args[1] if len(args) == 2 else ""
    if pin and not pin.startswith("/"):
        pin = "/sys/fs/bpf/" + pin
    wild = has_wildcard(args[0])
    return Pattern(kind, f"{kind}:{args[0]}", event=args[0], pin=pin, wild=wild)


def expand(pattern: Pattern, scope: Scope) -> list[Probe]:
    """One probe. What the kernel can visit is written in its BTF."""
    if pattern.wild or has_wildcard(pattern.pin):
        raise ProbeError("iter probe type does not support wildcards")
    if not pattern.event:
        raise ProbeError("iter should specify a iterator's name")
    btf = scope.btf()
    if btf is not None and btf.get_struct(_PREFIX + pattern.event) is None:
        from .close import close_names

        raise ProbeError(
            f"iter {pattern.event} not available for your kernel version.",
            close=close_names(pattern.event, _names(scope)),
        )
    spec = ProbeSpec(pattern.text, "iter", "", event=pattern.event, pin=pattern.pin)
    return [Probe("iter", pattern.text, spec, "tracing", "trace_iter", pattern.event)]


def _names(scope: Scope) -> list[str]:
    btf = scope.btf()
    if btf is None:
        return []
    structs = {name[len(_PREFIX) :] for _, name in btf.iter_names(("struct",)) if name.startswith(_PREFIX)}
    # Some such structs are not iterators; each iterator has a function of its name that programs are verified against.
    return sorted(name for name in structs if btf.get_func("bpf_iter_" + name) is not None)


def context_of(probe: Probe, target: Target) -> Context:
    """The context is struct bpf_iter__NAME itself."""
    struct = target.btf().get_struct(_PREFIX + probe.spec.event)
    if struct is None:
        raise ProbeError(f"iter {probe.spec.event} not available for your kernel version.")
    return Context("iter", args=struct)


def iter_names(pattern: Pattern, scope: Scope) -> Iterator[str]:
    """Every iterator that BTF describes; none where the kernel takes no such programs."""
    matches = make_matcher(pattern.event)
    for name in _names(scope) if scope.have_feature("program:tracing:iter") else ():
        if matches(name):
            yield f"iter:{name}"


def iter_params(name: str, scope: Scope) -> Iterator[str]:
    """What the program is given, without the `meta` that all have."""
    btf = scope.btf()
    proto = btf.get_func("bpf_iter_" + name.partition(":")[2]) if btf else None
    for param in proto.params[1:] if proto else ():
        yield describe(param.ctype, param.name)

"""fentry:[MODULE:]FUNCTION, fexit, and fentry:bpf:[ID:]PROGRAM: entry and exit of functions with typed arguments."""

from __future__ import annotations

from ..debuginfo.ctype import Forward, Param, Pointer, Struct, strip
from ..errors import ProbeError
from ..spec.object import ProbeSpec
from .context import args_context, describe, describe_result
from .functions import KERNEL, close_functions, get_proto, have_function, iter_btfs, list_functions
from .grammar import read_uint, wrong_count
from .model import Context, Pattern, Probe
from .wildcard import has_wildcard, make_matcher

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ..debuginfo.ctype import CType
    from ..spec.target import BpfProgram, Target
    from .scope import Scope

BPF = "bpf"  # the pseudo module of BPF programs
_OWN_CONTEXTS = {"xdp_md": "xdp_buff", "__sk_buff": "sk_buff"}  # what the kernel hands over for a program's own word
_PARAMS = 6  # before Linux 6.6 functions with more cannot be attached to: patterns leave them out, names do not


def parse(kind: str, args: tuple[str, ...], scope: Scope) -> Pattern:
    """[MODULE:]FUNCTION or bpf:[ID:]PROGRAM."""
    if len(args) not in (1, 2, 3):
        raise wrong_count(kind, "1 or 3", len(args))
    if args[0] == BPF:
        return _parse_bpf(kind, args)
    if len(args) == 3:
        raise ProbeError("Only the 'bpf' variant of this probe supports 4 arguments")
    module = args[0] if len(args) == 2 else ""
    symbol = args[-1]
    if not symbol:
        raise ProbeError("fentry/fexit should specify a function")
    wild = has_wildcard(symbol) or has_wildcard(module)
    text = f"{kind}:{module}:{symbol}" if module else f"{kind}:{symbol}"
    return Pattern(kind, text, module=module, symbol=symbol, wild=wild)


def _parse_bpf(kind: str, args: tuple[str, ...]) -> Pattern:
    if len(args) == 1:
        raise ProbeError(
            "the 'bpf' variant of this probe requires a bpf program name and optional bpf program id",
            hint=f"write {kind}:bpf:PROGRAM or {kind}:bpf:ID:PROGRAM",
        )
    ident = 0
    if len(args) == 3 and args[1] != "*":
        try:
            ident = read_uint(args[1], "")
        except ProbeError:
            raise ProbeError("bpf program id must be a number or '*'") from None
    wild = has_wildcard(args[-1])
    return Pattern(kind, ":".join((kind, *args)), module=BPF, symbol=args[-1], address=ident, wild=wild)


def expand(pattern: Pattern, scope: Scope) -> list[Probe]:
    """Only what BTF describes can be attached to."""
    kind = pattern.type
    if pattern.module == BPF:
        return [_probe(kind, f"{BPF}:{ident}", symbol) for ident, symbol in _match_bpf(pattern, scope)]
    if not pattern.wild:
        if scope.machine.traceable and not have_function(pattern.module, pattern.symbol, scope):
            return []
        for module, btf in iter_btfs(pattern.module, scope):
            if btf.get_func(pattern.symbol) is not None:
                return [_probe(kind, module, pattern.symbol)]
        return []
    return [_probe(kind, *found) for found in _match(pattern, scope) if _can_attach(*found, scope)]


def _match(pattern: Pattern, scope: Scope) -> list[tuple[str, str]]:
    wanted = make_matcher(pattern.symbol)
    traceable = {name for name, _ in list_functions(scope)}
    return sorted(
        {
            (module, name)
            for module, btf in iter_btfs(pattern.module, scope)
            for name in btf.iter_func_names()
            if wanted(name) and name in traceable
        }
    )


def _match_bpf(pattern: Pattern, scope: Scope) -> list[tuple[int, str]]:
    """Return (id of the program, function) of all functions of loaded BPF programs that match."""
    wanted = make_matcher(pattern.symbol)
    programs = [p for p in _bpf_programs(scope.target) if pattern.address in (0, p.ident)]
    return [(p.ident, name) for p in programs for name in sorted(p.functions) if wanted(name)]


def _bpf_programs(target: Target | None) -> Sequence[BpfProgram]:
    return target.bpf_programs() if target is not None and target.bpf_programs is not None else ()


def _bpf_params(ident: int, symbol: str, scope: Scope) -> tuple[tuple[Param, ...], CType] | None:
    """Return parameters and result of a function of a BPF program.

    A program calls its context by a name of its own; what the kernel hands over is the struct behind it.
    """
    program = next((p for p in _bpf_programs(scope.target) if p.ident == ident), None)
    proto = program.btf.get_func(symbol) if program is not None else None
    if proto is None:
        return None
    return tuple(Param(p.name, _real_context(p.ctype, scope)) for p in proto.params), proto.result


def _real_context(ctype: CType, scope: Scope) -> CType:
    target = strip(ctype.target) if isinstance(ctype, Pointer) else None
    name = _OWN_CONTEXTS.get(target.name) if isinstance(target, (Struct, Forward)) else None
    btf = scope.btf() if name else None
    real = btf.get_struct(name) if btf is not None and name else None
    return ctype if real is None else Pointer(real)


def _can_attach(module: str, symbol: str, scope: Scope) -> bool:
    """Tell whether older kernels attach to it too, so that one function out of many does not spoil them all."""
    proto = get_proto(module, symbol, scope)
    return proto is not None and len(proto.params) <= _PARAMS


def _probe(kind: str, module: str, symbol: str) -> Probe:
    name = f"{kind}:{module}:{symbol}"
    spec = ProbeSpec(name, kind, "", module=module, symbol=symbol)
    return Probe(kind, name, spec, "tracing", "trace_" + kind, symbol)


def context_of(probe: Probe, target: Target) -> Context:
    """The arguments by name; at the exit also the result."""
    from .scope import Machine, Scope

    spec = probe.spec
    if spec.module.startswith(BPF + ":"):
        found = _bpf_params(int(spec.module[4:]), spec.symbol, Scope(target))
        if found is None:
            raise ProbeError(f"{probe.name}: the BPF program has gone away")
        return args_context(spec.symbol, found[0], found[1] if probe.type == "fexit" else None, foreign=True)
    scope = Scope(target, Machine() if spec.module != KERNEL else Machine.offline())
    proto = get_proto(spec.module, spec.symbol, scope)
    if proto is None:
        raise ProbeError(f"{probe.name}: BTF does not describe this function")
    return args_context(spec.symbol, proto.params, proto.result if probe.type == "fexit" else None)


def close(pattern: Pattern, scope: Scope) -> list[str]:
    """Functions that sound alike."""
    return close_functions(pattern.type, pattern.symbol, scope)


def iter_names(pattern: Pattern, scope: Scope) -> Iterator[str]:
    """Functions that BTF describes and the kernel lists as traceable; none where such programs cannot be attached."""
    if pattern.module == BPF:
        yield from (probe.name for probe in expand(pattern, scope))
        return
    known = scope.machine.traceable or scope.have_feature("program:tracing:" + pattern.type)
    if known:
        for module, symbol in _match(pattern, scope):
            yield f"{pattern.type}:{module}:{symbol}"


def iter_params(name: str, scope: Scope) -> Iterator[str]:
    """The parameters; for fexit also the result."""
    kind, module, *rest, symbol = name.split(":")
    if module == BPF:
        found = _bpf_params(int(rest[0]), symbol, scope)
        for param in found[0] if found else ():
            yield describe(param.ctype, param.name)
        if found and kind == "fexit":
            yield from describe_result(found[1])
        return
    proto = get_proto(module, symbol, scope)
    for param in proto.params if proto else ():
        yield describe(param.ctype, param.name)
    if proto and kind == "fexit":
        yield from describe_result(proto.result)

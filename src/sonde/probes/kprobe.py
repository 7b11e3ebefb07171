"""kprobe:[MODULE:]FUNCTION[+OFFSET] and kretprobe: almost any instruction of the kernel, with its registers."""

from __future__ import annotations

from ..errors import ProbeError
from ..spec.object import ProbeSpec
from .context import describe, describe_result, regs_context
from .functions import close_functions, get_proto, have_function, match_functions
from .grammar import read_uint, split_offset, wrong_count
from .model import Context, Pattern, Probe
from .wildcard import has_wildcard

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..spec.target import Target
    from .scope import Scope


def parse(kind: str, args: tuple[str, ...], scope: Scope) -> Pattern:
    """[MODULE:]FUNCTION[+OFFSET], or an address, which needs --unsafe."""
    if len(args) not in (1, 2):
        raise wrong_count(kind, "1 or 2", len(args))
    module = args[0] if len(args) == 2 else ""
    text = args[-1]
    if not text:
        raise ProbeError("kprobes should be attached to a function or an address")
    if text[0].isdecimal():
        address = read_uint(text, "Invalid address")
        if not scope.unsafe:
            raise ProbeError("Probing by address requires --unsafe", hint="a wrong address can crash the kernel")
        return Pattern(kind, f"{kind}:{text}", address=address)
    symbol, offset = split_offset(text, allowed=kind == "kprobe")
    wild = has_wildcard(symbol) or has_wildcard(module)
    if wild and offset:
        raise ProbeError("Cannot use wildcards with an offset")
    return Pattern(kind, _name(kind, module, symbol, offset), module=module, symbol=symbol, offset=offset, wild=wild)


def _name(kind: str, module: str, symbol: str, offset: int = 0) -> str:
    return f"{kind}:" + (f"{module}:" if module else "") + symbol + (f"+{offset}" if offset else "")


def expand(pattern: Pattern, scope: Scope) -> list[Probe]:
    """A plain function is looked up in BTF, then in kallsyms; lists are read for wildcards only."""
    kind = pattern.type
    if pattern.address:
        spec = ProbeSpec(pattern.text, kind, "", address=pattern.address)
        return [Probe(kind, pattern.text, spec, "kprobe")]
    if not pattern.wild:
        if not have_function(pattern.module, pattern.symbol, scope):
            return []
        return [_probe(kind, pattern.module, pattern.symbol, pattern.offset)]
    found = match_functions(pattern.module, pattern.symbol, scope)
    if pattern.module:
        return [_probe(kind, module, symbol) for module, symbol in found]
    return [_probe(kind, "", symbol) for symbol in sorted({symbol for _, symbol in found})]


def _probe(kind: str, module: str, symbol: str, offset: int = 0) -> Probe:
    name = _name(kind, module, symbol, offset)
    return Probe(kind, name, ProbeSpec(name, kind, "", module=module, symbol=symbol, offset=offset), "kprobe")


def context_of(probe: Probe, target: Target) -> Context:
    """The registers at the instruction, or after the function returned."""
    return regs_context(target.arch)


def close(pattern: Pattern, scope: Scope) -> list[str]:
    """Functions that sound alike."""
    return close_functions(pattern.type, pattern.symbol, scope)


def iter_names(pattern: Pattern, scope: Scope) -> Iterator[str]:
    """The functions that the kernel lists as traceable; none where it has no kprobes."""
    if scope.machine.have_kprobes():  # loading the programs works without, so features cannot tell
        for probe in expand(pattern, scope):
            yield probe.name


def iter_params(name: str, scope: Scope) -> Iterator[str]:
    """The C types of what the probe reaches: parameters by number at the entry, the result after the return."""
    parts = name.split("+")[0].split(":")
    proto = get_proto(parts[1] if len(parts) == 3 else "", parts[-1], scope)
    if proto is None:
        return
    if parts[0] == "kretprobe":
        yield from describe_result(proto.result)
        return
    for number, param in enumerate(proto.params):
        yield describe(param.ctype, f"arg{number}")

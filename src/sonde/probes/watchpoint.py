"""watchpoint:ADDRESS:LENGTH:MODE: a process reads, writes or executes memory."""

from __future__ import annotations

from ..errors import ProbeError
from ..spec.object import ProbeSpec
from .context import regs_context
from .grammar import read_uint, wrong_count
from .model import Context, Pattern, Probe

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..spec.target import Target
    from .scope import Scope

MODES = {"x86_64": ("x", "w", "rw"), "aarch64": ("r", "w", "x", "rw")}  # what the debug registers can do


def parse(kind: str, args: tuple[str, ...], scope: Scope) -> Pattern:
    """ADDRESS:LENGTH:MODE; the letters of the mode come in any order."""
    if len(args) != 3:
        raise wrong_count(kind, "3", len(args))
    address = read_uint(args[0], "Invalid function/address argument")
    length = read_uint(args[1], "Invalid length argument")
    mode = "".join(sorted(args[2]))
    if not address:
        raise ProbeError("watchpoint must be attached to a non-zero address")
    if length not in (1, 2, 4, 8):
        raise ProbeError("watchpoint length must be one of (1,2,4,8)")
    if not mode or mode.strip("rwx"):
        raise ProbeError("watchpoint mode must be combination of (r,w,x)")
    if len(set(mode)) < len(mode):
        raise ProbeError("watchpoint modes may not be duplicated")
    modes = MODES.get(scope.arch, ())
    if mode not in modes:
        raise ProbeError(f"invalid watchpoint mode: {mode}", hint="supported modes: " + ",".join(modes))
    if address % length and mode != "x":
        raise ProbeError(
            f"watchpoint address 0x{address:x} must be a multiple of its length, {length}",
            hint="the processor watches aligned memory only; use several shorter watchpoints",
        )
    text = f"{kind}:{args[0]}:{length}:{args[2]}"
    return Pattern(kind, text, address=address, length=length, mode=mode)


def expand(pattern: Pattern, scope: Scope) -> list[Probe]:
    """One probe: in the process that -p or -c names, or on each CPU for any process."""
    spec = ProbeSpec(
        pattern.text,
        pattern.type,
        "",
        address=pattern.address,
        length=pattern.length,
        mode=pattern.mode,
        pid=scope.pid,
    )
    return [Probe(pattern.type, pattern.text, spec, "perf_event")]


def context_of(probe: Probe, target: Target) -> Context:
    """The registers after the access."""
    return regs_context(target.arch, "perf_event")


def iter_names(pattern: Pattern, scope: Scope) -> Iterator[str]:
    """There is no list of addresses."""
    return iter(())

"""The table of probe types: names, aliases, and which module describes each.

A module has four functions:

parse(kind, args, scope) -> Pattern         the parts after the provider, checked; ProbeError in bpftrace's words
expand(pattern, scope) -> list[Probe]       sorted by name; empty when nothing matches
context_of(probe, target) -> Context
iter_names(pattern, scope)                  names as a listing shows them; `iter_params(name, scope)` their arguments
"""

from __future__ import annotations

from ..errors import ProbeError
from ..record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType


class ProbeType(Record):
    """One probe type. `listed` says where `*` finds it: "kernel", "user" or "" (only by its own name)."""

    name: str
    aliases: tuple[str, ...]
    module: str
    listed: str = ""
    builtin: str = ""  # what the builtin `probetype` gives, where that is not `name`


TYPES = (
    ProbeType("begin", (), "special", builtin="special"),
    ProbeType("end", (), "special", builtin="special"),
    ProbeType("self", (), "special", builtin="special"),
    ProbeType("test", (), "special"),
    ProbeType("bench", (), "special"),
    ProbeType("fentry", ("f", "kfunc"), "fentry", "kernel"),
    ProbeType("fexit", ("fr", "kretfunc"), "fentry"),
    ProbeType("hardware", ("h",), "software", "kernel"),
    ProbeType("interval", ("i",), "timer"),
    ProbeType("iter", ("it",), "iter", "kernel"),
    ProbeType("kprobe", ("k",), "kprobe", "kernel"),
    ProbeType("kretprobe", ("kr",), "kprobe"),
    ProbeType("profile", ("p",), "timer"),
    ProbeType("rawtracepoint", ("rt",), "rawtracepoint", "kernel"),
    ProbeType("software", ("s",), "software", "kernel"),
    ProbeType("tracepoint", ("t",), "tracepoint", "kernel"),
    ProbeType("uprobe", ("u",), "uprobe", "user"),
    ProbeType("uretprobe", ("ur",), "uprobe"),
    ProbeType("usdt", ("U",), "usdt", "user"),
    ProbeType("watchpoint", ("w",), "watchpoint"),
)


def get_type(word: str) -> ProbeType | None:
    """Return the type that a provider as written means: any case, but `u` and `U` are two aliases."""
    for kind in TYPES:
        if word in kind.aliases:
            return kind
    lower = word.lower()
    for kind in TYPES:
        if lower == kind.name or lower in kind.aliases:
            return kind
    return None


def find_type(word: str) -> ProbeType:
    """Return the type that a provider means. Raises ProbeError, with close names."""
    kind = get_type(word)
    if kind is None:
        from .close import close_names

        raise ProbeError(f"Invalid probe type: {word}", close=close_names(word.lower(), [t.name for t in TYPES]))
    return kind


def load_module(kind: str) -> ModuleType:
    """Import the module that describes the type with the canonical name `kind`."""
    return __import__(
        f"{__package__}.{find_type(kind).module}", fromlist=["parse"]
    )  # importlib would cost a millisecond

"""What each function of a BCC tool is compiled for: an `Entry` from what the tool attached (see bcc_texts) and from the function's name."""

from __future__ import annotations

from sonde.debuginfo.usdt import UsdtArg
from sonde.lang.c.options import Entry

USDT = tuple(UsdtArg(8, True, "reg", 0, 8 * i) for i in range(8))
PREFIXES = {
    "kprobe__": Entry("kprobe"),
    "kretprobe__": Entry("kprobe"),
    "tracepoint__": Entry("tracepoint"),
    "raw_tracepoint__": Entry("raw_tracepoint"),
}
# These attach their functions once they have found a process of their language.
WAITING = frozenset(f"{language}stat" for language in ("java", "node", "perl", "php", "python", "ruby", "tcl"))
KINDS = {"usdt": Entry("kprobe", user=True, usdt=USDT), "uprobe": Entry("kprobe", user=True)}
FENTRY = {"kfunc__": "trace_fentry", "kretfunc__": "trace_fexit", "kmod_ret__": "modify_return"}


def entry_of(tool: str, name: str, attached: dict[str, str]) -> Entry | None:
    """What a function becomes: what the tool attaches it to, or what its name says; None for one that only has to compile."""
    kind = attached.get(name) or ("uprobe" if tool in WAITING else None)
    if kind is not None:
        return KINDS.get(kind) or Entry(kind)
    for prefix, attach_type in FENTRY.items():
        if name.startswith(prefix):
            return Entry("tracing", attach_type, name.removeprefix(prefix).removeprefix("vmlinux__"))
    return next((entry for prefix, entry in PREFIXES.items() if name.startswith(prefix)), None)

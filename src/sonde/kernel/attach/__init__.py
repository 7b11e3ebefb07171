"""Probes to links: one file for each kind of probe, found by the probe's type.

Each file has `attach(program, probes, without)`, which attaches one program to probes of one type, cheapest method
first, and says in the link's `how` what was refused on the way. The probe's `pid` is seen to by those kinds that the
kernel can bind to a process (uprobe, USDT, profile, software, hardware, watchpoint); the others fire for every process.
"""

from __future__ import annotations

from ...errors import ProbeError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ...spec.object import ProbeSpec
    from ..links import KernelLink
    from ..programs import Program

    Attach = Callable[[Program, Sequence[ProbeSpec], frozenset[str]], list[KernelLink]]

# Probe type to the file that attaches it.
KINDS = {
    "begin": "by_hand",
    "end": "by_hand",
    "self": "by_hand",
    "test": "by_hand",
    "bench": "by_hand",
    "interval": "timer",
    "profile": "timer",
    "software": "counter",
    "hardware": "counter",
    "watchpoint": "watchpoint",
    "tracepoint": "tracepoint",
    "rawtracepoint": "raw_tracepoint",
    "fentry": "tracing",
    "fexit": "tracing",
    "fmod_ret": "tracing",
    "lsm": "tracing",
    "xdp": "xdp",
    "struct_ops": "struct_ops",
    "cgroup": "target",
    "iter": "iter",
    "kprobe": "kprobe",
    "kretprobe": "kprobe",
    "uprobe": "uprobe",
    "uretprobe": "uprobe",
    "usdt": "uprobe",
}


def attach(program: Program, probes: Sequence[ProbeSpec], without: frozenset[str] = frozenset()) -> list[KernelLink]:
    """Attach `program` to `probes`, which have one type. The caller closes the links."""
    return _find(probes[0])(program, probes, without)


def _find(probe: ProbeSpec) -> Attach:
    name = KINDS.get(probe.type)
    if name is None:
        raise ProbeError(f"{probe.name}: the kernel engine has no probes of type {probe.type!r}")
    module = __import__(f"{__name__}.{name}", fromlist=["attach"])
    found: Attach = module.attach
    return found

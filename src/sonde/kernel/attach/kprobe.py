"""kprobe and kretprobe: one kprobe_multi link for several functions, else the kprobe PMU, else an entry in tracefs.

A multi link (Linux 5.18) goes through fprobe and takes only the entries of functions that ftrace can trace, whole
or not at all. What it refuses goes one by one through the kprobe PMU (4.17), which takes any address. A single
probe starts there: it sees all registers and unwinds on every kernel. kprobe_events in tracefs is left for kernels
whose PMU does not know a symbol; it is the only method that survives a kill, so entries carry our pid and those of dead
processes are removed.
"""

from __future__ import annotations

from errno import EADDRNOTAVAIL, EILSEQ, EINVAL, ENOENT, EOPNOTSUPP, ESRCH
from struct import pack

from ...errors import AttachError, FeatureError, ProbeError, SondeError
from .. import abi
from ..abi import ENOTSUPP
from ..btf import is_kernel
from ..links import KernelLink, attach_each, create_link
from ..perf_event import attach_events, open_event
from ..refusal import attach_refusal, reason
from ..syscall import address
from .uprobe import read_pmu_type

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from ...spec.object import ProbeSpec
    from ..programs import Program

PMU = "/sys/bus/event_source/devices/kprobe"
MULTI = "trace_kprobe_multi"

# What a multi link answers when the kernel lacks it, or when one of the functions cannot be traced by it.
_TRY_SINGLY = (EINVAL, ENOTSUPP, EOPNOTSUPP, ENOENT, ESRCH)


def attach(program: Program, probes: Sequence[ProbeSpec], without: frozenset[str]) -> list[KernelLink]:
    """Attach at each function or address. Raises ProbeError, AttachError, PrivilegeError or FeatureError."""
    entries = [p for p in probes if not p.offset and not p.address]
    if len(entries) < 2 or len(entries) != len(probes) or "kprobe_multi" in without:
        return attach_each(program, probes, _attach_one)
    link_fd = _create_multi(program, probes)
    if link_fd >= 0:
        return [KernelLink(probes, "kprobe_multi link", [link_fd])]
    if -link_fd not in _TRY_SINGLY:
        raise explain(probes[0], -link_fd)
    refused = f"kprobe_multi: {reason(-link_fd)}"
    links: list[KernelLink] = []
    try:
        some, rest = _split_by_ftrace(probes)
        if some and rest:
            link_fd = _create_multi(program, some)
            if link_fd >= 0:
                links.append(KernelLink(some, "kprobe_multi link", [link_fd]))
            else:
                rest = list(probes)
        else:
            rest = list(probes)
        links += attach_each(program, rest, lambda program, probe: _attach_one(program, probe, refused))
    except BaseException:
        for link in reversed(links):
            link.close()
        raise
    return links


def _create_multi(program: Program, probes: Sequence[ProbeSpec]) -> int:
    """Make the multi link; a descriptor or a negative errno. Functions of modules are given by address."""
    count = len(probes)
    cookies = pack(f"={count}Q", *[p.cookie for p in probes]) if any(p.cookie for p in probes) else b""
    flags = abi.BPF_F_PROBE_MULTI_RETURN if probes[0].type == "kretprobe" else 0
    names = [p.symbol.encode() + b"\0" for p in probes]
    if all(is_kernel(p.module) for p in probes):
        table = pack(f"={count}Q", *[address(name) for name in names])
        rest = abi.LINK_KPROBE_MULTI.pack(flags, count, address(table), 0, address(cookies))
    else:
        found = find_addresses(probes)
        if found is None:
            return -ENOENT
        table = pack(f"={count}Q", *found)
        rest = abi.LINK_KPROBE_MULTI.pack(flags, count, 0, address(table), address(cookies))
    return create_link(program.fd_as(MULTI), 0, MULTI, rest)


def _split_by_ftrace(probes: Sequence[ProbeSpec]) -> tuple[list[ProbeSpec], list[ProbeSpec]]:
    """Those that ftrace can trace, and the others. All are "others" where its list cannot be read."""
    from ...debuginfo.tracefs import find_root

    try:
        with open(find_root() + "/available_filter_functions", "rb") as file:
            known = {line.split(None, 1)[0] for line in file if line.strip()}
    except (OSError, SondeError):
        known = set()
    some: list[ProbeSpec] = []
    rest: list[ProbeSpec] = []
    for probe in probes:
        (some if probe.symbol.encode() in known else rest).append(probe)
    return some, rest


def find_addresses(probes: Sequence[ProbeSpec]) -> list[int] | None:
    """Return the address of each probe's function, by module where one is named; None when one has none."""
    from ...debuginfo.kallsyms import Kallsyms

    wanted = {(p.symbol, "" if is_kernel(p.module) else p.module): 0 for p in probes}
    missing = len(wanted)
    symbols = Kallsyms()
    try:
        for where, _, name, module in symbols.iter_symbols():
            if wanted.get((name, module), 1) == 0:
                wanted[name, module] = where
                missing -= 1
                if not missing:
                    break
    finally:
        symbols.close()
    found = [wanted[p.symbol, "" if is_kernel(p.module) else p.module] for p in probes]
    return found if all(found) else None


def _attach_one(program: Program, probe: ProbeSpec, refused: str = "") -> KernelLink:
    """Attach one by the PMU; when that does not know the symbol, by tracefs."""
    tried = [refused] if refused else []
    fd = _open_event(probe)
    if fd >= 0:
        return attach_events(program, probe, iter((fd,)), "kprobe perf_event", tried)
    if -fd not in (ENOENT, EINVAL) or probe.address:
        raise explain(probe, -fd)
    from .tracefs_probe import attach_by_tracefs

    tried.append(f"kprobe perf_event: {reason(-fd)}")
    try:
        return attach_by_tracefs(program, probe, tried)
    except (FeatureError, AttachError):
        raise explain(probe, -fd) from None


def _open_event(probe: ProbeSpec) -> int:
    name = probe_symbol(probe).encode() + b"\0" if not probe.address else b""
    attr = abi.perf_event_attr(
        read_pmu_type(PMU),
        1 if probe.type == "kretprobe" else 0,
        config1=address(name),
        config2=probe.address or probe.offset,
    )
    return open_event(attr)


def probe_symbol(probe: ProbeSpec) -> str:
    """Return the function as the kernel wants it: "function" or "module:function"."""
    return probe.symbol if is_kernel(probe.module) else f"{probe.module}:{probe.symbol}"


def explain(probe: ProbeSpec, errno: int) -> Exception:
    """Say why the kernel refused a kprobe. EINVAL has many meanings, one of them that there is no such function."""
    if errno in (ENOENT, ESRCH) or (errno == EINVAL and not probe.address and find_addresses([probe]) is None):
        return ProbeError(
            f"attach {probe.name}: this kernel has no function {probe_symbol(probe)} that can be probed",
            hint="it may be inlined, marked notrace, or of a module that is not loaded",
        )
    hint = ""
    if errno == EADDRNOTAVAIL:
        hint = f"several functions are called {probe.symbol}: name the module, or give the address"
    elif errno == EILSEQ:
        hint = f"{probe.symbol}+{probe.offset} is not at the start of an instruction"
    elif errno == EINVAL:
        # Every function that is declared inline is notrace, also where the compiler made one of its own of it.
        hint = f"{probe_symbol(probe)} is blacklisted for probes or marked notrace, or the offset is outside of it"
    return attach_refusal(probe.name, errno, hint=hint)

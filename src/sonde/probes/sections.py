"""libbpf's section names: what the name of a program's section says of its type, and of the place that it is attached to.

Names are those of libbpf 1.7 (section_defs in libbpf.c). A section without a place to attach to (`SEC("kprobe")`, `SEC("xdp")`) gives a program
that is loaded only; one that begins with `?` gives nothing unless somebody asks for it.
"""

from __future__ import annotations

from ..errors import ProbeError
from ..record import Record
from ..spec.object import ProbeSpec

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..debuginfo.usdt import UsdtArg
    from ..spec.target import Target

XDP_HAS_FRAGS = 1 << 5  # BPF_F_XDP_HAS_FRAGS: the program takes packets of several pieces


class Section(Record):
    """What a section's name means. `probe` is the probe type of the place behind it, "" where nothing is attached."""

    type: str
    attach_type: str = ""
    probe: str = ""
    sleepable: bool = False
    user: bool = False
    flags: int = 0  # of the program: XDP_HAS_FRAGS


class Place(Record):
    """One place that a section names. `attach_btf` is what a tracing program is verified against, `usdt_args` where arguments lie."""

    spec: ProbeSpec
    attach_btf: str = ""
    usdt_args: tuple[UsdtArg, ...] = ()


def section_kinds() -> dict[str, Section]:
    """Return all sections by what stands before the place ("kprobe", "fentry.s"), or by their whole names."""
    kinds: dict[str, Section] = {}
    for name in ("kprobe", "kretprobe", "ksyscall", "kretsyscall"):
        kinds[name] = Section("kprobe", probe=name)
    for name in ("kprobe", "kretprobe"):
        kinds[name + ".multi"] = Section("kprobe", probe=name)
    for name in ("uprobe", "uretprobe", "usdt"):
        for suffix in ("", ".s", ".multi", ".multi.s"):
            if name != "usdt" or "multi" not in suffix:
                kinds[name + suffix] = Section("kprobe", probe=name, sleepable=suffix.endswith(".s"), user=True)
    for name in ("tracepoint", "tp"):
        kinds[name] = Section("tracepoint", probe="tracepoint")
    for name in ("raw_tracepoint", "raw_tp"):
        kinds[name] = Section("raw_tracepoint", probe="rawtracepoint")
        kinds[name + ".w"] = Section("raw_tracepoint_writable", probe="rawtracepoint")
    kinds["tp_btf"] = Section("tracing", "trace_raw_tp", "rawtracepoint")
    for name, attach_type in (("fentry", "trace_fentry"), ("fexit", "trace_fexit"), ("fmod_ret", "modify_return")):
        kinds[name] = Section("tracing", attach_type, name)
        kinds[name + ".s"] = Section("tracing", attach_type, name, sleepable=True)
    for suffix in ("", ".s"):
        kinds["lsm" + suffix] = Section("lsm", "lsm_mac", "lsm", sleepable=bool(suffix))
        kinds["iter" + suffix] = Section("tracing", "trace_iter", "iter", sleepable=bool(suffix))
    for name, (kind, attach_type) in _LOADED_ONLY.items():
        flags = XDP_HAS_FRAGS if name.startswith("xdp.frags") else 0
        kinds[name] = Section(kind, attach_type, sleepable=kind == "syscall", flags=flags)
    for name in _CGROUP_ADDRESSES:
        family = {"4": "inet4", "6": "inet6", "x": "unix"}[name[-1]]
        verb = name.rstrip("46").removesuffix("_unix")
        prefix = "udp" + family[-1] if verb in ("sendmsg", "recvmsg") and family != "unix" else family
        kinds["cgroup/" + name] = Section("cgroup_sock_addr", f"cgroup_{prefix}_{verb}")
    return kinds


_LOADED_ONLY = {
    "kprobe.session": ("kprobe", "trace_kprobe_session"), "uprobe.session": ("kprobe", "trace_uprobe_session"),
    "perf_event": ("perf_event", ""), "socket": ("socket_filter", ""), "syscall": ("syscall", ""),
    "xdp": ("xdp", "xdp"), "xdp.frags": ("xdp", "xdp"), "xdp/devmap": ("xdp", "xdp_devmap"),
    "xdp.frags/devmap": ("xdp", "xdp_devmap"), "xdp/cpumap": ("xdp", "xdp_cpumap"),
    "xdp.frags/cpumap": ("xdp", "xdp_cpumap"),
    "tc": ("sched_cls", ""), "classifier": ("sched_cls", ""), "action": ("sched_act", ""),
    "tc/ingress": ("sched_cls", "tcx_ingress"), "tc/egress": ("sched_cls", "tcx_egress"),
    "tcx/ingress": ("sched_cls", "tcx_ingress"), "tcx/egress": ("sched_cls", "tcx_egress"),
    "netkit/primary": ("sched_cls", "netkit_primary"), "netkit/peer": ("sched_cls", "netkit_peer"),
    "lsm_cgroup": ("lsm", "lsm_cgroup"), "freplace": ("ext", ""),
    "struct_ops": ("struct_ops", ""), "struct_ops.s": ("struct_ops", ""),
    "lwt_in": ("lwt_in", ""), "lwt_out": ("lwt_out", ""), "lwt_xmit": ("lwt_xmit", ""),
    "lwt_seg6local": ("lwt_seg6local", ""),
    "sockops": ("sock_ops", "cgroup_sock_ops"), "sk_skb": ("sk_skb", ""),
    "sk_skb/stream_parser": ("sk_skb", "sk_skb_stream_parser"),
    "sk_skb/stream_verdict": ("sk_skb", "sk_skb_stream_verdict"), "sk_skb/verdict": ("sk_skb", "sk_skb_verdict"),
    "sk_msg": ("sk_msg", "sk_msg_verdict"), "sk_lookup": ("sk_lookup", "sk_lookup"),
    "sk_reuseport": ("sk_reuseport", "sk_reuseport_select"),
    "sk_reuseport/migrate": ("sk_reuseport", "sk_reuseport_select_or_migrate"),
    "lirc_mode2": ("lirc_mode2", "lirc_mode2"), "flow_dissector": ("flow_dissector", "flow_dissector"),
    "netfilter": ("netfilter", "netfilter"),
    "cgroup_skb/ingress": ("cgroup_skb", "cgroup_inet_ingress"),
    "cgroup_skb/egress": ("cgroup_skb", "cgroup_inet_egress"), "cgroup/skb": ("cgroup_skb", ""),
    "cgroup/sock": ("cgroup_sock", "cgroup_inet_sock_create"),
    "cgroup/sock_create": ("cgroup_sock", "cgroup_inet_sock_create"),
    "cgroup/sock_release": ("cgroup_sock", "cgroup_inet_sock_release"),
    "cgroup/post_bind4": ("cgroup_sock", "cgroup_inet4_post_bind"),
    "cgroup/post_bind6": ("cgroup_sock", "cgroup_inet6_post_bind"),
    "cgroup/dev": ("cgroup_device", "cgroup_device"), "cgroup/sysctl": ("cgroup_sysctl", "cgroup_sysctl"),
    "cgroup/getsockopt": ("cgroup_sockopt", "cgroup_getsockopt"),
    "cgroup/setsockopt": ("cgroup_sockopt", "cgroup_setsockopt"),
}  # fmt: skip
_CGROUP_ADDRESSES = (
    "bind4", "bind6", "connect4", "connect6", "connect_unix", "sendmsg4", "sendmsg6", "sendmsg_unix", "recvmsg4",
    "recvmsg6", "recvmsg_unix", "getpeername4", "getpeername6", "getpeername_unix", "getsockname4", "getsockname6",
    "getsockname_unix",
)  # fmt: skip
_SYSCALLS = {"x86_64": "__x64_sys_", "aarch64": "__arm64_sys_"}


def find_section(name: str) -> tuple[Section | None, str]:
    """Return the meaning of a section's name, and the place that it names behind a `/` ("" for none)."""
    kinds = section_kinds()
    name = name.lstrip("?")
    if name in kinds:
        return kinds[name], ""
    prefix, slash, place = name.partition("/")
    return (kinds.get(prefix), place) if slash else (None, "")


def suggest(name: str) -> str:
    """Return a hint for a section that is not known."""
    from .close import close_names

    close = close_names(name.partition("/")[0], sorted(section_kinds()))
    if close:
        return f"did you mean {', '.join(close)}?"
    return "sections are those of libbpf: kprobe/…, tp/…, fentry/…, uprobe/…"


def find_places(section: Section, place: str, target: Target, pid: int = 0) -> list[Place]:
    """Ask the catalogue of probes for a place; wildcards give several. Raises ProbeError for one that does not exist."""
    if section.probe in ("fmod_ret", "lsm"):
        return [Place(ProbeSpec(f"{section.probe}:{place}", section.probe, "", symbol=place), place)]
    from .catalogue import expand_all, parse_attach_point

    kind, parts = _attach_point(section.probe, place, target)
    return [
        Place(probe.spec, probe.attach_btf if section.type == "tracing" else "", probe.usdt_args)
        for probe in expand_all(parse_attach_point((kind, *parts), pid=pid), target, pid=pid)
    ]


def get_syscall(section: Section, place: str, target: Target) -> str:
    """Return the system call whose function in the kernel a section names, "" for a section that names something else."""
    if section.probe in ("ksyscall", "kretsyscall"):
        return place
    if section.probe not in ("kprobe", "kretprobe"):
        return ""
    call = place.removeprefix(_SYSCALLS.get(target.arch, "sys_"))
    return call if call != place else ""


def _attach_point(kind: str, place: str, target: Target) -> tuple[str, tuple[str, ...]]:
    """Return the probe type and its parts, as the grammar of probes has them."""
    if kind in ("ksyscall", "kretsyscall"):
        return ("kprobe" if kind == "ksyscall" else "kretprobe"), (_SYSCALLS.get(target.arch, "sys_") + place,)
    if kind == "tracepoint":
        return kind, tuple(place.split("/", 1))
    if kind in ("uprobe", "uretprobe"):
        path, _, symbol = place.rpartition(":")
        return kind, (path, symbol) if path else (place,)
    if kind == "usdt":
        return kind, tuple(place.rsplit(":", 2))
    return kind, (place,)


# Probe types whose section is the program's type and the place behind a slash.
_BY_SYMBOL = {"kprobe": "kprobe", "kretprobe": "kretprobe", "fentry": "fentry", "fexit": "fexit",
              "fmod_ret": "fmod_ret", "lsm": "lsm"}  # fmt: skip
_BY_FILE = ("uprobe", "uretprobe", "usdt")


def section_name(type: str, attach_type: str, sleepable: bool, probe: ProbeSpec | None, flags: int = 0) -> str:
    """Return the section by which libbpf knows a program's type, and the place it is attached to where a section can name it.

    Timers, counters and watchpoints are no places to libbpf: their programs are loaded, and attached by whoever opens the event. Raises
    ProbeError for a type of program that no section stands for.
    """
    suffix = ".s" if sleepable and type != "syscall" else ""
    if probe is not None:
        if probe.type == "tracepoint":
            return f"tracepoint/{probe.category}/{probe.event}"
        if probe.type == "rawtracepoint" and type in ("raw_tracepoint", "raw_tracepoint_writable", "tracing"):
            word = {"raw_tracepoint": "raw_tp", "raw_tracepoint_writable": "raw_tp.w", "tracing": "tp_btf"}[type]
            return f"{word}/{probe.event}"
        if probe.type in _BY_SYMBOL and probe.symbol:
            offset = f"+{probe.offset:#x}" if probe.offset and probe.type == "kprobe" else ""
            return f"{_BY_SYMBOL[probe.type]}{suffix}/{probe.symbol}{offset}"
        if probe.type in _BY_FILE:
            return f"{probe.type}{suffix}/{probe.name.partition(':')[2]}"
        if probe.type == "iter":
            return f"iter{suffix}/{probe.event}"
    if type == "kprobe" and not attach_type:
        return "uprobe.s" if sleepable else "kprobe"  # of kprobes none may sleep
    for name, section in section_kinds().items():
        if (section.type, section.attach_type, section.flags) == (type, attach_type, flags) and not section.probe:
            return name
    for name, section in section_kinds().items():
        if (section.type, section.attach_type, section.sleepable) == (type, attach_type, sleepable):
            return name
    raise ProbeError(f"no section of libbpf's stands for {type} programs with the attach type {attach_type!r}")

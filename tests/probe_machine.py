"""A small machine on disk and in BTF, for tests of the probe catalogue: no kernel is asked."""

from __future__ import annotations

from pathlib import Path

from btf_builder import BtfBuilder

from sonde.debuginfo.btf import Btf
from sonde.debuginfo.tracefs import TracepointFormat, read_format
from sonde.errors import FeatureError
from sonde.probes.scope import Machine
from sonde.spec.target import Target

FORMAT = """name: {event}
ID: 7
format:
\tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;
\tfield:int common_pid;\toffset:4;\tsize:4;\tsigned:1;

\tfield:char comm[16];\toffset:8;\tsize:16;\tsigned:0;
\tfield:__data_loc char[] path;\toffset:24;\tsize:4;\tsigned:0;

print fmt: "%s", REC->comm
"""

EVENTS = [("sched", "sched_switch"), ("sched", "sched_wakeup"), ("fib6", "fib6_lookup"), ("fib", "fib_lookup")]
FUNCTIONS = [
    "vfs_read",
    "vfs_readv",
    "vfs_write",
    "tcp_connect [tcp_mod]",
    "refused",
    "vfs_read.part.0",
    "rcu_nocb_vfs_",
]


def make_btf() -> Btf:
    """vfs_read(struct file *file, char *buf, size_t count) -> ssize_t, raw tracepoint sched_switch, iterator task …"""
    b = BtfBuilder()
    char, u64, s64 = b.int("char", 1, True), b.int("unsigned long", 8), b.int("long", 8, True)
    size, ssize = b.typedef("size_t", u64), b.typedef("ssize_t", s64)
    file = b.struct("file", 16, [("f_pos", s64, 0)])
    pair = b.struct("pair", 16, [("a", u64, 0), ("b", u64, 64)])
    task = b.struct("task_struct", 8, [("pid", u64, 0)])
    file_p, char_p, task_p, void_p = b.ptr(file), b.ptr(char), b.ptr(task), b.ptr(0)
    read = b.func_proto(ssize, [("file", file_p), ("buf", char_p), ("count", size)])
    many = b.func_proto(0, [(f"p{n}", u64) for n in range(7)])
    by_value = b.func_proto(0, [("p", pair), ("q", u64)])
    b.typedef("btf_trace_sched_switch", b.ptr(b.func_proto(0, [("", void_p), ("", u64), ("", task_p)])))
    b.typedef("btf_trace_no_names", b.ptr(b.func_proto(0, [("", void_p), ("", u64)])))
    probestub = b.func_proto(0, [("__data", void_p), ("preempt", u64), ("prev", task_p)])
    meta = b.struct("bpf_iter_meta", 8, [("seq", void_p, 0)])
    b.struct("bpf_iter__task", 16, [("meta", b.ptr(meta), 0), ("task", task_p, 64)])
    visit = b.func_proto(s64, [("meta", b.ptr(meta)), ("task", task_p)])
    b.struct("bpf_iter__no_iterator", 8, [("meta", b.ptr(meta), 0)])
    for name in ("vfs_read", "vfs_readv", "vfs_write"):
        b.func(name, read)
    b.func("seven", many)
    b.func("by_value", by_value)
    b.func("__probestub_sched_switch", probestub)
    b.func("bpf_iter_task", visit)
    return Btf.from_bytes(b.build())


def make_machine(root: Path) -> Machine:
    """Write tracefs, /sys and /proc below `root`."""
    tracefs = root / "tracing"
    for category, event in EVENTS:
        folder = tracefs / "events" / category / event
        folder.mkdir(parents=True)
        (folder / "format").write_text(FORMAT.format(event=event))
        (folder.parent / "enable").write_text("0")
        (folder.parent / "filter").write_text("none")
    (tracefs / "available_events").write_text("".join(f"{c}:{e}\n" for c, e in EVENTS))
    (tracefs / "available_filter_functions").write_text("".join(f + "\n" for f in FUNCTIONS))
    (tracefs / "kprobe_events").write_text("")
    blacklist = root / "sys" / "kernel" / "debug" / "kprobes"
    blacklist.mkdir(parents=True)
    (blacklist / "blacklist").write_text("0xffff-0xffff\trefused\n")
    (root / "proc").mkdir()
    return Machine(tracefs=str(tracefs), sys=str(root / "sys"), proc=str(root / "proc"))


class Everything:
    """A feature table that has it all, but for `without`."""

    def __init__(self, *without: str) -> None:
        self.without = without

    def have(self, name: str) -> bool:
        return name not in self.without


def make_target(
    machine: Machine | None, btf: Btf | None, *, arch: str = "x86_64", without: tuple[str, ...] = ()
) -> Target:
    """A target over `machine` and `btf`; without BTF asking for it raises, as on a kernel that has none."""

    def get_btf() -> Btf:
        if btf is None:
            raise FeatureError("this kernel has no BTF")
        return btf

    def tracepoint(category: str, event: str) -> TracepointFormat:
        assert machine is not None
        return read_format(category, event, machine.tracefs, btf=btf)

    def ksym(name: str) -> int:
        return 0xFFFF0000 if name == "asm_only" else 0

    return Target(arch, "test", 4096, 2, Everything(*without), get_btf, tracepoint, ksym, lambda name: "")

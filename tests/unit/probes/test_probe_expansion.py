"""Expansion on a small machine: which probes a pattern stands for, and what their programs reach."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from probe_machine import make_btf, make_machine, make_target

from sonde.debuginfo.btf import Btf
from sonde.debuginfo.ctype import declare
from sonde.errors import FeatureError, MissingProbeError, ProbeError
from sonde.probes.catalogue import MISSING, context_of, expand, expand_all, parse_attach_point
from sonde.probes.model import Probe
from sonde.probes.scope import Machine
from sonde.spec.target import Target


@pytest.fixture(scope="module")
def btf() -> Btf:
    return make_btf()


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return make_machine(tmp_path)


@pytest.fixture
def target(machine: Machine, btf: Btf) -> Target:
    return make_target(machine, btf)


def names(text: str, target: Target, machine: Machine, **options: object) -> list[str]:
    return [p.name for p in probes(text, target, machine, **options)]


def probes(text: str, target: Target, machine: Machine, **options: object) -> list[Probe]:
    return expand_all(parse_attach_point(tuple(text.split(":"))), target, machine=machine, **options)  # type: ignore[arg-type]


EXPANSIONS = [
    ("tracepoint:sched:sched_switch", ["tracepoint:sched:sched_switch"]),
    ("tracepoint:sched:*", ["tracepoint:sched:sched_switch", "tracepoint:sched:sched_wakeup"]),
    ("tracepoint:*:*lookup", ["tracepoint:fib6:fib6_lookup", "tracepoint:fib:fib_lookup"]),
    ("tracepoint:*switch", ["tracepoint:sched:sched_switch"]),
    ("kprobe:vfs_read", ["kprobe:vfs_read"]),
    ("kprobe:vfs_read+4", ["kprobe:vfs_read+4"]),
    ("kprobe:vfs_*", ["kprobe:vfs_read", "kprobe:vfs_readv", "kprobe:vfs_write"]),
    ("kprobe:*:vfs_write", ["kprobe:vmlinux:vfs_write"]),
    ("kprobe:tcp_mod:*", ["kprobe:tcp_mod:tcp_connect"]),
    ("kprobe:tcp_mod:tcp_connect", ["kprobe:tcp_mod:tcp_connect"]),
    ("kprobe:asm_only", ["kprobe:asm_only"]),  # in kallsyms, not in BTF
    ("kretprobe:*write", ["kretprobe:vfs_write"]),
    ("fentry:vfs_read", ["fentry:vmlinux:vfs_read"]),
    ("fentry:seven", ["fentry:vmlinux:seven"]),
    ("fexit:vmlinux:vfs_rea*", ["fexit:vmlinux:vfs_read", "fexit:vmlinux:vfs_readv"]),
    ("rawtracepoint:sched_switch", ["rawtracepoint:vmlinux:sched_switch"]),
    ("rawtracepoint:*", ["rawtracepoint:vmlinux:no_names", "rawtracepoint:vmlinux:sched_switch"]),
    ("iter:task", ["iter:task"]),
    ("interval:s:1", ["interval:s:1"]),
    ("begin", ["begin"]),
    ("k*:vfs_write", ["kprobe:vfs_write"]),
    ("*:vfs_write", ["fentry:vmlinux:vfs_write", "kprobe:vfs_write"]),
]


@pytest.mark.parametrize(("text", "expected"), EXPANSIONS)
def test_expansion(text: str, expected: list[str], target: Target, machine: Machine) -> None:
    assert names(text, target, machine) == expected


MISSED = [
    ("tracepoint:sched:sched_swich", "tracepoint:sched:sched_switch"),
    ("tracepoint:shed:sched_switch", "tracepoint:sched:sched_switch"),
    ("kprobe:vfs_raed", "kprobe:vfs_read"),
    ("fentry:vfs_writ", "fentry:vfs_write"),
    ("rawtracepoint:sched_swich", "rawtracepoint:sched_switch"),
    ("kprobe:refuse*", "vfs_read"),
    ("kprobe:nomod:vfs_read", ""),
]


@pytest.mark.parametrize(("text", "close"), MISSED)
def test_missing(text: str, close: str, target: Target, machine: Machine) -> None:
    with pytest.raises(ProbeError) as caught:
        probes(text, target, machine)
    kind, _, rest = text.partition(":")
    assert caught.value.message == (MISSING if "*" in text else f"No matches for {kind} {rest}.")
    assert close in caught.value.hint or text.startswith("kprobe:refuse")
    for missing in ("warn", "ignore"):
        assert probes(text, target, machine, missing=missing) == []


def test_missing_only_when_nothing_is_left(target: Target, machine: Machine) -> None:
    patterns = parse_attach_point(("kprobe", "nothing")) + parse_attach_point(("begin",))
    assert [p.name for p in expand_all(patterns, target, machine=machine)] == ["begin"]


def test_missing_survives_unreadable_lists(btf: Btf) -> None:
    machine = Machine(tracefs="/nonexistent", sys="/nonexistent", proc="/nonexistent")
    with pytest.raises(ProbeError, match="no valid attach points") as caught:
        probes("tracepoint:sched:b*", make_target(machine, btf), machine)
    assert "nothing matches tracepoint:sched:b*" in caught.value.hint


def test_wildcard_providers_pass_over_what_cannot_be_listed(btf: Btf) -> None:
    machine = Machine(tracefs="/nonexistent", sys="/nonexistent", proc="/nonexistent")
    assert names("*:*vfs_read", make_target(machine, btf), machine) == ["fentry:vmlinux:vfs_read", "kprobe:vfs_read"]


def test_iter_errors(target: Target, machine: Machine) -> None:
    with pytest.raises(ProbeError, match="iter tsak not available for your kernel version") as caught:
        probes("iter:tsak", target, machine)
    assert caught.value.close == ("task",)
    with pytest.raises(ProbeError, match="does not support wildcards"):
        probes("iter:*", target, machine)


@pytest.mark.parametrize("text", ["interval:*", "software:*", "self:*"])
def test_wildcards_that_only_listings_take(text: str, target: Target, machine: Machine) -> None:
    with pytest.raises(ProbeError, match="wildcards are not allowed"):
        probes(text, target, machine)


def test_specs(target: Target, machine: Machine) -> None:
    def spec(text: str, **options: object) -> object:
        (probe,) = probes(text, target, machine, **options)
        s = probe.spec
        return {f: getattr(s, f) for f in s._fields if getattr(s, f) != s._defaults.get(f, "")} | {
            "program": (probe.program_type, probe.attach_type, probe.attach_btf)
        }

    perf = ("perf_event", "", "")
    assert spec("interval:hz:5") == {
        "name": "interval:hz:5", "type": "interval", "period_ns": 200_000_000, "program": perf,
    }  # fmt: skip
    assert spec("profile:hz:99", pid=7) == {
        "name": "profile:hz:99", "type": "profile", "frequency_hz": 99, "pid": 7, "program": perf,
    }  # fmt: skip
    assert spec("software:faults") == {
        "name": "software:faults", "type": "software", "event": "page-faults", "count": 100, "program": perf,
    }  # fmt: skip
    assert spec("watchpoint:0x1000:8:wr", pid=7) == {
        "name": "watchpoint:0x1000:8:wr", "type": "watchpoint", "address": 0x1000, "length": 8, "mode": "rw", "pid": 7,
        "program": perf,
    }  # fmt: skip
    assert spec("fexit:vfs_read") == {
        "name": "fexit:vmlinux:vfs_read", "type": "fexit", "module": "vmlinux", "symbol": "vfs_read",
        "program": ("tracing", "trace_fexit", "vfs_read"),
    }  # fmt: skip
    assert spec("iter:task:mine") == {
        "name": "iter:task", "type": "iter", "event": "task", "pin": "/sys/fs/bpf/mine",
        "program": ("tracing", "trace_iter", "task"),
    }  # fmt: skip
    assert spec("self:signal:SIGUSR1") == {
        "name": "self:signal:SIGUSR1", "type": "self", "event": "signal:SIGUSR1",
        "program": ("raw_tracepoint", "", ""),
    }  # fmt: skip


def test_watchpoints_in_one_process_or_any(target: Target, machine: Machine) -> None:
    for pid in (0, 7):
        (probe,) = probes("watchpoint:0x1000:8:w", target, machine, pid=pid)
        assert (probe.spec.address, probe.spec.pid) == (0x1000, pid)


def test_a_list_of_traceable_functions_is_the_only_source(target: Target, tmp_path: Path) -> None:
    path = tmp_path / "functions"
    path.write_text("vfs_write\nonly_here\nrcu_thing\nin_module [mod]\n")
    machine = Machine(tracefs=str(tmp_path), sys=str(tmp_path), traceable=str(path))
    assert names("kprobe:*", target, machine) == [
        f"kprobe:{n}" for n in ("in_module", "only_here", "rcu_thing", "vfs_write")
    ]
    assert names("kprobe:mod:*", target, machine) == ["kprobe:mod:in_module"]
    assert names("fentry:vfs_*", target, machine) == ["fentry:vmlinux:vfs_write"]
    for text in ("kprobe:vfs_read", "fentry:vfs_read"):
        with pytest.raises(MissingProbeError):
            probes(text, target, machine)


def test_rawtracepoint_without_btf(machine: Machine) -> None:
    target = make_target(machine, None)
    (probe,) = probes("rawtracepoint:anything", target, machine)
    context = context_of(probe, target)
    assert (probe.program_type, context.kind, context.arg_offsets[:3]) == (
        "raw_tracepoint",
        "raw_tracepoint",
        (0, 8, 16),
    )
    with pytest.raises(ProbeError, match="without BTF"):
        probes("rawtracepoint:*", target, machine)


def test_offline_targets_answer_from_btf(btf: Btf) -> None:
    target, machine = make_target(None, btf), Machine.offline()
    assert names("kprobe:vfs_*", target, machine) == ["kprobe:vfs_read", "kprobe:vfs_readv", "kprobe:vfs_write"]
    assert names("fentry:vfs_w*", target, machine) == ["fentry:vmlinux:vfs_write"]


def test_functions_from_kallsyms(machine: Machine, btf: Btf, tmp_path: Path) -> None:
    (tmp_path / "tracing" / "available_filter_functions").unlink()
    (tmp_path / "proc" / "kallsyms").write_text(
        "ffffffff81000000 T vfs_read\nffffffff81000010 t __pfx_vfs_read\nffffffff81000020 t vfs_read.cold\n"
        "ffffffff81000030 D vfs_data\nffffffff81000040 t refused\nffffffffc0000000 t vfs_mod\t[ext]\n"
    )
    target = make_target(machine, btf)
    assert names("kprobe:*", target, machine) == ["kprobe:vfs_mod", "kprobe:vfs_read"]
    assert names("kprobe:ext:*", target, machine) == ["kprobe:ext:vfs_mod"]


# Contexts ---------------------------------------------------------------------------------------------------------


def context(text: str, target: Target, machine: Machine) -> tuple[list[str], Any]:
    (probe,) = probes(text, target, machine)
    found = context_of(probe, target)
    members = found.args.members if found.args else ()
    return [f"{declare(m.ctype, m.name)} @{m.offset}" for m in members], found


def test_tracing_context(target: Target, machine: Machine) -> None:
    members, found = context("fentry:vfs_read", target, machine)
    assert members == ["struct file *file @0", "char *buf @8", "size_t count @16"]
    assert (found.kind, found.arg_offsets, found.retval, found.retval_offset) == ("tracing", (0, 8, 16), None, -1)
    _, found = context("fexit:vfs_read", target, machine)
    assert (declare(found.retval), found.retval_offset) == ("ssize_t", 24)
    members, found = context("fexit:by_value", target, machine)
    assert members == ["struct pair p @0", "unsigned long q @16"]  # two slots for a struct of 16 bytes
    assert (found.retval, found.retval_offset) == (None, -1)


def test_rawtracepoint_context(target: Target, machine: Machine) -> None:
    assert context("rawtracepoint:sched_switch", target, machine)[0] == [
        "unsigned long preempt @0",
        "struct task_struct *prev @8",
    ]
    assert context("rawtracepoint:no_names", target, machine)[0] == ["unsigned long arg0 @0"]


def test_tracepoint_context(target: Target, machine: Machine) -> None:
    members, found = context("tracepoint:sched:sched_switch", target, machine)
    assert found.kind == "tracepoint" and "char comm[16] @8" in members
    assert found.format.get_field("path").dynamic == "data_loc"


def test_iter_context(target: Target, machine: Machine) -> None:
    members, found = context("iter:task", target, machine)
    assert (found.kind, members[1]) == ("iter", "struct task_struct *task @8")


def test_register_context(machine: Machine, btf: Btf) -> None:
    x86, arm, other = (make_target(machine, btf, arch=a) for a in ("x86_64", "aarch64", "vax"))
    _, found = context("kprobe:vfs_read", x86, machine)
    assert (found.kind, found.arg_offsets) == ("regs", (112, 104, 96, 88, 72, 64))
    assert (found.retval_offset, found.ip_offset, found.sp_offset, found.fp_offset) == (80, 128, 152, 32)
    assert (found.get_register("ip"), found.get_register("nothing")) == (128, -1)
    _, found = context("profile:hz:99", arm, machine)
    assert (found.kind, found.arg_offsets[1], found.ip_offset, found.get_register("x3")) == ("perf_event", 8, 256, 24)
    assert context("begin", x86, machine)[1].kind == "none"
    with pytest.raises(FeatureError, match="vax"):
        context("kprobe:vfs_read", other, machine)


def test_expand_takes_one_pattern(target: Target, machine: Machine) -> None:
    (pattern,) = parse_attach_point(("begin",))
    assert [p.name for p in expand(pattern, target, machine=machine)] == ["begin"]

"""Sections of libbpf's: the name that is written for a program means the same when it is read."""

from __future__ import annotations

import pytest

from sonde.errors import ProbeError
from sonde.probes.sections import find_section, section_kinds, section_name, suggest
from sonde.spec.object import ProbeSpec


@pytest.mark.parametrize("name", sorted(section_kinds()))
def test_every_section_has_a_name_that_means_the_same(name: str) -> None:
    section = section_kinds()[name]
    written = section_name(section.type, section.attach_type, section.sleepable, None, section.flags)
    found, place = find_section(written)
    assert found is not None and place == ""
    assert (found.type, found.attach_type, found.flags) == (section.type, section.attach_type, section.flags)


@pytest.mark.parametrize(
    ("type", "attach_type", "sleepable", "probe", "name"),
    [
        ("tracepoint", "", False, ProbeSpec("", "tracepoint", "p", category="sched", event="sched_switch"), "tracepoint/sched/sched_switch"),
        ("raw_tracepoint", "", False, ProbeSpec("", "rawtracepoint", "p", event="sys_enter"), "raw_tp/sys_enter"),
        ("tracing", "trace_raw_tp", False, ProbeSpec("", "rawtracepoint", "p", event="sys_enter"), "tp_btf/sys_enter"),
        ("kprobe", "", False, ProbeSpec("", "kprobe", "p", symbol="vfs_read"), "kprobe/vfs_read"),
        ("kprobe", "", False, ProbeSpec("", "kprobe", "p", symbol="vfs_read", offset=16), "kprobe/vfs_read+0x10"),
        ("kprobe", "", True, ProbeSpec("uprobe:/bin/sh:main", "uprobe", "p"), "uprobe.s//bin/sh:main"),
        ("kprobe", "", False, ProbeSpec("usdt:/bin/sh:a:b", "usdt", "p"), "usdt//bin/sh:a:b"),
        ("tracing", "trace_fentry", True, ProbeSpec("", "fentry", "p", symbol="f"), "fentry.s/f"),
        ("lsm", "lsm_mac", False, ProbeSpec("", "lsm", "p", symbol="file_open"), "lsm/file_open"),
        ("tracing", "trace_iter", False, ProbeSpec("", "iter", "p", event="task"), "iter/task"),
        ("perf_event", "", False, ProbeSpec("", "profile", "p", frequency_hz=99), "perf_event"),
        ("raw_tracepoint", "", False, ProbeSpec("", "begin", "p"), "raw_tracepoint"),
    ],
)  # fmt: skip
def test_places(type: str, attach_type: str, sleepable: bool, probe: ProbeSpec, name: str) -> None:
    assert section_name(type, attach_type, sleepable, probe) == name
    section, _ = find_section(name)
    assert section is not None and (section.type, section.sleepable) == (type, sleepable)


def test_what_has_no_section() -> None:
    with pytest.raises(ProbeError, match="no section"):
        section_name("no_such_type", "", False, None)


def test_suggestions() -> None:
    assert "kprobe" in suggest("kprob/vfs_read")
    assert find_section("kprob/vfs_read") == (None, "vfs_read")
    assert find_section("nothing") == (None, "")
    assert find_section("?xdp")[0] == find_section("xdp")[0]


def test_a_program_that_may_sleep_keeps_that_without_a_place() -> None:
    assert section_name("kprobe", "", True, None) == "uprobe.s"
    assert section_name("kprobe", "", False, None) == "kprobe"

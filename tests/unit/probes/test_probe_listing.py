"""Listings: the lines that `sonde list` and `bpftrace -l` print."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import rooms
from hypothesis import given, settings
from hypothesis import strategies as st
from probe_machine import make_btf, make_machine, make_target

from sonde.errors import ProbeError, SondeError
from sonde.probes.listing import iter_probes, split_list
from sonde.probes.scope import Machine


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return make_machine(tmp_path)


def listing(text: str, machine: Machine, *, verbose: bool = False, without: tuple[str, ...] = ()) -> list[str]:
    target = make_target(machine, make_btf(), without=without)
    return list(iter_probes(text, target, verbose=verbose, machine=machine))


LISTINGS = [
    ("tracepoint:sched:*", ["tracepoint:sched:sched_switch", "tracepoint:sched:sched_wakeup"]),
    ("t:sched:sched_switch", ["tracepoint:sched:sched_switch"]),
    ("tracepoint:*lookup", ["tracepoint:fib6:fib6_lookup", "tracepoint:fib:fib_lookup"]),
    ("tracepoint:nothing:*", []),
    ("software:c*", ["software:context-switches:", "software:cpu-clock:", "software:cpu-migrations:", "software:cpu:",
                     "software:cs:"]),
    ("software:cs:", ["software:cs:"]),
    ("h:*cycles", ["hardware:bus-cycles:", "hardware:cpu-cycles:", "hardware:cycles:", "hardware:ref-cycles:"]),
    ("interval", ["interval:hz:", "interval:ms:", "interval:s:", "interval:us:"]),
    ("profile:*s", ["profile:ms:", "profile:s:", "profile:us:"]),
    ("self:*", ["self:signal:SIGUSR1"]),
    ("begin", []),
    ("watchpoint:0x10:1:w", []),
    ("iter:*", ["iter:task"]),
    ("kprobe:vfs_read*", ["kprobe:vfs_read", "kprobe:vfs_readv"]),
    ("fentry:*write", ["fentry:vmlinux:vfs_write"]),
    ("rt:*", ["rawtracepoint:vmlinux:no_names", "rawtracepoint:vmlinux:sched_switch"]),
    ("sched_switch", ["rawtracepoint:vmlinux:sched_switch", "tracepoint:sched:sched_switch"]),
    ("*:*vfs_write", ["fentry:vmlinux:vfs_write", "kprobe:vfs_write"]),
    ("iter:*, self:*", ["iter:task", "self:signal:SIGUSR1"]),
    ("struct *task*", ["struct bpf_iter__task", "struct task_struct"]),
    ("typedef size_t", ["typedef size_t"]),
    ("struct nothing", []),
]  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), LISTINGS)
def test_names(text: str, expected: list[str], machine: Machine) -> None:
    assert listing(text, machine) == expected


# The forms are those that bpftrace 0.27.1 printed with -lv on Linux 6.12.
ARGUMENTS = [
    ("tracepoint:sched:sched_switch", ["char comm[16]", "__data_loc char[] path"]),
    ("kprobe:vfs_read", ["struct file * arg0", "char * arg1", "size_t arg2"]),
    ("kretprobe:vfs_read", ["ssize_t retval"]),
    ("fentry:vfs_read", ["struct file * file", "char * buf", "size_t count"]),
    ("fexit:vfs_read", ["struct file * file", "char * buf", "size_t count", "ssize_t retval"]),
    ("rawtracepoint:sched_switch", ["unsigned long preempt", "struct task_struct * prev"]),
    ("iter:task", ["struct task_struct * task"]),
    ("software:cs", []),
]


@pytest.mark.parametrize(("text", "arguments"), ARGUMENTS)
def test_arguments(text: str, arguments: list[str], machine: Machine) -> None:
    name, *rest = listing(text, machine, verbose=True)
    assert not name.startswith(" ")
    assert rest == ["    " + a for a in arguments]


def test_definitions(machine: Machine) -> None:
    assert listing("struct task_struct", machine, verbose=True) == [
        "vmlinux: struct task_struct {", "\tunsigned long pid;", "};", "",
    ]  # fmt: skip


def test_everything_of_the_kernel(machine: Machine) -> None:
    """In the order of the types' names; types that only a name finds (interval, uprobe …) are not in it."""
    types = [line.split(":")[0] for line in listing("", machine)]
    assert list(dict.fromkeys(types)) == [
        "fentry",
        "hardware",
        "iter",
        "kprobe",
        "rawtracepoint",
        "software",
        "tracepoint",
    ]


def test_what_the_machine_cannot_do_is_not_listed(machine: Machine, tmp_path: Path) -> None:
    assert listing("fentry:*", machine, without=("program:tracing:fentry",)) == []
    assert listing("iter:*", machine, without=("program:tracing:iter",)) == []
    (tmp_path / "tracing" / "kprobe_events").unlink()
    assert listing("kprobe:*", machine) == []


def test_a_pattern_of_a_wrong_form(machine: Machine) -> None:
    with pytest.raises(ProbeError, match="Invalid probe type: nope"):
        listing("nope:*", machine)
    with pytest.raises(ProbeError, match="found 3"):
        listing("tracepoint:a:b:c", machine)


def test_splitting() -> None:
    assert split_list('a:b, "x,y":z ,, "q\\",r"') == ["a:b", '"x,y":z', '"q\\",r"']


WORDS = st.sampled_from(["tracepoint", "*", ":", "sched", "kprobe", "struct ", ",", '"', "software", "iter", "x"])


@settings(max_examples=150, deadline=None)
@given(st.lists(WORDS, max_size=6), st.booleans())
def test_fuzz(words: list[str], verbose: bool) -> None:
    machine = Machine(tracefs="/nonexistent", sys="/nonexistent", proc="/nonexistent")
    try:
        list(iter_probes("".join(words), make_target(machine, make_btf()), verbose=verbose, machine=machine))
    except SondeError:
        pass


def test_a_tracepoint_costs_no_import_of_other_types() -> None:
    source = (
        "import sys; from sonde.probes.catalogue import parse_attach_point as p; p(('tracepoint', 'a', 'b')); "
        "print(' '.join(sorted(m for m in sys.modules if m.startswith(('sonde.probes.', 'sonde.debuginfo.')) or m in "
        "('re', 'glob', 'difflib', 'mmap', 'ctypes'))))"
    )
    done = subprocess.run(
        [sys.executable, "-S", "-c", source],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(rooms.ROOT / "src")},
    )
    assert done.stderr == ""
    assert done.stdout.split() == [
        f"sonde.probes.{m}" for m in ("catalogue", "grammar", "model", "registry", "scope", "tracepoint", "wildcard")
    ]

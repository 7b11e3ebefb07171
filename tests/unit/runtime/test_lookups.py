"""Numbers that the machine has names for, and its clocks."""

from __future__ import annotations

import os
import time

import pytest

from sonde.debuginfo.syscalls import syscall_name as syscall_of
from sonde.runtime.clocks import Clocks
from sonde.runtime.lookups import cgroup_path, signal_name, strerror, syscall_name


@pytest.mark.parametrize(
    ("number", "name"),
    [
        (9, "Killed"),
        (15, "Terminated"),
        (34, "Real-time signal 0"),
        (64, "Real-time signal 30"),
        (0, "Unknown signal 0"),
        (100, "N/A"),
        (-1, "N/A"),
    ],
)
def test_signal_names(number: int, name: str) -> None:
    assert signal_name(number) == name


def test_strerror() -> None:
    assert strerror(2) == "No such file or directory"
    assert strerror(200) == "Unknown error"


@pytest.mark.parametrize(
    ("machine", "number", "name"),
    [
        ("x86_64", 0, "read"),
        ("x86_64", 59, "execve"),
        ("x86_64", 257, "openat"),
        ("x86_64", 334, "rseq"),
        ("x86_64", 340, "Unknown syscall"),
        ("x86_64", 424, "pidfd_send_signal"),
        ("x86_64", 462, "mseal"),
        ("aarch64", 56, "openat"),
        ("aarch64", 221, "execve"),
        ("aarch64", 462, "mseal"),
        ("x86_64", -1, "Unknown syscall"),
        ("x86_64", 1000, "Unknown syscall"),
        ("vax", 1, "Unknown syscall"),
    ],
)
def test_syscall_names(machine: str, number: int, name: str) -> None:
    assert syscall_of(number, machine) == name


def test_syscalls_of_this_machine() -> None:
    assert syscall_name(0) in ("read", "io_setup")


def test_cgroup_paths(tmp_path: object) -> None:
    for folder in ("unified/a/b", "cpu,cpuacct/x"):
        os.makedirs(f"{tmp_path}/{folder}")
    mounts = f"{tmp_path}/mounts"
    with open(mounts, "w") as file:
        file.write(f"cgroup {tmp_path}/cpu,cpuacct cgroup rw 0 0\n")
        file.write(f"cgroup2 {tmp_path}/unified cgroup2 rw 0 0\nproc /proc proc rw 0 0\n\nshort\n")
    inner = os.stat(f"{tmp_path}/unified/a/b").st_ino
    assert cgroup_path(inner, mounts=mounts) == "unified:/a/b"
    assert cgroup_path(inner, "cpu*", mounts=mounts) == ""
    root = os.stat(f"{tmp_path}/cpu,cpuacct").st_ino
    assert cgroup_path(root, "cpu*", mounts=mounts) == "cpu,cpuacct:/"
    assert cgroup_path(1 << 60, mounts=mounts) == ""
    assert cgroup_path(1, mounts=f"{tmp_path}/none") == ""


@pytest.mark.parametrize(("clock", "clock_id"), [("monotonic", time.CLOCK_MONOTONIC), ("boot", time.CLOCK_BOOTTIME)])
def test_clocks(clock: str, clock_id: int) -> None:
    clocks = Clocks()
    before = time.time_ns()
    shown = time.clock_gettime_ns(clock_id) + clocks.offset_ns(clock)
    assert abs(shown - before) < 1_000_000_000
    assert clocks.offset_ns(clock) == clocks.offset_ns(clock)
    assert clocks.offset_ns("real") == 0


def test_tai_differs_by_whole_seconds() -> None:
    assert Clocks().offset_ns("tai") % 1_000_000_000 == 0

"""Numbers of system calls, held against what the running kernel has."""

from __future__ import annotations

import os
import platform

import pytest

from sonde.debuginfo.syscalls import syscall_number

EVENTS = "/sys/kernel/tracing/events/syscalls"


def test_every_call_that_the_kernel_has_an_event_for_is_known() -> None:
    """A wildcard on them finds them all."""
    if not os.access(EVENTS, os.R_OK | os.X_OK):
        pytest.skip("needs tracefs, which root may read")
    names = [name[10:] for name in os.listdir(EVENTS) if name.startswith("sys_enter_")]
    assert len(names) > 200
    assert [name for name in names if syscall_number(name, platform.machine()) < 0] == []


def test_numbers() -> None:
    wanted = {
        "x86_64": {"read": 0, "rseq": 334, "uprobe": 336, "clone3": 435},
        "aarch64": {"read": 63, "rseq": 293, "clone3": 435},
    }
    for machine, numbers in wanted.items():
        assert {name: syscall_number(name, machine) for name in numbers} == numbers
    assert syscall_number("no_such_call", "x86_64") == syscall_number("read", "no_such_machine") == -1

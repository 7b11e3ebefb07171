"""A whole session on the running kernel: programs, ring buffer, child, printed text."""

from __future__ import annotations

import os
import tempfile

import pytest
from kernel.by_hand import EVENTS, constant_reporter

from sonde.errors import FeatureError, PrivilegeError
from sonde.kernel.engine import KernelEngine
from sonde.output.file import Sink
from sonde.output.text import TextPrinter
from sonde.record import replace
from sonde.runtime.child import Child
from sonde.runtime.session import Session, SessionOptions
from sonde.spec.layout import Layout, LayoutField
from sonde.spec.object import EventSpec, ObjectSpec, ProbeSpec, ProgramSpec, Segment

pytestmark = pytest.mark.kernel

# What by_hand's programs report: the event id (and 0), then tid | pid << 32.
SEGMENTS = (Segment("tid "), Segment("", "d"), Segment(" pid "), Segment("", "d"), Segment("\n"))
FIELDS = (LayoutField("tid", 8, Layout("int", 4)), LayoutField("pid", 12, Layout("int", 4)))
PRINTF = EventSpec(7, "printf", 16, FIELDS, (("segments", SEGMENTS),))


def spec_of(kind: str, probe: ProbeSpec) -> ObjectSpec:
    program = ProgramSpec(probe.program, kind, *constant_reporter(7))
    return ObjectSpec((program,), (EVENTS,), (probe,), (PRINTF,), ringbuf="events")


def run(spec: ObjectSpec, child: Child | None = None) -> str:
    """Run a session to its end; return what it printed."""
    with tempfile.TemporaryFile() as out:
        printer = TextPrinter(Sink(out.fileno()), quiet=True)
        try:
            Session(KernelEngine(), spec, printer, SessionOptions(signals=False), child=child).run()
        except (FeatureError, PrivilegeError) as failure:
            pytest.skip(f"this kernel or user cannot run it: {failure}")
        printer.close()
        out.seek(0)
        return out.read().decode()


def test_begin_prints_and_leaves() -> None:
    text = run(spec_of("raw_tracepoint", ProbeSpec("begin", "begin", "b")))
    assert text == f"tid {os.getpid()} pid {os.getpid()}\n\n\n"


def test_events_of_a_child_until_its_end() -> None:
    child = Child("true")
    probe = ProbeSpec(
        "tracepoint:syscalls:sys_enter_exit_group", "tracepoint", "t", category="syscalls", event="sys_enter_exit_group"
    )
    lines = run(spec_of("tracepoint", probe), child).splitlines()
    assert f"tid {child.pid} pid {child.pid}" in lines


def test_nothing_is_missed_between_release_and_exec() -> None:
    """The child must not run before the probes are in place: its very first system call is seen."""
    child = Child("true")
    probe = ProbeSpec(
        "tracepoint:syscalls:sys_enter_execve", "tracepoint", "t", category="syscalls", event="sys_enter_execve"
    )
    assert f"tid {child.pid} pid {child.pid}" in run(spec_of("tracepoint", probe), child)


def test_dry_run_attaches_only() -> None:
    probe = ProbeSpec("begin", "begin", "b")
    spec = replace(spec_of("raw_tracepoint", probe), probes=(probe,))
    with tempfile.TemporaryFile() as out:
        printer = TextPrinter(Sink(out.fileno()), quiet=True)
        options = SessionOptions(signals=False, dry_run=True)
        try:
            assert Session(KernelEngine(), spec, printer, options).run() == 0
        except (FeatureError, PrivilegeError) as failure:
            pytest.skip(f"this kernel or user cannot run it: {failure}")
        assert os.fstat(out.fileno()).st_size == 0

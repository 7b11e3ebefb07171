"""Objects from elsewhere: what they assume about tracepoints and CPUs is noted when they are compiled, and checked when they are loaded."""

from __future__ import annotations

import pytest
from script_machine import lower_script

from sonde.debuginfo.tracefs import TracepointFormat, parse_format
from sonde.errors import FeatureError
from sonde.kernel import assumptions
from sonde.kernel import btf as kernel_types
from sonde.kernel.engine import check_kernel
from sonde.spec.object import Assumption, ObjectSpec

FIELDS = "\tfield:pid_t prev_pid;\toffset:24;\tsize:4;\tsigned:1;\n\tfield:char prev_comm[16];\toffset:8;\tsize:16;\tsigned:0;\n"


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine of two CPUs with one tracepoint."""

    def read(category: str, event: str, root: str) -> TracepointFormat:
        assert (category, event) == ("sched", "sched_switch")
        return parse_format(f'name: {event}\nID: 1\nformat:\n{FIELDS}\nprint fmt: ""\n', category=category)

    monkeypatch.setattr(kernel_types, "_kernel_id", "this one")
    monkeypatch.setattr(assumptions, "find_root", lambda: "")
    monkeypatch.setattr(assumptions, "read_format", read)
    monkeypatch.setattr(assumptions, "possible_cpus", lambda: 2)


def test_what_scripts_take_from_the_machine_is_noted() -> None:
    noted = lower_script(
        "tracepoint:sched:sched_switch { print(args.prev_pid); @[args.prev_comm] = 1; print(args.prev_pid) } "
        "begin { @n = count(); if (@n > 1) { print(1) } }"
    ).assumed
    assert noted == (
        Assumption("tracepoint_field", "sched:sched_switch.prev_pid", (24, 4)),
        Assumption("tracepoint_field", "sched:sched_switch.prev_comm", (8, 16)),
        Assumption("possible_cpus", "", (2,)),
    )


def spec(kind: str, name: str, *value: int, kernel: str = "another") -> ObjectSpec:
    return ObjectSpec((), kernel_id=kernel, assumed=(Assumption(kind, name, value),))


def test_what_holds_here_too_is_fine() -> None:
    check_kernel(spec("tracepoint_field", "sched:sched_switch.prev_pid", 24, 4))
    check_kernel(spec("tracepoint_field", "sched:sched_switch.prev_comm", 8, 16))
    check_kernel(spec("possible_cpus", "", 4))


@pytest.mark.parametrize(
    ("assumed", "message"),
    [
        (("tracepoint_field", "sched:sched_switch.prev_pid", 20, 4), "at 20, 4 bytes, and this kernel has it at 24, 4"),
        (("tracepoint_field", "sched:sched_switch.prev_pid", 24, 8), "at 24, 8 bytes, and this kernel has it at 24, 4"),
        (("tracepoint_field", "sched:sched_switch.next_pid", 28, 4), "and this kernel does not have it"),
        (("possible_cpus", "", 1), "looks at 1 CPUs, and this machine may have 2"),
    ],
)
def test_what_does_not_is_refused(assumed: tuple[str, str, int], message: str) -> None:
    with pytest.raises(FeatureError, match=message):
        check_kernel(spec(*assumed))
    check_kernel(spec(*assumed, kernel="this one"))

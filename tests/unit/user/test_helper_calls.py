"""Which system calls helpers make in a process: what is said of it (helpers.SYSTEM_CALLS) is what is in their machine code."""

from __future__ import annotations

import re

import pytest

from sonde.debuginfo.ptregs import get_ptregs
from sonde.debuginfo.syscalls import syscall_name
from sonde.user.helpers import DIRECT, NAMES, PRIMITIVE_NAMES, SYSTEM_CALLS, UNSAFE, Facts, lines_of
from sonde.user.x86.primitives import primitive

REGISTERS = get_ptregs("x86_64")
assert REGISTERS is not None
LINES = {name: lines_of(name, REGISTERS) or [] for name in NAMES | UNSAFE}


def calls_of(name: str) -> set[str]:
    """The calls in the code of a primitive: mov eax, NUMBER; syscall."""
    code = primitive(name, Facts(0x10000, 0x20000))
    found = re.findall(rb"\xb8(....)\x0f\x05", code, re.S)
    assert code.count(b"\x0f\x05") == len(found)
    return {syscall_name(int.from_bytes(number, "little"), "x86_64") for number in found}


@pytest.mark.parametrize("helper", sorted(NAMES | UNSAFE))
def test_the_calls_of_a_helper_are_known(helper: str) -> None:
    numbers = (int(line.split()[1]) for line in LINES[helper] if line.startswith("call "))
    primitives = [PRIMITIVE_NAMES[number] for number in numbers] + [DIRECT[name] for name in DIRECT if name == helper]
    made = {call for name in primitives for call in calls_of(name)}
    assert made <= set(SYSTEM_CALLS.get(helper, ())), made
    assert bool(made) == (helper in SYSTEM_CALLS)

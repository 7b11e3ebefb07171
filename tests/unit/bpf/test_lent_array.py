"""Arrays whose values lie in memory that somebody else made: both see the same, and code finds them where the header says."""

from __future__ import annotations

import os
from collections.abc import Iterator
from mmap import PAGESIZE

import pytest

from sonde.bpf.asm import assemble
from sonde.bpf.jit import translate
from sonde.bpf.jit.here import Placed, cpu_features
from sonde.bpf.jit.maps import make_plan
from sonde.bpf.maps import MapShape
from sonde.bpf.maps.lent import LentArray
from sonde.bpf.runtime import World
from sonde.bpf.runtime.native import NativeMachine
from sonde.errors import FeatureError, MapError


@pytest.fixture
def values() -> Iterator[int]:
    fd = os.memfd_create("values", os.MFD_CLOEXEC)
    os.ftruncate(fd, 2 * PAGESIZE)
    yield fd
    os.close(fd)


def make(values: int, size: int = 12, entries: int = 3) -> LentArray:
    return LentArray(MapShape("array", 4, size, entries), os.memfd_create("page", os.MFD_CLOEXEC), values)


def test_both_see_the_same(values: int) -> None:
    with make(values) as table:
        table.update((2).to_bytes(4, "little"), b"abcdefghijkl")
        assert os.pread(values, 12, 32) == b"abcdefghijkl", "entries are at multiples of eight bytes, as in the kernel"
        os.pwrite(values, b"mnopqrstuvwx", 16)
        assert table.lookup((1).to_bytes(4, "little")) == [b"mnopqrstuvwx"]
        assert table.lookup((3).to_bytes(4, "little")) is None
        assert [value for _, (value,) in table.items()] == [bytes(12), b"mnopqrstuvwx", b"abcdefghijkl"]
        with pytest.raises(MapError):
            table.delete(bytes(4))
    assert os.pread(values, 12, 32) == b"abcdefghijkl", "closing leaves them"


def test_more_than_a_page(values: int) -> None:
    with make(values, PAGESIZE - 8, 2) as table:
        table.update((1).to_bytes(4, "little"), b"x" * (PAGESIZE - 8))
        assert os.pread(values, 1, 2 * PAGESIZE - 17) == b"x" and os.pread(values, 1, PAGESIZE - 9) == b"\0"


PROGRAM = """
r1 = map[fd:1][0]+0
r2 = 5
lock *(u64 *)(r1 +16) += r2
r3 = map[fd:1]
*(u32 *)(r10 -4) = 1
r1 = r3
r2 = r10
r2 += -4
call 1
if r0 == 0x0 goto out
r1 = *(u64 *)(r0 +0)
r0 = r1
out: exit
"""


def test_programs_find_the_values(values: int) -> None:
    with make(values, 16) as table:
        os.pwrite(values, (7).to_bytes(8, "little"), 16)
        native = NativeMachine({1: table}, World())
        plan = make_plan({1: table})
        code = translate(assemble(PROGRAM), os.uname().machine, features=cpu_features(), plan=plan)
        with Placed(code, helpers=native.helpers(), maps=native.maps(), values=native.values()) as placed:
            native.begin()
            assert placed.run(native.lend(bytes(64))) == 12
        assert os.pread(values, 8, 16) == (12).to_bytes(8, "little")


def test_what_cannot_be_mapped() -> None:
    reading, writing = os.pipe()
    try:
        with pytest.raises(FeatureError, match="cannot be mapped"):
            make(reading)
    finally:
        os.close(reading)
        os.close(writing)

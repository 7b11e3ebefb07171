"""Records of the kernel about forks, execs and mappings become what a process had mapped, whatever their order."""

from __future__ import annotations

from struct import pack

from hypothesis import given
from hypothesis import strategies as st

from sonde.debuginfo.procmaps import Mapping
from sonde.kernel.mappings import MappingRecorder


def recorder() -> MappingRecorder:
    """One without rings: the tests bring the records."""
    made = MappingRecorder.__new__(MappingRecorder)
    made._rings, made._processes = [], {}
    return made


def give(to: MappingRecorder, kind: int, misc: int, body: bytes, time_ns: int) -> None:
    size = 8 + len(body) + 8
    record = bytes(4) + pack("=IHH", kind, misc, size) + body + pack("=Q", time_ns)
    to._take(kind, misc, memoryview(record), 4, size)


def mmap2(to: MappingRecorder, pid: int, start: int, name: bytes, time_ns: int) -> None:
    room = len(name) + 8 - len(name) % 8
    body = pack("=IIQQQIIQQII", pid, pid, start, 0x2000, 0x1000, 8, 1, 77, 0, 5, 2) + name.ljust(room, b"\0")
    give(to, 10, 0, body, time_ns)


def fork(to: MappingRecorder, pid: int, parent: int, time_ns: int) -> None:
    give(to, 7, 0, pack("=IIIIQ", pid, parent, pid, parent, time_ns), time_ns)


def execute(to: MappingRecorder, pid: int, time_ns: int) -> None:
    give(to, 3, 1 << 13, pack("=II", pid, pid) + b"name\0\0\0\0", time_ns)


def names(to: MappingRecorder, pid: int) -> list[str]:
    return [mapping.path for mapping in to.find(pid)]


def test_a_mapping_is_like_one_of_proc() -> None:
    r = recorder()
    mmap2(r, 5, 0x400000, b"/bin/x", 10)
    assert r.find(5) == [Mapping(0x400000, 0x402000, "r-xp", 0x1000, "08:01", 77, "/bin/x")]
    assert r.find(6) == []


def test_exec_ends_what_was_before_even_when_told_late() -> None:
    r = recorder()
    mmap2(r, 5, 0x1000, b"/bin/old", 10)
    mmap2(r, 5, 0x9000, b"/bin/new", 30)
    execute(r, 5, 20)
    assert names(r, 5) == ["/bin/new"]


def test_a_fork_has_its_parents_mappings_until_it_starts_a_program() -> None:
    r = recorder()
    mmap2(r, 5, 0x1000, b"/bin/parent", 10)
    fork(r, 6, 5, 20)
    mmap2(r, 5, 0x5000, b"/lib/later", 30)
    assert names(r, 6) == ["/bin/parent"]
    execute(r, 6, 40)
    mmap2(r, 6, 0x2000, b"/bin/child", 50)
    assert names(r, 6) == ["/bin/child"]


def test_the_latest_of_two_at_one_address() -> None:
    r = recorder()
    mmap2(r, 5, 0x1000, b"/lib/second", 20)
    mmap2(r, 5, 0x1000, b"/lib/first", 10)
    assert names(r, 5) == ["/lib/second"]


def test_anonymous_memory_has_no_file() -> None:
    r = recorder()
    mmap2(r, 5, 0x1000, b"//anon", 10)
    assert not r.find(5)[0].is_file


@given(st.lists(st.tuples(st.integers(1, 4), st.integers(0, 4), st.booleans(), st.integers(0, 99)), max_size=30))
def test_any_order_of_forks_and_execs_comes_to_an_end(steps: list[tuple[int, int, bool, int]]) -> None:
    r = recorder()
    for pid, parent, starts, time_ns in steps:
        mmap2(r, pid, 0x1000 * pid, b"/bin/x", time_ns)
        if starts:
            execute(r, pid, time_ns)
        else:
            fork(r, pid, parent, time_ns)
    for pid in range(5):
        r.find(pid)

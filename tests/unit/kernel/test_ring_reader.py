"""The ring buffer's consumer, against a buffer in a memory file that the test fills as the kernel would."""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sonde.bpf import ring as ringbuf
from sonde.errors import KernelError
from sonde.kernel.ringbuf import RingReader
from sonde.spec.engine import RUN, run_stride
from sonde.spec.object import MapSpec

PAGE = mmap.PAGESIZE
BUSY, DISCARDED = 1 << 31, 1 << 30


class Ring:
    """The producer's side: writes each data byte twice, as the double mapping of the kernel shows it."""

    def __init__(self, size: int = PAGE) -> None:
        self.size = size
        self.fd = os.memfd_create("ring")
        os.ftruncate(self.fd, 2 * PAGE + 2 * size)
        self.memory = mmap.mmap(self.fd, 2 * PAGE + 2 * size)
        self.spec = MapSpec("events", "ringbuf", 0, 0, size)
        self.name = "events"
        self.head = 0

    def fileno(self) -> int:
        return self.fd

    @property
    def tail(self) -> int:
        return int(struct.unpack_from("=Q", self.memory, 0)[0])

    def put(self, payload: bytes, flags: int = 0) -> bool:
        length = (len(payload) + 15) & ~7
        if self.head + length - self.tail > self.size - 1:
            return False
        record = struct.pack("=II", len(payload) | flags, 0) + payload
        for i, byte in enumerate(record):
            at = 2 * PAGE + (self.head + i) % self.size
            self.memory[at] = self.memory[at + self.size] = byte
        self.head += length
        struct.pack_into("=Q", self.memory, PAGE, self.head)
        return True

    def finish(self, position: int, length: int) -> None:
        for copy in (0, self.size):
            struct.pack_into("=I", self.memory, 2 * PAGE + copy + position % self.size, length)

    def close(self) -> None:
        self.memory.close()
        os.close(self.fd)


@pytest.fixture(params=["ordered", "weakly ordered"])
def ring(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ring]:
    machine = "x86_64" if request.param == "ordered" else "aarch64"
    monkeypatch.setattr(ringbuf.os, "uname", lambda: type("Uname", (), {"machine": machine}))
    made = Ring()
    yield made
    made.close()


def open_reader(ring: Ring) -> RingReader:
    return RingReader(ring)  # type: ignore[arg-type]


def drain(reader: RingReader) -> list[bytes]:
    found: list[bytes] = []
    count = reader.drain(lambda data, start, size: found.append(bytes(data[start : start + size])))
    assert count == len(found)
    return found


def test_records_in_order(ring: Ring) -> None:
    reader = open_reader(ring)
    assert drain(reader) == []
    for payload in (b"", b"a", b"12345678", b"123456789"):
        assert ring.put(payload)
    assert drain(reader) == [b"", b"a", b"12345678", b"123456789"]
    assert ring.tail == ring.head
    assert drain(reader) == []
    reader.close()


def test_discarded_records_are_passed_over(ring: Ring) -> None:
    reader = open_reader(ring)
    ring.put(b"one")
    ring.put(b"never", DISCARDED)
    ring.put(b"two")
    assert drain(reader) == [b"one", b"two"]
    assert ring.tail == ring.head
    reader.close()


def test_an_unfinished_record_stops_the_reader(ring: Ring) -> None:
    reader = open_reader(ring)
    ring.put(b"one")
    unfinished = ring.head
    ring.put(b"two", BUSY)
    ring.put(b"three")
    assert drain(reader) == [b"one"]
    assert ring.tail == unfinished
    assert reader.waiting_bytes == ring.head - unfinished
    assert drain(reader) == []
    ring.finish(unfinished, 3)
    assert drain(reader) == [b"two", b"three"]
    reader.close()


def test_an_error_of_the_handler_counts_its_record_as_read(ring: Ring) -> None:
    reader = open_reader(ring)
    for payload in (b"one", b"two", b"three"):
        ring.put(payload)
    found: list[bytes] = []

    def handle(data: memoryview, start: int, size: int) -> None:
        found.append(bytes(data[start : start + size]))
        if len(found) == 2:
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError):
        reader.drain(handle)
    assert drain(reader) == [b"three"]
    reader.close()


def test_room_is_given_back_during_a_long_drain(ring: Ring) -> None:
    """The producer's free room must grow while a full buffer is being read, not only at its end."""
    big = Ring(16 * PAGE)
    reader = open_reader(big)
    while big.put(b"x" * 56):
        pass
    tails = set()
    reader.drain(lambda data, start, size: tails.add(big.tail))
    assert len(tails) == 8
    reader.close()
    big.close()


def test_closing_twice_and_reading_after(ring: Ring) -> None:
    reader = open_reader(ring)
    ring.put(b"one")
    reader.close()
    reader.close()
    assert drain(reader) == []
    assert reader.waiting_bytes == 0


def test_a_kept_view_does_not_stop_closing(ring: Ring) -> None:
    reader = open_reader(ring)
    ring.put(b"kept")
    kept: list[memoryview] = []
    reader.drain(lambda data, start, size: kept.append(data[start : start + size]))
    reader.close()
    assert bytes(kept[0]) == b"kept"


def test_a_map_that_cannot_be_mapped(ring: Ring) -> None:
    os.ftruncate(ring.fd, 0)
    with pytest.raises(KernelError, match="ring buffer events"):
        open_reader(ring)


def test_a_forgotten_reader_warns(ring: Ring) -> None:
    reader = open_reader(ring)
    with pytest.warns(ResourceWarning, match="RingReader"):
        del reader


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.binary(max_size=300), st.sampled_from([0, 0, 0, DISCARDED]), st.booleans()), max_size=120))
def test_whatever_is_written_is_read_once(records: list[tuple[bytes, int, bool]]) -> None:
    ring = Ring()
    reader = open_reader(ring)
    found: list[bytes] = []
    wanted: list[bytes] = []
    for payload, flags, read_now in records:
        if ring.put(payload, flags) and not flags:
            wanted.append(payload)
        if read_now:
            found += drain(reader)
    found += drain(reader)
    assert found == wanted
    assert ring.tail == ring.head
    reader.close()
    ring.close()


@settings(max_examples=40, deadline=None)
@given(st.binary(min_size=8, max_size=PAGE), st.integers(min_value=0, max_value=1 << 40))
def test_garbage_never_hangs(junk: bytes, head: int) -> None:
    """Only the kernel can write there, yet lengths out of range must not lead outside of the mapping or in circles."""
    ring = Ring()
    data = junk.ljust(PAGE, b"\0")
    ring.memory[2 * PAGE :] = data + data
    struct.pack_into("=Q", ring.memory, PAGE, min(head, 4 * PAGE))
    reader = open_reader(ring)
    drain(reader)
    reader.close()
    ring.close()


@pytest.mark.parametrize("taken", [True, False])
@given(
    groups=st.lists(
        st.tuples(
            st.integers(RUN - 2, 2 * RUN + 2), st.sampled_from([4, 12, 16]), st.sampled_from([0, 0, 0, DISCARDED])
        ),
        max_size=6,
    ),
    skipped=st.integers(0, 200),
)
@settings(max_examples=40, deadline=None)
def test_runs_of_one_size_come_at_once_and_in_order(
    taken: bool, groups: list[tuple[int, int, int]], skipped: int
) -> None:
    ring = Ring(8 * PAGE)
    reader = open_reader(ring)
    for _ in range(skipped):  # so that runs lie across the end of the buffer too
        ring.put(bytes(56))
        ring.put(bytes(56))
        drain(reader)
    expected, number = [], 0
    for count, size, flags in groups:
        for index in range(count):
            payload = number.to_bytes(4, "little").ljust(size, b".")
            number += 1
            flag = flags if index == count // 2 else 0
            if ring.put(payload, flag) and not flag:
                expected.append(payload)
    found: list[bytes] = []
    runs = 0

    def take(data: memoryview, start: int, size: int) -> bool:
        nonlocal runs
        if taken:
            runs += 1
            found.extend(
                bytes(data[at : at + size]) for at in range(start, start + RUN * run_stride(size), run_stride(size))
            )
        return taken

    count = reader.drain(
        lambda data, start, size: found.append(bytes(data[start : start + size])),
        {size: lambda data, start, size=size: take(data, start, size) for size in (4, 12)},  # type: ignore[misc]
    )
    assert found == expected
    assert count == len(expected)
    assert ring.tail == ring.head
    if taken and groups and groups[0][:1] >= (RUN,) and groups[0][1] != 16 and not groups[0][2]:
        assert runs
    reader.close()
    ring.close()


def test_a_run_ends_before_a_record_that_is_not_finished(ring: Ring) -> None:
    reader = open_reader(ring)
    for index in range(RUN):
        ring.put(index.to_bytes(4, "little"), BUSY if index == RUN - 1 else 0)
    runs: list[int] = []
    seen: list[int] = []
    count = reader.drain(
        lambda data, start, size: seen.append(data[start]), {4: lambda data, start: bool(runs.append(1))}
    )
    assert (count, runs, seen) == (RUN - 1, [], list(range(RUN - 1)))
    reader.close()

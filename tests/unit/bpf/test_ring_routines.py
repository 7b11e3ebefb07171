"""The helpers of ring buffers as eBPF: in the interpreter and as machine code, read by the decoder that reads the kernel's rings."""

from __future__ import annotations

import ctypes
import platform
import threading
from collections.abc import Callable, Iterator
from mmap import PAGESIZE
from random import Random

import pytest

from sonde.bpf.interp import Machine, Program
from sonde.bpf.jit import translate
from sonde.bpf.jit.here import Placed
from sonde.bpf.maps import MapShape, create
from sonde.bpf.maps.layout import layout_of
from sonde.bpf.maps.machine import make_routine
from sonde.bpf.maps.ringbuf import RingMap, RingReader

NUMBERS = {"output": 130, "reserve": 131, "submit": 132, "discard": 133, "query": 134}
CALL = ctypes.CFUNCTYPE(*[ctypes.c_uint64] * 6)


class Producer:
    """The routines on a ring. `call(name, *args)`; addresses are the engine's."""

    def __init__(self, ring: RingMap, engine: str) -> None:
        self.base = ring.region.address
        self.placed: dict[str, Placed] = {}
        self.lend: Callable[[bytes], int] = self._buffer
        self.keep: list[object] = []
        layout = layout_of(ring)
        assert layout is not None
        code = {name: make_routine(layout, number).insns for name, number in NUMBERS.items()}
        if engine == "interpreter":
            self.machine = Machine()
            self.base = self.machine.memory.add(ring.region.data)
            self.lend = lambda data: self.machine.memory.add(bytearray(data))
            self.programs = {name: Program(insns) for name, insns in code.items()}
        else:
            self.placed = {name: Placed(translate(insns, platform.machine())) for name, insns in code.items()}

    def _buffer(self, data: bytes) -> int:
        self.keep = [ctypes.create_string_buffer(data, max(len(data), 1))]
        return ctypes.addressof(self.keep[0])  # type: ignore[arg-type]

    def call(self, name: str, *args: int) -> int:
        padded = [*args, 0, 0, 0, 0, 0][:5]
        if self.placed:
            found: int = CALL(self.placed[name].address)(*padded)
        else:
            self.machine.left, self.machine._program = 1_000_000, self.programs[name]
            found = self.machine.enter(0, *padded)
        return found - (1 << 64) if found >> 63 else found

    def output(self, data: bytes, flags: int = 0) -> int:
        return self.call("output", self.base, self.lend(data), len(data), flags)


@pytest.fixture(params=["interpreter", "machine code"])
def both(request: pytest.FixtureRequest) -> Iterator[tuple[RingMap, RingReader, Producer]]:
    ring = create(MapShape("ringbuf", 0, 0, PAGESIZE), shared=request.param != "interpreter")
    assert isinstance(ring, RingMap)
    reader = ring.reader()
    producer = Producer(ring, request.param)
    yield ring, reader, producer
    producer.placed.clear()
    if request.param == "interpreter":
        producer.machine.memory.regions.clear()
    reader.close()
    ring.close()


def drain(reader: RingReader) -> list[bytes]:
    found: list[bytes] = []
    reader.drain(lambda data, start, size: found.append(bytes(data[start : start + size])))
    return found


def test_records_of_any_size(both: tuple[RingMap, RingReader, Producer]) -> None:
    ring, reader, producer = both
    random, sent, got = Random(1), [], []
    for _ in range(600):
        data = random.randbytes(random.randrange(200))
        writes = producer.output if random.random() < 0.7 else ring.output
        if writes(data) == 0:
            sent.append(data)
        if random.random() < 0.2:
            got += drain(reader)
    assert got + drain(reader) == sent
    assert len(sent) > 300


def test_a_ring_that_is_read_goes_back_to_its_begin(both: tuple[RingMap, RingReader, Producer]) -> None:
    """The positions go on to the memory's next turn, over what nobody has written; not while there is something to be read."""
    ring, reader, producer = both
    for turn in range(1, 4):
        ring.go_back(100)
        assert producer.output(b"first") == producer.output(bytes(200)) == 0
        ring.go_back(100)
        assert drain(reader) == [b"first", bytes(200)]
        begin = ring.query(3)
        ring.go_back(begin % PAGESIZE + 1)
        assert ring.query(2) == ring.query(3) == begin
        ring.go_back(begin % PAGESIZE)
        assert ring.query(2) == ring.query(3) == turn * PAGESIZE
    assert not any(ring.region.data[-2 * PAGESIZE :])


def test_what_is_asked_about_a_ring(both: tuple[RingMap, RingReader, Producer]) -> None:
    ring, _, producer = both
    producer.output(bytes(100))
    for what in range(6):
        assert producer.call("query", producer.base, what) == ring.query(what)
    assert producer.call("query", producer.base, 1 << 40) == 0


def test_a_full_ring(both: tuple[RingMap, RingReader, Producer]) -> None:
    ring, reader, producer = both
    count = 0
    while producer.output(bytes(56)) == 0:
        count += 1
    assert count == PAGESIZE // 64 - 1
    assert producer.output(bytes(56)) == ring.output(bytes(56)) == -11
    assert producer.call("reserve", producer.base, 56, 0) == 0
    assert len(drain(reader)) == count
    assert producer.output(bytes(56)) == 0


def test_what_is_refused(both: tuple[RingMap, RingReader, Producer]) -> None:
    _, _, producer = both
    assert producer.output(b"x", flags=4) == -22
    assert producer.call("reserve", producer.base, 8, 1) == 0
    for size in (PAGESIZE, 1 << 30, 1 << 40, (1 << 64) - 8):
        assert producer.call("reserve", producer.base, size, 0) == 0


def test_reserve_submit_and_discard(both: tuple[RingMap, RingReader, Producer]) -> None:
    ring, reader, producer = both
    places = [producer.call("reserve", producer.base, 16, 0) for _ in range(3)]
    for number, place in enumerate(places):
        at = place - producer.base
        ring.region.data[at : at + 16] = bytes([number]) * 16
    assert drain(reader) == []
    assert producer.call("submit", places[2], 0) == producer.call("discard", places[1], 0) == 0
    assert drain(reader) == []
    assert producer.call("submit", places[0], 0) == 0
    assert drain(reader) == [bytes(16), b"\2" * 16]


def test_what_dead_producers_left(both: tuple[RingMap, RingReader, Producer]) -> None:
    """Records that were reserved, with or without their header, are passed over; finished ones before, between and behind them are read."""
    ring, reader, producer = both
    for size in (0, 1, 8, 21, 64):
        lost = ring.lost
        assert producer.output(b"first") == 0
        place = producer.call("reserve", producer.base, size, 0)
        ring.region.data[place - producer.base : place - producer.base + size] = b"x" * size
        assert producer.output(b"second") == 0
        nothing = producer.call("reserve", producer.base, size, 0) - producer.base
        ring.region.words[(nothing - 8) >> 3] = 0  # its header was not written yet
        assert producer.output(b"third") == 0
        last = producer.call("reserve", producer.base, size, 0) - producer.base
        ring.region.words[(last - 8) >> 3] = 0
        assert drain(reader) == [b"first"]
        assert ring.repair() == 3 and ring.lost == lost + 3
        assert drain(reader) == [b"second", b"third"]
        assert reader.waiting_bytes == 0
        assert ring.repair() == 0


def test_threads_and_a_reader() -> None:
    """Records of several threads of machine code come out whole, each thread's in order, none lost that was taken."""
    ring = create(MapShape("ringbuf", 0, 0, 4 * PAGESIZE), shared=True)
    assert isinstance(ring, RingMap)
    reader, sent = ring.reader(), [0, 0, 0]

    def work(name: int) -> None:
        producer = Producer(ring, "machine code")
        for _ in range(4000):
            data = (name << 32 | sent[name]).to_bytes(8, "little") * (1 + sent[name] % 5)
            sent[name] += producer.output(data) == 0

    threads = [threading.Thread(target=work, args=(name,)) for name in range(3)]
    for thread in threads:
        thread.start()
    found: list[bytes] = []
    while any(thread.is_alive() for thread in threads):
        found += drain(reader)
        ring.go_back(PAGESIZE)  # at times while somebody writes
    found += drain(reader)
    for name in range(3):
        numbers = [record for record in found if int.from_bytes(record[4:8], "little") == name]
        assert numbers == [(name << 32 | i).to_bytes(8, "little") * (1 + i % 5) for i in range(sent[name])]
    assert sum(sent) == len(found) > 1000
    reader.close()
    ring.close()

"""Maps in memory: against a dictionary, between processes, after a death in the middle, and from damaged memory. The kernel is in tests/kernel."""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Callable
from errno import EBUSY, EEXIST, EINVAL
from mmap import PAGESIZE
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sonde.bpf.maps import KINDS, MapShape, SharedMap, attach, create
from sonde.bpf.maps.array import TableMap
from sonde.bpf.maps.base import COUNT, HEADER, HEADER_BYTES
from sonde.bpf.maps.hash import HashMap
from sonde.bpf.maps.ringbuf import RingMap
from sonde.bpf.maps.stacks import StackMap
from sonde.errors import FeatureError, FormatError, MapError


def u32(number: int) -> bytes:
    return number.to_bytes(4, "little")


def example(kind: str) -> MapShape:
    key, value, entries, flags = {
        "ringbuf": (0, 0, PAGESIZE, 0),
        "queue": (0, 8, 4, 0),
        "stack": (0, 8, 4, 0),
        "bloom_filter": (0, 8, 4, 0),
        "lpm_trie": (8, 8, 4, 1),
        "prog_array": (4, 4, 4, 0),
        "perf_event_array": (4, 4, 4, 0),
        "array_of_maps": (4, 4, 4, 0),
        "hash_of_maps": (4, 4, 4, 0),
        "stack_trace": (4, 64, 4, 0),
    }.get(kind, (4, 8, 4, 0))
    return MapShape(kind, key, value, entries, flags, cpus=3, extra=5 if kind == "bloom_filter" else 0)


@given(st.lists(st.tuples(st.sampled_from("udl"), st.integers(0, 40), st.binary(min_size=3, max_size=3)), max_size=200))
@settings(max_examples=60, deadline=None)
def test_a_hash_map_is_a_dictionary(operations: list[tuple[str, int, bytes]]) -> None:
    model: dict[bytes, bytes] = {}
    with create(MapShape("hash", 2, 3, 16)) as table:
        for name, number, value in operations:
            key = number.to_bytes(2, "little")
            if name == "u":
                if key in model or len(model) < 16:
                    table.update(key, value)
                    model[key] = value
                else:
                    with pytest.raises(MapError, match="store a value in the hash map map"):
                        table.update(key, value)
            elif name == "d":
                assert table.delete(key) == (model.pop(key, None) is not None)
            else:
                assert table.lookup(key) == ([model[key]] if key in model else None)
        assert dict(table.items()) == {key: [value] for key, value in model.items()}


def test_readers_find_what_stays_while_others_come_and_go() -> None:
    """Deleting shrinks how far readers look, and must never hide what is further behind."""
    random = Random(3)
    with create(MapShape("hash", 4, 4, 64)) as table:
        assert isinstance(table, HashMap)
        for _ in range(300):
            keys = random.sample(range(10_000), 64)
            for key in keys:
                table.update(u32(key), u32(key))
            random.shuffle(keys)
            while keys:
                assert table.delete(u32(keys.pop()))
                for key in keys[:5]:
                    assert table.lookup(u32(key)) == [u32(key)]
        words = table.region.words
        assert not any(words[(table.cells >> 3) + 2 * cell] for cell in range(table.mask + 1))
        assert len(table) == 0


@pytest.mark.parametrize("at", range(16))
def test_keys_that_differ_in_one_byte_are_spread(at: int) -> None:
    """Whichever byte it is, entries stand near their cells."""
    with create(MapShape("hash", 16, 4, 256)) as table:
        assert isinstance(table, HashMap)
        keys = [bytes(at) + bytes([value]) + bytes(15 - at) for value in range(256)]
        for key in keys:
            table.update(key, bytes(4))
        assert len({table.hash(key) & table.mask for key in keys}) > 128
        assert (
            max(table.region.words[(table.cells >> 3) + 2 * cell] for cell in range(table.mask + 1)) < 100
        )  # by luck: some seed gave 51


def in_child(work: Callable[[], object]) -> int:
    pid = os.fork()
    if pid:
        return pid
    try:
        work()
        os._exit(0)
    except BaseException:
        os._exit(1)


def count_in(fd: int, key: bytes, rounds: int) -> None:
    """Add to one word of a shared map, as an atomic instruction of a program would; and make and delete keys beside it."""
    with attach(fd) as table:
        me = os.getpid()
        for i in range(rounds):
            table.region.add(table.find_at(key, 0), 1)
            own = (me << 20 | i % 50).to_bytes(8, "little")
            result = -EBUSY
            while result == -EBUSY:
                result = table.update_at(own, own, 0, -1)
            assert result == 0
            assert table.lookup(own) == [own]
            if i % 3:
                while table.delete_at(own) == -EBUSY:
                    pass


@pytest.mark.parametrize("kind", ["hash", "lru_hash"])
def test_processes_share_a_map(kind: str) -> None:
    key = b"counter."
    with create(MapShape(kind, 8, 8, 4000, cpus=4), shared=True) as table:
        table.update(key, bytes(8))
        children = [in_child(lambda: count_in(table.region.fd, key, 800)) for _ in range(4)]
        assert [os.waitpid(pid, 0)[1] for pid in children] == [0] * 4
        assert table.lookup(key) == [(4 * 800).to_bytes(8, "little")]
        found = dict(table.items())
        assert len(found) == len(table)  # type: ignore[arg-type]
        assert all(values == [k] for k, values in found.items() if k != key)


def test_processes_write_the_same_keys() -> None:
    """Each value belongs to its key at any time, and each key is there once."""

    def work(fd: int, seed: int) -> None:
        random = Random(seed)
        with attach(fd) as table:
            for _ in range(1500):
                number = random.randrange(12)
                key = u32(number)
                if random.random() < 0.6:
                    table.update_at(key, u32(number) * 8, 0, -1)
                else:
                    table.delete_at(key)
                found = table.lookup(u32(random.randrange(12)))
                assert found is None or found[0] == found[0][:4] * 8

    with create(MapShape("hash", 4, 32, 16, cpus=4), shared=True) as table:
        children = [in_child(lambda seed=seed: work(table.region.fd, seed)) for seed in range(3)]  # type: ignore[misc]
        assert [os.waitpid(pid, 0)[1] for pid in children] == [0] * 3
        keys = list(table.keys())
        assert len(keys) == len(set(keys)) == len(table)  # type: ignore[arg-type]
        assert all(table.lookup(key) == [key * 8] for key in keys)


def test_a_dead_writer_is_found_and_freed() -> None:
    with create(MapShape("hash", 4, 4, 8), shared=True) as table:
        assert isinstance(table, HashMap)
        key = u32(1)
        table.update(key, u32(5))
        pid = in_child(lambda: table._claim(table.hash(key)))
        os.waitpid(pid, 0)
        assert table.lookup(key) == [u32(5)]  # readers do not care
        assert table.update_at(key, u32(6), 0, -1) == -EBUSY
        assert table.repair(lambda tid: os.path.exists(f"/proc/{tid}")) == 1
        table.update(key, u32(6))
        assert table.lookup(key) == [u32(6)]


def test_threads_share_a_queue() -> None:
    with create(MapShape("queue", 0, 8, 5000)) as table:

        def work(name: int) -> None:
            for i in range(500):
                table.push((name << 32 | i).to_bytes(8, "little"))

        threads = [threading.Thread(target=work, args=(n,)) for n in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        found: list[int] = []
        while (value := table.pop()) is not None:
            found.append(int.from_bytes(value, "little"))
        assert len(found) == 1500
        for name in range(3):
            assert [n & 0xFFFFFFFF for n in found if n >> 32 == name] == list(range(500))


@pytest.mark.parametrize("kind", KINDS)
def test_every_type_is_there_for_another_process(kind: str) -> None:
    with create(example(kind), shared=True) as table, attach(table.region.fd) as other:
        assert (other.shape, other.layout, other.seed) == (table.shape, table.layout, table.seed)


@given(st.binary(max_size=HEADER_BYTES), st.integers(0, HEADER.size), st.sampled_from(sorted(KINDS)))
@settings(max_examples=150, deadline=None)
def test_a_damaged_header_is_refused_or_fits_the_memory(damage: bytes, at: int, kind: str) -> None:
    with create(example(kind), shared=True) as table:
        size = os.fstat(table.region.fd).st_size
        end = min(at + len(damage), HEADER_BYTES)
        table.region.data[at:end] = damage[: end - at]
        try:
            other = attach(table.region.fd)
        except (FormatError, FeatureError):
            return
        with other:
            assert other.layout.size <= size


@given(st.integers(COUNT, 20_000), st.integers(0, (1 << 64) - 1), st.sampled_from(["hash", "lru_hash", "lpm_trie"]))
@settings(max_examples=150, deadline=None)
def test_damaged_words_of_a_hash_map_do_no_harm(at: int, word: int, kind: str) -> None:
    """A wild write of a traced process may lose entries, but neither crash nor hang who reads the map."""
    with create(example(kind)) as table:
        for number in range(3):
            table.update(u32(number).ljust(table.key_size, b"\0"), bytes(8))
        table.region.words[at % table.layout.size // 8] = word
        for number in range(5):
            key = u32(number).ljust(table.key_size, b"\0")
            table.lookup(key)
            table.update_at(key, bytes(8), 0, -1)
            table.delete_at(key)
        assert len(list(table.keys())) <= 16


def test_memory_that_is_too_short() -> None:
    with create(MapShape("array", 4, 8, 1000), shared=True) as table:
        os.ftruncate(table.region.fd, HEADER_BYTES)
        with pytest.raises(FormatError, match="not laid out"):
            attach(table.region.fd)
        os.ftruncate(table.region.fd, 20_000)


def test_types_that_are_not_there() -> None:
    with pytest.raises(FeatureError, match="no sockhash maps without a kernel"):
        create(MapShape("sockhash", 4, 4, 1))


# Rings ------------------------------------------------------------------------------------------------------------


def drained(reader: object) -> list[bytes]:
    found: list[bytes] = []
    reader.drain(lambda data, start, size: found.append(bytes(data[start : start + size])))  # type: ignore[attr-defined]
    return found


def ring() -> RingMap:
    made = create(MapShape("ringbuf", 0, 0, PAGESIZE))
    assert isinstance(made, RingMap)
    return made


def test_a_ring_gives_what_was_put_in() -> None:
    with ring() as table:
        reader = table.reader()
        sent, found = [], []
        for i in range(2000):
            record = bytes([i & 255]) * (i % 120)
            sent.append(record)
            assert table.output(record) == 0
            if i % 13 == 12:
                found += drained(reader)
        assert found + drained(reader) == sent
        reader.close()


def test_a_full_ring_loses_and_goes_on() -> None:
    with ring() as table:
        reader = table.reader()
        count = 0
        while table.output(bytes(56)) == 0:
            count += 1
        assert count == PAGESIZE // 64 - 1  # one byte stays free, as in the kernel
        assert len(drained(reader)) == count
        assert table.output(bytes(56)) == 0
        reader.close()


def test_unfinished_and_discarded_records() -> None:
    with ring() as table:
        reader = table.reader()
        first, second, third = (table.reserve(8) for _ in range(3))
        table.commit(second)
        table.commit(third, discard=True)
        assert drained(reader) == []
        assert reader.waiting_bytes == 48
        table.region.data[first : first + 8] = b"complete"
        table.commit(first)
        assert drained(reader) == [b"complete", bytes(8)]
        reader.close()


def test_a_record_without_a_header_yet_stops_the_reader() -> None:
    """Between moving the position and writing the header, a producer may be interrupted; the ring was used before."""
    with ring() as table:
        reader = table.reader()
        for _ in range(PAGESIZE // 32 + 7):  # once around
            table.output(b"\xff" * 24)
            drained(reader)
        position = table.region.load(2 * PAGESIZE)
        table.region.store(2 * PAGESIZE, position + 16)
        assert drained(reader) == []
        reader.close()


def test_a_waiter_wakes_up() -> None:
    import select

    with ring() as table:
        reader = table.reader()
        waiter = select.poll()
        waiter.register(reader.fileno(), select.POLLIN)
        assert waiter.poll(0) == []
        table.output(b"12345678", flags=1)
        assert waiter.poll(0) == []
        table.output(b"12345678", flags=2)
        assert waiter.poll(0)
        assert len(drained(reader)) == 2
        assert waiter.poll(0) == []
        reader.close()


# Numbers for things -----------------------------------------------------------------------------------------------


def test_tables_hold_things_of_this_process() -> None:
    with create(MapShape("prog_array", 4, 4, 3)) as table:
        assert isinstance(table, TableMap)
        thing = object()
        table.set(1, thing)
        table.set(2, thing)
        assert (table.get_program(1), table.get_program(0), table.get_program(9)) == (thing, None, None)
        assert table.lookup(u32(1)) == table.lookup(u32(2)) == [u32(0)]
        assert table.lookup(u32(0)) is None
        assert table.delete(u32(1))
        assert not table.delete(u32(1))
        assert table.find_at(u32(2), 0) == 0


def test_stack_traces() -> None:
    with create(MapShape("stack_trace", 4, 32, 16)) as table:
        assert isinstance(table, StackMap)
        number = table.put([1, 2, 3], 0)
        assert table.put([1, 2, 3], 0) == number
        assert table.lookup(u32(number)) == [b"".join(n.to_bytes(8, "little") for n in (1, 2, 3, 0))]
        assert table.put([9, 9, 9, 9, 9], 0) != -EINVAL  # cut to what there is room for
        other = next(n for n in range(1000, 9999) if find_number(table, n) == number)
        assert table.put([other], 0) == -EEXIST
        assert table.put([other], 1 << 10) == number
        assert table.lookup(u32(number)) == [other.to_bytes(8, "little") + bytes(24)]
        assert table.put([1], 1 << 11) == -EINVAL
        assert table.delete(u32(number))
        assert table.lookup(u32(number)) is None


def find_number(table: SharedMap, pc: int) -> int:
    """Which bucket a trace of one frame belongs to, asked of a map with the same seed."""
    with create(table.shape) as other:
        assert isinstance(other, StackMap)
        other.seed = table.seed
        return other.put([pc], 0)


@pytest.mark.parametrize("size", [64, 71, 1024])
def test_long_keys_spread(size: int) -> None:
    """Keys that differ in few places, be they the highest bits of words, do not share more cells than chance has them share."""
    with create(MapShape("hash", size, 8, 16)) as table:
        texts = [b"/usr/lib/name-%d" % number for number in range(4096)]
        flips = [bytearray(size) for _ in range(4096)]
        for number, key in enumerate(flips):
            for bit in range(12):
                key[8 * (bit % (size // 8)) + 7] |= (number >> bit & 1) << 7
        for keys in (texts, flips):
            hashes = [table.hash(bytes(key).ljust(size, b"\0")) for key in keys]
            assert len(set(hashes)) == len(set(map(bytes, keys)))
            cells = {value & 4095 for value in hashes}
            assert len(cells) > 0.9 * 4096 * (1 - math.exp(-len(set(hashes)) / 4096))

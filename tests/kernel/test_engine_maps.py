"""Maps on the running kernel: every type's elements, batches and their fallback, memory, limits."""

from __future__ import annotations

import struct

import pytest

from sonde.errors import KernelError
from sonde.kernel.cpus import possible_cpus
from sonde.kernel.maps import create_map
from sonde.spec.object import MapSpec

pytestmark = pytest.mark.kernel


def u32(number: int) -> bytes:
    return struct.pack("=I", number)


@pytest.mark.parametrize("batched", [True, False], ids=["batched", "by key"])
@pytest.mark.parametrize("kind", ["hash", "lru_hash", "percpu_hash", "lru_percpu_hash"])
def test_hash_maps(kind: str, batched: bool) -> None:
    copies = possible_cpus() if "percpu" in kind else 1
    count = 3000
    with create_map(MapSpec("m", kind, 4, 12, 20000)) as table:
        table.batched = batched
        assert list(table.items()) == []
        for i in range(count):
            table.update(u32(i), struct.pack("=QI", i, 7))
        assert table.lookup(u32(5)) == [struct.pack("=QI", 5, 7)] * copies
        assert table.lookup(u32(count)) is None
        found = dict(table.items())
        assert found == {u32(i): [struct.pack("=QI", i, 7)] * copies for i in range(count)}
        assert table.batched == batched
        assert table.delete(u32(5))
        assert not table.delete(u32(5))
        assert len(list(table.items())) == count - 1


@pytest.mark.parametrize("batched", [True, False], ids=["batched", "by key"])
@pytest.mark.parametrize("kind", ["array", "percpu_array"])
def test_arrays(kind: str, batched: bool) -> None:
    copies = possible_cpus() if kind == "percpu_array" else 1
    with create_map(MapSpec("m", kind, 4, 5, 300)) as table:
        table.batched = batched
        table.update(u32(299), b"abcde")
        found = dict(table.items())
        assert len(found) == 300
        assert found[u32(299)] == [b"abcde"] * copies
        assert found[u32(0)] == [bytes(5)] * copies
        with pytest.raises(KernelError):
            table.delete(u32(0))


def test_deleting_while_walking_ends() -> None:
    with create_map(MapSpec("m", "hash", 4, 4, 1000)) as table:
        for i in range(1000):
            table.update(u32(i), u32(i))
        table.batched = False
        for key, _ in table.items():
            table.delete(key)
        assert list(table.items()) == []


def test_initial_value_and_freezing() -> None:
    with create_map(MapSpec("m", "array", 4, 16, 1, initial=b"hello", frozen=True)) as table:
        assert table.lookup(u32(0)) == [b"hello".ljust(16, b"\0")]
        with pytest.raises(KernelError, match="map m"):
            table.update(u32(0), bytes(16))


def test_initial_value_on_each_cpu() -> None:
    with create_map(MapSpec("m", "percpu_array", 4, 8, 1, initial=b"12345678")) as table:
        assert table.lookup(u32(0)) == [b"12345678"] * possible_cpus()


def test_shared_memory() -> None:
    with create_map(MapSpec("m", "array", 4, 12, 3, flags=1 << 10)) as table:
        memory = table.memory()
        assert memory is not None
        memory[16:28] = b"abcdefghijkl"  # entry 1: values lie 8-byte aligned
        assert table.lookup(u32(1)) == [b"abcdefghijkl"]
        table.update(u32(0), b"ABCDEFGHIJKL")
        assert memory[:12] == b"ABCDEFGHIJKL"
        assert table.memory() is memory
        del memory
    with create_map(MapSpec("m", "hash", 4, 4, 1)) as table:
        assert table.memory() is None


def test_map_in_map() -> None:
    template = MapSpec("inner", "array", 4, 4, 1)
    with create_map(MapSpec("outer", "hash_of_maps", 4, 4, 4, inner=template)) as outer, create_map(template) as inner:
        outer.update(u32(1), u32(inner.fd))
        assert outer.lookup(u32(1)) is not None


@pytest.mark.parametrize(
    ("spec", "entries"),
    [(MapSpec("e", "ringbuf", 0, 0, 5000), 8192), (MapSpec("e", "perf_event_array", 4, 4, 0), possible_cpus())],
)
def test_sizes_that_the_kernel_insists_on(spec: MapSpec, entries: int) -> None:
    from sonde.kernel.maps import entries_of

    assert entries_of(spec) == entries
    create_map(spec).close()


def test_a_full_map_says_so() -> None:
    with create_map(MapSpec("m", "hash", 4, 4, 2)) as table:
        table.update(u32(1), u32(1))
        table.update(u32(2), u32(1))
        with pytest.raises(KernelError) as caught:
            table.update(u32(3), u32(1))
    assert "full (2 entries)" in caught.value.hint


def test_too_large_a_map_says_how_large() -> None:
    with pytest.raises(KernelError) as caught:
        create_map(MapSpec("m", "hash", 4, 1 << 20, 1 << 30))
    assert "create the hash map m" in str(caught.value)
    assert caught.value.hint


def test_wrong_sizes_of_keys_and_values() -> None:
    with create_map(MapSpec("m", "hash", 4, 4, 2)) as table:
        with pytest.raises(KernelError, match="8 bytes as key"):
            table.lookup(bytes(8))
        with pytest.raises(KernelError, match="8 bytes as value"):
            table.update(u32(1), bytes(8))


def test_a_closed_map() -> None:
    table = create_map(MapSpec("m", "hash", 4, 4, 2))
    table.close()
    table.close()
    for use in (lambda: table.lookup(u32(1)), lambda: table.update(u32(1), u32(1)), lambda: list(table.items())):
        with pytest.raises(KernelError, match="Bad file descriptor"):
            use()


def test_large_values_take_several_batches() -> None:
    """700 values of 4 KiB are far more than one batch is meant to hold."""
    with create_map(MapSpec("m", "hash", 4, 4096, 700)) as table:
        for i in range(700):
            table.update(u32(i), bytes(4096))
        assert len(list(table.items())) == 700


def test_a_value_for_each_cpu() -> None:
    cpus = possible_cpus()
    with create_map(MapSpec("m", "percpu_array", 4, 4, 1)) as table:
        table.update_each(u32(0), [u32(i + 1) for i in range(cpus)])
        assert table.lookup(u32(0)) == [u32(i + 1) for i in range(cpus)]
        with pytest.raises(KernelError, match="copies"):
            table.update_each(u32(0), [u32(1)] * (cpus + 1))

"""Maps without a kernel against the kernel's: the same random operations must have the same results, values and errnos."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from random import Random
from typing import Any

import pytest
from map_sequences import attempt, keyed_operation, queue_operation

from sonde.bpf.maps import MapShape, SharedMap, create
from sonde.errors import KernelError
from sonde.kernel import mapops, maps
from sonde.kernel.cpus import possible_cpus
from sonde.kernel.maps import KernelMap, create_map
from sonde.spec.object import MapSpec

pytestmark = pytest.mark.kernel
ROUNDS = int(os.environ.get("SONDE_FUZZ_MAPS", "600"))

KEYED = [
    MapSpec("m", "hash", 4, 8, 20),
    MapSpec("m", "hash", 13, 3, 7),
    MapSpec("m", "hash", 64, 200, 1),
    MapSpec("m", "percpu_hash", 6, 12, 9),
    MapSpec("m", "array", 4, 5, 6),
    MapSpec("m", "percpu_array", 4, 20, 3),
    MapSpec("m", "lpm_trie", 6, 4, 12, flags=1),
    MapSpec("m", "lpm_trie", 12, 9, 30, flags=1),
]


def shape_of(spec: MapSpec) -> MapShape:
    return MapShape(
        spec.type, spec.key_size, spec.value_size, spec.max_entries, spec.flags, spec.name, cpus=possible_cpus()
    )


@contextmanager
def both(spec: MapSpec, shared: bool = False) -> Iterator[tuple[KernelMap, SharedMap]]:
    with create_map(spec) as theirs, create(shape_of(spec), shared=shared) as ours:
        yield theirs, ours


@pytest.mark.parametrize("shared", [False, True], ids=["private", "shared"])
@pytest.mark.parametrize("spec", KEYED, ids=lambda spec: f"{spec.type}-{spec.key_size}-{spec.value_size}")
def test_keyed_maps(spec: MapSpec, shared: bool) -> None:
    random = Random(spec.key_size * 1000 + spec.value_size)
    with both(spec, shared) as (theirs, ours):
        for step in range(ROUNDS):
            operation = keyed_operation(random, spec, ours.copies)
            assert operation(ours) == operation(theirs), f"step {step}"


@pytest.mark.parametrize("kind", ["queue", "stack"])
def test_queues_and_stacks(kind: str) -> None:
    random = Random(kind)
    spec = MapSpec("m", kind, 0, 6, 5)
    with both(spec) as (theirs, ours):
        for step in range(ROUNDS):
            name, value, flags = queue_operation(random, spec)
            given: tuple[Any, ...] = (value, flags) if name == "push" else ()
            expected = attempt(getattr(mapops, name), theirs, *given)
            assert attempt(getattr(ours, name), *given) == expected, f"step {step}: {name} {flags}"


@pytest.mark.parametrize("kind", ["lru_hash", "lru_percpu_hash"])
def test_lru_maps_keep_what_is_used(kind: str) -> None:
    """Neither is ever full; flags are answered alike where eviction has no part in it; entries keep their values."""
    random = Random(kind)
    spec = MapSpec("m", kind, 4, 8, 64)
    with both(spec) as (theirs, ours):
        latest: dict[bytes, bytes] = {}
        for _ in range(ROUNDS * 3):
            key, value = random.randrange(500).to_bytes(4, "little"), random.randbytes(8)
            for table in (theirs, ours):
                table.update(key, value)
                assert table.lookup(key) == [value] * ours.copies
            latest[key] = value
        for table in (theirs, ours):
            kept = dict(table.items())
            assert 0 < len(kept) <= 64
            assert all(values == [latest[key]] * ours.copies for key, values in kept.items())
            absent, present = (9999).to_bytes(4, "little"), next(iter(kept))
            assert attempt(table.update, absent, bytes(8), 2) == ("errno", 2)
            assert attempt(table.update, present, bytes(8), 1) == ("errno", 17)
            assert attempt(table.update, present, bytes(8), 3) == ("errno", 22)
        assert len(dict(ours.items())) > 48  # an eviction makes room for one, not for many


def test_bloom_filters() -> None:
    spec = MapSpec("m", "bloom_filter", 0, 8, 100)
    random = Random(7)
    with both(spec) as (theirs, ours):
        pushed = [random.randbytes(8) for _ in range(100)]
        for flags in (1, 2, 4):
            expected = attempt(mapops.push, theirs, pushed[0], flags)
            assert attempt(ours.push, pushed[0], flags) == expected
        for value in pushed:
            ours.push(value)
        assert all(value in ours for value in pushed)  # type: ignore[operator]
        wrong = sum(random.randbytes(8) in ours for _ in range(2000))  # type: ignore[operator]
        assert wrong < 200


SHAPES = [
    ("hash", 0, 4, 1, 0),
    ("hash", 4, 0, 1, 0),
    ("hash", 4, 4, 0, 0),
    ("array", 8, 4, 1, 0),
    ("array", 4, 0, 1, 0),
    ("array", 4, 4, 0, 0),
    ("percpu_array", 4, 4, 0, 0),
    ("queue", 4, 4, 1, 0),
    ("queue", 0, 0, 1, 0),
    ("stack", 0, 4, 0, 0),
    ("bloom_filter", 4, 4, 1, 0),
    ("bloom_filter", 0, 0, 1, 0),
    ("lpm_trie", 8, 4, 1, 0),
    ("lpm_trie", 4, 4, 1, 1),
    ("lpm_trie", 261, 4, 1, 1),
    ("stack_trace", 4, 7, 1, 0),
    ("stack_trace", 8, 8, 1, 0),
    ("stack_trace", 4, 8 * 128, 1, 0),
    ("ringbuf", 0, 0, 5000, 0),
    ("ringbuf", 4, 0, 4096, 0),
    ("prog_array", 4, 8, 1, 0),
    ("prog_array", 8, 4, 1, 0),
    ("perf_event_array", 4, 8, 1, 0),
]


@pytest.mark.parametrize("fields", SHAPES, ids=str)
def test_shapes_that_the_kernel_refuses(fields: tuple[str, int, int, int, int]) -> None:
    kind, key, value, entries, flags = fields
    spec = MapSpec("m", kind, key, value, entries, flags=flags)
    try:
        kernel = maps._create(spec, -1) if kind != "ringbuf" else create_raw_ring(spec)
        os.close(kernel)
        refused = 0
    except KernelError as error:
        refused = error.errno
    assert refused, "this kernel takes it: not a case for this test"
    with pytest.raises(KernelError) as caught:
        create(shape_of(spec))
    assert caught.value.errno == refused


def create_raw_ring(spec: MapSpec) -> int:
    """Create a ring buffer of exactly this size, which `create_map` would round up."""
    from sonde.kernel import abi, syscall

    sizes = (spec.key_size, spec.value_size, spec.max_entries)
    attr = bytearray(abi.MAP_CREATE.pack(abi.map_type("ringbuf"), *sizes, 0, 0, 0, b"m", 0, 0, 0, 0, 0, 0))
    result = syscall.bpf(abi.BPF_MAP_CREATE, attr)
    if result < 0:
        raise KernelError("create a ring", -result)
    return result


def test_arrays_refuse_to_delete() -> None:
    for kind in ("array", "percpu_array"):
        with both(MapSpec("m", kind, 4, 4, 2)) as (theirs, ours):
            for key in (0, 7):
                word = key.to_bytes(4, "little")
                assert attempt(ours.delete, word) == attempt(theirs.delete, word)


def test_walking_by_key() -> None:
    """An absent key leads to the first one; the walk meets each key once."""
    for kind in ("hash", "percpu_hash", "array"):
        with both(MapSpec("m", kind, 4, 4, 10)) as tables:
            for table in tables:
                for number in range(10):
                    table.update(number.to_bytes(4, "little"), bytes(4))
                seen: list[bytes] = []
                key: bytes | None = None
                while (key := table.next_key(key)) is not None:
                    seen.append(key)
                assert sorted(seen) == [n.to_bytes(4, "little") for n in range(10)]
                assert table.next_key(b"\xff\xff\xff\xff") == seen[0]

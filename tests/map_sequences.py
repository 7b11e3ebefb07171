"""Random operations on a map, the same ones on any map that follows spec.engine.Map: what each returned, or the errno that it was refused with."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

from sonde.errors import KernelError
from sonde.spec.object import MapSpec

FLAGS = (0, 0, 0, 1, 2, 3, 4, 8, 1 << 40)
Outcome = Any


def attempt(action: Callable[..., Outcome], *given: object) -> Outcome:
    """Return what an operation returns, or ("errno", number)."""
    try:
        return action(*given)
    except KernelError as error:
        return ("errno", error.errno)


def random_key(random: Random, spec: MapSpec) -> bytes:
    """A key of a few that come again; of arrays also some beyond the end; of tries prefixes of each other."""
    if spec.type == "lpm_trie":
        data = bytes(random.choice((0, 0x80, 0xFF)) for _ in range(spec.key_size - 4))
        return random.randrange(8 * (spec.key_size - 4) + 3).to_bytes(4, "little") + data
    number = random.randrange(spec.max_entries + spec.max_entries // 4 + 2)
    return number.to_bytes(8, "little").ljust(spec.key_size, b"\x55")[: spec.key_size]


def keyed_operation(random: Random, spec: MapSpec, copies: int) -> Callable[[Any], Outcome]:
    """One operation on a map with keys, to be done on several maps."""
    key = random_key(random, spec)
    values = [random.randbytes(spec.value_size) for _ in range(copies)]
    flags = random.choice(FLAGS)
    choice = random.random()
    if choice < 0.4:
        return lambda table: attempt(table.update, key, values[0], flags)
    if choice < 0.5 and copies > 1:
        return lambda table: attempt(table.update_each, key, values)
    if choice < 0.7:
        return lambda table: attempt(table.delete, key)
    if choice < 0.95:
        return lambda table: attempt(table.lookup, key)
    return lambda table: attempt(lambda: sorted(table.items()))


def queue_operation(random: Random, spec: MapSpec) -> tuple[str, bytes, int]:
    """One of push, pop, peek, with a value and flags for push."""
    return random.choice(("push", "push", "pop", "peek")), random.randbytes(spec.value_size), random.choice(FLAGS)


def separate(table: Any, key: bytes, other: bytes) -> None:
    """Give a new hash map a seed with which two keys belong to different cells."""
    while table.hash(key) & table.mask == table.hash(other) & table.mask:
        table.seed = table.region.words[96 // 8] = table.seed + 1 & (1 << 64) - 1


def plant(table: Any, key: bytes, other: bytes) -> int:
    """Have the slot where `other` is looked for name the entry of `key`, as if their hashes had the same upper half; return the entry's offset."""
    at, entry = table._find(key, table.hash(key))
    h = table.hash(other)
    number = table.region.words[at >> 3] & 0xFFFFFFFF
    table.region.words[table._slot(h) >> 3] = h >> 32 << 32 | number
    return int(entry)

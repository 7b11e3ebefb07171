"""The helpers that work on maps, and those that call back: kernel/bpf/helpers.c, arraymap.c, hashtab.c, bpf_iter.c."""

from __future__ import annotations

from errno import E2BIG, EINVAL, ENOENT

from ...errors import RunError
from ..maps.array import TableMap
from ..maps.base import SharedMap
from ..maps.hash import HashTableMap
from ..maps.queue import BloomMap
from .host import errno

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .host import Host

_MOST_LOOPS = 8 << 20


def find_map(host: Host, address: int) -> SharedMap:
    """Return the map behind a program's pointer. Raises RunError."""
    found = host.map_at(address)
    if not isinstance(found, SharedMap):
        raise RunError(f"{found!r} is no map that helpers can work on", address=address)
    return found


def _lookup(host: Host, r1: int, r2: int, r3: int, r4: int, r5: int) -> int:
    table = find_map(host, r1)
    key = host.memory.read(r2, table.key_size)
    if isinstance(table, (TableMap, HashTableMap)):
        target = table.get_target(key)
        return host.map_address(target) if target is not None else 0
    offset = table.find_at(key, host.world.cpu)
    return host.place(table, offset, table.value_size) if offset else 0


def _lookup_percpu(host: Host, r1: int, r2: int, r3: int, r4: int, r5: int) -> int:
    table, cpu = find_map(host, r1), r3 & 0xFFFFFFFF
    if cpu >= table.copies:
        return 0
    offset = table.find_at(host.memory.read(r2, table.key_size), cpu)
    return host.place(table, offset, table.value_size) if offset else 0


def _update(host: Host, r1: int, r2: int, r3: int, r4: int, r5: int) -> int:
    table, memory = find_map(host, r1), host.memory
    key, value = memory.read(r2, table.key_size), memory.read(r3, table.value_size)
    return errno(table.update_at(key, value, r4, host.world.cpu))


def _delete(host: Host, r1: int, r2: int, r3: int, r4: int, r5: int) -> int:
    table = find_map(host, r1)
    return errno(table.delete_at(host.memory.read(r2, table.key_size)))


def _push(host: Host, r1: int, r2: int, r3: int, r4: int, r5: int) -> int:
    table = find_map(host, r1)
    return errno(table.push_at(host.memory.read(r2, table.value_size), r3))


def _take(host: Host, r1: int, r2: int, remove: bool) -> int:
    table = find_map(host, r1)
    if isinstance(table, BloomMap) and not remove:
        return errno(table.check_at(host.memory.read(r2, table.value_size)))
    found = table.take_at(remove=remove)
    if isinstance(found, int):
        if found == -ENOENT:
            host.memory.write(r2, bytes(table.value_size))
        return errno(found)
    host.memory.write(r2, found)
    return 0


def _for_each(host: Host, r1: int, r2: int, r3: int, r4: int, r5: int) -> int:
    """Call back for each entry; return how many were visited."""
    table = find_map(host, r1)
    if r4:
        return errno(-EINVAL)
    count = 0
    for key in list(table.keys()):
        offset = table.find_at(key, host.world.cpu, mark=False)
        if not offset:
            continue
        count += 1
        place = host.lend(key)
        try:
            stop = host.call_address(r2, r1, place, host.place(table, offset, table.value_size), r3)
        finally:
            host.give_back(place)
        if stop:
            break
    return count


def _loop(host: Host, r1: int, r2: int, r3: int, r4: int, r5: int) -> int:
    count = r1 & 0xFFFFFFFF
    if r4:
        return errno(-EINVAL)
    if count > _MOST_LOOPS:
        return errno(-E2BIG)
    for index in range(count):
        if host.call_address(r2, index, r3):
            return index + 1
    return count


HELPERS = {
    "map_lookup_elem": _lookup,
    "map_lookup_percpu_elem": _lookup_percpu,
    "map_update_elem": _update,
    "map_delete_elem": _delete,
    "map_push_elem": _push,
    "map_pop_elem": lambda host, r1, r2, r3, r4, r5: _take(host, r1, r2, True),
    "map_peek_elem": lambda host, r1, r2, r3, r4, r5: _take(host, r1, r2, False),
    "for_each_map_elem": _for_each,
    "loop": _loop,
}

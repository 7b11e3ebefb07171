"""Rarer things to do with a live map: pop and peek of queues and stacks, whole batches to write, to delete, to take out.

Kept apart from `maps`, which every session imports.
"""

from __future__ import annotations

from errno import E2BIG, EINTR, EINVAL, ENOENT, ENOSPC, EOPNOTSUPP

from ..errors import KernelError
from . import abi, syscall
from .abi import ENOTSUPP, MAP_BATCH, MAP_ELEMENT
from .refusal import refusal
from .syscall import address

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from .maps import KernelMap

_NO_BATCHES = (-EINVAL, -ENOTSUPP, -EOPNOTSUPP)
_BATCH = 4096  # entries taken out at a time, at first


def _retry(command: int, attr: bytearray) -> int:
    result = -EINTR
    while result == -EINTR:
        result = syscall.bpf(command, attr)
    return result


def push(table: KernelMap, value: bytes, flags: int = 0) -> None:
    """Add `value` to a queue or stack; BPF_EXIST (2) in `flags` drops the oldest when it is full. Raises KernelError."""
    if len(value) != table.spec.value_size:
        raise KernelError(f"{len(value)} bytes as value of map {table.name}, which has {table.spec.value_size}", EINVAL)
    attr = bytearray(MAP_ELEMENT.pack(table.fd & 0xFFFFFFFF, 0, address(value), flags))
    result = _retry(abi.BPF_MAP_UPDATE_ELEM, attr)
    if result < 0:
        hint = f"the map is full ({table.spec.max_entries} entries)" if result == -E2BIG else ""
        raise refusal(f"push a value to map {table.name}", -result, hint=hint)


def pop(table: KernelMap) -> bytes | None:
    """Take the next value out of a queue or stack (Linux 4.20); None when it is empty."""
    return _take(table, abi.BPF_MAP_LOOKUP_AND_DELETE_ELEM)


def peek(table: KernelMap) -> bytes | None:
    """Return the next value of a queue or stack and leave it there; None when it is empty."""
    return _take(table, abi.BPF_MAP_LOOKUP_ELEM)


def _take(table: KernelMap, command: int) -> bytes | None:
    value = bytearray(table.spec.value_size)
    result = _retry(command, bytearray(MAP_ELEMENT.pack(table.fd & 0xFFFFFFFF, 0, address(value), 0)))
    if result == -ENOENT:
        return None
    if result < 0:
        raise refusal(f"take a value out of map {table.name}", -result)
    return bytes(value)


def update_batch(table: KernelMap, keys: Sequence[bytes], values: Sequence[bytes]) -> None:
    """Store many entries by one system call (Linux 5.6), or one by one where the kernel cannot."""
    all_keys, all_values = b"".join(keys), b"".join(values)
    count = len(keys)
    if not count:
        return
    attr = bytearray(MAP_BATCH.pack(0, 0, address(all_keys), address(all_values), count, table.fd & 0xFFFFFFFF, 0, 0))
    result = _retry(abi.BPF_MAP_UPDATE_BATCH, attr)
    if result in _NO_BATCHES:
        for key, value in zip(keys, values):
            table.update(key, value)
    elif result < 0:
        raise refusal(f"store {count} entries in map {table.name}", -result)


def delete_batch(table: KernelMap, keys: Sequence[bytes]) -> None:
    """Delete many keys by one system call (Linux 5.6), or one by one. Keys that are absent are passed over."""
    start, count = 0, len(keys)
    while start < count:
        rest = b"".join(keys[start:])
        attr = bytearray(MAP_BATCH.pack(0, 0, address(rest), 0, count - start, table.fd & 0xFFFFFFFF, 0, 0))
        result = _retry(abi.BPF_MAP_DELETE_BATCH, attr)
        if result == -ENOENT:  # the kernel stops at a key that is absent, and says how many came before it
            start += _count(attr) + 1
        elif result in _NO_BATCHES:
            for key in keys[start:]:
                table.delete(key)
            return
        elif result < 0:
            raise refusal(f"delete {count - start} keys of map {table.name}", -result)
        else:
            return


def take_all(table: KernelMap) -> Iterator[tuple[bytes, list[bytes]]]:
    """Read and delete all entries, batch by batch (Linux 5.6; per-CPU and plain hash maps), or one by one.

    Entries that programs add meanwhile may or may not be among them; none is lost.
    """
    key_size, step = table.spec.key_size, table.value_bytes
    count, position = max(64, min(table.spec.max_entries, _BATCH)), 0
    cursor = bytearray(max(key_size, 4))
    result = 0
    while result != -ENOENT:
        keys, values = bytearray(key_size * count), bytearray(step * count)
        places = (position, address(cursor), address(keys), address(values))
        attr = bytearray(MAP_BATCH.pack(*places, count, table.fd & 0xFFFFFFFF, 0, 0))
        result = _retry(abi.BPF_MAP_LOOKUP_AND_DELETE_BATCH, attr)
        if result == -ENOSPC and count < 1 << 24:  # one bucket holds more than fits
            count *= 2
            continue
        if result in _NO_BATCHES and not position:
            yield from _take_singly(table)
            return
        if result < 0 and result != -ENOENT:
            raise refusal(f"take the entries out of map {table.name}", -result)
        for i in range(_count(attr)):
            yield bytes(keys[i * key_size : (i + 1) * key_size]), table.split(values[i * step : (i + 1) * step])
        position = address(cursor)


def _take_singly(table: KernelMap) -> Iterator[tuple[bytes, list[bytes]]]:
    for key, value in list(table.items()):
        table.delete(key)
        yield key, value


def _count(attr: bytearray) -> int:
    return int.from_bytes(attr[abi.MAP_BATCH_COUNT_OFFSET : abi.MAP_BATCH_COUNT_OFFSET + 4], "little")


def read_id(fd: int) -> int:
    """Return the number by which the kernel knows a map."""
    return _read_info(fd)[1]


def check_shape(fd: int, table: KernelMap) -> str:
    """Compare a map that somebody else made with the spec of `table`; return what differs, or ""."""
    kind, _, key_size, value_size, entries, _ = _read_info(fd)
    spec = table.spec
    wanted = (abi.map_type(spec.type), spec.key_size, spec.value_size)
    if (kind, key_size, value_size) == wanted:
        return ""
    name = abi.MAP_TYPES[kind] if kind < len(abi.MAP_TYPES) else str(kind)
    return f"it is a {name} of {entries} entries of {key_size} + {value_size} bytes"


def _read_info(fd: int) -> tuple[int, ...]:
    info = bytearray(abi.MAP_INFO.size)
    result = syscall.bpf(
        abi.BPF_OBJ_GET_INFO_BY_FD, bytearray(abi.OBJ_INFO.pack(fd & 0xFFFFFFFF, len(info), address(info)))
    )
    if result < 0:
        raise refusal("ask what a map is", -result)
    return abi.MAP_INFO.unpack(info)

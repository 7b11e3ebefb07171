"""The helpers that send records: ring buffers, and perf event arrays, whose entries are sinks of the engine (anything with `output(cpu, data) -> int`)."""

from __future__ import annotations

from errno import E2BIG, EINVAL, ENOENT

from ...errors import RunError
from ..maps.ringbuf import RingMap
from .host import M, errno
from .maps import find_map

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    from .host import Host

    class Sink(Protocol):
        """One CPU's perf ring."""

        def output(self, cpu: int, data: bytes) -> int: ...


_INDEX_MASK = _CURRENT_CPU = 0xFFFFFFFF
_CONTEXT_SHIFT = 32
_MOST_BYTES = 1 << 16  # of a record in a perf ring


def _ring(host: Host, address: int) -> RingMap:
    found = find_map(host, address)
    if not isinstance(found, RingMap):
        raise RunError(f"map {found.name} is no ring buffer", address=address)
    return found


def _reserve(host: Host, r1: int, r2: int, r3: int, r4: int, r5: int) -> int:
    ring, size = _ring(host, r1), r2
    if r3:
        return 0
    at = ring.reserve(size)
    if not at:
        return 0
    address = host.place(ring, at, size)
    host.records[address] = (ring, at)
    return address


def _finish(host: Host, address: int, flags: int, discard: bool) -> int:
    found = host.records.pop(address, None)
    if found is None:
        raise RunError(f"{address:#x} is no reserved record", address=address)
    ring, at = found
    assert isinstance(ring, RingMap)
    host.give_back(address)
    ring.commit(at, flags, discard=discard)
    return 0


def _output(host: Host, r1: int, r2: int, r3: int, r4: int, r5: int) -> int:
    return errno(_ring(host, r1).output(host.memory.read(r2, r3), r4))


def _query(host: Host, r1: int, r2: int, r3: int, r4: int, r5: int) -> int:
    return _ring(host, r1).query(r2)


def find_event(host: Host, address: int, flags: int) -> object | int:
    """Return the perf event that flags name in an array, or a negative errno."""
    table = find_map(host, address)
    index = flags & _INDEX_MASK
    if index == _CURRENT_CPU:
        index = host.world.cpu
    if index >= table.max_entries:
        return -E2BIG
    get = getattr(table, "get_target", None)
    if get is None:
        raise RunError(f"map {table.name} holds no perf events", address=address)
    target: object | None = get(index.to_bytes(4, "little"))
    return -ENOENT if target is None else target


def _perf_output(host: Host, r1: int, r2: int, r3: int, r4: int, r5: int) -> int:
    if r3 & ~_INDEX_MASK & M:
        return errno(-EINVAL)
    return _send(host, r2, r3, r4, r5)


def _send(host: Host, table: int, flags: int, data: int, size: int) -> int:
    found = find_event(host, table, flags)
    if isinstance(found, int):
        return errno(found)
    if size > _MOST_BYTES - 24:
        return errno(-E2BIG)
    sink: Sink = found  # type: ignore[assignment]
    return errno(sink.output(host.world.cpu, host.memory.read(data, size)))


def _skb_output(host: Host, r1: int, r2: int, r3: int, r4: int, r5: int) -> int:
    """As perf_event_output; the bytes of the packet that the flags ask for are what the world reads at the context."""
    extra = r3 >> _CONTEXT_SHIFT & 0xFFFFF
    found = find_event(host, r2, r3)
    if isinstance(found, int):
        return errno(found)
    packet = host.world.read(r1, extra, False) if extra else b""
    sink: Sink = found  # type: ignore[assignment]
    return errno(sink.output(host.world.cpu, host.memory.read(r4, r5) + (packet or b"")))


def _perf_read(host: Host, r1: int, r2: int, r3: int, r4: int, r5: int) -> int:
    found = find_event(host, r1, r2)
    counts = None if isinstance(found, int) else host.world.counter(found)
    if counts is None:
        return errno(found if isinstance(found, int) else -EINVAL)
    return counts[0] & M


def _perf_read_value(host: Host, r1: int, r2: int, r3: int, r4: int, r5: int) -> int:
    found = find_event(host, r1, r2) if r4 == 24 else -EINVAL
    counts = None if isinstance(found, int) else host.world.counter(found)
    if counts is None:
        host.memory.write(r3, bytes(r4))
        return errno(found if isinstance(found, int) else -EINVAL)
    host.memory.write(r3, b"".join((n & M).to_bytes(8, "little") for n in counts))
    return 0


HELPERS = {
    "ringbuf_reserve": _reserve,
    "ringbuf_submit": lambda host, r1, r2, r3, r4, r5: _finish(host, r1, r2, False),
    "ringbuf_discard": lambda host, r1, r2, r3, r4, r5: _finish(host, r1, r2, True),
    "ringbuf_output": _output,
    "ringbuf_query": _query,
    "perf_event_output": _perf_output,
    "skb_output": _skb_output,
    "xdp_output": _skb_output,
    "perf_event_read": _perf_read,
    "perf_event_read_value": _perf_read_value,
}

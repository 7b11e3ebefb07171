"""An engine without a kernel: maps in memory, and a reader that tests feed.

engine = FakeEngine(programs={"begin": lambda object: object.emit(1, b"...")})
Session(engine, spec, printer).run()
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from ..spec.object import MapSpec, ObjectSpec, ProbeSpec


class FakeMap:
    """A map that follows the Map protocol. Array maps start with zeros, as in the kernel."""

    def __init__(self, spec: MapSpec, cpus: int = 2) -> None:
        self.spec = spec
        self.closed = False
        self._values = cpus if spec.type.startswith(("percpu", "lru_percpu")) else 1
        self._entries: dict[bytes, list[bytes]] = {}
        if spec.type.endswith("array") and spec.value_size:
            for index in range(spec.max_entries):
                self.update(index.to_bytes(4, "little"), bytes(spec.value_size))
        if spec.initial:
            self.update(bytes(4), spec.initial.ljust(spec.value_size, b"\0"))

    def lookup(self, key: bytes) -> list[bytes] | None:
        found = self._entries.get(bytes(key))
        return None if found is None else list(found)

    def update(self, key: bytes, value: bytes, flags: int = 0) -> None:
        self._entries[bytes(key)] = [bytes(value)] * self._values

    def update_each(self, key: bytes, values: Sequence[bytes]) -> None:
        self._entries[bytes(key)] = [bytes(value) for value in values]

    def delete(self, key: bytes) -> bool:
        return self._entries.pop(bytes(key), None) is not None

    def items(self) -> Iterator[tuple[bytes, list[bytes]]]:
        yield from list(self._entries.items())

    def close(self) -> None:
        self.closed = True


class FakeReader:
    """A ring buffer reader over a list of records; its descriptor is readable while records wait."""

    def __init__(self) -> None:
        self._records: list[bytes] = []
        self._unfinished = 0
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)

    def feed(self, record: bytes) -> None:
        """Append one record (event id, reserved word, fields)."""
        self._records.append(bytes(record))
        os.eventfd_write(self._wake, 1)

    def begin(self, drains: int) -> None:
        """Have a record begun that hides those behind it, until it is thrown away after so many drains."""
        self._unfinished = drains

    @property
    def waiting_bytes(self) -> int:
        return sum(map(len, self._records)) + 8 * bool(self._unfinished)

    def fileno(self) -> int:
        return self._wake

    def drain(
        self,
        handle: Callable[[memoryview, int, int], object],
        runs: Mapping[int, Callable[[memoryview, int], bool]] | None = None,
    ) -> int:
        if self._unfinished:
            self._unfinished -= 1
            return 0
        if not self._records:
            return 0
        records, self._records = self._records, []
        os.eventfd_read(self._wake)
        data = memoryview(b"".join(records))
        start = 0
        for record in records:
            handle(data, start, len(record))
            start += len(record)
        return len(records)

    def close(self) -> None:
        if self._wake >= 0:
            os.close(self._wake)
        self._wake = -1


class FakeLink:
    """What attaching gives: remembers whether it was closed."""

    how = "fake"

    def __init__(self, probe: ProbeSpec) -> None:
        self.probe = probe
        self.closed = False

    def close(self) -> None:
        self.closed = True


class FakeObject:
    """A loaded object. `journal` lists what was asked of it, in order: ("attach", name), ("run", name), ("close",)."""

    def __init__(self, spec: ObjectSpec, programs: Mapping[str, Callable[[FakeObject], object]], cpus: int = 2) -> None:
        self.spec = spec
        self.maps = {m.name: FakeMap(m, cpus) for m in spec.maps}
        self.links: list[FakeLink] = []
        self.journal: list[tuple[str, ...]] = []
        self.ring = FakeReader()
        self.streams: dict[str, FakeReader] = {}  # of other maps, by their names
        self._programs = programs

    def emit(self, ident: int, body: bytes = b"") -> None:
        """Put a record into the ring buffer: event `ident`, with `body` behind its 8-byte header."""
        self.ring.feed(ident.to_bytes(8, "little") + body)

    def attach(self, probes: Sequence[ProbeSpec]) -> list[FakeLink]:
        """Attach, then run what the program does at once: a fake probe hits while it is being attached."""
        links = [FakeLink(probe) for probe in probes]
        self.links += links
        for probe in probes:
            self.journal.append(("attach", probe.name))
            if probe.type != "iter":
                self._call(probe.program)
        return links

    def run(self, program: str) -> int:
        self.journal.append(("run", program))
        self._call(program)
        return 0

    def _call(self, program: str) -> None:
        body = self._programs.get(program)
        if body is not None:
            body(self)

    def iterate(self, link: FakeLink) -> Iterator[bytes]:
        """Run the link's program once."""
        self.journal.append(("iterate", link.probe.name))
        self._call(link.probe.program)
        yield b""

    def reader(self, name: str = "") -> FakeReader:
        return self.streams.setdefault(name, FakeReader()) if name else self.ring

    def detach(self) -> None:
        """Stop all programs: here that is all there is to a link's end. The program "detach" is what hits meanwhile."""
        self._call("detach")
        for link in self.links:
            link.close()

    def close(self) -> None:
        self.journal.append(("close",))
        for reader in (self.ring, *self.streams.values()):
            reader.close()
        for each in self.maps.values():
            each.close()


class FakeEngine:
    """Follows the Engine protocol. `programs` maps a program's name to what it does each time it runs."""

    name = "fake"

    def __init__(self, programs: Mapping[str, Callable[[FakeObject], object]] | None = None, *, cpus: int = 2) -> None:
        self.programs = dict(programs or {})
        self.cpus = cpus
        self.loaded: list[FakeObject] = []

    def load(self, spec: ObjectSpec) -> FakeObject:
        loaded = FakeObject(spec, self.programs, self.cpus)
        self.loaded.append(loaded)
        return loaded

    def load_sharing(self, spec: ObjectSpec, memory: Mapping[str, FakeMap]) -> FakeObject:
        """Load, with some maps those of another object."""
        loaded = self.load(spec)
        loaded.maps.update(memory)
        return loaded

"""The protocols that engines, outputs and controls follow, and the rows that pass between them."""

from __future__ import annotations

from ..bpf.ring import RUN as RUN
from ..bpf.ring import run_stride as run_stride
from ..record import Record
from .layout import Layout
from .object import EventSpec, ObjectSpec, ProbeSpec, ViewSpec

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from typing import Any, Protocol

    from .layout import Frame

    class Link(Protocol):
        """A program attached to a probe. Closing detaches; closing twice is harmless."""

        @property
        def how(self) -> str:
            """The attach method in use ("uprobe_multi", "perf_event ioctl"), and what was tried before it."""
            ...

        def close(self) -> None: ...

    class Map(Protocol):
        """A live map, by raw bytes. Per-CPU maps return the values of all possible CPUs, in CPU order."""

        def lookup(self, key: bytes) -> list[bytes] | None:
            """Return the value (one item; per-CPU maps: one for each possible CPU), or None when absent."""
            ...

        def update(self, key: bytes, value: bytes, flags: int = 0) -> None:
            """Store `value` (per-CPU maps: the same for each CPU)."""
            ...

        def update_each(self, key: bytes, values: Sequence[bytes]) -> None:
            """Store one value for each possible CPU, in CPU order (per-CPU maps only)."""
            ...

        def delete(self, key: bytes) -> bool:
            """Remove `key`; False when it was absent."""
            ...

        def items(self) -> Iterator[tuple[bytes, list[bytes]]]:
            """Yield all entries, in batches where the kernel can."""
            ...

        def close(self) -> None: ...

    class HasDescriptor(Protocol):
        """What the kernel knows by a descriptor: a map whose memory can be mapped …"""

        def fileno(self) -> int: ...

    class Reader(Protocol):
        """Reads a ring buffer."""

        @property
        def waiting_bytes(self) -> int:
            """How many bytes are filled or reserved and not read yet: records that are not finished stay where they are."""
            ...

        def fileno(self) -> int: ...

        def drain(
            self,
            handle: Callable[[memoryview, int, int], object],
            runs: Mapping[int, Callable[[memoryview, int], bool]] = ...,
        ) -> int:
            """Call handle(buffer, start, size) for each waiting record; return their number. Never blocks.

            A reader may hand over RUN records of one size at once: runs[size](buffer, start), each record run_stride(size)
            bytes behind the one before it. When that returns False, they go to `handle` one by one.
            """
            ...

        def close(self) -> None: ...

    class Worker(Protocol):
        """What an engine has to do itself while a session runs: `work` is called whenever the descriptor is readable.

        It calls `mapped` when its process has mapped files with code and waits for their probes.
        """

        mapped: Callable[[], object] | None

        def fileno(self) -> int: ...
        def work(self) -> None: ...

    class LoadedObject(Protocol):
        """An object in an engine. Closing it detaches, unloads and frees everything that it made.

        One that has an attribute `worker` (a Worker, or None) is given its turn in the session's loop; `notes` are told to the user once
        its probes are attached; `rows` (a list) are shown, and taken from it, as they come.
        """

        @property
        def spec(self) -> ObjectSpec: ...

        @property
        def maps(self) -> Mapping[str, Map]: ...

        def attach(self, probes: Sequence[ProbeSpec]) -> Sequence[Link]:
            """Attach several probes of one program at once (one multi link where the engine can)."""
            ...

        def run(self, program: str) -> int:
            """Run a begin, end or self program once, now; return its return code."""
            ...

        def reader(self, name: str = "") -> Reader:
            """Open the reader of the map `name`, `spec.ringbuf` where none is given."""
            ...

        def iterate(self, link: Any) -> Iterator[bytes]:
            """Run the iterator that `link` attached, once over; yield what its program wrote, piece by piece."""
            ...

        def detach(self) -> None:
            """Stop all attached programs at once; the links stay to be closed."""
            ...

        def close(self) -> None: ...

    class Engine(Protocol):
        """Turns specs into live things."""

        name: str

        def load(self, spec: ObjectSpec) -> LoadedObject: ...

    class SharingEngine(Engine, Protocol):
        """An engine that can put arrays into memory of the kernel's, where programs of both find the same values."""

        def load_sharing(self, spec: ObjectSpec, memory: Mapping[str, Any]) -> LoadedObject:
            """Load, with the arrays of these names in the memory of these maps (which have descriptors)."""
            ...

    class Symbolizer(Protocol):
        """Names addresses. Never raises for an address that it does not know."""

        def resolve(self, space: str, pid: int, addr: int) -> Frame: ...

    class Printer(Protocol):
        """Where rows and snapshots go. `close` flushes. All may raise OutputError."""

        def attached(self, count: int) -> None:
            """All probes are in place."""
            ...

        def row(self, row: Row) -> None:
            """One event."""
            ...

        def snapshot(self, snapshot: Snapshot) -> None:
            """A map, whole or in part, as it was at one moment."""
            ...

        def lost(self, count: int) -> None:
            """`count` more events found no room since the last call."""
            ...

        def ending(self) -> None:
            """All probes are out and their rows printed; the maps come next."""
            ...

        def message(self, severity: str, text: str) -> None:
            """A warning or error of the session itself; goes to stderr."""
            ...

        def flush(self) -> None: ...

        def close(self) -> None: ...

    class Control(Protocol):
        """What rows may ask of the session (exit, clear, zero, print a map)."""

        def exit(self, code: int) -> None: ...
        def clear(self, view: str) -> None: ...
        def zero(self, view: str) -> None: ...
        def snapshot(self, view: str) -> Snapshot: ...


class Sample(Record, eq=False):
    """One hit of a timer or counter in a thread. `registers` is a struct pt_regs, `chain` the program counters, the innermost first; `time_ns` the monotonic time.

    `stack` is the memory from the stack pointer on, if the sampler was asked for it.
    """

    pid: int
    tid: int
    cpu: int
    time_ns: int
    addr: int
    period: int
    chain: tuple[int, ...]
    registers: bytes
    stack: bytes = b""


class LineFormat(Record, eq=False):
    """A row that prints as one `%` operation on raw bytes: what a session needs to skip values and rows altogether.

    A printer may have the method `line_format(event) -> LineFormat | None`. `takes` says for each field of the event
    what `pattern` wants: a code of `struct` for an integer (its low bytes, when it is narrower than the field), or "s"
    for the bytes of a string up to its NUL. `emit` takes the text.
    """

    pattern: bytes
    takes: tuple[str, ...]
    emit: Callable[[bytes], object]


class Row(Record, eq=False):
    """One decoded event. `values` match `event.fields` in number and order (see `layout` for their types)."""

    event: EventSpec
    values: tuple[Any, ...]

    def __init__(self, event: EventSpec, values: tuple[Any, ...]) -> None:  # made once an event: keep it short
        self.event = event  # type: ignore[misc]
        self.values = values  # type: ignore[misc]


class Entry(Record):
    """One entry of a snapshot; a scalar view has one entry with the key None."""

    key: Any
    value: Any


class Snapshot(Record, eq=False):
    """The entries of a view, reduced over CPUs, in no particular order; `top` and `div` are print()'s arguments."""

    view: ViewSpec
    entries: tuple[Entry, ...]
    top: int = 0
    div: int = 0
    single: bool = False  # print(@m[k]): one entry was asked for

    @property
    def key(self) -> Layout | None:
        """Layout of the keys."""
        return self.view.key

"""The user engine in the place of the kernel: a BPF object whose programs run inside one process, without privileges (see `programs.make_object`).

Functions and tables are as they always are. Probes are of user space: entries and returns of functions, USDT, system calls (by their tracepoints, or by
kprobes on the functions behind them). The process is that of the first probe that names one, SONDE_PID (`sonde bcc -p PID`), or the tool's own `-p PID`.
"""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager
from functools import lru_cache

from ...errors import FeatureError, UsageError
from ...record import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from typing import Any, BinaryIO

    from ...bpf.maps import SharedMap
    from ...spec.object import MapSpec, ProbeSpec, ProgramSpec
    from ...spec.target import Target
    from ...user.growing import GrownLink
    from ...user.worker import PolledReader
    from .lines import LinePipe

_MAPS = frozenset(["prog_array", "perf_event_array", "stack_trace"])
_FIRST_FD = 1 << 24  # numbers of programs, where the kernel has descriptors: no file has such a one


def is_wanted() -> bool:
    """Whether programs are to run in a process: SONDE_ENGINE says so, or this user may not use the kernel's engine. Raises UsageError."""
    wanted = os.environ.get("SONDE_ENGINE", "")
    if wanted not in ("", "kernel", "user"):
        raise UsageError(f"SONDE_ENGINE is {wanted!r}; it may be kernel or user")
    return wanted == "user" or (not wanted and _is_needed())


@lru_cache(maxsize=1)
def _is_needed() -> bool:
    from ...kernel.refusal import missing_capability

    return bool(missing_capability("CAP_BPF", "CAP_PERFMON"))


def in_process_target() -> Target:
    """Return the Target that texts are compiled for."""
    from ...kernel.target import live_target
    from ...user.growing import HELPERS
    from ...user.target import user_target

    return user_target(live_target(), unsafe=_is_unsafe(), helpers=HELPERS, maps=_MAPS)


def find_pid() -> int:
    """Return the process that was named: by SONDE_PID, or by the tool's own -p; 0 for none. Raises UsageError."""
    text = os.environ.get("SONDE_PID", "")
    if text:
        if not text.isdecimal():
            raise UsageError(f"SONDE_PID is {text!r}, no process ID")
        return int(text)
    words = sys.argv[1:]
    for word, following in zip(words, [*words[1:], ""]):
        name, _, value = word.partition("=")
        if name in ("-p", "--pid") and (value or following).isdecimal():
            return int(value or following)
    return 0


def _end_in_order() -> None:
    """Have this process take its probes out also when it is told to end by a signal that it does not handle."""
    import signal
    import threading

    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is signal.SIG_DFL:
                signal.signal(number, lambda number, frame: sys.exit(128 + number))


def _is_unsafe() -> bool:
    """Whether programs may change what the process does (`sonde bcc --unsafe`)."""
    return os.environ.get("SONDE_UNSAFE", "") not in ("", "0")


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Let no second Ctrl-C come between: what is being taken out of the process is to be out of it."""
    import signal
    import threading

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    old = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in old.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


def _unwind() -> str:
    """How user stacks are walked (`sonde bcc --unwind`). Raises UsageError."""
    how = os.environ.get("SONDE_UNWIND", "") or "fp"
    if how not in ("fp", "dwarf"):
        raise UsageError(f"SONDE_UNWIND is {how!r}; it may be fp or dwarf")
    return how


class ProcessMap:
    """A map of the object (see kernel.maps.KernelMap). `operations` has what is no method of those."""

    fd = -1
    batched = False

    def __init__(self, spec: MapSpec, table: SharedMap) -> None:
        self.spec = spec
        self.table = table
        self.copies = table.copies
        self.closed = False
        self.lookup, self.update_each = table.lookup, table.update_each
        self.items, self.next_key = table.items, table.next_key
        self.operations = Operations

    @property
    def name(self) -> str:
        """The name in the spec."""
        return self.spec.name

    def update(self, key: bytes, value: bytes, flags: int = 0) -> None:
        """Store a value. Raises MapError."""
        self.table.update(key, value, flags)

    def delete(self, key: bytes) -> bool:
        """Remove a key; False when it was absent. Raises MapError."""
        return self.table.delete(key)


class ProgramMap(ProcessMap):
    """An array of programs: a value is what `ProcessProgram.fd_as` returned."""

    def __init__(self, spec: MapSpec, table: SharedMap, put: Callable[[int, int], None]) -> None:
        super().__init__(spec, table)
        self._put = put

    def update(self, key: bytes, value: bytes, flags: int = 0) -> None:
        """Put a program in. Raises UsageError."""
        self._put(int.from_bytes(key, "little"), int.from_bytes(value, "little"))

    def delete(self, key: bytes) -> bool:
        """Take a program out; False when there was none."""
        found = self.lookup(key)
        self._put(int.from_bytes(key, "little"), 0)
        return bool(found and any(found[0]))


class Operations:
    """What `kernel.mapops` does with a map of the kernel's."""

    @staticmethod
    def delete_batch(live: ProcessMap, keys: Sequence[bytes]) -> None:
        """Delete keys; those that are not there are passed over."""
        for key in keys:
            live.delete(key)

    @staticmethod
    def update_batch(live: ProcessMap, keys: Sequence[bytes], values: Sequence[bytes]) -> None:
        """Store values at keys. Raises MapError."""
        for key, value in zip(keys, values):
            live.update(key, value)

    @staticmethod
    def take_all(live: ProcessMap) -> Iterator[tuple[bytes, list[bytes]]]:
        """Take all entries out."""
        for key, values in list(live.items()):
            if live.delete(key):
                yield key, values

    @staticmethod
    def push(live: ProcessMap, value: bytes, flags: int = 0) -> None:
        """Add a value to a queue or stack. Raises MapError."""
        live.table.push(value, flags)

    @staticmethod
    def pop(live: ProcessMap) -> bytes | None:
        """Take the next value out; None when there is none."""
        return live.table.pop()

    @staticmethod
    def peek(live: ProcessMap) -> bytes | None:
        """Return the next value and leave it there; None when there is none."""
        return live.table.peek()

    @staticmethod
    def read_id(fd: int) -> int:
        """There is no number: the kernel does not know this map. Raises FeatureError."""
        raise FeatureError(
            "this table is in a process, where it has no number", feature="map id", hint="use --engine kernel"
        )


class ProcessProgram:
    """A program of the object (see kernel.programs.Program)."""

    closed = False

    def __init__(self, spec: ProgramSpec, number: int) -> None:
        self.spec = spec
        self.name = spec.name
        self.number = number

    def fd_as(self, attach_type: str = "") -> int:
        """Return what stands for its descriptor: for arrays of programs, and for nothing else."""
        return self.number


class ProcessObject:
    """Takes the place of the kernel's object."""

    def __init__(self, pid: int = 0) -> None:
        from ...kernel.sampling import Sampler
        from ...user.growing import GrowingObject

        arch, unwind = os.uname().machine, _unwind()
        sample = lambda probe: Sampler(probe, arch, stacks=unwind == "dwarf")  # noqa: E731
        self.grown = GrowingObject(pid, sample, unsafe=_is_unsafe(), unwind=unwind)
        self.maps: dict[str, ProcessMap] = {}
        self.programs: dict[str, ProcessProgram] = {}
        self._lines: LinePipe | None = None
        _end_in_order()

    def add_map(self, spec: MapSpec, name: str = "") -> ProcessMap:
        """Make one more map. Raises MapError, FeatureError."""
        spec = replace(spec, name=name or spec.name)
        if spec.type == "perf_event_array" and not spec.max_entries:
            spec = replace(spec, max_entries=os.cpu_count() or 1)
        table = self.grown.add_map(spec)
        if spec.type == "prog_array":
            made: ProcessMap = ProgramMap(spec, table, lambda index, number: self._set_tail(spec.name, index, number))
        else:
            made = ProcessMap(spec, table)
        self.maps[spec.name] = made
        return made

    def add_program(
        self, spec: ProgramSpec, probes: Sequence[ProbeSpec] = (), maps: Mapping[str, ProcessMap] | None = None
    ) -> ProcessProgram:
        """Verify one more program. Raises UnsafeError, FeatureError."""
        self.grown.add_program(spec, {name: live.spec.name for name, live in (maps or {}).items()})
        made = self.programs[spec.name] = ProcessProgram(spec, _FIRST_FD + len(self.programs))
        return made

    def _set_tail(self, table: str, index: int, number: int) -> None:
        names = {program.number: name for name, program in self.programs.items()}
        if number and number not in names:
            raise UsageError(f"{number} is no program of this object", hint="store a function that load_func returned")
        self.grown.set_tail(table, index, names.get(number, ""))

    def dump(self, spec: ProgramSpec) -> bytes:
        """Return a program's code, with the numbers of maps in it."""
        from ...spec.relocation import relocate

        return bytes(relocate(spec, {name: at for at, name in enumerate(self.maps, 1)}))

    def attach(self, probes: Sequence[ProbeSpec]) -> list[GrownLink]:
        """Attach to places in the process. Raises ProbeError, TargetError, PrivilegeError."""
        links: list[Any] = self.grown.attach(probes)
        return links

    def own(self, link: Any) -> None:
        """Links of the kernel's have no place here."""
        raise FeatureError(
            "what the kernel alone can attach to cannot be had in a process",
            feature="user:link",
            hint="use --engine kernel",
        )

    def drop(self, link: GrownLink) -> None:
        """Detach one link. Twice is harmless."""
        self.grown.drop(link)

    def events(self, live: ProcessMap) -> EventReader:
        """Open the reader of what stands for a perf event array."""
        return EventReader(live, self.grown.ring(live.name))

    def ring(self, live: ProcessMap) -> PolledReader:
        """Open the reader of a ring buffer."""
        return self.grown.ring(live.name)

    def open_lines(self, nonblocking: bool) -> BinaryIO:
        """Open what stands for trace_pipe: the lines that programs of this object write. The caller closes it."""
        from .lines import LinePipe

        self._lines = LinePipe(self.grown)
        return self._lines.open(nonblocking)

    def close(self) -> None:
        """Take everything out of the process. Twice is harmless."""
        with _undisturbed():
            if self._lines is not None:
                self._lines.close()
            self.grown.close()
        for note in self.grown.notes:
            print(f"sonde: {note}", file=sys.stderr)
        self.grown.notes.clear()
        for live in self.maps.values():
            live.closed = True


class EventReader:
    """Reads the ring that stands for a perf event array: each record is led by the number of its CPU (see user.sending)."""

    def __init__(self, live: ProcessMap, reader: PolledReader) -> None:
        self._table = live.table
        self._reader = reader
        self._lost = 0

    def fileno(self) -> int:
        """Return the descriptor to wait on."""
        return self._reader.fileno()

    def drain_each(
        self, handle_of: Callable[[int], Callable[[memoryview, int, int], object]]
    ) -> Iterator[tuple[int, int, int]]:
        """Hand out the waiting records; yield (CPU, records, newly lost ones), once (see kernel.perfbuf.PerfReader)."""
        handles: dict[int, Callable[[memoryview, int, int], object]] = {}

        def hand(buffer: memoryview, start: int, size: int) -> None:
            cpu = int.from_bytes(buffer[start : start + 4], "little")
            handle = handles.get(cpu)
            if handle is None:
                handle = handles[cpu] = handle_of(cpu)
            handle(buffer, start + 4, size - 4)

        count = self._reader.drain(hand)
        lost, known = self._table.lost, self._lost
        self._lost = lost
        yield 0, count, lost - known

    def close(self) -> None:
        """Close the reader. Twice is harmless."""
        self._reader.close()

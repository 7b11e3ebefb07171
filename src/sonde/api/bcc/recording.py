"""A BCC tool run for what it would load: its set-up is recorded, nothing is loaded or attached, and it ends where it would begin to wait.

The tool runs with a kernel object that only takes notes. All that it does before the first poll, read of a table or sleep counts: which
functions become programs of which type, and where it attaches them. What it does in Python only (filling tables, perf events with attributes of
its own, packet sockets) cannot be in an object, and is said.
"""

from __future__ import annotations

import os
import sys

from ...errors import FeatureError, FormatError, UsageError
from ...record import Record
from ...spec.object import ObjectSpec
from .tool import run_tool

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from typing import Any

    from ...kernel.links import KernelLink
    from ...spec.object import MapSpec, ProbeSpec, ProgramSpec

_WAITING = (
    "perf_buffer_poll", "perf_buffer_consume", "kprobe_poll", "ring_buffer_poll", "ring_buffer_consume", "trace_open",
    "trace_readline", "trace_fields", "trace_print",
)  # fmt: skip


class SetUpDone(BaseException):
    """Raised in the tool where its set-up is over; no tool catches it, as it is no Exception."""


class Recorded(Record, eq=False):
    """What a tool has set up, and what of it an object cannot hold."""

    spec: ObjectSpec
    left_out: tuple[str, ...]


class _Map:
    """A map that is not there: writing to it is noted, reading ends the set-up."""

    closed = False
    fd = -1
    batched = False

    def __init__(self, spec: MapSpec, notes: list[str]) -> None:
        self.spec = spec
        self.copies = 1
        self._notes = notes

    @property
    def name(self) -> str:
        return self.spec.name

    def update(self, key: bytes, value: bytes, flags: int = 0) -> None:
        self._notes.append(f"the first content of table {self.spec.name}, which the tool writes")

    def update_each(self, key: bytes, values: Sequence[bytes]) -> None:
        self.update(key, b"")

    def __getattr__(self, name: str) -> Any:
        raise SetUpDone

    def close(self) -> None:
        self.closed = True


class _Program:
    """A program that is not loaded: who asks for its descriptor would attach it by means of its own."""

    closed = False

    def __init__(self, spec: ProgramSpec, notes: list[str]) -> None:
        self.spec = spec
        self.name = spec.name
        self._notes = notes

    def fd_as(self, attach_type: str = "") -> int:
        self._notes.append(f"where program {self.spec.name} is attached: the tool does that by its descriptor")
        raise SetUpDone


class RecordingObject:
    """Takes the place of the kernel's object: keeps what is added to it."""

    def __init__(self) -> None:
        self.maps: dict[str, _Map] = {}
        self.programs: dict[str, _Program] = {}
        self.probes: list[ProbeSpec] = []
        self.notes: list[str] = []

    def add_map(self, spec: MapSpec, name: str = "") -> _Map:
        """Keep a map."""
        made = self.maps[name or spec.name] = _Map(spec, self.notes)
        return made

    def add_program(
        self, spec: ProgramSpec, probes: Sequence[ProbeSpec] = (), maps: Mapping[str, _Map] | None = None
    ) -> _Program:
        """Keep a program."""
        made = self.programs[spec.name] = _Program(spec, self.notes)
        return made

    def attach(self, probes: Sequence[ProbeSpec]) -> list[KernelLink]:
        """Keep places."""
        from ...kernel.links import KernelLink

        self.probes += probes
        return [KernelLink(probes, "recorded")]

    def own(self, link: KernelLink) -> None:
        """Nothing is held."""

    def drop(self, link: KernelLink) -> None:
        """Forget places again."""
        self.probes = [probe for probe in self.probes if probe not in link.probes]

    def close(self) -> None:
        """Nothing is open."""


def record_tool(path: str, arguments: Sequence[str] = ()) -> Recorded:
    """Run a tool up to the end of its set-up; return what its BPF object, the first with programs, would be. Raises UsageError, FeatureError, SondeError.

    Runs the tool's Python in this process, with nothing on stdout, and leaves the process as it was.
    """
    if not is_tool(path):
        raise UsageError(f"{path} is no Python program", hint="what is built are tools in Python that use bcc")
    made: list[RecordingObject] = []

    def make() -> RecordingObject:
        if made and made[-1].programs:  # an empty one is made to ask what this kernel has
            raise SetUpDone
        made.append(RecordingObject())
        return made[-1]

    status = 0
    with _Stage(make):
        try:
            status = run_tool(path, arguments)
        except SetUpDone:
            pass
    if not made:
        raise FeatureError(
            f"{path} ended (status {status}) before it made a BPF object",
            feature="bcc",
            hint="give it the arguments it needs behind its name",
        )
    return _collect(path, made[-1])


def _collect(path: str, found: RecordingObject) -> Recorded:
    if not found.programs:
        raise FormatError("this tool has loaded no function", path=path)
    names = {program.name for program in found.programs.values()}
    probes = tuple(probe for probe in found.probes if probe.program in names)
    maps = {live.spec.name: live.spec for live in found.maps.values()}
    spec = ObjectSpec(tuple(p.spec for p in found.programs.values()), tuple(maps.values()), probes)
    return Recorded(spec, tuple(dict.fromkeys(found.notes)))


class _Stage:
    """The process as a tool finds it while it is recorded; put back afterwards."""

    def __init__(self, make: Callable[[], RecordingObject]) -> None:
        self.make = make
        self.undo: list[Callable[[], None]] = []

    def put(self, where: Any, name: str, value: object) -> None:
        old = getattr(where, name)
        self.undo.append(lambda: setattr(where, name, old))
        setattr(where, name, value)

    def __enter__(self) -> None:
        import time

        from . import functions, programs, quota, unit
        from .bpf import BPF
        from .tables import buffers

        self.put(programs, "make_object", self.make)
        self.put(unit, "relocatable", True)
        self.put(functions, "have_kprobes", lambda: True)  # the object may go where they are
        self.put(quota, "add", _pass)
        for name in _WAITING:
            self.put(BPF, name, _stop)
        self.put(time, "sleep", _stop)
        self.put(BPF, "_attach_attr", _note_event)
        for kind, name in (("PerfEventArray", "open_perf_buffer"), ("RingBuf", "open_ring_buffer")):
            self.put(getattr(buffers, kind), name, _pass)
        self.put(buffers.PerfEventArray, "open_perf_event", _note_counter)
        self.put(sys, "argv", list(sys.argv))
        self.put(sys, "path", list(sys.path))
        main = sys.modules["__main__"]
        self.undo.append(lambda: sys.modules.__setitem__("__main__", main))
        known = {name for name in sys.modules if name.split(".")[0] == "bcc"}
        self.undo.append(lambda: _forget(known))
        sink = open(os.devnull, "w")
        self.undo.append(sink.close)
        self.put(sys, "stdout", sink)

    def __exit__(self, *_: object) -> None:
        for undo in reversed(self.undo):
            undo()


def _forget(known: set[str]) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "bcc" and name not in known]:
        del sys.modules[name]


def _stop(*_: object, **__: object) -> None:
    raise SetUpDone


def _pass(*_: object, **__: object) -> None:
    """Nothing is opened, and nothing is counted."""


def _note_event(bpf: Any, key: tuple[int, int], attr: bytearray, fn_name: str | bytes, *_: object) -> None:
    from ...lang.c.options import Entry
    from .utils import to_bytes, to_str

    bpf.load_entry(to_bytes(fn_name), Entry("perf_event"))
    bpf.object.notes.append(f"the perf event {key[0]}:{key[1]} that program {to_str(fn_name)} is attached to")


def _note_counter(table: Any, *_: object, **__: object) -> None:
    table.bpf.object.notes.append(f"the counters in table {table._name.decode(errors='replace')}")


def is_tool(path: str) -> bool:
    """Tell whether a file is a Python program: by its ending, or by its first line."""
    try:
        with open(path, "rb") as file:
            first = file.readline(200)
    except OSError:
        return False
    return path.endswith(".py") or (first.startswith(b"#!") and b"python" in first)


def iter_unused(found: Recorded) -> Iterator[str]:
    """Yield what is to be said of programs that are attached nowhere."""
    attached = {probe.program for probe in found.spec.probes}
    for program in found.spec.programs:
        if program.name not in attached:
            yield program.name

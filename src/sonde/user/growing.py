"""An object of the user engine that grows: maps, programs and probes are added while it is in a process, one by one, as BCC's API does it.

    grown = GrowingObject(pid)                     0: the process is that of the first probe
    grown.add_map(spec); grown.add_program(spec)
    link = grown.attach(probes); …; grown.drop(link)

Maps are in sonde's own memory until there is a process; then they move into what it shares with us. A thread of ours does what a session does for a script:
it follows the process and keeps its clock.
"""

from __future__ import annotations

import select
import threading
import time

from ..bpf.maps import MapShape, create, measure
from ..bpf.maps.ringbuf import RingMap
from ..errors import FeatureError, ProbeError, SondeError, UsageError
from ..record import replace
from ..spec.object import MapSpec, ObjectSpec
from . import helpers, sending
from .checks import PLACED, SAMPLED, check_probes, number_maps
from .engine import UserEngine, UserLink, UserObject
from .local import local_helpers
from .sampled import SampledWorld
from .worker import PolledReader, Worker

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from ..bpf.maps import SharedMap
    from ..spec.object import ProbeSpec, ProgramSpec
    from .agent import Agent
    from .inside import Inside
    from .stopped import StoppedProcess
    from .worker import Sampler

EVENT_BYTES, LINES_BYTES = 1 << 19, 1 << 17  # of the ring that stands for a perf event array, and of that for lines
LINES = "sonde_lines"
HELPERS = helpers.NAMES | sending.NAMES
# What stands for these is for programs in the process.
_NOT_ON_SAMPLES = frozenset(["perf_event_output", "tail_call", "trace_printk"])
_TURN_S = 0.02
# Every place whose call is not known gets all of them. So from so many probes of system calls on, what is attached one by one is placed together, a moment after the last.
_MANY_CALLS, _QUIET_S = 8, 0.1


class GrownLink(UserLink):
    """Probes that were attached together."""

    def __init__(self, owner: GrowingObject, how: str, probes: Sequence[ProbeSpec]) -> None:
        super().__init__(owner, how)
        self.probes = tuple(probes)
        self._object = owner

    def close(self) -> None:
        """Take these probes out of the process. Twice is harmless."""
        self._object.drop(self)


class GrowingObject(UserObject):
    """A context manager. All methods may be called by several threads."""

    def __init__(
        self,
        pid: int = 0,
        sample: Callable[[ProbeSpec], Sampler] | None = None,
        *,
        unsafe: bool = False,
        unwind: str = "fp",
    ) -> None:
        """`sample` begins to take samples for a probe. `unsafe`: programs may change what the process does. `unwind`: as UserEngine has it."""
        self._lock = threading.RLock()
        self._shared: set[str] = set()  # maps that the process has
        self._links: list[GrownLink] = []
        self._thread: threading.Thread | None = None
        self._ending = threading.Event()
        self._later: list[ProbeSpec] = []  # probes that are to be placed together
        self._place_at = 0.0  # when
        super().__init__(ObjectSpec(()), UserEngine(pid, None, sample, unsafe=unsafe, unwind=unwind))
        self._helpers |= HELPERS

    # maps and programs ----------------------------------------------------------------------------------------

    def add_map(self, spec: MapSpec) -> SharedMap:
        """Make one more map. Raises MapError, FeatureError, UsageError for a name that there is."""
        with self._lock:
            if spec.name in self.maps:
                raise UsageError(f"there is a map {spec.name} already")
            self._fill(spec, create(self._shape(spec)))
            for key, value in spec.entries:
                self.maps[spec.name].update(key, value)
            self.spec = replace(self.spec, maps=(*self.spec.maps, spec))
            if self._inside is not None:
                with self._stop_for_calls() as stopped:
                    self._inside.share(len(self.spec.maps), lambda agent: self._share_map(agent, stopped, spec))
            return self.maps[spec.name]

    def _shape(self, spec: MapSpec) -> MapShape:
        """What stands for a map of the kernel's: a ring for a perf event array."""
        if spec.type == "perf_event_array":
            return MapShape("ringbuf", 0, 0, EVENT_BYTES, name=spec.name, cpus=self._slots + 1)
        return super()._shape(spec)

    def add_program(self, spec: ProgramSpec, maps: Mapping[str, str] | None = None) -> None:
        """Verify one more program. `maps` are names of its own, and what they are called here. Raises UnsafeError, FeatureError."""
        with self._lock:
            if "trace_printk" in spec.helpers:
                self.have_lines()
            numbers = number_maps(self.spec)
            names = local_helpers(sampled=True) - _NOT_ON_SAMPLES if spec.type == "perf_event" else self._helpers
            self._verify_program(spec, names, own={name: numbers[known] for name, known in (maps or {}).items()})
            self._own([spec])
            self.spec = replace(self.spec, programs=(*self.spec.programs, spec))

    def have_lines(self) -> None:
        """Make the ring for lines of bpf_trace_printk, if there is none yet."""
        with self._lock:
            if LINES in self.maps:
                return
            self.add_map(MapSpec(LINES, "ringbuf", 0, 0, LINES_BYTES))
            if self._inside is not None:
                self._inside.set_lines(len(self.spec.maps))

    def set_tail(self, table: str, index: int, program: str) -> None:
        """Put a program into an array of programs; "" takes it out. Raises UsageError."""
        if program and program not in self._programs:
            raise UsageError(f"the object has no program {program!r}")
        with self._lock:
            self._tails.setdefault(table, {})[index] = program
            if self._inside is not None:
                self._fill_tails(self._inside)

    # the process ----------------------------------------------------------------------------------------------

    def _know_process(self, probes: Sequence[ProbeSpec]) -> None:
        """Find out which process the probes are of. Raises ProbeError."""
        pids = {probe.pid for probe in probes if probe.pid} | ({self.pid} if self.pid else set())
        if len(pids) != 1:
            found = f"processes {', '.join(map(str, sorted(pids)))}" if pids else "every process"
            raise ProbeError(
                f"{probes[0].name}: the user engine probes one process, not {found}",
                hint="say which: attach with pid=…, or give sonde bcc -p PID",
            )
        self.pid = pids.pop()
        check_probes(ObjectSpec((), probes=tuple(probes)), self.pid)

    def _enter_process(self, probes: Sequence[ProbeSpec]) -> Inside:
        """Share what there is with the process of the probes, if that has not been done."""
        self._know_process(probes)
        if self._inside is not None:
            return self._inside
        self._place_in_process()
        assert self._inside is not None
        self._attached = True
        self._begin_to_work()
        return self._inside

    def _begin_to_work(self) -> None:
        """Have the worker that fits what there is now, and a thread that gives it its turn."""
        if self.worker is not None:
            self.worker.close()
        self.worker = Worker(self.run, self._run_on, self.look, self._state)
        self._place_sampled()
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="sonde", daemon=True)
            self._thread.start()

    def _place_sampled(self) -> None:
        """Place the programs for samples, on the maps where they are now, and take samples for them."""
        if self._sampled is not None:
            self._sampled.close()
            self._sampled = None
        probes = [probe for link in self._links for probe in link.probes if probe.type in SAMPLED]
        if not probes:
            return
        self._sampled = self._take_programs(probes, SampledWorld(self.pid, self._make_unwinder()))
        self._begin_samples(probes)

    def _calls_any(self, names: frozenset[str]) -> bool:
        return bool(names)  # programs come later

    def _check_placed(self) -> None:
        """There may be nothing to probe yet: probes come later."""

    def _make_inside(self) -> Inside:
        inside = super()._make_inside()
        inside.set_lines(number_maps(self.spec).get(LINES, 0))
        inside.own_reads = inside.grows = inside.identifies = True
        return inside

    def _share_maps(self, agent: Agent, stopped: StoppedProcess) -> dict[int, tuple[SharedMap, int]]:
        return {number: self._share_map(agent, stopped, spec) for number, spec in enumerate(self.spec.maps, 1)}

    def _share_map(self, agent: Agent, stopped: StoppedProcess, spec: MapSpec) -> tuple[SharedMap, int]:
        """Move a map into memory that the process has too; lend it to the next program."""
        table = self.maps[spec.name]
        size, repeated = measure(table.shape)
        if spec.name in self._shared and spec.type != "prog_array":  # its addresses are of one program's memory
            return table, agent.lend(stopped, table.region.fd, size, repeated)
        shared = agent.share(stopped, size, repeated)
        table.move(shared.fd)
        self._shared.add(spec.name)
        for reader in self._readers:
            if isinstance(reader, PolledReader) and reader.reads(table):
                reader.reopen()
        return table, shared.address

    def _work(self) -> None:
        """What a session's loop does for its engine."""
        while not self._ending.is_set():
            worker = self.worker
            assert worker is not None
            ready = select.select([worker.fileno()], [], [], _TURN_S)[0]
            with self._lock:
                if self._ending.is_set():
                    return
                if ready and worker is self.worker:
                    worker.work()
                if self._later and time.monotonic() > self._place_at:  # nobody is adding to them right now
                    self._place_later()

    def _place_later(self) -> None:
        probes, self._later = self._later, []
        if self._inside is None or not self._attached:
            return
        try:
            self._rebuild(self._inside, self._inside.add(probes))
        except SondeError as failure:
            self._tell(f"{len(probes)} probes of system calls could not be placed: {failure}")

    # probes ---------------------------------------------------------------------------------------------------

    def attach(self, probes: Sequence[ProbeSpec]) -> list[UserLink]:
        """Attach several probes at once. Raises ProbeError (also where no jump fits), TargetError; then none of them is attached."""
        if all(probe.type in SAMPLED for probe in probes):
            return self._attach_samples(probes)
        if any(probe.type not in PLACED for probe in probes):
            check_probes(ObjectSpec((), probes=tuple(probes)), self.pid or 1)
            raise FeatureError(
                f"{probes[0].name}: programs of this kind run on no probe of type {probes[0].type} in a process",
                feature=f"user:{probes[0].type}",
                hint="use --engine kernel",
            )
        with self._lock:
            inside = self._enter_process(probes)
            link = GrownLink(self, "placed together with those that follow", probes)
            self._links.append(link)
            self._note_probes()
            if self._is_one_of_many(probes):
                self._later += probes
                self._place_at = time.monotonic() + _QUIET_S
                return [link]
            try:
                self._rebuild(inside, inside.add(probes))
            except SondeError:
                self.drop(link)
                raise
            hows = {inside.hows.get(probe.name, "") for probe in probes}
            if hows == {"not attached"}:
                self.drop(link)
                reasons = [note for note in inside.notes if note.startswith(probes[0].name)]
                raise ProbeError(
                    reasons[-1] if reasons else f"{probes[0].name} cannot be probed", hint="use --engine kernel"
                )
            link.how = ", ".join(sorted(hows))
            return [link]

    def _attach_samples(self, probes: Sequence[ProbeSpec]) -> list[UserLink]:
        """Run programs in sonde, on samples of the process, which is left alone."""
        with self._lock:
            self._know_process(probes)
            probes = [replace(probe, pid=self.pid) for probe in probes]
            link = GrownLink(self, "samples that sonde takes", probes)
            self._links.append(link)
            try:
                self._begin_to_work()
            except SondeError:
                self._links.remove(link)
                raise
            return [link]

    def _is_one_of_many(self, probes: Sequence[ProbeSpec]) -> bool:
        calls = sum(probe.type == "tracepoint" for probe in self.spec.probes)
        return calls > _MANY_CALLS and all(probe.type == "tracepoint" for probe in probes)

    def drop(self, link: GrownLink) -> None:
        """Take the probes of a link out. Twice is harmless."""
        with self._lock:
            if link not in self._links:
                return
            self._links.remove(link)
            self._note_probes()
            if self.worker is not None:
                for probe in link.probes:
                    self.worker.remove_sampler(probe)
            if any(probe in self._later for probe in link.probes):
                self._later = [probe for probe in self._later if probe not in link.probes]
                return
            if self._inside is not None and self._attached:
                self._rebuild(self._inside, self._inside.drop(link.probes))

    def _note_probes(self) -> None:
        """The spec says what is attached: that is what the next program begins with after exec."""
        probes = (probe for link in self._links for probe in link.probes if probe.type in PLACED)
        self.spec = replace(self.spec, probes=tuple(probes))

    def _rebuild(self, inside: Inside, sites: set[int]) -> None:
        """Release sites, and place whatever waits."""
        if sites:
            with self._stop() as stopped:
                inside.release(stopped, sites)
        self._look_for_files(inside)

    def look(self) -> None:
        """Follow the process; see `UserObject.look`."""
        with self._lock:
            super().look()

    # ending ---------------------------------------------------------------------------------------------------

    def ring(self, name: str) -> PolledReader:
        """Open the reader of a ring buffer, or of what stands for a perf event array. It is closed with the object."""
        with self._lock:
            ring = self.maps.get(name)
            if not isinstance(ring, RingMap):
                raise UsageError(f"the object has no ring {name!r} to read events from")
            reader = PolledReader(ring)
            self._readers.append(reader)
            return reader

    def close(self) -> None:
        """Take everything out of the process. Twice is harmless."""
        self._ending.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()
        with self._lock:
            self._links.clear()
            super().close()

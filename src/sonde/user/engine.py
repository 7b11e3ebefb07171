"""The user engine: an ObjectSpec becomes maps, verified machine code and patched instructions in one process (docs/design/0008-user-engine.md).

`UserObject.close` takes all of it out again. When sonde is killed, the process goes on with what is in it, and the next sonde can take it out (`agent`).
"""

from __future__ import annotations

import os
import time
from contextlib import nullcontext

from ..bpf.isa import decode
from ..bpf.maps import MapShape, create, measure
from ..bpf.maps.memory import prepare
from ..bpf.maps.ringbuf import RingMap
from ..errors import (
    BusyError,
    Diagnostic,
    FeatureError,
    FormatError,
    ProbeError,
    SondeError,
    TargetError,
    UnsafeError,
    UsageError,
)
from ..record import replace
from ..spec.object import find_span, layout_kinds
from ..spec.relocation import relocate
from . import frame, helpers
from .budget import Budget
from .cleaning import remove_agents
from .follow import Watch
from .inside import Inside
from .local import LocalPrograms, local_helpers
from .sampled import SampledWorld
from .stopped import StoppedProcess, is_alive
from .syscalls import wanted_of
from .target import slots_for
from .worker import PolledReader, Worker

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager

    from ..bpf.helpers import Helper
    from ..bpf.isa import Insn
    from ..bpf.maps import SharedMap
    from ..bpf.verifier import Refusal
    from ..spec.engine import Reader, Sample
    from ..spec.object import MapSpec, ObjectSpec, ProbeSpec, ProgramSpec
    from .agent import Agent
    from .budget import Limit
    from .owner import Owner
    from .patches import Patch
    from .worker import Sampler

LOCAL = ("begin", "end", "self", "interval")  # run by sonde itself
SAMPLED = ("profile", "software", "hardware", "watchpoint")  # run by sonde on samples of the process
PLACED = ("uprobe", "uretprobe", "usdt", "tracepoint")
_EAGER_TICKS, _LAZY_TICKS = 200, 10  # of `look`: new files at every one at first, then at some
_BEGINNINGS, _PATIENCE_S = 50, 20.0
_FEW_THREADS = 32  # that are stopped in less time than one takes for its calls when the others are busy
_BUSY_S, _BUSY_PAUSE_S = 2.0, 0.001
# Instructions that are followed to verify a program, a tenth of a second for each 10,000.
_MOST, _MOST_LOCAL = 200_000, 20_000
_NOTHING: dict[str, int] = {}


class UserEngine:
    """Runs programs inside process `pid`; `held` is that process, if it is stopped already and is to be so until somebody closes it."""

    name = "user"

    def __init__(
        self,
        pid: int,
        held: StoppedProcess | None = None,
        sample: Callable[[ProbeSpec], Sampler] | None = None,
        limit: Limit | None = None,
        *,
        unsafe: bool = False,
        traps: bool = False,
    ) -> None:
        """`unsafe`: programs may change what the process does (helpers.UNSAFE). `traps`: breakpoints where no jump fits (see `traps`). `sample` begins to take samples for a probe; without it there are no probes of timers and counters. `limit`: on the hits of a probe (see `budget`)."""
        self.pid = pid
        self.held = held
        self.sample = sample
        self.limit = limit
        self.unsafe = unsafe
        self.traps = traps

    def load(self, spec: ObjectSpec) -> UserObject:
        """Verify the programs of `spec` and put them into the process. The caller closes the result.

        Raises UnsafeError, FeatureError, ProbeError, PrivilegeError, TargetError; then nothing is left behind.
        """
        return UserObject(spec, self.pid, self.held, self.sample, self.limit, unsafe=self.unsafe, traps=self.traps)


class UserLink:
    """Probes that stand in the process. Closing takes the object's patches out, all at once."""

    def __init__(self, owner: UserObject, how: str) -> None:
        self.how = how
        self._owner = owner

    def close(self) -> None:
        """Take the probes out. Twice is harmless."""
        self._owner.detach()


class UserObject:
    """A loaded object (see spec.engine.LoadedObject). A context manager."""

    def __init__(
        self,
        spec: ObjectSpec,
        pid: int,
        held: StoppedProcess | None = None,
        sample: Callable[[ProbeSpec], Sampler] | None = None,
        limit: Limit | None = None,
        *,
        unsafe: bool = False,
        traps: bool = False,
    ) -> None:
        self.spec = spec
        self._traps = traps
        self.pid = pid
        self._held = held
        self._sample = sample
        self.maps: dict[str, SharedMap] = {}
        self.worker: Worker | None = None
        self.notes: list[str] = []  # what is to be told
        self.missing: tuple[str, ...] = ()  # probes that could not be had, with the reason
        self._programs: dict[str, list[Insn]] = {}
        self._tails = {m.name: dict(m.values) for m in spec.maps if m.type == "prog_array"}  # index to program
        self._interpreted: set[str] = set()  # programs of sonde's own that are too long to be verified in time
        self._inside: Inside | None = None
        self._plan: list[Patch] = []  # what is to be put in
        self._attached = False
        self._watch: Watch | None = None
        self._ticks = 0
        self._begins = 0  # how often it is yet tried to begin in a new program
        self._readers: list[Reader] = []
        self._local: LocalPrograms | None = None
        self._sampled: LocalPrograms | None = None
        self._state: memoryview | None = None
        self._state_fd = -1
        self._owner: Owner | None = None
        self._closed = False
        check_probes(spec, pid)
        if limit is not None and any("override_return" in program.helpers for program in spec.programs):
            raise UsageError("--budget would let calls through that override() is to replace: leave out one of them")
        self._slots = slots_for(os.cpu_count() or 1) - 1  # the last one is sonde's own
        placed = [probe.name for probe in spec.probes if probe.type in PLACED]
        self._helpers = helpers.NAMES | helpers.UNSAFE if unsafe else helpers.NAMES
        self._budget = Budget(limit, placed, self._slots) if limit is not None and placed else None
        self.rows = self._budget.rows if self._budget is not None else []
        try:
            self._verify()
            self._place()
        except BaseException:
            self.close()
            raise

    def _stop(self, *, all_threads: bool = True) -> AbstractContextManager[StoppedProcess]:
        if self._held is not None and self._held.threads:
            return nullcontext(self._held)
        return StoppedProcess(self.pid, all_threads=all_threads)

    def _stop_for_calls(self) -> AbstractContextManager[StoppedProcess]:
        """Stop the process to make system calls in it. One thread would do, but after each call it waits for its turn on the CPU if the others are busy: milliseconds, fifty times."""
        try:
            few = len(os.listdir(f"/proc/{self.pid}/task")) <= _FEW_THREADS
        except OSError:
            few = False  # it has ended: stopping tells
        return self._stop(all_threads=few)

    # loading --------------------------------------------------------------------------------------------------

    def _verify(self) -> None:
        """Hold every program against the verifier, with the helpers that this engine has."""
        local = {probe.program: probe.type for probe in self.spec.probes if probe.type in (*LOCAL, *SAMPLED)}
        for program in self.spec.programs:
            kind = local.get(program.name, "")
            self._verify_program(program, local_helpers(sampled=kind in SAMPLED) if kind else self._helpers, bool(kind))

        for table, entries in self._tails.items():
            for name in entries.values():
                if name not in self._programs:
                    raise FormatError(f"map {table} is to hold {name!r}, which the object does not have")

    def _verify_program(
        self, program: ProgramSpec, names: frozenset[str], local: bool = False, own: Mapping[str, int] = _NOTHING
    ) -> None:
        """Hold a program against the verifier. `names` are the helpers that there are; `local`: sonde runs it itself; `own`: numbers of maps that go before others."""
        from ..bpf.verifier import MapInfo, verify

        numbers = {each.name: number for number, each in enumerate(self.spec.maps, 1)} | dict(own)
        infos = {
            number: MapInfo(m.name, m.type, m.key_size, m.value_size, m.max_entries, m.frozen, initial=m.initial)
            for number, m in enumerate(self.spec.maps, 1)
        }
        missing = [name for name in program.helpers if name not in names]
        if missing and not local and missing[0] in helpers.UNSAFE:
            raise UnsafeError(
                f"{_probe_of(self.spec, program)} calls bpf_{missing[0]}, which changes what the process does",
                program.name,
                hint="--unsafe allows it",
            )
        if missing:
            raise FeatureError(
                f"{_probe_of(self.spec, program)} calls bpf_{missing[0]}, which only the kernel has",
                feature=f"helper:{missing[0]}",
                hint="use --engine kernel",
            )
        insns = decode(bytes(relocate(program, numbers)))
        most = _MOST_LOCAL if local else _MOST
        verdict = verify(insns, program.type, infos, helpers=_only(names), max_insns=most)
        if verdict.refusal is not None and local and verdict.processed >= most:
            self._interpreted.add(program.name)
        elif verdict.refusal is not None:
            raise _refused(program, verdict.refusal)
        self._programs[program.name] = insns

    def _place(self) -> None:
        """Put maps and code where they are to be; nothing is changed in the process's own code yet."""
        if any(probe.type in PLACED for probe in self.spec.probes):
            self._place_in_process()
        else:
            for spec in self.spec.maps:
                self._fill(spec, create(self._shape(spec)))
        local = dict.fromkeys(probe.program for probe in self.spec.probes if probe.type in LOCAL)
        sampled = dict.fromkeys(probe.program for probe in self.spec.probes if probe.type in SAMPLED)
        tables = dict(enumerate(self.maps.values(), 1))
        if local:
            self._local = LocalPrograms(tables, self._slots)
            self._take_programs(self._local, local)
        if sampled:
            self._sampled = LocalPrograms(tables, self._slots, SampledWorld(self.pid))
            self._take_programs(self._sampled, sampled)
        self.worker = Worker(self.run, self._run_on, self.look, self._state)

    def _take_programs(self, where: LocalPrograms, names: Iterable[str]) -> None:
        for name in names:
            take = where.interpret if name in self._interpreted else where.add
            take(name, self._programs[name])

    def _fill(self, spec: MapSpec, table: SharedMap) -> None:
        self.maps[spec.name] = table
        if spec.initial:
            table.update(bytes(4), spec.initial.ljust(spec.value_size, b"\0"))

    def _place_in_process(self) -> None:
        """Share maps and code with the process, and plan what is to be put in."""
        if self._held is None:
            for left in remove_agents(self.pid):  # of a sonde that was killed
                self._tell(f"{left.sites} probes that another sonde has left in process {self.pid} were taken out")
        self._inside = self._make_inside()
        self._inside.study()
        prepare()
        self._plan = self._enter(self._inside)
        self.missing = tuple(self._inside.notes)
        self.notes += self.missing
        self._check_placed()

    def _check_placed(self) -> None:
        """Raise ProbeError when there is nothing to be probed."""
        assert self._inside is not None
        if not self._plan and not self._inside.waiting:
            reason = self.notes[0] if self.notes else "there is no place for it"
            raise ProbeError(f"nothing can be probed in process {self.pid}: {reason}", hint="use --engine kernel")

    def _make_inside(self) -> Inside:
        placed = [probe for probe in self.spec.probes if probe.type in PLACED]
        inside = Inside(self.pid, placed, self._programs, self._slots, self._budget)
        inside.traps_allowed = self._traps
        return inside

    def _enter(self, inside: Inside) -> list[Patch]:
        """Begin in a program; return the patches for what it has mapped. Two stops, so that neither is long."""
        with self._stop_for_calls() as stopped:
            watch = Watch(self.pid)
            if self._watch is not None:
                self._watch.close()
            self._watch = watch
            inside.enter(
                stopped, lambda agent: self._share_maps(agent, stopped), lambda agent: self._share_state(agent, stopped)
            )
        for table in self.maps.values():
            if isinstance(table, RingMap):
                table.region.populate()
        with self._stop_for_calls() as stopped:
            self._check_program(watch)
            return inside.look(stopped)

    def _check_program(self, watch: Watch) -> None:
        """Raise TargetError where the stopped process has become another program since it was entered: what was planned is not for that."""
        if watch.is_gone():
            raise TargetError(
                f"process {self.pid} has become another program meanwhile", hint="try again, or start it by -c COMMAND"
            )

    def _share_maps(self, agent: Agent, stopped: StoppedProcess) -> dict[int, tuple[SharedMap, int]]:
        """Make the maps, or lend those that there are to the next program."""
        places = {}
        for number, spec in enumerate(self.spec.maps, 1):
            shape = self._shape(spec)
            size, repeated = measure(shape)
            known = self.maps.get(spec.name)
            if known is not None and spec.type != "prog_array":  # its addresses are of one program's memory
                places[number] = known, agent.lend(stopped, known.region.fd, size, repeated)
                continue
            if known is not None:
                known.close()
            shared = agent.share(stopped, size, repeated)
            self._fill(spec, create(shape, fd=shared.fd))
            places[number] = self.maps[spec.name], shared.address
        return places

    def _share_state(self, agent: Agent, stopped: StoppedProcess) -> int:
        words = frame.state_bytes(self._slots)
        size = words + (self._budget.gates.size if self._budget is not None else 0)
        if self._state is not None:
            return agent.lend(stopped, self._state_fd, size)
        shared = agent.share(stopped, size)
        self._state_fd = shared.fd
        self._state = _map_state(shared.fd, shared.size)
        self._own(self.spec.programs)
        if self._budget is not None:
            self._budget.open(self._state[words // 8 :], time.monotonic_ns())
        return shared.address

    def _own(self, programs: Sequence[ProgramSpec]) -> None:
        """Let those programs that change the process do so until sonde ends."""
        if (
            self._owner is None
            and self._state_fd >= 0
            and any(helpers.UNSAFE.intersection(p.helpers) for p in programs)
        ):
            from .owner import Owner

            self._owner = Owner(self._state_fd)

    def _shape(self, spec: MapSpec) -> MapShape:
        if spec.type == "prog_array":  # of addresses
            return MapShape("array", 4, 8, spec.max_entries, name=spec.name, cpus=self._slots + 1)
        entries = spec.max_entries
        if spec.type == "ringbuf":
            entries = max(4096, 1 << (max(entries, 1) - 1).bit_length())
        flags = spec.flags & 1  # BPF_F_NO_PREALLOC; the others are the kernel's business
        return MapShape(spec.type, spec.key_size, spec.value_size, entries, flags, spec.name, cpus=self._slots + 1)

    # probes ---------------------------------------------------------------------------------------------------

    def attach(self, probes: Sequence[ProbeSpec]) -> list[UserLink]:
        """Attach several probes: those in the process all at once, with all its threads stopped. Raises ProbeError, TargetError."""
        if not probes:
            return []
        if probes[0].type == "interval":
            assert self.worker is not None
            for probe in probes:
                self.worker.add_interval(probe)
            return [UserLink(self, "timer in sonde") for _ in probes]
        if probes[0].type in SAMPLED:
            assert self.worker is not None and self._sample is not None
            for probe in probes:
                self.worker.add_sampler(probe, self._sample(replace(probe, pid=self.pid)))
            return [UserLink(self, "samples that sonde takes") for _ in probes]
        assert self._inside is not None
        if not self._attached:
            self._attached = True
            self._put_in(self._inside, self._plan)
        return [UserLink(self, self._inside.hows.get(probe.name, "")) for probe in probes]

    def _fill_tails(self, inside: Inside) -> None:
        """Write the addresses of programs into the arrays of programs, once there is a place for them."""
        for table, entries in self._tails.items() if inside.ready else ():
            for index, program in entries.items():
                address = inside.address_of(program) if program else 0
                self.maps[table].update(index.to_bytes(4, "little"), address.to_bytes(8, "little"))

    def _put_in(self, inside: Inside, patches: list[Patch]) -> None:
        """Replace the code, when no thread is where it could not go on; that is soon."""
        self._fill_tails(inside)
        deadline = time.monotonic() + _BUSY_S
        while patches:
            try:
                with self._stop() as stopped:
                    assert self._watch is not None
                    self._check_program(self._watch)
                    inside.put_in(stopped, patches)
                    return
            except BusyError:
                if time.monotonic() > deadline:
                    raise
            time.sleep(_BUSY_PAUSE_S)

    def look(self) -> None:
        """See whether the process has become another program, or loaded files that probes wait for, and follow it. Called now and then."""
        inside, watch = self._inside, self._watch
        if inside is None or watch is None or not self._attached:
            return
        self._ticks += 1
        try:
            if self._budget is not None:
                self._heed_budget(self._budget, inside)
            if watch.is_gone() or self._begins:
                self._follow_exec()
            elif (self._ticks < _EAGER_TICKS or not self._ticks % _LAZY_TICKS) and inside.has_new_files():
                inside.study()
                with self._stop_for_calls() as stopped:
                    patches = inside.look(stopped)
                self._put_in(inside, patches)
        except (SondeError, OSError) as failure:
            self._begins -= self._begins > 0
            if not self._begins and is_alive(self.pid):
                self._tell(f"process {self.pid} could not be followed: {failure}")
        self._tell(*inside.notes)

    def _heed_budget(self, budget: Budget, inside: Inside) -> None:
        """Let hits be looked at again; take out the probes that have fired too often, if that is what the user wants."""
        over = set(budget.tick(time.monotonic_ns()))
        if over:
            with self._stop() as stopped:
                inside.switch_off(stopped, over)
            budget.report(time.monotonic_ns())

    def _tell(self, *notes: str) -> None:
        self.notes += [note for note in notes if note not in self.notes]

    def _follow_exec(self) -> None:
        """Begin again in the program that the process has become; nothing, when it has ended."""
        assert self._inside is not None and self._watch is not None
        self._inside.forget()
        self._watch.close()
        if not is_alive(self.pid):
            self._attached = False
            return
        self._begins = self._begins or _BEGINNINGS  # the new program may not be there yet: then again at the next look
        self._ticks = 0
        self._watch = Watch(self.pid)
        inside = self._inside = self._make_inside()
        inside.study()
        self._put_in(inside, self._enter(inside))
        self._begins = 0

    # running --------------------------------------------------------------------------------------------------

    def run(self, program: str) -> int:
        """Run a begin, end or self program once, in sonde; return its return code."""
        if self._local is None or program not in self._local:
            raise UsageError(f"the object has no program {program!r} that sonde runs itself")
        return self._local.run(program)

    def _run_on(self, program: str, sample: Sample) -> None:
        """Run a program on a sample of the process."""
        assert self._sampled is not None, "there are samples for programs only that were placed"
        self._sampled.run_on(program, sample)

    def reader(self, name: str = "") -> Reader:
        """Open the reader of `spec.ringbuf`, or of another ring buffer. It is closed with the object."""
        ring = self.maps.get(name or self.spec.ringbuf)
        if not isinstance(ring, RingMap):
            raise UsageError(f"the object has no ring {name or self.spec.ringbuf!r} to read events from")
        reader = PolledReader(ring)
        self._readers.append(reader)
        return reader

    def iterate(self, link: object) -> Iterator[bytes]:
        """There are no iterators outside of the kernel."""
        raise FeatureError("iterators run in the kernel", feature="program:iter", hint="use --engine kernel")

    def detach(self) -> None:
        """Take the probes out of the process; maps and code stay until `close`. Twice is harmless."""
        attached, self._attached = self._attached, False
        if attached and self._inside is not None:
            self._take_out(self._inside)
        if self._owner is not None:
            self._owner.close()
        if self._budget is not None:
            self._budget.report(time.monotonic_ns())
        if self.worker is not None:
            self.worker.stop()

    def _take_out(self, inside: Inside) -> None:
        """Take the probes out, however long a busy machine keeps the threads from stopping."""
        deadline = time.monotonic() + _PATIENCE_S
        while True:
            try:
                with self._stop() as stopped:
                    inside.take_out(stopped)
                    return
            except TargetError as failure:
                if not is_alive(self.pid):
                    return
                if time.monotonic() > deadline:
                    self._tell(
                        f"the probes stay in process {self.pid}: {failure.message}; sonde clean -p {self.pid} tries again"
                    )
                    return

    def close(self) -> None:
        """Take everything out of the process. Twice is harmless."""
        if self._closed:
            return
        self._closed = True
        self.detach()
        for reader in self._readers:
            reader.close()
        if self.worker is not None:
            self.worker.close()
        for programs in (self._local, self._sampled):
            if programs is not None:
                programs.close()
        if self._inside is not None:
            self._tell(*(f"memory of sonde stays in process {self.pid}: {reason}" for reason in self._inside.remove()))
        if self._watch is not None:
            self._watch.close()
        for table in self.maps.values():
            table.close()
        if self._state_fd >= 0:
            os.close(self._state_fd)
            self._state_fd = -1

    def __enter__(self) -> UserObject:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def check_probes(spec: ObjectSpec, pid: int) -> None:
    """Raise ProbeError for an object with probes that this engine does not serve in process `pid` (0: in none)."""
    for kind in sorted(layout_kinds(spec) & {"kstack", "ksym"}):
        raise FeatureError(
            f"{kind} is the kernel's, which the user engine does not look into",
            feature=kind,
            hint="use --engine kernel",
        )
    overriding = {program.name for program in spec.programs if "override_return" in program.helpers}
    for probe in spec.probes:
        if probe.program in overriding and probe.type not in ("uprobe", "uretprobe"):
            raise ProbeError(f"{probe.name}: override() replaces a function or what it returns", hint="use a uprobe")
        if probe.type in (*PLACED, *SAMPLED) and not pid:
            raise ProbeError(
                f"{probe.name}: the user engine probes one process: which?",
                hint="give -p PID, or -c COMMAND to start one",
            )
        if probe.type == "tracepoint":
            wanted_of(probe)
        if probe.type not in (*LOCAL, *PLACED, *SAMPLED):
            raise ProbeError(
                f"{probe.name}: the user engine serves {', '.join((*PLACED, *SAMPLED, *LOCAL))}, no {probe.type} probes",
                hint="use --engine kernel",
            )


def _only(names: frozenset[str]) -> Callable[[Helper], bool]:
    return lambda helper: helper.name in names


def _probe_of(spec: ObjectSpec, program: ProgramSpec) -> str:
    return next((probe.name for probe in spec.probes if probe.program == program.name), program.name)


def _refused(program: ProgramSpec, refusal: Refusal) -> UnsafeError:
    span = find_span(program.lines, refusal.pc)
    found = Diagnostic("ERROR", refusal.message, span, span.excerpt) if span is not None else None
    message = f"program {program.name} may not run in another process: {refusal.message} (instruction {refusal.pc})"
    return UnsafeError(message, program.name, diagnostic=found, hint=refusal.wants)


def _map_state(fd: int, size: int) -> memoryview:
    import mmap

    return memoryview(mmap.mmap(fd, size)).cast("Q")

"""The user engine: an ObjectSpec becomes maps, verified machine code and patched instructions in one process (docs/design/0008-user-engine.md).

`UserObject.close` takes all of it out again. When sonde is killed, the process goes on with what is in it, and the next sonde can take it out (`agent`).
"""

from __future__ import annotations

import os
import time
from contextlib import nullcontext

from ..bpf.maps import MapShape, create, measure
from ..bpf.maps.memory import prepare
from ..bpf.maps.ringbuf import RingMap
from ..errors import (
    BusyError,
    FeatureError,
    FormatError,
    PrivilegeError,
    ProbeError,
    SondeError,
    TargetError,
    UsageError,
)
from ..record import replace
from . import frame, helpers
from .budget import Budget
from .checks import LOCAL, PLACED, SAMPLED, check_probes, check_program
from .cleaning import remove_agents
from .execs import Exec, keeps_privileges
from .follow import Watch
from .halts import Halts
from .inside import Inside
from .local import LocalPrograms, local_helpers
from .machine import get_native
from .sampled import SampledWorld
from .sites import Files
from .spawn import read_exec
from .stopped import StoppedProcess, is_alive
from .target import slots_for
from .unwindtables import Unwinder
from .worker import PolledReader, Worker

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager

    from ..bpf.isa import Insn
    from ..bpf.maps import SharedMap
    from ..spec.engine import HasDescriptor, Reader, Sample
    from ..spec.object import MapSpec, ObjectSpec, ProbeSpec, ProgramSpec
    from .agent import Agent
    from .budget import Limit
    from .owner import Owner
    from .patches import Patch
    from .worker import Sampler

_EAGER_TICKS, _LAZY_TICKS = 200, 10  # of `look`: new files at every one at first, then at some
_GUARD_TICKS = 100
_BEGINNINGS, _PATIENCE_S = 50, 20.0
_FEW_THREADS = 32  # that are stopped in less time than one takes for its calls when the others are busy
_BUSY_S, _BUSY_PAUSE_S = 2.0, 0.001
_STAY_S, _STAY_PAUSE_S = 0.05, 0.0002  # with a thread that calls exec
_RETRY_S, _MOST_EXEC_S = 0.003, 10.0  # between two calls of exec; in one
_STACKS = frozenset(["get_stack", "get_stackid"])
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
        fast_reads: bool = False,
        follow: bool = True,
        unwind: str = "fp",
    ) -> None:
        """`sample` begins to take samples for a probe; without it there are no probes of timers and counters. `limit`: on the hits of a probe (see `budget`).
        `unsafe`: programs may change what the process does (helpers.UNSAFE). `traps`: breakpoints where no jump fits (see `handlers`). `fast_reads`: memory is read without asking the kernel (see `guards`). `follow`: also through exec. `unwind`: stacks by
        frame pointers ("fp") or unwind tables ("dwarf").
        """
        self.pid = pid
        self.held = held
        self.sample = sample
        self.limit = limit
        self.unsafe = unsafe
        self.traps = traps
        self.fast_reads = fast_reads
        self.follow = follow
        self.unwind = unwind

    def load(self, spec: ObjectSpec) -> UserObject:
        """Verify the programs of `spec` and put them into the process. The caller closes the result.

        Raises UnsafeError, FeatureError, ProbeError, PrivilegeError, TargetError; then nothing is left behind.
        """
        return UserObject(spec, self)

    def load_sharing(self, spec: ObjectSpec, memory: Mapping[str, HasDescriptor]) -> UserObject:
        """Load as `load` does, with some of the arrays in memory of the kernel's: maps by name, whose descriptors can be mapped."""
        return UserObject(spec, self, {name: live.fileno() for name, live in memory.items()})


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

    def __init__(self, spec: ObjectSpec, engine: UserEngine, lent: Mapping[str, int] | None = None) -> None:
        """`engine` says what is wanted. `lent`: arrays in memory of the kernel's, descriptors by name; None where the object is not shared with the kernel."""
        self.spec = spec
        self._engine = engine
        self._lent = lent
        self._files: Files | None = None
        self._halts: Halts | None = None
        self._exec: Exec | None = None  # a thread that is on its way through exec
        self.pid = engine.pid
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
        check_probes(spec, self.pid)
        limit = engine.limit
        if limit is not None and any("override_return" in program.helpers for program in spec.programs):
            raise UsageError("--budget would let calls through that override() is to replace: leave out one of them")
        if engine.unwind == "dwarf" and not get_native().UNWINDS:
            raise FeatureError(
                "unwind tables are followed on x86-64 only", feature="user:unwind", hint="leave out --unwind"
            )
        if engine.fast_reads and get_native().GUARDS is None:
            raise FeatureError("reads are guarded on x86-64 only", feature="user:guards", hint="leave out --fast-reads")
        self._slots = slots_for(os.cpu_count() or 1) - 1  # the last one is sonde's own
        placed = [probe.name for probe in spec.probes if probe.type in PLACED]
        self._helpers = helpers.NAMES | helpers.UNSAFE if engine.unsafe else helpers.NAMES
        self._budget = Budget(limit, placed, self._slots) if limit is not None and placed else None
        self.rows = self._budget.rows if self._budget is not None else []
        try:
            self._verify()
            self._place()
        except BaseException:
            self.close()
            raise

    def _stop(self, *, all_threads: bool = True) -> AbstractContextManager[StoppedProcess]:
        held = self._engine.held
        if held is not None and held.threads:
            return nullcontext(held)
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
        """Take a program that `check_program` accepts."""
        insns, verified = check_program(self.spec, program, names, local=local, own=own)
        if not verified:
            self._interpreted.add(program.name)
        self._programs[program.name] = insns

    def _place(self) -> None:
        """Put maps and code where they are to be; nothing is changed in the process's own code yet."""
        if any(probe.type in PLACED for probe in self.spec.probes):
            self._place_in_process()
        else:
            for spec in self.spec.maps:
                self._fill(spec, create(self._shape(spec)))
        local = [probe for probe in self.spec.probes if probe.type in LOCAL]
        sampled = [probe for probe in self.spec.probes if probe.type in SAMPLED]
        if local:
            self._local = self._take_programs(local)
        if sampled:
            self._sampled = self._take_programs(sampled, SampledWorld(self.pid, self._make_unwinder()))
        self.worker = Worker(self.run, self._run_on, self.look, self._state, soon=self._engine.held is not None)

    def _take_programs(self, probes: Iterable[ProbeSpec], world: SampledWorld | None = None) -> LocalPrograms:
        """Prepare the programs of probes that sonde runs itself, on the maps where they are now."""
        made = LocalPrograms(dict(enumerate(self.maps.values(), 1)), self._slots, world)
        for name in dict.fromkeys(probe.program for probe in probes):
            take = made.interpret if name in self._interpreted else made.add
            take(name, self._programs[name])
        return made

    def _fill(self, spec: MapSpec, table: SharedMap) -> None:
        self.maps[spec.name] = table
        if spec.initial:
            table.update(bytes(4), spec.initial.ljust(spec.value_size, b"\0"))

    def _place_in_process(self) -> None:
        """Share maps and code with the process, and plan what is to be put in."""
        held = self._engine.held
        if held is None:
            for left in remove_agents(self.pid):  # of a sonde that was killed
                self._tell(f"{left.sites} places that another sonde has changed in process {self.pid} were put back")
        self._inside = self._make_inside()
        if held is not None and not self._inside.can_begin(held):
            held.go_to_entry()
            self._inside = self._make_inside()
        # A program that runs gets its probes first, as halts cost more time than they do; unless the kernel's probes would see that.
        self._inside.halts_later = held is None and self._lent is None
        prepare()
        self._plan = self._enter(self._inside) if held is None else self._enter_first(self._inside, held)
        self.missing = tuple(self._inside.notes)
        self.notes += self.missing
        self._check_placed()

    def _check_placed(self) -> None:
        """Raise ProbeError when there is nothing to be probed."""
        assert self._inside is not None
        if not self._inside.found and not self._inside.waiting:
            reason = self.notes[0] if self.notes else "there is no place for it"
            raise ProbeError(f"nothing can be probed in process {self.pid}: {reason}", hint="use --engine kernel")

    def _make_inside(self) -> Inside:
        placed = [probe for probe in self.spec.probes if probe.type in PLACED]
        if self._files is None:
            self._files = Files(self.pid)
        self._files.refresh()
        inside = Inside(self._files, placed, self._programs, self._slots, self._budget, follow=self._engine.follow)
        inside.places.allows_traps = self._engine.traps
        inside.identifies = any("get_current_pid_tgid" in program.helpers for program in self.spec.programs)
        inside.unwinds = self._engine.unwind == "dwarf" and self._calls_any(_STACKS)
        if self._engine.fast_reads and self._calls_any(helpers.READING | _STACKS):
            inside.guard_reads()
        return inside

    def _make_unwinder(self) -> Unwinder | None:
        """What walks the stacks of samples; None: the kernel has done it, by frame pointers."""
        if self._engine.unwind != "dwarf":
            return None
        if self._files is None:
            self._files = Files(self.pid)
        return Unwinder(self._files, get_native().REGISTERS)

    def _calls_any(self, names: frozenset[str]) -> bool:
        """Whether a program calls one of these helpers."""
        return any(names.intersection(program.helpers) for program in self.spec.programs)

    def _enter(self, inside: Inside) -> list[Patch]:
        """Begin in a program; return the patches for what it has mapped. Two stops, so that neither is long."""
        inside.study()
        with self._stop_for_calls() as stopped:
            watch = self._share(inside, stopped)
        self._populate()
        return self._plan_patches(inside, watch)

    def _enter_first(self, inside: Inside, held: StoppedProcess) -> list[Patch]:
        """Begin in the program of a command, which has not run one instruction; return the patches for what it begins with. It waits for those of its libraries."""
        self._share(inside, held)
        self._populate()
        patches = inside.begin(held, read_exec(self.pid, held), seen=False)
        inside.foresee()
        if self._halts is not None and self._owner is not None:
            self._halts.be_patient()
        return patches

    def _populate(self) -> None:
        """Have all pages of rings made now (see Inside._map_rings)."""
        for table in self.maps.values():
            if isinstance(table, RingMap):
                table.region.populate()

    def _plan_patches(self, inside: Inside, watch: Watch) -> list[Patch]:
        """Return the patches for what the program has mapped. It stands still for the memory that they need, not for what is written there."""
        with self._stop_for_calls() as stopped:
            self._check_program(watch)
            inside.make_room(stopped)
        try:
            return inside.plan(watch.read)
        except TargetError:
            self._check_program(watch)
            raise

    def _share(self, inside: Inside, stopped: StoppedProcess) -> Watch:
        """Share maps and state with the program that is there; return what watches it."""
        watch = Watch(self.pid)
        if self._watch is not None:
            self._watch.close()
        self._watch = watch
        inside.enter(
            stopped, lambda agent: self._share_maps(agent, stopped), lambda agent: self._share_state(agent, stopped)
        )
        return watch

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
            if self._lent is not None and spec.name in self._lent:
                places[number] = self._borrow(spec, agent, stopped)
                continue
            if known is not None and spec.type != "prog_array":  # its addresses are of one program's memory
                places[number] = known, agent.lend(stopped, known.region.fd, size, repeated)
                continue
            if known is not None:
                known.close()
            shared = agent.share(stopped, size, repeated)
            self._fill(spec, create(shape, fd=shared.fd))
            places[number] = self.maps[spec.name], shared.address
        return places

    def _borrow(self, spec: MapSpec, agent: Agent, stopped: StoppedProcess) -> tuple[SharedMap, int]:
        """Map an array of the kernel's in the process, and here."""
        from ..bpf.maps.lent import LentArray

        assert self._lent is not None
        lent = self._lent[spec.name]
        page = agent.borrow(stopped, lent, spec.max_entries * ((spec.value_size + 7) & ~7))
        if spec.name in self.maps:
            os.close(page.fd)
        else:
            self.maps[spec.name] = LentArray(self._shape(spec), page.fd, lent)
        return self.maps[spec.name], page.address

    def _share_state(self, agent: Agent, stopped: StoppedProcess) -> int:
        words = frame.state_bytes(self._slots)
        size = words + (self._budget.gates.size if self._budget is not None else 0)
        if self._state is not None:
            return agent.lend(stopped, self._state_fd, size)
        shared = agent.share(stopped, size)
        self._state_fd = shared.fd
        self._state = _map_state(shared.fd, shared.size)
        self._halts = Halts(self._state)
        self._own(self.spec.programs)
        if self._budget is not None:
            self._budget.open(self._state[words // 8 :], time.monotonic_ns())
        return shared.address

    def _own(self, programs: Sequence[ProgramSpec]) -> None:
        """Let the process see whether sonde lives: programs that change it do so no longer, and nobody waits for a dead one."""
        if self._halts is None or self._owner is not None:
            return
        from .owner import Owner

        try:
            self._owner = Owner(self._state_fd)
        except FeatureError:
            if any(helpers.UNSAFE.intersection(program.helpers) for program in programs):
                raise
            self._halts.own()

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
            self._begin_samples(probes)
            return [UserLink(self, "samples that sonde takes") for _ in probes]
        assert self._inside is not None
        if not self._attached:
            self._attached = True
            self._put_in(self._inside, self._plan)
            self._tell(*self._inside.notes)
            self._keep_halts()
        return [UserLink(self, self._inside.hows.get(probe.name, "")) for probe in probes]

    def _begin_samples(self, probes: Iterable[ProbeSpec]) -> None:
        assert self.worker is not None
        for probe in probes:
            self.worker.add_sampler(probe, self._sample(replace(probe, pid=self.pid)))

    def _sample(self, probe: ProbeSpec) -> Sampler:
        """Begin to take samples: by the kernel, or where that may not or cannot be, by stopping threads."""
        assert self._engine.sample is not None
        try:
            return self._engine.sample(probe)
        except (PrivilegeError, FeatureError) as refusal:
            if probe.type != "profile":
                raise
            from .stopping import StoppingSampler

            sampler = StoppingSampler(probe, get_native().NAME)
            self._tell(f"{probe.name}: threads are stopped for samples, as the kernel takes none ({refusal.message})")
            return sampler

    def begin_to_follow(self) -> None:
        """Put in the halts, by which exec and the loader tell us; `look` does it at its first turn. Twice is harmless. Raises TargetError."""
        if self._inside is not None and self._attached and self._inside.halts_later:
            self._inside.halts_later = False
            self._look_for_files(self._inside)
            self._keep_halts()

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
        while patches or inside.awaits_birth:
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
        """See whether the process is at a halt, has become another program, or has loaded files that probes wait for, and follow it. Called now and then."""
        inside = self._inside
        if inside is None or not self._attached:
            return
        self._ticks += 1
        try:
            if self._budget is not None and self._exec is None:
                self._heed_budget(self._budget, inside)
            self._answer()
            self._stay_while_loading()
            if self._exec is None and not self._is_gone():
                self.begin_to_follow()
            if self._exec is not None:
                self._go_through_exec(self._exec)
            elif self._is_gone() or self._begins:
                self._follow_exec()
            elif (self._ticks < _EAGER_TICKS or not self._ticks % _LAZY_TICKS) and inside.has_new_files():
                self._look_for_files(inside)
            if not self._ticks % _GUARD_TICKS:
                inside.look_at_guards()
        except (SondeError, OSError) as failure:
            last = self._begins == 1
            self._begins -= self._begins > 0
            # Where no program was to be begun in, one that has gone meanwhile, or ends, is the next look's business.
            if not self._begins and is_alive(self.pid) and (last or not self._is_gone()):
                self._tell(f"process {self.pid} could not be followed: {failure}")
            if last:
                self._lose()
        self._keep_halts()
        self._tell(*inside.notes)
        if self._inside is not inside and self._inside is not None:
            self._tell(*self._inside.notes)

    def _heed_budget(self, budget: Budget, inside: Inside) -> None:
        """Let hits be looked at again; take out the probes that have fired too often, if that is what the user wants."""
        over = set(budget.tick(time.monotonic_ns()))
        if over:
            with self._stop() as stopped:
                inside.switch_off(stopped, over)
            budget.report(time.monotonic_ns())

    def _tell(self, *notes: str) -> None:
        self.notes += [note for note in notes if note not in self.notes]

    def _is_gone(self) -> bool:
        """Whether the program that was begun in is gone: it may go as long as it is not stopped."""
        return self._watch is None or self._watch.is_gone()

    def _keep_halts(self) -> None:
        """Say at which halts the process is to wait; a thread that has waited for too long has given them up."""
        if self._halts is not None and self._inside is not None:
            self._halts.keep(self._inside.halts if self._attached else 0)

    def _answer(self) -> None:
        """Do what threads at halts wait for, and let them go on."""
        if self._halts is None or self._inside is None or not (asked := self._halts.asked):
            return
        try:
            if self._exec is None and not self._is_gone():
                if self._inside.expects_files and self._inside.has_new_files():
                    self._look_for_files(self._inside)
                    if self.worker is not None and self.worker.mapped is not None:
                        self.worker.mapped()
                self._seize_before_exec(self._halts)
        finally:
            self._halts.serve(asked)

    def _look_for_files(self, inside: Inside) -> None:
        """Put in the probes of files that have been loaded. A thread may wait for it, but not for long."""
        inside.study()
        if self._watch is not None and not self._is_gone():
            self._put_in(inside, self._plan_patches(inside, self._watch))

    def _seize_before_exec(self, halts: Halts) -> None:
        """Seize the thread that waits before exec; one that has waited for too long is another program already, which is seen by looking."""
        if halts.execing and keeps_privileges(self.pid, halts.exec_call()):
            self._exec = Exec(self.pid, halts.execing)
            if self._is_gone():
                self._leave_exec()

    def _go_through_exec(self, thread: Exec) -> None:
        """Stay for a moment with a thread that calls exec: into its next program, or until it has failed to become one."""
        deadline = time.monotonic() + _STAY_S
        try:
            while not thread.is_there():
                self._answer()
                if self._is_over(thread):
                    return self._leave_exec()
                if time.monotonic() > deadline:
                    return None  # until the next look
                time.sleep(_STAY_PAUSE_S)
            self._begin_program(thread)
        except BaseException:
            self._leave_exec()
            raise
        self._stay_while_loading()
        return None

    def _stay_while_loading(self) -> None:
        """Stay for a moment with a program whose loader will halt soon."""
        deadline = time.monotonic() + _STAY_S
        while self._inside is not None and self._inside.loading and not self._is_gone() and time.monotonic() < deadline:
            self._answer()
            time.sleep(_STAY_PAUSE_S)

    def _is_over(self, thread: Exec) -> bool:
        """Whether a thread has come back from exec, and does not try the next name as shells do; or has ended, or takes too long."""
        assert self._halts is not None
        now = time.monotonic()
        if self._halts.execing:
            thread.seen = now
        return thread.ended or now > thread.seen + _RETRY_S or now > thread.since + _MOST_EXEC_S

    def _leave_exec(self) -> None:
        """Let the thread go that was followed. Twice is harmless."""
        thread, self._exec = self._exec, None
        if thread is not None:
            thread.close()
        if self._halts is not None:
            self._halts.forget_exec()

    def _begin_program(self, thread: Exec) -> None:
        """Begin in the program whose first instruction a thread stands at, and let it go."""
        call = self._halts.exec_call() if self._halts is not None else ()
        inside = self._change_program()
        with StoppedProcess(self.pid, held=[thread.take()]) as stopped:
            self._exec = None
            self._share(inside, stopped)
            patches = inside.begin(stopped, call, seen=True)
            self._fill_tails(inside)
            inside.put_in(stopped, patches)
            self._keep_halts()
        self._begins = 0

    def _change_program(self) -> Inside:
        """What was in the program that is gone is forgotten; what will be in the next one is empty yet."""
        assert self._inside is not None
        self._inside.forget()
        if self._halts is not None:
            self._halts.forget_exec()
        self._begins = self._begins or _BEGINNINGS  # should it fail: again at the next look
        self._ticks = 0
        self._inside = self._make_inside()
        return self._inside

    def _lose(self) -> None:
        """Give a program up that could not be begun in."""
        inside, self._inside, self._attached = self._inside, None, False
        if inside is not None:
            inside.remove()

    def _follow_exec(self) -> None:
        """Begin again in the program that the process has become unseen; nothing, when it has ended or is not to be followed."""
        assert self._inside is not None
        if not self._engine.follow or not is_alive(self.pid):
            self._inside.forget()
            self._attached = False
            if is_alive(self.pid):
                self._tell(f"process {self.pid} runs another program now, which is not probed")
            return
        inside = self._change_program()  # the program may not be there yet
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
        self._leave_exec()
        if self._halts is not None:
            self._halts.close()
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
            except (TargetError, PrivilegeError) as failure:
                if not is_alive(self.pid):
                    return
                if time.monotonic() > deadline or isinstance(failure, PrivilegeError):
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
        if self._files is not None:
            self._files.close()
        for table in self.maps.values():
            table.close()
        if self._state_fd >= 0:
            os.close(self._state_fd)
            self._state_fd = -1

    def __enter__(self) -> UserObject:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _map_state(fd: int, size: int) -> memoryview:
    import mmap

    return memoryview(mmap.mmap(fd, size)).cast("Q")

"""The user engine: an ObjectSpec becomes maps, verified machine code and patched instructions in one process (docs/design/0008-user-engine.md).

`UserObject.close` takes all of it out again. When sonde is killed, the process goes on with what is in it, and the next sonde can take it out (`agent`).
"""

from __future__ import annotations

import os
import time
from contextlib import nullcontext

from ..bpf.isa import decode
from ..bpf.jit.here import cpu_features
from ..bpf.maps import MapShape, create, measure
from ..bpf.maps.ringbuf import RingMap
from ..errors import BusyError, Diagnostic, FeatureError, ProbeError, TargetError, UnsafeError, UsageError
from ..record import Record, replace
from ..spec.relocation import relocate
from . import frame, helpers, trampoline
from .agent import Agent
from .calls import SYSCALL
from .code import jump_to
from .image import Image
from .local import LocalPrograms, local_helpers
from .patches import Patch, put_in, remove_when_left, take_out
from .sampled import SampledWorld
from .sites import Files, Site, find_data, find_functions, find_sites
from .stopped import StoppedProcess
from .syscalls import ANY, CallSite, find_calls, wanted_of
from .target import slots_for
from .unwinding import UNWINDERS, put_back
from .worker import PolledReader, Worker
from .x86.relocate import relocate as move
from .x86.window import Window, plan_window

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager

    from ..bpf.helpers import Helper
    from ..bpf.isa import Insn
    from ..bpf.maps import SharedMap
    from ..bpf.verifier import Refusal
    from ..spec.engine import Reader, Sample
    from ..spec.object import MapSpec, ObjectSpec, ProbeSpec, ProgramSpec
    from .trampoline import Runner
    from .worker import Sampler

LOCAL = ("begin", "end", "self", "interval")  # run by sonde itself
SAMPLED = ("profile", "software", "hardware", "watchpoint")  # run by sonde on samples of the process
PLACED = ("uprobe", "uretprobe", "usdt", "tracepoint")
_REACH = 1 << 30  # sites further apart than this have code of their own
_CODE_BYTES, _CODE_BYTES_A_SITE, _CODE_BYTES_ANY_CALL = 1 << 18, 1 << 11, 1 << 13
_BUSY_S, _BUSY_PAUSE_S = 2.0, 0.001
_MOST, _MOST_LOCAL = (
    200_000,
    20_000,
)  # instructions that are followed to verify a program: a second and a tenth for 10,000


class UserEngine:
    """Runs programs inside process `pid`; `held` is that process, if it is stopped already and is to be so until somebody closes it."""

    name = "user"

    def __init__(
        self, pid: int, held: StoppedProcess | None = None, sample: Callable[[ProbeSpec], Sampler] | None = None
    ) -> None:
        """`sample` begins to take samples for a probe; without it there are no probes of timers and counters."""
        self.pid = pid
        self.held = held
        self.sample = sample

    def load(self, spec: ObjectSpec) -> UserObject:
        """Verify the programs of `spec` and put them into the process. The caller closes the result.

        Raises UnsafeError, FeatureError, ProbeError, PrivilegeError, TargetError; then nothing is left behind.
        """
        return UserObject(spec, self.pid, self.held, self.sample)


class UserLink:
    """Probes that stand in the process. Closing takes the object's patches out, all at once."""

    def __init__(self, owner: UserObject, how: str) -> None:
        self.how = how
        self._owner = owner

    def close(self) -> None:
        """Take the probes out. Twice is harmless."""
        self._owner.detach()


class _Planned(Record, eq=False):
    """A probe at one place of the process."""

    probe: ProbeSpec
    site: Site


class UserObject:
    """A loaded object (see spec.engine.LoadedObject). A context manager."""

    def __init__(
        self,
        spec: ObjectSpec,
        pid: int,
        held: StoppedProcess | None = None,
        sample: Callable[[ProbeSpec], Sampler] | None = None,
    ) -> None:
        self.spec = spec
        self.pid = pid
        self._held = held
        self._sample = sample
        self.maps: dict[str, SharedMap] = {}
        self.worker: Worker | None = None
        self.notes: list[str] = []  # probes that could not be had, with the reason
        self._programs: dict[str, list[Insn]] = {}
        self._interpreted: set[str] = set()  # programs of sonde's own that are too long to be verified in time
        self._images: list[tuple[int, int, Image]] = []
        self._agents: list[Agent] = []
        self._plan: list[Patch] = []  # what is to be put in
        self._patches: list[Patch] = []  # what is in
        self._unwinders: list[Site] = []
        self._calls: list[CallSite] = []
        self._ways_back: dict[
            int, tuple[int, int]
        ] = {}  # from the same state in our code: address, bytes of ours on the stack
        self._returns: list[int] = []  # where functions with a return probe come back to
        self._readers: list[Reader] = []
        self._local: LocalPrograms | None = None
        self._sampled: LocalPrograms | None = None
        self._state: memoryview | None = None
        self._closed = False
        check_probes(spec, pid)
        self._slots = slots_for(os.cpu_count() or 1) - 1  # the last one is sonde's own
        self._files = Files(pid)
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

    # loading --------------------------------------------------------------------------------------------------

    def _verify(self) -> None:
        """Hold every program against the verifier, with the helpers that this engine has."""
        from ..bpf.verifier import MapInfo, verify

        numbers = {each.name: number for number, each in enumerate(self.spec.maps, 1)}
        infos = {
            number: MapInfo(m.name, m.type, m.key_size, m.value_size, m.max_entries, m.frozen, initial=m.initial)
            for number, m in enumerate(self.spec.maps, 1)
        }
        local = {probe.program: probe.type for probe in self.spec.probes if probe.type in (*LOCAL, *SAMPLED)}
        for program in self.spec.programs:
            insns = decode(bytes(relocate(program, numbers)))
            kind = local.get(program.name, "")
            names = local_helpers(sampled=kind in SAMPLED) if kind else helpers.NAMES
            missing = [name for name in program.helpers if name not in names]
            if missing:
                raise FeatureError(
                    f"{_probe_of(self.spec, program)} calls bpf_{missing[0]}, which only the kernel has",
                    feature=f"helper:{missing[0]}",
                    hint="use --engine kernel",
                )
            most = _MOST_LOCAL if program.name in local else _MOST
            verdict = verify(insns, program.type, infos, helpers=_only(names), max_insns=most)
            if verdict.refusal is not None and program.name in local and verdict.processed >= most:
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
        tables = dict(enumerate(self.maps.values(), 1))
        self._local = LocalPrograms(tables, self._slots)
        self._sampled = LocalPrograms(tables, self._slots, SampledWorld(self.pid))
        for probe in self.spec.probes:
            where = self._local if probe.type in LOCAL else self._sampled if probe.type in SAMPLED else None
            if where is not None and probe.program not in where:
                take = where.interpret if probe.program in self._interpreted else where.add
                take(probe.program, self._programs[probe.program])
        self.worker = Worker(self.run, self._run_on, self._state)

    def _fill(self, spec: MapSpec, table: SharedMap) -> None:
        self.maps[spec.name] = table
        if spec.initial:
            table.update(bytes(4), spec.initial.ljust(spec.value_size, b"\0"))

    def _place_in_process(self) -> None:
        """Find the sites, and share maps and code with the process."""
        with self._stop(all_threads=False) as stopped:
            planned = [
                _Planned(probe, site)
                for probe in self.spec.probes
                if probe.type in PLACED and probe.type != "tracepoint"
                for site in self._find(probe, stopped)
            ]
            self._planned = planned
            if any(each.probe.type == "uretprobe" for each in planned):
                self._unwinders = find_functions(UNWINDERS, self._files)
            numbers = frozenset(wanted_of(p).number for p in self.spec.probes if p.type == "tracepoint")
            self._calls = find_calls(numbers, self._files, stopped.read) if numbers else []
            addresses = [each.site.address for each in planned] + [site.address for site in self._unwinders]
            addresses += [each.site.address for each in self._calls]
            groups = list(_neighbours(addresses))
            if not groups:
                mapping = next(m for m in self._files.mappings() if m.executable and m.is_file)
                groups = [(mapping.start, mapping.start)]
            for low, high in groups:
                count = sum(low <= address <= high for address in addresses)
                calls = sum(low <= call.site.address <= high and call.number < 0 for call in self._calls)
                size = _CODE_BYTES + _CODE_BYTES_A_SITE * count + _CODE_BYTES_ANY_CALL * calls
                entries = 16 + count + len(self.spec.maps)
                self._agents.append(Agent.create(stopped, near=(low, high), size=size, entries=entries))
            places = self._share_maps(stopped)
            around, facts = self._surroundings(stopped)
        for (low, high), agent in zip(groups, self._agents):
            self._images.append((low, high, Image(agent, places, around, facts, cpu_features())))
        self._plan, self._hows = self._plan_patches()

    def _find(self, probe: ProbeSpec, stopped: StoppedProcess) -> list[Site]:
        found = find_sites(probe, self._files, stopped.read)
        if not found:
            raise ProbeError(
                f"{probe.name}: process {self.pid} has not loaded {probe.path}",
                hint="a library that is loaded later cannot be probed before; attach when it is there",
            )
        return found

    def _share_maps(self, stopped: StoppedProcess) -> dict[int, tuple[SharedMap, int]]:
        places = {}
        for number, spec in enumerate(self.spec.maps, 1):
            shape = self._shape(spec)
            size, repeated = measure(shape)
            shared = self._agents[0].share(stopped, size, repeated)
            self._fill(spec, create(shape, fd=shared.fd))
            places[number] = self.maps[spec.name], shared.address
        return places

    def _shape(self, spec: MapSpec) -> MapShape:
        entries = spec.max_entries
        if spec.type == "ringbuf":
            entries = max(4096, 1 << (max(entries, 1) - 1).bit_length())
        flags = spec.flags & 1  # BPF_F_NO_PREALLOC; the others are the kernel's business
        return MapShape(spec.type, spec.key_size, spec.value_size, entries, flags, spec.name, cpus=self._slots + 1)

    def _surroundings(self, stopped: StoppedProcess) -> tuple[trampoline.Surroundings, helpers.Facts]:
        from .process import find_clock, find_rseq, find_tid_offset

        state = self._agents[0].share(stopped, frame.state_bytes(self._slots))
        self._state = _open_state(state.fd, state.size)
        private = self._private = self._agents[0].map_private(stopped, frame.private_bytes(), frame.RETURNS)
        rseq = find_rseq(stopped)
        cpu_code = trampoline.CPU_BY_SEGMENT if rseq is None else trampoline.cpu_by_rseq(rseq, self._slots)
        around = trampoline.Surroundings(state.address, private, self._slots, os.cpu_count() or 1, cpu_code)
        facts = helpers.Facts(state.address, private, find_clock(stopped), find_tid_offset(stopped))
        return around, facts

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
        if not self._patches:
            self._put_in(self._plan)
        return [UserLink(self, self._hows[probe.name]) for probe in probes]

    def _put_in(self, patches: list[Patch]) -> None:
        """Replace the code, when no thread is where it could not go on; that is soon."""
        deadline = time.monotonic() + _BUSY_S
        while True:
            try:
                with self._stop() as stopped:
                    put_in(stopped, self._agents, patches)
                    self._patches = patches
                    self._count_semaphores(stopped, 1)
                    return
            except BusyError:
                if time.monotonic() > deadline:
                    raise
            time.sleep(_BUSY_PAUSE_S)

    def _count_semaphores(self, stopped: StoppedProcess, step: int) -> None:
        """Tell the program that its USDT probes are in use: a u16 counts who looks at each."""
        places = {
            place
            for each in self._planned
            if each.probe.semaphore_offset
            for place in find_data(each.probe, each.probe.semaphore_offset, self._files)
        }
        for place in places:
            count = int.from_bytes(stopped.read(place, 2), "little") + step
            stopped.write(place, (count & 0xFFFF).to_bytes(2, "little"))

    def _plan_patches(self) -> tuple[list[Patch], dict[str, str]]:
        """Make the trampoline of every site: one for all probes that share it."""
        by_site: dict[int, list[_Planned]] = {}
        for each in self._planned:
            by_site.setdefault(each.site.address, []).append(each)
        patches, hows = [], {}
        for address, group in sorted(by_site.items()):
            image = self._image_at(address)
            runners = [(each.probe.type, self._runner(image, each)) for each in reversed(group)]  # the kernel's order
            before = [runner for kind, runner in runners if kind != "uretprobe"]
            after = [runner for kind, runner in runners if kind == "uretprobe"]
            try:
                patch, how = self._build(image, group[0].site, before, after)
            except ProbeError as failure:
                if len(by_site) == 1:
                    raise
                self.notes.append(f"{group[0].probe.name} is not probed: {failure.message}")
                how = "not attached"
            else:
                patches.append(patch)
            hows.update({each.probe.name: how for each in group})
        patches += self._plan_calls(hows)
        if not patches:
            raise ProbeError(
                f"none of {len(by_site)} places can be probed: {self.notes[0] if self.notes else 'there are none'}",
                hint="use --engine kernel",
            )
        for site in (
            self._unwinders
        ):  # one with a probe of the user's is left: exceptions would end at our return addresses there
            if site.address not in by_site:
                image = self._image_at(site.address)
                patches.append(self._build(image, site, [image.guard(self._private, self._agents)], [])[0])
        return patches, hows

    def _plan_calls(self, hows: dict[str, str]) -> list[Patch]:
        """Patches for the places that make system calls."""
        probes = [(probe, wanted_of(probe)) for probe in self.spec.probes if probe.type == "tracepoint"]
        patches = []
        for call in self._calls:
            image = self._image_at(call.site.address)
            wanted = [w for w in probes if call.number < 0 or w[1].number in (ANY, call.number)]
            runners = [
                (w, image.program(self._programs[probe.program], probe.cookie, record=True))
                for probe, w in reversed(wanted)
            ]
            # Where only one call is made, every call is that one.
            numbered = [(call.number if w.number == ANY else w.number, w.exits, runner) for w, runner in runners]
            enters = tuple((number, runner) for number, exits, runner in numbered if not exits)
            exits = tuple((number, runner) for number, exits, runner in numbered if exits)
            try:
                patches.append(self._build_call(image, call.site, trampoline.Calls(enters, exits)))
            except ProbeError as failure:
                self.notes.append(f"system calls at {call.site.address:#x} are not seen: {failure.message}")
        for probe, _ in probes:
            hows[probe.name] = f"{len(patches)} places that make system calls"
        return patches

    def _build_call(self, image: Image, site: Site, calls: trampoline.Calls) -> Patch:
        window = _window(site)
        near = image.agent.address
        size = len(trampoline.system_calls(near, calls, image.around, site.address, (near, near))[0])
        start = image.agent.reserve(size + len(move(window.code, window.addr, near).code) + 16)
        moved = move(window.code, window.addr, start + size)
        places = dict(moved.places)
        ends = (start + size, start + size + places[len(SYSCALL)])
        code, waits = trampoline.system_calls(start, calls, image.around, site.address, ends)
        self._ways_back.update((place, (site.address + len(SYSCALL), size)) for place, size in waits)
        self._ways_back.update((start + size + offset, (address, 0)) for offset, address in moved.returns)
        image.agent.write(start, code + moved.code)
        jump = jump_to(window.addr, start) + b"\x90" * (window.patch - 5)
        moves = {offset: start + size + place for offset, place in moved.places}
        return Patch(window.addr, _replaced(site, window), jump[: window.patch], moves)

    def _image_at(self, address: int) -> Image:
        return next(image for low, high, image in self._images if low <= address <= high)

    def _build(self, image: Image, site: Site, before: list[Runner], after: list[Runner]) -> tuple[Patch, str]:
        window = _window(site)
        kind = frame.ENTRY if site.is_entry else frame.INSIDE
        size = len(
            self._trampoline(image.agent.address, before, after, image, kind, site)
        )  # the same wherever it stands
        moved_size = len(move(window.code, window.addr, image.agent.address).code)
        start = image.agent.reserve(size + moved_size + 16)
        code = self._trampoline(start, before, after, image, kind, site)
        if after:
            self._returns.append(start + len(trampoline.returning(start, before, after, image.around, site.address)[0]))
        moved = move(window.code, window.addr, start + len(code))
        image.agent.write(start, code + moved.code)
        jump = jump_to(window.addr, start) + b"\x90" * (window.patch - 5)
        original = _replaced(site, window)
        moves = {offset: start + len(code) + place for offset, place in moved.places}
        self._ways_back.update((start + len(code) + offset, (address, 0)) for offset, address in moved.returns)
        how = f"{window.kind} window of {window.length} bytes"
        return Patch(window.addr, original, jump[: window.patch], moves), how

    def _trampoline(
        self, at: int, before: list[Runner], after: list[Runner], image: Image, kind: int, site: Site
    ) -> bytes:
        if not after:
            return trampoline.entry(at, before, image.around, kind, site.address)
        head, tail = trampoline.returning(at, before, after, image.around, site.address)
        return head + tail

    def _runner(self, image: Image, each: _Planned) -> Runner:
        return image.program(self._programs[each.probe.program], each.probe.cookie)

    # running --------------------------------------------------------------------------------------------------

    def run(self, program: str) -> int:
        """Run a begin, end or self program once, in sonde; return its return code."""
        if self._local is None or program not in self._local:
            raise UsageError(f"the object has no program {program!r} that sonde runs itself")
        return self._local.run(program)

    def _run_on(self, program: str, sample: Sample) -> None:
        """Run a program on a sample of the process."""
        if self._sampled is not None:
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
        patches, self._patches = self._patches, []
        if patches:
            try:
                with self._stop() as stopped:
                    take_out(stopped, self._agents, patches)
                    self._count_semaphores(stopped, -1)
                    self._lead_out(stopped)
                    if self._returns:
                        put_back(stopped, self._private, frozenset(self._returns))
            except TargetError:
                pass  # it has ended
        if self.worker is not None:
            self.worker.stop()

    def _lead_out(self, stopped: StoppedProcess) -> None:
        """Let threads that stand in moved instructions, or wait in a system call of theirs, go on where these came from."""
        for tid in stopped.threads:
            way = self._ways_back.get(stopped.get_pc(tid))
            if way is not None:
                registers = stopped.registers(tid)
                registers.pc = way[0]
                registers.sp += way[1]
                stopped.set_registers(tid, registers)

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
        self._remove_agents()
        for table in self.maps.values():
            table.close()
        self._files.close()

    def _remove_agents(self) -> None:
        if not self._agents:
            return
        try:
            remove_when_left(self.pid, self._agents, self._returns)
        except TargetError:  # it has ended, and its memory with it
            for agent in self._agents:
                agent.close()
        self._agents.clear()

    def __enter__(self) -> UserObject:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _window(site: Site) -> Window:
    """The instructions that a jump at a site displaces. Raises ProbeError where none fits."""
    window = plan_window(site.code, site.address, start=site.start, end=site.end, base=site.start, limit=site.limit)
    if window.kind not in ("nop", "relocated"):
        raise ProbeError(
            f"{site.path}: no jump fits at {site.address:#x}: {window.reason}", hint="the kernel engine can probe it"
        )
    return window


def _replaced(site: Site, window: Window) -> bytes:
    """The bytes that the jump takes the place of: those of the window, perhaps with padding behind them."""
    first = window.addr - site.start
    return site.code[first : first + window.patch]


def check_probes(spec: ObjectSpec, pid: int) -> None:
    """Raise ProbeError for an object with probes that this engine does not serve in process `pid` (0: in none)."""
    for probe in spec.probes:
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
    span = None
    for line in program.lines:
        if line.pc <= refusal.pc:
            span = line.span
    found = Diagnostic("ERROR", refusal.message, span, span.excerpt) if span is not None else None
    message = f"program {program.name} may not run in another process: {refusal.message} (instruction {refusal.pc})"
    return UnsafeError(message, program.name, diagnostic=found, hint=refusal.wants)


def _neighbours(addresses: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Cut addresses into groups that one memory reaches: (first, last)."""
    low = high = 0
    for address in sorted(addresses):
        if high and address - low < _REACH:
            high = address
            continue
        if high:
            yield low, high
        low = high = address
    if high:
        yield low, high


def _open_state(fd: int, size: int) -> memoryview:
    import mmap

    view = memoryview(mmap.mmap(fd, size)).cast("Q")
    os.close(fd)
    return view

"""One program's memory with sonde in it: where its probes stand, the trampolines they lead to, what is shared with it.

    inside.enter(stopped, tables, state)      maps and code memory
    inside.make_room(stopped)                 memory for the code of probes whose files are there now, and of halts
    patches = inside.plan(read)               that code, and the jumps to it, which are not in yet; the process may run meanwhile
    inside.put_in(stopped, patches)
    inside.take_out(stopped); inside.remove(…)

When the process becomes another program by exec, all of this is gone with the old one, and another `Inside` begins with the same maps.
"""

from __future__ import annotations

import os

from ..bpf.jit.here import cpu_features
from ..bpf.maps.memory import POPULATE_WRITE
from ..bpf.maps.ringbuf import RingMap
from ..debuginfo.syscalls import syscall_number
from ..errors import FormatError, PrivilegeError, ProbeError, TargetError
from ..record import Record, replace
from . import frame, halts, helpers
from .agent import Agent
from .calls import Call
from .cleaning import clean_children
from .follow import find_loader_hook, read_entry
from .guards import Guards
from .handlers import SIGTRAP, blocking_thread, give_back
from .image import Image
from .machine import get_native
from .memory import merge, page_up
from .patches import Patch, put_in, remove_when_left, take_out
from .placing import Places
from .process import find_clock, find_rseq, find_tid_offset
from .runners import Calls, Runner, Surroundings
from .sites import Site, find_data, find_functions, find_in_file, find_sites
from .stopped import is_alive
from .syscalls import ANY, CallSite, find_calls, find_exec_calls, wanted_of
from .unwinding import UNWINDERS, find_bound, is_moved, put_back
from .unwindtables import UnwindTables
from .windows import NoWindowError, expect, fits, plan

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from ..bpf.isa import Insn
    from ..bpf.maps import SharedMap
    from ..spec.object import ProbeSpec
    from .budget import Budget
    from .follow import LoaderHook
    from .sites import Files
    from .stopped import StoppedProcess
    from .syscalls import Wanted

_HOME_BYTES = 1 << 12
_CODE_BYTES, _CODE_BYTES_A_SITE = 1 << 18, 1 << 11
# Of a place that makes calls of any number, and for each probe of calls there.
_CODE_BYTES_ANY_CALL, _CODE_BYTES_A_CALL = 1 << 13, 1 << 9
_SPARE_ENTRIES = 16
_SIGRETURN = syscall_number("rt_sigreturn", os.uname().machine)
_SIGRETURN_NOTE = (
    "rt_sigreturn is not seen: signal frames are known by the instructions that make it, so those stay as they are"
)


class _Planned(Record, eq=False):
    """A probe at one place of the process."""

    probe: ProbeSpec
    site: Site


if TYPE_CHECKING:
    from .windows import Read

    _Found = tuple[list[_Planned], list[CallSite], list[Site], list[Site]]


class Inside:
    """What sonde has in one program. `files` are those of its process, `probes` are to be placed, `programs` their code by name, `slots` how many runs there may be at a time,
    `budget` what keeps count of the hits, if they are limited. `follow`: whether there is to be a halt before exec.
    """

    def __init__(
        self,
        files: Files,
        probes: Sequence[ProbeSpec],
        programs: Mapping[str, list[Insn]],
        slots: int,
        budget: Budget | None = None,
        *,
        follow: bool = False,
    ) -> None:
        self.pid = files.pid
        self.notes: list[str] = []  # what could not be probed, and why
        self.hows: dict[str, str] = {}  # by the probe's name
        self.found = False  # whether there is a place for any of the probes
        self.own_reads = False  # whether programs copy what is their own by bpf_probe_read_kernel, as BCC's do
        self.halts_later = False  # halts are not looked for yet
        self.grows = False  # whether there may be probes of system calls later
        self.identifies = False  # whether programs ask who is running
        self.unwinds = False  # whether programs walk stacks by unwind tables
        self._lines = 0  # the number of the map that takes the lines of bpf_trace_printk
        self.waiting = [probe for probe in probes if probe.type != "tracepoint"]  # their files are not there yet
        self._calls_wanted = [(probe, wanted_of(probe)) for probe in probes if probe.type == "tracepoint"]
        self._returning = any(probe.type == "uretprobe" for probe in probes)
        self._programs = programs
        self._slots = slots
        self._budget = budget
        self._accounts: dict[int, set[int]] = {}  # of the probes at a patch, by its address
        self._files = files
        self._unwind_tables = UnwindTables(files)
        self._seen: frozenset[tuple[str, int]] = frozenset()  # files that were looked into: path and address
        self._home: Agent | None = None
        self._images: list[Image] = []
        self._taken: dict[int, Patch] = {}  # what is in, by its address
        self._refused: set[int] = set()  # places of system calls that no jump fits
        self._bounds: dict[str, dict[int, str]] = {}  # by file: functions whose return address must stay
        self._semaphores: set[int] = set()  # of USDT probes that are to be put in
        self._counted: set[int] = set()  # of those that are in
        self._private = self._state = 0
        self._facts: helpers.Facts | None = None
        self._machine = get_native()
        self.places = Places(files, self._machine)
        self._probes_at: dict[int, list[ProbeSpec]] = {}  # by the address of the site
        self._calls_at: dict[int, int] = {}  # what each place calls that was patched for it, -1: nobody knows
        self._own_pid = halts.find_own_pid(self.pid) if self._machine.HALTS is not None else 0
        self._follows = follow and self._own_pid > 0
        self._hook: LoaderHook | None = None
        self._hookless = False  # there is none
        self._halting = False  # whether the hook has its halt
        self._loading = False  # whether the loader has not begun its work
        self._studied: tuple[tuple[object, ...], _Found] | None = None  # what `study` asked, and found
        self._found: _Found = [], [], [], []  # what there is room for, and no plan yet
        self._born = 0  # what is to run before the program's first instruction
        self._guards: Guards | None = None  # of reads that ask nobody

    def guard_reads(self) -> None:
        """Have programs read without asking the kernel whether the memory is there (see `guards`)."""
        self._guards = Guards(self.pid, self._own_pid, self._machine)

    # more and fewer probes ------------------------------------------------------------------------------------

    def add(self, probes: Sequence[ProbeSpec]) -> set[int]:
        """Take more probes, which `look` finds the places of. Returns the sites that are to be released before, as others have them already."""
        calls = [probe for probe in probes if probe.type == "tracepoint"]
        others = [probe for probe in probes if probe.type != "tracepoint"]
        self._calls_wanted += [(probe, wanted_of(probe)) for probe in calls]
        self._returning = self._returning or any(probe.type == "uretprobe" for probe in others)
        self.waiting += others
        taken = self.places.sites()
        shared = {site.address for probe in others for site in find_sites(probe, self._files)} & taken
        return self._with_neighbours(shared) | self._sites_of_calls(calls)

    def drop(self, probes: Sequence[ProbeSpec]) -> set[int]:
        """Let go of probes. Returns the sites that are to be released for it; `look` plans those that others still want."""
        gone = list(probes)
        sites = {site for site, there in self._probes_at.items() if any(probe in gone for probe in there)}
        sites = self._with_neighbours(sites)
        sites |= self._sites_of_calls([probe for probe in gone if probe.type == "tracepoint"])
        self._calls_wanted = [each for each in self._calls_wanted if each[0] not in gone]
        self.waiting = [probe for probe in self.waiting if probe not in gone]
        for site in sites:
            self._probes_at[site] = [probe for probe in self._probes_at.get(site, ()) if probe not in gone]
        return sites

    def _with_neighbours(self, sites: set[int]) -> set[int]:
        """All sites of the probes that have one of these: a probe waits for all of its places, or for none."""
        while True:
            probes = [probe for site in sites for probe in self._probes_at.get(site, ())]
            more = {site for site, there in self._probes_at.items() if any(probe in probes for probe in there)}
            if more <= sites:
                return sites
            sites = sites | more

    def _sites_of_calls(self, probes: Sequence[ProbeSpec]) -> set[int]:
        """The sites that make what some probes of system calls want to see."""
        numbers = {wanted_of(probe).number for probe in probes}
        return {
            site
            for site, number in self._calls_at.items()
            if numbers and (number < 0 or ANY in numbers or number in numbers)
        }

    def release(self, stopped: StoppedProcess, sites: set[int]) -> None:
        """Put the code back at some sites; their probes wait for `look` again."""
        gone = [patch for address, patch in self._taken.items() if self.places.site_of(address) in sites]
        kept = {patch.address for patch in take_out(stopped, self.agents, gone)}
        for patch in gone:
            if patch.address not in kept:
                del self._taken[patch.address]
                self.places.drop(patch.address)
                self._accounts.pop(patch.address, None)
        if self._hook is not None and self._hook.address in sites:
            self._halting = False
        for site in sites:
            self._calls_at.pop(site, None)
            fresh = [probe for probe in self._probes_at.pop(site, ()) if probe not in self.waiting]
            self.waiting += fresh

    # entering -------------------------------------------------------------------------------------------------

    def enter(
        self,
        stopped: StoppedProcess,
        share: Callable[[Agent], Mapping[int, tuple[SharedMap, int]]],
        state: Callable[[Agent], int],
    ) -> None:
        """Share maps and state with the process. Both functions are given the memory that they go with, and return addresses in the process."""
        text = next((m for m in self._files.mappings() if m.executable and m.is_file), None)
        if text is None:
            raise TargetError(f"process {self.pid} has no code of a file")
        self._home = Agent.create(stopped, near=(text.start, text.start), size=_HOME_BYTES)
        self._tables = dict(share(self._home))
        self._state = state(self._home)

    def _learn(self, stopped: StoppedProcess) -> helpers.Facts:
        """Find what code is to know of the process, once; before the loader has done its work there is less to be had."""
        at = self._state
        rseq = None if self._loading else find_rseq(stopped)
        cpu_code = self._machine.cpu_code(rseq, self._slots)
        gates = replace(self._budget.gates, address=at + frame.state_bytes(self._slots)) if self._budget else None
        self._around = Surroundings(at, self._private, self._slots, cpu_code, gates=gates)
        tid_offset = -1 if self._loading else find_tid_offset(stopped)
        vforks = self.grows or bool(self._vforks())
        memories = merge(self._home.memories) if self._home is not None else ()
        return helpers.Facts(at, self._private, find_clock(stopped), tid_offset, rseq is not None, vforks, memories)

    def _map_rings(self, stopped: StoppedProcess) -> None:
        """Have the first pages of rings, which sonde has made by now, in the tables of the process: else it waits for the kernel a microsecond for each."""
        for table, address in self._tables.values():
            if isinstance(table, RingMap):
                size = min(os.fstat(table.region.fd).st_size, frame.WARM_BYTES)
                stopped.run([Call("madvise", (address, page_up(size), POPULATE_WRITE))])

    def share(self, number: int, share: Callable[[Agent], tuple[SharedMap, int]]) -> None:
        """Share one more map."""
        assert self._home is not None
        self._tables[number] = share(self._home)

    def set_lines(self, number: int) -> None:
        """Say which map takes the lines of bpf_trace_printk."""
        self._lines = number
        for image in self._images:
            image.lines = number

    @property
    def ready(self) -> bool:
        """Whether there is a place for code."""
        return bool(self._images)

    def address_of(self, program: str) -> int:
        """The address of a program, for tail calls."""
        return self._images[0].program(self._programs[program]).address

    @property
    def agents(self) -> list[Agent]:
        """All memory of ours in the process, the shared one first."""
        return ([self._home] if self._home is not None else []) + [image.agent for image in self._images]

    @property
    def loading(self) -> bool:
        """Whether the loader has not come to its halt yet."""
        return self._loading

    @property
    def expects_files(self) -> bool:
        """Whether files that the process has not mapped yet are of interest."""
        return bool(self.waiting or self._calls_wanted or self._guarded_calls() or self._returning or self._loading)

    @property
    def halts(self) -> int:
        """The halts at which the process is to wait for sonde."""
        if self.halts_later:
            return 0
        return (frame.FILES if self._halting and self.expects_files else 0) | (frame.EXEC if self._follows else 0)

    def has_new_files(self) -> bool:
        """Whether the process has mapped code since it was last looked at. Raises TargetError."""
        return self._mapped() != self._seen

    def _mapped(self) -> frozenset[tuple[str, int]]:
        files = (m for m in self._files.mappings() if m.executable and m.is_file and not m.path.startswith("/memfd:"))
        return frozenset((m.path, m.start) for m in files)

    # planning -------------------------------------------------------------------------------------------------

    def can_begin(self, stopped: StoppedProcess) -> bool:
        """Whether `begin` is possible for a program that has not run one instruction: its loader can halt, or it has none."""
        return stopped.get_pc(stopped.threads[0]) == read_entry(self.pid) or self._can_halt()

    def begin(self, stopped: StoppedProcess, call: Sequence[int], *, seen: bool) -> list[Patch]:
        """Make room and plan for a program that has not run one instruction: of one with a loader that can halt only the loader is probed, and the rest when it comes there.

        `call` is that of exec which has led there, number and arguments, and `seen` whether its begin was seen.
        """
        pc = stopped.get_pc(stopped.threads[0])
        self._loading = pc != read_entry(self.pid) and self._can_halt()
        ends = [
            each for each in self._calls_wanted if each[1].number in (ANY, *call[:1]) and (each[1].exits or not seen)
        ]
        if self._guards is not None:
            self._guards.study(patient=False)
        self.make_room(stopped, [pc] if ends else [])
        if ends and call:
            self._born = self._plan_birth(stopped, call, ends)
        return self.plan(stopped.read)

    def _plan_birth(
        self, stopped: StoppedProcess, call: Sequence[int], wanted: Sequence[tuple[ProbeSpec, Wanted]]
    ) -> int:
        """Place what runs before the first instruction, since the place that has made the call of exec is gone; return its address."""
        registers = stopped.registers(stopped.threads[0])
        image = self._image_at(registers.pc)
        calls = Calls(*map(tuple, self._programs_of(image, call[0], wanted)))
        start = image.agent.reserve(0)
        assert self._machine.HALTS is not None
        image.agent.place(self._machine.HALTS.born(start, call, calls, image.around, registers))
        self.places.note_way_back(start, registers.pc)
        self.found = True
        return start

    def foresee(self) -> None:
        """Say which of the probes that wait for files will have no place in them, and read what the files tell."""
        for probe in list(self.waiting):
            try:
                site = find_in_file(probe, self._files)
            except (FormatError, OSError):
                site = None  # it is told when the file is loaded
            if site is None:
                continue
            try:
                window = plan(site, self._files)
                self.hows[probe.name] = f"{window.kind} window of {window.length} bytes, once {site.path} is loaded"
                self.found = True
            except NoWindowError as failure:
                if self.places.allows_traps and fits(site, self._files, trap=True):
                    continue
                self.notes.append(f"{probe.name} is not probed: {failure.message}")
                self.hows[probe.name] = "not attached"
                self.waiting.remove(probe)

    @property
    def awaits_birth(self) -> bool:
        """Whether something is to run before the program's first instruction."""
        return self._born > 0

    def make_room(self, stopped: StoppedProcess, also: Sequence[int] = ()) -> None:
        """Find the places of probes that have none yet, in what the process has mapped, and have memory for what is to be put in there, and at the addresses `also`."""
        self._seen = frozenset() if self._loading else self._mapped()
        studied, self._studied = self._studied, None
        same = studied is not None and studied[0] == self._question()
        self._found = studied[1] if studied is not None and same else self._find()
        planned, calls, guards, hook = self._found
        sites = [*(each.site for each in planned), *guards, *hook]
        if not self._private and self._home is not None:  # not in `enter`, whose stop would be the longest
            self._private = self._home.map_private(stopped, frame.private_bytes(), frame.RETURNS)
        self._have_memory(stopped, [*(site.address for site in sites), *also], calls)
        for site in sites:
            self.places.make_way(stopped, self._image_at(site.address), site)
        for call in calls:
            self.places.make_way(stopped, self._image_at(call.site.address), call.site, early=True)
        if self.unwinds and self._home is not None:
            spans = [span for agent in self.agents for span in agent.spans]
            self._unwind_tables.publish(stopped, self._home, self._private, spans)

    def plan(self, read: Read) -> list[Patch]:
        """Place the code for what `make_room` has found; return what is to be put in. `read(address, size)` gives the memory of the process.

        A place where no jump fits is noted. Raises ProbeError for memory that somebody else has changed, TargetError for what is gone.
        """
        planned, calls, guards, hook = self._found
        self._found = [], [], [], []
        self.places.begin(self._taken, read)
        placed = {id(each.probe) for each in planned}
        self.waiting = [probe for probe in self.waiting if id(probe) not in placed]
        for probe in self.waiting:
            self.hows[probe.name] = f"waits until the process loads {probe.path}"
        addresses = {each.site.address for each in planned}
        guarded = frozenset(site.address for site in guards)
        patches = self._plan_sites(planned, guarded) + self._plan_calls(calls)
        for site in guards:
            if site.address not in addresses:
                image = self._image_at(site.address)
                patches.append(self.places.place(image, site, "an unwinder that is probed too", [self._guard(image)]))
        return patches + self._plan_hook(hook)

    def study(self) -> None:
        """Read what the files tell about the places of probes. `make_room` would do it too, while the process waits for it."""
        self.places.blocking = blocking_thread(self.pid, [SIGTRAP]) if self.places.allows_traps else 0
        if self._loading:  # the loader has come to its halt: there is more to be known of the process now
            self._loading, self._facts = False, None
        if self._guards is not None:
            self._guards.study()
        if self.unwinds:
            self._unwind_tables.study()
        found = self._find()
        self._studied = self._question(), found
        planned, calls, guards, hook = found
        for site in [*(each.site for each in planned), *guards, *hook]:
            fits(site, self._files)
        for call in calls:
            fits(call.site, self._files, early=True)

    def _question(self) -> tuple[object, ...]:
        """What the answer of `_find` depends on."""
        wanted = (*map(id, self.waiting), *(id(probe) for probe, _ in self._calls_wanted))
        others = self._loading, self.halts_later, self._guarded_calls()
        return self._mapped(), *others, wanted, frozenset(self._taken), frozenset(self._refused)

    def _find(self) -> _Found:
        """What is to be probed and is not yet: probes at their sites, places that make system calls, entries of unwinders, the loader's hook.

        While the loader has not begun, only what is its own.
        """
        taken = {self.places.site_of(address) for address in self._taken}
        planned = [_Planned(probe, site) for probe in self.waiting for site in find_sites(probe, self._files)]
        calls = [call for call in self._find_calls() if call.site.address not in taken | self._refused]
        guards = find_functions(UNWINDERS, self._files) if self._returning and not self._loading else []
        hook = self._find_hook()
        if self._loading and hook is not None:
            planned = [each for each in planned if each.site.path == hook.path]
            calls = [call for call in calls if call.site.path == hook.path]
        hooks = [hook] if hook is not None and hook.address not in taken else []
        expect([*(each.site for each in planned), *(call.site for call in calls)], self._files)
        return (
            planned,
            calls,
            [site for site in guards if site.address not in taken],
            [Site(each.address, each.vaddr, each.path, True) for each in hooks],
        )

    def _find_calls(self) -> list[CallSite]:
        """The places that make system calls of interest."""
        numbers = frozenset(wanted.number for _, wanted in self._calls_wanted)
        numbers |= {*self._vforks(), *self._guarded_calls()}
        found = find_calls(numbers, self._files) if numbers else []
        if self._follows and not self.halts_later:
            known = {call.site.address for call in found}
            execs = find_exec_calls(halts.exec_numbers(self._machine), self._files)
            found += [call for call in execs if call.site.address not in known]
        return found

    def _vforks(self) -> tuple[int, ...]:
        """The numbers of calls that are to be told of. Looking for their places costs little where all system calls are looked for."""
        code = self._machine.HALTS
        told = (self.identifies and self._calls_wanted) or self._guarded_calls()
        return code.VFORK_NUMBERS if code is not None and told else ()

    def _guarded_calls(self) -> tuple[int, ...]:
        """The numbers of calls that change signal handlers, where those are of interest."""
        return self._guards.numbers if self._guards is not None else ()

    def _find_hook(self) -> LoaderHook | None:
        """Where the loader is to halt, if it is."""
        if self.halts_later:
            return None
        if self._hook is None and self._own_pid and self.expects_files and not self._hookless:
            self._hook = find_loader_hook(self._files)
            self._hookless = self._hook is None
        return self._hook

    def _can_halt(self) -> bool:
        hook = self._find_hook()
        return hook is not None and fits(Site(hook.address, hook.vaddr, hook.path, True), self._files)

    def _plan_hook(self, sites: Sequence[Site]) -> list[Patch]:
        """The patch for the loader's hook, unless a probe stands there, or no jump fits: then libraries are seen by looking."""
        patches = []
        for site in [] if self._halting else sites:
            try:
                image, runners = self._image_at(site.address), self._files_halt(site)
                patches.append(self.places.place(image, site, "the loader's function for debuggers", runners))
                self._halting = True
            except ProbeError:
                self._hook, self._hookless = None, True
        return patches

    def _files_halt(self, site: Site) -> list[Runner]:
        """What is to run at a site because it is the loader's hook: nothing at others."""
        if self._hook is None or self._halting or site.address != self._hook.address:
            return []
        return [self._image_at(site.address).files_halt(self._own_pid, self._hook.changing)]

    def _have_memory(self, stopped: StoppedProcess, sites: Sequence[int], calls: Sequence[CallSite]) -> None:
        """Have memory for code within reach of every address."""
        addresses = [*sites, *(call.site.address for call in calls)]
        for low, high in _neighbours(addresses, self._machine.REACH):
            count = sum(low <= address <= high for address in addresses)
            unknown = sum(low <= call.site.address <= high and call.number < 0 for call in calls)
            size = _CODE_BYTES + _CODE_BYTES_A_SITE * count
            size += (_CODE_BYTES_ANY_CALL + _CODE_BYTES_A_CALL * len(self._calls_wanted)) * unknown
            if self._facts is not None and any(
                image.reaches(low, high) and image.has_room(size - _CODE_BYTES // 2, count)
                for image in self._images[-1:]
            ):
                continue
            entries, reach = count + _SPARE_ENTRIES, self._machine.REACH
            agent = Agent.create(stopped, near=(low, high), size=size, entries=entries, reach=reach)
            if self._facts is None:
                self._facts = self._learn(stopped)
                self._map_rings(stopped)
            self._images.append(
                Image(agent, self._tables, self._around, self._facts, self._machine, cpu_features(), self._guards)
            )
            self._images[-1].lines = self._lines
            self._images[-1].own_reads = self.own_reads
            self._images[-1].unwinds = self.unwinds

    def _image_at(self, address: int) -> Image:
        """The newest memory in reach: that was made for it."""
        return next(image for image in reversed(self._images) if image.reaches(address, address))

    def _guard(self, image: Image) -> Runner:
        return image.guard(self._private, self.agents)

    def _plan_sites(self, planned: Sequence[_Planned], guarded: frozenset[int]) -> list[Patch]:
        """One trampoline for all probes that share a place, and for the guard at one of `guarded`."""
        by_site: dict[int, list[_Planned]] = {}
        for each in planned:
            by_site.setdefault(each.site.address, []).append(each)
            if each.probe.semaphore_offset:
                self._semaphores.update(find_data(each.probe, each.probe.semaphore_offset, self._files))
        patches = []
        for address, group in sorted(by_site.items()):
            image = self._image_at(address)
            account = self._account([each.probe for each in group])
            runners = [  # the kernel's order
                (each.probe.type, replace(self._runner(image, each), account=account)) for each in reversed(group)
            ]
            halting = self._files_halt(group[0].site)
            before = [runner for kind, runner in runners if kind != "uretprobe"] + halting
            after = [runner for kind, runner in runners if kind == "uretprobe"]
            site, name = group[0].site, group[0].probe.name
            how = "not attached"
            if address in guarded:
                before.insert(0, self._guard(image))
            reason = self._bound(site) if after else ""
            if reason:
                self.notes.append(f"{name}: its return is not probed, as {reason}")
                after = []
            if not before and not after:
                self.hows.update({each.probe.name: how for each in group})
                continue
            try:
                patch, how = self.places.place_probes(image, site, name, before, after)
                patches.append(patch)
                self._accounts[patch.address] = {-1 if address in guarded or halting else account}
                self.found, self._halting = True, self._halting or bool(halting)
            except NoWindowError as failure:
                if address in guarded:
                    raise
                self.notes.append(f"{name} is not probed: {failure.message}")
            if how != "not attached":
                self._probes_at.setdefault(address, []).extend(each.probe for each in group)
            self.hows.update({each.probe.name: how for each in group})
        return patches

    def _account(self, probes: Sequence[ProbeSpec]) -> int:
        """The account of probes that share a place, so that all of them see a hit or none; -1 where nothing is limited."""
        return self._budget.join([probe.name for probe in probes]) if self._budget is not None else -1

    def _bound(self, site: Site) -> str:
        """Why the function's return address must stay, "" where it need not."""
        if not site.is_entry:
            return "no function begins there"
        if is_moved(self._files.open(site.path)):
            return "Go moves its stacks, and ends the program when it finds another's address on them"
        if site.path not in self._bounds:
            self._bounds[site.path] = find_bound(self._files.open(site.path))
        return self._bounds[site.path].get(site.vaddr, "")

    def _runner(self, image: Image, each: _Planned) -> Runner:
        return image.program(self._programs[each.probe.program], each.probe.cookie)

    def _plan_calls(self, calls: Sequence[CallSite]) -> list[Patch]:
        """Patches for the places that make system calls."""
        patches, missed, total = [], [], 0
        for call in calls:
            image = self._image_at(call.site.address)
            wanted = [w for w in self._calls_wanted if call.number < 0 or w[1].number in (ANY, call.number)]
            total += bool(wanted)
            runs = self._runs_at(image, call, wanted)
            try:
                patches.append(self.places.place_call(image, call.site, runs))
                self._accounts[patches[-1].address] = {runner.account for _, runner in (*runs.enters, *runs.exits)}
                self._calls_at[call.site.address] = call.number
                self.found = self.found or bool(wanted)
            except ProbeError as failure:
                missed += [(call.number, failure.message)] if wanted else []
                if self._guards is not None and call.number in (-1, *self._guarded_calls()):
                    self._guards.give_up(f"a change of signal handlers would not be seen: {failure.message}")
                self._refused.add(call.site.address)
        self._tell_missed(missed, total)
        for probe, _ in self._calls_wanted:
            self.hows[probe.name] = f"{len(self._sites_of_calls([probe]))} places that make system calls"
        return patches

    def _tell_missed(self, missed: Sequence[tuple[int, str]], total: int) -> None:
        """Note which places have no probe: the number of the call there (-1: nobody knows), and why."""
        others = [why for number, why in missed if number != _SIGRETURN]
        if others:
            more = f", and {len(others) - 1} more" if len(others) > 1 else ""
            self.notes.append(f"system calls made at {len(others)} of {total} places are not seen: {others[0]}{more}")
        if len(others) < len(missed) and _SIGRETURN_NOTE not in self.notes:
            self.notes.append(_SIGRETURN_NOTE)

    def _runs_at(self, image: Image, call: CallSite, wanted: Sequence[tuple[ProbeSpec, Wanted]]) -> Calls:
        """What is to run where a system call is made."""
        enters, exits = self._programs_of(image, call.number, wanted)
        numbers = [number for number in halts.exec_numbers(self._machine) if call.number in (-1, number)]
        if self._follows and numbers:
            before, behind = image.exec_halt(self._own_pid)
            enters += [(number, before) for number in numbers]
            exits += [(number, behind) for number in numbers]
        for number in self._guarded_calls():
            if call.number in (-1, number):
                before, behind = image.handlers()
                enters.append((number, before))
                exits.append((number, behind))
        numbers = [number for number in self._vforks() if call.number in (-1, number)]
        if numbers:
            before, behind = image.vforks()
            enters += [(number, before) for number in numbers]
            exits = [*((number, behind) for number in numbers), *exits]  # then the parent is known again
        return Calls(tuple(enters), tuple(exits))

    def _programs_of(
        self, image: Image, only: int, wanted: Sequence[tuple[ProbeSpec, Wanted]]
    ) -> tuple[list[tuple[int, Runner]], list[tuple[int, Runner]]]:
        """The programs for the begin and for the end of calls, by number. Where there is `only` one call (-1: others too), every call is that one."""
        runners = [(w, self._call_runner(image, probe, w, wanted)) for probe, w in wanted]
        numbered = [(only if w.number == ANY else w.number, w.exits, runner) for w, runner in runners]
        enters = [(number, runner) for number, exits, runner in numbered if not exits]
        exits = [(number, runner) for number, exits, runner in numbered if exits]
        return enters, exits

    def _call_runner(
        self, image: Image, probe: ProbeSpec, wanted: Wanted, others: Sequence[tuple[ProbeSpec, Wanted]]
    ) -> Runner:
        """The program of a probe on system calls, with the account of all that see the same calls here."""
        runner = image.program(self._programs[probe.program], probe.cookie, record=True)
        same = [other for other, w in others if ANY in (w.number, wanted.number) or w.number == wanted.number]
        return replace(runner, account=self._account(same))

    # in and out -----------------------------------------------------------------------------------------------

    def put_in(self, stopped: StoppedProcess, patches: Sequence[Patch]) -> None:
        """Replace the code. Raises BusyError when a thread stands where it could not go on; nothing has been changed then."""
        self.places.install_handler(stopped)
        if self._guards is not None:
            self._guards.install(stopped)
            self._note_guards(self._guards)
        put_in(stopped, self.agents[1:], patches)
        self._taken.update((patch.address, patch) for patch in patches)
        fresh, self._semaphores = self._semaphores - self._counted, set()
        self._count(stopped, fresh, 1)
        self._counted |= fresh
        if self._born:
            stopped.set_pc(stopped.threads[0], self._born)
            self._born = 0

    def look_at_guards(self) -> None:
        """See whether reads may still ask nobody."""
        if self._guards is not None and self._guards.look():
            self._note_guards(self._guards)

    def _note_guards(self, guards: Guards) -> None:
        note = f"reads ask the kernel in spite of --fast-reads: {guards.why}"
        if guards.why and note not in self.notes:
            self.notes.append(note)

    def _count(self, stopped: StoppedProcess, places: set[int], step: int) -> None:
        """Tell the program that its USDT probes are in use: a u16 counts who looks at each."""
        for place in places:
            count = int.from_bytes(stopped.read(place, 2), "little") + step
            stopped.write(place, (count & 0xFFFF).to_bytes(2, "little"))

    def take_out(self, stopped: StoppedProcess) -> None:
        """Put the code back as it was, and have no thread come to ours any more."""
        taken = list(self._taken.values())
        take_out(stopped, self.agents, taken)
        self._leave(stopped)
        self._count(stopped, self._counted, -1)
        self._counted = set()

    def switch_off(self, stopped: StoppedProcess, accounts: set[int]) -> None:
        """Put the code back where all probes have accounts among these. What is running there, or will return there, goes on to its end."""
        off = [patch for address, patch in self._taken.items() if self._accounts.get(address, {-1}) <= accounts]
        take_out(stopped, self.agents, off)

    def _leave(self, stopped: StoppedProcess) -> None:
        """Let threads that stand in moved instructions, wait in a system call of theirs, or will return to us, go on where these came from."""
        self.places.leave(stopped)
        if self.places.returns:
            put_back(stopped, self._private + frame.RETURNS)

    def remove(self) -> list[str]:
        """Take our memory out of the process and of its children; return the reasons why some is still there."""
        taken, self._taken = list(self._taken.values()), {}
        try:
            reasons = self.places.restore_handler(self.pid, self.agents) or remove_when_left(
                self.pid, self.agents, self.places.returns, first=self._leave, last=self._give_back
            )
        except (TargetError, PrivilegeError) as failure:  # where it has ended, its memory has too
            reasons = [failure.message] if is_alive(self.pid) else []
        if taken:
            for child in clean_children(
                self.pid, taken, carried=self.agents, returns=self.places.returns, also=self._leave
            ):
                reasons += child.reasons
        self.forget()
        return reasons

    def _give_back(self, stopped: StoppedProcess) -> None:
        """Give the program its handlers for faults back."""
        if self._guards is not None and self._guards.is_installed:
            give_back(stopped, [span for agent in self.agents for span in agent.spans])

    def forget(self) -> None:
        """Let go of what is ours here; the process is not touched. Twice is harmless."""
        for agent in self.agents:
            agent.close()
        self._home, self._images = None, []


def _neighbours(addresses: Sequence[int], reach: int) -> Iterator[tuple[int, int]]:
    """Cut addresses into groups that one memory reaches: (first, last). `reach`: how far a jump leads."""
    low = high = 0
    for address in sorted(addresses):
        if high and address - low < reach // 2:
            high = address
            continue
        if high:
            yield low, high
        low = high = address
    if high:
        yield low, high

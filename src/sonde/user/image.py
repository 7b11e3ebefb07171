"""The code of the engine in one process: programs, helpers, trampolines, each placed where all that it needs is placed already.

Addresses are those of the process.
"""

from __future__ import annotations

from ..bpf.asm import assemble
from ..bpf.helpers import HELPERS
from ..bpf.isa import MAX_STACK_BYTES
from ..bpf.jit import translate
from ..bpf.jit.code import bind
from ..bpf.jit.maps import BY_FRAME, make_plan
from ..bpf.maps.layout import layout_of
from ..bpf.maps.machine import FINISHERS, STACK_PUT, has_routine, make_routine
from ..errors import FeatureError, UnsafeError
from ..record import replace
from . import frame, helpers, sending
from .islands import Islands
from .prepare import prepare
from .runners import Runner, Surroundings
from .walking import walk

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from ..bpf.isa import Insn
    from ..bpf.jit.code import CodeReloc, MachineCode
    from ..bpf.maps import SharedMap
    from .agent import Agent
    from .guards import Guards
    from .machine import HaltCode, Machine


class Image:
    """Code in the memory of an agent. `maps` are the maps by number with their addresses in the process."""

    def __init__(
        self,
        agent: Agent,
        maps: Mapping[int, tuple[SharedMap, int]],
        around: Surroundings,
        facts: helpers.Facts,
        machine: Machine,
        features: frozenset[str] = frozenset(),
        guards: Guards | None = None,
    ) -> None:
        self.agent = agent
        self._guards = guards
        self.maps = maps
        self.facts = facts
        self.machine = machine
        self.features = features
        self.islands = Islands(agent)
        self._placed: dict[object, int] = {}
        self._runners: dict[tuple[bool, tuple[tuple[int, ...], ...]], Runner] = {}
        self.lines = 0  # the number of the ring for bpf_trace_printk
        self.unwinds = False  # whether get_stack walks by unwind tables
        self.own_reads = False  # whether bpf_probe_read_kernel reads what it can, and not the kernel's memory only
        self._look_at_maps()
        self.around = replace(around, claim=agent.place(machine.claim_routine(around)))

    def _look_at_maps(self) -> None:
        """Plan for the maps that there are now; some may be added."""
        self._known = len(self.maps)
        self._plan = make_plan({number: table for number, (table, _) in self.maps.items()}, cpu=BY_FRAME)
        self._kinds = {number: table.shape.kind for number, (table, _) in self.maps.items()}

    def program(self, insns: Sequence[Insn], cookie: int = 0, *, record: bool = False) -> Runner:
        """Place a verified program; the same code is placed once. `record`: its context is the record of an event, not registers.

        Raises UnsafeError for a program that reads beyond its record.
        """
        key = record, tuple((i.opcode, i.dst, i.src, i.off, i.imm) for i in insns)
        runner = self._runners.get(key)
        if runner is None:
            runner = self._runners[key] = self._make_runner(insns, record)
        return replace(runner, cookie=cookie) if cookie else runner

    def _make_runner(self, insns: Sequence[Insn], record: bool) -> Runner:
        if self._known != len(self.maps):
            self._look_at_maps()
        prepared = prepare(insns, self._kinds, self.machine.REGISTERS, record=record)
        if record and prepared.context_bytes > frame.RECORD_BYTES:
            raise UnsafeError(
                f"a program reads {prepared.context_bytes} bytes of its event's record, which has {frame.RECORD_BYTES}",
                "",
            )
        code = translate(
            prepared.insns, self.machine.NAME, features=self.features, plan=self._plan, alone=prepared.alone
        )
        context = self.machine.RECORD if record else frame.REGS
        address = self._bind(code)
        return Runner(address, prepared.fields, prepared.exclusive, context=context, overrides=prepared.overrides)

    def reaches(self, low: int, high: int) -> bool:
        """Whether jumps between here and both addresses are possible."""
        return all(abs(self.agent.address - address) < self.machine.REACH for address in (low, high))

    def has_room(self, size: int, sites: int) -> bool:
        """Whether so much more code and so many more sites fit."""
        bytes_left, sites_left = self.agent.room
        return bytes_left >= size and sites_left >= sites

    def guard(self, private: int, agents: Sequence[Agent]) -> Runner:
        """A program of our own for the entries of unwinders (see `unwinding`)."""
        registers = self.machine.REGISTERS
        spans = [(agent.address, agent.size) for agent in agents]
        insns = self.machine.restorer(private, spans)
        return Runner(self._routine("unwinding", insns), frozenset([registers.sp]))

    def exec_halt(self, pid: int) -> tuple[Runner, Runner]:
        """Routines of our own for before and behind a call of exec (see `halts`), in a process that calls itself `pid`."""
        state, code = self.facts.state, self._halts()
        return self._around("exec", lambda: code.exec_halt(state, pid), lambda: code.exec_done(state))

    def vforks(self) -> tuple[Runner, Runner]:
        """Routines of our own for before and behind a call that may make a child in the process's memory."""
        state, code = self.facts.state, self._halts()
        return self._around("vfork", lambda: code.vfork_begins(state), lambda: code.vfork_ends(state))

    def handlers(self) -> tuple[Runner, Runner]:
        """Routines of our own for before and behind a call that changes signal handlers (see `guards`)."""
        guards, agent, facts = self._guards, self.agent, self.facts
        assert guards is not None, "who asks has looked whether there are guards"
        before, behind = lambda: guards.change(agent, facts), lambda: guards.telling(agent, facts)
        return self._around("handlers", before, behind, guards.code.SIGACTION_FIELDS)

    def _around(
        self, name: str, before: Callable[[], bytes], behind: Callable[[], bytes], fields: frozenset[str] = frozenset()
    ) -> tuple[Runner, Runner]:
        """Routines for before and behind a call, which are placed once; `fields` are the registers that the second reads."""
        context = self.machine.RECORD
        first = self._once((name, "before"), lambda: self.agent.place(before()))
        second = self._once((name, "behind"), lambda: self.agent.place(behind()))
        return Runner(first, frozenset(), context=context), Runner(second, fields, context=context)

    def files_halt(self, pid: int, changing: int) -> Runner:
        """A routine of our own for the loader's function (see `halts`)."""
        return Runner(self.agent.place(self._halts().files_halt(self.facts.state, pid, changing)), frozenset())

    def _halts(self) -> HaltCode:
        assert self.machine.HALTS is not None, "who asks has looked whether there are halts"
        return self.machine.HALTS

    def _bind(self, code: MachineCode) -> int:
        """Place machine code, and before it whatever it calls; return its address."""
        addresses = {reloc: self._find(reloc) for reloc in code.relocs if reloc.kind != "function"}
        start = self.agent.reserve(len(code.text))
        self.agent.write(start, bind(code, start, addresses.__getitem__))
        return start

    def _find(self, reloc: CodeReloc) -> int:
        if reloc.kind == "map":
            return self.maps[reloc.value][1]
        if reloc.kind == "map_value":
            table, address = self.maps[reloc.value]
            return address + table.layout.entries + reloc.addend
        if reloc.kind == "helper":
            return self._helper(reloc.value)
        raise FeatureError(f"a {reloc.kind} cannot be had in a process", feature=f"user:{reloc.kind}")

    def _once(self, key: object, make: Callable[[], int]) -> int:
        if key not in self._placed:
            self._placed[key] = make()
        return self._placed[key]

    def _helper(self, number: int) -> int:
        if number == STACK_PUT:
            return self._dispatch(number, "stack_put")
        if number >= helpers.PRIMITIVE:
            return self._primitive(helpers.PRIMITIVE_NAMES[number])
        name = HELPERS[number].name
        if name in helpers.DIRECT:
            return self._primitive(helpers.DIRECT[name])
        if name in helpers.OF_MAPS or number in FINISHERS:
            return self._dispatch(number, name)
        if name in sending.NAMES:
            return self._sender(name)
        if self.own_reads:
            name = name.replace("_kernel", "_user")
        if name == "get_stack" and self.unwinds:
            return self._routine(name, assemble("\n".join(walk(self.machine.REGISTERS, self.facts.private))))
        lines = helpers.lines_of(name, self.machine.REGISTERS)
        if lines is None:
            raise FeatureError(f"helper bpf_{name} is not in the user engine", feature=f"helper:{name}")
        return self._routine(name, assemble("\n".join(lines)))

    def _sender(self, name: str) -> int:
        """A helper of `sending`: made again when there are more maps, which it may be called with."""
        size = sending.STACK_BYTES if name == "get_stackid" else MAX_STACK_BYTES
        lines = sending.ROUTINES.get(name) or sending.line_routine(self.maps[self.lines][1])
        return self._routine((name, self._known), assemble("\n".join(lines)), size)

    def _primitive(self, name: str) -> int:
        guards = self._guards
        if name == "check" and guards is not None:
            return self._once(("primitive", name), lambda: guards.place(self.agent, self.facts))
        return self._once(("primitive", name), lambda: self.agent.place(self.machine.primitive(name, self.facts)))

    def _routine(self, key: object, insns: Sequence[Insn], stack_bytes: int = MAX_STACK_BYTES) -> int:
        return self._once(
            key,
            lambda: self._bind(translate(insns, self.machine.NAME, features=self.features, stack_bytes=stack_bytes)),
        )

    def _dispatch(self, number: int, name: str) -> int:
        """A helper of maps for calls that do not say which map: they are told apart by their addresses. What finishes a ring's record needs none."""
        return self._once((name, self._known), lambda: self._make_dispatch(number, name))

    def _make_dispatch(self, number: int, name: str) -> int:
        routines = []
        for table, address in self.maps.values():
            layout = layout_of(table)
            if layout is not None and has_routine(layout, number):
                made = make_routine(layout, number)
                target = self._routine((number, layout), made.insns, made.stack_bytes)
                if number in FINISHERS:
                    return target
                routines.append((address, target, made.who))
        if not routines:
            kinds = ", ".join(sorted(set(self._kinds.values())))
            raise FeatureError(
                f"bpf_{name} of none of the maps here ({kinds}) is in the user engine", feature=f"user:{name}"
            )
        return self.agent.place(self.machine.map_door(routines))

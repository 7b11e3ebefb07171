"""The code of the engine in one process: programs, helpers, trampolines, each placed where all that it needs is placed already.

Addresses are those of the process.
"""

from __future__ import annotations

from errno import EOPNOTSUPP

from ..bpf.asm import assemble
from ..bpf.helpers import HELPERS
from ..bpf.isa import MAX_STACK_BYTES
from ..bpf.jit import translate
from ..bpf.jit.code import bind
from ..bpf.jit.maps import BY_FRAME, make_plan
from ..bpf.jit.x86_encoding import RAX, RDI, mov_imm, rr
from ..bpf.maps.layout import layout_of
from ..bpf.maps.machine import has_routine, make_routine
from ..errors import FeatureError, UnsafeError
from ..record import replace
from . import frame, helpers
from .code import NOT_EQUAL, Code
from .islands import Islands
from .prepare import prepare
from .trampoline import Runner, Surroundings, claim_routine
from .unwinding import restorer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from ..bpf.isa import Insn
    from ..bpf.jit.code import CodeReloc, MachineCode
    from ..bpf.maps import SharedMap
    from .agent import Agent

_ARCH = "x86_64"


class Image:
    """Code in the memory of an agent. `maps` are the maps by number with their addresses in the process."""

    def __init__(
        self,
        agent: Agent,
        maps: Mapping[int, tuple[SharedMap, int]],
        around: Surroundings,
        facts: helpers.Facts,
        features: frozenset[str] = frozenset(),
    ) -> None:
        self.agent = agent
        self.maps = maps
        self.facts = facts
        self.features = features
        self.islands = Islands(agent)
        self._placed: dict[object, int] = {}
        self._runners: dict[tuple[bool, tuple[tuple[int, ...], ...]], Runner] = {}
        self._plan = make_plan({number: table for number, (table, _) in maps.items()}, cpu=BY_FRAME)
        self._kinds = {number: table.shape.kind for number, (table, _) in maps.items()}
        self.around = replace(around, claim=agent.place(claim_routine(around)))

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
        prepared = prepare(insns, self._kinds, registers=not record)
        if record and prepared.context_bytes > frame.RECORD_BYTES:
            raise UnsafeError(
                f"a program reads {prepared.context_bytes} bytes of its event's record, which has {frame.RECORD_BYTES}",
                "",
            )
        code = translate(prepared.insns, _ARCH, features=self.features, plan=self._plan, alone=prepared.alone)
        context = frame.RECORD if record else frame.REGS
        address = self._bind(code)
        return Runner(address, prepared.fields, prepared.exclusive, context=context, overrides=prepared.overrides)

    def guard(self, private: int, agents: Sequence[Agent]) -> Runner:
        """A program of our own for the entries of unwinders (see `unwinding`)."""
        insns = restorer(private, [(agent.address, agent.size) for agent in agents])
        return Runner(self._routine("unwinding", insns), frozenset(["sp"]))

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
        if number >= helpers.PRIMITIVE:
            return self._primitive(helpers.PRIMITIVE_NAMES[number])
        name = HELPERS[number].name
        if name in helpers.DIRECT:
            return self._primitive(helpers.DIRECT[name])
        if name in helpers.OF_MAPS:
            return self._once(name, lambda: self._dispatch(number, name))
        lines = helpers.ROUTINES.get(name)
        if lines is None:
            raise FeatureError(f"helper bpf_{name} is not in the user engine", feature=f"helper:{name}")
        return self._routine(name, assemble("\n".join(lines)))

    def _primitive(self, name: str) -> int:
        return self._once(("primitive", name), lambda: self.agent.place(helpers.primitive(name, self.facts)))

    def _routine(self, key: object, insns: Sequence[Insn], stack_bytes: int = MAX_STACK_BYTES) -> int:
        return self._once(
            key, lambda: self._bind(translate(insns, _ARCH, features=self.features, stack_bytes=stack_bytes))
        )

    def _dispatch(self, number: int, name: str) -> int:
        """A helper of maps for calls that do not say which map: they are told apart by their addresses."""
        code = Code()
        for index, (table, address) in self.maps.items():
            layout = layout_of(table)
            if layout is not None and has_routine(layout, number):
                made = make_routine(layout, number)
                target = self._routine((number, layout), made.insns, made.stack_bytes)
                code.add(mov_imm(RAX, address), rr(b"\x39", RAX, RDI, True))
                code.jump(str(index), NOT_EQUAL)
                code.add(helpers.caller_stub() if made.who else b"", mov_imm(RAX, target), b"\xff\xe0")
                code.label(str(index))
        if not code.bytes:
            kinds = ", ".join(sorted(set(self._kinds.values())))
            raise FeatureError(
                f"bpf_{name} of none of the maps here ({kinds}) is in the user engine", feature=f"user:{name}"
            )
        code.add(mov_imm(RAX, -EOPNOTSUPP), b"\xc3")
        return self.agent.place(code.finish())

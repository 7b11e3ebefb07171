"""From a verified program to what its trampoline must know of it: which registers it reads, and whether it must be alone with its copy of per-CPU values.

What it adds to such a copy is made one instruction, so that most programs need not be alone.
"""

from __future__ import annotations

from ..bpf.flow import Block, split_blocks, split_functions
from ..bpf.helpers import HELPERS
from ..bpf.isa import ACCESS_BYTES, CALL, LDDW, Insn
from ..record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ..debuginfo.ptregs import PtRegs

_MOV64 = 0xBF


class Prepared(Record):
    """A program as the JIT takes it. `fields` are the registers of its context that it reads, by their names in struct pt_regs, and what helpers want of the
    frame; `exclusive`: nobody else may use its copy of per-CPU values while it runs; `alone`: pcs of atomic operations that no other CPU takes part in.
    """

    insns: list[Insn]
    fields: frozenset[str]
    exclusive: bool
    alone: frozenset[int] = frozenset()
    context_bytes: int = 0  # how much of its context it reads
    overrides: bool = False  # it calls bpf_override_return()


def prepare(insns: Sequence[Insn], kinds: Mapping[int, str], registers: PtRegs, *, record: bool = False) -> Prepared:
    """Prepare a verified program. `kinds` are the types of its maps, by their numbers; `registers` those of its context, unless that is the `record` of an event."""
    out = list(insns)
    alone = join_additions(out, kinds, registers)
    fields: set[str] = set()
    exclusive = False
    reach = 0
    for first, body in split_functions(out).items():
        found = _Flow(body, kinds, first == 0, registers)
        found.run()
        fields |= found.of_helpers if record else found.fields | found.of_helpers
        reach = max(reach, found.reach)
        exclusive = exclusive or found.exclusive
    if any(
        "percpu" in kind for kind in kinds.values()
    ):  # of two that make the same entry, the later would undo what the other has added
        exclusive = exclusive or any(_is_call(insn, "map_update_elem") for insn in out)
    overrides = any(_is_call(insn, "override_return") for insn in out)
    return Prepared(out, frozenset(fields), exclusive, alone, reach, overrides)


def _is_call(insn: Insn, helper: str) -> bool:
    return insn.opcode == CALL and insn.src == 0 and HELPERS[insn.imm].name == helper


class _Flow:
    """What registers hold, as far as it matters here: "ctx", a map (its number), "percpu" (the address of a value of which others have their own copy)."""

    def __init__(self, body: list[tuple[int, Insn]], kinds: Mapping[int, str], main: bool, registers: PtRegs) -> None:
        self.blocks = split_blocks(body)
        self.kinds = kinds
        self.start = body[0][0]
        self.main = main
        self.registers = registers
        self.any_percpu = any("percpu" in kind for kind in kinds.values())
        self.fields: set[str] = set()
        self.of_helpers: set[str] = set()
        self.reach = 0
        self.exclusive = False
        self.percpu_loads: set[int] = set()

    def run(self) -> None:
        """Follow all ways; what may be on some of them is what may be."""
        entry = {1: frozenset(["ctx"])} if self.main else {}
        states: dict[int, dict[int | str, frozenset[object]]] = {self.start: dict(entry)}  # type: ignore[arg-type]
        work = [self.start]
        while work:
            pc = work.pop()
            state = dict(states[pc])
            block = self.blocks[pc]
            for at, insn in block.insns:
                self._step(at, insn, state)
            for follower in (block.next, block.target):
                if follower >= 0 and _merge(states, follower, state):
                    work.append(follower)

    def _step(self, pc: int, insn: Insn, state: dict) -> None:  # type: ignore[type-arg]
        class_ = insn.opcode & 7
        source = state.get(insn.src, _NOTHING)
        if insn.opcode == LDDW:
            state[insn.dst] = frozenset([insn.imm & 0xFFFFFFFF]) if insn.src in (1, 5) else _OTHER
            self.exclusive = self.exclusive or (insn.src == 4 and self.any_percpu)  # a callback may get at anything
            if insn.src in (2, 6) and self.kinds.get(insn.imm & 0xFFFFFFFF, "").startswith("percpu"):
                state[insn.dst] = frozenset(["percpu"])
        elif insn.opcode == CALL:
            self._call(insn, state)
        elif class_ == 1:
            if "ctx" in source:
                self._read(insn)
            state[insn.dst] = state.get(("stack", insn.off), _OTHER) if insn.src == 10 else _OTHER
            if "percpu" in source:
                self.exclusive = True
                self.percpu_loads.add(pc)
        elif class_ in (2, 3):
            self._store(insn, state)
        elif insn.opcode == _MOV64 and insn.off == 0:
            state[insn.dst] = source
        elif class_ in (4, 7):
            keeps = insn.opcode & 0xF0 in (0x00, 0x10) and class_ == 7  # a pointer plus something is that pointer
            state[insn.dst] = (
                (state.get(insn.dst, _NOTHING) | (source if insn.opcode & 8 else _NOTHING)) if keeps else _OTHER
            )

    def _read(self, insn: Insn) -> None:
        size = ACCESS_BYTES[insn.opcode & 0x18]
        self.reach = max(self.reach, insn.off + size)
        first = max(insn.off, 0) >> 3
        self.fields.update(self.registers.names[first : insn.off + size + 7 >> 3])

    def _for_stacks(self) -> tuple[str, ...]:
        """What a walk along the stack begins with."""
        registers = self.registers
        return (registers.ip, registers.sp, registers.fp, "kind", *((registers.link,) if registers.link else ()))

    def _store(self, insn: Insn, state: dict) -> None:  # type: ignore[type-arg]
        target = state.get(insn.dst, _NOTHING)
        if "percpu" in target and not (insn.opcode & 0xE7 == 0xC3 and insn.imm == 0):
            self.exclusive = True
        if insn.dst == 10:
            held = state.get(insn.src, _NOTHING) if insn.opcode & 7 == 3 and insn.opcode & 0xE0 != 0xC0 else _OTHER
            state["stack", insn.off] = held

    def _call(self, insn: Insn, state: dict) -> None:  # type: ignore[type-arg]
        result = _OTHER
        if insn.src == 0:
            helper = HELPERS[insn.imm]
            if helper.name == "tail_call":  # the other program may read and do anything
                self.fields.update(self.registers.names)
                self.of_helpers.update(("kind", "place", "tails"))
                self.exclusive = True
            for register, kind in enumerate(helper.args, 1):
                held = state.get(register, _NOTHING)
                if kind == "map":
                    numbers = [each for each in held if isinstance(each, int)]
                    known = numbers[0] if len(numbers) == 1 and len(held) == 1 else -1
                    if helper.result.startswith("value") and "percpu" in self.kinds.get(known, "percpu"):
                        result = frozenset(["percpu"])
                elif kind == "ctx" and "ctx" in held:
                    self.of_helpers.update(_OF_HELPERS.get(helper.name, self._for_stacks()))
                elif "percpu" in held:
                    self.exclusive = True
        else:  # a local function may do anything with what it is given
            if any("percpu" in state.get(register, _NOTHING) for register in range(1, 6)):
                self.exclusive = True
            if any("ctx" in state.get(register, _NOTHING) for register in range(1, 6)):
                self.fields.update(self.registers.names)
                self.of_helpers.update((*self.registers.names, "kind", "place"))
                self.reach = _ANYWHERE
        for register in range(6):
            state[register] = _OTHER
        state[0] = result


_NOTHING: frozenset[object] = frozenset()  # nothing was ever put there
_ANYWHERE = 1 << 13
_OF_HELPERS: dict[str, tuple[str, ...]] = {
    "get_func_ip": ("place",), "get_attach_cookie": (), "override_return": (), "perf_event_output": (),
}  # fmt: skip
_OTHER: frozenset[object] = frozenset(["other"])  # something that is none of what is followed here


def _merge(states: dict, pc: int, state: dict) -> bool:  # type: ignore[type-arg]
    known = states.get(pc)
    if known is None:
        states[pc] = dict(state)
        return True
    grown = False
    for key, held in state.items():
        if held - known.get(key, _NOTHING):
            known[key] = known.get(key, _NOTHING) | held
            grown = True
    return grown


# Additions ---------------------------------------------------------------------------------------------------------

_ADDS = {
    0x79: (0x7B, 0xDB, (0x07, 0x0F)),
    0x61: (0x63, 0xC3, (0x07, 0x0F, 0x04, 0x0C)),
}  # load: store, atomic, additions
_NOP = Insn(0x05)  # goto +0


def join_additions(insns: list[Insn], kinds: Mapping[int, str], registers: PtRegs) -> frozenset[int]:
    """Make one instruction of load, add and store of the same place, so that nothing can come in between; return the pcs of those that it made.

    In place, and only where the place may be a per-CPU value: what others add to goes on as the program says.
    """
    made: set[int] = set()
    if not any("percpu" in kind for kind in kinds.values()):
        return frozenset()
    positions, pc = {}, 0
    for index, insn in enumerate(insns):
        positions[pc] = index
        pc += insn.slots
    for first, body in split_functions(insns).items():
        flow = _Flow(body, kinds, first == 0, registers)
        flow.run()
        for block in flow.blocks.values():
            for at in range(len(block.insns) - 2):
                (pc, load), (_, add), (_, store) = block.insns[at : at + 3]
                if (
                    pc in flow.percpu_loads
                    and _is_addition(load, add, store)
                    and _is_dead(flow.blocks, block, at + 3, load.dst)
                ):
                    index = positions[pc]
                    source = add.src if add.opcode & 8 else load.dst
                    first_insn = _NOP if add.opcode & 8 else Insn(0xB7, load.dst, 0, 0, add.imm)
                    atomic = Insn(_ADDS[load.opcode][1], load.src, source, load.off, 0)
                    insns[index : index + 3] = [first_insn, atomic, _NOP]
                    made.add(pc + 1)
    return frozenset(made)


def _is_addition(load: Insn, add: Insn, store: Insn) -> bool:
    known = _ADDS.get(load.opcode)
    if known is None or store.opcode != known[0] or add.opcode not in known[2] or load.dst == load.src:
        return False
    if add.dst != load.dst or (add.opcode & 8 and add.src in (load.dst, load.src)):
        return False
    return (store.dst, store.src, store.off) == (load.src, load.dst, load.off)


def _is_dead(blocks: Mapping[int, Block], block: Block, at: int, register: int) -> bool:
    """Whether nothing reads a register from the instruction number `at` of a block on, before it is written."""
    seen: set[int] = set()
    work = [(block, at)]
    while work:
        block, at = work.pop()
        insns = [insn for _, insn in block.insns[at:]] + ([block.end[1]] if block.end else [])
        for insn in insns:
            reads, writes = _effect(insn)
            if register in reads:
                return False
            if register in writes:
                break
        else:
            for follower in (block.next, block.target):
                if follower >= 0 and follower not in seen:
                    seen.add(follower)
                    work.append((blocks[follower], 0))
    return True


def _effect(insn: Insn) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The registers that an instruction may read, and those that it surely writes."""
    class_ = insn.opcode & 7
    if insn.opcode == 0x95:
        return (0,), ()
    if insn.opcode & ~8 == CALL:
        return (insn.dst, 1, 2, 3, 4, 5) if insn.opcode & 8 else (1, 2, 3, 4, 5), (0, 1, 2, 3, 4, 5)
    if insn.opcode == LDDW:
        return (), (insn.dst,)
    if class_ == 0:
        return tuple(range(11)), ()
    if class_ == 1:
        return (insn.src,), (insn.dst,)
    if class_ == 2:
        return (insn.dst,), ()
    if class_ == 3:
        return (insn.dst, insn.src, 0), ()
    if insn.opcode & 0xF0 == 0xB0 and class_ in (4, 7):
        return ((insn.src,) if insn.opcode & 8 else ()), (insn.dst,)
    return (insn.dst, insn.src), ()

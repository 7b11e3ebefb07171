"""Runs what the verifier accepted on hostile inputs and looks for any sign that it was wrong to: the oracle of the fuzz runs.

A sign is a fault of the interpreter, whose memory has bounds; a record that is still held at the end; a run without end; and a value in a register that
none of the states which the verifier had at that instruction allows (of what it says matters there), long before that does harm.
"""

from __future__ import annotations

from contextlib import closing
from random import Random
from typing import TYPE_CHECKING

from bpf_hostile_programs import (
    ARRAY,
    CONTEXT_BYTES,
    EDGES,
    HASH,
    OUTER,
    PACKET_BYTES,
    PROGRAMS,
    QUEUE,
    RING,
    VALUE_BYTES,
)

from sonde.bpf.interp import Machine, Program
from sonde.bpf.isa import Insn
from sonde.bpf.maps import MapShape, create
from sonde.bpf.runtime import World, helper_table
from sonde.bpf.verifier import MapInfo
from sonde.bpf.verifier.contexts import find_context
from sonde.bpf.verifier.explore import Walker
from sonde.bpf.verifier.problem import Problem
from sonde.errors import RunError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sonde.bpf.helpers import Helper
    from sonde.bpf.maps import SharedMap
    from sonde.bpf.maps.array import TableMap
    from sonde.bpf.verifier.state import Reg, State

INNER = MapInfo("inner", "array", 4, 32, 2)
MAPS = {
    ARRAY: MapInfo("array", "array", 4, VALUE_BYTES, 1),
    HASH: MapInfo("hash", "hash", 4, VALUE_BYTES, 8),
    RING: MapInfo("ring", "ringbuf", 0, 0, 4096),
    OUTER: MapInfo("outer", "array_of_maps", 4, 4, 4, inner=INNER),
    PROGRAMS: MapInfo("programs", "prog_array", 4, 4, 2),
    QUEUE: MapInfo("queue", "queue", 0, 8, 4),
}
STEPS = 200_000
MAY_GOTO_ROUNDS = 70
M = (1 << 64) - 1
_RECORDED = 400  # states kept of an instruction; where there were more, nothing is compared
PACKET_LOADS = (0, 1)  # pcs of the loads of data and data_end of a program of type xdp


class Seen:
    """The states that the verifier had at each instruction, and of which registers the number matters there."""

    def __init__(self) -> None:
        self.states: dict[int, list[tuple[int, tuple[Reg, ...]]]] = {}
        self.crowded: set[int] = set()
        self.walker: Walker | None = None
        self.restarts = 0

    def __call__(self, pc: int, state: State) -> None:
        """Note a state, as `trace` of the verifier. Only the last time that all is followed counts."""
        assert self.walker is not None
        if self.walker.restarts != self.restarts:
            self.restarts = self.walker.restarts
            self.states.clear()
            self.crowded.clear()
        kept = self.states.setdefault(pc, [])
        if len(kept) < _RECORDED:
            kept.append((len(state.frames), tuple(state.regs[:10])))
        else:
            self.crowded.add(pc)


def judge(insns: Sequence[Insn], kind: str, seen: Seen, max_insns: int = 20_000, *, eager: int = 10_000) -> bool:
    """Whether the verifier accepts a program over MAPS. `eager`: after how many instructions it begins to be clever."""
    walker = seen.walker = Walker(
        insns,
        find_context(kind),
        MAPS,
        allows=_plain,
        find_struct=lambda name: None,
        max_insns=max_insns,
        eager=eager,
        trace=seen,
    )
    try:
        walker.run()
    except Problem:
        return False
    return True


def _plain(helper: Helper) -> bool:
    return "sleeps" not in helper.flags


class Impatient(Machine):
    """A machine in which may_goto leaves a loop soon."""

    def expired(self) -> bool:
        """Whether may_goto leaves the loop."""
        self._loops = min(self._loops, MAY_GOTO_ROUNDS)
        return super().expired()


class Bench:
    """The maps of these programs, filled, and a machine over them."""

    def __init__(self, seed: int, kind: str) -> None:
        self.random = Random(seed)
        self.tables: dict[int, SharedMap] = {
            n: create(MapShape(m.kind, m.key_size, m.value_size, m.max_entries)) for n, m in MAPS.items()
        }
        self.inner = create(MapShape("array", 4, 32, 2))
        outer: TableMap = self.tables[OUTER]  # type: ignore[assignment]
        outer.set(0, self.inner)
        self.tables[ARRAY].update(bytes(4), self.bytes(VALUE_BYTES))
        for key in (0, 2):
            self.tables[HASH].update(key.to_bytes(4, "little"), self.bytes(VALUE_BYTES))
        self.world = World()
        self.machine = Impatient(helper_table(), maps=self.tables, world=self.world)
        memory = self.machine.memory
        if kind == "xdp":
            packet = memory.add(bytearray(self.bytes(self.random.choice((0, 1, 14, 15, 33, PACKET_BYTES, 200)))))
            end = packet + len(memory.regions[packet >> 32])
            self.context = memory.add(memoryview(packet.to_bytes(8, "little") + end.to_bytes(8, "little") + bytes(16)))
        else:
            self.context = memory.add(memoryview(self.bytes(CONTEXT_BYTES)))

    def close(self) -> None:
        """Let go of the maps."""
        for table in (*self.tables.values(), self.inner):
            table.close()

    def bytes(self, size: int) -> bytes:
        """Hostile numbers."""
        numbers = [
            (self.random.choice(EDGES) & M)
            if self.random.random() < 0.6
            else self.random.getrandbits(self.random.randint(1, 64))
            for _ in range(-(-size // 8))
        ]
        return b"".join(n.to_bytes(8, "little") for n in numbers)[:size]


def run(program: Program, kind: str, seed: int, seen: Seen | None = None) -> str:
    """Run an accepted program (of `program_of`) once. Returns "" or what shows that it should not have been accepted."""
    with closing(Bench(seed, kind)) as bench:
        return _run(program, bench, seen)


def _run(program: Program, bench: Bench, seen: Seen | None) -> str:
    machine = bench.machine
    wrong: list[str] = []

    def compare(pc: int, registers: tuple[int, ...]) -> None:
        assert seen is not None
        if not wrong and pc not in seen.crowded and not _allowed(machine, seen, pc, registers):
            wrong.append(f"at instruction {pc} no state of the verifier allows {_show(registers)}")

    try:
        machine.run(program, bench.context, steps=STEPS, trace=compare if seen is not None else None)
    except RunError as error:
        return f"{error}; {wrong[0] if wrong else ''}"
    if machine.records:
        return "a record is still held at the end"
    return wrong[0] if wrong else ""


def program_of(insns: Sequence[Insn], kind: str) -> Program:
    """The program for the interpreter: the kernel makes the loads of packet pointers 64 bits wide, as is done here."""
    if kind != "xdp":
        return Program(insns)
    wide = [Insn(0x79, i.dst, i.src, i.off * 2) if n in PACKET_LOADS else i for n, i in enumerate(insns)]
    return Program(wide)


def _show(registers: tuple[int, ...]) -> str:
    return ", ".join(f"r{i}={n:#x}" for i, n in enumerate(registers))


def _allowed(machine: Machine, seen: Seen, pc: int, registers: tuple[int, ...]) -> bool:
    assert seen.walker is not None
    live, precise, _, _ = seen.walker.demand[pc]
    depth = machine._frames.index(registers[10]) + 1
    return any(
        frames == depth
        and all(not live >> i & 1 or _fits(machine, regs[i], registers[i], bool(precise >> i & 1)) for i in range(10))
        for frames, regs in seen.states.get(pc, ())
    )


def _fits(machine: Machine, reg: Reg, value: int, precise: bool) -> bool:
    """Whether a value is one of those that the verifier has for a register."""
    kind = reg.kind
    if kind == "scalar":
        return not precise or reg.number.covers(value)
    if kind == "none":
        return True
    if kind.endswith("?") and value == 0:
        return True
    if kind == "stack":
        base = machine._frames[reg.size]
    elif kind in ("value", "value?", "mem", "mem?", "packet"):
        low = value & 0xFFFFFFFF  # its offset, or as much below the next region
        return any(reg.number.covers((offset - reg.off) & M) for offset in (low, low - (1 << 32))) and value >> 31 != 0
    else:
        return True
    return reg.number.covers((value - base - reg.off) & M)

"""Random eBPF programs that the kernel's verifier accepts, covering every operation that it takes from a program without helpers.

Each works on nine registers filled from the input, on its stack, and atomically on the value of the map `io`; loops are counted. At its end the
registers are stored behind the input. So what a machine computes is seen in the map's value alone.
"""

from __future__ import annotations

from functools import cache
from random import Random
from typing import TYPE_CHECKING

from sonde.bpf import isa
from sonde.bpf.interp import Machine, Program
from sonde.bpf.isa import FREE, Insn, Op, iter_ops
from sonde.spec.object import MapSpec, ProgramSpec, Reloc

if TYPE_CHECKING:
    from sonde.bpf.interp import Trace

INPUT_BYTES, ATOMIC_BYTES, OUTPUT_BYTES = 72, 32, 72
VALUE_BYTES = INPUT_BYTES + ATOMIC_BYTES + OUTPUT_BYTES
IO = MapSpec("io", "array", 4, VALUE_BYTES, 1)
MAP_FD = 1  # the map's number in code that no kernel relocated
STACK_BYTES = 64
CONTEXT_BYTES = 96  # of a raw tracepoint: its arguments, which these programs do not read unless they were spoilt
NUMBERS = (0, 1, -1, 2, 7, 31, 32, 63, 64, 0x7FFFFFFF, -0x80000000, 255, 0xFFFF, -3)

# Not in these programs: packet loads, calls, what only the kernel's own passes write, arenas, newer than the oldest kernel that runs them.
_LEFT_OUT = (
    "ldabs",
    "ldind",
    "call",
    "kfunc",
    "exit",
    "lddw",
    "nospec",
    "cast",
    "percpu",
    "gotox",
    "callx",
    "may_goto",
    "acquire",
    "release",
)


class ProgramGenerator:
    """One random program for each seed. `acquire`: with load-acquire and store-release, which Linux 6.15 brought."""

    def __init__(self, seed: int, length: int = 40, *, acquire: bool = False) -> None:
        self.random = Random(seed)
        self.length = length
        self.insns: list[Insn] = []
        self.arithmetic, self.jumps, self.loads, self.stores, self.atomics = _operations(acquire)

    def make(self) -> list[Insn]:
        """Return the instructions. The map's address is loaded by number MAP_FD at pc 0."""
        random = self.random
        self.insns = [Insn(isa.LDDW, 9, isa.BPF_PSEUDO_MAP_VALUE, imm=MAP_FD)]
        for register in range(9):
            self.insns.append(Insn(isa.BPF_LDX | isa.BPF_MEM | isa.BPF_DW, register, 9, register * 8))
        for offset in range(-STACK_BYTES, 0, 8):
            self.insns.append(Insn(isa.BPF_STX | isa.BPF_MEM | isa.BPF_DW, 10, random.randrange(9), offset))
        self.body(self.length, True)
        for register in range(9):
            self.insns.append(
                Insn(isa.BPF_STX | isa.BPF_MEM | isa.BPF_DW, 9, register, INPUT_BYTES + ATOMIC_BYTES + register * 8)
            )
        self.insns += [Insn(isa.BPF_ALU64 | isa.BPF_MOV, 0), Insn(isa.EXIT)]
        return self.insns

    def body(self, length: int, loops: bool) -> None:
        """Append instructions; jumps among them stay inside."""
        random = self.random
        left = length
        while left > 0:
            kind = random.random()
            if kind < 0.12 and left > 2:
                size = random.randint(1, min(left - 1, 8))
                self.skip(size)
                left -= size
            elif kind < 0.16 and loops and left > 4:
                self.loop(random.randint(1, 4))
                left -= 4
            else:
                self.insns += self.some(kind)
            left -= 1

    def skip(self, size: int) -> None:
        """A jump over some instructions, conditional or not, near or far."""
        op = self.random.choice(self.jumps)
        jump = self.fill(op)
        self.insns += self.before_jump(jump)
        at = len(self.insns)
        self.insns.append(jump)
        self.body(size, False)
        distance = sum(insn.slots for insn in self.insns[at + 1 :])
        if self.random.random() < 0.05:  # jump around the next instruction, which must stay reachable
            self.insns[at : at + 1] = [self.fill(op, 1), Insn(isa.GOTOL, imm=0)]
        else:
            self.insns[at].off = distance

    def before_jump(self, jump: Insn) -> list[Insn]:
        """What makes a condition worth asking."""
        return []

    def loop(self, length: int) -> None:
        """A loop of up to 6 rounds; its counter lives on the stack, where nothing else of the loop writes."""
        slot = -STACK_BYTES - 8
        self.insns.append(Insn(isa.BPF_ST | isa.BPF_MEM | isa.BPF_DW, 10, off=slot, imm=self.random.randint(1, 6)))
        start = len(self.insns)
        self.body(length, False)
        self.insns += [
            Insn(isa.BPF_LDX | isa.BPF_MEM | isa.BPF_DW, 8, 10, slot),
            Insn(isa.BPF_ALU64 | isa.BPF_ADD, 8, imm=-1),
            Insn(isa.BPF_STX | isa.BPF_MEM | isa.BPF_DW, 10, 8, slot),
        ]
        back = sum(insn.slots for insn in self.insns[start:]) + 1
        self.insns.append(Insn(isa.BPF_JMP | isa.BPF_JNE, 8, off=-back))

    def some(self, kind: float) -> list[Insn]:
        """What stands between jumps: here one instruction."""
        return [self.one(kind)]

    def one(self, kind: float) -> Insn:
        """A single instruction that is no jump."""
        if kind < 0.75:
            return self.fill(self.random.choice(self.arithmetic))
        if kind < 0.85:
            return self.at_stack(self.random.choice(self.loads), load=True)
        if kind < 0.95:
            return self.at_stack(self.random.choice(self.stores), load=False)
        op = self.random.choice(self.atomics)
        size = int("".join(c for c in op.name if c.isdigit())) // 8
        place = INPUT_BYTES + self.random.randrange(ATOMIC_BYTES // size) * size
        register = self.random.randrange(9)
        if op.name.startswith("acquire"):
            return Insn(op.opcode, register, 9, place, op.imm)
        return Insn(op.opcode, 9, register, place, op.imm)

    def at_stack(self, op: Op, *, load: bool) -> Insn:
        """A load from or a store to the stack, aligned, since unaligned reads of spilled bytes depend on privileges."""
        size = int("".join(c for c in op.name if c.isdigit())) // 8
        off = -STACK_BYTES + self.random.randrange(STACK_BYTES // size) * size
        insn = self.fill(op)
        insn.off = off
        if load:
            insn.src = 10
        else:
            insn.dst = 10
        return insn

    def fill(self, op: Op, off: int = 0) -> Insn:
        """An instruction of the table with random registers and immediate."""
        random = self.random
        imm = op.imm
        if imm == FREE:
            imm = random.choice(NUMBERS) if random.random() < 0.6 else random.randint(-(1 << 31), (1 << 31) - 1)
            if op.name.startswith(("lsh", "rsh", "arsh")):
                imm %= 64 if "64" in op.name else 32
            if op.name.startswith(("div", "mod", "sdiv", "smod")):
                imm = imm or 3
        return Insn(
            op.opcode,
            random.randrange(9) if op.dst == FREE else op.dst,
            random.randrange(9) if op.src == FREE else op.src,
            off if op.off == FREE else op.off,
            imm,
        )


@cache
def _operations(acquire: bool) -> tuple[list[Op], ...]:
    """Arithmetic, jumps, loads, stores, atomics."""
    ops = [op for op in iter_ops() if not op.name.startswith(_LEFT_OUT)]
    jumps = (isa.BPF_JMP, isa.BPF_JMP32)
    return (
        [op for op in ops if op.opcode & 7 in (isa.BPF_ALU, isa.BPF_ALU64)],
        [op for op in ops if op.opcode & 7 in jumps and op.opcode not in (isa.JA, isa.GOTOL)],
        [op for op in ops if op.name.startswith("ldx")],
        [op for op in ops if op.name.startswith("st")],
        [op for op in iter_ops() if op.opcode & 0xE7 == isa.BPF_STX | isa.BPF_ATOMIC and (op.imm < 0x100 or acquire)],
    )


def random_input(seed: int) -> bytearray:
    """Return a value of the map: registers with numbers of all sizes, then zeros."""
    random = Random(seed)
    value = bytearray(VALUE_BYTES)
    for at in range(0, INPUT_BYTES + ATOMIC_BYTES, 8):
        number = random.choice(NUMBERS) if random.random() < 0.4 else random.getrandbits(random.randint(1, 64))
        value[at : at + 8] = (number & (1 << 64) - 1).to_bytes(8, "little")
    return value


def kernel_program(insns: list[Insn], name: str = "fuzz") -> ProgramSpec:
    """Return the program as the kernel engine takes it."""
    code = [Insn(isa.LDDW, 9, isa.BPF_PSEUDO_MAP_VALUE), *insns[1:]]
    return ProgramSpec(name, "raw_tracepoint", isa.encode(code), (Reloc(0, "map_value", IO.name),))


class ArrayOfOne:
    """A map with one entry, whose value the interpreter reads where it is."""

    address = 0

    def value_address(self, index: int) -> int:
        """The value's address in the machine's memory."""
        return self.address

    @staticmethod
    def interpret(program: Program, value: bytearray, trace: Trace | None = None) -> None:
        """Run a program of the generator; `value` becomes what it leaves."""
        table = ArrayOfOne()
        machine = Machine(maps={MAP_FD: table})
        table.address = machine.memory.add(value)
        context = machine.memory.add(memoryview(bytes(CONTEXT_BYTES)))
        assert machine.run(program, context, trace=trace) == 0

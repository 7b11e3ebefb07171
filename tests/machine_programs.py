"""Random programs with everything the machine has, and what runs many of them at once: the interpreter, x86-64 here, aarch64 in QEMU's user mode.

To `bpf_programs` come helpers, kernel functions, local functions (by name and by address), tail calls, look-ups, updates and deletes in a hash and an array,
loads from a packet, wide loads of every kind that has a meaning without a kernel, casts, may_goto, far offsets. An engine gets a memory of `MEMORY_BYTES` and leaves
a result and that memory: value of `io`, hash, array, as they are in `maps.base`; so two engines agree when every byte is the same.
"""

from __future__ import annotations

import ctypes
import mmap
import struct
import tempfile
from collections import Counter
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from a64_runner import Image
from bpf_programs import ATOMIC_BYTES, INPUT_BYTES, IO, MAP_FD, NUMBERS, VALUE_BYTES, ArrayOfOne, ProgramGenerator

from sonde.bpf import isa
from sonde.bpf.asm import assemble
from sonde.bpf.interp import Machine, Program
from sonde.bpf.isa import Insn, Op, encode, get_op, iter_ops, iter_pcs
from sonde.bpf.jit import translate
from sonde.bpf.jit.maps import MapPlan
from sonde.bpf.maps import MapShape, SharedMap, create
from sonde.bpf.maps.layout import layout_of
from sonde.bpf.maps.routines import SEED
from sonde.bpf.runtime import helper_table
from sonde.spec.object import MapSpec, ProgramSpec, Reloc

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sonde.bpf.jit.code import MachineCode

Outcome = tuple[int, bytes]  # the result, and the memory

HASH_FD, ARRAY_FD, PROGRAMS_FD = 2, 3, 4
MIX, KFUNC, TAIL_CALL = 5, 77, 12
HASH, ARRAY = MapSpec("h", "hash", 4, 8, 5), MapSpec("a", "array", 4, 8, 4)
KEY, COUNTER_END = -80, -72  # on the stack
PACKET = bytes(range(1, 65))
OWNER = 7
FILLED = tuple(
    number.to_bytes(4, "little") for number in (5, 4, 6, 0)
)  # keys of the hash that are there before a program runs
HASH_SEED = 374  # the keys 0 to 6 belong to cells 2, 7, 2, 3, 15, 15, 15 of 16
M = (1 << 64) - 1
NOT_RUN = frozenset(
    ["gotox", "lddw_btf"]
)  # refused with their reason: jumps through a table and the kernel's variables are the kernel's

# What machine code calls, as eBPF of its own, and its meaning once more for the interpreter.
MIX_TEXT = "r0 = r1\nr0 *= 31\nr0 += r2\nr0 ^= r3\nr0 += r4\nr0 -= r5\nexit"
TAIL_TEXT = "r0 = 77\nif r1 == 0x0 goto out\nr2 = *(u64 *)(r1 +0)\nr2 ^= 0x5a5a\n*(u64 *)(r1 +104) = r2\nout: exit"
FIND_TAIL_TEXT = "r0 = 0\nif r3 != 0x1 goto out\nr0 = map[fd:9]\nout: exit"
PACKET_TEXT = f"""
    r3 = r1
    r3 += r2
    if r3 > {len(PACKET):#x} goto none
    if r2 == 0x0 goto none
    r4 = map[fd:8][0]+0
    r4 += r1
    r0 = 0
    next: r0 <<= 8
    r1 = *(u8 *)(r4 +0)
    r0 |= r1
    r4 += 1
    r2 += -1
    if r2 != 0x0 goto next
    exit
    none: r0 = -1
    exit
"""


def mix(_: object, r1: int, r2: int, r3: int, r4: int, r5: int) -> int:
    """MIX_TEXT in Python."""
    return ((((r1 * 31 + r2) & M) ^ r3) + r4 - r5) & M


@cache
def _op(name: str) -> Op:
    return next(op for op in iter_ops() if op.name == name)


class WholeGenerator(ProgramGenerator):
    """One random program for each seed. `kernel`: only what the kernel's verifier takes from a raw tracepoint program."""

    def __init__(self, seed: int, length: int = 40, *, kernel: bool = False, acquire: bool = True) -> None:
        super().__init__(seed, length, acquire=acquire)
        self.kernel = kernel
        self.calls: list[tuple[Insn, int]] = []  # calls and addresses of local functions, by number
        self.functions: list[list[Insn]] = []
        self.inner = False
        if acquire or not kernel:  # Linux 6.9, which is older
            self.jumps = [*self.jumps, _op("may_goto")]
        if not kernel:
            self.arithmetic = [*self.arithmetic, _op("cast"), _op("percpu")]
        self.wholes = [
            self.swap,
            self.divide,
            self.wide_number,
            self.map_lookup,
            self.map_lookup,
            self.map_change,
            self.local_call,
            self.far,
            self.goto,
        ]
        if not kernel:
            self.wholes += [self.helper_call, self.packet, self.by_address, self.barrier]

    def make(self) -> list[Insn]:
        super().make()
        if not self.kernel and self.random.random() < 0.3:
            self.insns[0].src = isa.BPF_PSEUDO_MAP_IDX_VALUE
        if not self.kernel and self.random.random() < 0.15:
            self.insns[-2:] = self.tail_call()
        starts = []
        for body in self.functions:
            starts.append(len(self.insns))
            self.insns += body
        pcs = {id(insn): pc for pc, insn in iter_pcs(self.insns)}
        for insn, number in self.calls:
            distance = pcs[id(self.insns[starts[number]])] - pcs[id(insn)] - 1
            insn.imm = distance & 0xFFFFFFFF if insn.opcode == isa.LDDW else distance
        return self.insns

    def some(self, kind: float) -> list[Insn]:
        if self.random.random() < 0.15:
            return self.random.choice(self.wholes)()
        return [self.one(kind)]

    def before_jump(self, jump: Insn) -> list[Insn]:
        """Often the operands are equal, or next to each other."""
        if jump.opcode == isa.MAY_GOTO or self.random.random() < 0.6:
            return []
        if jump.opcode & isa.BPF_X:
            made = [Insn(isa.BPF_ALU64 | isa.BPF_MOV | isa.BPF_X, jump.dst, jump.src)]
        else:
            made = [Insn(isa.BPF_ALU64 | isa.BPF_MOV, jump.dst, imm=jump.imm)]
        near = self.random.choice((0, 0, 0, 1, -1))
        return [*made, Insn(isa.BPF_ALU64 | isa.BPF_ADD, jump.dst, imm=near)] if near else made

    # steps of several instructions ----------------------------------------------------------------------------

    def text(self, text: str) -> list[Insn]:
        known = _texts.get(text)
        if known is None:
            known = _texts[text] = assemble(text)
        return [Insn(i.opcode, i.dst, i.src, i.off, i.imm) for i in known]

    def again(self, *registers: int) -> list[Insn]:
        """New numbers in registers that hold nothing sure, or an address."""
        return [
            Insn(isa.BPF_ALU64 | isa.BPF_MOV | isa.BPF_X, r, self.random.randint(6, 8))
            if self.random.random() < 0.6
            else Insn(isa.BPF_ALU64 | isa.BPF_MOV, r, imm=self.random.choice(NUMBERS))
            for r in registers
        ]

    def wide_number(self) -> list[Insn]:
        number = self.random.choice(
            (self.random.getrandbits(64), self.random.getrandbits(33), *(n & M for n in NUMBERS))
        )
        return [Insn(isa.LDDW, self.random.randrange(9), imm=number)]

    def swap(self) -> list[Insn]:
        """A compare-and-exchange that mostly finds what it compares with; the upper half of r0 is for nothing then, or in the way."""
        bits, register = self.random.choice((32, 64)), self.random.randint(1, 8)
        at = INPUT_BYTES + self.random.randrange(ATOMIC_BYTES * 8 // bits) * bits // 8
        name = "atomic64_cmpxchg" if bits == 64 else "atomic_cmpxchg"
        above = self.random.choice(("", "", f"r{register} <<= 32\nr0 |= r{register}"))
        return self.text(f"r0 = *(u{bits} *)(r9 +{at})\n{above}\nr0 = {name}((u{bits} *)(r9 +{at}), r0, r{register})")

    def divide(self) -> list[Insn]:
        """The numbers that division is difficult for."""
        d, s = self.random.sample(range(9), 2)
        op = self.random.choice(("/=", "%=", "s/=", "s%="))
        width = self.random.choice("rw")
        number = self.random.choice((1 << 63, 1 << 31, 0xFFFFFFFF80000000, 7, M, M - 6, 0x7FFFFFFF80000000))
        by = self.random.choice((-1, -1, 0, 1, -7, 3))
        operand = f"{width}{s}" if by == 0 or self.random.random() < 0.7 else str(by)
        return self.text(f"r{d} = {number} ll\nr{s} = {by}\n{width}{d} {op} {operand}")

    def map_load(self, register: int, number: int) -> Insn:
        return Insn(isa.LDDW, register, 1 if self.kernel else self.random.choice((1, 5)), imm=number)

    def key(self, number: int, limit: int) -> list[Insn]:
        store = Insn(isa.BPF_ST | isa.BPF_MEM | isa.BPF_W, 10, off=KEY, imm=self.random.randrange(limit))
        return [store, self.map_load(1, number), *self.text(f"r2 = r10\nr2 += {KEY}")]

    def map_lookup(self) -> list[Insn]:
        number = self.random.choice((HASH_FD, ARRAY_FD))
        change = self.random.choice(("", "*(u64 *)(r0 +0) = r6", "lock *(u64 *)(r0 +0) += r7", "*(u16 *)(r0 +2) = r8"))
        inside = self.text(f"r1 = *(u64 *)(r0 +0)\n{change}\nr{self.random.randint(6, 8)} ^= r1")
        skip = Insn(isa.BPF_JMP | isa.BPF_JEQ, 0, off=len(inside))
        return [*self.key(number, 7), *self.text("call 1"), skip, *inside, *self.again(0, 1, 2, 3, 4, 5)]

    def map_change(self) -> list[Insn]:
        number = self.random.choice((HASH_FD, HASH_FD, ARRAY_FD))
        keep = f"r{self.random.randint(6, 8)} += r0"
        if self.random.random() < 0.4:
            return [*self.key(number, 7), *self.text(f"call 3\n{keep}"), *self.again(1, 2, 3, 4, 5)]
        value = self.text(
            f"r3 = r10\nr3 += {-8 * self.random.randint(1, 8)}\nr4 = {self.random.choice((0, 0, 0, 1, 2, 4, 9))}"
        )
        return [*self.key(number, 7), *value, *self.text(f"call 2\n{keep}"), *self.again(1, 2, 3, 4, 5)]

    def far(self) -> list[Insn]:
        """Into the value with an offset that a register takes back."""
        away = self.random.choice(
            (1, 100, 127, 128, 255, 256, 4000, 4096, 32000, -1, -128, -129, -256, -257, -4096, -32000)
        )
        size = self.random.choice((1, 2, 4, 8))
        at = self.random.randrange(VALUE_BYTES // size) * size - away
        d, s = self.random.sample(range(9), 2)
        width = 8 * size
        access = self.random.choice(
            (
                f"r{s} = *(u{width} *)(r{d} {at:+d})",
                f"*(u{width} *)(r{d} {at:+d}) = r{s}",
                f"*(u{width} *)(r{d} {at:+d}) = {self.random.choice(NUMBERS)}",
            )
        )
        if size < 8 and self.random.random() < 0.3:
            access = f"r{s} = *(s{width} *)(r{d} {at:+d})"
        return [*self.text(f"r{d} = r9\nr{d} += {away}\n{access}"), Insn(isa.BPF_ALU64 | isa.BPF_MOV, d, imm=away)]

    def goto(self) -> list[Insn]:
        return [Insn(isa.JA)]

    def barrier(self) -> list[Insn]:
        return self.text("nospec")

    def helper_call(self) -> list[Insn]:
        call = Insn(isa.CALL, imm=MIX) if self.random.random() < 0.5 else Insn(isa.CALL, 0, 2, 0, KFUNC)
        return [call, *self.again(1, 2, 3, 4, 5)]

    def packet(self) -> list[Insn]:
        mode = self.random.choice((isa.BPF_ABS, isa.BPF_IND))
        size = self.random.choice((isa.BPF_B, isa.BPF_H, isa.BPF_W))
        at = (
            self.random.randrange(len(PACKET) - 3)
            if self.random.random() < 0.95
            else self.random.choice((62, 64, -1, 1 << 30))
        )
        if mode == isa.BPF_ABS:
            return [Insn(isa.BPF_LD | mode | size, imm=at), *self.again(1, 2, 3, 4, 5)]
        register, base = self.random.randrange(9), self.random.randrange(30)
        first = Insn(isa.BPF_ALU64 | isa.BPF_MOV, register, imm=base)
        return [first, Insn(isa.BPF_LD | mode | size, 0, register, 0, at - base), *self.again(1, 2, 3, 4, 5)]

    def function(self) -> int:
        """Write a local function; return its number. Its arguments become its registers, its result is made of all of them."""
        outer, self.insns, self.inner = self.insns, [], True
        self.insns += [Insn(isa.LDDW, 9, 2, imm=MAP_FD), *self.text("r6 = r1\nr7 = r2\nr8 = r3\nr0 = r4")]
        for offset in range(-64, 0, 8):
            self.insns.append(Insn(isa.BPF_STX | isa.BPF_MEM | isa.BPF_DW, 10, self.random.randrange(9), offset))
        self.body(self.random.randint(2, 4), False)
        self.insns += self.text(
            "\n".join(f"r0 {self.random.choice(('^=', '+=', '-='))} r{r}" for r in range(1, 9)) + "\nexit"
        )
        body, self.insns, self.inner = self.insns, outer, False
        self.functions.append(body)
        return len(self.functions) - 1

    def local_call(self) -> list[Insn]:
        if self.inner:
            return self.wide_number()
        call = Insn(isa.CALL, 0, isa.BPF_PSEUDO_CALL)
        self.calls.append((call, self.function()))
        return [call, *self.again(1, 2, 3, 4, 5)]

    def by_address(self) -> list[Insn]:
        if self.inner:
            return self.wide_number()
        register = self.random.randint(6, 8)  # r1 to r5 are arguments, and an address is no number
        address = Insn(isa.LDDW, register, isa.BPF_PSEUDO_FUNC)
        self.calls.append((address, self.function()))
        return [
            address,
            Insn(0x8D, register),
            Insn(isa.BPF_ALU64 | isa.BPF_MOV, register, imm=9),
            *self.again(1, 2, 3, 4, 5),
        ]

    def tail_call(self) -> list[Insn]:
        index = self.random.choice((1, 1, 2))
        return [self.map_load(2, PROGRAMS_FD), *self.text(f"r1 = r9\nr3 = {index}\ncall {TAIL_CALL}\nr0 = 3\nexit")]


_texts: dict[str, list[Insn]] = {}


def make_programs(seeds: Iterable[int]) -> list[list[Insn]]:
    """The programs of some seeds, of 2 to 24 pieces."""
    return [WholeGenerator(seed, 2 + seed % 23).make() for seed in seeds]


def count_forms(programs: Iterable[list[Insn]], into: Counter[str]) -> None:
    """Count the operations of the instruction set, by name."""
    for insns in programs:
        for insn in insns:
            op = get_op(insn)
            assert op is not None
            into[op.name] += 1


def missing_forms(counted: Counter[str]) -> list[str]:
    """The operations that no program had, of those that can run without a kernel."""
    return [op.name for op in iter_ops() if op.name not in NOT_RUN and not counted[op.name]]


# Memory -----------------------------------------------------------------------------------------------------------


def _table(spec: MapSpec) -> SharedMap:
    table = create(MapShape(spec.type, spec.key_size, spec.value_size, spec.max_entries))
    table.seed = table.region.words[SEED >> 3] = HASH_SEED
    return table


class Memory:
    """The tables, and how their bytes and the value of `io` lie in the memory of an engine."""

    def __init__(self) -> None:
        self.hash, self.array = _table(HASH), _table(ARRAY)
        for key in FILLED:
            self.hash.update(key, key + key)
        self.fresh = {HASH_FD: bytes(self.hash.region.data), ARRAY_FD: bytes(self.array.region.data)}
        self.hash_at = VALUE_BYTES
        self.array_at = self.hash_at + len(self.fresh[HASH_FD])
        self.size = self.array_at + len(self.fresh[ARRAY_FD])
        self.packet_at, self.owner_at = self.size, self.size + len(PACKET)
        self.tail = self.fresh[HASH_FD] + self.fresh[ARRAY_FD] + PACKET + OWNER.to_bytes(8, "little")
        layouts = {HASH_FD: layout_of(self.hash), ARRAY_FD: layout_of(self.array)}
        self.plan = MapPlan({number: layout for number, layout in layouts.items() if layout is not None})
        self.offsets = {
            ("map_value", MAP_FD): 0, ("map_value", 8): self.packet_at, ("map", HASH_FD): self.hash_at, ("map", ARRAY_FD): self.array_at,
            ("map", PROGRAMS_FD): 0, ("owner", 0): self.owner_at,
        }  # fmt: skip

    def begin(self, value: bytes) -> bytes:
        """The whole memory before a program that finds `value`."""
        return value + self.tail


class Programs:
    """The program array."""

    def __init__(self) -> None:
        self.other = Program(assemble(TAIL_TEXT))

    def get_program(self, index: int) -> Program | None:
        return self.other if index == 1 else None


class Interpreter:
    """The reference; one machine for all programs."""

    def __init__(self) -> None:
        self.memory = Memory()
        io = ArrayOfOne()
        helpers = {**helper_table(), MIX: mix}
        maps = {MAP_FD: io, HASH_FD: self.memory.hash, ARRAY_FD: self.memory.array, PROGRAMS_FD: Programs()}
        self.machine = Machine(helpers, maps=maps, kfuncs={KFUNC: mix})
        self.value = bytearray(VALUE_BYTES)
        io.address = self.machine.memory.add(self.value)
        self.machine.packet_data = PACKET

    def run(self, programs: Sequence[list[Insn]], values: Sequence[bytes]) -> list[Outcome]:
        """Return what each program leaves."""
        found = []
        hashed, array = self.memory.hash.region.data, self.memory.array.region.data
        for insns, value in zip(programs, values):
            self.value[:] = value
            hashed[:], array[:] = self.memory.fresh[HASH_FD], self.memory.fresh[ARRAY_FD]
            result = self.machine.run(Program(insns))
            self.machine._functions.clear()
            found.append((result, bytes(self.value) + bytes(hashed) + bytes(array)))
        return found


_OUTSIDE = {
    ("helper", MIX): MIX_TEXT,
    ("kfunc", KFUNC): MIX_TEXT,
    ("packet", 0): PACKET_TEXT,
    ("map", 9): TAIL_TEXT,
    ("helper", TAIL_CALL): FIND_TAIL_TEXT,
}


class X86:
    """Machine code in this process: a batch stands in one buffer. With and without the CPU's extensions in turn."""

    def __init__(self, features: frozenset[str]) -> None:
        self.features = features
        self.memory = Memory()
        self.buffer = ctypes.create_string_buffer(self.memory.owner_at + 8)
        self.base = ctypes.addressof(self.buffer)
        self.places = {key: self.base + at for key, at in self.memory.offsets.items()}
        self.kept = []
        for key, text in _OUTSIDE.items():
            memory, starts = self.place([translate(assemble(text), "x86_64")])
            self.kept.append(memory)
            self.places[key] = starts[0]

    def place(self, codes: Sequence[MachineCode]) -> tuple[mmap.mmap, list[int]]:
        """Put code into one buffer; return it and the addresses."""
        starts, at = [], 0
        for code in codes:
            starts.append(at)
            at += (len(code.text) + 15) & -16
        memory = mmap.mmap(-1, max(at, 1), prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
        address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
        for code, start in zip(codes, starts):
            memory[start : start + len(code.text)] = code.text
            for reloc in code.relocs:
                place = (
                    address + start + reloc.value
                    if reloc.kind == "function"
                    else self.places[reloc.kind, reloc.value] + reloc.addend
                )
                struct.pack_into("<Q", memory, start + reloc.offset, place & M)
        return memory, [address + start for start in starts]

    def run(self, programs: Sequence[list[Insn]], values: Sequence[bytes]) -> list[Outcome]:
        """Return what each program leaves."""
        plan = self.memory.plan
        codes = [
            translate(p, "x86_64", features=self.features if n % 2 else frozenset(), plan=plan)
            for n, p in enumerate(programs)
        ]
        kept, starts = self.place(codes)
        found = []
        for start, value in zip(starts, values):
            ctypes.memmove(self.buffer, self.memory.begin(value), self.memory.owner_at + 8)
            result = _CALL(start)(0)
            found.append((result, self.buffer.raw[: self.memory.size]))
        del kept
        return found


_CALL = ctypes.CFUNCTYPE(ctypes.c_uint64, ctypes.c_uint64)


class Aarch64:
    """Machine code in one process of QEMU's for a batch, with and without LSE in turn."""

    def __init__(self, qemu: str) -> None:
        self.qemu = qemu
        self.memory = Memory()

    def run(self, programs: Sequence[list[Insn]], values: Sequence[bytes]) -> list[Outcome]:
        """Return what each program leaves."""
        memory = self.memory
        image = Image(memory.owner_at + 8, memory.offsets)
        for key, text in _OUTSIDE.items():
            image.add(translate(assemble(text), "aarch64"), memory.begin(bytes(VALUE_BYTES)))
            image.name(*key)
        for n, (insns, value) in enumerate(zip(programs, values)):
            features = frozenset(["lse"] if n % 2 else [])
            image.add(translate(insns, "aarch64", features=features, plan=memory.plan), memory.begin(value))
        with tempfile.TemporaryDirectory(prefix="sonde-") as folder:
            outcomes = image.run(self.qemu, Path(folder))[len(_OUTSIDE) :]
        return [(result, left[: memory.size]) for result, left in outcomes]


def kernel_program(insns: Sequence[Insn]) -> ProgramSpec:
    """The program of a generator for the kernel, as its engine takes it; load it with the maps KERNEL_MAPS."""
    names = {MAP_FD: IO.name, HASH_FD: HASH.name, ARRAY_FD: ARRAY.name}
    relocs, code = [], []
    for pc, insn in iter_pcs(insns):
        if insn.opcode == isa.LDDW and insn.src in (1, 2):
            relocs.append(Reloc(pc, "map" if insn.src == 1 else "map_value", names[insn.imm]))
            insn = Insn(isa.LDDW, insn.dst, insn.src)
        code.append(insn)
    return ProgramSpec("fuzz", "raw_tracepoint", encode(code), tuple(relocs))


KERNEL_MAPS = (IO, HASH, ARRAY)

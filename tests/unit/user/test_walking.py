"""The routine that walks stacks in the process, held against the one in Python: random tables, random stacks, in the interpreter, which reads nothing that is not there."""

from __future__ import annotations

import functools
import struct
from array import array
from itertools import accumulate

from hypothesis import given, settings
from hypothesis import strategies as st

from sonde.bpf.asm import assemble
from sonde.bpf.interp import Machine, Program
from sonde.debuginfo import cfa
from sonde.debuginfo.ehframe import Row, UnwindTable
from sonde.debuginfo.ptregs import get_ptregs
from sonde.debuginfo.unwinder import BY_FRAME_POINTER, walk
from sonde.errors import RunError
from sonde.user import frame, walking
from sonde.user.helpers import NUMBERS
from sonde.user.unwindtables import pack_table

REGISTERS = get_ptregs("x86_64")
assert REGISTERS is not None
CODE, WORDS = 0x10000, 200
USER_STACK = 256
M = (1 << 64) - 1

offsets = st.sampled_from([8, 16, 24, 32] * 6 + [0, -8, 12, 40, 80, 160, 1 << 30])
rows = st.builds(
    lambda kind, offset, add, fp, fp_offset: (
        kind << cfa.CFA_SHIFT | offset & 0xFFFFFFFF | add << cfa.ADD_SHIFT | fp << cfa.FP_SHIFT | (fp_offset & 0xFFFF) << cfa.FP_OFFSET_SHIFT
    ),
    st.sampled_from([cfa.SP] * 12 + [cfa.FP] * 2 + [*range(8), cfa.DEREF_SP, cfa.SIGNAL]),
    offsets,
    st.integers(0, 16),
    st.sampled_from([cfa.SAME, cfa.AT_CFA, cfa.AT_CFA, cfa.AT_FP, cfa.LOST]),
    st.sampled_from([-16, -8, -24, 0, 8, 40, -3]),
)  # fmt: skip
tables = st.lists(st.tuples(st.integers(1, 60), rows), min_size=1, max_size=9)


class Process:
    """Memory as the routine finds it: files of 0x200 bytes from CODE on, each with a table or without one; a stack."""

    def __init__(self, files: list[list[tuple[int, int]]], words: list[tuple[str, int]]) -> None:
        assert REGISTERS is not None
        self.machine = Machine({NUMBERS["check"]: self._check, NUMBERS["registers"]: lambda *_: self.registers})  # type: ignore[arg-type, return-value]
        memory = self.machine.memory
        place_of_index = bytearray(8)
        self.private = memory.add(place_of_index)
        pages = bytearray(8192)  # the words lie on both
        first = 4096 - 8 * 12
        self.stack = memory.add(pages) + first
        for at, (kind, value) in enumerate(words):
            number = {"code": CODE + value, "stack": self.stack + value, "other": value}[kind]
            struct.pack_into("<Q", pages, first + 8 * at, number & M)
        self.frame = bytearray(frame.REGS + 8 * len(REGISTERS.names))
        self.registers = memory.add(self.frame) + frame.REGS
        self.tables: list[UnwindTable | None] = []
        spans = b""
        for number, made in enumerate(files):
            start = CODE + 0x200 * number
            pcs = array("I", list(accumulate(step for step, _ in made)))
            table = UnwindTable(start + 8 * number, pcs, array("Q", [entry for _, entry in made])) if made else None
            self.tables.append(table)
            place = memory.add(bytearray(pack_table(table))) if table is not None else walking.BY_FRAME_POINTER
            spans += struct.pack("<4Q", start, start + 0x1F0, table.base if table is not None else 0, place)
        struct.pack_into("<Q", place_of_index, 0, memory.add(bytearray(struct.pack("<Q", len(files)) + spans)))

    def _check(self, machine: Machine, address: int, *_: int) -> int:
        try:
            machine.memory.view(address & -8, 8)
        except RunError:
            return 1
        return 0

    def find(self, pc: int) -> Row:
        number, rest = divmod(pc - CODE, 0x200)
        if not 0 <= number < len(self.tables) or rest >= 0x1F0:
            return BY_FRAME_POINTER
        table = self.tables[number]
        return table.find(pc) if table is not None else BY_FRAME_POINTER

    def read(self, address: int) -> int | None:
        if address & 7 or not 0 <= address <= M or self._check(self.machine, address):
            return None
        return int.from_bytes(self.machine.memory.read(address, 8), "little")

    def take(self, pc: int, sp: int, fp: int, kind: int, most: int, skip: int) -> list[int]:
        """What the routine finds."""
        assert REGISTERS is not None
        for name, value in ((REGISTERS.ip, pc), (REGISTERS.sp, sp), (REGISTERS.fp, fp)):
            struct.pack_into("<Q", self.frame, frame.REGS + REGISTERS.get_offset(name), value)
        struct.pack_into("<Q", self.frame, frame.KIND, kind)
        memory = self.machine.memory
        buffer = memory.add(bytearray(8 * most))
        arguments = memory.add(bytearray(struct.pack("<3Q", buffer, 8 * most, USER_STACK | skip)))
        size = self.machine.run(routine(self.private), arguments)
        return list(struct.unpack(f"<{size // 8}Q", memory.read(buffer, size)))


@functools.cache
def routine(private: int) -> Program:
    """The routine; its arguments come by way of memory."""
    assert REGISTERS is not None
    arguments = [f"r{number} = *(u64 *)(r1 +{at})" for number, at in ((2, 0), (3, 8), (4, 16))]
    return Program(assemble("\n".join([*arguments, *walking.walk(REGISTERS, (private - frame.UNWIND) & M)])))


words = st.one_of(
    st.tuples(st.just("code"), st.integers(-40, 0x640)),
    *[st.tuples(st.just("code"), st.integers(40, 0x3EF))] * 6,
    st.tuples(st.just("stack"), st.integers(-2, WORDS + 2).map(lambda at: 8 * at)),
    st.tuples(st.just("other"), st.sampled_from([0, 1, M, 1 << 63, 4096])),
)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.one_of(tables, st.just([])), min_size=1, max_size=3),
    st.lists(words, min_size=60, max_size=WORDS),
    st.integers(-8, 0x420),
    st.tuples(st.integers(0, 40), st.integers(0, 60)),
    st.sampled_from([frame.INSIDE, frame.RETURN, frame.ENTRY]),
    st.sampled_from([40, 40, 3, 1]),
    st.sampled_from([0, 0, 0, 0, 1, 3]),
)  # fmt: skip
def test_both_walk_the_same_way(
    files: list[list[tuple[int, int]]],
    content: list[tuple[str, int]],
    pc: int,
    registers: tuple[int, int],
    kind: int,
    most: int,
    skip: int,
) -> None:
    process = Process(files, content)
    pc, sp, fp = CODE + pc, process.stack + 8 * registers[0], process.stack + 8 * registers[1]
    taken = process.take(pc, sp, fp, kind, most, skip)
    first = [Row(cfa.SP, 8, 0, cfa.SAME, 0)] if kind == frame.ENTRY else []
    find = lambda address: first.pop() if first else process.find(address)  # noqa: E731
    assert taken == walk(find, process.read, pc, sp, fp, most + skip)[skip:]

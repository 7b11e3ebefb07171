"""Maps in shared memory, used by machine code of our JIT, beside the kernel's maps and JIT: nanoseconds an operation, medians.

A program does one thing to a map of 1,000 entries, 100 keys in turn, 20 times a run; an empty loop is taken off both sides. `python bench/maps.py [ROUNDS [TYPE …]]`, as root.
"""

from __future__ import annotations

import ctypes
import statistics
import struct
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from sonde.bpf import isa
from sonde.bpf.asm import assemble
from sonde.bpf.isa import LDDW, Insn
from sonde.bpf.jit import translate
from sonde.bpf.jit.here import Placed, find_rseq
from sonde.bpf.jit.maps import BY_ADDRESS, BY_RSEQ, make_plan
from sonde.bpf.maps import MapShape, create
from sonde.kernel import abi, syscall
from sonde.kernel.cpus import possible_cpus
from sonde.kernel.engine import KernelEngine
from sonde.kernel.programs import PROG_TEST_RUN
from sonde.spec.object import MapSpec, ObjectSpec, ProgramSpec, Reloc

RUNS, TIMES, KEYS, ENTRIES, RING_BYTES = 500, 20, 100, 1000, 1 << 20

LOOP = """
    r9 = {times}
    r8 = 0
    again: *(u64 *)(r10 -8) = r8
    {body}
    r8 += 1
    if r8 < {keys} goto next
    r8 = 0
    next: r9 += -1
    if r9 != 0x0 goto again
    r0 = 0
    exit
"""
KEY = "r1 = map[fd:1]\nr2 = r10\nr2 += -8\n"
LOOKUP = KEY + "call 1\nif r0 == 0x0 goto next\nr1 = 1\n"
UPDATE = KEY + "r3 = r10\nr3 += -8\nr4 = 0\ncall 2"
PREFIX = "*(u32 *)(r10 -16) = 32\n*(u32 *)(r10 -12) = r8\nr1 = map[fd:1]\nr2 = r10\nr2 += -16\ncall 1\nif r0 == 0x0 goto next"
RECORD = """
    r1 = map[fd:1]
    r2 = 32
    r3 = 0
    call ringbuf_reserve
    if r0 == 0x0 goto next
    *(u64 *)(r0 +0) = r8
    *(u64 *)(r0 +8) = r9
    *(u64 *)(r0 +16) = r8
    *(u64 *)(r0 +24) = r9
    r1 = r0
    r2 = 1
    call ringbuf_submit
"""
BODIES = {
    "nothing": "",
    "look up, add 1": LOOKUP + "r2 = *(u64 *)(r0 +0)\nr2 += r1\n*(u64 *)(r0 +0) = r2",
    "look up, add 1 atomically": LOOKUP + "lock *(u64 *)(r0 +0) += r1",
    "update": UPDATE,
    "update, delete": UPDATE + "\n" + KEY + "call 3",
    "look up a prefix": PREFIX,
    "push, pop": KEY + "r3 = 0\ncall 87\n" + KEY + "call 88",
    "push, peek": KEY + "r3 = 0\ncall 87\n" + KEY + "call 89",
    "record of 32 bytes": RECORD,
}
CASES = [
    ("array", 4, "look up, add 1", {}),
    ("percpu_array", 4, "look up, add 1", {}),
    ("hash", 8, "look up, add 1 atomically", {}),
    ("percpu_hash", 8, "look up, add 1", {}),
    ("lru_hash", 8, "look up, add 1 atomically", {}),
    ("array", 4, "update", {}),
    ("hash", 8, "update", {}),
    ("hash", 8, "update, delete", {}),
    ("percpu_hash", 8, "update", {}),
    ("lru_hash", 8, "update", {}),
    ("lpm_trie", 8, "look up a prefix", {"flags": 1}),
    ("queue", 0, "push, pop", {}),
    ("stack", 0, "push, pop", {}),
    ("bloom_filter", 0, "push, peek", {}),
    ("ringbuf", 0, "record of 32 bytes", {"value_size": 0, "max_entries": RING_BYTES}),
]


def sizes(kind: str, key_size: int, other: dict[str, int]) -> dict[str, int]:
    """The sizes of a map of one of the cases."""
    return {"key_size": key_size, "value_size": 8, "max_entries": ENTRIES, "flags": 0, **other}


def code(body: str) -> list[Insn]:
    """The program around a body."""
    return assemble(LOOP.format(times=TIMES, keys=KEYS, body=BODIES[body]))


class InKernel:
    """The program in the kernel."""

    def __init__(self, kind: str, key_size: int, body: str, other: dict[str, int]) -> None:
        spec = MapSpec("m", kind, **sizes(kind, key_size, other))
        insns, relocs, pc = [], [], 0
        for insn in code(body):
            if insn.opcode == LDDW:
                relocs.append(Reloc(pc, "map", "m"))
                insn = Insn(LDDW, insn.dst, isa.BPF_PSEUDO_MAP_FD)
            insns.append(insn)
            pc += insn.slots
        program = ProgramSpec("bench", "socket_filter", isa.encode(insns), tuple(relocs))
        self.object = KernelEngine().load(ObjectSpec((program,), (spec,), ringbuf="m"))
        fill(self.object.maps["m"], kind, key_size)
        self.reader = self.object.reader() if kind == "ringbuf" and body != "nothing" else None
        self.packet = ctypes.create_string_buffer(64)

    def run(self) -> float:
        """Nanoseconds for one of the TIMES."""
        fd, place = self.object.programs["bench"].fd_as(), ctypes.addressof(self.packet)
        attr = bytearray(PROG_TEST_RUN.pack(fd, 0, 64, 0, place, 0, RUNS, 0, 0, 0, 0, 0, 0, 0, 0))
        result = syscall.bpf(abi.BPF_PROG_TEST_RUN, attr)
        if result < 0:
            raise OSError(-result, "BPF_PROG_TEST_RUN")
        if self.reader is not None:
            self.reader.drain(lambda data, at, size: None)
        return float(struct.unpack_from("<I", attr, 36)[0]) / TIMES


class Here:
    """The program in this process, called from a loop of machine code; nothing in it leaves machine code. The CPU's number comes by rseq, as in the user engine."""

    def __init__(self, kind: str, key_size: int, body: str, other: dict[str, int]) -> None:
        self.table = create(MapShape(kind, cpus=possible_cpus(), **sizes(kind, key_size, other)), shared=True)
        fill(self.table, kind, key_size)
        self.reader = self.table.reader() if kind == "ringbuf" else None  # type: ignore[attr-defined]
        self.cpu, self.owner, rseq = ctypes.c_uint32(0), ctypes.c_uint32(1), find_rseq()
        made = translate(
            code(body), "x86_64", plan=make_plan({1: self.table}, cpu=BY_ADDRESS if rseq is None else BY_RSEQ)
        )
        places = {"cpu": ctypes.addressof(self.cpu), "owner": ctypes.addressof(self.owner), "rseq": rseq}
        self.program = Placed(made, maps={1: self.table.region.address}, **places)
        loop = assemble(f"r6 = {RUNS}\nagain: call 1\nr6 += -1\nif r6 != 0x0 goto again\nexit")
        self.loop = Placed(translate(loop, "x86_64"), helpers={1: self.program.address})

    def run(self) -> float:
        """As InKernel.run."""
        start = time.thread_time_ns()
        self.loop.run()
        took = time.thread_time_ns() - start
        if self.reader is not None:
            self.reader.drain(lambda data, at, size: None)
        return took / RUNS / TIMES


def fill(table: object, kind: str, key_size: int) -> None:
    """Put half of the entries in, where there are keys."""
    for number in range(ENTRIES // 2 if key_size else 0):
        key = (
            number.to_bytes(key_size, "little")
            if kind != "lpm_trie"
            else (32 - number % 8).to_bytes(4, "little") + number.to_bytes(4, "little")
        )
        table.update(key, bytes(8))  # type: ignore[attr-defined]


def main() -> None:
    """Print the table."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 41
    print("| map | operation | kernel, ns | sonde, ns | ratio |\n|---|---|--:|--:|--:|")
    only = sys.argv[2:]
    for kind, key_size, body, other in CASES:
        if only and kind not in only:
            continue
        sides = [(InKernel(kind, key_size, b, other), Here(kind, key_size, b, other)) for b in (body, "nothing")]
        rows = [[side.run() for pair in sides for side in pair] for _ in range(rounds)]
        theirs, ours, their_base, our_base = (statistics.median(row[i] for row in rows) for i in range(4))
        theirs, ours = theirs - their_base, ours - our_base
        print(f"| {kind} | {body} | {theirs:.1f} | {ours:.1f} | {ours / theirs:.2f} |", flush=True)
        for kernel, _ in sides:
            kernel.object.close()


if __name__ == "__main__":
    main()

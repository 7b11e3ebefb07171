"""Maps in shared memory, used by machine code of our JIT, beside the kernel's maps and JIT: nanoseconds an operation, medians.

A program does one thing to a map of 1,000 entries, 100 keys in turn, 20 times a run; an empty loop is taken off both sides. `python bench/maps.py [ROUNDS]`, as root.
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
from sonde.bpf.jit.here import Placed
from sonde.bpf.jit.maps import layout_of, make_plan
from sonde.bpf.maps import MapShape, create
from sonde.bpf.maps.routines import hash_routine
from sonde.kernel import abi, syscall
from sonde.kernel.cpus import possible_cpus
from sonde.kernel.engine import KernelEngine
from sonde.kernel.programs import PROG_TEST_RUN
from sonde.spec.object import MapSpec, ObjectSpec, ProgramSpec, Reloc

RUNS, TIMES, KEYS, ENTRIES = 500, 20, 100, 1000

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
LOOKUP = "r1 = map[fd:1]\nr2 = r10\nr2 += -8\ncall 1\nif r0 == 0x0 goto next\nr1 = 1\n"
BODIES = {
    "nothing": "",
    "look up, add 1": LOOKUP + "r2 = *(u64 *)(r0 +0)\nr2 += r1\n*(u64 *)(r0 +0) = r2",
    "look up, add 1 atomically": LOOKUP + "lock *(u64 *)(r0 +0) += r1",
    "update": "r1 = map[fd:1]\nr2 = r10\nr2 += -8\nr3 = r10\nr3 += -8\nr4 = 0\n{who}call 2",
}
CASES = [
    ("array", 4, "look up, add 1"),
    ("percpu_array", 4, "look up, add 1"),
    ("hash", 8, "look up, add 1 atomically"),
    ("percpu_hash", 8, "look up, add 1"),
    ("hash", 8, "update"),
    ("percpu_hash", 8, "update"),
]


def code(body: str, who: str = "") -> list[Insn]:
    """The program around a body."""
    return assemble(LOOP.format(times=TIMES, keys=KEYS, body=BODIES[body].format(who=who)))


class InKernel:
    """The program in the kernel."""

    def __init__(self, kind: str, key_size: int, body: str) -> None:
        spec = MapSpec("m", kind, key_size, 8, ENTRIES)
        insns, relocs, pc = [], [], 0
        for insn in code(body):
            if insn.opcode == LDDW:
                relocs.append(Reloc(pc, "map", "m"))
                insn = Insn(LDDW, insn.dst, isa.BPF_PSEUDO_MAP_FD)
            insns.append(insn)
            pc += insn.slots
        program = ProgramSpec("bench", "socket_filter", isa.encode(insns), tuple(relocs))
        self.object = KernelEngine().load(ObjectSpec((program,), (spec,)))
        fill(self.object.maps["m"], key_size)
        self.packet = ctypes.create_string_buffer(64)

    def run(self) -> float:
        """Nanoseconds for one of the TIMES."""
        fd, place = self.object.programs["bench"].fd_as(), ctypes.addressof(self.packet)
        attr = bytearray(PROG_TEST_RUN.pack(fd, 0, 64, 0, place, 0, RUNS, 0, 0, 0, 0, 0, 0, 0, 0))
        result = syscall.bpf(abi.BPF_PROG_TEST_RUN, attr)
        if result < 0:
            raise OSError(-result, "BPF_PROG_TEST_RUN")
        return float(struct.unpack_from("<I", attr, 36)[0]) / TIMES


class Here:
    """The program in this process, called from a loop of machine code; updates go to the routine."""

    def __init__(self, kind: str, key_size: int, body: str) -> None:
        self.table = create(MapShape(kind, key_size, 8, ENTRIES, cpus=possible_cpus()), shared=True)
        fill(self.table, key_size)
        self.cpu = ctypes.c_uint32(0)
        helpers = {}
        layout = layout_of(self.table)
        if body == "update" and layout is not None:
            self.update = Placed(translate(hash_routine(layout, "update", ENTRIES, weak=False), "x86_64"))
            helpers[2] = self.update.address
        insns = code(body, "r5 = 1\n")
        made = translate(insns, "x86_64", plan=make_plan({1: self.table}))
        place = ctypes.addressof(self.cpu)
        self.program = Placed(made, helpers=helpers, maps={1: self.table.region.address}, cpu=place)
        loop = assemble(f"r6 = {RUNS}\nagain: call 1\nr6 += -1\nif r6 != 0x0 goto again\nexit")
        self.loop = Placed(translate(loop, "x86_64"), helpers={1: self.program.address})

    def run(self) -> float:
        """As InKernel.run."""
        start = time.perf_counter_ns()
        self.loop.run()
        return (time.perf_counter_ns() - start) / RUNS / TIMES


def fill(table: object, key_size: int) -> None:
    """Put half of the entries in."""
    for number in range(ENTRIES // 2):
        table.update(number.to_bytes(key_size, "little"), bytes(8))  # type: ignore[attr-defined]


def main() -> None:
    """Print the table."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 41
    print("| map | operation | kernel, ns | sonde, ns | ratio |\n|---|---|--:|--:|--:|")
    for kind, key_size, body in CASES:
        sides = [(InKernel(kind, key_size, b), Here(kind, key_size, b)) for b in (body, "nothing")]
        rows = [[side.run() for pair in sides for side in pair] for _ in range(rounds)]
        theirs, ours, their_base, our_base = (statistics.median(row[i] for row in rows) for i in range(4))
        theirs, ours = theirs - their_base, ours - our_base
        print(f"| {kind} | {body} | {theirs:.1f} | {ours:.1f} | {ours / theirs:.2f} |", flush=True)
        for kernel, _ in sides:
            kernel.object.close()


if __name__ == "__main__":
    main()

"""Machine code from our JIT beside the kernel's, on the same byte code: nanoseconds a run, medians, and what translating costs.

Four kernels over 4 KiB in the value of an array map. The kernel runs them by BPF_PROG_TEST_RUN as a socket filter, 2,000 times a call; here they are called
in a loop of machine code as often. `python bench/jit.py [ROUNDS]`, as root.
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
from sonde.bpf.interp import Machine, Program
from sonde.bpf.isa import Insn
from sonde.bpf.jit import translate
from sonde.bpf.jit.here import Placed, cpu_features
from sonde.kernel import abi, syscall
from sonde.kernel.engine import KernelEngine
from sonde.kernel.programs import PROG_TEST_RUN
from sonde.spec.object import MapSpec, ObjectSpec, ProgramSpec, Reloc

DATA_BYTES, REPEAT = 4096, 2000
DATA = MapSpec("data", "array", 4, DATA_BYTES, 1)

KERNELS = {
    "primes below 60 (64-bit remainders)": """
        r6 = 2
        r0 = 0
        next: r7 = 2
        try: r8 = r7
        r8 *= r7
        if r8 > r6 goto prime
        r8 = r6
        r8 %= r7
        if r8 == 0x0 goto not
        r7 += 1
        goto try
        prime: r0 += 1
        not: r6 += 1
        if r6 < 0x3c goto next
        exit
    """,
    "checksum of 512 words of 8 bytes": """
        r0 = 0
        r6 = 0
        next: r7 = r1
        r7 += r6
        r8 = *(u64 *)(r7 +0)
        r0 += r8
        if r0 >= r8 goto carried
        r0 += 1
        carried: r6 += 8
        if r6 < 0x1000 goto next
        exit
    """,
    "FNV hash of 1,024 bytes": """
        r0 = 0xcbf29ce484222325 ll
        r9 = 0x100000001b3 ll
        r6 = 0
        next: r7 = r1
        r7 += r6
        r8 = *(u8 *)(r7 +0)
        r0 ^= r8
        r0 *= r9
        r6 += 1
        if r6 < 0x400 goto next
        exit
    """,
    "branches on a random sequence": """
        r0 = 0
        r6 = 0
        r7 = 12345
        next: w7 *= 1103515245
        w7 += 12345
        if r7 & 0x10000 goto odd
        r0 += 3
        goto on
        odd: r0 ^= r7
        if r7 & 0x40000 goto on
        r0 -= 1
        on: r6 += 1
        if r6 < 0x300 goto next
        exit
    """,
}


def with_map(text: str, fd: int) -> list[Insn]:
    """The code, with the address of the data in r1."""
    return [Insn(isa.LDDW, 1, isa.BPF_PSEUDO_MAP_VALUE, imm=fd), *assemble(text)]


class InKernel:
    """A program in the kernel."""

    def __init__(self, text: str, data: bytes) -> None:
        spec = ProgramSpec("bench", "socket_filter", isa.encode(with_map(text, 0)), (Reloc(0, "map_value", "data"),))
        self.object = KernelEngine().load(ObjectSpec((spec,), (DATA,)))
        self.object.maps["data"].update(bytes(4), data)
        self.packet = ctypes.create_string_buffer(64)

    def run(self) -> tuple[float, int]:
        """Run it REPEAT times; return nanoseconds a run as the kernel counts them, and the low half of the result."""
        fd = self.object.programs["bench"].fd_as()
        attr = bytearray(
            PROG_TEST_RUN.pack(fd, 0, 64, 0, ctypes.addressof(self.packet), 0, REPEAT, 0, 0, 0, 0, 0, 0, 0, 0)
        )
        result = syscall.bpf(abi.BPF_PROG_TEST_RUN, attr)
        if result < 0:
            raise OSError(-result, "BPF_PROG_TEST_RUN")
        value, duration_ns = struct.unpack_from("<I", attr, 4)[0], struct.unpack_from("<I", attr, 36)[0]
        return float(duration_ns), value

    def close(self) -> None:
        """Unload it."""
        self.object.close()


LOOP = """
    r6 = {repeat}
    again: call 1
    r6 += -1
    if r6 != 0x0 goto again
    exit
"""


class Here:
    """A program in this process, called from a loop of machine code."""

    def __init__(self, text: str, data: bytes) -> None:
        self.buffer = ctypes.create_string_buffer(data, DATA_BYTES)
        insns = with_map(text, 1)
        self.program = Placed(
            translate(insns, "x86_64", features=cpu_features()), values={1: ctypes.addressof(self.buffer)}
        )
        loop = translate(assemble(LOOP.format(repeat=REPEAT)), "x86_64")
        self.loop = Placed(loop, helpers={1: self.program.address})

    def run(self) -> tuple[float, int]:
        """As InKernel.run."""
        start = time.thread_time_ns()
        value = self.loop.run()
        return (time.thread_time_ns() - start) / REPEAT, value & 0xFFFFFFFF

    def close(self) -> None:
        """Free it."""
        self.loop.close()
        self.program.close()


def interpreted_ns(text: str, data: bytes) -> float:
    """Nanoseconds an instruction in the interpreter."""

    class Table:
        address = 0

        def value_address(self, index: int) -> int:
            return self.address

    table = Table()
    machine = Machine(maps={1: table})
    table.address = machine.memory.add(bytearray(data))
    program = Program(with_map(text, 1))
    start = time.thread_time_ns()
    machine.run(program, steps=10**7)
    return (time.thread_time_ns() - start) / (10**7 - machine.left)


def translate_us(text: str) -> float:
    """Microseconds an instruction that translating takes, without what is remembered."""
    from sonde.bpf import jit
    from sonde.bpf.jit import x86_64

    insns = with_map(text, 1)
    times = []
    for _ in range(20):
        x86_64._remembered[0].clear()
        jit._kept.clear()
        start = time.thread_time_ns()
        translate(insns, "x86_64")
        times.append((time.thread_time_ns() - start) / len(insns) / 1000)
    return statistics.median(times)


def main() -> None:
    """Print the table."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 21
    data = bytes((i * 7 + i // 13) & 0xFF for i in range(DATA_BYTES))
    print(
        "| | kernel's JIT, ns | sonde's JIT, ns | ratio | interpreter, ns an instruction | translating, µs an instruction |"
    )
    print("|---|--:|--:|--:|--:|--:|")
    for name, text in KERNELS.items():
        kernel, here = InKernel(text, data), Here(text, data)
        pairs = [(kernel.run(), here.run()) for _ in range(rounds)]
        assert all(a[1] == b[1] for a, b in pairs), name
        theirs, ours = (statistics.median(p[i][0] for p in pairs) for i in (0, 1))
        ratio = statistics.median(b[0] / a[0] for a, b in pairs)
        rest = f"{interpreted_ns(text, data):.1f} | {translate_us(text):.1f}"
        print(f"| {name} | {theirs:.0f} | {ours:.0f} | {ratio:.2f} | {rest} |")
        kernel.close()
        here.close()


if __name__ == "__main__":
    main()

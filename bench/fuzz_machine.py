"""Random programs on every machine that can run them: interpreter, machine code of both JITs, the kernel. They must leave the same bytes.

`python bench/fuzz_machine.py [COUNT [FIRST_SEED]]`; what is missing here (privileges, another CPU without QEMU) is said and left out. A
difference ends the run with status 1 and its seed.
"""

from __future__ import annotations

import ctypes
import platform
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from a64_runner import Image, find_qemu
from bpf_programs import IO, MAP_FD, VALUE_BYTES, ArrayOfOne, ProgramGenerator, kernel_program, random_input

from sonde.bpf.interp import Program
from sonde.bpf.isa import Insn
from sonde.bpf.jit import translate
from sonde.bpf.jit.here import Placed, cpu_features
from sonde.errors import SondeError, VerifierError

BATCH = 500
Runner = Callable[[list[list[Insn]], list[bytes]], "list[bytes | None]"]


def interpreter(programs: list[list[Insn]], values: list[bytes]) -> list[bytes | None]:
    """The reference."""
    found: list[bytes | None] = []
    for insns, value in zip(programs, values):
        memory = bytearray(value)
        ArrayOfOne.interpret(Program(insns), memory)
        found.append(bytes(memory))
    return found


def x86_64(programs: list[list[Insn]], values: list[bytes]) -> list[bytes | None]:
    """Machine code in this process, with and without the CPU's extensions in turn."""
    found: list[bytes | None] = []
    buffer = ctypes.create_string_buffer(VALUE_BYTES)
    for number, (insns, value) in enumerate(zip(programs, values)):
        code = translate(insns, "x86_64", features=cpu_features() if number % 2 else frozenset())
        ctypes.memmove(buffer, value, VALUE_BYTES)
        with Placed(code, values={MAP_FD: ctypes.addressof(buffer)}) as placed:
            placed.run()
        found.append(buffer.raw)
    return found


def aarch64(programs: list[list[Insn]], values: list[bytes]) -> list[bytes | None]:
    """Machine code in QEMU's user mode, with and without LSE in turn."""
    qemu = find_qemu()
    assert qemu is not None
    image = Image(VALUE_BYTES)
    for number, (insns, value) in enumerate(zip(programs, values)):
        image.add(translate(insns, "aarch64", features=frozenset(["lse"] if number % 2 else [])), value)
    with tempfile.TemporaryDirectory(prefix="sonde-") as folder:
        return [memory for _, memory in image.run(qemu, Path(folder))]


def kernel(programs: list[list[Insn]], values: list[bytes]) -> list[bytes | None]:
    """The running kernel; None for programs with more paths than its verifier follows."""
    from sonde.kernel.engine import KernelEngine
    from sonde.spec.object import ObjectSpec

    found: list[bytes | None] = []
    for insns, value in zip(programs, values):
        try:
            loaded = KernelEngine().load(ObjectSpec((kernel_program(insns),), (IO,)))
        except VerifierError as error:
            if "too large" not in error.log and "too complex" not in error.log:
                raise
            found.append(None)
            continue
        with loaded:
            loaded.maps["io"].update(bytes(4), value)
            loaded.run("fuzz")
            found += loaded.maps["io"].lookup(bytes(4)) or [None]
    return found


def runners() -> dict[str, Runner]:
    """What can run here."""
    found: dict[str, Runner] = {}
    if platform.machine() == "x86_64":
        found["x86-64"] = x86_64
    else:
        print(f"left out: x86-64 machine code; this machine is {platform.machine()}")
    if find_qemu():
        found["aarch64"] = aarch64
    else:
        print("left out: aarch64 machine code; there is no qemu-aarch64")
    try:
        kernel([ProgramGenerator(0, 5).make()], [bytes(VALUE_BYTES)])
        found["kernel"] = kernel
    except SondeError as error:
        print(f"left out: the kernel; {error}")
    return found


def main() -> int:
    """Run them."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    first = int(sys.argv[2]) if len(sys.argv) > 2 else 0
    machines = runners()
    for start in range(first, first + count, BATCH):
        seeds = range(start, min(start + BATCH, first + count))
        programs = [ProgramGenerator(seed, 10 + seed % 90, acquire=True).make() for seed in seeds]
        values = [bytes(random_input(seed)) for seed in seeds]
        expected = interpreter(programs, values)
        for name, run in machines.items():
            for seed, want, got in zip(seeds, expected, run(programs, values)):
                if got is not None and got != want:
                    print(f"{name} differs from the interpreter: seed {seed}")
                    return 1
    print(f"{count} programs, no difference between the interpreter and: {', '.join(machines)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

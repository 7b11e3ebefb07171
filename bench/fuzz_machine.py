"""Random programs on every machine that can run them: interpreter, machine code of both JITs, the kernel. They must leave the same bytes.

`python bench/fuzz_machine.py [COUNT [FIRST_SEED]]`: programs with every operation of the instruction set that has a meaning without a kernel, helpers, maps,
local functions, tail calls and packets (`tests/machine_programs.py`). The kernel gets one program of its own kind for every KERNEL_SHARE of these. What is missing
here (privileges, another CPU without QEMU) is said and left out. A difference ends the run with status 1 and its seed; so does an operation that no program had.
"""

from __future__ import annotations

import platform
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from a64_runner import find_qemu
from bpf_programs import VALUE_BYTES, random_input
from machine_programs import (
    FILLED,
    KERNEL_MAPS,
    X86,
    Aarch64,
    Interpreter,
    Outcome,
    WholeGenerator,
    count_forms,
    kernel_program,
    make_programs,
    missing_forms,
)

from sonde.bpf.isa import Insn, iter_ops
from sonde.bpf.jit.here import cpu_features
from sonde.errors import SondeError, VerifierError

BATCH = 500
KERNEL_SHARE = 250
REPORT = 20_000
Runner = Callable[[Sequence[list[Insn]], Sequence[bytes]], "list[Outcome]"]


def kernel_value(seed: int) -> bytes | None:
    """What a program leaves in the value of `io` in the running kernel; None when it has more paths than its verifier follows."""
    from sonde.kernel.engine import KernelEngine
    from sonde.spec.object import ObjectSpec

    insns = WholeGenerator(seed, 10 + seed % 60, kernel=True).make()
    try:
        loaded = KernelEngine().load(ObjectSpec((kernel_program(insns),), KERNEL_MAPS))
    except VerifierError as error:
        if "too large" not in error.log and "too complex" not in error.log:
            raise
        return None
    with loaded:
        loaded.maps["io"].update(bytes(4), bytes(random_input(seed)))
        for key in FILLED:
            loaded.maps["h"].update(key, key + key)
        loaded.run("fuzz")
        return (loaded.maps["io"].lookup(bytes(4)) or [b""])[0]


def compare_with_kernel(interpreter: Interpreter, seeds: range) -> int:
    """Run programs of the kernel's kind on both sides; return how many the kernel took. Raises AssertionError for a difference."""
    taken = 0
    for seed in seeds:
        got = kernel_value(seed)
        if got is not None:
            insns = WholeGenerator(seed, 10 + seed % 60, kernel=True).make()
            want = interpreter.run([insns], [bytes(random_input(seed))])[0][1][:VALUE_BYTES]
            assert got == want, f"the kernel differs from the interpreter: seed {seed}"
            taken += 1
    return taken


def runners() -> dict[str, Runner]:
    """What can run here."""
    found: dict[str, Runner] = {}
    if platform.machine() == "x86_64":
        found["x86-64"] = X86(cpu_features()).run
    else:
        print(f"left out: x86-64 machine code; this machine is {platform.machine()}")
    qemu = find_qemu()
    if qemu:
        found["aarch64"] = Aarch64(qemu).run
    else:
        print("left out: aarch64 machine code; there is no qemu-aarch64")
    return found


def have_kernel() -> bool:
    """Whether the kernel takes programs from us."""
    try:
        kernel_value(0)
    except SondeError as error:
        print(f"left out: the kernel; {error}")
        return False
    return True


def main() -> int:
    """Run them."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    first = int(sys.argv[2]) if len(sys.argv) > 2 else 0
    machines, interpreter, forms, in_kernel = runners(), Interpreter(), Counter[str](), have_kernel()
    taken, insns_run, began = 0, 0, time.process_time()
    for start in range(first, first + count, BATCH):
        seeds = range(start, min(start + BATCH, first + count))
        programs, values = make_programs(seeds), [bytes(random_input(seed)) for seed in seeds]
        count_forms(programs, forms)
        insns_run += sum(map(len, programs))
        expected = interpreter.run(programs, values)
        for name, run in machines.items():
            for seed, want, got in zip(seeds, expected, run(programs, values)):
                if got != want:
                    print(f"{name} differs from the interpreter: seed {seed}")
                    return 1
        if in_kernel:
            taken += compare_with_kernel(interpreter, range(start, seeds[-1] + 1, KERNEL_SHARE))
        if (seeds[-1] + 1 - first) % REPORT == 0:
            print(
                f"{seeds[-1] + 1 - first} programs, {time.process_time() - began:.0f} s of CPU",
                file=sys.stderr,
                flush=True,
            )
    lacking = missing_forms(forms)
    print(
        f"{count} programs of {insns_run / count:.0f} instructions, no difference between the interpreter and: {', '.join(machines)}"
    )
    if in_kernel:
        print(f"{taken} programs more, no difference between the interpreter and the running kernel")
    rarest = min(forms.items(), key=lambda pair: pair[1])
    print(
        f"{len(forms)} of the {len(list(iter_ops()))} operations; the rarest is {rarest[0]}, {rarest[1]} times; missing: {', '.join(lacking) or 'none'}"
    )
    return 1 if lacking else 0


if __name__ == "__main__":
    sys.exit(main())

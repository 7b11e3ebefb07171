"""Random programs that aim at the verifier: each that it accepts is run in the interpreter, with bounds checks, on hostile inputs.

`python bench/fuzz_verifier.py [COUNT [FIRST_SEED]]`. A fault, a record still held, a run without end, or a register with a value that the
verifier had excluded there is printed with the seed; the status is 1 then.

`python bench/fuzz_verifier.py --kernel [COUNT [FIRST_SEED]]`, as root, asks the running kernel's verifier as well: how many of those that it accepts are
accepted here, and why either refuses what the other accepts, each reason with its number and a seed.
"""

from __future__ import annotations

import re
import sys
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from bpf_hostile_programs import HostileGenerator
from bpf_hostile_runs import MAPS, Seen, judge, program_of, run
from bpf_pointer_programs import make_program

from sonde.bpf.asm import assemble
from sonde.bpf.isa import LDDW, Insn, encode
from sonde.bpf.verifier import verify
from sonde.errors import FormatError, SondeError, VerifierError
from sonde.kernel.engine import KernelEngine
from sonde.spec.object import MapSpec, ObjectSpec, ProgramSpec, Reloc

INPUTS = 3
MAX_INSNS = 6_000
REPORT_S = 60


def make(seed: int) -> tuple[str, list[Insn]]:
    """The program of a seed, and its type: three in four are hostile ones, half of them with packets."""
    kind = "xdp" if seed % 2 else "raw_tracepoint"
    if seed % 4 == 0:
        return "raw_tracepoint", make_program(seed)
    return kind, assemble(HostileGenerator(seed, kind).make())


def check(seed: int, counts: Counter[str]) -> str:
    """Judge and run one program. Returns what shows a fault of the verifier, or ""."""
    kind, insns = make(seed)
    seen = Seen()
    counts["programs"] += 1
    try:
        safe = judge(insns, kind, seen, MAX_INSNS, eager=0 if seed % 3 == 0 else MAX_INSNS)
    except FormatError:
        counts["without form"] += 1
        return ""
    if not safe:
        counts["refused"] += 1
        return ""
    counts["accepted"] += 1
    program = program_of(insns, kind)
    for number in range(INPUTS):
        counts["runs"] += 1
        found = run(program, kind, seed * INPUTS + number, seen)
        if found:
            return f"seed {seed}, input {number}: accepted, but {found}"
    return ""


def as_kernel_takes_it(insns: list[Insn]) -> ObjectSpec:
    """A program of the type raw_tracepoint with its maps."""
    names = {number: table.name for number, table in MAPS.items()}
    relocs, code, pc = [], [], 0
    for insn in insns:
        if insn.opcode == LDDW and insn.src in (1, 2):
            kind, number, at = ("map", "map_value")[insn.src - 1], insn.imm & 0xFFFFFFFF, insn.imm >> 32
            relocs.append(Reloc(pc, kind, names[number], at))
            insn = Insn(LDDW, insn.dst, insn.src)
        code.append(insn)
        pc += insn.slots
    inner = MapSpec("inner", "array", 4, 32, 2)
    maps = tuple(
        MapSpec(
            t.name, t.kind, t.key_size, t.value_size, t.max_entries, inner=inner if t.kind == "array_of_maps" else None
        )
        for t in MAPS.values()
    )
    return ObjectSpec((ProgramSpec("fuzz", "raw_tracepoint", encode(code), tuple(relocs)),), maps)


def kernel_refusal(insns: list[Insn]) -> str:
    """Why the running kernel refuses a program, without its numbers; "" when it takes it."""
    try:
        KernelEngine().load(as_kernel_takes_it(insns)).close()
    except VerifierError as error:
        lines = [
            line
            for line in error.log.splitlines()
            if not line.startswith(("processed", "verification time", "stack depth", "mark_precise"))
        ]
        return re.sub(r"-?\b0x[0-9a-f]+|-?\d+", "N", lines[-1] if lines else str(error))
    except SondeError as error:
        return str(error).splitlines()[0]
    return ""


def beside_kernel(seeds: range) -> int:
    """Both verdicts on each program; prints where they differ."""
    counts: Counter[str] = Counter()
    reasons: dict[str, Counter[str]] = {"accepted here only": Counter(), "accepted by the kernel only": Counter()}
    examples: dict[tuple[str, str], int] = {}
    for seed in seeds:
        insns = assemble(HostileGenerator(seed, "raw_tracepoint").make())
        try:
            refusal = verify(insns, "raw_tracepoint", MAPS, max_insns=10_000, uninitialised_stack=True).refusal
        except FormatError:
            continue
        theirs = kernel_refusal(insns)
        counts["kernel"] += not theirs
        counts["both"] += not theirs and refusal is None
        if (refusal is None) != (not theirs):
            where = "accepted here only" if refusal is None else "accepted by the kernel only"
            why = theirs if refusal is None else re.sub(r"-?\d+", "N", refusal.message)
            reasons[where][why] += 1
            examples.setdefault((where, why), seed)
    print(f"{len(seeds)} programs: the kernel accepts {counts['kernel']}, of which {counts['both']} are accepted here")
    for where, found in reasons.items():
        for why, number in found.most_common():
            print(f"{where}: {number} × {why} (seed {examples[where, why]})")
    return 0


def main() -> int:
    """Run them."""
    words = [w for w in sys.argv[1:] if not w.startswith("-")]
    count, first = int(words[0]) if words else 10_000, int(words[1]) if len(words) > 1 else 0
    if "--kernel" in sys.argv:
        return beside_kernel(range(first, first + count))
    counts: Counter[str] = Counter()
    start = reported = time.monotonic()
    bad = 0
    for seed in range(first, first + count):
        found = check(seed, counts)
        if found:
            print(found, flush=True)
            bad += 1
        if time.monotonic() - reported > REPORT_S:
            reported = time.monotonic()
            print(f"… {dict(counts)}, {reported - start:.0f} s", file=sys.stderr, flush=True)
        if bad >= 20:
            break
    print(f"{dict(counts)} in {time.monotonic() - start:.0f} s: {bad} accepted that are not safe")
    return int(bool(bad))


if __name__ == "__main__":
    sys.exit(main())

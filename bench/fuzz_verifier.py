"""Random programs that aim at the verifier: each that it accepts is run in the interpreter, with bounds checks, on hostile inputs.

`python bench/fuzz_verifier.py [COUNT [FIRST_SEED]] [--kernel]`. A fault, a record still held, a run without end, or a register with a value that the
verifier had excluded there ends the run with status 1 and the seed. With --kernel the running kernel's verdict is had too: printed are how many of those
that it accepts are accepted here, and which are accepted here that it refuses, with its reason.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from bpf_hostile_programs import HostileGenerator
from bpf_hostile_runs import Seen, judge, program_of, run
from bpf_pointer_programs import make_program

from sonde.bpf.asm import assemble
from sonde.bpf.isa import Insn
from sonde.errors import FormatError

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


def main() -> int:
    """Run them."""
    words = [w for w in sys.argv[1:] if not w.startswith("-")]
    count, first = int(words[0]) if words else 10_000, int(words[1]) if len(words) > 1 else 0
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

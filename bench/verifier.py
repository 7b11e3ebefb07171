"""How long the verifier takes for typical probes, beside the time in which the kernel loads the same programs (its verifier and JIT).

`python bench/verifier.py`, as root; the programs are those of the corpus of scripts with at most 150 instructions. Times are CPU time of this thread, medians and the
nine in ten that are below; code is decoded, and types of the kernel are known from the program before, as in a session of several programs.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))
sys.path.insert(0, str(Path(__file__).resolve().parent))

from verifier_table import scripts

from sonde.api.verify import verify
from sonde.errors import SondeError
from sonde.kernel.engine import KernelEngine
from sonde.kernel.target import live_target
from sonde.record import replace
from sonde.spec.object import ObjectSpec

MOST_INSNS = 150
ROUNDS = 3
AIM_MS = 5


def took_ms(run: Callable[[], object]) -> float:
    """CPU time of one call, the best of some."""
    times = []
    for _ in range(ROUNDS):
        before = time.thread_time()
        run()
        times.append(1000 * (time.thread_time() - before))
    return min(times)


def kernel_ms(one: ObjectSpec) -> float:
    """What loading a program costs beyond making its maps."""
    maps = took_ms(lambda: KernelEngine().load(replace(one, programs=())).close())
    return max(took_ms(lambda: KernelEngine().load(one).close()) - maps, 0.0)


def main() -> int:
    """Print the figures."""
    target = live_target()
    ours, kernels, insns, slow = [], [], [], []
    for name, spec in scripts():
        for program in spec.programs:
            if len(program.insns) // 8 > MOST_INSNS:
                continue
            one = replace(spec, programs=(program,))
            try:
                kernels.append(kernel_ms(one))
            except SondeError:
                continue
            ours.append(took_ms(partial(verify, one, target)))
            insns.append(len(program.insns) // 8)
            if ours[-1] > AIM_MS:
                slow.append(f"{name} ({ours[-1]:.0f} ms)")
    print(f"{len(ours)} programs of {min(insns)} to {max(insns)} instructions, median {statistics.median(insns):.0f}")
    print("| | median | nine in ten | slowest |")
    print("|---|--:|--:|--:|")
    for name, times in (("sonde's verifier", ours), ("the kernel loads it", kernels)):
        print(
            f"| {name} | {statistics.median(times):.2f} ms | {sorted(times)[len(times) * 9 // 10]:.2f} ms | {max(times):.1f} ms |"
        )
    print(
        f"an instruction of the program: {1000 * sum(ours) / sum(insns):.0f} µs; above {AIM_MS} ms: {', '.join(slow)}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())

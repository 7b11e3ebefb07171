"""The cost of a user stack in a process, by frame pointers and by unwind tables; and how long it takes to compile the tables.

    python bench/unwind.py

A recursion without frame pointers, and the same with them, calls a probed function at its end. Nanoseconds a call, least of five rounds, for stacks of four depths, and a frame.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "tests")]

from user_running import Running  # noqa: E402

from sonde.debuginfo.ehframe import read_unwind_table  # noqa: E402
from sonde.debuginfo.elf import Elf  # noqa: E402
from sonde.debuginfo.procmaps import read_maps  # noqa: E402

SOURCE = r"""
#include <stdio.h>
#include <time.h>
#define APART __attribute__((noipa))
APART int probed(int x) { return x; }
APART int deeper(int n, int x) { volatile int k = n; return (n ? deeper(n - 1, x) : probed(x)) + k; }
int main(void) {
  int n;
  puts("ready"); fflush(stdout);
  while (scanf("%d", &n) == 1) {
    struct timespec a, b;
    clock_gettime(CLOCK_MONOTONIC, &a);
    for (int i = 0; i < 20000; i++) deeper(n, i);
    clock_gettime(CLOCK_MONOTONIC, &b);
    printf("%ld\n", ((b.tv_sec - a.tv_sec) * 1000000000L + b.tv_nsec - a.tv_nsec) / 20000); fflush(stdout);
  }
}
"""
DEPTHS = (0, 10, 50, 100)


def measure(program: str, how: str) -> list[int]:
    """Nanoseconds of a call at each depth; `how`: "fp", "dwarf", "" for no probe."""
    running = Running(program)
    try:
        loaded = running.attach("uprobe:PATH:probed { @[ustack] = count(); }", unwind=how) if how else None
        costs = [min(running.ask(str(depth)) for _ in range(5)) for depth in DEPTHS]
        if loaded is not None:
            loaded.close()
        return costs
    finally:
        running.close()


def main() -> None:
    with tempfile.TemporaryDirectory() as place:
        source, program = Path(place) / "program.c", str(Path(place) / "program")
        source.write_text(SOURCE)
        print(f"{'':42}" + "".join(f"{f'depth {depth}':>12}" for depth in DEPTHS) + f"{'a frame':>12}")
        for pointers in ("-fomit-frame-pointer", "-fno-omit-frame-pointer"):
            subprocess.run(["gcc", "-O2", pointers, "-o", program, source], check=True)
            base = measure(program, "")
            for how in ("fp", "dwarf"):
                costs = [cost - free for cost, free in zip(measure(program, how), base)]
                frame = (costs[-1] - costs[1]) / (DEPTHS[-1] - DEPTHS[1])
                print(
                    f"{pointers + ', by ' + how:42}" + "".join(f"{cost:>9} ns" for cost in costs) + f"{frame:>9.1f} ns"
                )
    for path in sorted({m.path for m in read_maps(__import__("os").getpid()) if m.executable and ".so" in m.path}):
        with Elf.open(path) as elf:
            start = time.perf_counter()
            rows = len(read_unwind_table(elf).pcs)
            if rows > 1000:
                print(f"{(time.perf_counter() - start) * 1000:8.0f} ms for {rows} rows of {path}")


if __name__ == "__main__":
    main()

"""The cost of reading memory that a script was given, in the process: asking the kernel first, behind a handler for faults (`--fast-reads`), and by the kernel engine and bpftrace.

    python bench/reads.py [--calls N] [--runs N]

A program calls a function with the address of a string on its heap. Nanoseconds a call over the call without a probe; medians over the runs, taken in turns, of the least of nine rounds.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "bench")]

from user import cell, cost, sonde  # noqa: E402
from user_target import Target  # noqa: E402

SOURCE = r"""
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
__attribute__((noinline, noclone)) long probed(const char *text, long n) { __asm__ volatile("" ::: "memory"); return n; }
static double now(void) { struct timespec t; clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t); return t.tv_sec * 1e9 + t.tv_nsec; }
int main(void) {
  char line[100], *text = malloc(4096); long calls;
  strcpy(text, "/etc/passwd");
  setvbuf(stdout, 0, _IOLBF, 0);
  while (fgets(line, sizeof line, stdin)) {
    sscanf(line, "%ld", &calls);
    double start = now();
    for (long i = 0; i < calls; i++) probed(text, i);
    printf("%f\n", (now() - start) / calls);
  }
}
"""
SCRIPTS = {
    "a number": "uprobe:PATH:probed { @ = sum(*(uint64*)arg0); }",
    "a string of 11 bytes, compared": 'uprobe:PATH:probed { if (str(arg0, 16) == "/etc/passwd") { @ = count(); } }',
    "the same as a key of 16 bytes": "uprobe:PATH:probed { @[str(arg0, 16)] = count(); }",
    "the same as a key of 64 bytes": "uprobe:PATH:probed { @[str(arg0, 64)] = count(); }",
    "the same as a key of 1024 bytes": "uprobe:PATH:probed { @[str(arg0, 1024)] = count(); }",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=500_000)
    parser.add_argument("--runs", type=int, default=3)
    arguments = parser.parse_args()
    contenders = {
        "asking": sonde("user"),
        "--fast-reads": [*sonde("user"), "--fast-reads"],
        "sonde kernel": sonde("kernel"),
    }
    if shutil.which("bpftrace"):
        contenders["bpftrace"] = ["bpftrace"]
    found: dict[tuple[str, str], list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "target")
        subprocess.run(["gcc", "-O1", "-g", "-x", "c", "-", "-o", path], input=SOURCE, text=True, check=True)
        with Target(path) as target:
            for _ in range(arguments.runs):
                for title, script in SCRIPTS.items():
                    for name, command in contenders.items():
                        calls = arguments.calls // (1 if "user" in command else 25)
                        try:
                            found.setdefault((title, name), []).append(cost(target, command, script, calls))
                        except RuntimeError as error:
                            print(error)
    print(f"| ns a hit | {' | '.join(contenders)} |\n|---|{'---:|' * len(contenders)}")
    for title in SCRIPTS:
        ours = statistics.median(found[title, "asking"])
        print(
            f"| {title} | {' | '.join(cell(found.get((title, name)), ours, name == 'asking') for name in contenders)} |"
        )


if __name__ == "__main__":
    main()

"""Finding a type in the running kernel's BTF by name, cold: in a new process, from opening the file to the type (a function: with its prototype). Milliseconds, medians of 9 processes.

Beside it: what bpftool takes to print the whole BTF as C, in which one would look otherwise. `python bench/btf.py`.
"""

from __future__ import annotations

import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

SRC = Path(__file__).resolve().parents[1] / "src"
NAMES = [
    ("task_struct", "struct"),
    ("request", "struct"),
    ("bio", "struct"),
    ("u64", "typedef"),
    ("vfs_read", "func"),
    ("tcp_sendmsg", "func"),
    ("zpool", "struct"),
    ("no_such_type", "struct"),
]
CHILD = """
import sys, time
sys.path.insert(0, {src!r})
from sonde.debuginfo.btf import Btf
start = time.perf_counter_ns()
with Btf.open() as btf:
    found = btf.get_{kind}({name!r})
    print(time.perf_counter_ns() - start, found is not None)
"""


def find_ms(name: str, kind: str) -> tuple[float, bool]:
    """One process: milliseconds, and whether it is there."""
    code = CHILD.format(src=str(SRC), name=name, kind=kind)
    words = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    return int(words[0]) / 1e6, words[1] == "True"


def main() -> None:
    """Print the table."""
    print("| type | cold, ms |\n|---|--:|")
    for name, kind in NAMES:
        runs = [find_ms(name, kind) for _ in range(9)]
        print(
            f"| {kind} {name}{'' if runs[0][1] else ' (there is none)'} | {statistics.median(ms for ms, _ in runs):.2f} |",
            flush=True,
        )
    bpftool = shutil.which("bpftool") or shutil.which("bpftool", path="/usr/sbin")
    if bpftool is None:
        print("left out: bpftool is not installed", file=sys.stderr)
        return
    times = []
    for _ in range(5):
        start = time.perf_counter()
        subprocess.run(
            [bpftool, "btf", "dump", "file", "/sys/kernel/btf/vmlinux", "format", "c"],
            stdout=subprocess.DEVNULL,
            check=True,
        )
        times.append(1000 * (time.perf_counter() - start))
    print(f"| bpftool, all as C | {statistics.median(times):.0f} |")


if __name__ == "__main__":
    main()

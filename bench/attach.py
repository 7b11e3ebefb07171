"""How long a process stands still when sonde attaches to it, and how long attaching takes: medians in milliseconds.

`python bench/attach.py [ROUNDS]`: needs gcc, and no privileges. Half of the threads of the target sleep, the others are busy. "stopped" is from the first interrupt to the last thread's going
on, as sonde sees it: the memory is brought while one thread stands, probes are put in and taken out while all do. gdb, where it is installed, attaches and detaches beside it.
"""

from __future__ import annotations

import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from sonde.debuginfo.elf import Elf
from sonde.debuginfo.procmaps import read_maps
from sonde.user.agent import Agent
from sonde.user.patches import Patch, put_in, remove_when_left, take_out
from sonde.user.stopped import StoppedProcess

THREADS, SITES = (1, 5, 10, 100), (1, 100)
SOURCE = r"""
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
/* A hundred places of five bytes that nobody runs. */
__asm__(".data\n.text\n.globl sites\n.type sites,@function\nsites:\n .rept 100\n .byte 0x0f,0x1f,0x44,0,0\n .endr\n ret\n.size sites,.-sites\n");
static void *busy(void *u) { for (volatile long n = 0;; n++) ; return u; }
static void *idle(void *u) { for (;;) usleep(5000); return u; }
int main(int argc, char **argv) {
  pthread_t t;
  for (int i = 1; i < atoi(argv[1]); i++) pthread_create(&t, NULL, i & 1 && i < 4 ? busy : idle, NULL);
  puts("ready"); fflush(stdout);
  idle(NULL);
}
"""


def measure(pid: int, sites: int, address: int) -> tuple[float, ...]:
    """One round: all of attaching, memory (stopped), an empty stop, probes in, probes out (stopped), all of detaching; milliseconds."""
    begun = time.perf_counter()
    with StoppedProcess(pid, all_threads=False) as stopped:
        agent = Agent.create(stopped, (address, address), 1 << 16, entries=sites)
    memory = stopped.stopped_ns
    with StoppedProcess(pid) as stopped:
        original = stopped.read(address, 5)
    empty = stopped.stopped_ns
    code = agent.place(b"\xc3")
    patches = []
    for at in range(address, address + 5 * sites, 5):
        jump = b"\xe9" + (code - at - 5).to_bytes(4, "little", signed=True)
        patches.append(Patch(at, original, jump, {0: code}))
    with StoppedProcess(pid) as stopped:
        put_in(stopped, [agent], patches)
    inside = stopped.stopped_ns
    attached = time.perf_counter()
    with StoppedProcess(pid) as stopped:
        take_out(stopped, [agent], patches)
    outside = stopped.stopped_ns
    assert remove_when_left(pid, [agent]) == []
    ended = time.perf_counter()
    return (1e3 * (attached - begun), memory / 1e6, empty / 1e6, inside / 1e6, outside / 1e6, 1e3 * (ended - attached))


def measure_gdb(pid: int) -> float:
    """gdb attaches and detaches: milliseconds."""
    begun = time.perf_counter()
    subprocess.run(["gdb", "-nx", "-batch", "-p", str(pid)], capture_output=True)
    return 1e3 * (time.perf_counter() - begun)


def run(path: str, threads: int, rounds: int) -> None:
    """Print the lines of one target."""
    with subprocess.Popen([path, str(threads)], stdout=subprocess.PIPE, text=True) as target:
        try:
            assert target.stdout is not None
            target.stdout.readline()
            with Elf.open(path) as elf:
                symbol = elf.get_symbol("sites")
            assert symbol is not None
            address = next(m.start for m in read_maps(target.pid) if m.path == path) + symbol.vaddr
            for sites in SITES:
                columns = zip(*(measure(target.pid, sites, address) for _ in range(rounds)))
                print(f"| {threads} | {sites} | " + " | ".join(f"{statistics.median(c):.2f}" for c in columns) + " |")
            if shutil.which("gdb"):
                print(
                    f"| {threads} | gdb | {statistics.median(measure_gdb(target.pid) for _ in range(3)):.0f} | | | | | |"
                )
        finally:
            target.kill()


def main() -> None:
    """Print the table."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "target.c").write_text(SOURCE)
        path = str(Path(folder) / "target")
        subprocess.run(["gcc", "-O1", "-pie", "-fPIE", "-o", path, path + ".c", "-pthread"], check=True)
        print(
            "| threads | sites | attach, all | stopped: memory (one thread) | stopped: nothing | stopped: in | stopped: out | detach, all |"
        )
        print("|--:|--:|--:|--:|--:|--:|--:|--:|")
        for threads in THREADS:
            run(path, threads, rounds)


if __name__ == "__main__":
    main()

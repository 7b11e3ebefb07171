"""The cost of one hit: run_time_ns / run_cnt of the kernel's own BPF statistics, less an empty program's in the same run.

The probe sits on raw_syscalls:sys_enter; a load process makes a bounded number of system calls. The programs of all
contenders are read through the descriptors of their own process (/proc/PID/fdinfo).
"""

from __future__ import annotations

import re
import signal
import subprocess
import time
from pathlib import Path

from contenders import Contender, environment
from programs import HITS

STATS = Path("/proc/sys/kernel/bpf_stats_enabled")
CALLS = 2_000_000


def run_stats(pid: int) -> tuple[int, int]:
    """Return (run_time_ns, run_cnt) summed over the BPF programs that a process holds."""
    seen: dict[str, tuple[int, int]] = {}
    for path in Path(f"/proc/{pid}/fdinfo").iterdir():
        try:
            text = path.read_text()
        except OSError:
            continue
        if "prog_tag" in text and "prog_id" in text and "link_id" not in text:
            fields = dict(re.findall(r"^(\w+):\s+(\S+)", text, re.M))
            seen[fields["prog_id"]] = (int(fields["run_time_ns"]), int(fields["run_cnt"]))
    return sum(t for t, _ in seen.values()), sum(n for _, n in seen.values())


def one_hit(contender: Contender, body: str, load: str, calls: int = CALLS) -> float:
    """Return nanoseconds per hit of the probe body, the empty program's cost included."""
    worker = subprocess.Popen([load, str(calls)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    program = f"tracepoint:raw_syscalls:sys_enter /pid == {worker.pid}/ {{ {body} }}"
    tracer = subprocess.Popen(
        [*contender.command, "-e", 'BEGIN { printf("ready\\n"); } ' + program],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment(contender),
    )
    assert tracer.stdout
    try:
        while b"ready" not in (line := tracer.stdout.readline()):
            if not line:
                raise RuntimeError(f"{contender.name} ended early on {body}")
        time.sleep(1.0)
        time_0, count_0 = run_stats(tracer.pid)
        worker.communicate(b"x")
        time_1, count_1 = run_stats(tracer.pid)
        return (time_1 - time_0) / max(count_1 - count_0, 1)
    finally:
        worker.kill()
        tracer.send_signal(signal.SIGINT)
        tracer.stdout.close()
        try:
            tracer.wait(10)
        except subprocess.TimeoutExpired:
            tracer.kill()
            tracer.wait()


def measure(contenders: list[Contender], load: str, runs: int = 5) -> dict[str, dict[str, float]]:
    """Return program -> contender -> ns per hit above the empty probe (minimum over the runs, taken in turns)."""
    before = STATS.read_text()
    STATS.write_text("1")
    try:
        bodies = {"(empty)": "", **HITS}
        best: dict[str, dict[str, float]] = {name: {} for name in bodies}
        for _ in range(runs):
            for name, body in bodies.items():
                for contender in contenders:
                    # An empty body is not accepted by every version: a scratch variable compiles to nothing.
                    cost = one_hit(contender, body or "$x = 1;", load)
                    best[name][contender.name] = min(cost, best[name].get(contender.name, cost))
        empty = best["(empty)"]
        return {
            "(empty)": empty,
            **{n: {c: v - empty[c] for c, v in row.items()} for n, row in best.items() if n != "(empty)"},
        }
    finally:
        STATS.write_text(before)

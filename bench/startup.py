"""Start-up: from exec to the first event. Wall time, CPU time up to that moment, peak memory of the process.

CPU time is read from /proc/PID/task/*/schedstat (nanoseconds) at the moment the first line arrives on a pipe.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

from contenders import Contender, environment
from programs import FIRST_EVENT, OPENAT


def cpu_ns(pid: int) -> int:
    """Return the CPU time that all threads of a process have used, in nanoseconds."""
    total = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        try:
            total += int((task / "schedstat").read_text().split()[0])
        except OSError:
            pass  # the thread ended meanwhile
    return total


def peak_kib(pid: int) -> int:
    """Return VmHWM of a process in KiB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1])
    return 0  # the process has ended


def first_event(contender: Contender, program: str, marker: bytes) -> tuple[float, float, float]:
    """Run once; return (wall ms, CPU ms, peak MiB) at the first line that holds `marker`."""
    start = time.perf_counter()
    process = subprocess.Popen(
        [*contender.command, "-e", program],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment(contender),
    )
    assert process.stdout
    try:
        while True:
            line = process.stdout.readline()
            if marker in line:
                break
            if not line:
                raise RuntimeError(f"{contender.name} ended without an event")
        wall = time.perf_counter() - start
        return wall * 1e3, cpu_ns(process.pid) / 1e6, peak_kib(process.pid) / 1024
    finally:
        process.send_signal(signal.SIGINT)
        process.stdout.close()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


class Opener:
    """Opens one file a thousand times a second, so that an openat probe has something to see."""

    def __enter__(self) -> Opener:
        self.pid = os.fork()
        if self.pid == 0:
            end = time.monotonic() + 600
            while time.monotonic() < end and os.getppid() != 1:
                open("/dev/null").close()
                time.sleep(0.001)
            os._exit(0)
        return self

    def __exit__(self, *_: object) -> None:
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)


CASES = {"begin": (FIRST_EVENT, b"x"), "openat": (OPENAT, b"/dev/null")}
STAYING = {"begin": FIRST_EVENT.replace("exit(); }", "} interval:s:9 { exit(); }")}  # to be looked at for its memory


def measure(contenders: list[Contender], runs: int = 15) -> dict[str, dict[str, dict[str, float]]]:
    """Return case -> contender -> {wall_ms, cpu_ms, peak_mib}: medians; contenders take turns."""
    results: dict[str, dict[str, dict[str, float]]] = {}
    with Opener():
        for case, (program, marker) in CASES.items():
            samples: dict[str, list[tuple[float, float, float]]] = {c.name: [] for c in contenders}
            for _ in range(runs + 1):
                for contender in contenders:
                    wall, cpu, peak = first_event(contender, program, marker)
                    peak = peak if case not in STAYING else first_event(contender, STAYING[case], marker)[2]
                    samples[contender.name].append((wall, cpu, peak))
            results[case] = {}
            for name, rows in samples.items():
                columns = [sorted(column) for column in zip(*rows[1:])]
                middle = len(columns[0]) // 2
                results[case][name] = dict(zip(("wall_ms", "cpu_ms", "peak_mib"), (c[middle] for c in columns)))
    return results

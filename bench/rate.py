"""Output rate: lines of `printf` with two fields from a busy tracepoint that reach a pipe, and what is lost."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time

from contenders import Contender, environment

CALLS = 1_000_000


def one_rate(contender: Contender, load: str, calls: int = CALLS) -> tuple[float, float]:
    """Return (lines per second from the load's start to the last line, share lost)."""
    worker = subprocess.Popen([load, str(calls)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    program = (
        'BEGIN { printf("ready\\n"); } tracepoint:raw_syscalls:sys_enter '
        f'/pid == {worker.pid} && args->id == 110/ {{ printf("%d %d\\n", tid, args->id); }}'
    )
    tracer = subprocess.Popen(
        [*contender.command, "-e", program],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment(contender),
    )
    assert tracer.stdout and worker.stdin
    try:
        fd = tracer.stdout.fileno()
        seen = b""
        while b"ready" not in seen:
            data = os.read(fd, 65536)
            if not data:
                raise RuntimeError(f"{contender.name} ended early")
            seen += data
        time.sleep(1.0)
        start = time.perf_counter()
        worker.stdin.write(b"x")
        worker.stdin.close()
        lines, last = 0, start
        stopped = False
        while True:
            data = os.read(fd, 1 << 20)
            if not data:
                break
            lines += data.count(b"\n")
            last = time.perf_counter()
            if lines >= calls or (worker.poll() is not None and not stopped and last - start > 60):
                tracer.send_signal(signal.SIGINT)
                stopped = True
            if worker.poll() is not None and not stopped:
                threading.Timer(3.0, lambda: tracer.poll() is None and tracer.send_signal(signal.SIGINT)).start()
                stopped = True
        return lines / (last - start), max(0.0, 1 - lines / calls)
    finally:
        worker.kill()
        worker.wait()
        tracer.kill()
        tracer.wait()


def measure(contenders: list[Contender], load: str, runs: int = 3) -> dict[str, tuple[float, float]]:
    """Return contender -> (lines per second, share lost): the run with the best rate."""
    best: dict[str, tuple[float, float]] = {}
    for _ in range(runs):
        for contender in contenders:
            result = one_rate(contender, load)
            best[contender.name] = max(best.get(contender.name, result), result)
    return best

"""Output rate: lines of `printf` with two fields from a busy tracepoint that reach a pipe, and what is lost.

Two questions. *Flood*: one process calls as fast as it can; how many lines a second come out, and which share is lost?
*Sustained*: calls come at an even pace, of a ladder; how
many lines a second come out at the fastest pace at which nothing is lost?
"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time

from contenders import Contender, environment

CALLS = 1_000_000
LADDER = [int(50_000 * 1.25**step) for step in range(16)]  # calls a second: 50,000 to 1.4 million
SUSTAINED_S = 0.7
QUIET_S = 0.5  # no line for so long after the load's end: all have arrived


def one_rate(contender: Contender, load: str, calls: int = CALLS, pace_ns: float = 0) -> tuple[float, float]:
    """Return (lines per second from the load's start to the last line, share lost)."""
    worker = subprocess.Popen([load, str(calls), str(pace_ns)], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
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
        watcher = threading.Thread(target=_end, args=(worker, tracer, lambda: last))
        watcher.start()
        tail = b""
        while data := os.read(fd, 1 << 20):
            found = (tail + data).count(b" 110\n")  # bpftrace ends with empty lines, which are none of ours
            tail = data[-4:]
            if found:
                lines += found
                last = time.perf_counter()
        watcher.join()
        return lines / (last - start), max(0.0, 1 - lines / calls)
    finally:
        worker.kill()
        worker.wait()
        tracer.kill()
        tracer.wait()


def _end(worker: subprocess.Popen[bytes], tracer: subprocess.Popen[bytes], last: object) -> None:
    """Stop the tracer once the load has ended and its lines have stopped coming."""
    worker.wait()
    ended = time.perf_counter()
    while time.perf_counter() - max(last(), ended) < QUIET_S:  # type: ignore[operator]
        time.sleep(0.1)
    tracer.send_signal(signal.SIGINT)


def sustained(contender: Contender, load: str) -> float:
    """Return the most lines a second that came without any loss, over a search for the fastest such pace.

    A tracer may slow the load down: what counts is what came out. Each pace gets two tries.
    """
    best, low, high = 0.0, -1, len(LADDER)
    while high - low > 1:
        middle = (low + high) // 2
        for _ in range(2):
            rate, lost = one_rate(contender, load, int(LADDER[middle] * SUSTAINED_S), 1e9 / LADDER[middle])
            if not lost:
                best, low = max(best, rate), middle
                break
        else:
            high = middle
    return best


def measure(contenders: list[Contender], load: str, runs: int = 3) -> dict[str, tuple[float, float, float]]:
    """Return contender -> (flood: lines per second, share lost; sustained: lines per second); best of the runs."""
    best: dict[str, tuple[float, float]] = {}
    for _ in range(runs):
        for contender in contenders:
            result = one_rate(contender, load)
            best[contender.name] = max(best.get(contender.name, result), result)
    return {c.name: (*best[c.name], sustained(c, load)) for c in contenders}

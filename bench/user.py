"""The cost of a hit inside a process: sonde's user engine beside kernel uprobes (sonde's and bpftrace's), and frida and uftrace where they are installed.

    python bench/user.py [--calls N] [--runs N]

A program calls a function through a pointer, round after round, and prints the nanoseconds of each call. Tracers come and go while it runs; the
rounds without one are the base, which is subtracted. Medians over the runs, taken in turns. Also: how long attaching takes, how long the threads stand
still for it, what it adds to the memory of the process, two threads on two CPUs, and the share of functions of libraries that a jump fits into.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "src"))
SOURCE = r"""
#define _GNU_SOURCE
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>
#include <sys/syscall.h>

__attribute__((noinline, noclone)) long probed(long a, long b) { __asm__ volatile("" ::: "memory"); return a + b; }
static long (*volatile call)(long, long) = probed;
static double now(void) { struct timespec t; clock_gettime(CLOCK_MONOTONIC, &t); return t.tv_sec * 1e9 + t.tv_nsec; }
static long calls; static int kind;
static double once(void) {
  double start = now();
  if (kind) for (long i = 0; i < calls; i++) syscall(SYS_getppid);
  else for (long i = 0; i < calls; i++) call(i & 7, i);
  return (now() - start) / calls;
}
static void *thread(void *result) { *(double *)result = once(); return 0; }
int main(int count, char **words) {
  char line[100]; int threads;
  setvbuf(stdout, 0, _IOLBF, 0);
  while (fgets(line, sizeof line, stdin)) {
    sscanf(line, "%ld %d %d", &calls, &threads, &kind);
    pthread_t ids[16]; double results[16], sum = 0;
    if (threads == 1) sum = once();
    else {
      for (int i = 0; i < threads; i++) pthread_create(&ids[i], 0, thread, &results[i]);
      for (int i = 0; i < threads; i++) { pthread_join(ids[i], 0); sum += results[i]; }
    }
    printf("%f\n", sum / threads);
  }
  return 0;
}
"""

SYSTEM_CALL = "a system call, count()"
SCRIPTS = {
    SYSTEM_CALL: "tracepoint:syscalls:sys_enter_getppid { @ = count(); }",
    "count()": "uprobe:PATH:probed { @ = count(); }",
    "[arg0] = count()": "uprobe:PATH:probed { @[arg0] = count(); }",
    "record of 32 bytes with time": "uprobe:PATH:probed { print((arg0, nsecs)); }",
    "return, count()": "uretprobe:PATH:probed { @ = count(); }",
    "entry and return, hist of latency": (
        "uprobe:PATH:probed { @s[tid] = nsecs; } uretprobe:PATH:probed { @ = hist(nsecs - @s[tid]); delete(@s, tid); }"
    ),
}


class Target:
    """The program that is traced."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.process = subprocess.Popen([path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def time(self, calls: int, threads: int = 1, system_calls: bool = False) -> float:
        """Nanoseconds a call, mean over the threads."""
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(f"{calls} {threads} {int(system_calls)}\n")
        self.process.stdin.flush()
        return float(self.process.stdout.readline())

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()

    def memory_kib(self) -> tuple[int, int]:
        """Resident KiB, and number of threads."""
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        fields = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
        return int(fields["VmRSS"].split()[0]), int(fields["Threads"])


def build(folder: str) -> str:
    path = os.path.join(folder, "target")
    subprocess.run(["gcc", "-O2", "-x", "c", "-", "-o", path, "-lpthread"], input=SOURCE, text=True, check=True)
    return path


def sonde(engine: str) -> list[str]:
    return [sys.executable, "-m", "sonde", "trace", "--engine", engine]


def start(command: Sequence[str], target: Target, script: str) -> subprocess.Popen[str]:
    """Start a tracer of the bpftrace kind and wait until it is attached."""
    script = (
        script.replace("PATH", target.path) + ' interval:ms:1 { @once++; if (@once == 1) { printf("attached\\n"); } }'
    )
    environ = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    words = [*command, "-p", str(target.process.pid), "-e", script]
    tracer = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environ)
    assert tracer.stdout
    for line in tracer.stdout:
        if "attached" in line and "Attached" not in line:
            return tracer
    raise RuntimeError(f"{command[0]} ended early: {script}")


def stop(tracer: subprocess.Popen[str]) -> None:
    tracer.send_signal(signal.SIGINT)
    try:
        tracer.communicate(timeout=20)
    except subprocess.TimeoutExpired:
        tracer.kill()


def cost(target: Target, begin: Callable[[], subprocess.Popen[str]], calls: int, **how: int) -> float:
    """Nanoseconds that a tracer adds to a call."""
    base = min(target.time(calls * 4, **how) for _ in range(3))
    tracer = begin()
    time.sleep(0.3)  # the clock by the processor's counter comes after a tenth of a second
    try:
        return min(target.time(calls, **how) for _ in range(3)) - base
    finally:
        stop(tracer)


def measure(path: str, calls: int, runs: int) -> None:
    contenders: dict[str, list[str]] = {"sonde user": sonde("user"), "sonde kernel": sonde("kernel")}
    if shutil.which("bpftrace"):
        contenders["bpftrace"] = ["bpftrace"]
    found: dict[tuple[str, str], list[float]] = {}
    target = Target(path)
    try:
        for _ in range(runs):
            for title, script in SCRIPTS.items():
                for name, command in contenders.items():
                    n = calls if name == "sonde user" else calls // 50
                    if "record" in title:
                        n = min(n, 50_000)  # what fits into the ring: lost records cost less
                    how = {"system_calls": title == SYSTEM_CALL}
                    try:
                        value = cost(target, lambda c=command, s=script: start(c, target, s), n, **how)  # type: ignore[misc]
                    except RuntimeError:
                        continue
                    found.setdefault((title, name), []).append(value)
    finally:
        target.close()
    names = list(contenders)
    print(f"| ns a hit | {' | '.join(names)} |\n|---|{'---:|' * len(names)}")
    for title in SCRIPTS:
        cells = [f"{statistics.median(v):.1f}" if (v := found.get((title, name))) else "—" for name in names]
        print(f"| {title} | {' | '.join(cells)} |")


def measure_scaling(path: str, calls: int, runs: int) -> None:
    """One thread and two, on a probe with count()."""
    target = Target(path)
    try:
        begin = lambda: start(sonde("user"), target, SCRIPTS["count()"])  # noqa: E731
        one = statistics.median(cost(target, begin, calls) for _ in range(runs))
        two = statistics.median(cost(target, begin, calls, threads=2) for _ in range(runs))
    finally:
        target.close()
    print(f"two threads on two CPUs: {two:.1f} ns a hit beside {one:.1f} with one: {two / one:.2f} x")


def measure_attaching(path: str, runs: int) -> None:
    """From `load` to the last jump in place, and how long threads stood still for it, with 10 threads."""
    from sonde.api.trace import TraceOptions, compile, live_target
    from sonde.user import engine, stopped
    from sonde.user.target import user_target

    class Timed(stopped.StoppedProcess):
        longest_s = 0.0

        def __init__(self, pid: int, *, all_threads: bool = True) -> None:
            super().__init__(pid, all_threads=all_threads)
            self.everyone = all_threads

        def __enter__(self) -> stopped.StoppedProcess:
            found = super().__enter__()
            self.since_s = time.perf_counter()
            return found

        def __exit__(self, *words: object) -> None:
            super().__exit__(*words)
            took = time.perf_counter() - self.since_s
            if self.everyone:
                Timed.longest_s = max(Timed.longest_s, took)

    engine.StoppedProcess = Timed  # type: ignore[misc]
    rows = []
    target = Target(path)
    try:
        assert target.process.stdin
        target.process.stdin.write("20000000000 10 0\n")
        target.process.stdin.flush()
        time.sleep(0.5)
        for script in (SCRIPTS["count()"], "uprobe:libc:malloc { @ = count(); }"):
            for _ in range(runs):
                options = TraceOptions(pid=target.process.pid)
                spec = compile(script.replace("PATH", path), user_target(live_target()), options)
                began = time.perf_counter()
                loaded = engine.UserEngine(target.process.pid).load(spec)
                loaded.attach(spec.probes)
                took = time.perf_counter() - began
                rows.append((took, Timed.longest_s))
                Timed.longest_s = 0.0
                loaded.close()
    finally:
        target.close()
    took, stopped_s = (statistics.median(row[at] for row in rows) * 1e3 for at in (0, 1))
    print(
        f"attaching to a process of 10 threads: {took:.1f} ms, of which all of them stand still for {stopped_s:.2f} ms"
    )


def measure_memory(path: str) -> None:
    target = Target(path)
    try:
        target.time(1000)
        before = target.memory_kib()
        tracer = start(sonde("user"), target, SCRIPTS["[arg0] = count()"])
        target.time(100_000)
        after = target.memory_kib()
        stop(tracer)
        left = target.memory_kib()
    finally:
        target.close()
    print(
        f"memory added: {after[0] - before[0]} KiB and {after[1] - before[1]} threads; after detaching {left[0] - before[0]} KiB"
    )


def measure_frida(path: str, calls: int) -> None:
    """frida's cheapest way to count: a listener in C."""
    if importlib.util.find_spec("frida") is None:
        print("frida: not installed (pip install frida)")
        return
    import frida

    target = Target(path)
    try:
        base = min(target.time(calls) for _ in range(3))
        began = time.perf_counter()
        session = frida.attach(target.process.pid)
        script = session.create_script(
            'const m = new CModule("#include <gum/guminterceptor.h>\\n'
            'static unsigned long n; void onEnter(GumInvocationContext *c) { n++; }");'
            'Interceptor.attach(DebugSymbol.fromName("probed").address, m.onEnter ? { onEnter: m.onEnter } : m);'
        )
        script.load()
        took = time.perf_counter() - began
        value = min(target.time(calls // 10) for _ in range(3)) - base
        session.detach()
    finally:
        target.close()
    print(f"frida {frida.__version__}: {value:.0f} ns a hit (listener in C), {took * 1e3:.0f} ms to attach")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=5_000_000)
    parser.add_argument("--runs", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = build(folder)
        measure(path, arguments.calls, arguments.runs)
        measure_scaling(path, arguments.calls, arguments.runs)
        measure_attaching(path, 2 * arguments.runs + 1)
        measure_memory(path)
        measure_frida(path, arguments.calls)


if __name__ == "__main__":
    main()

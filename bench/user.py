"""The cost of a hit inside a process: sonde's user engine beside kernel uprobes (sonde's and bpftrace's), and its peers where they are installed (`peers_user`).

    python bench/user.py [--calls N] [--runs N]

A program calls a function through a pointer, round after round, and prints the nanoseconds of each call. Tracers come and go while it runs; the
rounds without one are the base, which is subtracted. Medians over the runs, taken in turns. Also: how long attaching takes, how long the threads stand
still for it, what it adds to the memory of the process, and two threads on two CPUs.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "src"))

from peers_user import find_frida, find_peers, frida_costs  # noqa: E402
from user_target import Target, build  # noqa: E402

_RECORD_ROUNDS = 5
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


def sonde(engine: str) -> list[str]:
    return [sys.executable, "-m", "sonde", "trace", "--engine", engine]


class Tracer:
    """A tracer of the bpftrace kind at work: `rows` counts what it has printed. A context manager."""

    def __init__(self, command: Sequence[str], target: Target, script: str) -> None:
        """Start it and wait until it is attached. Raises RuntimeError."""
        script = script.replace("PATH", target.path)
        script += ' interval:ms:1 { @once++; if (@once == 1) { printf("attached\\n"); } }'
        environ = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
        words = [*command, "-p", str(target.process.pid), "-e", script]
        self.process = subprocess.Popen(
            words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environ
        )
        assert self.process.stdout
        self.rows = 0
        for line in self.process.stdout:
            if "attached" in line and "Attached" not in line:
                break
        else:
            raise RuntimeError(f"{command[0]} ended early: {script}")
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout
        for _ in self.process.stdout:
            self.rows += 1

    def __enter__(self) -> Tracer:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.send_signal(signal.SIGINT)
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def cost(target: Target, command: Sequence[str], script: str, calls: int, **how: int) -> float:
    """Nanoseconds that a tracer adds to a call. Raises RuntimeError when it cannot be started, or has lost a record: those are cheap."""
    base = target.least(calls, **how)
    with Tracer(command, target, script) as tracer:
        time.sleep(0.3)  # the clock by the processor's counter comes after a tenth of a second
        if "print" not in script:
            return target.least(calls, **how) - base
        times = []
        for turn in range(1, _RECORD_ROUNDS + 1):
            times.append(target.time(calls, **how))
            deadline = time.monotonic() + 20
            while tracer.rows < turn * calls:
                if time.monotonic() > deadline:
                    raise RuntimeError(f"{command[0]} shows {tracer.rows} of {turn * calls} records")
                time.sleep(0.01)
        return min(times) - base


def measure(folder: str, calls: int, runs: int) -> None:
    """The table: each row is what a tracer does at a hit, each column a tracer; medians."""
    contenders: dict[str, list[str]] = {"sonde user": sonde("user"), "sonde kernel": sonde("kernel")}
    if shutil.which("bpftrace"):
        contenders["bpftrace"] = ["bpftrace"]
    peers, absent = find_peers()
    found: dict[tuple[str, str], list[float]] = {}
    for _ in range(runs):
        with Target(build(folder)) as target:
            for title, script in SCRIPTS.items():
                for name, command in contenders.items():
                    n = calls if name == "sonde user" else calls // 50
                    if "record" in title:
                        n = min(n, 20_000)  # what fits into the ring
                    how = {"system_calls": title == SYSTEM_CALL}
                    try:
                        value = cost(target, command, script, n, **how)
                    except RuntimeError as error:
                        print(error)
                        continue
                    found.setdefault((title, name), []).append(value)
        for name, peer in peers.items():
            for title, value in peer(folder, calls).items():
                found.setdefault((title, name), []).append(value)
    names = [*contenders, *peers]
    print(f"| ns a hit | {' | '.join(names)} |\n|---|{'---:|' * len(names)}")
    for title in SCRIPTS:
        ours = statistics.median(found[title, names[0]])
        print(f"| {title} | {' | '.join(cell(found.get((title, name)), ours, name == names[0]) for name in names)} |")
    for line in absent:
        print(line)


def cell(values: Sequence[float] | None, ours: float, is_ours: bool) -> str:
    """A median, and how many times ours it is."""
    if not values:
        return "—"
    value = statistics.median(values)
    return f"{value:.1f}" if is_ours else f"{value:.1f} ({value / ours:.1f} ×)"


def measure_scaling(folder: str, calls: int, runs: int) -> None:
    """One thread and two, on a probe with count(): rounds of either in turns, the lower quarter of each; the same for the loop without a probe."""
    with Target(build(folder)) as target:
        base = in_turns(target, calls, 5 * runs)
        with Tracer(sonde("user"), target, SCRIPTS["count()"]):
            probed = in_turns(target, calls, 5 * runs)
    one, two = (hit - empty for hit, empty in zip(probed, base))
    print(
        f"two threads on two CPUs: {two:.2f} ns a hit beside {one:.2f} with one: {two / one:.2f} x (bases {base[1]:.2f}, {base[0]:.2f})"
    )


def in_turns(target: Target, calls: int, rounds: int) -> tuple[float, float]:
    """Nanoseconds a call with one thread and with two."""
    pairs = [(target.time(calls), target.time(calls, threads=2)) for _ in range(rounds)]
    one, two = (sorted(pair[at] for pair in pairs)[rounds // 4] for at in (0, 1))
    return one, two


class Stops:
    """Notes for how long threads stand still, when that is all of them: until the first goes on, and until the last does; milliseconds."""

    def __init__(self) -> None:
        from sonde.user import engine, stopped

        self.longest = [0.0, 0.0]
        stops = self

        class Timed(stopped.StoppedProcess):
            def __enter__(self) -> stopped.StoppedProcess:
                found = super().__enter__()
                self.begun_ns = self._seized._begun_ns
                return found

            def __exit__(self, *words: object) -> None:
                still = (time.monotonic_ns() - self.begun_ns) / 1e6
                super().__exit__(*words)
                stops.longest = [max(pair) for pair in zip(stops.longest, (still, self.stopped_ns / 1e6))]

        engine.StoppedProcess = Timed  # type: ignore[misc]


def measure_attaching(folder: str, runs: int) -> None:
    """From `load` to the last jump in place, in a process of 10 busy threads, which another terminal has started or the same one; and how long they stand still."""
    from sonde.api.trace import TraceOptions, compile, live_target
    from sonde.user import engine
    from sonde.user.target import user_target

    stops = Stops()
    for own_session in (True, False):
        with Target(build(folder), own_session=own_session) as target:
            target.say(20_000_000_000, 10)
            time.sleep(0.5)
            for title, script in ATTACHED.items():
                rows, first = [], 0.0
                for _ in range(runs + 1):
                    options = TraceOptions(pid=target.process.pid)
                    spec = compile(script.replace("PATH", target.path), user_target(live_target()), options)
                    stops.longest = [0.0, 0.0]
                    began = time.perf_counter()
                    with engine.UserEngine(target.process.pid).load(spec) as loaded:
                        loaded.attach(spec.probes)
                        rows.append((1e3 * (time.perf_counter() - began), *stops.longest))
                first = rows.pop(0)[0]
                took, still, last = (statistics.median(row[at] for row in rows) for at in range(3))
                where = "another session" if own_session else "the same session"
                print(
                    f"attaching to 10 busy threads of {where}, {title}: {took:.1f} ms (the first time {first:.0f}); all stand still for {still:.2f} ms, the last goes on after {last:.2f}"
                )


ATTACHED = {"a function of the program": SCRIPTS["count()"], "malloc": "uprobe:libc:malloc { @ = count(); }"}


def measure_memory(folder: str) -> None:
    """Of a script that counts, and of one that has a ring for what it prints."""
    from sonde.api.trace import TraceOptions, compile, live_target
    from sonde.user import engine
    from sonde.user.target import user_target

    for title in ("[arg0] = count()", "record of 32 bytes with time"):
        with Target(build(folder)) as target:
            target.time(1000)
            before = target.memory_kib()
            script = SCRIPTS[title].replace("PATH", target.path)
            spec = compile(script, user_target(live_target()), TraceOptions(pid=target.process.pid))
            with engine.UserEngine(target.process.pid).load(spec) as loaded:
                loaded.attach(spec.probes)
                target.time(1000)
                after = target.memory_kib()
            left = target.memory_kib()
        print(
            f"memory added, {title}: {after[0] - before[0]} KiB and {after[1] - before[1]} threads; after detaching {left[0] - before[0]} KiB"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=1_000_000)
    parser.add_argument("--runs", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print(f"load average before: {os.getloadavg()[0]:.2f}")
        measure(folder, arguments.calls, arguments.runs)
        measure_scaling(folder, 3 * arguments.calls, 2 * arguments.runs)
        measure_attaching(folder, 3 * arguments.runs)
        measure_memory(folder)
        if python := find_frida():
            print(f"frida: {frida_costs(python, folder, 2 * arguments.runs + 1)}")
        print(f"load average after: {os.getloadavg()[0]:.2f}")


if __name__ == "__main__":
    main()

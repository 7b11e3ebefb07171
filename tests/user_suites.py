"""Programs with tests of their own, run bare and with sonde's probes in them.

A program says "ready" and begins when it gets a line, so that its probes can be there from the first test on.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from sonde.api.trace import TraceOptions, compile, live_target
from sonde.errors import SondeError
from sonde.record import replace
from sonde.spec.object import ObjectSpec
from sonde.user.engine import UserEngine, UserObject
from sonde.user.stopped import is_alive
from sonde.user.target import user_target


class Outcome:
    """How a program ended, and what it has printed behind "ready"."""

    def __init__(self, status: int, text: str) -> None:
        self.status = status
        self.text = text


class Tracer:
    """Probes of one process: all of a script for as long as it runs, or `some` of them by chance, again and again. `rounds`: how often they were taken out."""

    def __init__(self, script: str, *, some: int = 0, seed: int = 7) -> None:
        self.script = script
        self.hits = self.rounds = 0
        self._some = some
        self._chance = random.Random(seed)
        self._loaded: UserObject | None = None

    @property
    def comes_and_goes(self) -> bool:
        """Whether the process is stopped again and again."""
        return self._some > 0

    def begin(self, pid: int) -> None:
        """Have the first probes in the process."""
        os.environ["BPFTRACE_MAX_PROBES"] = "1000000"
        try:
            self._spec = compile(self.script, user_target(live_target()), TraceOptions(pid=pid))
        finally:
            del os.environ["BPFTRACE_MAX_PROBES"]
        self._pid = pid
        self._loaded = self._load()

    def _load(self) -> UserObject:
        spec: ObjectSpec = self._spec
        if self._some:
            spec = replace(spec, probes=tuple(self._chance.sample(spec.probes, min(self._some, len(spec.probes)))))
        loaded = UserEngine(self._pid).load(spec)
        loaded.attach(spec.probes)
        return loaded

    def work(self, is_over: Callable[[], bool]) -> None:
        """Until the process has ended. Raises what goes wrong before."""
        until = time.monotonic() + 0.2
        while not is_over():
            if self._some and time.monotonic() > until:
                until = self._others() + self._chance.random() * 0.2
            if self._loaded is not None:
                self._loaded.look()
            time.sleep(0.01)

    def _others(self) -> float:
        """Put other probes in; return when that was."""
        self.end()
        try:
            self._loaded = self._load()
        except SondeError:
            if is_alive(self._pid):
                raise
        return time.monotonic()

    def end(self) -> None:
        """Take the probes out. Twice is harmless."""
        loaded, self._loaded = self._loaded, None
        if loaded is None:
            return
        loaded.detach()
        counts = [
            values
            for table in loaded.maps.values()
            if table.shape.kind.startswith("percpu")
            for _, values in table.items()
        ]
        self.hits += sum(int.from_bytes(value[:8], "little") for values in counts for value in values)
        self.rounds += 1
        loaded.close()


def run(words: Sequence[str], folder: Path, tracer: Tracer | None = None, limit_s: float = 600.0) -> Outcome:
    """Run a program in a folder, with a tracer's probes or without; it is killed when it takes longer than the limit, with all that it has started."""
    output = folder / "output"
    with output.open("wb") as file:
        process = subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=file, cwd=folder, start_new_session=True
        )
    assert process.stdin is not None and process.stdout is not None
    stdout = process.stdout
    collected: list[bytes] = []
    reader = threading.Thread(target=lambda: collected.append(stdout.read()))
    limit = threading.Timer(limit_s, lambda: os.killpg(process.pid, signal.SIGKILL))
    limit.start()
    try:
        assert stdout.readline() == b"ready\n"
        if tracer is not None:
            tracer.begin(process.pid)
        reader.start()
        process.stdin.write(b"\n")
        process.stdin.close()
        if tracer is not None:
            tracer.work(lambda: process.poll() is not None)
        process.wait()
        reader.join()
    finally:
        limit.cancel()
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        if tracer is not None:
            tracer.end()
        stdout.close()
    return Outcome(
        process.returncode, b"".join(collected).decode(errors="replace") + output.read_text(errors="replace")
    )

"""The program that tests of mixed sessions trace, and `sonde trace` at work on it."""

from __future__ import annotations

import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from user_running import Running

SRC = Path(__file__).resolve().parents[1] / "src"
SOURCE = r"""
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <sys/wait.h>
#define EXPORT __attribute__((noinline, noclone, used))

EXPORT long work(long a, const char *s) { __asm__ volatile("" ::: "memory"); return a * 2 + (s != 0); }
EXPORT long quiet(long a) { __asm__ volatile("" ::: "memory"); return a; }

static __attribute__((noinline)) void rounds(long n, long pause_us) {
  struct timespec pause = {0, pause_us * 1000};
  for (long i = 0; i < n; i++) {
    work(i, "a text");
    if (pause_us) nanosleep(&pause, 0);
    getppid();
    if (pause_us) nanosleep(&pause, 0);
  }
}

static void *some(void *n) { rounds((long)n, 0); return 0; }

/* So many rounds: in a child (-1), in the next program (-2), in four threads (a number below 0), else here. */
static void run(long n, long how) {
  pthread_t threads[4];
  if (how == -2) execl("/proc/self/exe", "app", (char *)0);
  else if (how == -1) {
    if (!fork()) { rounds(n, 0); _exit(0); }
    wait(0);
  } else if (n < 0) {
    for (int i = 0; i < 4; i++) pthread_create(threads + i, 0, some, (void *)-n);
    for (int i = 0; i < 4; i++) pthread_join(threads[i], 0);
  } else rounds(n, how);
}

int main(int argc, char **argv) {
  char line[100];
  if (argc > 1) { rounds(atol(argv[1]), 0); return 0; }
  setvbuf(stdout, 0, _IOLBF, 0);
  printf("ready\n");
  while (fgets(line, sizeof line, stdin)) {
    long n = 0, pause_us = 0;
    sscanf(line, "%ld %ld", &n, &pause_us);
    run(n, pause_us);
    printf("%ld\n", n);
  }
}
"""


def build(folder: Path) -> str:
    """Compile the program; return its path."""
    if not shutil.which("gcc"):
        pytest.skip("needs gcc")
    if os.uname().machine != "x86_64":
        pytest.skip("the user engine works on x86-64")
    out = str(folder / "app")
    command = ["gcc", "-O1", "-fno-omit-frame-pointer", "-x", "c", "-", "-o", out, "-lpthread"]
    subprocess.run(command, input=SOURCE, text=True, check=True)
    return out


class Traced:
    """`sonde trace` at work; what it said on standard error until it was attached is in `said`."""

    def __init__(self, *words: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "sonde", "trace", *words],
            env={**os.environ, "PYTHONPATH": str(SRC)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert self.process.stderr is not None
        said = b""
        deadline = time.monotonic() + 60
        while b"Attached " not in said:
            ready, _, _ = select.select([self.process.stderr], [], [], max(deadline - time.monotonic(), 0))
            piece = os.read(self.process.stderr.fileno(), 1 << 16) if ready else b""
            if not piece:
                self.process.kill()
                raise AssertionError((said + self.process.communicate()[1]).decode())
            said += piece
        self.said = said.decode()

    def end(self) -> str:
        """End it as Ctrl-C does; return its output."""
        self.process.send_signal(signal.SIGINT)
        out, error = self.process.communicate(timeout=60)
        assert self.process.returncode == 0, error.decode()
        return out.decode()


def traced(app: Running, engine: str, script: str, work: Callable[[Running], object]) -> tuple[str, str]:
    """Trace the program with a script while it works: what was printed, and what was said."""
    words = ("--engine", engine) if engine else ()
    before = descriptors_of(app)
    session = Traced("-v", *words, "-p", str(app.pid), "-e", script.replace("PATH", app.path))
    work(app)
    out = session.end()
    assert app.traces() == [], "nothing of sonde is left in the process"
    assert "bpf-map" not in Path(f"/proc/{app.pid}/maps").read_text() and descriptors_of(app) == before
    return out, session.said


def descriptors_of(app: Running) -> list[str]:
    """The numbers of what the program has open."""
    return sorted(os.listdir(f"/proc/{app.pid}/fd"))

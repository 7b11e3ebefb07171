"""The program that `bench/user.py` and its peers trace: it calls a function, round after round, and prints the nanoseconds of each call.

Nanoseconds are those that the thread was running: what else the machine does takes none of them. A command on a line: calls, threads, 1 for system calls in place of the function.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

SOURCE = r"""
#define _GNU_SOURCE
#include <pthread.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>
#include <sys/syscall.h>
#ifdef LTTNG
#define LTTNG_UST_TRACEPOINT_CREATE_PROBES
#define LTTNG_UST_TRACEPOINT_DEFINE
#include "hit.h"
#define BEGIN lttng_ust_tracepoint(bench, hit, a, b)
#elif defined NOP  /* five bytes in one instruction: what gdb's fast tracepoints need */
#define BEGIN __asm__ volatile(".byte 0x0f, 0x1f, 0x44, 0, 0" ::: "memory")
#else
#define BEGIN __asm__ volatile("" ::: "memory")
#endif

__attribute__((noinline, noclone)) long probed(long a, long b) { BEGIN; return a + b; }
static long (*volatile call)(long, long) = probed;
static double now(void) { struct timespec t; clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t); return t.tv_sec * 1e9 + t.tv_nsec; }
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


class Target:
    """The program at work. `before`: words of a command that runs it. A context manager."""

    def __init__(
        self, path: str, *, before: Sequence[str] = (), environ: dict[str, str] | None = None, own_session: bool = True
    ) -> None:
        """`own_session`: as if another terminal had started it; schedulers that are fair to sessions are so to the tracer then."""
        self.path = path
        self.process = subprocess.Popen(
            [*before, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
            env={**os.environ, **(environ or {})}, start_new_session=own_session,
        )  # fmt: skip

    def say(self, calls: int, threads: int = 1, system_calls: bool = False) -> None:
        assert self.process.stdin
        self.process.stdin.write(f"{calls} {threads} {int(system_calls)}\n")
        self.process.stdin.flush()

    def time(self, calls: int, threads: int = 1, system_calls: bool = False) -> float:
        """Nanoseconds a call, mean over the threads."""
        assert self.process.stdout
        self.say(calls, threads, system_calls)
        return float(self.process.stdout.readline())

    def least(self, calls: int, rounds: int = 9, **how: int) -> float:
        """The least of several rounds."""
        return min(self.time(calls, **how) for _ in range(rounds))

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe
            pipe.close()

    def end(self) -> None:
        """Let it come to its end."""
        assert self.process.stdin
        self.process.stdin.close()
        self.process.wait(20)

    def __enter__(self) -> Target:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def memory_kib(self) -> tuple[int, int]:
        """Resident KiB, and number of threads."""
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        fields = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
        return int(fields["VmRSS"].split()[0]), int(fields["Threads"])


def build(folder: str, name: str = "target", *options: str) -> str:
    """Compile the program into a folder; return its path."""
    path = os.path.join(folder, name)
    command = ["gcc", "-O2", "-I", folder, "-x", "c", "-", "-o", path, "-lpthread", *options]
    subprocess.run(command, input=SOURCE, text=True, check=True)
    return path

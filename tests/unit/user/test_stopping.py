"""Samples where the kernel takes none for this user: threads are stopped for them."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from typing import NoReturn

import pytest
from user_running import Running, at_work, build, total

from sonde.errors import PrivilegeError
from sonde.spec.engine import Sample
from sonde.spec.object import ProbeSpec
from sonde.user.engine import UserEngine, UserObject
from sonde.user.stopped import StoppedProcess
from sonde.user.stopping import StoppingSampler

pytestmark = pytest.mark.skipif(platform.machine() != "x86_64", reason="this engine enters x86-64 processes")
SOURCE = r"""
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <sys/epoll.h>
static volatile long sum, interrupted;
static volatile int stop;
__attribute__((noinline, noclone)) void hot(long n) { for (long i = 0; i < 3 * n; i++) sum += i; }
__attribute__((noinline, noclone)) void warm(long n) { for (long i = 0; i < n; i++) sum += i; }
__attribute__((noinline, noclone)) void both(void) { hot(200000); warm(200000); __asm__ volatile("" ::: "memory"); }
static void *busy(void *nothing) { while (!stop) both(); return 0; }
static void *waits(void *nothing) {
  struct epoll_event event; int none = epoll_create1(0);
  for (;;) if (epoll_wait(none, &event, 1, 1) < 0 && errno == EINTR) interrupted++;
}
int main(void) {
  char line[100]; pthread_t thread, other;
  setvbuf(stdout, 0, _IOLBF, 0);
  pthread_create(&other, 0, waits, 0);
  printf("ready\n");
  while (fgets(line, sizeof line, stdin)) {
    if (!strcmp(line, "begin\n")) { stop = 0; pthread_create(&thread, 0, busy, 0); }
    if (!strcmp(line, "end\n")) { stop = 1; pthread_join(thread, 0); }
    printf("%ld\n", interrupted);
  }
  return 0;
}
"""
SCRIPT = "profile:hz:200 { @[tid, ustack(perf)] = count(); @n = count(); }"
# A filter for seccomp(2) as container engines have it: EPERM for perf_event_open and bpf.
FILTER = ((0x20, 0, 0, 0), (0x15, 1, 0, 298), (0x15, 0, 1, 321), (6, 0, 0, 0x50001), (6, 0, 0, 0x7FFF0000))
CONFINED = f"""
import ctypes, os, struct, sys
code = b"".join(struct.pack("<HBBI", *each) for each in {FILTER!r})
buffer = ctypes.create_string_buffer(code)
program = ctypes.create_string_buffer(struct.pack("<HxxxxxxQ", {len(FILTER)}, ctypes.addressof(buffer)))
libc = ctypes.CDLL(None)
assert libc.prctl(38, 1, 0, 0, 0) == 0 and libc.prctl(22, 2, program, 0, 0) == 0
os.execv(sys.executable, [sys.executable, "-m", "sonde", *sys.argv[1:]])
"""


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> str:
    return build(SOURCE, tmp_path_factory.mktemp("stopping"), "-O1", "-fno-omit-frame-pointer")


@pytest.fixture
def running(program: str) -> Iterator[Running]:
    yield from at_work(program)


def refuse(probe: ProbeSpec) -> NoReturn:
    raise PrivilegeError("the kernel says no")


def attach(running: Running, script: str) -> UserObject:
    spec = running.compile(script)
    loaded = UserEngine(running.pid, None, refuse).load(spec)
    loaded.attach(spec.probes)
    return loaded


def busy_thread(pid: int) -> int:
    return max(map(int, os.listdir(f"/proc/{pid}/task")))


def cpu_time(pid: int, tid: int) -> float:
    with open(f"/proc/{pid}/task/{tid}/schedstat") as file:
        return int(file.read().split()[0]) / 1e9


def test_a_busy_thread_is_sampled_by_the_time_that_it_runs(running: Running) -> None:
    running.ask("begin")
    tid = busy_thread(running.pid)
    probe = ProbeSpec("profile:hz:200", "profile", "", frequency_hz=200, pid=running.pid)
    sampler = StoppingSampler(probe, "x86_64")
    try:
        samples: list[Sample] = []
        before = cpu_time(running.pid, tid)
        end = time.monotonic() + 1.5
        while time.monotonic() < end:
            sampler.drain(samples.append)
            time.sleep(0.0005)
        used = cpu_time(running.pid, tid) - before
    finally:
        sampler.close()
    assert {sample.tid for sample in samples} == {tid}, "others wait"
    assert 0.7 < (len(samples) + sampler.lost) / (200 * used) < 1.2
    span = {name: running.address(name) for name in ("hot", "warm", "busy")}
    where = Counter(
        next((name for name in ("hot", "warm") if span[name] <= sample.chain[0] < span[name] + 64), "")
        for sample in samples
    )
    assert where["hot"] > 1.5 * where["warm"] > 0
    deep = [
        sample for sample in samples if len(sample.chain) > 1 and span["busy"] <= sample.chain[1] < span["busy"] + 64
    ]
    assert len(deep) > len(samples) // 2, (
        "frame pointers lead to who called `both`: what calls nobody has no frame of its own"
    )
    assert all(sample.period == 5_000_000 and len(sample.registers) == 168 and sample.stack for sample in samples)
    assert running.ask("end") == 0, "nobody's call was interrupted"


def test_the_script_runs_on_such_samples_and_it_is_said(running: Running) -> None:
    running.ask("begin")
    with attach(running, SCRIPT) as loaded:
        assert loaded.worker is not None
        assert any("threads are stopped for samples" in note and "says no" in note for note in loaded.notes)
        end = time.monotonic() + 0.5
        while time.monotonic() < end:
            loaded.worker.work()
            time.sleep(0.001)
        assert total(loaded, "percpu") > 10
        assert all(
            int.from_bytes(key[:8], "little") == busy_thread(running.pid) for key, _ in loaded.maps["AT_"].items()
        )
    assert running.ask("end") == 0


def test_what_only_the_kernel_counts_is_refused(running: Running) -> None:
    with pytest.raises(PrivilegeError, match="the kernel says no"):
        attach(running, "software:page-faults:1 { @ = count(); }")


def test_threads_that_end_and_a_process_that_ends(running: Running) -> None:
    probe = ProbeSpec("profile:hz:1000", "profile", "", frequency_hz=1000, pid=running.pid)
    sampler = StoppingSampler(probe, "x86_64")
    samples: list[Sample] = []
    try:
        for _ in range(20):
            running.ask("begin")
            sampler.look()
            for _ in range(5):
                time.sleep(0.002)
                sampler.drain(samples.append)
            running.ask("end")
        running.ask("begin")
        sampler.look()
        running.process.kill()
        running.process.wait()
        for _ in range(5):
            time.sleep(0.002)
            sampler.drain(samples.append)
        assert not sampler.look() and samples
    finally:
        sampler.close()


def test_one_thread_is_stopped_and_no_other(running: Running) -> None:
    running.ask("begin")
    tid = busy_thread(running.pid)
    with StoppedProcess(running.pid, thread=tid) as stopped:
        assert stopped.threads == [tid]
        assert running.ask("") == 0, "the first one answers"
        before = cpu_time(running.pid, tid)
        time.sleep(0.02)
        assert cpu_time(running.pid, tid) == before
    assert running.ask("end") == 0


def test_from_the_command_line_where_the_kernel_gives_nothing(running: Running) -> None:
    """As in a container: neither bpf(2) nor perf events."""
    running.ask("begin")
    words = ["trace", "--engine", "user", "-p", str(running.pid), "-e", SCRIPT + " interval:s:1 { exit(); }"]
    found = subprocess.run([sys.executable, "-c", CONFINED, *words], capture_output=True, text=True, timeout=60)
    assert found.returncode == 0, found.stderr
    assert "busy" in found.stdout and "hot" in found.stdout
    assert int(found.stdout.partition("@n: ")[2].split()[0]) > 50
    assert "threads are stopped for samples" in found.stderr
    assert running.ask("end") == 0

"""Overhead budgets: every hit is looked at or counted as passed over, entry and return together, and the user is told."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from user_running import Running, at_work, build

from sonde.user.budget import Budget, Limit
from sonde.user.engine import UserObject

SOURCE = r"""
#define _GNU_SOURCE
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#define EXPORT __attribute__((noinline, noclone, used))
EXPORT long work(long a) { __asm__ volatile("" ::: "memory"); return a * 2; }
EXPORT long other(long a) { __asm__ volatile("" ::: "memory"); return a * 3; }
EXPORT long depth(long n) { long r = n ? depth(n - 1) : 0; __asm__ volatile("" ::: "memory"); return r + 1; }
EXPORT long flags(long a, long b) {
  long r = 7;
  __asm__ volatile("cmp %2, %1\n.globl inside\ninside: nopl 0x0(%%rax,%%rax)\n jae 1f\n mov $1, %0\n1:" : "+r"(r) : "r"(a), "r"(b) : "cc");
  return r;
}
static void *many(void *count) { for (long i = 0; i < (long)count; i++) work(i); return 0; }
int main(void) {
  char line[100];
  setvbuf(stdout, 0, _IOLBF, 0);
  printf("ready\n");
  while (fgets(line, sizeof line, stdin)) {
    char what[20]; long n = 0, result = 0;
    sscanf(line, "%19s %ld", what, &n);
    if (!strcmp(what, "work")) for (long i = 0; i < n; i++) result += work(i);
    if (!strcmp(what, "other")) for (long i = 0; i < n; i++) result += other(i);
    if (!strcmp(what, "depth")) result = depth(n);
    if (!strcmp(what, "flags")) for (long i = 0; i < n; i++) result += flags(1, 2) + flags(2, 1) + flags(3, 3);
    if (!strcmp(what, "calls")) for (long i = 0; i < n; i++) { getppid(); result += syscall(SYS_close, -1 - i) == -1; }
    if (!strcmp(what, "threads")) {
      pthread_t t[4];
      for (int i = 0; i < 4; i++) pthread_create(&t[i], 0, many, (void *)n);
      for (int i = 0; i < 4; i++) pthread_join(t[i], 0);
    }
    if (!strcmp(what, "fork")) {
      if (!fork()) { many((void *)n); _exit(0); }
      wait(0);
    }
    printf("%ld\n", result);
  }
  return 0;
}
"""


@pytest.fixture(scope="module", params=["-O1", "-O2 -static"])
def program(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    return build(SOURCE, tmp_path_factory.mktemp("budget"), *request.param.split())


@pytest.fixture
def running(program: str) -> Iterator[Running]:
    yield from at_work(program)


def counted(loaded: UserObject, place: int = 0) -> int:
    """What `@ = count()` has, or the script's second or third such map."""
    values = loaded.maps["percpu"].lookup(bytes(4)) or []
    return sum(int.from_bytes(value[8 * place : 8 * place + 8], "little") for value in values)


def told(loaded: UserObject) -> dict[tuple[str, ...], tuple[int, int]]:
    """Hits that were looked at and passed over, by the names of the probes, as the rows say."""
    sums: dict[tuple[str, ...], tuple[int, int]] = {}
    for row in loaded.rows:
        names = tuple(name.rpartition(":")[2] for name in row.event.get_param("probes"))
        seen, passed = sums.get(names, (0, 0))
        sums[names] = seen + row.values[0], passed + row.values[1]
    return sums


def test_every_hit_is_looked_at_or_counted(running: Running) -> None:
    answer = running.ask("work 10000")
    with running.attach("uprobe:PATH:work { @ = count(); }", Limit(100)) as loaded:
        assert running.ask("work 60") == sum(2 * n for n in range(60))
        assert counted(loaded) == 60  # nothing is allowed meanwhile: nobody calls `look`
        assert running.ask("work 10000") == answer
        assert counted(loaded) == 100
        loaded.detach()
        assert told(loaded) == {("work",): (100, 9960)}


def test_time_allows_more(running: Running) -> None:
    with running.attach("uprobe:PATH:work { @ = count(); }", Limit(5000)) as loaded:
        calls = 0
        while counted(loaded) < 8000:
            running.ask("work 20000")
            calls += 20000
            loaded.look()
        loaded.detach()
        seen, passed = told(loaded)[("work",)]
        assert (counted(loaded), passed) == (seen, calls - seen)


def test_entry_and_return_are_thinned_together(running: Running) -> None:
    script = "uprobe:PATH:depth { @s[arg0] = count(); @ = count(); } uretprobe:PATH:depth { @r = count(); }"
    with running.attach(script, Limit(30)) as loaded:
        assert running.ask("depth 1000") == 1001
        assert (counted(loaded), counted(loaded, 1)) == (30, 30)
        assert sorted(int.from_bytes(key, "little") for key, _ in loaded.maps["AT_s"].items()) == list(range(971, 1001))
        loaded.detach()
        assert [(sorted(names), counts) for names, counts in told(loaded).items()] == [(["depth", "depth"], (30, 971))]


def test_threads_and_children_share_a_budget_and_lose_no_count(running: Running) -> None:
    with running.attach(
        "uprobe:PATH:work { @ = count(); } uretprobe:PATH:work { @r = count(); }", Limit(1000)
    ) as loaded:
        running.ask("threads 50000")
        running.ask("fork 5000")
        assert counted(loaded) == counted(loaded, 1)
        assert 1000 <= counted(loaded) <= 1004  # four threads may come to the last one at the same time
        loaded.detach()
        assert told(loaded) == {("work", "work"): (counted(loaded), 205000 - counted(loaded))}


def test_each_probe_has_its_own(running: Running) -> None:
    with running.attach("uprobe:PATH:work { @ = count(); } uprobe:PATH:other { @o = count(); }", Limit(100)) as loaded:
        running.ask("work 500")
        running.ask("other 70")
        assert (counted(loaded), counted(loaded, 1)) == (100, 70)
        loaded.detach()
        assert told(loaded) == {("work",): (100, 400)}


def test_flags_survive_both_ways(running: Running) -> None:
    expected = running.ask("flags 1000")
    symbols = subprocess.run(["nm", running.path], capture_output=True, text=True, check=True).stdout
    place = next("0x" + line.split()[0] for line in symbols.splitlines() if line.endswith(" inside"))
    with running.attach(f"uprobe:PATH:{place} {{ @ = count(); }}", Limit(1000)) as loaded:
        assert running.ask("flags 1000") == expected
        assert counted(loaded) == 1000
        loaded.detach()
        assert [passed for _, passed in told(loaded).values()] == [2000]


def test_system_calls(running: Running) -> None:
    script = """
    tracepoint:syscalls:sys_enter_close { @ = count(); }
    tracepoint:syscalls:sys_exit_close { @r = count(); }
    tracepoint:syscalls:sys_enter_getppid { @p = count(); }
    """
    with running.attach(script, Limit(50)) as loaded:
        assert running.ask("calls 40") == 40
        assert [counted(loaded, place) for place in range(3)] == [40, 40, 40]
        assert running.ask("calls 400") == 400
        assert [counted(loaded, place) for place in range(3)] == [50, 50, 50]
        loaded.detach()
        assert told(loaded) == {("sys_enter_close", "sys_exit_close"): (50, 390), ("sys_enter_getppid",): (50, 390)}


def test_all_system_calls(running: Running) -> None:
    script = "tracepoint:raw_syscalls:sys_enter { @ = count(); } tracepoint:raw_syscalls:sys_exit { @r = count(); }"
    with running.attach(script, Limit(20)) as loaded:
        assert running.ask("calls 100") == 100
        assert counted(loaded) == 20
        assert counted(loaded, 1) == 20
        running.ask("fork 1")  # looked at by sonde itself, as a child may begin, and so by these
        assert counted(loaded) == counted(loaded, 1) == 21
        loaded.detach()
        assert sum(passed for _, passed in told(loaded).values()) > 180


def test_a_probe_that_fires_too_often_is_switched_off(running: Running) -> None:
    before = running.text()
    with running.attach(
        "uprobe:PATH:work { @ = count(); } uprobe:PATH:other { @o = count(); }", Limit(100, off=True)
    ) as loaded:
        both = running.text()
        running.ask("work 500")
        while not loaded.rows:
            loaded.look()
        assert before != running.text() != both  # one of the two is out
        (row,) = loaded.rows
        assert row.event.get_param("off") and row.values[:3] == (100, 400, 400)
        running.ask("work 500")
        running.ask("other 100")
        assert (counted(loaded), counted(loaded, 1)) == (100, 100)
        loaded.detach()
        assert len(loaded.rows) == 1
        assert running.text() == before
    assert not running.traces()


def test_allowances_and_accounts() -> None:
    budget = Budget(Limit(1000), ["a", "b", "a"], 2)
    gates = budget.gates
    assert gates.probes == 2
    words = memoryview(bytearray(gates.size)).cast("Q")
    budget.open(words, 0)
    assert words[0] == 1000
    assert budget.tick(500_000_000) == [] and words[0] == 1500
    words[gates.looked_at(0) // 8] += 1000
    words[gates.passed_over(0) // 8] = 4
    words[(gates.passed_over(0) + gates.stride) // 8] = 3
    budget.tick(1_500_000_000)
    (row,) = budget.rows
    assert (row.event.get_param("probes"), row.values) == (("a",), (1000, 7, 7, 1.5))
    assert words[gates.looked_at(1) // 8] == 1500  # what it did not use in that time is gone
    words[(gates.passed_over(1) + gates.stride) // 8] = 5
    words[gates.looked_at(1) // 8] += 10
    budget.report(3_500_000_000)
    assert [(row.event.get_param("probes"), row.values) for row in budget.rows[1:]] == [(("b",), (10, 5, 5, 2.0))]


def trace(*words: str) -> subprocess.CompletedProcess[str]:
    source = str(Path(__file__).resolve().parents[3] / "src")
    command = [sys.executable, "-m", "sonde", "trace", *words]
    return subprocess.run(command, env={**os.environ, "PYTHONPATH": source}, capture_output=True, text=True, timeout=60)


@pytest.fixture
def busy(tmp_path: Path) -> str:
    """A command that calls `hit` a million times."""
    if not shutil.which("gcc"):
        pytest.skip("needs gcc")
    text = '__attribute__((noinline, noclone)) void hit(void) { __asm__ volatile(""); }\n'
    text += "int main(void) { for (int i = 0; i < 1000000; i++) hit(); }\n"
    path = str(tmp_path / "busy")
    subprocess.run(["gcc", "-O1", "-g", "-x", "c", "-", "-o", path], input=text, text=True, check=True)
    return path


def test_the_user_is_told(busy: str) -> None:
    script = f"uprobe:{busy}:hit {{ @ = count(); }}"
    done = trace("--budget", "2k", "-c", busy, "-e", script)
    seen = int(done.stdout.split("@:")[1])
    assert seen >= 2000
    assert f"uprobe:{busy}:hit fired " in done.stderr and "over the budget of 2,000: 1 hit in " in done.stderr
    assert f"{1000000 - seen:,} hits in all were not looked at" in done.stderr
    lines = [
        json.loads(line) for line in trace("-f", "json", "--budget", "2k", "-c", busy, "-e", script).stdout.splitlines()
    ]
    rows = [line["data"] for line in lines if line["type"] == "thinned"]
    (seen,) = [line["data"]["@"] for line in lines if line["type"] == "map"]
    assert rows and {(row["budget"], row["off"], *row["probes"]) for row in rows} == {
        (2000, False, f"uprobe:{busy}:hit")
    }
    assert sum(row["not_seen"] for row in rows) == rows[-1]["not_seen_in_all"] == 1000000 - seen


def test_what_cannot_be(busy: str) -> None:
    script = f"uprobe:{busy}:hit {{ @ = count(); }}"
    for words, found in (
        (("--engine", "kernel", "--budget", "10", "-c", busy, "-e", script), "--budget is the user engine's"),
        (("--budget", "many", "-c", busy, "-e", script), "not 'many'"),
        (("--budget", "0", "-c", busy, "-e", script), "not '0'"),
        (("--budget", "10", "-c", busy, "-e", "profile:hz:99 { @ = count(); }"), "there is none"),
        (("--budget", "10", "--over-budget", "louder", "-c", busy, "-e", script), "thin, off"),
    ):
        done = trace(*words)
        assert done.returncode == 2 and found in done.stderr, done.stderr

"""Tail calls of C programs inside a process: arrays of programs that are filled by name."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from user_running import Running

from sonde.api.trace import TraceOptions, compile, live_target
from sonde.errors import FormatError
from sonde.lang.source import Source
from sonde.user.engine import UserEngine, UserObject
from sonde.user.target import user_target

TRACED = r"""
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#define EXPORT __attribute__((noinline, noclone, used))
enum { ASK = 100, TELL, ANSWER, HEAR }; /* pipes to and from a child, which outlive exec */
EXPORT long work(long a) { __asm__ volatile("" ::: "memory"); return a * 2; }
static long many(long n) { long sum = 0; for (long i = 0; i < n; i++) sum += work(i); return sum; }
int main(int count, char **words) {
  char what[20];
  long n;
  int ends[2];
  setvbuf(stdin, 0, _IONBF, 0);
  setvbuf(stdout, 0, _IOLBF, 0);
  printf(count > 1 ? "0\n" : "ready\n");
  while (scanf("%19s %ld", what, &n) == 2) {
    long result = 0;
    if (!strcmp(what, "work")) result = many(n);
    if (!strcmp(what, "exec")) { char *again[] = {"target", "again", 0}; execv("/proc/self/exe", again); }
    if (!strcmp(what, "fork")) {
      if (pipe(ends) || dup2(ends[0], ASK) < 0 || dup2(ends[1], TELL) < 0 || close(ends[0]) || close(ends[1])) return 1;
      if (pipe(ends) || dup2(ends[0], HEAR) < 0 || dup2(ends[1], ANSWER) < 0 || close(ends[0]) || close(ends[1])) return 1;
      result = fork();
      if (!result) {
        close(TELL);
        while (read(ASK, &n, sizeof n) == sizeof n) { n = many(n); if (write(ANSWER, &n, sizeof n) != sizeof n) break; }
        _exit(0);
      }
      close(ASK);
    }
    if (!strcmp(what, "child") && (write(TELL, &n, sizeof n) != sizeof n || read(HEAR, &result, sizeof n) != sizeof n)) return 1;
    printf("%ld\n", result);
  }
  return 0;
}
"""

PROGRAMS = """
#include <vmlinux.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
char LICENSE[] SEC("license") = "GPL";
int second(struct pt_regs *ctx);
int again(struct pt_regs *ctx);
struct {
  __uint(type, BPF_MAP_TYPE_PROG_ARRAY); __uint(max_entries, 4); __uint(key_size, 4); __array(values, int (void *));
} next SEC(".maps") = { .values = { [1] = (void *)&second, [3] = (void *)&again } };
struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 4); __type(key, __u32); __type(value, __u64); } counts SEC(".maps");
static void add(__u32 key, __u64 n) { __u64 *v = bpf_map_lookup_elem(&counts, &key); if (v) __sync_fetch_and_add(v, n); }

SEC("uprobe/PATH:work") int first(struct pt_regs *ctx) {
  add(0, 1);
  bpf_tail_call(ctx, &next, PT_REGS_PARM1(ctx) % 5);
  add(1, 1); /* there is none at 0 and 2, and no place 4 */
  return 0;
}
SEC("uprobe") int second(struct pt_regs *ctx) { add(2, PT_REGS_PARM1(ctx)); return 0; }
SEC("uprobe") int again(struct pt_regs *ctx) { add(3, 1); bpf_tail_call(ctx, &next, 3); return 0; }
"""


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    if not shutil.which("gcc"):
        pytest.skip("needs gcc")
    path = str(tmp_path / "target")
    subprocess.run(["gcc", "-O1", "-g", "-x", "c", "-", "-o", path], input=TRACED, text=True, check=True)
    found = Running(path)
    yield found
    found.close()


def load(running: Running, text: str = PROGRAMS) -> UserObject:
    source = Source("x.bpf.c", text.replace("PATH", running.path))
    spec = compile(source, user_target(live_target()), TraceOptions(pid=running.pid))
    loaded = UserEngine(running.pid).load(spec)
    loaded.attach(spec.probes)
    return loaded


def counts(loaded: UserObject) -> list[int]:
    return [int.from_bytes(values[0], "little") for _, values in loaded.maps["counts"].items()]


def test_arrays_that_are_filled_by_name(running: Running) -> None:
    before, answer = running.text(), running.ask("work 10")
    with load(running) as loaded:
        assert running.ask("work 10") == answer
        assert counts(loaded) == [10, 6, 1 + 6, 2 * 33]  # as often as a kernel would let it
    assert running.text() == before and not running.traces()


def test_a_program_that_the_object_does_not_have(running: Running) -> None:
    spec = compile(
        Source("x.bpf.c", PROGRAMS.replace("PATH", running.path)),
        user_target(live_target()),
        TraceOptions(pid=running.pid),
    )
    from sonde.record import replace

    spec = replace(spec, programs=tuple(program for program in spec.programs if program.name != "second"))
    with pytest.raises(FormatError, match="'second'"):
        UserEngine(running.pid).load(spec)
    assert not running.traces()


def test_a_child_goes_on_when_its_parent_has_become_another_program(running: Running) -> None:
    """The addresses in an array are those of one program's memory: the child keeps its own."""
    with load(running) as loaded:
        running.ask("fork 0")
        assert running.ask("child 10") == 90
        before = counts(loaded)
        running.ask("exec 0")
        deadline = time.monotonic() + 20
        while counts(loaded)[0] == before[0]:
            assert time.monotonic() < deadline, "the next program was not probed within 20 seconds"
            loaded.look()
            running.ask("work 1")
        before = counts(loaded)
        assert running.ask("work 10") == 90 and running.ask("child 10") == 90
        assert [b - a for a, b in zip(before, counts(loaded))] == [20, 12, 14, 132]
    assert running.ask("work 10") == 90 and running.ask("child 10") == 90
    assert not running.traces()

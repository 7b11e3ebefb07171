"""Programs that change what a process does: override() and write_user(), for who asks for it by --unsafe, and gone when sonde is."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from user_running import Running, at_work, build, total

from sonde.api.trace import TraceOptions, compile, live_target
from sonde.errors import CompileError, ProbeError, UnsafeError, UsageError
from sonde.lang.source import Source
from sonde.user.budget import Limit
from sonde.user.cleaning import remove_agents
from sonde.user.engine import UserEngine, UserObject
from sonde.user.owner import find_head, word_at
from sonde.user.target import user_target

SOURCE = r"""
#define _GNU_SOURCE
#include <pthread.h>
#include <setjmp.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#define EXPORT __attribute__((noinline, noclone, used))
static long runs;
static char *pages; /* one to be written to, one to be read, one of neither, one to be written to */
static const char fixed[] = "a constant";
struct { int before, value, after; } words = {-1, 0, -1};
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

EXPORT long work(long a) { __atomic_add_fetch(&runs, 1, __ATOMIC_SEQ_CST); return a * 2; }
EXPORT long depth(long n) { long r = n ? depth(n - 1) : 0; __asm__ volatile("" ::: "memory"); return r + 1; }
EXPORT long place(void *at, long size) { __asm__ volatile("" ::: "memory"); return size; }
EXPORT long calls(long n) { pthread_mutex_lock(&lock); long r = work(n) + 1; pthread_mutex_unlock(&lock); return r; }
EXPORT long flags(long a) { __asm__ volatile(".globl inside\ninside: nopl 0x0(%rax,%rax)"); return a; }
static void *many(void *count) { long sum = 0; for (long i = 0; i < (long)count; i++) sum += calls(i); return (void *)sum; }

int main(void) {
  char line[100];
  long size = sysconf(_SC_PAGESIZE);
  setvbuf(stdout, 0, _IOLBF, 0);
  pages = mmap(0, 4 * size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  memset(pages, 'x', 4 * size);
  mprotect(pages + size, size, PROT_READ);
  mprotect(pages + 2 * size, size, PROT_NONE);
  printf("ready\n");
  while (fgets(line, sizeof line, stdin)) {
    char what[20]; long n = 0, result = 0, before = runs;
    sscanf(line, "%19s %ld", what, &n);
    if (!strcmp(what, "work")) for (long i = 0; i < n; i++) result += work(i);
    if (!strcmp(what, "ran")) { for (long i = 0; i < n; i++) work(i); result = runs - before; }
    if (!strcmp(what, "depth")) result = depth(n);
    if (!strcmp(what, "calls")) result = calls(n);
    if (!strcmp(what, "flags")) result = flags(n);
    if (!strcmp(what, "page")) { place(pages + n * size, 8); result = pages[n * size]; }
    if (!strcmp(what, "peek")) result = pages[n];
    if (!strcmp(what, "at")) place(pages + n, 8);
    if (!strcmp(what, "fixed")) { place((void *)fixed, 8); result = fixed[0]; }
    if (!strcmp(what, "code")) place((void *)work, 8);
    if (!strcmp(what, "nowhere")) { place((void *)n, 8); place((void *)(-n - 1), 8); }
    if (!strcmp(what, "word")) { place(&words.value, 4); result = words.before == -1 && words.after == -1 ? words.value : -1; }
    if (!strcmp(what, "threads")) {
      pthread_t t[4];
      void *sum;
      for (int i = 0; i < 4; i++) pthread_create(&t[i], 0, many, (void *)n);
      for (int i = 0; i < 4; i++) { pthread_join(t[i], &sum); result += (long)sum; }
    }
    printf("%ld\n", result);
  }
  return 0;
}
"""


@pytest.fixture(scope="module", params=["-O1", "-O2 -static", "-O2 -fcf-protection=full"])
def program(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    return build(SOURCE, tmp_path_factory.mktemp("unsafe"), *request.param.split())


@pytest.fixture
def running(program: str) -> Iterator[Running]:
    yield from at_work(program)


def test_a_function_is_replaced_and_back_again(running: Running) -> None:
    before, answer = running.text(), running.ask("work 100")
    with running.attach("uprobe:PATH:work { @ = count(); override(7); }", unsafe=True) as loaded:
        assert running.ask("work 100") == 700
        assert running.ask("ran 50") == 0  # it did not run
        assert total(loaded, "percpu") == 150
        loaded.detach()
        assert running.ask("work 100") == answer
        assert running.ask("ran 50") == 50
    assert running.text() == before and not running.traces()


def test_only_those_calls_that_the_program_wants(running: Running) -> None:
    with running.attach("uprobe:PATH:work { if (arg0 % 2) { override(arg0 * 1000 - 5); } }", unsafe=True):
        assert running.ask("work 10") == sum(n * 1000 - 5 if n % 2 else 2 * n for n in range(10))
        assert running.ask("ran 10") == 5


def test_all_programs_at_a_place_run(running: Running) -> None:
    script = "uprobe:PATH:work { @a = count(); } uprobe:PATH:work { override(1); } uprobe:PATH:work { @b = count(); }"
    with running.attach(script, unsafe=True) as loaded:
        assert running.ask("work 10") == 10
        values = loaded.maps["percpu"].lookup(bytes(4)) or []
        assert [sum(int.from_bytes(v[at : at + 8], "little") for v in values) for at in (0, 8)] == [10, 10]


def test_what_a_function_returns_is_replaced(running: Running) -> None:
    with running.attach("uretprobe:PATH:work { override(retval + 1); }", unsafe=True):
        assert running.ask("work 10") == sum(2 * n + 1 for n in range(10))
        assert running.ask("ran 10") == 10
    assert running.ask("work 10") == sum(2 * n for n in range(10))


def test_a_return_probe_sees_the_value_of_a_function_that_did_not_run(running: Running) -> None:
    script = "uprobe:PATH:depth { if (arg0 == 990) { override(5); } } uretprobe:PATH:depth { @[retval] = count(); @n = count(); }"
    with running.attach(script, unsafe=True) as loaded:
        assert running.ask("depth 1000") == 15
        counts = {int.from_bytes(key, "little"): total(loaded, "AT_", key) for key, _ in loaded.maps["AT_"].items()}
        assert counts == dict.fromkeys(range(5, 16), 1)
        assert total(loaded, "percpu") == 11
    assert running.ask("depth 1000") == 1001


def test_entry_and_return_both_override(running: Running) -> None:
    script = "uprobe:PATH:work { if (arg0 > 4) { override(100); } } uretprobe:PATH:work { override(retval + 1); }"
    with running.attach(script, unsafe=True):
        assert running.ask("work 10") == sum(101 if n > 4 else 2 * n + 1 for n in range(10))


def test_threads(running: Running) -> None:
    with running.attach(
        "uprobe:PATH:work { override(4); } uretprobe:PATH:calls { override(retval * 2); }", unsafe=True
    ):
        assert running.ask("threads 20000") == 4 * 20000 * 10
    assert running.ask("threads 100") == 4 * sum(2 * n + 1 for n in range(100))


def test_memory_of_the_process_is_written(running: Running) -> None:
    size = os.sysconf("SC_PAGESIZE")
    script = 'uprobe:PATH:place { @[write_user(arg0, "ABCDEFGHIJKLMNO", 15)] = count(); }'
    with running.attach(script, unsafe=True) as loaded:
        assert running.ask("page 0") == ord("A")
        assert [running.ask(f"peek {n}") for n in (13, 14, 15, 16)] == [*b"NOxx"]
        running.ask(f"at {size - 15}")
        assert running.ask(f"peek {size - 1}") == ord("O")
        assert [int.from_bytes(key, "little", signed=True) for key, _ in loaded.maps["AT_"].items()] == [0]


def test_a_number_is_written_as_wide_as_it_is(running: Running) -> None:
    with running.attach("uprobe:PATH:place { @[write_user(arg0, 123456789, 4)] = count(); }", unsafe=True):
        assert running.ask("word") == 123456789


def test_what_cannot_be_written_is_an_error_of_the_program_and_harms_nobody(running: Running) -> None:
    size = os.sysconf("SC_PAGESIZE")
    before = running.text()
    with running.attach('uprobe:PATH:place { @[write_user(arg0, "ABCDEFGH", 8)] = count(); }', unsafe=True) as loaded:
        patched = running.text()
        assert running.ask("page 1") == ord("x")  # only to be read
        assert running.ask("fixed") == ord("a")
        running.ask("code")
        assert running.text() == patched
        running.ask("nowhere 0")  # twice: also the last byte of all
        running.ask("nowhere 4096")
        running.ask(f"at {2 * size}")
        running.ask(f"at {3 * size - 4}")  # begins where nothing may be read
        running.ask(f"at {size - 4}")  # its end may not be written to: then its beginning is not
        assert running.ask(f"peek {size - 4}") == ord("x")
        counts = {
            int.from_bytes(key[:8], "little", signed=True): total(loaded, "AT_", key)
            for key, _ in loaded.maps["AT_"].items()
        }
        assert counts == {-14: 10}
    assert running.text() == before


def test_who_did_not_ask_for_it_is_refused(running: Running) -> None:
    for script in ("uprobe:PATH:work { override(1); }", "uprobe:PATH:place { write_user(arg0, 1, 4); }"):
        with pytest.raises(CompileError, match="unsafe function") as refusal:
            running.attach(script)
        assert "--unsafe" in refusal.value.diagnostics[0].hint
        spec = running.compile(script, unsafe=True)
        with pytest.raises(UnsafeError, match="changes what the process does") as late:
            UserEngine(running.pid).load(spec)
        assert "--unsafe" in late.value.hint
    assert not running.traces()


C_PROGRAM = """
#include <vmlinux.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
char LICENSE[] SEC("license") = "GPL";
SEC("uprobe/PATH:work") int BPF_KPROBE(replace) { bpf_override_return(ctx, 9); return 0; }
SEC("uprobe/PATH:place") int BPF_KPROBE(change, void *at) { int one = 1; return bpf_probe_write_user(at, &one, 4); }
"""


def test_a_program_in_c(running: Running) -> None:
    def load(unsafe: bool) -> UserObject:
        target = user_target(live_target(), unsafe=unsafe)
        source = Source("x.bpf.c", C_PROGRAM.replace("PATH", running.path))
        spec = compile(source, target, TraceOptions(pid=running.pid))
        loaded = UserEngine(running.pid, unsafe=unsafe).load(spec)
        loaded.attach(spec.probes)
        return loaded

    with pytest.raises(UnsafeError, match="changes what the process does"):
        load(False)
    with load(True):
        assert running.ask("work 10") == 90
        assert running.ask("word") == 1


def test_only_functions_are_replaced(running: Running) -> None:
    symbols = subprocess.run(["nm", running.path], capture_output=True, text=True, check=True).stdout
    place = next("0x" + line.split()[0] for line in symbols.splitlines() if line.endswith(" inside"))
    with pytest.raises(ProbeError, match="replaces functions"):
        running.attach(f"uprobe:PATH:{place} {{ override(1); }}", unsafe=True)
    with pytest.raises(CompileError, match="can not be used with"):
        running.attach("tracepoint:syscalls:sys_enter_close { override(1); }", unsafe=True)
    with pytest.raises(UsageError, match="--budget"):
        running.attach("uprobe:PATH:work { override(1); }", Limit(100), unsafe=True)
    assert running.ask("flags 3") == 3 and not running.traces()


def test_it_ends_when_sonde_is_killed(program: str) -> None:
    source = str(Path(__file__).resolve().parents[3] / "src")
    running = Running(program)
    try:
        script = f'uprobe:{program}:work {{ override(1); }} uprobe:{program}:place {{ write_user(arg0, "A", 1); }}'
        command = [sys.executable, "-m", "sonde", "trace", "--engine", "user", "--unsafe", "-p", str(running.pid)]
        with subprocess.Popen([*command, "-e", script], env={**os.environ, "PYTHONPATH": source}) as traced:
            while running.ask("work 10") != 10:
                assert traced.poll() is None
            assert running.ask("page 0") == ord("A")
            traced.kill()
        assert running.ask("work 10") == 90
        assert running.ask("page 3") == ord("x")
        assert remove_agents(running.pid)[0].sites >= 2  # probes, and halts of our own
        assert running.ask("work 10") == 90 and not running.traces()
    finally:
        running.close()


def test_it_ends_with_the_thread_that_began_it(running: Running) -> None:
    loaded: list[UserObject] = []
    answers: list[int] = []

    def begin() -> None:
        loaded.append(running.attach("uprobe:PATH:work { override(1); }", unsafe=True))
        answers.append(running.ask("work 10"))

    thread = threading.Thread(target=begin)
    thread.start()
    thread.join()
    while Path(f"/proc/self/task/{thread.native_id}").exists():
        time.sleep(0.001)
    assert answers == [10] and running.ask("work 10") == 90
    loaded[0].close()
    assert running.ask("work 10") == 90


def test_the_list_of_the_thread_is_as_before(program: str) -> None:
    head = find_head()
    before = word_at(head).value
    several = [Running(program) for _ in range(3)]
    try:
        loaded = [each.attach("uprobe:PATH:work { override(1); }", unsafe=True) for each in several]
        for at in (1, 0, 2):  # the middle, the last, the first
            assert [each.ask("work 10") for each in several].count(10) == 3 - (1, 0, 2).index(at)
            loaded[at].close()
            assert several[at].ask("work 10") == 90
        assert word_at(head).value == before
        assert word_at((before & ~1) - 8).value in (0, head)  # its way back, too
    finally:
        for each in several:
            each.close()


def test_the_command_line(program: str) -> None:
    source = str(Path(__file__).resolve().parents[3] / "src")
    running = Running(program)
    try:
        script = f"uprobe:{program}:work {{ override(1); exit(); }}"

        def trace(*words: str) -> subprocess.Popen[str]:
            command = [sys.executable, "-m", "sonde", "trace", *words, "-p", str(running.pid), "-e", script]
            return subprocess.Popen(
                command, env={**os.environ, "PYTHONPATH": source}, stderr=subprocess.PIPE, text=True
            )

        refused = trace("--engine", "user")
        _, text = refused.communicate(timeout=60)
        assert refused.returncode == 1 and "--unsafe" in text
        traced = trace("--engine", "user", "--unsafe")
        while running.ask("work 10") != 10:
            assert traced.poll() is None, traced.communicate()
        assert traced.wait(60) == 0
        traced.communicate()
        assert running.ask("work 10") == 90
    finally:
        running.close()

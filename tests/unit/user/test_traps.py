"""Breakpoints where no jump fits: a handler of ours in the process, which leaves the program's own in place."""

from __future__ import annotations

import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from user_running import Running, at_work, build, total

from sonde.errors import ProbeError
from sonde.user.cleaning import remove_agents
from sonde.user.engine import UserEngine, UserObject

pytestmark = pytest.mark.skipif(platform.machine() != "x86_64", reason="these probes are x86-64 code")
SOURCE = r"""
#define _GNU_SOURCE
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#define EXPORT __attribute__((noinline, noclone, used))
/* Something leads to the byte behind the probe's; and a jump of one byte, whose distance are the next four, would lead to the program's own data. */
long tight(long n);
__asm__(".text\n.p2align 4\n.globl tight\n.type tight,@function\ntight:\n xor %eax, %eax\n push %rdi\n jmp 2f\n"
        "spot: nop\n2: mov $0x10, %ecx\n inc %rax\n cmp %rax, %rdi\n ja spot\n pop %rdi\n ret\n.size tight,.-tight\n");
/* getppid, n times: something leads to the call and behind it, and what jumps of two bytes would lead to is `filler`. */
long calls(long n);
__asm__(".text\n.p2align 4\n.globl calls\n.type calls,@function\ncalls:\n push %rbx\n mov %rdi, %r8\n jmp 2f\n"
        "1: syscall\n2: mov $0, %ecx\n mov $110, %eax\n dec %r8\n jns 1b\n pop %rbx\n ret\n.size calls,.-calls\n");
static volatile char filler[1 << 20];
static volatile long trapped;
static void handler(int number, siginfo_t *info, void *context) { trapped++; }
static void *many(void *count) { return (void *)tight((long)count); }
int main(void) {
  char line[100];
  setvbuf(stdout, 0, _IOLBF, 0);
  printf("ready\n");
  while (fgets(line, sizeof line, stdin)) {
    char what[20]; long n = 0, result = 0;
    sscanf(line, "%19s %ld", what, &n);
    if (!strcmp(what, "tight")) result = tight(n);
    if (!strcmp(what, "calls")) { filler[n] = 1; result = calls(n); }
    if (!strcmp(what, "own")) { struct sigaction act = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO}; sigaction(SIGTRAP, &act, 0); }
    if (!strcmp(what, "int3")) { for (long i = 0; i < n; i++) __asm__ volatile("int3"); result = trapped; }
    if (!strcmp(what, "kill")) { for (long i = 0; i < n; i++) raise(SIGTRAP); result = trapped; }
    if (!strcmp(what, "is")) { struct sigaction act; sigaction(SIGTRAP, 0, &act); result = act.sa_handler == SIG_DFL ? 0 : act.sa_sigaction == handler ? 1 : 2; }
    if (!strcmp(what, "block")) { sigset_t set; sigemptyset(&set); sigaddset(&set, SIGTRAP); pthread_sigmask(n ? SIG_BLOCK : SIG_UNBLOCK, &set, 0); }
    if (!strcmp(what, "threads")) {
      pthread_t t[4]; void *each;
      for (int i = 0; i < 4; i++) pthread_create(&t[i], 0, many, (void *)n);
      for (int i = 0; i < 4; i++) { pthread_join(t[i], &each); result += (long)each; }
    }
    if (!strcmp(what, "fork")) {
      pid_t child = fork();
      if (!child) _exit(tight(n) == n ? 7 : 8);
      int status; waitpid(child, &status, 0); result = WEXITSTATUS(status);
    }
    printf("%ld\n", result);
  }
  return 0;
}
"""


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> str:
    return build(SOURCE, tmp_path_factory.mktemp("traps"), "-O1")


@pytest.fixture
def running(program: str) -> Iterator[Running]:
    yield from at_work(program)


def attach(running: Running, script: str, *, traps: bool = True) -> UserObject:
    spec = running.compile(script)
    loaded = UserEngine(running.pid, traps=traps).load(spec)
    loaded.attach(spec.probes)
    return loaded


SCRIPT = "uprobe:PATH:tight+5 { @ = count(); }"


def test_counts_are_exact_and_nothing_is_left(running: Running) -> None:
    before = running.text()
    assert running.ask("tight 100") == 100
    with attach(running, SCRIPT) as loaded:
        assert running.ask("tight 100") == 100
        assert total(loaded, "percpu") == 99
        assert running.ask("threads 1000") == 4000
        assert total(loaded, "percpu") == 99 + 4 * 999
        assert running.ask("is") == 2
    assert running.text() == before and not running.traces()
    assert running.ask("is") == 0 and running.ask("tight 100") == 100


def test_without_the_option_it_is_said_what_would_do(running: Running) -> None:
    with pytest.raises(ProbeError, match="--traps puts a breakpoint there"):
        attach(running, SCRIPT, traps=False)


def test_the_programs_own_handler_stays(running: Running) -> None:
    running.ask("own")
    with attach(running, SCRIPT) as loaded:
        assert running.ask("int3 3") == 3  # its own breakpoints
        assert running.ask("kill 2") == 5
        assert running.ask("tight 100") == 100 and total(loaded, "percpu") == 99
        assert running.ask("int3 1") == 6
    assert running.ask("is") == 1 and running.ask("int3 1") == 7


def test_what_ends_the_program_without_us_ends_it_with_us(running: Running) -> None:
    with attach(running, SCRIPT):
        running.say("int3 1")
        assert running.process.wait(20) == -signal.SIGTRAP


def test_a_thread_that_blocks_the_signal(running: Running) -> None:
    running.ask("block 1")
    with pytest.raises(ProbeError, match="blocks SIGTRAP"):
        attach(running, SCRIPT)
    running.ask("block 0")
    with attach(running, SCRIPT) as loaded:
        running.ask("tight 2")
        assert total(loaded, "percpu") == 1


def test_a_system_call_where_no_jump_fits(running: Running) -> None:
    script = "tracepoint:syscalls:sys_enter_getppid { @ = count(); } tracepoint:syscalls:sys_exit_getppid /args.ret/ { @r = count(); }"
    before, parent = running.text(), running.ask("calls 1")
    with attach(running, script, traps=False) as loaded:
        assert running.ask("calls 5") == parent and not total(loaded, "percpu")
        assert any("places are not seen" in note for note in loaded.notes)
    with attach(running, script) as loaded:
        assert running.ask("calls 10") == parent
        assert total(loaded, "percpu") == 10
    assert running.text() == before and running.ask("calls 10") == parent


def test_a_child_of_fork(running: Running) -> None:
    with attach(running, SCRIPT) as loaded:
        assert running.ask("fork 100") == 7
        assert total(loaded, "percpu") == 99


def test_put_in_and_taken_out_under_load(running: Running) -> None:
    """Whoever has run into the breakpoint when it goes is not killed by it."""
    for _ in range(30):
        running.say("threads 20000")
        with attach(running, SCRIPT):
            time.sleep(0.01)
        assert running.hear() == 80000
    assert running.ask("is") == 0


def test_a_tracer_that_is_killed(running: Running, program: str) -> None:
    words = [sys.executable, "-m", "sonde", "trace", "--engine", "user", "--traps", "-p", str(running.pid)]
    script = f'uprobe:{program}:tight+5 {{ @ = count(); }} interval:ms:1 {{ printf("on\\n"); }}'
    before = running.text()
    tracer = subprocess.Popen([*words, "-e", script], stdout=subprocess.PIPE, text=True, env={**os.environ})
    assert tracer.stdout is not None
    while tracer.stdout.readline() != "on\n":
        assert tracer.poll() is None
    assert running.ask("tight 100") == 100
    tracer.kill()
    tracer.communicate()
    assert running.ask("tight 100") == 100 and running.ask("is") == 2
    (cleaned,) = remove_agents(running.pid)
    assert cleaned.sites and not cleaned.reasons
    assert running.ask("is") == 0 and running.text() == before
    assert "sonde" not in Path(f"/proc/{running.pid}/maps").read_text()
    assert running.ask("tight 100") == 100

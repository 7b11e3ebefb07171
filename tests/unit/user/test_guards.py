"""Reads that ask nobody: bad pointers are errors of the script, faults of the program stay its own."""

from __future__ import annotations

import os
import platform
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from user_running import Running, at_work, build

from sonde.user.cleaning import remove_agents
from sonde.user.engine import UserObject

pytestmark = pytest.mark.skipif(platform.machine() != "x86_64", reason="these probes are x86-64 code")
SOURCE = r"""
#define _GNU_SOURCE
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
extern char **environ;
static volatile long caught, hit;
static char *held, *short_file;
static long bad[] = {0, 8, 0x10000, 0x700000000000, 0x900000000000, 0xdead000000000000, -4096, -1};
__attribute__((noinline, noclone)) long look(const void *p) { __asm__ volatile("" ::: "memory"); return hit++; }
static void handler(int number, siginfo_t *info, void *context) {
  caught++;
  if (info->si_code > 0) { look(held); mprotect(held, 4096, PROT_READ | PROT_WRITE); }
}
static void take(int number, int flags) {
  struct sigaction act = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO | flags};
  sigaction(number, &act, 0);
}
static long whose(int number) {
  struct sigaction act;
  sigaction(number, 0, &act);
  return act.sa_handler == SIG_DFL ? 0 : act.sa_handler == SIG_IGN ? 1 : act.sa_sigaction == handler ? 2 : 3;
}
static void *looks(void *count) {
  for (long i = 0; i < (long)count; i++) look(i % 3 ? held : (char *)bad[i % 8]);
  return 0;
}
static void *blocks(void *nothing) {
  sigset_t all; sigfillset(&all); pthread_sigmask(SIG_BLOCK, &all, 0);
  for (;;) pause();
}
static long waited(pid_t child) {
  int status; waitpid(child, &status, 0);
  return WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status);
}
static void alone(void) { /* nothing but read, write and the return from signals from here on, not even what the C library does for a line */
  char line[100]; long n;
  prctl(PR_SET_SECCOMP, 1);
  while ((n = read(0, line, sizeof line)) > 0) {
    line[n] = 0;
    look(line[0] == 'g' ? held : (char *)atol(line));
    write(1, "1\n", 2);
  }
}
int main(void) {
  char line[100];
  setvbuf(stdout, 0, _IOLBF, 0);
  held = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  strcpy(held, "held");
  FILE *file = tmpfile();
  ftruncate(fileno(file), 4096);
  short_file = mmap(0, 4096, PROT_READ, MAP_SHARED, fileno(file), 0);
  ftruncate(fileno(file), 0);
  printf("ready\n");
  while (fgets(line, sizeof line, stdin)) {
    char what[20]; long n = 0, result = 0;
    sscanf(line, "%19s %ld", what, &n);
    if (!strcmp(what, "good")) for (long i = 0; i < n; i++) look(held);
    if (!strcmp(what, "bad")) for (long i = 0; i < 8; i++) look((void *)bad[i]);
    if (!strcmp(what, "bus")) look(short_file);
    if (!strcmp(what, "take")) take(n, 0);
    if (!strcmp(what, "once")) take(n, SA_RESETHAND);
    if (!strcmp(what, "ignore")) signal(n, SIG_IGN);
    if (!strcmp(what, "default")) signal(n, SIG_DFL);
    if (!strcmp(what, "whose")) result = whose(n);
    if (!strcmp(what, "kill")) { kill(getpid(), n); result = caught; }
    if (!strcmp(what, "fault")) { mprotect(held, 4096, PROT_NONE); result = *(volatile char *)held == 'h' ? caught : -1; }
    if (!strcmp(what, "crash")) *(volatile char *)0x10 = 1;
    if (!strcmp(what, "block")) { pthread_t t; pthread_create(&t, 0, blocks, 0); usleep(20000); }
    if (!strcmp(what, "alone")) alone();
    if (!strcmp(what, "spawn")) {
      pid_t child; char *words[] = {"true", 0};
      result = posix_spawnp(&child, "true", 0, 0, words, environ) ? -1 : waited(child);
    }
    if (!strcmp(what, "fork")) {
      pid_t child = fork();
      if (!child) { look((void *)8); take(SIGSEGV, 0); look((void *)16); look(held); _exit(whose(SIGSEGV) == 2 && !caught ? 7 : 8); }
      result = waited(child);
    }
    if (!strcmp(what, "threads")) {
      pthread_t t[4];
      for (int i = 0; i < 4; i++) pthread_create(&t[i], 0, looks, (void *)n);
      for (int i = 0; i < 4; i++) pthread_join(t[i], 0);
    }
    printf("%ld\n", result);
  }
  return 0;
}
"""
SCRIPT = """
uprobe:PATH:look { @seen = count(); @words[str(arg0, 16)] = count(); }
"""
SEGV, BUS = signal.SIGSEGV, signal.SIGBUS


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> str:
    return build(SOURCE, tmp_path_factory.mktemp("guards"), "-O1")


@pytest.fixture
def running(program: str) -> Iterator[Running]:
    yield from at_work(program)


def attach(running: Running, script: str = SCRIPT) -> UserObject:
    return running.attach(script, fast_reads=True)


def words(loaded: UserObject) -> dict[str, int]:
    """What was read, and how often; what could not be read is the empty string."""
    found: dict[str, int] = {}
    for key, copies in loaded.maps["AT_words"].items():
        word = bytes(key[:16]).partition(b"\0")[0].decode()
        found[word] = found.get(word, 0) + sum(int.from_bytes(copy[:8], "little") for copy in copies)
    return found


def test_good_and_bad_pointers(running: Running) -> None:
    before = running.text()
    with attach(running) as loaded:
        for _ in range(5):
            running.ask("bad")
            running.ask("good 100")
            running.ask("bus")
        assert words(loaded) == {"held": 500, "": 45} and not loaded.notes
        assert running.ask(f"whose {SEGV}") == running.ask(f"whose {BUS}") == 0
    assert running.text() == before and not running.traces()
    assert running.ask(f"whose {SEGV}") == running.ask(f"whose {BUS}") == 0 and running.ask("good 1") == 0


def test_no_system_call_is_made(running: Running) -> None:
    """The kernel kills who makes any other call than read, write and the return from signals."""
    with attach(running) as loaded:
        running.say("alone")
        time.sleep(0.2)
        for line in ("good", "8", "12345678901234"):
            assert running.ask(line) == 1
        assert words(loaded) == {"held": 1, "": 2}
        running.process.kill()
        running.process.wait()


def test_faults_of_a_program_without_a_handler(running: Running) -> None:
    with attach(running):
        running.ask("bad")
        running.say("crash")
        assert running.process.wait(20) == -SEGV


@pytest.mark.parametrize("number", [SEGV, BUS])
def test_signals_that_somebody_sends(running: Running, number: int) -> None:
    running.ask(f"ignore {number}")
    with attach(running) as loaded:
        running.ask("bad")
        assert running.ask(f"whose {number}") == 1 and running.ask(f"kill {number}") == 0
        running.ask(f"default {number}")
        running.ask("bad")
        assert words(loaded) == {"": 16}
        running.say(f"kill {number}")
        assert running.process.wait(20) == -number


@pytest.mark.parametrize("how", ["take", "once"])
def test_the_programs_own_handler_stays(running: Running, how: str) -> None:
    running.ask(f"{how} {SEGV}")
    with attach(running) as loaded:
        running.ask("bad")
        assert running.ask(f"whose {SEGV}") == 2
        assert running.ask("fault") == 1, "its own fault is its own"
        running.ask("bad")
        assert running.ask(f"whose {SEGV}") == (2 if how == "take" else 0)
        if how == "take":
            assert running.ask("fault") == 2 and running.ask(f"kill {SEGV}") == 3
        # Within the handler the page could not be read.
        assert words(loaded) == {"": 18 if how == "take" else 17}
    assert running.ask(f"whose {SEGV}") == (2 if how == "take" else 0)


def test_a_handler_that_is_taken_meanwhile(running: Running) -> None:
    with attach(running) as loaded:
        running.ask("bad")
        running.ask(f"take {SEGV}")
        running.ask("bad")
        assert running.ask("fault") == 1 and running.ask(f"whose {SEGV}") == 2
        running.ask(f"default {SEGV}")
        running.ask("bad")
        running.ask("good 3")
        assert words(loaded) == {"held": 3, "": 25}
    assert running.ask(f"whose {SEGV}") == 0 and not running.traces()


def test_children(running: Running) -> None:
    with attach(running) as loaded:
        for _ in range(3):
            assert running.ask("fork") == 7
            assert running.ask("spawn") == 0
            running.ask("bad")
        assert words(loaded) == {"held": 3, "": 30}
        running.say("alone")  # still without a call
        time.sleep(0.2)
        assert running.ask("8") == 1 and running.ask("good") == 1
        running.process.kill()
        running.process.wait()


def test_a_thread_that_blocks_the_signals(running: Running) -> None:
    running.ask("block")
    with attach(running) as loaded:
        assert any("in spite of --fast-reads: thread" in note for note in loaded.notes)
        running.ask("bad")
        assert words(loaded) == {"": 8}


def test_a_thread_that_blocks_them_later(running: Running) -> None:
    with attach(running) as loaded:
        running.ask("bad")
        assert not loaded.notes
        running.ask("block")
        for _ in range(200):
            loaded.look()
        assert any("in spite of --fast-reads: thread" in note for note in loaded.notes)
        running.ask("bad")
        assert words(loaded) == {"": 16}


def test_put_in_and_taken_out_under_load(running: Running) -> None:
    """Whoever is about to read when the handler goes still has it."""
    for _ in range(20):
        running.say("threads 3000")
        with attach(running):
            time.sleep(0.01)
        assert running.hear() == 0
    assert running.ask(f"whose {SEGV}") == 0 and not running.traces()


def test_a_tracer_that_is_killed(running: Running, program: str) -> None:
    line = [sys.executable, "-m", "sonde", "trace", "--engine", "user", "--fast-reads", "-p", str(running.pid)]
    script = SCRIPT.replace("PATH", program) + ' interval:ms:1 { printf("on\\n"); }'
    before = running.text()
    tracer = subprocess.Popen([*line, "-e", script], stdout=subprocess.PIPE, text=True, env={**os.environ})
    assert tracer.stdout is not None
    while tracer.stdout.readline() != "on\n":
        assert tracer.poll() is None
    running.ask("bad")
    tracer.kill()
    tracer.communicate()
    running.ask("bad")
    (cleaned,) = remove_agents(running.pid)
    assert cleaned.sites and not cleaned.reasons
    assert running.ask(f"whose {SEGV}") == 0 and running.text() == before and not running.traces()
    running.ask("good 1")
    running.say("crash")
    assert running.process.wait(20) == -SEGV


@pytest.mark.parametrize("words", [("gcc",), ("gcc", "-static"), ("musl-gcc",)], ids=["glibc", "static", "musl"])
def test_a_command_that_takes_a_handler_when_it_begins(tmp_path: Path, words: tuple[str, ...]) -> None:
    if shutil.which(words[0]) is None:
        pytest.skip(f"needs {words[0]}")
    source = r"""
    #include <signal.h>
    #include <stdio.h>
    #include <stdlib.h>
    __attribute__((noinline, noclone)) long look(const void *p) { __asm__ volatile("" ::: "memory"); return 1; }
    static void handler(int number) { printf("handler\n"); exit(3); }
    int main(void) {
      look((void *)8); look("word");
      signal(SIGSEGV, handler);
      look((void *)8); look("word");
      fflush(stdout);
      *(volatile char *)8 = 1;
    }
    """
    path = tmp_path / "program"
    subprocess.run([*words, "-O1", "-x", "c", "-", "-o", path], input=source, text=True, check=True)
    line = [sys.executable, "-m", "sonde", "trace", "--engine", "user", "--fast-reads", "-c", str(path)]
    script = f'uprobe:{path}:look {{ printf("<%s>\\n", str(arg0)); }}'
    found = subprocess.run([*line, "-e", script], capture_output=True, text=True, timeout=60)
    assert sorted(found.stdout.split()) == ["<>", "<>", "<word>", "<word>", "handler"], found.stderr

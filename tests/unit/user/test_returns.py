"""Return probes on functions that do not simply return: jumped to, left by longjmp, returning twice, called by the kernel, looking at who has called them.

The program prints the same with and without them.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
import user_targets
from user_running import Running, total
from user_spawned import run_traced
from user_suites import Tracer, run

from sonde.user.cleaning import remove_agents

pytestmark = [
    pytest.mark.skipif(platform.machine() != "x86_64", reason="these probes are x86-64 code"),
    pytest.mark.skipif(not shutil.which("gcc"), reason="needs gcc"),
]

SOURCE = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>
#define APART __attribute__((noipa))

/* With optimisation, a call at the end of a function is a jump. */
APART int last(int x) { return x * 3; }
APART int middle(int x) { return last(x + 1); }
APART int first(int x) { return x <= 0 ? 7 : middle(x) + 1; }
APART int odd(int n);
APART int even(int n) { return n ? odd(n - 1) : 1; }
APART int odd(int n) { return n ? even(n - 1) : 0; }

static jmp_buf place;
static ucontext_t context;
APART int thrower(int n) { if (n > 3) longjmp(place, n); return n; }
APART int jumps(int n) {
  volatile int count = 0;
  int found = setjmp(place);
  count++;
  if (!found) { thrower(1); thrower(n); } else if (count < 5) thrower(n + count);
  return found + count;
}
APART int contexts(void) {
  volatile int count = 0;
  getcontext(&context);
  count++;
  thrower(count);
  if (count < 3) setcontext(&context);
  return count;
}
static volatile int handled;
APART void handler(int signal) { handled += last(signal); }

static void work(int rounds) {
  int sum = 0, status = 0;
  for (int i = 0; i < rounds; i++) sum += first(i) + middle(i) + even(i % 50) + odd(i % 50);
  printf("%d %d %d\n", sum, jumps(5), contexts());
  fflush(stdout);
  pid_t child = vfork();
  if (!child) { execl("/bin/true", "true", (char *)NULL); _exit(3); }
  waitpid(child, &status, 0);
  printf("vfork %d\n", status);
  signal(SIGUSR1, handler);
  for (int i = 0; i < 10; i++) raise(SIGUSR1);
  printf("handled %d\n", handled);
  void *next = dlsym(RTLD_NEXT, "malloc");
  printf("next %d\n", next != NULL && next == dlsym(RTLD_DEFAULT, "malloc"));
  fflush(stdout);
  child = fork();
  if (!child) { printf("child %d\n", first(9)); fflush(stdout); _exit(0); }
  waitpid(child, &status, 0);
  printf("system %d\n", system("exit 3"));
}

int main(int count, char **words) {
  work(100);
  printf("%s %d %s\n", strrchr(words[0], '/'), count, words[count - 1]);
  return 0;
}
"""

THROWS = r"""
#include <cstdio>
#include <exception>
#include <stdexcept>
#include <string>
#include <vector>
#define APART __attribute__((noipa))
APART void fails(int n) { if (n % 3 == 0) throw std::runtime_error("three " + std::to_string(n)); if (n % 3 == 1) throw n; }
APART int between(int n) { std::string held(100, 'x'); fails(n); return (int)held.size(); }
APART int jumped(int n) { return between(n); }
APART int caught(int n) {
  try { return jumped(n); } catch (const std::exception &e) { return e.what()[0]; } catch (int found) { return -found; }
}
int main() {
  long sum = 0;
  std::vector<std::exception_ptr> kept;
  for (int i = 0; i < 300; i++) {
    sum += caught(i);
    try { between(i); } catch (...) { kept.push_back(std::current_exception()); }
  }
  for (auto &each : kept) try { std::rethrow_exception(each); } catch (int n) { sum += n; } catch (std::exception &e) { sum += 5; }
  std::printf("%ld %zu\n", sum, kept.size());
}
"""


STACKS = r"""
#define _GNU_SOURCE
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>
#define APART __attribute__((noipa))
extern char **environ;
static ucontext_t first, second;
static char stack[65536];
static int steps;
APART int leaf(int x) { return x + 1; }
APART int yields(int x) { swapcontext(&second, &first); return leaf(x) + 1; }
APART void coroutine(void) { for (;;) steps = yields(steps); }
APART void *ends(void *number) { for (int i = 0; i < 1000; i++) leaf(i); if ((long)number & 1) pthread_exit((void *)7); return (void *)8; }
APART void *stays(void *unused) { for (;;) { leaf(1); usleep(500); } return unused; }
APART void handler(int number) { char *memory = malloc(leaf(100)); memset(memory, number, 100); free(memory); }

static void round_of(int number) {
  pthread_t threads[16];
  void *result;
  long sum = 0, cancelled = 0;
  for (int i = 0; i < 1000; i++) swapcontext(&first, &second);
  for (long i = 0; i < 16; i++) pthread_create(&threads[i], NULL, ends, (void *)i);
  for (int i = 0; i < 16; i++) { pthread_join(threads[i], &result); sum += (long)result; }
  for (int i = 0; i < 3; i++) {
    pthread_create(&threads[0], NULL, stays, NULL);
    usleep(1000);
    pthread_cancel(threads[0]);
    pthread_join(threads[0], &result);
    cancelled += result == PTHREAD_CANCELED;
  }
  for (int i = 0; i < 100; i++) raise(SIGUSR1);
  pid_t child;
  int status = 0;
  char *words[] = {"true", NULL}, line[20] = "";
  posix_spawn(&child, "/bin/true", NULL, NULL, words, environ);
  waitpid(child, &status, 0);
  FILE *pipe = popen("echo hello", "r");
  fgets(line, sizeof line, pipe);
  printf("%d: %d %ld %ld %d %d %s", number, steps, sum, cancelled, status, pclose(pipe), line);
}

int main(int count, char **words) {
  stack_t other = {.ss_sp = malloc(65536), .ss_size = 65536};
  struct sigaction action = {.sa_handler = handler, .sa_flags = SA_ONSTACK};
  char line[10];
  sigaltstack(&other, NULL);
  sigaction(SIGUSR1, &action, NULL);
  getcontext(&second);
  second.uc_stack.ss_sp = stack;
  second.uc_stack.ss_size = sizeof stack;
  makecontext(&second, coroutine, 0);
  printf("ready\n");
  fflush(stdout);
  while (!strcmp(words[count - 1], "ask") && fgets(line, sizeof line, stdin)) {
    for (int i = 0; i < 10; i++) swapcontext(&first, &second);
    printf("%d\n", steps);
    fflush(stdout);
  }
  fgets(line, sizeof line, stdin);
  for (int i = 0; i < atoi(words[count - 1]); i++) round_of(i);
}
"""


def build(folder: Path, source: str, compiler: str) -> str:
    """Compile with optimisation, so that calls at the end of functions become jumps."""
    path = str(folder / "program")
    language = "c++" if compiler == "g++" else "c"
    subprocess.run(
        [compiler, "-O2", "-x", language, "-", "-o", path, "-ldl", "-pthread"], input=source, text=True, check=True
    )
    return path


@pytest.fixture
def program(tmp_path: Path) -> str:
    return build(tmp_path, SOURCE, "gcc")


def test_functions_that_are_jumped_to(program: str) -> None:
    """Each of them is seen to return, as the kernel does it."""
    counted = ["first", "middle", "last", "even", "odd"]
    script = " ".join(f"uretprobe:{program}:{name} {{ @{name} = count(); }}" for name in counted)
    bare = subprocess.run([program], capture_output=True, text=True, check=True).stdout
    done = run_traced(script, program)
    assert done.stdout.startswith(bare) and done.returncode == 0, done.stdout + done.stderr
    found = dict(re.findall(r"^@(\w+): (\d+)$", done.stdout, re.M))
    assert {name: int(found[name]) for name in ("first", "middle", "last")} == {
        "first": 100 + 1,  # one more in the child of fork
        "middle": 100 + 99 + 1,
        "last": 100 + 99 + 1 + 10,
    }
    assert int(found["even"]) + int(found["odd"]) == 2 * sum(i % 50 + 1 for i in range(100))


def test_every_function_of_a_program_and_its_c_library(program: str) -> None:
    bare = subprocess.run([program], capture_output=True, text=True, check=True).stdout
    script = f"uretprobe:{program}:* {{ @p = count(); }} uretprobe:libc:* {{ @l = count(); }} uprobe:libc:* {{ @e = count(); }}"
    done = run_traced(script, program)
    assert done.stdout.startswith(bare) and done.returncode == 0, done.stdout + done.stderr
    assert "its return is not probed, as it returns more than once" in done.stderr
    assert "its return is not probed, as it is not called" in done.stderr
    assert int(re.findall(r"@l: (\d+)", done.stdout)[0]) > 100


@pytest.mark.parametrize("some", [0, 2000])
def test_coroutines_threads_that_are_cancelled_other_stacks(some: int, tmp_path: Path) -> None:
    """With all functions probed from the beginning, and with many of them probed and left alone while it runs."""
    words = [build(tmp_path, STACKS, "gcc"), "600" if some else "20"]
    bare = run(words, tmp_path)
    assert bare.status == 0 and bare.text.count("hello") == int(words[1])
    tracer = Tracer(f"uretprobe:{words[0]}:* {{ @ = count(); }} uretprobe:libc:* {{ @l = count(); }}", some=some)
    probed = run(words, tmp_path, tracer)
    assert (probed.status, probed.text) == (bare.status, bare.text)
    assert tracer.hits > 0 and tracer.rounds > 0


def test_what_a_coroutine_will_return_to_is_put_back_after_a_kill(tmp_path: Path) -> None:
    """sonde is killed while one waits in a function with a return probe, on a stack that no thread is on."""
    running = Running(build(tmp_path, STACKS, "gcc"), "ask")
    try:
        first = running.ask("")
        reader, writer = os.pipe()
        sonde = os.fork()
        if sonde == 0:
            try:
                with running.attach("uretprobe:PATH:yields { @ = count(); } uretprobe:PATH:leaf { @l = count(); }"):
                    os.write(writer, b"x")
                    time.sleep(100)
            finally:
                os._exit(1)
        try:
            os.close(writer)
            assert os.read(reader, 1) == b"x"
            assert running.ask("") == first + 20
        finally:
            os.kill(sonde, signal.SIGKILL)
            os.waitpid(sonde, 0)
            os.close(reader)
        assert running.ask("") == first + 40
        assert [cleaned.reasons for cleaned in remove_agents(running.pid)] == [()]
        assert not running.traces()
        assert running.ask("") == first + 60
    finally:
        running.close()


def test_a_go_program_keeps_its_return_addresses() -> None:
    """Its garbage collector would end it; what is called is seen all the same."""
    path = str(user_targets.build("go"))
    running = Running(path)
    try:
        loaded = running.attach("uprobe:PATH:main.work { @ = count(); } uretprobe:PATH:main.work { @r = count(); }")
        with loaded:
            assert any("its return is not probed, as Go moves its stacks" in note for note in loaded.notes)
            until = time.monotonic() + 20
            while not total(loaded, "percpu") and time.monotonic() < until:
                time.sleep(0.01)
            assert total(loaded, "percpu") > 0
        out, _ = running.process.communicate("x")
        assert out == "ok\n" and running.process.returncode == 0
    finally:
        running.close()


@pytest.mark.skipif(not shutil.which("g++"), reason="needs g++")
def test_exceptions_while_their_unwinder_is_probed(tmp_path: Path) -> None:
    program = build(tmp_path, THROWS, "g++")
    bare = subprocess.run([program], capture_output=True, text=True, check=True).stdout
    libraries = re.findall(
        r"(/\S+(?:libgcc_s|libstdc\+\+)\S+) \(", subprocess.check_output(["ldd", program], text=True)
    )
    files = [program, *libraries]
    script = " ".join(f"uretprobe:{file}:* {{ @r = count(); }} uprobe:{file}:* {{ @e = count(); }}" for file in files)
    done = run_traced(script, program)
    assert done.stdout.startswith(bare) and done.returncode == 0, done.stdout + done.stderr
    assert int(re.findall(r"@r: (\d+)", done.stdout)[0]) > 1000

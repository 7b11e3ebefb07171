"""Through exec, and into libraries that come later: every call is counted, from the first instruction on, and whatever becomes of sonde the process goes on."""

from __future__ import annotations

import ctypes
import os
import platform
import random
import select
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from user_running import Running, at_work, total
from user_targets import Target

from sonde.user import frame
from sonde.user.cleaning import remove_agents
from sonde.user.engine import UserEngine, UserObject
from sonde.user.execs import find_thread, keeps_privileges
from sonde.user.halts import find_own_pid

pytestmark = pytest.mark.skipif(platform.machine() != "x86_64", reason="these probes are x86-64 code")

TIMES = int(os.environ.get("SONDE_KILLS", "12"))
NUMBER = 7  # calls of `f` before main
SOURCE = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

__attribute__((noinline, noclone, used)) long f(long n) { __asm__ volatile("" ::: "memory"); return n + 1; }
static long calls(long n) { long r = 0; for (long i = 0; i < n; i++) r += f(i) - i; return r; }
__attribute__((constructor)) static void before_main(void) { calls(7); }

static char *words[4];
static void *rest(void *u) { for (;;) usleep(1000); return u; }
static void *become(void *u) { execv(words[0], words); return (void *)(long)errno; }
static void on_signal(int s) {}

int main(int argc, char **argv) {
  long n = argc > 1 ? atol(argv[1]) : 0;
  calls(n);
  char line[4000], what[20], path[3000];
  setvbuf(stdout, 0, _IOLBF, 0);
  puts(argc > 1 ? "7" : "ready");
  while (fgets(line, sizeof line, stdin)) {
    pthread_t t;
    path[0] = 0;
    n = 0;
    sscanf(line, "%19s %ld %2999s", what, &n, path);
    char number[20];
    sprintf(number, "%ld", n);
    words[0] = path; words[1] = number;
    if (!strcmp(what, "work")) printf("%ld\n", calls(n));
    if (!strcmp(what, "exec")) { execv(path, words); printf("%d\n", errno); }
    if (!strcmp(what, "search")) { execvp(path, words); printf("%d\n", errno); }
    if (!strcmp(what, "at")) { int fd = open(path, O_RDONLY | O_CLOEXEC); syscall(SYS_execveat, fd, "", words, environ, AT_EMPTY_PATH); printf("%d\n", errno); }
    if (!strcmp(what, "thread")) {
      for (int i = 0; i < 8; i++) pthread_create(&t, 0, rest, 0);
      pthread_create(&t, 0, become, 0);
      void *error;
      pthread_join(t, &error);
      printf("%ld\n", (long)error);
    }
    if (!strcmp(what, "vfork") || !strcmp(what, "fork")) {
      pid_t child = *what == 'v' ? vfork() : fork();
      if (!child) { close(0); execv(path, words); _exit(3); }
      int status; waitpid(child, &status, 0);
      printf("%d\n", status);
    }
    if (!strcmp(what, "handle")) {
      struct sigaction a = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
      sigaction(SIGWINCH, &a, 0); puts("0");
    }
    if (!strcmp(what, "open")) {
      void *h = dlopen(path, RTLD_NOW);
      long (*late)(long) = h ? (long (*)(long))dlsym(h, "late") : 0;
      if (!late) { puts(dlerror()); continue; }
      for (long i = 0; i < n; i++) late(i);
      printf("%ld\n", n);
    }
  }
  return 0;
}
"""
LIBRARY = r"""
__attribute__((noinline, noclone, used)) long late(long n) { __asm__ volatile("" ::: "memory"); return n + 1; }
__attribute__((constructor)) static void begin(void) { for (int i = 0; i < 5; i++) late(i); }
"""
KINDS = {
    "pie": ("gcc", "-O1"),
    "no-pie": ("gcc", "-O2", "-no-pie"),
    "static": ("gcc", "-O2", "-static", "-w"),
    "musl": ("musl-gcc", "-O2"),
}


def build(folder: Path, name: str, *command: str, source: str = SOURCE) -> str:
    if not shutil.which(command[0]):
        pytest.skip(f"needs {command[0]}")
    path = str(folder / name)
    subprocess.run([*command, "-x", "c", "-", "-o", path, "-lpthread"], input=source, text=True, check=True)
    return path


@pytest.fixture(scope="module", params=KINDS)
def every_kind(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    return build(tmp_path_factory.mktemp("exec"), "program", *KINDS[request.param])


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> str:
    return build(tmp_path_factory.mktemp("exec"), "program", *KINDS["pie"])


@pytest.fixture
def running(program: str) -> Iterator[Running]:
    yield from at_work(program)


def work(loaded: UserObject, running: Running, question: str = "") -> int:
    """Do what a session does, until the program has answered."""
    assert running.process.stdout is not None and loaded.worker is not None
    if question:
        running.say(question)
    deadline = time.monotonic() + 20
    while not select.select([running.process.stdout], [], [], 0)[0]:
        assert time.monotonic() < deadline, (running.process.poll(), loaded.notes)
        select.select([running.process.stdout, loaded.worker], [], [], 1)
        loaded.worker.work()
    return running.hear()


def count(loaded: UserObject) -> int:
    return total(loaded, "percpu")


def drawn(loaded: UserObject) -> int:
    """How many threads have waited for sonde, or wanted to."""
    assert loaded._state is not None
    return int(loaded._state.cast("B").cast("I")[frame.ASKED // 4])


COUNT = "uprobe:PATH:f { @ = count(); }"


def test_every_call_is_counted_across_exec(every_kind: str) -> None:
    running = Running(every_kind)
    try:
        with running.attach(COUNT) as loaded:
            work(loaded, running, "work 10")
            for number, how in enumerate(("exec", "search", "thread", "exec"), 1):
                assert work(loaded, running, f"{how} {20 * number} {every_kind}") == 7
                assert work(loaded, running, f"work {number}") == number
            assert count(loaded) == 10 + 4 * NUMBER + 200 + 10
            assert loaded.notes == []
        assert not running.traces()
        assert running.ask("work 3") == 3
    finally:
        running.close()


def test_who_called_is_known_in_the_next_program(running: Running) -> None:
    with running.attach("uprobe:PATH:f { @[pid, tid, comm] = count(); }") as loaded:
        work(loaded, running, f"thread 5 {running.path}")
        rows = {key: total(loaded, "AT_", key) for key, _ in loaded.maps["AT_"].items()}
        ((key, number),) = rows.items()
        assert struct.unpack("<II", key[:8]) == (running.pid, running.pid)
        assert (key[8:].rstrip(b"\0"), number) == (b"program", NUMBER + 5)


def test_exec_by_a_descriptor(running: Running) -> None:
    with running.attach(COUNT) as loaded:
        assert work(loaded, running, f"at 30 {running.path}") == 7
        assert count(loaded) == 30 + NUMBER


def test_calls_of_the_loader_itself_are_seen(running: Running) -> None:
    with running.attach(
        "tracepoint:syscalls:sys_enter_execve { @ = count(); } tracepoint:syscalls:sys_enter_set_tid_address { @t = count(); }"
    ) as loaded:
        assert work(loaded, running, f"exec 0 {running.path}") == 7
        counts = loaded.maps["percpu"].lookup(bytes(4)) or []
        assert sorted(sum(int.from_bytes(value[at : at + 8], "little") for value in counts) for at in (0, 8)) == [1, 1]


def test_exec_that_fails_harms_nobody(running: Running, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("not a program")
    (tmp_path / "text").chmod(0o755)
    with running.attach(COUNT) as loaded:
        for _ in range(3):
            assert work(loaded, running, "exec 1 /nonexistent") == 2
            assert work(loaded, running, f"exec 1 {tmp_path}/text") == 8
            # 13: a directory of PATH that this user may not look into
            assert work(loaded, running, "search 1 no-such-program-anywhere") in (2, 13)
            assert work(loaded, running, "thread 1 /nonexistent") == 2
            assert work(loaded, running, "work 4") == 4
        assert "TracerPid:\t0" in Path(f"/proc/{running.pid}/status").read_text()
        assert work(loaded, running, f"exec 6 {running.path}") == 7
        assert count(loaded) == 3 * 4 + NUMBER + 6
    assert not running.traces()


def test_children_that_exec_are_left_alone(running: Running) -> None:
    with running.attach(COUNT) as loaded:
        for how in ("vfork", "fork"):
            running.say(f"{how} 50 {running.path}")
            assert running.process.stdout is not None
            assert running.process.stdout.readline() == "7\n"  # the child
            assert running.hear() == 0  # nobody looked, and it did not wait for that
        assert drawn(loaded) == 0
        assert work(loaded, running, "work 4") == 4
        assert count(loaded) == 4
        assert work(loaded, running, f"exec 6 {running.path}") == 7
        assert count(loaded) == 4 + NUMBER + 6


def test_signals_meanwhile(running: Running) -> None:
    over = threading.Event()

    def annoy() -> None:
        while not over.wait(0.0003):
            os.kill(running.pid, signal.SIGWINCH)

    sender = threading.Thread(target=annoy)
    with running.attach(COUNT) as loaded:
        sender.start()
        try:
            for number in range(1, 8):
                assert work(loaded, running, "handle 0") == 0
                assert work(loaded, running, "exec 1 /nonexistent") == 2
                assert work(loaded, running, f"{'thread' if number % 2 else 'exec'} {number} {running.path}") == 7
        finally:
            over.set()
            sender.join()
        assert count(loaded) == 7 * NUMBER + sum(range(8))


def test_programs_that_are_not_to_be_followed(program: str) -> None:
    running = Running(program)
    try:
        spec = running.compile(COUNT)
        with UserEngine(running.pid, follow=False).load(spec) as loaded:
            loaded.attach(spec.probes)
            assert running.ask("work 10") == 10
            assert running.ask(f"exec 5 {program}") == 7  # nobody is asked
            for _ in range(3):
                loaded.look()
            assert running.ask("work 10") == 10
            assert count(loaded) == 10
            assert any("another program now" in note for note in loaded.notes)
            assert not running.traces()
    finally:
        running.close()


def test_from_the_command_line(program: str) -> None:
    def trace(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "sonde", "trace", *words, "-e", f"uprobe:{program}:f {{ @ = count(); }}"]
        return subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=60)

    chain = f"sh -c 'exec env A=1 {program} 23'"
    done = trace("--engine", "user", "-c", chain)
    assert f"@: {NUMBER + 23}\n" in done.stdout, done
    done = trace("--on-exec", "drop", "-c", chain)
    assert done.returncode == 0 and "@:" not in done.stdout, done
    done = trace("--engine", "kernel", "--on-exec", "drop", "-c", chain)
    assert done.returncode == 2 and "--on-exec" in done.stderr, done


def test_many_times_under_load(running: Running) -> None:
    burners = [subprocess.Popen([sys.executable, "-S", "-c", "while True: pass"]) for _ in range(2)]
    try:
        with running.attach(COUNT) as loaded:
            for number in range(50):
                assert work(loaded, running, f"{'thread' if number % 3 else 'exec'} {number} {running.path}") == 7
            assert count(loaded) == 50 * NUMBER + sum(range(50))
            assert loaded.notes == []
        assert not running.traces()
    finally:
        for burner in burners:
            burner.kill()
            burner.wait()


def test_nobody_answers(running: Running) -> None:
    """A sonde that does not come costs one wait, and no more."""
    with running.attach(COUNT) as loaded:
        begun = time.monotonic()
        assert running.ask("exec 0 /nonexistent") == 2
        assert time.monotonic() - begun > 0.9
        assert running.ask("exec 0 /nonexistent") == 2
        assert drawn(loaded) == 1
        loaded.look()  # late, but there: the gate is kept again
        assert work(loaded, running, f"exec 3 {running.path}") == 7
        assert count(loaded) == NUMBER + 3


def fork_sonde(running: Running, script: str, limit_s: float, then: Callable[[], None]) -> None:
    """Let a sonde of its own trace; call `then` once it is in, and kill it after a while."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        try:
            loaded = running.attach(script)
            os.write(writer, b"x")
            assert loaded.worker is not None
            while True:
                select.select([loaded.worker], [], [])
                loaded.worker.work()
        except BaseException as error:
            os.write(2, f"{error!r}\n".encode())
        finally:
            os._exit(1)
    os.close(writer)
    assert os.read(reader, 1) == b"x"
    os.close(reader)
    timer = threading.Timer(limit_s, os.kill, (child, signal.SIGKILL))
    timer.start()
    then()
    timer.join()
    assert os.waitpid(child, 0)[1] == signal.SIGKILL


@pytest.mark.parametrize("how", ["exec", "thread"])
def test_sonde_killed_at_random_moments(every_kind: str, how: str) -> None:
    random.seed(os.environ.get("SONDE_KILLS_SEED", how))
    running = Running(every_kind)
    try:
        clean = running.text()
        for _ in range(TIMES):

            def go_through_exec() -> None:
                for number in range(4):
                    assert running.ask(f"{how} {number} {every_kind}") == 7
                    assert running.ask("exec 1 /nonexistent") == 2

            fork_sonde(running, COUNT, random.random() * 0.4, go_through_exec)
            assert running.ask("work 5") == 5
            assert "TracerPid:\t0" in Path(f"/proc/{running.pid}/status").read_text()
        for cleaned in remove_agents(running.pid):
            assert cleaned.foreign == ()
            if cleaned.reasons:  # what is left of a return address on a stack keeps memory, but no code
                assert all("function called by" in reason for reason in cleaned.reasons)
        assert running.text() == clean
        assert running.ask("work 5") == 5
    finally:
        running.close()


@pytest.mark.parametrize("kind", ["pie", "musl"])
def test_constructors_of_libraries_that_are_loaded_later(kind: str, tmp_path: Path) -> None:
    path = build(tmp_path, "program", *KINDS[kind])
    libraries = [
        build(tmp_path, f"late{n}.so", KINDS[kind][0], "-O1", "-shared", "-fPIC", source=LIBRARY) for n in (1, 2)
    ]
    running = Running(path)
    try:
        script = " ".join(f"uprobe:{library}:late {{ @ = count(); }}" for library in libraries)
        with running.attach(script) as loaded:
            assert work(loaded, running, f"open 10 {libraries[0]}") == 10
            assert total(loaded, "percpu") == 15
            assert work(loaded, running, f"exec 0 {path}") == 7
            assert work(loaded, running, f"open 20 {libraries[1]}") == 20
            assert total(loaded, "percpu") == 15 + 25
            assert work(loaded, running, f"open 1 {libraries[0]}") == 1
            assert total(loaded, "percpu") == 15 + 25 + 6
            before = drawn(loaded)
            assert running.ask(f"open 1 {libraries[0]}") == 1  # it is there: nobody waits
            assert drawn(loaded) == before
        assert not running.traces()
    finally:
        running.close()


def test_a_library_that_the_next_program_begins_with(tmp_path: Path) -> None:
    library = build(tmp_path, "late.so", "gcc", "-O1", "-shared", "-fPIC", source=LIBRARY)
    first = build(tmp_path, "program", *KINDS["pie"])
    second = build(tmp_path, "linked", "gcc", "-O1", "-Wl,--no-as-needed", library)
    running = Running(first)
    try:
        with running.attach(f"uprobe:{library}:late {{ @ = count(); }}") as loaded:
            assert work(loaded, running, f"exec 0 {second}") == 7
            assert total(loaded, "percpu") == 5
    finally:
        running.close()


def run_as(user: int, task: Callable[[], str]) -> str:
    """What a task says that runs as another user, in a process of its own."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        try:
            if user:
                os.setgroups([])
                os.setgid(user)
                os.setuid(user)
                ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)  # PR_SET_DUMPABLE: /proc/self belongs to this user
            os.write(writer, task().encode())
        except BaseException as error:
            os.write(writer, f"failed: {error!r}".encode())
        finally:
            os._exit(0)
    os.close(writer)
    with open(reader) as answers:
        answer = answers.read()
    os.waitpid(child, 0)
    return answer


def ask_about(paths: list[Path]) -> str:
    """What sonde says of its own process about to become each of the programs."""
    answers = []
    for path in paths:
        name = ctypes.create_string_buffer(os.fsencode(path))
        answers.append(keeps_privileges(os.getpid(), (59, ctypes.addressof(name), 0, 0, 0, 0)))
    return str(answers)


def test_rights_of_a_program_are_kept() -> None:
    if os.getuid():
        pytest.skip("needs root, to make a program that others run as root")
    with tempfile.TemporaryDirectory(prefix="rights-") as folder:
        os.chmod(folder, 0o755)
        plain, special = Path(folder) / "plain", Path(folder) / "special"
        for path in (plain, special):
            shutil.copy("/bin/true", path)
        special.chmod(0o4755)
        paths = [plain, special, Path("/nonexistent")]
        assert run_as(0, lambda: ask_about(paths)) == "[True, True, True]"
        assert run_as(65534, lambda: ask_about(paths)) == "[True, False, False]"


def test_as_another_user_and_into_a_program_with_rights_of_its_own(program: str) -> None:
    if os.getuid():
        pytest.skip("needs root, to make a program that others run as root")

    def follow() -> str:
        running = Running(f"{folder}/plain")
        try:
            with running.attach(COUNT) as loaded:
                said = [work(loaded, running, f"{how} 3 {folder}/plain") for how in ("exec", "thread")]
                said.append(work(loaded, running, f"exec 4 {folder}/special"))
                status = Path(f"/proc/{running.pid}/status").read_text()
                until = time.monotonic() + 20
                while not loaded.notes and time.monotonic() < until:
                    loaded.look()
                    time.sleep(0.001)
                said += [int(status.partition("Uid:")[2].split()[1]), count(loaded), len(loaded.notes)]
                assert "could not be followed" in loaded.notes[0], loaded.notes
            said.append(running.ask("work 5"))
            return str(said)
        finally:
            assert running.process.stdin is not None
            running.process.stdin.close()
            running.process.wait(10)

    with tempfile.TemporaryDirectory(prefix="rights-") as folder:
        os.chmod(folder, 0o755)
        for name, mode in (("plain", 0o755), ("special", 0o4755)):
            shutil.copy(program, f"{folder}/{name}")
            os.chmod(f"{folder}/{name}", mode)
        if os.statvfs(folder).f_flag & os.ST_NOSUID:
            pytest.skip("programs there get no rights (nosuid)")
        ready = Running(program)
        with ready.attach(COUNT) as loaded:  # all of sonde is read while root may
            work(loaded, ready, f"exec 1 {program}")
        ready.close()
        assert run_as(65534, follow) == str([7, 7, 7, 0, 2 * (NUMBER + 3), 1, 5])


def test_a_process_that_calls_itself_by_another_number(program: str) -> None:
    if os.getuid() or not shutil.which("unshare"):
        pytest.skip("needs root and unshare, for a pid namespace")
    running = Running("/usr/bin/env", "unshare", "--pid", "--fork", "--kill-child", program)
    try:
        children = Path(f"/proc/{running.pid}/task/{running.pid}/children")
        running.pid, running.path = int(children.read_text()), program
        assert find_own_pid(running.pid) == 1
        assert find_thread(running.pid, 1) == running.pid
        with running.attach(COUNT) as loaded:
            assert work(loaded, running, f"thread 8 {program}") == 7
            assert work(loaded, running, f"exec 5 {program}") == 7
            assert count(loaded) == 2 * NUMBER + 13
    finally:
        running.close()


def test_there_are_no_halts_in_a_confined_process() -> None:
    with Target("confined", "1") as target, Target("rest", "1") as other:
        assert find_own_pid(target.pid) == 0
        assert find_own_pid(other.pid) == other.pid

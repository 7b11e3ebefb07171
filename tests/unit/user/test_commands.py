"""Commands that sonde starts: traced from the exec and the loader's first instruction on, libraries before their constructors."""

from __future__ import annotations

import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from sonde.api.trace import TraceOptions
from sonde.api.trace import trace as run_trace
from sonde.user import inside
from sonde.user.stopped import is_alive

pytestmark = pytest.mark.skipif(platform.machine() != "x86_64", reason="these probes are x86-64 code")

PROGRAM = r"""
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
__attribute__((noinline, noclone)) long f(long n) { __asm__ volatile("" ::: "memory"); return n + 1; }
__attribute__((constructor)) static void first(void) { for (int i = 0; i < 5; i++) f(i); }
int main(int argc, char **argv) {
  for (int i = 0; i < 10; i++) f(i);
  if (argc > 2) { execv(argv[1], argv + 1); return 1; }
  return 7;
}
"""
KINDS = {"pie": ("gcc",), "no-pie": ("gcc", "-no-pie"), "static": ("gcc", "-static"), "musl": ("musl-gcc",)}
CALLS = """
tracepoint:syscalls:sys_enter_execve { printf("execve %d %s %s\\n", pid == cpid, str(args.filename), str(*(args.argv + 1))); }
tracepoint:syscalls:sys_exit_execve { printf("= %d\\n", args.ret); }
tracepoint:syscalls:sys_enter_openat { printf("openat %s\\n", str(args.filename)); }
"""
EVERYTHING = """
tracepoint:raw_syscalls:sys_enter /pid == cpid/ { printf("enter %d\\n", args.id); }
tracepoint:raw_syscalls:sys_exit /pid == cpid/ { printf("exit %d\\n", args.id); }
"""


@pytest.fixture(scope="module", params=KINDS)
def program(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    words = KINDS[request.param]
    if shutil.which(words[0]) is None:
        pytest.skip(f"needs {words[0]}")
    path = tmp_path_factory.mktemp(request.param) / "program"
    subprocess.run([*words, "-O1", "-x", "c", "-", "-o", path], input=PROGRAM, text=True, check=True)
    return str(path)


def trace(script: str, command: str, *words: str, engine: str = "user", status: int | None = 0) -> str:
    """What a script prints about a command."""
    line = [sys.executable, "-m", "sonde", "trace", "--engine", engine, *words, "-e", script, "-c", command]
    found = subprocess.run(line, capture_output=True, text=True, timeout=60)
    assert status is None or found.returncode == status, found.stderr
    return found.stdout + (found.stderr if status else "")


def test_every_call_is_counted_from_the_first_constructor_on(program: str) -> None:
    assert "@: 15\n" in trace(f"uprobe:{program}:f {{ @ = count(); }}", program)
    assert "@: 15\n" in trace(f"uretprobe:{program}:f {{ @ = count(); }}", program)


def test_the_exec_and_what_the_loader_opens_are_seen(program: str) -> None:
    lines = [line for line in trace(CALLS, f"{program} one").splitlines() if line]
    assert lines[:2] == [f"execve 1 {program} one", "= 0"]
    opened = [line.split()[1] for line in lines[2:]]
    if "musl" not in program and "static" not in program:
        assert opened[0] == "/etc/ld.so.cache" and opened[1].endswith("/libc.so.6")


def test_each_exec_has_its_two_ends(program: str) -> None:
    """The begin of one that a program calls is seen where it calls it, the end in what it has become."""
    lines = [line for line in trace(CALLS, f"{program} {program} {program} two").splitlines() if "openat" not in line]
    assert [line for line in lines if line] == [
        f"execve 1 {program} {program}", "= 0", f"execve 1 {program} {program}", "= 0", f"execve 1 {program} two", "= 0",
    ]  # fmt: skip


def test_a_script_s_exec_is_that_of_its_file(tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text("#!/bin/sh\nexec /bin/true\n")
    script.chmod(0o755)
    lines = [line for line in trace(CALLS, str(script)).splitlines() if line and "openat" not in line]
    assert lines[0].startswith(f"execve 1 {script} ") and lines[1:] == ["= 0", "execve 1 /bin/true ", "= 0"]


COMMANDS = ["/bin/true", "/bin/ls /", "/bin/sh -c 'exec /bin/cat /etc/hostname'", f"{sys.executable} -c 'import json'"]


@pytest.mark.parametrize("command", COMMANDS)
def test_the_kernel_sees_the_same_calls(command: str) -> None:
    """In the same order, but for what nobody can see here: a call of the C library's that the loader asks it for before it halts."""
    if os.geteuid() or not Path("/sys/kernel/btf/vmlinux").exists():
        pytest.skip("needs root and a kernel with BTF")

    def calls(engine: str) -> list[str]:
        words = re.findall(
            r"^(?:enter|exit) \d+$", trace(EVERYTHING, command, engine=engine, status=None), re.MULTILINE
        )
        return words[words.index("enter 59") :]

    kernel, user = calls("kernel"), calls("user")
    unseen = Counter(kernel) - Counter(user)
    assert Counter(user) - Counter(kernel) == Counter()
    assert set(unseen) <= {"enter 302", "exit 302"} and all(count <= 2 for count in unseen.values())  # prlimit64
    assert [word for word in kernel if word not in unseen] == [word for word in user if word not in unseen]


CHILDREN = """
import os, subprocess, threading
def child(quick):
    process = subprocess.Popen(["/bin/true"], close_fds=not quick)
    os.write(1, b"child %d\\n" % process.pid)
    process.wait()
for quick in (True, False):
    child(quick)
threads = [threading.Thread(target=child, args=(n % 2,)) for n in range(6)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
if not (pid := os.fork()):
    child(True)
    os._exit(0)
os.waitpid(pid, 0)
print("parent", os.getpid())
"""


def test_children_are_themselves_whatever_memory_they_run_in(tmp_path: Path) -> None:
    """subprocess begins them by vfork: until they call exec they have their parent's memory, and with it what that has noted of itself."""
    (tmp_path / "children.py").write_text(CHILDREN)
    script = """
    tracepoint:syscalls:sys_enter_execve { printf("execve %d %d\\n", pid, tid); }
    tracepoint:syscalls:sys_enter_wait4, tracepoint:syscalls:sys_enter_write { @[pid] = count(); }"""
    printed = trace(script, f"{sys.executable} {tmp_path}/children.py")
    children = re.findall(r"^child (\d+)$", printed, re.MULTILINE)
    (parent,) = re.findall(r"^parent (\d+)$", printed, re.MULTILINE)
    assert len(set(children)) == 9
    assert Counter(re.findall(r"^execve (\d+) (\d+)$", printed, re.MULTILINE)) == Counter(
        (pid, pid) for pid in (*children, parent)
    )
    others = set(re.findall(r"^@\[(\d+)\]", printed, re.MULTILINE)) - {parent}
    assert len(others) == 1 and not others & set(children), "the child of fork, which waits for its own"


@pytest.mark.parametrize(
    "script", ["rawtracepoint:sys_enter { @ = count(); }", "uprobe:libc:no_such_function { @ = count(); }"]
)
def test_a_command_whose_script_is_refused_does_not_begin(script: str, tmp_path: Path) -> None:
    assert "ERROR" in trace(script, f"/bin/sh -c '> {tmp_path}/made'", status=1)
    time.sleep(0.1)
    assert not (tmp_path / "made").exists()


def build_own(library: Path, *words: str) -> None:
    """Make a library with a function `own`."""
    source = '__attribute__((noinline)) int own(int n) { __asm__ volatile("nop; nop; nop; nop"); return n + 1; }'
    command = ["gcc", "-shared", "-fPIC", "-O1", "-x", "c", "-", "-o", library, *words]
    subprocess.run(command, input=source, text=True, check=True)


def trace_here(script: str, command: str) -> None:
    """As `trace`, in this process."""
    assert run_trace(script, TraceOptions(command=command, engine="user")) == 0


def test_a_loader_that_cannot_halt(
    program: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """The command is traced from its program's own first instruction on: what the loader did is not seen."""
    monkeypatch.setattr(inside, "find_loader_hook", lambda files: None)
    trace_here(f"uprobe:{program}:f {{ @ = count(); }} {CALLS}", program)
    printed = capfd.readouterr().out
    assert "@: 15\n" in printed and f"execve 1 {program} \n= 0\n" in printed and "ld.so.cache" not in printed


def test_the_command_waits_for_its_libraries_probes_as_long_as_it_takes(
    program: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    studied = []

    def study(self: inside.Inside) -> None:
        studied.append(self)
        time.sleep(1.5)
        real(self)

    real = inside.Inside.study
    monkeypatch.setattr(inside.Inside, "study", study)
    trace_here(f"uprobe:{program}:f {{ @ = count(); }}", program)
    assert "@: 15\n" in capfd.readouterr().out
    assert bool(studied) == ("static" not in program)


def test_libraries_that_are_loaded_later_are_waited_for_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    library = tmp_path / "libown.so"
    build_own(library)
    real = inside.Inside.study
    monkeypatch.setattr(inside.Inside, "study", lambda self: (time.sleep(1.2), real(self)))
    (tmp_path / "load.py").write_text(f"import ctypes\nown = ctypes.CDLL('{library}').own\nown(1), own(2)\n")
    trace_here(f"uprobe:{library}:own {{ @ = count(); }}", f"{sys.executable} {tmp_path}/load.py")
    assert "@: 2\n" in capfd.readouterr().out


def test_sonde_killed_while_the_command_waits(program: str, tmp_path: Path) -> None:
    """The command ends with it, and does not stay there asleep."""
    if "static" in program:
        pytest.skip("a static program does not wait")
    report = tmp_path / "report"

    def study(self: inside.Inside) -> None:
        report.write_text(str(self.pid))
        os.kill(os.getpid(), signal.SIGKILL)

    tracer = os.fork()
    if not tracer:
        try:
            inside.Inside.study = study  # type: ignore[method-assign]
            trace_here(f"uprobe:{program}:f {{ @ = count(); }}", program)
        finally:
            os._exit(1)
    assert os.waitpid(tracer, 0)[1] == signal.SIGKILL
    until = time.monotonic() + 5
    while is_alive(int(report.read_text())):
        assert time.monotonic() < until
        time.sleep(0.01)


def test_libraries_by_name_are_those_that_the_program_will_load(tmp_path: Path) -> None:
    """By its own search path, its environment, and the loader's cache."""
    library, user = tmp_path / "lib" / "libown.so.1", tmp_path / "user"
    library.parent.mkdir()
    build_own(library, "-Wl,-soname,libown.so.1")
    (library.parent / "libown.so").symlink_to("libown.so.1")
    main = "int own(int); int main(void) { int s = 0; for (int i = 0; i < 6; i++) s += own(i); return s > 100; }"
    for words, environment in (([f"-Wl,-rpath,{library.parent}"], {}), ([], {"LD_LIBRARY_PATH": str(library.parent)})):
        subprocess.run(
            ["gcc", "-O1", "-x", "c", "-", "-o", user, f"-L{library.parent}", "-lown", *words],
            input=main,
            text=True,
            check=True,
        )
        with pytest.MonkeyPatch.context() as patch:
            for name, value in environment.items():
                patch.setenv(name, value)
            assert "@: 6\n" in trace("uprobe:libown:own { @ = count(); }", str(user))
            assert "@: 6\n" in trace("uprobe:*:own { @ = count(); }", str(user))


def test_what_is_lost_behind_exit_is_not_told(tmp_path: Path) -> None:
    """A busy function calls exit() again and again until its probe is taken out: its ring is full by then."""
    source = """
    __attribute__((noinline, noclone)) long f(long n) { __asm__ volatile("" ::: "memory"); return n + 1; }
    int main(void) { for (long i = 0; i < 1000000000; i++) f(i); }
    """
    path = tmp_path / "busy"
    subprocess.run(["gcc", "-O1", "-x", "c", "-", "-o", path], input=source, text=True, check=True)
    line = [sys.executable, "-m", "sonde", "trace", "--engine", "user", "-c", str(path), "-e"]
    once = subprocess.run(
        [*line, f'uprobe:{path}:f {{ printf("hit\\n"); exit(); }}'], capture_output=True, text=True, timeout=60
    )
    assert once.stdout.split() == ["hit"] and "ost" not in once.stderr, once.stderr
    many = subprocess.run(
        [*line, f"uprobe:{path}:f {{ print(arg0); if (arg0 > 30000000) {{ exit(); }} }}"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    shown = many.stdout.split()
    lost = int(re.findall(r"Total lost event count: (\d+)", many.stderr)[0])
    assert lost and len(shown) + lost >= 30_000_001, "what is lost before is"

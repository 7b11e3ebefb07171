"""Mixed sessions as a user has them: `sonde trace -p` on a program of ours, with probes inside of it and in the kernel, and the output that the kernel engine gives."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from mixed_app import SRC, Traced, build, traced
from user_running import Running, at_work

pytestmark = pytest.mark.kernel


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> str:
    return build(tmp_path_factory.mktemp("mixed"))


@pytest.fixture
def app(path: str) -> Iterator[Running]:
    yield from at_work(path)


COUNTS = """
uprobe:PATH:work {
    @calls = count(); @both = count(); @k[arg0 % (uint64)3] = count(); @s = sum(arg0); @h = hist(arg0);
    @l[1] = lhist(arg0, 0, 100, 10); @a = avg(arg0); @st["x"] = stats(arg0); @lo = min(arg0 + 5); @hi[0] = max(arg0);
}
tracepoint:syscalls:sys_enter_getppid {
    @both = count(); @k[1] = count(); @s = sum(1000); @h = hist(7); @l[1] = lhist(55, 0, 100, 10); @a = avg(500);
    @st["x"] = stats(1); @lo = min(3); @hi[0] = max(99999); @h2[comm] = hist(3);
}
uretprobe:PATH:work { @r = count(); }
"""


def test_sums_of_both_sides_are_exact(app: Running) -> None:
    """Every aggregation, added to from both sides, shows what it shows when the kernel alone adds to it."""
    mixed, said = traced(app, "mixed", COUNTS, lambda app: [app.ask("500") for _ in range(4)])
    assert "engine: mixed (in the process uprobe:" in said and "window" in said
    assert "in the kernel tracepoint:syscalls:sys_enter_getppid" in said
    assert "@calls: 2000\n" in mixed and "@both: 4000\n" in mixed and "@r: 2000\n" in mixed
    kernel, said = traced(app, "kernel", COUNTS, lambda app: [app.ask("500") for _ in range(4)])
    assert "engine: kernel" in said
    assert sorted(mixed.splitlines()) == sorted(kernel.splitlines())


def test_mixed_is_chosen_where_it_serves(app: Running) -> None:
    script = "uprobe:PATH:work { @calls = count(); } tracepoint:sched:sched_switch /pid == $1/ { @switches = count(); }"
    out, said = traced(app, "", script.replace("$1", str(app.pid)), lambda app: app.ask("300 50"))
    assert "engine: mixed (in the process uprobe:" in said and "in the kernel tracepoint:sched:sched_switch" in said
    assert "@calls: 300\n" in out
    found = re.search(r"@switches: (\d+)", out)
    assert found and int(found[1]) >= 600  # it has slept so often


def test_the_compilers_warnings_are_told_once(app: Running) -> None:
    """However many engines were tried: here one that would not see every system call, and both, of which one would see calls of the other."""
    script = "uprobe:PATH:work { @c[tid] = count(); } tracepoint:raw_syscalls:sys_enter { @n[args.id % 4] = count(); }"
    _, said = traced(app, "", script, lambda app: app.ask("5"))
    assert "engine: kernel" in said and said.count("WARNING") == 1, said


def test_where_values_cross_over_the_kernel_runs_it_and_says_why(app: Running) -> None:
    script = "uprobe:PATH:work { @start[tid] = nsecs; @n = count(); } tracepoint:sched:sched_switch /@start[tid]/ { @m = count(); }"
    out, said = traced(app, "", script, lambda app: app.ask("100 50"))
    assert "engine: kernel" in said and "@n: 100\n" in out
    assert "@start is written in the process (uprobe:" in said and "read in the kernel (tracepoint:" in said
    words = ["-p", str(app.pid), "-e", script.replace("PATH", app.path)]
    refused = subprocess.run(
        [sys.executable, "-m", "sonde", "trace", "--engine", "mixed", *words],
        env={**os.environ, "PYTHONPATH": str(SRC)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert refused.returncode == 1 and "@start is written in the process" in refused.stderr
    assert "use --engine kernel" in refused.stderr and app.traces() == []


def test_what_may_be_anywhere_goes_where_its_values_are(app: Running) -> None:
    """A system call that asks what a uprobe has written is seen in the process, and begin writes there."""
    script = """begin { @in = 5; } uprobe:PATH:work { @in++; }
    tracepoint:syscalls:sys_enter_getppid /@in > 5/ { @n = count(); @in = 5 } tracepoint:sched:sched_switch { @s = count(); }"""
    out, said = traced(app, "mixed", script, lambda app: app.ask("100"))
    assert "in the process begin, uprobe:" in said and "sys_enter_getppid; in the kernel tracepoint:sched" in said
    assert "@in: 5\n" in out and "@n: 100\n" in out


CROSSING = """begin { @start = 5; @text = "none"; }
uprobe:PATH:work { @n++; @now = arg0 + 1; @inside = 1; }
uretprobe:PATH:work { @inside = 0; @returns += 2; }
rawtracepoint:sched_switch { @seen = count(); }
tracepoint:sched:sched_switch /@now/ { @last = @now; @switched[@inside] = count(); @text = "switched"; }
tracepoint:syscalls:sys_enter_getppid /!@inside/ { @n++; @calls = count(); @back = @text; }
end { @total = @n + @start; @start = 1; }"""


def test_values_without_keys_cross_over(app: Running) -> None:
    """What one side writes the other reads, from memory that both have."""
    work = lambda app: [app.ask("50 200") for _ in range(2)]  # noqa: E731
    mixed, said = traced(app, "", CROSSING, work)
    assert "engine: mixed (in the process uprobe:" in said
    assert "@n: 200\n" in mixed and "@last: 50\n" in mixed and "@calls: 100\n" in mixed and "@total: 205\n" in mixed
    assert "@returns: 200\n" in mixed and "@back: switched\n" in mixed and "@start: 1\n" in mixed
    kernel, said = traced(app, "kernel", CROSSING, work)
    own = re.compile("@(seen|switched)")  # how often it is switched away from is the machine's business
    assert [x for x in mixed.split("\n") if not own.match(x)] == [x for x in kernel.split("\n") if not own.match(x)]


def test_both_sides_add_to_one_number_at_once(app: Running) -> None:
    """No addition is lost, whoever makes it: threads in the process and programs in the kernel, on several CPUs."""
    script = """uprobe:PATH:work { @n++; @x += 3; }
    tracepoint:raw_syscalls:sys_enter /args.id == 110/ { @n++; @x += 5; } tracepoint:sched:sched_switch /@n/ { @p++; }"""
    out, said = traced(app, "mixed", script, lambda app: [app.ask("-4000") for _ in range(5)])
    assert "in the kernel tracepoint:raw_syscalls:sys_enter, tracepoint:sched" in said
    assert f"@n: {4 * 5 * 4000 * 2}\n" in out and f"@x: {4 * 5 * 4000 * 8}\n" in out


def test_a_child_of_fork_has_the_same_values(app: Running) -> None:
    script = "uprobe:PATH:work { @n++; } tracepoint:sched:sched_switch { @seen = @n; }"
    out, _ = traced(app, "", script, lambda app: (app.ask("20 100"), app.ask("30 -1"), app.ask("5 100")))
    assert "@n: 55\n" in out and "@seen: 55\n" in out


def test_another_users_process(path: str) -> None:
    """root hands the kernel's memory to a process that could not have opened anything of root's."""
    if os.getuid():
        pytest.skip("needs root, to start a process of another user")
    with tempfile.TemporaryDirectory(prefix="mixed") as folder:
        os.chmod(folder, 0o755)
        running = Running(shutil.copy(path, folder), user=65534)
        try:
            script = """uprobe:PATH:work { @n++; @c = count(); } tracepoint:sched:sched_switch { @seen = @n; @s = count(); }"""
            out, said = traced(running, "", script, lambda app: app.ask("40 100"))
        finally:
            running.close()
    assert "engine: mixed" in said and "@n: 40\n" in out and "@c: 40\n" in out and "@seen: 40\n" in out


def test_the_next_program_has_the_same_values(app: Running) -> None:
    """Behind an exec the memory is mapped again: counting goes on where it was."""
    script = "uprobe:PATH:work { @n++; } tracepoint:sched:sched_switch { @seen = @n; }"
    session = Traced("--engine", "mixed", "-p", str(app.pid), "-e", script.replace("PATH", app.path))
    app.ask("20 100")
    app.say("0 -2")
    assert app.process.stdout is not None and app.process.stdout.readline() == "ready\n"
    maps = Path(f"/proc/{app.pid}/maps")
    deadline = time.monotonic() + 30
    while "bpf-map" not in maps.read_text() and time.monotonic() < deadline:
        time.sleep(0.01)
    asked = sum(app.ask("10 100") for _ in range(50))
    out = session.end()
    found = re.search(r"@n: (\d+)", out)
    assert found and 20 < int(found[1]) <= 20 + asked


ROWS = """begin { printf("begin\\n"); }
uprobe:PATH:work { printf("work %d\\n", arg0); }
tracepoint:syscalls:sys_enter_getppid { printf("getppid\\n"); }
end { printf("end\\n"); }"""


def test_rows_of_both_sides_come_in_order(app: Running) -> None:
    mixed, _ = traced(app, "mixed", ROWS, lambda app: [app.ask("40 200"), app.ask("60 200")])
    rounds = [f"work {n}\ngetppid" for count in (40, 60) for n in range(count)]
    assert mixed.split("\n\n")[0].split("\n") == "\n".join(["begin", *rounds, "end"]).split("\n")
    kernel, _ = traced(app, "kernel", ROWS, lambda app: [app.ask("40 200"), app.ask("60 200")])
    assert mixed == kernel


def test_what_ends_a_session_on_one_side_ends_it_on_both(app: Running) -> None:
    script = """uprobe:PATH:work { @n++; @c = count(); if (@n == 30) { printf("enough\\n"); exit(); } }
    tracepoint:sched:sched_switch { @s = count(); } tracepoint:syscalls:sys_enter_getppid { printf("x\\n"); }"""
    session = Traced("--engine", "mixed", "-p", str(app.pid), "-e", script.replace("PATH", app.path))
    app.ask("60 300")
    out, error = session.process.communicate(timeout=60)
    assert session.process.returncode == 0, error
    lines = out.decode().split("\n\n")[0].split("\n")
    assert lines == ["x"] * 29 + ["enough"]
    assert app.traces() == []


def test_printing_and_clearing_reach_both_sides(app: Running) -> None:
    """What an interval has printed and cleared, and what is left at the end, make up what happened."""
    script = """uprobe:PATH:work { @c = count(); @k[1] = count(); } tracepoint:syscalls:sys_enter_getppid { @c = count(); @k[2] = count(); }
    uprobe:PATH:quiet { @q = count(); } self:signal:SIGUSR1 { print(@c); clear(@c); print(@k); clear(@k); }"""
    session = Traced("--engine", "mixed", "-p", str(app.pid), "-e", script.replace("PATH", app.path))
    app.ask("70")
    session.process.send_signal(signal.SIGUSR1)
    assert session.process.stdout is not None
    printed = b""
    while printed.count(b"\n@") < 2 or not printed.endswith(b"\n"):
        printed += os.read(session.process.stdout.fileno(), 4096)
    assert sorted(printed.decode().split()) == ["140", "70", "70", "@c:", "@k[1]:", "@k[2]:"]
    app.ask("30")
    out = session.end()
    assert "@c: 60\n" in out and "@k[1]: 30\n" in out and "@k[2]: 30\n" in out


def test_system_calls_are_those_of_the_program(app: Running) -> None:
    """Getting in and out makes system calls in the process: probes in the kernel see none of them."""
    script = (
        "tracepoint:raw_syscalls:sys_enter /args.id != 0/ { @n[args.id] = count(); } uprobe:PATH:work { @c = count(); }"
    )
    work = lambda app: [app.ask("20") for _ in range(3)]  # noqa: E731
    mixed, said = traced(app, "", script, work)
    assert "engine: mixed" in said
    kernel, _ = traced(app, "kernel", script, work)
    assert "@c: 60\n" in mixed and sorted(mixed.splitlines()) == sorted(kernel.splitlines())


def test_probes_that_would_see_system_calls_of_sondes_own(app: Running) -> None:
    script = "tracepoint:raw_syscalls:sys_enter { @n = count(); } uprobe:PATH:work { @c[str(arg1)] = count(); }"
    out, said = traced(app, "", script, lambda app: app.ask("20"))
    assert "engine: kernel" in said and "may call rt_sigprocmask" in said and "@c[a text]: 20\n" in out
    other = script.replace("raw_syscalls:sys_enter", "syscalls:sys_enter_getppid").replace("@n", "@c[comm]")
    out, said = traced(app, "mixed", other, lambda app: app.ask("20"))
    assert "@c[a text]: 20\n" in out and "@c[app]: 20\n" in out


def test_stacks_of_both_sides(app: Running) -> None:
    script = """uprobe:PATH:work { @u[ustack(2)] = count(); }
    tracepoint:syscalls:sys_enter_getppid { @t[ustack(3)] = count(); } tracepoint:sched:sched_switch { @k[kstack(3)] = count(); }"""
    out, said = traced(app, "", script, lambda app: app.ask("20 100"))
    assert "engine: mixed" in said
    inside = re.search(r"@u\[\s*work\+0\s+rounds\+\d+\s*\]: 20\n", out)
    outside = re.search(r"@t\[\s*getppid\+\d+\s[^]]*\]: 20\n", out)
    assert inside and outside, out
    assert re.search(r"@k\[[^]]*schedule", out), out


def test_a_command_from_its_first_instruction(path: str) -> None:
    script = (
        "uprobe:PATH:work { @c = count(); @both = count(); } tracepoint:syscalls:sys_enter_getppid { @both = count(); }"
    )
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "sonde",
            "trace",
            "--engine",
            "mixed",
            "-c",
            f"{path} 400",
            "-e",
            script.replace("PATH", path),
        ],
        env={**os.environ, "PYTHONPATH": str(SRC)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert "@both: 800\n" in done.stdout and "@c: 400\n" in done.stdout


def test_sonde_is_killed_and_the_process_goes_on(app: Running) -> None:
    text = app.text()
    script = """uprobe:PATH:work { @c = count(); @n++; printf("x\\n"); } tracepoint:sched:sched_switch /@n/ { @s++; }
    tracepoint:syscalls:sys_enter_getppid { @c = count(); printf("y\\n"); }"""
    session = Traced("--engine", "mixed", "-p", str(app.pid), "-e", script.replace("PATH", app.path))
    app.ask("50")
    session.process.kill()
    session.process.communicate()
    assert app.ask("5000") == 5000 and app.traces()
    assert "bpf-map" in Path(f"/proc/{app.pid}/maps").read_text()
    cleaned = subprocess.run(
        [sys.executable, "-m", "sonde", "clean", "-p", str(app.pid)],
        env={**os.environ, "PYTHONPATH": str(SRC)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert cleaned.returncode == 0, cleaned.stderr
    assert app.text() == text and app.traces() == [] and app.ask("50") == 50
    assert "bpf-map" not in Path(f"/proc/{app.pid}/maps").read_text()


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["-e", "uprobe:PATH:work { } kprobe:f { }", "--budget", "100"], "--budget"),
        (["-e", "begin { exit(); } interval:s:1 { }"], "nothing happens in the process"),
        (["PROGRAM.c"], "for scripts"),
    ],
)
def test_what_cannot_be_mixed_is_an_error(app: Running, tmp_path: Path, words: list[str], reason: str) -> None:
    source = tmp_path / "program.c"
    source.write_text("int f;\n")
    places = {"PATH": app.path, "PROGRAM.c": str(source)}
    for name, place in places.items():
        words = [word.replace(name, place) for word in words]
    done = subprocess.run(
        [sys.executable, "-m", "sonde", "trace", "--engine", "mixed", "-p", str(app.pid), *words],
        env={**os.environ, "PYTHONPATH": str(SRC)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode in (1, 2) and reason in done.stderr, done.stderr


def test_no_breakpoint_of_the_kernels_comes_into_a_jump(app: Running) -> None:
    """It would send the process into the middle of the jump; where there is none it may stand beside."""

    def other(function: str) -> subprocess.CompletedProcess[str]:
        script = f"uprobe:{app.path}:{function} {{ @c = count(); }} interval:ms:50 {{ exit(); }}"
        return subprocess.run(
            [sys.executable, "-m", "sonde", "trace", "--engine", "kernel", "-p", str(app.pid), "-e", script],
            env={**os.environ, "PYTHONPATH": str(SRC)},
            capture_output=True,
            text=True,
            timeout=60,
        )

    first = Traced("--engine", "user", "-p", str(app.pid), "-e", f"uprobe:{app.path}:work {{ @c = count(); }}")
    assert app.ask("7") == 7
    refused = other("work")
    assert refused.returncode == 1 and f"sonde {first.process.pid} has a jump there" in refused.stderr
    assert f"end sonde {first.process.pid}" in refused.stderr and other("quiet").returncode == 0
    assert app.ask("5") == 5 and "@c: 12\n" in first.end()
    assert other("work").returncode == 0

    second = Traced("--engine", "user", "-p", str(app.pid), "-e", f"uprobe:{app.path}:work {{ @c = count(); }}")
    second.process.kill()
    second.process.communicate()
    assert f"sonde clean -p {app.pid}" in other("work").stderr

"""The one-liners of the README and of the first milestone, as people type them: through the command line, on this kernel."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from kernel.sdt_program import address_of, build_program

pytestmark = pytest.mark.kernel

ROOT = Path(__file__).resolve().parents[2]


def trace(script: str, command: str = "", *more: str) -> str:
    """Run a script; return what it and the command print."""
    words = [sys.executable, "-m", "sonde", "trace", "-e", script, *(("-c", command) if command else ()), *more]
    env = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, env=env)
    assert done.returncode == 0, done.stderr
    assert not re.search(r"Traceback|ERROR", done.stderr), done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def program() -> Iterator[str]:
    """The program of sdt_program, built."""
    with tempfile.TemporaryDirectory(prefix="sonde-") as folder:
        yield build_program(folder)


def test_files_that_ls_opens() -> None:
    script = 'tracepoint:syscalls:sys_enter_openat /comm == "ls"/ { printf("%s %s\\n", comm, str(args.filename)); }'
    lines = trace(script, "ls /").splitlines()
    assert "ls /" in lines
    assert any(re.fullmatch(r"ls /.*/libc\.so\.6", line) for line in lines)


def test_profile_of_stacks(program: str) -> None:
    out = trace("profile:hz:99 /pid == cpid/ { @[kstack, ustack, comm] = count(); }", f"{program} b")
    assert re.search(r"^@\[\n.*main\+\d+\n.*\n?.*, sdtprogram\]: \d+$", out, re.M | re.S), out


def test_sizes_of_malloc_by_stack(program: str) -> None:
    out = trace("uretprobe:libc:malloc /pid == cpid/ { @[ustack(3)] = hist(retval) }", f"{program} sssd")
    assert re.search(
        r"@\[\n +second\+\d+\n +outer\+\d+\n +main\+\d+\n\]:.*\n\[\d+[KMGT]?, \d+[KMGT]?\) +3 \|@+\|", out
    ), out


def test_names_of_a_process_that_has_ended(program: str) -> None:
    out = trace("uprobe:libc:malloc /pid == cpid/ { @[ustack(3)] = count() }", f"{program} sss")
    assert re.search(r"@\[\n +malloc\+0\n +outer\+\d+\n +main\+\d+\n\]: 3\n", out), out


def test_interval_prints_the_time_and_a_map() -> None:
    script = "tracepoint:syscalls:sys_enter_* { @ = count() } interval:s:1 { time(); print(@); exit() }"
    assert re.search(r"^\d\d:\d\d:\d\d\n@: \d+\n", trace(script, "", "-q"))


def test_usdt(program: str) -> None:
    """A probe with its arguments; one behind a semaphore, which the program only reaches while it is traced."""
    script = (
        f'usdt:{program}:app:plain {{ printf("%d %s\\n", arg0, str(arg1)) }} '
        f"usdt:{program}:app:counted {{ @[probe] = sum(arg0) }}"
    )
    out = trace(script, f"{program} fff")
    assert re.findall(r"^\d some-text$", out, re.M) == ["1 some-text", "2 some-text", "3 some-text"]
    assert f"@[usdt:{program}:app:counted]: 6000\n" in out


def test_uprobe_and_uretprobe(program: str) -> None:
    script = (
        f"uprobe:{program}:first {{ @x = sum(*(int32 *)arg0); @name[str(arg0 + 4)] = count(); @text[str(arg1)] = count() }} "
        f"uretprobe:{program}:first {{ @double = sum((int64)retval) }}"
    )
    out = trace(script, f"{program} fff")
    for wanted in ("@x: 6", "@name[a-name]: 3", "@text[some-text]: 3", "@double: 12"):
        assert wanted in out.splitlines(), out


def test_struct_of_the_script(program: str) -> None:
    script = (
        "struct point { int x; char name[12]; } "
        f'uprobe:{program}:first {{ $p = (struct point *)arg0; printf("%d %s\\n", $p->x, $p->name); }}'
    )
    assert "3 a-name" in trace(script, f"{program} fff").splitlines()


def test_watchpoint(program: str) -> None:
    where = address_of(program, "watched")
    script = f"uprobe:{program}:main {{ @on = 1 }} watchpoint:{where}:8:w /@on/ {{ @n = count() }}"
    assert "@n: 3" in trace(script, f"{program} www").splitlines()


def test_unwatch(program: str) -> None:
    """A watchpoint that was taken away sees no more; the session looks for such wishes before `d` has slept."""
    where = address_of(program, "watched")
    script = (
        f"uprobe:{program}:main {{ @on = 1 }} uprobe:{program}:first {{ unwatch({where}) }} "
        f"watchpoint:{where}:8:w /@on/ {{ @n = count() }}"
    )
    assert "@n: 2" in trace(script, f"{program} wwfdwwwf").splitlines()


def test_watchpoint_in_any_process(program: str) -> None:
    where = address_of(program, "watched")
    script = (
        f'watchpoint:{where}:8:w /comm == "sdtprogram"/ {{ @n[pid != 0] = count(); }} '
        f'begin {{ system("{program} dwwww || true") }} interval:s:5 {{ exit() }} '
        f"uretprobe:{program}:main {{ exit() }}"
    )
    out = trace(script, "", "--unsafe")
    assert re.search(r"^@n\[true\]: ([4-9]|\d\d)$", out, re.M), out


def test_a_running_process(program: str) -> None:
    victim = subprocess.Popen([program, "pss"], stdout=subprocess.PIPE, text=True)
    try:
        assert victim.stdout is not None and victim.stdout.readline() == "waiting\n"
        out = trace(
            'interval:ms:100 { printf("%d\\n", pid); exit() } END { printf("end\\n") }', "", "-p", str(victim.pid)
        )
        assert "end" in out
    finally:
        victim.kill()
        victim.wait()
        victim.stdout.close()

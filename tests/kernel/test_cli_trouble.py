"""Bad situations through the command line: what is said, the exit status, and that nothing stays behind."""

from __future__ import annotations

import json
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.kernel

ROOT = Path(__file__).resolve().parents[2]
SONDE = [sys.executable, "-m", "sonde"]
ENV = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
ATTACHED = "__BPFTRACE_NOTIFY_PROBES_ATTACHED"
OPENAT = "tracepoint:syscalls:sys_enter_openat"


def sonde(*words: str, mode: str = "trace", timeout: float = 60, **more: object) -> subprocess.CompletedProcess[str]:
    """Run one command line to its end; no traceback is ever right."""
    done = subprocess.run(
        [*SONDE, mode, *words],
        capture_output=True,
        text=True,
        timeout=timeout,
        env=ENV,
        **more,  # type: ignore[call-overload]
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done


class Running:
    """A sonde in the background, known to be attached."""

    def __init__(self, *words: str) -> None:
        self.process = subprocess.Popen(
            [*SONDE, "trace", *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**ENV, ATTACHED: "1"},
            start_new_session=True,
        )
        self.out = b""
        self.wait_for(ATTACHED.encode())

    def wait_for(self, text: bytes, limit_s: float = 30) -> None:
        end = time.monotonic() + limit_s
        assert self.process.stdout is not None
        while text not in self.out:
            assert time.monotonic() < end, self.out
            if select.select([self.process.stdout], [], [], 0.1)[0]:
                data = os.read(self.process.stdout.fileno(), 65536)
                assert data, self.out
                self.out += data

    def end(self, *signals: int, pause_s: float = 0.0) -> tuple[int, str]:
        for number in signals:
            self.process.send_signal(number)
            time.sleep(pause_s)
        rest, _ = self.process.communicate(timeout=30)
        text = (self.out + rest).decode()
        assert "Traceback" not in text, text
        return self.process.returncode, text


@pytest.fixture
def running() -> Iterator[list[Running]]:
    """Sondes that a test started; those that still run are killed."""
    started: list[Running] = []
    yield started
    for one in started:
        one.process.kill()
        one.process.communicate()


def bpf_list(kind: str) -> list[dict[str, object]]:
    """What `bpftool KIND list` knows."""
    if not shutil.which("bpftool"):
        pytest.skip("needs bpftool")
    done = subprocess.run(["bpftool", "-j", kind, "list"], capture_output=True, text=True)
    found: list[dict[str, object]] = json.loads(done.stdout or "[]")
    return found


def objects_with(marker: str) -> set[tuple[str, object]]:
    """The maps that are called `marker`, the programs that use them, their other maps and links: all of one script."""
    marked = {m["id"] for m in bpf_list("map") if marker in str(m.get("name"))}
    programs = [p for p in bpf_list("prog") if marked & set(p.get("map_ids", []))]  # type: ignore[call-overload]
    ids = {p["id"] for p in programs}
    found = {("map", n) for n in marked} | {("prog", n) for n in ids}
    found |= {("map", n) for p in programs for n in p["map_ids"]}  # type: ignore[attr-defined]
    return found | {("link", link["id"]) for link in bpf_list("link") if link.get("prog_id") in ids}


def still_there(objects: set[tuple[str, object]], limit_s: float = 10) -> set[tuple[str, object]]:
    """Those of `objects` that are not gone in time; the kernel frees them after a grace period."""
    end = time.monotonic() + limit_s
    while True:
        left = objects & {(kind, o["id"]) for kind in ("map", "prog", "link") for o in bpf_list(kind)}
        if not left or time.monotonic() > end:
            return left
        time.sleep(0.1)


@pytest.fixture
def marker() -> str:
    """A map name that no other test has."""
    return f"m{os.getpid()}_{time.monotonic_ns() % 100000}"


# Scripts that are wrong ---------------------------------------------------------------------------------------------

WRONG = [
    ("BEGIN { printf(; }", r"stdin:1:16(-\d+)?: ERROR: .+\nBEGIN \{ printf\(; \}\n {15}~"),
    ('BEGIN { @x = 1; @x = "a" }', r"stdin:1:\d+-\d+: ERROR: .+\n.*\n +~+"),
    ("BEGIN { $x = nosuch(1) }", r"ERROR: .*nosuch"),
    ("BEGIN { $x = pidd }", r"ERROR: .*pidd"),
    (f"{OPENAT} {{ print(args.filname) }}", r"ERROR: .*filname.*\n.*\n +~+\nHINT: .*filename"),
    ("tracepoint:syscalls:sys_enter_opennat { }", r"No matches for .*\n.*\n~+\nHINT: did you mean .*sys_enter_openat"),
    ("uprobe:libc:malloccc { }", r"No matches for .*\n.*\n~+\nHINT: did you mean .*malloc"),
    ("nosuchprovider:x { }", r"ERROR: .*nosuchprovider"),
]


@pytest.mark.parametrize(("text", "wanted"), WRONG)
def test_wrong_scripts_are_pointed_at(text: str, wanted: str) -> None:
    done = sonde("-e", text)
    assert done.returncode == 1
    assert done.stdout == ""
    assert re.search(wanted, done.stderr), done.stderr


def test_several_mistakes_are_told_at_once() -> None:
    done = sonde("-e", "BEGIN { $x = nosuch(1); $y = neither(2) }")
    assert "nosuch" in done.stderr and "neither" in done.stderr


def test_nothing_is_attached_when_one_of_two_probes_is_wrong(marker: str) -> None:
    script = f'BEGIN {{ printf("begun\\n") }} {OPENAT} {{ @{marker}[1] = 1 }} tracepoint:syscalls:nosuch {{ @ = 1 }}'
    done = sonde("-e", script)
    assert (done.returncode, done.stdout) == (1, "")
    assert not objects_with(marker)


def test_refused_by_the_verifier_shows_the_line_and_the_reason() -> None:
    endless = "BEGIN {\n  $i = (uint64)nsecs;\n  while ($i > 3) { $i += 1 }\n  exit()\n}"
    done = sonde("-e", endless)
    assert done.returncode == 1
    assert re.search(r"stdin:3:\d+-\d+: ERROR: .*instruction \d+", done.stderr), done.stderr
    assert "while ($i > 3)" in done.stderr
    assert re.search(r"^verifier: \S+", done.stderr, re.M), done.stderr


# Loss ---------------------------------------------------------------------------------------------------------------


def test_full_map_warns() -> None:
    script = "config = { max_map_keys = 2 } BEGIN { @[1] = 1; @[2] = 1; @[3] = 1; exit() }"
    done = sonde("-k", "-e", script)
    assert done.returncode == 0
    assert re.search(r"WARNING: .*Map full.*@", done.stderr + done.stdout), done.stderr
    assert "@[3]" not in done.stdout


def test_lost_events_are_counted() -> None:
    """The tracer is held while the loop runs: what finds no room is told, and the sum is right."""
    loop = f"{sys.executable} -S -c 'import os\nfor i in range(20000): os.getppid()'"
    script = (
        "config = { perf_rb_pages = 1 } tracepoint:syscalls:sys_enter_getppid /pid == cpid/ "
        '{ @ = count(); printf("%s\\n", "a line that takes some room in the buffer, again and again and again"); }'
    )
    done = sonde("-e", script, "-c", loop, "-B", "full")
    lost = sum(int(n) for n in re.findall(r"[Ll]ost (\d+) events", done.stderr + done.stdout))
    lines = done.stdout.count("a line that takes")
    assert lost + lines == 20000, (lost, lines, done.stderr)


# Processes ----------------------------------------------------------------------------------------------------------


def test_child_that_cannot_start() -> None:
    done = sonde("-e", "BEGIN { @ = 1 }", "-c", "/nonexistent/program")
    assert done.returncode == 1
    assert "/nonexistent/program" in done.stderr
    done = sonde("-e", "BEGIN { @ = 1 }", "-c", "/etc/passwd")
    assert done.returncode == 1
    assert "/etc/passwd" in done.stderr


def test_end_of_the_child_ends_the_trace() -> None:
    done = sonde("-e", "tracepoint:syscalls:sys_enter_exit_group /pid == cpid/ { @[comm] = count() }", "-c", "true")
    assert (done.returncode, "@[true]: 1" in done.stdout) == (0, True)


def test_end_of_the_process_ends_the_trace(running: list[Running]) -> None:
    victim = subprocess.Popen(["sleep", "100"])
    one = Running("-e", 'interval:s:100 { } END { printf("the end\\n") }', "-p", str(victim.pid))
    running.append(one)
    victim.kill()
    victim.wait()
    status, text = one.end()
    assert (status, "the end" in text) == (0, True)


def test_missing_process() -> None:
    done = sonde("-e", "BEGIN { @ = 1 }", "-p", str((1 << 22) - 1))
    assert done.returncode == 1
    assert re.search(r"ERROR: .*4194303.*", done.stderr), done.stderr
    assert "HINT" in done.stderr


# Output -------------------------------------------------------------------------------------------------------------


def test_closed_pipe_is_silent() -> None:
    script = 'interval:ms:1 { printf("tick\\n"); }'
    command = f"{sys.executable} -m sonde trace -e '{script}' | head -n 1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=30, env=ENV)
    assert done.stdout == "tick\n0\n"
    assert [line for line in done.stderr.splitlines() if not line.startswith("Attached")] == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 16 KiB."""
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", tmp_path], capture_output=True).returncode:
        pytest.skip("cannot mount a tmpfs here")
    yield tmp_path
    subprocess.run(["umount", "-l", tmp_path], check=True)


def test_full_disk(small_disk: Path) -> None:
    script = 'interval:ms:1 { printf("%s\\n", "a line that fills the disk, which is as small as a disk can be, again and again") }'
    done = sonde("-e", script, "-o", str(small_disk / "out"))
    assert done.returncode == 1
    assert re.search(r"ERROR: .*No space left on device", done.stderr), done.stderr


def test_output_that_cannot_be_opened() -> None:
    done = sonde("-e", "BEGIN { exit() }", "-o", "/nonexistent/folder/out")
    assert done.returncode == 1
    assert "/nonexistent/folder/out" in done.stderr


# Signals ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
def test_signals_end_in_order(running: list[Running], marker: str, number: int) -> None:
    script = f'BEGIN {{ @{marker}[1] = 7 }} interval:s:100 {{ @{marker}[2] = 1 }} END {{ printf("the end\\n") }}'
    running.append(Running("-e", script))
    objects = objects_with(marker)
    assert {kind for kind, _ in objects} >= {"map", "prog"}
    status, text = running[0].end(number)
    assert status == 0
    assert text.index("the end") < text.index(f"@{marker}[1]: 7")
    assert not still_there(objects)


def test_second_interrupt_does_not_wait(running: list[Running]) -> None:
    """The maps are long and nobody reads them: the first SIGINT cannot get through, the second ends it."""
    script = "BEGIN { @[1] = 1 } interval:s:100 { } END { for ($i : 0..4000) { @[$i] = (uint64)$i } }"
    running.append(Running("-e", script))
    one = running[0]
    one.process.send_signal(signal.SIGINT)
    time.sleep(1)
    if one.process.poll() is None:
        one.process.send_signal(signal.SIGINT)
    one.process.wait(timeout=10)


def test_kill_leaves_nothing(running: list[Running], marker: str) -> None:
    running.append(Running("-e", f"{OPENAT}, uprobe:libc:malloc, interval:s:1 {{ @{marker}[probe] = count() }}"))
    objects = objects_with(marker)
    assert {kind for kind, _ in objects} == {"map", "prog", "link"}
    running[0].end(signal.SIGKILL)
    assert not still_there(objects)


# Exit codes ---------------------------------------------------------------------------------------------------------


def test_exit_code_of_the_script() -> None:
    assert sonde("-e", "BEGIN { exit(3) }").returncode == 3
    assert sonde("-e", "BEGIN { exit(3) }", mode="bpftrace").returncode == 3


@pytest.mark.parametrize(("mode", "status"), [("trace", 2), ("bpftrace", 1)])
@pytest.mark.parametrize(
    "words",
    [["--nosuch"], [], ["-e"], ["-e", ""], ["/nonexistent.bt"], ["-f", "xml", "-e", "BEGIN{}"], ["-p", "x", "-e", "BEGIN{}"],
     ["-B", "some", "-e", "BEGIN{}"], ["-p", "1", "-c", "true", "-e", "BEGIN{}"]],
    ids=lambda words: " ".join(words) or "nothing",
)  # fmt: skip
def test_usage_errors(mode: str, status: int, words: list[str]) -> None:
    done = sonde(*words, mode=mode)
    assert done.returncode == status, done.stderr
    assert re.search(r"^(ERROR|usage|USAGE)", done.stderr, re.M), done.stderr


def test_attach_failure_is_255_in_bpftrace_mode(tmp_path: Path) -> None:
    """One event more than the CPU has breakpoints."""
    watch = " ".join(f"watchpoint:{0x400000 + 8 * i}:8:w {{ }}" for i in range(5))
    victim = subprocess.Popen(["sleep", "100"])
    try:
        done = sonde("-p", str(victim.pid), "-e", watch, mode="bpftrace")
        assert "ERROR" in done.stderr
        assert done.returncode == 255, done.stderr
    finally:
        victim.kill()
        victim.wait()


# Without privileges -------------------------------------------------------------------------------------------------


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become nobody")
def test_nobody_is_told_the_capability() -> None:
    command = ["setpriv", "--reuid=65534", "--clear-groups", "--inh-caps=-all", "--bounding-set=-all"]
    script = [*SONDE, "trace", "-e", "kprobe:vfs_read { exit() }"]
    done = subprocess.run([*command, *script], capture_output=True, text=True, env=ENV, timeout=30, cwd="/")
    if "No module named" in done.stderr or "Permission denied: '/root" in done.stderr or done.returncode in (126, 127):
        pytest.skip("nobody cannot read this checkout or this Python")
    assert done.returncode == 1, done.stderr
    assert re.search(r"ERROR: .*CAP_BPF", done.stderr), done.stderr
    assert "Traceback" not in done.stderr

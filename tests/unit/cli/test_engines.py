"""Which engine `sonde trace` takes, and that it says so."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

SRC = Path(__file__).resolve().parents[3] / "src"


def trace(*words: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "sonde", "trace", *words],
        env={**os.environ, "PYTHONPATH": str(SRC), **environ},
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_the_engine_is_chosen_and_said() -> None:
    sleeper = subprocess.Popen(["sleep", "100"])
    try:
        script = "uprobe:libc:malloc { @ = count(); } interval:ms:50 { exit(); }"
        done = trace("-v", "-p", str(sleeper.pid), "-e", script)
        assert done.returncode == 0, done.stderr
        assert "engine: user" in done.stderr and "window" in done.stderr
        insisted = trace("-v", "--engine", "user", "-p", str(sleeper.pid), "-e", script)
        assert "engine: user (asked for)" in insisted.stderr
        refused = trace("--engine", "user", "-p", str(sleeper.pid), "-e", "kprobe:vfs_read { @ = count(); }")
        assert refused.returncode == 1 and "the user engine serves" in refused.stderr
    finally:
        sleeper.kill()
        sleeper.wait()


def test_a_script_without_a_process_needs_no_kernel() -> None:
    done = trace("-v", "--engine", "user", "-e", 'begin { printf("%d\\n", 6 * 7); exit(); }')
    assert (done.returncode, done.stdout.strip()) == (0, "42"), done.stderr
    assert "42" in trace("-e", 'begin { printf("%d\\n", 6 * 7); exit(); }', SONDE_ENGINE="user").stdout


def test_a_probe_without_a_process_says_what_is_missing() -> None:
    done = trace("--engine", "user", "-e", "uprobe:libc:malloc { @ = count(); }")
    assert done.returncode == 1 and "which?" in done.stderr and "-p PID" in done.stderr


def test_an_engine_that_is_none() -> None:
    assert trace("--engine", "both", "-e", "begin { }").returncode == 2
    wrong = trace("-e", "begin { }", SONDE_ENGINE="both")
    assert wrong.returncode == 2 and "SONDE_ENGINE" in wrong.stderr


def test_unwind_tables_are_the_user_engines() -> None:
    sleeper = subprocess.Popen(["sleep", "100"])
    try:
        script = "uprobe:libc:malloc { @[ustack] = count(); } interval:ms:50 { exit(); }"
        done = trace("-v", "--unwind", "dwarf", "-p", str(sleeper.pid), "-e", script)
        assert done.returncode == 0 and "engine: user (--unwind is its option)" in done.stderr, done.stderr
        for engine in ("kernel", "mixed"):
            refused = trace("--unwind", "dwarf", "--engine", engine, "-p", str(sleeper.pid), "-e", script)
            assert refused.returncode == 2 and "--unwind is the user engine's" in refused.stderr
    finally:
        sleeper.kill()
        sleeper.wait()
    assert trace("--unwind", "orc", "-e", "begin { }").returncode == 2


def test_the_number_of_cpus_is_that_of_the_machine() -> None:
    """Per-CPU values have more copies in a process, which is nobody's business; reading one looks at all of them."""
    script = 'begin { @c[1] = count(); printf("%d %d\\n", ncpus, @c[1]); exit(); }'
    done = trace("--engine", "user", "-e", script)
    possible = Path("/sys/devices/system/cpu/possible").read_text().strip()
    assert done.stdout.split()[:2] == [str(int(possible.rpartition("-")[2]) + 1), "1"], done.stderr

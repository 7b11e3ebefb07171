"""The `sonde` command as a process: the launcher, the status, the output that must not be lost on the short way out."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
LAUNCHERS = [(str(ROOT / "bin/sonde"),), ("-m", "sonde")]


def start(*words: str, stdout: int = subprocess.PIPE) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    return subprocess.run(
        [sys.executable, *words], stdout=stdout, stderr=subprocess.PIPE, text=True, env=environ, timeout=60
    )


@pytest.mark.parametrize("launcher", LAUNCHERS, ids=["script", "module"])
def test_output_and_status_of_the_process(launcher: tuple[str, ...]) -> None:
    done = start(*launcher, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("usage: sonde COMMAND") and done.stdout.endswith("\n")
    done = start(*launcher, "nonsense")
    assert done.returncode == 2
    assert "unknown command 'nonsense'" in done.stderr


def test_a_full_disk_is_told() -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    try:
        done = start(*LAUNCHERS[0], "--help", stdout=full)
    finally:
        os.close(full)
    assert done.returncode == 1
    assert "No space left on device" in done.stderr
    assert "Traceback" not in done.stderr

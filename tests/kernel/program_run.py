"""Runs a BCC program around a workload: start, wait for its first line, work, wait for what must be seen, interrupt, collect.

Used on the host as a module and in guests, where a fork of the warmed agent imports it: nothing but the standard library.
"""

from __future__ import annotations

import os
import re
import select
import signal
import subprocess
import sys
import tempfile
import time
from typing import NamedTuple

READY = b"Hit Ctrl-C to end"


class Ran(NamedTuple):
    """How a program ended, and what it said."""

    status: int
    out: str
    err: str


def run_program(
    command: list[str], workload: list[str], *, expect: str = "", limit_s: float = 60.0, settle_s: float = 0.0
) -> Ran:
    """Run `command` around `workload`, and interrupt it once its output holds `expect` (a regular expression, "" for nothing).

    When `limit_s` is over, it is interrupted anyway: the caller sees what is missing.
    """
    with tempfile.TemporaryFile() as err:
        program = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=err, start_new_session=True)
        assert program.stdout is not None
        until = time.monotonic() + limit_s
        out = _read_until(program.stdout.fileno(), b"", READY, until)
        if READY in out:
            time.sleep(settle_s)
            done = subprocess.run(workload, capture_output=True, text=True, timeout=limit_s)
            assert done.returncode == 0, f"{' '.join(workload)}: {done.stdout}{done.stderr}"
            out = _read_until(program.stdout.fileno(), out, expect.encode(), until)
        if program.poll() is None:
            program.send_signal(signal.SIGINT)
        try:
            rest, _ = program.communicate(timeout=30)
        except subprocess.TimeoutExpired:
            os.killpg(program.pid, signal.SIGKILL)
            rest, _ = program.communicate()
        err.seek(0)
        said = err.read().decode(errors="replace")
    return Ran(program.returncode, (out + rest).decode(errors="replace"), said)


def _read_until(fd: int, out: bytes, pattern: bytes, until: float) -> bytes:
    while time.monotonic() < until and not re.search(pattern, out):
        if select.select([fd], [], [], 0.05)[0]:
            data = os.read(fd, 65536)
            if not data:
                break
            out += data
    return out


def sonde_bcc(program: str, *arguments: str) -> list[str]:
    """Return the command that runs a BCC program."""
    return [sys.executable, "-m", "sonde", "bcc", program, *arguments]

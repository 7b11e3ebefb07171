"""`sonde clean` after a sonde that was killed."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

SRC = Path(__file__).resolve().parents[3] / "src"
ENVIRON = {**os.environ, "PYTHONPATH": str(SRC)}


def test_what_a_killed_sonde_has_left_is_taken_out() -> None:
    target = subprocess.Popen(
        [sys.executable, "-c", "import time\nprint('ready', flush=True)\nfor n in range(1000): time.sleep(0.02)"],
        stdout=subprocess.PIPE,
    )
    assert target.stdout is not None and target.stdout.readline() == b"ready\n"
    maps = Path(f"/proc/{target.pid}/maps")
    try:
        words = ["trace", "--engine", "user", "-p", str(target.pid), "-e", "uprobe:libc:malloc { @ = count(); }"]
        tracer = subprocess.Popen([sys.executable, "-m", "sonde", *words], env=ENVIRON, stderr=subprocess.PIPE)
        assert tracer.stderr is not None and b"Attached" in tracer.stderr.readline()
        tracer.send_signal(signal.SIGKILL)
        tracer.communicate()
        time.sleep(0.1)
        assert target.poll() is None and "sonde-agent" in maps.read_text()
        done = subprocess.run(
            [sys.executable, "-m", "sonde", "clean", "-p", str(target.pid)], env=ENVIRON, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        assert re.fullmatch(rf"process {target.pid}: [1-9]\d* places in its code put back\n", done.stdout)
        assert "sonde" not in maps.read_text()
        time.sleep(0.1)
        assert target.poll() is None
    finally:
        target.kill()
        target.communicate()

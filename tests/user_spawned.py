"""A command under `sonde bpftrace` with the user engine, as its users run it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

SRC = Path(__file__).resolve().parents[1] / "src"


def run_traced(script: str, command: str, limit_s: float = 100) -> subprocess.CompletedProcess[str]:
    """Run a command with a script's probes in it, however many; both end within the limit, or TimeoutExpired is raised."""
    environment = {**os.environ, "PYTHONPATH": str(SRC), "SONDE_ENGINE": "user", "BPFTRACE_MAX_PROBES": "100000"}
    words = [sys.executable, "-m", "sonde", "bpftrace", "-e", script, "-c", command]
    return subprocess.run(words, capture_output=True, text=True, env=environment, timeout=limit_s, check=False)

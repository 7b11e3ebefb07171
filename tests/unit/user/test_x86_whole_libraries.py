"""Every function of the C library, of libcrypto and of whatever else a process has loaded takes a trampoline, and the process does what it did."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).resolve().parents[2] / "x86_whole.py"


@pytest.mark.skipif(platform.machine() != "x86_64", reason="changes x86-64 code")
def test_every_function_of_this_processs_libraries() -> None:
    done = subprocess.run([sys.executable, str(PROGRAM)], capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["wrong"] == []
    libraries = result["libraries"]
    c_library = next((found for name, found in libraries.items() if name.startswith(("libc.so", "libc.musl"))), None)
    assert c_library, list(libraries)
    total = sum(
        sum(found.get(kind, 0) for kind in ("nop", "relocated", "punned", "none", "not served"))
        for found in libraries.values()
    )
    served = sum(sum(found.get(kind, 0) for kind in ("nop", "relocated", "punned")) for found in libraries.values())
    assert total > 2000
    assert served >= 0.998 * total
    assert c_library["called"] > 100
    assert c_library["calls"] > 10_000

"""Every function of the C library, of libcrypto and of whatever else a process has loaded takes a trampoline, and the process does what it did.

So do random instructions of theirs. `python tests/x86_whole.py SEED 7` takes one in seven: 118,000 here.
"""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).resolve().parents[2] / "x86_whole.py"


pytestmark = pytest.mark.skipif(platform.machine() != "x86_64", reason="changes x86-64 code")
KINDS = ("nop", "relocated", "punned", "none", "not served")


def run(*arguments: str) -> dict[str, dict[str, int]]:
    """Run the program; return what it says of each library, after checking that the process did what it did before."""
    done = subprocess.run([sys.executable, str(PROGRAM), *arguments], capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, (done.returncode, done.stderr)
    result = json.loads(done.stdout)
    assert result["wrong"] == []
    libraries: dict[str, dict[str, int]] = result["libraries"]
    return libraries


def count(libraries: dict[str, dict[str, int]], *kinds: str) -> int:
    return sum(found.get(kind, 0) for found in libraries.values() for kind in kinds)


def test_every_function_of_this_processs_libraries() -> None:
    libraries = run()
    assert count(libraries, *KINDS) > 2000
    assert count(libraries, *KINDS[:3]) >= 0.998 * count(libraries, *KINDS)
    assert count(libraries, "called") > 100
    assert count(libraries, "calls") > 10_000


@pytest.mark.parametrize("seed", ["11"])
def test_random_instructions(seed: str) -> None:
    libraries = run(seed, "80")
    assert count(libraries, *KINDS) > 2000
    assert count(libraries, *KINDS[:3]) >= 0.97 * count(libraries, *KINDS)
    assert count(libraries, "calls") > 1000

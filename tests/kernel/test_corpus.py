"""Every case of tests/corpus on the running kernel, through bpftrace's command line."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from corpus_cases import Case, differences, load_cases
from corpus_needs import missing_need
from corpus_server import SRC, Server

pytestmark = pytest.mark.kernel


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server() as running:
        yield running


@pytest.mark.parametrize("case", load_cases(), ids=lambda case: case.name)
def test_case(case: Case, server: Server, tmp_path: Path) -> None:
    lacking = missing_need(case.requires)
    if lacking:
        pytest.skip(f"needs {lacking}")
    for name, text in case.files.items():
        (tmp_path / name).write_text(text)
    wrong = differences(case, *server.run(case.words, case.env, str(tmp_path)))
    assert not wrong, f"{case.path.name}:{case.line}: " + "\n".join(wrong)


def test_command_line_as_users_start_it() -> None:
    """The server's children are as good as a process of its own."""
    words = ["bpftrace", "-e", 'begin { @x = 3; printf("%s %d\\n", "from a process", 1); exit() }']
    done = subprocess.run(
        [sys.executable, "-m", "sonde", *words],
        env={**os.environ, "PYTHONPATH": str(SRC)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout) == (0, "from a process 1\n\n\n@x: 3\n")
    assert "Attached 1 probe" in done.stderr

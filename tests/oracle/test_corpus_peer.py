"""The cases of tests/corpus through bpftrace itself, so that what they expect can be checked against what they follow.

Opt-in: set SONDE_PEER to a bpftrace of 0.27 or newer, or to "cache" for the one that `bench/peers.py --fetch` unpacks.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from corpus_cases import Case, as_expected_lines, differences, load_cases
from corpus_needs import missing_need

pytestmark = [pytest.mark.kernel, pytest.mark.oracle]

OLDEST = (0, 27)


@pytest.fixture(scope="module")
def peer() -> list[str]:
    """The words that start the peer."""
    wanted = os.environ.get("SONDE_PEER", "")
    if not wanted:
        pytest.skip("SONDE_PEER is not set: no bpftrace to compare with")
    command = _cached() if wanted == "cache" else [wanted]
    done = subprocess.run([*command, "--version"], capture_output=True, text=True)
    found = re.search(r"v(\d+)\.(\d+)", done.stdout)
    if not found or (int(found[1]), int(found[2])) < OLDEST:
        pytest.skip(f"{' '.join(command)} is not bpftrace 0.27 or newer")
    return command


def _cached() -> list[str]:
    sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "bench"))
    from peers import find_peers

    peers = find_peers()
    if not peers:
        pytest.skip("no bpftrace found; bench/peers.py --fetch unpacks one")
    return list(peers[-1].command)


@pytest.mark.parametrize("case", [c for c in load_cases() if not c.peer], ids=lambda case: case.name)
def test_peer(case: Case, peer: list[str], tmp_path: Path) -> None:
    lacking = missing_need(case.requires)
    if lacking:
        pytest.skip(f"needs {lacking}")
    for name, text in case.files.items():
        (tmp_path / name).write_text(text)
    done = subprocess.run(
        [*peer, *case.words],
        env={**os.environ, **case.env},
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=60,
    )
    out, err = (text.decode("utf-8", "backslashreplace") for text in (done.stdout, done.stderr))
    if case.peer_order:
        out = as_expected_lines(case, out)
    wrong = differences(case, done.returncode, out, err)
    assert not wrong, f"{case.path.name}:{case.line}: " + "\n".join(wrong)

"""Our listings against those of bpftrace, where it is installed: the same names, the same arguments, the same order."""

from __future__ import annotations

import os
import shutil
import subprocess

import pytest

from sonde.probes.listing import iter_probes


def bpftrace(*options: str) -> list[str]:
    """What `bpftrace -l …` prints; skips where it cannot run."""
    path = shutil.which("bpftrace")
    if path is None:
        pytest.skip("bpftrace is not installed")
    if os.geteuid() != 0:
        pytest.skip("bpftrace -l needs root")
    done = subprocess.run([path, *options], capture_output=True, text=True, timeout=60)
    if done.returncode != 0:
        pytest.skip(f"bpftrace cannot list: {done.stderr[-200:]}")
    return done.stdout.splitlines()


def ours(text: str, *, verbose: bool = False) -> list[str]:
    from sonde.kernel.target import live_target

    return list(iter_probes(text, live_target(), verbose=verbose))


@pytest.mark.oracle
@pytest.mark.kernel
@pytest.mark.parametrize("text", ["tracepoint:*", "tracepoint:*:*wait*", "tracepoint:sched:sched_s*"])
def test_tracepoints(text: str) -> None:
    theirs = bpftrace("-l", text)
    assert theirs
    assert ours(text) == sorted(theirs)  # before 0.18 the order was the kernel's


@pytest.mark.oracle
@pytest.mark.kernel
def test_arguments_of_tracepoints() -> None:
    theirs = bpftrace("-lv", "tracepoint:sched:sched_switch")
    mine = ours("tracepoint:sched:sched_switch", verbose=True)
    # Old versions list the common fields too, and end with the record's padding.
    assert mine[0] == theirs[0]
    assert set(mine) <= set(theirs)


@pytest.mark.oracle
def test_functions_of_a_program() -> None:
    path = os.path.realpath(shutil.which("bash") or "/bin/bash")
    theirs = bpftrace("-l", f"uprobe:{path}:*")
    assert theirs
    assert ours(f"uprobe:{path}:*") == sorted(theirs)

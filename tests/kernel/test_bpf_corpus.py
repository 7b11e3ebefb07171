"""Programs in the style of libbpf's tools (tests/bpf_c): all compile without a warning, this kernel takes them, and some show what a workload does."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from kernel.bpf_corpus import FOLDER, NAMES, load
from vm.guest import Guest

ROOT = Path(__file__).resolve().parents[2]
NOT_ON_6_1 = {"later", "names"}  # keys and values within ring buffers' records
IN_GUESTS = ["guard", "opens_by_fentry"]  # what this kernel refuses; SONDE_BPF_CORPUS=all loads all of them there


@pytest.mark.kernel
@pytest.mark.parametrize("name", NAMES)
def test_program(name: str) -> None:
    lacking = load(name)
    if lacking:
        assert name in IN_GUESTS, lacking
        pytest.skip(lacking.splitlines()[0])


def test_programs_in_guests(guest: Guest) -> None:
    if guest.kernel.series == "5.10":
        pytest.skip("Linux 5.10 lacks what most of them use")
    names = NAMES if os.environ.get("SONDE_BPF_CORPUS") == "all" else IN_GUESTS
    if guest.kernel.series == "6.1":
        names = [name for name in names if name not in NOT_ON_6_1]
    path = [str(ROOT / "src"), str(ROOT / "tests")]
    source = "import sys; from kernel.bpf_corpus import main; sys.exit(main())"
    result = guest.python(source, path=path, args=names, timeout_s=600)
    assert result.status == 0, f"{result.out}\n{result.err}"
    assert result.out.count(": taken") >= len(IN_GUESTS), result.out


def traced(name: str, work: list[str]) -> list[dict]:  # type: ignore[type-arg]
    """The rows that `sonde trace -f json` prints of a program while `work` runs."""
    command = [sys.executable, "-m", "sonde", "trace", "-f", "json", "-B", "none", str(FOLDER / f"{name}.bpf.c")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            while "attached_probes" not in (line := process.stdout.readline()):
                assert line, process.communicate()
            subprocess.run(work, check=True, capture_output=True, timeout=60)
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 0, (out, err)
    return [json.loads(line) for line in out.splitlines() if line.startswith("{")]


def records(rows: list[dict], name: str) -> list[dict]:  # type: ignore[type-arg]
    return [row["data"][name] for row in rows if row["type"] == "record" and name in row["data"]]


@pytest.mark.kernel
def test_files_that_are_opened(tmp_path: Path) -> None:
    path = tmp_path / "known.txt"
    path.write_text("x")
    found = [r for r in records(traced("opened", ["/bin/cat", str(path)]), "events") if r["name"] == str(path)]
    assert len(found) == 1 and found[0]["comm"] == "cat" and found[0]["result"] >= 0 and found[0]["took_ns"] > 0


@pytest.mark.kernel
def test_programs_that_start_with_their_arguments() -> None:
    rows = records(traced("started", ["/bin/true", "one", "two words"]), "events")
    (ours,) = [row for row in rows if row["comm"] == "true" and row["count"] == 3]
    assert ours["ppid"] == os.getpid()
    assert ours["args"] == "/bin/true"  # a text ends at its NUL; the others lie behind it


@pytest.mark.kernel
def test_processes_that_end() -> None:
    rows = records(traced("ended", ["/bin/sh", "-c", "/bin/sh -c 'exit 7' ; true"]), "ended")
    assert [row["signal"] for row in rows if row["code"] == 7] == [0]


@pytest.mark.kernel
def test_maps_of_system_calls() -> None:
    rows = traced("calls", [sys.executable, "-c", "import os; [os.getppid() for _ in range(1234)]"])
    (data,) = [row["data"]["data"] for row in rows if row["type"] == "map" and "data" in row["data"]]
    number = {"x86_64": "110", "aarch64": "173"}[os.uname().machine]
    assert data[number]["count"] >= 1234 and data[number]["total_ns"] > 0


@pytest.mark.kernel
@pytest.mark.parametrize("name", ["opened", "locks", "tasks", "readline", "firewall", "kernels"])
def test_as_an_object(name: str, tmp_path: Path) -> None:
    """Written by `sonde build`, read back, and taken by the kernel all the same."""
    from sonde.api.build import build
    from sonde.api.objects import read_object
    from sonde.kernel.engine import KernelEngine
    from sonde.lang.source import Source

    path = FOLDER / f"{name}.bpf.c"
    made = tmp_path / f"{name}.o"
    made.write_bytes(build(Source(str(path), path.read_text())))
    KernelEngine().load(read_object(str(made), find_places=False)).close()

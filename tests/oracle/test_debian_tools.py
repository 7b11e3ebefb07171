"""Debian's bpftrace tools, unmodified, through sonde: on the running kernel where it has what they need, else in a guest.

Each tool must attach, see its workload, end cleanly on Ctrl-C, and say nothing on stderr but warnings.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from toolrun import run_tool
from tools import TOOLS, Tool
from vm.modules import load_modules

TOOL_DIR = Path("/usr/sbin")
ROOT = Path(__file__).resolve().parents[2]
SONDE = [sys.executable, "-m", "sonde", "bpftrace"]


def tool_path(tool: Tool) -> str:
    path = TOOL_DIR / tool.name
    if not path.exists():
        pytest.skip(f"{tool.name} is not installed (Debian package bpftrace)")
    return str(path)


def check(tool: Tool, status: int, out: str, err: str) -> None:
    assert "Traceback" not in err, err
    assert not re.search(r"^(ERROR|.*: ERROR:)", err, re.M), err
    assert status == 0, err
    assert re.search(tool.expect, out), f"stdout:\n{out[-3000:]}\nstderr:\n{err[-2000:]}"


@pytest.mark.kernel
@pytest.mark.oracle
@pytest.mark.parametrize("tool", [t for t in TOOLS if not t.needs], ids=lambda t: t.name)
def test_tool_here(tool: Tool) -> None:
    command = [*SONDE, tool_path(tool)]
    check(tool, *run_tool(command, tool.workload, env={"PYTHONPATH": str(ROOT / "src")}))


def run_in_guest(guest, tool: Tool, command: list[str], settle_s: float = 1) -> tuple[int, str, str]:  # type: ignore[no-untyped-def]
    """Run a tool around its workload in a guest."""
    runner = (Path(__file__).parent / "toolrun.py").read_text()
    lacking = [name for name in tool.programs if not shutil.which(name)]
    if lacking:
        pytest.skip(f"{', '.join(lacking)} is not installed")
    load_modules(guest, *tool.modules)
    request = (
        f"{runner}\nimport json\nprint(json.dumps(run_tool({[*command, tool_path(tool)]!r}, {tool.in_guest or tool.workload!r}, "
        f"settle_s={settle_s}, after_s=3, limit_s=90, before={tool.before!r}, env={{'PYTHONPATH': {str(ROOT / 'src')!r}}})))"
    )
    result = guest.python(request, timeout_s=240)
    assert result.status == 0, result.err
    status, out, err = json.loads(result.out)
    return status, out, err


@pytest.mark.oracle
@pytest.mark.parametrize("tool", [t for t in TOOLS if not t.nowhere], ids=lambda t: t.name)
def test_tool_in_guest(tool: Tool, guest) -> None:  # type: ignore[no-untyped-def]
    if guest.kernel.series != tool.series:
        pytest.skip(f"tried on Linux {tool.series}")
    check(tool, *run_in_guest(guest, tool, SONDE))


@pytest.mark.oracle
@pytest.mark.parametrize("tool", [t for t in TOOLS if t.nowhere], ids=lambda t: t.name)
def test_tool_says_what_the_kernel_lacks(tool: Tool, guest) -> None:  # type: ignore[no-untyped-def]
    status, out, err = run_in_guest(guest, tool, SONDE)
    assert status and not out, out
    assert "Traceback" not in err
    assert re.search(tool.expect, err), err


@pytest.mark.oracle
@pytest.mark.parametrize("tool", [t for t in TOOLS if t.compared], ids=lambda t: t.name)
def test_like_debians_bpftrace(tool: Tool, guest) -> None:  # type: ignore[no-untyped-def]
    """The same workload gives the same header, and lines or maps of the same form with the values that are known."""
    if guest.kernel.series != tool.series:
        pytest.skip(f"tried on Linux {tool.series}")
    if not shutil.which("bpftrace"):
        pytest.skip("Debian's bpftrace is not installed")
    # The notice that probes are attached came later than 0.17: it has as long as a slow machine needs.
    peer = run_in_guest(guest, tool, ["bpftrace"])
    ours = run_in_guest(guest, tool, SONDE)
    for status, out, err in (peer, ours):
        assert status == 0, err
        assert re.search(tool.expect, out), f"stdout:\n{out[-2000:]}\nstderr:\n{err[-2000:]}"
    assert header(peer[1]) == header(ours[1])


def header(out: str) -> list[str]:
    """What a tool says before anything happens: lines without digits, up to the first line with one."""
    lines = [line.rstrip() for line in out.splitlines() if line.strip() and not line.startswith("Attaching")]
    until = next((i for i, line in enumerate(lines) if re.search(r"\d|^@", line)), len(lines))
    return lines[:until]

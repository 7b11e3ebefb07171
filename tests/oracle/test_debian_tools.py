"""Debian's bpftrace tools, unmodified, through sonde: on the running kernel where it has what they need, else in a guest.

Each tool must attach, see its workload, end cleanly on Ctrl-C, and say nothing on stderr but warnings.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from toolrun import run_tool
from tools import TOOLS, Tool

TOOL_DIR = Path("/usr/sbin")
ROOT = Path(__file__).resolve().parents[2]
SONDE = [sys.executable, "-m", "sonde", "bpftrace"]

# What these need is not in any kernel or library that the tests can have; they are compiled and attached as far as it goes.
NOWHERE = {
    "kprobe-md": "the md module",
    "xfs": "the xfs module",
    "openssl-1": "functions of OpenSSL 1.x",
}


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


@pytest.mark.oracle
@pytest.mark.parametrize("tool", [t for t in TOOLS if t.needs not in NOWHERE], ids=lambda t: t.name)
def test_tool_in_guest(tool: Tool, guest) -> None:  # type: ignore[no-untyped-def]
    if guest.kernel.series != tool.series:
        pytest.skip(f"tried on Linux {tool.series}")
    path = tool_path(tool)
    runner = (Path(__file__).parent / "toolrun.py").read_text()
    request = (
        f"{runner}\nimport json\nprint(json.dumps(run_tool({[*SONDE, path]!r}, {tool.workload!r}, "
        f"settle_s=1, after_s=3, limit_s=90, env={{'PYTHONPATH': {str(ROOT / 'src')!r}}})))"
    )
    result = guest.python(request, timeout_s=150)
    assert result.status == 0, result.err
    import json

    check(tool, *json.loads(result.out))

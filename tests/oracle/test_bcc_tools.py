"""Debian's BCC tools, unmodified, by `sonde bcc`: on the running kernel, and in a guest those that need kprobes."""

from __future__ import annotations

import json
import os
import re
import shlex
import sys
from pathlib import Path

import pytest
import rooms
from oracle.bcc_toolrun import run_tool
from oracle.bcc_tools import TOOLS, Tool
from vm.guest import Guest

pytestmark = pytest.mark.oracle
RUNNER = Path(__file__).with_name("bcc_toolrun.py")
CLEAN = (0, 1, 130)  # some tools end with 1 on Ctrl-C, as under BCC


def label(tool: Tool) -> str:
    """The name of a test."""
    return tool.name + (f"-{re.sub('[^a-zA-Z0-9_]+', '_', tool.args)[:24]}" if tool.args else "")


@pytest.fixture(autouse=True)
def installed() -> None:
    if not os.path.exists("/usr/sbin/opensnoop-bpfcc"):
        pytest.skip("needs Debian's package bpfcc-tools")


def check(tool: Tool, status: int, out: str, err: str) -> None:
    """The output shows the workload, nothing went wrong, and Ctrl-C ended it cleanly."""
    text = f"{out}\n-- stderr:\n{err}"
    assert "Traceback" not in err, text
    assert "ERROR" not in err, text
    found = re.search(tool.expect, out, re.M)
    assert found, text
    assert not tool.least or int(found[1]) >= tool.least, text
    assert status in CLEAN, text


@pytest.mark.kernel
@pytest.mark.parametrize("tool", [t for t in TOOLS if not t.needs], ids=label)
def test_tool_here(tool: Tool) -> None:
    arguments = shlex.split(tool.args.replace("{pid}", str(os.getpid())))
    command = [sys.executable, "-m", "sonde", "bcc", tool.name, *arguments]
    status, out, err = run_tool(command, tool.workload, env={"PYTHONPATH": str(rooms.ROOT / "src")})
    check(tool, status, out, err)


@pytest.mark.parametrize("tool", [t for t in TOOLS if t.needs == "kprobe"], ids=label)
def test_tool_in_guest(guest: Guest, tool: Tool) -> None:
    if guest.kernel.series != tool.series:
        pytest.skip(f"runs on {tool.series}")
    arguments = shlex.split(tool.args.replace("{pid}", "1"))
    source = RUNNER.read_text() + (
        "\nimport json, sys\nname, workload, *rest = json.loads(sys.argv[1])\n"
        "command = ['/usr/bin/python3', '-m', 'sonde', 'bcc', name, *rest]\n"
        "print(json.dumps(run_tool(command, workload, settle_s=3, after_s=1, limit_s=100)))\n"
    )
    result = guest.python(
        source,
        args=[json.dumps([tool.name, tool.workload, *arguments])],
        env={"PYTHONPATH": str(rooms.ROOT / "src"), "PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "TERM": "dumb"},
        timeout_s=200,
    )
    assert result.status == 0, result.err
    check(tool, *json.loads(result.out))

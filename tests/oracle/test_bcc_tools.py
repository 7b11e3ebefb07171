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
from oracle.bcc_tools import ALL, TOOLS, USDT_TOOLS, Tool
from oracle.standin import lacking, start_standin
from oracle.toolrun import run_tool
from vm.guest import Guest

pytestmark = pytest.mark.oracle
RUNNER = Path(__file__).with_name("toolrun.py")
LIMIT_S = 90  # a start takes 1 to 6 s under emulation; a busy machine is slower
SAMPLE = ("tcpconnect", "vfscount", "ext4slower")
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


def disk_of(path: str) -> str:
    """The name of the disk that a file is on; skips where it is on none."""
    number = os.stat(path).st_dev
    link = Path(f"/sys/dev/block/{os.major(number)}:{os.minor(number)}")
    if not link.exists():
        pytest.skip(f"{path} is on no disk")
    found = link.resolve()
    return found.parent.name if (found / "partition").exists() else found.name


def run_here(tool: Tool, **words: str) -> tuple[int, str, str]:
    """Run a tool on this machine; `words` are put in place of {word} in its arguments and workload."""
    arguments, workload = tool.args, tool.workload
    if "{disk}" in tool.args:
        words["disk"] = disk_of("/")
    for word, value in {"pid": str(os.getpid()), **words}.items():
        arguments, workload = (text.replace("{" + word + "}", value) for text in (arguments, workload))
    command = [sys.executable, "-m", "sonde", "bcc", tool.name, *shlex.split(arguments)]
    environ = {"PYTHONPATH": str(rooms.ROOT / "src"), "TERM": "dumb"}
    return run_tool(command, workload, env=environ, by_descriptors=True)


@pytest.mark.kernel
@pytest.mark.parametrize("tool", [t for t in TOOLS if not t.needs], ids=label)
def test_tool_here(tool: Tool) -> None:
    check(tool, *run_here(tool))


@pytest.mark.kernel
@pytest.mark.parametrize("tool", USDT_TOOLS, ids=label)
def test_tool_of_a_language_here(tool: Tool, tmp_path: Path) -> None:
    if lacking():
        pytest.skip(f"needs {lacking()}")
    with start_standin(tool.app, tmp_path) as app:
        try:
            check(tool, *run_here(tool, app=str(app.pid), path=str(tmp_path / tool.app)))
        finally:
            app.kill()


def run_in_guest(guest: Guest, tool: Tool, command: list[str], **environ: str) -> tuple[int, str, str]:
    """Run a tool around its workload in a guest, after what makes the guest ready for it."""
    arguments = shlex.split(tool.args.replace("{pid}", "1"))
    before = tool.before.replace("MODULES", str(guest.kernel.modules))
    source = RUNNER.read_text() + (
        "\nimport json, sys\ncommand, workload, before, limit_s = json.loads(sys.argv[1])\n"
        "subprocess.run(before, shell=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)\n"
        "print(json.dumps(run_tool(command, workload, settle_s=1.5, after_s=1, limit_s=limit_s, by_descriptors=True)))\n"
    )
    env = {"PYTHONPATH": str(rooms.ROOT / "src"), "PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "TERM": "dumb", **environ}
    request = [[*command, *arguments], tool.workload, before, LIMIT_S]
    result = guest.python(source, args=[json.dumps(request)], env=env, timeout_s=LIMIT_S + 60)
    assert result.status == 0, result.err
    status, out, err = json.loads(result.out)
    return status, out, err


def chosen(tools: list[Tool], few: tuple[str, ...]) -> list[Tool]:
    """Those that a run has time for: a few, or with SONDE_BCC_TOOLS=all every one."""
    return tools if os.environ.get("SONDE_BCC_TOOLS") == "all" else [t for t in tools if t.name in few]


@pytest.mark.parametrize("tool", chosen([t for t in ALL if t.needs == "kprobe"], SAMPLE), ids=label)
def test_tool_in_guest(guest: Guest, tool: Tool) -> None:
    if guest.kernel.series != tool.series:
        pytest.skip(f"runs on {tool.series}")
    check(tool, *run_in_guest(guest, tool, ["/usr/bin/python3", "-m", "sonde", "bcc", tool.name]))

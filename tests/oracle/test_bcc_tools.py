"""Debian's BCC tools, unmodified, by `sonde bcc`: on the running kernel, and in a guest those that need kprobes."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import rooms
from oracle.bcc_tools import ALL, REFUSALS, TOOLS, USDT_TOOLS, Refusal, Tool
from oracle.screen import show
from oracle.standin import lacking, start_standin
from oracle.toolrun import watch_tool
from vm.guest import Guest
from vm.kernels import KernelUnavailable, get_headers
from vm.modules import load_modules

pytestmark = pytest.mark.oracle
SONDE = ("/usr/bin/python3", "-m", "sonde", "bcc")
RUNNER = Path(__file__).with_name("toolrun.py")
LIMIT_S = 90  # a start takes 1 to 6 s under emulation; a busy machine is slower
BCC_LIMIT_S = 300  # LLVM takes up to 90 s to compile under emulation
BCC_ON_5_10 = ("biolatency", "biosnoop", "biotop", "compactsnoop", "kvmexit")
SAMPLE = ("tcpconnect", "vfscount", "ext4slower")
CLEAN = (0, 1, 130)  # some tools end with 1 on Ctrl-C, as under BCC
ENDING_S = 20.0  # is plenty also for a slow guest


def label(tool: Tool | Refusal) -> str:
    """The name of a test."""
    return tool.name + (f"-{re.sub('[^a-zA-Z0-9_]+', '_', tool.args)[:24]}" if tool.args else "")


@pytest.fixture(autouse=True)
def installed() -> None:
    if not os.path.exists("/usr/sbin/opensnoop-bpfcc"):
        pytest.skip("needs Debian's package bpfcc-tools")


def check(tool: Tool, seen: dict[str, Any]) -> None:
    """The output shows the workload, nothing went wrong, and Ctrl-C ended it cleanly."""
    out = show(seen["out"]) if tool.terminal else seen["out"]
    text = f"{out}\n-- stderr:\n{seen['err']}"
    assert "Traceback" not in seen["err"], text
    assert "ERROR" not in seen["err"], text
    found = re.search(tool.expect, out, re.M)
    assert found, text
    assert not tool.least or sum(int(m[1]) for m in re.finditer(tool.expect, out, re.M)) >= tool.least, text
    if tool.total[1]:
        assert tool.total[0] <= total(out[found.end() :]) <= tool.total[1], text
    check_ending(tool, seen)


def check_ending(tool: Tool, seen: dict[str, Any]) -> None:
    """It ran until Ctrl-C came, unless its arguments say otherwise, ended soon then, and left no process and no program behind."""
    assert seen["status"] in CLEAN, seen
    assert seen["interrupted"] != tool.ends, seen
    assert seen["ending_s"] < ENDING_S, seen
    assert not seen["left"], seen
    assert not seen.get("programs"), seen


def total(text: str) -> int:
    """Return what the counts of a histogram add up to, from its first line to the first that is none of it."""
    counts = 0
    for line in text.lstrip("\n").splitlines():
        row = re.fullmatch(r" *\d+ -> \d+ +: (\d+) +\|.*\|", line)
        if not row:
            break
        counts += int(row[1])
    return counts


def disk_of(path: str) -> str:
    """The name of the disk that a file is on; skips where it is on none."""
    number = os.stat(path).st_dev
    link = Path(f"/sys/dev/block/{os.major(number)}:{os.minor(number)}")
    if not link.exists():
        pytest.skip(f"{path} is on no disk")
    found = link.resolve()
    return found.parent.name if (found / "partition").exists() else found.name


def run_here(tool: Tool | Refusal, **words: str) -> dict[str, Any]:
    """Run a tool on this machine; `words` are put in place of {word} in its arguments and workload."""
    arguments, workload = tool.args, tool.workload if isinstance(tool, Tool) else "true"
    if "{disk}" in tool.args:
        words["disk"] = disk_of("/")
    for word, value in {"pid": str(os.getpid()), **words}.items():
        arguments, workload = (text.replace("{" + word + "}", value) for text in (arguments, workload))
    command = [sys.executable, "-m", "sonde", "bcc", tool.name, *shlex.split(arguments)]
    environ = {"PYTHONPATH": str(rooms.ROOT / "src"), "TERM": "dumb"}
    return watch_tool(command, workload, env=environ, by_descriptors=True)


@pytest.mark.kernel
@pytest.mark.parametrize("tool", [t for t in TOOLS if not t.needs], ids=label)
def test_tool_here(tool: Tool) -> None:
    check(tool, run_here(tool))


@pytest.mark.kernel
@pytest.mark.parametrize("tool", USDT_TOOLS, ids=label)
def test_tool_of_a_language_here(tool: Tool, tmp_path: Path) -> None:
    if lacking():
        pytest.skip(f"needs {lacking()}")
    with start_standin(tool.app, tmp_path) as app:
        try:
            check(tool, run_here(tool, app=str(app.pid), path=str(tmp_path / tool.app)))
        finally:
            app.kill()


def run_in_guest(
    guest: Guest, tool: Tool | Refusal, command: list[str], limit_s: int = LIMIT_S, **environ: str
) -> dict[str, Any]:
    """Run a tool around its workload in a guest, after what makes the guest ready for it."""
    options: dict[str, Any] = {"settle_s": 1.5, "after_s": 1, "limit_s": limit_s, "by_descriptors": True}
    workload = "true"
    if isinstance(tool, Tool):
        for program in re.findall(r"mkfs\.\w+", tool.before):
            if not shutil.which(program):
                pytest.skip(f"{program} is not installed")
        load_modules(guest, *tool.modules)
        options |= {"before": tool.before, "terminal": tool.terminal}
        workload = tool.workload
    source = RUNNER.read_text() + (
        "\nimport json, sys\ncommand, workload, options = json.loads(sys.argv[1])\n"
        "print(json.dumps(watch_alone(command, workload, **options)))\n"
    )
    term = "vt100" if options.get("terminal") else "dumb"
    env = {"PYTHONPATH": str(rooms.ROOT / "src"), "PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "TERM": term, **environ}
    arguments = shlex.split(tool.args.replace("{pid}", "1"))
    request = json.dumps([[*command, *arguments], workload, options])
    result = guest.python(source, args=[request], env=env, timeout_s=limit_s + 60)
    assert result.status == 0, result.err
    seen: dict[str, Any] = json.loads(result.out)
    return seen


def chosen(tools: list[Tool], few: tuple[str, ...]) -> list[Tool]:
    """Those that a run has time for: a few, or with SONDE_BCC_TOOLS=all every one."""
    return tools if os.environ.get("SONDE_BCC_TOOLS") == "all" else [t for t in tools if t.name in few]


@pytest.mark.parametrize("tool", chosen([t for t in ALL if t.needs == "kprobe"], SAMPLE), ids=label)
def test_tool_in_guest(guest: Guest, tool: Tool) -> None:
    if guest.kernel.series != tool.series:
        pytest.skip(f"runs on {tool.series}")
    check(tool, run_in_guest(guest, tool, [*SONDE, tool.name]))


@pytest.mark.parametrize("tool", chosen([t for t in ALL if t.name in BCC_ON_5_10], ()), ids=label)
def test_bcc_shows_the_same_on_5_10(guest: Guest, tool: Tool) -> None:
    """What is asked of sonde on this kernel holds of BCC itself too; on 6.1 the two are compared in test_bcc_compare.py."""
    if guest.kernel.series != tool.series:
        pytest.skip(f"runs on {tool.series}")
    try:
        headers = get_headers(guest.kernel)
    except KernelUnavailable as error:
        pytest.skip(f"no headers for BCC: {error}")
    command = [f"/usr/sbin/{tool.name}-bpfcc"]
    check(tool, run_in_guest(guest, tool, command, BCC_LIMIT_S, BCC_KERNEL_SOURCE=str(headers), PYTHONPATH=""))


@pytest.mark.kernel
@pytest.mark.parametrize("tool", [r for r in REFUSALS if not r.needs], ids=label)
def test_tool_that_cannot_run_says_why_here(tool: Refusal) -> None:
    check_refusal(tool, run_here(tool))


@pytest.mark.parametrize("tool", chosen(list(REFUSALS), ("zfsdist",)), ids=label)
def test_tool_that_cannot_run_says_why(guest: Guest, tool: Refusal) -> None:
    if guest.kernel.series != tool.series:
        pytest.skip(f"tried on {tool.series}")
    check_refusal(tool, run_in_guest(guest, tool, [*SONDE, tool.name]))


def check_refusal(tool: Refusal, seen: dict[str, Any]) -> None:
    """It ended by itself, said why, and showed neither a trace of Python nor a header of columns."""
    said = seen["out"] + seen["err"]
    assert not seen["interrupted"], seen
    assert "Traceback" not in said, said
    assert re.search(tool.says, said), said
    assert len(seen["out"].splitlines()) <= 2, said

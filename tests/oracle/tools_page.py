"""Writes docs/parity/tools.md and bcc_tools.md: each of Debian's tools, where it was run and what its check asks for."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1]))

import bcc_tools
from tools import TOOLS, Tool

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "parity"
HEAD = """## Debian's bpftrace tools, unmodified

The 38 files `/usr/sbin/*.bt` of Debian 12's package bpftrace (0.17), run by `tests/oracle/test_debian_tools.py` around a workload
(`tests/oracle/tools.py`). "Here" is the running kernel, tracepoints and uprobes without kprobes; the guest is a Debian kernel in
the test VM. Where a tool runs, its output must show the workload: its values, or the map that it fills. "Like 0.17" means that Debian's own bpftrace, in the same guest around the same workload,
prints the same header, and lines or maps of the same form with the same known values.

Printed by `python tests/oracle/tools_page.py`.

| tool | here | in the guest | like 0.17 | note |
|---|---|---|---|---|
"""


def row(tool: Tool) -> str:
    """Return one line of the table."""
    here = "yes" if not tool.needs else "-"
    guest = f"nowhere: {tool.nowhere}" if tool.nowhere else f"Linux {tool.series}"
    note = tool.note.replace("|", "\\|")
    return f"| {tool.name} | {here} | {guest} | {'yes' if tool.compared else '-'} | {note} |\n"


BCC_HEAD = """## Debian's BCC tools, unmodified

The 127 commands `/usr/sbin/*-bpfcc` of Debian 12's package bpfcc-tools (0.26), run by `tests/oracle/test_bcc_tools.py` around a workload
(`tests/oracle/bcc_tools.py`). Their programs are compiled as they are, and accepted by the running kernel's verifier, in
`tests/kernel/test_bcc_tool_programs.py`, which says where a kernel lacks what one needs. "Here" is the running kernel, tracepoints and uprobes without
kprobes and without headers; the guest is a Debian kernel in the test VM. "Seen" means that the output shows the workload's own values (names,
counts); "starts" that the tool attaches and prints its header, for want of an event that a test can cause. Every run ends by Ctrl-C, or by itself, with
a status and without an error on stderr. "Like BCC" means that BCC itself, in the same guest with the kernel's headers, around the same
workload, prints the same header and a line of the same form with the same known values.

By default few of the runs in guests are made; `SONDE_BCC_TOOLS=all` makes all. Interpreters and servers with USDT probes are stood for by a program
with the same probes (`tests/oracle/standin.py`). Printed by `python tests/oracle/tools_page.py`.

Of the 127, {runs} are run, {here} of them here; {compared} are compared with BCC.

| tool | here | in the guest | check | like BCC | note |
|---|---|---|---|---|---|
"""


def bcc_row(name: str, runs: list[bcc_tools.Tool]) -> str:
    """Return one line of the table of BCC's tools, from all the ways in which one is run."""
    here = "yes" if any(not run.needs for run in runs) else "-"
    series = sorted({run.series for run in runs if run.needs})
    guest = "Linux " + ", ".join(series) if series else "-"
    check = "seen" if any(not run.starts for run in runs) else "starts" if runs else "not run"
    notes = [run.note for run in runs if run.note] if runs else [f"needs {bcc_tools.NOWHERE[name]}"]
    note = "; ".join(dict.fromkeys(notes)).replace("|", "\\|")
    return f"| {name} | {here} | {guest} | {check} | {'yes' if any(r.compared for r in runs) else '-'} | {note} |\n"


def bcc_page() -> str:
    """Return the page of BCC's tools."""
    runs: dict[str, list[bcc_tools.Tool]] = {}
    for run in bcc_tools.ALL:
        runs.setdefault(run.name, []).append(run)
    here = sum(1 for each in runs.values() if any(not run.needs for run in each))
    compared = sum(1 for each in runs.values() if any(run.compared for run in each))
    head = BCC_HEAD.format(runs=len(runs), here=here, compared=compared)
    names = sorted({*runs, *bcc_tools.NOWHERE})
    return head + "".join(bcc_row(name, runs.get(name, [])) for name in names)


if __name__ == "__main__":
    (FOLDER / "tools.md").write_text(HEAD + "".join(row(tool) for tool in TOOLS))
    (FOLDER / "bcc_tools.md").write_text(bcc_page())

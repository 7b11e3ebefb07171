"""Writes docs/parity/tools.md and bcc_tools.md: each of Debian's tools, where it was run and what its check asks for."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1]))

import bcc_tools
from bcc_compare import RECORD
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
counts). Every run ends by Ctrl-C, or by itself, with a status and without an error on stderr: one that ran until Ctrl-C came has ended soon after it,
and left no process behind, in a guest no BPF program either. "Says why not": no kernel of ours can run it, for the reason that is given; a test holds
sonde to saying so.

"Same as BCC 0.26": BCC itself, with the kernel's headers, and sonde ran in the same guest around the same workload, most of them at the same time, so
that both saw the same processes; compared are titles (of columns and histograms, and what the tool says at its start), the rows that the workload causes
with all their values (of those that are measured, times, the form only), or the counts, BCC's first (`tests/oracle/bcc_cases.py` says for each what, and
where others count too, how far apart the two may be). "Fails alike": that kernel has not what the tool needs; BCC says so, and sonde does. Made
from `docs/parity/bcc_compared.json`, which `python tests/oracle/bcc_compare.py runs` writes from what
`SONDE_BCC_TOOLS=all SONDE_BCC_KEEP=runs pytest tests/oracle/test_bcc_compare.py --vm-kernels 6.1` has kept; made by hand before a release, the last time on
{made} (Linux {kernel}). Until attached, with one emulated CPU, median over {runs_compared} runs: BCC {theirs} s, sonde {ours} s.

By default few of the runs in guests are made; `SONDE_BCC_TOOLS=all` makes all. Interpreters and servers with USDT probes are stood for by a program
with the same probes (`tests/oracle/standin.py`). Printed by `python tests/oracle/tools_page.py`.

Of the 127, {runs} are run, {here} of them here; {compared} are compared with BCC, {same} of them are the same.

| tool | here | in the guest | check | same as BCC 0.26 | note |
|---|---|---|---|---|---|
"""


def same(entries: list[dict[str, Any]]) -> str:
    """Return what the record says about one tool, in few words."""
    words = []
    for entry in entries:
        if entry["same"] and "fails" in entry:
            words.append("works here, BCC fails" if "rows" in entry else "fails alike")
            continue
        parts = [
            f"{entry[what]} {what if entry[what] > 1 else what[:-1]}" for what in ("titles", "rows") if what in entry
        ]
        if "sums" in entry:
            parts[-1:] = ["counts " + ", ".join(f"{a}/{b}" for a, b in entry["sums"])]
        words.append(", ".join(parts) if entry["same"] else "**no**")
    if not words:
        return "-"
    return ("" if "**no**" in words else "yes: ") + "; ".join(dict.fromkeys(words))


def bcc_row(name: str, runs: list[bcc_tools.Tool], entries: list[dict[str, Any]]) -> str:
    """Return one line of the table of BCC's tools, from all the ways in which one is run."""
    here = "yes" if any(not run.needs for run in runs) else "-"
    refused = [tool for tool in bcc_tools.REFUSALS if tool.name == name]
    compared = any(entry["same"] and "fails" not in entry for entry in entries)
    series = sorted({run.series for run in runs if run.needs} | ({"6.1"} if compared else set()))
    guest = "Linux " + ", ".join(series) if series else "-"
    check = "says why not" if refused else "seen"
    notes = [run.note for run in runs if run.note] + [tool.why for tool in refused]
    note = "; ".join(dict.fromkeys(notes)).replace("|", "\\|")
    return f"| {name} | {here} | {guest} | {check} | {same(entries)} | {note} |\n"


def bcc_page() -> str:
    """Return the page of BCC's tools."""
    runs: dict[str, list[bcc_tools.Tool]] = {}
    for run in bcc_tools.ALL:
        runs.setdefault(run.name, []).append(run)
    here = sum(1 for each in runs.values() if any(not run.needs for run in each))
    record: dict[str, dict[str, Any]] = json.loads(RECORD.read_text())
    compared: dict[str, list[dict[str, Any]]] = {}
    for entry in record.values():
        compared.setdefault(entry["tool"], []).append(entry)
    attached = [entry["attached_s"] for entry in record.values() if min(entry["attached_s"]) > 0.2]
    head = BCC_HEAD.format(
        runs=len(runs),
        here=here,
        compared=len(compared),
        same=sum(all(entry["same"] for entry in each) for each in compared.values()),
        made=max(entry["made"] for entry in record.values()),
        kernel=", ".join(sorted({entry["kernel"] for entry in record.values()})),
        runs_compared=len(attached),
        theirs=f"{median(times[0] for times in attached):.1f}",
        ours=f"{median(times[1] for times in attached):.1f}",
    )
    names = sorted({*runs, *(tool.name for tool in bcc_tools.REFUSALS)})
    assert len(names) == 127, len(names)
    return head + "".join(bcc_row(name, runs.get(name, []), compared.get(name, [])) for name in names)


if __name__ == "__main__":
    (FOLDER / "tools.md").write_text(HEAD + "".join(row(tool) for tool in TOOLS))
    (FOLDER / "bcc_tools.md").write_text(bcc_page())

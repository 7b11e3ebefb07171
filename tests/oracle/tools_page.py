"""Writes docs/parity/tools.md: each of Debian's tools, where it was run and what its check asks for."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from test_debian_tools import NOWHERE
from tools import TOOLS, Tool

PAGE = Path(__file__).resolve().parents[2] / "docs" / "parity" / "tools.md"
HEAD = """## Debian's bpftrace tools, unmodified

The 38 files `/usr/sbin/*.bt` of Debian 12's package bpftrace (0.17), run by `tests/oracle/test_debian_tools.py` around a workload
(`tests/oracle/tools.py`). "Here" is the running kernel, tracepoints and uprobes without kprobes; the guest is a Debian kernel in
the test VM. "Seen" means that the output shows the workload's own values; "starts" that the tool attaches and ends in order,
for want of an event that a test can cause. "Like 0.17" means that Debian's own bpftrace, in the same guest around the same workload,
prints the same header, and lines or maps of the same form with the same known values.

Printed by `python tests/oracle/tools_page.py`.

| tool | here | in the guest | check | like 0.17 | note |
|---|---|---|---|---|---|
"""


def row(tool: Tool) -> str:
    """Return one line of the table."""
    nowhere = NOWHERE.get(tool.needs, "")
    here = "yes" if not tool.needs else "-"
    guest = f"needs {nowhere}" if nowhere else f"Linux {tool.series}"
    check = "not run" if nowhere else "starts" if tool.expect.startswith(("Tracing", "Dump")) else "seen"
    note = tool.note.replace("|", "\\|")
    return f"| {tool.name} | {here} | {guest} | {check} | {'yes' if tool.compared else '-'} | {note} |\n"


if __name__ == "__main__":
    PAGE.write_text(HEAD + "".join(row(tool) for tool in TOOLS))

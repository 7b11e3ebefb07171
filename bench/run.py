"""All benchmarks against every bpftrace that is here, in one run: `python bench/run.py` writes docs/benchmarks.md.

`--quick` takes fewer runs. Newer peers come from `python bench/peers.py --fetch`. Needs root, gcc and readelf.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import hit
import instructions
import rate
import startup
from contenders import ROOT, Contender, contenders


def build_load(folder: str) -> str:
    """Compile the load program."""
    path = str(Path(folder) / "load")
    subprocess.run(["gcc", "-O2", "-o", path, str(Path(__file__).with_name("load.c"))], check=True)
    return path


def table(title: str, names: list[str], rows: dict[str, list[str]]) -> str:
    """Return a Markdown table with a contender in each column."""
    lines = [f"## {title}", "", "| |" + "|".join(names) + "|", "|---|" + "--:|" * len(names)]
    lines += [f"| {label} |" + "|".join(cells) + "|" for label, cells in rows.items()]
    return "\n".join(lines) + "\n"


def cells(values: list[float], form: str, better: str = "less") -> list[str]:
    """Format a row: sonde's value, then each peer's with sonde's ratio to it."""
    own = values[0]
    result = [form.format(own)]
    for value in values[1:]:
        ratio = own / value if value else float("inf")
        result.append(f"{form.format(value)} ({ratio:.2f} ×)")
    return result


def startup_table(group: list[Contender], runs: int) -> str:
    data = startup.measure(group, runs)
    rows = {}
    labels = {"wall_ms": "wall, ms", "cpu_ms": "CPU, ms", "peak_mib": "peak memory, MiB"}
    for case, by_name in data.items():
        for key, label in labels.items():
            rows[f"{case}: {label}"] = cells([by_name[c.name][key] for c in group], "{:.0f}")
    return table("From exec to the first event (medians)", [c.name for c in group], rows)


def instruction_table(group: list[Contender]) -> str:
    data = instructions.measure(group)
    rows = {}
    for program in data[group[0].name]:
        rows[program] = cells([data[c.name][program] for c in group], "{:.0f}")
    rows["together"] = cells([sum(data[c.name].values()) for c in group], "{:.0f}")
    return table("Instructions of six typical programs", [c.name for c in group], rows)


def hit_table(group: list[Contender], load: str, runs: int) -> str:
    data = hit.measure(group, load, runs)
    rows = {name: cells([by_name[c.name] for c in group], "{:.1f}") for name, by_name in data.items()}
    return table("Nanoseconds per hit above the empty probe (kernel statistics)", [c.name for c in group], rows)


def rate_table(group: list[Contender], load: str, runs: int) -> str:
    data = rate.measure(group, load, runs)
    rows = {
        "even pace, none lost: lines per second": cells([data[c.name][2] for c in group], "{:.0f}"),
        "flood: lines per second": cells([data[c.name][0] for c in group], "{:.0f}"),
        "flood: share lost": [f"{data[c.name][1]:.1%}" for c in group],
    }
    return table("printf of two fields from a busy tracepoint", [c.name for c in group], rows)


def size_table(sonde: Contender) -> str:
    """Installed size of sonde: the package's own files, and the compiled caches that pip makes beside them."""
    folders = list(Path(sonde.command[0]).parents[1].glob("lib/python*/site-packages/sonde"))
    files = [p for folder in folders for p in folder.rglob("*") if p.is_file()]
    own = sum(p.stat().st_size for p in files if p.suffix != ".pyc")
    everything = sum(p.stat().st_size for p in files)
    return (
        f"## Installed size\n\nsonde, with all its front ends and the BPF machine: {own / 1e6:.2f} MB, as packages count it; with the caches that pip "
        f"compiles {everything / 1e6:.2f} MB. No dependencies.\n"
    )


def main() -> None:
    """Run everything and write the page."""
    quick = "--quick" in sys.argv
    before = os.getloadavg()[0]
    group = contenders()
    with tempfile.TemporaryDirectory() as folder:
        load = build_load(folder)
        parts = [
            startup_table(group, 5 if quick else 11),
            instruction_table(group),
            hit_table(group, load, 1 if quick else 3),
            rate_table(group, load, 1 if quick else 3),
            size_table(group[0]),
        ]
    head = (
        "# Benchmarks\n\nMade by `python bench/run.py` (peers: `python bench/peers.py --fetch`), all contenders in one run, taking "
        "turns. In brackets: sonde's figure divided by the peer's.\n\n"
        f"Machine: {platform.machine()}, {os.cpu_count()} CPUs, Linux {os.uname().release}, "
        f"Python {platform.python_version()}; {time.strftime('%d %B %Y')}. Load average while measuring: {before:.1f} to "
        f"{os.getloadavg()[0]:.1f} (what the contenders and their loads make is about 2).\n"
    )
    page = ROOT / "docs" / "benchmarks.md"
    _, mark, rest = page.read_text().partition("\n## BCC\n")  # what against_bcc.py wrote stays
    text = head + "\n" + "\n".join(parts) + mark + rest
    page.write_text(text)
    print(text)


if __name__ == "__main__":
    main()

"""sonde beside BCC, on Debian's tools: `python bench/against_bcc.py` rewrites the section "BCC" of docs/benchmarks.md.

Needs Debian's packages bpfcc-tools and python3-bpfcc, and root. BCC compiles against headers of Linux 6.1 that are fetched and unpacked, never
installed: this says nothing about what such a program would see on another kernel, but takes the same time. `--quick` takes a few tools only.
"""

from __future__ import annotations

import json
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from contenders import ROOT, install_sonde
from startup import peak_kib

sys.path.insert(0, str(ROOT / "tests"))

from bcc_texts import record, tool_names
from vm.kernels import get_headers, get_kernel

HERE = Path(__file__).parent
PAGE = ROOT / "docs" / "benchmarks.md"
TITLE = "## BCC"
DEBIAN_PYTHON = "/usr/bin/python3"  # the one that python3-bpfcc is for
# What `apt install bpfcc-tools` brings besides Python and what every Debian has.
PACKAGES = ("bpfcc-tools", "python3-bpfcc", "python3-netaddr", "libbpfcc", "libclang-cpp14", "libllvm14", "libz3-4", "libicu72",
            "libelf1", "libbpf1")  # fmt: skip
COUNTED = "Of the {} texts of {} tools, {} compile in both; those that only sonde compiles: {}; only BCC: {}."


class Sides:
    """How either side is started: interpreter, script runner and environment."""

    def __init__(self, headers: Path) -> None:
        self.venv = install_sonde()
        clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        self.environ = {**clean, "BCC_KERNEL_SOURCE": str(headers)}
        self.python = {"bcc": DEBIAN_PYTHON, "sonde": str(self.venv / "bin/python")}
        self.script = {"bcc": [DEBIAN_PYTHON], "sonde": [str(self.venv / "bin/sonde"), "bcc"]}

    def first_event(self, side: str) -> tuple[float, float]:
        """Run the first program; return milliseconds from exec to its line, and peak MiB then."""
        start = time.perf_counter()
        process = subprocess.Popen(
            [*self.script[side], str(HERE / "bcc_hello.py")],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=self.environ,
        )  # fmt: skip
        assert process.stdout and process.stdin
        with process:
            line = process.stdout.readline()
            wall = time.perf_counter() - start
            peak = peak_kib(process.pid) / 1024
            process.stdin.close()
        if not line.startswith(b"hello,"):
            raise RuntimeError(f"{side} ended without an event")
        return wall * 1e3, peak

    def compile(self, side: str, tool: str, path: Path) -> dict[str, Any]:
        """Compile one text in a process of its own; an empty result says that it does not compile."""
        command = [self.python[side], str(HERE / "bcc_once.py"), side, tool, str(path)]
        done = subprocess.run(command, env=self.environ, capture_output=True, text=True, timeout=120)
        if done.returncode or not done.stdout.startswith("{"):
            print(f"{side}: {tool}: {done.stderr.strip()[-200:]}", file=sys.stderr)
            return {}
        result: dict[str, Any] = json.loads(done.stdout)
        return result


def measure_start(sides: Sides, runs: int) -> dict[str, tuple[float, float]]:
    """Return the medians of milliseconds and MiB to the first event; the sides take turns, the first run of each does not count."""
    samples: dict[str, list[tuple[float, float]]] = {"sonde": [], "bcc": []}
    for _ in range(runs + 1):
        for side, rows in samples.items():
            rows.append(sides.first_event(side))
    return {
        side: (statistics.median(r[0] for r in rows[1:]), statistics.median(r[1] for r in rows[1:]))
        for side, rows in samples.items()
    }


def measure_compile(sides: Sides, tools: list[str]) -> dict[str, dict[str, Any]]:
    """Compile every text of the tools on either side. Returns text ("opensnoop 0") -> side -> result."""
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "text.json"
        for tool in tools:
            for number, text in enumerate(record(tool)["texts"]):
                path.write_text(json.dumps(text))
                sonde = sides.compile("sonde", tool, path)
                path.write_text(json.dumps({**text, "names": list(sonde.get("instructions", text["programs"]))}))
                results[f"{tool} {number}"] = {"sonde": sonde, "bcc": sides.compile("bcc", tool, path)}
    return results


def installed(sides: Sides, headers: Path) -> tuple[float, float, float, float]:
    """Return megabytes: sonde's files, the same with the caches that pip compiles, BCC's packages, the headers of one kernel."""
    package = next(sides.venv.glob("lib/python*/site-packages/sonde"))
    names = [f"{name}:*" if name.startswith("lib") else name for name in PACKAGES]
    asked = subprocess.run(["dpkg-query", "-W", "-f=${Installed-Size}\n", *names], capture_output=True, text=True)
    return (
        size_of(package, "*.py"),
        size_of(package),
        sum(map(int, asked.stdout.split())) * 1024 / 1e6,
        size_of(headers),
    )


def size_of(folder: Path, pattern: str = "*") -> float:
    """Return the megabytes of the files below a folder."""
    return sum(p.stat().st_size for p in folder.rglob(pattern) if p.is_file() and not p.is_symlink()) / 1e6


def quantile(values: list[float], part: float) -> float:
    """Return the value below which `part` of the values lie."""
    return sorted(values)[min(int(len(values) * part), len(values) - 1)]


def compile_rows(results: dict[str, dict[str, Any]]) -> tuple[list[tuple[str, float, float, str]], list[str]]:
    """Return the rows (label, BCC, sonde, format), and the instructions of each text as lines of a table."""
    both = {name: r for name, r in results.items() if r["sonde"] and r["bcc"]}
    column = {
        side: {key: [r[side][key] for r in both.values()] for key in ("seconds", "peak_mib")}
        for side in ("bcc", "sonde")
    }
    b, s = column["bcc"], column["sonde"]
    sums = {}
    for name, result in both.items():
        ours, theirs = result["sonde"]["instructions"], result["bcc"]["instructions"]
        shared = ours.keys() & theirs.keys()
        sums[name] = (sum(theirs[n] for n in shared), sum(ours[n] for n in shared))
    totals = [sum(pair[i] for pair in sums.values()) for i in (0, 1)]
    rows = [
        ("compile time, median, s", statistics.median(b["seconds"]), statistics.median(s["seconds"]), "{:.3f}"),
        ("compile time, 90th percentile, s", quantile(b["seconds"], 0.9), quantile(s["seconds"], 0.9), "{:.3f}"),
        ("compile time, longest, s", max(b["seconds"]), max(s["seconds"]), "{:.3f}"),
        ("peak memory when compiled, median, MiB", statistics.median(b["peak_mib"]), statistics.median(s["peak_mib"]), "{:.0f}"),
        (f"instructions, total over {len(both)} texts", *totals, "{:.0f}"),
    ]  # fmt: skip
    above = sorted((o / max(t, 1), n, t, o) for n, (t, o) in sums.items() if o > t)
    return rows, [f"{name} ({theirs} → {ours})" for _, name, theirs, ours in reversed(above)]


def section(sides: Sides, headers: Path, tools: list[str], runs: int) -> str:
    """Measure everything and return the section's text."""
    start = measure_start(sides, runs)
    results = measure_compile(sides, tools)
    rows, longer = compile_rows(results)
    ours, cached, theirs, trees = installed(sides, headers)
    rows = [
        ("hello-world tracepoint, exec to first event, ms", start["bcc"][0], start["sonde"][0], "{:.0f}"),
        ("the same, peak memory, MiB", start["bcc"][1], start["sonde"][1], "{:.0f}"),
        *rows,
        ("installed size, MB", theirs, ours, "{:.1f}"),
        ("the same with the caches that pip compiles, MB", theirs, cached, "{:.1f}"),
        ("headers for each kernel, MB", trees, 0, "{:.0f}"),
    ]
    lines = ["| |BCC 0.26, clang 14|sonde|", "|---|--:|--:|"]
    for label, bcc, sonde, form in rows:
        ratio = f" ({sonde / bcc:.2f} ×)" if bcc and sonde else ""
        lines.append(f"|{label}|{form.format(bcc)}|{form.format(sonde)}{ratio}|")
    only = {
        side: [n for n, r in results.items() if r[side] and not r[other]]
        for side, other in (("sonde", "bcc"), ("bcc", "sonde"))
    }
    both = sum(1 for r in results.values() if r["sonde"] and r["bcc"])
    counted = COUNTED.format(
        len(results), len(tools), both, ", ".join(only["sonde"]) or "none", ", ".join(only["bcc"]) or "none"
    )
    longer_text = f"Texts of which sonde makes more instructions than BCC: {', '.join(longer) or 'none'}."
    return "\n".join([*lines, "", counted, "", longer_text]) + "\n"


def main() -> None:
    """Measure, and put the section into the page in place of the former one."""
    quick = "--quick" in sys.argv
    before = os.getloadavg()[0]
    headers = get_headers(get_kernel("6.1"))
    tools = tool_names()
    body = section(Sides(headers), headers, tools[::10] if quick else tools, 5 if quick else 11)
    head = (
        f"{TITLE}\n\nMade by `python bench/against_bcc.py`: the programs of Debian's BCC tools (bpfcc-tools 0.26), each text compiled once on either "
        f"side in a process of its own, the sides taking turns. BCC uses the headers of Linux {headers.name}, sonde the running kernel's BTF. In brackets: "
        f"sonde's figure divided by BCC's.\n\nMachine: {platform.machine()}, {os.cpu_count()} CPUs, Linux {os.uname().release}; "
        f"{time.strftime('%d %B %Y')}. Load average while measuring: {before:.1f} to {os.getloadavg()[0]:.1f}.\n\n"
    )
    print(head + body)
    if not quick:
        text = re.sub(rf"\n*^{TITLE}\n.*?(?=^## |\Z)", "", PAGE.read_text(), flags=re.M | re.S)
        PAGE.write_text(text.rstrip() + "\n\n" + head + body)


if __name__ == "__main__":
    main()

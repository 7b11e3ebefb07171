"""One program of a BCC tool, compiled once in this process: prints how long that took and what came out, as JSON.

`bcc_once.py bcc|sonde TOOL TEXT`, where TEXT is a file with what the tool hands to BPF(), as tests/bcc_texts.py records it. Time counts from
the text to the bytecode of every program; importing the interface does not count, but whatever it loads later does.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any


def by_bcc(tool: str, text: dict[str, Any]) -> tuple[float, dict[str, int]]:
    """BCC: the constructor compiles; nothing is loaded."""
    from bcc import BPF

    class Compiled(BPF):
        def _trace_autoload(self) -> None:
            """Attach nothing."""

    start = time.perf_counter()
    bpf = Compiled(text=text["text"], cflags=text["cflags"])
    took = time.perf_counter() - start
    sizes = {}
    for name in text["names"]:
        try:
            sizes[name] = len(bpf.dump_func(name)) // 8
        except Exception as error:
            print(f"{tool}: {error}", file=sys.stderr)
    return took, sizes


def by_sonde(tool: str, text: dict[str, Any]) -> tuple[float, dict[str, int]]:
    """The unit of the text, then each function as the program that the tool makes of it."""
    sys.path.append(str(Path(__file__).resolve().parents[1] / "tests"))
    from bcc_entries import entry_of

    from sonde.api.bcc.unit import open_unit

    start = time.perf_counter()
    unit = open_unit(text["text"].encode(), flags=text["cflags"])
    sizes = {}
    for name in unit.programs:
        entry = entry_of(tool, name, text["programs"])
        if entry is not None:
            sizes[name] = len(unit.compile_program(name, entry).program.insns) // 8
    return time.perf_counter() - start, sizes


def peak_mib() -> float:
    """Return the peak memory of this process."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


if __name__ == "__main__":
    which, name, path = sys.argv[1:]
    seconds, counts = {"bcc": by_bcc, "sonde": by_sonde}[which](name, json.loads(Path(path).read_text()))
    print(json.dumps({"seconds": seconds, "peak_mib": peak_mib(), "instructions": counts}), flush=True)
    os._exit(0)

"""The programs of Debian's BCC tools: time to compile each, and instructions, beside BCC with clang where it has kernel headers.

`python bench/c_compile.py [HEADERS]`. Needs bpfcc-tools. HEADERS is a kernel source or header tree for BCC (as BCC_KERNEL_SOURCE): with it, BCC
compiles the same texts in processes of their own, and only texts that both compile are summed up. Our times are of one warm process.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from bcc_texts import record, tool_names
from kernel.test_bcc_tool_programs import entry_of

from sonde.errors import SondeError
from sonde.kernel.target import live_target
from sonde.lang.c.compile import compile_c
from sonde.lang.c.options import Entry, Options
from sonde.lang.source import Source

BCC_SIDE = """
import sys, json, time, os
sys.path.append("/usr/lib/python3/dist-packages")
from bcc import BPF, lib
class Untouched(BPF):
    def _trace_autoload(self): pass
text = json.load(sys.stdin)
start = time.perf_counter()
b = Untouched(text=text["text"], cflags=text["cflags"])
seconds = time.perf_counter() - start
size = sum(lib.bpf_function_size(b.module, lib.bpf_function_name(b.module, i)) // 8 for i in range(lib.bpf_num_functions(b.module)))
print("RESULT", seconds, size, flush=True)
os._exit(0)
"""


def ours(tool: str, text: dict) -> tuple[float, int] | None:  # type: ignore[type-arg]
    """Return the seconds and the instructions of one text; None where it does not compile here."""
    start = time.perf_counter()
    size = 0
    try:
        unit = compile_c(Source(f"{tool}.c", text["text"]), live_target(), Options(flags=tuple(text["cflags"])))
        for name in unit.programs:
            entry = entry_of(tool, name, text["programs"]) or Entry("kprobe")
            size += len(unit.compile_program(name, entry).program.insns) // 8
    except SondeError:
        return None
    return time.perf_counter() - start, size


def theirs(text: dict, headers: str) -> tuple[float, int] | None:  # type: ignore[type-arg]
    """The same by BCC."""
    environ = dict(os.environ, BCC_KERNEL_SOURCE=headers)
    environ.pop("PYTHONPATH", None)
    command = ["/usr/bin/python3", "-c", BCC_SIDE]
    done = subprocess.run(command, input=json.dumps(text), env=environ, capture_output=True, text=True, timeout=120)
    for line in done.stdout.splitlines():
        if line.startswith("RESULT"):
            _, seconds, size = line.split()
            return float(seconds), int(size)
    return None


def main() -> None:
    headers = sys.argv[1] if len(sys.argv) > 1 else ""
    rows = []
    for tool in tool_names():
        for number, text in enumerate(record(tool)["texts"]):
            mine = ours(tool, text)
            rows.append((f"{tool}.{number}", mine, theirs(text, headers) if headers and mine else None))
    compiled = [mine for _, mine, _ in rows if mine]
    times = sorted(seconds for seconds, _ in compiled)
    print(f"{len(compiled)} of {len(rows)} texts: median {statistics.median(times):.3f} s, p90 {times[len(times) * 9 // 10]:.3f} s, "
          f"max {times[-1]:.3f} s, {sum(size for _, size in compiled)} instructions")  # fmt: skip
    both = [(name, mine, other) for name, mine, other in rows if mine and other]
    if both:
        mine_total, other_total = sum(m[1] for _, m, _ in both), sum(o[1] for _, _, o in both)
        other_times = sorted(o[0] for _, _, o in both)
        print(f"{len(both)} that BCC compiles too: {mine_total} instructions beside {other_total} ({mine_total / other_total:.2f}); "
              f"BCC's median {statistics.median(other_times):.2f} s, max {other_times[-1]:.2f} s")  # fmt: skip


if __name__ == "__main__":
    main()

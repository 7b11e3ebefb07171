"""Which rung of the ladder serves how many functions, and system calls, of the libraries here: `python bench/windows.py [FILE...]`.

Plans a probe at the entry of every function, with the jumps of the whole text section and the jump tables in mind, and moves what each
displaces. A trampoline serves nops, relocated and punned windows; for a pun the memory at its addresses has to be free, so the share is
given without them too. Needs no privileges.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from x86_libraries import Library, find_libraries, read_library

from sonde.user.x86.relocate import relocate
from sonde.user.x86.survey import is_opcode
from sonde.user.x86.window import RUNGS, Window, plan_window


def system_calls(library: Library) -> list[Window]:
    """Plan a probe at each `syscall` of the functions."""
    survey = library.survey()
    found = []
    for start, behind in zip(library.starts, [*library.starts[1:], library.base + len(library.code)]):
        end = start + library.functions[start]
        first = start - library.base
        at = library.code.find(b"\x0f\x05", first, end - library.base)
        while at >= 0:
            if is_opcode(library.code, first, at):
                found.append(
                    plan_window(
                        library.code, library.base + at, start=start, end=end, base=library.base, limit=behind,
                        survey=survey, data=library.data, early=True,
                    )
                )  # fmt: skip
            at = library.code.find(b"\x0f\x05", at + 1, end - library.base)
    return found


def row(name: str, windows: list[Window], times: str) -> str:
    kinds = Counter(window.kind for window in windows)
    total = len(windows)
    sure = kinds["nop"] + kinds["relocated"]
    cells = [str(kinds[kind]) for kind in (*RUNGS, "none")]
    shares = [f"{100 * n / max(total, 1):.2f} %" for n in (sure, sure + kinds["punned"])]
    return f"| {name} | {total} | " + " | ".join([*cells, *shares, times]) + " |"


def main() -> None:
    libraries = [read_library(path) for path in [Path(a) for a in sys.argv[1:]] or find_libraries()]
    head = ["", "sites", *RUNGS, "none", "trampoline", "with puns", "plan, move (ms)"]
    print("| " + " | ".join(head) + " |\n|---" + "|--:" * (len(head) - 1) + "|")
    reasons: Counter[str] = Counter()
    for library in libraries:
        before = time.process_time()
        windows = list(library.windows())
        planned = time.process_time()
        for window in windows:
            if window.length:
                relocate(window.code, window.addr, window.addr + (1 << 24))
        times = f"{1000 * (planned - before):.0f}, {1000 * (time.process_time() - planned):.0f}"
        print(row(library.path.name, windows, times))
        reasons.update(window.reason.split(" at 0x")[0] for window in windows if window.reason)
    for library in libraries:
        print(row(f"{library.path.name}: system calls", system_calls(library), ""))
    print("\nWhy no better rung, functions:")
    for reason, count in reasons.most_common():
        print(f"{count:6} {reason}")


if __name__ == "__main__":
    main()

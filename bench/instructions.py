"""Instructions of the six typical programs, as each compiler emits them (8-byte slots, before the verifier's rewriting)."""

from __future__ import annotations

import re
import subprocess
import tempfile
from pathlib import Path

from contenders import Contender
from programs import SIX


def count_elf(contender: Contender, program: str) -> int:
    """Return the instructions in the object that a bpftrace writes with --emit-elf."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "o"
        for extra in ((), ("--dry-run",)):  # 0.17 stops after writing, newer ones go on unless told to dry-run
            try:
                subprocess.run(
                    [*contender.command, *extra, "--emit-elf", str(path), "-e", program],
                    capture_output=True,
                    timeout=15,
                )
            except subprocess.TimeoutExpired:
                pass
            if path.exists():
                break
        text = subprocess.run(["readelf", "-SW", str(path)], capture_output=True, text=True).stdout
        sizes = re.findall(r"\] \S+\s+PROGBITS\s+\S+ \S+ (\S+) \S+\s+AX", text)
        return sum(int(size, 16) // 8 for size in sizes)


def count_sonde(program: str) -> int:
    """Return the instructions of sonde's programs for the running machine."""
    import sys

    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))
    import sonde

    return sum(len(p.insns) // 8 for p in sonde.compile(program).programs)


def measure(contenders: list[Contender]) -> dict[str, dict[str, int]]:
    """Return contender -> program -> instructions."""
    return {
        c.name: {name: count_sonde(text) if c.is_sonde else count_elf(c, text) for name, text in SIX.items()}
        for c in contenders
    }

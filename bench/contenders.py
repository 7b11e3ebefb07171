"""The contenders of a benchmark, all started through the same command line: sonde's `bpftrace` mode and each peer."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, field
from pathlib import Path

from peers import find_peers

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Contender:
    """A tracer: `command` takes bpftrace's options."""

    name: str
    command: tuple[str, ...]
    env: dict[str, str] = field(default_factory=dict)
    root: Path | None = None

    @property
    def is_sonde(self) -> bool:
        return self.name == "sonde"


def contenders() -> list[Contender]:
    """Return sonde first, then the peers, oldest first."""
    # -I -S-free, as an installed console script runs: site is imported, the package comes from the checkout.
    sonde = Contender(
        "sonde",
        (sys.executable, "-c", "import sys; sys.argv[0] = 'bpftrace'; from sonde.cli import main; sys.exit(main())"),
        {"PYTHONPATH": str(ROOT / "src")},
    )
    return [sonde, *(Contender(p.name, p.command, root=p.root) for p in find_peers())]


def environment(contender: Contender) -> dict[str, str]:
    """Return the process environment for a contender."""
    environ = {**os.environ, **contender.env}
    environ.pop("PYTHONDONTWRITEBYTECODE", None)  # an installed package has its bytecode
    return environ

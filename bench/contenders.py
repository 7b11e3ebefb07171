"""The contenders of a benchmark, all started through the same command line: sonde's `bpftrace` mode and each peer.

sonde runs as the README installs it: a virtual environment of its own, with its console script and compiled bytecode.
"""

from __future__ import annotations

import atexit
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from peers import find_peers

ROOT = Path(__file__).resolve().parents[1]
PARTS = ("pyproject.toml", "README.md", "LICENSE", "bin", "src")


@dataclass(frozen=True)
class Contender:
    """A tracer: `command` takes bpftrace's options."""

    name: str
    command: tuple[str, ...]
    root: Path | None = None

    @property
    def is_sonde(self) -> bool:
        return self.name == "sonde"


def contenders() -> list[Contender]:
    """Return sonde first, then the peers, oldest first."""
    sonde = Contender("sonde", (str(install_sonde() / "bin/sonde"), "bpftrace"))
    return [sonde, *(Contender(p.name, p.command, root=p.root) for p in find_peers())]


def install_sonde() -> Path:
    """Install the checkout into a virtual environment that lasts as long as this process; return its directory."""
    folder = Path(tempfile.mkdtemp(prefix="sonde-bench-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    # A copy, since building leaves files behind, and without caches, which pip makes anew.
    for part in PARTS:
        path, copy = ROOT / part, folder / "checkout" / part
        copy.parent.mkdir(exist_ok=True)
        if path.is_dir():
            shutil.copytree(path, copy, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
        else:
            shutil.copy(path, copy)
    venv = folder / "venv"
    subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
    pip = [str(venv / "bin/python"), "-m", "pip", "install", "-q", "--no-deps", "--disable-pip-version-check"]
    subprocess.run([*pip, str(folder / "checkout")], check=True)
    return venv


def environment(contender: Contender) -> dict[str, str]:
    """Return the process environment for a contender: nothing of ours that would change how Python starts."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}

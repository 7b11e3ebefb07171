"""The programs of tests/bpf_c: in the style of libbpf's tools, each of some size and about something of its own. Compiled, loaded; here and in guests."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from sonde.errors import FeatureError, PrivilegeError, SondeError
from sonde.kernel.engine import KernelEngine
from sonde.kernel.target import live_target
from sonde.lang.c.options import Options
from sonde.lang.c.sections import compile_object
from sonde.lang.source import Source
from sonde.spec.object import ObjectSpec

FOLDER = Path(__file__).resolve().parents[1] / "bpf_c"
NAMES = sorted(path.name.removesuffix(".bpf.c") for path in FOLDER.glob("*.bpf.c"))


def compiled(name: str) -> ObjectSpec:
    """A program as this kernel wants it; what is said of it beyond INFO is an error."""
    path = FOLDER / f"{name}.bpf.c"
    spec = compile_object(Source(str(path), path.read_text()), live_target(), Options(directory=str(FOLDER)))
    said = [warning.render() for warning in spec.warnings if warning.severity != "INFO"]
    assert not said, said
    return spec


def load(name: str) -> str:
    """Load a program; returns why this kernel has no such programs, "" when it took it. Raises SondeError for a refusal."""
    spec = compiled(name)
    try:
        KernelEngine().load(spec).close()
    except (FeatureError, PrivilegeError) as error:
        return error.render()
    return ""


def main() -> int:
    """In a guest: load the programs that are named."""
    bad = 0
    for name in sys.argv[1:]:
        try:
            print(f"{name}: {load(name) or 'taken'} on {os.uname().release}")
        except (SondeError, AssertionError) as error:
            bad += 1
            text = error.render() if isinstance(error, SondeError) else str(error)
            print(f"{name}: {text}\n{getattr(error, 'log', '')[-1500:]}")
    return bad

"""The kernel engine on other kernels, in the VM: see in_guest.py for the checks."""

from __future__ import annotations

import ast
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from kernel.by_hand import build
from vm.guest import Guest

ROOT = Path(__file__).resolve().parents[2]
SOURCE = Path(__file__).with_name("in_guest.py")
CHECKS = [
    node.name
    for node in ast.parse(SOURCE.read_text()).body
    if isinstance(node, ast.FunctionDef) and [a.arg for a in node.args.args] == ["path"]
]


@pytest.fixture(scope="session")
def traced_program() -> Iterator[str]:
    """A built program where guests see it: they share the host's files, but not /tmp."""
    with tempfile.TemporaryDirectory(prefix="sonde-", dir="/var/tmp") as folder:
        yield build(folder)


@pytest.mark.parametrize("check", CHECKS)
def test_engine_check(traced_program: str, guest: Guest, check: str) -> None:
    result = guest.python(
        "import sys; from kernel.in_guest import main; sys.exit(main())",
        path=[str(ROOT / "src"), str(ROOT / "tests")],
        args=[check, traced_program],
        timeout_s=120,
    )
    assert result.status == 0, f"{result.out}\n{result.err}"
    if result.out.startswith("SKIP: "):
        pytest.skip(f"Linux {guest.kernel.release}: {result.out[6:].strip()}")

"""Compiled code on other kernels, in the VM: their verifiers take it, without the newest instructions too."""

from __future__ import annotations

from pathlib import Path

from vm.guest import Guest

ROOT = Path(__file__).resolve().parents[2]


def test_random_functions(guest: Guest) -> None:
    result = guest.python(
        "import sys; from kernel.compiled_in_guest import main; sys.exit(main())",
        path=[str(ROOT / "src"), str(ROOT / "tests")],
        args=["0", "40"],
        timeout_s=300,
    )
    assert result.status == 0, f"{result.out}\n{result.err}"


def test_memory_and_calls(guest: Guest) -> None:
    result = guest.python(
        "import sys; from kernel.compiled_in_guest import memory; sys.exit(memory())",
        path=[str(ROOT / "src"), str(ROOT / "tests")],
        timeout_s=300,
    )
    assert result.status == 0, f"{result.out}\n{result.err}"

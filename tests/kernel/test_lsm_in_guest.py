"""Security hooks and local storage, in the VM: see lsm_in_guest.py for the checks. What needs no hook runs on this kernel too."""

from __future__ import annotations

from pathlib import Path

import pytest
from kernel.lsm_in_guest import CHECKS, Skip, cgroups
from vm.guest import Guest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("check", [check.__name__ for check in CHECKS])
def test_lsm_check(guest: Guest, check: str) -> None:
    result = guest.python(
        "import sys; from kernel.lsm_in_guest import main; sys.exit(main())",
        path=[str(ROOT / "src"), str(ROOT / "tests")],
        args=[check],
        timeout_s=180,
    )
    assert result.status == 0, f"{result.out}\n{result.err}"
    if result.out.startswith("SKIP: "):
        pytest.skip(f"Linux {guest.kernel.release}: {result.out[6:].strip()}")


@pytest.mark.kernel
def test_cgroup_storage_here() -> None:
    try:
        cgroups()
    except Skip as missing:
        pytest.skip(f"this kernel lacks {missing}")

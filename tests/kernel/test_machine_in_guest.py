"""The machine against other kernels, in the VM: see machine_in_guest.py for what is compared."""

from __future__ import annotations

from pathlib import Path

from vm.guest import Guest

ROOT = Path(__file__).resolve().parents[2]


def test_the_kernel_agrees(guest: Guest) -> None:
    result = guest.python(
        "import sys; from kernel.machine_in_guest import main; sys.exit(main())",
        path=[str(ROOT / "src"), str(ROOT / "tests")],
        timeout_s=240,
    )
    assert result.status == 0, f"{result.out}\n{result.err}"
    done, left_out = result.out.count("the same:"), result.out.count("left out:")
    assert done >= 3 and done + left_out == 14, result.out

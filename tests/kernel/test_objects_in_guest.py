"""Objects on other kernels, in the VM: loaded with what is told of their source, by types from a file, as sets of programs."""

from __future__ import annotations

from pathlib import Path

from vm.guest import Guest

ROOT = Path(__file__).resolve().parents[2]


def test_objects(guest: Guest) -> None:
    result = guest.python(
        "import sys; from kernel.objects_in_guest import main; sys.exit(main())",
        path=[str(ROOT / "src"), str(ROOT / "tests")],
        timeout_s=300,
    )
    said = f"{result.out}\n{result.err}"
    assert result.status == 0, said
    series = ".".join(guest.kernel.release.split(".")[:2])
    lacking = "typed_externs: lacking: this kernel's BTF has no variable runqueues"
    assert result.out.count(": done") == (3 if lacking in result.out and series == "5.10" else 4), said
    method = "struct_ops map" if series in ("5.10", "6.1") else "struct_ops link"
    assert f"struct_ops: {method}\n" in result.out, said

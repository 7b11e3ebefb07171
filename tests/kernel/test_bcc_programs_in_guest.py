"""BCC programs on other kernels, in the VM: compiled there against that kernel's types, and accepted by its verifier."""

from __future__ import annotations

from pathlib import Path

import pytest
from bcc_texts import TOOLS
from vm.guest import Guest

ROOT = Path(__file__).resolve().parents[2]
PATH = [str(ROOT / "src"), str(ROOT / "tests")]


def test_program_types(guest: Guest) -> None:
    source = "import sys; from kernel.bcc_in_guest import types; sys.exit(types())"
    result = guest.python(source, path=PATH, timeout_s=300)
    assert result.status == 0, f"{result.out}\n{result.err}"


@pytest.mark.skipif(not (TOOLS / "opensnoop-bpfcc").exists(), reason="bpfcc-tools is not installed")
def test_tools(guest: Guest) -> None:
    source = "import sys; from kernel.bcc_in_guest import tools; sys.exit(tools())"
    names = ["opensnoop", "vfsstat", "execsnoop", "tcplife", "runqslower", "virtiostat", "biosnoop", "tcpconnect"]
    result = guest.python(source, path=PATH, args=names, timeout_s=600)
    assert result.status == 0, f"{result.out}\n{result.err}"

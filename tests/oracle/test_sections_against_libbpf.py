"""Names of sections against libbpf: every one that it knows means the same program type and attach type here, and the other way round."""

from __future__ import annotations

import ctypes
import ctypes.util
import re
import subprocess
import sys

import pytest

from sonde.kernel import abi
from sonde.probes.sections import find_section, section_kinds

pytestmark = pytest.mark.oracle
ASK = """
import ctypes, sys
library, libc = ctypes.CDLL(sys.argv[1]), ctypes.CDLL(None)
@ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)
def tell(level, form, arguments):
    text = ctypes.create_string_buffer(1 << 16)
    libc.vsnprintf(text, len(text), form, ctypes.c_void_p(arguments))
    sys.stderr.write(text.value.decode())
    return 0
library.libbpf_set_print(tell)
for name in sys.argv[2:]:
    kind, attach = ctypes.c_int(-1), ctypes.c_int(-1)
    result = library.libbpf_prog_type_by_name(name.encode(), ctypes.byref(kind), ctypes.byref(attach))
    print(name, result, kind.value, attach.value, flush=True)
"""
# libbpf tells these by the place behind them, or attaches them by other means than the type at load.
LOADED_OTHERWISE = frozenset(["cgroup_skb", "cgroup/skb"])


def ask(*names: str) -> tuple[dict[str, tuple[int, int, int]], str]:
    """What libbpf says of sections: (result, program type, attach type) by name; and its messages."""
    library = ctypes.util.find_library("bpf")
    if not library:
        pytest.skip("needs libbpf (Debian package libbpf1)")
    done = subprocess.run([sys.executable, "-c", ASK, library, *names], capture_output=True, text=True, check=True)
    found = {}
    for line in done.stdout.splitlines():
        name, *numbers = line.rsplit(" ", 3)
        result, kind, attach = map(int, numbers)
        found[name] = (result, kind, attach)
    return found, done.stderr


def libbpf_names() -> list[str]:
    """All names in libbpf's own table, which it prints when it does not know one."""
    _, said = ask("no_such_section")
    listed = re.search(r"supported section\(type\) names are:(.*)", said)
    assert listed, said
    return listed[1].split()


def test_every_section_of_libbpf_s_is_known_here() -> None:
    names = [name.rstrip("+") for name in libbpf_names()]
    assert len(names) > 60
    theirs, _ = ask(*[f"{name}/x" if find_section(name)[0] is None else name for name in names])
    for name, (result, kind, _) in theirs.items():
        section, _ = find_section(name)
        assert result == 0 and section is not None, name
        assert abi.program_type(section.type) == kind, name


def test_attach_types_are_libbpf_s() -> None:
    kinds = section_kinds()
    theirs, _ = ask(*kinds)
    compared = 0
    for name, (result, kind, attach) in theirs.items():
        section = kinds[name]
        if result:
            continue  # newer than the libbpf that is here
        compared += 1
        assert abi.program_type(section.type) == kind, name
        if section.attach_type and name not in LOADED_OTHERWISE:
            assert abi.attach_type(section.attach_type) == attach, name
    assert compared > 60

"""Types as a C header: a compiler takes it, and lays every struct out as the BTF says."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from oracle.test_linking_against_bpftool import compile_text, needs_clang
from vm.kernels import KernelUnavailable, get_kernel

from sonde.api.linking import open_types
from sonde.api.objectdump import dump_types
from sonde.api.objects import load_object, open_object, read_object
from sonde.cli.main import run
from sonde.debuginfo.btf import VMLINUX_PATH, Btf
from sonde.debuginfo.ctype import Struct

pytestmark = pytest.mark.kernel
OBJECTS = Path(__file__).parents[1] / "objects"


def assertions(types: Btf) -> list[str]:
    """What C has to say of every struct: its size, and where its members are."""
    lines = []
    for ident in range(1, types.count_types() + 1):
        if types.kind_of(ident) not in ("struct", "union") or not types.get_name(ident):
            continue
        ctype = types.type_by_id(ident)
        assert isinstance(ctype, Struct)
        name = f"{ctype.kind} {ctype.name}"  # made unique by the header's writer
        lines.append(f'_Static_assert(sizeof({name}) == {ctype.size}, "size of {name}");')
        for member in ctype.members:
            if member.name and not member.width_bits:
                place = f"__builtin_offsetof({name}, {member.name})"
                lines.append(f'_Static_assert({place} == {member.offset}, "{name}.{member.name}");')
    return lines


@pytest.mark.skipif(not shutil.which("gcc"), reason="needs gcc")
@pytest.mark.parametrize("series", ["", "5.10", "basic.o", "kernel_objects.o"])
def test_a_compiler_lays_it_out_the_same(series: str, tmp_path: Path) -> None:
    path = str(OBJECTS / series) if series.endswith(".o") else VMLINUX_PATH
    if series and not series.endswith(".o"):
        try:
            path = str(get_kernel(series).btf)
        except KernelUnavailable as error:
            pytest.skip(str(error))
    types = open_types(path)
    text = "\n".join([*dump_types(types), *assertions(types), ""])
    source = tmp_path / "types.c"
    source.write_text(text)
    if not series:
        assert text.count("_Static_assert") > 50_000
    done = subprocess.run(["gcc", "-fsyntax-only", "-w", str(source)], capture_output=True, text=True)
    wrong = [line for line in done.stderr.splitlines() if "error" in line]
    assert not wrong, wrong[:5]


TEXT = """
#include "types.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
char LICENSE[] SEC("license") = "GPL";
u64 group;
SEC("raw_tp") int run(void *ctx)
{
	struct task_struct *task = (void *)bpf_get_current_task();
	group = BPF_CORE_READ(task, real_parent, tgid);
	return 3;
}
"""


@needs_clang
def test_as_vmlinux_h(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("sonde", ["dump", VMLINUX_PATH]) == 0
    (tmp_path / "types.h").write_text(capsys.readouterr().out)
    path = compile_text(TEXT, tmp_path / "x.o", f"-I{tmp_path}", "-Wno-everything")
    asked = {f.core.path for p in open_object(path).programs for f in p.fills if f.core is not None}
    assert asked == {("real_parent",), ("tgid",)}
    with load_object(read_object(path)).object as live:
        assert live.run("run") == 3
        value = live.maps[".bss"].lookup(bytes(4))
        assert value is not None and int.from_bytes(value[0], "little") == os.getppid()

"""CO-RE relocations against libbpf: an object made by clang, relocated by both for the types of several kernels, gives the same code."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from oracle.core_objects import ElfObject, Relocation, compile_core, iter_relocations
from vm.kernels import KernelUnavailable, get_kernel

from sonde.api.build import build
from sonde.api.objects import bind
from sonde.bpf.objfile.read import read_object
from sonde.bpf.objfile.write import write_object
from sonde.debuginfo.btf import VMLINUX_PATH, Btf
from sonde.debuginfo.corerelo import KINDS, local_answer, read_access, resolve, show, show_type
from sonde.debuginfo.ctype import Enum, Struct
from sonde.kernel.coreload import CoreLoader, patch
from sonde.lang.source import Source
from sonde.record import replace
from sonde.spec.object import CoreAccess

pytestmark = [pytest.mark.kernel, pytest.mark.oracle]  # libbpf tries to load a program before it relocates

HERE = Path(__file__).parent


# libbpf compares the names of integers as they are written: clang's "unsigned long" is not GCC's "long unsigned int" to it.
OTHER_SPELLING = frozenset(["struct rlimit", "struct inode", "struct task_struct"])


@pytest.fixture(scope="module")
def tools(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The object, and the program that has libbpf relocate it."""
    if not shutil.which("gcc"):
        pytest.skip("needs gcc")
    folder = tmp_path_factory.mktemp("core")
    made, dump = compile_core(folder), folder / "dump"
    subprocess.run(["gcc", str(HERE / "core_dump.c"), "-o", str(dump), "-lbpf"], check=True)
    return made, dump


def btf_file(series: str) -> str:
    if not series:
        return VMLINUX_PATH
    try:
        return str(get_kernel(series).btf)
    except KernelUnavailable as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("series", ["", "5.10", "6.1", "6.12", "7.2"])
def test_the_same_code(tools: tuple[Path, Path], series: str) -> None:
    made, dump = tools
    types = btf_file(series)
    result = subprocess.run([str(dump), str(made), types], capture_output=True, text=True)
    theirs = {line.split()[0]: bytes.fromhex(line.split()[1]) for line in result.stdout.splitlines()}
    assert set(theirs) == {"core/fields", "core/types", "core/matches", "core/loads"}, result.stderr
    seen = set()
    for relocation, access, ours in relocated(made, Btf.open(types)):
        at = relocation.pc * 8
        expected = theirs[relocation.section][at : at + len(ours)]
        if ours != expected and access.kind == "type_matches" and show_type(access) in OTHER_SPELLING:
            assert (ours[4], expected[4]) == (1, 0)
            continue
        assert ours == expected, f"{access.kind} {access.type_name} {access.path} at {relocation.pc}"
        seen.add(access.kind)
    assert seen == set(KINDS)


def relocated(made: Path, target: Btf) -> Iterator[tuple[Relocation, CoreAccess, bytes]]:
    """Relocate every instruction of the object by itself."""
    sections = ElfObject(bytearray(made.read_bytes())).sections()
    own = Btf.from_bytes(sections[".BTF"][1])
    for relocation in iter_relocations(sections[".BTF.ext"][1], own):
        root, kind = own.type_by_id(relocation.type_id), KINDS[relocation.kind]
        index, path = read_access(kind, root, relocation.access)
        keyword = root.kind + " " if isinstance(root, Struct) else "enum " if isinstance(root, Enum) else ""
        access = CoreAccess(kind, keyword + root.name, path, relocation.type_id, index, root)
        access = replace(access, value=local_answer(access))
        start = relocation.pc * 8
        code = bytearray(sections[relocation.section][1][start : start + 16])
        patch(code, 0, access, resolve(access, target))
        yield relocation, access, bytes(code[: 16 if code[0] == 0x18 or code[8:] == code[:8] else 8])


SCRIPT = """begin {
  $t = curtask;
  @ids = $t.real_parent.tgid + $t.pid; @reset = $t.sched_reset_on_fork; @umask = $t.fs.umask;
  @files = $t.signal.rlim[7].rlim_cur; @code = $t.mm.start_code; @uid = $t.cred.uid.val;
  @size = sizeof(struct task_struct); @listen = TCP_LISTEN; @kind = PIDTYPE_TGID;
  @[$t.comm, $t.group_leader.comm] = count();
}"""


@pytest.mark.parametrize("series", ["", "5.10", "6.1", "6.12", "7.2"])
def test_what_sonde_builds_is_relocated_alike(tools: tuple[Path, Path], series: str, tmp_path: Path) -> None:
    """An object that was compiled here, with types cut down to what it asks for, goes to other kernels: libbpf and sonde agree on each instruction."""
    types = btf_file(series)
    said: list[str] = []
    found = read_object(build(Source("x.bt", SCRIPT), warn=said.append))
    assert len(said) == 1 and "TCP_LISTEN is taken as 10" in said[0]  # an enumeration without a name
    (program,) = found.programs
    made = tmp_path / "built.o"
    made.write_bytes(write_object(replace(found, programs=(replace(program, section="core/built"),))))
    result = subprocess.run([str(tools[1]), str(made), types], capture_output=True, text=True)
    lines = [line.split() for line in result.stdout.splitlines()]
    assert [section for section, _ in lines] == ["core/built"], result.stderr
    theirs = bytes.fromhex(lines[0][1])
    (spec,) = bind(found, find_places=False).programs
    loader, ours = CoreLoader(Btf.open(types)), bytearray(spec.insns)
    asked = [reloc for reloc in spec.relocs if reloc.kind == "core"]
    for reloc in asked:
        loader.fill(spec, ours, reloc)
        at = reloc.pc * 8
        size = 16 if ours[at] == 0x18 else 8
        assert ours[at : at + size] == theirs[at : at + size], show(reloc.core)
    assert len(asked) > 15

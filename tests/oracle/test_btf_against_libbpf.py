"""BTF merged, split and cut down, against libbpf and bpftool: as many types of each kind, the same answers, and text that they read."""

from __future__ import annotations

import ctypes
import ctypes.util
import lzma
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from oracle.core_objects import compile_core
from vm.kernels import KernelUnavailable, elf_section, get_kernel

from sonde.api.linking import cut_types, open_types
from sonde.bpf.objfile.read import read_object
from sonde.debuginfo.btf import VMLINUX_PATH, Btf
from sonde.debuginfo.btfrecords import add_btf
from sonde.debuginfo.btfwrite import BtfWriter
from sonde.debuginfo.corerelo import resolve
from sonde.debuginfo.ctype import Member, Pointer, Struct
from sonde.errors import FormatError

pytestmark = [pytest.mark.oracle, pytest.mark.kernel]
OBJECTS = Path(__file__).parents[1] / "objects"
NAMES = ("basic.o", "attached.o", "kernel_objects.o", "linked_one.o", "linked_two.o")


@pytest.fixture(scope="module")
def libbpf() -> ctypes.CDLL:
    name = ctypes.util.find_library("bpf")
    if not name:
        pytest.skip("needs libbpf (Debian package libbpf1)")
    library = ctypes.CDLL(name)
    for function in ("btf__new", "btf__new_empty", "btf__new_empty_split", "btf__raw_data", "btf__parse_raw_split"):
        getattr(library, function).restype = ctypes.c_void_p
    library.btf__add_btf.argtypes = [ctypes.c_void_p, ctypes.c_void_p]
    library.btf__dedup.argtypes = [ctypes.c_void_p, ctypes.c_void_p]
    library.btf__free.argtypes = [ctypes.c_void_p]
    library.btf__new_empty_split.argtypes = [ctypes.c_void_p]
    library.btf__parse_raw_split.argtypes = [ctypes.c_char_p, ctypes.c_void_p]
    library.btf__raw_data.argtypes = [ctypes.c_void_p, ctypes.POINTER(ctypes.c_uint32)]
    return library


def btf_of(name: str) -> bytes:
    return elf_section((OBJECTS / name).read_bytes(), b".BTF")


def merged_by_libbpf(libbpf: ctypes.CDLL, parts: list[bytes]) -> bytes:
    made = libbpf.btf__new_empty()
    for part in parts:
        read = libbpf.btf__new(part, len(part))
        assert libbpf.btf__add_btf(made, read) >= 0
        libbpf.btf__free(read)
    assert libbpf.btf__dedup(made, None) == 0
    return raw(libbpf, made)


def raw(libbpf: ctypes.CDLL, btf: int) -> bytes:
    size = ctypes.c_uint32()
    data = ctypes.string_at(libbpf.btf__raw_data(btf, ctypes.byref(size)), size.value)
    libbpf.btf__free(btf)
    return data


def names(btf: Btf) -> list[tuple[str, str]]:
    """Kind and name of each type but variables and sections, which stay as many as they were."""
    found = ((btf.kind_of(ident), btf.get_name(ident)) for ident in range(btf.first_id, btf.count_types() + 1))
    return sorted(each for each in found if each[0] not in ("var", "datasec"))


@pytest.mark.parametrize("parts", [NAMES, NAMES[::-1], NAMES[3:], NAMES[:1] * 3], ids=["all", "back", "two", "same"])
def test_as_many_types_as_libbpf_leaves(parts: tuple[str, ...], libbpf: ctypes.CDLL) -> None:
    sections = [btf_of(name) for name in parts]
    writer = BtfWriter()
    for each in sections:
        add_btf(writer, Btf.from_bytes(each))
    ours = writer.build()
    assert names(Btf.from_bytes(ours)) == names(Btf.from_bytes(merged_by_libbpf(libbpf, sections)))
    read = libbpf.btf__new(ours, len(ours))
    assert read
    libbpf.btf__free(read)


def test_split_on_the_kernel_s_types(libbpf: ctypes.CDLL, tmp_path: Path) -> None:
    """Types of a small part of the kernel's, and two of our own, on the kernel's as base: only our own are written, and libbpf reads them."""
    kernel = Btf.open(VMLINUX_PATH)
    writer = BtfWriter(kernel)
    part = BtfWriter()
    for name in ("struct task_struct", "struct rb_node"):
        ctype = kernel.get_struct(name)
        assert ctype is not None
        part.add(ctype)
    node = kernel.get_struct("rb_node")
    assert node is not None
    part.add(Struct("struct", "sonde_own", 32, (Member("node", node, 0), Member("next", Pointer(node), 192))))
    add_btf(writer, Btf.from_bytes(part.build()))
    data = writer.build()
    split = Btf.from_bytes(data, kernel)
    new = {each for each in names(split) if each[1]}
    assert new == {("struct", "sonde_own"), ("int", "__ARRAY_SIZE_TYPE__")}
    path = tmp_path / "split.btf"
    path.write_bytes(data)
    whole = Path(VMLINUX_PATH).read_bytes()
    base = libbpf.btf__new(whole, len(whole))
    read = libbpf.btf__parse_raw_split(os.fsencode(path), base)
    assert read
    libbpf.btf__free(read)
    libbpf.btf__free(base)
    if shutil.which("bpftool"):
        text = bpftool("-B", VMLINUX_PATH, "btf", "dump", "file", str(path))
        assert "STRUCT 'sonde_own' size=32 vlen=2" in text


def bpftool(*words: str) -> str:
    return subprocess.run(["bpftool", *words], capture_output=True, text=True, check=True).stdout


# Minimal BTF ------------------------------------------------------------------------------------------------------


def kernel_types(series: str) -> str:
    if not series:
        return VMLINUX_PATH
    try:
        return str(get_kernel(series).btf)
    except KernelUnavailable as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def core_object(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The object with questions of all kinds; those of section core/matches are made into type_matches."""
    return compile_core(tmp_path_factory.mktemp("core"))


@pytest.mark.skipif(not shutil.which("bpftool"), reason="needs bpftool (Debian package bpftool)")
@pytest.mark.parametrize("series", ["", "5.10", "6.12"])
def test_minimal_btf_gives_the_same_answers(series: str, core_object: Path, tmp_path: Path) -> None:
    path = kernel_types(series)
    kernel = open_types(path)
    paths = [str(core_object), str(OBJECTS / "attached.o"), str(OBJECTS / "basic.o")]
    ours = Btf.from_bytes(cut_types(kernel, paths))
    theirs_path = tmp_path / "theirs.btf"
    subprocess.run(["bpftool", "gen", "min_core_btf", path, str(theirs_path), *paths], check=True)
    theirs = open_types(str(theirs_path))
    asked = agreed = 0
    for each in paths:
        for program in read_object(Path(each).read_bytes()).programs:
            for fill in program.fills:
                if fill.core is None or fill.core.kind.startswith("type_id"):
                    continue
                asked += 1
                whole, cut = answer(fill.core, kernel), answer(fill.core, ours)
                assert cut == whole, fill.core
                agreed += answer(fill.core, theirs) == whole
    assert asked > 60 and agreed > asked * 0.9
    small = cut_types(kernel, paths[1:])
    subprocess.run(["bpftool", "gen", "min_core_btf", path, str(theirs_path), *paths[1:]], check=True)
    assert (
        len(small) < 2 * theirs_path.stat().st_size
    )  # questions for whole types take more room here: they keep their members
    out = tmp_path / "ours.btf"
    out.write_bytes(ours._data)
    assert re.search(r"^struct task_struct \{", bpftool("btf", "dump", "file", str(out), "format", "c"), re.MULTILINE)


def answer(access, types: Btf) -> object:  # type: ignore[no-untyped-def]
    try:
        return resolve(access, types)
    except FormatError as error:
        return error.message


# Modules ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("series", ["6.12"])
def test_the_types_of_a_module(series: str, tmp_path: Path) -> None:
    """BTF of a module of a Debian kernel: read as bpftool reads it, and written again on the same base."""
    try:
        kernel = get_kernel(series)
    except KernelUnavailable as error:
        pytest.skip(str(error))
    files = sorted(kernel.modules.rglob("overlay.ko*"))
    if not files:
        pytest.skip("this kernel has no module overlay")
    data = files[0].read_bytes()
    data = lzma.decompress(data) if files[0].suffix == ".xz" else data
    section = elf_section(data, b".BTF")
    base = open_types(str(kernel.btf))
    module = Btf.from_bytes(section, base)
    own = names(module)
    assert len(own) > 100
    for ident in range(module.first_id, module.count_types() + 1):
        module.type_by_id(ident)
    writer = BtfWriter(base)
    add_btf(writer, module)
    again = Btf.from_bytes(writer.build(), base)
    assert [n for n in names(again) if n[1]] == [n for n in own if n[1]]
    path = tmp_path / "module.btf"
    path.write_bytes(writer.build())
    if shutil.which("bpftool"):
        text = bpftool("-B", str(kernel.btf), "btf", "dump", "file", str(path))
        assert len(re.findall(r"^\[\d+\]", text, re.MULTILINE)) == again.count_types() - base.count_types()

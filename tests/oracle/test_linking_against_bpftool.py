"""Objects linked by sonde and by `bpftool gen object`: the same code, data and results; what sonde wrote is read by bpftool, libbpf and LLVM's tools."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from sonde.api.build import build
from sonde.api.linking import link
from sonde.api.objects import load_object, open_object, read_object
from sonde.bpf.objfile.read import read_object as read
from sonde.bpf.objfile.write import write_object
from sonde.cli.main import run
from sonde.debuginfo.ctype import Struct
from sonde.errors import CompileError, FormatError
from sonde.lang.source import Source

OBJECTS = Path(__file__).parents[1] / "objects"
CLANG = next((c for c in ("clang", "clang-14", "clang-15", "clang-16", "clang-19") if shutil.which(c)), "")
needs_clang = pytest.mark.skipif(
    not CLANG or not Path("/usr/include/bpf/bpf_helpers.h").exists(),
    reason="needs clang and libbpf's headers (Debian packages clang-14, libbpf-dev)",
)
needs_bpftool = pytest.mark.skipif(not shutil.which("bpftool"), reason="needs bpftool (Debian package bpftool)")
pytestmark = pytest.mark.kernel
ZERO = bytes(4)


def compile_text(text: str, path: Path, *options: str, target: str = "bpfel") -> str:
    """Compile C with clang; returns the object's path."""
    source = path.with_suffix(".bpf.c")
    source.write_text(text)
    include = f"-I/usr/include/{os.uname().machine}-linux-gnu"
    subprocess.run([CLANG, "-g", "-O2", "-target", target, include, *options, "-c", source, "-o", path], check=True)
    return str(path)


def linked(folder: Path, target: str = "bpfel") -> list[str]:
    paths = []
    for name in ("linked_one", "linked_two"):
        text = (OBJECTS / f"{name}.bpf.c").read_text()
        paths.append(compile_text(text, folder / f"{name}_{target}.o", target=target))
    return paths


def outcome(path: str) -> object:
    """What the programs of the linked object return and leave behind."""
    with load_object(read_object(path)).object as live:
        returned = live.run("first")
        data, ctype = live.maps[".data"].lookup(ZERO), live.maps[".data"].spec.value_type
        bss, seen = live.maps[".bss"].lookup(ZERO), live.maps["seen"].lookup(struct.pack("<i", 1))
        assert data is not None and bss is not None and seen is not None and isinstance(ctype, Struct)
        values = sorted((m.name, data[0][m.offset : m.offset + 4]) for m in ctype.members if m.name != "answer")
        assert struct.unpack("<ii", seen[0][:8]) == (os.getpid(), os.getppid())
        results = struct.unpack("<8q", bss[0])
        assert results[1:5] == (8, 6, 9, 77) and results[7] == 6
        return returned, results, values


@needs_clang
@needs_bpftool
def test_the_same_as_bpftool(tmp_path: Path) -> None:
    paths = linked(tmp_path)
    ours, theirs = str(tmp_path / "ours.o"), str(tmp_path / "theirs.o")
    assert run("sonde", ["build", "-o", ours, *paths]) == 0
    subprocess.run(["bpftool", "gen", "object", theirs, *paths], check=True)
    assert outcome(ours) == outcome(theirs)
    mine, other = open_object(ours), open_object(theirs)
    assert [(p.name, p.insns, p.functions) for p in mine.programs] == [
        (p.name, p.insns, p.functions) for p in other.programs
    ]
    assert [[(line.pc, str(line.span)) for line in p.lines] for p in mine.programs] == [
        [(line.pc, str(line.span)) for line in p.lines] for p in other.programs
    ]


@needs_clang
@needs_bpftool
def test_bpftool_links_on_what_sonde_linked(tmp_path: Path) -> None:
    one, two = linked(tmp_path)
    part, whole = tmp_path / "part.o", str(tmp_path / "whole.o")
    part.write_bytes(link([one]))
    subprocess.run(["bpftool", "gen", "object", whole, str(part), two], check=True)
    assert [p.insns for p in open_object(whole).programs] == [p.insns for p in read(link([one, two])).programs]


@pytest.fixture
def pins(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "bpf"
    folder.mkdir()
    done = subprocess.run(["mount", "-t", "bpf", "bpf", str(folder)], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"needs to mount a BPF file system: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


SCRIPT = "tracepoint:syscalls:sys_enter_getppid { @[comm] = count(); @t = curtask.real_parent.tgid; }"


@needs_bpftool
def test_what_sonde_wrote_is_read_elsewhere(pins: Path, tmp_path: Path) -> None:
    """A linked object and one of a script: libbpf loads them, bpftool makes a skeleton of them, LLVM's tools show them."""
    files = {"linked": link([str(OBJECTS / f"linked_{n}.o") for n in ("one", "two")])}
    files["script"] = build(Source("x.bt", SCRIPT))
    for name, data in files.items():
        path = tmp_path / f"{name}.o"
        path.write_bytes(data)
        subprocess.run(["bpftool", "prog", "loadall", str(path), str(pins / name)], check=True)
        assert {p.name for p in (pins / name).iterdir()} == {p.name for p in read(data).programs}
        skeleton = subprocess.run(["bpftool", "gen", "skeleton", str(path)], capture_output=True, text=True, check=True)
        for program in read(data).programs:
            assert f"struct bpf_program *{program.name};" in skeleton.stdout
        if not shutil.which("llvm-readelf") or not shutil.which("llvm-objdump"):
            continue
        shown = subprocess.run(["llvm-readelf", "-a", str(path)], capture_output=True, text=True, check=True)
        assert "EM_BPF" in shown.stdout and not shown.stderr
        shown = subprocess.run(["llvm-objdump", "-dr", str(path)], capture_output=True, text=True, check=True)
        unknown = [line.split()[1] for line in shown.stdout.splitlines() if "<unknown>" in line]
        assert (
            set(unknown) <= {"62", "6a", "72", "7a"} and not shown.stderr
        )  # stores of constants: LLVM knows them from 18 on
        assert all(f"<{program.name}>:" in shown.stdout for program in read(data).programs)


@needs_clang
@needs_bpftool
def test_big_endian(tmp_path: Path) -> None:
    """Objects for big-endian machines: linked, read and shown as their little-endian twins; LLVM's tools agree about the code."""
    ours = tmp_path / "big.o"
    ours.write_bytes(link(linked(tmp_path, "bpfeb")))
    found, twin = open_object(str(ours)), read(link(linked(tmp_path)))
    assert found.byte_order == "big"
    assert [(p.name, p.functions) for p in found.programs] == [(p.name, p.functions) for p in twin.programs]
    data = next(m for m in found.maps if m.name == ".data")
    assert isinstance(data.value, Struct)
    values = {m.name: int.from_bytes(data.initial[m.offset : m.offset + 4], "big") for m in data.value.members}
    assert values["shared"] == 40 and values["answer"] == 9
    if shutil.which("llvm-objdump"):
        shown = subprocess.run(["llvm-objdump", "-dr", str(ours)], capture_output=True, text=True, check=True).stdout
        assert "<unknown>" not in shown and shown.count("call ") > 6


@needs_clang
@pytest.mark.parametrize(
    ("one", "two", "words"),
    [
        ("int a = 1;", "int a = 2;", "a is defined here and in "),
        ("int a = 1;", "extern long a; long *use(void) { return &a; }", r"a is long a here, but int a in "),
        ("int f(int x) { return x; }", "long f(int x); long g(void) { return f(1); }", "f is .* here, but .* in "),
        ("int f(int x) { return x; }", "extern int f; int *g(void) { return &f; }", "f is int f here, but .* in "),
        (
            "struct { int (*type)[1]; int *key; long *value; int (*max_entries)[4]; } m __attribute__((section(\".maps\")));",
            "struct { int (*type)[1]; int *key; int *value; int (*max_entries)[4]; } extern m __attribute__((section(\".maps\")));"
            " void *use(void) { return &m; }",
            "m is .* here, but .* in ",
        ),
    ],
)  # fmt: skip
def test_contradictions_name_both_files(one: str, two: str, words: str, tmp_path: Path) -> None:
    paths = [compile_text(text, tmp_path / f"{name}.o") for name, text in (("one", one), ("two", two))]
    with pytest.raises(FormatError, match=words + paths[0]) as caught:
        link(paths)
    assert caught.value.path == paths[1]


@needs_clang
def test_what_is_hidden_stays_hidden(tmp_path: Path) -> None:
    text = '__attribute__((visibility("hidden"))) int f(int x) { return x; }'
    paths = [
        compile_text(text, tmp_path / "one.o"),
        compile_text("int f(int x); int g(void) { return f(1); }", tmp_path / "two.o"),
    ]
    out = tmp_path / "out.o"
    out.write_bytes(link(paths))
    shown = subprocess.run(["llvm-readelf", "-s", str(out)], capture_output=True, text=True)
    if shown.returncode == 0:
        assert any("HIDDEN" in line and line.endswith(" f") for line in shown.stdout.splitlines())


C_PART = """
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
char LICENSE[] SEC("license") = "GPL";
struct { __uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 64); __type(key, int); __type(value, long); } counts SEC(".maps");
int level = 3;
SEC("raw_tp") int of_c(void *ctx) { int key = 1; long value = level; bpf_map_update_elem(&counts, &key, &value, 0); return 0; }
"""
CLANG_PART = """
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
char LICENSE[] SEC("license") = "GPL";
extern struct { __uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 64); __type(key, int); __type(value, long); } counts SEC(".maps");
extern int level;
SEC("raw_tp") int of_clang(void *ctx)
{
	int key = 1; long *value = bpf_map_lookup_elem(&counts, &key);
	level += 4;
	return value ? *value * 100 + level : -1;
}
"""


@needs_clang
def test_c_text_and_an_object_of_clang_s(tmp_path: Path) -> None:
    source, other, out = tmp_path / "part.bpf.c", tmp_path / "clang.o", str(tmp_path / "out.o")
    source.write_text(C_PART)
    compile_text(CLANG_PART, other)
    assert run("sonde", ["build", "-o", out, str(source), str(other)]) == 0
    with load_object(read_object(out)).object as live:
        live.run("of_c")
        assert live.run("of_clang") == 307


USES = """
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
char LICENSE[] SEC("license") = "GPL";
struct pair { int left; long right; };
extern struct { __uint(max_entries, 64); __type(key, int); __type(value, struct pair); __uint(type, BPF_MAP_TYPE_HASH); } pairs SEC(".maps");
extern int level;
extern struct pair both;
extern long twice(long x);
int add(int one, int two);
SEC("raw_tp") int of_c(void *ctx)
{
	int key = 1;
	struct pair *found = bpf_map_lookup_elem(&pairs, &key);
	level += 10;
	both.right = twice(both.left + 1);
	return found ? add(found->left, twice(3)) + level * 1000 : -1;
}
"""
DEFINES = """
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
char LICENSE[] SEC("license") = "GPL";
struct pair { int left; long right; };
struct { __uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 64); __type(key, int); __type(value, struct pair); } pairs SEC(".maps");
int level = 5;
struct pair both = { 20, 0 };
static __noinline long inner(long x) { return x + x; }
__noinline long twice(long x) { return inner(x); }
__noinline int add(int one, int two) { return one + two; }
SEC("raw_tp") int fill(void *ctx)
{
	int key = 1; struct pair value = { 7, 8 };
	bpf_map_update_elem(&pairs, &key, &value, 0);
	return both.right;
}
"""


@needs_clang
@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_c_text_uses_what_an_object_of_clang_s_defines(order: tuple[int, int], tmp_path: Path) -> None:
    source, other, out = tmp_path / "uses.bpf.c", tmp_path / "defines.o", str(tmp_path / "out.o")
    source.write_text(USES)
    compile_text(DEFINES, other)
    paths = [str(source), str(other)]
    assert run("sonde", ["build", "-o", out, *(paths[i] for i in order)]) == 0
    with load_object(read_object(out)).object as live:
        assert live.run("of_c") == 0xFFFFFFFF
        assert live.run("fill") == 42
        assert live.run("of_c") == 7 + 6 + 25 * 1000


@needs_clang
def test_c_text_that_declares_otherwise(tmp_path: Path) -> None:
    source, other = tmp_path / "uses.bpf.c", tmp_path / "defines.o"
    compile_text(DEFINES, other)
    for old, new, name in (
        ("extern int level", "extern long level", "level"), ("long twice(long x)", "int twice(long x)", "twice"),
        ("max_entries, 64", "max_entries, 65", "pairs"), ("int left; long right", "long left; long right", "(pairs|both)"),
    ):  # fmt: skip
        source.write_text(USES.replace(old, new))
        with pytest.raises(FormatError, match=f"{name} is .* here, but .* in {source}"):
            link([str(source), str(other)])


def test_c_text_alone_must_define_what_it_uses() -> None:
    with pytest.raises(CompileError, match=r"declared, but (nowhere defined|defined nowhere)"):
        build(Source("uses.bpf.c", USES))


def test_words_that_cannot_be_linked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(OBJECTS / "linked_one.o")
    assert run("sonde", ["build", "-o", str(tmp_path / "x.o"), path, "/no/such/file"]) == 1
    assert "/no/such/file" in capsys.readouterr().err
    assert run("sonde", ["build", "-o", str(tmp_path / "x.o"), path, __file__]) == 2
    assert "neither an object nor C" in capsys.readouterr().err
    assert run("sonde", ["build", "-o", str(tmp_path / "x.o"), path]) == 0
    assert "other is used in" in capsys.readouterr().err


def test_minimal_types_for_load(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small, path = str(tmp_path / "small.btf"), str(OBJECTS / "attached.o")
    assert run("sonde", ["build", "--min-btf", "/sys/kernel/btf/vmlinux", "-o", small, path]) == 0
    assert os.path.getsize(small) < 2000
    assert run("sonde", ["load", "--dry-run", "--btf", small, path]) == 0
    assert "questions: raw_tracepoint" in capsys.readouterr().out
    (tmp_path / "empty.btf").write_bytes(struct.pack("<HBBIIIII", 0xEB9F, 1, 0, 24, 0, 0, 0, 1) + b"\0")
    assert run("sonde", ["load", "--dry-run", "--btf", str(tmp_path / "empty.btf"), path]) == 1
    assert "cannot be had on this kernel: there is no struct task_struct" in capsys.readouterr().err
    assert run("sonde", ["build", "--min-btf", path, "-o", small]) == 2


def test_written_objects_are_linked() -> None:
    """What `write_object` made of an object says the same after linking."""
    data = write_object(read((OBJECTS / "basic.o").read_bytes()))
    from sonde.bpf.objfile.combine import combine_objects

    (before,), (after,) = read(data).programs, read(combine_objects([("x.o", data)])).programs
    assert before.insns == after.insns and before.functions == after.functions

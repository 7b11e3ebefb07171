"""Addresses in the data of objects: the kernel's are filled in, those of the object itself are refused where a program would read them."""

from __future__ import annotations

from pathlib import Path

import pytest
from oracle.test_linking_against_bpftool import compile_text, needs_clang

from sonde.api.objects import bind, load_object, open_object, read_object
from sonde.bpf.objfile.combine import combine_objects
from sonde.bpf.objfile.model import DataAddress
from sonde.bpf.objfile.read import read_object as read
from sonde.bpf.objfile.write import write_object
from sonde.errors import FormatError, ProbeError

pytestmark = [pytest.mark.kernel, needs_clang]
TEXT = """
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
char LICENSE[] SEC("license") = "GPL";
extern const void vfs_read __ksym;
extern const void no_such_thing __ksym __weak;
extern int nobody_s __attribute__((weak));
struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 1); __type(key, int); __type(value, long); } m SEC(".maps");
const void *where = &vfs_read;
const void *missing = &no_such_thing;
int *nothing = &nobody_s;
int numbers[4] = { 3, 4, 5, 6 };
int *points = &numbers[2];
void *map = &m;
const char *names[] = { "one", "two" };
long sum;
SEC("raw_tp") int run(void *ctx) { sum = (long)where; return missing || nothing ? 1 : numbers[1]; }
#ifdef USE
SEC("raw_tp") int use(void *ctx) { return (long)USE; }
#endif
"""


def address_of(name: str) -> int:
    lines = (line.split() for line in Path("/proc/kallsyms").read_text().splitlines())
    return next(int(words[0], 16) for words in lines if words[2] == name)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> str:
    return compile_text(TEXT, tmp_path_factory.mktemp("object") / "x.o")


def test_what_stands_where(made: str) -> None:
    found = open_object(made)
    data = next(m for m in found.maps if m.name == ".data")
    assert [(a.kind, a.symbol, a.addend, a.weak) for a in data.addresses] == [
        ("ksym", "vfs_read", 0, False), ("ksym", "no_such_thing", 0, True), ("ksym", "nobody_s", 0, True),
        ("data", ".data", 32, False), ("map", "m", 0, False), ("data", ".rodata.str1.1", 0, False),
        ("data", ".rodata.str1.1", 4, False),
    ]  # fmt: skip


@pytest.mark.parametrize("how", ["as it is", "linked", "written"])
def test_the_kernel_s_addresses_are_filled_in(how: str, made: str) -> None:
    data = Path(made).read_bytes()
    if how != "as it is":
        data = combine_objects([("x.o", data)]) if how == "linked" else write_object(read(data))
    spec = bind(read(data))
    said = [each.message for each in spec.warnings]
    assert len(said) == 4 and any("variable points holds the address of .data" in each for each in said)
    with load_object(spec).object as live:
        assert live.run("run") == 4
        value = live.maps[".bss"].lookup(bytes(4))
        assert value is not None and int.from_bytes(value[0], "little") == address_of("vfs_read")
        content = live.maps[".data"].lookup(bytes(4))
        assert content is not None and content[0][40:72] == bytes(32)


@pytest.mark.parametrize(("used", "held"), [("points", ".data"), ("map", "m"), ("names[1]", ".rodata.str1.1")])
def test_a_program_that_would_read_a_wrong_one(used: str, held: str, tmp_path: Path) -> None:
    path = compile_text(TEXT, tmp_path / "x.o", f"-DUSE={used}")
    name = used.partition("[")[0]
    with pytest.raises(FormatError, match=f"variable {name} holds the address of {held}, and program use uses it"):
        read_object(path)
    assert len(open_object(path).programs) == 2  # it can be shown, and linked


def test_a_symbol_that_nobody_has(made: str, tmp_path: Path) -> None:
    path = compile_text(TEXT.replace("no_such_thing __ksym __weak", "no_such_thing __ksym"), tmp_path / "x.o")
    with pytest.raises(ProbeError, match="no symbol no_such_thing"):
        read_object(path)
    path = compile_text(TEXT.replace(" __attribute__((weak))", ""), tmp_path / "y.o")
    with pytest.raises(FormatError, match="nobody_s is declared, but defined nowhere"):
        read_object(path)


def test_big_endian(tmp_path: Path) -> None:
    path = compile_text(TEXT, tmp_path / "x.o", target="bpfeb")
    found = open_object(path)
    data = next(m for m in found.maps if m.name == ".data")
    assert DataAddress(24 + 16, "data", ".data", 24 + 8) in data.addresses
    again = read(write_object(found))
    assert again.byte_order == "big"
    assert next(m for m in again.maps if m.name == ".data").addresses == data.addresses
    assert [p.insns for p in again.programs] == [p.insns for p in found.programs]

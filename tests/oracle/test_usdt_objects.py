"""Objects made with libbpf's usdt.bpf.h: sonde fills their maps, so that programs find the arguments of USDT probes, as libbpf does."""

from __future__ import annotations

import shutil
import struct
import subprocess
from pathlib import Path

import pytest
from kernel.sdt_program import address_of, build_program
from oracle.test_linking_against_bpftool import compile_text, needs_clang

from sonde.api.linking import link
from sonde.api.objects import bind, load_object, open_object, read_object
from sonde.api.usdtspecs import UsdtSpecs
from sonde.debuginfo.ctype import Array, Enum, Int, Member, Struct
from sonde.debuginfo.usdt import UsdtArg
from sonde.errors import FeatureError, FormatError
from sonde.kernel.target import live_target
from sonde.probes.sections import Place
from sonde.record import replace
from sonde.spec.object import ProbeSpec
from sonde.spec.target import Target

pytestmark = [
    pytest.mark.kernel,
    needs_clang,
    pytest.mark.skipif(not Path("/usr/include/bpf/usdt.bpf.h").exists(), reason="needs bpf/usdt.bpf.h (libbpf-dev)"),
]
TEXT = """
#include <linux/bpf.h>
#include <stdbool.h>
#include <linux/ptrace.h>
#include <linux/errno.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include <bpf/usdt.bpf.h>
char LICENSE[] SEC("license") = "GPL";
long plain[4], counted[4];
SEC("usdt/PATH:app:plain") int BPF_USDT(on_plain, int x, char *text)
{
	plain[0]++; plain[1] += x; plain[2] = bpf_usdt_arg_cnt(ctx);
	bpf_probe_read_user(&plain[3], 8, text);
	return 0;
}
SEC("usdt/PATH:app:counted") int BPF_USDT(on_counted, long x)
{
	counted[0]++; counted[1] += x; counted[2] = bpf_usdt_arg_cnt(ctx); counted[3] = bpf_usdt_cookie(ctx);
	return 0;
}
"""


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> str:
    return build_program(str(tmp_path_factory.mktemp("program")))


@pytest.fixture(scope="module")
def made(program: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("object") / "usdt.o"
    return compile_text(TEXT.replace("PATH", program), path, "-D__TARGET_ARCH_x86")


def results(data: list[bytes] | None) -> tuple[int, ...]:
    assert data is not None
    return struct.unpack("<8q", data[0])


def test_arguments_are_found(program: str, made: str) -> None:
    loaded = load_object(read_object(made))
    with loaded.object as live:
        assert sorted(link.probes[0].name for link in loaded.links) == [
            f"usdt:{program}:app:counted", f"usdt:{program}:app:plain",
        ]  # fmt: skip
        assert subprocess.run([program, "ffsf"]).returncode == 7
        text = int.from_bytes(b"some-tex", "little")
        assert results(live.maps[".bss"].lookup(bytes(4))) == (3, 1 + 2 + 4, 2, text, 3, 7000, 1, 0)


def without_cookies() -> Target:
    """This machine, as if its kernel had no cookies."""
    target = live_target()
    features = target.features

    class Fewer:
        def have(self, name: str) -> bool:
            return name != "cookie:perf_event" and features.have(name)

    return replace(target, features=Fewer())


def test_without_cookies_programs_go_by_the_address(program: str, made: str) -> None:
    spec = bind(open_object(made), without_cookies())
    entries = {m.name: m.entries for m in spec.maps}
    addresses = {int.from_bytes(key, "little") for key, _ in entries["__bpf_usdt_ip_to_spec_id"]}
    start = address_of(program, "first")
    assert len(addresses) == 2 and all(start <= address < start + 200 for address in addresses)
    plain = replace(spec, probes=tuple(replace(p, cookie=0) for p in spec.probes))
    with load_object(plain).object as live:
        assert subprocess.run([program, "ff"]).returncode == 7
        assert results(live.maps[".bss"].lookup(bytes(4)))[:3] == (2, 3, 2)


def test_without_cookies_addresses_must_be_known(made: str) -> None:
    found = open_object(made)
    specs = UsdtSpecs(next(m for m in found.maps if m.name == "__bpf_usdt_specs"), without_cookies())
    with pytest.raises(FeatureError, match="no fixed addresses"):
        specs.place(Place(ProbeSpec("usdt:x", "usdt", "", path="/bin/true", offset=64)))


def sib_specs() -> UsdtSpecs:
    """As the header of libbpf 1.7 lays its descriptions out: kinds and registers in bit-fields, and one kind more."""
    short, byte, word = Int("short", 2, True), Int("char", 1, True), Int("unsigned short", 2, False)
    kinds = Enum(
        "", 4, False, {f"BPF_USDT_ARG_{name}": n for n, name in enumerate(("CONST", "REG", "REG_DEREF", "SIB"))}
    )
    arg = Struct("struct", "__bpf_usdt_arg_spec", 16, (
        Member("val_off", Int("long", 8, False), 0), Member("arg_type", kinds, 64, 8), Member("idx_reg_off", word, 72, 12),
        Member("scale_bitshift", word, 84, 4), Member("__reserved", byte, 88, 8), Member("reg_off", short, 96),
        Member("arg_signed", byte, 112), Member("arg_bitshift", byte, 120),
    ))  # fmt: skip
    spec = Struct("struct", "__bpf_usdt_spec", 40, (Member("args", Array(arg, 2), 0), Member("arg_cnt", short, 256)))
    from sonde.bpf.objfile.model import MapDef

    return UsdtSpecs(MapDef("__bpf_usdt_specs", 2, 4, 40, 2, value=spec), live_target())


def test_every_layout_of_the_header() -> None:
    specs = sib_specs()
    args = (UsdtArg(4, True, "mem", -8, 80, 40, 4), UsdtArg(1, False, "const", 7))
    probe = specs.place(Place(ProbeSpec("usdt:x", "usdt", ""), "", args))
    (data,) = specs.numbers
    first = struct.unpack_from("<qBHBhBB", data)
    assert first == (-8, 3, 40 | 2 << 12, 0, 80, 1, 32)
    assert struct.unpack_from("<qBHBhBB", data, 16) == (7, 0, 0, 0, 0, 0, 56)
    assert (data[32], probe.cookie) == (2, 0)
    assert specs.place(Place(ProbeSpec("usdt:y", "usdt", ""), "", args)).cookie == 0
    assert specs.place(Place(ProbeSpec("usdt:z", "usdt", ""), "", args[:1])).cookie == 1
    with pytest.raises(FormatError, match="more than 2 probes"):
        specs.place(Place(ProbeSpec("usdt:z", "usdt", ""), "", args[1:]))
    with pytest.raises(FormatError, match="has 3 arguments"):
        specs.place(Place(ProbeSpec("usdt:z", "usdt", ""), "", args + args[:1]))


def test_arguments_out_of_reach(made: str) -> None:
    found = open_object(made)
    specs = UsdtSpecs(next(m for m in found.maps if m.name == "__bpf_usdt_specs"), live_target())
    with pytest.raises(FeatureError, match="two registers"):
        specs.place(Place(ProbeSpec("usdt:x", "usdt", ""), "", (UsdtArg(4, True, "mem", -8, 80, 40, 4),)))
    with pytest.raises(FeatureError, match="out of reach of a program \\(%xmm0\\)"):
        specs.place(Place(ProbeSpec("usdt:x", "usdt", ""), "", (UsdtArg(8, False, "none", text="%xmm0"),)))


@pytest.mark.skipif(not shutil.which("bpftool"), reason="needs bpftool (Debian package bpftool)")
def test_two_of_them_linked(program: str, tmp_path: Path) -> None:
    """The header's functions and maps are weak, and in both: one of each is left, and both programs find their arguments."""
    halves = TEXT.replace("PATH", program).split("SEC(")
    head = halves[0] + "SEC(" + halves[1].split("long plain")[0]
    one = head + "long plain[4];\nSEC(" + halves[2]
    two = head + "long counted[4];\nSEC(" + halves[3]
    paths = [compile_text(t, tmp_path / f"{n}.o", "-D__TARGET_ARCH_x86") for n, t in (("one", one), ("two", two))]
    ours, theirs = tmp_path / "ours.o", tmp_path / "theirs.o"
    ours.write_bytes(link(paths))
    subprocess.run(["bpftool", "gen", "object", str(theirs), *paths], check=True)
    found, other = open_object(str(ours)), open_object(str(theirs))
    assert [(p.name, p.insns) for p in found.programs] == [(p.name, p.insns) for p in other.programs]
    assert sorted(m.name for m in found.maps if m.name.startswith("__bpf")) == [
        "__bpf_usdt_ip_to_spec_id", "__bpf_usdt_specs",
    ]  # fmt: skip
    with load_object(read_object(str(ours))).object as live:
        assert subprocess.run([program, "ffsf"]).returncode == 7
        assert results(live.maps[".bss"].lookup(bytes(4)))[:3] == (3, 7, 2)

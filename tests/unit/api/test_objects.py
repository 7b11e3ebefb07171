"""Objects bound to a machine: values of the kernel's configuration, sections, what cannot be had."""

from __future__ import annotations

from pathlib import Path

import pytest
from fake_target import make_target

from sonde.api.build import write_object
from sonde.api.objectdump import dump_object
from sonde.api.objects import bind, is_object, kconfig_value, open_object, read_object
from sonde.bpf.objfile.model import Extern, Function, MapDef, ObjectFile, Program
from sonde.bpf.objfile.read import read_object as read
from sonde.debuginfo.ctype import BOOL, CHAR, INT8, INT32, UINT64, Array, CType
from sonde.errors import FeatureError, FormatError, ProbeError
from sonde.record import replace
from sonde.spec.object import MapSpec, ObjectSpec, ProbeSpec, ProgramSpec, Reloc
from sonde.spec.target import Target

OBJECTS = Path(__file__).parents[2] / "objects"
EXIT = bytes.fromhex("b700000000000000 9500000000000000")
CONFIG = {
    "CONFIG_A": "y",
    "CONFIG_M": "m",
    "CONFIG_HZ": "250",
    "CONFIG_HEX": "0x1000",
    "CONFIG_NAME": "(none)",
    "CONFIG_BIG": "70000",
}


def target_of(without: tuple[str, ...] = ()) -> Target:
    return replace(
        make_target(without),
        release="6.12.3-test",
        kconfig=lambda name: CONFIG.get(name, ""),
        ksym=lambda name: 0xFFFF if name == "__x64_sys_bpf" else 0,
    )


@pytest.mark.parametrize(
    ("name", "ctype", "value"),
    [
        ("CONFIG_A", BOOL, b"\1"), ("CONFIG_M", BOOL, b"\1"), ("CONFIG_A", INT32, b"\1\0\0\0"), ("CONFIG_M", INT32, b"\2\0\0\0"),
        ("CONFIG_A", CHAR, b"y"), ("CONFIG_HZ", INT32, b"\xfa\0\0\0"), ("CONFIG_HEX", UINT64, b"\0\x10" + bytes(6)),
        ("CONFIG_NAME", Array(CHAR, 16), b"(none)\0"), ("CONFIG_NAME", Array(CHAR, 4), b"(no\0"),
        ("LINUX_KERNEL_VERSION", INT32, b"\3\x0c\6\0"), ("LINUX_HAS_BPF_COOKIE", BOOL, b"\1"),
        ("LINUX_HAS_SYSCALL_WRAPPER", BOOL, b"\1"),
    ],
)  # fmt: skip
def test_configuration(name: str, ctype: CType, value: bytes) -> None:
    assert kconfig_value(Extern(name, ".kconfig", ctype), target_of()) == value


def test_configuration_that_cannot_be_had() -> None:
    weak = Extern("CONFIG_NONE", ".kconfig", INT32, weak=True)
    assert kconfig_value(weak, target_of()) == bytes(4)
    assert kconfig_value(Extern("LINUX_HAS_BPF_COOKIE", ".kconfig", BOOL), target_of(("cookie:perf_event",))) == b"\0"
    for name, ctype, words in (
        ("CONFIG_NONE", INT32, "has no CONFIG_NONE"),
        ("CONFIG_BIG", INT8, "more than 1 bytes"),
        ("CONFIG_NAME", INT32, "no number"),
        ("LINUX_NO_SUCH", INT32, "LINUX_NO_SUCH"),
    ):
        with pytest.raises(ProbeError, match=words):
            kconfig_value(Extern(name, ".kconfig", ctype), target_of())


def test_flags_and_warnings_are_kept() -> None:
    spec = bind(
        replace(object_with("xdp.frags"), warnings=("addresses in section .data are not filled in",)), target_of()
    )
    assert spec.programs[0].flags == 1 << 5
    assert [w.message for w in spec.warnings] == ["addresses in section .data are not filled in"]
    assert read(write_object(spec, target_of())).programs[0].section == "xdp.frags"


def object_with(section: str, *maps: MapDef) -> ObjectFile:
    return ObjectFile((Program("p", section, EXIT, (), (), (Function("p", 0),)),), maps, license="GPL")


def test_sections_become_programs() -> None:
    spec = bind(object_with("fentry.s/vfs_read"), target_of(), find_places=False)
    (program,) = spec.programs
    assert (program.type, program.attach_type, program.attach_btf, program.sleepable) == (
        "tracing", "trace_fentry", "vfs_read", True,
    )  # fmt: skip
    assert spec.probes == ()


@pytest.mark.parametrize(
    ("found", "error", "words"),
    [
        (object_with("kprob/x"), ProbeError, "no type of program"),
        (object_with("struct_ops/x"), FormatError, "stands in no set of programs"),
        (object_with("?xdp"), FormatError, "optional"),
        (object_with("xdp", MapDef("m", 99, 4, 4, 1)), FeatureError, "type 99"),
        (object_with("usdt", MapDef("__bpf_usdt_specs", 2, 4, 4, 1)), FormatError, "usdt.bpf.h"),
    ],
)
def test_what_cannot_be_bound(found: ObjectFile, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        bind(found, target_of(), find_places=False)


def test_files(tmp_path: Path) -> None:
    text = tmp_path / "x.bt"
    text.write_text("begin { }")
    assert not is_object(str(text)) and not is_object(str(tmp_path / "none"))
    assert is_object(str(OBJECTS / "basic.o"))
    with pytest.raises(FormatError, match="cannot be read"):
        read_object(str(tmp_path / "none"), target_of())
    with pytest.raises(FormatError, match="not an ELF file"):
        read_object(str(text), target_of())


def test_a_dump_names_everything() -> None:
    text = "\n".join(dump_object(open_object(str(OBJECTS / "basic.o")), types=True))
    for words in (
        "map outer: array_of_maps, key 4 bytes (int), value 4 bytes, 4 entries, [1] = one, [3] = two",
        "int total", "long hidden[4]", "extern _Bool CONFIG_BPF_SYSCALL (.kconfig, weak)",
        "; CO-RE field_byte_offset struct task_struct.real_parent", "; ksym vfs_read", "; subprogram again",
        "each:", "; ./basic.bpf.c:21  static __noinline int twice(int x) { return x * 2 + total; }", "struct event {\n\tint pid;",
    ):  # fmt: skip
        assert words in text, words


def spec_of(*maps: MapSpec, relocs: tuple[Reloc, ...] = (), insns: bytes = EXIT, probes: int = 0) -> ObjectSpec:
    places = tuple(ProbeSpec(f"kprobe:f{i}", "kprobe", "p", symbol=f"f{i}") for i in range(probes))
    return ObjectSpec((ProgramSpec("p", "kprobe", insns, relocs),), maps, places)


LOAD = bytes.fromhex("1800000000000000 0000000000000000")


def test_a_program_for_each_place() -> None:
    found = read(write_object(spec_of(probes=3), target_of()))
    assert [(p.name, p.section) for p in found.programs] == [
        ("p", "kprobe/f0"),
        ("p_1", "kprobe/f1"),
        ("p_2", "kprobe/f2"),
    ]


def test_maps_by_address_become_data() -> None:
    counts = MapSpec("@counts", "array", 4, 16, 1, initial=b"\1")
    plain = MapSpec("@", "hash", 4, 8, 64)
    relocs = (Reloc(0, "map_value", "@counts", 8), Reloc(2, "map", "@"))
    found = read(write_object(spec_of(counts, plain, relocs=relocs, insns=LOAD + LOAD + EXIT), target_of()))
    assert {m.name: (m.type, m.initial[:1]) for m in found.maps} == {".data.counts": (2, b"\1"), "unnamed": (1, b"")}
    assert [(f.kind, f.symbol, f.addend) for f in found.programs[0].fills] == [
        ("map_value", ".data.counts", 8), ("map", "unnamed", 0),
    ]  # fmt: skip


def test_sections_of_data_do_not_meet() -> None:
    maps = tuple(MapSpec(name, "array", 4, 8, 1, initial=name[-1:].encode()) for name in ("@a", "a", "!a"))
    relocs = tuple(Reloc(2 * i, "map_value", m.name) for i, m in enumerate(maps))
    found = read(write_object(spec_of(*maps, relocs=relocs, insns=LOAD * 3 + EXIT), target_of()))
    assert [f.symbol for f in found.programs[0].fills] == [".data.a", ".data.a_1", ".data.a_2"]
    assert len(found.maps) == 3


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (spec_of(MapSpec("m", "hash", 4, 8, 2), relocs=(Reloc(0, "map_value", "m"),), insns=LOAD + EXIT), "address"),
        (spec_of(MapSpec("m", "array", 4, 8, 1, initial=b"x")), "first content"),
        (spec_of(relocs=(Reloc(0, "map", "gone"),), insns=LOAD + EXIT), "'gone'"),
        (spec_of(probes=600), "600 places"),
        (
            spec_of(
                MapSpec("m", "array", 4, 8, 1),
                relocs=(Reloc(0, "map_value", "m"), Reloc(2, "map", "m")),
                insns=LOAD + LOAD + EXIT,
            ),
            "both as a map and by address",
        ),
    ],
)
def test_what_an_object_cannot_hold(spec: ObjectSpec, words: str) -> None:
    with pytest.raises(FormatError, match=words):
        write_object(spec, target_of())


def test_an_object_without_programs_is_none() -> None:
    with pytest.raises(ProbeError, match="no program"):
        write_object(ObjectSpec(()), target_of())


def test_a_big_endian_object_is_shown_but_not_loaded(capsys: pytest.CaptureFixture[str]) -> None:
    path = str(OBJECTS / "basic_big_endian.o")
    shown, same = (list(dump_object(open_object(str(OBJECTS / name)))) for name in ("basic_big_endian.o", "basic.o"))
    assert [line for line in shown if "call" in line] == [line for line in same if "call" in line]
    with pytest.raises(FeatureError, match="big-endian") as caught:
        read_object(path)
    assert "bpfel" in caught.value.hint

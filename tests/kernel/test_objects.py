"""Objects that clang made run in the kernel as their sources say; BTF that sonde wrote is taken by the kernel and by bpftool."""

from __future__ import annotations

import os
import shutil
import signal
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from same_types import find_difference

from sonde.api.build import write_object
from sonde.api.objects import bind, load_object, read_object
from sonde.api.trace import TraceOptions, compile
from sonde.bpf.objfile.read import read_object as read
from sonde.bpf.objfile.write import write_object as objfile_bytes
from sonde.cli.main import run
from sonde.debuginfo.btf import VMLINUX_PATH, Btf
from sonde.debuginfo.btfwrite import encode
from sonde.debuginfo.ctype import Enum, Member, Struct, sizeof
from sonde.errors import FeatureError, ProbeError
from sonde.kernel.btf import kernel_btf, load_btf
from sonde.kernel.descriptor import close_fd
from sonde.kernel.engine import KernelObject
from sonde.kernel.pins import unpin
from sonde.kernel.target import live_target
from sonde.record import replace

pytestmark = pytest.mark.kernel
OBJECTS = Path(__file__).parents[1] / "objects"
ZERO = bytes(4)


def variables(live: KernelObject, name: str) -> dict[str, bytes]:
    """The bytes of each variable of a section of data."""
    value, ctype = live.maps[name].lookup(ZERO), live.maps[name].spec.value_type
    assert value is not None and isinstance(ctype, Struct)
    return {m.name: value[0][m.offset : m.offset + sizeof(m.ctype)] for m in ctype.members}


def test_calls_maps_data_externs_and_core() -> None:
    with load_object(read_object(str(OBJECTS / "basic.o"))).object as live:
        assert live.run("run") == 0 * 2 + 7 + 1 + ord("s")
        assert live.maps["seen"].lookup(struct.pack("<i", os.getpid())) == [
            struct.pack("<ii", os.getpid(), os.getppid())
        ]
        found = variables(live, ".bss")
        numbers = {
            name: int.from_bytes(found[name], "little")
            for name in ("version", "configured", "address", "sum", "parity")
        }
        major, minor = (int(part) for part in os.uname().release.split(".")[:2])
        assert (numbers["version"] >> 16, numbers["version"] >> 8 & 0xFF) == (major, minor)
        assert (numbers["configured"], numbers["sum"], numbers["parity"]) == (1, 45, 3)
        assert struct.unpack("<4q", found["hidden"]) == (3, 3, 2, 2)
        assert numbers["address"] == next(
            int(line.split()[0], 16)
            for line in Path("/proc/kallsyms").read_text().splitlines()
            if line.split()[2] == "vfs_read"
        )
        assert live.maps["two"].lookup(ZERO) == [struct.pack("<q", 42)]
        assert live.maps["one"].lookup(ZERO) == [bytes(8)]


def test_attached_by_its_section() -> None:
    loaded = load_object(read_object(str(OBJECTS / "attached.o")))
    with loaded.object as live:
        assert {p.name for p in live.spec.programs} == {"on_getppid", "questions", "drop", "sample"}
        assert [link.probes[0].name for link in loaded.links] == ["tracepoint:syscalls:sys_enter_getppid"]
        for _ in range(5):
            os.getppid()
        count = live.maps["calls"].lookup(struct.pack("<I", os.getpid()))
        assert count == [struct.pack("<q", 5)]


def test_questions_about_types() -> None:
    with load_object(read_object(str(OBJECTS / "attached.o")), attach=False).object as live:
        assert live.run("questions") == 0
        bss = live.maps[".bss"].lookup(ZERO)
        assert bss is not None
        answers = struct.unpack("<12q", bss[0])
    kernel = kernel_btf()
    task, pids = kernel.get_struct("struct task_struct"), kernel.get_type("enum pid_type")
    assert task is not None and isinstance(pids, Enum)
    assert answers[:10] == (
        os.getpid(), -1, 16, 0, 0, 1, task.size, pids.values["PIDTYPE_TGID"], 1, kernel.get_type_id("task_struct", "struct"),
    )  # fmt: skip
    own = Btf.from_bytes(btf_section((OBJECTS / "attached.o").read_bytes()))
    assert own.get_name(answers[10]) == "task_struct"
    assert answers[11] == 1


def btf_section(data: bytes) -> bytes:
    start = data.index(b"\x9f\xeb\x01\x00\x18\x00\x00\x00")
    size, strings = struct.unpack_from("<4xI4xI", data, start + 8)
    return data[start : start + 24 + size + struct.unpack_from("<I", data, start + 20)[0]] if strings else b""


@pytest.fixture
def pins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A BPF file system of this test's own."""
    done = subprocess.run(["mount", "-t", "bpf", "bpf", str(tmp_path)], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"needs to mount a BPF file system: {done.stderr.strip()}")
    monkeypatch.setattr("sonde.kernel.pins.BPFFS", str(tmp_path))
    yield tmp_path
    subprocess.run(["umount", str(tmp_path)], check=True)


def test_functions_timers_storage_and_tail_calls() -> None:
    with load_object(read_object(str(OBJECTS / "kernel_objects.o"))).object as live:
        assert live.run("locks") == 5
        found = variables(live, ".bss")
        names = ("option", "missing", "rings")
        assert [int.from_bytes(found[name], "little") for name in names] == [0, 0, 0]
        assert int.from_bytes(found["hz"], "little") == int(live_target().kconfig("CONFIG_HZ") or 0)
        assert found["copy"] == b"a constant".ljust(16, b"\0")
        assert live.run("one") == 2  # the tail call went to `two`
        counts = live.maps["cpus"].lookup(struct.pack("<I", 2))
        assert counts is not None and sum(struct.unpack("<q", each)[0] for each in counts) == 3


def test_an_iterator_writes_a_line_for_each_task(capsys: pytest.CaptureFixture[str]) -> None:
    loaded = load_object(read_object(str(OBJECTS / "kernel_objects.o")))
    with loaded.object:
        (link,) = [link for link in loaded.links if link.probes[0].program == "listed"]
        text = b"".join(loaded.object.iterate(link))
    assert set(text.split(b"\n")) == {b"task", b""} and text.count(b"\n") >= len(os.listdir("/proc/self/task"))
    run("sonde", ["verify", str(OBJECTS / "kernel_objects.o")])
    assert "listed: safe; at most" in capsys.readouterr().out


def test_pinned(pins: Path) -> None:
    folder = "here/there"
    loaded = load_object(read_object(str(OBJECTS / "attached.o")), pin=folder)
    try:
        loaded.object.close()
        assert f"{pins}/{folder}/programs/questions" in loaded.pins
        assert f"{pins}/{folder}/maps/calls" in loaded.pins
        assert all(os.path.exists(pin) for pin in loaded.pins)
    finally:
        for pin in loaded.pins:
            unpin(pin)
    assert not (pins / "here").exists()


def test_what_cannot_be_pinned_leaves_nothing(pins: Path) -> None:
    spec = read_object(str(OBJECTS / "attached.o"))
    with pytest.raises(ProbeError, match="not below"):
        load_object(spec, pin="../../tmp/elsewhere")
    folder = "twice"
    first = load_object(spec, pin=folder)
    try:
        with pytest.raises(Exception, match="File exists"):
            load_object(spec, pin=folder)
        assert first.pins and all(os.path.exists(pin) for pin in first.pins)
    finally:
        first.object.close()
        for pin in first.pins:
            unpin(pin)


def test_what_the_kernel_lacks_is_named() -> None:
    spec = read_object(str(OBJECTS / "basic.o"))
    before = sorted(os.listdir("/proc/self/fd"))
    (run,) = spec.programs
    relocs = tuple(replace(r, symbol="no_such_symbol") if r.kind == "ksym" else r for r in run.relocs)
    with pytest.raises(FeatureError, match="no_such_symbol"):
        load_object(replace(spec, programs=(replace(run, relocs=relocs),)))
    assert sorted(os.listdir("/proc/self/fd")) == before
    weak = tuple(replace(r, symbol="no_such_symbol", weak=True) if r.kind == "ksym" else r for r in run.relocs)
    with load_object(replace(spec, programs=(replace(run, relocs=weak),))).object as live:
        live.run("run")
        bss = live.maps[".bss"].lookup(ZERO)
        assert bss is not None and bss[0][16:24] == bytes(8)


@pytest.mark.parametrize("name", ["struct task_struct", "struct sk_buff", "struct bpf_prog"])
def test_the_kernel_takes_its_own_types_back(name: str, tmp_path: Path) -> None:
    original = Btf.open(VMLINUX_PATH).get_struct(name)
    assert original is not None
    data, (ident,) = encode([original])
    back = Btf.from_bytes(data)
    assert find_difference(original, back.type_by_id(ident)) == ""
    close_fd(load_btf(data))
    if not shutil.which("bpftool"):
        pytest.skip("the kernel took it; comparing the text needs bpftool")
    path = tmp_path / "types.btf"
    path.write_bytes(data)
    keyword, label = name.split()
    assert body(dump(str(path)), f"{keyword} {label} {{") == body(dump(VMLINUX_PATH), f"{keyword} {label} {{")


def dump(path: str) -> str:
    return subprocess.run(
        ["bpftool", "btf", "dump", "file", path, "format", "c"], capture_output=True, text=True, check=True
    ).stdout


def body(text: str, head: str) -> str:
    start = text.index(head)
    return text[start : text.index("\n}", start)]


def test_build_dump_verify_load(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(tmp_path / "x.o")
    assert run("sonde", ["build", "-o", path, "-e", "tracepoint:syscalls:sys_enter_getppid { @[pid] = count(); }"]) == 0
    assert run("sonde", ["dump", "--types", path]) == 0
    shown = capsys.readouterr().out
    assert 'license "GPL"' in shown and "map AT: percpu_hash, key 4 bytes" in shown
    assert "section tracepoint/syscalls/sys_enter_getppid" in shown and "call bpf_map_lookup_elem#1" in shown
    assert "; stdin:1  tracepoint:syscalls:sys_enter_getppid { @[pid] = count(); }" in shown
    assert run("sonde", ["verify", path]) == 0
    assert ": safe; at most" in capsys.readouterr().out
    assert run("sonde", ["load", "--dry-run", path]) == 0
    assert "tracepoint:syscalls:sys_enter_getppid (" in capsys.readouterr().out
    assert sorted(p.name for p in tmp_path.iterdir()) == ["x.o"]


def test_an_iterator_is_safe_where_it_looks_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(tmp_path / "x.o")
    assert (
        run("sonde", ["build", "-o", path, "-e", "iter:task { if (ctx->task) { @[ctx->task->tgid] = count(); } }"]) == 0
    )
    assert run("sonde", ["verify", path]) == 0, capsys.readouterr().err
    assert run("sonde", ["load", "--no-attach", path]) == 0


def test_load_until_a_signal(tmp_path: Path) -> None:
    path = str(OBJECTS / "attached.o")
    process = subprocess.Popen(
        [sys.executable, "-m", "sonde", "load", path], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None and process.stdout is not None
    try:
        assert process.stderr.readline() == "attached; Ctrl-C detaches\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
        assert "on_getppid: tracepoint, tracepoint:syscalls:sys_enter_getppid" in process.stdout.read()
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
        process.stderr.close()


@pytest.mark.parametrize(
    ("words", "status", "text"),
    [
        (["build", "-e", "begin { }"], 2, "where to?"),
        (["build", "-o", "/no/such/folder/x.o", "-e", "begin { }"], 1, "No such file or directory"),
        (["build", "-o", "x.o", "-e", "begin {"], 1, "syntax"),
        (["dump", "/no/such/file"], 1, "cannot be read"),
        (["dump"], 2, "one object file"),
        (["load", "/bin/sh"], 1, "not one for BPF"),
        (["load", "--pin", "../../etc/x", str(OBJECTS / "attached.o")], 1, "not below"),
        (["verify", str(OBJECTS / "basic_big_endian.o")], 1, "bpfel"),
    ],
)
def test_trouble(words: list[str], status: int, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("sonde", words) == status
    assert text in capsys.readouterr().err


def test_an_object_for_other_kernels_asks_here(tmp_path: Path) -> None:
    """What was compiled with the members of a struct elsewhere finds them here when it is loaded."""
    spec = compile("begin { @ = curtask.real_parent.tgid; }", None, TraceOptions(relocatable=True))
    found = read(write_object(spec, live_target()))
    (program,) = found.programs
    (asked,) = [f for f in program.fills if f.core is not None and f.core.path == ("tgid",)]
    assert asked.core is not None and isinstance(asked.core.local, Struct)
    (tgid,) = [m for m in asked.core.local.members if m.name == "tgid"]
    moved = Struct("struct", "task_struct", 64, (Member("tgid", tgid.ctype, 0),))
    elsewhere = replace(asked, core=replace(asked.core, local=moved, value=0))
    fills = tuple(elsewhere if f is asked else f for f in program.fills)
    changed = replace(found, programs=(replace(program, fills=fills),))
    (again,) = read(objfile_bytes(changed)).programs
    assert [f.core.value for f in again.fills if f.core is not None and f.core.path == ("tgid",)] == [0]
    with load_object(bind(read(objfile_bytes(changed)))).object as live:
        live.run(program.name)
        value = live.maps[".data.globals"].lookup(ZERO)
        assert value is not None and struct.pack("<I", os.getppid()) in value[0]

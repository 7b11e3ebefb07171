"""Objects that sonde writes are loaded by bpftool, which uses libbpf: from scripts, from C, and from objects of clang's."""

from __future__ import annotations

import json
import os
import shutil
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from corpus_cases import load_cases

from sonde.api.build import build
from sonde.api.objects import load_object, read_object
from sonde.api.trace import TraceOptions
from sonde.bpf.objfile.read import read_object as read
from sonde.bpf.objfile.write import write_object
from sonde.debuginfo.btf import VMLINUX_PATH, Btf
from sonde.errors import SondeError
from sonde.kernel import abi, syscall
from sonde.kernel.descriptor import close_fd
from sonde.kernel.pins import get_pinned
from sonde.lang.source import Source

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(not shutil.which("bpftool"), reason="needs bpftool (Debian package bpftool)"),
]
OBJECTS = Path(__file__).parents[1] / "objects"

SCRIPTS = {
    "counts": "tracepoint:syscalls:sys_enter_getppid { @[comm, pid] = count(); @h = hist(pid); @s = stats(tid); }",
    "events": 'tracepoint:sched:sched_switch { printf("%s %d %s\\n", comm, args.next_pid, strftime("%H", nsecs)); }',
    "members": "begin { $t = curtask; @m = $t.real_parent.tgid; @n = $t.sched_reset_on_fork; @c = $t.comm; }",
    "loops": "begin { for ($i : 0..10) { @sum += $i; } @a[1] = 2; for ($kv : @a) { @b = $kv.0; } }",
    "stacks": "profile:hz:99 { @[kstack, ustack] = count(); }",
    "iterator": "iter:task { @[ctx->task->tgid] = count(); }",
}
TEXT = """
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include <bpf/bpf_core_read.h>
char LICENSE[] SEC("license") = "GPL";
struct seen { u32 parent; u32 group; };
struct { __uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 64); __type(key, u32); __type(value, struct seen); } seen SEC(".maps");
u64 total = 5;
static __noinline int add(int x) { total += x; return total; }
SEC("raw_tp") int run(void *ctx)
{
    struct task_struct *task = (void *)bpf_get_current_task();
    struct seen s = { BPF_CORE_READ(task, real_parent, tgid), BPF_CORE_READ(task, tgid) };
    u32 key = 1;
    bpf_map_update_elem(&seen, &key, &s, BPF_ANY);
    return add(2) + add(3);
}
"""


@pytest.fixture
def pins(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "bpf"
    folder.mkdir()
    done = subprocess.run(["mount", "-t", "bpf", "bpf", str(folder)], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"needs to mount a BPF file system: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def bpftool(*words: str) -> Any:
    done = subprocess.run(["bpftool", "-j", *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout) if done.stdout.strip() else None


def load(data: bytes, pins: Path, name: str) -> Path:
    """Have bpftool load an object; return the folder with its pins."""
    path = pins.parent / f"{name}.o"
    path.write_bytes(data)
    bpftool("prog", "loadall", str(path), str(pins / name), "pinmaps", str(pins / f"{name}_maps"))
    return pins / name


def run(path: Path) -> int:
    """Run a pinned program once in this process; bpftool cannot run raw tracepoint programs."""
    fd = get_pinned(str(path))
    assert fd >= 0
    attr = bytearray(abi.PROG_TEST_RUN.pack(fd, *[0] * 14))
    try:
        assert syscall.bpf(abi.BPF_PROG_TEST_RUN, attr) == 0
    finally:
        close_fd(fd)
    return int.from_bytes(attr[abi.TEST_RUN_RETVAL_OFFSET : abi.TEST_RUN_RETVAL_OFFSET + 4], "little")


@pytest.mark.parametrize("name", sorted(SCRIPTS))
def test_scripts(name: str, pins: Path) -> None:
    data = build(Source("x.bt", SCRIPTS[name]))
    folder = load(data, pins, name)
    names = {path.name for path in folder.iterdir()}
    assert names == {program.name for program in read(data).programs}


def test_what_sonde_loads_bpftool_loads(pins: Path) -> None:
    """A part of the corpus (all of it: SONDE_EVERY_SCRIPT=1): each script that can be built is loaded by both, or refused by both."""
    step = 1 if os.environ.get("SONDE_EVERY_SCRIPT") else 25
    scripts = [case.prog for case in load_cases() if case.prog and not case.status][::step]
    loaded = 0
    for number, script in enumerate(scripts):
        path = pins.parent / f"{number}.o"
        try:
            path.write_bytes(build(Source("x.bt", script), TraceOptions(unsafe=True)))
        except SondeError:
            continue  # it needs parameters, or a command; that it compiles otherwise, the corpus shows
        try:
            load_object(read_object(str(path), find_places=False), attach=False).object.close()
            ours = True
        except SondeError:
            ours = False
        folder = pins / str(number)
        done = subprocess.run(["bpftool", "prog", "loadall", str(path), str(folder)], capture_output=True, text=True)
        assert (done.returncode == 0) == ours, script + done.stderr
        loaded += ours
        shutil.rmtree(folder, ignore_errors=True)
    assert loaded > len(scripts) // 2


def test_lines_names_and_core_of_a_script(pins: Path) -> None:
    folder = load(build(Source("x.bt", SCRIPTS["members"])), pins, "members")
    (program,) = folder.iterdir()
    done = subprocess.run(
        ["bpftool", "prog", "dump", "xlated", "pinned", str(program), "linum"], capture_output=True, text=True
    )
    assert "; begin { $t = curtask; @m = $t.real_parent.tgid;" in done.stdout
    assert "[file:x.bt line_num:1" in done.stdout
    run(program)
    (data,) = [p for p in (pins / "members_maps").iterdir() if "data_globals" in p.name.replace(".", "_")]
    value = value_of(data)
    assert struct.pack("<I", os.getppid()) in value


def value_of(path: Path) -> bytes:
    (entry,) = bpftool("map", "dump", "pinned", str(path))
    return bytes(int(byte, 16) for byte in entry["value"])


def test_c_text(pins: Path) -> None:
    data = build(Source("x.bpf.c", TEXT))
    folder = load(data, pins, "c")
    assert run(folder / "run") == 7 + 10
    maps = {path.name: path for path in (pins / "c_maps").iterdir()}
    (entry,) = bpftool("map", "dump", "pinned", str(maps["seen"]))
    assert bytes(int(byte, 16) for byte in entry["value"]) == struct.pack("<II", os.getppid(), os.getpid())


def test_an_object_of_clang_s_read_and_written(pins: Path) -> None:
    folder = load(write_object(read((OBJECTS / "basic.o").read_bytes())), pins, "basic")
    assert run(folder / "run") == 7 + 1 + ord("s")


def test_kernel_objects_read_and_written(pins: Path) -> None:
    folder = load(write_object(read((OBJECTS / "kernel_objects.o").read_bytes())), pins, "objects")
    assert {path.name for path in folder.iterdir()} == {"locks", "one", "two", "stored", "listed"}
    assert run(folder / "two") == 2


def test_types_in_text_as_bpftool_prints_them(tmp_path: Path) -> None:
    kernel = Btf.open(VMLINUX_PATH)
    path = tmp_path / "x.o"
    path.write_bytes(build(Source("x.bt", SCRIPTS["members"])))
    text = subprocess.run(
        ["bpftool", "btf", "dump", "file", str(path), "format", "c"], capture_output=True, text=True, check=True
    ).stdout
    task = kernel.get_struct("task_struct")
    assert task is not None
    assert "struct task_struct {" in text and "real_parent;" in text and "comm[16]" in text
    start = text.index("struct task_struct {")
    members = [line for line in text[start : text.index("\n}", start)].splitlines() if "long: 64" not in line]
    assert len(members) < 20 < len(task.members)

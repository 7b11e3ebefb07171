"""`sonde build TOOL.py`: what a BCC tool would load and attach, as an object; nothing is loaded while it is made."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sonde.api.build import build_tool
from sonde.api.objects import load_object, open_object, read_object
from sonde.bpf.objfile.read import read_object as read
from sonde.cli.main import run
from sonde.errors import FeatureError, FormatError, UsageError

pytestmark = pytest.mark.kernel
TOOL = """
from bcc import BPF
import argparse, time
parser = argparse.ArgumentParser()
parser.add_argument("-p", "--pid", type=int, default=0)
arguments = parser.parse_args()
BPF(text="")  # asks what there is
b = BPF(text='''
BPF_HASH(counts, u32, u64);
BPF_ARRAY(limits, u32, 2);
TRACEPOINT_PROBE(syscalls, sys_enter_getppid) {
    u32 pid = bpf_get_current_pid_tgid() >> 32;
    if (PID && pid != PID) return 0;
    counts.increment(pid);
    return 0;
}
int at_fork(struct pt_regs *ctx, struct task_struct *task) {
    u32 tgid = task->tgid;
    counts.increment(tgid);
    return 0;
}
int sampled(struct bpf_perf_event_data *ctx) { return 0; }
int never(void *ctx) { return 0; }
'''.replace("PID", str(arguments.pid)))
b["limits"][0] = b["limits"].Leaf(5)
b.attach_kprobe(event="wake_up_new_task", fn_name="at_fork")
b.attach_perf_event(ev_type=1, ev_config=0, fn_name="sampled", sample_freq=49)
print("Tracing...")
while True:
    time.sleep(1)
    for key, value in b["counts"].items():
        print(key.value, value.value)
"""


def write(folder: Path, text: str) -> str:
    path = folder / "tool.py"
    path.write_text(text)
    return str(path)


def test_what_it_would_load_and_attach(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, out = write(tmp_path, TOOL), str(tmp_path / "x.o")
    assert run("sonde", ["build", "-o", out, path, "--", "--pid", str(os.getpid())]) == 0
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "not in the object: the first content of table limits" in shown.err
    assert "not in the object: the perf event 1:0 that program sampled is attached to" in shown.err
    assert "program sampled is attached nowhere" in shown.err
    assert {(p.name, p.section) for p in open_object(out).programs} == {
        ("tracepoint__syscalls__sys_enter_getppid", "tracepoint/syscalls/sys_enter_getppid"),
        ("at_fork", "kprobe/wake_up_new_task"),
        ("sampled", "perf_event"),
    }
    asked = [f.core for p in open_object(out).programs for f in p.fills if f.core is not None]
    assert [(q.type_name, q.path) for q in asked] == [("struct task_struct", ("tgid",))]
    spec = read_object(out, find_places=False)
    with load_object(spec, attach=False).object:  # the kernel takes all of it
        pass


def test_the_object_counts(tmp_path: Path) -> None:
    text = TOOL.replace('b.attach_kprobe(event="wake_up_new_task", fn_name="at_fork")\n', "")
    out = tmp_path / "x.o"
    out.write_bytes(build_tool(write(tmp_path, text)))
    with load_object(read_object(str(out))).object as live:
        for _ in range(3):
            os.getppid()
        assert live.maps["counts"].lookup(struct.pack("<I", os.getpid())) == [struct.pack("<Q", 3)]


def test_the_process_is_as_it_was(tmp_path: Path) -> None:
    before = (sys.argv, sys.path, sys.stdout, time.sleep, sys.modules["__main__"], set(sys.modules) & {"bcc"})
    build_tool(write(tmp_path, TOOL))
    assert before == (sys.argv, sys.path, sys.stdout, time.sleep, sys.modules["__main__"], set(sys.modules) & {"bcc"})
    from sonde.api.bcc import BPF, quota

    assert quota._open == [0]
    with BPF(text="int f(void *ctx) { return 0; }") as b:  # and the real class loads again
        assert b.load_func("f", BPF.RAW_TRACEPOINT).fd > 0


def test_each_way_to_wait_ends_the_set_up(tmp_path: Path) -> None:
    head = 'from bcc import BPF\nb = BPF(text="int kprobe__vfs_read(void *ctx) { return 0; } BPF_PERF_OUTPUT(events); BPF_HASH(h);")\n'
    for wait in (
        "b.trace_print()", "b['events'].open_perf_buffer(print)\nb.perf_buffer_poll()", "b.trace_fields()",
        "print(len(b['h']))", "b['h'].items()", "pass",
    ):  # fmt: skip
        tool = write(tmp_path, f"{head}{wait}\n" + ("raise RuntimeError\n" if wait != "pass" else ""))
        (program,) = read(build_tool(tool)).programs
        assert (program.name, program.section) == ("kprobe__vfs_read", "kprobe/vfs_read")


@pytest.mark.parametrize(
    ("text", "error", "words"),
    [
        ("print(1)\n", FeatureError, "before it made a BPF object"),
        ("import sys\nsys.exit('no')\n", FeatureError, "status 1"),
        ('from bcc import BPF\nb = BPF(text="int f(void *ctx) { return 0; }")\nb.trace_print()\n', FormatError, "loaded no function"),
        ("raise ValueError('its own')\n", ValueError, "its own"),
    ],
)  # fmt: skip
def test_tools_that_give_no_object(text: str, error: type[Exception], words: str, tmp_path: Path) -> None:
    argv = sys.argv
    with pytest.raises(error, match=words):
        build_tool(write(tmp_path, text))
    assert sys.argv is argv


def test_a_script_of_another_language(tmp_path: Path) -> None:
    path = tmp_path / "tool"
    path.write_text("#!/bin/sh\nexit 1\n")
    with pytest.raises(UsageError, match="no Python program"):
        build_tool(str(path))


@pytest.mark.oracle
@pytest.mark.parametrize("tool", ["opensnoop", "biolatency", "tcplife", "tcpconnect", "vfsstat", "capable"])
def test_tools_of_debian_s(tool: str, tmp_path: Path) -> None:
    """What is built of them loads here, and libbpf reads it."""
    path = shutil.which(f"{tool}-bpfcc")
    if not path:
        pytest.skip("needs the package bpfcc-tools")
    out = tmp_path / "x.o"
    out.write_bytes(build_tool(path))
    with load_object(read_object(str(out), find_places=False), attach=False).object as live:
        assert live.programs
    if shutil.which("bpftool"):
        shown = subprocess.run(["bpftool", "gen", "skeleton", str(out)], capture_output=True, text=True)
        assert shown.returncode == 0 and "struct bpf_program *" in shown.stdout

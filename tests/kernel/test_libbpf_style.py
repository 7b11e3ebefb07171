"""A `.bpf.c` in libbpf's style compiles, loads, attaches by its sections, and counts what a known workload does."""

from __future__ import annotations

import os
import signal
import struct
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from sonde.errors import AttachError
from sonde.kernel.engine import KernelEngine
from sonde.kernel.target import live_target
from sonde.lang.c.options import Options
from sonde.lang.c.sections import compile_object
from sonde.lang.source import Source

pytestmark = pytest.mark.kernel
KEY = bytes(4)
TEXT = """
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include <bpf/bpf_core_read.h>

char LICENSE[] SEC("license") = "Dual BSD/GPL";
struct seen { u32 parent; u32 group; char comm[16]; };
struct { __uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 8192); __type(key, u32); __type(value, u64); } calls SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 8192); __type(key, u32); __type(value, struct seen); } seen SEC(".maps");
u64 total = 5;

static __always_inline void bump(void *map, u32 key)
{
    u64 one = 1, *n = bpf_map_lookup_elem(map, &key);
    if (n)
        __sync_fetch_and_add(n, 1);
    else
        bpf_map_update_elem(map, &key, &one, BPF_ANY);
}

SEC("tp/syscalls/sys_enter_getppid")
int on_getppid(struct trace_event_raw_sys_enter *ctx)
{
    bump(&calls, bpf_get_current_pid_tgid() >> 32);
    __sync_fetch_and_add(&total, *(u32 *)&ctx->id);
    return 0;
}

SEC("raw_tp/sys_enter")
int BPF_PROG(on_call, struct pt_regs *regs, long id)
{
    struct task_struct *task = (void *)bpf_get_current_task();
    struct seen s = {};
    u32 group = BPF_CORE_READ(task, tgid);

    if (id != NUMBER)
        return 0;
    s.parent = BPF_CORE_READ(task, real_parent, tgid);
    s.group = group;
    bpf_core_read_str(s.comm, sizeof(s.comm), &task->comm);
    bpf_map_update_elem(&seen, &group, &s, BPF_ANY);
    return 0;
}

SEC("tp_btf/sys_enter")
int BPF_PROG(on_call_btf, struct pt_regs *regs, long id)
{
    struct task_struct *task = bpf_get_current_task_btf();
    if (id == NUMBER)
        bump(&calls, task->tgid + 0x80000000);
    return 0;
}
"""
NUMBERS = {"x86_64": 110, "aarch64": 173}  # of getppid


def text() -> str:
    return TEXT.replace("NUMBER", str(NUMBERS[os.uname().machine]))


def test_counts_of_a_known_workload() -> None:
    spec = compile_object(Source("getppid.bpf.c", text()), live_target(), Options())
    with KernelEngine().load(spec) as loaded:
        loaded.attach(spec.probes)
        worker = threading.Thread(target=lambda: [os.getppid() for _ in range(40)])
        worker.start()
        worker.join()
        for _ in range(60):
            os.getppid()
        loaded.detach()
        own = struct.pack("<I", os.getpid())
        assert loaded.maps["calls"].lookup(own) == [struct.pack("<Q", 100)]
        assert loaded.maps["calls"].lookup(struct.pack("<I", os.getpid() + 0x80000000)) == [struct.pack("<Q", 100)]
        (record,) = loaded.maps["seen"].lookup(own) or [b""]
        assert struct.unpack("<II", record[:8]) == (os.getppid(), os.getpid())
        assert record[8:].split(b"\0")[0] == Path("/proc/self/comm").read_bytes().strip()
        (data,) = loaded.maps[".data"].lookup(KEY) or [b""]
        assert (struct.unpack("<Q", data[:8])[0] - 5) % NUMBERS[os.uname().machine] == 0


HELD = """
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
char LICENSE[] SEC("license") = "GPL";
int second(void *ctx);
struct inner { __uint(type, BPF_MAP_TYPE_ARRAY); __type(key, u32); __type(value, u64); __uint(max_entries, 1); } held SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS); __uint(max_entries, 4); __type(key, u32); __array(values, struct inner); }
    maps SEC(".maps") = { .values = { [3] = &held } };
struct { __uint(type, BPF_MAP_TYPE_PROG_ARRAY); __uint(max_entries, 4); __uint(key_size, 4); __array(values, int (void *)); }
    programs SEC(".maps") = { .values = { [2] = (void *)&second } };
static void add(u32 outer, u64 n)
{
    u32 zero = 0;
    void *map = bpf_map_lookup_elem(&maps, &outer);
    u64 *value = map ? bpf_map_lookup_elem(map, &zero) : NULL;
    if (value)
        __sync_fetch_and_add(value, n);
}
SEC("uprobe/LIBC:getppid") int first(void *ctx)
{
    if (bpf_get_current_pid_tgid() >> 32 == PID) {
        add(3, 1);
        bpf_tail_call(ctx, &programs, 2);
        add(3, 1000000);
    }
    return 0;
}
SEC("uprobe") int second(void *ctx) { add(3, 1000); return 0; }
"""


def test_what_maps_hold_from_the_start() -> None:
    """Programs in an array are of one attach type for newer kernels: none is loaded for multi links."""
    libraries = [line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines() if "/libc.so" in line]
    if not libraries:
        pytest.skip("needs a Python that is linked with a C library")
    held = HELD.replace("LIBC", libraries[0]).replace("PID", str(os.getpid()))
    spec = compile_object(Source("held.bpf.c", held), live_target(), Options())
    with KernelEngine().load(spec) as loaded:
        loaded.attach(spec.probes)
        for _ in range(7):
            os.getppid()
        loaded.detach()
        assert loaded.maps["held"].lookup(KEY) == [struct.pack("<Q", 7007)]


def test_a_program_that_reads_beyond_the_record() -> None:
    """`getppid` has no arguments: its record ends behind the number of the call, a u32."""
    body = 'SEC("tp/syscalls/sys_enter_getppid") int f(struct trace_event_raw_sys_enter *ctx) { return ctx->args[5]; }'
    head = '#include "vmlinux.h"\n#include <bpf/bpf_helpers.h>\n'
    spec = compile_object(Source("x.bpf.c", head + body), live_target(), Options())
    with KernelEngine().load(spec) as loaded, pytest.raises(AttachError) as caught:
        loaded.attach(spec.probes)
    assert "reads more of its context" in caught.value.hint


def test_the_command(tmp_path: Path) -> None:
    (tmp_path / "count.h").write_text("#define STEP 3\n")
    path = tmp_path / "count.bpf.c"
    path.write_text(
        '#include "vmlinux.h"\n#include <bpf/bpf_helpers.h>\n#include "count.h"\nu32 n;\n'
        'SEC("tp/syscalls/sys_enter_getppid") int count(void *ctx) { n += STEP; return 0; }\n'
    )
    command = [sys.executable, "-m", "sonde", "trace", "-v", str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stderr is not None
        attached = ""
        while "Attached" not in attached and (line := process.stderr.readline()):
            attached += line
        process.send_signal(signal.SIGINT)
        rest = process.communicate(timeout=30)
        assert process.returncode == 0, rest
    assert "attached tracepoint:syscalls:sys_enter_getppid" in attached + rest[1]


def test_sections_without_a_place(tmp_path: Path) -> None:
    path = tmp_path / "wall.bpf.c"
    path.write_text(
        '#include "vmlinux.h"\n#include <bpf/bpf_helpers.h>\nSEC("xdp") int wall(struct xdp_md *ctx) { return XDP_PASS; }\n'
    )
    command = [sys.executable, "-m", "sonde", "trace", str(path)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 1
    assert "No probes to attach" in result.stderr
    assert "wall (xdp); sonde build makes an object" in result.stderr, result.stderr

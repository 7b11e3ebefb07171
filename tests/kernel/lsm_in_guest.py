"""Security hooks and local storage on the kernel of a guest: programs that decide, and that keep something with an inode, a task, a socket; and
variables of the kernel.

Started with the name of a check; prints "SKIP: …" when the kernel lacks what the check is about.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

from sonde.api.bcc import BPF
from sonde.errors import SondeError
from sonde.kernel.engine import KernelEngine
from sonde.kernel.target import live_target
from sonde.lang.c.options import Options
from sonde.lang.c.sections import compile_object
from sonde.lang.source import Source
from sonde.record import replace

HEAD = """#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include <bpf/bpf_core_read.h>
char LICENSE[] SEC("license") = "GPL";
#define EPERM 1
"""
STORAGE = """
struct mark { u32 opened; u32 by; };
struct { __uint(type, BPF_MAP_TYPE_INODE_STORAGE); __uint(map_flags, BPF_F_NO_PREALLOC); __type(key, int); __type(value, struct mark); }
    marks SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_TASK_STORAGE); __uint(map_flags, BPF_F_NO_PREALLOC); __type(key, int); __type(value, u64); }
    opens SEC(".maps");
u32 seen, of_task;

SEC("lsm/file_open")
int BPF_PROG(on_open, struct file *file, int ret)
{
    struct mark *mark;
    u64 *count;

    if (ret || bpf_get_current_pid_tgid() >> 32 != OURS || file->f_inode->i_ino != THE_FILE)
        return ret;
    mark = bpf_inode_storage_get(&marks, file->f_inode, 0, BPF_LOCAL_STORAGE_GET_F_CREATE);
    count = bpf_task_storage_get(&opens, bpf_get_current_task_btf(), 0, BPF_LOCAL_STORAGE_GET_F_CREATE);
    if (!mark || !count)
        return 0;
    mark->by = OURS;
    seen = ++mark->opened;
    of_task = ++*count;
    return mark->opened > 2 ? -EPERM : 0;
}
"""
SOCKETS = """
struct { __uint(type, BPF_MAP_TYPE_SK_STORAGE); __uint(map_flags, BPF_F_NO_PREALLOC); __type(key, int); __type(value, u64); }
    calls SEC(".maps");
u32 bound, listened;

SEC("lsm/socket_bind")
int BPF_PROG(on_bind, struct socket *sock, struct sockaddr *address, int addrlen, int ret)
{
    if (bpf_get_current_pid_tgid() >> 32 != OURS || !sock->sk)
        return 0;
    u64 *n = bpf_sk_storage_get(&calls, sock->sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
    if (n)
        *n += 10;
    bound++;
    return 0;
}

SEC("lsm/socket_listen")
int BPF_PROG(on_listen, struct socket *sock, int backlog, int ret)
{
    if (bpf_get_current_pid_tgid() >> 32 != OURS || !sock->sk)
        return 0;
    u64 *n = bpf_sk_storage_get(&calls, sock->sk, 0, 0);
    listened = n ? *n + backlog : 0;
    return 0;
}
"""
CGROUPS = """
struct { __uint(type, BPF_MAP_TYPE_CGRP_STORAGE); __uint(map_flags, BPF_F_NO_PREALLOC); __type(key, int); __type(value, u64); }
    calls SEC(".maps");
u64 total;

SEC("tp_btf/sys_enter")
int BPF_PROG(on_call, struct pt_regs *regs, long id)
{
    struct task_struct *task = bpf_get_current_task_btf();
    if (id != NUMBER || task->tgid != OURS)
        return 0;
    u64 *n = bpf_cgrp_storage_get(&calls, task->cgroups->dfl_cgrp, 0, BPF_LOCAL_STORAGE_GET_F_CREATE);
    if (n)
        total = __sync_fetch_and_add(n, 1) + 1;
    return 0;
}
"""


class Skip(Exception):
    """The kernel lacks what the check is about."""


def need(*features: str) -> None:
    have = live_target().features.have
    missing = [name for name in features if not have(name)]
    if missing:
        raise Skip(", ".join(missing))


def attached(text: str):  # type: ignore[no-untyped-def]
    """Compile, load and attach a text; `OURS` is this process. The caller closes the result."""
    spec = compile_object(Source("x.bpf.c", HEAD + text.replace("OURS", str(os.getpid()))), live_target(), Options())
    loaded = KernelEngine().load(spec)
    for name in [program.name for program in spec.programs]:
        loaded.attach([probe for probe in spec.probes if probe.program == name])
    return loaded


def variables(loaded) -> list[int]:  # type: ignore[no-untyped-def]
    """The numbers in .bss, 4 bytes each."""
    (data,) = loaded.maps[".bss"].lookup(bytes(4))
    return [int.from_bytes(data[at : at + 4], "little") for at in range(0, len(data), 4)]


def files() -> None:
    """An LSM program keeps a count with an inode and with a task, and refuses the third opening."""
    need("program:lsm", "map:inode_storage", "map:task_storage")
    with tempfile.NamedTemporaryFile(dir="/dev") as file:
        inode = os.stat(file.name).st_ino
        with attached(STORAGE.replace("THE_FILE", str(inode))) as loaded:
            for _ in range(2):
                Path(file.name).read_bytes()
            try:
                Path(file.name).read_bytes()
            except PermissionError:
                pass
            else:
                raise AssertionError(f"the program's answer did not count: {variables(loaded)}")
            assert variables(loaded)[:2] == [3, 3], variables(loaded)
        Path(file.name).read_bytes()  # nothing is left


def sockets() -> None:
    """What one hook keeps with a socket another finds there."""
    need("program:lsm", "map:sk_storage")
    import socket

    with attached(SOCKETS) as loaded, socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(7)
        assert variables(loaded)[:2] == [1, 17], variables(loaded)


def cgroups() -> None:
    """A program counts with the cgroup of the task."""
    need("program:tracing:raw_tp", "map:cgrp_storage")
    number = {"x86_64": 110, "aarch64": 173}[os.uname().machine]
    with attached(CGROUPS.replace("NUMBER", str(number))) as loaded:
        for _ in range(3):
            os.getppid()
        assert variables(loaded)[0] == 3, variables(loaded)


def bcc() -> None:
    """BCC's LSM_PROBE and its methods of inode and task storage."""
    need("program:lsm", "map:inode_storage")
    text = """
    #include <linux/fs.h>
    BPF_INODE_STORAGE(marks, u64);
    BPF_ARRAY(seen, u64, 2);
    LSM_PROBE(inode_unlink, struct inode *dir, struct dentry *dentry)
    {
        int zero = 0;
        if (bpf_get_current_pid_tgid() >> 32 != OURS)
            return 0;
        u64 *n = marks.inode_storage_get(dentry->d_inode, 0, BPF_LOCAL_STORAGE_GET_F_CREATE);
        if (!n)
            return 0;
        *n += 1;
        seen.update(&zero, n);
        return *n == 1 ? -EPERM : 0;
    }
    """
    with BPF(text=text.replace("OURS", str(os.getpid()))) as b:
        handle, path = tempfile.mkstemp(dir="/dev")  # a file system without another below it
        os.close(handle)
        try:
            os.unlink(path)
        except PermissionError:
            pass
        else:
            raise AssertionError("the first removal was not refused")
        os.unlink(path)
        assert b["seen"][0].value == 2


def variables_of_the_kernel() -> None:
    """Per-CPU data of the kernel, through the helpers for it; found by the variable's type."""
    need("program:tracing:raw_tp", "helper:per_cpu_ptr")
    if live_target().btf().get_var("runqueues") is None:
        raise Skip("types of variables in the kernel's BTF")
    text = """
    extern const struct rq runqueues __ksym;
    u32 first, mine, none;
    SEC("tp_btf/sys_enter")
    int BPF_PROG(on_call, struct pt_regs *regs, long id)
    {
        const struct rq *rq;
        if (bpf_get_current_pid_tgid() >> 32 != OURS)
            return 0;
        if ((rq = bpf_per_cpu_ptr(&runqueues, 0)))
            first = rq->cpu + 7;
        mine = ((const struct rq *)bpf_this_cpu_ptr(&runqueues))->cpu == bpf_get_smp_processor_id();
        none = !bpf_per_cpu_ptr(&runqueues, 100000);
        return 0;
    }
    """
    with attached(text) as loaded:
        os.getppid()
        assert variables(loaded)[:3] == [7, 1, 1], variables(loaded)


def trampolines_as_kprobes() -> None:
    """Where trampolines cannot be had, a kprobe gives a function its arguments, and a kretprobe its result."""
    need("pmu:kprobe")
    text = """
    int dfd, result;
    char name[64];
    SEC("fentry/do_sys_openat2")
    int BPF_PROG(on_open, int fd, const char *filename, struct open_how *how)
    {
        if (bpf_get_current_pid_tgid() >> 32 != OURS)
            return 0;
        dfd = fd;
        bpf_probe_read_user_str(name, sizeof(name), filename);
        return 0;
    }
    SEC("fexit/do_sys_openat2")
    int BPF_PROG(on_opened, int fd, const char *filename, struct open_how *how, long ret)
    {
        if (bpf_get_current_pid_tgid() >> 32 == OURS)
            result = ret;
        return 0;
    }
    """

    class Fewer:
        """The features of the kernel but trampolines."""

        def have(self, name: str) -> bool:
            return not name.startswith("program:tracing:") and live_target().features.have(name)

    target = replace(live_target(), features=Fewer())
    source = Source("x.bpf.c", HEAD + text.replace("OURS", str(os.getpid())))
    spec = compile_object(source, target, Options())
    assert [probe.type for probe in spec.probes] == ["kprobe", "kretprobe"], spec.probes
    with KernelEngine().load(spec) as loaded:
        for program in spec.programs:
            loaded.attach([probe for probe in spec.probes if probe.program == program.name])
        fd = os.open("/dev/null", os.O_RDONLY)
        os.close(fd)
        (data,) = loaded.maps[".bss"].lookup(bytes(4)) or [b""]
    assert fd in (int.from_bytes(data[at : at + 4], "little") for at in (0, 4)), (fd, data)
    assert b"/dev/null\0" in data and (-100 & 0xFFFFFFFF).to_bytes(4, "little") in data, data


CHECKS = (files, sockets, cgroups, bcc, variables_of_the_kernel, trampolines_as_kprobes)


def main() -> int:
    check = next(c for c in CHECKS if c.__name__ == sys.argv[1])
    try:
        check()
    except Skip as missing:
        print(f"SKIP: {missing}")
    except SondeError as error:
        print(error.render(), getattr(error, "log", "")[-2000:], file=sys.stderr)
        raise
    return 0

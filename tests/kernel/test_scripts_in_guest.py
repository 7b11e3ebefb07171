"""The whole stack on other kernels: scripts through the command line in guests, one for each kind of probe and more.

A script must show its workload. What an old kernel lacks must be named: `older` is then what stderr says there.
"""

from __future__ import annotations

import re
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from kernel.sdt_program import address_of, build_program
from vm.guest import Guest

ROOT = Path(__file__).resolve().parents[2]
CAT = "cat /etc/passwd"


@dataclass(frozen=True)
class Script:
    """`expect`: regular expressions that stdout must match; `older`: one for stderr where the kernel lacks something."""

    name: str
    text: str
    expect: tuple[str, ...]
    command: str = ""
    older: str = ""
    options: tuple[str, ...] = ()


SCRIPTS = (
    Script(
        "begin", 'BEGIN { printf("%d %s\\n", 40 + 2, comm); exit() } END { printf("end\\n") }', (r"^42 \w+$", "^end$")
    ),
    Script(
        "kprobe",
        "kprobe:vfs_read /pid == cpid/ { @[comm] = count(); @f[func] = count(); @p[probe] = count(); @a = max(arg2) }",
        (r"^@\[cat\]: [3-9]$", r"^@f\[vfs_read\]: [3-9]$", r"^@p\[kprobe:vfs_read\]: [3-9]$", r"^@a: 131072$"),
        CAT,
    ),
    Script("kprobe offset", "kprobe:vfs_read+0 /pid == cpid/ { @ = count() }", (r"^@: [3-9]$",), CAT),
    Script(
        "kretprobe",
        "kretprobe:vfs_open /pid == cpid/ { @[retval] = count() } kprobe:vfs_open /pid == cpid/ { @n = count() }",
        (r"^@\[0\]: [1-9]\d*$", r"^@n: [1-9]\d*$"),
        CAT,
    ),
    Script(
        "kernel wildcard",
        "kprobe:vfs_* /pid == cpid/ { @[func] = count(); @p[probe] = count() }",
        (r"^@\[vfs_read\]: [3-9]$", r"^@p\[kprobe:vfs_read\]: [3-9]$"),
        CAT,
    ),
    Script(
        "fentry",
        "fentry:vfs_read /pid == cpid/ { @[args.count] = count(); @p[probe] = count(); @f = max(args.file->f_mode) }",
        (r"^@\[131072\]: [12]$", r"^@p\[fentry:vmlinux:vfs_read\]: [3-9]$", r"^@f: [1-9]\d*$"),
        CAT,
    ),
    Script(
        "fexit",
        "fexit:vfs_read /pid == cpid/ { @r = max(retval); @n = max(args.count) }",
        (r"^@r: [1-9]\d{2,}$", r"^@n: 131072$"),
        CAT,
    ),
    Script(
        "fentry func",
        "fentry:vfs_r* /pid == cpid/ { @[func] = count() }",
        (r"^@\[vfs_read\]: [3-9]$",),
        CAT,
        older=r"bpf_get_func_ip",
    ),
    Script(
        "structs",
        "kprobe:vfs_read /pid == cpid/ { $t = (struct task_struct *)curtask; @mm = $t->mm->total_vm; "
        "@same[$t->pid == tid, $t->tgid == pid] = count(); @comm[$t->comm] = count(); "
        "@file[str(((struct file *)arg0)->f_path.dentry->d_name.name, 64)] = count() }",
        (r"^@mm: [1-9]\d+$", r"^@same\[true, true\]: [3-9]$", r"^@comm\[cat\]: [3-9]$", r"^@file\[passwd\]: [12]$"),
        CAT,
    ),
    Script(
        "tracepoint",
        'tracepoint:syscalls:sys_enter_openat /pid == cpid/ { printf("%s %s\\n", comm, str(args.filename)) }',
        (r"^cat /etc/passwd$",),
        CAT,
    ),
    Script(
        "tracepoint wildcard",
        "tracepoint:sched:sched_process_e* { @[probe] = count() }",
        (r"sched_process_exec\]: 1",),
        "true",
    ),
    Script(
        "raw tracepoint", "rawtracepoint:sys_enter /pid == cpid/ { @[args.id] = count() }", (r"^@\[231\]: 1$",), "true"
    ),
    Script(
        "raw tracepoint args",
        "rawtracepoint:sys_enter /pid == cpid && arg1 == 231/ { @ = count() }",
        (r"^@: 1$",),
        "true",
    ),
    Script(
        "uprobe",
        "uprobe:libc:malloc /pid == cpid/ { @c[comm] = count(); @s = max(arg0) } "
        "uretprobe:libc:malloc /pid == cpid/ { @r[retval > 0] = count() }",
        (r"^@c\[ls\]: [1-9]\d+$", r"^@s: \d{4,}$", r"^@r\[true\]: [1-9]\d+$"),
        "ls /",
    ),
    Script("uprobe wildcard", "uprobe:PROGRAM:se* { @[func] = count() }", (r"^@\[second\]: 3$",), "PROGRAM sss"),
    Script(
        "usdt",
        'usdt:PROGRAM:app:plain { @[probe] = count(); printf("%d %s\\n", arg0, str(arg1)) } usdt:PROGRAM:counted { @a = sum(arg0) }',
        (r"^@\[usdt:.*:app:plain\]: 3$", r"^2 some-text$", r"^@a: 6000$"),
        "PROGRAM fff",
    ),
    Script("profile", "profile:hz:99 { @[cpu] = count() } interval:ms:300 { exit() }", (r"^@\[0\]: [1-9]\d*$",)),
    Script(
        "interval",
        'interval:ms:50 { if (@n < 3) { @n++; printf("tick %d\\n", @n) } else { exit() } }',
        (r"^tick 3$", r"^@n: 3$"),
    ),
    Script("software", "software:page-faults:1 /pid == cpid/ { @ = count() }", (r"^@: [1-9]\d*$",), CAT),
    Script(
        "software clock", "software:cpu-clock:1000000 { @ = count() } interval:ms:300 { exit() }", (r"^@: [1-9]\d*$",)
    ),
    Script(
        "iter task", 'iter:task { printf("%d %s\\n", ctx.task->pid, ctx.task->comm) }', (r"^1 python", r"^2 kthreadd$")
    ),
    Script("iter file", "iter:task_file { @[comm] = count() }", (r"^@\[\w+\]: [1-9]\d*$",)),
    Script(
        "watchpoint",
        "uprobe:PROGRAM:main { @on = 1 } watchpoint:ADDRESS:8:w /@on/ { @n = count() }",
        (r"^@n: 3$",),
        "PROGRAM www",
    ),
    Script(
        "stacks",
        "kprobe:vfs_read /pid == cpid/ { @k[kstack(3)] = count() } uprobe:libc:malloc /pid == cpid/ { @u[ustack(2)] = count() }",
        (r"^@k\[\n +vfs_read\+\d+\n +ksys_read\+\d+\n", r"^@u\[\n +malloc\+0\n"),
        "ls /",
    ),
    Script(
        "stack string",
        'kprobe:vfs_read /pid == cpid/ { printf("%s\\n", kstack(perf, 2)); exit() }',
        (r"[0-9a-f]{16} vfs_read\+\d+",),
        CAT,
    ),
    Script(
        "histograms",
        "fexit:vfs_read /pid == cpid/ { @h = hist(args.count); @l = lhist(args.count, 0, 200000, 50000); @s = stats(args.count); "
        "@a = avg(args.count); @m = min(args.count) }",
        (
            r"^@h:\s*\n\[",
            r"^\[100000, 150000\) +[12] \|@+",
            r"^@s: \{ \.count = [3-9], \.average = \d+, \.total = \d+ \}$",
        ),
        CAT,
    ),
    Script(
        "loops",
        'BEGIN { for ($i : 0..5) { @[$i] = $i * 2 } for ($kv : @) { printf("%d=%d\\n", $kv.0, $kv.1) } print(len(@)); exit() }',
        (r"^3=6$", r"^5$"),
        older=r"bpf_(loop|for_each_map_elem)",
    ),
    Script(
        "while",
        'BEGIN { $n = 0; while ($n < 9) { $n++ } unroll(3) { printf("x") } printf(" %d\\n", $n); exit() }',
        (r"^xxx 9$",),
    ),
    Script(
        "read count",
        "BEGIN { @ = count(); @ = count(); if (@ > 1) { print(@) } exit() }",
        (r"^@: 2$",),
        older="bpf_map_lookup_percpu_elem",
    ),
    Script(
        "maps",
        'BEGIN { @a[1, "x"] = 2; @b = (1, "y"); delete(@a, (1, "x")); @a[2, "z"] = 3; clear(@b); exit() }',
        (r"^@a\[2, z\]: 3$",),
    ),
    Script(
        "strings",
        'BEGIN { $s = "abcdef"; printf("%s %d %s\\n", $s[1] == 98 ? "b" : "", strlen($s), strcontains($s, "cd") ? "yes" : "no"); exit() }',
        (r"^b 6 yes$",),
    ),
    Script(
        "times",
        'BEGIN { printf("%s\\n", strftime("%Y", nsecs)); time("%H:\\n"); printf("%d\\n", nsecs(sw_tai) > nsecs); exit() }',
        (r"^20\d\d$", r"^1$"),
        older="bpf_ktime_get_tai_ns",
    ),
    Script(
        "symbols",
        'BEGIN { printf("%s %d\\n", ksym(kaddr("vfs_read")), kaddr("vfs_read") != 0); exit() }',
        (r"^vfs_read 1$",),
    ),
    Script(
        "full map", "config = { max_map_keys = 2 } BEGIN { @[1] = 1; @[2] = 1; @[3] = 1; exit() }", (r"^@\[2\]: 1$",)
    ),
    Script(
        "fallbacks",
        "kprobe:vfs_re* /pid == cpid/ { @[func] = count() } uprobe:libc:mallo* /pid == cpid/ { @u[func] = count() }",
        (r"^@\[vfs_read\]: [3-9]$", r"^@u\[malloc\]: [1-9]\d*$"),
        CAT,
        options=("--no-feature", "kprobe_multi,uprobe_multi"),
    ),
)


@pytest.fixture(scope="module")
def traced_program() -> Iterator[str]:
    """A built program where guests see it: they share the host's files, but not /tmp."""
    with tempfile.TemporaryDirectory(prefix="sonde-", dir="/var/tmp") as folder:
        yield build_program(folder)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name.replace(" ", "-"))
def test_script(guest: Guest, traced_program: str, script: Script) -> None:
    where = str(address_of(traced_program, "watched"))
    text = script.text.replace("PROGRAM", traced_program).replace("ADDRESS", where)
    command = [sys.executable, "-m", "sonde", "trace", *script.options, "-e", text]
    if script.command:
        command += ["-c", script.command.replace("PROGRAM", traced_program)]
    result = guest.run(command, timeout_s=120, env={"PYTHONPATH": str(ROOT / "src")}, cwd="/")
    said = f"{result.out}\n{result.err}"
    assert "Traceback" not in result.err, said
    if result.status and "hardware breakpoint" in result.err:
        pytest.skip(result.err)
    if script.older and result.status and re.search(script.older, result.err):
        assert re.search(r"^ERROR: .* which .* does not have$", result.err, re.M), said
        pytest.skip(f"Linux {guest.kernel.release} has no {script.older}")
    assert result.status == 0, said
    for wanted in script.expect:
        assert re.search(wanted, result.out, re.M), f"no {wanted!r} in\n{said}"

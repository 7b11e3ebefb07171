"""`sonde trace x.bpf.c`: what a program in libbpf's style says, and its maps and variables at the end, as the user sees them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from kernel.sdt_program import build_program

pytestmark = pytest.mark.kernel
HEAD = """#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include <bpf/usdt.bpf.h>
char LICENSE[] SEC("license") = "GPL";
"""
OURS = "if (bpf_get_current_pid_tgid() >> 32 != WANTED) return 0;"
SHOWN = """
struct seen { u32 n; char comm[16]; enum bpf_map_type kind; u8 flags[3]; struct { s16 low; } inner; };
struct { __uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 16); __type(key, u32); __type(value, struct seen); } seen SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 16); __type(key, u32); __type(value, u64); } slots SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_PERCPU_HASH); __uint(max_entries, 16); __type(key, u32); __type(value, s32); } each SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_RINGBUF); __uint(max_entries, 4096); } ring SEC(".maps");
const volatile u32 wanted = 5;
u64 total;
int down = 100;

SEC("tp/syscalls/sys_enter_getppid") int f(void *ctx)
{
    OURS
    u32 four = 4;
    s32 three = -3, *old;
    struct seen s = { .n = 7, .kind = BPF_MAP_TYPE_LRU_HASH, .flags = { 1, 2, 255 }, .inner = { -2 } };
    u64 *v;
    bpf_get_current_comm(s.comm, sizeof(s.comm));
    bpf_map_update_elem(&seen, &four, &s, 0);
    old = bpf_map_lookup_elem(&each, &four);
    if (old)
        *old += three;
    else
        bpf_map_update_elem(&each, &four, &three, 0);
    v = bpf_map_lookup_elem(&slots, &four);
    if (v)
        *v += 2;
    total++;
    down--;
    if (total == 2)
        bpf_printk("call %d of %s\\n", total, "us");
    if (total == 3)
        bpf_printk("%llx without an end", ~0ull);
    return 0;
}
"""


def run(tmp_path: Path, text: str, *options: str, calls: int = 3) -> subprocess.CompletedProcess[str]:
    """Run a text until it is attached; make so many calls; interrupt it. `OURS` keeps it to this process."""
    path = tmp_path / "x.bpf.c"
    path.write_text(HEAD + text.replace("OURS", OURS.replace("WANTED", str(os.getpid()))))
    command = [sys.executable, "-m", "sonde", "trace", "-v", *options, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            told = process.stdout if "json" in options else process.stderr
            assert told is not None
            before = ""
            while "Attached" not in before and "attached_probes" not in before:
                line = told.readline()
                assert line, (before, process.communicate())
                before += line
            for _ in range(calls):
                os.getppid()
            process.send_signal(signal.SIGINT)
            out, rest = process.communicate(timeout=60)
        finally:
            process.kill()
    out, err = (before + out, rest) if "json" in options else (out, before + rest)
    done = subprocess.CompletedProcess(command, process.returncode, out, err)
    assert done.returncode == 0, done
    return done


def comm() -> str:
    return Path("/proc/self/comm").read_text().strip()


def test_maps_variables_and_lines(tmp_path: Path) -> None:
    done = run(tmp_path, SHOWN)
    ours = [line for line in done.stdout.splitlines() if line]
    assert ours == [
        "call 2 of us",
        "ffffffffffffffff without an end",
        "down: 97",
        "each[4]: -9",
        f"seen[4]: {{ .n = 7, .comm = {comm()}, .kind = BPF_MAP_TYPE_LRU_HASH, .flags = [1,2,255], .inner = {{ .low = -2 }} }}",
        "slots[4]: 6",
        "total: 3",
    ]
    assert "Attached 1 probe\n" in done.stderr


def test_as_json(tmp_path: Path) -> None:
    out = run(tmp_path, SHOWN.replace("bpf_printk", "if (0) bpf_printk"), "-f", "json", "-B", "none").stdout
    rows = [json.loads(line) for line in out.splitlines()]
    maps = {name: value for row in rows if row["type"] == "map" for name, value in row["data"].items()}
    assert maps["total"] == 3
    assert maps["seen"]["4"]["flags"] == [1, 2, 255]
    assert sorted(maps) == ["down", "each", "seen", "slots", "total"]


def test_values_of_all_cpus_that_have_no_sum(tmp_path: Path) -> None:
    text = """
    struct pair { u32 a, b; };
    struct { __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY); __uint(max_entries, 3); __type(key, u32); __type(value, struct pair); } m SEC(".maps");
    SEC("tp/syscalls/sys_enter_getppid") int f(void *ctx)
    {
        OURS
        u32 one = 1;
        struct pair *p = bpf_map_lookup_elem(&m, &one);
        if (p) { p->a = 3; p->b++; }
        return 0;
    }
    """
    cpus = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, cpus[:1])
    try:
        out = run(tmp_path, text).stdout.strip()
    finally:
        os.sched_setaffinity(0, cpus)
    assert out.startswith("m[1]: ") and "m[0]" not in out
    assert out.count(".a = ") == os.sysconf("SC_NPROCESSORS_CONF")
    assert out.count("{ .a = 3, .b = 3 }") == 1


def test_a_system_call_s_function_without_kprobes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`ksyscall`, and a kprobe by the function's name, work wherever there are kprobes or syscall tracepoints."""
    text = """
    int group, again, result;
    SEC("ksyscall/getpgid") int BPF_KSYSCALL(on_enter, int pid) { OURS group = pid; return 0; }
    SEC("kprobe/PREFIXgetpgid") int BPF_KPROBE(on_probe, struct pt_regs *regs) { OURS again++; return 0; }
    SEC("kretsyscall/getpgid") int BPF_KRETPROBE(on_return, int ret) { OURS result = ret; return 0; }
    """
    prefix = {"x86_64": "__x64_sys_", "aarch64": "__arm64_sys_"}[os.uname().machine]
    monkeypatch.setattr(os, "getppid", lambda: os.getpgid(os.getpid()))
    out = run(tmp_path, text.replace("PREFIX", prefix)).stdout
    assert out.split() == ["again:", "3", "group:", str(os.getpid()), "result:", str(os.getpgid(0))]


def work(monkeypatch: pytest.MonkeyPatch, path: str, what: str) -> None:
    """Have `run` start a program in place of a call."""
    monkeypatch.setattr(os, "getppid", lambda: subprocess.run([path, what]).returncode)


def variables(out: str) -> dict[str, str]:
    return dict(line.split(": ") for line in out.splitlines() if line)


def test_uprobe_sections(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sections name a file and a function; a struct that an argument points to is read from user memory."""
    path = build_program(str(tmp_path))
    text = """
    struct point { int x; char name[12]; };
    long sum, result, number, pointers;
    char name[12];
    SEC("uprobe/PATH:first") int BPF_UPROBE(one, struct point *p, const char *text)
    {
        sum += BPF_PROBE_READ_USER(p, x);
        bpf_probe_read_user_str(name, sizeof(name), p->name);
        return 0;
    }
    SEC("uretprobe/PATH:first") int BPF_URETPROBE(two, long ret) { result += ret; return 0; }
    SEC("uprobe/PATH:second") int BPF_UPROBE(three, long n) { number += n; return 0; }
    SEC("uretprobe/PATH:second") int BPF_URETPROBE(four, void *p) { pointers += p != 0; return 0; }
    """
    work(monkeypatch, path, "ffsf")
    out = run(tmp_path, text.replace("PATH", path), calls=1).stdout
    wanted = {"sum": 1 + 2 + 4, "result": 2 * (1 + 2 + 4), "number": 3, "pointers": 1, "name": "a-name"}
    assert variables(out) == {name: str(value) for name, value in wanted.items()}


def test_usdt_sections(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sections name a file, a provider and a probe; arguments come by their sizes, and the semaphore is up."""
    path = build_program(str(tmp_path))
    text = """
    long plain, counted, arguments;
    char said[16];
    SEC("usdt/PATH:app:plain") int BPF_USDT(one, int x, const char *text)
    {
        plain += x;
        bpf_probe_read_user_str(said, sizeof(said), text);
        return 0;
    }
    SEC("usdt/PATH:app:counted") int BPF_USDT(two, long x) { counted += x; arguments = bpf_usdt_arg_cnt(ctx); return 0; }
    """
    work(monkeypatch, path, "ffsf")
    out = run(tmp_path, text.replace("PATH", path), calls=1).stdout
    assert variables(out) == {"plain": "7", "counted": "7000", "arguments": "1", "said": "some-text"}


def test_explain(tmp_path: Path) -> None:
    """The tree as C, the names with their types, IR, bytecode and the plan: and nothing is loaded."""
    path = tmp_path / "x.bpf.c"
    path.write_text(HEAD + SHOWN.replace("OURS", ""))
    command = [sys.executable, "-m", "sonde", "trace", "--explain", str(path)]
    out = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    stages = [line[3:] for line in out.splitlines() if line.startswith("== ")]
    assert stages[:3] == ["syntax tree", "types", "IR of f"] and stages[-2:] == ["bytecode", "attach plan"]
    assert "        *v += 2;" in out
    assert "map seen: hash, 'u32' (aka 'unsigned int') -> 'struct seen'" in out
    assert "tracepoint:syscalls:sys_enter_getppid -> f" in out


def test_trampolines_on_a_system_call_s_function(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """fentry and fexit work wherever there are trampolines, kprobes or tracepoints of system calls; -v says what served."""
    text = """
    int group, result;
    SEC("fentry/PREFIXgetpgid") int BPF_PROG(on_enter, const struct pt_regs *regs)
    {
        OURS
        group = PT_REGS_PARM1_CORE(regs);
        return 0;
    }
    SEC("fexit/PREFIXgetpgid") int BPF_PROG(on_exit, const struct pt_regs *regs, long ret) { OURS result = ret; return 0; }
    """
    prefix = {"x86_64": "__x64_sys_", "aarch64": "__arm64_sys_"}[os.uname().machine]
    monkeypatch.setattr(os, "getppid", lambda: os.getpgid(os.getpid()))
    done = run(tmp_path, text.replace("PREFIX", prefix))
    assert done.stdout.split() == ["group:", str(os.getpid()), "result:", str(os.getpgid(0))]
    from sonde.kernel.target import live_target

    features = live_target().features
    fallen = not features.have("program:tracing:fentry")
    assert ("this kernel has no trampolines; kprobe:" in done.stderr) is fallen
    assert ("tracepoint:syscalls:sys_enter_getpgid serves" in done.stderr) is (
        fallen and not features.have("pmu:kprobe")
    )


def test_headers_of_the_command_line(tmp_path: Path) -> None:
    """-I, more than one, and --include, for C and for scripts."""
    for name, number in (("one", 1), ("two", 20)):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"{name}.h").write_text(f"#pragma once\nstruct {name} {{ int a; char b[{number}]; }};\n")
    (tmp_path / "first.h").write_text("#define FIRST 300\n")
    options = ("-I", str(tmp_path / "one"), f"-I{tmp_path / 'two'}", "--include", str(tmp_path / "first.h"))
    text = """
    #include "one.h"
    #include <two.h>
    int size;
    SEC("tp/syscalls/sys_enter_getppid") int f(void *ctx) { OURS size = FIRST + sizeof(struct one) + sizeof(struct two); return 0; }
    """
    assert variables(run(tmp_path, text, *options).stdout) == {"size": str(300 + 8 + 24)}
    script = '#include <one.h>\n#include "two.h"\nBEGIN { printf("%d\\n", FIRST + sizeof(struct one) + sizeof(struct two)); exit(); }'
    command = [sys.executable, "-m", "sonde", "trace", "-q", *options, "-e", script]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.stdout.strip(), done.stderr) == ("332", "")

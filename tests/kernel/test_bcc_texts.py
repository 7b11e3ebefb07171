"""Class BPF from C text to what Python sees: events and keys of any type, arguments of every kind of probe, errors that name the line."""

from __future__ import annotations

import ctypes as ct
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from kernel.sdt_program import build_program

from sonde.api.bcc import BPF, USDT, functions
from sonde.errors import CompileError

pytestmark = pytest.mark.kernel


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    """No BPF descriptor of a test outlives it."""
    before = descriptors()
    yield
    assert descriptors() == before


def descriptors() -> list[str]:
    """What BPF and perf descriptors this process has open."""
    return sorted(t for t in map(target_of, os.listdir("/proc/self/fd")) if "bpf" in t or "perf_event" in t)


def target_of(fd: str) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{fd}")
    except OSError:
        return ""


EVENT = """
enum kind { FIRST = 1, SECOND = -2 };
struct point { short x; short y; } __attribute__((packed));
struct event_t {
    u8 tag;
    struct point at[2];
    bool yes;
    pid_t pid;
    enum kind kind;
    union { u32 word; char bytes[4]; };
    struct { u64 inner; } named;
    unsigned flags:3, rest:29;
    __int128 wide;
    char comm[TASK_COMM_LEN];
    void *where;
};
BPF_PERF_OUTPUT(events);
TRACEPOINT_PROBE(syscalls, sys_enter_getppid) {
    u32 pid = bpf_get_current_pid_tgid() >> 32;
    if (pid != OURS) return 0;
    struct event_t e = {};
    e.tag = 200;
    e.at[1].x = -3; e.at[1].y = 4;
    e.yes = true;
    e.pid = pid;
    e.kind = SECOND;
    e.word = 0x44434241;
    e.named.inner = 1ULL << 40;
    e.flags = 5; e.rest = 1000;
    e.wide = -1;
    e.where = (void *)0x1234;
    bpf_get_current_comm(&e.comm, sizeof(e.comm));
    events.perf_submit(args, &e, sizeof(e));
    return 0;
}
"""


def test_events_of_any_type_and_flags() -> None:
    """Nested and packed structs, unions, bit-fields, enums, __int128: BCC exits with "Type not recognized" at the first of them."""
    with BPF(text=EVENT, cflags=[f"-DOURS={os.getpid()}"]) as b:
        seen = []
        b["events"].open_perf_buffer(lambda cpu, data, size: seen.append(b["events"].event(data)))
        os.getppid()
        b.perf_buffer_poll(5000)
    (e,) = seen
    assert (e.tag, e.at[1].x, e.at[1].y, e.yes, e.pid, e.kind) == (200, -3, 4, True, os.getpid(), -2)
    assert (e.bytes, e.word, e.named.inner, e.flags, e.rest) == (b"ABCD", 0x44434241, 1 << 40, 5, 1000)
    assert (list(e.wide), e.comm, e.where) == ([-1, -1], Path("/proc/self/comm").read_bytes().strip(), 0x1234)


def test_flags_and_headers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A source file and its header beside the script, macros from the command line, a header by -I."""
    (tmp_path / "include").mkdir()
    (tmp_path / "include" / "more.h").write_text("#define MORE 5\n")
    (tmp_path / "prog.h").write_text("#define OF_HEADER 100\n")
    (tmp_path / "prog.c").write_text(
        '#include "more.h"\nBPF_ARRAY(sum, u64, 1);\nint f(void *ctx) { int k = 0; u64 v = OF_HEADER + MORE + OF_FLAG; '
        "sum.update(&k, &v); return 0; }\n"
    )
    monkeypatch.setattr(sys, "argv", [str(tmp_path / "tool.py")])
    flags = ["-DOF_FLAG=2", f"-I{tmp_path / 'include'}"]
    with BPF(src_file="prog.c", hdr_file=b"prog.h", cflags=flags) as b:
        b.attach_tracepoint("syscalls:sys_enter_getppid", fn_name="f")
        os.getppid()
        assert b["sum"][0].value == 107


def test_errors_name_the_line_of_c() -> None:
    text = (
        "BPF_HASH(counts, u32);\nint f(void *ctx) {\n    u32 key = 0;\n    counts.increment(kei);\n    return 0;\n}\n"
    )
    with pytest.raises(CompileError) as refused:
        BPF(text=text)
    message = str(refused.value)
    assert message.startswith("Failed to compile BPF module <text>\n")
    assert "/virtual/main.c:4:" in message
    assert "counts.increment(kei);" in message
    assert "~~~" in message


def test_a_refusal_of_the_verifier_names_the_line_of_c() -> None:
    from sonde.errors import VerifierError

    text = "BPF_HASH(h, u32, u64);\nint f(void *ctx) {\n    u32 k = 0;\n    u64 *v = h.lookup(&k);\n    return *v;\n}\n"
    with BPF(text=text) as b, pytest.raises(VerifierError) as refused:
        b.load_func("f", BPF.KPROBE)
    assert "/virtual/main.c:5:" in refused.value.render()
    assert "return *v;" in refused.value.render()


def test_arguments_of_a_system_call_through_its_tracepoint(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is written for a kprobe on the kernel's function sees the same arguments and result through tracepoints."""
    monkeypatch.setattr(functions, "_kprobes", [False])
    text = """
#include <uapi/linux/ptrace.h>
struct call_t { u32 pid; int fd; long ret; char name[64]; };
BPF_HASH(names, u64, struct call_t);
BPF_PERF_OUTPUT(calls);
int syscall__openat(struct pt_regs *ctx, int dfd, const char __user *filename, int flags) {
    u64 id = bpf_get_current_pid_tgid();
    if (id >> 32 != OURS || flags != 0x80000) return 0;
    struct call_t c = {.pid = id >> 32, .fd = dfd};
    bpf_probe_read_user_str(&c.name, sizeof(c.name), filename);
    names.update(&id, &c);
    return 0;
}
int leave(struct pt_regs *ctx) {
    u64 id = bpf_get_current_pid_tgid();
    struct call_t *c = names.lookup(&id);
    if (!c) return 0;
    c->ret = PT_REGS_RC(ctx);
    calls.perf_submit(ctx, c, sizeof(*c));
    names.delete(&id);
    return 0;
}
"""
    with BPF(text=text, cflags=[f"-DOURS={os.getpid()}"]) as b:
        b.attach_kprobe(event=b.get_syscall_fnname("openat"), fn_name="syscall__openat")
        b.attach_kretprobe(event=b.get_syscall_fnname("openat"), fn_name="leave")
        seen = []
        b["calls"].open_perf_buffer(lambda cpu, data, size: seen.append(b["calls"].event(data)))
        with pytest.raises(FileNotFoundError):
            os.open("/no-such-sonde-file", os.O_RDONLY)  # Python adds O_CLOEXEC
        b.perf_buffer_poll(5000)
    found = [e for e in seen if e.name == b"/no-such-sonde-file"]
    assert [(e.pid, e.fd, e.ret) for e in found] == [(os.getpid(), -100, -2)]


def test_arguments_and_results_of_user_functions() -> None:
    text = """
#include <uapi/linux/ptrace.h>
struct seen_t { int length; char text[16]; };
BPF_HASH(entered, u32, struct seen_t);
BPF_HASH(left, u32, u64);
int enter(struct pt_regs *ctx, const char *text) {
    u32 pid = bpf_get_current_pid_tgid() >> 32;
    struct seen_t s = {};
    s.length = bpf_probe_read_user_str(s.text, sizeof(s.text), (void *)PT_REGS_PARM1(ctx));
    entered.update(&pid, &s);
    return 0;
}
int leave(struct pt_regs *ctx) {
    u32 pid = bpf_get_current_pid_tgid() >> 32;
    u64 result = PT_REGS_RC(ctx);
    left.update(&pid, &result);
    return 0;
}
"""
    with BPF(text=text) as b:
        b.attach_uprobe(name="c", sym="atol", fn_name="enter", pid=os.getpid())
        b.attach_uretprobe(name="c", sym="atol", fn_name="leave", pid=os.getpid())
        assert ct.CDLL(None).atol(b"4711") == 4711
        seen = b["entered"][os.getpid()]
        assert (seen.length, seen.text) == (5, b"4711")
        assert b["left"][os.getpid()].value == 4711


def test_usdt_arguments(tmp_path: Path) -> None:
    """Numbers and texts, from registers, memory and constants, as the notes say."""
    path = build_program(str(tmp_path))
    text = """
struct hit_t { int x; char text[16]; };
BPF_HASH(plain, u64, struct hit_t);
BPF_HASH(counted, long, u64);
int on_plain(struct pt_regs *ctx) {
    u64 where = 0;
    struct hit_t h = {};
    bpf_usdt_readarg(1, ctx, &h.x);
    bpf_usdt_readarg_p(2, ctx, &h.text, sizeof(h.text));
    u64 key = h.x;
    plain.update(&key, &h);
    return 0;
}
int on_counted(struct pt_regs *ctx) {
    long n = 0;
    bpf_usdt_readarg(1, ctx, &n);
    counted.increment(n);
    return 0;
}
"""
    context = USDT(path=path)
    context.enable_probe("app:plain", "on_plain")
    context.enable_probe("counted", "on_counted")
    with BPF(text=text, usdt_contexts=[context]) as b:
        subprocess.run([path, "ff"], check=False)
        assert {k.value: (v.x, v.text) for k, v in b["plain"].items()} == {1: (1, b"some-text"), 2: (2, b"some-text")}
        assert {k.value: v.value for k, v in b["counted"].items()} == {1000: 1, 2000: 1}


def test_histograms_of_structs(capsys: pytest.CaptureFixture[str]) -> None:
    text = """
struct key_t { char name[TASK_COMM_LEN]; u64 slot; };
BPF_HISTOGRAM(sizes, struct key_t);
TRACEPOINT_PROBE(syscalls, sys_enter_getpgid) {
    if (bpf_get_current_pid_tgid() >> 32 != OURS) return 0;
    struct key_t key = {.slot = bpf_log2l(args->pid)};
    bpf_get_current_comm(&key.name, sizeof(key.name));
    sizes.increment(key);
    return 0;
}
"""
    with BPF(text=text, cflags=[f"-DOURS={os.getpid()}"]) as b:
        for pid in (1, 1, 2, 3):
            os.getpgid(pid)
        b["sizes"].print_log2_hist("pids", "who", section_print_fn=bytes.decode)
    comm = Path("/proc/self/comm").read_text().strip()
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == f"who = {comm}"
    assert lines[2] == "     pids                : count     distribution"
    assert lines[3].startswith("         0 -> 1          : 2        |****")
    assert lines[4].startswith("         2 -> 3          : 2        |****")


def test_ring_buffer_and_tail_call() -> None:
    text = """
struct note_t { u64 a; u32 b; };
BPF_RINGBUF_OUTPUT(notes, 8);
BPF_PROG_ARRAY(steps, 4);
int second(void *ctx) {
    struct note_t *n = notes.ringbuf_reserve(sizeof(struct note_t));
    if (!n) return 0;
    n->a = 7; n->b = bpf_get_current_pid_tgid() >> 32;
    notes.ringbuf_submit(n, 0);
    return 0;
}
int first(void *ctx) {
    if (bpf_get_current_pid_tgid() >> 32 == OURS) steps.call(ctx, 1);
    return 0;
}
"""
    with BPF(text=text, cflags=[f"-DOURS={os.getpid()}"]) as b:
        b["steps"][1] = b.load_func("second", BPF.TRACEPOINT)
        b.attach_tracepoint("syscalls:sys_enter_getppid", fn_name="first")
        seen = []
        b["notes"].open_ring_buffer(
            lambda ctx, data, size: seen.append((b["notes"].event(data).a, b["notes"].event(data).b))
        )
        os.getppid()
        b.ring_buffer_poll(5000)
    assert seen == [(7, os.getpid())]


def test_first_event_of_hello_world_in_a_fresh_process() -> None:
    """`from bcc import BPF` to the first line of trace_pipe, with no module that costs time and memory. The figure is in docs/benchmarks.md."""
    from sonde.api.bcc import shim_path

    heavy = ["argparse", "dataclasses", "json", "logging", "subprocess", "typing"]
    code = (
        "import os, sys\nfrom bcc import BPF\n"
        "b = BPF(text='BPF_PERF_OUTPUT(events); TRACEPOINT_PROBE(syscalls, sys_enter_getppid) { u32 x = 7; "
        "events.perf_submit(args, &x, sizeof(x)); return 0; }')\n"
        "seen = []\nb['events'].open_perf_buffer(lambda cpu, data, size: seen.append(b['events'].event(data).value))\n"
        "os.getppid()\nb.perf_buffer_poll(5000)\n"
        f"print(7 in seen, [m for m in {heavy!r} if m in sys.modules])\n"
    )
    done = subprocess.run(
        [sys.executable, "-S", "-c", code], capture_output=True, text=True, env={"PYTHONPATH": shim_path()}
    )
    assert (done.stdout, done.stderr) == ("True []\n", "")


CALLS = """
BPF_ARRAY(seen, u64, 4);
static int note(int index, u64 value) {
    if (bpf_get_current_pid_tgid() >> 32 == OURS)
        seen.update(&index, &value);
    return 0;
}
int by_argument(struct pt_regs *ctx, int which, int who) { return note(0, which * 100 + who); }
int by_register(struct pt_regs *ctx) {
    struct pt_regs *regs = (struct pt_regs *)PT_REGS_PARM1(ctx);
    return note(1, PT_REGS_PARM1(regs) * 100 + PT_REGS_PARM2(regs));
}
int result(struct pt_regs *ctx) { return note(2, PT_REGS_RC(ctx)); }
"""


@pytest.mark.parametrize("traced", [True, False])
def test_a_system_call_s_function_without_kprobes(
    traced: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The call's tracepoint serves; where there is none, the raw one of all calls with a test of the number."""
    monkeypatch.setattr(functions, "_kprobes", [False])
    monkeypatch.setenv("SONDE_BCC_VERBOSE", "1")
    if not traced:
        monkeypatch.setattr(functions, "tracepoint_exists", lambda category, event: False)
    with BPF(text=CALLS.replace("OURS", str(os.getpid()))) as b:
        event = b.get_syscall_fnname("getpriority")
        b.attach_kprobe(event=event, fn_name="by_argument")
        b.attach_kprobe(event=event, fn_name="by_register")
        b.attach_kretprobe(event=event, fn_name="result")
        result = 20 - os.getpriority(os.PRIO_USER, 0)
        os.getppid()
        seen = [value.value for value in b["seen"].values()]
    assert seen == [200, 200, result, 0]
    said = capsys.readouterr().err
    assert ("tracepoint:syscalls:sys_enter_getpriority is tried" in said) is traced
    assert ("rawtracepoint:sys_exit is tried" in said) is not traced


@pytest.mark.parametrize("traced", [True, False])
def test_a_trampoline_on_a_system_call_s_function_where_there_are_none(
    traced: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if BPF.support_kfunc() or functions.have_kprobes():
        pytest.skip("this kernel has trampolines or kprobes: shown in the guests")
    if not traced:
        monkeypatch.setattr(functions, "tracepoint_exists", lambda category, event: False)
    prefix = BPF.get_syscall_prefix(BPF).decode()
    text = """
    BPF_ARRAY(seen, u64, 4);
    KFUNC_PROBE(PREFIXgetpgid, const struct pt_regs *regs) {
        int zero = 0;
        u64 pid = PT_REGS_PARM1(regs) + 1;
        if (bpf_get_current_pid_tgid() >> 32 == OURS)
            seen.update(&zero, &pid);
        return 0;
    }
    KRETFUNC_PROBE(PREFIXgetpgid, const struct pt_regs *regs, long ret) {
        int one = 1;
        u64 result = ret;
        if (bpf_get_current_pid_tgid() >> 32 == OURS)
            seen.update(&one, &result);
        return 0;
    }
    """
    with BPF(text=text.replace("OURS", str(os.getpid())).replace("PREFIX", prefix)) as b:
        group = os.getpgid(os.getpid())
        assert [value.value for value in b["seen"].values()] == [os.getpid() + 1, group, 0, 0]


def test_the_exit_of_a_function_knows_its_result_only_where_a_kprobe_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    if BPF.support_kfunc():
        pytest.skip("this kernel has trampolines: shown in the guests")
    prefix = BPF.get_syscall_prefix(BPF).decode()
    text = f"KRETFUNC_PROBE({prefix}getpgid, const struct pt_regs *regs, long ret) {{ return PT_REGS_PARM1(regs); }}"
    with pytest.raises(CompileError, match="not known when"):
        BPF(text=text)

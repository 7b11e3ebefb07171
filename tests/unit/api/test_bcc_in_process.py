"""BCC programs inside a process of our own: the API as BCC has it, and BCC's own tools, by an ordinary user."""

from __future__ import annotations

import ctypes as ct
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from user_running import Running, build

from sonde.api.bcc import BPF, USDT
from sonde.api.bcc.inprocess import find_pid
from sonde.errors import FeatureError, ProbeError, SondeError, UsageError

pytestmark = pytest.mark.skipif(platform.machine() != "x86_64", reason="these probes are x86-64 code")
SOURCE = r"""
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <sys/syscall.h>
#ifdef PROBES
#include <sys/sdt.h>
#endif
#define EXPORT __attribute__((noinline, noclone, used))
EXPORT long work(long a, const char *s) { __asm__ volatile("" ::: "memory"); return a * 2 + (s != 0); }
EXPORT long other(long a) { __asm__ volatile("" ::: "memory"); return a + 1; }
int main(void) {
  char line[100];
  setvbuf(stdout, 0, _IOLBF, 0);
  printf("ready\n");
  while (fgets(line, sizeof line, stdin)) {
    char what[20]; long n = 0, result = 0;
    sscanf(line, "%19s %ld", what, &n);
    if (!strcmp(what, "work")) for (long i = 0; i < n; i++) result += work(i, "a word");
    if (!strcmp(what, "other")) for (long i = 0; i < n; i++) result += other(i);
    if (!strcmp(what, "calls")) for (long i = 0; i < n; i++) { getppid(); result += syscall(SYS_close, -1 - i) == -1; }
#ifdef PROBES
    if (!strcmp(what, "usdt")) for (long i = 0; i < n; i++) STAP_PROBE2(app, plain, i, "a word");
#endif
    printf("%ld\n", result);
  }
  return 0;
}
"""


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder, options = tmp_path_factory.mktemp("bcc"), ("-O1", "-fno-omit-frame-pointer")
    try:
        return build(SOURCE, folder, *options, "-DPROBES")
    except subprocess.CalledProcessError:  # there is no sys/sdt.h
        return build(SOURCE, folder, *options)


@pytest.fixture
def running(program: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Running]:
    found = Running(program)
    monkeypatch.setenv("SONDE_ENGINE", "user")
    monkeypatch.setenv("SONDE_PID", str(found.pid))
    yield found
    found.process.kill()
    found.process.communicate()


def until(condition: Callable[[], bool], turn: Callable[[], object] = lambda: time.sleep(0.01)) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "it has not come within 20 seconds"
        turn()


def test_counts_are_exact_and_nothing_is_left(running: Running) -> None:
    before, answer = running.text(), running.ask("work 100")
    text = """
    BPF_HASH(counts, u64, u64);
    BPF_HASH(begun, u32, u64);
    BPF_HISTOGRAM(times);
    int begin(struct pt_regs *ctx, long a) {
        u64 key = a & 3, now = bpf_ktime_get_ns(); u32 tid = bpf_get_current_pid_tgid();
        counts.increment(key); begun.update(&tid, &now);
        return 0;
    }
    int end(struct pt_regs *ctx) {
        u32 tid = bpf_get_current_pid_tgid(); u64 *then = begun.lookup(&tid), key = 1000 + PT_REGS_RC(ctx) % 2;
        if (!then) return 0;
        times.increment(bpf_log2l(bpf_ktime_get_ns() - *then)); counts.increment(key); begun.delete(&tid);
        return 0;
    }"""
    with BPF(text=text) as b:
        b.attach_uprobe(name=running.path, sym="work", fn_name="begin")
        b.attach_uretprobe(name=running.path, sym="work", fn_name="end")
        assert running.ask("work 100") == answer
        assert {k.value: v.value for k, v in b["counts"].items()} == {0: 25, 1: 25, 2: 25, 3: 25, 1001: 100}
        assert sum(v.value for v in b["times"].values()) == 100
        b.detach_uretprobe(name=running.path, sym="work")
        assert running.ask("work 100") == answer
        assert b["counts"][ct.c_ulonglong(1001)].value == 100 and b["counts"][ct.c_ulonglong(2)].value == 50
        b["counts"].clear()
        b.detach_uprobe(name=running.path, sym="work")
        assert running.ask("work 100") == answer and not b["counts"].items()
    assert running.text() == before and not running.traces()


EVENTS = """
struct event { u32 pid; u64 number; char word[16]; char comm[16]; };
BPF_PERF_OUTPUT(events);
BPF_RINGBUF_OUTPUT(ring, 8);
int send(struct pt_regs *ctx, long a, const char *s) {
    struct event e = {};
    e.pid = bpf_get_current_pid_tgid() >> 32; e.number = a;
    bpf_probe_read_user_str(e.word, sizeof(e.word), (void *)s);
    bpf_get_current_comm(&e.comm, sizeof(e.comm));
    events.perf_submit(ctx, &e, sizeof(e));
    ring.ringbuf_output(&e, sizeof(e), 0);
    return 0;
}"""


def test_events_of_both_kinds(running: Running) -> None:
    """The ring is opened before there is a process, the perf buffer afterwards."""
    found: list[tuple[int, Any]] = []
    ring: list[Any] = []
    with BPF(text=EVENTS) as b:
        b["ring"].open_ring_buffer(lambda ctx, data, size: ring.append(b["ring"].event(data)))
        b.attach_uprobe(name=running.path, sym="work", fn_name="send")
        b["events"].open_perf_buffer(lambda cpu, data, size: found.append((cpu, b["events"].event(data))))
        running.ask("work 50")
        until(lambda: len(found) >= 50, lambda: b.perf_buffer_poll(20))
        until(lambda: len(ring) >= 50, lambda: b.ring_buffer_poll(20))
    events = [event for _, event in found]
    for each in (events, ring):
        assert [(e.pid, e.number, e.word, e.comm) for e in each] == [
            (running.pid, n, b"a word", b"target") for n in range(50)
        ]
    assert all(0 <= cpu < (os.cpu_count() or 1) for cpu, _ in found)


def test_events_that_find_no_room_are_counted(running: Running) -> None:
    count, lost = [0], [0]
    with BPF(text=EVENTS) as b:
        b.attach_uprobe(name=running.path, sym="work", fn_name="send")
        b["events"].open_perf_buffer(
            lambda *_: count.__setitem__(0, count[0] + 1), lost_cb=lambda n: lost.__setitem__(0, lost[0] + n)
        )
        running.ask("work 20000")
        until(lambda: count[0] + lost[0] >= 20000, lambda: b.perf_buffer_poll(20))
    assert count[0] + lost[0] == 20000 and count[0] > 1000 and lost[0] > 0


def test_lines_of_trace_printk(running: Running) -> None:
    text = r"""
    int line(struct pt_regs *ctx, long a, const char *s) { bpf_trace_printk("%d %s %lx\n", (int)-a, s, a << 40); return 0; }
    int own(struct pt_regs *ctx) { char name[16]; bpf_get_current_comm(&name, sizeof(name)); bpf_trace_printk("100%% of %s\n", name); return 0; }
    """
    with BPF(text=text) as b:
        b.attach_uprobe(name=running.path, sym="work", fn_name="line")
        b.attach_uprobe(name=running.path, sym="other", fn_name="own")
        running.ask("work 3")
        fields = [b.trace_fields() for _ in range(3)]
        running.ask("other 1")
        line = b.trace_readline()
        assert b.trace_open() is b.tracefile
    assert [f[5] for f in fields] == [b"0 a word 0", b"-1 a word 10000000000", b"-2 a word 20000000000"]
    assert all((f[0], f[1]) == (b"target", running.pid) for f in fields)
    assert abs(fields[0][4] - time.clock_gettime(time.CLOCK_MONOTONIC)) < 60
    assert line is not None and line.endswith(b"bpf_trace_printk: 100% of target")


@pytest.mark.parametrize("unwind", ["fp", "dwarf"])
def test_stacks_by_number(running: Running, unwind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SONDE_UNWIND", unwind)
    text = """
    BPF_STACK_TRACE(stacks, 1024);
    BPF_HASH(counts, int, u64);
    int stack(struct pt_regs *ctx) { int id = stacks.get_stackid(ctx, BPF_F_USER_STACK); counts.increment(id); return 0; }
    int kernels(struct pt_regs *ctx) { int id = stacks.get_stackid(ctx, 0); counts.increment(id); return 0; }
    """
    with BPF(text=text) as b:
        b.attach_uprobe(name=running.path, sym="work", fn_name="stack")
        b.attach_uprobe(name=running.path, sym="other", fn_name="kernels")
        running.ask("work 10")
        running.ask("other 5")
        counts = {k.value: v.value for k, v in b["counts"].items()}
        number = next(n for n in counts if n >= 0)
        assert counts == {number: 10, -14: 5}  # -EFAULT: there is no stack of the kernel's
        names = [b.sym(address, running.pid) for address in b["stacks"].walk(number)]
    assert names[:2] == [b"work", b"main"]
    assert (names[-1] == b"_start") == (unwind == "dwarf")


def test_programs_that_change_the_process(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    text = """
    BPF_PROG_ARRAY(next, 1);
    BPF_HASH(codes, long, u64);
    int replace(struct pt_regs *ctx) { long code = bpf_override_return(ctx, 5); codes.increment(code); return 0; }
    int either(struct pt_regs *ctx, long a) { if (a % 2) next.call(ctx, 0); return 0; }
    """
    refused = BPF(text=text)
    with pytest.raises(SondeError, match="changes what the process does"):
        refused.load_func("replace", BPF.KPROBE)
    refused.cleanup()
    monkeypatch.setenv("SONDE_UNSAFE", "1")
    plain = running.ask("other 10")
    with BPF(text=text) as b:
        b.attach_uprobe(name=running.path, sym="other", fn_name="either")
        assert running.ask("other 10") == plain
        b["next"][ct.c_int(0)] = b.load_func("replace", BPF.KPROBE)  # after the process is known
        assert running.ask("other 10") == sum(5 if n % 2 else n + 1 for n in range(10))
        assert {k.value: v.value for k, v in b["codes"].items()} == {0: 5}
        b.attach_uretprobe(name=running.path, sym="other", fn_name="replace")
        assert running.ask("other 10") == 50
    assert running.ask("other 10") == plain


def test_nothing_is_replaced_where_no_function_begins(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SONDE_UNSAFE", "1")
    text = """
    BPF_PROG_ARRAY(next, 1);
    BPF_HASH(codes, long, u64);
    int replace(struct pt_regs *ctx) { long code = bpf_override_return(ctx, 5); codes.increment(code); return 0; }
    TRACEPOINT_PROBE(syscalls, sys_enter_close) { next.call((void *)args, 0); return 0; }
    """
    with BPF(text=text) as b:
        b["next"][ct.c_int(0)] = b.load_func("replace", BPF.TRACEPOINT)
        assert running.ask("calls 6") == 6
        assert {k.value: v.value for k, v in b["codes"].items()} == {-22: 6}


def test_tail_calls(running: Running) -> None:
    text = """
    BPF_PROG_ARRAY(programs, 4);
    BPF_ARRAY(sums, u64, 4);
    int begin(struct pt_regs *ctx) { int n = 0; sums.increment(n); programs.call(ctx, 1); n = 1; sums.increment(n); return 0; }
    int add(struct pt_regs *ctx) { int n = 2; u64 *sum = sums.lookup(&n); if (sum) *sum += PT_REGS_PARM1(ctx); return 0; }
    int again(struct pt_regs *ctx) { int n = 3; sums.increment(n); programs.call(ctx, 1); return 0; }
    """
    with BPF(text=text) as b:
        b.attach_uprobe(name=running.path, sym="work", fn_name="begin")
        running.ask("work 10")
        assert [v.value for v in b["sums"].values()] == [10, 10, 0, 0]
        b["programs"][ct.c_int(1)] = b.load_func("add", BPF.KPROBE)
        running.ask("work 10")
        assert [v.value for v in b["sums"].values()] == [20, 10, 45, 0]
        b["programs"][ct.c_int(1)] = b.load_func("again", BPF.KPROBE)  # itself, as often as a kernel would let it
        running.ask("work 1")
        assert [v.value for v in b["sums"].values()] == [21, 10, 45, 33]
        del b["programs"][ct.c_int(1)]
        running.ask("work 10")
        assert [v.value for v in b["sums"].values()] == [31, 20, 45, 33]


def test_system_calls(running: Running) -> None:
    text = """
    BPF_HASH(counts, u64, u64);
    TRACEPOINT_PROBE(syscalls, sys_enter_close) { u64 key = 1; counts.increment(key); key = args->fd; counts.increment(key); return 0; }
    TRACEPOINT_PROBE(raw_syscalls, sys_exit) { u64 key = 2000 + args->id; counts.increment(key); return 0; }
    int syscall__getppid(struct pt_regs *ctx) { u64 key = 2; counts.increment(key); return 0; }
    int ended(struct pt_regs *ctx) { u64 key = 3; counts.atomic_increment(key, PT_REGS_RC(ctx)); return 0; }
    """
    with BPF(text=text) as b:
        function = b.get_syscall_fnname("getppid")
        b.attach_kprobe(event=function, fn_name="syscall__getppid")
        b.attach_kretprobe(event=function, fn_name="ended")
        running.ask("calls 10")
        counts = {k.value: v.value for k, v in b["counts"].items()}
        fds = {0xFFFFFFFF & (-1 - n) for n in range(10)}
        assert counts[1] == counts[2] == 10 and counts[3] == 10 * os.getpid()
        assert counts[2000 + 3] == counts[2000 + 110] == 10
        assert {key & 0xFFFFFFFF for key in counts if key & 0xFFFFFFFF in fds} == fds
        b.detach_kprobe(function)
        b.detach_tracepoint("raw_syscalls:sys_exit")
        running.ask("calls 10")
        after = {k.value: v.value for k, v in b["counts"].items()}
        assert after[1] == 20 and after[2] == after[2000 + 110] == 10
    assert not running.traces()


def test_many_probes_of_system_calls_are_placed_together(running: Running) -> None:
    with BPF(text="BPF_ARRAY(n, u64, 1); int count(void *ctx) { int k = 0; n.increment(k); return 0; }") as b:
        names = list(BPF.get_tracepoints("syscalls:sys_enter_[gc].*"))
        assert "syscalls:sys_enter_getppid" in names and len(names) > 20
        for name in names:
            b.attach_tracepoint(tp=name, fn_name="count")

        def counted() -> bool:
            before = b["n"][0].value
            running.ask("calls 10")
            return bool(b["n"][0].value - before == 20)

        until(counted)


def test_usdt(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SONDE_PID")
    text = """
    BPF_HASH(counts, u64, u64);
    int hit(struct pt_regs *ctx) { u64 n = 0; bpf_usdt_readarg(1, ctx, &n); counts.increment(n); return 0; }"""
    if not Path(running.path).read_bytes().count(b"stapsdt"):
        pytest.skip("needs sys/sdt.h (Debian package systemtap-sdt-dev)")
    context = USDT(pid=running.pid)
    context.enable_probe("app:plain", "hit")
    with BPF(text=text, usdt_contexts=[context]) as b:
        running.ask("usdt 10")
        assert {k.value: v.value for k, v in b["counts"].items()} == dict.fromkeys(range(10), 1)


@pytest.mark.parametrize("unwind", ["fp", "dwarf"])
def test_samples(running: Running, unwind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SONDE_UNWIND", unwind)
    text = """
    #include <uapi/linux/bpf_perf_event.h>
    BPF_STACK_TRACE(stacks, 1024);
    BPF_HASH(counts, int, u64);
    BPF_ARRAY(entries, u64, 1);
    int sample(struct bpf_perf_event_data *ctx) {
        if (bpf_get_current_pid_tgid() >> 32 == PID) { int id = stacks.get_stackid(&ctx->regs, BPF_F_USER_STACK); counts.increment(id); }
        return 0;
    }
    int entry(struct pt_regs *ctx) { int n = 0; entries.increment(n); return 0; }
    """
    with BPF(text=text.replace("PID", str(running.pid))) as b:
        b.attach_perf_event(ev_type=1, ev_config=0, fn_name="sample", sample_freq=500)
        until(lambda: sum(v.value for v in b["counts"].values()) > 10, lambda: running.ask("work 1000000"))
        assert not running.traces()  # nothing is put into the process for it
        names = {b.sym(address, running.pid) for key in b["counts"] for address in b["stacks"].walk(key.value)}
        assert {b"work", b"main"} <= names
        assert (b"_start" in names) == (unwind == "dwarf")
        b.attach_uprobe(name=running.path, sym="other", fn_name="entry")  # now the maps move
        before = sum(v.value for v in b["counts"].values())
        running.ask("other 10")
        assert b["entries"][0].value == 10
        until(lambda: sum(v.value for v in b["counts"].values()) > before + 10, lambda: running.ask("work 1000000"))
        b.detach_perf_event(ev_type=1, ev_config=0)
        before = sum(v.value for v in b["counts"].values())
        running.ask("work 10000000")
        assert sum(v.value for v in b["counts"].values()) == before


def test_what_cannot_be_had_is_said(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "int f(struct pt_regs *ctx) { return 0; } int task(void *ctx) { return bpf_get_current_task() != 0; }"
    with BPF(text=text) as b:
        with pytest.raises(FeatureError, match="no functions of the kernel"):
            b.attach_kprobe(event="vfs_read", fn_name="f")
        with pytest.raises(FeatureError, match="bpf_get_current_task"):
            b.attach_uprobe(name=running.path, sym="work", fn_name="task")
        with pytest.raises(FeatureError, match="perf event"):
            b.attach_perf_event(ev_type=4, ev_config=0xC0, fn_name="f", sample_freq=10)
        with pytest.raises(SondeError, match="sched"):
            b.attach_tracepoint(tp="sched:sched_switch", fn_name="f")
        assert not BPF.support_kfunc() and not BPF.support_raw_tracepoint()
        b.attach_uprobe(name=running.path, sym="work", fn_name="f")
        with pytest.raises(ProbeError, match="one process"):
            b.attach_uprobe(name=running.path, sym="other", fn_name="f", pid=os.getpid())
    monkeypatch.delenv("SONDE_PID")
    with BPF(text=text) as b, pytest.raises(ProbeError, match="every process"):
        b.attach_uprobe(name=running.path, sym="work", fn_name="f")
    assert not running.traces()


def test_which_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SONDE_PID", raising=False)
    for words, expected in ((["-p", "12"], 12), (["-x", "--pid=13"], 13), (["-p", "80x"], 0), ([], 0)):
        monkeypatch.setattr(sys, "argv", ["tool", *words])
        assert find_pid() == expected
    monkeypatch.setenv("SONDE_PID", "14")
    assert find_pid() == 14
    monkeypatch.setenv("SONDE_PID", "x")
    with pytest.raises(UsageError):
        find_pid()


# BCC's own tools -----------------------------------------------------------------------------------------------------

TOOLS = {
    ("funccount", "-d", "1", "c:getppi*"): r"getppid +[1-9]",
    ("funccount", "-d", "1", "t:syscalls:sys_enter_getpp*"): r"sys_enter_getppid +[1-9]",
    ("funclatency", "-d", "1", "c:getppid"): r"\|\*+",
    ("opensnoop", "-d", "1"): r"(?m)^\d+ +python\S* +\d+ +0 /dev/null$",
    ("syscount", "-d", "1"): r"getppid +[1-9]",
    ("argdist", "-d", "1", "-n", "1", "-C", "t:syscalls:sys_enter_close():int:args->fd"): r"args->fd = \d",
    ("trace", "-M", "3", 'c:open64 "%s", arg1'): r"(?m)open64 +/dev/null$",
    ("stackcount", "-D", "1", "c:getppid"): r"getppid\n",
    ("profile", "-f", "-F", "199", "1"): r"(?m)^python\S*;.* \d+$",
    ("memleak", "1", "1"): r"outstanding allocations",
}


def test_a_tool_that_is_interrupted_again_and_again(running: Running, tmp_path: Path) -> None:
    text = "from bcc import BPF\nimport os, time\n"
    text += "b = BPF(text='int f(struct pt_regs *ctx) { return 0; }')\n"
    text += (
        f"b.attach_uretprobe(name={running.path!r}, sym='work', fn_name='f')\nprint('on', flush=True)\ntime.sleep(60)\n"
    )
    (tmp_path / "tool.py").write_text(text)
    words = [
        sys.executable,
        "-m",
        "sonde",
        "bcc",
        "--engine",
        "user",
        "-p",
        str(running.pid),
        str(tmp_path / "tool.py"),
    ]
    for _ in range(5):
        tool = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        assert tool.stdout is not None and tool.stdout.readline() == "on\n"
        while tool.poll() is None:
            tool.send_signal(signal.SIGINT)
            time.sleep(0.002)
        tool.communicate()
        assert not running.traces()
    assert running.ask("work 10") == 100


@pytest.mark.parametrize("words", TOOLS, ids=lambda words: words[0])
def test_tools_of_bcc_run_as_they_are(words: tuple[str, ...], tmp_path: Path) -> None:
    """As the user who runs this test without privileges; where that is root, its capabilities do not count."""
    if not shutil.which(f"{words[0]}-bpfcc"):
        pytest.skip("needs BCC's tools (Debian package bpfcc-tools)")
    script = "import os\nwhile True: os.getppid(); open('/dev/null').close()\n"
    busy = subprocess.Popen([sys.executable, "-c", script])
    tool = [sys.executable, "-m", "sonde", "bcc", "--engine", "user", words[0], "-p", str(busy.pid), *words[1:]]
    try:
        done = subprocess.Popen(
            tool,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
        try:
            out, _ = done.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            done.send_signal(signal.SIGINT)
            out, _ = done.communicate(timeout=10)
        assert re.search(TOOLS[words], out), out
        assert busy.poll() is None
        assert "sonde" not in Path(f"/proc/{busy.pid}/maps").read_text()
    finally:
        busy.kill()
        busy.wait()

"""Scripts inside a process of our own, without any privilege: what programs count and send is what the process knows that it did."""

from __future__ import annotations

import os
import platform
import select
import shutil
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from user_running import Running, at_work, build, total

from sonde.api.trace import TraceOptions, compile, live_target
from sonde.errors import AttachError, PrivilegeError, ProbeError, TargetError, UnsafeError
from sonde.user.engine import UserEngine, UserObject
from sonde.user.seized import state_of
from sonde.user.target import user_target
from sonde.user.x86.text import Text
from sonde.user.x86.window import Window

SOURCE = r"""
#define _GNU_SOURCE
#include <pthread.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#ifdef PROBES
#define _SDT_HAS_SEMAPHORES 1
#include <sys/sdt.h>
unsigned short app_counted_semaphore __attribute__((section(".probes")));
unsigned short app_plain_semaphore __attribute__((section(".probes")));
#endif

#define EXPORT __attribute__((noinline, noclone, used))
static char name[] = "a name that is long enough to cross several words";
static jmp_buf place;
volatile long watched;

EXPORT long work(long a, const char *s) { __asm__ volatile("" ::: "memory"); return a * 2 + (s != 0); }
EXPORT long six(long a, long b, long c, long d, long e, long f) { __asm__ volatile(""); return a + b + c + d + e + f; }
EXPORT long depth(long n) { long r = n ? depth(n - 1) : 0; __asm__ volatile("" ::: "memory"); return r + 1; }
EXPORT long jumps(long n) { __asm__ volatile(""); if (n & 1) longjmp(place, 1); return n; }
EXPORT long flags(long a, long b) { long r = 7; __asm__ volatile("cmp %2, %1\n.globl inside\ninside: nopl 0x0(%%rax,%%rax)\n jae 1f\n mov $1, %0\n1:" : "+r"(r) : "r"(a), "r"(b) : "cc"); return r; }
static long zone(long a) { volatile long x[4]; x[0] = a; return x[0]; }

static void *many(void *count) { for (long i = 0; i < (long)count; i++) work(i, name); return 0; }

int main(void) {
  char line[100];
  setvbuf(stdout, 0, _IOLBF, 0);
  printf("ready\n");
  while (fgets(line, sizeof line, stdin)) {
    char what[20]; long n = 0, result = 0;
    sscanf(line, "%19s %ld", what, &n);
    if (!strcmp(what, "work")) for (long i = 0; i < n; i++) result += work(i, name);
    if (!strcmp(what, "bad")) for (long i = 0; i < n; i++) result += work(i, (char *)(i * 4096 + 1));
    if (!strcmp(what, "six")) result = six(1, 20, 300, 4000, 50000, 600000);
    if (!strcmp(what, "depth")) result = depth(n);
    if (!strcmp(what, "jumps")) for (long i = 0; i < n; i++) if (!setjmp(place)) result += jumps(i);
    if (!strcmp(what, "flags")) result = flags(1, 2) * 100 + flags(2, 1) * 10 + flags(3, 3);
    if (!strcmp(what, "threads")) {
      pthread_t t[8];
      for (int i = 0; i < 8; i++) pthread_create(&t[i], 0, many, (void *)n);
      for (int i = 0; i < 8; i++) pthread_join(t[i], 0);
    }
    if (!strcmp(what, "exec")) { char *words[] = {"target", 0}; execv("/proc/self/exe", words); }
#ifdef PROBES
    if (!strcmp(what, "usdt")) for (long i = 0; i < n; i++) {
      STAP_PROBE2(app, plain, i, name);
      if (app_counted_semaphore) { STAP_PROBE1(app, counted, i * 1000); result++; }
    }
#endif
    if (!strcmp(what, "write")) for (long i = 0; i < n; i++) watched = i;
    if (!strcmp(what, "calls")) for (long i = 0; i < n; i++) { getppid(); result += syscall(SYS_close, -1 - i) == -1; }
    if (!strcmp(what, "sleep")) { struct timespec t = {n / 1000, n % 1000 * 1000000}; result = clock_nanosleep(CLOCK_MONOTONIC, 0, &t, 0); }
    if (!strcmp(what, "fork")) {
      pid_t child = fork();
      if (!child) { for (long i = 0; i < n; i++) work(i, name); _exit(0); }
      waitpid(child, 0, 0);
      result = child;
    }
    printf("%ld\n", result + zone(0));
  }
  return 0;
}
"""


@pytest.fixture(
    scope="module", params=["-O1 -fno-omit-frame-pointer", "-O2 -no-pie", "-O2 -static", "-O2 -fcf-protection=full"]
)
def program(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    return build(SOURCE, tmp_path_factory.mktemp("user"), *request.param.split())


@pytest.fixture
def running(program: str) -> Iterator[Running]:
    yield from at_work(program)


def attach_or_skip(running: Running, script: str, needs: str) -> UserObject:
    """Attach probes that take what this machine, or this user, may not have."""
    try:
        return running.attach(script)
    except (PrivilegeError, AttachError) as refusal:
        pytest.skip(f"{needs} are not to be had: {refusal.message}")


def records(loaded: UserObject) -> list[bytes]:
    found: list[bytes] = []
    reader = loaded.reader()
    reader.drain(lambda buffer, start, size: found.append(bytes(buffer[start : start + size])))
    return found


def test_counts_are_exact_and_nothing_is_left(running: Running) -> None:
    before = running.text()
    answer = running.ask("work 1000")
    with running.attach("uprobe:PATH:work { @ = count(); }") as loaded:
        assert running.text() != before
        assert running.ask("work 1000") == answer
        assert total(loaded, "percpu") == 1000
        loaded.detach()
        assert running.text() == before
        assert running.ask("work 1000") == answer
        assert total(loaded, "percpu") == 1000
    assert running.text() == before and not running.traces()
    assert running.ask("work 1000") == answer


def test_who_makes_an_entry_undoes_nothing(running: Running) -> None:
    """Threads on one CPU that make the same entries at the same time: each key is new to all of them."""
    os.sched_setaffinity(running.pid, {min(os.sched_getaffinity(running.pid))})
    with running.attach("uprobe:PATH:work { @k[arg0] = count(); } uprobe:PATH:work { @ = count(); }") as loaded:
        running.ask("threads 4000")
        values = [value for _, copies in loaded.maps["AT_k"].items() for value in copies]
        counted = sum(int.from_bytes(value[:8], "little") for value in values)
        assert counted + loaded.maps["AT_k"].lost == 8 * 4000
        assert loaded.worker is not None and not loaded.worker.lost


def test_threads_lose_no_count(running: Running) -> None:
    script = "uprobe:PATH:work { @ = count(); @k[arg0 & 3] = count(); @a = avg(arg0); @m = max(arg0); }"
    with running.attach(script) as loaded:
        running.ask("threads 20000")
        assert total(loaded, "percpu", bytes(4)) >= 160000
        table = loaded.maps["AT_k"]
        counts = [total(loaded, "AT_k", key) for key, _ in table.items()]
        # One that has to wait while another thread, which has no CPU, is about to enter the same key gives up, and that is counted.
        assert len(counts) == 4 and max(counts) <= 40000 and sum(counts) + table.lost == 160000


def test_records_hold_arguments_and_strings(running: Running) -> None:
    script = 'uprobe:PATH:work { printf("%d %s %d %d", arg0, str(arg1), pid, tid); }'
    with running.attach(script) as loaded:
        running.ask("work 3")
        found = records(loaded)
        assert len(found) == 3
        for number, record in enumerate(found):
            assert struct.pack("<Q", number) in record
            assert b"a name that is long enough to cross several words\0" in record
            assert record.count(struct.pack("<I", running.pid)) >= 2


def test_a_bad_pointer_is_an_error_of_the_helper_and_harms_nobody(running: Running) -> None:
    with running.attach("uprobe:PATH:work { @[str(arg1)] = count(); }") as loaded:
        answer = running.ask("bad 20")
        assert [total(loaded, "AT_", key) for key, _ in loaded.maps["AT_"].items()] == [20]
    assert running.ask("bad 20") == answer


def test_all_arguments(running: Running) -> None:
    script = "uprobe:PATH:six { @[arg0, arg1, arg2, arg3, arg4, arg5] = count(); }"
    with running.attach(script) as loaded:
        assert running.ask("six") == 654321
        keys = [struct.unpack("<6Q", key) for key, _ in loaded.maps["AT_"].items()]
        assert keys == [(1, 20, 300, 4000, 50000, 600000)]


@pytest.mark.parametrize("probe", ["uprobe:PATH:six", "uretprobe:PATH:six"])
def test_registers_that_are_the_same_everywhere_in_user_space(running: Running, probe: str) -> None:
    script = f'{probe} {{ @[reg("cs"), reg("ss"), reg("orig_ax"), reg("flags") & 0x202, usermode] = count(); }}'
    with running.attach(script) as loaded:
        assert running.ask("six") == 654321
        ((key, _),) = loaded.maps["AT_"].items()
        assert struct.unpack_from("<4Q", key) == (0x33, 0x2B, (1 << 64) - 1, 0x202) and key[32] == 1


def test_what_is_the_programs_own_is_read_as_the_kernels_is_by_the_kernel(running: Running) -> None:
    """Its stack and the values of its maps: by loops, and by functions on strings. Nothing else, be it there or not."""
    script = """uprobe:PATH:six {
        $sum = 0; for ($i : 0..arg2 / 100) { $sum += $i + 1; }
        $text = "some text"; $long = str($text, 4);
        @[$sum, strlen($text), strlen($long)] = count();
        @other[*kptr((uint64 *)reg("sp") + 64)] = count();
    }"""
    with running.attach(script) as loaded:
        assert running.ask("six") == 654321
        ((key, _),) = loaded.maps["AT_"].items()
        assert struct.unpack("<3Q", key) == (6, 9, 3)
        assert [key for key, _ in loaded.maps["AT_other"].items()] == [bytes(8)]


def test_returns(running: Running) -> None:
    with running.attach("uretprobe:PATH:work { @[retval] = count(); }") as loaded:
        answer = running.ask("work 10")
        keys = sorted(struct.unpack("<Q", key)[0] for key, _ in loaded.maps["AT_"].items())
        assert keys == [2 * n + 1 for n in range(10)]
    assert running.ask("work 10") == answer


def test_entry_and_return_of_a_deep_recursion(running: Running) -> None:
    with running.attach("uprobe:PATH:depth { @e = count(); } uretprobe:PATH:depth { @r = count(); }") as loaded:
        assert running.ask("depth 3000") == 3001
        counts = loaded.maps["percpu"].lookup(bytes(4)) or []
        sums = [sum(int.from_bytes(value[at : at + 8], "little") for value in counts) for at in (0, 8)]
        assert sums == [3001, 3001]


def test_longjmp_through_a_probed_function(running: Running) -> None:
    with running.attach("uretprobe:PATH:jumps { @ = count(); }") as loaded:
        assert running.ask("jumps 1000") == sum(range(0, 1000, 2))
        assert total(loaded, "percpu") == 500


def test_flags_survive_in_the_middle_of_a_function(running: Running) -> None:
    expected = running.ask("flags")
    with running.attach(f'uprobe:PATH:{inside(running.path)} {{ @ = count(); @s[reg("ax")] = count(); }}') as loaded:
        assert running.ask("flags") == expected
        assert total(loaded, "percpu") == 3
    assert expected == 177


def inside(path: str) -> str:
    """The address of the label in the middle of `flags`."""
    output = subprocess.run(["nm", path], capture_output=True, text=True, check=True).stdout
    return next("0x" + line.split()[0] for line in output.splitlines() if line.endswith(" inside"))


def test_a_child_of_fork_goes_on_counting_as_itself(running: Running) -> None:
    with running.attach("uprobe:PATH:work { @[pid, tid] = count(); }") as loaded:
        running.ask("work 10")
        child = running.ask("fork 25")
        counts = {struct.unpack("<II", key[:8]): total(loaded, "AT_", key) for key, _ in loaded.maps["AT_"].items()}
        assert counts == {(running.pid, running.pid): 10, (child, child): 25}


def test_system_calls_by_name(running: Running) -> None:
    script = """
    tracepoint:syscalls:sys_enter_close { @[args.fd] = count(); }
    tracepoint:syscalls:sys_exit_close { @r[args.ret] = count(); }
    tracepoint:syscalls:sys_enter_getppid { @p = count(); }
    """
    with running.attach(script) as loaded:
        assert running.ask("calls 5") == 5
        fds = {
            struct.unpack("<q", key)[0] & 0xFFFFFFFF: total(loaded, "AT_", key) for key, _ in loaded.maps["AT_"].items()
        }
        assert fds == {-1 - n & 0xFFFFFFFF: 1 for n in range(5)}
        assert [(struct.unpack("<q", key), total(loaded, "AT_r", key)) for key, _ in loaded.maps["AT_r"].items()] == [
            ((-9,), 5)
        ]
        assert total(loaded, "percpu") == 5
    assert not running.traces()


def test_all_system_calls(running: Running) -> None:
    script = "tracepoint:raw_syscalls:sys_enter { @[args.id] = count(); } tracepoint:raw_syscalls:sys_exit { @r[args.id] = count(); }"
    with running.attach(script) as loaded:
        running.ask("calls 7")
        child = running.ask("fork 1")
        assert child > 0
        for name in ("AT_", "AT_r"):
            counts = {struct.unpack("<q", key)[0]: total(loaded, name, key) for key, _ in loaded.maps[name].items()}
            assert (counts[110], counts[3]) == (7, 7)  # getppid, close


def test_a_thread_that_waits_in_a_system_call_is_led_out(running: Running) -> None:
    loaded = running.attach(
        "tracepoint:syscalls:sys_enter_clock_nanosleep { @ = count(); } tracepoint:syscalls:sys_exit_clock_nanosleep { @r = count(); }"
    )
    before = time.monotonic()
    running.say("sleep 600")
    time.sleep(0.2)
    loaded.close()
    assert not running.traces()
    assert running.hear() == 0
    assert time.monotonic() - before >= 0.6


def test_samples_of_a_busy_thread(running: Running) -> None:
    """No privilege is needed for what a process of one's own does in user space."""
    loaded = attach_or_skip(
        running,
        "profile:hz:997 { @[comm, pid, ustack(1)] = count(); } software:page-faults:1 { @f = count(); }",
        "perf events",
    )
    with loaded:
        running.ask("work 100000000")
        assert loaded.worker is not None
        loaded.worker.work()
        found = [(key, total(loaded, "AT_", key)) for key, _ in loaded.maps["AT_"].items()]
        assert sum(count for _, count in found) >= 20
        assert all(key[:7] == b"target\0" and struct.unpack_from("<I", key, 16) == (running.pid,) for key, _ in found)


def test_no_sample_is_left_lying(running: Running) -> None:
    """The kernel says once that there are samples: to whoever asks first, and that is the loop that waits for the worker."""
    loaded = attach_or_skip(running, "profile:hz:997 { @ = count(); }", "perf events")

    def cpu_s() -> float:
        fields = Path(f"/proc/{running.pid}/stat").read_text().rpartition(") ")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    with loaded:
        assert loaded.worker is not None
        before = cpu_s()
        running.say("work 1000000000")
        while cpu_s() < before + 0.3:
            select.select([loaded.worker.fileno()], [], [], 1)
            loaded.worker.work()
        spent = cpu_s() - before
        seen = total(loaded, "percpu") + loaded.worker.lost
        running.hear()
    assert 0.6 * 997 * spent < seen < 1.5 * 997 * (spent + 0.1)


def test_samples_read_the_memory_of_the_process(running: Running) -> None:
    loaded = attach_or_skip(
        running, f"profile:hz:997 {{ @[str({running.address('name')})] = count(); }}", "perf events"
    )
    with loaded:
        running.ask("work 100000000")
        assert loaded.worker is not None
        loaded.worker.work()
        texts = {key[: key.index(0)] for key, _ in loaded.maps["AT_"].items()}
        assert texts == {b"a name that is long enough to cross several words"}


def test_a_probe_on_the_memory_of_the_process(running: Running) -> None:
    loaded = attach_or_skip(
        running, f"watchpoint:{running.address('watched'):#x}:8:w {{ @ = count(); }}", "debug registers"
    )
    with loaded:
        running.ask("write 12")
        assert loaded.worker is not None
        loaded.worker.work()
        assert total(loaded, "percpu") == 12


def await_probes(loaded: UserObject, pid: int) -> None:
    """Do what a session does, until sonde is in the process again."""
    deadline = time.monotonic() + 10
    while "sonde-agent" not in Path(f"/proc/{pid}/maps").read_text():
        assert time.monotonic() < deadline, loaded.notes
        loaded.look()
        time.sleep(0.005)
    for _ in range(10):  # what its loader has brought meanwhile
        loaded.look()
        time.sleep(0.005)


def test_the_next_program_is_probed_too(running: Running) -> None:
    with running.attach(
        "uprobe:PATH:work { @ = count(); } tracepoint:syscalls:sys_enter_getppid { @p = count(); }"
    ) as loaded:
        running.ask("work 10")
        running.say("exec")
        assert running.process.stdout is not None and running.process.stdout.readline() == "ready\n"
        assert not running.traces()
        await_probes(loaded, running.pid)
        running.ask("work 5")
        running.ask("calls 3")
        counts = loaded.maps["percpu"].lookup(bytes(4)) or []
        sums = [sum(int.from_bytes(value[at : at + 8], "little") for value in counts) for at in (0, 8)]
        assert sorted(sums) == [3, 15]
        assert all("system calls made at" in note for note in loaded.notes)
    assert not running.traces()


def test_a_library_that_is_loaded_later(tmp_path: Path) -> None:
    library = str(tmp_path / "late.so")
    source = 'long late(long a) { __asm__ volatile(""); return a + 1; }'
    subprocess.run(
        ["gcc", "-O1", "-shared", "-fPIC", "-x", "c", "-", "-o", library], input=source, text=True, check=True
    )
    text = "import ctypes, sys\nprint('ready', flush=True)\nlib = None\nfor line in sys.stdin:\n"
    text += f" lib = lib or ctypes.CDLL({library!r})\n print(sum(lib.late(n) for n in range(int(line))), flush=True)\n"
    process = subprocess.Popen([sys.executable, "-c", text], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None and process.stdout is not None
    try:
        assert process.stdout.readline() == "ready\n"
        spec = compile(
            f"uprobe:{library}:late {{ @ = count(); }}", user_target(live_target()), TraceOptions(pid=process.pid)
        )
        with UserEngine(process.pid).load(spec) as loaded:
            assert "waits" in loaded.attach(spec.probes)[0].how
            for number, total_ in ((3, 0), (20, 20), (5, 25)):
                process.stdin.write(f"{number}\n")
                process.stdin.flush()
                process.stdout.readline()
                loaded.look()
                assert total(loaded, "percpu") == total_
    finally:
        process.kill()
        process.communicate()


def test_usdt_with_a_semaphore(tmp_path: Path) -> None:
    path = str(tmp_path / "target")
    done = subprocess.run(
        ["gcc", "-O2", "-DPROBES", "-x", "c", "-", "-o", path, "-lpthread"],
        input=SOURCE,
        text=True,
        capture_output=True,
    )
    if "sys/sdt.h" in done.stderr:
        pytest.skip("needs sys/sdt.h (Debian package systemtap-sdt-dev)")
    running = Running(path)
    try:
        assert running.ask("usdt 5") == 0
        with running.attach(
            "usdt:PATH:app:plain { @[arg0, str(arg1, 7)] = count(); } usdt:PATH:app:counted { @c[arg0] = count(); }"
        ) as loaded:
            assert running.ask("usdt 5") == 5
            keys = sorted(struct.unpack_from("<q", key)[0] for key, _ in loaded.maps["AT_c"].items())
            assert keys == [0, 1000, 2000, 3000, 4000]
            assert sorted((struct.unpack_from("<q", key)[0], key[8:14]) for key, _ in loaded.maps["AT_"].items()) == [
                (n, b"a name") for n in range(5)
            ]
        assert running.ask("usdt 5") == 0
    finally:
        running.process.kill()
        running.process.communicate()


EXCEPTIONS = r"""
#include <cstdio>
#include <cstring>
#include <execinfo.h>
#include <stdexcept>
#define EXPORT extern "C" __attribute__((noinline, noclone, used))
EXPORT int thrower(int n) { asm volatile(""); if (n % 3 == 0) throw std::runtime_error("x"); return n; }
EXPORT int middle(int n) { asm volatile(""); int r = thrower(n); asm volatile("" ::: "memory"); return r + 1; }
EXPORT int outer(int n) { try { return middle(n); } catch (std::exception &) { return -1; } }
EXPORT int deep(int n) { asm volatile(""); if (!n) { void *b[99]; return backtrace(b, 99); } int r = deep(n - 1); asm volatile("" ::: "memory"); return r; }
int main() {
  char line[100];
  setvbuf(stdout, 0, _IOLBF, 0);
  int frames = deep(10);
  puts("ready");
  while (fgets(line, sizeof line, stdin)) {
    long sum = 0;
    for (int i = 0; i < 30; i++) sum += outer(i);
    printf("%ld\n", deep(10) == frames ? sum : -1);
  }
}
"""


def test_exceptions_and_backtraces_through_probed_functions(tmp_path: Path) -> None:
    if not shutil.which("g++"):
        pytest.skip("needs g++")
    path = str(tmp_path / "throws")
    subprocess.run(
        ["g++", "-O1", "-fno-optimize-sibling-calls", "-x", "c++", "-", "-o", path],
        input=EXCEPTIONS,
        text=True,
        check=True,
    )
    running = Running(path)
    try:
        expected = running.ask("")
        probes = " ".join(
            f"uretprobe:PATH:{name} {{ @{name[0]} = count(); }}" for name in ("outer", "middle", "thrower", "deep")
        )
        with running.attach(probes) as loaded:
            assert expected == running.ask("") > 0
            counts = loaded.maps["percpu"].lookup(bytes(4)) or []
            sums = sorted(
                sum(int.from_bytes(value[at : at + 8], "little") for value in counts) for at in range(0, 32, 8)
            )
            assert sums == [0, 20, 20, 20]  # what was unwound is not seen to return, nor what backtrace has looked at
        assert running.ask("") == expected
    finally:
        running.process.kill()
        running.process.communicate()


def test_begin_and_end_run_in_sonde_on_the_same_maps(running: Running) -> None:
    with running.attach("begin { @ = 5; } uprobe:PATH:work { @ += 1; } end { @ += 100; }") as loaded:
        loaded.run(next(p.program for p in loaded.spec.probes if p.type == "begin"))
        running.ask("work 3")
        loaded.run(next(p.program for p in loaded.spec.probes if p.type == "end"))
        view = next(v for v in loaded.spec.views if v.name == "@")
        value = (loaded.maps[view.map].lookup(bytes(4)) or [b""])[0]
        assert struct.unpack_from("<q", value, view.offset) == (108,)


def test_what_another_tracer_has_changed_is_refused(running: Running) -> None:
    first = running.attach("uprobe:PATH:work { @ = count(); }")
    try:
        with pytest.raises(ProbeError, match="other instructions"):
            running.attach("uprobe:PATH:work { @ = count(); }")
        running.ask("work 5")
        assert total(first, "percpu") == 5
    finally:
        first.close()


def test_a_program_that_came_after_the_one_that_was_looked_at_is_left_alone(running: Running) -> None:
    """exec between loading and attaching: the jumps that were planned would lead to memory that is gone."""
    spec = running.compile("uprobe:PATH:work { @ = count(); }")
    with UserEngine(running.pid).load(spec) as loaded:
        running.say("exec")
        assert running.process.stdout is not None and running.process.stdout.readline() == "ready\n"
        before = running.text()
        with pytest.raises(TargetError, match="another program"):
            loaded.attach(spec.probes)
        assert running.text() == before
        assert running.ask("work 3") == running.ask("work 3")


def test_a_ring_s_pages_are_there_before_the_first_record(running: Running) -> None:
    """Making a page costs the process microseconds when it is the first to write there, and having one mapped costs it one."""
    if tuple(int(word) for word in platform.release().split(".")[:2]) < (5, 14):
        pytest.skip("needs madvise(MADV_POPULATE_WRITE), Linux 5.14")
    with running.attach('uprobe:PATH:work { printf("%d\\n", arg0); }') as loaded:
        running.ask("work 1")
        before = running.faults()
        running.ask("work 8000")
        assert running.faults() - before < 10, "of more than 30 pages"
        assert len(records(loaded)) == 8001


def test_a_ring_that_is_read_in_time_stays_in_its_first_pages(running: Running) -> None:
    """Nobody wants megabytes added to a process for lines that come now and then; a burst may have them."""
    with running.attach('uprobe:PATH:work { printf("%d %s\\n", arg0, "a line that is a bit longer"); }') as loaded:
        running.ask("work 1")
        before = running.shared_kib()
        reader = loaded.reader()

        def read() -> int:
            return reader.drain(lambda buffer, start, size: None)

        assert read() == 1
        for _ in range(40):
            running.ask("work 3000")
            assert read() == 3000
        assert running.shared_kib() - before < 300, "120,000 records are some megabytes"
        running.ask("work 30000")
        assert read() == 30000
        assert running.shared_kib() - before > 500


def test_files_are_read_while_the_process_runs(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a file tells about a place takes milliseconds: no thread stands still for it."""
    states, planned = [], Text.plan

    def plan(self: Text, at: int, **how: object) -> Window:
        states.append(state_of(running.pid, running.pid))
        return planned(self, at, **how)  # type: ignore[arg-type]

    monkeypatch.setattr(Text, "plan", plan)
    script = "uprobe:PATH:work { @w = count(); } uretprobe:PATH:six { @r = count(); } tracepoint:syscalls:sys_enter_close { @c = count(); }"
    with running.attach(script):
        assert running.traces()
    assert len(states) > 5 and "t" not in states


def test_a_program_that_is_not_safe_never_gets_there(running: Running) -> None:
    from sonde.record import replace

    spec = running.compile("uprobe:PATH:work { @ = count(); }")
    program = spec.programs[0]
    wild = struct.pack("<BBhi", 0x79, 0x10, 4096, 0) + program.insns[-8:]  # r0 = *(u64 *)(r1 + 4096); exit
    broken = replace(spec, programs=(replace(program, insns=wild, relocs=(), lines=()),))
    before = running.text()
    with pytest.raises(UnsafeError, match="may not run in another process"):
        UserEngine(running.pid).load(broken)
    assert running.text() == before and not running.traces()

"""Stacks by unwind tables, in the process: of code that keeps no frame pointer, each address held against what glibc's backtrace() finds at the same place.

The program says what it has found itself: the address of `here`, then those of backtrace() in it, whose first one lies in `here` too.
"""

from __future__ import annotations

import os
import platform
import select
import shutil
import struct
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from user_running import Running

from sonde.debuginfo import cfa
from sonde.debuginfo.ehframe import read_unwind_table
from sonde.debuginfo.elf import Elf
from sonde.debuginfo.procmaps import find_mapping, read_maps
from sonde.user.cleaning import remove_agents
from sonde.user.engine import UserObject

pytestmark = [
    pytest.mark.skipif(platform.machine() != "x86_64", reason="unwind tables are followed on x86-64 only"),
    pytest.mark.skipif(not shutil.which("gcc"), reason="needs gcc"),
]

SOURCE = r"""
#define _GNU_SOURCE
#include <alloca.h>
#include <dlfcn.h>
#include <execinfo.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>
#define APART __attribute__((noipa))
#define MOST 120

static __thread void *found[MOST];
static __thread int count;
static int quiet;
APART int here(int x) { if (quiet) return x; found[0] = here; getppid(); count = backtrace(found + 1, MOST - 1) + 1; return x + count; }
APART void tell(void) { for (int i = 0; i < count; i++) printf("%lx ", (long)found[i]); }

APART int recursion(int n) { volatile int k = n; return (n ? recursion(n - 1) : here(n)) + k; }
APART int variable(int n) { volatile char a[n + 1]; char *b = alloca(n * 7 + 1); a[n] = b[n] = 1; return (n ? variable(n - 1) : here(n)) + a[n] + b[n]; }
APART int aligned(int n) { _Alignas(128) volatile char a[256]; char *b = alloca(n + 1); a[n] = b[n] = n; return (n ? aligned(n - 1) : here(n)) + a[n] + b[n]; }
APART int busy(int n) { volatile int k = n; if (n) return busy(n - 1) + k; here(0); for (volatile long i = 0; i < 300000000; i++); return k; }
APART int large(int n) { volatile char a[300000]; a[n] = n; return (n ? large(n - 1) : here(n)) + a[n]; }
APART int mixed(int n);
APART __attribute__((optimize("no-omit-frame-pointer"))) int framed(int n) { return (n ? mixed(n - 1) : here(n)) + 1; }
APART int mixed(int n) { volatile int k = n; return (n & 1 ? framed(n) : n ? mixed(n - 1) : here(n)) + k; }
static int compare(const void *a, const void *b) { return recursion(2) ? *(int *)a - *(int *)b : 0; }
APART int sorting(int n) { int v[2] = {2, 1}; qsort(v, 2, sizeof *v, compare); return v[0]; }
static void handler(int s) { recursion(s & 1); }
APART int interrupted(int n) { return raise(n ? SIGUSR1 : SIGUSR2) + n; }
APART int trapped(int n) { __asm__ volatile("ud2" ::: "memory", "rbx", "r12"); return n; }
static void on_trap(int s, siginfo_t *i, void *context) { recursion(1); ((ucontext_t *)context)->uc_mcontext.gregs[REG_RIP] += 2; }

/* Its pushes are told; what it calls is the last instruction of its own. */
int steps(int);
__asm__(".text\n.globl steps\n.type steps,@function\nsteps:\n.cfi_startproc\n push %rbx\n.cfi_adjust_cfa_offset 8\n.cfi_offset rbx,-16\n"
        " push %rbp\n.cfi_adjust_cfa_offset 8\n.cfi_offset rbp,-24\n mov $-1,%rbp\n sub $24,%rsp\n.cfi_adjust_cfa_offset 24\n call here\n"
        " add $24,%rsp\n.cfi_adjust_cfa_offset -24\n pop %rbp\n.cfi_restore rbp\n.cfi_adjust_cfa_offset -8\n pop %rbx\n.cfi_restore rbx\n"
        ".cfi_adjust_cfa_offset -8\n ret\n.cfi_endproc\n.size steps,.-steps\n");

/* They lie: whoever believes them reads where nothing is, goes round in circles, or reads half a word. */
#define LIAR(name, cfi) __asm__(".text\n.globl " #name "\n.type " #name ",@function\n" #name ":\n.cfi_startproc\n push %rbp\n mov $-1,%rbp\n" cfi \
  " call silent\n pop %rbp\n ret\n.cfi_endproc\n.size " #name ",.-" #name "\n"); int name(int);
LIAR(lie_far, ".cfi_def_cfa_offset 0x7ffffff0\n")
LIAR(lie_fp, ".cfi_def_cfa rbp,16\n")
LIAR(lie_back, ".cfi_def_cfa_offset -16\n")
LIAR(lie_odd, ".cfi_def_cfa_offset 13\n")
LIAR(lie_same, ".cfi_def_cfa_offset 0\n")
LIAR(lie_saved, ".cfi_def_cfa_offset 16\n.cfi_offset rbp,32760\n")
LIAR(lie_deref, ".cfi_escape 0x0f,3,0x76,0,6\n")
LIAR(lie_null, ".cfi_escape 0x0f,6,0x77,0,6,0x23,200,1\n")
LIAR(lie_return, ".cfi_def_cfa_offset 16\n.cfi_undefined rip\n")
APART int silent(int x) { return x; }

int hidden(int (*)(int), int);
static int (*made)(int (*)(int), int);
static void make(void) { /* a compiler at run time: push rbp; mov rbp,rsp; mov rax,rdi; mov edi,esi; call rax; pop rbp; ret */
  static const unsigned char code[] = {0x55, 0x48, 0x89, 0xe5, 0x48, 0x89, 0xf8, 0x89, 0xf7, 0xff, 0xd0, 0x5d, 0xc3};
  made = mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  memcpy((void *)made, code, sizeof code);
}

static int gate[2];
static pid_t child;
static int (*loaded)(int (*)(int), int);
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static void *thread(void *number) {
  int n = (int)(long)number;
  for (int i = 0; i < 300; i++) (n & 1 ? variable : recursion)(n);
  pthread_mutex_lock(&lock); tell(); printf("; "); pthread_mutex_unlock(&lock);
  return NULL;
}

APART int work(const char *what, int n) {
  static const struct { const char *name; int (*f)(int); } all[] = {
    {"recursion", recursion}, {"variable", variable}, {"aligned", aligned}, {"large", large}, {"busy", busy}, {"mixed", mixed}, {"sorting", sorting}, {"interrupted", interrupted},
    {"trapped", trapped}, {"steps", steps}, {"lie_far", lie_far}, {"lie_fp", lie_fp}, {"lie_back", lie_back}, {"lie_odd", lie_odd}, {"lie_same", lie_same},
    {"lie_saved", lie_saved}, {"lie_deref", lie_deref}, {"lie_null", lie_null}, {"lie_return", lie_return} };
  if (!strcmp(what, "hidden")) return hidden(recursion, n) + 1;
  if (!strcmp(what, "made")) return made(recursion, n) + 1;
  if (!strcmp(what, "loaded")) return loaded(recursion, n) + 1;
  for (unsigned i = 0; i < sizeof all / sizeof *all; i++) if (!strcmp(what, all[i].name)) return all[i].f(n) + 1;
  return 0;
}

int main(int argc, char **argv) {
  char line[300], what[250];
  int n;
  static char stack[1 << 16];
  stack_t alternate = {.ss_sp = stack, .ss_size = sizeof stack};
  sigaltstack(&alternate, NULL);
  struct sigaction action = {.sa_handler = handler};
  sigaction(SIGUSR1, &action, NULL);
  action.sa_flags = SA_ONSTACK;
  sigaction(SIGUSR2, &action, NULL);
  struct sigaction trap = {.sa_sigaction = on_trap, .sa_flags = SA_SIGINFO};
  sigaction(SIGILL, &trap, NULL);
  make();
  here(0);  /* which loads libgcc */
  puts("ready"); fflush(stdout);
  while (fgets(line, sizeof line, stdin) && sscanf(line, "%249s %d", what, &n) == 2) {
    count = 0;
    if (!strcmp(what, "threads")) {
      pthread_t t[16];
      for (long i = 0; i < 16; i++) pthread_create(&t[i], NULL, thread, (void *)i);
      for (int i = 0; i < 16; i++) pthread_join(t[i], NULL);
    } else if (!strcmp(what, "fork")) {
      char c;
      pipe(gate);
      if (!(child = fork())) { close(gate[1]); if (read(gate[0], &c, 1) == 1) work("sorting", n); tell(); puts(""); fflush(stdout); _exit(0); }
    } else if (!strcmp(what, "release")) {
      write(gate[1], "x", 1);
      waitpid(child, NULL, 0);
    } else if (!strcmp(what, "exec")) {
      execl("/proc/self/exe", argv[0], NULL);
    } else if (!strcmp(what, "quiet")) {
      quiet = n;
    } else if (*what == '/') {
      void *library = dlopen(what, RTLD_NOW);
      loaded = library ? (int (*)(int (*)(int), int))dlsym(library, "loaded") : NULL;
    } else work(what, n);
    tell(); puts(""); fflush(stdout);
  }
  return 0;
}
"""
HIDDEN = "int NAME(int (*f)(int), int n) { volatile int kept = n; return f(kept) + kept; }"
LIBRARY = r"""
#include <execinfo.h>
#include <stdlib.h>
void *found[120];
int count;
__attribute__((noipa)) void *asks(void) { count = backtrace(found, 120); void *got = malloc(123457); __asm__ volatile("" ::: "memory"); return got; }
__attribute__((noipa)) int compare(const void *a, const void *b) { free(asks()); return 0; }
__attribute__((noipa)) int ask(void) { int v[2] = {2, 1}; qsort(v, 2, sizeof *v, compare); return count; }
"""
OPTIONS = ["-O2", "-fomit-frame-pointer", "-w"]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program, and a library for it to load."""
    place = tmp_path_factory.mktemp("unwind")
    untold = ["-fno-asynchronous-unwind-tables", "-fno-unwind-tables", "-fno-exceptions"]
    for name, text, options in (
        ("hidden.o", HIDDEN.replace("NAME", "hidden"), ["-c", *untold]),
        ("program", SOURCE, [str(place / "hidden.o"), "-lpthread", "-ldl"]),
        ("loaded.so", HIDDEN.replace("NAME", "loaded"), ["-shared", "-fPIC"]),
        ("asking.so", LIBRARY, ["-shared", "-fPIC"]),
    ):
        source = (place / name).with_suffix(".c")
        source.write_text(text)
        subprocess.run(["gcc", *OPTIONS, "-o", place / name, source, *options], check=True)
    return place


@pytest.fixture
def running(built: Path) -> Iterator[Running]:
    program = Running(str(built / "program"))
    yield program
    assert program.process.poll() is None, "the program has ended"
    program.close()


def ask(running: Running, line: str) -> list[int]:
    """What the program has found itself."""
    running.say(line)
    assert running.process.stdout is not None
    return [int(word, 16) for word in running.process.stdout.readline().split()]


def stacks(loaded: UserObject) -> set[tuple[int, ...]]:
    """The stacks that were taken, whatever probe took them."""
    taken = set()
    for name, table in loaded.maps.items():
        if name.startswith("stacks"):
            for _, (value, *_) in table.items():
                size = struct.unpack_from("<Q", value)[0]
                taken.add(struct.unpack_from(f"<{size}Q", value, 8))
    return taken


HERE = "uprobe:PATH:here { @[ustack] = count(); }"


@pytest.mark.parametrize(
    "line", ["recursion 0", "recursion 50", "variable 7", "aligned 5", "large 3", "mixed 9", "sorting 0", "interrupted 0", "interrupted 1", "trapped 1", "steps 1"]
)  # fmt: skip
def test_each_address_is_as_backtrace_has_it(running: Running, line: str) -> None:
    with running.attach(HERE, unwind="dwarf") as loaded:
        found = ask(running, line)
        (taken,) = stacks(loaded)
    assert taken[0] == found[0] and list(taken[1:]) == found[2:]
    assert len(taken) > 5 and not running.traces()


def test_by_frame_pointers_it_is_shorter(running: Running) -> None:
    with running.attach(HERE) as loaded:
        found = ask(running, "sorting 0")
        (taken,) = stacks(loaded)
    assert len(taken) < len(found) - 1


def test_a_limit_and_frames_to_be_skipped(running: Running) -> None:
    with running.attach(
        "uprobe:PATH:here { @[ustack(perf, 5)] = count(); @b[ustack(3)] = count(); }", unwind="dwarf"
    ) as loaded:
        found = ask(running, "recursion 50")
        taken = sorted(stacks(loaded), key=len)
    assert taken == [(found[0], *found[2:4]), (found[0], *found[2:6])]


def test_code_without_rows_is_the_end(running: Running) -> None:
    with running.attach(HERE, unwind="dwarf") as loaded:
        found = ask(running, "hidden 3")
        (taken,) = stacks(loaded)
    hidden = running.address("hidden")
    assert len(taken) == 6 and list(taken[1:]) == found[2:] and hidden < taken[-1] < hidden + 64


def test_code_of_a_jit_compiler_keeps_frame_pointers(running: Running) -> None:
    with running.attach(HERE, unwind="dwarf") as loaded:
        made, plain = ask(running, "made 3"), ask(running, "recursion 3")
        taken = next(stack for stack in stacks(loaded) if len(stack) > len(plain) - 1)
    assert list(taken[1 : len(made) - 1]) == made[2:]  # backtrace ends there
    assert list(taken[len(made) :]) == plain[-len(taken) + len(made) :] and len(taken) == len(plain)


def test_all_threads(running: Running) -> None:
    with running.attach(HERE, unwind="dwarf") as loaded:
        running.say("threads 0")
        assert running.process.stdout is not None
        lines = running.process.stdout.readline().split(";")
        found = [[int(word, 16) for word in line.split()] for line in lines if line.strip()]
        taken = stacks(loaded)
    assert len(found) == 16
    assert taken == {(stack[0], *stack[2:]) for stack in found}


def test_return_probes_in_the_middle(running: Running) -> None:
    script = (
        HERE
        + " uretprobe:PATH:recursion { @r = count(); } uretprobe:PATH:compare { @c = count(); } uretprobe:PATH:here { @h = count(); }"
    )
    with running.attach(script, unwind="dwarf") as loaded:
        found = ask(running, "sorting 0")
        (taken,) = stacks(loaded)
    assert taken[0] == found[0] and list(taken[1:]) == found[2:]


def test_system_calls(running: Running) -> None:
    """The place is in the C library, in the middle of a function, below which the red zone is kept."""
    with running.attach("tracepoint:syscalls:sys_enter_getppid { @[ustack] = count(); }", unwind="dwarf") as loaded:
        found = ask(running, "sorting 0")
        (taken,) = stacks(loaded)
    assert running.address("here") < taken[1] < found[1] and list(taken[2:]) == found[2:] and len(taken) > 8


def test_samples(running: Running) -> None:
    """The kernel copies registers and stack; sonde walks it."""
    with running.attach("profile:hz:199 { @[ustack] = count(); }", unwind="dwarf") as loaded:
        assert loaded.worker is not None
        running.say("busy 6")
        assert running.process.stdout is not None
        found = [int(word, 16) for word in running.process.stdout.readline().split()]
        loaded.worker.work()
        taken = stacks(loaded)
    busy = running.address("busy")
    inside = [stack for stack in taken if busy <= stack[0] < busy + 200]
    assert any(list(stack[1:]) == found[3:] for stack in inside), (inside, found)
    assert len(found) > 12


def test_where_a_function_returns(running: Running) -> None:
    """Who has called each of three calls; backtrace() is not asked meanwhile, as returns that it has looked at are not seen."""
    found = ask(running, "recursion 2")
    ask(running, "quiet 1")
    with running.attach("uretprobe:PATH:recursion { @[ustack] = count(); }", unwind="dwarf") as loaded:
        ask(running, "recursion 2")
        taken = sorted((list(stack) for stack in stacks(loaded)), key=len)
    assert taken == [found[at:] for at in (5, 4, 3)]


@pytest.mark.parametrize("offset", [0, 1, 2, 9, 13, 18, 22, 23, 24])
def test_in_the_middle_of_a_function(running: Running, offset: int) -> None:
    """Wherever the stack pointer is: what is behind the first address is the same."""
    with running.attach(f"uprobe:PATH:steps+{offset} {{ @[ustack] = count(); }}", unwind="dwarf") as loaded:
        found = ask(running, "steps 1")
        (taken,) = stacks(loaded)
    assert taken[0] == running.address("steps") + offset and list(taken[1:]) == found[3:]


@pytest.mark.parametrize("name", ["far", "fp", "back", "odd", "same", "saved", "deref", "null", "return"])
def test_tables_that_lie_harm_nobody(running: Running, name: str) -> None:
    with running.attach("uprobe:PATH:silent { @[ustack] = count(); }", unwind="dwarf") as loaded:
        assert not ask(running, f"lie_{name} 1")
        (taken,) = stacks(loaded)
        assert ask(running, "recursion 1")
    assert (
        taken[0] == running.address("silent")
        and running.address(f"lie_{name}") < taken[1] < running.address(f"lie_{name}") + 80
    )
    assert len(taken) <= 4


def test_a_library_that_is_loaded_later(running: Running, built: Path) -> None:
    with running.attach(HERE, unwind="dwarf") as loaded:
        ask(running, f"{built / 'loaded.so'} 0")
        loaded.look()
        found = ask(running, "loaded 3")
        (taken,) = stacks(loaded)
        assert not loaded.notes
    assert taken[0] == found[0] and list(taken[1:]) == found[2:] and len(taken) > 8
    assert not running.traces()


def test_a_child_of_fork_does_not_have_what_its_parent_maps_later(running: Running, built: Path) -> None:
    with running.attach(HERE, unwind="dwarf") as loaded:
        assert ask(running, "fork 0") == []
        ask(running, f"{built / 'loaded.so'} 0")
        loaded.look()
        found = ask(running, "release 0")
        (taken,) = stacks(loaded)
        assert running.process.stdout is not None and running.process.stdout.readline() == "\n"
    assert (found[0], *found[2:]) == taken and len(taken) > 8


def test_the_next_program_has_tables_of_its_own(running: Running) -> None:
    with running.attach(HERE, unwind="dwarf") as loaded:
        assert ask(running, "recursion 3")
        running.say("exec 0")
        assert running.process.stdout is not None
        while not select.select([running.process.stdout], [], [], 0.01)[0]:
            loaded.look()
        assert running.process.stdout.readline() == "ready\n"
        while "sonde-agent" not in Path(f"/proc/{running.pid}/maps").read_text():
            loaded.look()
        loaded.look()
        found = ask(running, "sorting 0")
        assert (found[0], *found[2:]) in stacks(loaded) and len(found) > 10
    assert not running.traces()


def test_sonde_is_killed(running: Running) -> None:
    """The process goes on with the probe and its tables, and the next sonde takes them out."""
    script = f"uprobe:{running.path}:here {{ print(ustack(raw)); }}"
    words = [sys.executable, "-m", "sonde", "trace", "--unwind", "dwarf", "-p", str(running.pid), "-e", script]
    environ = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[3] / "src")}
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environ, text=True) as tracer:
        assert tracer.stdout is not None and "Attached" in tracer.stdout.readline()
        found = ask(running, "sorting 0")
        wanted = [f"{address:x}\n" for address in (found[0], *found[2:])]
        lines = (line.lstrip() for line in tracer.stdout if line.strip())
        assert [line for _, line in zip(wanted, lines)] == wanted
        tracer.kill()
    assert ask(running, "sorting 0") == found and running.traces()
    remove_agents(running.pid)
    assert ask(running, "sorting 0") == found and not running.traces()


def test_a_python_program_down_to_its_beginning(built: Path) -> None:
    """What malloc is called by, through libffi and the interpreter."""
    text = (
        "import ctypes, sys\n"
        f"library = ctypes.CDLL({str(built / 'asking.so')!r})\n"
        "def ask():\n"
        "    found = (ctypes.c_void_p * library.ask()).in_dll(library, 'found')\n"
        "    return ' '.join(hex(address)[2:] for address in found)\n"
        "print('ready', flush=True)\n"
        "for line in sys.stdin:\n"
        "    print(list(map(lambda _: ask(), [1]))[0], flush=True)\n"
    )
    program = Running(sys.executable, "-c", text)
    try:
        libc = next(m.path for m in read_maps(program.pid) if "/libc.so" in m.path or "/libc-" in m.path)
        script = f"uprobe:{libc}:malloc /arg0 == 123457/ {{ @[ustack] = count(); }}"
        with program.attach(script, unwind="dwarf") as loaded:
            found = ask(program, "go")
            (taken,) = stacks(loaded)
    finally:
        program.close()
    asks = taken[1]
    assert 0 < asks - found[0] < 64  # behind the call of malloc, which stands behind that of backtrace
    assert list(taken[2:]) == found[1:] and len(taken) > 15
    assert os.path.exists(libc)


WORK = """
import ctypes, decimal, hashlib, json, re, sqlite3, sys, threading, zlib
def work():
    for i in range(20):
        json.loads(json.dumps({"a": [i] * 50, "b": "x" * i})); re.compile("a%d(b|c)*" % i).match("abc"); hashlib.sha256(b"x" * 5000).hexdigest()
        zlib.compress(b"abc" * 1000); sorted([object() for _ in range(100)], key=id); decimal.Decimal(i) / 7
        c = sqlite3.connect(":memory:"); c.execute("create table t(a)"); c.execute("insert into t values (1)"); c.close()
print("ready", flush=True)
for line in sys.stdin:
    threads = [threading.Thread(target=work) for _ in range(2)]
    [thread.start() for thread in threads]; work(); [thread.join() for thread in threads]
    print(1, flush=True)
"""


def test_every_stack_of_a_python_program_with_threads_reaches_its_beginning() -> None:
    """Of all that calls malloc and free: where the program's first thread, or another one, has begun, nothing has called it, as its table says."""
    program = Running(sys.executable, "-c", WORK)
    try:
        libc = next(m.path for m in read_maps(program.pid) if "/libc.so" in m.path or "/libc-" in m.path)
        with program.attach(
            f"uprobe:{libc}:malloc, uprobe:{libc}:free {{ @[ustack] = count(); }}", unwind="dwarf"
        ) as loaded:
            assert program.ask("go") == 1
            taken = stacks(loaded)
            mappings = read_maps(program.pid)
    finally:
        program.close()
    assert len(taken) > 300
    ends = Counter(stack[-1] for stack in taken if len(stack) < 127)
    for address, count in ends.items():
        mapping = find_mapping(mappings, address)
        assert mapping is not None and mapping.is_file, (hex(address), count)
        with Elf.open(mapping.path) as elf:
            vaddr = elf.get_vaddr(address - mapping.start + mapping.offset)
            assert read_unwind_table(elf).find(vaddr - 1).cfa == cfa.END, (hex(address), mapping.path, count)
    assert len(ends) >= 2

"""Programs to be traced by the user engine's tests: built once in a run, started, talked to by lines.

The program says "ready" when it is, does what its arguments name, and at the end of its standard input prints what it has found: "ok" or what is wrong.
"""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

SOURCE = r"""
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* Of known bytes: nine of them in three instructions, of which the second takes most of the time. */
__asm__(".text\n.p2align 4\n.globl probed\n.type probed,@function\nprobed:\n"
        " push %rbp\n lock orl $0,(%rsp)\n mov %rdi,%rax\n add $1,%rax\n pop %rbp\n ret\n.size probed,.-probed\n"
        /* One of two instructions that take long: the counter is nearly always at the second of them. */
        ".globl slow\n.type slow,@function\nslow:\n xor %eax,%eax\n rep stosb\n nop\n nop\n ret\n.size slow,.-slow\n");
long probed(long);
void slow(char *to, long ignored, long ignored_too, long bytes);

static volatile int going = 1;
static volatile long wrong;
static atomic_long rounds;

static void *spin(void *unused) {
  long n = 0;
  while (going) {
    if (probed(n) != n + 1) wrong++;
    n++;
    if (!(n & 1023)) rounds += 1024;
  }
  return NULL;
}

static void *rest(void *unused) { while (going) usleep(20000); return NULL; }
static void *end(void *unused) { return unused; }
static void *breed(void *unused) {
  pthread_t t;
  while (going) if (!pthread_create(&t, NULL, end, NULL)) { pthread_join(t, NULL); rounds++; }
  return NULL;
}

static volatile long alarms, users, queued;
static void on_alarm(int s) { alarms++; }
static void on_user(int s) { users++; }
static void on_queued(int s, siginfo_t *i, void *c) { queued += i->si_value.sival_int; }

static double now(void) { struct timespec t; clock_gettime(CLOCK_MONOTONIC, &t); return t.tv_sec + t.tv_nsec / 1e9; }
static int pipes[2], sockets[2], epoll;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t wakeup = PTHREAD_COND_INITIALIZER;
static int awake;
#define WAIT 0.6
/* With a number as second argument, what signal(7) says of calls that end with EINTR when a process is stopped is taken into account: a tracer
   that is killed between stopping a thread and looking at it cannot prevent it. */
static int patient;
#define AGAIN(r, call) do r = call; while (patient && r == -1 && errno == EINTR)
#define CHECK(name, condition) do { double took = now() - t; if (!(condition)) { wrong++; \
  printf("%s: errno %d after %.2f s\n", name, errno, took); } return NULL; } while (0)
static void *wait_sleep(void *u) { double t = now(); struct timespec d = {0, WAIT * 1e9};
  int r = nanosleep(&d, NULL); CHECK("nanosleep", r == 0 && took > WAIT - 0.01 && took < WAIT + 1.2); }
static void *wait_poll(void *u) { double t = now(); int r = poll(NULL, 0, WAIT * 1000);
  CHECK("poll", r == 0 && took > WAIT - 0.01 && took < WAIT + 1.2); }
static void *wait_epoll(void *u) { double t = now(); struct epoll_event e; int r; AGAIN(r, epoll_wait(epoll, &e, 1, 90000));
  CHECK("epoll_wait", r == 1 && took < 80); }
static void *wait_read(void *u) { double t = now(); char c; int r = read(pipes[0], &c, 1); CHECK("read", r == 1 && c == 'x'); }
static void *wait_recv(void *u) { double t = now(); char c; int r; AGAIN(r, recv(sockets[0], &c, 1, 0)); CHECK("recv", r == 1 && c == 'y'); }
static void *wait_futex(void *u) { double t = now(); struct timespec d; clock_gettime(CLOCK_REALTIME, &d); d.tv_sec += 90;
  pthread_mutex_lock(&lock); int r = 0; while (!awake && !r) r = pthread_cond_timedwait(&wakeup, &lock, &d);
  pthread_mutex_unlock(&lock); CHECK("futex", r == 0 && took < 80); }
static void *wait_signal(void *u) { double t = now(); sigset_t s; sigemptyset(&s); sigaddset(&s, SIGUSR2);
  struct timespec d = {90, 0}; int r; AGAIN(r, sigtimedwait(&s, NULL, &d)); CHECK("sigtimedwait", r == SIGUSR2); }
static volatile int user_seen;
static void on_user_seen(int s) { user_seen = 1; }
static void *wait_pause(void *u) { double t = now(); int r = pause(); CHECK("pause", r == -1 && errno == EINTR && user_seen); }
static void *wait_suspend(void *u) { double t = now(); sigset_t s; sigfillset(&s); sigdelset(&s, SIGURG);
  int r = sigsuspend(&s); CHECK("sigsuspend", r == -1 && errno == EINTR && user_seen); }

static void waits(void) {
  void *(*all[])(void *) = {wait_sleep, wait_poll, wait_epoll, wait_read, wait_recv, wait_futex, wait_signal, wait_pause, wait_suspend};
  enum { N = sizeof all / sizeof *all };
  pthread_t t[N]; sigset_t s; struct epoll_event e = {EPOLLIN};
  struct timeval limit = {90, 0};
  sigemptyset(&s); sigaddset(&s, SIGUSR2); sigaddset(&s, SIGURG); pthread_sigmask(SIG_BLOCK, &s, NULL);
  signal(SIGUSR1, on_user_seen); signal(SIGURG, on_user_seen);
  struct sigaction plain = {.sa_handler = on_user_seen}; sigaction(SIGUSR1, &plain, NULL); sigaction(SIGURG, &plain, NULL);
  int bell[2]; pipe(bell); pipe(pipes); socketpair(AF_UNIX, SOCK_STREAM, 0, sockets);
  setsockopt(sockets[0], SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
  epoll = epoll_create1(0); epoll_ctl(epoll, EPOLL_CTL_ADD, bell[0], &e);
  for (int i = 0; i < N; i++) pthread_create(&t[i], NULL, all[i], NULL);
  usleep(50000); puts("ready"); fflush(stdout);
  char c; read(0, &c, 1);
  write(bell[1], "b", 1); write(pipes[1], "x", 1); write(sockets[1], "y", 1);
  pthread_mutex_lock(&lock); awake = 1; pthread_cond_broadcast(&wakeup); pthread_mutex_unlock(&lock);
  pthread_kill(t[6], SIGUSR2); pthread_kill(t[7], SIGUSR1); pthread_kill(t[8], SIGURG);
  for (int i = 0; i < N; i++) pthread_join(t[i], NULL);
}

static void *stuff(void *unused) {
  static char space[1 << 20];
  while (going) { slow(space, 0, 0, sizeof space); for (int i = 0; i < 4096; i++) if (space[i * 256]) wrong++; rounds++; }
  return NULL;
}
/* A restartable sequence (rseq(2)): it reads what a tracer may change, takes its time, and finds it unchanged, or is begun again. */
volatile long generation;
#ifndef __GLIBC_PREREQ
#define __GLIBC_PREREQ(major, minor) 0
#endif
#if __GLIBC_PREREQ(2, 35)
#include <sys/rseq.h>
static void *restartable(void *unused) {
  struct rseq *area = (struct rseq *)((char *)__builtin_thread_pointer() + __rseq_offset);
  if (!__rseq_size) { wrong++; return NULL; }
  while (going) {
    long torn = 0;
    __asm__ volatile(
        ".pushsection __rseq_cs, \"aw\"\n.balign 32\n3: .long 0, 0\n.quad 1f, 2f - 1f, 4f\n.popsection\n"
        "0: lea 3b(%%rip), %%rax\n mov %%rax, %[cs]\n"
        "1: mov generation(%%rip), %%rdx\n mov $20000, %%ecx\n"
        "5: dec %%ecx\n jnz 5b\n cmp generation(%%rip), %%rdx\n je 2f\n mov $1, %[torn]\n"
        "2: jmp 6f\n"
        ".byte 0x0f, 0xb9, 0x3d\n.long 0x53053053\n"
        "4: incq aborted(%%rip)\n jmp 0b\n6:\n"
        : [cs] "=m"(area->rseq_cs), [torn] "+r"(torn) : : "rax", "rcx", "rdx", "memory", "cc");
    wrong += torn;
    rounds++;
  }
  return NULL;
}
#else
#define restartable rest
#endif
volatile long aborted;
static void confine(void) { /* whoever calls memfd_create is killed */
  struct sock_filter { unsigned short code; unsigned char jt, jf; unsigned k; } code[] = {{0x20, 0, 0, 0}, {0x15, 0, 1, 319}, {0x06, 0, 0, 0x80000000}, {0x06, 0, 0, 0x7fff0000}};
  struct { unsigned short length; void *code; } program = {4, code};
  prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
  if (prctl(PR_SET_SECCOMP, 2, &program)) { perror("seccomp"); _exit(3); }
}
#include <sys/mman.h>
static void uring(void) { /* a read that a thread of the kernel makes, which counts as one of the process */
  unsigned p[30] = {0};
  int fd = syscall(425, 4, p), ends[2];
  if (fd < 0) { puts("none"); exit(0); }
  pipe(ends);
  char *ring = mmap(NULL, p[16] + 64, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, 0);
  char *entry = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, 0x10000000);
  static char buffer[8];
  entry[0] = 22; entry[1] = 16; *(int *)(entry + 4) = ends[0]; /* IORING_OP_READ, IOSQE_ASYNC */
  *(char **)(entry + 16) = buffer; *(int *)(entry + 24) = 1;
  *(unsigned *)(ring + p[16]) = 0; ++*(volatile unsigned *)(ring + p[11]);
  if (syscall(426, fd, 1, 0, 0, NULL, 0) != 1) { puts("none"); exit(0); }
  usleep(20000);
}
static volatile int in_handler, leave_handler;
static void hold(int s) { in_handler = 1; while (!leave_handler) usleep(1000); leave_handler = in_handler = 0; }

int main(int argc, char **argv) {
  char line[64];
  pthread_t threads[256];
  int count = 0;
  const char *what = argc > 1 ? argv[1] : "rest";
  int wanted = argc > 2 ? atoi(argv[2]) : 0;
  if (!strcmp(what, "waits")) { patient = wanted; waits(); goto done; }
  void *(*run)(void *) = !strcmp(what, "spin") ? spin : !strcmp(what, "breed") ? breed : !strcmp(what, "slow") ? stuff
    : !strcmp(what, "rseq") ? restartable : rest;
  if (!strcmp(what, "slow")) signal(SIGUSR1, hold);
  if (!strcmp(what, "signals")) {
    struct sigaction a = {.sa_sigaction = on_queued, .sa_flags = SA_SIGINFO | SA_RESTART};
    struct itimerval each = {{0, 500}, {0, 500}};
    struct sigaction plain = {.sa_handler = on_alarm, .sa_flags = SA_RESTART};
    sigaction(SIGRTMIN, &a, NULL); sigaction(SIGALRM, &plain, NULL);
    plain.sa_handler = on_user; sigaction(SIGUSR1, &plain, NULL);
    setitimer(ITIMER_REAL, &each, NULL);
    run = spin;
  }
  if (!strcmp(what, "confined")) confine();
  if (!strcmp(what, "uring")) uring();
  if (!strcmp(what, "dispatched")) {
    static char selector;
    if (prctl(59, 1, 0, ~0ul >> 1, &selector)) { puts("none"); return 0; } /* every system call is exempt */
  }
  if (!strcmp(what, "undumpable")) prctl(PR_SET_DUMPABLE, 0);
  if (!strcmp(what, "vfork")) {
    int p[2]; pipe(p);
    puts("ready"); fflush(stdout);
    if (!vfork()) { sleep(wanted); _exit(0); }
    goto done;
  }
  while (count < wanted) pthread_create(&threads[count++], NULL, run, NULL);
  puts("ready"); fflush(stdout);
  if (!strcmp(what, "leaderless")) pthread_exit(NULL);
  while (fgets(line, sizeof line, stdin)) {
    if (line[0] == 'q') printf("%ld %ld %ld %d\n", alarms, users, queued, in_handler);
    if (line[0] == 'r') printf("%ld\n", (long)rounds);
    if (line[0] == 'f') { /* a child that goes on alone */
      pid_t p = fork();
      if (!p) { prctl(PR_SET_PDEATHSIG, SIGKILL); for (;;) { if (probed(7) != 8) abort(); usleep(200); } }
      printf("%d\n", (int)p);
    }
    if (line[0] == 'w') { /* how the child has ended, after it was told to */
      pid_t p = atoi(line + 1); int s; kill(p, SIGTERM); waitpid(p, &s, 0); printf("%d\n", s);
    }
    if (line[0] == 'x') execl("/proc/self/exe", "target", "spin", "1", NULL);
    if (line[0] == 'l') { leave_handler = 1; while (in_handler) usleep(1000); puts("left"); }
    fflush(stdout);
  }
  leave_handler = 1;
  going = 0;
  while (count) pthread_join(threads[--count], NULL);
done:
  puts(wrong ? "wrong" : "ok");
  return wrong != 0;
}
"""

GO_SOURCE = """
package main

import (
	"fmt"
	"os"
)

//go:noinline
func work(n int) int { return n*3 + 1 }

func count(wrong chan int) {
	for i := 0; ; i++ {
		if work(i) != i*3+1 || len(fmt.Sprint(i)) == 0 {
			wrong <- i
		}
	}
}

func main() {
	wrong := make(chan int, 100)
	for g := 0; g < 8; g++ {
		go count(wrong)
	}
	fmt.Println("ready")
	var b [1]byte
	os.Stdin.Read(b[:])
	if len(wrong) > 0 {
		fmt.Println("wrong")
		os.Exit(1)
	}
	fmt.Println("ok")
}
"""

KINDS = {
    "pie": ("gcc", "-pie", "-fPIE"),
    "no-pie": ("gcc", "-no-pie", "-fno-pie"),
    "static": ("gcc", "-static"),
    "static-pie": ("gcc", "-static-pie", "-fPIE"),
    "musl": ("musl-gcc",),
    "musl-static": ("musl-gcc", "-static"),
}


@functools.cache
def build(kind: str = "pie") -> Path:
    """Return the program, compiled in one of KINDS. Skips the test where the compiler is missing."""
    if kind == "go":
        return build_go()
    compiler, *flags = KINDS[kind]
    if shutil.which(compiler) is None:
        pytest.skip(f"{compiler} is not installed")
    folder = _new_folder()
    (folder / "target.c").write_text(SOURCE)
    command = [compiler, "-O1", "-g", "-w", *flags, "-o", str(folder / "target"), str(folder / "target.c"), "-pthread"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder / "target"


def build_go() -> Path:
    """Return a Go program. Skips the test where Go is missing."""
    if shutil.which("go") is None:
        pytest.skip("go is not installed")
    folder = _new_folder()
    (folder / "target.go").write_text(GO_SOURCE)
    environment = {**os.environ, "GO111MODULE": "off", "GOCACHE": str(folder / "cache"), "CGO_ENABLED": "0"}
    command = ["go", "build", "-o", str(folder / "target"), str(folder / "target.go")]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return folder / "target"


def _new_folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="traced-"))
    folder.chmod(0o755)
    _folders.append(folder)
    return folder


_folders: list[Path] = []


def remove_built() -> None:
    """Delete what was built."""
    build.cache_clear()
    while _folders:
        shutil.rmtree(_folders.pop(), ignore_errors=True)


class Target:
    """A running program. A context manager that ends it, and checks at the end of the block that it has found nothing wrong."""

    def __init__(self, *arguments: str, kind: str = "pie", user: int | None = None) -> None:
        self.path = build(kind)
        credentials = {} if user is None else {"user": user, "group": user, "extra_groups": []}
        command = [str(self.path), *arguments]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1, **credentials
        )
        self.pid = self.process.pid
        said = self.line()
        if said == "none":
            self.process.communicate()
            pytest.skip(f"this kernel has not got what the program {arguments[0]!r} needs")
        assert said == "ready"

    def line(self) -> str:
        """Read one line of its output."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def ask(self, command: str) -> str:
        """Write a line to it and read its answer."""
        assert self.process.stdin is not None
        self.process.stdin.write(command + "\n")
        return self.line()

    def finish(self) -> str:
        """Close its input; return the rest of its output. It must have ended by itself, with success."""
        out, _ = self.process.communicate(timeout=20)
        assert (self.process.returncode, out.splitlines()[-1:]) == (0, ["ok"]), (self.process.returncode, out)
        return out

    def symbol(self, name: str) -> int:
        """The address of a symbol in the process."""
        from sonde.debuginfo.elf import Elf
        from sonde.debuginfo.procmaps import read_maps
        from sonde.errors import TargetError

        with Elf.open(str(self.path)) as elf:
            vaddr = next(s.vaddr for s in elf.iter_symbols() if s.name == name)
            fixed = elf.is_exec
        base = next((m.start for m in read_maps(self.pid) if m.path == str(self.path)), None)
        if base is None:
            raise TargetError(f"process {self.pid} was killed")
        return vaddr if fixed else base + vaddr

    def threads(self) -> list[int]:
        """The threads there are."""
        return [int(name) for name in os.listdir(f"/proc/{self.pid}/task")]

    def __enter__(self) -> Target:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        try:
            if kind is None and self.process.returncode is None:
                self.finish()
        finally:
            self.process.kill()
            self.process.communicate()

"""Stands for the interpreters and servers whose USDT probes some tools look for: a small C program with the same probes and arguments.

It fires them a known number of times at each SIGUSR1, with names that a test can look for. The program has the name of what it stands for
("ruby", "mysqld"), since tools find processes by it. The names and the order of arguments are those that the tools read.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

SOURCE = r"""
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include <sys/sdt.h>
static volatile char klass[] = "KnownClass", method[] = "known_method", query[] = "SELECT known FROM table1", name[] = "known-thread";
static pthread_mutex_t first = PTHREAD_MUTEX_INITIALIZER, second = PTHREAD_MUTEX_INITIALIZER;
static void *thread(void *unused) { return unused; }
static void lock_both(pthread_mutex_t *a, pthread_mutex_t *b) {
  pthread_mutex_lock(a); pthread_mutex_lock(b); pthread_mutex_unlock(b); pthread_mutex_unlock(a);
}
static void *lock_forth(void *unused) { lock_both(&first, &second); return unused; }
static void *lock_back(void *unused) { lock_both(&second, &first); return unused; }
static void run(void *(*function)(void *)) {
  pthread_t id;
  pthread_create(&id, 0, function, 0);
  pthread_join(id, 0);
}
__attribute__((noinline)) void dispatch_command(int command, void *thd, volatile char *text) __asm__("_Z16dispatch_commandiPvPc");
void dispatch_command(int command, void *thd, volatile char *text) { usleep(5000); __asm__ volatile("" : : "r"(text)); }
static void fire(void) {
#if defined(java)
  for (int i = 0; i < 5; i++) {
    DTRACE_PROBE7(hotspot, method__entry, 1L, klass, 10L, method, 12L, klass, 1L);
    DTRACE_PROBE7(hotspot, method__return, 1L, klass, 10L, method, 12L, klass, 1L);
  }
  DTRACE_PROBE1(hotspot, gc__begin, 1L);
  DTRACE_PROBE8(hotspot, mem__pool__gc__begin, klass, 10L, method, 12L, 1L, 2L, 3L, 4L);
  DTRACE_PROBE8(hotspot, mem__pool__gc__end, klass, 10L, method, 12L, 1L, 2L, 3L, 4L);
  DTRACE_PROBE(hotspot, gc__end);
  for (int i = 0; i < 3; i++) DTRACE_PROBE4(hotspot, object__alloc, 1L, klass, 10L, 24L);
  DTRACE_PROBE5(hotspot, thread__start, name, 12L, 77L, 78L, 0L);
  DTRACE_PROBE3(libpthread, pthread_start, name, thread, 0L);
  DTRACE_PROBE5(hotspot, thread__stop, name, 12L, 77L, 78L, 0L);
  DTRACE_PROBE1(hotspot, class__loaded, klass);
  run(thread);
#elif defined(node)
  DTRACE_PROBE2(node, gc__start, 2, 0);
  DTRACE_PROBE2(node, gc__done, 2, 0);
#elif defined(perl)
  for (int i = 0; i < 5; i++) {
    DTRACE_PROBE4(perl, sub__entry, method, klass, 1, klass);
    DTRACE_PROBE4(perl, sub__return, method, klass, 1, klass);
  }
#elif defined(php)
  for (int i = 0; i < 5; i++) {
    DTRACE_PROBE5(php, function__entry, method, name, 1, klass, klass);
    DTRACE_PROBE5(php, function__return, method, name, 1, klass, klass);
  }
  DTRACE_PROBE2(php, compile__file__entry, name, name);
  DTRACE_PROBE1(php, exception__thrown, klass);
#elif defined(python)
  for (int i = 0; i < 5; i++) {
    DTRACE_PROBE3(python, function__entry, klass, method, 1);
    DTRACE_PROBE3(python, function__return, klass, method, 1);
  }
  DTRACE_PROBE1(python, gc__start, 2);
  DTRACE_PROBE1(python, gc__done, 9L);
#elif defined(ruby)
  for (int i = 0; i < 5; i++) {
    DTRACE_PROBE4(ruby, method__entry, klass, method, name, 1);
    DTRACE_PROBE4(ruby, cmethod__entry, klass, method, name, 1);
    DTRACE_PROBE4(ruby, cmethod__return, klass, method, name, 1);
    DTRACE_PROBE4(ruby, method__return, klass, method, name, 1);
  }
  DTRACE_PROBE(ruby, gc__mark__begin);
  DTRACE_PROBE(ruby, gc__mark__end);
  DTRACE_PROBE(ruby, gc__sweep__begin);
  DTRACE_PROBE(ruby, gc__sweep__end);
  for (int i = 0; i < 3; i++) DTRACE_PROBE3(ruby, object__create, klass, name, 1);
  for (int i = 0; i < 4; i++) DTRACE_PROBE3(ruby, string__create, 11L, name, 1);
  DTRACE_PROBE3(ruby, hash__create, 1L, name, 1);
  DTRACE_PROBE3(ruby, array__create, 1L, name, 1);
#elif defined(tclsh)
  for (int i = 0; i < 5; i++) {
    DTRACE_PROBE3(tcl, proc__entry, method, 1, klass);
    DTRACE_PROBE3(tcl, proc__args, method, klass, klass);
    DTRACE_PROBE2(tcl, proc__return, method, 0);
  }
  for (int i = 0; i < 3; i++) DTRACE_PROBE1(tcl, obj__create, klass);
#elif defined(mysqld)
  DTRACE_PROBE5(mysql, query__start, query, 1L, klass, klass, klass);
  usleep(5000);
  DTRACE_PROBE1(mysql, query__done, 0);
  dispatch_command(3, 0, query);
#else
  for (int i = 0; i < 9; i++) { void *volatile p = malloc(1234); free(p); }
  for (int i = 0; i < 3; i++) { void *volatile leak = malloc(4321); }
  run(lock_forth);
  run(lock_back);
#endif
}
int main(void) {
  sigset_t set;
  int got;
  /* What nobody has touched may not be in memory, and then a probe cannot read it. */
  klass[0] = 'K', method[0] = 'k', query[0] = 'S', name[0] = 'k';
  sigemptyset(&set);
  sigaddset(&set, SIGUSR1);
  sigprocmask(SIG_BLOCK, &set, 0);
  puts("ready");
  fflush(stdout);
  while (sigwait(&set, &got) == 0) fire();
}
"""


def lacking() -> str:
    """Return what is not here to build it ("" when nothing)."""
    if not shutil.which("gcc"):
        return "gcc"
    if not Path("/usr/include/x86_64-linux-gnu/sys/sdt.h").exists() and not Path("/usr/include/sys/sdt.h").exists():
        return "sys/sdt.h (Debian package systemtap-sdt-dev)"
    return ""


def build_standin(name: str, folder: Path) -> Path:
    """Build the program under a name."""
    path = folder / name
    command = ["gcc", "-O1", "-g", f"-D{name}", "-Wno-unused", "-x", "c", "-", "-o", str(path), "-pthread"]
    subprocess.run(command, input=SOURCE.encode(), check=True)
    return path


def start_standin(name: str, folder: Path) -> subprocess.Popen[bytes]:
    """Build and start the program under a name; the caller ends it."""
    process = subprocess.Popen([str(build_standin(name, folder))], stdout=subprocess.PIPE)
    assert process.stdout
    process.stdout.readline()
    return process

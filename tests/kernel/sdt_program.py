"""A small program to trace: two functions, a watched variable, a USDT probe with a semaphore; what it does is its argument."""

from __future__ import annotations

import os
import shutil
import subprocess

import pytest

SOURCE = r"""
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>
#define _SDT_HAS_SEMAPHORES 1
#include <sys/sdt.h>
unsigned short app_semaphore_semaphore __attribute__((section(".probes")));
#define app_counted_semaphore app_semaphore_semaphore
#define app_plain_semaphore app_semaphore_semaphore
volatile long watched;
struct point { int x; char name[12]; };
__attribute__((noinline)) long first(struct point *p, const char *text) {
  STAP_PROBE2(app, plain, p->x, text);
  if (app_semaphore_semaphore) STAP_PROBE1(app, counted, (long)p->x * 1000);
  return p->x * 2;
}
__attribute__((noinline)) void *second(long n) { void *volatile p = malloc(n + 1000); free(p); return p; }
__attribute__((noinline)) void outer(long n) { second(n); __asm__ volatile(""); }
int main(int argc, char **argv) {
  struct point p = {0, "a-name"};
  static volatile char text[] = "some-text";
  text[0] = 's'; /* what nobody has touched may not be in memory, and then a probe cannot read it */
  for (char *c = argc > 1 ? argv[1] : ""; *c; c++) {
    p.x++;
    if (*c == 'f') first(&p, (char *)text);
    if (*c == 's') outer(p.x);
    if (*c == 'w') watched++;
    if (*c == 'p') { puts("waiting"); fflush(stdout); pause(); }
    if (*c == 'b') /* busy for 0.3 s of CPU time, however fast the machine is */
      for (clock_t start = clock(); clock() - start < CLOCKS_PER_SEC * 3 / 10;) for (volatile long k = 0; k < 1000000; k++) ;
    if (*c == 'd') usleep(300000);
  }
  return 7;
}
"""


def build_program(folder: str) -> str:
    """Compile SOURCE with frame pointers at fixed addresses; return its path. Skips where that cannot be done."""
    if not shutil.which("gcc"):
        pytest.skip("needs gcc")
    path = os.path.join(folder, "sdtprogram")
    command = ["gcc", "-g", "-O1", "-fno-omit-frame-pointer", "-no-pie", "-x", "c", "-", "-o", path]
    done = subprocess.run(command, input=SOURCE, text=True, capture_output=True)
    if "sys/sdt.h" in done.stderr:
        pytest.skip("needs sys/sdt.h (Debian package systemtap-sdt-dev)")
    assert done.returncode == 0, done.stderr
    return path


def address_of(path: str, name: str) -> int:
    """Return the address of a symbol of the program."""
    table = subprocess.run(["nm", path], text=True, capture_output=True, check=True).stdout
    return next(int(line.split()[0], 16) for line in table.splitlines() if line.split()[-1] == name)

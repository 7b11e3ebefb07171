"""Small programs, written by hand, and what the tests of the kernel engine share. Runs in the VM too: no pytest here."""

from __future__ import annotations

import os
import struct
import subprocess
from collections import Counter
from collections.abc import Sequence

from sonde.bpf import isa
from sonde.bpf.isa import Insn
from sonde.kernel.engine import KernelEngine, KernelObject
from sonde.spec.object import MapSpec, ObjectSpec, ProbeSpec, ProgramSpec, Reloc

GET_ATTACH_COOKIE, RINGBUF_OUTPUT, GET_CURRENT_PID_TGID, SEQ_WRITE, PERF_EVENT_OUTPUT = 174, 130, 14, 127, 25

EVENTS = MapSpec("events", "ringbuf", 0, 0, 1 << 18)
RETURN_0 = isa.encode([Insn(isa.BPF_ALU64 | isa.BPF_MOV, 0), Insn(isa.EXIT)])


def mov(dst: int, imm: int) -> Insn:
    return Insn(isa.BPF_ALU64 | isa.BPF_MOV | isa.BPF_K, dst, imm=imm)


def copy(dst: int, src: int) -> Insn:
    return Insn(isa.BPF_ALU64 | isa.BPF_MOV | isa.BPF_X, dst, src)


def add(dst: int, imm: int) -> Insn:
    return Insn(isa.BPF_ALU64 | isa.BPF_ADD | isa.BPF_K, dst, imm=imm)


def call(helper: int) -> Insn:
    return Insn(isa.CALL, imm=helper)


def store(offset: int, src: int) -> Insn:
    return Insn(isa.BPF_STX | isa.BPF_MEM | isa.BPF_DW, 10, src, offset)


def reporter(*value: Insn) -> tuple[bytes, tuple[Reloc, ...]]:
    """Code that sends 16 bytes to `events`: what `value` leaves in r0, and pid << 32 | tid."""
    head = [*value, store(-16, 0), call(GET_CURRENT_PID_TGID), store(-8, 0)]
    pc = len(head)
    tail = [
        Insn(isa.LDDW, 1),
        copy(2, 10),
        add(2, -16),
        mov(3, 16),
        mov(4, 0),
        call(RINGBUF_OUTPUT),
        mov(0, 0),
        Insn(isa.EXIT),
    ]
    return isa.encode(head + tail), (Reloc(pc, "map", "events"),)


def constant_reporter(number: int) -> tuple[bytes, tuple[Reloc, ...]]:
    """A program that reports `number`."""
    return reporter(mov(0, number))


def cookie_reporter() -> tuple[bytes, tuple[Reloc, ...]]:
    """A program that reports its attach cookie."""
    return reporter(call(GET_ATTACH_COOKIE))


def one_program(kind: str, probes: Sequence[ProbeSpec], *, cookie: bool = False, **fields: str) -> ObjectSpec:
    """An object with one reporting program "p" for `probes`."""
    insns, relocs = cookie_reporter() if cookie else constant_reporter(1)
    program = ProgramSpec("p", kind, insns, relocs, **fields)  # type: ignore[arg-type]
    return ObjectSpec((program,), (EVENTS,), tuple(probes), ringbuf="events")


def perf_output_spec(size: int) -> ObjectSpec:
    """sys_enter_getppid sends `size` bytes through a perf event array."""
    code = [
        *[Insn(isa.BPF_ST | isa.BPF_MEM | isa.BPF_DW, 10, off=-size + i, imm=i) for i in range(0, size, 8)],
        Insn(isa.LDDW, 2),
        Insn(isa.BPF_ALU | isa.BPF_MOV | isa.BPF_K, 3, imm=-1),
        Insn(isa.BPF_ALU64 | isa.BPF_MOV | isa.BPF_X, 4, 10),
        Insn(isa.BPF_ALU64 | isa.BPF_ADD | isa.BPF_K, 4, imm=-size),
        mov(5, size),
        Insn(isa.CALL, imm=PERF_EVENT_OUTPUT),
        mov(0, 0),
        Insn(isa.EXIT),
    ]
    relocs = (Reloc(size // 8, "map", "events"),)
    probe = ProbeSpec("t", "tracepoint", "p", category="syscalls", event="sys_enter_getppid")
    program = ProgramSpec("p", "tracepoint", isa.encode(code), relocs)
    return ObjectSpec((program,), (MapSpec("events", "perf_event_array", 4, 4, 0),), (probe,), ringbuf="events")


class Watch:
    """An object loaded and attached, and the values that it reported, by process."""

    def __init__(self, spec: ObjectSpec, without: Sequence[str] = ()) -> None:
        self.object: KernelObject = KernelEngine(without).load(spec)
        try:
            self.reader = self.object.reader()
            self.links = self.object.attach(spec.probes)
        except BaseException:
            self.object.close()
            raise

    def read(self) -> Counter[tuple[int, int]]:
        """Return how often each (pid, value) was reported since the last call."""
        found: Counter[tuple[int, int]] = Counter()

        def take(data: memoryview, start: int, size: int) -> None:
            value, ids = struct.unpack_from("=QQ", data, start)
            found[ids >> 32, value] += 1

        self.reader.drain(take)
        return found

    def read_of(self, pid: int) -> dict[int, int]:
        """Return value -> count of one process."""
        return {value: count for (who, value), count in self.read().items() if who == pid}

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, *_: object) -> None:
        self.object.close()


PROGRAM = r"""
#include <stdio.h>
#include <stdlib.h>
#include <pthread.h>
#include <unistd.h>
__attribute__((noinline)) int first(int x) { __asm__ volatile(""); return x + 1; }
__attribute__((noinline)) int second(int x) { __asm__ volatile(""); return x * 3; }
unsigned short semaphore __attribute__((section(".probes"))) = 0;
volatile long watched = 0;
static void *writer(void *unused) { watched++; return unused; }
int main(void) {
  char line[64];
  setvbuf(stdout, 0, _IOLBF, 0);
  printf("%p\n", (void *)&watched);
  while (fgets(line, sizeof line, stdin)) {
    int n = atoi(line + 1);
    for (int i = 0; i < n; i++) {
      if (line[0] == 'f') first(i);
      if (line[0] == 's') second(i);
      if (line[0] == 'w') watched++;
      if (line[0] == 't') { pthread_t t; pthread_create(&t, 0, writer, 0); pthread_join(t, 0); }
      if (line[0] == 'b') for (volatile long k = 0; k < 1000000; k++) ;
    }
    printf("%d\n", line[0] == 'm' ? semaphore : n);
  }
  return 0;
}
"""


class Traced:
    """A running PROGRAM: `ask("f", 5)` makes it call first() five times and waits until it has."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.process = subprocess.Popen([path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.pid = self.process.pid
        self.watched_addr = int(self._line(), 16)

    def _line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline()

    def ask(self, what: str, times: int) -> int:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{what}{times}\n")
        self.process.stdin.flush()
        return int(self._line())

    def close(self) -> None:
        for stream in (self.process.stdin, self.process.stdout):
            assert stream is not None
            stream.close()
        self.process.wait()


def build(folder: str) -> str:
    """Compile PROGRAM; return its path."""
    path = os.path.join(folder, "traced")
    subprocess.run(
        ["gcc", "-O1", "-no-pie", "-x", "c", "-", "-o", path, "-lpthread"], input=PROGRAM, text=True, check=True
    )
    return path


def symbols(path: str) -> dict[str, int]:
    """File offset of each symbol of an executable, by binutils."""
    headers = subprocess.run(["readelf", "-lW", path], capture_output=True, text=True, check=True).stdout
    segments = []
    for line in headers.splitlines():
        words = line.split()
        if words[:1] == ["LOAD"]:
            segments.append((int(words[1], 16), int(words[2], 16), int(words[4], 16)))
    listing = subprocess.run(["nm", path], capture_output=True, text=True, check=True).stdout
    found = {}
    for line in listing.splitlines():
        words = line.split()
        if len(words) == 3:
            address = int(words[0], 16)
            for offset, start, size in segments:
                if start <= address < start + size:
                    found[words[2]] = address - start + offset
    return found

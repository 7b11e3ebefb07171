"""A C text run twice: compiled by gcc into a library of this process, and by `lang/c` into a program that the kernel runs.

The text defines `static u64 run(struct io *p)`. It reads `p->in`, writes `p->out`, and returns a number; what both leave in `*p` must be
the same bytes.
"""

from __future__ import annotations

import ctypes
import struct
import subprocess
from pathlib import Path
from random import Random

from sonde.lang.c.compile import compile_c
from sonde.lang.c.options import Entry, Options
from sonde.lang.source import Source
from sonde.spec.object import ObjectSpec
from sonde.spec.target import Target

INPUTS, OUTPUTS = 8, 24
SIZE = 8 * (INPUTS + OUTPUTS + 1)
PRELUDE = f"""
typedef unsigned char u8; typedef unsigned short u16; typedef unsigned int u32; typedef unsigned long long u64;
typedef signed char s8; typedef short s16; typedef int s32; typedef long long s64;
struct io {{ u64 in[{INPUTS}]; u64 out[{OUTPUTS}]; u64 result; }};
"""
BPF_TAIL = """
BPF_ARRAY(io, struct io, 1);
int entry(void *ctx) {
    int zero = 0;
    struct io *p = io.lookup(&zero);
    if (p)
        p->result = run(p);
    return 0;
}
"""
GCC_TAIL = "void entry(struct io *p) { p->result = run(p); }\n"
FLAGS = ["-O0", "-fwrapv", "-fsigned-char", "-fno-strict-aliasing", "-w", "-std=gnu11", "-shared", "-fPIC"]
EDGES = [
    0,
    1,
    2,
    7,
    0x7F,
    0x80,
    0xFF,
    0x7FFF,
    0x8000,
    0xFFFF,
    1 << 31,
    (1 << 31) - 1,
    (1 << 32) - 1,
    1 << 32,
    1 << 63,
    (1 << 63) - 1,
]
EDGES += [(1 << 64) - n for n in (1, 2, 128, 32768, 1 << 31)]


def build_by_gcc(text: str, folder: Path) -> ctypes.CDLL:
    """Return the library that gcc makes of a text; its `entry` takes a pointer to a `struct io`."""
    library = folder / "case.so"
    subprocess.run(
        ["gcc", *FLAGS, "-xc", "-", "-o", library], input=PRELUDE + text + GCC_TAIL, text=True, check=True, timeout=60
    )
    return ctypes.CDLL(str(library))


def build_by_us(text: str, target: Target) -> ObjectSpec:
    """Return what the kernel loads."""
    unit = compile_c(Source("case.c", PRELUDE + text + BPF_TAIL), target, Options())
    compiled = unit.compile_program("entry", Entry("raw_tracepoint"))
    return ObjectSpec((compiled.program,), (*unit.maps, *compiled.maps))


def random_input(random: Random) -> bytes:
    """Return a `struct io` with numbers of all sizes in it; the outputs hold a pattern."""
    values = []
    for _ in range(INPUTS):
        kind = random.randrange(4)
        if kind == 0:
            values.append(random.choice(EDGES))
        elif kind == 1:
            values.append(random.getrandbits(random.randrange(1, 65)))
        elif kind == 2:
            values.append((1 << 64) - random.randrange(1, 300))
        else:
            values.append(random.randrange(40))
    return struct.pack(f"<{INPUTS}Q", *values) + b"\xa5" * (SIZE - 8 * INPUTS)


def run_by_gcc(library: ctypes.CDLL, data: bytes) -> bytes:
    """Return the `struct io` after a run."""
    buffer = ctypes.create_string_buffer(data, SIZE)
    library.entry(buffer)
    return buffer.raw


def show(data: bytes) -> str:
    """A `struct io` as numbers."""
    numbers = [f"{n:#x}" for n in struct.unpack(f"<{len(data) // 8}Q", data)]
    return f"in {numbers[:INPUTS]} out {numbers[INPUTS:-1]} result {numbers[-1]}"

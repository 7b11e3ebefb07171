"""Runs x86-64 code twice in a process of its own, as it is and moved elsewhere, and compares what the two have done.

`run_all(cases)` starts this file as a program, which runs them in a child, and the rest in the next one after a crash. Every register, the
flags, the vector registers, the stack with its red zone, the memory that registers point to and what is behind rip are the same before
both runs. Where code leaves its window (jumps, calls, the end) stands a stub that saves all of it.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import pickle
import random
import signal
import struct
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field

# All below 2 GiB, so that stubs reach it without a register.
STATE, STUBS, MEMORY, STACK = 0x50000000, 0x50010000, 0x51000000, 0x52000000
MEMORY_BYTES, STACK_BYTES = 1 << 14, 1 << 13
RSP = STACK + STACK_BYTES // 2
IN, FLAGS_IN, OVERFLOW_IN, XMM_IN, OUT, FLAGS_OUT, MARKER, SAVED, TARGET, XMM_OUT, EXITS = (
    STATE + n for n in (0, 128, 129, 256, 512, 640, 648, 656, 664, 768, 1024)
)
PAGE = 4096
DATA_BYTES = 80
NAMES = ["rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", *(f"r{n}" for n in range(8, 16))]
OUTCOME = [*NAMES, "flags", "exit"]


@dataclass
class Case:
    """One piece of code at `old`, and the same moved to `new`."""

    code: bytes
    old: int
    moved: bytes
    new: int
    exits: Sequence[int]  # where either may leave: the end of the window, targets
    data: Sequence[int] = ()  # addresses that are named relative to rip
    seed: int = 0
    registers: dict[str, int] = field(default_factory=dict)  # the others are random: pointers into MEMORY, or small
    memory: dict[int, int] = field(default_factory=dict)  # words of 8 bytes at addresses of MEMORY, STACK or `data`
    ignore: Sequence[str] = ()  # registers that may differ


def run_all(cases: Sequence[Case]) -> list[str]:
    """Return for each case "same", "skipped: why" (the original crashed), or the difference."""
    done = subprocess.run(
        [sys.executable, "-I", "-S", __file__],
        input=pickle.dumps([vars(c) for c in cases]),
        capture_output=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr.decode()
    result: list[str] = pickle.loads(done.stdout)
    return result


# In the process of its own ----------------------------------------------------------------------------------------------

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
MAP_FIXED_NOREPLACE = 0x100000


class Taken(Exception):
    """An address that a case needs is used by the process itself."""


def map_at(address: int, size: int, mapped: set[int]) -> None:
    """Map memory that everything is allowed on, page by page, where none of ours is yet."""
    for page in range(address & -PAGE, address + size, PAGE):
        if page not in mapped:
            flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_FIXED_NOREPLACE
            if _libc.mmap(page, PAGE, 7, flags, -1, 0) != page:
                raise Taken(f"{page:#x} cannot be mapped")
            mapped.add(page)


def absolute(opcode: bytes, register: int, address: int) -> bytes:
    """Encode `opcode` with a register and memory at an absolute address; the REX byte, if any, is the first and gets its bit R."""
    opcode = bytes([opcode[0] | (register >> 3) << 2]) + opcode[1:]
    return opcode + bytes([(register & 7) << 3 | 4, 0x25]) + struct.pack("<I", address)


def enter_stub() -> bytes:
    """Take everything from the state, and jump to its target."""
    code = bytes.fromhex("53555657 4154 4155 4156 4157".replace(" ", ""))  # push rbx, rbp, rsi, rdi, r12 to r15
    code += absolute(b"\x48\x89", 4, SAVED)
    with open("/proc/cpuinfo") as cpu:
        code += (
            b"\xc5\xf8\x77" if " avx " in cpu.read() else b""
        )  # vzeroupper: their upper halves would be those of the last run
    for n in range(16):
        code += absolute(b"\x40\x0f\x10", n, XMM_IN + 16 * n)  # movups
    code += absolute(b"\x40\x8a", 0, OVERFLOW_IN) + b"\x04\x01"  # add $1, %al
    code += absolute(b"\x40\x8b", 0, FLAGS_IN - 1) + b"\x9e"  # flags are in ah: sahf
    for n in range(16):
        code += absolute(b"\x48\x8b", n, IN + 8 * n)
    return code + b"\xff\x24\x25" + struct.pack("<I", TARGET)


def leave_stub(number: int) -> bytes:
    """Save everything, and return from the call of the other stub."""
    code = b"".join(absolute(b"\x48\x89", n, OUT + 8 * n) for n in range(16))
    code += b"\x9f\x0f\x90\xc0" + absolute(b"\x40\x89", 0, FLAGS_OUT)  # lahf; seto %al
    code += b"".join(absolute(b"\x40\x0f\x11", n, XMM_OUT + 16 * n) for n in range(16))
    code += b"\xc7\x04\x25" + struct.pack("<II", MARKER, number) + absolute(b"\x48\x8b", 4, SAVED)
    return code + bytes.fromhex("fc 415f 415e 415d 415c 5f5e5d5b c3".replace(" ", ""))


def word(chance: random.Random) -> int:
    """Return what registers and memory hold: most often an address that can be read, which is divisible by 16."""
    if chance.random() < 0.6:
        return MEMORY + MEMORY_BYTES // 2 + 16 * chance.randrange(-400, 400)
    return chance.choice((chance.randrange(64), chance.getrandbits(64), chance.getrandbits(32), 0))


def random_words(count: int) -> bytes:
    chance = random.Random(5)
    return struct.pack(f"<{count}Q", *(word(chance) for _ in range(count)))


def prepare(case: Case, words: bytes) -> None:
    """Fill registers and memory, the same for each run, memory from a stock of random words."""
    chance = random.Random(case.seed)
    registers = {name: word(chance) for name in NAMES} | {"rsp": RSP} | case.registers
    put(IN, struct.pack("<16Q", *(registers[name] for name in NAMES)))
    put(FLAGS_IN, bytes([chance.getrandbits(8) & 0xD5 | 2, 0x7F if chance.random() < 0.5 else 0]))
    put(XMM_IN, chance.randbytes(256))
    put(OUT, bytes(512))
    for address, size in ((MEMORY, MEMORY_BYTES), (STACK, STACK_BYTES), *((d & -16, DATA_BYTES) for d in case.data)):
        first = 8 * chance.randrange(100)
        put(address, words[first : first + size])
    for address, value in case.memory.items():
        put(address, struct.pack("<Q", value))


def put(address: int, value: bytes) -> None:
    ctypes.memmove(address, value, len(value))


def result_of(case: Case) -> list[bytes]:
    parts = [ctypes.string_at(OUT, 144), ctypes.string_at(XMM_OUT, 256)]
    parts += [ctypes.string_at(MEMORY, MEMORY_BYTES), ctypes.string_at(RSP - 128, STACK + STACK_BYTES - RSP + 128)]
    return parts + [ctypes.string_at(d & -16, DATA_BYTES) for d in case.data]


def difference(case: Case, one: list[bytes], two: list[bytes]) -> str:
    """Say what differs, in words. Of the stack, what is below the red zone belongs to nobody."""
    found = []
    first, second = (struct.unpack("<18Q", parts[0]) for parts in (one, two))
    found += [f"{n} {a:#x} became {b:#x}" for n, a, b in zip(OUTCOME, first, second) if a != b and n not in case.ignore]
    for name, a, b in zip(("vector registers", "memory", "stack", *["data"] * 99), one[1:], two[1:]):
        if a != b:
            at = next(n for n in range(len(a)) if a[n] != b[n])
            found.append(f"{name} at {at}: {a[at & -8 : at + 8].hex()} became {b[at & -8 : at + 8].hex()}")
    return "; ".join(found) or "same"


def compare(case: Case, words: bytes, mapped: set[int]) -> str:
    """Run both, in this process."""
    for address in case.data:
        map_at(address & -16, DATA_BYTES, mapped)
    for number, address in enumerate(case.exits):
        map_at(address, 16, mapped)
        put(STUBS + 1024 * (number + 1), leave_stub(number + 1))
        put(EXITS + 8 * number, struct.pack("<Q", STUBS + 1024 * (number + 1)))
    map_at(case.old, len(case.code) + 16, mapped)
    map_at(case.new, len(case.moved) + 16, mapped)
    run = ctypes.CFUNCTYPE(None)(STUBS)
    results = []
    for target, code in ((case.old, case.code), (case.new, case.moved)):
        prepare(case, words)
        if target != case.old:
            put(case.old, b"\xcc" * len(case.code))
        put(target, code)
        for number, address in enumerate(case.exits):
            put(address, b"\xff\x24\x25" + struct.pack("<I", EXITS + 8 * number))
        put(TARGET, struct.pack("<Q", target))
        run()
        results.append(result_of(case))
        os.write(1, b".")  # this much has run without a crash
    for address in (*case.exits, case.old, case.new):  # nothing of this case is left for the next to run into
        put(address, b"\xcc" * 16)
    return difference(case, *results)


def run_some(cases: Sequence[Case], words: bytes) -> list[str]:
    """Run cases in a child up to the first that crashes, and return what they say: a dot after each run, then the result as a line."""
    receive, send = os.pipe()
    child = os.fork()
    if child == 0:
        os.dup2(send, 1)
        mapped: set[int] = set()
        for case in cases:
            signal.alarm(5)
            try:
                text = compare(case, words, mapped)
            except Taken as error:
                text = f"skipped: {error}"
            os.write(1, text.encode()[:4000] + b"\n")
        os._exit(0)
    os.close(send)
    with open(receive) as pipe:
        *done, rest = pipe.read().split("\n")
    _, status = os.waitpid(child, 0)
    results = [line.lstrip(".") for line in done]
    if os.WIFSIGNALED(status):
        name = signal.Signals(os.WTERMSIG(status)).name
        results.append(f"moved: {name}" if rest == "." else f"skipped: {name} in the original")
    return results


def main() -> None:
    given = pickle.load(sys.stdin.buffer)
    for address, size in ((STATE, PAGE), (STUBS, 8 * PAGE), (MEMORY, MEMORY_BYTES), (STACK, STACK_BYTES)):
        map_at(address, size, set())
    put(STUBS, enter_stub())
    words = random_words(MEMORY_BYTES // 8 + 100)
    cases = [Case(**values) for values in given]
    results: list[str] = []
    while len(results) < len(cases):
        results += run_some(cases[len(results) :], words)
    sys.stdout.buffer.write(pickle.dumps(results))


if __name__ == "__main__":
    main()

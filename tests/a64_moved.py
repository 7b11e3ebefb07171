"""Runs one aarch64 instruction twice in QEMU's user mode, as it is and moved elsewhere, and compares what the two have done.

All cases are in one executable that is made here. Each has a page: the code at 0x400, what it is moved to at 0x200 or 32 MiB on, data at 0x800; where code leaves its window
stands a stub. A driver loads registers, flags and vector registers, jumps to the code and saves all of them in the end. x17 is the driver's.
"""

from __future__ import annotations

import random
import struct
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sonde.debuginfo.elf import Elf

DRIVER, PAGES, FAR, STACK = 0x400000, 0x10000000, 0x12000000, 0x20000000
PAGE = 0x1000
CODE_AT, NEAR_AT, DATA_AT, DATA_BYTES, STACK_BYTES = 0x400, 0x200, 0x800, 64, 0x4000
SP = STACK + STACK_BYTES // 2
STATE_BYTES = 1024  # x0 to x30, sp, nzcv, the number of the exit; from 512 on the vector registers
MARKER_AT = 33 * 8 + 8

SOURCE = """
        adr     x9, current
next:   ldr     x10, [x9]
        ldp     x17, x12, [x10], #16    // where to go, the registers
        cbz     x17, done
        ldr     x13, [x10], #8          // where the registers go
        str     x10, [x9]
        msr     tpidr_el0, x13
        ldp     x0, x1, [x12, #248]
        mov     sp, x0
        msr     nzcv, x1
        add     x0, x12, #512
        VECTOR_LOADS
        LOADS
        br      x17

saver:  mrs     x16, tpidr_el0          // x17: number of the exit; x16 is on the stack
        SAVES
        ldr     x0, [sp], #16
        str     x0, [x16, #128]
        mov     x1, sp
        mrs     x2, nzcv
        stp     x1, x2, [x16, #248]
        str     x17, [x16, #272]
        add     x0, x16, #512
        VECTOR_SAVES
        adr     x9, current
        b       next

done:   mov     x0, #1
        ldp     x1, x2, [x10]           // the results
        mov     x8, #64
        svc     #0
        mov     x0, #0
        mov     x8, #93
        svc     #0
        .balign 8
saver_address:
        .quad   saver + BASE
current:
        .quad   table + BASE
table:
"""


@dataclass
class Moved:
    """An instruction at the page's CODE_AT, moved to `new`."""

    code: bytes
    old: int
    new: int
    moved: bytes
    exits: Sequence[int]
    data: bytes = bytes(DATA_BYTES)
    seed: int = 0
    registers: dict[int, int] = field(default_factory=dict)


def page_of(number: int) -> int:
    return PAGES + PAGE * number


def driver(folder: Path, assembler: str) -> bytes:
    """Assemble the driver; the table of runs follows it."""
    pairs = [(n, n + 1) for n in range(0, 30, 2) if n not in (12, 16)]
    loads = [f"ldp x{a}, x{b}, [x12, #{8 * a}]" for a, b in pairs] + ["ldr x16, [x12, #128]", "ldr x30, [x12, #240]"]
    saves = [f"stp x{a}, x{b}, [x16, #{8 * a}]" for a, b in [*pairs, (12, 13)]] + ["str x30, [x16, #240]"]
    parts = {
        "VECTOR_LOADS": [f"ldp q{n}, q{n + 1}, [x0], #32" for n in range(0, 32, 2)],
        "VECTOR_SAVES": [f"stp q{n}, q{n + 1}, [x0], #32" for n in range(0, 32, 2)],
        "LOADS": [*loads, "ldp x12, x13, [x12, #96]"],
        "SAVES": saves,
        "BASE": [hex(DRIVER)],
    }
    text = SOURCE
    for name, lines in parts.items():
        text = text.replace(name, "\n".join(lines))
    (folder / "driver.s").write_text(text)
    # Linked at 0, so that addresses in its data are offsets plus DRIVER.
    subprocess.run([assembler, "-o", str(folder / "driver.o"), str(folder / "driver.s")], check=True)
    linker = assembler[: -len("as")] + "ld"
    subprocess.run([linker, "-Ttext=0", "-e0", "-o", str(folder / "driver"), str(folder / "driver.o")], check=True)
    with Elf.open(str(folder / "driver")) as elf:
        section = elf.get_section(".text")
        assert section is not None
        return bytes(elf.read_section(section))


def random_state(case: Moved) -> bytes:
    chance = random.Random(case.seed)
    registers = [chance.getrandbits(64) for _ in range(31)]
    for number, value in case.registers.items():
        registers[number] = value
    flags = chance.getrandbits(4) << 28
    state = struct.pack("<33Q", *registers, SP, flags)
    return (state + bytes(512 - len(state)) + chance.randbytes(512)).ljust(STATE_BYTES, b"\0")


def stub(number: int, saver: int) -> bytes:
    """movz x17, #number; str x16, [sp, #-16]!; ldr x16, 8; br x16; address"""
    return struct.pack("<4IQ", 0xD2800011 | number << 5, 0xF81F0FF0, 0x58000050, 0xD61F0200, saver)


def run_all(
    cases: Sequence[Moved], qemu: str, assembler: str, folder: Path, more: Sequence[tuple[int, bytes, int]] = ()
) -> list[str]:
    """Return "same" or the difference for each case. `more` is other memory: address, content, size."""
    head = driver(folder, assembler)
    (saver,) = struct.unpack_from("<Q", head, len(head) - 16)
    table_bytes = 24 * 2 * len(cases) + 8 + 8 + 16
    states = DRIVER + (len(head) + table_bytes + 15 & -16)
    results = states + STATE_BYTES * len(cases)
    table = b""
    for number, case in enumerate(cases):
        for turn, target in enumerate((case.old, case.new)):
            table += struct.pack(
                "<3Q", target, states + STATE_BYTES * number, results + STATE_BYTES * (2 * number + turn)
            )
    table += struct.pack("<4Q", 0, 0, results, 2 * STATE_BYTES * len(cases))
    low = head + table
    low += bytes(states - DRIVER - len(low)) + b"".join(random_state(case) for case in cases)
    pages, far = bytearray(PAGE * len(cases)), bytearray(PAGE * len(cases))
    for number, case in enumerate(cases):
        put(pages, case.old - PAGES, case.code)
        put(pages, page_of(number) - PAGES + DATA_AT, case.data)
        put(far if case.new >= FAR else pages, case.new - (FAR if case.new >= FAR else PAGES), case.moved)
        for exit_number, address in enumerate(case.exits):
            put(pages, address - PAGES, stub(exit_number + 1, saver))
    segments = [
        (DRIVER, low, len(low) + 2 * STATE_BYTES * len(cases)),
        (PAGES, bytes(pages), len(pages)),
        (FAR, bytes(far), len(far)),
        (STACK, b"", STACK_BYTES),
        *more,
    ]
    path = folder / "moved"
    path.write_bytes(executable(segments))
    path.chmod(0o755)
    done = subprocess.run([qemu, str(path)], capture_output=True, timeout=100)
    assert done.returncode == 0, (done.returncode, done.stderr)
    assert len(done.stdout) == 2 * STATE_BYTES * len(cases)
    return [
        difference(done.stdout[2 * STATE_BYTES * n :], done.stdout[STATE_BYTES * (2 * n + 1) :])
        for n in range(len(cases))
    ]


def put(image: bytearray, at: int, code: bytes) -> None:
    assert not any(image[at : at + len(code)]), hex(at)
    image[at : at + len(code)] = code


def difference(one: bytes, two: bytes) -> str:
    first, second = struct.unpack_from("<35Q", one), struct.unpack_from("<35Q", two)
    names = [*(f"x{n}" for n in range(31)), "sp", "nzcv", "", "exit"]
    found = [f"{n} {a:#x} became {b:#x}" for n, a, b in zip(names, first, second) if a != b and n != "x17"]
    found += [f"v{n}" for n in range(32) if one[512 + 16 * n :][:16] != two[512 + 16 * n :][:16]]
    return "; ".join(found) or "same" if first[34] else "never left"


def executable(segments: Sequence[tuple[int, bytes, int]], entry: int = 0) -> bytes:
    """Lay out an ELF file whose segments may be read, written and executed; it begins at the first if no other address is given."""
    offset = PAGE
    headers, content = b"", b""
    for address, data, size in segments:
        headers += struct.pack("<IIQQQQQQ", 1, 7, offset, address, address, len(data), size, PAGE)
        padded = data + bytes(-len(data) % PAGE)
        content += padded
        offset += len(padded)
    ident = b"\x7fELF" + bytes([2, 1, 1]) + bytes(9)
    head = struct.pack(
        "<16sHHIQQQIHHHHHH", ident, 2, 183, 1, entry or segments[0][0], 64, 0, 0, 64, 56, len(segments), 0, 0, 0
    )
    return (head + headers).ljust(PAGE, b"\0") + content

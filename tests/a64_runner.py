"""Runs aarch64 machine code on this machine: an executable made by hand, in QEMU's user mode."""

from __future__ import annotations

import shutil
import struct
import subprocess
from pathlib import Path

from sonde.bpf.jit.code import MachineCode

BASE = 0x400000
# Calls each program of a table with x0 = 0 and stores its result, then writes everything from the results on to stdout. x23 to x28 and
# the saved registers that programs use are checked by using them here: a program that breaks them breaks the loop.
STUB = (
    0x10000213,  # adr x19, table (at stub + 64)
    0xF8408674,  # ldr x20, [x19], #8       number of programs
    0xF8408675,  # ldr x21, [x19], #8       where results go
    0xF8408676,  # ldr x22, [x19], #8       bytes to write
    0xAA1503F7,  # mov x23, x21
    0xF8408678,  # next: ldr x24, [x19], #8
    0xD2800000,  # mov x0, #0
    0xD63F0300,  # blr x24
    0xF80086E0,  # str x0, [x23], #8
    0xF1000694,  # subs x20, x20, #1
    0x54FFFF61,  # b.ne next
    0xD2800020,  # mov x0, #1
    0xAA1503E1,  # mov x1, x21
    0xAA1603E2,  # mov x2, x22
    0x14000007,  # b out (at stub + 84: see below)
    0xD503201F,  # nop
)
OUT = (0xD2800808, 0xD4000001, 0xD2800BA8, 0xD2800000, 0xD4000001)  # write; exit(0)


def find_qemu() -> str | None:
    """Return the emulator, or None."""
    return shutil.which("qemu-aarch64-static") or shutil.which("qemu-aarch64")


class Image:
    """An executable with programs, each with a buffer of its own."""

    def __init__(self, buffer_bytes: int, offsets: dict[tuple[str, int], int] | None = None) -> None:
        """`offsets`: relocations that lead into a program's buffer; by default those of kind map_value, to its start."""
        self.buffer_bytes = buffer_bytes
        self.offsets = offsets or {}
        self.programs: list[tuple[MachineCode, bytes]] = []
        self.named: dict[
            tuple[str, int], int
        ] = {}  # (kind of relocation, value) to the number of the program it stands for

    def name(self, kind: str, value: int) -> None:
        """Let relocations of this kind and value lead to the program that was added last: a helper, or the target of a tail call."""
        self.named[kind, value] = len(self.programs) - 1

    def add(self, code: MachineCode, value: bytes) -> None:
        """Add a program; relocations of kind map_value become the address of its buffer, which holds `value`."""
        assert len(value) == self.buffer_bytes
        self.programs.append((code, value))

    def run(self, qemu: str, folder: Path) -> list[tuple[int, bytes]]:
        """Run all; return (result, buffer) of each."""
        path = folder / "programs"
        path.write_bytes(self.build())
        path.chmod(0o755)
        done = subprocess.run([qemu, str(path)], capture_output=True, timeout=100)
        assert done.returncode == 0, (done.returncode, done.stderr)
        count = len(self.programs)
        results = struct.unpack_from(f"<{count}Q", done.stdout)
        size = self.buffer_bytes
        return [(results[i], done.stdout[8 * count + i * size : 8 * count + (i + 1) * size]) for i in range(count)]

    def build(self) -> bytes:
        """Lay out header, stub, table, code, results and buffers in one segment."""
        count = len(self.programs)
        head = 64 + 56
        stub = 4 * len(STUB)
        table = head + stub
        out = table + 24 + 8 * count
        code = out + 4 * len(OUT)
        code += -code % 16
        addresses, text = [], b""
        for machine_code, _ in self.programs:
            text += bytes(-len(text) % 16)
            addresses.append(code + len(text))
            text += machine_code.text
        results = code + len(text)
        results += -results % 16
        words = list(STUB)
        words[14] = 0x14000000 | (out - (head + 4 * 14)) // 4
        image = bytearray(results + 8 * count)
        image[head:table] = struct.pack(f"<{len(words)}I", *words)
        written = 8 * count + self.buffer_bytes * count
        struct.pack_into(f"<{3 + count}Q", image, table, count, BASE + results, written, *(BASE + a for a in addresses))
        struct.pack_into(f"<{len(OUT)}I", image, out, *OUT)
        image[code : code + len(text)] = text
        for index, (machine_code, _) in enumerate(self.programs):
            buffer = BASE + results + 8 * count + index * self.buffer_bytes
            for reloc in machine_code.relocs:
                key = (reloc.kind, reloc.value)
                if reloc.kind == "function":
                    place = BASE + addresses[index] + reloc.value
                elif key in self.named:
                    place = BASE + addresses[self.named[key]]
                else:
                    place = buffer + (self.offsets[key] if self.offsets else 0) + reloc.addend
                struct.pack_into("<Q", image, addresses[index] + reloc.offset, place)
        image += b"".join(value for _, value in self.programs)
        ident = b"\x7fELF" + bytes([2, 1, 1]) + bytes(9)
        struct.pack_into("<16sHHIQQQIHHHHHH", image, 0, ident, 2, 183, 1, BASE + head, 64, 0, 0, 64, 56, 1, 0, 0, 0)
        struct.pack_into("<IIQQQQQQ", image, 64, 1, 7, 0, BASE, BASE, len(image), len(image), 0x1000)
        return bytes(image)

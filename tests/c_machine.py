"""C functions run by gcc and by us, on the same input: `long test(long *io)` reads and writes 64 numbers and returns one.

Ours becomes a program of the type raw_tracepoint, whose numbers lie in an array map, and runs in the interpreter.
"""

from __future__ import annotations

import ctypes
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from struct import pack, pack_into, unpack

from bpf_programs import ArrayOfOne
from c_analysed import small_target

from sonde.bpf.disasm import disassemble
from sonde.bpf.interp import Machine, Program
from sonde.bpf.isa import decode
from sonde.lang.c.compile import Text, compile_c
from sonde.lang.c.options import Compiled, Entry, Options
from sonde.lang.source import Source
from sonde.spec.object import ProgramSpec
from sonde.spec.target import Target

NUMBERS = 64
GCC = shutil.which("gcc") or ""
COMMON = """
typedef unsigned char u8; typedef signed char s8; typedef unsigned short u16; typedef short s16; typedef unsigned int u32; typedef int s32;
typedef unsigned long u64; typedef long s64;
"""
WRAPPER = """
struct numbers { long io[64]; };
__bcc_table("array", int, struct numbers, io_map, 1, 0);
int run(void *ctx)
{
    int zero = 0;
    struct numbers *numbers = io_map.lookup(&zero);
    if (!numbers)
        return 0;
    numbers->io[63] = test(numbers->io);
    return 0;
}
"""


def compiled_text(text: str, target: Target | None = None, options: Options | None = None) -> Text:
    """Analyse a text."""
    return compile_c(Source("test.c", text), target or small_target(), options or Options())


def compile_test(text: str, target: Target | None = None, *, optimised: bool = True) -> tuple[Text, Compiled]:
    """Compile a text with a function `test` as the program `run`. It must be static, or is made so."""
    text = text.replace("long test(long *io)", "static long test(long *io)")
    unit = compiled_text(COMMON + text + WRAPPER, target)
    return unit, unit.compile_program("run", Entry("raw_tracepoint"), optimised=optimised)


def run_in_interpreter(text: str, inputs: list[list[int]], *, optimised: bool = True) -> list[list[int]]:
    """Return the 64 numbers after each run; the last one is the result."""
    unit, compiled = compile_test(text, optimised=optimised)
    tables: dict[str, ArrayOfOne] = {}
    found = []
    specs = {spec.name: spec for spec in (*unit.maps, *compiled.maps)}
    program = Program(_with_numbers(compiled, list(specs)))
    for numbers in inputs:
        tables = {name: ArrayOfOne() for name in specs}
        machine = Machine(
            {1: _lookup, 4: _read, 113: _read}, maps={i + 1: tables[name] for i, name in enumerate(specs)}
        )
        memory = {name: bytearray(spec.initial.ljust(spec.value_size, b"\0")) for name, spec in specs.items()}
        for name, data in memory.items():
            tables[name].address = machine.memory.add(data)
        memory["io_map"][:] = _packed(numbers)
        machine.run(program)
        found.append(list(unpack("<64q", memory["io_map"])))
    return found


def _with_numbers(compiled: Compiled, names: list[str]) -> bytes:
    """Put the number of its map into each wide load, and the distance into each call."""
    code = bytearray(compiled.program.insns)
    for reloc in compiled.program.relocs:
        at = reloc.pc * 8
        if reloc.kind == "subprogram":
            pack_into("<i", code, at + 4, reloc.addend - reloc.pc - 1)
        else:
            code[at + 1] = code[at + 1] & 15 | (1 if reloc.kind == "map" else 2) << 4
            pack_into("<i", code, at + 4, names.index(reloc.symbol) + 1)
            pack_into("<i", code, at + 12, reloc.addend)
    return bytes(code)


def _lookup(machine: Machine, table: int, key: int, *_: int) -> int:
    found = machine.map_at(table)
    assert isinstance(found, ArrayOfOne)
    return found.value_address(0)


def _read(machine: Machine, to: int, size: int, source: int, *_: int) -> int:
    data = bytes(machine.memory.view(source, size)) if source else bytes(size)
    machine.memory.view(to, size, write=True)[:] = data
    return 0


def _packed(numbers: list[int]) -> bytes:
    whole = [*numbers, *([0] * (NUMBERS - len(numbers)))]
    return pack("<64Q", *(n & (1 << 64) - 1 for n in whole))


class Reference:
    """A text compiled by gcc."""

    def __init__(self, text: str) -> None:
        self._directory = tempfile.TemporaryDirectory()
        source, library = Path(self._directory.name, "t.c"), Path(self._directory.name, "t.so")
        source.write_text(COMMON + text)
        command = [
            GCC,
            "-w",
            "-O0",
            "-fwrapv",
            "-fno-strict-aliasing",
            "-shared",
            "-fPIC",
            "-o",
            str(library),
            str(source),
        ]
        subprocess.run(command, check=True, capture_output=True, timeout=60)
        self._function = ctypes.CDLL(str(library)).test
        self._function.restype = ctypes.c_long

    def run(self, numbers: list[int]) -> list[int]:
        """Return the 64 numbers after a run."""
        array = (ctypes.c_long * NUMBERS).from_buffer_copy(_packed(numbers))
        array[63] = self._function(array)
        return list(array)

    def close(self) -> None:
        self._directory.cleanup()


def instructions(spec: ProgramSpec) -> list[str]:
    """The lines of a program's code."""
    return disassemble(decode(spec.insns)).splitlines()


def calls_of(spec: ProgramSpec) -> list[str]:
    """The helpers that a program calls, in order."""
    found = [re.search(r"call bpf_(\w+)#", line) for line in instructions(spec)]
    return [match[1] for match in found if match]

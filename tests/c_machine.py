"""C functions run by gcc and by us, on the same input: `long test(long *io)` reads and writes 64 numbers and returns one.

Ours becomes a program of the type raw_tracepoint, whose numbers lie in an array map. It runs in the kernel, or in the interpreter.
"""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import tempfile
from pathlib import Path
from struct import pack, unpack

from fake_target import make_target

from sonde.bpf.interp import Machine, Program
from sonde.lang.c.compile import Text
from sonde.lang.c.environment import Environment
from sonde.lang.c.options import Compiled, Entry, Options
from sonde.lang.c.parser import parse
from sonde.lang.c.tokens import tokenize
from sonde.lang.c.types_unit import analyse
from sonde.lang.source import Source
from sonde.spec.object import ObjectSpec
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


def analysed(text: str, target: Target | None = None, options: Options | None = None) -> Text:
    """Analyse a text that needs no preprocessor."""
    target = target or make_target()
    environment = Environment(target)
    source = Source("test.c", text)
    unit = parse(list(tokenize(source)), environment.is_type_name)
    return Text(analyse(unit, environment), target, options or Options())


def compile_test(text: str, target: Target | None = None, *, optimised: bool = True) -> tuple[Text, Compiled]:
    """Compile a text with a function `test` as the program `run`. It must be static, or is made so."""
    text = text.replace("long test(long *io)", "static long test(long *io)")
    unit = analysed(COMMON + text + WRAPPER, target)
    return unit, unit.compile_program("run", Entry("raw_tracepoint"), optimised=optimised)


def run_in_kernel(text: str, inputs: list[list[int]], *, optimised: bool = True) -> list[list[int]]:
    """Return the 64 numbers after each run; the last one is the result."""
    from sonde.kernel.engine import KernelEngine
    from sonde.kernel.target import live_target

    unit, compiled = compile_test(text, live_target(), optimised=optimised)
    key = bytes(4)
    found = []
    with KernelEngine().load(ObjectSpec((compiled.program,), (*unit.maps, *compiled.maps))) as loaded:
        for numbers in inputs:
            loaded.maps["io_map"].update(key, _packed(numbers))
            loaded.run("run")
            found.append(list(unpack("<64q", loaded.maps["io_map"].lookup(key)[0])))
    return found


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


__all__ = ["Machine", "Program", "Reference", "analysed", "compile_test", "run_in_kernel"]

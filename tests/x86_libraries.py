"""Shared libraries of this machine as test material: code, functions, tables. Also for `bench/windows.py`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sonde.debuginfo.elf import EM_X86_64, Elf
from sonde.user.x86.survey import Survey
from sonde.user.x86.window import Window, plan_window

FOLDERS = ("/usr/lib/x86_64-linux-gnu", "/lib/x86_64-linux-gnu", "/usr/lib64", "/lib64")
NAMES = ("libc.so.6", "ld-linux-x86-64.so.2", "libstdc++.so.6", "libcrypto.so.3", "libpython3.11.so.1.0")


@dataclass
class Library:
    """The text of one library."""

    path: Path
    code: bytes
    base: int
    functions: dict[int, int]  # address to size
    names: dict[int, str]
    data: list[tuple[int, bytes]]

    @property
    def starts(self) -> list[int]:
        return sorted(self.functions)

    def survey(self) -> Survey:
        return Survey(self.code, self.base, self.starts)

    def windows(self) -> Iterator[Window]:
        """Plan a probe at each function's entry."""
        survey, starts = self.survey(), self.starts
        for start, behind in zip(starts, [*starts[1:], self.base + len(self.code)]):
            end = start + self.functions[start]
            yield plan_window(
                self.code, start, start=start, end=end, base=self.base, limit=behind, survey=survey, data=self.data
            )


def find_libraries(names: tuple[str, ...] = NAMES) -> list[Path]:
    """Return the paths of the libraries that are here."""
    found = []
    for name in names:
        paths = [Path(folder) / name for folder in FOLDERS]
        found += [path for path in paths if path.exists()][:1]
    return found


def read_library(path: Path) -> Library:
    """Read the functions of .text, each address once."""
    with Elf.open(str(path)) as elf:
        assert elf.machine == EM_X86_64
        text = elf.get_section(".text")
        assert text is not None
        code = bytes(elf.read_section(text))
        end = text.addr + len(code)
        functions: dict[int, int] = {}
        names = {}
        for symbol in elf.iter_functions():
            if symbol.size and text.addr <= symbol.vaddr and symbol.vaddr + symbol.size <= end:
                functions[symbol.vaddr] = max(symbol.size, functions.get(symbol.vaddr, 0))
                names[symbol.vaddr] = symbol.name
        data = [(s.addr, bytes(elf.read_section(s))) for s in elf.sections if s.name in (".rodata", ".data.rel.ro")]
        return Library(path, code, text.addr, functions, names, data)

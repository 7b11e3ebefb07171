"""Windows in code that gcc has just made: jump tables, labels as values, patchable entries, calls to __fentry__, landing places, stripped files."""

from __future__ import annotations

import platform
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from sonde.debuginfo.elf import Elf
from sonde.user.x86.survey import read_tables
from sonde.user.x86.text import Text, iter_relr, read_unwind_index
from sonde.user.x86.window import plan_window

pytestmark = [
    pytest.mark.oracle,
    pytest.mark.skipif(platform.machine() != "x86_64" or not shutil.which("gcc"), reason="needs gcc for x86-64"),
]

# Every case of the switch, and every label, is the only place with its number.
SOURCE = """
#define CASES(X) X(0) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9)
#define CASE(n) case n: return use(0x51230000 + n);
#define LABEL(n) l##n: use(0x61230000 + n); goto *table[*++p];
#define ADDRESS(n) &&l##n,
__attribute__((noinline)) int use(int n) { __asm__ volatile("" : "+r"(n)); return n; }
__attribute__((noinline)) int choose(int n) { switch (n) { CASES(CASE) } return 0; }
__attribute__((noinline)) int threaded(const unsigned char *p)
{
    static const void *const table[] = { CASES(ADDRESS) &&out };
    goto *table[*p];
    CASES(LABEL)
out: return 1;
}
__attribute__((noinline)) int (*tail(int (**f)(int), int n))(int) { return (int (*)(int))(long)f[n](n); }
int main(int argc, char **argv) { return choose(argc) + threaded((void *)argv[0]) + (tail((void *)argv, argc) != 0); }
"""


def build(folder: Path, *options: str) -> Path:
    (folder / "program.c").write_text(SOURCE)
    path = folder / "program"
    done = subprocess.run(
        ["gcc", "-O2", "-fno-tree-switch-conversion", "-fno-gcse", *options, "-o", str(path), str(folder / "program.c")],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return path


@pytest.fixture(
    params=[
        ("-fPIE", "-pie"),
        ("-fno-pie", "-no-pie"),
        ("-fPIE", "-pie", "-fcf-protection=full"),
        ("-fPIE", "-pie", "-Wl,-z,pack-relative-relocs"),
    ],
    ids=["pie", "no-pie", "cet", "relr"],
)
def program(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Elf]:
    with Elf.open(str(build(tmp_path, *request.param))) as elf:
        yield elf


def code_of(elf: Elf) -> tuple[bytes, int]:
    section = elf.get_section(".text")
    assert section is not None
    return bytes(elf.read_section(section)), section.addr


def numbers(code: bytes, base: int, head: int) -> list[int]:
    """The addresses of `mov $number, %edi` for the numbers that begin with `head`."""
    return [base + m.start() for m in re.finditer(rb"\xbf." + head.to_bytes(3, "big")[::-1], code, re.DOTALL)]


def test_the_cases_of_a_switch_are_targets(program: Elf) -> None:
    code, base = code_of(program)
    function = program.get_function("choose")
    assert function
    cases = numbers(code, base, 0x512300)
    assert len(cases) == 10
    text = Text(program)
    tables = read_tables(code, base, function.vaddr, function.vaddr + function.size, text.data)
    assert tables.complete
    assert set(cases) <= tables.targets
    # In a window that begins before one of them, each is in the way.
    for case in cases:
        before = next(at for at in range(case - 1, case - 16, -1) if text.plan(at).kind != "none")
        if before + 5 > case:
            assert text.plan(before).kind in ("punned", "trap")


def test_labels_as_values_are_targets(program: Elf) -> None:
    code, base = code_of(program)
    labels = numbers(code, base, 0x612300)
    assert len(labels) >= 10
    targets = Text(program).targets
    landing = 4 if code[labels[3] - base - 4 :].startswith(b"\xf3\x0f\x1e\xfa") else 0
    assert len({label - landing for label in labels} & targets) >= 9  # the first may be fallen into


def test_every_function_takes_a_trampoline(program: Elf) -> None:
    text = Text(program)
    for name in ("use", "choose", "threaded", "tail", "main"):
        function = program.get_function(name)
        assert function
        window = text.plan(function.vaddr)
        assert window.kind == "relocated", (name, window.reason)
        landing = program.data[program.get_offset(function.vaddr) :][:4] == b"\xf3\x0f\x1e\xfa"
        assert window.addr == function.vaddr + (4 if landing else 0)


@pytest.mark.parametrize(
    ("options", "kind", "length"),
    [
        (("-fpatchable-function-entry=5",), "nop", 5),
        (("-fpatchable-function-entry=8,3",), "nop", 5),
        (("-pg", "-mfentry", "-mnop-mcount", "-fno-pie", "-no-pie"), "nop", 5),
        (("-pg", "-mfentry", "-mrecord-mcount"), "relocated", 0),
    ],
    ids=["patchable", "patchable-around", "nop-mcount", "fentry"],
)
def test_entries_that_are_made_for_it(options: tuple[str, ...], kind: str, length: int, tmp_path: Path) -> None:
    more = ("-fcf-protection=none",)
    with Elf.open(str(build(tmp_path, *options, *more))) as elf:
        function = elf.get_function("choose")
        assert function
        window = Text(elf).plan(function.vaddr)
        assert (window.kind, window.addr) == (kind, function.vaddr)
        assert not length or window.length == length
        if kind == "relocated":
            assert window.instructions[-1].kind in ("call", "indirect_call")


def test_a_stripped_file(tmp_path: Path) -> None:
    path = build(tmp_path)
    with Elf.open(str(path)) as elf:
        function = elf.get_function("choose")
        assert function
        whole = Text(elf).plan(function.vaddr)
    subprocess.run(["strip", str(path)], check=True)
    with Elf.open(str(path)) as elf:
        assert elf.get_function("choose") is None
        stripped = Text(elf)
        assert function.vaddr in stripped.starts
        assert stripped.plan(function.vaddr) == whole
        assert "no instruction begins" in stripped.plan(function.vaddr + 1).reason
        assert "no section" in stripped.plan(1).reason


def test_relr_against_readelf(tmp_path: Path) -> None:
    with Elf.open(str(build(tmp_path, "-fPIE", "-pie", "-Wl,-z,pack-relative-relocs"))) as elf:
        section = elf.get_section(".relr.dyn")
        if section is None:
            pytest.skip("this linker packs no relocations")
        places = iter_relr(elf.read_section(section))
        listed = subprocess.run(["readelf", "-rW", elf.path], capture_output=True, text=True, check=True).stdout
        assert [f"{place:016x}" for place in places] == re.findall(
            r"^([0-9a-f]{16})\b", listed.split(".relr.dyn")[1], re.M
        )


def test_the_unwind_index_against_the_symbols(tmp_path: Path) -> None:
    with Elf.open(str(build(tmp_path))) as elf:
        section = elf.get_section(".eh_frame_hdr")
        assert section is not None
        found = read_unwind_index(elf.read_section(section), section.addr)
        for name in ("use", "choose", "threaded", "tail", "main"):
            symbol = elf.get_function(name)
            assert symbol
            assert symbol.vaddr in found


def test_a_table_that_is_not_given_is_missed(program: Elf) -> None:
    """Why `data` is needed: the same function without it."""
    code, base = code_of(program)
    function = program.get_function("choose")
    assert function
    end = function.vaddr + function.size
    tables = read_tables(code, base, function.vaddr, end, [])
    assert not tables.complete
    inside = numbers(code, base, 0x512300)[3]
    before = plan_window(code, inside, start=function.vaddr, end=end, base=base)
    assert before.kind in ("relocated", "punned")

"""Damaged objects and types: files that once did harm, and a few new ones in every run; bounded in time and memory."""

from __future__ import annotations

import random
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from btf_builder import BtfBuilder
from hostile_objects import FOLDER, SECONDS, WAYS, damage, run, sound_files, time_limit

from sonde.bpf.objfile.combine import combine_objects
from sonde.bpf.objfile.elfwrite import ALLOC, EXECUTE, FUNC, PROGBITS, WEAK, ElfWriter
from sonde.bpf.objfile.read import read_object

ROOT = Path(__file__).parents[3]
RETURN = bytes.fromhex("b7000000000000009500000000000000")
SAVED = sorted(FOLDER.glob("*.bin"))


@pytest.mark.parametrize("path", SAVED, ids=lambda path: path.name)
def test_saved_failures(path: Path) -> None:
    run(path.name.partition("_")[0], path.read_bytes())


@pytest.mark.parametrize("way", sorted(WAYS))
def test_sound_files_pass(way: str) -> None:
    """Each way does something with a sound file: it is not refused at the door."""
    for each, data in sound_files():
        if each == way:
            WAYS[way](data)


@pytest.mark.parametrize("seed", range(4))
def test_random_damage(seed: int) -> None:
    chance = random.Random(seed)
    files = sound_files()
    for number in range(60):
        way, data = files[(number * 7 + seed) % len(files)]
        run(way, damage(data, chance))


@pytest.mark.parametrize("way", ["down", "up", "around"])
def test_long_chains_of_pointers(way: str) -> None:
    """Types that a pairwise or round by round comparison would take minutes for: within the limit that every file has."""
    made, count = BtfBuilder(), 8_000
    if way == "up":
        made.int("int", 4, True)
    for number in range(1, count):
        made.ptr(number if way == "up" else number + 1)
    if way == "down":
        made.int("int", 4, True)
    if way == "around":
        made.add("const", "", 1)
    run("btf", made.build())


def make_wide(name: str, count: int) -> bytes:
    """An object with `count` weak functions, each of which the one program calls."""
    elf = ElfWriter()
    text = elf.section(".text", PROGBITS, ALLOC | EXECUTE, 8)
    code = elf.section("xdp", PROGBITS, ALLOC | EXECUTE, 8)
    for number in range(count):
        text.data += RETURN
        code.relocations.append((8 * number, elf.symbol(f"f{number}", text, 16 * number, 16, FUNC, WEAK), 10))
        code.data += struct.pack("<BBhi", 0x85, 0x10, 0, -1)
    code.data += RETURN
    elf.symbol(name, code, 0, len(code.data), FUNC)
    return elf.build()


def test_many_functions() -> None:
    """Ten thousand calls of as many functions, and two such objects linked: in steps that their number grows with, not its square."""
    one, two = make_wide("one", 10_000), make_wide("two", 10_000)
    with time_limit(SECONDS):
        (program,) = read_object(one).programs
        assert len(program.functions) == 10_001
    with time_limit(SECONDS):
        assert [p.name for p in read_object(combine_objects([("1.o", one), ("2.o", two)])).programs] == ["one", "two"]


def test_a_harmful_file_is_saved(tmp_path: Path) -> None:
    """The command that looks for more tells what it found, and where."""
    code = (
        "import sys; sys.path[0:0] = ['tests', 'bench', 'src']; import pathlib, hostile_objects as h\n"
        "h.WAYS['read'] = lambda data: 1 // 0\n"
        f"import fuzz_objects as f; f.FOLDER = pathlib.Path({str(tmp_path)!r}); sys.exit(f.main(['20', '5']))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1 and "ZeroDivisionError" in done.stdout
    assert any(path.name.startswith("read_") for path in tmp_path.iterdir())

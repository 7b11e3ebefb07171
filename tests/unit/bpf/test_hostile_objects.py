"""Damaged objects and types: files that once did harm, and a few new ones in every run; bounded in time and memory."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest
from btf_builder import BtfBuilder
from hostile_objects import FOLDER, WAYS, damage, run, sound_files

ROOT = Path(__file__).parents[3]
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

"""The libraries that a program will load, held against what its loader says (ldd)."""

from __future__ import annotations

import os
import platform
import random
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sonde.debuginfo.elf import Elf
from sonde.debuginfo.needed import Dynamic, find_needed
from sonde.errors import FormatError

ARCH = platform.machine()
PROGRAMS = [os.path.realpath(path) for path in (sys.executable, shutil.which("ls"), shutil.which("gcc")) if path]


def ask_loader(path: str, **environ: str) -> list[str]:
    """What the loader would map, in its order, without itself."""
    text = subprocess.run(["ldd", path], capture_output=True, text=True, env={**os.environ, **environ}).stdout
    return re.findall(r"=> (/\S+) \(", text)


@pytest.mark.parametrize("path", PROGRAMS)
def test_programs_of_the_system(path: str) -> None:
    if shutil.which("ldd") is None:
        pytest.skip("needs ldd")
    found = [library for library in find_needed(path, ARCH) if "/ld-linux" not in library]
    assert found == ask_loader(path)


def test_static_programs_and_other_files_need_nothing(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("#!/bin/sh\n")
    assert find_needed(str(tmp_path / "text"), ARCH) == []
    assert find_needed(str(tmp_path / "nothing"), ARCH) == []


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A program `user` that needs libone, which needs libtwo."""
    if shutil.which("gcc") is None:
        pytest.skip("needs gcc")
    for name, needs in (("two", []), ("one", ["-ltwo"])):
        (tmp_path / name).mkdir()
        words = [
            "gcc",
            "-shared",
            "-fPIC",
            "-x",
            "c",
            "-",
            "-o",
            tmp_path / name / f"lib{name}.so",
            "-Wl,--no-as-needed",
        ]
        subprocess.run([*words, f"-L{tmp_path}/two", *needs], input="", text=True, check=True)
    return tmp_path


def build(tree: Path, *words: str) -> str:
    path = tree / "user"
    command = [
        "gcc",
        "-x",
        "c",
        "-",
        "-o",
        path,
        "-Wl,--no-as-needed",
        f"-L{tree}/one",
        "-lone",
        f"-Wl,-rpath-link,{tree}/two",
    ]
    subprocess.run([*command, *words], input="int main(void) { return 0; }", text=True, check=True)
    return str(path)


@pytest.mark.parametrize("kind", ["rpath", "runpath", "origin", "environment", "preload"])
def test_where_libraries_are_looked_for(tree: Path, kind: str) -> None:
    both = f"{tree}/one:{tree}/two"
    words, environ = {
        "rpath": (["-Wl,--disable-new-dtags", f"-Wl,-rpath,{both}"], {}),
        "runpath": (["-Wl,--enable-new-dtags", f"-Wl,-rpath,{both}"], {}),  # libone does not inherit it
        "origin": (["-Wl,--disable-new-dtags", "-Wl,-rpath,$ORIGIN/one:${ORIGIN}/two"], {}),
        "environment": ([], {"LD_LIBRARY_PATH": both}),
        "preload": ([f"-Wl,-rpath,{tree}/one"], {"LD_PRELOAD": f"{tree}/two/libtwo.so"}),
    }[kind]
    path = build(tree, *words)
    found = [library for library in find_needed(path, ARCH, environ) if "/ld-linux" not in library]
    if kind == "preload":  # ldd shows it in another form
        assert found[:2] == [f"{tree}/two/libtwo.so", f"{tree}/one/libone.so"]
        return
    assert found == ask_loader(path, **environ)
    assert (f"{tree}/two/libtwo.so" in found) == (kind != "runpath")


def test_a_broken_file_is_an_error_or_needs_what_it_says(tree: Path) -> None:
    data = Path(build(tree)).read_bytes()
    chance = random.Random(1)
    for _ in range(500):
        broken = bytearray(data[: chance.randrange(64, len(data))] if chance.random() < 0.3 else data)
        for _ in range(chance.randrange(1, 40)):
            broken[chance.randrange(min(len(broken), 1 << 12))] = chance.randrange(256)
        try:
            dynamic = Dynamic(Elf(bytes(broken)))
        except FormatError:
            continue
        assert len(dynamic.needed) <= 4096

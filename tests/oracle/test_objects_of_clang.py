"""The sources of tests/objects, compiled by the clang that is installed: what it makes is read, loaded and run like the objects in the repository."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
from pathlib import Path

import pytest

from sonde.api.objects import load_object, open_object, read_object
from sonde.bpf.objfile.model import ObjectFile

OBJECTS = Path(__file__).parents[1] / "objects"
CLANG = next((c for c in ("clang", "clang-14", "clang-15", "clang-16", "clang-19") if shutil.which(c)), "")
pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(
        not CLANG or not Path("/usr/include/bpf/bpf_helpers.h").exists(),
        reason="needs clang and libbpf's headers (Debian packages clang-14, libbpf-dev)",
    ),
]
RUNS = {"basic": ("run", 7 + 1 + ord("s")), "attached": ("questions", 0), "kernel_objects": ("locks", 5)}


def compiled(name: str, folder: Path, *options: str) -> str:
    made = folder / f"{name}.o"
    include = f"-I/usr/include/{os.uname().machine}-linux-gnu"
    words = [
        CLANG,
        "-g",
        "-O2",
        "-target",
        "bpfel",
        include,
        *options,
        "-c",
        str(OBJECTS / f"{name}.bpf.c"),
        "-o",
        str(made),
    ]
    subprocess.run(words, check=True)
    return str(made)


def summary(found: ObjectFile) -> object:
    return (
        {(p.name, p.section, tuple(f.name for f in p.functions)) for p in found.programs},
        {(m.name, m.type, m.key_size, m.value_size, m.max_entries, m.values) for m in found.maps},
        {(e.name, e.section, e.weak) for e in found.externs},
    )


@pytest.mark.parametrize("name", sorted(RUNS))
def test_the_objects_in_the_repository_are_of_these_sources(name: str, tmp_path: Path) -> None:
    assert summary(open_object(compiled(name, tmp_path))) == summary(open_object(str(OBJECTS / f"{name}.o")))


@pytest.mark.parametrize("options", [("-mcpu=v1",), ("-mcpu=v2",), ("-mcpu=v3",), ("-mcpu=v3", "-O1")], ids=" ".join)
@pytest.mark.parametrize("name", sorted(RUNS))
def test_every_level_of_instructions_runs(name: str, options: tuple[str, ...], tmp_path: Path) -> None:
    program, result = RUNS[name]
    with load_object(read_object(compiled(name, tmp_path, *options)), attach=False).object as live:
        assert live.run(program) == result
        if name == "basic":
            key = struct.pack("<i", os.getpid())
            assert live.maps["seen"].lookup(key) == [struct.pack("<ii", os.getpid(), os.getppid())]

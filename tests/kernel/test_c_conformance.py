"""C programs run by the kernel give what gcc gives for the same source: cases of our own (`tests/c`), and random programs."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from random import Random

import pytest
from c_conformance import build_by_gcc, build_by_us, random_input, run_by_gcc, show
from c_programs import ProgramMaker

from sonde.errors import VerifierError
from sonde.kernel.engine import KernelEngine
from sonde.kernel.target import live_target

pytestmark = pytest.mark.kernel
CASES = sorted((Path(__file__).parent.parent / "c").glob("*.c"))
COUNT = int(os.environ.get("SONDE_FUZZ_PROGRAMS", "60"))
FIRST = int(os.environ.get("SONDE_FUZZ_SEED", "0"))
RUNS = 16
KEY = bytes(4)

if not shutil.which("gcc"):
    pytest.skip("there is no gcc to compare with", allow_module_level=True)


def compare(text: str, seed: int, folder: Path) -> None:
    """Run a text both ways on some inputs; all of them see the global variables that the ones before have left."""
    library = build_by_gcc(text, folder)
    with KernelEngine().load(build_by_us(text, live_target())) as loaded:
        random = Random(seed)
        for _ in range(RUNS):
            data = random_input(random)
            loaded.maps["io"].update(KEY, data)
            loaded.run("entry")
            (ours,) = loaded.maps["io"].lookup(KEY)
            theirs = run_by_gcc(library, data)
            assert ours == theirs, f"{text}\nseed {seed}\nours: {show(ours)}\ngcc:  {show(theirs)}"


@pytest.mark.parametrize("case", CASES, ids=[case.stem for case in CASES])
def test_case(case: Path, tmp_path: Path) -> None:
    compare(case.read_text(), 1, tmp_path)


@pytest.mark.parametrize("wide", [False, True], ids=["", "with 128 bits"])
def test_random_programs(wide: bool, tmp_path: Path) -> None:
    refused = 0
    for seed in range(FIRST, FIRST + COUNT):
        text = ProgramMaker(seed, wide=wide).make()
        folder = tmp_path / str(seed)
        folder.mkdir()
        try:
            compare(text, seed, folder)
        except VerifierError as error:
            # Loops with many branches may exceed what the verifier walks through; nothing else may be refused.
            assert "too large" in error.log or "too complex" in error.log, (seed, text, error.render())
            refused += 1
    assert refused <= COUNT / 20

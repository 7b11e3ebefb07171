"""Compiled C against gcc: a corpus of C, and random functions, run here in the kernel (or the interpreter) and there in this process."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest
from c_generator import CGenerator
from c_machine import GCC, Reference, run_in_interpreter, run_in_kernel

from sonde.errors import VerifierError

pytestmark = pytest.mark.skipif(not GCC, reason="no gcc to compare with")
CORPUS = sorted(Path(__file__).parents[1].joinpath("corpus_c").glob("*.c"))
COUNT = int(os.environ.get("SONDE_FUZZ_PROGRAMS", "40"))
SEED = int(os.environ.get("SONDE_FUZZ_SEED", "0"))
INTERESTING = (0, 1, -1, 2, 3, 5, 7, 8, 100, 127, 128, 255, 256, -128, -5, 0x7FFFFFFF, -0x80000000, 0x80000000, 0xFFFFFFFF, 1 << 40,
               (1 << 63) - 1, -(1 << 63), 0x123456789ABCDEF)  # fmt: skip


def inputs_of(seed: int, count: int) -> list[list[int]]:
    chance = random.Random(seed)
    return [[chance.choice(INTERESTING) for _ in range(4)] for _ in range(count)]


def expected(text: str, inputs: list[list[int]]) -> list[list[int]]:
    reference = Reference(text)
    try:
        return [reference.run(numbers) for numbers in inputs]
    finally:
        reference.close()


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.stem)
@pytest.mark.parametrize("optimised", [True, False], ids=["optimised", "plain"])
def test_corpus_in_the_interpreter(path: Path, optimised: bool) -> None:
    inputs = inputs_of(1, 15)
    text = path.read_text()
    found = run_in_interpreter(text, inputs, optimised=optimised)
    for numbers, theirs, ours in zip(inputs, expected(text, inputs), found):
        assert ours == theirs, numbers


@pytest.mark.kernel
@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.stem)
def test_corpus_in_the_kernel(path: Path) -> None:
    inputs = inputs_of(2, 40)
    text = path.read_text()
    for numbers, theirs, ours in zip(inputs, expected(text, inputs), run_in_kernel(text, inputs)):
        assert ours == theirs, numbers


@pytest.mark.kernel
def test_random_functions_in_the_kernel() -> None:
    refused = 0
    for seed in range(SEED, SEED + COUNT):
        text = CGenerator(seed, 5 + seed % 30).make()
        inputs = inputs_of(seed, 8)
        try:
            found = run_in_kernel(text, inputs)
        except VerifierError as error:
            # Loops with many branches may exceed what the verifier walks through; nothing else may be refused.
            assert "too large" in error.log or "too complex" in error.log, (seed, error.render())
            refused += 1
            continue
        for numbers, theirs, ours in zip(inputs, expected(text, inputs), found):
            assert ours == theirs, f"seed {seed}, inputs {numbers}\n{text}"
    assert refused <= COUNT / 5

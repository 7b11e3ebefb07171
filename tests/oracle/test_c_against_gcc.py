"""Compiled C against gcc without a kernel: a corpus of C, optimised and as it was lowered, run by the interpreter."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from c_machine import GCC, Reference, run_in_interpreter

pytestmark = pytest.mark.skipif(not GCC, reason="no gcc to compare with")
CORPUS = sorted(Path(__file__).parents[1].joinpath("corpus_c").glob("*.c"))
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

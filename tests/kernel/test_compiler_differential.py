"""Compiled code against the interpreter: random functions run in the kernel, optimised and not, and must agree."""

from __future__ import annotations

import os

import pytest
from ir_machine import Generator, copy_module, random_inputs, run

from sonde.compiler.pipeline import compile_module
from sonde.errors import VerifierError
from sonde.kernel.engine import KernelEngine
from sonde.kernel.target import live_target
from sonde.spec.object import ObjectSpec

pytestmark = pytest.mark.kernel
COUNT = int(os.environ.get("SONDE_FUZZ_PROGRAMS", "150"))
KEY = bytes(4)


@pytest.mark.parametrize("optimised", [True, False], ids=["optimised", "plain"])
def test_kernel_agrees_with_interpreter(optimised: bool) -> None:
    target = live_target()
    base = int(os.environ.get("SONDE_FUZZ_SEED", "0"))
    refused = 0
    for seed in range(base, base + COUNT):
        module = Generator(seed, 10 + seed % 50).make()
        compiled = compile_module(copy_module(module), target, optimised=optimised)
        try:
            loaded = KernelEngine().load(ObjectSpec(compiled.programs, compiled.maps))
        except VerifierError as error:
            # Loops with many branches may exceed what the verifier walks through; nothing else may be refused.
            assert "too large" in error.log or "too complex" in error.log, (seed, error.render())
            refused += 1
            continue
        with loaded:
            for inputs in range(3):
                io = random_inputs(seed + inputs)
                loaded.maps["io"].update(KEY, bytes(io))
                loaded.run("fuzz")
                expected = bytearray(io)
                run(module.functions["fuzz"], expected, module)
                assert loaded.maps["io"].lookup(KEY) == [bytes(expected)], f"seed {seed}, inputs {inputs}"
    assert refused < COUNT / 5

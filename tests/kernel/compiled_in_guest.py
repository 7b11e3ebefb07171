"""Random functions, compiled and run on the kernel of a guest, against the interpreter. Arguments: first seed, number."""

from __future__ import annotations

import sys

from ir_machine import Generator, copy_module, random_inputs, run

from sonde.compiler.pipeline import compile_module
from sonde.errors import VerifierError
from sonde.kernel.engine import KernelEngine
from sonde.kernel.target import live_target
from sonde.spec.object import ObjectSpec

KEY = bytes(4)


def main() -> int:
    first, count = int(sys.argv[1]), int(sys.argv[2])
    target = live_target()
    too_big = 0
    for seed in range(first, first + count):
        module = Generator(seed, 8 + seed % 30, variable_stack_places=target.features.have("isa:atomics")).make()
        compiled = compile_module(copy_module(module), target, optimised=seed % 3 > 0)
        try:
            loaded = KernelEngine().load(ObjectSpec(compiled.programs, compiled.maps))
        except VerifierError as error:
            if "too large" in error.log or "too complex" in error.log:
                too_big += 1
                continue
            print(f"seed {seed}: {error.render()}\n{error.log[-3000:]}")
            return 1
        with loaded:
            io = random_inputs(seed)
            loaded.maps["io"].update(KEY, bytes(io))
            loaded.run("fuzz")
            expected = bytearray(io)
            run(module.functions["fuzz"], expected, module)
            if loaded.maps["io"].lookup(KEY) != [bytes(expected)]:
                print(f"seed {seed} gives another result")
                return 1
    print(f"{count - too_big} functions agree, {too_big} are too big for the verifier")
    return int(too_big > count // 4)


def memory() -> int:
    """The tests of memory and calls that other kernels can run."""
    import pytest
    from kernel import test_compiler_memory as tests

    have = live_target().features.have
    for size, offset in ((1, 0), (7, 1), (16, 4), (31, 1)):
        tests.test_memcpy_and_memset(size, offset)
    checks = [check for name, check in vars(tests).items() if name.startswith("test_")]
    for check in checks:
        if check.__code__.co_argcount:
            if check is tests.test_atomics and have("isa:atomics"):
                check("i32")
                check("i64")
            continue
        try:
            check()
        except pytest.skip.Exception as skipped:
            print(f"{check.__name__}: {skipped}")
    return 0

"""The interpreter against the kernel: random programs of every operation must leave the same bytes."""

from __future__ import annotations

import os

import pytest
from bpf_programs import IO, ArrayOfOne, ProgramGenerator, kernel_program, random_input
from machine_programs import FILLED, KERNEL_MAPS, Interpreter, WholeGenerator
from machine_programs import kernel_program as kernel_program_with_maps

from sonde.bpf.disasm import disassemble
from sonde.bpf.interp import Program
from sonde.errors import VerifierError
from sonde.kernel.engine import KernelEngine
from sonde.kernel.target import live_target
from sonde.spec.object import ObjectSpec

pytestmark = pytest.mark.kernel
COUNT = int(os.environ.get("SONDE_FUZZ_PROGRAMS", "150"))
KEY = bytes(4)


def test_the_kernel_agrees() -> None:
    base = int(os.environ.get("SONDE_FUZZ_SEED", "0"))
    acquire = live_target().features.have("isa:load_acquire")
    refused = 0
    for seed in range(base, base + COUNT):
        insns = ProgramGenerator(seed, 10 + seed % 90, acquire=acquire).make()
        program = Program(insns)
        try:
            loaded = KernelEngine().load(ObjectSpec((kernel_program(insns),), (IO,)))
        except VerifierError as error:
            assert "too large" in error.log or "too complex" in error.log, (
                f"seed {seed}: {error.render()}\n{error.log[-2000:]}"
            )
            refused += 1
            continue
        with loaded:
            for inputs in range(3):
                value = random_input(seed * 3 + inputs)
                loaded.maps["io"].update(KEY, bytes(value))
                loaded.run("fuzz")
                ArrayOfOne.interpret(program, value)
                assert loaded.maps["io"].lookup(KEY) == [bytes(value)], f"seed {seed}\n{disassemble(insns)}"
    assert refused < COUNT / 5


def test_the_kernel_agrees_about_maps_and_local_functions() -> None:
    """The same of programs with helpers of maps, local functions, may_goto and far offsets; what they leave in the maps is compared as well."""
    refused, base = 0, int(os.environ.get("SONDE_FUZZ_SEED", "0"))
    interpreter = Interpreter()
    for seed in range(base, base + COUNT // 2):
        insns = WholeGenerator(
            seed, 10 + seed % 60, kernel=True, acquire=live_target().features.have("isa:load_acquire")
        ).make()
        try:
            loaded = KernelEngine().load(ObjectSpec((kernel_program_with_maps(insns),), KERNEL_MAPS))
        except VerifierError as error:
            assert "too large" in error.log or "too complex" in error.log, f"seed {seed}\n{error.log[-2000:]}"
            refused += 1
            continue
        with loaded:
            value = bytes(random_input(seed))
            loaded.maps["io"].update(KEY, value)
            for key in FILLED:
                loaded.maps["h"].update(key, key + key)
            loaded.run("fuzz")
            left = interpreter.run([insns], [value])[0][1]
            assert loaded.maps["io"].lookup(KEY) == [left[: len(value)]], f"seed {seed}\n{disassemble(insns)}"
            for name, table in (("h", interpreter.memory.hash), ("a", interpreter.memory.array)):
                assert sorted(loaded.maps[name].items()) == sorted(table.items()), f"seed {seed}"
    assert refused < COUNT / 5

"""Random programs with everything the machine has: the interpreter and both JITs leave the same bytes, and every operation is among them.

`python bench/fuzz_machine.py 1000000` runs the same over many more seeds, and a part of them in the kernel.
"""

from __future__ import annotations

import ctypes
import platform
from collections import Counter

import pytest
from a64_runner import find_qemu
from bpf_programs import random_input
from machine_programs import NOT_RUN, X86, Aarch64, Interpreter, count_forms, make_programs, missing_forms

from sonde.bpf.asm import assemble
from sonde.bpf.disasm import disassemble
from sonde.bpf.interp import Machine, Program
from sonde.bpf.isa import Insn, get_op, iter_ops
from sonde.bpf.jit import translate
from sonde.bpf.jit.here import Placed, cpu_features
from sonde.errors import FeatureError, FormatError, RunError

SEEDS = range(350)
needs_x86 = pytest.mark.skipif(platform.machine() != "x86_64", reason="runs x86-64 machine code")


@pytest.fixture(scope="module")
def expected() -> tuple[list[list[Insn]], list[bytes], list[tuple[int, bytes]]]:
    programs, values = make_programs(SEEDS), [bytes(random_input(seed)) for seed in SEEDS]
    return programs, values, Interpreter().run(programs, values)


def test_every_operation_is_there(expected: tuple[list[list[Insn]], list[bytes], list[tuple[int, bytes]]]) -> None:
    counted: Counter[str] = Counter()
    count_forms(expected[0], counted)
    assert missing_forms(counted) == []
    assert set(counted) | NOT_RUN == {op.name for op in iter_ops()}


@needs_x86
def test_x86_64_agrees(expected: tuple[list[list[Insn]], list[bytes], list[tuple[int, bytes]]]) -> None:
    programs, values, outcomes = expected
    found = X86(cpu_features()).run(programs, values)
    wrong = [seed for seed in SEEDS if found[seed] != outcomes[seed]]
    assert not wrong, disassemble(programs[wrong[0]])


def test_aarch64_agrees(expected: tuple[list[list[Insn]], list[bytes], list[tuple[int, bytes]]]) -> None:
    qemu = find_qemu()
    if qemu is None:
        pytest.skip("needs qemu-aarch64 (Debian package qemu-user-static)")
    programs, values, outcomes = expected
    found = Aarch64(qemu).run(programs, values)
    wrong = [seed for seed in SEEDS if found[seed] != outcomes[seed]]
    assert not wrong, disassemble(programs[wrong[0]])


@pytest.mark.parametrize("arch", ["x86_64", "aarch64"])
def test_what_has_no_meaning_without_a_kernel_is_refused(arch: str) -> None:
    """Jumps through a table, and the kernel's variables: by the interpreter and by both JITs, with the reason."""
    table = [Insn(0x0D, 1), Insn(0x95)]
    with pytest.raises(FormatError, match="jumps through a table, which only the kernel has"):
        Program(table)
    with pytest.raises(FormatError, match="jumps through a table, which only the kernel has"):
        translate(table, arch)
    variable = assemble("r1 = btf[id:5]+0\nr0 = 0\nexit")
    with pytest.raises(RunError, match="kernel variables are not there"):
        Machine().run(Program(variable))
    with pytest.raises(FeatureError, match="kernel variables are only in the kernel"):
        translate(variable, arch)


# Registers --------------------------------------------------------------------------------------------------------

# push rbx; rbp; r12 to r15 · save rdi · every free register = its number * 0x0101010101010101 · call [rsp] · store all into the array · pop · ret
_ALL = (0, 1, 2, 6, 7, 8, 9, 10, 11)


def _register_probe(target: int, array: int) -> bytes:
    """Machine code that calls `target` with known numbers in the registers that a C function may change, and stores all afterwards."""
    code = b"\x53\x55\x41\x54\x41\x55\x41\x56\x41\x57\x48\x83\xec\x08"  # six pushes; sub rsp, 8: a multiple of 16 for the call
    code += b"\x48\xb8" + target.to_bytes(8, "little") + b"\x49\x89\xc4"  # mov rax, target; mov r12, rax
    for r in range(16):
        if r not in (4, 12):
            code += bytes([0x49 if r > 7 else 0x48, 0xB8 | r & 7]) + (0x0101010101010101 * (r + 1)).to_bytes(
                8, "little"
            )
    code += b"\x41\xff\xd4"  # call r12
    code += b"\x49\xbc" + array.to_bytes(8, "little")  # mov r12, array
    for r in range(16):
        if r not in (4, 12):
            code += bytes([0x4D if r > 7 else 0x49, 0x89, 0x44 | (r & 7) << 3, 0x24, 8 * r])  # mov [r12 + 8 * r], r
    return code + b"\x48\x83\xc4\x08\x41\x5f\x41\x5e\x41\x5d\x41\x5c\x5d\x5b\xc3"


@needs_x86
def test_registers_that_are_said_to_stay_do_stay(
    expected: tuple[list[list[Insn]], list[bytes], list[tuple[int, bytes]]],
) -> None:
    """What the user engine relies on: it saves what a program `changes`, and nothing else. Pieces of one operation each, then whole programs."""
    from sonde.bpf.jit.code import MachineCode

    array = (ctypes.c_uint64 * 16)()
    pieces = [
        [insn, Insn(0x95)] for program in expected[0] for insn in program if get_op(insn) and insn.opcode & 7 in (4, 7)
    ]
    pieces += [
        assemble(f"{text}\nexit")
        for text in ("*(u64 *)(r10 -8) = 5\nr5 = *(u64 *)(r10 -8)", "r0 = 7 ll", "if r1 > r2 goto +1\nr3 = 1", "r6 = 1")
    ]
    atomics = ("add", "or", "and", "xor")
    pieces += [
        assemble(f"*(u64 *)(r10 -8) = 5\nr{r} = atomic64_fetch_{op}((u64 *)(r10 -8), r{r})\nexit")
        for op in atomics
        for r in range(6)
    ]
    pieces += [assemble(f"*(u64 *)(r10 -8) = 5\nlock *(u64 *)(r10 -8) {op} r3\nexit") for op in ("+=", "|=")]
    seen: set[int] = set()
    for insns in {repr(p): p for p in pieces}.values():
        for features in (frozenset[str](), cpu_features()):
            code = translate(insns, "x86_64", features=features)
            with Placed(code) as placed:
                probe = _register_probe(placed.address, ctypes.addressof(array))
                with Placed(MachineCode("x86_64", probe, (), ())) as calling:
                    calling.run()
            changed = {r for r in range(16) if r not in (4, 12) and array[r] != 0x0101010101010101 * (r + 1)}
            assert changed <= code.changes, (disassemble(insns), changed, code.changes)
            seen |= changed
    assert seen == set(_ALL)


def test_no_register_more_than_needed_is_reported() -> None:
    for text, changes in (
        ("exit", set()),
        ("r0 = 1\nexit", {0}),
        ("r6 = r1\nr0 = r6\nexit", {0}),
        ("r3 += r2\nexit", {2}),
    ):
        assert translate(assemble(text), "x86_64").changes == changes
    assert translate(assemble("r1 += r2\nexit"), "x86_64").changes == {7}
    assert translate(assemble("call 5\nexit"), "x86_64").changes == set(_ALL)


# The same code again ----------------------------------------------------------------------------------------------


def test_equal_programs_are_translated_once() -> None:
    from sonde.bpf.jit.maps import make_plan
    from sonde.bpf.maps import MapShape, create

    text = "r1 = map[fd:1]\nr2 = r10\nr2 += -8\n*(u64 *)(r10 -8) = 0\ncall 1\nr0 = 41\nexit"
    with (
        create(MapShape("hash", 8, 8, 4)) as one,
        create(MapShape("hash", 8, 8, 4)) as same,
        create(MapShape("hash", 8, 8, 9)) as other,
    ):
        first = translate(assemble(text), "x86_64", plan=make_plan({1: one}))
        assert translate(assemble(text), "x86_64", plan=make_plan({1: same})) is first
        assert translate(assemble(text), "x86_64", plan=make_plan({1: other})) is not first
        assert translate(assemble(text), "x86_64") is not first
        assert translate(assemble(text), "x86_64", features=frozenset(["bmi2"]), plan=make_plan({1: one})) is not first
        assert translate(assemble(text.replace("41", "42")), "x86_64", plan=make_plan({1: one})) is not first

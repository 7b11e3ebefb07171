"""Machine code against the interpreter: random programs, and by hand what random ones do not have: calls, tails, callbacks, packets."""

from __future__ import annotations

import ctypes
import platform

import pytest
from bpf_programs import MAP_FD, VALUE_BYTES, ArrayOfOne, ProgramGenerator, random_input
from hypothesis import given, settings
from hypothesis import strategies as st
from insn_strategy import instructions

from sonde.bpf.asm import assemble
from sonde.bpf.interp import Machine, Program
from sonde.bpf.isa import Insn
from sonde.bpf.jit import translate
from sonde.bpf.jit.code import MachineCode
from sonde.bpf.jit.here import Placed, cpu_features, features_of
from sonde.errors import FeatureError, FormatError, RunError

M = (1 << 64) - 1
ARCH = platform.machine()
needs_x86 = pytest.mark.skipif(ARCH != "x86_64", reason=f"runs x86-64 machine code; this machine is {ARCH}")
FEATURES = [frozenset[str](), cpu_features()]


def run(text: str, context: int = 0, **given: object) -> int:
    with Placed(translate(assemble(text), "x86_64"), **given) as placed:  # type: ignore[arg-type]
        return placed.run(context)


@needs_x86
@pytest.mark.parametrize("features", FEATURES, ids=["base", "all"])
def test_random_programs_agree_with_the_interpreter(features: frozenset[str]) -> None:
    buffer = ctypes.create_string_buffer(VALUE_BYTES)
    for seed in range(60):
        insns = ProgramGenerator(seed, 10 + seed, acquire=True).make()
        with Placed(translate(insns, "x86_64", features=features), values={MAP_FD: ctypes.addressof(buffer)}) as placed:
            value = random_input(seed)
            ctypes.memmove(buffer, bytes(value), VALUE_BYTES)
            placed.run()
            ArrayOfOne.interpret(Program(insns), value)
            assert buffer.raw == bytes(value), f"seed {seed}"


@needs_x86
@pytest.mark.parametrize("op", ["/=", "%=", "s/=", "s%="])
@pytest.mark.parametrize("width", ["r", "w"])
def test_division_in_every_register(op: str, width: str) -> None:
    """All pairs of registers, since rax and rdx have a part in it, with the numbers that trap if nobody looks."""
    numbers = (0, 1, M, 1 << 63, 1 << 31, 0xFFFFFFFF, 7, 0x123456789ABCDEF0)
    for dst in range(10):
        for src in range(10):
            lines = [f"r{r} = {numbers[(r + dst) % 8]} ll" for r in range(10)]
            lines += [f"{width}{dst} {op} {width}{src}", f"{width}{dst} {op} -3"]
            lines += [f"r0 ^= r{r}" if r % 2 else f"r0 += r{r}" for r in range(1, 10)]
            program = assemble("\n".join([*lines, "exit"]))
            with Placed(translate(program, "x86_64")) as placed:
                assert placed.run() == Machine().run(Program(program)), (dst, src)


@needs_x86
@pytest.mark.parametrize("kind", ["add", "or", "and", "xor"])
def test_atomics_in_every_register(kind: str) -> None:
    """Base, operand and result in any register, r0 too, which the CPU compares with."""
    for base in range(10):
        for src in range(10):
            setup = [f"r{r} = {0x1111 * (r + 1)}" for r in range(10)]
            text = [
                *setup,
                "*(u64 *)(r10 -8) = 99",
                f"r{base} = r10",
                f"r{src} = atomic64_fetch_{kind}((u64 *)(r{base} -8), r{src})",
            ]
            if base == src:  # the address would be stored
                continue
            text += [
                f"r{base} = 5",
                "r9 += r0",
                "r9 += r8",
                f"r9 += r{src}",
                "r0 = *(u64 *)(r10 -8)",
                "r0 ^= r9",
                "exit",
            ]
            program = assemble("\n".join(text))
            with Placed(translate(program, "x86_64")) as placed:
                assert placed.run() == Machine().run(Program(program)), (base, src)


@needs_x86
def test_local_functions_keep_what_they_must() -> None:
    text = """
        r6 = 100
        r7 = 20
        *(u64 *)(r10 -8) = 5
        r1 = r10
        r1 += -8
        call double
        r0 += r6
        r0 += r7
        exit
        double:
        r6 = *(u64 *)(r1 +0)
        *(u64 *)(r10 -16) = 77
        r7 = r6
        again: r7 += r6
        if r7 < 0x10 goto again
        r0 = r7
        exit
    """
    assert run(text) == 120 + 20


@needs_x86
def test_a_jump_to_the_first_instruction_of_a_function_does_not_enter_it_anew() -> None:
    text = "r1 = 5\ncall f\nexit\nf: r1 += -1\nr6 = r1\nif r1 != 0x0 goto f\nr0 = 9\nexit"
    assert run(text) == 9
    assert run("r6 = 1\nr0 += 0\nif r6 == 0x7 goto +0\nr0 = 4\nexit") == 4


@needs_x86
def test_helpers_get_five_arguments_on_an_aligned_stack() -> None:
    seen: list[tuple[int, ...]] = []

    def helper(*args: int) -> int:
        seen.append(args)
        return 6

    assert run("r1 = 1\nr2 = 2\nr3 = 3\nr4 = 4\nr5 = -5\ncall 5\nr6 = r0\nr0 += r6\nexit", helpers={5: helper}) == 12
    assert seen == [(1, 2, 3, 4, M - 4)]
    for saved in range(4):  # with any number of saved registers, with and without a frame
        text = "".join(f"r{6 + r} = {r}\n" for r in range(saved))
        assert run(text + "r1 = 1\ncall 5\nexit", helpers={5: aligned()}) == 1
        assert run(text + "*(u64 *)(r10 -24) = 1\nr1 = 1\ncall 5\nexit", helpers={5: aligned()}) == 1


def aligned() -> int:
    """The address of C code that returns whether the stack was at a multiple of 16 when it was called."""
    code = bytes.fromhex("31c0 488d5424 08 f6c2 0f 0f94c0 c3".replace(" ", ""))  # lea rdx,[rsp+8]; test dl,15; sete al
    memory = Placed(MachineCode("x86_64", code, (), ()))
    _kept.append(memory)
    return memory.address


_kept: list[Placed] = []


@needs_x86
def test_callbacks_are_addresses_of_machine_code() -> None:
    def loop(count: int, function: int, context: int, _flags: int, _: int) -> int:
        callback = ctypes.CFUNCTYPE(ctypes.c_uint64, ctypes.c_uint64, ctypes.c_uint64)(function)
        return sum(callback(index, context) for index in range(count))

    text = """
        r1 = 4
        r2 = subprog[body]
        r3 = 10
        r4 = 0
        call loop
        exit
        body:
        r0 = r1
        r0 *= r2
        exit
    """
    assert run(text, helpers={181: loop}) == 60
    assert run("r1 = 20\nr2 = subprog[f]\ncallx r2\nexit\nf: r0 = r1\nr0 += 1\nexit") == 21


@needs_x86
def test_tail_calls_give_up_the_frame() -> None:
    other = Placed(translate(assemble("r6 = 5\n*(u64 *)(r10 -8) = 3\nr0 = *(u8 *)(r1 +0)\nexit"), "x86_64"))
    text = "r6 = 1\nr7 = 2\n*(u64 *)(r10 -40) = 7\nr2 = map[fd:3]\nr3 = {}\ncall tail_call\nr0 = 7\nexit"
    context = ctypes.create_string_buffer(b"\x2a")
    with other:
        for index, value in ((1, 42), (2, 7)):
            helpers = {12: lambda context, table, index, *_: other.address if (table, index) == (0x99, 1) else 0}
            assert run(text.format(index), ctypes.addressof(context), helpers=helpers, maps={3: 0x99}) == value


@needs_x86
def test_may_goto_ends_an_endless_loop() -> None:
    assert run("r0 = 0\nagain: may_goto +2\nr0 += 1\ngoto again\nexit") == 1 << 23


@needs_x86
def test_far_jumps_and_back() -> None:
    body = "\n".join(["r0 += 1000"] * 60)
    assert run(f"r0 = 0\nr1 = 0\nagain: if r1 == 0x3 goto out\n{body}\nr1 += 1\ngoto again\nout: exit") == 180000


@pytest.mark.parametrize("arch", ["x86_64", "aarch64"])
def test_a_jump_is_as_short_as_its_distance_allows(arch: str) -> None:
    """Over as much code as the short form reaches, and one instruction more; with a long one in between that makes another one long."""
    seen = set()
    for count in range(10, 30):
        body = "\n".join(["r0 += 1000000"] * count)  # 6 or 7 bytes of x86-64
        code = translate(assemble(f"if r1 == 0x0 goto out\n{body}\nout: exit"), arch)
        first, second = code.pcs[1][0], code.pcs[2][0]
        assert (code.pcs[1][1], code.pcs[2][1]) == (0, 1)
        jump = second - first - (3 if arch == "x86_64" else 4)  # the comparison
        assert jump == (4 if arch == "aarch64" else 2 if code.pcs[-1][0] - second <= 127 else 6)
        seen.add(jump)
    assert seen == ({2, 6} if arch == "x86_64" else {4})


def test_code_maps_back_to_instructions() -> None:
    code = translate(assemble("r6 = r1\nr0 = 1\nif r6 == 0x0 goto +2\nr0 = 5 ll\nexit"), "x86_64")
    assert [pc for _, pc in code.pcs] == [-1, 0, 1, 2, 3, 5]
    assert code.find_pc(0) == -1 and code.find_pc(code.pcs[2][0]) == 1 and code.find_pc(len(code.text) - 1) == 5


def test_no_more_than_needed_is_saved() -> None:
    assert translate(assemble("r0 = r1\nexit"), "x86_64").text.hex() == "4889f8c3"
    assert translate(assemble("r0 = 0\nexit"), "x86_64").text.hex() == "31c0c3"


@needs_x86
def test_what_a_helper_raises_comes_out_at_the_end() -> None:
    def helper(*args: int) -> int:
        raise KeyError(args[0])

    with pytest.raises(KeyError, match="7"):
        run("r1 = 7\ncall 5\nr0 = 1\nexit", helpers={5: helper})


@needs_x86
def test_what_is_missing_is_named() -> None:
    with pytest.raises(RunError, match="helper 5"):
        run("call 5\nexit")
    with pytest.raises(FeatureError, match="no JIT for mips"):
        translate(assemble("exit"), "mips")


@settings(deadline=None)
@given(st.lists(instructions(), min_size=1, max_size=12))
def test_any_instructions_are_translated_or_refused(insns: list[Insn]) -> None:
    try:
        code = translate([*insns, Insn(0x95)], "x86_64")
    except (FormatError, FeatureError):
        return
    assert code.text.endswith(b"\xc3")


def test_features_are_told_by_the_kernels_words() -> None:
    assert features_of(["processor\t: 0\n", "flags\t\t: fpu bmi1 bmi2 avx\n"]) == {"bmi2"}
    assert features_of(["BogoMIPS\t: 50.00\n", "Features\t: fp asimd aes atomics cpuid\n"]) == {"lse"}
    assert features_of(["processor\t: 0\n"]) == frozenset()

"""The interpreter: faults say where, calls of all kinds, limits, traces. What arithmetic means is checked against the kernel elsewhere."""

from __future__ import annotations

import pytest
from bpf_programs import ArrayOfOne, ProgramGenerator, random_input
from hypothesis import given, settings
from hypothesis import strategies as st
from insn_strategy import instructions

from sonde.bpf.asm import assemble
from sonde.bpf.interp import Machine, Program
from sonde.bpf.isa import Insn
from sonde.errors import FormatError, RunError

M = (1 << 64) - 1


def run(text: str, context: int = 0, machine: Machine | None = None, **options: int) -> int:
    return (machine or Machine()).run(Program(assemble(text)), context, **options)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("r0 = 7\nr1 = 0\nr0 /= r1\nexit", 0),
        ("r0 = 7\nr1 = 0\nr0 %= r1\nexit", 7),
        ("r0 = -1 ll\nr1 = 0\nw0 %= w1\nexit", 0xFFFFFFFF),
        ("r0 = 0x8000000000000000 ll\nr0 s/= -1\nexit", 1 << 63),
        ("r0 = -7\nr0 s%= 3\nexit", M),
        ("r0 = -7\nr0 s/= 2\nexit", M - 2),
        ("r0 = 1\nr1 = 65\nr0 <<= r1\nexit", 2),
        ("r0 = -1\nw0 s>>= 31\nexit", 0xFFFFFFFF),
        ("r0 = 0x1234 ll\nr0 = bswap16 r0\nexit", 0x3412),
        ("r0 = 0x80\nr0 = (s8)r0\nexit", M - 127),
        ("r0 = 5\nw0 = -w0\nexit", 0xFFFFFFFB),
        ("r1 = -1\nr0 = 0\nif w1 s< 0x0 goto +1\nexit\nr0 = 1\nexit", 1),
        ("r1 = -1\nr0 = 0\nif r1 > 0x7fffffff goto +1\nexit\nr0 = 1\nexit", 1),
    ],
)
def test_arithmetic_at_its_limits(text: str, value: int) -> None:
    assert run(text) == value


def test_a_read_outside_a_region_says_where() -> None:
    machine = Machine()
    context = machine.memory.add(bytearray(16))
    for text, pc, offset in [
        ("r0 = *(u64 *)(r1 +8)\nr0 = *(u64 *)(r1 +9)\nexit", 1, 9),
        ("r0 = 0\nr0 = *(u8 *)(r1 -1)\nexit", 1, -1),
        ("*(u32 *)(r1 +13) = 1\nexit", 0, 13),
        ("r0 = 1\nlock *(u64 *)(r1 +16) += r0\nexit", 1, 16),
        ("r1 = 0\nr0 = *(u16 *)(r1 +2)\nexit", 1, 2 - context),
        ("r0 = *(u64 *)(r10 +0)\nexit", 0, None),
        ("r0 = *(u8 *)(r10 -513)\nexit", 0, None),
    ]:
        with pytest.raises(RunError) as caught:
            run(text, context, machine)
        assert caught.value.pc == pc
        assert offset is None or caught.value.address == (context + offset) & M, text
        assert f"instruction {pc}: access to" in caught.value.message


def test_what_is_read_only_stays_as_it_is() -> None:
    machine = Machine()
    context = machine.memory.add(memoryview(b"constant"))
    assert run("r0 = *(u8 *)(r1 +0)\nexit", context, machine) == ord("c")
    with pytest.raises(RunError, match=r"instruction 0: 1 bytes at .* may not be written"):
        run("*(u8 *)(r1 +0) = 1\nexit", context, machine)


def test_steps_are_limited() -> None:
    with pytest.raises(RunError, match="ran longer"):
        run("again: goto again\nexit", steps=1000)
    assert run("r0 = 1\nr0 = 2\nexit", steps=3) == 2
    with pytest.raises(RunError, match="ran longer"):
        run("r0 = 1\nr0 = 2\nexit", steps=2)


def test_may_goto_ends_an_endless_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sonde.bpf.interp.MAY_GOTO_LIMIT", 100)
    assert run("r0 = 0\nagain: may_goto +2\nr0 += 1\ngoto again\nexit") == 100


def test_local_functions_have_stacks_of_their_own() -> None:
    text = """
        *(u64 *)(r10 -8) = 5
        r1 = r10
        r1 += -8
        r6 = 9
        call double
        r0 = *(u64 *)(r10 -8)
        r0 += r6
        exit
        double:
        *(u64 *)(r10 -8) = 77
        r6 = *(u64 *)(r1 +0)
        r6 += r6
        *(u64 *)(r1 +0) = r6
        exit
    """
    assert run(text) == 19


def test_calls_nest_eight_deep() -> None:
    text = "r1 = {}\ncall down\nexit\ndown: if r1 == 0x0 goto out\nr1 += -1\ncall down\nout: r0 = 3\nexit"
    assert run(text.format(6)) == 3
    with pytest.raises(RunError, match="8 deep"):
        run(text.format(7))


def test_helpers_see_memory_and_call_back() -> None:
    def loop(machine: Machine, count: int, function: int, context: int, flags: int, _: int) -> int:
        for index in range(count):
            if machine.call_address(function, index, context):
                return index + 1
        return count

    machine = Machine({181: loop})
    text = """
        *(u64 *)(r10 -8) = 0
        r1 = 10
        r2 = subprog[body]
        r3 = r10
        r3 += -8
        r4 = 0
        call loop
        r0 = *(u64 *)(r10 -8)
        exit
        body:
        r3 = *(u64 *)(r2 +0)
        r3 += r1
        *(u64 *)(r2 +0) = r3
        r0 = 0
        exit
    """
    assert run(text, machine=machine) == 45


def test_an_unknown_helper_is_named() -> None:
    with pytest.raises(RunError, match=r"instruction 1: helper bpf_ktime_get_ns is not there"):
        run("r0 = 0\ncall ktime_get_ns\nexit")


class Table:
    def __init__(self, **programs: Program) -> None:
        self.programs = {int(name[1:]): program for name, program in programs.items()}

    def get_program(self, index: int) -> Program | None:
        return self.programs.get(index)


def test_tail_calls() -> None:
    table = Table(p1=Program(assemble("r0 = *(u8 *)(r1 +0)\nexit")))
    machine = Machine(maps={3: table})
    context = machine.memory.add(bytearray(b"\x2a"))
    text = "r2 = map[fd:3]\nr3 = {}\ncall tail_call\nr0 = 7\nexit"
    assert run(text.format(1), context, machine) == 42
    assert run(text.format(2), context, machine) == 7
    table.programs[1] = forever = Program(assemble("r2 = map[fd:3]\nr3 = 1\ncall tail_call\nr0 = 99\nexit"))
    assert machine.run(forever, context) == 99  # after 33 of them


def test_packet_loads_are_in_network_order_and_end_the_program_outside() -> None:
    machine = Machine()
    machine.packet_data = b"\x01\x02\x03\x04"
    assert run("r0 = *(u16 *)skb[1]\nexit", machine=machine) == 0x203
    assert run("r2 = 2\nr0 = *(u16 *)skb[r2 + 0]\nr0 += 1\nexit", machine=machine) == 0x305
    assert run("r0 = *(u32 *)skb[1]\nr0 = 5\nexit", machine=machine) == 0


def test_a_trace_shows_every_instruction_with_its_registers() -> None:
    seen: list[tuple[int, int]] = []
    program = Program(assemble("r0 = 1\nr1 = 5 ll\nif r0 == 0x0 goto +1\nr0 = 3\nexit"))
    Machine().run(program, trace=lambda pc, registers: seen.append((pc, registers[0])))
    assert seen == [(0, 0), (1, 1), (3, 1), (4, 1), (5, 3)]


@pytest.mark.parametrize(
    ("insns", "message"),
    [
        ([Insn(0x05, off=5), Insn(0x95)], "instruction 0 jumps to pc 6"),
        ([Insn(0x05, off=1), Insn(0x18), Insn(0x95)], "instruction 0 jumps to pc 2"),
        ([Insn(0xB7)], "instruction 0 runs on beyond the end"),
        ([Insn(0x85, src=1, imm=9), Insn(0x95)], "instruction 0 calls pc 10"),
        ([Insn(0x0D, 1), Insn(0x95)], "instruction 0 jumps through a table"),
        ([], "no instructions"),
    ],
)
def test_code_without_form_is_refused(insns: list[Insn], message: str) -> None:
    with pytest.raises(FormatError, match=message):
        Program(insns)


def test_bad_machine_code_is_refused() -> None:
    with pytest.raises(FormatError, match="unknown opcode"):
        Program(bytes([0xFF]) * 8)


@settings(deadline=None)
@given(st.lists(instructions(), min_size=1, max_size=12))
def test_any_instructions_run_or_are_refused(insns: list[Insn]) -> None:
    """Whatever stands there, nothing but the two errors comes out, and every opcode has a meaning."""
    try:
        program = Program([*insns, Insn(0x95)])
        Machine().run(program, steps=500)
    except (FormatError, RunError):
        pass


def test_deep_code_runs() -> None:
    """A thousand branches behind each other: blocks that would stand too deep in others are told apart by number."""
    lines = ["r0 = 0"]
    for number in range(1000):
        lines += [f"if r1 == {number:#x} goto out", "r0 += 1"]
    assert run("\n".join([*lines, "out: exit"]), 1500) == 1000
    assert run("\n".join([*lines, "out: exit"]), 600) == 600


def test_random_programs_trace_to_the_same_result() -> None:
    for seed in range(20):
        program = Program(ProgramGenerator(seed, 30, acquire=True).make())
        results = []
        for trace in (None, lambda pc, registers: None):
            value = random_input(seed)
            ArrayOfOne.interpret(program, value, trace)
            results.append(bytes(value))
        assert results[0] == results[1]

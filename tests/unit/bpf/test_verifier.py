"""The verifier's rules, one small program for each: accepted where it is safe, refused where one thing is wrong, and said why."""

from __future__ import annotations

import pytest
from bpf_pointer_programs import make_program
from bpf_programs import MAP_FD, VALUE_BYTES, ArrayOfOne, ProgramGenerator, random_input
from hypothesis import given, settings
from hypothesis import strategies as st
from insn_strategy import instructions

from sonde.bpf.asm import assemble
from sonde.bpf.interp import Program
from sonde.bpf.isa import Insn
from sonde.bpf.verifier import MapInfo, Verdict, verify
from sonde.errors import FormatError, RunError

MAPS = {
    1: MapInfo("counts", "hash", 4, 8, 100),
    2: MapInfo("ring", "ringbuf", 0, 0, 4096),
    3: MapInfo("data", "array", 4, 64, 1),
    4: MapInfo("constants", "array", 4, 64, 1, read_only=True, initial=b"text\0"),
    5: MapInfo("events", "perf_event_array", 4, 4, 2),
    6: MapInfo("locked", "array", 4, 16, 1, special=((0, 4, "lock"),)),
    7: MapInfo("programs", "prog_array", 4, 4, 2),
}
LOOKUP = "*(u32 *)(r10 -4) = 1\nr2 = r10\nr2 += -4\nr1 = map[fd:1]\ncall map_lookup_elem\n"
RESERVE = "r1 = map[fd:2]\nr2 = 16\nr3 = 0\ncall ringbuf_reserve\n"
PACKET = "r2 = *(u32 *)(r1 +0)\nr3 = *(u32 *)(r1 +4)\nr4 = r2\nr4 += 14\n"
LOOP = "*(u64 *)(r10 -8) = 0\nr1 = 100\nr2 = subprog[body]\nr3 = r10\nr3 += -8\nr4 = 0\ncall loop\nr0 = 0\nexit\nbody: "


def check(text: str, kind: str = "kprobe") -> Verdict:
    return verify(assemble(text), kind, MAPS)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("r0 = 0\nexit", "kprobe"),
        ("r0 = *(u64 *)(r1 +160)\nexit", "kprobe"),
        ("r0 = *(u32 *)(r1 +8)\nexit", "tracepoint"),
        (LOOKUP + "if r0 == 0x0 goto out\nr1 = *(u64 *)(r0 +0)\nr1 += 1\n*(u64 *)(r0 +0) = r1\nout: r0 = 0\nexit", "kprobe"),
        (LOOKUP + "r6 = r0\nif r6 == 0x0 goto out\nr1 = *(u64 *)(r0 +0)\nout: r0 = 0\nexit", "kprobe"),
        (LOOKUP + "*(u64 *)(r10 -16) = r0\nif r0 == 0x0 goto out\nr6 = *(u64 *)(r10 -16)\nr1 = *(u64 *)(r6 +0)\nout: r0 = 0\nexit", "kprobe"),
        (RESERVE + "if r0 == 0x0 goto out\n*(u64 *)(r0 +8) = 1\nr1 = r0\nr2 = 0\ncall ringbuf_submit\nout: r0 = 0\nexit", "kprobe"),
        ("r2 = *(u64 *)(r1 +0)\nr3 = map[fd:3][0]+0\nif r2 > 0x38 goto out\nr3 += r2\nr0 = *(u64 *)(r3 +0)\nout: r0 = 0\nexit", "kprobe"),
        ("r2 = *(u64 *)(r1 +0)\nr3 = map[fd:3][0]+0\nr2 &= 63\nr3 += r2\nr0 = *(u8 *)(r3 +0)\nexit", "kprobe"),
        ("r2 = *(u64 *)(r1 +0)\nr4 = r2\nif r4 > 0x38 goto out\nr3 = map[fd:3][0]+0\nr3 += r2\nr0 = *(u64 *)(r3 +0)\nout: r0 = 0\nexit", "kprobe"),
        ("r0 = 0\nl: r0 += 1\nif r0 < 0x64 goto l\nexit", "kprobe"),
        (LOOP + "r3 = *(u64 *)(r2 +0)\nr3 += r1\n*(u64 *)(r2 +0) = r3\nr0 = 0\nexit", "kprobe"),
        (PACKET + "if r4 > r3 goto out\nr0 = *(u16 *)(r2 +12)\nout: r0 = 0\nexit", "xdp"),
        (PACKET + "if r3 < r4 goto out\nr0 = *(u16 *)(r2 +12)\nout: r0 = 0\nexit", "xdp"),
        ("l: may_goto +1\ngoto l\nr0 = 0\nexit", "kprobe"),
        ("r1 = 5\ncall f\nexit\nf: r0 = r1\nexit", "kprobe"),
        ("r6 = r1\nr0 = *(u16 *)skb[12]\nexit", "socket_filter"),
        ("r1 = r10\nr1 += -16\nr2 = 16\ncall get_current_comm\nr0 = *(u64 *)(r10 -8)\nexit", "kprobe"),
        ("r6 = r1\n*(u64 *)(r10 -8) = 1\nr1 = r6\nr2 = map[fd:5]\nr3 = 4294967295 ll\nr4 = r10\nr4 += -8\nr5 = 8\ncall perf_event_output\nr0 = 0\nexit", "kprobe"),
        ("r1 = map[fd:4][0]+0\nr0 = *(u32 *)(r1 +0)\nexit", "kprobe"),
        ("r2 = map[fd:7]\nr3 = 1\ncall tail_call\nr0 = 0\nexit", "kprobe"),
        ("r1 = 3\nr1 <<= 1\n*(u64 *)(r10 -8) = 0\nr2 = r10\nr2 -= r1\nr0 = *(u8 *)(r2 -2)\nexit", "kprobe"),
    ],
)  # fmt: skip
def test_what_is_safe_is_accepted(text: str, kind: str) -> None:
    verdict = check(text, kind)
    assert verdict.refusal is None, verdict.refusal


@pytest.mark.parametrize(
    ("text", "kind", "pc", "message"),
    [
        ("exit", "kprobe", 0, "r0 is read, but was never written"),
        ("r0 = *(u64 *)(r1 +168)\nexit", "kprobe", 0, "struct pt_regs has no 8 bytes at 168"),
        ("*(u64 *)(r1 +0) = 1\nr0 = 0\nexit", "kprobe", 0, "may only be read"),
        ("r0 = *(u32 *)(r1 +0)\nexit", "tracepoint", 0, "has no 4 bytes at 0"),
        (LOOKUP + "r1 = *(u64 *)(r0 +0)\nr0 = 0\nexit", "kprobe", 6, "used without a check"),
        (LOOKUP + "r0 += 8\nr0 = 0\nexit", "kprobe", 6, "used without a check"),
        (LOOKUP + "if r0 == 0x0 goto out\nr1 = *(u64 *)(r0 +1)\nout: r0 = 0\nexit", "kprobe", 7, "8 bytes at offset 1"),
        (LOOKUP + "if r0 != 0x0 goto out\nr1 = *(u64 *)(r0 +0)\nout: r0 = 0\nexit", "kprobe", 7, "a number is no address"),
        (RESERVE + "r0 = 0\nexit", "kprobe", 6, "holds a ring buffer record"),
        (RESERVE + "if r0 == 0x0 goto out\nr6 = r0\nr1 = r0\nr2 = 0\ncall ringbuf_submit\n*(u64 *)(r6 +0) = 1\nout: r0 = 0\nexit", "kprobe", 10, "r6"),
        (RESERVE + "if r0 == 0x0 goto out\n*(u64 *)(r0 +9) = 1\nr1 = r0\nr2 = 0\ncall ringbuf_discard\nout: r0 = 0\nexit", "kprobe", 6, "beyond its end"),
        ("r2 = *(u64 *)(r1 +0)\nr3 = map[fd:3][0]+0\nif r2 > 0x39 goto out\nr3 += r2\nr0 = *(u64 *)(r3 +0)\nout: r0 = 0\nexit", "kprobe", 5, "up to 57"),
        ("r2 = *(u64 *)(r1 +0)\nr3 = map[fd:3][0]+0\nif r2 s> 0x38 goto out\nr3 += r2\nr0 = *(u64 *)(r3 +0)\nout: r0 = 0\nexit", "kprobe", 4, "not limited"),
        ("r3 = map[fd:4][0]+0\n*(u8 *)(r3 +0) = 1\nr0 = 0\nexit", "kprobe", 2, "read-only"),
        ("r3 = map[fd:6][0]+0\n*(u8 *)(r3 +3) = 1\nr0 = 0\nexit", "kprobe", 2, "lock"),
        ("r0 = 0\nl: goto l\nexit", "kprobe", 2, "no way leads"),
        ("r0 = 0\nr1 = 0\nl: r0 = 0\nif r1 == 0x0 goto l\nexit", "kprobe", 2, "never ends"),
        ("r0 = 0\nl: r0 += 1\nif r0 != 0x0 goto l\nexit", "kprobe", None, "instructions were followed"),
        ("r0 = *(u64 *)(r10 -8)\nexit", "kprobe", 0, "never written"),
        ("*(u32 *)(r10 -8) = 1\nr0 = *(u64 *)(r10 -8)\nexit", "kprobe", 1, "never written"),
        ("*(u64 *)(r10 -520) = 1\nr0 = 0\nexit", "kprobe", 0, "not on the stack"),
        ("*(u64 *)(r10 +0) = 1\nr0 = 0\nexit", "kprobe", 0, "not on the stack"),
        ("r10 = 5\nr0 = 0\nexit", "kprobe", 0, "may only be read"),
        ("*(u64 *)(r10 -8) = 0\nr2 = r10\nr2 += -8\nr3 = *(u64 *)(r1 +0)\nr3 &= 8\nr2 += r3\nr0 = *(u64 *)(r2 +0)\nexit", "kprobe", 6, "not on the stack"),
        (LOOP + "r3 = *(u64 *)(r2 +8)\nr0 = 0\nexit", "kprobe", 10, "not on the stack"),
        (LOOP + "r0 = r1\nexit", "kprobe", 11, "must return 0 or 1"),
        (PACKET + "if r4 > r3 goto out\nr0 = *(u16 *)(r2 +13)\nout: r0 = 0\nexit", "xdp", 5, "14 bytes are known"),
        (PACKET + "if r4 < r3 goto out\nr0 = *(u16 *)(r2 +12)\nout: r0 = 0\nexit", "xdp", 5, "0 bytes are known"),
        ("r1 = 5\ncall f\nexit\nf: r0 = r10\nexit", "kprobe", 4, "its own stack"),
        ("r0 = r10\nexit", "kprobe", 1, "not a number"),
        ("r1 = r10\nr1 += -16\nr2 = 17\ncall get_current_comm\nr0 = 0\nexit", "kprobe", 3, "not on the stack"),
        ("r1 = r10\nr1 += -16\nr2 = -1\ncall get_current_comm\nr0 = 0\nexit", "kprobe", 3, "may be negative"),
        ("r1 = r10\nr1 += -16\nr2 = 0\ncall get_current_comm\nr0 = 0\nexit", "kprobe", 3, "may be 0"),
        ("r2 = r10\nr2 += -4\nr1 = map[fd:1]\ncall map_lookup_elem\nr0 = 0\nexit", "kprobe", 4, "never written"),
        ("r2 = r10\nr2 += -4\nr1 = map[fd:2]\n*(u32 *)(r10 -4) = 1\ncall map_lookup_elem\nr0 = 0\nexit", "kprobe", 5, "no keys"),
        ("r1 = 0\nr2 = map[fd:7]\nr3 = 1\ncall tail_call\nr0 = 0\nexit", "kprobe", 4, "must be the context"),
        ("r0 = r1\nr0 *= 8\nexit", "kprobe", 1, "is an address"),
        ("r0 = *(u16 *)skb[12]\nexit", "socket_filter", 0, "r6 must be the context"),
        ("r6 = r1\nr0 = *(u16 *)skb[12]\nexit", "kprobe", 1, "no packet"),
        ("call 9999\nr0 = 0\nexit", "kprobe", 0, "no helper 9999"),
        ("r1 = 1\nlock *(u64 *)(r10 -8) += r1\nr0 = 0\nexit", "kprobe", 1, "never written"),
        ("*(u64 *)(r10 -8) = 0\n*(u64 *)(r10 -16) = 0\nr1 = 1\nlock *(u64 *)(r10 -12) += r1\nr0 = 0\nexit", "kprobe", 3, "multiple of 8"),
        ("\n".join(["call f\nexit"] + [f"{c}: *(u64 *)(r10 -200) = 1\ncall {chr(ord(c) + 1)}\nexit" for c in "fgh"] + ["i: r0 = 0\nexit"]), "kprobe", 0, "of stack together"),
        ("call f\nexit\nf: call f\nexit", "kprobe", 2, "calls itself"),
    ],
)  # fmt: skip
def test_what_is_not_safe_is_refused(text: str, kind: str, pc: int | None, message: str) -> None:
    verdict = verify(assemble(text), kind, MAPS, max_insns=2_000)
    refusal = verdict.refusal
    assert refusal is not None
    assert message in refusal.message, refusal
    assert pc is None or refusal.pc == pc, refusal


def test_what_else_is_reported() -> None:
    verdict = check(LOOKUP + "if r0 == 0x0 goto out\nr1 = *(u64 *)(r0 +0)\nout: r0 = 0\nexit")
    assert (verdict.helpers, verdict.maps, verdict.stack_bytes) == (("map_lookup_elem",), ("counts",), 32)
    assert verdict.longest == 9
    assert check("r0 = 0\nif r1 == 0x0 goto +1\nr0 = 1\nexit").longest == 4
    assert check("r0 = 0\nl: r0 += 1\nif r0 < 0x64 goto l\nexit").longest == 202
    assert check(LOOP + "r0 = 0\nexit").longest == -1


def test_stacks_of_helpers_need_not_be_written_when_asked() -> None:
    code = assemble("r2 = r10\nr2 += -4\nr1 = map[fd:1]\ncall map_lookup_elem\nr0 = 0\nexit")
    assert not verify(code, "kprobe", MAPS).safe
    assert verify(code, "kprobe", MAPS, uninitialised_stack=True).safe


def test_a_trace_shows_each_step() -> None:
    seen = []
    verify(assemble("r0 = 7\nexit"), "kprobe", trace=lambda pc, state: seen.append((pc, str(state.regs[0]))))
    assert seen == [(0, "never written"), (1, "7")]


def test_random_programs_of_numbers_are_accepted() -> None:
    maps = {MAP_FD: MapInfo("io", "array", 4, VALUE_BYTES, 1)}
    refused = [seed for seed in range(40) if not verify(ProgramGenerator(seed, 30).make(), "raw_tracepoint", maps).safe]
    assert refused == []


def test_what_is_accepted_never_faults() -> None:
    """Random programs about addresses, half of them wrong: none that is accepted may touch what is not its own."""
    maps = {MAP_FD: MapInfo("io", "array", 4, VALUE_BYTES, 1)}
    accepted = 0
    for seed in range(250):
        insns = make_program(seed)
        try:
            verdict = verify(insns, "raw_tracepoint", maps, max_insns=5_000)
        except FormatError:
            continue
        if not verdict.safe:
            continue
        accepted += 1
        for inputs in range(4):
            try:
                ArrayOfOne.interpret(Program(insns), random_input(seed * 4 + inputs))
            except RunError as error:
                pytest.fail(f"seed {seed}, inputs {inputs}: accepted, but {error}")
            except AssertionError:
                pass  # a spoilt program may return something else than 0
    assert accepted > 20


@settings(deadline=None)
@given(
    st.lists(instructions(), min_size=1, max_size=10), st.sampled_from(["kprobe", "xdp", "socket_filter", "syscall"])
)
def test_any_instructions_get_a_verdict(insns: list[Insn], kind: str) -> None:
    try:
        verify([*insns, Insn(0x95)], kind, MAPS, max_insns=2_000)
    except FormatError:
        pass

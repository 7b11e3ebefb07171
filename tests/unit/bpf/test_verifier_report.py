"""What the verifier says: refusals that name the line, the instruction, what is known and what to do; and what it reports of a safe program."""

from __future__ import annotations

import pytest
from fake_target import make_target

from sonde.api.trace import compile
from sonde.api.verify import verify as verify_object
from sonde.bpf.asm import assemble
from sonde.bpf.isa import decode, encode
from sonde.bpf.verifier import MapInfo, verify
from sonde.record import replace

MAPS = {
    1: MapInfo("counts", "hash", 4, 8, 100),
    2: MapInfo("ring", "ringbuf", 0, 0, 4096),
    3: MapInfo("data", "array", 4, 64, 1),
}
LOOKUP = "*(u32 *)(r10 -4) = 1\nr2 = r10\nr2 += -4\nr1 = map[fd:1]\ncall map_lookup_elem\n"

# Mistakes that people make, and a word of what is to be done about each.
MISTAKES = {
    "a look-up used at once": (LOOKUP + "r0 = *(u64 *)(r0 +0)\nexit", "null"),
    "an index without a limit": ("r2 = *(u64 *)(r1 +0)\nr3 = map[fd:3][0]+0\nr3 += r2\nr0 = *(u8 *)(r3 +0)\nexit", "compare the index"),
    "an index with a limit that is too high": ("r2 = *(u64 *)(r1 +0)\nif r2 > 64 goto out\nr3 = map[fd:3][0]+0\nr3 += r2\nr0 = *(u8 *)(r3 +0)\nout: r0 = 0\nexit", "limit the index"),
    "a signed index": ("r2 = *(u64 *)(r1 +0)\nif r2 s> 63 goto out\nif r2 s< -8 goto out\nr3 = map[fd:3][0]+0\nr3 += r2\nr0 = *(u8 *)(r3 +0)\nout: r0 = 0\nexit", "compare it with 0"),
    "a size that may be negative": ("r2 = *(u64 *)(r1 +0)\nr1 = r10\nr1 += -16\ncall get_current_comm\nr0 = 0\nexit", "unsigned size"),
    "a size that may be 0": ("r2 = *(u64 *)(r1 +0)\nr2 &= 15\nr1 = r10\nr1 += -16\ncall get_current_comm\nr0 = 0\nexit", "compare it with 0"),
    "a key that was not filled": ("r2 = r10\nr2 += -4\nr1 = map[fd:1]\ncall map_lookup_elem\nr0 = 0\nexit", "initialise"),
    "a record that is kept": ("r1 = map[fd:2]\nr2 = 16\nr3 = 0\ncall ringbuf_reserve\nr0 = 0\nexit", "bpf_ringbuf_submit"),
    "a kernel address read directly": ("r2 = *(u64 *)(r1 +112)\nr0 = *(u64 *)(r2 +0)\nexit", "bpf_probe_read_kernel"),
    "a map of another type": ("r1 = map[fd:1]\nr2 = 16\nr3 = 0\ncall ringbuf_reserve\nr0 = 0\nexit", "ringbuf"),
    "a loop that is too long": ("r0 = 0\nl: r0 += 1\nif r0 != 0 goto l\nexit", "bpf_loop"),
    "a function that calls itself": ("call f\nexit\nf: call f\nexit", "loop"),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_every_refusal_says_what_to_do_or_what_is_known(name: str) -> None:
    text, word = MISTAKES[name]
    refusal = verify(assemble(text), "kprobe", MAPS, max_insns=2_000).refusal
    assert refusal is not None
    assert word in refusal.wants
    assert refusal.registers


def test_a_script_s_refusal_shows_its_line() -> None:
    target = make_target()
    spec = compile("BEGIN { @a = 1; }\nBEGIN { @b[2] = count(); }", target)
    program = spec.programs[-1]
    insns = decode(program.insns)
    check = next(insn for insn in insns if insn.opcode & ~0x40 == 0x15 and insn.dst == 0 and insn.imm == 0)
    check.imm = 1  # it is compared with 1, in place of null
    broken = replace(program, insns=encode(insns))
    found = verify_object(replace(spec, programs=(broken,)), target)[0]
    assert found.verdict.refusal is not None
    lines = found.text.splitlines()
    assert "ERROR: program" in lines[0] and ":2:" in lines[0]
    assert "@b[2] = count()" in found.text
    assert f"instruction {found.verdict.refusal.pc}: " in found.text
    assert "\n  r0: a value of map, or null" in found.text
    assert "\nHINT: compare it with null first" in found.text


def test_the_stack_is_reported_by_variable() -> None:
    target = make_target()
    spec = compile("BEGIN { @a[1, 2] = 3; }", target)
    found = verify_object(spec, target)[0]
    assert found.text == ""
    assert found.stack == ("value: 1", "(temporary): 2")
    bare = verify_object(replace(spec, programs=(replace(spec.programs[0], slots=()),)), target)[0]
    assert bare.stack == ("r10-16: 1", "r10-8: 2")
    places = verify(assemble("*(u64 *)(r10 -16) = 1\n*(u32 *)(r10 -4) = 1\nr0 = 0\nexit"), "kprobe").places
    assert places == ((0, -16, 8), (0, -4, 4))


def test_a_question_without_an_answer() -> None:
    refusal = verify(assemble("call 195896080\nr0 = 0\nexit"), "kprobe").refusal
    assert refusal is not None and "has no answer on this kernel" in refusal.message


def test_an_engine_says_which_helpers_there_are() -> None:
    text = "call ktime_get_ns\nr0 = 0\nexit"
    assert verify(assemble(text), "kprobe", helpers=lambda helper: helper.name == "ktime_get_ns").safe
    refusal = verify(assemble(text), "kprobe", helpers=lambda helper: False).refusal
    assert refusal is not None and "ktime_get_ns" in refusal.message

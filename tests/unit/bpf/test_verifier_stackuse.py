"""What a function does with addresses of its own stack: slots that are dead on all paths do not keep paths apart, those that may be read do."""

from __future__ import annotations

import pytest

from sonde.bpf.asm import assemble
from sonde.bpf.verifier import MapInfo, Verdict, verify

MAPS = {
    1: MapInfo("counts", "percpu_hash", 8, 8, 100),
    2: MapInfo("lost", "array", 4, 64, 1),
    3: MapInfo("constants", "array", 4, 64, 1, read_only=True, initial=b"text\0"),
}
# @[key] = count(): two ways, one of which writes a slot that nobody reads later.
COUNT = """
*(u64 *)(r10 -{key}) = r6
r2 = r10
r2 += -{key}
r1 = map[fd:1]
call map_lookup_elem
if r0 != 0x0 goto found{key}
*(u64 *)(r10 -{value}) = 1
r2 = r10
r2 += -{key}
r3 = r10
r3 += -{value}
r1 = map[fd:1]
r4 = 0
call map_update_elem
r5 = map[fd:2][0]+0
lock *(u64 *)(r5 +8) += r0
goto next{key}
found{key}: r5 = *(u64 *)(r0 +0)
r5 += 1
*(u64 *)(r0 +0) = r5
next{key}:
"""
# A slot is written on one of two paths, long enough that what is known where they meet is remembered.
HALF = (
    "r8 = 0\n" * 10
    + "call get_prandom_u32\nr6 = r0\nr6 &= 1\nr7 = r0\nr7 &= 8\nif r6 {sign} 0x0 goto join\n*(u64 *)(r10 -{slot}) = 1\njoin: "
)


def check(text: str) -> Verdict:
    return verify(assemble(text), "kprobe", MAPS)


@pytest.mark.parametrize("many", [2, 8, 14])
def test_paths_through_a_loop_do_not_multiply(many: int) -> None:
    body = "".join(COUNT.format(key=16 * n + 8, value=16 * n + 16) for n in range(many))
    verdict = check(f"r6 = 5\nr7 = 0\nround: {body}r7 += 1\nif r7 < 0x3 goto round\nr0 = 0\nexit")
    assert verdict.refusal is None
    assert verdict.processed < 80 * many + 20


@pytest.mark.parametrize("sign", ["==", "!="])
@pytest.mark.parametrize(
    "read",
    [
        "r0 = *(u64 *)(r10 -16)",
        "r2 = r10\nr2 += -24\nr0 = *(u64 *)(r2 +8)",
        "r2 = r10\nr2 += -8\nr2 += -8\nr0 = *(u8 *)(r2 +7)",
        "r2 = r10\nr2 += -16\nr1 = map[fd:1]\ncall map_lookup_elem",
        "*(u64 *)(r10 -8) = 1\nr2 = r10\nr2 += -8\nr3 = r10\nr3 += -16\nr1 = map[fd:1]\nr4 = 0\ncall map_update_elem",
        "r1 = r10\nr1 += -16\nr2 = 8\nr3 = map[fd:3][0]+0\ncall strncmp",
        "r3 = -8\nr2 = r10\nr2 += r3\nr2 += r3\nr0 = *(u64 *)(r2 +0)",
        "*(u64 *)(r10 -8) = 1\nr2 = r10\nr2 += -16\nr2 += r7\nr0 = *(u64 *)(r2 +0)",  # an index of 0 or 8
        "*(u64 *)(r10 -8) = 1\nr2 = r10\nr2 += -8\nr2 -= r7\nr0 = *(u64 *)(r2 +0)",
        "*(u64 *)(r10 -8) = 1\nr7 = -r7\nr2 = r10\nr2 += -8\nr2 += r7\nr0 = *(u64 *)(r2 +0)",  # of 0 or -8
        "*(u64 *)(r10 -8) = 1\nr2 = r10\nr2 += -8\nif r7 == 0x0 goto same\nr2 += -8\nsame: r0 = *(u64 *)(r2 +0)",
        "lock *(u64 *)(r10 -16) += r6\nr0 = 0",
        "r2 = r10\nr2 += -16\nr0 = load_acquire((u64 *)(r2 +0))",
        "r2 = r10\nr2 += -16\nr1 = 1\nr1 = atomic64_fetch_add((u64 *)(r2 +0), r1)\nr0 = 0",
    ],
)
def test_a_slot_that_is_read_must_be_there_on_both_paths(sign: str, read: str) -> None:
    verdict = check(HALF.format(sign=sign, slot=16) + read + "\nr0 = 0\nexit")
    assert verdict.refusal is not None and "never written" in verdict.refusal.message
    assert check(HALF.format(sign=sign, slot=40) + "*(u64 *)(r10 -16) = 3\n" + read + "\nr0 = 0\nexit").refusal is None


@pytest.mark.parametrize("sign", ["==", "!="])
def test_a_slot_that_another_function_reads(sign: str) -> None:
    text = HALF.format(sign=sign, slot=16) + "r1 = r10\nr1 += -16\ncall f\nr0 = 0\nexit\nf: r0 = *(u64 *)(r1 +0)\nexit"
    verdict = check(text)
    assert verdict.refusal is not None and "never written" in verdict.refusal.message


@pytest.mark.parametrize("sign", ["==", "!="])
def test_a_slot_whose_address_was_stored(sign: str) -> None:
    text = "r1 = r10\nr1 += -16\n*(u64 *)(r10 -8) = r1\n" + HALF.format(sign=sign, slot=16)
    verdict = check(text + "r1 = *(u64 *)(r10 -8)\nr0 = *(u64 *)(r1 +0)\nexit")
    assert verdict.refusal is not None and "never written" in verdict.refusal.message

"""Moved instructions do what they did: every form run in both places, beside what moving them must not do."""

from __future__ import annotations

import platform
import random
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from x86_libraries import find_libraries, read_library
from x86_runner import MEMORY, RSP, Case, run_all

from sonde.errors import FormatError, ProbeError
from sonde.user.x86.decode import decode
from sonde.user.x86.relocate import relocate
from sonde.user.x86.window import Window, plan_window

OLD, NEAR, FAR = 0x10000001000, 0x10040001000, 0x30000001000
needs_x86 = pytest.mark.skipif(platform.machine() != "x86_64", reason="runs x86-64 code")


def case(text: str, new: int = NEAR, old: int = OLD, targets: tuple[int, ...] = (), **more: object) -> Case:
    """Move code and name where it may leave: the end, and offsets from its start."""
    code = bytes.fromhex(text.replace(" ", ""))
    exits = [old + len(code), *(old + t for t in targets)]
    return Case(code, old, relocate(code, old, new).code, new, exits, **more)  # type: ignore[arg-type]


def d32(value: int) -> str:
    return value.to_bytes(4, "little", signed=True).hex()


DATA = 0x2000  # from OLD
READ = {"data": [OLD + DATA], "seed": 3}

# Each with where it leaves (besides its end) and what the run needs.
FORMS: dict[str, tuple[str, dict[str, object]]] = {
    "prologue": ("55 4889e5 4883ec10", {}),
    "nops": ("90 0f1f00 f30f1efa 50", {}),
    "mov from rip": (f"488b05 {d32(DATA - 7)}", READ),
    "mov to rip": (f"448905 {d32(DATA - 7)}", READ),
    "mov imm to rip": (f"c705 {d32(DATA - 10)} 78563412", READ),
    "cmpb imm at rip": (f"803d {d32(DATA - 7)} 05", READ),
    "lea rip": (f"4c8d3d {d32(DATA - 7)}", {}),
    "lea rip to rsp": (f"488d25 {d32(DATA - 7)}", {}),
    "lea rip, 32 bits": (f"8d1d {d32(DATA - 6)}", {}),
    "add rip to rsi": (f"480335 {d32(DATA - 7)}", READ),
    "add rip to bh": (f"023d {d32(DATA - 6)}", READ),
    "add rip to dil": (f"40023d {d32(DATA - 7)}", READ),
    "xchg rip with r14": (f"4c8735 {d32(DATA - 7)}", READ),
    "mul by rip": (f"48f725 {d32(DATA - 7)}", {**READ, "registers": {"rdx": 5}}),
    "shift at rip by cl": (f"48d315 {d32(DATA - 7)}", READ),
    "adc, whose flags come from before": (f"48131d {d32(DATA - 7)}", READ),
    "lock cmpxchg at rip": (f"f0480fb10d {d32(DATA - 9)}", READ),
    "cmpxchg16b at rip": (f"480fc70d {d32(DATA - 8)}", READ),
    "movups from rip": (f"440f1005 {d32(DATA - 8)}", READ),
    "pshufb at rip": (f"660f38000d {d32(DATA - 9)}", READ),
    "vpaddb at rip (C5)": (f"c5f1fc0d {d32(DATA - 8)}", READ),
    "vpshufb at rip (C4)": (f"c4e27100 0d {d32(DATA - 9)}", READ),
    "andn at rip": (f"c4e2c8f23d {d32(DATA - 9)}", READ),
    "rip with base bits set": (f"498b0d {d32(DATA - 7)}", READ),
    "gs is added to rip": (f"64488d05 {d32(DATA - 8)}", {}),
    "push rip": (f"ff35 {d32(DATA - 6)}", READ),
    "pop to rip": (f"8f05 {d32(DATA - 6)}", READ),
    "mov rsp to rip": (f"488925 {d32(DATA - 7)}", READ),
    "jmp short": ("eb20", {"targets": (0x22,)}),
    "jmp near": (f"e9 {d32(0x3000)}", {"targets": (0x3005,)}),
    "jmp through rip": (f"ff25 {d32(DATA - 6)}", {"targets": (0x40,), "memory": {OLD + DATA: OLD + 0x40}, **READ}),
    "jmp through rax": ("ffe0", {"targets": (0x40,), "registers": {"rax": OLD + 0x40}}),
    "call": (f"e8 {d32(0x3000)}", {"targets": (0x3005,)}),
    "call backwards": (f"e8 {d32(-0x3000)}", {"targets": (5 - 0x3000,)}),
    "call to the end": ("e800000000", {}),
    "call through rip": (f"ff15 {d32(DATA - 6)}", {"targets": (0x40,), "memory": {OLD + DATA: OLD + 0x40}, **READ}),
    "call through rax": ("ffd0", {"targets": (0x40,), "registers": {"rax": OLD + 0x40}}),
    "call through r12": ("41ffd4", {"targets": (0x40,), "registers": {"r12": OLD + 0x40}}),
    "call through memory": (
        "41ff542410", {"targets": (0x40,), "registers": {"r12": MEMORY}, "memory": {MEMORY + 16: OLD + 0x40}},
    ),
    "call through the stack": ("ff1424", {"targets": (0x40,), "memory": {RSP: OLD + 0x40}}),
    "call through the stack, 8 bits": ("ff542478", {"targets": (0x40,), "memory": {RSP + 0x78: OLD + 0x40}}),
    "call through the stack, 32 bits": (
        f"ff9424 {d32(0x100)}", {"targets": (0x40,), "memory": {RSP + 0x100: OLD + 0x40}},
    ),
    "call through the stack with an index": (
        "ff14cc", {"targets": (0x40,), "registers": {"rcx": 3}, "memory": {RSP + 24: OLD + 0x40}},
    ),
    "ret": ("58 c3", {"targets": (0x40,), "memory": {RSP + 8: OLD + 0x40}}),
    "ret imm": ("c21000", {"targets": (0x40,), "memory": {RSP: OLD + 0x40}}),
    "syscall": ("b827000000 0f05", {"ignore": ["rcx"]}),  # getpid; the kernel leaves the address behind it in rcx
    **{f"j{n:x}": (f"{0x70 + n:x}20", {"targets": (0x22,)}) for n in range(16)},
    **{f"j{n:x} near": (f"0f{0x80 + n:x} {d32(0x3000)}", {"targets": (0x3006,)}) for n in range(16)},
    **{
        f"{name} with rcx {count:#x}": (f"{code}20", {"targets": (len(code) // 2 + 0x21,), "registers": {"rcx": count}})
        for name, code in (("loopne", "e0"), ("loope", "e1"), ("loop", "e2"), ("jrcxz", "e3"), ("jecxz", "67e3"))
        for count in (0, 1, 2, 1 << 32)
    },
    "jump within": ("85c0 7402 89c3 01c8 e320", {"targets": (0x2a,)}),
    "jump over a lock prefix behind": (
        "85c0 90 7401 f00fb10f", {"targets": (6,), "registers": {"rcx": 7, "rdi": MEMORY, "rax": 0}}),
    "jump back within": ("b904000000 83c003 e2fb 50", {}),
}  # fmt: skip
NOT_FAR = {"jmp through rip", "call through rip", "push rip", "pop to rip", "mov rsp to rip", "mul by rip"}
SAME_CODE = {"call through rax", "ret"}  # nothing in them depends on where they are


@needs_x86
@pytest.mark.parametrize("new", [NEAR, OLD - 0x40000000, FAR], ids=["above", "below", "far"])
def test_every_form_does_the_same_elsewhere(new: int) -> None:
    names, cases = [], []
    for name, (text, more) in FORMS.items():
        for seed in range(8 if name[0] == "j" else 2):
            if new == FAR and name in NOT_FAR:
                continue
            names.append(f"{name}, seed {seed}")
            cases.append(case(text, new, **{**more, "seed": seed}))  # type: ignore[arg-type]
    results = run_all(cases)
    assert [(name, result) for name, result in zip(names, results) if result != "same"] == []


@needs_x86
def test_the_comparison_sees_differences() -> None:
    right = case("4883c001 90")
    for wrong, found in (
        ("4883c002", "rax"), ("4883e8ff", "flags"), ("4883c001 50", "stack"), ("4883c001 0f57c0", "vector"),
        ("4883c001 50 4883c408", "flags"), ("4883c001 6aff 488d642408", "stack"),
    ):  # fmt: skip
        bad = case(wrong)
        (result,) = run_all([Case(right.code, OLD, bad.moved[:-5] + right_jump(bad, right), NEAR, right.exits)])
        assert found in result, (wrong, result)
    crash = Case(right.code, OLD, b"\x0f\x0b", NEAR, right.exits)
    assert run_all([crash, Case(b"\x0f\x0b", OLD, right.moved, NEAR, [OLD + 2])]) == [
        "moved: SIGILL",
        "skipped: SIGILL in the original",
    ]


def right_jump(moved: Case, right: Case) -> bytes:
    """The last jump of moved code, to where the right code ends."""
    return b"\xe9" + (right.exits[0] - (NEAR + len(moved.moved))).to_bytes(4, "little", signed=True)


def test_calls_push_the_functions_own_address() -> None:
    code = bytes.fromhex("50e800100000")
    moved = relocate(code, OLD, NEAR).code
    assert (OLD + 6).to_bytes(8, "little") in moved
    assert b"\xe8" not in moved[:12]
    assert moved[1:3] == b"\xff\x35"


def test_a_jump_to_the_first_instruction_meets_the_probe_again() -> None:
    moved = relocate(bytes.fromhex("83e801 75fb 90"), OLD, NEAR).code
    target = NEAR + 9 + int.from_bytes(moved[5:9], "little", signed=True)
    assert target == OLD


@needs_x86
def test_a_window_moved_in_two_parts() -> None:
    code = bytes.fromhex("48 8d 05 10000000 4883c001 7520".replace(" ", ""))  # lea; add; jne
    cases = []
    for new in (NEAR, FAR):
        for seed in range(4):
            first = relocate(code[:7], OLD, new, falls=True).code
            between = bytes.fromhex("90 4893 4893")  # a nop, an exchange and back
            second = relocate(code[7:], OLD + 7, new + len(first) + len(between), patch=0).code
            cases.append(Case(code, OLD, first + between + second, new, [OLD + 13, OLD + 0x2D], seed=seed))
    assert run_all(cases) == ["same"] * 8
    for part in ("7520", "e800000000"):  # with an address behind the code
        falls = relocate(bytes.fromhex(part), OLD, FAR, falls=True)
        at, kinds = 0, []
        while at < len(falls.code):
            found = decode(falls.code, at)
            kinds.append(found.kind)
            at += found.length
            if found.kind == "jump":
                at += found.target - found.length
        assert kinds[-1] == "jump"
        assert at == len(falls.code)


def test_where_threads_go() -> None:
    code = bytes.fromhex("50 90 7405 58 e2f0")
    moved = relocate(code, OLD, NEAR)
    assert moved.places == ((0, 0), (1, 1), (2, 1), (4, 7), (5, 8))
    back = dict(moved.returns)
    assert back == {
        0: OLD, 1: OLD + 2, 7: OLD + 4, 8: OLD + 5, 10: OLD + 7, 12: OLD - 9, 17: OLD + 7,
    }  # fmt: skip
    call = relocate(bytes.fromhex("e800100000"), OLD, NEAR)
    assert call.returns[:2] == ((0, OLD), (6, OLD + 0x1005))  # behind the push, the callee is about to begin


def test_returns_are_instruction_starts() -> None:
    for name, (text, _) in FORMS.items():
        for new in (NEAR, FAR):
            if new == FAR and name in NOT_FAR:
                continue
            code = bytes.fromhex(text.replace(" ", ""))
            moved = relocate(code, OLD, new)
            begins, at = set(), 0
            while at <= max(offset for offset, _ in moved.returns):
                begins.add(at)
                at += decode(moved.code, at).length
            assert {offset for offset, _ in moved.returns} <= begins, name
            assert {offset for _, offset in moved.places} <= begins, name


@pytest.mark.parametrize("name", sorted(NOT_FAR - {"mul by rip"}))
def test_too_far_for_the_stack_pointer(name: str) -> None:
    with pytest.raises(ProbeError, match="too far"):
        relocate(bytes.fromhex(FORMS[name][0].replace(" ", "")), OLD, FAR)


@pytest.mark.parametrize(
    "text", ["cc", "0f0b", "f4", "66e900000000", "66eb05", "67488b0500000000", "ffd4", "ff5424f8", "ff2d00000000", "06"]
)
def test_what_is_not_moved(text: str) -> None:
    with pytest.raises(ProbeError, match="cannot move the instruction at 0x10000001000"):
        relocate(bytes.fromhex(text), OLD, NEAR)


def test_a_jump_into_an_instruction_of_the_window() -> None:
    with pytest.raises(ProbeError, match="middle of an instruction"):
        relocate(bytes.fromhex("eb01 4889e5"), OLD, NEAR)
    # Behind the bytes that are replaced, the original instruction is still there to be jumped into.
    lock = bytes.fromhex("85c0 90 7401 f00fb10f")  # test; nop; je over the lock prefix; lock cmpxchg
    assert dict(relocate(lock, OLD, NEAR).returns)[8] == OLD + 5
    moved = relocate(lock, OLD, NEAR).code
    assert NEAR + 8 + int.from_bytes(moved[4:8], "little", signed=True) == OLD + 6
    assert relocate(bytes.fromhex("eb01 4889e5"), OLD, NEAR, patch=2)


@given(st.binary(min_size=1, max_size=24), st.sampled_from([OLD + 5, NEAR, FAR, 0x10000]))
def test_any_bytes(code: bytes, new: int) -> None:
    try:
        moved = relocate(code, OLD, new)
    except (ProbeError, FormatError):
        return
    assert moved.places[0] == (0, 0)
    assert all(0 <= offset <= len(moved.code) for _, offset in moved.places)


def library_cases(count: int) -> list[Case]:
    """Windows at random instructions of libraries here, near and far."""
    chance = random.Random(11)
    seen: set[bytes] = set()
    cases: list[Case] = []
    for path in find_libraries(("libc.so.6", "libcrypto.so.3", "libstdc++.so.6")):
        library = read_library(path)
        functions = list(library.functions.items())
        here = 0
        while here < count:
            start, size = chance.choice(functions)
            window = window_at_random(chance, library.code, library.base, start, size)
            made = window and make_case(window, chance)
            if made and made.code not in seen:
                seen.add(made.code)
                cases.append(made)
                here += 1
    return cases


def window_at_random(chance: random.Random, code: bytes, base: int, start: int, size: int) -> Window | None:
    at, wanted = start, start + chance.randrange(min(size, 2000))
    while at < wanted:
        at += decode(code, at - base).length
    if at >= start + size:
        return None
    window = plan_window(code, at, start=start, end=start + size, base=base, rungs=("relocated",))
    return window if window.kind == "relocated" else None


def make_case(window: Window, chance: random.Random) -> Case | None:
    """Return a case, or None where running proves nothing: kernel, clock, jumps that nobody can foresee."""
    old = 0x10000000000 + window.addr
    exits, data, at = [old + window.length], [], old
    for instruction in window.instructions:
        raw = window.code[at - old : at - old + instruction.length]
        if instruction.kind in ("syscall", "return", "indirect_jump", "indirect_call", "xbegin"):
            return None
        if instruction.map == 1 and instruction.opcode in (0x31, 0xA2, 0xC7, 0x01):  # rdtsc, cpuid, rdrand, xgetbv
            return None
        if instruction.target_at >= 0:
            exits.append(at + instruction.target)
        if instruction.rip_at >= 0 and raw[instruction.opcode_at] != 0x8D:
            data.append(at + instruction.rip)
        at += len(raw)
    exits = sorted(set(exits))
    apart = all(b - a >= 8 for a, b in pairwise(exits)) and all(e + 8 <= old or e >= at for e in exits)
    if not apart or any(old - 80 <= d < at + 80 or any(abs(d - e) < 96 for e in exits) for d in data):
        return None
    new = old + chance.choice((0x30000000, 0x200000000))
    try:
        moved = relocate(window.code, old, new)
    except ProbeError as error:
        assert "too far" in str(error)
        return None
    return Case(window.code, old, moved.code, new, exits, data, seed=chance.getrandbits(30))


@needs_x86
def test_windows_of_libraries_do_the_same_elsewhere() -> None:
    cases = library_cases(200)
    results = run_all(cases)
    wrong = [
        (c.code.hex(), c.moved.hex(), r) for c, r in zip(cases, results) if r != "same" and not r.startswith("skip")
    ]
    assert wrong == []
    assert results.count("same") > 0.8 * len(cases)

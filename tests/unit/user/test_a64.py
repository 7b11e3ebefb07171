"""aarch64: kinds of instructions, windows, and moved instructions run in QEMU's user mode beside the original ones."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest
from a64_moved import CODE_AT, DATA_AT, DATA_BYTES, FAR, NEAR_AT, PAGE, Moved, page_of, run_all
from a64_runner import find_qemu
from hypothesis import given
from hypothesis import strategies as st

from sonde.errors import FormatError, ProbeError
from sonde.user.a64.decode import decode
from sonde.user.a64.relocate import relocate
from sonde.user.a64.window import RUNGS, Window, plan_window

BASE = 0x400000
NOP, RET, BTI_C, PACIASP = 0xD503201F, 0xD65F03C0, 0xD503245F, 0xD503233F
LDXR, STXR, CBNZ_BACK = 0x885F7C01, 0x88027C03, 0x35FFFFA2  # ldxr w1, [x0]; stxr w2, w3, [x0]; cbnz w2, -12


def text(*words: int) -> bytes:
    return b"".join(word.to_bytes(4, "little") for word in words)


@pytest.mark.parametrize(
    ("word", "kind", "target"),
    [
        (0x10000000, "adr", 0),
        (0x70FFFFE3, "adr", -1),
        (0xB0000001, "adrp", 4096),
        (0x90FFFFE0, "adrp", -16384),
        (0x58000040, "literal", 8),
        (0x98FFFFE0, "literal", -4),  # ldrsw
        (0xD8000020, "literal", 4),  # prfm
        (0x9C000020, "literal", 4),  # ldr q0
        (0x17FFFFFF, "jump", -4),
        (0x94000002, "call", 8),
        (0x54000041, "branch", 8),  # b.ne
        (0xB4FFFFE0, "branch", -4),  # cbz x0
        (0x370FFFE0, "branch", -4),  # tbnz w0, #1
        (0xD61F0200, "indirect_jump", 0),
        (0xD71F0A11, "indirect_jump", 0),  # braa x16, x17
        (0xD63F0020, "indirect_call", 0),
        (RET, "return", 0),
        (0xD65F0BFF, "return", 0),  # retaa
        (0xD4000001, "syscall", 0),
        (0xD4200000, "trap", 0),
        (0xD4400000, "halt", 0),
        (0xD69F03E0, "exception_return", 0),
        (0, "undefined", 0),
        (NOP, "nop", 0),
        (BTI_C, "landing", 0),
        (PACIASP, "landing", 0),
        (0xD50323BF, "plain", 0),  # autiasp
        (LDXR, "load_exclusive", 0),
        (STXR, "store_exclusive", 0),
        (0xC87F0C02, "load_exclusive", 0),  # ldxp
        (0x88DFFC00, "plain", 0),  # ldar
        (0x48207C02, "plain", 0),  # casp
        (0x910003FD, "plain", 0),  # mov x29, sp
    ],
)  # fmt: skip
def test_kinds(word: int, kind: str, target: int) -> None:
    found = decode(text(word))
    assert (found.kind, found.target, found.length) == (kind, target, 4)


def test_the_code_ends() -> None:
    for at in (-4, 1, 4):
        with pytest.raises(FormatError):
            decode(text(NOP), at)


def plan(*words: int, at: int = 0, **more: object) -> Window:
    code = text(*words)
    return plan_window(code, BASE + at, start=BASE, end=BASE + len(code), base=BASE, **more)  # type: ignore[arg-type]


def test_windows() -> None:
    assert (plan(0x910003FD, RET).kind, plan(0x910003FD, RET).code) == ("relocated", text(0x910003FD))
    assert plan(NOP, RET).kind == "nop"
    assert plan(NOP, RET, rungs=("relocated",)).kind == "relocated"
    assert plan(RET, rungs=("trap",)).kind == "trap"
    assert plan(RET, rungs=()).kind == "none"
    assert "multiples of 4" in plan(RET, RET, at=2).reason
    assert "outside the function" in plan(RET, at=4).reason
    assert "outside the code" in plan_window(b"", 0, start=0, end=4).reason
    assert "reports its own address" in plan(0).reason
    assert "another tracer" in plan(0xD4200000).reason
    assert "compares or looks up" in plan(RET, reserved=[(BASE, BASE + 4)]).reason
    assert "guarded control stack" in plan(0x94000002, calls=False).reason


@pytest.mark.parametrize("first", [BTI_C, PACIASP])
def test_landing_places_of_guarded_pages_stay(first: int) -> None:
    assert plan(first, RET).addr == BASE
    window = plan(first, RET, guarded=True)
    assert (window.addr, window.kind, window.code) == (BASE + 4, "relocated", text(RET))


def test_functions_that_sign_their_return_address() -> None:
    pacibsp, cbz, call = 0xD503237F, 0xB4000040, 0x94000002
    assert all(plan(*code).signs for code in ((PACIASP, RET), (pacibsp, RET), (BTI_C, PACIASP), (cbz, PACIASP, call)))
    assert plan(BTI_C, PACIASP, RET, guarded=True).signs
    assert not any(plan(*code).signs for code in ((RET,), (call, PACIASP), (NOP, 0xD63F0000, PACIASP)))
    assert not plan(NOP, PACIASP, at=4).signs  # none begins there


def test_between_exclusive_load_and_store() -> None:
    loop = (LDXR, 0x11000423, STXR, CBNZ_BACK, RET)
    kinds = [plan(*loop, at=at).kind for at in range(0, 20, 4)]
    assert kinds == ["relocated", "none", "none", "relocated", "relocated"]
    assert "exclusive" in plan(*loop, at=4).reason


def test_code_that_the_process_knows() -> None:
    for at in (0, 4):
        assert "compares or looks up" in plan(0xD2801168, 0xD4000001, at=at).reason
    moves = [0xAA0003E0 | source << 16 | to for source, to in ((1, 8), (2, 0), (3, 1), (4, 2), (5, 3), (6, 4), (7, 5))]
    cancellable = (0xB9400000, 0x35000160, *moves, 0xD4000001, RET)  # ldr w0, [x0]; cbnz w0
    for at in range(0, 4 * len(cancellable), 4):
        assert plan(*cancellable, at=at).kind == ("relocated" if at == 40 else "none")


@given(st.binary(min_size=4, max_size=64), st.integers(0, 64), st.booleans())
def test_any_code(code: bytes, at: int, guarded: bool) -> None:
    window = plan_window(code, BASE + at, start=BASE, end=BASE + len(code), base=BASE, guarded=guarded)
    assert window.kind in (*RUNGS, "none")
    assert (window.kind == "none") == bool(window.reason)
    if window.kind != "none":
        moved = relocate(window.code, window.addr, window.addr + 0x10000)
        assert moved.places == ((0, 0),)
        assert dict(moved.returns)[0] == window.addr


def test_where_threads_go_back() -> None:
    old, new = 0x1000000, 0x1400000
    assert relocate(text(0x910003FD), old, new).returns == ((0, old), (4, old + 4))
    assert relocate(text(0x54000041), old, new).returns == ((0, old), (4, old + 4), (8, old + 8))  # b.ne +8
    assert relocate(text(0x94000100), old, new).returns == ((0, old), (8, old + 0x400))  # bl: adrp, add, b
    assert relocate(text(0x94000100), old, old + 0x1000).returns == ((0, old), (4, old + 0x400))  # adr, b
    assert relocate(text(RET), old, new).code == text(RET)
    assert relocate(text(NOP), old, new).returns == ((0, old + 4),)


def test_too_far() -> None:
    with pytest.raises(ProbeError, match="does not reach"):
        relocate(text(0x910003FD), 0x10000000, 0x20000000)
    with pytest.raises(ProbeError, match="have 4 bytes"):
        relocate(text(NOP, NOP), 0x1000, 0x2000)
    for word in (0, 0xD4200000, 0xD63F03C0, 0xD73F083E, 0x55000000):  # udf, brk, blr x30, blraa x1, x30, retaasppc
        with pytest.raises(ProbeError, match="cannot move the instruction"):
            relocate(text(word), 0x1000, 0x2000)


def forms(chance: random.Random) -> list[tuple[int, int, dict[int, int]]]:
    """Return words, where they may go, and registers that they need: each relative form with random registers."""
    found: list[tuple[int, int, dict[int, int]]] = []

    def add(word: int, target: int = 0, registers: dict[int, int] | None = None) -> None:
        found.append((word, target, registers or {}))

    usable = [n for n in range(31) if n != 17]
    for _ in range(12):
        rd = chance.choice(usable)
        add(0x10000000 | chance.getrandbits(2) << 29 | chance.getrandbits(19) << 5 | rd)  # adr
        add(0x90000000 | chance.getrandbits(2) << 29 | chance.getrandbits(19) << 5 | rd)  # adrp
        for opc_v in (0x18, 0x58, 0x98, 0x1C, 0x5C, 0x9C, 0xD8):
            offset = (DATA_AT - CODE_AT + 16 * chance.randrange(3)) // 4
            register = chance.randrange(32) if opc_v & 4 or opc_v == 0xD8 else rd
            add(opc_v << 24 | offset << 5 | register)
        for sign, target in ((1, 0x80), (-1, -0x80)):
            words = sign * 0x80 // 4
            add(0x54000000 | (words & 0x7FFFF) << 5 | chance.randrange(16), target)
            for op in (0x34, 0x35, 0xB4, 0xB5):
                add(op << 24 | (words & 0x7FFFF) << 5 | rd, target, {rd: chance.choice((0, 1 << 32, 5))})
            add(
                (0x36 | chance.getrandbits(1) | chance.getrandbits(1) << 7) << 24
                | chance.getrandbits(5) << 19
                | (words & 0x3FFF) << 5
                | rd,
                target,
            )
            add(0x14000000 | words & 0x3FFFFFF, target)
            add(0x94000000 | words & 0x3FFFFFF, target)
        for op in (0xD61F0000, 0xD63F0000):
            rn = chance.choice([n for n in usable if n != 30])
            add(op | rn << 5, 0x80, {rn: -1})
        add(RET, 0x80, {30: -1})
        add(0x8B020020 | rd & 1)  # add x0, x1, x2
    add(0x5800001F | (DATA_AT - CODE_AT) // 4 << 5)  # ldr xzr
    add(0x1000001F)  # adr xzr
    add(BTI_C)
    add(NOP)
    return found


@pytest.fixture
def tools() -> tuple[str, str]:
    qemu, assembler = find_qemu(), shutil.which("aarch64-linux-gnu-as")
    if qemu is None or assembler is None:
        pytest.skip(
            "needs qemu-aarch64 and an assembler (Debian packages qemu-user-static, binutils-aarch64-linux-gnu)"
        )
    return qemu, assembler


def make_cases(far: bool) -> list[Moved]:
    chance = random.Random(21)
    cases = []
    for number, (word, target, registers) in enumerate(forms(chance)):
        old = page_of(number) + CODE_AT
        new = FAR + PAGE * number + 16 if far else page_of(number) + NEAR_AT
        exits = [old + 4, *([old + target] if target else [])]
        values = {n: old + target if value == -1 else value for n, value in registers.items()}
        code = text(word)
        cases.append(
            Moved(code, old, new, relocate(code, old, new).code, exits, chance.randbytes(DATA_BYTES), number, values)
        )
    return cases


@pytest.mark.parametrize("far", [False, True], ids=["near", "far"])
def test_moved_instructions_do_the_same(far: bool, tools: tuple[str, str], tmp_path: Path) -> None:
    cases = make_cases(far)
    results = run_all(cases, *tools, tmp_path)
    wrong = [(c.code[::-1].hex(), c.moved.hex(), r) for c, r in zip(cases, results) if r != "same"]
    assert wrong == []
    assert len(cases) > 300


def test_the_comparison_sees_differences(tools: tuple[str, str], tmp_path: Path) -> None:
    def case(number: int, word: int, other: int) -> Moved:
        old, new = page_of(number) + CODE_AT, page_of(number) + NEAR_AT
        moved = relocate(text(other), old, new).code
        return Moved(text(word), old, new, moved, [old + 4, old + 0x80])

    add, fmov, adds = 0x8B020020, 0x9E670003, 0xAB020020  # add x0, x1, x2; fmov d3, x0; adds
    pairs = [(add, add), (add, NOP), (NOP, fmov), (add, adds), (NOP, 0x14000020), (NOP, 0xD10043FF)]
    results = run_all([case(n, *pair) for n, pair in enumerate(pairs)], *tools, tmp_path)
    assert results[0] == "same"
    assert [part in result for part, result in zip(("x0", "v3", "nzcv", "exit", "sp"), results[1:])] == [True] * 5

"""Windows of hand-written functions: each rung of the ladder, and each reason for not taking a better one."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sonde.user.x86.survey import Survey, find_near, is_opcode, iter_near, jumps_into, read_tables
from sonde.user.x86.text import find_addresses
from sonde.user.x86.window import RUNGS, Window, plan_window

BASE = 0x401000
PROLOGUE = "55 4889e5 4883ec10"  # push %rbp; mov %rsp, %rbp; sub $16, %rsp
RET = "c3"


def plan(text: str, at: int = 0, behind: str = "", limit: int = 0, **more: object) -> Window:
    """Plan a probe at an offset of a function; what follows it may be given."""
    body = bytes.fromhex(text.replace(" ", ""))
    code = body + bytes.fromhex(behind.replace(" ", ""))
    end = BASE + len(body)
    return plan_window(code, BASE + at, start=BASE, end=end, base=BASE, limit=end + limit, **more)  # type: ignore[arg-type]


def test_an_ordinary_prologue() -> None:
    window = plan(PROLOGUE + RET)
    assert (window.kind, window.addr, window.length, window.patch, window.keep) == ("relocated", BASE, 8, 5, 5)
    assert window.code == bytes.fromhex("554889e54883ec10")
    assert [i.length for i in window.instructions] == [1, 3, 4]
    assert window.reason == ""


@pytest.mark.parametrize(
    ("text", "length"),
    [
        ("0f1f440000", 5),  # nop5
        ("0f1f8400 00000000", 8),
        ("90 90 90 90 90", 5),  # -fpatchable-function-entry=5
        ("90 0f1f440000", 6),  # USDT: nop, nop5
    ],
)
def test_existing_nops(text: str, length: int) -> None:
    window = plan(text + PROLOGUE + RET)
    assert (window.kind, window.length, window.patch) == ("nop", length, 5)


def test_the_one_byte_nop_of_a_usdt_probe_takes_what_follows() -> None:
    window = plan("90 b801000000" + RET)
    assert (window.kind, window.length) == ("relocated", 6)


def test_endbr64_stays_for_indirect_calls() -> None:
    window = plan("f30f1efa" + PROLOGUE + RET)
    assert (window.kind, window.addr, window.length) == ("relocated", BASE + 4, 8)


def test_endbr64_moves_where_a_loop_begins_behind_it() -> None:
    window = plan("f30f1efa 83e801 75fb" + RET)  # endbr64; again: sub $1, %eax; jne again
    assert (window.addr, window.kind, window.length) == (BASE, "punned", 4)
    assert "a jump at 0x401007 leads to 0x401004" in window.reason


def test_a_system_call_with_its_comparison() -> None:
    window = plan("b827000000 0f05 483d01f0ffff 7301 c3 c3", at=5)  # mov; syscall; cmp $-4095, %rax; jae
    assert (window.kind, window.length) == ("relocated", 8)


@pytest.mark.parametrize("mov", ["48c7c00f000000", "b80f000000"])
def test_the_return_from_a_signal_is_not_touched(mov: str) -> None:
    code = mov + "0f05"
    for at in (0, len(mov.replace(" ", "")) // 2):
        window = plan(code, at=at, behind="90" * 16, limit=16)
        assert window.kind == "none"
        assert "compares or looks up" in window.reason


@pytest.mark.parametrize("test", ["85c0 0f85 00000000", "f60708 7520"])  # of musl, of glibc (whose other jump is short)
def test_where_pthread_cancel_looks_for_a_thread(test: str) -> None:
    move = "4989fb 4889f0 4889d7 4889ce 4c89c2 4d89ca 4c8b442408 4c8b4c2410 4c895c2408"
    head = "8b07" + test
    length = len(bytes.fromhex(head + move)) + 2
    for at in (0, length - 2):
        window = plan(head + move + "0f05 c3", at=at, behind="90" * 8, limit=8)
        assert window.kind == "none"
        assert "compares or looks up" in window.reason
    assert plan(head + move + "0f05 c3", at=length, behind="90" * 8, limit=8).kind == "relocated"


def test_a_jump_into_the_window() -> None:
    window = plan("55 4889e5 83e801 75fb" + RET)  # ...; again: sub $1, %eax; jne again
    assert window.kind == "punned"
    assert (window.length, window.patch) == (4, 4)
    assert "leads to 0x401004" in window.reason


AGAIN = "0f05 85c0 0f1f4000 75f8"  # syscall; again: test %eax, %eax; nop; jne again


def test_a_window_that_begins_before_its_probe() -> None:
    wait = "89ea b8ca000000" + AGAIN + "c3"  # mov %ebp, %edx; mov $202, %eax; …
    assert plan(wait, at=7).kind == "punned"
    window = plan(wait, at=7, early=True)
    assert (window.kind, window.addr, window.length, window.patch, window.probe) == ("relocated", BASE + 2, 7, 5, 5)
    assert window.reason == ""
    assert plan(PROLOGUE + RET, early=True) == plan(PROLOGUE + RET)
    # Something jumps to the system call itself, or from before it to elsewhere.
    assert plan("b8ca000000" + AGAIN + "75f4 c3", at=5, early=True).kind == "punned"
    assert plan("b8ca000000" + AGAIN + "c3", at=5, early=True, targets={BASE + 5}).kind == "punned"
    assert plan("7407 90" + AGAIN + "c3", at=3, early=True).kind == "punned"
    assert plan("e800000000" + AGAIN + "c3", at=5, early=True).kind == "punned"  # the call would not be the last
    assert plan("c3 4889f8" + AGAIN + "c3", at=4, early=True).kind == "relocated"
    assert plan("c3 4889f8" + AGAIN + "c3", at=4, early=True).probe == 3


def test_a_jump_to_the_windows_start_and_end_is_none_into_it() -> None:
    assert plan("83e801 83e902 75f8" + RET).kind == "relocated"
    assert plan("83e801 83e902 83c001 75fb" + RET).kind == "relocated"


def test_a_jump_within_the_window_moves_along() -> None:
    window = plan("85c0 7401 90 50 58" + RET)  # test; je +1; nop; push
    assert (window.kind, window.length) == ("relocated", 5)
    inner = plan("50 7500 58 c3")  # push; jne to the next instruction; pop; ret
    assert (inner.kind, inner.length) == ("relocated", 5)


def test_a_jump_into_the_middle_of_an_instruction() -> None:
    # je over the lock prefix, as old libraries for one and more processors do
    window = plan("f00fb10f 85c0 7401 90 ebf6" + RET)
    assert (window.kind, window.patch, window.length) == ("punned", 1, 4)
    assert [pun.size for pun in window.puns] == [1]
    assert "leads to 0x401001" in window.reason


def test_a_jump_of_the_windows_own_into_the_middle_of_an_instruction() -> None:
    window = plan("7401 4889e5 50 c3")
    assert (window.kind, window.patch) == ("punned", 3)


def test_what_looks_like_a_jump_but_is_none() -> None:
    # mov $0x90fc75, %eax: its bytes 75 fc would lead into the window
    assert plan("50 50 50 50 b875f90000 58 c3").kind == "relocated"
    assert jumps_into(bytes.fromhex("50505050b875f90000"), 0, 0, 9, 0, 5) == []
    # movl $0, -12(%rbp): opcode and ModRM look like the opcode of xbegin or jcc to a hasty reader
    assert jumps_into(bytes.fromhex("5050505050c745f400000000c785f0ffffff00000000"), 0, 0, 22, 0, 16) == []


def test_a_call_is_the_last_instruction() -> None:
    assert plan("50 e800000000 58" + RET).length == 6
    window = plan("ffd0 4889c7 c3")
    assert (window.kind, window.length) == ("punned", 2)
    assert "a call would not be the last" in window.reason
    assert plan("ffd0 4889c7 c3", rungs=("relocated", "trap")).kind == "trap"


def test_a_call_stays_where_there_is_a_shadow_stack() -> None:
    window = plan("50 e800000000 58" + RET, calls=False)
    assert window.length == 1
    assert "shadow stack" in window.reason


def test_padding_behind_the_function() -> None:
    assert plan("31c0 c3", behind="0f1f4000" + PROLOGUE, limit=4).kind == "relocated"
    assert plan("31c0 c3", behind="cccc" + PROLOGUE, limit=2).kind == "relocated"
    window = plan("31c0 c3", behind="cccc" + PROLOGUE, limit=2)
    assert (window.length, window.patch) == (3, 5)
    assert plan("31c0 c3", behind=PROLOGUE).kind == "punned"
    assert plan("31c0 c3", behind="90" + PROLOGUE, limit=1).kind == "punned"
    assert (
        plan("31c0 c3", behind="90 90" + PROLOGUE, limit=1).kind == "punned"
    )  # the second nop is of the next function


def test_only_padding_behind_what_does_not_go_on() -> None:
    window = plan("eb05 4889c7 c3 90 90 90")
    assert (window.kind, window.length) == ("punned", 2)
    assert plan("eb05 90 90 90 90 90 c3").length == 2


@pytest.mark.parametrize("code", ["0f0b", "cd03", "f4", "06", "66e900000000"])
def test_what_must_not_move(code: str) -> None:
    assert plan(code, behind="90" * 8, limit=8).kind == "none"
    window = plan("31c0" + code, behind="90" * 8, limit=8)
    assert (window.kind, window.length) == ("punned", 2)


def test_a_breakpoint_of_another_tracer() -> None:
    window = plan("cc4889e5" + RET)
    assert window.kind == "none"
    assert "another tracer" in window.reason


def test_reserved_ranges() -> None:
    assert plan(PROLOGUE + RET, reserved=[(BASE + 4, BASE + 8)]).kind == "punned"
    assert plan(PROLOGUE + RET, reserved=[(BASE, BASE + 1)]).kind == "none"
    assert plan(PROLOGUE + RET, reserved=[(BASE + 8, BASE + 9)]).kind == "relocated"


def test_targets_of_others() -> None:
    assert plan(PROLOGUE + RET, targets=[BASE, BASE + 8]).kind == "relocated"
    assert "something leads to 0x401004" in plan(PROLOGUE + RET, targets={BASE + 4}).reason


def test_outside_and_between() -> None:
    assert "outside the function" in plan(PROLOGUE + RET, at=9).reason
    assert "no instruction begins" in plan(PROLOGUE + RET, at=2).reason
    assert plan_window(b"\x90", 0, start=0, end=2).kind == "none"


def test_jumps_of_other_functions() -> None:
    first = bytes.fromhex(PROLOGUE.replace(" ", "") + RET)
    other = b"\xe9" + (1 - len(first) - 5).to_bytes(4, "little", signed=True)
    code = first + other
    alone = plan_window(code, BASE, start=BASE, end=BASE + len(first), base=BASE)
    assert alone.kind == "relocated"
    survey = Survey(code, BASE, [BASE, BASE + len(first)])
    both = plan_window(code, BASE, start=BASE, end=BASE + len(first), base=BASE, survey=survey)
    assert (both.kind, both.patch) == ("punned", 1)
    assert f"a jump at {BASE + len(first):#x} leads to 0x401001" in both.reason
    assert [jump.target for jump in survey.jumps_into(BASE, BASE + 5)] == [BASE + 1]


@pytest.mark.parametrize("place", [100_000, 2, 131_069, 199_990, 290_000, -70_000])
def test_looking_for_a_target_and_an_index_of_all_find_the_same(place: int) -> None:
    """Of displacements with any upper bytes, to targets anywhere in the code and beside it."""
    chance = random.Random(4)
    code = bytearray(chance.choice((0x0F, 0xE8, 0xE9, 0x84, 0x00, 0x55)) for _ in range(200_000))
    low = BASE + place
    for _ in range(300):  # most displacements of random bytes lead nowhere near
        at = chance.randrange(len(code) - 8)
        opcode = chance.choice((b"\xe8", b"\xe9", b"\x0f\x84", b"\xc7\xf8", b"\x55"))
        target = low + chance.randrange(-3, 8)
        code[at : at + len(opcode) + 4] = opcode + (target - BASE - at - len(opcode) - 4).to_bytes(
            4, "little", signed=True
        )
    whole = sorted(found for found in iter_near(bytes(code), BASE) if low <= found[1] < low + 5)
    assert sorted(find_near(bytes(code), BASE, low, low + 5)) == whole
    assert len(whole) > 80
    if not 0 <= place < len(code) - 5:
        return  # a survey is asked about its own code only
    survey = Survey(bytes(code), BASE)
    first = survey.jumps_into(low, low + 5)
    for _ in range(40):
        later = survey.jumps_into(low, low + 5)
    assert {(j.source, j.target) for j in first} == {(j.source, j.target) for j in later}


def switch(prefix: str) -> tuple[bytes, int]:
    """A function with a jump table as gcc writes it; the table's one entry leads to `ret`."""
    table = BASE + 0x100
    head = bytes.fromhex(prefix)
    lea = b"\x48\x8d\x05" + (table - BASE - len(head) - 7).to_bytes(4, "little")
    code = head + lea + bytes.fromhex("486304b8 4801d0 3effe0 9090 c3".replace(" ", ""))
    return code, table


def test_a_jump_table_leads_into_the_window() -> None:
    code, table = switch("89ff89f6")  # mov; mov, then the table's address
    body = {"start": BASE, "end": BASE + len(code), "base": BASE}
    for target, kind in ((4, "punned"), (len(code) - 1, "relocated")):
        entry = (BASE + target - table).to_bytes(4, "little", signed=True)
        window = plan_window(code, BASE, data=[(table, entry + b"\x7f" * 4)], **body)
        assert window.kind == kind
        tables = read_tables(code, BASE, BASE, BASE + len(code), [(table, entry + b"\x7f" * 4)])
        assert tables.complete
        assert tables.targets == {BASE + target}
    # Without the table nobody knows; only the entry of the function is certain.
    assert plan_window(code, BASE, **body).kind == "relocated"
    assert "table was not found" in plan_window(code, BASE + 2, **body).reason


def test_a_table_of_absolute_addresses() -> None:
    code = bytes.fromhex("89ff89f6ff24fd00114000c3")  # jmp *0x401100(,%rdi,8)
    data = [(BASE + 0x100, (BASE + 2).to_bytes(8, "little") + bytes(8))]
    window = plan_window(code, BASE, start=BASE, end=BASE + len(code), base=BASE, data=data)
    assert window.kind == "punned"
    assert window.length == 2


def test_puns_reach_what_the_code_behind_lets_them() -> None:
    # Two bytes may be replaced; three of the displacement are those of what follows.
    window = plan("ffd0 4889c7 c3 90 90 90")
    fixed = int.from_bytes(bytes.fromhex("004889c7"), "little", signed=True)
    assert [(p.prefix, p.low, p.size) for p in window.puns] == [
        (b"", BASE + 5 + fixed, 256),
        (b"\x2e", BASE + 6 + int.from_bytes(bytes.fromhex("4889c7c3"), "little", signed=True), 1),
    ]
    assert window.keep == 6


def test_written_puns_lead_there() -> None:
    text = "f30f1efa 83e801 75fb c3 90909090"
    window = plan(text)
    code = bytes.fromhex(text.replace(" ", ""))
    for pun in window.puns:
        head = len(pun.prefix) + 1
        for chosen in (0, pun.size - 1):
            to = pun.low + chosen
            jump = pun.prefix + b"\xe9" + ((to - window.addr - head - 4) & 0xFFFFFFFF).to_bytes(4, "little")
            assert jump[window.patch :] == code[window.patch : len(jump)]


def test_only_allowed_rungs() -> None:
    assert plan(PROLOGUE + RET, rungs=("trap",)).kind == "trap"
    assert plan(PROLOGUE + RET, rungs=()).kind == "none"
    assert plan("9090909090" + RET, rungs=("relocated",)).kind == "relocated"


def test_the_longest_short_jumps() -> None:
    code = bytearray(b"\x90" * 400)
    code[200 - 129 : 200 - 127] = b"\xeb\x7f"  # to 200
    code[204 + 126 : 204 + 128] = b"\xeb\x80"  # to 204
    assert {(j.source, j.target) for j in jumps_into(bytes(code), 0, 0, 400, 200, 205)} == {(71, 200), (330, 204)}
    assert jumps_into(bytes(code), 0, 0, 400, 201, 204) == []


def test_the_second_byte_of_an_opcode_is_none() -> None:
    assert jumps_into(bytes.fromhex("66480f7ec2"), 64, 64, 69, 0, 128) == []  # movq %xmm0, %rdx: 7e c2


def test_prefixed_jumps_are_found() -> None:
    code = bytes.fromhex("2e75fc f2e9f7ffffff")
    assert is_opcode(code, 0, 1)
    assert not is_opcode(code, 0, 2)
    assert [(j.source, j.target) for j in jumps_into(code, 0, 0, len(code), -1, 1)] == [(4, 0), (1, -1)]


@given(st.binary(min_size=1, max_size=64), st.integers(0, 63), st.booleans())
def test_any_code(code: bytes, at: int, whole: bool) -> None:
    survey = Survey(code, BASE, [BASE]) if whole else None
    window = plan_window(
        code, BASE + at, start=BASE, end=BASE + len(code), base=BASE, survey=survey, data=[(BASE, code)]
    )
    assert window.kind in (*RUNGS, "none")
    assert (window.kind in RUNGS[:2]) == (window.reason == "")
    assert window.length == len(window.code) == sum(i.length for i in window.instructions)
    if window.kind != "none":
        assert code[window.addr - BASE :].startswith(window.code)
        assert window.addr in (BASE + at, BASE + at + 4)
        assert 1 <= window.patch <= 5


@given(
    st.lists(st.one_of(st.integers(0, 1 << 26), st.integers(0, (1 << 63)), st.integers(1 << 22, 1 << 23)), max_size=40),
    st.integers(0, 1 << 34), st.integers(0, 1 << 24), st.binary(max_size=7),
)  # fmt: skip
def test_words_that_could_be_addresses(words: list[int], low: int, size: int, rest: bytes) -> None:
    for first in (low, 1 << 22, *words[:2]):
        content = b"".join(word.to_bytes(8, "little") for word in [*words, first, first + size])
        expected = {word for word in [*words, first, first + size] if first <= word < first + size}
        assert find_addresses(content + rest, first, first + size) == expected

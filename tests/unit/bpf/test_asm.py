"""Text to machine code and back: all operations, labels, other people's spellings, and errors with their place."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from insn_strategy import instructions

from sonde.bpf.asm import assemble
from sonde.bpf.disasm import disassemble, format_insn
from sonde.bpf.isa import LDDW, Insn, decode, encode
from sonde.errors import CompileError


@pytest.mark.parametrize(
    ("insn", "text"),
    [
        (Insn(0x07, 1, imm=-8), "r1 += -8"),
        (Insn(0xBC, 1, 2), "w1 = w2"),
        (Insn(0xBF, 1, 2, 8), "r1 = (s8)r2"),
        (Insn(0x3F, 1, 2, 1), "r1 s/= r2"),
        (Insn(0xC7, 1, imm=3), "r1 s>>= 3"),
        (Insn(0x87, 4), "r4 = -r4"),
        (Insn(0xDC, 4, imm=16), "r4 = be16 r4"),
        (Insn(0xBF, 1, 2, 1, 1), "r1 = addr_space_cast(r2, 0, 1)"),
        (Insn(0x79, 1, 10, -8), "r1 = *(u64 *)(r10 -8)"),
        (Insn(0x91, 1, 2, 0), "r1 = *(s8 *)(r2 +0)"),
        (Insn(0x62, 10, 0, -4, -1), "*(u32 *)(r10 -4) = -1"),
        (Insn(0x6B, 1, 2, 6), "*(u16 *)(r1 +6) = r2"),
        (Insn(0xDB, 1, 2, 8, 0), "lock *(u64 *)(r1 +8) += r2"),
        (Insn(0xC3, 1, 2, 8, 0x51), "r2 = atomic_fetch_and((u32 *)(r1 +8), r2)"),
        (Insn(0xDB, 1, 2, 8, 0xF1), "r0 = atomic64_cmpxchg((u64 *)(r1 +8), r0, r2)"),
        (Insn(0xCB, 1, 2, 8, 0x100), "r1 = load_acquire((u16 *)(r2 +8))"),
        (Insn(0xD3, 1, 2, 8, 0x110), "store_release((u8 *)(r1 +8), r2)"),
        (Insn(0x15, 1, off=3, imm=-1), "if r1 == 0xffffffff goto pc+3"),
        (Insn(0xCE, 1, 2, -3), "if w1 s< w2 goto pc-3"),
        (Insn(0x05, off=-1), "goto pc-1"),
        (Insn(0x06, imm=70000), "gotol pc+70000"),
        (Insn(0xE5, off=2), "may_goto pc+2"),
        (Insn(0x85, imm=1), "call bpf_map_lookup_elem#1"),
        (Insn(0x85, imm=9999), "call unknown#9999"),
        (Insn(0x85, 0, 1, 0, 7), "call pc+7"),
        (Insn(0x85, 0, 2, 0, 123), "call kfunc#123"),
        (Insn(0x85, 0, 2, 3, 123), "call kfunc#123+3"),
        (Insn(LDDW, 1, imm=0xFFFF888000000000), "r1 = 0xffff888000000000 ll"),
        (Insn(LDDW, 1, 1, imm=5), "r1 = map[fd:5]"),
        (Insn(LDDW, 1, 2, imm=5 | 16 << 32), "r1 = map[fd:5][0]+16"),
        (Insn(LDDW, 1, 4, imm=0xFFFFFFFF), "r1 = subprog[pc-1]"),
        (Insn(0x30, imm=12), "r0 = *(u8 *)skb[12]"),
        (Insn(0x40, 0, 6, 0, -4), "r0 = *(u32 *)skb[r6 + -4]"),
        (Insn(0x95), "exit"),
    ],
)
def test_one_of_each_kind(insn: Insn, text: str) -> None:
    assert format_insn(insn) == text
    assert assemble(text) == [insn]
    assert decode(encode([insn])) == [insn]


@given(instructions())
@settings(max_examples=1000)
def test_text_and_instruction_are_inverse(insn: Insn) -> None:
    text = format_insn(insn)
    assert assemble(text) == [insn]
    assert format_insn(assemble(text)[0]) == text


@given(st.lists(instructions(), max_size=12))
def test_whole_listings_are_read_back(insns: list[Insn]) -> None:
    notes = {0: "a note; with ; in it"}
    listing = disassemble(insns, notes=notes, sources={0: "count++ // here"})
    assert assemble(listing) == insns
    assert disassemble(assemble(listing), notes=notes, sources={0: "count++ // here"}) == listing


def test_a_listing() -> None:
    insns = [Insn(LDDW, 1, 1, imm=3), Insn(0xBF, 2, 10), Insn(0x95)]
    assert disassemble(insns, sources={2: "@ = count()"}, notes={0: "map counts"}).splitlines() == [
        "   0: (18) r1 = map[fd:3] ; map counts",
        "; @ = count()",
        "   2: (bf) r2 = r10",
        "   3: (95) exit",
    ]
    assert disassemble(insns[1:], first_pc=10).splitlines()[1] == "  11: (95) exit"


def test_an_instruction_that_does_not_exist_is_shown_by_its_fields() -> None:
    assert format_insn(Insn(0xFF, 1, 2, 3, 4)) == "<opcode 0xff dst=1 src=2 off=3 imm=4>"


def test_labels() -> None:
    text = """
    ; counts down from 10
        r1 = 10
    again:
        r2 = 0x1122334455667788 ll   // two slots
        r1 -= 1
        if r1 != 0 goto again
        call helper_function
        r3 = subprog[helper_function]
        goto end
    helper_function: r0 = 0
    end: exit
    """
    insns = assemble(text)
    assert [format_insn(i) for i in insns] == [
        "r1 = 10", "r2 = 0x1122334455667788 ll", "r1 -= 1", "if r1 != 0x0 goto pc-4", "call pc+3", "r3 = subprog[pc+2]",
        "goto pc+1", "r0 = 0", "exit"]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("r1 = *(u64 *)(r6 + 0)", "r1 = *(u64 *)(r6 +0)"),
        ("*(u32 *)(r10 - 4) = r1", "*(u32 *)(r10 -4) = r1"),
        ("r1=*(u8*)(r2-8)", "r1 = *(u8 *)(r2 -8)"),
        ("if r1 s> 5 goto +3", "if r1 s> 0x5 goto pc+3"),
        ("if w1==-1 goto -3", "if w1 == 0xffffffff goto pc-3"),
        ("call 14", "call bpf_get_current_pid_tgid#14"),
        ("call get_current_pid_tgid", "call bpf_get_current_pid_tgid#14"),
        ("call bpf_get_current_pid_tgid", "call bpf_get_current_pid_tgid#14"),
        ("r1 = 0xffffffff", "r1 = -1"),
        ("r1 = 5 ll", "r1 = 0x5 ll"),
        ("r1 = -1 ll", "r1 = 0xffffffffffffffff ll"),
        ("  12: (95) exit ; done", "exit"),
        ("start: exit", "exit"),
    ],
)
def test_other_spellings(text: str, canonical: str) -> None:
    assert [format_insn(i) for i in assemble(text)] == [canonical]


@pytest.mark.parametrize(
    ("text", "message", "column"),
    [
        ("r1 = r2 +", "no instruction is written like this", 9),
        ("r1 += ", "not complete", 6),
        ("r11 = 5", "no register r11", 1),
        ("r1 = -r2", "must be the same", 7),
        ("r2 = *(u8 *)skb[0]", "only r0", 1),
        ("r1 = map[fd:5][1]+3", "only 0", 16),
        ("call nosuch", "no helper or label nosuch", 6),
        ("call map_lookup_elem#2", "no helper is called", 6),
        ("call r1", "cannot be called", 6),
        ("call kfunc#99999999999", "out of range", 6),
        ("goto nowhere", "no label nowhere", 6),
        ("x: exit\nx: exit", "defined twice", 1),
        ("r1 = 4294967296", "out of range", 6),
        ("r1 = 0x1ffffffffffffffff ll", "out of range", 6),
        ("goto pc+32768", "out of range", 6),
        ("r1 = *(u64 *)(r2 +40000)", "out of range", 18),
        ("r1 = addr_space_cast(r2, 70000, 0)", "out of range", 26),
        ("exit $", r"no place here: '\$'", 6),
        ("exit exit", "from 'exit' on", 6),
        ("lock *(u8 *)(r1 +0) += r2", "from 'u8' on", 8),
    ],
)
def test_errors_name_their_place(text: str, message: str, column: int) -> None:
    with pytest.raises(CompileError, match=message) as caught:
        assemble("exit\n" + text, "prog.s")
    span = caught.value.diagnostics[0].span
    assert span is not None
    assert (span.file, span.line, span.column) == ("prog.s", 2 + text.count("\n"), column)
    assert caught.value.diagnostics[0].excerpt == text.splitlines()[-1]


def test_every_wrong_line_is_reported() -> None:
    with pytest.raises(CompileError) as caught:
        assemble("r1 = \nexit\nfoo\ngoto x\n")
    assert [d.span and d.span.line for d in caught.value.diagnostics] == [1, 3, 4]


def test_a_label_out_of_reach() -> None:
    filler = "r0 = 0\n" * 40000
    with pytest.raises(CompileError, match="further than this jump reaches") as caught:
        assemble(f"goto end\n{filler}end: exit")
    assert caught.value.diagnostics[0].hint == "use gotol"
    assert assemble(f"gotol end\n{filler}end: exit")[0] == Insn(0x06, imm=40000)


@given(st.text(max_size=40) | st.text(alphabet="rw0123456789 +-*/=<>()[]:;&|^%!~su.goto{}#x\n", max_size=60))
@settings(max_examples=500)
def test_any_text_assembles_or_is_refused(text: str) -> None:
    with contextlib.suppress(CompileError):
        encode(assemble(text))

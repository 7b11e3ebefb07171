"""The instruction set: the table is consistent, machine code goes both ways, garbage is refused."""

from __future__ import annotations

import contextlib
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from insn_strategy import instructions

from sonde.bpf import isa
from sonde.bpf.isa import FREE, LDDW, LOW, Insn, decode, encode, get_op, iter_ops, iter_pcs
from sonde.errors import FormatError

OPS = list(iter_ops())


def test_names_and_texts_are_unique() -> None:
    assert len({op.name for op in OPS}) == len({op.text for op in OPS}) == len(OPS)


def test_no_two_operations_claim_the_same_instruction() -> None:
    for op in OPS:
        others = [o for o in OPS if o is not op and o.opcode == op.opcode]
        sample = Insn(op.opcode, *(5 if f in (FREE, LOW) else f for f in (op.dst, op.src, op.off, op.imm)))
        assert op.matches(sample)
        assert not [o.name for o in others if o.matches(sample)], op.name


# Whole opcodes by conformance group of RFC 9669, written out from its table of instructions.
RFC_9669 = {
    "base32": "04 05 06 0c 14 16 1c 1e 20 24 26 28 2c 2e 30 34 36 3c 3e 40 44 46 48 4c 4e 50 54 56 5c 5e 61 62 63 64 66 69 6a 6b"
    " 6c 6e 71 72 73 74 76 7c 7e 84 94 9c a4 a6 ac ae b4 b6 bc be c4 c6 cc ce d4 d6 dc de 85 95",
    "base64": "07 0f 15 17 18 1d 1f 25 27 2d 2f 35 37 3d 3f 45 47 4d 4f 55 57 5d 5f 65 67 6d 6f 75 77 79 7a 7b 7d 7f 81 87 89 91 97"
    " 9f a5 a7 ad af b5 b7 bd bf c5 c7 cd cf d5 d7 dd",
    "atomic": "c3 db",
    "load-acquire and store-release, may_goto, gotox, callx, nospec": "cb d3 e5 0d 8d c2",
}


def test_every_opcode_of_the_standard_and_of_the_kernel_is_there() -> None:
    expected = {int(code, 16) for codes in RFC_9669.values() for code in codes.split()}
    assert {op.opcode for op in OPS} == expected


@pytest.mark.parametrize(
    ("insn", "name"),
    [
        (Insn(0x34, 1, 0, 0, 7), "div32_imm"), (Insn(0x34, 1, 0, 1, 7), "sdiv32_imm"), (Insn(0x9F, 1, 2, 1), "smod64"),
        (Insn(0xBF, 1, 2), "mov64"), (Insn(0xBF, 1, 2, 32), "movsx64_32"), (Insn(0xBC, 1, 2, 16), "movsx32_16"),
        (Insn(0xBF, 1, 2, 1, 1 << 16), "cast"), (Insn(0xBF, 1, 2, -1), "percpu"), (Insn(0xD7, 1, 0, 0, 32), "bswap32"),
        (Insn(0xDB, 1, 2, 8, 0x01), "fadd64"), (Insn(0xC3, 1, 2, 8, 0xF1), "cmpxchg32"), (Insn(0xDB, 1, 2, 8, 0x100), "acquire64"),
        (Insn(0xD3, 1, 2, 8, 0x110), "release8"), (Insn(0x18, 1, 0, 0, 1 << 40), "lddw"), (Insn(0x18, 1, 2), "lddw_val"),
        (Insn(0x85, 0, 0, 0, 1), "call"), (Insn(0x85, 0, 1, 0, -1), "callsub"), (Insn(0x85, 0, 2, 1, 99), "kfunc"),
        (Insn(0x06, imm=-70000), "gotol"), (Insn(0x91, 1, 2, 4), "ldxs8"), (Insn(0x48, 0, 3, 0, 2), "ldind16"),
    ],
)  # fmt: skip
def test_operations_are_told_apart_by_their_fields(insn: Insn, name: str) -> None:
    op = get_op(insn)
    assert op is not None and op.name == name
    assert decode(encode([insn])) == [insn]


@pytest.mark.parametrize(
    "insn",
    [
        Insn(0xBC, 1, 2, 32), Insn(0x34, 1, 0, 2), Insn(0xD4, 1, 0, 0, 8), Insn(0xDB, 1, 2, 0, 0x10), Insn(0xCB, 1, 2, 0, 0),
        Insn(0x95, 1), Insn(0x05, 0, 0, 1, 1), Insn(0x85, 0, 3), Insn(0x18, 1, 7), Insn(0x8D, imm=1), Insn(0x07, 11), Insn(0x0F, 1, 12),
        Insn(LDDW, 1, 1, 0, 1 << 32), Insn(0x00), Insn(0x98, 1), Insn(0xBF, 1, 2, 3), Insn(0x79, 1, 2, 3, 4), Insn(0x7A, 1, 2, 3, 4),
    ],
)  # fmt: skip
def test_reserved_fields_and_unknown_opcodes_are_refused(insn: Insn) -> None:
    assert get_op(insn) is None
    with pytest.raises(FormatError, match="instruction 1:"):
        decode(encode([Insn(isa.EXIT), insn]))


def test_wide_loads_take_two_slots() -> None:
    code = encode([Insn(LDDW, 1, 0, 0, 0x1122334455667788), Insn(isa.EXIT)])
    assert code.hex() == "18010000887766550000000044332211" + "9500000000000000"
    assert [pc for pc, _ in iter_pcs(decode(code))] == [0, 2]
    assert encode([Insn(LDDW, 1, 0, 0, -1)]) == encode([Insn(LDDW, 1, 0, 0, (1 << 64) - 1)])


@pytest.mark.parametrize(
    "tail", [b"", bytes(7), bytes([1]) + bytes(7), bytes(2) + b"\1" + bytes(5), bytes([0, 1]) + bytes(6)]
)
def test_a_broken_wide_load_is_refused(tail: bytes) -> None:
    with pytest.raises(FormatError):
        decode(encode([Insn(isa.EXIT)]) + struct.pack("<BBhi", LDDW, 1, 0, 0) + tail)


@pytest.mark.parametrize(
    "insn",
    [Insn(0x05, off=40000), Insn(0x05, off=-40000), Insn(0x07, imm=1 << 32), Insn(0x07, imm=-(1 << 31) - 1), Insn(0x107),
     Insn(LDDW, imm=1 << 64), Insn(LDDW, imm=-(1 << 63) - 1), Insn(0x07, 16), Insn(0x07, 0, 17), Insn(0x07, -1)],
)  # fmt: skip
def test_fields_that_do_not_fit_are_refused_with_their_pc(insn: Insn) -> None:
    with pytest.raises(FormatError, match="instruction 2 "):
        encode([Insn(LDDW), insn])


def test_immediates_may_be_given_unsigned() -> None:
    assert encode([Insn(0x07, 1, imm=0xFFFFFFFF)]) == encode([Insn(0x07, 1, imm=-1)])


@given(st.lists(instructions(), max_size=8))
@settings(max_examples=300)
def test_encode_and_decode_are_inverse(insns: list[Insn]) -> None:
    code = encode(insns)
    assert decode(code) == insns
    assert len(code) == 8 * sum(i.slots for i in insns)


@given(st.binary(max_size=64) | st.binary(min_size=8, max_size=8))
def test_any_bytes_decode_or_are_refused(code: bytes) -> None:
    with contextlib.suppress(FormatError):
        assert encode(decode(code)) == code

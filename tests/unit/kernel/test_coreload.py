"""CO-RE relocations in code: every form of instruction, what is checked before one is changed, and what is said when none fits."""

from __future__ import annotations

import struct

import pytest
from btf_builder import BtfBuilder
from hypothesis import given
from hypothesis import strategies as st

from sonde.debuginfo.btf import Btf
from sonde.debuginfo.corerelo import Answer
from sonde.errors import FeatureError, FormatError, Span, VerifierError
from sonde.kernel import btf as kernel_types
from sonde.kernel.coreload import POISON, CoreLoader, patch
from sonde.kernel.engine import KernelObject, check_kernel
from sonde.kernel.programs import relocate
from sonde.spec.object import CoreAccess, LineInfo, ObjectSpec, ProgramSpec, Reloc

MOV, ADD, MOV32, MOV_X = 0xB7, 0x07, 0xB4, 0xBF
LDX_W, LDX_DW, LDXSX_W, ST_W, STX_H, LDDW = 0x61, 0x79, 0x81, 0x62, 0x6B, 0x18
EXIT = struct.pack("<BBhi", 0x95, 0, 0, 0)


def insn(opcode: int, *, off: int = 0, imm: int = 0, registers: int = 0x21) -> bytearray:
    return bytearray(struct.pack("<BBhi", opcode, registers, off, imm))


def wide(value: int, *, source: int = 0) -> bytearray:
    return bytearray(struct.pack("<BBhIBBhI", LDDW, source << 4 | 1, 0, value & 0xFFFFFFFF, 0, 0, 0, value >> 32))


def access(value: int = 8, kind: str = "field_byte_offset") -> CoreAccess:
    return CoreAccess(kind, "struct s", ("m",), value)


def fields(code: bytearray) -> tuple[int, int, int, int]:
    return struct.unpack("<BBhi", code[:8])  # type: ignore[return-value]


@pytest.mark.parametrize("opcode", [MOV, ADD, MOV32, 0x04, 0x67, 0x77])
def test_immediates(opcode: int) -> None:
    code = insn(opcode, imm=8)
    assert patch(code, 0, access(), Answer(40000))
    assert fields(code) == (opcode, 0x21, 0, 40000)


@pytest.mark.parametrize("opcode", [LDX_W, LDX_DW, LDXSX_W, ST_W, STX_H])
def test_offsets(opcode: int) -> None:
    code = insn(opcode, off=8, imm=5)
    assert patch(code, 0, access(), Answer(0x7FFF))
    assert fields(code) == (opcode, 0x21, 0x7FFF, 5)


def test_wide_immediates() -> None:
    code = wide(0x1234567890)
    assert patch(code, 0, access(0x1234567890), Answer(-2))
    assert code == wide((1 << 64) - 2)


@pytest.mark.parametrize(
    ("opcode", "value", "held"),
    [(MOV, -(1 << 31), -(1 << 31)), (MOV32, 0xFFFFFFFF, -1), (MOV, (1 << 31) - 1, 0x7FFFFFFF)],
)
def test_extremes_fit(opcode: int, value: int, held: int) -> None:
    code = insn(opcode, imm=8)
    assert patch(code, 0, access(), Answer(value))
    assert fields(code)[3] == held


@pytest.mark.parametrize(
    ("code", "answer", "message"),
    [
        (insn(MOV, imm=9), Answer(1), "holds 9, not 8"),
        (insn(LDX_W, off=9), Answer(1), "holds 9, not 8"),
        (wide(9), Answer(1), "holds 9, not 8"),
        (wide(8 | 1 << 32), Answer(1), "not 8"),
        (insn(MOV, imm=8), Answer(1 << 31), "more than this instruction"),
        (insn(MOV32, imm=8), Answer(1 << 32), "more than this instruction"),
        (insn(LDX_W, off=8), Answer(0x8000), "more than a load or store reaches"),
        (insn(MOV_X), Answer(1), "cannot hold"),
        (insn(0x85, imm=8), Answer(1), "cannot hold"),
        (wide(8, source=1), Answer(1), "another form"),
        (insn(LDX_W, off=8), Answer(1, True, 8, 4, True), "has 8 bytes, but the instruction accesses 4"),
    ],
)
def test_what_does_not_belong_together(code: bytearray, answer: Answer, message: str) -> None:
    before = bytes(code)
    with pytest.raises(FormatError, match=message):
        patch(code, 0, access(), answer)
    assert code == before


def test_what_is_up_to_the_compiler_is_not_checked() -> None:
    code = insn(MOV, imm=77)
    assert patch(code, 0, access(), Answer(3, checked=False))
    assert fields(code)[3] == 3


@pytest.mark.parametrize(
    ("opcode", "local", "there", "patched"),
    [(LDX_DW, 8, 4, LDX_W), (LDX_W, 4, 8, LDX_DW), (STX_H, 2, 1, 0x73), (LDX_W, 4, 4, LDX_W)],
)
def test_loads_and_stores_take_the_members_size(opcode: int, local: int, there: int, patched: int) -> None:
    code = insn(opcode, off=8)
    assert patch(code, 0, access(), Answer(16, True, local, there, True))
    assert fields(code)[::2] == (patched, 16)


CALL = struct.pack("<BBhi", 0x85, 0, 0, POISON)


@pytest.mark.parametrize(
    ("code", "answer"),
    [
        (insn(MOV, imm=8), Answer(None)),
        (insn(MOV, imm=9), Answer(None)),
        (insn(LDX_W, off=8), Answer(None)),
        (wide(8), Answer(None)),
        (insn(LDX_W, off=8), Answer(16, True, 4, 8, False)),  # signed
        (insn(LDX_W, off=8), Answer(16, True, 4, 3, True)),
        (insn(LDX_W, off=8), Answer(16, True, 0, 8, False)),  # by names alone, and not what the load is for
    ],
)
def test_without_an_answer_the_instruction_may_not_be_reached(code: bytearray, answer: Answer) -> None:
    slots = len(code) // 8
    assert not patch(code, 0, access(), answer)
    assert code == CALL * slots


def test_a_size_that_nobody_accesses_does_not_matter() -> None:
    code = insn(ADD, imm=8)
    assert patch(code, 0, access(), Answer(16, True, 4, 8, False))


@given(st.binary(min_size=16, max_size=16), st.integers(-(1 << 70), 1 << 70), st.integers(-(1 << 33), 1 << 33))
def test_any_instruction_is_patched_or_left(code: bytes, value: int, held: int) -> None:
    for answer in (Answer(value, checked=False), Answer(value), Answer(value, False, 8, 4, True), Answer(None)):
        data = bytearray(code)
        try:
            patch(data, 0, access(held), answer)
        except FormatError:
            assert data == code
        assert len(data) == 16


# Programs ---------------------------------------------------------------------------------------------------------


def kernel() -> Btf:
    b = BtfBuilder()
    b.struct("s", 64, [("m", b.int("int", 4, True), 320), ("n", 1, 352)])
    return Btf.from_bytes(b.build())


def test_a_program_is_fitted_to_a_kernel() -> None:
    code = bytes(insn(LDX_W, off=8)) + bytes(insn(MOV, imm=1)) + EXIT
    program = ProgramSpec(
        "p",
        "tracepoint",
        code,
        (Reloc(0, "core", core=access()), Reloc(1, "core", core=access(1, "field_exists"))),
    )
    assert relocate(program, {}) == code
    assert relocate(program, {}, CoreLoader(kernel())) == insn(LDX_W, off=40) + insn(MOV, imm=1) + EXIT


def test_errors_say_which_program_and_instruction() -> None:
    program = ProgramSpec("p", "tracepoint", bytes(insn(MOV, imm=5)) + EXIT, (Reloc(0, "core", core=access()),))
    with pytest.raises(FormatError, match="program p, instruction 0: the instruction holds 5"):
        relocate(program, {}, CoreLoader(kernel()))
    with pytest.raises(FormatError, match="says nothing"):
        relocate(ProgramSpec("p", "tracepoint", EXIT, (Reloc(0, "core"),)), {}, CoreLoader(kernel()))


class Line(Span):
    """A place whose text is known."""

    @property
    def excerpt(self) -> str:
        return "kprobe:f { print(arg0.mm) }"


def test_a_refusal_says_what_the_kernel_lacks() -> None:
    span = Line("x.bt", 1, 18, 1, 25)
    missing = CoreAccess("field_byte_offset", "struct s", ("mm",), 8)
    code = bytes(insn(MOV, imm=0)) + bytes(insn(LDX_W, off=8)) + EXIT
    program = ProgramSpec("p", "kprobe", code, (Reloc(1, "core", core=missing),), lines=(LineInfo(1, span),))
    loader = CoreLoader(kernel())
    relocate(program, {}, loader)
    log = f"0: (b7) r1 = 0\n1: (85) call unknown#{POISON}\ninvalid func unknown#{POISON}\nprocessed 2 insns\n"
    error = loader.explained(VerifierError("p", 22, log=log), program)
    text = error.render()
    assert "x.bt:1:18-25: ERROR: struct s.mm cannot be had on this kernel: struct s has no member mm" in text
    assert "instruction 1: struct s.mm" in text
    other = VerifierError("p", 22, log="0: (b7) r1 = 0\nR1 is bad\n")
    assert loader.explained(other, program) is other


def test_nothing_is_looked_up_on_the_kernel_that_an_object_was_compiled_for(monkeypatch: pytest.MonkeyPatch) -> None:
    program = ProgramSpec("p", "tracepoint", bytes(insn(MOV, imm=8)) + EXIT, (Reloc(0, "core", core=access()),))
    plain = ProgramSpec("q", "tracepoint", EXIT)
    monkeypatch.setattr(kernel_types, "_kernel_id", "this one")
    found = [
        KernelObject(ObjectSpec((), kernel_id=kernel))._core_loader(spec) is not None
        for kernel in ("this one", "another", "")
        for spec in (program, plain)
    ]
    assert found == [False, False, True, False, True, False]


def test_what_was_fixed_for_one_kernel_is_not_run_on_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel_types, "_kernel_id", "this one")
    fixed = ObjectSpec((ProgramSpec("q", "tracepoint", EXIT),), kernel_id="another", fixed="struct file.f_mode")
    with pytest.raises(FeatureError, match=r"another kernel \(another\), and takes struct file.f_mode") as caught:
        check_kernel(fixed)
    assert "relocatable" in caught.value.hint
    check_kernel(ObjectSpec(fixed.programs, kernel_id="this one", fixed="struct file.f_mode"))
    check_kernel(ObjectSpec(fixed.programs, kernel_id="another"))

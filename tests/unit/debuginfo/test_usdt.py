"""USDT notes and their argument operands."""

from __future__ import annotations

import shutil
import struct
import subprocess
from pathlib import Path

import pytest
from elfmaker import DATA_VADDR, VADDR, Symbols, make_elf, note, stapsdt
from hypothesis import given, settings
from hypothesis import strategies as st

from sonde.debuginfo.elf import Elf
from sonde.debuginfo.ptregs import find_operand, get_ptregs
from sonde.debuginfo.usdt import UsdtArg, parse_arg, parse_args, read_notes, split_args
from sonde.errors import FormatError

CODE = VADDR + 0x1000
X86 = get_ptregs("x86_64")
ARM = get_ptregs("aarch64")
assert X86 is not None and ARM is not None


def test_notes() -> None:
    notes = stapsdt("app", "tick", "-4@%edi 8@%rsi", CODE + 4) + stapsdt(
        "app", "", "", CODE + 8, 0, DATA_VADDR + 0x2010
    )
    found = read_notes(Elf(make_elf(notes=notes)))
    assert [(n.provider, n.name, n.vaddr, n.offset, n.semaphore_offset, n.args) for n in found] == [
        ("app", "tick", CODE + 4, 0x1004, 0, "-4@%edi 8@%rsi"),
        ("app", "", CODE + 8, 0x1008, 0x2010, ""),
    ]
    assert read_notes(Elf(make_elf())) == []


def test_addresses_follow_the_base() -> None:
    """Prelink moves a file without changing its notes: the section .stapsdt.base says by how much."""
    notes = stapsdt("app", "tick", "", CODE + 4 - 0x100, CODE + 0x50 - 0x100, DATA_VADDR + 0x2010 - 0x100)
    (found,) = read_notes(Elf(make_elf(notes=notes, base_vaddr=CODE + 0x50)))
    assert (found.vaddr, found.offset, found.semaphore_offset) == (CODE + 4, 0x1004, 0x2010)


def test_other_notes_and_places_outside_the_file_are_passed_over() -> None:
    notes = note(b"GNU", 3, b"abcd") + stapsdt("app", "gone", "", 0x10) + stapsdt("app", "here", "", CODE)
    assert [n.name for n in read_notes(Elf(make_elf(notes=notes)))] == ["here"]


def test_corrupt_notes() -> None:
    for data in (b"\1" * 10, struct.pack("<QQQ", CODE, 0, 0) + b"app\0tick", struct.pack("<QQQ", CODE, 0, 0)):
        with pytest.raises(FormatError, match="ends too early"):
            read_notes(Elf(make_elf(notes=note(b"stapsdt", 3, data))))
    with pytest.raises(FormatError, match="outside its section"):
        read_notes(Elf(make_elf(notes=struct.pack("<III", 8, 1000, 3) + b"stapsdt\0")))


def x86(name: str) -> int:
    assert X86 is not None
    return X86.get_offset(name)


REGISTERS = [
    ("8@%rdi", 8, False, x86("di")),
    ("-4@%edi", 4, True, x86("di")),
    ("2@%di", 2, False, x86("di")),
    ("-1@%dil", 1, True, x86("di")),
    ("1@%al", 1, False, x86("ax")),
    ("1@%ah", 1, False, x86("ax") + 1),
    ("8@%r8", 8, False, x86("r8")),
    ("4@%r11d", 4, False, x86("r11")),
    ("2@%r15w", 2, False, x86("r15")),
    ("-1@%r9b", 1, True, x86("r9")),
    ("8@%rip", 8, False, x86("ip")),
    ("8@%rsp", 8, False, x86("sp")),
    ("8@%eax", 4, False, x86("ax")),  # no more than the operand has
]


@pytest.mark.parametrize(("text", "size", "signed", "base"), REGISTERS)
def test_x86_registers(text: str, size: int, signed: bool, base: int) -> None:
    assert parse_arg(text, "x86_64") == UsdtArg(size, signed, "reg", 0, base, text=text)


def mem(text: str, value: int, base: str = "", index: str = "", scale: int = 1) -> UsdtArg:
    """The expected decoding of an x86 memory operand of 4 signed bytes."""
    offsets = [x86(name) if name else -1 for name in (base, index)]
    return UsdtArg(4, True, "mem", value, offsets[0], offsets[1], scale, text)


X86_MEMORY = [
    mem("-4@(%rax)", 0, "ax"),
    mem("-4@-16(%rbp)", -16, "bp"),
    mem("-4@0x10(%rbp)", 16, "bp"),
    mem("-4@8+4(%rsp)", 12, "sp"),
    mem("-4@-8+4(%rsp)", -4, "sp"),
    mem("-4@8(%rax,%rbx,4)", 8, "ax", "bx", 4),
    mem("-4@(%rax, %rbx)", 0, "ax", "bx", 1),
    mem("-4@64(,%r12,8)", 64, "", "r12", 8),
    mem("-4@4096", 4096),
]


@pytest.mark.parametrize("expected", X86_MEMORY, ids=lambda a: a.text)
def test_x86_memory(expected: UsdtArg) -> None:
    assert parse_arg(expected.text, "x86_64") == expected


def test_constants() -> None:
    assert parse_arg("4@$5", "x86_64") == UsdtArg(4, False, "const", 5, text="4@$5")
    assert parse_arg("-4@$-5", "x86_64").value == -5
    assert parse_arg("8@$0xff", "x86_64").value == 255
    assert parse_arg("-4@-5", "aarch64").value == -5
    assert parse_arg("$3", "x86_64") == UsdtArg(8, False, "const", 3, text="$3")  # the oldest notes have no size


def elf_with_symbol(kind: int) -> Elf:
    table = Symbols()
    table.add("counter", DATA_VADDR + 0x2008, 8, kind=1)
    return Elf(make_elf(symtab=table, kind=kind))


def test_symbols() -> None:
    fixed, moved = elf_with_symbol(2), elf_with_symbol(3)
    vaddr = DATA_VADDR + 0x2008
    for elf in (fixed, moved):  # relative to the probe, this needs no load address
        found = parse_arg("8@counter+4(%rip)", "x86_64", elf, CODE)
        assert (found.kind, found.value, found.base) == ("mem", vaddr + 4 - CODE, x86("ip"))
    assert parse_arg("8@counter(,%rax,8)", "x86_64", fixed).value == vaddr
    assert parse_arg("8@$counter", "x86_64", fixed) == UsdtArg(8, False, "const", vaddr, text="8@$counter")
    assert parse_arg("8@$counter", "x86_64", moved).kind == "none"
    assert parse_arg("8@counter(%rax)", "x86_64", moved).kind == "none"
    assert parse_arg("8@nobody(%rip)", "x86_64", fixed).kind == "none"


ARM_OPERANDS = [
    ("4@w1", UsdtArg(4, False, "reg", 0, 8)),
    ("8@x30", UsdtArg(8, False, "reg", 0, 240)),
    ("8@sp", UsdtArg(8, False, "reg", 0, 248)),
    ("8@[sp, 16]", UsdtArg(8, False, "mem", 16, 248)),
    ("8@[sp]", UsdtArg(8, False, "mem", 0, 248)),
    ("8@[x0, #-8]", UsdtArg(8, False, "mem", -8, 0)),
    ("8@[x1, x2]", UsdtArg(8, False, "mem", 0, 8, 16)),
    ("8@[x1, x2, lsl #3]", UsdtArg(8, False, "mem", 0, 8, 16, 8)),
    ("8@[x1, w2, sxtw #3]", UsdtArg(8, False, "none")),
    ("8@d0", UsdtArg(8, False, "none")),
]


@pytest.mark.parametrize(("text", "expected"), ARM_OPERANDS)
def test_aarch64(text: str, expected: UsdtArg) -> None:
    found = parse_arg(text, "aarch64")
    assert [getattr(found, f) for f in UsdtArg._fields if f != "text"] == [
        getattr(expected, f) for f in UsdtArg._fields if f != "text"
    ]


@pytest.mark.parametrize(
    "text",
    [
        "8@%xmm0",
        "8f@%rax",
        "16@%rax",
        "8@%fs:40",
        "8@%fs:(%rax)",
        "8@16(%rip)",
        "8@(%eax)",
        "8@(%rax,%rbx,3)",
        "@",
        "8@",
        "8@()",
    ],
)
def test_out_of_reach(text: str) -> None:
    found = parse_arg(text, "x86_64")
    assert (found.kind, found.text) == ("none", text)


def test_splitting() -> None:
    assert split_args("-4@%edi 8@[sp, 16]  4@(%rax, %rbx) ") == ["-4@%edi", "8@[sp, 16]", "4@(%rax, %rbx)"]
    assert split_args("") == []


def test_register_tables() -> None:
    assert x86("r15") == 0 and x86("di") == 112 and x86("ip") == 128 and x86("sp") == 152
    assert ARM is not None and (ARM.get_offset("x0"), ARM.get_offset("pc"), ARM.get_offset("lr")) == (0, 256, 240)
    assert get_ptregs("vax") is None
    with pytest.raises(KeyError):
        find_operand("vax", "r0")


@settings(max_examples=400, deadline=None)
@given(st.text("%$@()[]-+,x 0148abdirspelfw#:*", max_size=24), st.sampled_from(["x86_64", "aarch64", ""]))
def test_fuzz_operands(text: str, arch: str) -> None:
    for part in split_args(text):
        found = parse_arg(part, arch)
        assert found.size in (1, 2, 4, 8) and found.kind in ("const", "reg", "mem", "none")


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=120))
def test_fuzz_notes(data: bytes) -> None:
    elf = Elf(make_elf(notes=stapsdt("a", "b", "4@%eax", CODE) + data))
    try:
        for found in read_notes(elf):
            parse_args(found, elf)
    except FormatError:
        pass


PROGRAM = r"""
long counter = 5;
__attribute__((section(".probes"))) unsigned short guard;
#define PROBE(name, args, semaphore) "990: nop\n.pushsection .note.stapsdt,\"\",\"note\"\n.balign 4\n" \
  ".4byte 992f-991f,994f-993f,3\n991: .asciz \"stapsdt\"\n992: .balign 4\n993: .8byte 990b\n" \
  ".8byte _.stapsdt.base\n.8byte " semaphore "\n.asciz \"app\"\n.asciz \"" name "\"\n.asciz \"" args "\"\n" \
  "994: .balign 4\n.popsection\n.pushsection .stapsdt.base,\"aG\",\"progbits\",.stapsdt.base,comdat\n" \
  ".ifndef _.stapsdt.base\n.weak _.stapsdt.base\n.hidden _.stapsdt.base\n_.stapsdt.base: .space 1\n" \
  ".size _.stapsdt.base,1\n.endif\n.popsection\n"
int main(int argc, char **argv) {
  __asm__ volatile(PROBE("start", "-4@%%edi", "0") :: "D"(argc));
  __asm__ volatile(PROBE("guarded", "8@counter(%%rip)", "guard") ::);
  return guard;
}
"""


@pytest.mark.skipif(not shutil.which("gcc") or not shutil.which("readelf"), reason="needs gcc and readelf")
def test_a_real_program(tmp_path: Path) -> None:
    """The addresses are those that readelf prints, and the semaphore is where the linker put it."""
    source, program = tmp_path / "program.c", tmp_path / "program"
    source.write_text(PROGRAM)
    subprocess.run(["gcc", "-O1", "-o", program, source], check=True)
    text = subprocess.run(["readelf", "-n", program], check=True, capture_output=True, text=True).stdout
    places = [int(line.split(",")[0].split()[1], 16) for line in text.splitlines() if "Location:" in line]
    with Elf.open(str(program)) as elf:
        if elf.arch != "x86_64":
            pytest.skip("the operands are those of x86-64")
        notes = read_notes(elf)
        assert [n.name for n in notes] == ["start", "guarded"]
        assert [n.vaddr for n in notes] == places
        guard, counter = elf.get_symbol("guard"), elf.get_symbol("counter")
        assert guard is not None and notes[1].semaphore_offset == elf.get_offset(guard.vaddr)
        assert counter is not None
        (arg,) = parse_args(notes[1], elf)
        assert arg.value == counter.vaddr - notes[1].vaddr
        assert Path(program).read_bytes()[notes[0].offset] == 0x90  # the probe's nop

"""Lengths of x86-64 instructions, one for each form, and against objdump where it is installed."""

from __future__ import annotations

import shutil
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sonde.debuginfo.x86length import is_boundary, measure

FORMS = [
    "90",  # nop
    "f30f1efa",  # endbr64
    "55",  # push %rbp
    "4154",  # push %r12
    "4889e5",  # mov %rsp,%rbp
    "4883ec10",  # sub $16,%rsp
    "4881ec00010000",  # sub $256,%rsp
    "c3",  # ret
    "c20800",  # ret $8
    "e800000000",  # call
    "eb05",  # jmp short
    "0f8400000000",  # je near
    "8b45fc",  # mov -4(%rbp),%eax
    "8b8500010000",  # mov 256(%rbp),%eax
    "8b0425785634 12".replace(" ", ""),  # mov 0x12345678,%eax
    "8b05f0ffffff",  # mov -16(%rip),%eax
    "8b442408",  # mov 8(%rsp),%eax
    "8b84c800010000",  # mov 256(%rax,%rcx,8),%eax
    "48b8efcdab8967452301",  # movabs
    "b801000000",  # mov $1,%eax
    "66480578563412",  # data16 add $0x12345678,%rax: of two prefixes for the size the wider counts
    "404890",  # of two REX bytes the last counts
    "4866050100",  # REX before another prefix does not: add $1,%ax
    "66b80100",  # mov $1,%ax
    "48a1efcdab8967452301",  # movabs 0x...,%rax
    "66c7000100",  # movw $1,(%rax)
    "f6c301",  # test $1,%bl
    "f6db",  # neg %bl
    "f7c301000000",  # test $1,%ebx
    "48f7f1",  # div %rcx
    "660f1f840000000000",  # nopw
    "662e0f1f840000000000",  # cs nopw
    "0fba e007".replace(" ", ""),  # bt $7,%eax
    "0f05",  # syscall
    "660f6fc1",  # movdqa
    "660f70c1e4",  # pshufd
    "660f3a0fc108",  # palignr
    "660f3800c1",  # pshufb
    "c5f877",  # vzeroupper
    "c5f96fc1",  # vmovdqa
    "c4e27d18c1",  # vbroadcastss
    "c4e37d18c101",  # vinsertf128
    "62f17c48100424",  # vmovups (%rsp),%zmm0
    "62f37d4819c101",  # vextractf32x4
    "8f e878 c2c108".replace(" ", ""),  # XOP vprotd
    "c8100000",  # enter
    "f3a4",  # rep movsb
    "f0480fb11f",  # lock cmpxchg
]


@pytest.mark.parametrize("code", FORMS)
def test_forms(code: str) -> None:
    data = bytes.fromhex(code)
    assert measure(data + b"\x90" * 16) == len(data)
    assert measure(data) == len(data)
    with pytest.raises(IndexError):
        measure(data[:-1])


def test_boundaries() -> None:
    code = bytes.fromhex("554889e54883ec10c3")
    assert [n for n in range(len(code) + 2) if is_boundary(code, n)] == [0, 1, 4, 8, 9]


@given(st.binary(max_size=32))
def test_fuzz(code: bytes) -> None:
    try:
        assert 1 <= measure(code) <= len(code)
    except IndexError:
        pass


@pytest.mark.skipif(not shutil.which("objdump") or not shutil.which("gcc"), reason="needs binutils and gcc")
def test_against_objdump() -> None:
    path = shutil.which("objdump")
    assert path
    done = subprocess.run(["objdump", "-f", path], capture_output=True, text=True)
    if "x86-64" not in done.stdout:
        pytest.skip("not an x86-64 machine")
    text = subprocess.run(["objdump", "-d", "-w", "--insn-width=16", path], capture_output=True, text=True).stdout
    count = 0
    for line in text.splitlines():
        parts = line.split("\t")
        if len(parts) == 3 and "(bad)" not in line and not parts[2].startswith("rex"):
            code = bytes.fromhex(parts[1].replace(" ", ""))
            assert measure(code) == len(code), line
            count += 1
    assert count > 1000

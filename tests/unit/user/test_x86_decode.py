"""What instructions of x86-64 do to the flow of control, one for each form. Whole libraries: tests/oracle/test_x86_against_iced.py."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sonde.errors import FormatError
from sonde.user.x86.decode import decode

KINDS = [
    ("90", "nop"),
    ("6690", "nop"),
    ("0f1f00", "nop"),
    ("662e0f1f840000000000", "nop"),
    ("f390", "plain"),  # pause
    ("4190", "plain"),  # xchg %eax, %r8d
    ("4890", "nop"),
    ("f30f1efa", "endbr"),
    ("f30f1efb", "plain"),  # endbr32
    ("eb05", "jump"),
    ("e905000000", "jump"),
    ("f2e905000000", "jump"),  # bnd
    ("7405", "branch"),
    ("2e7405", "branch"),
    ("0f8405000000", "branch"),
    ("e2fe", "loop"),
    ("e302", "loop"),
    ("67e302", "loop"),
    ("c7f800000000", "xbegin"),
    ("c7c000000000", "plain"),
    ("e800000000", "call"),
    ("666648e800000000", "call"),  # to __tls_get_addr
    ("ffd0", "indirect_call"),
    ("41ff5424f0", "indirect_call"),
    ("ff25000000 00".replace(" ", ""), "indirect_jump"),
    ("3effe0", "indirect_jump"),  # notrack
    ("ff2d00000000", "far"),
    ("ff30", "plain"),  # push (%rax)
    ("c3", "return"),
    ("f3c3", "return"),
    ("c20800", "return"),
    ("0f05", "syscall"),
    ("cd80", "syscall"),
    ("cd03", "trap"),
    ("cc", "trap"),
    ("f4", "halt"),
    ("0f0b", "undefined"),
    ("0fb900", "undefined"),
    ("06", "undefined"),
    ("62f47c0881c0", "undefined"),  # APX: add with an immediate that is not measured
    ("4889e5", "plain"),
    ("c5f877", "plain"),
    ("62f17c48100424", "plain"),
]


@pytest.mark.parametrize(("code", "kind"), KINDS)
def test_kinds(code: str, kind: str) -> None:
    data = bytes.fromhex(code)
    for padded in (data, data + b"\x90" * 16):
        found = decode(padded)
        assert (found.kind, found.length) == (kind, len(data))


@pytest.mark.parametrize(
    ("code", "at", "size", "target"),
    [("ebfe", 1, 1, 0), ("7505", 1, 1, 7), ("e9fbffffff", 1, 4, 0), ("0f8500010000", 2, 4, 262), ("e3f0", 1, 1, -14),
     ("c7f810000000", 2, 4, 22), ("66c7f81000", 3, 2, 21), ("f2e800000080", 2, 4, 6 - (1 << 31))],
)  # fmt: skip
def test_targets(code: str, at: int, size: int, target: int) -> None:
    found = decode(bytes.fromhex(code))
    assert (found.target_at, found.target_size, found.target) == (at, size, target)
    assert found.rip_at == -1


@pytest.mark.parametrize(
    ("code", "at", "rip"),
    [("8b05f0ffffff", 2, -10), ("488d3d10000000", 3, 23), ("c7050000000078563412", 2, 10), ("c5fa6f0510000000", 4, 24),
     ("62f17c4810051000 0000".replace(" ", ""), 6, 26), ("ff2500000000", 2, 6), ("8b0425f0ffffff", -1, 0), ("0f20c5", -1, 0)],
)  # fmt: skip
def test_operands_relative_to_rip(code: str, at: int, rip: int) -> None:
    found = decode(bytes.fromhex(code))
    assert (found.rip_at, found.rip) == (at, rip)


@pytest.mark.parametrize(
    "code", ["50", "4158", "6a00", "6800000000", "8f00", "ff30", "9c", "9d", "c9", "c8000000", "c3", "e800000000"]
)
def test_the_stack_is_used_unnamed(code: str) -> None:
    assert decode(bytes.fromhex(code)).stack


@pytest.mark.parametrize("code", ["4889e0", "8b442408", "ff00", "ffe0", "0f05"])
def test_the_stack_is_not_used_unnamed(code: str) -> None:
    assert not decode(bytes.fromhex(code)).stack


def test_errors() -> None:
    with pytest.raises(FormatError, match="ends within an instruction"):
        decode(b"\x48\x8b\x05\0\0\0")
    with pytest.raises(FormatError, match="at most 15 bytes"):
        decode(b"\x66" * 15 + b"\x90")
    with pytest.raises(FormatError):
        decode(b"", 0)


@given(st.binary(max_size=32), st.integers(0, 40))
def test_any_bytes(code: bytes, at: int) -> None:
    try:
        found = decode(code, at)
    except FormatError:
        return
    assert 0 < found.length <= min(15, len(code) - at)
    if found.target_at >= 0:
        assert found.target_at + found.target_size == found.length

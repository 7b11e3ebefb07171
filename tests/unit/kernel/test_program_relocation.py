"""Relocations of a program's code, and the BTF that is made for callbacks."""

from __future__ import annotations

import struct
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sonde.bpf.objfile.model import SourceLine as Line
from sonde.debuginfo.btf import Btf
from sonde.errors import FormatError
from sonde.kernel.funcinfo import find_functions, make_func_info, takes_function_address
from sonde.kernel.programs import relocate
from sonde.spec.object import LineInfo, ProgramSpec, Reloc

LDDW_R1 = struct.pack("<BBhiBBhi", 0x18, 1, 0, 0, 0, 0, 0, 0)
CALL_LOCAL = struct.pack("<BBhi", 0x85, 1 << 4, 0, -1)
RETURN = struct.pack("<BBhiBBhi", 0xB7, 0, 0, 0, 0x95, 0, 0, 0)
MAPS = {"m": SimpleNamespace(fd=17)}


def done(insns: bytes, *relocs: Reloc) -> bytearray:
    return relocate(ProgramSpec("p", "tracepoint", insns, relocs), MAPS)  # type: ignore[arg-type]


def test_map() -> None:
    code = done(LDDW_R1 + RETURN, Reloc(0, "map", "m"))
    assert struct.unpack_from("<BBhiBBhi", code) == (0x18, 0x11, 0, 17, 0, 0, 0, 0)


def test_map_value() -> None:
    code = done(LDDW_R1 + RETURN, Reloc(0, "map_value", "m", 24))
    assert struct.unpack_from("<BBhiBBhi", code) == (0x18, 0x21, 0, 17, 0, 0, 0, 24)


def test_subprogram_counts_from_the_next_instruction() -> None:
    code = done(CALL_LOCAL + RETURN + RETURN, Reloc(0, "subprogram", "f", 3))
    assert struct.unpack_from("<BBhi", code) == (0x85, 0x10, 0, 2)


def test_core_values_stand() -> None:
    assert done(RETURN, Reloc(0, "core")) == RETURN


def test_spec_is_not_changed() -> None:
    insns = LDDW_R1 + RETURN
    spec = ProgramSpec("p", "tracepoint", insns, (Reloc(0, "map", "m"),))
    relocate(spec, MAPS)  # type: ignore[arg-type]
    assert spec.insns == LDDW_R1 + RETURN


@pytest.mark.parametrize(
    ("insns", "reloc", "message"),
    [
        (RETURN, Reloc(0, "map", "other"), "'other'"),
        (RETURN, Reloc(2, "core"), "outside the code"),
        (RETURN, Reloc(1, "map", "m"), "outside the code"),
        (RETURN, Reloc(-1, "map", "m"), "outside the code"),
        (RETURN, Reloc(0, "nonsense"), "'nonsense'"),
        (RETURN[:-1], Reloc(0, "core"), "not whole instructions"),
        (b"", Reloc(0, "core"), "0 bytes"),
    ],
)
def test_bad_relocations(insns: bytes, reloc: Reloc, message: str) -> None:
    with pytest.raises(FormatError, match=message):
        done(insns, reloc)


def lddw_func(offset: int) -> bytes:
    return struct.pack("<BBhiBBhi", 0x18, 2 | 4 << 4, 0, offset, 0, 0, 0, 0)


def test_functions_are_found() -> None:
    code = lddw_func(5) + struct.pack("<BBhi", 0x85, 1 << 4, 0, 1) + RETURN + RETURN + RETURN
    assert takes_function_address(code)
    assert not takes_function_address(RETURN + LDDW_R1)
    assert find_functions(code) == [0, 4, 6]


def test_func_info_has_a_static_function_for_each_start() -> None:
    code = lddw_func(3) + RETURN + RETURN
    blob, info, lines = make_func_info(code, "probe:1", {4: "callback"})
    assert lines == b""
    assert [struct.unpack_from("=II", info, at) for at in range(0, len(info), 8)] == [(0, 3), (4, 4)]
    types = Btf.from_bytes(blob)
    assert types.get_func_id("probe_1") == 3
    assert types.get_func_id("callback") == 4
    assert types.get_func("callback") is not None


def test_line_info_has_a_line_for_each_function() -> None:
    code = lddw_func(3) + RETURN + RETURN
    told = [LineInfo(2, Line("x.c", 7, 3, "return 0;")), LineInfo(1, Line("x.c", 8, 1, "half"))]
    blob, _, lines = make_func_info(code, "probe", {4: "callback"}, told)
    types = Btf.from_bytes(blob)
    records = [struct.unpack_from("=IIII", lines, at) for at in range(0, len(lines), 16)]
    shown = [(pc, types.string_at(file), types.string_at(text), w >> 10, w & 1023) for pc, file, text, w in records]
    assert shown == [(pc, "x.c", "return 0;", 7, 3) for pc in (0, 2, 4)]


@given(st.binary(max_size=160).map(lambda b: b[: len(b) & ~7]))
def test_any_code_is_searched(code: bytes) -> None:
    takes_function_address(code)
    assert 0 in find_functions(code)

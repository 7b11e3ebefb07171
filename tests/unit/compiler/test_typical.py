"""Six typical tracing programs as IR: well formed after each pass, compiled the same each time, and not longer than by hand.

393 instructions is what clang -O2 makes of hand-written C of the same meaning (without the failure counts and the
collision-free stacks that these have).
"""

from __future__ import annotations

from pathlib import Path

import pytest
from fake_target import make_target

from sonde.bpf.isa import decode
from sonde.compiler.check import check_module
from sonde.compiler.passes import optimise
from sonde.compiler.passes.inline import callees_first, inline
from sonde.compiler.pipeline import compile_module
from sonde.compiler.text import format_module, parse_module

TYPICAL = sorted(Path(__file__).with_name("typical").glob("*.ir"))


def slots(text: str) -> int:
    compiled = compile_module(parse_module(text), make_target())
    return sum(len(program.insns) // 8 for program in compiled.programs)


def test_all_together_are_as_short_as_by_hand() -> None:
    assert len(TYPICAL) == 6
    assert sum(slots(path.read_text()) for path in TYPICAL) <= 393


@pytest.mark.parametrize("path", TYPICAL, ids=lambda p: p.stem)
def test_well_formed_after_each_pass(path: Path) -> None:
    module = parse_module(path.read_text())
    assert check_module(module) == []

    def after(name: str) -> None:
        assert check_module(module) == [], name

    for function in callees_first(module):
        inline(function, module)
        optimise(function, module.maps, after)
    text = format_module(module)
    assert format_module(parse_module(text)) == text


@pytest.mark.parametrize("path", TYPICAL, ids=lambda p: p.stem)
def test_same_input_same_bytes(path: Path) -> None:
    first, second = (compile_module(parse_module(path.read_text()), make_target()) for _ in range(2))
    assert first.programs == second.programs
    assert first.maps == second.maps


@pytest.mark.parametrize("path", TYPICAL, ids=lambda p: p.stem)
def test_old_instruction_set(path: Path) -> None:
    """Without instruction set v4 there is no signed division, no extending move, no far jump."""
    for program in compile_module(parse_module(path.read_text()), make_target(without={"isa:v4"})).programs:
        for insn in decode(program.insns):
            assert insn.opcode & 0x07 not in (0x04, 0x07) or insn.off == 0, insn

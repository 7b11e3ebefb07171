"""Every pass keeps the meaning and the form of random functions; text form and back is the identity."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ir_machine import Generator, copy_module, random_inputs, run

from sonde.compiler.check import check_function
from sonde.compiler.passes import optimise
from sonde.compiler.passes.branches import simplify_branches
from sonde.compiler.passes.cse import eliminate_common
from sonde.compiler.passes.eliminate import eliminate
from sonde.compiler.passes.fold import fold
from sonde.compiler.passes.forward import forward
from sonde.compiler.passes.graph import order_blocks
from sonde.compiler.passes.promote import promote
from sonde.compiler.passes.propagate import propagate
from sonde.compiler.passes.stores import drop_dead_stores
from sonde.compiler.text import format_module, parse_module
from sonde.errors import CompileError

PASSES = {"promote": promote, "propagate": propagate, "fold": fold, "cse": eliminate_common, "eliminate": eliminate,
          "forward": lambda f: forward(f, {}), "stores": lambda f: drop_dead_stores(f, {}),
          "branches": simplify_branches, "all": lambda f: optimise(f, {})}  # fmt: skip


@pytest.mark.parametrize("name", PASSES)
@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 1 << 32), size=st.integers(1, 60))
def test_pass_keeps_meaning_and_form(name: str, seed: int, size: int) -> None:
    module = copy_module(Generator(seed, size).make())
    function = module.functions["fuzz"]
    assert check_function(function) == []
    order_blocks(function)
    results = []
    for rounds in range(2):
        for inputs in range(3):
            io = random_inputs(seed + inputs)
            results.append((run(function, io, module), bytes(io)))
        if not rounds:
            PASSES[name](function)
            assert check_function(function) == []
    assert results[:3] == results[3:]


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 1 << 32))
def test_text_form_round_trip(seed: int) -> None:
    text = format_module(Generator(seed).make())
    assert format_module(parse_module(text)) == text


@settings(max_examples=200, deadline=None)
@given(seed=st.integers(0, 1000), data=st.data())
def test_parser_takes_or_refuses_damaged_text(seed: int, data: st.DataObject) -> None:
    text = format_module(Generator(seed, 8).make())
    at = data.draw(st.integers(0, len(text) - 1))
    length = data.draw(st.integers(0, 20))
    damaged = text[:at] + data.draw(st.text(max_size=8)) + text[at + length :]
    try:
        parse_module(damaged)
    except CompileError as error:
        assert error.diagnostics[0].span is not None

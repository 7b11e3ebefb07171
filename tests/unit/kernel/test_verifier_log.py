"""The verifier's log: which line matters, which instruction it is about, which script line that came from."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sonde.errors import Span
from sonde.kernel.verifier_log import explain, find_failing_pc, find_summary, hint_for
from sonde.lang.source import Source
from sonde.spec.object import LineInfo

DEREFERENCE = """0: R1=ctx() R10=fp0
; x = args->y @ stdin:3
0: (79) r0 = *(u64 *)(r1 +8)          ; R0=scalar() R1=ctx()
1: (79) r0 = *(u64 *)(r0 +8)
R0 invalid mem access 'scalar'
processed 2 insns (limit 1000000) max_states_per_insn 0 total_states 0 peak_states 0 mark_read 0
"""
UNREACHABLE = "unreachable insn 5\nprocessed 0 insns (limit 1000000) max_states_per_insn 0 total_states 0\n"
BACK_EDGE = "0: (b7) r0 = 0\nback-edge from insn 7 to 3\n"
TRUNCATED = "12: (85) call bpf_map_lookup_elem#1\n13: R0=map_value_or_null(id=1)"


def test_summary_is_the_reason() -> None:
    assert find_summary(DEREFERENCE) == "R0 invalid mem access 'scalar'"
    assert find_summary(UNREACHABLE) == "unreachable insn 5"
    assert find_summary("") == ""
    assert find_summary("processed 2 insns (limit 1000000)\n") == ""


def test_summary_of_a_truncated_log_is_its_last_instruction() -> None:
    assert find_summary(TRUNCATED) == "13: R0=map_value_or_null(id=1)"


def test_failing_instruction() -> None:
    assert find_failing_pc(DEREFERENCE) == (1, "r0 = *(u64 *)(r0 +8)")
    assert find_failing_pc(UNREACHABLE) == (5, "")
    assert find_failing_pc(BACK_EDGE) == (7, "")
    assert find_failing_pc(TRUNCATED) == (12, "call bpf_map_lookup_elem#1")
    assert find_failing_pc("nothing here") == (-1, "")


def test_diagnostic_points_at_the_script_line() -> None:
    source = Source("stdin", "a()\n\nx = args->y\n")
    here, there = source.span(0, 3), source.span(9, 13)
    lines = (LineInfo(0, here), LineInfo(1, there), LineInfo(2, here))
    summary, diagnostic = explain(DEREFERENCE, lines)
    assert summary == "R0 invalid mem access 'scalar'"
    assert diagnostic is not None
    assert (diagnostic.span, diagnostic.excerpt) == (there, "x = args->y")
    assert "instruction 1: r0 = *(u64 *)(r0 +8)" in diagnostic.message


def test_no_diagnostic_without_lines() -> None:
    assert explain(DEREFERENCE, ()) == ("R0 invalid mem access 'scalar'", None)


def test_hints() -> None:
    assert "lacks that helper" in hint_for("unknown func bpf_loop#181")
    assert hint_for("R0 invalid mem access") == ""


@given(st.text(alphabet="0123456789: ()abcinsR=;\n\0", max_size=400))
def test_any_text_is_taken(log: str) -> None:
    summary, diagnostic = explain(log, (LineInfo(0, Span("s", 1, 1, 1, 2)),))
    assert "\n" not in summary
    pc, _ = find_failing_pc(log)
    assert pc >= -1
    assert (diagnostic is None) == (pc < 0)


@pytest.mark.parametrize(
    ("line", "hint"),
    [
        ("R0 invalid mem access 'map_value_or_null'", "may be NULL"),
        ("R1 type=scalar expected=fp, pkt", "wants an address"),
        ("R1 type=inv expected=percpu_ptr_", "BTF may not describe"),
        ("Unreleased reference id=2 alloc_insn=8", "submitted, discarded or released"),
        ("math between fp pointer and register with unbounded min value is not allowed", "limit the number"),
        ("R0 offset is outside of the packet", "data_end"),
        ("invalid indirect read from stack R2 off -16+4 size 8", "padding too"),
    ],
)
def test_the_commonest_refusals_say_what_to_do(line: str, hint: str) -> None:
    assert hint in hint_for(line)


def test_a_loop_without_end_is_named_with_its_instruction() -> None:
    log = "0: R1=ctx() R10=fp0\n3: (05) goto pc-1\ninfinite loop detected at insn 3\ncur state: R1=ctx()\nold state: R1=ctx() R10=fp0\nprocessed 2 insns"
    assert find_summary(log) == "infinite loop detected at insn 3"
    assert find_failing_pc(log) == (3, "goto pc-1")

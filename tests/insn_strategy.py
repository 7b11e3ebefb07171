"""Hypothesis strategy: any instruction that the table of the instruction set allows."""

from __future__ import annotations

from hypothesis import strategies as st

from sonde.bpf.isa import FREE, LDDW, LOW, Insn, Op, iter_ops

OPS = list(iter_ops())


@st.composite
def instructions(draw: st.DrawFn) -> Insn:
    """Any instruction that the table allows."""
    op: Op = draw(st.sampled_from(OPS))
    registers = st.integers(0, 10)
    imm = op.imm
    if imm == FREE:
        imm = draw(st.integers(0, (1 << 64) - 1) if op.opcode == LDDW else st.integers(-(1 << 31), (1 << 31) - 1))
    elif imm == LOW:
        imm = draw(st.integers(0, (1 << 32) - 1))
    return Insn(
        op.opcode,
        draw(registers) if op.dst == FREE else op.dst,
        draw(registers) if op.src == FREE else op.src,
        draw(st.integers(-(1 << 15), (1 << 15) - 1)) if op.off == FREE else op.off,
        imm,
    )

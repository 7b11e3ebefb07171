"""Each form of instruction by itself: text both ways, the verifier's verdict, and the same result from the interpreter and the JIT, or a refusal that says why."""

from __future__ import annotations

import ctypes
import platform
import re
from collections.abc import Callable

import pytest
from instruction_forms import KFUNCS, NO_MEANING, OPS, SYMBOLS, UNVERIFIED, program, sample

from sonde.bpf.asm import assemble
from sonde.bpf.disasm import format_insn
from sonde.bpf.interp import Machine, Program
from sonde.bpf.isa import Insn, Op, decode, encode, get_op
from sonde.bpf.jit import translate
from sonde.bpf.jit.here import Placed
from sonde.bpf.verifier import MapInfo, verify
from sonde.errors import FeatureError, FormatError, RunError

MAPS = {1: MapInfo("io", "array", 4, 64, 1)}
forms = pytest.mark.parametrize("op", OPS, ids=lambda op: op.name)
VALUE = bytes(range(3, 67))


@forms
def test_text_and_machine_code_both_ways(op: Op) -> None:
    insn = sample(op)
    text = format_insn(insn)
    assert assemble(text) == decode(encode([insn])) == [insn]
    assert get_op(insn) is op and format_insn(assemble(text)[0]) == text


@forms
def test_the_verifier_takes_it_or_says_why_not(op: Op) -> None:
    insns, kind = program(op)
    assert any(get_op(insn) is op for insn in insns)
    reason = UNVERIFIED.get(op.name)
    try:
        kfuncs, symbols = KFUNCS if op.name == "kfunc" else None, SYMBOLS if op.name == "lddw_btf" else None
        verdict = verify(insns, kind, MAPS, kfuncs=kfuncs, symbols=symbols)
        refusal = verdict.refusal.message if verdict.refusal is not None else ""
    except FormatError as error:
        refusal = str(error)
    assert bool(refusal) == (reason is not None)
    assert re.search(reason or "", refusal), refusal


def interpreted(insns: list[Insn]) -> int:
    class Table:
        address = 0

        def value_address(self, index: int) -> int:
            return self.address

    table = Table()
    machine = Machine({7: lambda *_: 11}, maps={1: table}, kfuncs={3: lambda *_: 12})
    table.address = machine.memory.add(bytearray(VALUE))
    machine.packet_data = VALUE
    return machine.run(Program(insns), machine.memory.add(bytearray(192)))


def placed(insns: list[Insn]) -> int:
    value, context = ctypes.create_string_buffer(VALUE), ctypes.create_string_buffer(192)
    code = translate(insns, "x86_64")
    tables = {
        "helpers": {7: lambda *_: 11},
        "maps": {1: ctypes.addressof(value)},
        "values": {1: ctypes.addressof(value)},
    }
    outside: dict[str, Callable[..., int]] = {
        "kfunc": lambda *_: 12,
        "packet": lambda at, size, *_: int.from_bytes(VALUE[at : at + size], "big"),
    }
    with _Bound(code, outside, **tables) as here:  # type: ignore[arg-type]
        return here.run(ctypes.addressof(context))


class _Bound(Placed):
    """With kernel functions and packets, which only tests have here."""

    def __init__(self, code: object, outside: dict[str, Callable[..., int]], **tables: object) -> None:
        self.outside = outside
        super().__init__(code, **tables)  # type: ignore[arg-type]

    def _find(self, reloc: object, tables: object) -> int:
        function = self.outside.get(reloc.kind)  # type: ignore[attr-defined]
        if function is None:
            return super()._find(reloc, tables)  # type: ignore[arg-type]
        callback = ctypes.CFUNCTYPE(*[ctypes.c_uint64] * 6)(function)
        self._keep.append(callback)
        return ctypes.cast(callback, ctypes.c_void_p).value or 0


@forms
def test_it_runs_or_is_refused(op: Op) -> None:
    """The register that was written becomes the result, so that the form's effect is seen."""
    insns, _ = program(op)
    shown = (
        [*insns[:-2], Insn(0xBF, 0, sample(op).src if op.opcode & 7 == 3 else 6), Insn(0x95)] if shows(op) else insns
    )
    reason = NO_MEANING.get(op.name)
    if reason is None:
        expected = interpreted(shown)
        translate(shown, "aarch64")  # what it does is seen in QEMU: test_machine_programs
        if platform.machine() == "x86_64":
            assert placed(shown) == expected
        return
    with pytest.raises((FormatError, RunError), match=reason):
        interpreted(insns)
    for arch in ("x86_64", "aarch64"):
        with pytest.raises((FormatError, FeatureError), match=reason):
            translate(insns, arch)


def shows(op: Op) -> bool:
    """Whether a number is in r6 or r7 behind the instruction."""
    if op.opcode & 7 in (4, 7):
        return True
    return op.opcode & 7 == 1 or (op.opcode & 7 == 3 and op.imm not in (0, 0xF1, 0x100, 0x110) and bool(op.imm & 1))

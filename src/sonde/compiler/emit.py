"""Machine blocks to machine code: layout, jump offsets, relocations and line information."""

from __future__ import annotations

from ..bpf import isa
from ..bpf.isa import Insn
from ..spec.object import LineInfo, Reloc
from .machine import MBlock, Op

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


class Code:
    """The code of a program: the functions that it consists of, one after the other."""

    def __init__(self) -> None:
        self.insns: list[Insn] = []
        self.relocs: list[Reloc] = []
        self.lines: list[LineInfo] = []
        self.starts: dict[str, int] = {}
        self.helpers: set[str] = set()
        self._pc = 0
        self._local: list[tuple[Insn, int, str]] = []

    def add_function(self, name: str, blocks: Sequence[MBlock]) -> None:
        """Append a function's code. Blocks are in their final order, and every jump is explicit."""
        self.starts[name] = self._pc
        starts: dict[MBlock, int] = {}
        pc = self._pc
        for block in blocks:
            starts[block] = pc
            pc += sum(op.slots for op in block.ops)
        for block in blocks:
            for op in block.ops:
                self._add(op, starts)

    def _add(self, op: Op, starts: dict[MBlock, int]) -> None:
        src = max(op.src, 0)
        insn = Insn(op.opcode, max(op.dst, 0), src, op.off, op.imm)
        if op.target is not None:
            distance = starts[op.target] - self._pc - 1
            if op.opcode == isa.GOTOL:
                insn.imm = distance
            else:
                insn.off = distance
        if op.core is not None:
            self.relocs.append(Reloc(self._pc, "core", core=op.core))
        if op.form == "wide":
            self._relocate_wide(insn, op)
        elif op.form == "call":
            self._relocate_call(insn, op)
        if op.span is not None and (not self.lines or self.lines[-1].span is not op.span):
            self.lines.append(LineInfo(self._pc, op.span))
        self.insns.append(insn)
        self._pc += insn.slots

    def _relocate_wide(self, insn: Insn, op: Op) -> None:
        if op.kind == "map":
            insn.src = isa.BPF_PSEUDO_MAP_FD
            self.relocs.append(Reloc(self._pc, "map", op.symbol))
        elif op.kind == "map_value":
            insn.src, insn.imm = isa.BPF_PSEUDO_MAP_VALUE, 0
            self.relocs.append(Reloc(self._pc, "map_value", op.symbol, op.imm))
        elif op.kind == "ksym_btf":
            insn.src, insn.imm = isa.BPF_PSEUDO_BTF_ID, 0
            self.relocs.append(Reloc(self._pc, "ksym_btf", op.symbol))
        elif op.kind == "subprogram":
            insn.src = isa.BPF_PSEUDO_FUNC
            self._local.append((insn, self._pc, op.symbol))

    def _relocate_call(self, insn: Insn, op: Op) -> None:
        if op.kind == "helper":
            self.helpers.add(op.symbol)
        elif op.kind == "kfunc":
            insn.src = isa.BPF_PSEUDO_KFUNC_CALL
            self.relocs.append(Reloc(self._pc, "kfunc", op.symbol))
        else:
            insn.src = isa.BPF_PSEUDO_CALL
            self._local.append((insn, self._pc, op.symbol))

    def finish(self) -> bytes:
        """Resolve local calls; return the machine code."""
        for insn, pc, name in self._local:
            insn.imm = self.starts[name] - pc - 1 & 0xFFFFFFFF
        return isa.encode(self.insns)

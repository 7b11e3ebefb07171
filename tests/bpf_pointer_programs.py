"""Random programs about addresses: indices limited well, badly or not at all, into a map's value, the stack and local functions; and spoilt programs.

About half of them are not safe. What a verifier accepts must run without a fault on any input.
"""

from __future__ import annotations

from random import Random

from bpf_programs import INPUT_BYTES, MAP_FD, VALUE_BYTES, ProgramGenerator

from sonde.bpf import isa
from sonde.bpf.isa import Insn, get_op, iter_ops

A64, A32, J64, J32 = isa.BPF_ALU64, isa.BPF_ALU, isa.BPF_JMP, isa.BPF_JMP32
_JUMPS = (isa.BPF_JGT, isa.BPF_JGE, isa.BPF_JLT, isa.BPF_JLE, isa.BPF_JSGT, isa.BPF_JSGE, isa.BPF_JSLT, isa.BPF_JSLE, isa.BPF_JEQ, isa.BPF_JNE,
          isa.BPF_JSET)  # fmt: skip
_LIMITS = (1, 3, 7, 8, 15, 16, 31, 63, 64, 100, VALUE_BYTES - 8, VALUE_BYTES - 1, VALUE_BYTES, 255, 512, -1, -8)


class PointerGenerator:
    """One program for each seed."""

    def __init__(self, seed: int, length: int = 14) -> None:
        self.random = Random(seed)
        self.length = length

    def make(self) -> list[Insn]:
        """Registers: r9 the value's address, r6 and r7 numbers from the input, r8 an address in the making."""
        r = self.random
        insns = [Insn(isa.LDDW, 9, isa.BPF_PSEUDO_MAP_VALUE, imm=MAP_FD)]
        for register in (0, 1, 2, 3, 4, 5, 6, 7):
            size = r.choice((isa.BPF_B, isa.BPF_H, isa.BPF_W, isa.BPF_DW))
            insns.append(Insn(isa.BPF_LDX | isa.BPF_MEM | size, register, 9, r.randrange(INPUT_BYTES // 8) * 8))
        for off in range(-64, 0, 8):
            insns.append(Insn(isa.BPF_ST | isa.BPF_MEM | isa.BPF_DW, 10, off=off, imm=off))
        insns.append(Insn(A64 | isa.BPF_MOV | isa.BPF_X, 8, 9))
        pieces = [self._piece() for _ in range(self.length)]
        for index, piece in enumerate(pieces):
            insns += self._resolved(piece, pieces, index)
        return [*insns, Insn(A64 | isa.BPF_MOV, 0), Insn(isa.EXIT)]

    def _resolved(self, piece: list[Insn], pieces: list[list[Insn]], index: int) -> list[Insn]:
        """A jump (off -1) goes over some of the following pieces."""
        if piece[-1].opcode & 7 in (J64, J32) and piece[-1].off == -1:
            skipped = pieces[index + 1 : index + 1 + self.random.randint(1, 3)]
            piece[-1].off = sum(insn.slots for part in skipped for insn in part)
        return piece

    def _piece(self) -> list[Insn]:
        kind = self.random.random()
        if kind < 0.3:
            return [self._limit()]
        if kind < 0.5:
            return self._address()
        if kind < 0.85:
            return [self._access()]
        return [self._number()]

    def _number_register(self) -> int:
        return self.random.choice((1, 2, 6, 7))

    def _limit(self) -> Insn:
        r = self.random
        register, limit = self._number_register(), r.choice(_LIMITS)
        if r.random() < 0.35:
            return Insn(r.choice((A64, A32)) | isa.BPF_AND, register, imm=limit)
        if r.random() < 0.2:
            return Insn(r.choice((J64, J32)) | r.choice(_JUMPS) | isa.BPF_X, register, self._number_register(), off=-1)
        return Insn(r.choice((J64, J32)) | r.choice(_JUMPS), register, off=-1, imm=limit)

    def _number(self) -> Insn:
        r = self.random
        op = r.choice(
            (
                isa.BPF_ADD,
                isa.BPF_SUB,
                isa.BPF_MUL,
                isa.BPF_RSH,
                isa.BPF_LSH,
                isa.BPF_ARSH,
                isa.BPF_MOD,
                isa.BPF_DIV,
                isa.BPF_XOR,
                isa.BPF_OR,
                isa.BPF_MOV,
            )
        )
        class_ = r.choice((A64, A32))
        shift = op in (isa.BPF_RSH, isa.BPF_LSH, isa.BPF_ARSH)
        if r.random() < 0.4 and not shift:
            return Insn(class_ | op | isa.BPF_X, self._number_register(), self._number_register())
        return Insn(class_ | op, self._number_register(), imm=r.randint(1, 31) if shift else r.choice(_LIMITS))

    def _address(self) -> list[Insn]:
        r = self.random
        base = 9 if r.random() < 0.6 else 10
        moved = [Insn(A64 | isa.BPF_MOV | isa.BPF_X, 8, base)]
        if base == 10:
            moved.append(Insn(A64 | isa.BPF_ADD, 8, imm=-r.choice((8, 16, 32, 64))))
        op = isa.BPF_ADD if r.random() < 0.85 else isa.BPF_SUB
        return [*moved, Insn(A64 | op | isa.BPF_X, 8, self._number_register())]

    def _access(self) -> Insn:
        r = self.random
        size = r.choice((isa.BPF_B, isa.BPF_H, isa.BPF_W, isa.BPF_DW))
        off = r.choice((0, 0, 0, 8, 16, -8, 100, VALUE_BYTES - 8))
        kind = r.random()
        if kind < 0.5:
            return Insn(isa.BPF_LDX | isa.BPF_MEM | size, self._number_register(), 8, off)
        if kind < 0.8:
            return Insn(isa.BPF_STX | isa.BPF_MEM | size, 8, self._number_register(), off)
        return Insn(isa.BPF_ST | isa.BPF_MEM | size, 8, off=off, imm=r.choice(_LIMITS))


def spoil(insns: list[Insn], seed: int) -> list[Insn]:
    """Change one to three fields of a program, so that each instruction still is one."""
    random = Random(seed)
    spoilt = [Insn(i.opcode, i.dst, i.src, i.off, i.imm) for i in insns]
    for _ in range(random.randint(1, 3)):
        index = random.randrange(1, len(spoilt))
        insn = spoilt[index]
        before = Insn(insn.opcode, insn.dst, insn.src, insn.off, insn.imm)
        field = random.choice(("dst", "src", "off", "imm", "opcode"))
        value = {
            "dst": random.randrange(11), "src": random.randrange(11), "off": random.choice((0, 1, 2, -1, 8, -8, -512, 104, insn.off + 1)),
            "imm": random.choice((0, 1, -1, 8, 64, insn.imm + 1)), "opcode": random.choice(_PLAIN_OPCODES),
        }  # fmt: skip
        setattr(insn, field, value[field])
        if get_op(insn) is None or insn.opcode == isa.LDDW:
            spoilt[index] = before
    return spoilt


_PLAIN_OPCODES = sorted(
    {
        op.opcode
        for op in iter_ops()
        if op.opcode & 7 != 0 and op.name not in ("gotox", "callx", "call", "callsub", "kfunc")
    }
)


def make_program(seed: int) -> list[Insn]:
    """A program about addresses, or a spoilt one about numbers, or a spoilt one about addresses."""
    kind = seed % 4
    if kind < 2:
        return PointerGenerator(seed, 6 + seed % 20).make()
    if kind == 2:
        return spoil(ProgramGenerator(seed, 10 + seed % 30).make(), seed)
    return spoil(PointerGenerator(seed, 6 + seed % 20).make(), seed)

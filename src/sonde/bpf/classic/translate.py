"""Classic BPF to eBPF, for programs of type socket_filter: A in r0, X in r7, the context in r6, M[k] on the stack.

As the kernel does it when a classic filter is attached. What ends a classic filter with 0 (a load outside the packet, a division by zero) ends the eBPF program
with 0, too. Ancillary data come from the fields of struct __sk_buff where it has them.
"""

from __future__ import annotations

from ...errors import FeatureError
from .. import isa
from ..isa import Insn
from .code import (
    ABS,
    AD_OFF,
    ALU,
    ANCILLARY,
    ANCILLARY_STEP,
    IND,
    JMP,
    LD,
    LDX,
    LEN,
    MEM,
    MISC,
    MSH,
    RET,
    SCRATCH,
    ST,
    STX,
    TXA,
    A,
    Filter,
    X,
    signed,
)  # fmt: skip
from .rules import check

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

_A, _CTX, _X, _TMP = 0, 6, 7, 8
_LEN_FIELD = 0
# Offsets in struct __sk_buff, whose fields have 4 bytes.
_FIELDS = {
    "protocol": 16,
    "pkttype": 4,
    "ifindex": 40,
    "mark": 8,
    "queue": 12,
    "rxhash": 68,
    "vlan_tag": 24,
    "vlan_tag_present": 20,
    "vlan_tpid": 28,
}
_BIG_ENDIAN = ("protocol", "vlan_tpid")  # kept in network order there; classic filters see the number
_HELPERS = {"cpu": 8, "random": 7}
_JUMPS = {0x10: isa.BPF_JEQ, 0x20: isa.BPF_JGT, 0x30: isa.BPF_JGE, 0x40: isa.BPF_JSET}
_TURNED = {isa.BPF_JEQ: isa.BPF_JNE, isa.BPF_JGT: isa.BPF_JLE, isa.BPF_JGE: isa.BPF_JLT}


def to_ebpf(program: Sequence[Filter]) -> list[Insn]:
    """Return the eBPF instructions of a packet filter. Raises FormatError for a wrong filter, FeatureError for data that eBPF cannot have."""
    check(program)
    starts: list[int] = []
    parts: list[list[Insn]] = []
    at = 3
    reached = _reached(program)
    for number, insn in enumerate(program):
        starts.append(at)
        made = _plain(insn) if insn.code & 7 != JMP else [Insn(0)] * _jump_size(insn)
        if not reached[number]:
            made = []
        parts.append(made)
        at += len(made)
    for number, insn in enumerate(program):
        if insn.code & 7 == JMP and reached[number]:
            parts[number] = _jump(number, insn, starts)
    prologue = [_mov(_CTX, 1), _imm(isa.BPF_MOV, _A, 0), _imm(isa.BPF_MOV, _X, 0)]
    return [*prologue, *(insn for part in parts for insn in part)]


def _reached(program: Sequence[Filter]) -> list[bool]:
    """Which instructions some way leads to; eBPF's verifiers take no others. Jumps go forward, so one pass does it."""
    reached = [False] * (len(program) + 1)
    reached[0] = True
    for number, insn in enumerate(program):
        if not reached[number] or insn.code & 7 == RET:
            continue
        distances = [0] if insn.code & 7 != JMP else [insn.jt, insn.jf] if insn.code & 0xF0 else [insn.k]
        for distance in distances:
            reached[number + 1 + distance] = True
    return reached


def _mov(dst: int, src: int) -> Insn:
    return Insn(isa.BPF_ALU64 | isa.BPF_MOV | isa.BPF_X, dst, src)


def _mov32(dst: int, src: int) -> Insn:
    return Insn(isa.BPF_ALU | isa.BPF_MOV | isa.BPF_X, dst, src)


def _imm(op: int, dst: int, value: int) -> Insn:
    return Insn(isa.BPF_ALU | op, dst, imm=signed(value))


_EXIT = Insn(isa.EXIT)


# Jumps ------------------------------------------------------------------------------------------------------------


def _jump_size(insn: Filter) -> int:
    """Conditions take one instruction when one way goes on, else two."""
    if not insn.code & 0xF0 or insn.jt == insn.jf:
        return 1
    if insn.jf == 0:
        return 1
    return 1 if insn.jt == 0 and insn.code & 0xF0 != 0x40 else 2


def _jump(number: int, insn: Filter, starts: list[int]) -> list[Insn]:
    here = starts[number]
    op = insn.code & 0xF0
    if not op or insn.jt == insn.jf:
        distance = insn.k if not op else insn.jt
        return [Insn(isa.GOTOL, imm=starts[number + 1 + distance] - here - 1)]
    condition = _JUMPS[op]
    yes, no = starts[number + 1 + insn.jt], starts[number + 1 + insn.jf]
    if insn.jf == 0:
        return [_conditional(condition, insn, yes - here - 1)]
    if insn.jt == 0 and condition in _TURNED:
        return [_conditional(_TURNED[condition], insn, no - here - 1)]
    return [_conditional(condition, insn, yes - here - 1), Insn(isa.GOTOL, imm=no - here - 2)]


def _conditional(condition: int, insn: Filter, off: int) -> Insn:
    if insn.code & X:
        return Insn(isa.BPF_JMP32 | condition | isa.BPF_X, _A, _X, off)
    return Insn(isa.BPF_JMP32 | condition, _A, 0, off, signed(insn.k))


# The others -------------------------------------------------------------------------------------------------------


def _plain(insn: Filter) -> list[Insn]:
    class_, code = insn.code & 7, insn.code
    if class_ == LD:
        return _load(insn)
    if class_ == LDX:
        return _load_x(insn)
    if class_ in (ST, STX):
        return [Insn(isa.BPF_STX | isa.BPF_MEM | isa.BPF_W, 10, _A if class_ == ST else _X, _place(insn.k))]
    if class_ == ALU:
        return _arithmetic(insn)
    if class_ == RET:
        source = code & 0x18
        if source == A:
            return [_EXIT]
        return [_mov32(_A, _X) if source == X else _imm(isa.BPF_MOV, _A, insn.k), _EXIT]
    assert class_ == MISC
    return [_mov32(_A, _X) if code & TXA else _mov32(_X, _A)]


def _place(k: int) -> int:
    return -4 * (SCRATCH - k)


def _load(insn: Filter) -> list[Insn]:
    mode = insn.code & 0xE0
    if mode == MEM:
        return [Insn(isa.BPF_LDX | isa.BPF_MEM | isa.BPF_W, _A, 10, _place(insn.k))]
    if mode == LEN:
        return [Insn(isa.BPF_LDX | isa.BPF_MEM | isa.BPF_W, _A, _CTX, _LEN_FIELD)]
    if mode == IND:
        return [Insn(isa.BPF_LD | isa.BPF_IND | insn.code & 0x18, 0, _X, imm=signed(insn.k))]
    if mode == ABS:
        offset = signed(insn.k)
        if AD_OFF <= offset < 0:
            return _ancillary(offset)
        return [Insn(isa.BPF_LD | isa.BPF_ABS | insn.code & 0x18, imm=offset)]
    return [_imm(isa.BPF_MOV, _A, insn.k)]


def _ancillary(offset: int) -> list[Insn]:
    index, rest = divmod(offset - AD_OFF, ANCILLARY_STEP)
    name = ANCILLARY[index] if not rest and index < len(ANCILLARY) else ""
    if name in _FIELDS:
        load = [Insn(isa.BPF_LDX | isa.BPF_MEM | isa.BPF_W, _A, _CTX, _FIELDS[name])]
        return [*load, Insn(isa.BPF_ALU | isa.BPF_END | isa.BPF_TO_BE, _A, imm=16)] if name in _BIG_ENDIAN else load
    if name == "alu_xor_x":
        return [Insn(isa.BPF_ALU | isa.BPF_XOR | isa.BPF_X, _A, _X)]
    if name in _HELPERS:
        return [Insn(isa.CALL, imm=_HELPERS[name])]
    raise FeatureError(f"eBPF has no {name or f'ancillary data at {offset}'}", feature=f"ancillary:{name}")


def _load_x(insn: Filter) -> list[Insn]:
    mode = insn.code & 0xE0
    if mode == MEM:
        return [Insn(isa.BPF_LDX | isa.BPF_MEM | isa.BPF_W, _X, 10, _place(insn.k))]
    if mode == LEN:
        return [Insn(isa.BPF_LDX | isa.BPF_MEM | isa.BPF_W, _X, _CTX, _LEN_FIELD)]
    if mode == MSH:  # the length of an IP header: A is kept meanwhile
        return [
            _mov(_TMP, _A), Insn(isa.BPF_LD | isa.BPF_ABS | isa.BPF_B, imm=signed(insn.k)), _imm(isa.BPF_AND, _A, 0xF),
            _imm(isa.BPF_LSH, _A, 2), _mov(_X, _A), _mov(_A, _TMP),
        ]  # fmt: skip
    return [_imm(isa.BPF_MOV, _X, insn.k)]


def _arithmetic(insn: Filter) -> list[Insn]:
    op = insn.code & 0xF0
    if op == 0x80:
        return [Insn(isa.BPF_ALU | isa.BPF_NEG, _A)]
    if not insn.code & X:
        return [_imm(op, _A, insn.k)]
    made = [Insn(isa.BPF_ALU | op | isa.BPF_X, _A, _X)]
    if op in (0x30, 0x90):
        made = [Insn(isa.BPF_JMP32 | isa.BPF_JNE, _X, 0, 2), _imm(isa.BPF_MOV, _A, 0), _EXIT, *made]
    return made

"""Runs a classic filter on a packet, or on a system call as seccomp does. The filter has been checked."""

from __future__ import annotations

import sys

from ...errors import RunError
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
    LL_OFF,
    MEM,
    MISC,
    MSH,
    NET_OFF,
    RET,
    SCRATCH,
    ST,
    STX,
    TXA,
    A,
    B,
    Filter,
    H,
    W,
    X,
    find_ancillary,
    signed,
)  # fmt: skip

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    Load = Callable[[int, int], "int | None"]  # (offset, bytes) → number, None outside

_M = 0xFFFFFFFF
_ATTRIBUTE, _TYPE_MASK = 4, 0x3FFF  # bytes of struct nlattr, and what of its type is no flag
_BYTES = {W: 4, H: 2, B: 1}


def run(
    program: Sequence[Filter],
    packet: bytes,
    *,
    length: int = -1,
    data: Mapping[str, int] | None = None,
    network: int = 0,
) -> int:
    """Return what the filter returns for `packet`: how many bytes to keep, 0 to drop it.

    `length` is the packet's length on the wire (-1: all of it is here); `data` the ancillary data by name ("cpu", "mark", "vlan_tag" …; what is not
    there is 0; netlink attributes are looked for in the packet); `network` where the network header begins.
    """

    def load(offset: int, size: int) -> int | None:
        if offset < 0:
            if AD_OFF <= offset < 0:
                return _ancillary(offset, data or {})
            offset = offset - NET_OFF + network if offset >= NET_OFF else offset - LL_OFF
        if offset < 0 or offset + size > len(packet):
            return None
        return int.from_bytes(packet[offset : offset + size], "big")

    return _run(program, load, len(packet) if length < 0 else length, packet)


def _ancillary(offset: int, data: Mapping[str, int]) -> int | None:
    index, rest = divmod(offset - AD_OFF, ANCILLARY_STEP)
    if rest or index >= len(ANCILLARY):
        return None
    return data.get(ANCILLARY[index], 0) & _M


def run_seccomp(program: Sequence[Filter], call: bytes) -> int:
    """Return what a filter of system calls returns for `call`, a struct seccomp_data (64 bytes: nr, arch, instruction pointer, arguments)."""

    def load(offset: int, size: int) -> int | None:
        return int.from_bytes(call[offset : offset + size], "little") if 0 <= offset <= len(call) - size else None

    return _run(program, load, len(call), b"")


def _own_data(insn: Filter, packet: bytes, a: int, x: int) -> int | None:
    """Ancillary data that are made of the registers and the packet: netlink attributes, and A exclusive-or X. None for other loads."""
    name = find_ancillary(insn)
    if name == "alu_xor_x":
        return a ^ x
    if name not in ("nlattr", "nlattr_nest") or len(packet) < _ATTRIBUTE or a > len(packet) - _ATTRIBUTE:
        return 0 if name.startswith("nlattr") else None
    if name == "nlattr":
        return _find_attribute(packet, a, len(packet), x)
    size = int.from_bytes(packet[a : a + 2], sys.byteorder)
    return _find_attribute(packet, a + _ATTRIBUTE, a + size, x) if size <= len(packet) - a else 0


def _find_attribute(packet: bytes, at: int, end: int, kind: int) -> int:
    """The offset of the first netlink attribute of a kind; 0 when there is none (struct nlattr: u16 length, u16 type, both in the machine's order)."""
    while end - at >= _ATTRIBUTE:
        size = int.from_bytes(packet[at : at + 2], sys.byteorder)
        if not _ATTRIBUTE <= size <= end - at:
            break
        if int.from_bytes(packet[at + 2 : at + 4], sys.byteorder) & _TYPE_MASK == kind:
            return at
        at += (size + 3) & ~3
    return 0


def _run(program: Sequence[Filter], load: Load, length: int, packet: bytes) -> int:
    a = x = pc = 0
    scratch = [0] * SCRATCH
    while pc < len(program):
        insn = program[pc]
        code, k = insn.code, insn.k & _M
        class_ = code & 7
        pc += 1
        if class_ in (LD, LDX):
            own = _own_data(insn, packet, a, x)
            value = own if own is not None else _value(code, k, x, scratch, load, length)
            if value is None:
                return 0
            a, x = (value, x) if class_ == LD else (a, value)
        elif class_ == ST:
            scratch[k] = a
        elif class_ == STX:
            scratch[k] = x
        elif class_ == ALU:
            operand = x if code & X else k
            found = _compute(code & 0xF0, a, operand)
            if found is None:
                return 0
            a = found
        elif class_ == JMP:
            pc += _distance(insn, a, x if code & X else k)
        elif class_ == RET:
            return a if code & 0x18 == A else x if code & 0x18 == X else k
        elif class_ == MISC:
            a, x = (x, x) if code & TXA else (a, a)
    raise RunError("the filter runs beyond its end", hint="check() tells filters that cannot be run")


def _value(code: int, k: int, x: int, scratch: list[int], load: Load, length: int) -> int | None:
    mode = code & 0xE0
    if mode == MEM:
        return scratch[k]
    if mode == LEN:
        return length
    if mode == MSH:
        byte = load(k, 1)
        return None if byte is None else (byte & 0xF) * 4
    if mode == ABS:
        return load(signed(k), _BYTES[code & 0x18])
    if mode == IND:
        return load(signed(x + k), _BYTES[code & 0x18])
    return k


def _compute(op: int, a: int, b: int) -> int | None:
    """Arithmetic of 32 bits; None for a division by zero, which ends the filter with 0."""
    if op in (0x30, 0x90):
        return None if b == 0 else a // b if op == 0x30 else a % b
    if op == 0x80:
        return -a & _M
    return _OPERATIONS[op](a, b) & _M


_OPERATIONS: dict[int, Callable[[int, int], int]] = {
    0x00: lambda a, b: a + b,
    0x10: lambda a, b: a - b,
    0x20: lambda a, b: a * b,
    0x40: lambda a, b: a | b,
    0x50: lambda a, b: a & b,
    0x60: lambda a, b: a << (b & 31),
    0x70: lambda a, b: a >> (b & 31),
    0xA0: lambda a, b: a ^ b,
}
_COMPARE: dict[int, Callable[[int, int], bool]] = {
    0x10: lambda a, b: a == b,
    0x20: lambda a, b: a > b,
    0x30: lambda a, b: a >= b,
    0x40: lambda a, b: bool(a & b),
}


def _distance(insn: Filter, a: int, b: int) -> int:
    op = insn.code & 0xF0
    if not op:
        return insn.k
    return insn.jt if _COMPARE[op](a, b) else insn.jf

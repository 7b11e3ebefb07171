"""Call frame programs: the instructions of DWARF that tell where a function's caller is become rows of an unwind table.

    state, _ = run(common_program, factors, BEGIN, BEGIN)
    _, rows = run(program, factors, state, state)        (offset in the function, entry)

An entry is 64 bits that a few instructions of machine code can follow:

    0   s32  offset                          56  4 bits  CFA: where the caller's stack begins (STOP, SP …)
    32  s16  offset of the frame pointer     60  4 bits  the frame pointer (SAME, AT_CFA …)
    48  u8   PLT: from which byte of an entry on one word more is pushed; DEREF_…: what is added

The return address is the word below the CFA. Rules that compilers do not make, or that need other registers, become STOP. Source: DWARF 5, chapter 6.4.2.
"""

from __future__ import annotations

from ..record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

# Where the caller's stack begins: nobody knows; a register plus the offset; the word there plus what is added; where the kernel has put the registers of what a signal has
# interrupted; like SP in an entry of a procedure linkage table, which pushes one word; nowhere, as nothing has called this.
STOP, SP, FP, DEREF_SP, DEREF_FP, SIGNAL, PLT, END = range(8)
# The caller's frame pointer: as it is; in the word at the CFA, or at our frame pointer, plus its offset; lost.
SAME, AT_CFA, AT_FP, LOST = range(4)
CFA_SHIFT, FP_SHIFT, FP_OFFSET_SHIFT, ADD_SHIFT = 56, 60, 32, 48
# What a signal has interrupted, from the stack pointer that its handler returns with (struct rt_sigframe, x86-64).
SIGNAL_SP, SIGNAL_FP, SIGNAL_PC = 160, 120, 168
STOP_ENTRY = STOP << CFA_SHIFT

_FP, _SP, PC = 6, 7, 16  # the numbers of x86-64's registers in DWARF
_LOST = LOST << FP_SHIFT
_SIGNAL_FP = -1  # the frame pointer of what a signal has interrupted
_BELOW_CFA, _NOTHING_ABOVE, _ELSEWHERE, _IN_SIGNAL = range(4)  # where the return address is
_BREG_FP, _BREG_SP = 0x76, 0x77
_PLT_ENDS = b"\x80\x00\x3f\x1a", b"\x2a\x33\x24\x22"  # bregX 0, lit15, and · ge, lit3, shl, plus
_DEREF, _PLUS, _LIT0, _LIT31 = b"\x06", b"\x23", 0x30, 0x4F


class Rules(Record):
    """What holds at one address."""

    register: int  # that the CFA is counted from; -1: an expression
    offset: int
    expression: int  # its part of an entry
    fp: int  # likewise
    pc: int


BEGIN = Rules(-1, 0, STOP_ENTRY, SAME << FP_SHIFT, _BELOW_CFA)


class Factors(Record):
    """What the numbers of a program are multiplied with."""

    code: int
    data: int


def read_uleb(data: bytes, at: int) -> tuple[int, int]:
    """Return an unsigned LEB128 number and where it ends. Raises IndexError where there is none."""
    value = 0
    for shift in range(0, 70, 7):
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
    raise IndexError


def read_sleb(data: bytes, at: int) -> tuple[int, int]:
    """Return a signed LEB128 number and where it ends. Raises IndexError where there is none."""
    value, end = read_uleb(data, at)
    bits = 7 * (end - at)
    return value - (value >> bits - 1 << bits), end


def run(program: bytes, factors: Factors, rules: Rules, initial: Rules) -> tuple[Rules, list[tuple[int, int]]]:
    """Run a program; return the rules at its end, and its rows: offset, entry. What comes behind an instruction that nobody knows is STOP."""
    rows: list[tuple[int, int]] = []
    machine = _Machine(rules, initial, factors.data)
    here = at = 0
    try:
        while at < len(program):
            code = program[at]
            at += 1
            high = code & 0xC0
            if high == 0x40 or 2 <= code <= 4:
                step = code & 63
                if high == 0:
                    width = 1 << code - 2
                    step = int.from_bytes(program[at : at + width], "little")
                    at += width
                rows.append((here, machine.entry()))
                here += step * factors.code
            elif high == 0x80:
                value, at = read_uleb(program, at)
                machine.save(code & 63, value * factors.data)
            elif high == 0xC0:
                machine.restore(code & 63)
            elif code:
                at = _STEPS[code](machine, program, at)
    except (IndexError, KeyError):
        return machine.rules(), [*rows, (here, STOP_ENTRY)]
    rows.append((here, machine.entry()))
    return machine.rules(), rows


class _Machine:
    """The rules while a program runs."""

    __slots__ = ("_entries", "_initial", "_kept", "expression", "factor", "fp", "offset", "pc", "register")

    def __init__(self, rules: Rules, initial: Rules, factor: int) -> None:
        self.factor = factor
        self._initial = initial
        self._kept: list[Rules] = []
        self._set(rules)

    def _set(self, rules: Rules) -> None:
        self.register, self.offset, self.expression = rules.register, rules.offset, rules.expression
        self.fp, self.pc = rules.fp, rules.pc

    def rules(self) -> Rules:
        """What holds now."""
        return Rules(self.register, self.offset, self.expression, self.fp, self.pc)

    def remember(self) -> None:
        """Keep the rules for `recall`."""
        self._kept.append(self.rules())

    def recall(self) -> None:
        """Take back the rules that were kept last. Raises IndexError where there are none."""
        self._set(self._kept.pop())

    def save(self, register: int, offset: int) -> None:
        """A register's value in the caller is in the word at the CFA plus an offset."""
        if register == _FP:
            fits = -(1 << 15) <= offset < 1 << 15
            self.fp = AT_CFA << FP_SHIFT | (offset & 0xFFFF) << FP_OFFSET_SHIFT if fits else _LOST
        else:
            self.lose(register, _BELOW_CFA if offset == -8 else _ELSEWHERE)

    def lose(self, register: int, pc: int = _ELSEWHERE) -> None:
        """A register's value is where nobody looks for it; `pc`: unless it is the return address, which is there."""
        if register == _FP:
            self.fp = _LOST
        elif register == PC:
            self.pc = pc
        elif register == _SP:
            self.pc = _ELSEWHERE

    def restore(self, register: int) -> None:
        """A register is where it was at the function's beginning."""
        if register == _FP:
            self.fp = self._initial.fp
        elif register == PC:
            self.pc = self._initial.pc

    def compute(self, register: int, expression: bytes) -> None:
        """A register's value is in the word whose address an expression computes."""
        base, offset, rest = _read_base(expression)
        if register == _FP and base == _BREG_FP and not rest and -(1 << 15) <= offset < 1 << 15:
            self.fp = AT_FP << FP_SHIFT | (offset & 0xFFFF) << FP_OFFSET_SHIFT
        elif register == _FP and (base, offset, rest) == (_BREG_SP, SIGNAL_FP, b""):
            self.fp = _SIGNAL_FP
        elif register == PC and (base, offset, rest) == (_BREG_SP, SIGNAL_PC, b""):
            self.pc = _IN_SIGNAL
        elif (register, base, offset, rest) != (_SP, _BREG_SP, SIGNAL_SP, b""):
            self.lose(register)

    def entry(self) -> int:
        """The entry of an unwind table for what holds now."""
        if self.pc == _NOTHING_ABOVE:
            return END << CFA_SHIFT
        if self.pc == _IN_SIGNAL:
            found = (self.expression, self.fp) == (DEREF_SP << CFA_SHIFT | SIGNAL_SP, _SIGNAL_FP) and self.register < 0
            return SIGNAL << CFA_SHIFT if found else STOP_ENTRY
        if self.register < 0:
            cfa = self.expression
        elif self.register in (_SP, _FP) and -(1 << 31) <= self.offset < 1 << 31:
            cfa = (SP if self.register == _SP else FP) << CFA_SHIFT | self.offset & 0xFFFFFFFF
        else:
            return STOP_ENTRY
        if self.pc == _ELSEWHERE or cfa == STOP_ENTRY:
            return STOP_ENTRY
        return cfa | (_LOST if self.fp == _SIGNAL_FP else self.fp)


def _read_base(expression: bytes) -> tuple[int, int, bytes]:
    """Take an expression apart: the instruction that it begins with, its offset, the rest. The instruction is 0 where it takes no offset from a register."""
    if not expression or expression[0] not in (_BREG_FP, _BREG_SP):
        return 0, 0, expression
    offset, at = read_sleb(expression, 1)
    return expression[0], offset, expression[at:]


def _entry_of(expression: bytes) -> int:
    """The CFA's part of an entry, where an expression computes it."""
    base, offset, rest = _read_base(expression)
    if not base or not -(1 << 31) <= offset < 1 << 31:
        return STOP_ENTRY
    bits = offset & 0xFFFFFFFF
    if base == _BREG_SP and len(rest) == 9 and (rest[:4], rest[5:]) == _PLT_ENDS and _LIT0 <= rest[4] <= _LIT31:
        return PLT << CFA_SHIFT | (rest[4] - _LIT0) << ADD_SHIFT | bits
    if rest[:1] != _DEREF:
        return STOP_ENTRY
    add, end = read_uleb(rest, 2) if rest[1:2] == _PLUS else (0, 1)
    if end != len(rest) or add > 255:
        return STOP_ENTRY
    return (DEREF_SP if base == _BREG_SP else DEREF_FP) << CFA_SHIFT | add << ADD_SHIFT | bits


# The instructions that take a byte of their own: each returns where the next one is --------------------------------


def _def_cfa(m: _Machine, program: bytes, at: int) -> int:
    m.register, at = read_uleb(program, at)
    m.offset, at = read_uleb(program, at)
    return at


def _def_cfa_sf(m: _Machine, program: bytes, at: int) -> int:
    m.register, at = read_uleb(program, at)
    value, at = read_sleb(program, at)
    m.offset = value * m.factor
    return at


def _def_cfa_register(m: _Machine, program: bytes, at: int) -> int:
    m.register, at = read_uleb(program, at)
    return at


def _def_cfa_offset(m: _Machine, program: bytes, at: int) -> int:
    m.offset, at = read_uleb(program, at)
    return at


def _def_cfa_offset_sf(m: _Machine, program: bytes, at: int) -> int:
    value, at = read_sleb(program, at)
    m.offset = value * m.factor
    return at


def _block(program: bytes, at: int) -> tuple[bytes, int]:
    size, at = read_uleb(program, at)
    if at + size > len(program):
        raise IndexError
    return program[at : at + size], at + size


def _def_cfa_expression(m: _Machine, program: bytes, at: int) -> int:
    expression, at = _block(program, at)
    m.register, m.expression = -1, _entry_of(expression)
    return at


def _expression(m: _Machine, program: bytes, at: int) -> int:
    register, at = read_uleb(program, at)
    expression, at = _block(program, at)
    m.compute(register, expression)
    return at


def _val_expression(m: _Machine, program: bytes, at: int) -> int:
    register, at = read_uleb(program, at)
    m.lose(register)
    return _block(program, at)[1]


def _offset_extended(m: _Machine, program: bytes, at: int) -> int:
    register, at = read_uleb(program, at)
    value, at = read_uleb(program, at)
    m.save(register, value * m.factor)
    return at


def _offset_extended_sf(m: _Machine, program: bytes, at: int) -> int:
    register, at = read_uleb(program, at)
    value, at = read_sleb(program, at)
    m.save(register, value * m.factor)
    return at


def _restore_extended(m: _Machine, program: bytes, at: int) -> int:
    register, at = read_uleb(program, at)
    m.restore(register)
    return at


def _undefined(m: _Machine, program: bytes, at: int) -> int:
    register, at = read_uleb(program, at)
    m.lose(register, _NOTHING_ABOVE)
    return at


def _same_value(m: _Machine, program: bytes, at: int) -> int:
    register, at = read_uleb(program, at)
    if register == _FP:
        m.fp = SAME << FP_SHIFT
    else:
        m.lose(register)
    return at


def _elsewhere(m: _Machine, program: bytes, at: int) -> int:
    """In another register, or a number that is counted from the CFA."""
    register, at = read_uleb(program, at)
    m.lose(register)
    return read_uleb(program, at)[1]


def _remember(m: _Machine, program: bytes, at: int) -> int:
    m.remember()
    return at


def _recall(m: _Machine, program: bytes, at: int) -> int:
    m.recall()
    return at


# By the numbers of DWARF: DW_CFA_offset_extended 0x05 … val_expression 0x16, GNU_args_size 0x2e.
_STEPS: dict[int, Callable[[_Machine, bytes, int], int]] = {
    0x05: _offset_extended,
    0x06: _restore_extended,
    0x07: _undefined,
    0x08: _same_value,
    0x09: _elsewhere,
    0x0A: _remember,
    0x0B: _recall,
    0x0C: _def_cfa,
    0x0D: _def_cfa_register,
    0x0E: _def_cfa_offset,
    0x0F: _def_cfa_expression,
    0x10: _expression,
    0x11: _offset_extended_sf,
    0x12: _def_cfa_sf,
    0x13: _def_cfa_offset_sf,
    0x14: _elsewhere,
    0x15: _elsewhere,
    0x16: _val_expression,
    0x2E: lambda m, program, at: read_uleb(program, at)[1],
}

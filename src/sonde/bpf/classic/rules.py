"""Is a classic filter one that the kernel takes? The rules of sk_chk_filter, and the narrower ones of seccomp."""

from __future__ import annotations

from ...errors import FormatError
from .code import (
    ABS,
    ALU,
    JMP,
    LD,
    LDX,
    LEN,
    MAX_INSNS,
    MEM,
    MISC,
    OPERATIONS,
    RET,
    SCRATCH,
    ST,
    STX,
    Filter,
    W,
    X,
    find_ancillary,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

SECCOMP_DATA_BYTES = 64


def check(program: Sequence[Filter]) -> None:
    """Check a packet filter. Raises FormatError, naming the instruction."""
    if not 0 < len(program) <= MAX_INSNS:
        raise FormatError(f"a filter has 1 to {MAX_INSNS} instructions, not {len(program)}")
    for number, insn in enumerate(program):
        _check_insn(number, insn, len(program))
    if program[-1].code & 7 != RET:
        raise FormatError(f"instruction {len(program) - 1}: the last one must be a ret")
    _check_scratch(program)


def _check_insn(number: int, insn: Filter, count: int) -> None:
    if insn.code not in OPERATIONS or insn.code == RET | X:  # which has a text, and no kernel
        raise _wrong(number, f"unknown code {insn.code:#x}")
    if find_ancillary(insn) == "?":
        raise _wrong(number, f"there is no ancillary data at {insn.k:#x}")
    class_, op = insn.code & 7, insn.code & 0xF0
    if class_ == ALU and not insn.code & 8:
        if op in (0x30, 0x90) and insn.k == 0:
            raise _wrong(number, "a division by the constant 0")
        if op in (0x60, 0x70) and insn.k >= 32:
            raise _wrong(number, f"a shift by {insn.k}, of a number of 32 bits")
    if insn.code in (LD | MEM, LDX | MEM, ST, STX) and insn.k >= SCRATCH:
        raise _wrong(number, f"there is no M[{insn.k}]: they are M[0] to M[{SCRATCH - 1}]")
    if class_ == JMP:
        far = insn.k if not op else max(insn.jt, insn.jf)
        if number + 1 + far >= count:
            raise _wrong(number, f"a jump to {number + 1 + far}, beyond the end of the filter")


def _wrong(number: int, message: str) -> FormatError:
    return FormatError(f"instruction {number}: {message}", offset=number * 8)


def _check_scratch(program: Sequence[Filter]) -> None:
    """No M[k] may be read that was not written on every way there. Jumps go forward, so one pass does it. Like the kernel's, it goes on behind a ret."""
    every = (1 << SCRATCH) - 1
    written = [every] * len(program)
    valid = 0
    for number, insn in enumerate(program):
        valid &= written[number]
        if insn.code in (ST, STX):
            valid |= 1 << insn.k
        elif insn.code in (LD | MEM, LDX | MEM):
            if not valid >> insn.k & 1:
                raise _wrong(number, f"M[{insn.k}] is read, but not written on every way there")
        elif insn.code & 7 == JMP:
            targets = [insn.k] if not insn.code & 0xF0 else [insn.jt, insn.jf]
            for distance in targets:
                written[number + 1 + distance] &= valid
            valid = every


_SECCOMP = frozenset(
    code
    for code in OPERATIONS
    if (code & 7 in (ALU, JMP, RET, MISC, ST, STX) and code & 0xF7 != ALU | 0x90)  # all but mod
    or code in (LD | W | ABS, LD | W | LEN, LDX | W | LEN, LD, LDX, LD | MEM, LDX | MEM)
)


def check_seccomp(program: Sequence[Filter]) -> None:
    """Check a filter of system calls: it may load whole words of struct seccomp_data, and nothing else. Raises FormatError."""
    check(program)
    for number, insn in enumerate(program):
        if insn.code not in _SECCOMP:
            name = OPERATIONS[insn.code][0]
            raise _wrong(number, f"seccomp has no {name} of this form")
        if insn.code == LD | W | ABS and (insn.k % 4 or insn.k >= SECCOMP_DATA_BYTES):
            raise _wrong(
                number, f"struct seccomp_data has no word at {insn.k}: they are at 0, 4 … {SECCOMP_DATA_BYTES - 4}"
            )

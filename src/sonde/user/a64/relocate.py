"""One aarch64 instruction to code that does the same at another address, and then goes on behind the original.

    adr, adrp         the same address by adr, by adrp and add, or 4 GiB away by a load from behind the code
    literal loads     another offset; out of reach, the address is made first: in the register itself, or for a vector register in x16,
                      which is saved on the stack
    b.cond, cbz, tbz  over two jumps, which reach further
    bl, blr           the original's return address goes into x30, then a jump: callees, unwinders and exceptions see the caller's own address

A jump reaches 128 MiB. The trampoline is that near to the probe, and everything that the probe's function jumps to should be; what is
not is refused, for there is no register that code in the middle of a function can do without.
"""

from __future__ import annotations

from ...errors import ProbeError
from ..relocated import Relocated
from .decode import ENDS, FIXED, WORD_BYTES, Instruction, decode, offset_field

JUMP_REACH_BYTES = 1 << 27
_ADR_REACH_BYTES = _LITERAL_REACH_BYTES = _ADRP_REACH_PAGES = 1 << 20
_LINK, _SCRATCH, _ZERO = 30, 16, 31

_GO_ON_ELSEWHERE = ENDS | {"branch", "call", "indirect_call"}

_B, _NOP = 0x14000000, 0xD503201F
_ADR, _ADRP, _ADD, _LDR_LITERAL = 0x10000000, 0x90000000, 0x91000000, 0x58000000
_PUSH_X16, _POP_X16 = 0xF81F0FF0, 0xF84107F0  # str x16, [sp, #-16]!; ldr x16, [sp], #16
# Loads from a register by opc and V of the literal load. prfm (opc 3) only advises.
_LOADS = {
    (0, 0): 0xB9400000,
    (1, 0): 0xF9400000,
    (2, 0): 0xB9800000,
    (0, 1): 0xBD400000,
    (1, 1): 0xFD400000,
    (2, 1): 0x3DC00000,
}


def unmovable(instruction: Instruction) -> str:
    """Return why an instruction has to stay where it is; "" when it can be moved."""
    if instruction.kind in FIXED:
        return "an instruction that reports its own address, or does not exist, is not moved"
    if instruction.kind == "indirect_call" and instruction.word >> 5 & 31 == _LINK:
        return "a call through x30 is not moved"
    if instruction.kind == "indirect_call" and instruction.word & 0x800 and instruction.word & 31 == _LINK:
        return "a call that x30 signs is not moved"
    return ""


def relocate(code: bytes, old: int, new: int) -> Relocated:
    """Return the instruction `code` (4 bytes), which is at address `old`, for address `new`.

    Raises ProbeError for what `plan_window` would not have chosen, and where something is out of reach.
    """
    if len(code) != WORD_BYTES or (old | new) % WORD_BYTES:
        raise ProbeError(
            f"cannot move {len(code)} bytes from {old:#x} to {new:#x}: instructions have 4 bytes, and addresses of theirs divide by 4"
        )
    instruction = decode(code)
    reason = unmovable(instruction)
    if reason:
        raise ProbeError(f"cannot move the instruction at {old:#x}: {reason}")
    writer = _Writer(old, new)
    _FORMS.get(instruction.kind, _write_plain)(writer, instruction)
    if instruction.kind not in _GO_ON_ELSEWHERE:
        writer.state(old + WORD_BYTES)
        writer.jump(old + WORD_BYTES)
    return writer.finish()


class _Writer:
    """Code for one address under construction."""

    __slots__ = ("literals", "new", "old", "returns", "words")

    def __init__(self, old: int, new: int) -> None:
        self.old, self.new = old, new
        self.words: list[int] = []
        self.literals: list[tuple[int, int]] = []  # index of a load, address to put behind the code
        self.returns: dict[int, int] = {0: old}

    def state(self, address: int) -> None:
        """Note that what comes next stands for `address`."""
        self.returns[WORD_BYTES * len(self.words)] = address

    def put(self, word: int) -> None:
        self.words.append(word)

    def load_address(self, register: int, address: int) -> None:
        """Write what puts an address into a register: adr; adrp and add; or a load from behind the code."""
        offset, pages = address - self.here(), (address >> 12) - (self.here() >> 12)
        if -_ADR_REACH_BYTES <= offset < _ADR_REACH_BYTES:
            self.put(_ADR | register | _address_bits(offset))
        elif -_ADRP_REACH_PAGES <= pages < _ADRP_REACH_PAGES:
            self.put(_ADRP | register | _address_bits(pages))
            if address & 0xFFF:
                self.put(_ADD | (address & 0xFFF) << 10 | register << 5 | register)
        else:
            self.literals.append((len(self.words), address))
            self.put(_LDR_LITERAL | register)

    def jump(self, target: int) -> None:
        offset = target - self.here()
        if not -JUMP_REACH_BYTES <= offset < JUMP_REACH_BYTES:
            raise ProbeError(
                f"cannot move the instruction at {self.old:#x} to {self.new:#x}: a jump to {target:#x} does not reach so far"
            )
        self.put(_B | offset // WORD_BYTES & 0x3FFFFFF)

    def here(self) -> int:
        """The address of the next word."""
        return self.new + WORD_BYTES * len(self.words)

    def finish(self) -> Relocated:
        words = self.words
        if self.literals and self.here() % 8:
            words.append(_NOP)
        code = bytearray()
        for number, (index, address) in enumerate(self.literals):
            words[index] |= (len(words) + 2 * number - index) << 5
            code += address.to_bytes(8, "little")
        text = b"".join(word.to_bytes(WORD_BYTES, "little") for word in words)
        return Relocated(text + bytes(code), ((0, 0),), tuple(self.returns.items()))


# One function for each form: writer, instruction ------------------------------------------------------------------------


def _address_bits(value: int) -> int:
    """The operand of adr or adrp, two bits of which stand apart."""
    return (value & 3) << 29 | (value >> 2 & 0x7FFFF) << 5


def _write_plain(writer: _Writer, instruction: Instruction) -> None:
    writer.put(instruction.word)


def _write_nothing(writer: _Writer, instruction: Instruction) -> None:
    """Leave out what does nothing."""


def _write_landing(writer: _Writer, instruction: Instruction) -> None:
    """Leave out bti, to which nothing jumps here; paciasp does more."""
    if instruction.word & 0xFFFFFF3F != 0xD503241F:
        writer.put(instruction.word)


def _write_address(writer: _Writer, instruction: Instruction) -> None:
    origin = writer.old & -4096 if instruction.kind == "adrp" else writer.old
    if instruction.word & 31 != _ZERO:
        writer.load_address(instruction.word & 31, origin + instruction.target)


def _write_literal(writer: _Writer, instruction: Instruction) -> None:
    word, register = instruction.word, instruction.word & 31
    size, vector = word >> 30, word >> 26 & 1
    target = writer.old + instruction.target
    offset = target - writer.here()
    if -_LITERAL_REACH_BYTES <= offset < _LITERAL_REACH_BYTES:
        writer.put(word & 0xFF00001F | (offset // WORD_BYTES & 0x7FFFF) << 5)
    elif (size, vector) not in _LOADS:  # prfm
        return
    elif vector:
        writer.put(_PUSH_X16)
        writer.load_address(_SCRATCH, target)
        writer.put(_LOADS[size, vector] | _SCRATCH << 5 | register)
        writer.put(_POP_X16)
    elif register != _ZERO:
        writer.load_address(register, target)
        writer.put(_LOADS[size, vector] | register << 5 | register)


def _write_jump(writer: _Writer, instruction: Instruction) -> None:
    writer.jump(writer.old + instruction.target)


def _write_branch(writer: _Writer, instruction: Instruction) -> None:
    """Branch over the jump of those that go on."""
    first, bits = offset_field(instruction.word)
    field = ((1 << bits) - 1) << first
    writer.put(instruction.word & ~field | 2 << first)
    writer.state(writer.old + WORD_BYTES)
    writer.jump(writer.old + WORD_BYTES)
    writer.state(writer.old + instruction.target)
    writer.jump(writer.old + instruction.target)


def _write_call(writer: _Writer, instruction: Instruction) -> None:
    target = writer.old + instruction.target
    writer.load_address(_LINK, writer.old + WORD_BYTES)
    writer.state(target)
    writer.jump(target)


def _write_indirect_call(writer: _Writer, instruction: Instruction) -> None:
    writer.load_address(_LINK, writer.old + WORD_BYTES)
    writer.put(instruction.word & ~(1 << 21))  # blr to br, blraa to braa


# What is not here is copied.
_FORMS = {
    "nop": _write_nothing,
    "landing": _write_landing,
    "adr": _write_address,
    "adrp": _write_address,
    "literal": _write_literal,
    "jump": _write_jump,
    "branch": _write_branch,
    "call": _write_call,
    "indirect_call": _write_indirect_call,
}

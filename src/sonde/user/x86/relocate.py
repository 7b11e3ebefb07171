"""The instructions of a window to the same instructions for another address.

What names an address relative to itself is rewritten; everything else is copied. The result does what the original does, to every
register, flag and byte of the stack:

    disp(%rip)      new displacement; beyond 2 GiB the address goes into a register that is saved around the instruction
    jmp, jcc        with 4 bytes; beyond 2 GiB through an address behind the code
    loop, jrcxz     over a jump
    call            return address pushed from behind the code, then a jump: callees, unwinders and exceptions see the caller's own address
    into the window to the moved instruction; to the window's first one: back to the probe, which counts again

Then a jump leads back behind the window, where the last instruction can go on.
"""

from __future__ import annotations

from ...errors import ProbeError
from ..relocated import Relocated
from .decode import ENDS, FIXED, Instruction, decode
from .far import with_far_operand

_REACH_BYTES = (1 << 31) - (1 << 12)  # of a displacement, less what a window and its addresses take
_RSP = 4


def unmovable(instruction: Instruction, code: bytes) -> str:
    """Return why an instruction, whose bytes are `code`, has to stay where it is; "" when it can be moved."""
    kind = instruction.kind
    if kind in FIXED:
        return "an instruction that reports its own address, or does not exist, is not moved"
    if instruction.narrow and (kind in _NEAR or kind in ("indirect_jump", "indirect_call")):
        return "a jump with prefix 66 means different things to processors of different makers"
    if instruction.rip_at >= 0 and 0x67 in code[: instruction.opcode_at]:
        return "an operand relative to eip is not moved"
    if kind == "indirect_call" and _uses_rsp(instruction, code):
        displacement = _rsp_displacement(instruction, code)
        if displacement is None or displacement < 0:
            return "a call through the stack pointer is not moved"
    return ""


_NEAR = frozenset(["jump", "branch", "loop", "call"])


def relocate(code: bytes, old: int, new: int, *, patch: int = 5, falls: bool = False) -> Relocated:
    """Return the instructions of the window `code`, which is at address `old`, for address `new`; its first `patch` bytes are replaced.

    `falls`: the process goes on behind the result, in place of jumping back: for a window that is moved in two parts.
    Raises ProbeError for what `plan_window` would not have chosen, and for the few instructions that cannot be so far away.
    """
    instructions = []
    at = 0
    while at < len(code):
        instructions.append((at, decode(code, at)))
        at += instructions[-1][1].length
    writer = _Writer(old, new, [at for at, _ in instructions], min(patch, len(code)))
    for at, instruction in instructions:
        own = code[at : at + instruction.length]
        reason = unmovable(instruction, own)
        if reason:
            raise ProbeError(f"cannot move the instruction at {old + at:#x}: {reason}")
        writer.begin(at)
        _FORMS.get(instruction.kind, _write_plain)(writer, instruction, own, old + at)
    if instruction.kind not in ENDS:
        writer.begin(len(code))
        if not falls:
            writer.jump(old + len(code))
        elif writer.literals:
            writer.put(bytes([0xEB, (-(writer.here() + 2) % 8) + 8 * len(writer.literals)]))
    return writer.finish()


class _Writer:
    """Code for one address under construction."""

    __slots__ = ("begins", "code", "inner", "literals", "new", "old", "patch", "places", "returns")

    def __init__(self, old: int, new: int, begins: list[int], patch: int) -> None:
        self.old, self.new, self.begins, self.patch = old, new, begins, patch
        self.code = bytearray()
        self.places: dict[int, int] = {}
        self.returns: dict[int, int] = {}
        self.literals: list[tuple[int, int]] = []  # place of a displacement, address to put behind the code
        self.inner: list[tuple[int, int]] = []  # place of a displacement, offset in the window

    def begin(self, offset: int) -> None:
        """Go on with the instruction at an offset in the window."""
        self.places[offset] = len(self.code)
        self.state(self.old + offset)

    def state(self, address: int) -> None:
        """Note that what comes next stands for `address`."""
        self.returns[len(self.code)] = address

    def put(self, code: bytes) -> None:
        self.code += code

    def put_literal(self, opcode: bytes, address: int) -> None:
        """Write an instruction whose operand is disp(%rip), an address kept behind the code."""
        self.code += opcode + bytes(4)
        self.literals.append((len(self.code) - 4, address))

    def put_target(self, opcode: bytes, target: int) -> None:
        """Write a jump with a displacement of 4 bytes; `is_near(target)` holds."""
        self.code += opcode
        if self.is_inner(target):
            self.inner.append((len(self.code), target - self.old))
            self.code += bytes(4)
        else:
            self.code += _displacement(target - self.here() - 4)

    def jump(self, target: int) -> None:
        if self.is_near(target):
            self.put_target(b"\xe9", target)
        else:
            self.put_literal(b"\xff\x25", target)

    def is_inner(self, target: int) -> bool:
        """Tell whether a target moved along. The window's first instruction is where the probe is, and stays the target.

        Raises ProbeError for a target amid an instruction, such as that behind a lock prefix, if its bytes do not stay.
        """
        if self.old < target < self.old + self.patch and target - self.old not in self.begins:
            raise ProbeError(f"a jump leads into the middle of an instruction, to {target:#x}")
        return target > self.old and target - self.old in self.begins

    def is_near(self, target: int) -> bool:
        return self.is_inner(target) or abs(target - self.new) < _REACH_BYTES

    def here(self) -> int:
        """The address at which the next byte will be."""
        return self.new + len(self.code)

    def finish(self) -> Relocated:
        for at, offset in self.inner:
            self.code[at : at + 4] = _displacement(self.places[offset] - at - 4)
        places = tuple((offset, self.places[offset]) for offset in self.begins)
        returns = tuple(self.returns.items())
        if self.literals:
            self.code += b"\xcc" * (-self.here() % 8)
        for at, address in self.literals:
            self.code[at : at + 4] = _displacement(len(self.code) - at - 4)
            self.code += address.to_bytes(8, "little")
        return Relocated(bytes(self.code), places, returns)


def _displacement(value: int) -> bytes:
    return value.to_bytes(4, "little", signed=True)


# One function for each form: writer, instruction, its bytes, its address ------------------------------------------------


def _write_plain(writer: _Writer, instruction: Instruction, code: bytes, at: int) -> None:
    if instruction.rip_at < 0:
        writer.put(code)
        return
    target = at + instruction.rip
    if abs(target - writer.new) < _REACH_BYTES:
        writer.put(_with_rip(instruction, code, target - writer.here()))
        return
    moved = with_far_operand(instruction, code, target)
    if not moved:
        raise ProbeError(
            f"cannot move the instruction at {at:#x} to {writer.new:#x}: its operand at {target:#x} is too far from there"
        )
    writer.put(moved)


def _with_rip(instruction: Instruction, code: bytes, target: int) -> bytes:
    """Return the instruction with another target, counted from its first byte."""
    at = instruction.rip_at
    return code[:at] + _displacement(target - instruction.length) + code[at + 4 :]


def _write_nothing(writer: _Writer, instruction: Instruction, code: bytes, at: int) -> None:
    """Leave out what does nothing."""


def _write_jump(writer: _Writer, instruction: Instruction, code: bytes, at: int) -> None:
    writer.jump(at + instruction.target)


def _write_branch(writer: _Writer, instruction: Instruction, code: bytes, at: int) -> None:
    target, condition = at + instruction.target, instruction.opcode & 15
    if writer.is_near(target):
        writer.put_target(bytes([0x0F, 0x80 | condition]), target)
    else:
        writer.put(bytes([0x70 | (condition ^ 1), 6]))
        writer.state(target)
        writer.jump(target)


def _write_loop(writer: _Writer, instruction: Instruction, code: bytes, at: int) -> None:
    target = at + instruction.target
    writer.put(code[:-1] + b"\2")
    writer.state(at + instruction.length)
    writer.put(b"\xeb\5" if writer.is_near(target) else b"\xeb\6")
    writer.state(target)
    writer.jump(target)


def _write_xbegin(writer: _Writer, instruction: Instruction, code: bytes, at: int) -> None:
    target = at + instruction.target
    if not writer.is_near(target):
        raise ProbeError(
            f"cannot move the transaction at {at:#x} to {writer.new:#x}: {target:#x} is too far from there"
        )
    writer.put_target(b"\xc7\xf8", target)


def _write_call(writer: _Writer, instruction: Instruction, code: bytes, at: int) -> None:
    target = at + instruction.target
    writer.put_literal(b"\xff\x35", at + instruction.length)  # push
    writer.state(target)
    writer.jump(target)


def _write_indirect_call(writer: _Writer, instruction: Instruction, code: bytes, at: int) -> None:
    writer.put_literal(b"\xff\x35", at + instruction.length)  # push
    modrm_at = instruction.modrm_at
    jump = bytearray(code)
    jump[modrm_at] ^= 0x10 ^ 0x20  # call is /2, jmp /4
    if instruction.rip_at >= 0:
        _write_plain(writer, instruction, bytes(jump), at)
    elif _uses_rsp(instruction, code):
        displacement = _rsp_displacement(instruction, code)
        assert displacement is not None
        index = jump[modrm_at + 1]  # the SIB byte
        writer.put(bytes([*jump[:modrm_at], 0xA4, index]) + _displacement(displacement + 8))
    else:
        writer.put(bytes(jump))


def _uses_rsp(instruction: Instruction, code: bytes) -> bool:
    """Tell whether the memory operand (or the register that stands for it) is based on rsp."""
    at = instruction.modrm_at
    modrm = code[at]
    if modrm & 7 != _RSP or instruction.rex & 1:
        return False
    return modrm >= 0xC0 or code[at + 1] & 7 == _RSP


def _rsp_displacement(instruction: Instruction, code: bytes) -> int | None:
    """Return the displacement of an operand based on rsp; None when rsp itself is the operand."""
    at = instruction.modrm_at
    mode = code[at] >> 6
    if mode == 3:
        return None
    return int.from_bytes(code[at + 2 : at + 2 + (0, 1, 4)[mode]], "little", signed=True)


# What is not here is copied, with a new displacement where it has one.
_FORMS = {
    "nop": _write_nothing,
    "endbr": _write_nothing,
    "jump": _write_jump,
    "branch": _write_branch,
    "loop": _write_loop,
    "xbegin": _write_xbegin,
    "call": _write_call,
    "indirect_call": _write_indirect_call,
}

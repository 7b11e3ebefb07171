"""eBPF to x86-64. Every register of eBPF has one of the CPU's for its own; arguments and result are where the C calling convention has them.

    r0 rax   r1 rdi   r2 rsi   r3 rdx   r4 rcx   r5 r8   r6 rbx   r7 r13   r8 r14   r9 r15   r10 rbp        scratch: r9 r10 r11

A function saves the registers that it changes and no others, and makes a frame only when it uses its stack. Jumps are as short as their distance
allows.
"""

from __future__ import annotations

from ...errors import FeatureError
from ..isa import Insn
from ..maps.machine import FINISHERS, LOOKUP, RING_DISCARD, make_routine
from .code import Function, MachineCode
from .emitter import MAY_GOTO_LIMIT, Emitter, Jump, Known
from .maps import BY_FRAME, BY_RSEQ, routine_text
from .x86_64_maps import array_lookup, finish_record, hash_routine, scaled_cpu
from .x86_encoding import (
    ALU,
    R8,
    R9,
    R10,
    R11,
    R13,
    R14,
    R15,
    RAX,
    RBP,
    RBX,
    RCX,
    RDI,
    RDX,
    RSI,
    RSP,
    alu_imm,
    imm,
    mem,
    mov,
    mov_imm,
    over,
    pop,
    push,
    rex,
    rr,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..maps.layout import MapLayout
    from .maps import MapPlan

REGISTERS = (RAX, RDI, RSI, RDX, RCX, R8, RBX, R13, R14, R15, RBP)

_FRAME_TO_R11 = b"\x45\x8b\x1c\x24"  # mov r11d, [r12]
_SHIFT = {"lsh": 4, "rsh": 5, "arsh": 7}
_SHIFTX_PREFIX = {"lsh": 1, "arsh": 2, "rsh": 3}  # pp of shlx, sarx, shrx
# Condition codes of jcc; a jump over something takes the code with its lowest bit turned.
_CONDITIONS = {
    "jeq": 4,
    "jne": 5,
    "jset": 5,
    "jgt": 7,
    "jge": 3,
    "jlt": 2,
    "jle": 6,
    "jsgt": 15,
    "jsge": 13,
    "jslt": 12,
    "jsle": 14,
}


# Instructions -----------------------------------------------------------------------------------------------------


def _arithmetic(name: str, insn: Insn, bmi2: bool) -> bytes:
    dst, src = REGISTERS[insn.dst], REGISTERS[insn.src]
    base, from_register = name.removesuffix("_imm"), not name.endswith("_imm")
    if base in ("cast", "percpu"):
        return mov(dst, src)
    if base.startswith("movsx"):
        return _sign_extend(base, dst, src)
    if base.startswith(("le", "be", "bswap")):
        return _byte_order(base, dst)
    op, wide = base[:-2], base.endswith("64")
    if op == "mov":
        if from_register:
            return mov(dst, src, wide)
        return mov_imm(dst, insn.imm if wide else insn.imm & 0xFFFFFFFF)
    if op in ALU:
        if from_register:
            return rr(bytes([ALU[op] << 3 | 1]), src, dst, wide)
        return alu_imm(ALU[op], dst, insn.imm, wide)
    if op == "neg":
        return rr(b"\xf7", 3, dst, wide)
    if op == "mul":
        return _multiply(dst, src if from_register else None, insn.imm, wide)
    if op in _SHIFT:
        return _shift(op, dst, src, wide, bmi2) if from_register else _shift_imm(op, dst, insn.imm, wide)
    return _divide(op, dst, src if from_register else None, insn.imm, wide)


def _multiply(dst: int, src: int | None, value: int, wide: bool) -> bytes:
    if src is not None:
        return rr(b"\x0f\xaf", dst, src, wide)
    if -128 <= value < 128:
        return rr(b"\x6b", dst, dst, wide) + imm(value, 1)
    return rr(b"\x69", dst, dst, wide) + imm(value)


def _shift_imm(op: str, dst: int, by: int, wide: bool) -> bytes:
    by &= 63 if wide else 31
    if by == 0:
        return b"" if wide else mov(dst, dst, False)
    return rr(b"\xc1", _SHIFT[op], dst, wide) + imm(by, 1)


def _shift(op: str, dst: int, by: int, wide: bool, bmi2: bool) -> bytes:
    """Shift by a register: with BMI2 by any, without it only by cl."""
    if bmi2:
        first = 0xE2 ^ (dst >> 3) << 7 ^ (dst >> 3) << 5
        second = wide << 7 | (~by & 15) << 3 | _SHIFTX_PREFIX[op]
        return bytes([0xC4, first, second, 0xF7, 0xC0 | (dst & 7) << 3 | dst & 7])
    if by == RCX and dst != RCX:
        return rr(b"\xd3", _SHIFT[op], dst, wide)
    if dst == RCX:  # both: shift a copy
        shift = rr(b"\xd3", _SHIFT[op], R11, wide)
        return mov(R11, RCX) + (mov(RCX, by, False) if by != RCX else b"") + shift + mov(RCX, R11)
    return mov(R11, RCX) + mov(RCX, by, False) + rr(b"\xd3", _SHIFT[op], dst, wide) + mov(RCX, R11)


def _sign_extend(base: str, dst: int, src: int) -> bytes:
    width, bits = base[5:].split("_")
    wide = width == "64"
    if bits == "32":
        return rr(b"\x63", dst, src, True)
    return rr(b"\x0f\xbe" if bits == "8" else b"\x0f\xbf", dst, src, wide, force=bits == "8")


def _byte_order(base: str, dst: int) -> bytes:
    swaps, bits = not base.startswith("le"), int(base.lstrip("lebswap"))
    if bits == 16:
        turn = b"\x66" + rr(b"\xc1", 0, dst, False) + b"\x08" if swaps else b""
        return turn + rr(b"\x0f\xb7", dst, dst, False)
    if not swaps:
        return mov(dst, dst, False) if bits == 32 else b""
    return rex(bits == 64, 0, dst) + bytes([0x0F, 0xC8 | dst & 7])


def _divide(op: str, dst: int, src: int | None, value: int, wide: bool) -> bytes:
    """Division by zero gives 0, a remainder by zero the dividend; the smallest number by -1 must not trap."""
    signed, wants_rest = op[0] == "s", op.endswith("mod")
    if src is None and not signed and value & value - 1 == 0 and value > 0:
        return _by_power(dst, value, wants_rest, wide)
    load = mov(R11, src, wide) if src is not None else _divisor(value, wide)
    out = b"" if dst == RAX else mov(R10, RAX)
    out += (b"" if dst == RDX else mov(R9, RDX)) + (b"" if dst == RAX else mov(RAX, dst, wide))
    out += rr(b"\x99", 0, 0, wide)[:-1] if signed else rr(b"\x31", RDX, RDX, False)
    out += _quotient(signed, wide)
    result = RDX if wants_rest else RAX
    out += b"" if dst == result else mov(dst, result, wide)
    out += (b"" if dst == RAX else mov(RAX, R10)) + (b"" if dst == RDX else mov(RDX, R9))
    if signed:
        out = _unless_minus_one(out, dst, wants_rest, wide)
    if src is None and value:
        return load + out
    by_zero = (b"" if wide else mov(dst, dst, False)) if wants_rest else rr(b"\x31", dst, dst, False)
    skip = _near(len(by_zero)) if by_zero else b""
    return load + rr(b"\x85", R11, R11, wide) + _jcc_over(4, out + skip) + by_zero


def _quotient(signed: bool, wide: bool) -> bytes:
    """rdx:rax by r11. A 64-bit division of numbers of 32 bits is done as one: CPUs take a fraction of the time for it."""
    divide = rr(b"\xf7", 7 if signed else 6, R11, wide)
    if signed or not wide:
        return divide
    narrow = rr(b"\xf7", 6, R11, False)
    test = mov(RDX, RAX) + rr(b"\x09", R11, RDX, True)
    test += rr(b"\xc1", 5, RDX, True) + b"\x20"  # when both are small this leaves 0, the dividend's upper half
    clear = rr(b"\x31", RDX, RDX, False)
    return test + over(5, narrow + _near(len(clear) + len(divide))) + clear + divide


def _divisor(value: int, wide: bool) -> bytes:
    return mov_imm(R11, value if wide else value & 0xFFFFFFFF)


def _by_power(dst: int, value: int, wants_rest: bool, wide: bool) -> bytes:
    if not wants_rest:
        return _shift_imm("rsh", dst, value.bit_length() - 1, wide)
    return alu_imm(ALU["and"], dst, value - 1, wide)


def _unless_minus_one(division: bytes, dst: int, wants_rest: bool, wide: bool) -> bytes:
    by_minus_one = rr(b"\x31", dst, dst, False) if wants_rest else rr(b"\xf7", 3, dst, wide)
    test = alu_imm(ALU["cmp"], R11, -1, wide)
    return test + _jcc_over(4, division + _near(len(by_minus_one))) + by_minus_one


def _near(distance: int) -> bytes:
    """A jump forward."""
    return bytes([0xEB, distance]) if distance < 128 else b"\xe9" + imm(distance)


def _jcc_over(condition: int, code: bytes) -> bytes:
    """`code`, which may be long, jumped over when the condition holds."""
    if len(code) < 128:
        return over(condition, code)
    return bytes([0x0F, 0x80 | condition]) + imm(len(code)) + code


def _bits(name: str) -> int:
    return int("".join(c for c in name if c.isdigit()))


def _load(name: str, insn: Insn) -> bytes:
    bits, dst, base = _bits(name), REGISTERS[insn.dst], REGISTERS[insn.src]
    if name.startswith("ldxs"):
        return mem({8: b"\x0f\xbe", 16: b"\x0f\xbf", 32: b"\x63"}[bits], dst, base, insn.off, True)
    return mem({8: b"\x0f\xb6", 16: b"\x0f\xb7", 32: b"\x8b", 64: b"\x8b"}[bits], dst, base, insn.off, bits == 64)


def _store(bits: int, src: int, base: int, disp: int) -> bytes:
    if bits == 8:
        return mem(b"\x88", src, base, disp, False, force=src > 3)
    return mem(b"\x89", src, base, disp, bits == 64, prefix=b"\x66" if bits == 16 else b"")


def _store_imm(bits: int, value: int, base: int, disp: int) -> bytes:
    prefix = b"\x66" if bits == 16 else b""
    opcode = b"\xc6" if bits == 8 else b"\xc7"
    return mem(opcode, 0, base, disp, bits == 64, prefix=prefix) + imm(value, min(bits // 8, 4))


def _atomic(name: str, insn: Insn) -> bytes:
    wide, kind = name.endswith("64"), name[:-2]
    base, src = REGISTERS[insn.dst], REGISTERS[insn.src]
    lock = b"\xf0"
    if kind == "xchg":
        return mem(b"\x87", src, base, insn.off, wide)
    if kind == "cmpxchg":  # memory is compared with eax; a 32-bit result clears the upper half
        code = mem(b"\x0f\xb1", src, base, insn.off, wide, prefix=lock)
        return code if wide else code + mov(RAX, RAX, False)
    if kind == "fadd":
        return mem(b"\x0f\xc1", src, base, insn.off, wide, prefix=lock)
    if kind[0] != "f":
        return mem(bytes([ALU[kind[1:]] << 3 | 1]), src, base, insn.off, wide, prefix=lock)
    return _fetch_loop(kind[1:], src, base, insn.off, wide)


def _fetch_loop(op: str, src: int, base: int, off: int, wide: bool) -> bytes:
    """Read, compute, write unless somebody else wrote: or, and, xor with the old value as result."""
    place, operand = R10 if base == RAX else base, R10 if src == RAX else src
    loop = mov(R11, RAX) + rr(bytes([ALU[op] << 3 | 1]), operand, R11, wide)
    loop += mem(b"\x0f\xb1", R11, place, off, wide, prefix=b"\xf0")
    loop += bytes([0x75, (-len(loop) - 2) & 0xFF])
    code = mov(R10, RAX) + mem(b"\x8b", RAX, place, off, wide) + loop
    return code if src == RAX else code + mov(src, RAX, wide) + mov(RAX, R10)


def _release(name: str, insn: Insn) -> bytes:
    return _store(_bits(name), REGISTERS[insn.src], REGISTERS[insn.dst], insn.off)


def _plain(insn: Insn, name: str, bmi2: bool) -> bytes:
    """The bytes of an instruction that needs nothing from outside and goes nowhere."""
    class_ = insn.opcode & 7
    if class_ in (4, 7):
        return _arithmetic(name, insn, bmi2)
    if name == "lddw":
        return mov_imm(REGISTERS[insn.dst], insn.imm)
    if name == "nospec":
        return b"\x0f\xae\xe8"
    if name.startswith(("ldx", "acquire")):
        return _load(name, insn)
    if name.startswith("release"):
        return _release(name, insn)
    if name.startswith("stx"):
        return _store(_bits(name), REGISTERS[insn.src], REGISTERS[insn.dst], insn.off)
    if class_ == 2:
        return _store_imm(_bits(name), insn.imm, REGISTERS[insn.dst], insn.off)
    if class_ == 3:
        return _atomic(name, insn)
    raise FeatureError(f"{name} has no translation to x86-64", feature=f"jit:{name}")


def _compare(name: str, insn: Insn) -> bytes:
    dst, src = REGISTERS[insn.dst], REGISTERS[insn.src]
    wide, is_set = "64" in name, name.startswith("jset")
    if not name.endswith("_imm"):
        return rr(b"\x85" if is_set else b"\x39", src, dst, wide)
    if is_set:
        return rr(b"\xf7", 0, dst, wide) + imm(insn.imm)
    if insn.imm == 0:
        return rr(b"\x85", dst, dst, wide)
    return alu_imm(ALU["cmp"], dst, insn.imm, wide)


_FREE = frozenset([RAX, RCX, RDX, RSI, RDI, R8, R9, R10, R11])  # registers that a C function may change
_NEEDED = frozenset(["bmi2"])  # the features that make a difference


def _disturbs(insn: Insn, bmi2: bool) -> frozenset[int]:
    opcode = insn.opcode
    class_ = opcode & 7
    if class_ in (5, 6):
        return _FREE if opcode & ~8 == 0x85 else frozenset()
    if class_ == 0 and opcode != 0x18:
        return _FREE
    found = {REGISTERS[insn.dst]} if class_ in (0, 1, 4, 7) else set()
    if class_ in (4, 7):
        if opcode & 0xF0 in (0x30, 0x90):
            found |= {R9, R10, R11}
        elif opcode & 8 and opcode & 0xF0 in (0x60, 0x70, 0xC0) and not bmi2:
            found |= {R11}
    elif class_ == 3 and opcode & 0xE0 == 0xC0:
        found |= (
            {REGISTERS[insn.dst if insn.imm == 0x100 else insn.src], RAX, R10, R11}
            if insn.imm & 1 or insn.imm == 0x100
            else set()
        )
    return frozenset(found & _FREE)


# A program --------------------------------------------------------------------------------------------------------


class _X86(Emitter):
    arch = "x86_64"

    def __init__(self, features: frozenset[str]) -> None:
        super().__init__()
        self.features = features
        self.bmi2 = "bmi2" in features

    def remembered(self) -> Known:
        return _remembered[self.bmi2]

    def address(self, register: int, kind: str, value: int, addend: int = 0) -> None:
        """Load an address that is known when the code is placed."""
        self.reloc(2, kind, value, addend)
        self.parts.append(rex(True, 0, register) + bytes([0xB8 | register & 7]) + bytes(8))

    # functions ------------------------------------------------------------------------------------------------

    def frame(self) -> tuple[bool, int]:
        """Whether there is a frame pointer, and by how much the stack is lowered; calls need it at a multiple of 16."""
        f = self.function
        has_frame = f.frame or f.counts
        below = f.stack_bytes + (8 if f.counts else 0)
        pushed = len(f.saved) + has_frame
        if f.calls and (8 * (pushed + 1) + below) % 16:
            below += 8
        return has_frame, below

    def prologue(self) -> bytes:
        """The saved registers lie above the frame, so that r10 is rbp and the stack below it."""
        f = self.function
        has_frame, below = self.frame()
        code = b"".join(push(REGISTERS[r]) for r in f.saved)
        if has_frame:
            code += push(RBP) + mov(RBP, RSP)
        if below:
            code += alu_imm(ALU["sub"], RSP, below, True)
        if f.counts:
            code += _store_imm(64, MAY_GOTO_LIMIT, RBP, -f.stack_bytes - 8)
        return code

    def epilogue(self) -> bytes:
        f = self.function
        has_frame, below = self.frame()
        code = b""
        if has_frame:
            code = b"\xc9" if below else pop(RBP)
        elif below:
            code = alu_imm(ALU["add"], RSP, below, True)
        return code + b"".join(pop(REGISTERS[r]) for r in reversed(f.saved))

    def leave(self) -> bytes:
        return self.epilogue() + b"\xc3"

    # instructions ---------------------------------------------------------------------------------------------

    def plain(self, insn: Insn, name: str) -> bytes:
        return _plain(insn, name, self.bmi2)

    def unlocked(self, code: bytes) -> bytes:
        return code.removeprefix(b"\xf0")

    def compare(self, insn: Insn, name: str) -> int:
        self.add(_compare(name, insn))
        return _CONDITIONS[name.removesuffix("_imm")[:-2]]

    def count_down(self) -> int:
        place = -self.function.stack_bytes - 8
        self.add(mem(b"\x83", ALU["sub"], RBP, place, True) + b"\x01")
        return 8  # js

    def call_register(self, register: int) -> None:
        self.add(rr(b"\xff", 2, REGISTERS[register], False))

    def call_outside(self, kind: str, value: int) -> None:
        self.address(RAX, kind, value)
        self.add(b"\xff\xd0")

    def disturbs(self, insn: Insn) -> frozenset[int]:
        return _disturbs(insn, self.bmi2)

    # maps -----------------------------------------------------------------------------------------------------

    def in_place(self, layout: MapLayout, helper: int) -> bool:
        if helper in FINISHERS:
            self.add(finish_record(helper == RING_DISCARD))
            return True
        if helper != LOOKUP or layout.hashed:
            return False
        if layout.per_cpu:
            self.load_cpu(layout.copies)
        self.add(array_lookup(layout))
        return True

    def load_cpu(self, limit: int) -> None:
        """Load the number of the running CPU into r11; what is not below the limit becomes the plan's fallback."""
        assert self.plan is not None
        if self.plan.cpu == BY_FRAME:
            self.add(_FRAME_TO_R11)
            return
        if self.plan.cpu == BY_RSEQ:
            self.address(R11, "rseq", 0)
            self.add(b"\x64\x45\x8b\x1b")  # mov r11d, fs:[r11]
        else:
            self.address(R11, "cpu", 0)
            self.add(mem(b"\x8b", R11, R11, 0, False))
        self.add(alu_imm(ALU["cmp"], R11, limit, False) + over(2, mov_imm(R11, self.plan.cpu_fallback)))

    def cpu_number(self) -> None:
        self.load_cpu(0x7FFFFFFF)
        self.add(mov(RAX, R11, False))

    def routine(self, layout: MapLayout, helper: int) -> None:
        if helper == LOOKUP and layout.hashed and layout.kind != "lpm_trie":
            self.add(hash_routine(layout))
            if layout.per_cpu:
                self.load_cpu(layout.copies)
                self.add(scaled_cpu(layout))
            self.add(b"\xc3")
            return
        made = make_routine(layout, helper)
        assert self.plan is not None
        if made.who and self.plan.cpu == BY_FRAME:
            self.add(_FRAME_TO_R11 + mem(b"\x8d", R8, R11, 1, False))
        elif made.who:
            self.address(R8, "owner", 0)
            self.add(mem(b"\x8b", R8, R8, 0, False))
        if made.who and layout.per_cpu:
            self.load_cpu(layout.copies)
            self.add(rr(b"\xc1", 4, R11, True) + b"\x20" + rr(b"\x09", R11, R8, True))  # r8 |= cpu << 32
        self.add(routine_text(made, self.arch, _NEEDED & self.features))

    def tail_call(self) -> None:
        self.add(push(RDI) + push(RDI))  # twice: the stack stays aligned
        self.call_outside("helper", 12)
        gone = self.epilogue() + b"\xff\xe0"
        self.add(pop(RDI) + pop(RDI) + rr(b"\x85", RAX, RAX, True) + over(4, gone))

    def load_address(self, register: int, kind: str, value: int, addend: int) -> None:
        self.address(REGISTERS[register], kind, value, addend)

    def packet(self, register: int, imm: int, size: int) -> None:
        if register >= 0:
            self.add(mov(RDI, REGISTERS[register], False) + alu_imm(ALU["add"], RDI, imm, False))
        else:
            self.add(mov_imm(RDI, imm & 0xFFFFFFFF))
        self.add(mov_imm(RSI, size))
        self.call_outside("packet", 0)
        leave = rr(b"\x31", RAX, RAX, False) + self.leave()
        self.add(rr(b"\x85", RAX, RAX, True) + over(9, leave))

    # jumps ----------------------------------------------------------------------------------------------------

    def reaches(self, jump: Jump, distance: int) -> bool:
        return -128 <= distance - 2 < 128

    def size_of(self, jump: Jump) -> int:
        if jump.kind == "call":
            return 5
        return (6 if jump.condition >= 0 else 5) if jump.long else 2

    def render(self, jump: Jump, distance: int) -> bytes:
        distance -= self.size_of(jump)
        if jump.kind == "call":
            return b"\xe8" + imm(distance)
        if not jump.long:
            return bytes([0xEB if jump.condition < 0 else 0x70 | jump.condition, distance & 0xFF])
        return (b"\xe9" if jump.condition < 0 else bytes([0x0F, 0x80 | jump.condition])) + imm(distance)


_remembered: tuple[Known, Known] = ({}, {})  # without and with BMI2


def emit(
    functions: list[Function],
    features: frozenset[str],
    plan: MapPlan | None = None,
    alone: frozenset[int] = frozenset(),
) -> MachineCode:
    """Translate the functions of a program, the main one first; look up in the maps of `plan` without a helper."""
    return _X86(features).emit(functions, plan, alone)

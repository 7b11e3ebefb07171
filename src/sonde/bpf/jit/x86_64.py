"""eBPF to x86-64. Every register of eBPF has one of the CPU's for its own; arguments and result are where the C calling convention has them.

    r0 rax   r1 rdi   r2 rsi   r3 rdx   r4 rcx   r5 r8   r6 rbx   r7 r13   r8 r14   r9 r15   r10 rbp        scratch: r9 r10 r11

A function saves the registers that it changes and no others, and makes a frame only when it uses its stack. Jumps are as short as their distance
allows.
"""

from __future__ import annotations

from ...errors import FeatureError
from ..isa import Insn
from .code import Function, MachineCode
from .emitter import MAY_GOTO_LIMIT, Emitter, Jump

RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI = range(8)
R8, R9, R10, R11, _R12, R13, R14, R15 = range(8, 16)
REGISTERS = (RAX, RDI, RSI, RDX, RCX, R8, RBX, R13, R14, R15, RBP)

# Operation numbers of the two-operand instructions (the row of opcodes 00 to 3f, and the /n of 81).
_ALU = {"add": 0, "or": 1, "and": 4, "sub": 5, "xor": 6, "cmp": 7}
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


# Encoding ---------------------------------------------------------------------------------------------------------


def _rex(wide: bool, reg: int, rm: int, force: bool = False) -> bytes:
    value = 0x40 | wide << 3 | (reg >> 3) << 2 | rm >> 3
    return bytes([value]) if value != 0x40 or force else b""


def _rr(opcode: bytes, reg: int, rm: int, wide: bool, force: bool = False) -> bytes:
    """An instruction of two registers: `reg` field, `rm` field."""
    return _rex(wide, reg, rm, force) + opcode + bytes([0xC0 | (reg & 7) << 3 | rm & 7])


def _mem(opcode: bytes, reg: int, base: int, disp: int, wide: bool, force: bool = False, prefix: bytes = b"") -> bytes:
    """An instruction of a register and memory at base + disp."""
    low = base & 7
    sib = b"\x24" if low == RSP else b""
    if disp == 0 and low != RBP:
        mode, tail = 0x00, b""
    elif -128 <= disp < 128:
        mode, tail = 0x40, disp.to_bytes(1, "little", signed=True)
    else:
        mode, tail = 0x80, disp.to_bytes(4, "little", signed=True)
    return prefix + _rex(wide, reg, base, force) + opcode + bytes([mode | (reg & 7) << 3 | low]) + sib + tail


def _imm(value: int, size: int = 4) -> bytes:
    return (value & (1 << 8 * size) - 1).to_bytes(size, "little")


def _mov(dst: int, src: int, wide: bool = True) -> bytes:
    return _rr(b"\x89", src, dst, wide)


def _mov_imm(dst: int, value: int) -> bytes:
    """The shortest load of a 64-bit number."""
    value &= (1 << 64) - 1
    if value == 0:
        return _rr(b"\x31", dst, dst, False)
    if value < 1 << 32:
        return _rex(False, 0, dst) + bytes([0xB8 | dst & 7]) + _imm(value)
    if value >= (1 << 64) - (1 << 31):
        return _rr(b"\xc7", 0, dst, True) + _imm(value)
    return _rex(True, 0, dst) + bytes([0xB8 | dst & 7]) + _imm(value, 8)


def _alu_imm(op: int, dst: int, value: int, wide: bool) -> bytes:
    if -128 <= value < 128:
        return _rr(b"\x83", op, dst, wide) + _imm(value, 1)
    return _rr(b"\x81", op, dst, wide) + _imm(value)


def _push(register: int) -> bytes:
    return _rex(False, 0, register) + bytes([0x50 | register & 7])


def _pop(register: int) -> bytes:
    return _rex(False, 0, register) + bytes([0x58 | register & 7])


def _over(condition: int, code: bytes) -> bytes:
    """`code`, jumped over when the condition holds."""
    return bytes([0x70 | condition, len(code)]) + code


# Instructions -----------------------------------------------------------------------------------------------------


def _arithmetic(name: str, insn: Insn, bmi2: bool) -> bytes:
    dst, src = REGISTERS[insn.dst], REGISTERS[insn.src]
    base, from_register = name.removesuffix("_imm"), not name.endswith("_imm")
    if base in ("cast", "percpu"):
        return _mov(dst, src)
    if base.startswith("movsx"):
        return _sign_extend(base, dst, src)
    if base.startswith(("le", "be", "bswap")):
        return _byte_order(base, dst)
    op, wide = base[:-2], base.endswith("64")
    if op == "mov":
        if from_register:
            return _mov(dst, src, wide)
        return _mov_imm(dst, insn.imm if wide else insn.imm & 0xFFFFFFFF)
    if op in _ALU:
        if from_register:
            return _rr(bytes([_ALU[op] << 3 | 1]), src, dst, wide)
        return _alu_imm(_ALU[op], dst, insn.imm, wide)
    if op == "neg":
        return _rr(b"\xf7", 3, dst, wide)
    if op == "mul":
        return _multiply(dst, src if from_register else None, insn.imm, wide)
    if op in _SHIFT:
        return _shift(op, dst, src, wide, bmi2) if from_register else _shift_imm(op, dst, insn.imm, wide)
    return _divide(op, dst, src if from_register else None, insn.imm, wide)


def _multiply(dst: int, src: int | None, value: int, wide: bool) -> bytes:
    if src is not None:
        return _rr(b"\x0f\xaf", dst, src, wide)
    if -128 <= value < 128:
        return _rr(b"\x6b", dst, dst, wide) + _imm(value, 1)
    return _rr(b"\x69", dst, dst, wide) + _imm(value)


def _shift_imm(op: str, dst: int, by: int, wide: bool) -> bytes:
    by &= 63 if wide else 31
    if by == 0:
        return b"" if wide else _mov(dst, dst, False)
    return _rr(b"\xc1", _SHIFT[op], dst, wide) + _imm(by, 1)


def _shift(op: str, dst: int, by: int, wide: bool, bmi2: bool) -> bytes:
    """Shift by a register: with BMI2 by any, without it only by cl."""
    if bmi2:
        first = 0xE2 ^ (dst >> 3) << 7 ^ (dst >> 3) << 5
        second = wide << 7 | (~by & 15) << 3 | _SHIFTX_PREFIX[op]
        return bytes([0xC4, first, second, 0xF7, 0xC0 | (dst & 7) << 3 | dst & 7])
    if by == RCX and dst != RCX:
        return _rr(b"\xd3", _SHIFT[op], dst, wide)
    if dst == RCX:  # both: shift a copy
        shift = _rr(b"\xd3", _SHIFT[op], R11, wide)
        return _mov(R11, RCX) + (_mov(RCX, by, False) if by != RCX else b"") + shift + _mov(RCX, R11)
    return _mov(R11, RCX) + _mov(RCX, by, False) + _rr(b"\xd3", _SHIFT[op], dst, wide) + _mov(RCX, R11)


def _sign_extend(base: str, dst: int, src: int) -> bytes:
    width, bits = base[5:].split("_")
    wide = width == "64"
    if bits == "32":
        return _rr(b"\x63", dst, src, True)
    return _rr(b"\x0f\xbe" if bits == "8" else b"\x0f\xbf", dst, src, wide, force=bits == "8")


def _byte_order(base: str, dst: int) -> bytes:
    swaps, bits = not base.startswith("le"), int(base.lstrip("lebswap"))
    if bits == 16:
        turn = b"\x66" + _rr(b"\xc1", 0, dst, False) + b"\x08" if swaps else b""
        return turn + _rr(b"\x0f\xb7", dst, dst, False)
    if not swaps:
        return _mov(dst, dst, False) if bits == 32 else b""
    return _rex(bits == 64, 0, dst) + bytes([0x0F, 0xC8 | dst & 7])


def _divide(op: str, dst: int, src: int | None, value: int, wide: bool) -> bytes:
    """Division by zero gives 0, a remainder by zero the dividend; the smallest number by -1 must not trap."""
    signed, wants_rest = op[0] == "s", op.endswith("mod")
    if src is None and not signed and value & value - 1 == 0 and value > 0:
        return _by_power(dst, value, wants_rest, wide)
    load = _mov(R11, src, wide) if src is not None else _divisor(value, wide)
    out = b"" if dst == RAX else _mov(R10, RAX)
    out += (b"" if dst == RDX else _mov(R9, RDX)) + (b"" if dst == RAX else _mov(RAX, dst, wide))
    out += _rr(b"\x99", 0, 0, wide)[:-1] if signed else _rr(b"\x31", RDX, RDX, False)
    out += _quotient(signed, wide)
    result = RDX if wants_rest else RAX
    out += b"" if dst == result else _mov(dst, result, wide)
    out += (b"" if dst == RAX else _mov(RAX, R10)) + (b"" if dst == RDX else _mov(RDX, R9))
    if signed:
        out = _unless_minus_one(out, dst, wants_rest, wide)
    if src is None and value:
        return load + out
    by_zero = (b"" if wide else _mov(dst, dst, False)) if wants_rest else _rr(b"\x31", dst, dst, False)
    skip = _near(len(by_zero)) if by_zero else b""
    return load + _rr(b"\x85", R11, R11, wide) + _jcc_over(4, out + skip) + by_zero


def _quotient(signed: bool, wide: bool) -> bytes:
    """rdx:rax by r11. A 64-bit division of numbers of 32 bits is done as one: CPUs take a fraction of the time for it."""
    divide = _rr(b"\xf7", 7 if signed else 6, R11, wide)
    if signed or not wide:
        return divide
    narrow = _rr(b"\xf7", 6, R11, False)
    test = _mov(RDX, RAX) + _rr(b"\x09", R11, RDX, True)
    test += _rr(b"\xc1", 5, RDX, True) + b"\x20"  # when both are small this leaves 0, the dividend's upper half
    clear = _rr(b"\x31", RDX, RDX, False)
    return test + _over(5, narrow + _near(len(clear) + len(divide))) + clear + divide


def _divisor(value: int, wide: bool) -> bytes:
    return _mov_imm(R11, value if wide else value & 0xFFFFFFFF)


def _by_power(dst: int, value: int, wants_rest: bool, wide: bool) -> bytes:
    if not wants_rest:
        return _shift_imm("rsh", dst, value.bit_length() - 1, wide)
    return _alu_imm(_ALU["and"], dst, value - 1, wide)


def _unless_minus_one(division: bytes, dst: int, wants_rest: bool, wide: bool) -> bytes:
    by_minus_one = _rr(b"\x31", dst, dst, False) if wants_rest else _rr(b"\xf7", 3, dst, wide)
    test = _alu_imm(_ALU["cmp"], R11, -1, wide)
    return test + _jcc_over(4, division + _near(len(by_minus_one))) + by_minus_one


def _near(distance: int) -> bytes:
    """A jump forward."""
    return bytes([0xEB, distance]) if distance < 128 else b"\xe9" + _imm(distance)


def _jcc_over(condition: int, code: bytes) -> bytes:
    """`code`, which may be long, jumped over when the condition holds."""
    if len(code) < 128:
        return _over(condition, code)
    return bytes([0x0F, 0x80 | condition]) + _imm(len(code)) + code


def _bits(name: str) -> int:
    return int("".join(c for c in name if c.isdigit()))


def _load(name: str, insn: Insn) -> bytes:
    bits, dst, base = _bits(name), REGISTERS[insn.dst], REGISTERS[insn.src]
    if name.startswith("ldxs"):
        return _mem({8: b"\x0f\xbe", 16: b"\x0f\xbf", 32: b"\x63"}[bits], dst, base, insn.off, True)
    return _mem({8: b"\x0f\xb6", 16: b"\x0f\xb7", 32: b"\x8b", 64: b"\x8b"}[bits], dst, base, insn.off, bits == 64)


def _store(bits: int, src: int, base: int, disp: int) -> bytes:
    if bits == 8:
        return _mem(b"\x88", src, base, disp, False, force=src > 3)
    return _mem(b"\x89", src, base, disp, bits == 64, prefix=b"\x66" if bits == 16 else b"")


def _store_imm(bits: int, value: int, base: int, disp: int) -> bytes:
    prefix = b"\x66" if bits == 16 else b""
    opcode = b"\xc6" if bits == 8 else b"\xc7"
    return _mem(opcode, 0, base, disp, bits == 64, prefix=prefix) + _imm(value, min(bits // 8, 4))


def _atomic(name: str, insn: Insn) -> bytes:
    wide, kind = name.endswith("64"), name[:-2]
    base, src = REGISTERS[insn.dst], REGISTERS[insn.src]
    lock = b"\xf0"
    if kind == "xchg":
        return _mem(b"\x87", src, base, insn.off, wide)
    if kind == "cmpxchg":  # memory is compared with eax; a 32-bit result clears the upper half
        code = _mem(b"\x0f\xb1", src, base, insn.off, wide, prefix=lock)
        return code if wide else code + _mov(RAX, RAX, False)
    if kind == "fadd":
        return _mem(b"\x0f\xc1", src, base, insn.off, wide, prefix=lock)
    if kind[0] != "f":
        return _mem(bytes([_ALU[kind[1:]] << 3 | 1]), src, base, insn.off, wide, prefix=lock)
    return _fetch_loop(kind[1:], src, base, insn.off, wide)


def _fetch_loop(op: str, src: int, base: int, off: int, wide: bool) -> bytes:
    """Read, compute, write unless somebody else wrote: or, and, xor with the old value as result."""
    place, operand = R10 if base == RAX else base, R10 if src == RAX else src
    loop = _mov(R11, RAX) + _rr(bytes([_ALU[op] << 3 | 1]), operand, R11, wide)
    loop += _mem(b"\x0f\xb1", R11, place, off, wide, prefix=b"\xf0")
    loop += bytes([0x75, (-len(loop) - 2) & 0xFF])
    code = _mov(R10, RAX) + _mem(b"\x8b", RAX, place, off, wide) + loop
    return code if src == RAX else code + _mov(src, RAX, wide) + _mov(RAX, R10)


def _release(name: str, insn: Insn) -> bytes:
    return _store(_bits(name), REGISTERS[insn.src], REGISTERS[insn.dst], insn.off)


def _plain(insn: Insn, name: str, bmi2: bool) -> bytes:
    """The bytes of an instruction that needs nothing from outside and goes nowhere."""
    class_ = insn.opcode & 7
    if class_ in (4, 7):
        return _arithmetic(name, insn, bmi2)
    if name == "lddw":
        return _mov_imm(REGISTERS[insn.dst], insn.imm)
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
        return _rr(b"\x85" if is_set else b"\x39", src, dst, wide)
    if is_set:
        return _rr(b"\xf7", 0, dst, wide) + _imm(insn.imm)
    if insn.imm == 0:
        return _rr(b"\x85", dst, dst, wide)
    return _alu_imm(_ALU["cmp"], dst, insn.imm, wide)


# A program --------------------------------------------------------------------------------------------------------


class _X86(Emitter):
    arch = "x86_64"

    def __init__(self, features: frozenset[str]) -> None:
        super().__init__()
        self.bmi2 = "bmi2" in features

    def remembered(self) -> dict[object, bytes]:
        return _remembered[self.bmi2]

    def address(self, register: int, kind: str, value: int, addend: int = 0) -> None:
        """Load an address that is known when the code is placed."""
        self.reloc(2, kind, value, addend)
        self.parts.append(_rex(True, 0, register) + bytes([0xB8 | register & 7]) + bytes(8))

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
        code = b"".join(_push(REGISTERS[r]) for r in f.saved)
        if has_frame:
            code += _push(RBP) + _mov(RBP, RSP)
        if below:
            code += _alu_imm(_ALU["sub"], RSP, below, True)
        if f.counts:
            code += _store_imm(64, MAY_GOTO_LIMIT, RBP, -f.stack_bytes - 8)
        return code

    def epilogue(self) -> bytes:
        f = self.function
        has_frame, below = self.frame()
        code = b""
        if has_frame:
            code = b"\xc9" if below else _pop(RBP)
        elif below:
            code = _alu_imm(_ALU["add"], RSP, below, True)
        return code + b"".join(_pop(REGISTERS[r]) for r in reversed(f.saved))

    def leave(self) -> bytes:
        return self.epilogue() + b"\xc3"

    # instructions ---------------------------------------------------------------------------------------------

    def plain(self, insn: Insn, name: str) -> bytes:
        return _plain(insn, name, self.bmi2)

    def compare(self, insn: Insn, name: str) -> int:
        self.add(_compare(name, insn))
        return _CONDITIONS[name.removesuffix("_imm")[:-2]]

    def count_down(self) -> int:
        place = -self.function.stack_bytes - 8
        self.add(_mem(b"\x83", _ALU["sub"], RBP, place, True) + b"\x01")
        return 8  # js

    def call_register(self, register: int) -> None:
        self.add(_rr(b"\xff", 2, REGISTERS[register], False))

    def call_outside(self, kind: str, value: int) -> None:
        self.address(RAX, kind, value)
        self.add(b"\xff\xd0")

    def tail_call(self) -> None:
        self.add(_push(RDI) + _push(RDI))  # twice: the stack stays aligned
        self.call_outside("helper", 12)
        gone = self.epilogue() + b"\xff\xe0"
        self.add(_pop(RDI) + _pop(RDI) + _rr(b"\x85", RAX, RAX, True) + _over(4, gone))

    def load_address(self, register: int, kind: str, value: int, addend: int) -> None:
        self.address(REGISTERS[register], kind, value, addend)

    def packet(self, register: int, imm: int, size: int) -> None:
        if register >= 0:
            self.add(_mov(RDI, REGISTERS[register], False) + _alu_imm(_ALU["add"], RDI, imm, False))
        else:
            self.add(_mov_imm(RDI, imm & 0xFFFFFFFF))
        self.add(_mov_imm(RSI, size))
        self.call_outside("packet", 0)
        leave = _rr(b"\x31", RAX, RAX, False) + self.leave()
        self.add(_rr(b"\x85", RAX, RAX, True) + _over(9, leave))

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
            return b"\xe8" + _imm(distance)
        if not jump.long:
            return bytes([0xEB if jump.condition < 0 else 0x70 | jump.condition, distance & 0xFF])
        return (b"\xe9" if jump.condition < 0 else bytes([0x0F, 0x80 | jump.condition])) + _imm(distance)


_remembered: tuple[dict[object, bytes], dict[object, bytes]] = ({}, {})  # without and with BMI2


def emit(functions: list[Function], features: frozenset[str]) -> MachineCode:
    """Translate the functions of a program, the main one first."""
    return _X86(features).emit(functions)

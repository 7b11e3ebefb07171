"""The encoding of x86-64 instructions: what the JIT's other files of this CPU write their code with. Intel's manual, volume 2."""

from __future__ import annotations

RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI = range(8)
R8, R9, R10, R11, R12, R13, R14, R15 = range(8, 16)

# Operation numbers of the two-operand instructions (the row of opcodes 00 to 3f, and the /n of 81).
SYSCALL = b"\x0f\x05"
ALU = {"add": 0, "or": 1, "and": 4, "sub": 5, "xor": 6, "cmp": 7}


def rex(wide: bool, reg: int, rm: int, force: bool = False) -> bytes:
    """The REX prefix where one is needed: 64-bit operands, or registers from r8 on."""
    value = 0x40 | wide << 3 | (reg >> 3) << 2 | rm >> 3
    return bytes([value]) if value != 0x40 or force else b""


def rr(opcode: bytes, reg: int, rm: int, wide: bool, force: bool = False) -> bytes:
    """An instruction of two registers: `reg` field, `rm` field."""
    return rex(wide, reg, rm, force) + opcode + bytes([0xC0 | (reg & 7) << 3 | rm & 7])


def mem(opcode: bytes, reg: int, base: int, disp: int, wide: bool, force: bool = False, prefix: bytes = b"") -> bytes:
    """An instruction of a register and memory at base + disp."""
    low = base & 7
    sib = b"\x24" if low == RSP else b""
    if disp == 0 and low != RBP:
        mode, tail = 0x00, b""
    elif -128 <= disp < 128:
        mode, tail = 0x40, disp.to_bytes(1, "little", signed=True)
    else:
        mode, tail = 0x80, disp.to_bytes(4, "little", signed=True)
    return prefix + rex(wide, reg, base, force) + opcode + bytes([mode | (reg & 7) << 3 | low]) + sib + tail


def imm(value: int, size: int = 4) -> bytes:
    """The low `size` bytes of a number."""
    return (value & (1 << 8 * size) - 1).to_bytes(size, "little")


def mov(dst: int, src: int, wide: bool = True) -> bytes:
    """Copy a register; without `wide` its lower half, and zeros above."""
    return rr(b"\x89", src, dst, wide)


def mov_imm(dst: int, value: int) -> bytes:
    """The shortest load of a 64-bit number."""
    value &= (1 << 64) - 1
    if value == 0:
        return rr(b"\x31", dst, dst, False)
    if value < 1 << 32:
        return rex(False, 0, dst) + bytes([0xB8 | dst & 7]) + imm(value)
    if value >= (1 << 64) - (1 << 31):
        return rr(b"\xc7", 0, dst, True) + imm(value)
    return rex(True, 0, dst) + bytes([0xB8 | dst & 7]) + imm(value, 8)


def alu_imm(op: int, dst: int, value: int, wide: bool) -> bytes:
    """An operation of ALU on a register and a signed 32-bit number."""
    if -128 <= value < 128:
        return rr(b"\x83", op, dst, wide) + imm(value, 1)
    return rr(b"\x81", op, dst, wide) + imm(value)


def push(register: int) -> bytes:
    """Push a register."""
    return rex(False, 0, register) + bytes([0x50 | register & 7])


def pop(register: int) -> bytes:
    """Pop a register."""
    return rex(False, 0, register) + bytes([0x58 | register & 7])


def over(condition: int, code: bytes) -> bytes:
    """`code`, jumped over when the condition holds."""
    return bytes([0x70 | condition, len(code)]) + code


def mem_index(opcode: bytes, reg: int, base: int, index: int, disp: int, wide: bool) -> bytes:
    """An instruction of a register and memory at base + index + disp. `index` is any register but rsp."""
    prefix = 0x40 | wide << 3 | (reg >> 3) << 2 | (index >> 3) << 1 | base >> 3
    code = bytes([prefix]) if prefix != 0x40 else b""
    return code + opcode + bytes([0x84 | (reg & 7) << 3, (index & 7) << 3 | base & 7]) + imm(disp)

"""eBPF to aarch64 (A64). Every register of eBPF has one of the CPU's for its own; arguments are where the C calling convention has them.

    r0 x7   r1 x0   r2 x1   r3 x2   r4 x3   r5 x4   r6 x19   r7 x20   r8 x21   r9 x22   r10 x29        scratch: x9 to x11, x16

The result moves between r0 and x0 where a function ends or a helper returns. Addresses from outside stand in a pool behind the code. Atomics use the
instructions of LSE where the CPU has them, else loops of exclusive loads and stores.
"""

from __future__ import annotations

from ...errors import FeatureError
from ..isa import Insn
from ..maps.machine import LOOKUP, make_routine
from .a64_encoding import (
    ADDS_IMM,
    ANDS,
    FP,
    LOAD,
    LOAD_SIGNED,
    LOGICAL_IMM,
    LR,
    PLAIN,
    SP,
    STORE,
    SUBS,
    SUBS_IMM,
    X0,
    X1,
    X16,
    ZERO,
    add_imm,
    bit_pattern,
    bitfield,
    memory,
    mov,
    mov_imm,
    pop,
    push,
    rrr,
    word,
)
from .code import Function, MachineCode
from .emitter import MAY_GOTO_LIMIT, Emitter, Jump, Known
from .maps import BY_FRAME, BY_RSEQ, routine_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..maps.layout import MapLayout
    from .maps import MapPlan

A, B, C, FRAME = 9, 10, 11, 23
REGISTERS = (7, 0, 1, 2, 3, 4, 19, 20, 21, 22, FP)
R0 = REGISTERS[0]

_CONDITIONS = {
    "jeq": 0,
    "jne": 1,
    "jset": 1,
    "jgt": 8,
    "jge": 2,
    "jlt": 3,
    "jle": 9,
    "jsgt": 12,
    "jsge": 10,
    "jslt": 11,
    "jsle": 13,
}
_VARIABLE_SHIFT = {"lsh": 0x1AC02000, "rsh": 0x1AC02400, "arsh": 0x1AC02800}
_LSE = {"add": 0x38E00000, "and": 0x38E01000, "xor": 0x38E02000, "or": 0x38E03000}  # and: clears what is set


_SIZES = {8: 0, 16: 1, 32: 2, 64: 3}


# Instructions -----------------------------------------------------------------------------------------------------


def _arithmetic(name: str, insn: Insn) -> bytes:
    dst, src = REGISTERS[insn.dst], REGISTERS[insn.src]
    base, immediate = name.removesuffix("_imm"), name.endswith("_imm")
    if base in ("cast", "percpu"):
        return mov(dst, src)
    if base.startswith("movsx"):
        width, bits = base[5:].split("_")
        return bitfield(0x13000000, dst, src, 0, int(bits) - 1, width == "64")
    if base.startswith(("le", "be", "bswap")):
        return _byte_order(base, dst)
    op, wide = base[:-2], base.endswith("64")
    if op == "mov":
        if immediate:
            return mov_imm(dst, insn.imm if wide else insn.imm & 0xFFFFFFFF)
        return mov(dst, src, wide)
    if op == "neg":
        return rrr(PLAIN["sub"], dst, ZERO, dst, wide)
    if immediate:
        return _immediate(op, dst, insn.imm, wide)
    return _operate(op, dst, src, wide)


def _operate(op: str, dst: int, src: int, wide: bool) -> bytes:
    """dst = dst op src. The CPU's division already is what eBPF wants: by zero 0, and no trap."""
    if op in PLAIN:
        return rrr(PLAIN[op], dst, dst, src, wide)
    if op in _VARIABLE_SHIFT:
        return rrr(_VARIABLE_SHIFT[op], dst, dst, src, wide)
    if op == "mul":
        return rrr(0x1B007C00, dst, dst, src, wide)
    divide = 0x1AC00C00 if op[0] == "s" else 0x1AC00800
    if op.endswith("div"):
        return rrr(divide, dst, dst, src, wide)
    return rrr(divide, A, dst, src, wide) + rrr(0x1B008000 | dst << 10, dst, A, src, wide)


def _immediate(op: str, dst: int, value: int, wide: bool) -> bytes:
    if op in _VARIABLE_SHIFT:
        return _shift_imm(op, dst, value & (63 if wide else 31), wide)
    if op in ("add", "sub"):
        code = _add_small(dst, value if op == "add" else -value, wide)
        if code:
            return code
    pattern = bit_pattern(value & (1 << 64) - 1, wide) if op in LOGICAL_IMM else None
    if pattern is not None:
        return word(LOGICAL_IMM[op] | wide << 31 | pattern << 10 | dst << 5 | dst)
    return mov_imm(B, value if wide else value & 0xFFFFFFFF) + _operate(op, dst, B, wide)


def _add_small(dst: int, value: int, wide: bool) -> bytes:
    """dst += value where that takes one instruction; nothing else."""
    opcode, value = (0x11000000, value) if value >= 0 else (0x51000000, -value)
    if value < 4096:
        return word(opcode | wide << 31 | value << 10 | dst << 5 | dst)
    if value & 0xFFF == 0 and value >> 12 < 4096:
        return word(opcode | wide << 31 | 1 << 22 | (value >> 12) << 10 | dst << 5 | dst)
    return b""


def _shift_imm(op: str, dst: int, by: int, wide: bool) -> bytes:
    top = 63 if wide else 31
    if by == 0 and wide:
        return b""
    if op == "lsh":
        return bitfield(0x53000000, dst, dst, -by & top, top - by, wide)
    return bitfield(0x53000000 if op == "rsh" else 0x13000000, dst, dst, by, top, wide)


def _byte_order(base: str, dst: int) -> bytes:
    swaps, bits = not base.startswith("le"), int(base.lstrip("lebswap"))
    if bits == 16:
        turn = word(0x5AC00400 | dst << 5 | dst) if swaps else b""
        return turn + bitfield(0x53000000, dst, dst, 0, 15, False)
    if not swaps:
        return mov(dst, dst, False) if bits == 32 else b""
    return word((0xDAC00C00 if bits == 64 else 0x5AC00800) | dst << 5 | dst)


def _bits(name: str) -> int:
    return int("".join(c for c in name if c.isdigit()))


def _load(name: str, insn: Insn) -> bytes:
    opcode = LOAD_SIGNED if name.startswith("ldxs") else LOAD
    return memory(opcode, _SIZES[_bits(name)], REGISTERS[insn.dst], REGISTERS[insn.src], insn.off)


def _store_imm(bits: int, value: int, base: int, off: int) -> bytes:
    value &= (1 << bits) - 1 if bits < 64 else (1 << 64) - 1
    if value == 0:
        return memory(STORE, _SIZES[bits], ZERO, base, off)
    return mov_imm(B, value) + memory(STORE, _SIZES[bits], B, base, off)


def _ordered(name: str, insn: Insn) -> bytes:
    """Load-acquire and store-release, which take no offset."""
    size = _SIZES[_bits(name)]
    load = name.startswith("acquire")
    base = REGISTERS[insn.src if load else insn.dst]
    code, place = _address(base, insn.off)
    value = REGISTERS[insn.dst if load else insn.src]
    return code + word(size << 30 | (0x08DFFC00 if load else 0x089FFC00) | place << 5 | value)


def _address(base: int, off: int) -> tuple[bytes, int]:
    """Code that computes base + off, and the register with it."""
    return (add_imm(A, base, off), A) if off else (b"", base)


def _atomic(name: str, insn: Insn, lse: bool) -> bytes:
    wide, kind = name.endswith("64"), name[:-2]
    code, place = _address(REGISTERS[insn.dst], insn.off)
    src = REGISTERS[insn.src]
    if kind == "cmpxchg":
        return code + _compare_exchange(place, src, wide, lse)
    fetch = kind[0] == "f" or kind == "xchg"
    op = kind[1:] if kind != "xchg" else kind
    return code + (_atomic_lse if lse else _atomic_loop)(op, place, src, fetch, wide)


def _atomic_lse(op: str, place: int, src: int, fetch: bool, wide: bool) -> bytes:
    size = 2 | wide
    code, operand = b"", src
    if op == "and":
        code, operand = rrr(0x2A200000, B, ZERO, src, wide), B  # mvn
    opcode = 0x38E08000 if op == "xchg" else _LSE[op]
    return code + word(size << 30 | opcode | operand << 16 | place << 5 | (src if fetch else C))


def _exclusive(load: bool, register: int, place: int, wide: bool, status: int = ZERO) -> bytes:
    size = 2 | wide
    if load:
        return word(size << 30 | 0x085FFC00 | place << 5 | register)
    return word(size << 30 | 0x0800FC00 | status << 16 | place << 5 | register)


def _atomic_loop(op: str, place: int, src: int, fetch: bool, wide: bool) -> bytes:
    """Load exclusively, compute, store exclusively; again when somebody else was there."""
    compute = mov(X16, src, wide) if op == "xchg" else rrr(PLAIN[op], X16, B, src, wide)
    loop = _exclusive(True, B, place, wide) + compute + _exclusive(False, X16, place, wide, C)
    loop += word(0x35000000 | (-(len(loop) // 4) & 0x7FFFF) << 5 | C)
    barrier = word(0xD5033BBF)  # dmb ish: a full order, as the kernel has it
    return loop + barrier + (mov(src, B, wide) if fetch else b"")


def _compare_exchange(place: int, src: int, wide: bool, lse: bool) -> bytes:
    size = 2 | wide
    if lse:  # of 32 bits clears the upper half, whether it stored or not
        return word(size << 30 | 0x08E0FC00 | R0 << 16 | place << 5 | src)
    loop = _exclusive(True, B, place, wide)
    loop += rrr(SUBS, ZERO, B, R0, wide) + word(0x54000000 | 3 << 5 | 1)  # b.ne behind the loop
    loop += _exclusive(False, src, place, wide, C)
    loop += word(0x35000000 | (-(len(loop) // 4) & 0x7FFFF) << 5 | C)
    return loop + word(0xD5033BBF) + mov(R0, B, wide)


def _plain(insn: Insn, name: str, lse: bool) -> bytes:
    class_ = insn.opcode & 7
    if class_ in (4, 7):
        return _arithmetic(name, insn)
    if name == "lddw":
        return mov_imm(REGISTERS[insn.dst], insn.imm)
    if name == "nospec":
        return word(0xD503379F) + word(0xD5033FDF)  # dsb nsh; isb: sb is only in newer CPUs
    if name.startswith(("acquire", "release")):
        return _ordered(name, insn)
    if name.startswith("ldx"):
        return _load(name, insn)
    if name.startswith("stx"):
        return memory(STORE, _SIZES[_bits(name)], REGISTERS[insn.src], REGISTERS[insn.dst], insn.off)
    if class_ == 2:
        return _store_imm(_bits(name), insn.imm, REGISTERS[insn.dst], insn.off)
    if class_ == 3:
        return _atomic(name, insn, lse)
    raise FeatureError(f"{name} has no translation to aarch64", feature=f"jit:{name}")


def _compare(name: str, insn: Insn) -> bytes:
    dst, src = REGISTERS[insn.dst], REGISTERS[insn.src]
    wide, is_set = "64" in name, name.startswith("jset")
    if not name.endswith("_imm"):
        return rrr(ANDS if is_set else SUBS, ZERO, dst, src, wide)
    if is_set:
        pattern = bit_pattern(insn.imm & (1 << 64) - 1, wide)
        if pattern is not None:
            return word(LOGICAL_IMM["tst"] | wide << 31 | pattern << 10 | dst << 5 | ZERO)
    elif -4096 < insn.imm < 4096:
        opcode = SUBS_IMM if insn.imm >= 0 else ADDS_IMM
        return word(opcode | wide << 31 | abs(insn.imm) << 10 | dst << 5 | ZERO)
    load = mov_imm(B, insn.imm if wide else insn.imm & 0xFFFFFFFF)
    return load + rrr(ANDS if is_set else SUBS, ZERO, dst, B, wide)


_FREE = frozenset(range(18))  # registers that a C function may change, without the platform's own


def _disturbs(insn: Insn) -> frozenset[int]:
    opcode = insn.opcode
    class_ = opcode & 7
    if class_ in (5, 6):
        if opcode == 0x95:
            return frozenset([X0])
        return (
            _FREE if opcode & ~8 == 0x85 else frozenset([A, B])
        )  # may_goto counts in one, comparisons load immediates into the other
    if class_ == 0 and opcode != 0x18:
        return _FREE
    found = {REGISTERS[insn.dst]} if class_ in (0, 1, 4, 7) else set()
    if class_ in (4, 7):
        found |= {A, B}
    elif class_ in (1, 2, 3):
        found |= {B, C}
        if class_ == 3 and opcode & 0xE0 == 0xC0:
            found |= {A, X16, R0, REGISTERS[insn.dst if insn.imm == 0x100 else insn.src]}
    return frozenset(found & _FREE)


# A program --------------------------------------------------------------------------------------------------------


class _A64(Emitter):
    arch = "aarch64"

    def __init__(self, features: frozenset[str]) -> None:
        super().__init__()
        self.features = features
        self.lse = "lse" in features
        self.literals: dict[tuple[str, int, int], list[tuple[int, int]]] = {}  # what is loaded → (part, register)

    def remembered(self) -> Known:
        return _remembered[self.lse]

    # functions ------------------------------------------------------------------------------------------------

    def saved(self) -> list[tuple[int, int]]:
        """The pairs of registers to be saved; the stack stays at a multiple of 16."""
        registers = [REGISTERS[r] for r in self.function.saved]
        if len(registers) % 2:
            registers.append(ZERO)
        return list(zip(registers[::2], registers[1::2]))

    def below(self) -> int:
        """Bytes below the frame pointer."""
        f = self.function
        return (f.stack_bytes + (8 if f.counts else 0) + 15) & ~15

    def has_frame(self) -> bool:
        """Whether x29 and x30 are saved."""
        return self.function.frame or self.function.counts or self.function.calls

    def prologue(self) -> bytes:
        f = self.function
        code = b"".join(push(*pair) for pair in self.saved())
        if self.has_frame():
            code += push(FP, LR) + add_imm(FP, SP, 0)
        if self.below():
            code += add_imm(SP, SP, -self.below())
        if f.counts:
            code += _store_imm(64, MAY_GOTO_LIMIT, FP, -f.stack_bytes - 8)
        return code

    def epilogue(self) -> bytes:
        code = add_imm(SP, FP, 0) if self.below() else b""
        if self.has_frame():
            code += pop(FP, LR)
        return code + b"".join(pop(*pair) for pair in reversed(self.saved()))

    def leave(self) -> bytes:
        return self.epilogue() + mov(X0, R0) + word(0xD65F03C0)

    # instructions ---------------------------------------------------------------------------------------------

    def plain(self, insn: Insn, name: str) -> bytes:
        return _plain(insn, name, self.lse)

    def compare(self, insn: Insn, name: str) -> int:
        self.add(_compare(name, insn))
        return _CONDITIONS[name.removesuffix("_imm")[:-2]]

    def count_down(self) -> int:
        place = -self.function.stack_bytes - 8
        self.add(memory(LOAD, 3, A, FP, place) + word(SUBS_IMM | 1 << 31 | 1 << 10 | A << 5 | A))
        self.add(memory(STORE, 3, A, FP, place))
        return 4  # mi

    def literal(self, register: int, kind: str, value: int, addend: int = 0) -> None:
        """Load an address from the pool; the distance is filled in when the pool is made."""
        self.literals.setdefault((kind, value, addend), []).append((len(self.parts), register))
        self.parts.append(bytes(4))

    def result(self) -> None:
        """A function has returned in x0."""
        self.add(mov(R0, X0))

    def call_register(self, register: int) -> None:
        self.add(word(0xD63F0000 | REGISTERS[register] << 5))
        self.result()

    def call_outside(self, kind: str, value: int) -> None:
        self.literal(X16, kind, value)
        self.add(word(0xD63F0000 | X16 << 5))
        self.result()

    def disturbs(self, insn: Insn) -> frozenset[int]:
        return _disturbs(insn)

    # maps -----------------------------------------------------------------------------------------------------

    def in_place(self, layout: MapLayout, helper: int) -> bool:
        """Look-ups of arrays: the map is in x0, the key in x1."""
        if helper != LOOKUP or layout.hashed:
            return False
        found = mov_imm(B, layout.entry_stride) + word(
            0x9B000000 | B << 16 | X0 << 10 | R0 << 5 | R0
        )  # madd: map + index * stride
        if layout.per_cpu:
            self.load_cpu(layout.copies)
            found += mov_imm(B, layout.value_stride) + word(0x9B000000 | B << 16 | R0 << 10 | A << 5 | R0)
        found += add_imm(R0, R0, layout.entries)
        self.add(memory(LOAD, 2, R0, X1, 0) + mov_imm(B, layout.max_entries) + rrr(SUBS, ZERO, R0, B, False))
        over = word(0x54000000 | (len(found) // 4 + 2) << 5 | 2)  # b.hs to the load of 0
        self.add(over + found + word(0x14000002) + mov_imm(R0, 0))
        return True

    def load_cpu(self, limit: int) -> None:
        """Load the number of the running CPU into x9; what is not below the limit becomes the plan's fallback."""
        assert self.plan is not None
        if self.plan.cpu == BY_FRAME:
            self.add(memory(LOAD, 2, A, FRAME, 0))
            return
        self.literal(A, self.plan.cpu, 0)
        if self.plan.cpu == BY_RSEQ:
            self.add(word(0xD53BD040 | B))  # mrs x10, tpidr_el0
            self.add(word(0xB8606800 | A << 16 | B << 5 | A))  # ldr w9, [x10, x9]
        else:
            self.add(memory(LOAD, 2, A, A, 0))
        fallback = mov_imm(A, self.plan.cpu_fallback)
        self.add(
            mov_imm(B, limit)
            + rrr(SUBS, ZERO, A, B, False)
            + word(0x54000000 | (len(fallback) // 4 + 1) << 5 | 3)
            + fallback
        )

    def cpu_number(self) -> None:
        self.load_cpu(0x7FFFFFFF)
        self.add(mov(R0, A))

    def routine(self, layout: MapLayout, helper: int) -> None:
        made = make_routine(layout, helper)
        who = REGISTERS[5]
        assert self.plan is not None
        if made.who and self.plan.cpu == BY_FRAME:
            self.add(memory(LOAD, 2, A, FRAME, 0) + add_imm(who, A, 1))
        elif made.who:
            self.literal(who, "owner", 0)
            self.add(memory(LOAD, 2, who, who, 0))
        if made.who and layout.per_cpu:
            self.load_cpu(layout.copies)
            self.add(word(0xAA000000 | A << 16 | 32 << 10 | who << 5 | who))  # orr x4, x4, x9, lsl #32
        self.add(routine_text(made, self.arch, _NEEDED & self.features))

    def tail_call(self) -> None:
        self.add(push(X0, ZERO))
        self.call_outside("helper", 12)
        gone = self.epilogue() + word(0xD61F0000 | R0 << 5)
        skip = word(0xB4000000 | (len(gone) // 4 + 1) << 5 | R0)  # cbz
        self.add(pop(X0, ZERO) + skip + gone)

    def load_address(self, register: int, kind: str, value: int, addend: int) -> None:
        self.literal(REGISTERS[register], kind, value, addend)

    def packet(self, register: int, imm: int, size: int) -> None:
        at = mov_imm(B, imm & 0xFFFFFFFF)
        if register >= 0:
            at += rrr(PLAIN["add"], B, REGISTERS[register], B, False)
        self.add(at + mov(X0, B) + mov_imm(X1, size))
        self.call_outside("packet", 0)
        leave = mov_imm(R0, 0) + self.leave()
        self.add(word(SUBS_IMM | 1 << 31 | R0 << 5 | ZERO) + word(0x54000000 | (len(leave) // 4 + 1) << 5 | 10) + leave)

    # jumps ----------------------------------------------------------------------------------------------------

    def reaches(self, jump: Jump, distance: int) -> bool:
        """A condition reaches a megabyte; a long one is turned around and jumps over a plain jump."""
        return jump.condition < 0 or -(1 << 20) <= distance < 1 << 20

    def size_of(self, jump: Jump) -> int:
        if jump.kind == "call":
            return 8
        return 8 if jump.long else 4

    def render(self, jump: Jump, distance: int) -> bytes:
        words = distance // 4
        if jump.kind == "call":
            return word(0x94000000 | words & 0x3FFFFFF) + mov(R0, X0)
        if jump.condition < 0:
            return word(0x14000000 | words & 0x3FFFFFF)
        if not jump.long:
            return word(0x54000000 | (words & 0x7FFFF) << 5 | jump.condition)
        return word(0x54000000 | 2 << 5 | jump.condition ^ 1) + word(0x14000000 | words - 1 & 0x3FFFFFF)

    def pool(self) -> None:
        """The addresses that the code loads, behind it. Its place is known once all jumps are settled: see `settle`."""
        if self.literals:
            self.parts.append(b"")  # becomes the padding to 8 bytes
        for kind, value, addend in self.literals:
            self.reloc(0, kind, value, addend)
            self.parts.append(bytes(8))

    def settle(self, starts: list[int]) -> bool:
        if not self.literals:
            return False
        first = len(self.parts) - len(self.literals)
        padding = bytes(-starts[first - 1] % 8)
        if self.parts[first - 1] != padding:
            self.parts[first - 1] = padding
            return True
        for number, uses in enumerate(self.literals.values()):
            for part, register in uses:
                words = (starts[first + number] - starts[part]) // 4
                self.parts[part] = word(0x58000000 | (words & 0x7FFFF) << 5 | register)
        return False


_NEEDED = frozenset(["lse"])  # the features that make a difference
_remembered: tuple[Known, Known] = ({}, {})  # without and with LSE


def emit(
    functions: list[Function],
    features: frozenset[str],
    plan: MapPlan | None = None,
    alone: frozenset[int] = frozenset(),
) -> MachineCode:
    """Translate the functions of a program, the main one first; what `plan` has needs no helper."""
    return _A64(features).emit(functions, plan, alone)

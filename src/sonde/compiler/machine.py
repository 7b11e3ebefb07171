"""Machine code before and after register allocation: eBPF operations in blocks.

Registers 0 to 10 are the machine's own; numbers from FIRST_VIRTUAL up are virtual. An operation knows what it reads, writes
and destroys, which is all that the allocator asks.
"""

from __future__ import annotations

from ..bpf.isa import (
    BPF_ALU,
    BPF_ALU64,
    BPF_JMP,
    BPF_JMP32,
    BPF_K,
    BPF_LDX,
    BPF_MEM,
    BPF_MOV,
    BPF_ST,
    BPF_STX,
    BPF_X,
    SIZE_OF_BYTES,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..errors import Span
    from ..spec.object import CoreAccess

FIRST_VIRTUAL = 16
R0, R1, R2, R3, R4, R5, R6, R7, R8, R9, FP = range(11)

MOV64 = BPF_ALU64 | BPF_MOV
MOV32 = BPF_ALU | BPF_MOV
COPY = MOV64 | BPF_X

READS_DST, READS_SRC, WRITES_DST = 1, 2, 4
ACCESS = {
    "mov": READS_SRC | WRITES_DST,
    "movsx": READS_SRC | WRITES_DST,
    "load": READS_SRC | WRITES_DST,
    "alu": READS_DST | READS_SRC | WRITES_DST,
    "unary": READS_DST | WRITES_DST,
    "wide": WRITES_DST,
    "frame": WRITES_DST,
    "store": READS_DST | READS_SRC,
    "jump": READS_DST | READS_SRC,
    "atomic": READS_DST | READS_SRC,
    "goto": 0,
    "call": 0,
    "exit": 0,
}
PURE = frozenset(
    ["mov", "movsx", "load", "alu", "unary", "wide", "frame"]
)  # without effect but for the register written
_CLOBBERED = (R0, R1, R2, R3, R4, R5)


class Op:
    """One operation. `form` is one of:

    alu     dst = dst op (src or imm)       mov    dst = src or imm (32 or 64 bits)     movsx  dst = sign-extended src
    unary   dst = op dst                    wide   dst = 64-bit immediate or symbol
    load    dst = *(src + off)              store  *(dst + off) = src or imm            atomic *(dst + off), src
    jump    if dst op (src or imm) goto     goto   call (`reads` argument registers)    exit
    frame   dst = frame pointer + imm; two instructions in the end
    """

    __slots__ = ("core", "dst", "form", "imm", "kind", "off", "opcode", "reads", "span", "src", "symbol", "target",
                 "volatile")  # fmt: skip

    def __init__(
        self,
        form: str,
        opcode: int = 0,
        dst: int = -1,
        src: int = -1,
        off: int = 0,
        imm: int = 0,
        *,
        target: MBlock | None = None,
        symbol: str = "",
        kind: str = "",
        reads: int = 0,
    ) -> None:
        self.form = form
        self.opcode = opcode
        self.dst = dst
        self.src = src  # -1: the immediate is the operand
        self.off = off
        self.imm = imm
        self.target = target
        self.symbol = symbol  # of a relocation
        self.kind = kind  # of the relocation: map, map_value, subprogram, kfunc; of an atomic: cmpxchg; of a jump: null
        self.reads = reads  # of a call: the number of argument registers
        self.volatile = False
        self.core: CoreAccess | None = None
        self.span: Span | None = None

    def uses(self) -> tuple[int, ...]:
        """Return the registers that are read."""
        form = self.form
        if form == "call":
            return tuple(range(R1, R1 + self.reads))
        if form == "exit":
            return (R0,)
        access = ACCESS[form]
        used: tuple[int, ...] = (self.dst,) if access & READS_DST else ()
        if access & READS_SRC and self.src >= 0:
            used = (*used, self.src)
        return (*used, R0) if self.kind == "cmpxchg" else used

    def defs(self) -> tuple[int, ...]:
        """Return the registers that are written or destroyed."""
        form = self.form
        if form == "call":
            return _CLOBBERED
        if ACCESS[form] & WRITES_DST:
            return (self.dst,)
        if form == "atomic" and self.imm & 1:
            return (R0,) if self.kind == "cmpxchg" else (self.src,)
        return ()

    @property
    def slots(self) -> int:
        """Instruction slots that this takes in the end."""
        return 2 if self.form in ("wide", "frame") else 1

    @property
    def remakable(self) -> bool:
        """True when the result is as cheap to make again as to keep: a constant, an address."""
        return self.form in ("wide", "frame") or (self.form == "mov" and self.src < 0)

    def same(self, other: Op) -> bool:
        """Tell whether two operations do the same."""
        return (
            self.opcode == other.opcode
            and self.dst == other.dst
            and self.src == other.src
            and self.off == other.off
            and self.imm == other.imm
            and self.target is other.target
            and self.symbol == other.symbol
            and self.form == other.form
            and self.kind == other.kind
            and self.core is other.core
        )

    def __repr__(self) -> str:
        target = f" -> {self.target.name}" if self.target is not None else ""
        return (
            f"{self.form} {self.opcode:#x} d{self.dst} s{self.src} off={self.off} imm={self.imm} {self.symbol}{target}"
        )


class MBlock:
    """A straight run of operations; jumps stand at its end only, `next` is where it falls through to."""

    __slots__ = ("depth", "edge", "name", "next", "ops")

    def __init__(self, name: str, depth: int = 0, *, edge: bool = False) -> None:
        self.name = name
        self.ops: list[Op] = []
        self.next: MBlock | None = None
        self.depth = depth  # of loops around it
        self.edge = edge  # holds the copies for one way out of a branch, nothing else

    def successors(self) -> list[MBlock]:
        """Return the blocks that may come after this one."""
        found = [] if self.next is None else [self.next]
        for op in reversed(self.ops):
            if op.target is None:
                break
            found.append(op.target)
        return found


def mov(dst: int, src: int) -> Op:
    """dst = src, 64 bits."""
    return Op("mov", COPY, dst, src)


def mov_imm(dst: int, imm: int) -> Op:
    """dst = imm, sign-extended from 32 bits."""
    return Op("mov", MOV64 | BPF_K, dst, imm=imm)


def alu(operation: int, dst: int, src: int = -1, imm: int = 0, *, wide: bool = True, off: int = 0) -> Op:
    """dst = dst op (src or imm)."""
    opcode = (BPF_ALU64 if wide else BPF_ALU) | operation | (BPF_X if src >= 0 else BPF_K)
    return Op("alu", opcode, dst, src, off, imm)


def load(size: int, dst: int, base: int, off: int) -> Op:
    """dst = *(base + off), zero-extended."""
    return Op("load", BPF_LDX | BPF_MEM | SIZE_OF_BYTES[size], dst, base, off)


def store(size: int, base: int, off: int, src: int = -1, imm: int = 0) -> Op:
    """*(base + off) = src or imm."""
    opcode = (BPF_STX if src >= 0 else BPF_ST) | BPF_MEM | SIZE_OF_BYTES[size]
    return Op("store", opcode, base, src, off, imm)


def jump(operation: int, dst: int, target: MBlock, src: int = -1, imm: int = 0, *, wide: bool = True) -> Op:
    """If dst op (src or imm): goto target."""
    opcode = (BPF_JMP if wide else BPF_JMP32) | operation | (BPF_X if src >= 0 else BPF_K)
    return Op("jump", opcode, dst, src, 0, imm, target=target)

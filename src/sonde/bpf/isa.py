"""The eBPF instruction set: machine code to `Insn` and back, and the one table that all text and checks come from.

Follows RFC 9669 (instruction set v4: conformance groups base32/64, atomic32/64, divmul32/64, packet) and what the kernel
added after it: load-acquire and store-release (6.15), may_goto, addr_space_cast, call by BTF id, the wide loads of
map, function and BTF addresses; and callx (the address of a function in dst), which LLVM writes and user-space machines take. Integers are little-endian in memory; a big-endian object is for `objfile` to turn.

A program counter (pc) counts slots of 8 bytes: a wide load (`lddw`) is one `Insn` and two slots.
"""

from __future__ import annotations

from struct import Struct
from struct import error as StructError

from ..errors import FormatError
from ..record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

# Classes (low three bits of an opcode).
BPF_LD, BPF_LDX, BPF_ST, BPF_STX, BPF_ALU, BPF_JMP, BPF_JMP32, BPF_ALU64 = range(8)

# Source of the second operand of ALU and JMP: the immediate or a register.
BPF_K, BPF_X = 0x00, 0x08

# Arithmetic operations.
BPF_ADD, BPF_SUB, BPF_MUL, BPF_DIV, BPF_OR, BPF_AND, BPF_LSH, BPF_RSH = range(0x00, 0x80, 0x10)
BPF_NEG, BPF_MOD, BPF_XOR, BPF_MOV, BPF_ARSH, BPF_END = range(0x80, 0xE0, 0x10)
BPF_TO_LE, BPF_TO_BE = 0x00, 0x08

# Jump operations.
BPF_JA, BPF_JEQ, BPF_JGT, BPF_JGE, BPF_JSET, BPF_JNE, BPF_JSGT, BPF_JSGE = range(0x00, 0x80, 0x10)
BPF_CALL, BPF_EXIT, BPF_JLT, BPF_JLE, BPF_JSLT, BPF_JSLE, BPF_JCOND = range(0x80, 0xF0, 0x10)

# Sizes and modes of loads and stores.
BPF_W, BPF_H, BPF_B, BPF_DW = 0x00, 0x08, 0x10, 0x18
BPF_IMM, BPF_ABS, BPF_IND, BPF_MEM, BPF_MEMSX, BPF_ATOMIC = 0x00, 0x20, 0x40, 0x60, 0x80, 0xC0
SIZE_OF_BYTES = {1: BPF_B, 2: BPF_H, 4: BPF_W, 8: BPF_DW}

# Immediate of an atomic instruction: one of BPF_ADD, BPF_OR, BPF_AND, BPF_XOR (perhaps with BPF_FETCH), or of these.
BPF_FETCH, BPF_XCHG, BPF_CMPXCHG, BPF_LOAD_ACQ, BPF_STORE_REL = 0x01, 0xE1, 0xF1, 0x100, 0x110

# Source register field of a wide load (opcode LDDW): what the immediate stands for.
BPF_PSEUDO_MAP_FD, BPF_PSEUDO_MAP_VALUE, BPF_PSEUDO_BTF_ID, BPF_PSEUDO_FUNC = 1, 2, 3, 4
BPF_PSEUDO_MAP_IDX, BPF_PSEUDO_MAP_IDX_VALUE = 5, 6

# Source register field of a call: helper by number, local function by relative pc, kernel function by BTF id.
BPF_HELPER_CALL, BPF_PSEUDO_CALL, BPF_PSEUDO_KFUNC_CALL = 0, 1, 2

# Whole opcodes that stand alone.
LDDW = BPF_LD | BPF_IMM | BPF_DW
CALL = BPF_JMP | BPF_CALL
EXIT = BPF_JMP | BPF_EXIT
JA = BPF_JMP | BPF_JA
GOTOL = BPF_JMP32 | BPF_JA
MAY_GOTO = BPF_JMP | BPF_JCOND

FRAME_POINTER = 10
MAX_STACK_BYTES = 512
ACCESS_BYTES = {0x00: 4, 0x08: 2, 0x10: 1, 0x18: 8}  # of a load or store, by bits 3 and 4 of its opcode
MAX_TAIL_CALLS = 33  # in one run
MAX_CALL_FRAMES = 8

_SLOT = Struct("<BBhI")
_READ = Struct("<BBhi")


class Insn:
    """One instruction. `imm` is signed 32-bit, except for a wide load: unsigned 64-bit (low slot | high slot << 32).

    `off` of a jump counts slots from the next instruction, that of a load or store bytes.
    """

    __slots__ = ("dst", "imm", "off", "opcode", "src")

    def __init__(self, opcode: int, dst: int = 0, src: int = 0, off: int = 0, imm: int = 0) -> None:
        self.opcode = opcode
        self.dst = dst
        self.src = src
        self.off = off
        self.imm = imm

    @property
    def slots(self) -> int:
        """Slots of 8 bytes that this instruction takes: 2 for a wide load, otherwise 1."""
        return 2 if self.opcode == LDDW else 1

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Insn):
            return NotImplemented
        return self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def _key(self) -> tuple[int, int, int, int, int]:
        return (self.opcode, self.dst, self.src, self.off, self.imm)

    def __repr__(self) -> str:
        return f"Insn({self.opcode:#04x}, dst={self.dst}, src={self.src}, off={self.off}, imm={self.imm})"


def encode(insns: Iterable[Insn]) -> bytes:
    """Return the machine code. Immediates may be given signed or unsigned; FormatError when a field does not fit."""
    parts: list[bytes] = []
    append = parts.append
    pack = _SLOT.pack
    for insn in insns:
        imm = insn.imm
        try:
            if insn.dst | insn.src > 15:
                raise StructError
            if insn.opcode == LDDW and -(1 << 63) <= imm < 1 << 64:
                append(pack(LDDW, insn.src << 4 | insn.dst, insn.off, imm & 0xFFFFFFFF))
                append(pack(0, 0, 0, imm >> 32 & 0xFFFFFFFF))
            elif -0x80000000 <= imm <= 0xFFFFFFFF:
                append(pack(insn.opcode, insn.src << 4 | insn.dst, insn.off, imm & 0xFFFFFFFF))
            else:
                raise StructError
        except StructError:
            raise FormatError(
                f"instruction {len(parts)} has a field that does not fit its encoding: {insn!r}", offset=len(parts) * 8
            ) from None
    return b"".join(parts)


def decode(code: bytes) -> list[Insn]:
    """Return the instructions of machine code.

    Raises FormatError, naming the pc, for an unknown opcode, a reserved field that is not zero, or a cut-off wide load.
    """
    if len(code) % 8:
        raise FormatError(f"machine code of {len(code)} bytes is not a multiple of 8", offset=len(code) & ~7)
    insns: list[Insn] = []
    slots = _READ.iter_unpack(code)
    pc = 0
    for opcode, regs, off, imm in slots:
        insn = Insn(opcode, regs & 15, regs >> 4, off, imm)
        if opcode == LDDW:
            second = next(slots, None)
            if second is None:
                raise FormatError(f"instruction {pc}: the wide load lacks its second half", offset=pc * 8)
            if second[:3] != (0, 0, 0):
                raise FormatError(f"instruction {pc}: the second half of the wide load is wrong", offset=pc * 8 + 8)
            insn.imm = imm & 0xFFFFFFFF | (second[3] & 0xFFFFFFFF) << 32
        if get_op(insn) is None:
            raise FormatError(f"instruction {pc}: {_complaint(insn)}", offset=pc * 8)
        insns.append(insn)
        pc += insn.slots
    return insns


def _complaint(insn: Insn) -> str:
    known = _index().get(insn.opcode)
    if not known:
        return f"unknown opcode {insn.opcode:#04x}"
    if insn.dst > FRAME_POINTER or insn.src > FRAME_POINTER:
        return f"no such register: r{max(insn.dst, insn.src)}"
    return f"opcode {insn.opcode:#04x} with a reserved field in use: dst={insn.dst} src={insn.src} off={insn.off} imm={insn.imm}"


def iter_pcs(insns: Iterable[Insn]) -> Iterator[tuple[int, Insn]]:
    """Yield each instruction with its pc, counted in slots."""
    pc = 0
    for insn in insns:
        yield pc, insn
        pc += insn.slots


# The table ------------------------------------------------------------------------------------------------------

FREE = 1 << 70  # in a field of Op: any value the encoding can hold
LOW = 1 << 71  # in the immediate of a wide load: any value whose high slot is 0


class Op(Record):
    """One operation: an opcode and the values its other fields must have (`FREE`, `LOW`: any).

    `text` is the assembly with a placeholder for each operand:

    {rd} {rs} {wd} {ws}  64-bit and 32-bit registers (dst, src)       {imm} {hex}    immediate, signed or unsigned hex
    {mem}                "r1 +8": base dst and offset                 {from}         the same with base src
    {pc} {far}           jump target from offset, from immediate      {to} {as}      halves of the immediate, upper first
    {helper} {kfunc}     what a call calls                            {low} {high}   halves of a wide load's immediate
    """

    name: str
    opcode: int
    dst: int
    src: int
    off: int
    imm: int
    text: str

    def matches(self, insn: Insn) -> bool:
        """Tell whether `insn` is this operation; the opcode is known to be equal."""
        return (
            (self.dst == insn.dst or (self.dst == FREE and insn.dst <= FRAME_POINTER))
            and (self.src == insn.src or (self.src == FREE and insn.src <= FRAME_POINTER))
            and (self.off == insn.off or self.off == FREE)
            and (self.imm == insn.imm or self.imm == FREE or (self.imm == LOW and insn.imm < 1 << 32))
        )


# One line each: name, opcode, variants, dst, src, off, imm, text. "*" is any value, "l" LOW. Variants multiply a line:
#   alu   both widths (class, registers r or w) x both sources (register or immediate); {d}, {s} in the text
#   jmp   the same for conditional jumps, where immediates are shown in hexadecimal
#   x     like alu, register source only        k  like alu, no source
#   ends  imm 16, 32, 64                        sx   off 8, 16 and 32 (from memory and registers; 32 in 64-bit only)
#   1248  all four sizes, 124, 48 likewise: {z} is the width in bits
_TABLE = """
add       00 alu  * * 0 0   {d} += {s}
sub       10 alu  * * 0 0   {d} -= {s}
mul       20 alu  * * 0 0   {d} *= {s}
div       30 alu  * * 0 0   {d} /= {s}
sdiv      30 alu  * * 1 0   {d} s/= {s}
or        40 alu  * * 0 0   {d} |= {s}
and       50 alu  * * 0 0   {d} &= {s}
lsh       60 alu  * * 0 0   {d} <<= {s}
rsh       70 alu  * * 0 0   {d} >>= {s}
neg       80 k    * 0 0 0   {d} = -{d}
mod       90 alu  * * 0 0   {d} %= {s}
smod      90 alu  * * 1 0   {d} s%= {s}
xor       a0 alu  * * 0 0   {d} ^= {s}
mov       b0 alu  * * 0 0   {d} = {s}
movsx     b8 sx   * * * 0   {d} = (s{z}){s}
arsh      c0 alu  * * 0 0   {d} s>>= {s}
le        d4 ends * 0 0 *   {rd} = le{z} {rd}
be        dc ends * 0 0 *   {rd} = be{z} {rd}
bswap     d7 ends * 0 0 *   {rd} = bswap{z} {rd}
cast      bf -    * * 1 *   {rd} = addr_space_cast({rs}, {to}, {as})
percpu    bf -    * * -1 0  {rd} = &(void __percpu *)({rs})
ja        05 -    0 0 * 0   goto {pc}
gotol     06 -    0 0 0 *   gotol {far}
gotox     0d -    * 0 0 0   gotox {rd}
may_goto  e5 -    0 0 * 0   may_goto {pc}
jeq       10 jmp  * * * 0   if {d} == {s} goto {pc}
jgt       20 jmp  * * * 0   if {d} > {s} goto {pc}
jge       30 jmp  * * * 0   if {d} >= {s} goto {pc}
jset      40 jmp  * * * 0   if {d} & {s} goto {pc}
jne       50 jmp  * * * 0   if {d} != {s} goto {pc}
jsgt      60 jmp  * * * 0   if {d} s> {s} goto {pc}
jsge      70 jmp  * * * 0   if {d} s>= {s} goto {pc}
jlt       a0 jmp  * * * 0   if {d} < {s} goto {pc}
jle       b0 jmp  * * * 0   if {d} <= {s} goto {pc}
jslt      c0 jmp  * * * 0   if {d} s< {s} goto {pc}
jsle      d0 jmp  * * * 0   if {d} s<= {s} goto {pc}
call      85 -    0 0 0 *   call {helper}
callsub   85 -    0 1 0 *   call {far}
kfunc     85 -    0 2 * *   call {kfunc}
callx     8d -    * 0 0 0   callx {rd}
exit      95 -    0 0 0 0   exit
lddw      18 -    * 0 0 *   {rd} = {hex} ll
lddw_map  18 -    * 1 0 l   {rd} = map[fd:{low}]
lddw_val  18 -    * 2 0 *   {rd} = map[fd:{low}][0]{high}
lddw_btf  18 -    * 3 0 *   {rd} = btf[id:{low}]{high}
lddw_func 18 -    * 4 0 l   {rd} = subprog[{far}]
lddw_idx  18 -    * 5 0 l   {rd} = map[idx:{low}]
lddw_ival 18 -    * 6 0 *   {rd} = map[idx:{low}][0]{high}
ldabs     20 124  0 0 0 *   r0 = *(u{z} *)skb[{imm}]
ldind     40 124  0 * 0 *   r0 = *(u{z} *)skb[{rs} + {imm}]
ldx       61 1248 * * * 0   {rd} = *(u{z} *)({from})
ldxs      81 124  * * * 0   {rd} = *(s{z} *)({from})
st        62 1248 * 0 * *   *(u{z} *)({mem}) = {imm}
stx       63 1248 * * * 0   *(u{z} *)({mem}) = {rs}
nospec    c2 -    0 0 0 0   nospec
aadd      c3 48   * * * 00  lock *(u{z} *)({mem}) += {rs}
aor       c3 48   * * * 40  lock *(u{z} *)({mem}) |= {rs}
aand      c3 48   * * * 50  lock *(u{z} *)({mem}) &= {rs}
axor      c3 48   * * * a0  lock *(u{z} *)({mem}) ^= {rs}
fadd      c3 48   * * * 01  {rs} = atomic{a}_fetch_add((u{z} *)({mem}), {rs})
for       c3 48   * * * 41  {rs} = atomic{a}_fetch_or((u{z} *)({mem}), {rs})
fand      c3 48   * * * 51  {rs} = atomic{a}_fetch_and((u{z} *)({mem}), {rs})
fxor      c3 48   * * * a1  {rs} = atomic{a}_fetch_xor((u{z} *)({mem}), {rs})
xchg      c3 48   * * * e1  {rs} = atomic{a}_xchg((u{z} *)({mem}), {rs})
cmpxchg   c3 48   * * * f1  r0 = atomic{a}_cmpxchg((u{z} *)({mem}), r0, {rs})
acquire   c3 1248 * * * 100 {rd} = load_acquire((u{z} *)({from}))
release   c3 1248 * * * 110 store_release((u{z} *)({mem}), {rs})
"""

_ops: list[Op] = []
_by_opcode: dict[int, list[Op]] = {}


def iter_ops() -> Iterator[Op]:
    """Yield every operation of the instruction set, variants expanded."""
    _index()
    return iter(_ops)


def get_op(insn: Insn) -> Op | None:
    """Return the table entry of `insn`, or None when its opcode is unknown or a reserved field is in use."""
    for op in _index().get(insn.opcode, ()):
        if op.matches(insn):
            return op
    return None


def _index() -> dict[int, list[Op]]:
    if not _by_opcode:
        for line in _TABLE.strip().splitlines():
            _expand(*line.split(None, 7))
        for op in _ops:
            _by_opcode.setdefault(op.opcode, []).append(op)
    return _by_opcode


def _field(text: str) -> int:
    return FREE if text == "*" else LOW if text == "l" else int(text, 16)


def _expand(name: str, opcode: str, variants: str, dst: str, src: str, off: str, imm: str, text: str) -> None:
    op = Op(name, int(opcode, 16), _field(dst), _field(src), _field(off), _field(imm), text)
    if variants == "alu":
        _expand_binary(op, BPF_ALU, BPF_ALU64, "{imm}")
    elif variants == "jmp":
        _expand_binary(op, BPF_JMP32, BPF_JMP, "{hex}")
    elif variants == "k":
        for class_, width, d in ((BPF_ALU, 32, "{wd}"), (BPF_ALU64, 64, "{rd}")):
            _add(op, f"{name}{width}", op.opcode | class_, text=text.replace("{d}", d))
    elif variants == "sx":
        for class_, width, d, s in ((BPF_ALU, 32, "{wd}", "{ws}"), (BPF_ALU64, 64, "{rd}", "{rs}")):
            for bits in (8, 16, 32)[: width // 32 + 1]:
                made = text.replace("{d}", d).replace("{s}", s).replace("{z}", str(bits))
                _add(op, f"{name}{width}_{bits}", op.opcode | class_, off=bits, text=made)
    elif variants == "ends":
        for bits in (16, 32, 64):
            _add(op, f"{name}{bits}", op.opcode, imm=bits, text=text.replace("{z}", str(bits)))
    elif variants == "-":
        _add(op, name, op.opcode, text=text)
    else:
        for size in map(int, variants):
            made = text.replace("{z}", str(size * 8)).replace("{a}", "64" if size == 8 else "")
            _add(op, f"{name}{size * 8}", op.opcode | SIZE_OF_BYTES[size], text=made)


def _expand_binary(op: Op, narrow: int, wide: int, imm: str) -> None:
    for class_, width, reg in ((narrow, 32, "w"), (wide, 64, "r")):
        text = op.text.replace("{d}", f"{{{reg}d}}")
        _add(op, f"{op.name}{width}_imm", op.opcode | class_, src=0, imm=FREE, text=text.replace("{s}", imm))
        _add(op, f"{op.name}{width}", op.opcode | class_ | BPF_X, text=text.replace("{s}", f"{{{reg}s}}"))


def _add(base: Op, name: str, opcode: int, *, src: int = -2, off: int = -2, imm: int = -2, text: str) -> None:
    _ops.append(
        Op(
            name,
            opcode,
            base.dst,
            base.src if src == -2 else src,
            base.off if off == -2 else off,
            base.imm if imm == -2 else imm,
            text,
        )
    )

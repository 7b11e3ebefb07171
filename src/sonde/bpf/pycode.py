"""eBPF to Python source: what the interpreter runs. One Python statement for most instructions, registers in local variables.

Registers hold unsigned 64-bit numbers. Straight runs of instructions become blocks; a block with one way into it stands inside the
branch that leads to it, the others are told apart by a number `b` in a binary tree of comparisons. The line of each instruction's first statement is
kept, so that an exception in the generated code knows its pc at no cost. One table of templates, by the names of `isa`, defines the meaning of
every operation (RFC 9669, section 4 and 5, and the kernel's behaviour for what came later).
"""

from __future__ import annotations

from .flow import Block, callee, split_blocks
from .isa import (
    BPF_ALU,
    BPF_ALU64,
    BPF_JMP,
    BPF_LD,
    BPF_ST,
    EXIT,
    FRAME_POINTER,
    MAX_STACK_BYTES,
    Insn,
    get_op,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    pass

M, W = 0xFFFFFFFFFFFFFFFF, 0xFFFFFFFF
TOP, TOP32 = 1 << 63, 1 << 31
_INLINE_DEPTH = 40  # blocks inside each other; Python's parser takes 100 levels of indentation

_JUMPS = {"jeq": "==", "jne": "!=", "jgt": ">", "jge": ">=", "jlt": "<", "jle": "<=", "jset": "&"}
_SIGNED_JUMPS = {"jsgt": ">", "jsge": ">=", "jslt": "<", "jsle": "<="}
_PLAIN = {"or": "|", "and": "&", "xor": "^"}
_WRAPPING = {"add": "+", "sub": "-", "mul": "*"}
_FETCHES = {"add": "+", "or": "|", "and": "&", "xor": "^"}


class Function:
    """One function of a program: its first pc, its source, and the pc of each line of that."""

    __slots__ = ("lines", "pc", "source")

    def __init__(self, pc: int, source: str, lines: dict[int, int]) -> None:
        self.pc = pc
        self.source = source
        self.lines = lines


def translate(start: int, body: list[tuple[int, Insn]], *, traced: bool = False) -> Function:
    """Return the Python source of one function. Raises FormatError for a jump out of it or into the middle of an instruction.

    With `traced` every instruction calls T(pc, registers) first.
    """
    return _Translator(start, body, traced).run()


class _Translator:
    def __init__(self, start: int, body: list[tuple[int, Insn]], traced: bool) -> None:
        self.start = start
        self.traced = traced
        self.blocks = split_blocks(body)
        self.out: list[str] = []
        self.lines: dict[int, int] = {}
        ways: dict[int, int] = {start: 2}
        for block in self.blocks.values():
            for pc in {block.target, block.next} - {-1}:
                ways[pc] = ways.get(pc, 0) + 1
        self.shared = [pc for pc in self.blocks if ways.get(pc, 0) > 1]
        self.number = {pc: index for index, pc in enumerate(self.shared)}

    def run(self) -> Function:
        count = 0
        while count < len(self.shared):  # again, when blocks that would stand too deep in others became shared ones
            count = len(self.shared)
            self.out.clear()
            self.lines.clear()
            self.emit(0, f"def f{self.start}(vm, r1, r2, r3, r4, r5, k, r10):")
            self.emit(1, "n = vm.left; R = vm.memory.regions; H = vm.helpers; r0 = r6 = r7 = r8 = r9 = b = 0")
            self.emit(1, "while 1:")
            self.tree(0, count, 2)
        return Function(self.start, "\n".join(self.out) + "\n", self.lines)

    def emit(self, depth: int, text: str) -> None:
        self.out.append(" " * depth + text)

    def tree(self, low: int, high: int, depth: int) -> None:
        """Choose among the shared blocks low..high by their numbers."""
        if high - low == 1:
            self.block(self.blocks[self.shared[low]], depth, depth)
            return
        middle = (low + high) // 2
        self.emit(depth, f"if b < {middle}:")
        self.tree(low, middle, depth + 1)
        self.emit(depth, "else:")
        self.tree(middle, high, depth + 1)

    def block(self, block: Block, depth: int, first: int) -> None:
        size = len(block.insns) + (block.end is not None)
        self.lines[len(self.out) + 1] = block.pc
        self.emit(depth, f"n -= {size}")
        self.emit(depth, "if n < 0: vm.stop()")
        for pc, insn in block.insns:
            self.instruction(pc, insn, depth)
        if block.end is None:
            self.go(block.next, depth, first)
            return
        pc, insn = block.end
        self.mark(pc, depth)
        op = get_op(insn)
        assert op is not None
        if insn.opcode == EXIT:
            self.emit(depth, "vm.left = n; return r0")
        elif block.next < 0:
            self.go(block.target, depth, first)
        else:
            self.emit(depth, f"if {_condition(op.name, insn)}:")
            self.go(block.target, depth + 1, first)
            self.emit(depth, "else:")
            self.go(block.next, depth + 1, first)

    def go(self, pc: int, depth: int, first: int) -> None:
        """Continue with the block at `pc`: right here when nothing else leads there."""
        if pc in self.number:
            self.emit(depth, f"b = {self.number[pc]}")
        elif depth - first < _INLINE_DEPTH:
            self.block(self.blocks[pc], depth, first)
        else:
            self.number[pc] = len(self.shared)
            self.shared.append(pc)
            self.emit(depth, f"b = {self.number[pc]}")

    def mark(self, pc: int, depth: int) -> None:
        self.lines[len(self.out) + 1] = pc
        if self.traced:
            self.emit(depth, f"vm.trace({pc}, (r0, r1, r2, r3, r4, r5, r6, r7, r8, r9, r10))")
            self.lines[len(self.out) + 1] = pc

    def instruction(self, pc: int, insn: Insn, depth: int) -> None:
        self.mark(pc, depth)
        for text in _texts_of(pc, insn):
            self.lines[len(self.out) + 1] = pc
            self.emit(depth, text)


# Meaning ----------------------------------------------------------------------------------------------------------


def _condition(name: str, insn: Insn) -> str:
    """A conditional jump as a Python expression."""
    if name == "may_goto":
        return "vm.expired()"
    base, narrow = name.removesuffix("_imm")[:-2], "32" in name
    mask = W if narrow else M
    right = insn.imm & mask if name.endswith("_imm") else None
    left_text = f"(r{insn.dst} & {W})" if narrow else f"r{insn.dst}"
    right_text = (f"(r{insn.src} & {W})" if narrow else f"r{insn.src}") if right is None else str(right)
    if base in _JUMPS:
        return f"{left_text} {_JUMPS[base]} {right_text}"
    top = TOP32 if narrow else TOP
    flipped = f"({right_text} ^ {top})" if right is None else str(right ^ top)
    return f"({left_text} ^ {top}) {_SIGNED_JUMPS[base]} {flipped}"


def _texts_of(pc: int, insn: Insn) -> list[str]:
    """The statements of an instruction; those that depend on nothing but its fields are remembered."""
    class_ = insn.opcode & 7
    key = (insn.opcode, insn.dst, insn.src, insn.off, insn.imm)
    found = _remembered.get(key)
    if found is None:
        op = get_op(insn)
        assert op is not None
        found = _statements(op.name, pc, insn)
        if class_ not in (BPF_LD, BPF_JMP) and len(_remembered) < _REMEMBER:
            _remembered[key] = found
    return found


_REMEMBER = 20_000  # instructions, about 4 MB
_remembered: dict[tuple[int, int, int, int, int], list[str]] = {}


def _statements(name: str, pc: int, insn: Insn) -> list[str]:
    """An instruction that is no jump as Python statements."""
    class_ = insn.opcode & 7
    if class_ in (BPF_ALU, BPF_ALU64):
        return [_arithmetic(name, insn)]
    if class_ == BPF_JMP:
        return _call(name, pc, insn)
    if name.startswith("lddw"):
        return [_wide(name, pc, insn)]
    if class_ == BPF_LD:
        return _packet(name, insn)
    if name == "nospec":
        return ["pass"]
    if name.startswith(("ldx", "acquire")):
        return [f"r{insn.dst} = {_load(name, insn)}"]
    if name.startswith("st") and class_ == BPF_ST:
        return [_store(_bits(name), insn, str(insn.imm & (1 << _bits(name)) - 1))]
    if name.startswith(("stx", "release")):
        bits = _bits(name)
        value = f"r{insn.src}" if bits == 64 else f"r{insn.src} & {(1 << bits) - 1}"
        return [_store(bits, insn, value)]
    return _atomic(name, insn)


def _arithmetic(name: str, insn: Insn) -> str:
    d = f"r{insn.dst}"
    base = name.removesuffix("_imm")
    if base in ("percpu", "cast"):
        return f"{d} = r{insn.src}" if base == "percpu" else f"{d} = vm.cast(r{insn.src}, {insn.imm})"
    if base.startswith(("le", "be", "bswap")):
        return _byte_order(base, d)
    if base.startswith("movsx"):
        to, bits = base[5:].split("_")
        return f"{d} = {_signed(f'r{insn.src}', int(bits))} & {W if to == '32' else M}"
    op, wide = base[:-2], base.endswith("64")
    mask, width = (M, 64) if wide else (W, 32)
    register = not name.endswith("_imm")
    s = f"r{insn.src}" if register else str(insn.imm & mask)
    if op == "mov":
        return f"{d} = {s}" if wide or not register else f"{d} = {s} & {W}"
    if op == "neg":
        return f"{d} = -{d} & {mask}"
    if op in _WRAPPING:
        return f"{d} = {d} {_WRAPPING[op]} {s} & {mask}" if op == "mul" else f"{d} = ({d} {_WRAPPING[op]} {s}) & {mask}"
    if op in _PLAIN:
        return f"{d} = {d} {_PLAIN[op]} {s}" if wide else f"{d} = ({d} {_PLAIN[op]} {s}) & {W}"
    if op in ("lsh", "rsh", "arsh"):
        return _shift(op, d, f"({s} & {width - 1})" if register else str(insn.imm & width - 1), width)
    return _division(op, d, s if wide or not register else f"({s} & {W})", width)


def _shift(op: str, d: str, by: str, width: int) -> str:
    mask = M if width == 64 else W
    if op == "lsh":
        return f"{d} = {d} << {by} & {mask}"
    whole = d if width == 64 else f"({d} & {W})"
    if op == "rsh":
        return f"{d} = {whole} >> {by}"
    return f"{d} = {_signed(d, width)} >> {by} & {mask}"


def _division(op: str, d: str, s: str, width: int) -> str:
    """Division by zero gives 0, a remainder by zero the dividend."""
    a = d if width == 64 else f"({d} & {W})"
    if op == "div":
        return f"{d} = {a} // {s} if {s} else 0"
    if op == "mod":
        return f"{d} = {a} % {s} if {s} else {a}"
    return f"{d} = {op}({a}, {s}, {TOP if width == 64 else TOP32})"


def _signed(text: str, bits: int) -> str:
    """The low bits of an expression, as a signed number."""
    top = 1 << bits - 1
    return f"(({text} ^ {top}) - {top})" if bits == 64 else f"(({text} & {(1 << bits) - 1} ^ {top}) - {top})"


def _byte_order(base: str, d: str) -> str:
    swaps, bits = not base.startswith("le"), int(base.lstrip("lebswap"))
    mask = (1 << bits) - 1
    return f"{d} = swap{bits}({d} & {mask})" if swaps else f"{d} = {d} & {mask}"


def _bits(name: str) -> int:
    return int("".join(c for c in name if c.isdigit()))


def _place(register: int, off: int) -> tuple[str, str]:
    """The region and the offset in it of register + off, as expressions. The stack of the function is at hand as `k`."""
    if register == FRAME_POINTER and 0 <= MAX_STACK_BYTES + off <= MAX_STACK_BYTES:
        return "k", str(MAX_STACK_BYTES + off)
    address = f"r{register}" if not off else f"(a := r{register} + {off} & {M})"
    return f"R[{address} >> 32]", f"{'a' if off else address} & {W}"


def _load(name: str, insn: Insn) -> str:
    bits = _bits(name)
    region, offset = _place(insn.src, insn.off)
    found = f"{region}[{offset}]" if bits == 8 else f"u{bits}({region}, {offset})[0]"
    return f"{_signed(found, bits)} & {M}" if name.startswith("ldxs") else found


def _store(bits: int, insn: Insn, value: str) -> str:
    region, offset = _place(insn.dst, insn.off)
    return f"{region}[{offset}] = {value}" if bits == 8 else f"p{bits}({region}, {offset}, {value})"


def _atomic(name: str, insn: Insn) -> list[str]:
    """Read, compute, write: nothing else runs in between."""
    bits = 64 if name.endswith("64") else 32
    kind = name[:-2]
    mask = (1 << bits) - 1
    s = f"r{insn.src}"
    first = [f"a = (r{insn.dst} + {insn.off}) & {M}; m = R[a >> 32]; a &= {W}; x = u{bits}(m, a)[0]"]
    if kind == "xchg":
        return [*first, f"p{bits}(m, a, {s} & {mask}); {s} = x"]
    if kind == "cmpxchg":
        return [*first, f"p{bits}(m, a, {s} & {mask} if x == r0 & {mask} else x); r0 = x"]
    fetch = kind[0] == "f"
    return [*first, f"p{bits}(m, a, (x {_FETCHES[kind[1:]]} {s}) & {mask})" + (f"; {s} = x" if fetch else "")]


def _wide(name: str, pc: int, insn: Insn) -> str:
    """A wide load; what it stands for besides a number is looked up when it runs, so that code can be shared."""
    d = f"r{insn.dst}"
    if name == "lddw":
        return f"{d} = {insn.imm}"
    if name == "lddw_func":
        return f"{d} = vm.function_address({callee(pc, insn)})"
    low, high = insn.imm & W, insn.imm >> 32
    return f"{d} = vm.wide({insn.src}, {low}, {high})"


def _packet(name: str, insn: Insn) -> list[str]:
    """The legacy loads from a packet: outside of it the program ends with 0."""
    bits = _bits(name)
    at = str(insn.imm & W) if name.startswith("ldabs") else f"(r{insn.src} + {insn.imm}) & {W}"
    return [f"r0 = vm.packet({at}, {bits // 8})", "if r0 < 0: vm.left = n; return 0"]


def _call(name: str, pc: int, insn: Insn) -> list[str]:
    """What may run other code of the program needs to know how many steps are left."""
    if name == "call" and insn.imm == 12:
        return ["vm.left = n; x = vm.tail_call(r1, r2, r3)", "if x is not None: return x"]
    if name == "call":
        return [f"vm.left = n; r0 = H[{insn.imm}](vm, r1, r2, r3, r4, r5) & {M}; n = vm.left"]
    if name == "callx":
        return [f"vm.left = n; r0 = vm.call_address(r{insn.dst}, r1, r2, r3, r4, r5); n = vm.left"]
    if name == "callsub":
        return [f"vm.left = n; r0 = vm.enter({callee(pc, insn)}, r1, r2, r3, r4, r5); n = vm.left"]
    return [f"vm.left = n; r0 = vm.kfunc({insn.imm}, {insn.off})(vm, r1, r2, r3, r4, r5) & {M}; n = vm.left"]

"""Instruction selection: IR to machine operations over virtual registers, one block after the other.

Pointers are kept as (base, constant offset) as long as possible, so that offsets end up in loads and stores. Comparisons are
built into the branch that uses them. Values of less than 64 bits carry rubbish above their width until something
needs them clean; `_clean` knows which operations left zeros there.
"""

from __future__ import annotations

from ..bpf import isa
from ..bpf.helpers import HELPERS
from . import mcode as m
from .frame import Frame
from .ir import COMPARE, CTX, I64, STACK, WIDTH, Block, Const, Function, Inst, Value, bytes_of, is_pointer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ..errors import Span
    from ..spec.target import Target
    from .ir import Terminator

SCRATCH_MAP = "scratch"

_ALU = {
    "add": isa.BPF_ADD, "sub": isa.BPF_SUB, "mul": isa.BPF_MUL, "and": isa.BPF_AND, "or": isa.BPF_OR,
    "xor": isa.BPF_XOR, "shl": isa.BPF_LSH, "lshr": isa.BPF_RSH, "ashr": isa.BPF_ARSH, "udiv": isa.BPF_DIV,
    "umod": isa.BPF_MOD, "sdiv": isa.BPF_DIV, "smod": isa.BPF_MOD,
}  # fmt: skip
_COMMUTATIVE = frozenset(["add", "mul", "and", "or", "xor"])
_NEEDS_ZEXT = frozenset(["lshr", "udiv", "umod"])
_NEEDS_SEXT = frozenset(["ashr", "sdiv", "smod"])
_JUMP = {
    "eq": isa.BPF_JEQ, "ne": isa.BPF_JNE, "ult": isa.BPF_JLT, "ule": isa.BPF_JLE, "ugt": isa.BPF_JGT, "uge": isa.BPF_JGE,
    "slt": isa.BPF_JSLT, "sle": isa.BPF_JSLE, "sgt": isa.BPF_JSGT, "sge": isa.BPF_JSGE, "set": isa.BPF_JSET,
}  # fmt: skip
_INVERSE = {"eq": "ne", "ne": "eq", "ult": "uge", "uge": "ult", "ugt": "ule", "ule": "ugt", "slt": "sge", "sge": "slt",
            "sgt": "sle", "sle": "sgt"}  # fmt: skip
_SWAPPED = {"eq": "eq", "ne": "ne", "ult": "ugt", "ugt": "ult", "ule": "uge", "uge": "ule", "slt": "sgt", "sgt": "slt",
            "sle": "sge", "sge": "sle"}  # fmt: skip
_ATOMIC = {"add": isa.BPF_ADD, "or": isa.BPF_OR, "and": isa.BPF_AND, "xor": isa.BPF_XOR, "xchg": isa.BPF_XCHG,
           "cmpxchg": isa.BPF_CMPXCHG}  # fmt: skip
_CTX_SAFE = 8


def _fits(imm: int) -> bool:
    return -(1 << 31) <= imm < 1 << 31


class Selector:
    """Selects for one function; `blocks` is the result, in layout order."""

    def __init__(self, function: Function, frame: Frame, target: Target) -> None:
        self.function = function
        self.frame = frame
        self.target = target
        self.blocks: list[m.MBlock] = []
        self._registers: dict[Value, int] = {}
        self._bits: dict[Value, int] = {}  # value -> its register is zero from this bit up (64 where absent)
        self._next = m.FIRST_VIRTUAL
        self._entry_of: dict[Block, m.MBlock] = {}
        self._scratch_base = -1
        self._bases: dict[
            str, int
        ] = {}  # map -> register with the address of its data, in this block, since the last call
        self._exit: m.MBlock | None = None  # leaves the program with 0
        self._here = m.MBlock("entry")
        self._span: Span | None = None
        self._uses = _count_uses(function)

    def run(self) -> list[m.MBlock]:
        """Return the machine blocks, entry first."""
        order = _layout(self.function)
        self._entry_of = {block: m.MBlock(block.name) for block in order}
        for block in order:
            for param in block.params:
                self._registers[param] = self._new()
        self._start(self._entry_of[order[0]])
        self._prologue()
        for i, block in enumerate(order):
            if i:
                self._start(self._entry_of[block])
            for inst in block.insts:
                self._span = inst.span
                _SELECT[inst.op](self, inst)
            assert block.end is not None
            self._span = block.end.span
            self._terminate(block.end, order[i + 1] if i + 1 < len(order) else None)
        if self._exit is not None:
            self.blocks.append(self._exit)
        return self.blocks

    # pieces ---------------------------------------------------------------------------------------------------

    def _new(self) -> int:
        self._next += 1
        return self._next

    def _start(self, block: m.MBlock) -> None:
        self.blocks.append(block)
        self._here = block
        self._bases.clear()

    def _leave(self) -> m.MBlock:
        """Return the block, shared by all that need it, that ends the function with 0."""
        if self._exit is None:
            self._exit = m.MBlock("leave")
            self._exit.ops = [m.mov_imm(m.R0, 0), m.Op("exit", isa.EXIT)]
        return self._exit

    def _emit(self, op: m.Op) -> m.Op:
        op.span = self._span
        self._here.ops.append(op)
        return op

    def _prologue(self) -> None:
        for i, param in enumerate(self.function.params):
            register = self._registers[param] = self._new()
            if self._uses.get(param):
                self._emit(m.mov(register, m.R1 + i))
        if self.frame.scratch:
            self._scratch_base = self._lookup_percpu(SCRATCH_MAP)

    def _lookup_percpu(self, name: str) -> int:
        """Call for this CPU's entry 0 of a per-CPU array; leave the program where there is none. Returns the address."""
        slot = self.frame.key_slot
        self._emit(m.store(4, m.FP, slot, imm=0))
        self._emit(m.Op("wide", isa.LDDW, m.R1, symbol=name, kind="map"))
        self._emit(m.mov(m.R2, m.FP))
        self._emit(m.alu(isa.BPF_ADD, m.R2, imm=slot))
        self._call("map_lookup_elem", 2)
        result = self._new()
        self._emit(m.mov(result, m.R0))
        on = m.MBlock("entry-found")
        self._emit(m.jump(isa.BPF_JEQ, result, self._leave(), imm=0))
        self._here.next = on
        self._start(on)
        return result

    def _call(self, helper: str, arguments: int) -> None:
        self._bases.clear()
        self._emit(m.Op("call", isa.CALL, imm=HELPERS[helper].ident, symbol=helper, kind="helper", reads=arguments))

    def _register(self, value: Value) -> int:
        """Return a register that holds `value`; constants and slot addresses are made anew for each use."""
        if isinstance(value, Const):
            register = self._new()
            self._constant(register, value)
            return register
        if isinstance(value, Inst) and value.op in ("alloca", "ptradd", "map_value"):
            base, offset = self._address(value) if value not in self._registers else (self._registers[value], 0)
            if not offset and base != m.FP:
                return base
            register = self._new()
            self._address_into(register, base, offset)
            return register
        if isinstance(value, Inst) and value.op in ("map", "funcaddr"):
            register = self._new()
            self._symbol_into(register, value)
            return register
        return self._registers[value]

    def _constant(self, register: int, value: Const) -> None:
        imm = _signed(value.imm, 64)
        if value.type != I64 and not is_pointer(value.type):
            imm = value.imm & (1 << WIDTH[value.type]) - 1
        if _fits(imm):
            self._emit(m.mov_imm(register, imm))
        elif 0 <= imm < 1 << 32:
            self._emit(m.Op("mov", m.MOV32, register, imm=imm))
        else:
            self._emit(m.Op("wide", isa.LDDW, register, imm=imm & (1 << 64) - 1))

    def _symbol_into(self, register: int, value: Inst) -> None:
        kind = "map" if value.op == "map" else "subprogram"
        self._emit(m.Op("wide", isa.LDDW, register, imm=value.imm, symbol=value.symbol, kind=kind))

    def _data_of(self, value: Inst) -> int:
        """Return a register with the address of a map's data (entry 0)."""
        if value.symbol not in self._bases:
            register = self._bases[value.symbol] = self._new()
            self._emit(m.Op("wide", isa.LDDW, register, symbol=value.symbol, kind="map_value"))
        return self._bases[value.symbol]

    def _address(self, p: Value) -> tuple[int, int]:
        """Return a pointer as a base register and a constant offset."""
        offset = 0
        while isinstance(p, Inst) and p.op == "ptradd" and p not in self._registers:
            step = p.args[1]
            assert isinstance(step, Const)
            offset += _signed(step.imm, 64)
            p = p.args[0]
        if isinstance(p, Inst) and p.op == "alloca":
            if p in self.frame.scratch:
                return self._scratch_base, self.frame.scratch[p] + offset
            return m.FP, self.frame.slots[p] + offset
        if isinstance(p, Inst) and p.op == "map_value":
            return self._data_of(p), p.imm + offset
        return self._register(p), offset

    def _near(self, p: Value, offset: int) -> tuple[int, int]:
        """Like `_address`, with `offset` added and small enough for an instruction."""
        base, extra = self._address(p)
        offset += extra
        if -(1 << 15) <= offset < 1 << 15:
            return base, offset
        register = self._new()
        self._address_into(register, base, offset)
        return register, 0

    def _address_into(self, register: int, base: int, offset: int) -> None:
        self._emit(m.mov(register, base))
        if offset:
            self._emit(m.alu(isa.BPF_ADD, register, imm=offset))

    def _into(self, register: int, value: Value) -> None:
        """Put a value into a given register."""
        if isinstance(value, Const):
            self._constant(register, value)
        elif isinstance(value, Inst) and value.op in ("map", "funcaddr"):
            self._symbol_into(register, value)
        elif isinstance(value, Inst) and value.op in ("alloca", "ptradd", "map_value") and value not in self._registers:
            self._address_into(register, *self._address(value))
        else:
            self._emit(m.mov(register, self._registers[value]))

    def _set(self, inst: Inst, register: int, bits: int = 64) -> None:
        """The result of `inst` is in `register`, zero from bit number `bits` up."""
        self._registers[inst] = register
        self._bits[inst] = bits

    def _copy(self, value: Value) -> int:
        register = self._new()
        self._into(register, value)
        return register

    # widths ---------------------------------------------------------------------------------------------------

    def _clean(self, value: Value, *, signed: bool) -> int:
        """Return a register with the value extended from its width to 64 bits."""
        width = 64 if is_pointer(value.type) else WIDTH[value.type]
        if isinstance(value, Const):
            imm = _signed(value.imm, width) if signed else value.imm & (1 << width) - 1
            return self._register(Const(imm))
        register = self._register(value)
        if width == 64 or (not signed and self._bits.get(value, 64) <= width):
            return register
        result = self._new()
        if signed:
            self._extend_sign(result, register, width)
        elif width == 32:
            self._emit(m.Op("mov", m.MOV32 | isa.BPF_X, result, register))
        else:
            self._emit(m.mov(result, register))
            self._emit(m.alu(isa.BPF_AND, result, imm=(1 << width) - 1))
        return result

    def _extend_sign(self, result: int, register: int, width: int) -> None:
        if width > 1 and self.target.features.have("isa:v4"):
            self._emit(m.Op("movsx", m.MOV64 | isa.BPF_X, result, register, width))
            return
        self._emit(m.mov(result, register))
        self._emit(m.alu(isa.BPF_LSH, result, imm=64 - width))
        self._emit(m.alu(isa.BPF_ARSH, result, imm=64 - width))

    # instructions ---------------------------------------------------------------------------------------------

    def _binary(self, inst: Inst) -> None:
        op, (a, b) = inst.op, inst.args
        if op in _COMMUTATIVE and isinstance(a, Const):
            a, b = b, a
        width = 64 if is_pointer(inst.type) else WIDTH[inst.type]
        if op in _NEEDS_SEXT and op != "ashr" and not self.target.features.have("isa:v4"):
            self._divide_signed(inst)
            return
        clean = op in _NEEDS_ZEXT or op in _NEEDS_SEXT
        result = self._new()
        if clean and width not in (32, 64):
            self._emit(m.mov(result, self._clean(a, signed=op in _NEEDS_SEXT)))
        else:
            self._into(result, a)
        wide = width == 64
        off = 1 if op in ("sdiv", "smod") else 0
        if isinstance(b, Const):
            imm = b.imm & (1 << width) - 1 if op in _NEEDS_ZEXT and width < 32 else _signed(b.imm, width)
            if op in ("shl", "lshr", "ashr"):
                imm &= 63 if wide else 31
            if _fits(imm) and not (imm == 0 and op in ("udiv", "umod", "sdiv", "smod")):
                self._emit(m.alu(_ALU[op], result, imm=imm, wide=wide, off=off))
                self._set(inst, result, _bits_after(op, imm, self._bits.get(a, 64), width))
                return
        source = self._clean(b, signed=op in _NEEDS_SEXT) if clean and width not in (32, 64) else self._register(b)
        self._emit(m.alu(_ALU[op], result, source, wide=wide, off=off))
        self._set(inst, result, 64 if wide else 32)

    def _divide_signed(self, inst: Inst) -> None:
        """Signed division without the instruction: divide the absolute values, then mend the sign."""
        a, b = (self._clean(x, signed=True) for x in inst.args)
        pa, pb, sign = self._new(), self._new(), self._new()
        for result, source in ((pa, a), (pb, b)):
            mask = self._new()
            self._emit(m.mov(mask, source))
            self._emit(m.alu(isa.BPF_ARSH, mask, imm=63))
            self._emit(m.mov(result, source))
            self._emit(m.alu(isa.BPF_XOR, result, mask))
            self._emit(m.alu(isa.BPF_SUB, result, mask))
        self._emit(m.mov(sign, a))
        if inst.op == "sdiv":
            self._emit(m.alu(isa.BPF_XOR, sign, b))
        self._emit(m.alu(isa.BPF_ARSH, sign, imm=63))
        self._emit(m.alu(_ALU[inst.op], pa, pb))
        self._emit(m.alu(isa.BPF_XOR, pa, sign))
        self._emit(m.alu(isa.BPF_SUB, pa, sign))
        self._set(inst, pa)

    def _neg(self, inst: Inst) -> None:
        result = self._copy(inst.args[0])
        self._emit(m.Op("unary", isa.BPF_ALU64 | isa.BPF_NEG, result))
        self._set(inst, result)

    def _bswap(self, inst: Inst) -> None:
        result = self._copy(inst.args[0])
        width = WIDTH[inst.type]
        if width > 8:
            self._emit(m.Op("unary", isa.BPF_ALU | isa.BPF_END | isa.BPF_TO_BE, result, imm=width))
        self._set(inst, result, width)

    def _compare(self, inst: Inst) -> None:
        if self._uses.get(inst) == "branch":
            return  # built into the branch
        result, on = self._new(), m.MBlock("compared")
        self._emit(m.mov_imm(result, 1))
        self._branch_on(inst, on)
        zero = m.MBlock("not")
        self._here.next = zero
        self._start(zero)
        self._emit(m.mov_imm(result, 0))
        zero.next = on
        self._start(on)
        self._set(inst, result, 1)

    def _convert(self, inst: Inst) -> None:
        value = inst.args[0]
        if inst.op in ("trunc", "cast"):
            if isinstance(value, Const):
                self._set(inst, self._register(Const(value.imm, inst.type)))
                return
            self._set(inst, self._register(value), self._bits.get(value, 64))
            return
        if inst.op == "zext":
            register = self._clean(value, signed=False)
            self._set(inst, register, min(WIDTH[value.type], self._bits.get(value, 64)))
            return
        self._set(inst, self._clean(value, signed=True))

    def _ptradd(self, inst: Inst) -> None:
        base, offset = inst.args
        if isinstance(offset, Const):
            return  # folded where it is used
        if isinstance(offset, Inst) and offset.op == "core" and offset.core is not None:
            register = self._copy(base)
            self._emit(m.Op("alu", isa.BPF_ALU64 | isa.BPF_ADD | isa.BPF_K, register, imm=offset.core.value))
            self._set(inst, register)
            return
        register = self._copy(base)
        self._emit(m.alu(isa.BPF_ADD, register, self._register(offset)))
        self._set(inst, register)

    def _core(self, inst: Inst) -> None:
        assert inst.core is not None
        self._set(inst, self._register(Const(inst.core.value)))

    def _load(self, inst: Inst) -> None:
        base, offset = self._near(inst.args[0], inst.offset)
        register = self._new()
        self._emit(m.load(bytes_of(inst.type), register, base, offset))
        self._set(inst, register, 8 * bytes_of(inst.type))

    def _store(self, inst: Inst) -> None:
        p, value = inst.args
        size = bytes_of(value.type)
        if isinstance(value, Const):
            imm = _signed(value.imm, size * 8)
            if _fits(imm):
                base, offset = self._near(p, inst.offset)
                self._emit(m.store(size, base, offset, imm=imm))
                return
        source = self._register(value)
        base, offset = self._near(p, inst.offset)
        self._emit(m.store(size, base, offset, source))

    def _memcpy(self, inst: Inst) -> None:
        dst, src = inst.args
        to, to_offset = self._near(dst, inst.offset)
        base, offset = self._near(src, inst.src_offset)
        for start, size in _pieces(inst.size, to_offset, offset, strict=_strict(dst) or _strict(src)):
            register = self._new()
            self._emit(m.load(size, register, base, offset + start))
            self._emit(m.store(size, to, to_offset + start, register))

    def _memset(self, inst: Inst) -> None:
        to, offset = self._near(inst.args[0], inst.offset)
        for start, size in _pieces(inst.size, offset, offset, strict=_strict(inst.args[0])):
            imm = _signed(int.from_bytes(bytes([inst.imm & 255]) * size, "little"), size * 8)
            if _fits(imm):
                self._emit(m.store(size, to, offset + start, imm=imm))
            else:
                self._emit(m.store(size, to, offset + start, self._register(Const(imm))))

    def _arguments(self, arguments: list[Value]) -> None:
        """Move arguments to r1 … r5: registers first, then what can be made in place."""
        simple = [isinstance(a, Const) or (isinstance(a, Inst) and a.op in ("map", "funcaddr")) for a in arguments]
        for i, a in enumerate(arguments):
            if not simple[i]:
                self._into(m.R1 + i, a)
        for i, a in enumerate(arguments):
            if simple[i]:
                self._into(m.R1 + i, a)

    def _finish_call(self, inst: Inst) -> None:
        if self._uses.get(inst):
            register = self._new()
            self._emit(m.mov(register, m.R0))
            self._set(inst, register)

    def _helper_call(self, inst: Inst) -> None:
        self._arguments(inst.args)
        self._call(inst.symbol, len(inst.args))
        self._finish_call(inst)

    def _callsub(self, inst: Inst) -> None:
        self._arguments(inst.args)
        self._bases.clear()
        kind = "subprogram" if inst.op == "callsub" else "kfunc"
        self._emit(m.Op("call", isa.CALL, imm=0, symbol=inst.symbol, kind=kind, reads=len(inst.args)))
        self._finish_call(inst)

    def _tailcall(self, inst: Inst) -> None:
        self._arguments(inst.args)
        self._call("tail_call", 3)

    def _percpu_value(self, inst: Inst) -> None:
        register = self._lookup_percpu(inst.symbol)
        if inst.imm:
            moved = self._new()
            self._address_into(moved, register, inst.imm)
            register = moved
        self._set(inst, register)

    def _atomic(self, inst: Inst) -> None:
        p, value = inst.args[:2]
        base, offset = self._near(p, inst.offset)
        source = self._copy(value) if inst.fetch else self._register(value)
        size = bytes_of(value.type)
        imm = _ATOMIC[inst.symbol] | (isa.BPF_FETCH if inst.fetch else 0)
        if inst.symbol == "cmpxchg":
            self._into(m.R0, inst.args[2])
        opcode = isa.BPF_STX | isa.BPF_ATOMIC | isa.SIZE_OF_BYTES[size]
        kind = "cmpxchg" if inst.symbol == "cmpxchg" else ""
        self._emit(m.Op("atomic", opcode, base, source, offset, imm, kind=kind))
        if inst.symbol == "cmpxchg":
            self._finish_call(inst)
        elif inst.fetch:
            self._set(inst, source, 8 * size)

    def _bound(self, inst: Inst) -> None:
        """Clamp: values above the upper limit become it, values below the lower one likewise; all unsigned."""
        result = self._new()
        self._emit(m.mov(result, self._clean(inst.args[0], signed=False)))
        mask = inst.imm
        if inst.low == 0 and mask & mask + 1 == 0 and _fits(mask):
            self._emit(m.alu(isa.BPF_AND, result, imm=mask))
        else:
            for limit, operation in ((inst.imm, isa.BPF_JLE), (inst.low, isa.BPF_JGE)):
                if operation == isa.BPF_JGE and not limit:
                    continue
                on, clamp = m.MBlock("bounded"), m.MBlock("clamp")
                self._emit(m.jump(operation, result, on, imm=limit))
                self._here.next = clamp
                self._start(clamp)
                self._emit(m.mov_imm(result, limit))
                clamp.next = on
                self._start(on)
        self._set(inst, result, inst.imm.bit_length())

    def _opaque(self, inst: Inst) -> None:
        self._set(inst, self._copy(inst.args[0]))

    def _nothing(self, inst: Inst) -> None:
        """Addresses of slots, maps and functions are made where they are used."""

    # ends of blocks -------------------------------------------------------------------------------------------

    def _terminate(self, end: Terminator, following: Block | None) -> None:
        if end.op == "jump":
            block, arguments = end.targets[0]
            self._copies(block, arguments)
            self._goto(block, following)
        elif end.op == "branch":
            self._branch(end, following)
        elif end.op == "ret" and end.args and isinstance(end.args[0], Const) and not end.args[0].imm:
            self._emit(m.Op("goto", isa.JA, target=self._leave()))
        elif end.op == "ret":
            if end.args:
                self._return(end.args[0])
            self._emit(m.Op("exit", isa.EXIT))
        else:
            self._emit(m.Op("goto", isa.JA, target=self._leave()))

    def _return(self, value: Value) -> None:
        if value.type == I64 or is_pointer(value.type) or isinstance(value, Const):
            self._into(m.R0, value)
        else:
            self._emit(m.mov(m.R0, self._clean(value, signed=False)))

    def _goto(self, block: Block, following: Block | None) -> None:
        target = self._entry_of[block]
        if block is following:
            self._here.next = target
        else:
            self._emit(m.Op("goto", isa.JA, target=target))

    def _branch(self, end: Terminator, following: Block | None) -> None:
        (yes, yes_args), (no, no_args) = end.targets
        condition = end.args[0]
        if isinstance(condition, Const):
            block, arguments = end.targets[0 if condition.imm else 1]
            self._copies(block, arguments)
            self._goto(block, following)
            return
        edge_yes = self._edge(yes, yes_args)
        edge_no = self._edge(no, no_args)
        if yes is following and edge_yes is self._entry_of[yes]:
            self._branch_on(condition, edge_no, invert=True)
            self._here.next = edge_yes
        else:
            self._branch_on(condition, edge_yes)
            self._here.next = edge_no
            if edge_no is self._entry_of[no] and no is not following:
                step = m.MBlock("far")
                self._here.next = step
                self._start(step)
                self._emit(m.Op("goto", isa.JA, target=edge_no))
        for block, edge, arguments in ((no, edge_no, no_args), (yes, edge_yes, yes_args)):
            if edge is not self._entry_of[block]:
                self._start(edge)
                self._copies(block, arguments)
                last = edge is edge_yes or edge_yes is self._entry_of[yes]
                self._goto(block, following if last else None)

    def _edge(self, block: Block, arguments: list[Value]) -> m.MBlock:
        """Return the block to jump to: a block of its own for copies, where there are any."""
        return m.MBlock("edge") if arguments else self._entry_of[block]

    def _copies(self, block: Block, arguments: list[Value]) -> None:
        """Assign block parameters all at once: through temporaries where one is read after it was written."""
        targets = [self._registers[p] for p in block.params]
        late: list[tuple[int, int]] = []
        sources = {self._registers.get(a) for a in arguments}
        for target, argument in zip(targets, arguments):
            if target in sources and self._registers.get(argument) != target:
                temporary = self._new()
                self._into(temporary, argument)
                late.append((target, temporary))
        done = {target for target, _ in late}
        for target, argument in zip(targets, arguments):
            if target not in done and self._registers.get(argument) != target:
                self._into(target, argument)
        for target, temporary in late:
            self._emit(m.mov(target, temporary))

    def _branch_on(self, condition: Value, target: m.MBlock, *, invert: bool = False) -> None:
        """Emit the jump to `target` for when `condition` is true (or false, with `invert`)."""
        if isinstance(condition, Inst) and condition.op in COMPARE:
            self._compare_jump(condition, target, invert)
            return
        register = self._clean(condition, signed=False)
        self._emit(m.jump(isa.BPF_JEQ if invert else isa.BPF_JNE, register, target, imm=0))

    def _compare_jump(self, compare: Inst, target: m.MBlock, invert: bool) -> None:
        op, (a, b) = compare.op, compare.args
        if isinstance(a, Const) and not isinstance(b, Const):
            a, b, op = b, a, _SWAPPED[op]
        if invert:
            op = _INVERSE[op]
        signed = op[0] == "s"
        width = 64 if is_pointer(a.type) else WIDTH[a.type]
        wide = width == 64 or width < 32
        left = self._register(a) if width in (32, 64) else self._clean(a, signed=signed)
        if isinstance(b, Const):
            imm = _signed(b.imm, width) if signed or width >= 32 else b.imm & (1 << width) - 1
            if _fits(imm):
                self._emit(m.jump(_JUMP[op], left, target, imm=imm, wide=wide))
                return
        right = self._register(b) if width in (32, 64) else self._clean(b, signed=signed)
        self._emit(m.jump(_JUMP[op], left, target, right, wide=wide))


_SELECT: dict[str, Callable[[Selector, Inst], None]] = {
    **dict.fromkeys(_ALU, Selector._binary),
    **dict.fromkeys(COMPARE, Selector._compare),
    **dict.fromkeys(("zext", "sext", "trunc", "cast"), Selector._convert),
    **dict.fromkeys(("alloca", "map", "map_value", "funcaddr"), Selector._nothing),
    "neg": Selector._neg,
    "bswap": Selector._bswap,
    "ptradd": Selector._ptradd,
    "core": Selector._core,
    "load": Selector._load,
    "store": Selector._store,
    "memcpy": Selector._memcpy,
    "memset": Selector._memset,
    "call": Selector._helper_call,
    "callsub": Selector._callsub,
    "kfunc": Selector._callsub,
    "tailcall": Selector._tailcall,
    "percpu_value": Selector._percpu_value,
    "atomic": Selector._atomic,
    "bound": Selector._bound,
    "opaque": Selector._opaque,
}


def _signed(number: int, width: int) -> int:
    number &= (1 << width) - 1
    return number - (1 << width) if number >> width - 1 else number


def _bits_after(op: str, imm: int, bits: int, width: int) -> int:
    """Return from which bit up the register is zero after an operation with a constant; `bits` says it of the operand."""
    machine = 64 if width == 64 else 32
    if op == "lshr":
        return max(min(bits, machine) - imm, 0)
    if op == "and" and imm >= 0:
        return min(bits, imm.bit_length())
    if op == "umod" and imm > 0:
        return (imm - 1).bit_length()
    if op == "udiv" and imm > 0:
        return min(bits, machine) - imm.bit_length() + 1
    return machine


def _strict(p: Value) -> bool:
    """Whether accesses through `p` must be aligned: on the stack and in the context always."""
    return p.type in (STACK, CTX)


def _pieces(size: int, to: int, source: int, *, strict: bool) -> list[tuple[int, int]]:
    """Cut `size` bytes into the fewest aligned accesses: (start, bytes)."""
    pieces = []
    start = 0
    while start < size:
        width = 8
        while width > size - start or (strict and (to + start) % width) or (strict and (source + start) % width):
            width //= 2
        pieces.append((start, width))
        start += width
    return pieces


def _count_uses(function: Function) -> dict[Value, str]:
    """Return how each value is used: "branch" (as the condition of branches only) or "value"."""
    uses: dict[Value, str] = {}
    for block in function.blocks:
        for inst in block.insts:
            for a in inst.args:
                uses[a] = "value"
        if block.end is not None:
            for a in block.end.args:
                kind = "branch" if block.end.op == "branch" else "value"
                uses[a] = kind if uses.get(a, kind) == kind else "value"
            for _, arguments in block.end.targets:
                for a in arguments:
                    uses[a] = "value"
    return uses


def _layout(function: Function) -> list[Block]:
    """Return the reachable blocks in reverse post-order, so that most jumps go forward."""
    seen: set[Block] = set()
    order: list[Block] = []
    stack: list[tuple[Block, int]] = [(function.blocks[0], 0)]
    seen.add(function.blocks[0])
    while stack:
        block, i = stack.pop()
        targets = [t for t, _ in block.end.targets] if block.end else []
        if i < len(targets):
            stack.append((block, i + 1))
            target = targets[len(targets) - 1 - i]
            if target not in seen:
                seen.add(target)
                stack.append((target, 0))
        else:
            order.append(block)
    order.reverse()
    return order

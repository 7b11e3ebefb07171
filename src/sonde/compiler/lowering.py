"""The state while one function is lowered: registers, constants, addresses, widths, the ends of blocks.

Pointers are kept as (base, constant offset) as long as possible,
so that offsets end up in loads and stores. Comparisons are built into the branch that uses them. Values of less than 64 bits
carry rubbish above their width until something needs them clean; `bits` knows what left zeros there.
"""

from __future__ import annotations

from ..bpf import isa
from ..bpf.helpers import HELPERS
from . import machine as m
from .ir import COMPARE, WIDTH, Const, Inst, is_pointer
from .passes.graph import dominators, loop_depths, reachable_blocks

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ..errors import Span
    from ..spec.target import Target
    from .frame import Frame
    from .ir import Block, Function, Terminator, Value

    Select = Mapping[str, Callable[["Lowering", Inst], None]]

SCRATCH_MAP = "scratch"
MADE_IN_PLACE = frozenset(["map", "funcaddr"])  # a new wide load for each use
_ADDRESSES = frozenset(["alloca", "ptradd"])

_JUMP = {
    "eq": isa.BPF_JEQ, "ne": isa.BPF_JNE, "ult": isa.BPF_JLT, "ule": isa.BPF_JLE, "ugt": isa.BPF_JGT, "uge": isa.BPF_JGE,
    "slt": isa.BPF_JSLT, "sle": isa.BPF_JSLE, "sgt": isa.BPF_JSGT, "sge": isa.BPF_JSGE,
}  # fmt: skip
_SWAPPED = {"eq": "eq", "ne": "ne", "ult": "ugt", "ugt": "ult", "ule": "uge", "uge": "ule", "slt": "sgt", "sgt": "slt",
            "sle": "sge", "sge": "sle"}  # fmt: skip


def fits(imm: int) -> bool:
    """Tell whether a number can be an immediate, which is sign-extended from 32 bits."""
    return -0x80000000 <= imm <= 0x7FFFFFFF


def signed(number: int, width: int) -> int:
    """The low `width` bits as a signed number."""
    number &= (1 << width) - 1
    return number - (1 << width) if number >> width - 1 else number


def width_of(value: Value) -> int:
    """The number of bits of a value."""
    return WIDTH.get(value.type, 64)


# Steps by which an offset is computed from a value, through which its range is known.
_OFFSET_STEPS = frozenset(["zext", "sext", "trunc", "cast", "shl", "mul", "add", "and"])


class Lowering:
    """Lowers one function; `blocks` is the result, entry first."""

    def __init__(self, function: Function, frame: Frame, target: Target, select: Select) -> None:
        self.function = function
        self.frame = frame
        self.target = target
        self.blocks: list[m.MBlock] = []
        self.keep: set[int] = set()  # registers whose range the verifier must not lose: rather not on the stack
        self.compared: set[Value] = set()  # what a comparison with a constant gives a range
        self.registers: dict[Value, int] = {}
        self.bits: dict[Value, int] = {}  # value -> its register is zero from this bit up (64 where absent)
        self.uses: dict[Value, int] = {}
        self.fused: set[Inst] = set()  # comparisons and masks that are built into branches
        self.span: Span | None = None
        self.here = m.MBlock("entry")
        self.block: Block = function.blocks[0]
        self.fields: set[Inst] = set()  # places by CO-RE offset that only loads use: the offset goes into these
        self.extended: dict[
            Value, tuple[Block, int, str]
        ] = {}  # value of 32 bits -> where it was extended, register, how
        self.zero_keys: set[Block] = set()  # blocks that leave the key 0 of per-CPU arrays in its slot
        self._select = select
        self._next = m.FIRST_VIRTUAL
        self._idom: dict[Block, Block] = {}
        self._entry_of: dict[Block, m.MBlock] = {}
        self._scratch_base = -1
        self._leave_block: m.MBlock | None = None  # leaves the function with 0
        self._passed: dict[Value, list[int]] = {}  # block parameter -> bits of the arguments passed so far

    @property
    def free_register(self) -> int:
        """The first virtual register that is not in use."""
        return self._next + 1

    def run(self) -> list[m.MBlock]:
        """Return the machine blocks, entry first."""
        order = reachable_blocks(self.function)
        self._idom = dominators(order)
        depths = loop_depths(order)
        self._entry_of = {block: m.MBlock(block.name, depths[block]) for block in order}
        arrivals = self._count_uses(order)
        for block in order:
            for param in block.params:
                self.registers[param] = self.new()
        self._prologue(self._entry_of[order[0]])
        for block in order:
            self.block = block
            if block is not order[0]:
                self.start(self._entry_of[block])
                for param in block.params:
                    passed = self._passed.get(param, [])
                    if len(passed) == arrivals[block]:  # no jump back to here: all arguments were seen
                        self.bits[param] = max(passed)
            for inst in block.insts:
                self.span = inst.span
                self._select[inst.op](self, inst)
            assert block.end is not None
            self.span = block.end.span
            self._terminate(block.end)
        if self._leave_block is not None:
            self.blocks.append(self._leave_block)
        return self.blocks

    def _count_uses(self, order: list[Block]) -> dict[Block, int]:
        """Count the uses of each value, find what branches absorb; return how many jumps lead to each block."""
        uses = self.uses
        arrivals = dict.fromkeys(order, 0)
        conditions: dict[Value, int] = {}
        relocated = False
        for block in order:
            for inst in block.insts:
                for a in inst.args:
                    uses[a] = uses.get(a, 0) + 1
                if inst.op == "core":
                    relocated = True
                elif inst.op in COMPARE and isinstance(inst.args[1], Const):
                    self.compared.add(inst.args[0])
            end = block.end
            assert end is not None
            for a in end.args:
                uses[a] = uses.get(a, 0) + 1
                if end.op == "branch" and isinstance(a, Inst) and a.op in COMPARE:
                    conditions[a] = conditions.get(a, 0) + 1
            for target, arguments in end.targets:
                arrivals[target] += 1
                for a in arguments:
                    uses[a] = uses.get(a, 0) + 1
        for a, count in conditions.items():
            if count == uses[a] and isinstance(a, Inst):
                self.fused.add(a)
                masked = a.args[0]
                if count == 1 and self._is_mask_test(a) and uses[masked] == 1 and isinstance(masked, Inst):
                    self.fused.add(masked)
        if relocated:
            self._find_fields(order)
        return arrivals

    def _find_fields(self, order: list[Block]) -> None:
        """Find the places `pointer + CO-RE offset` that are only loaded from."""
        loads: dict[Value, int] = {}
        for block in order:
            for inst in block.insts:
                if inst.op == "load" and not inst.offset:
                    loads[inst.args[0]] = loads.get(inst.args[0], 0) + 1
        for place, count in loads.items():
            if isinstance(place, Inst) and place.op == "ptradd" and count == self.uses[place]:
                offset = place.args[1]
                if isinstance(offset, Inst) and offset.core is not None and 0 <= offset.core.value < 0x8000:
                    self.fields.add(place)

    def keep_range(self, offset: Value) -> None:
        """Keep in a register what an offset was computed from and a comparison gave a range.

        Verifiers before Linux 6.8 do not know the range of what was stored on the stack before it was compared.
        """
        while True:
            if offset in self.compared:
                self.keep.add(self.register(offset))
            if not isinstance(offset, Inst) or offset.op not in _OFFSET_STEPS:
                return
            offset = offset.args[0]

    def _is_mask_test(self, compare: Inst) -> bool:
        """Tell whether this is `x & constant == 0` or `!= 0`."""
        masked, zero = compare.args
        if compare.op not in ("eq", "ne") or not isinstance(zero, Const) or zero.imm:
            return False
        if not isinstance(masked, Inst) or masked.op != "and":
            return False
        mask = masked.args[1]
        return isinstance(mask, Const) and fits(signed(mask.imm, width_of(masked)))

    # registers ------------------------------------------------------------------------------------------------

    def new(self) -> int:
        """Return a new virtual register."""
        self._next += 1
        return self._next

    def start(self, block: m.MBlock) -> None:
        """Continue in a new block."""
        self.blocks.append(block)
        self.here = block

    def split(self, name: str) -> m.MBlock:
        """Return a new block to continue in later, as deep in loops as the current one."""
        return m.MBlock(name, self.here.depth)

    def fall_into(self, block: m.MBlock) -> None:
        """End the current block by falling through to `block`, and continue there."""
        self.here.next = block
        self.start(block)

    def leave(self) -> m.MBlock:
        """Return the block, shared by all that need it, that ends the function with 0."""
        if self._leave_block is None:
            self._leave_block = m.MBlock("leave")
            self._leave_block.ops = [m.mov_imm(m.R0, 0), m.Op("exit", isa.EXIT)]
        return self._leave_block

    def emit(self, op: m.Op) -> m.Op:
        """Append an operation to the current block."""
        op.span = self.span
        self.here.ops.append(op)
        return op

    def set(self, inst: Inst, register: int, bits: int = 64) -> None:
        """The result of `inst` is in `register`, zero from bit number `bits` up."""
        self.registers[inst] = register
        self.bits[inst] = bits

    def register(self, value: Value) -> int:
        """Return a register that holds `value`; constants and addresses are made anew for each use."""
        found = self.registers.get(value)
        if found is not None:
            return found
        if isinstance(value, Inst) and value.op in _ADDRESSES:
            base, offset = self.address(value)
            if not offset and base != m.FP:
                return base
        register = self.new()
        self.into(register, value)
        return register

    def copy(self, value: Value) -> int:
        """Return a new register that holds `value` and may be changed."""
        register = self.new()
        self.into(register, value)
        return register

    def into(self, register: int, value: Value) -> None:
        """Put a value into a given register."""
        found = self.registers.get(value)
        if found is not None:
            self.emit(m.mov(register, found))
        elif isinstance(value, Const):
            self.constant(register, value)
        elif isinstance(value, Inst) and value.op in MADE_IN_PLACE:
            kind = "map" if value.op == "map" else "subprogram"
            self.emit(m.Op("wide", isa.LDDW, register, symbol=value.symbol, kind=kind))
        else:
            assert isinstance(value, Inst) and value.op in _ADDRESSES, f"%{value.name} has no register"
            self.address_into(register, *self.address(value))

    def constant(self, register: int, value: Const) -> None:
        """Load a constant in the shortest way; narrow ones are clean."""
        width = width_of(value)
        imm = signed(value.imm, 64) if width == 64 else value.imm & (1 << width) - 1
        if fits(imm):
            self.emit(m.mov_imm(register, imm))
        elif 0 <= imm < 1 << 32:
            self.emit(m.Op("mov", m.MOV32, register, imm=signed(imm, 32)))
        else:
            self.emit(m.Op("wide", isa.LDDW, register, imm=imm & (1 << 64) - 1))

    # addresses ------------------------------------------------------------------------------------------------

    def address(self, p: Value) -> tuple[int, int]:
        """Return a pointer as a base register and a constant offset."""
        offset = 0
        while isinstance(p, Inst) and p.op == "ptradd" and p not in self.registers:
            step = p.args[1]
            assert isinstance(step, Const)
            offset += signed(step.imm, 64)
            p = p.args[0]
        if isinstance(p, Inst) and p.op == "alloca":
            if p in self.frame.scratch:
                return self._scratch_base, self.frame.scratch[p] + offset
            return m.FP, self.frame.slots[p] + offset
        return self.register(p), offset

    def near(self, p: Value, offset: int) -> tuple[int, int]:
        """Like `address`, with `offset` added and small enough for an instruction."""
        base, extra = self.address(p)
        offset += extra
        if -0x8000 <= offset < 0x7F00:  # some room for the pieces of a copy
            return base, offset
        register = self.new()
        self.address_into(register, base, offset)
        return register, 0

    def address_into(self, register: int, base: int, offset: int) -> None:
        """register = base + offset."""
        if base == m.FP:
            self.emit(m.Op("frame", dst=register, imm=offset))
            return
        self.emit(m.mov(register, base))
        if offset and fits(offset):
            self.emit(m.alu(isa.BPF_ADD, register, imm=offset))
        elif offset:
            far = self.new()
            self.constant(far, Const(offset))
            self.emit(m.alu(isa.BPF_ADD, register, far))

    # widths ---------------------------------------------------------------------------------------------------

    def clean(self, value: Value, *, sign: bool) -> int:
        """Return a register with the value extended from its width to 64 bits."""
        width = width_of(value)
        if isinstance(value, Const):
            return self.register(Const(signed(value.imm, width) if sign else value.imm & (1 << width) - 1))
        register = self.register(value)
        bits = self.bits.get(value, 64)
        if width == 64 or (bits < width if sign else bits <= width):
            return register
        result = self.new()
        if sign:
            self._extend_sign(result, register, width)
        elif width == 32:
            self.emit(m.Op("mov", m.MOV32 | isa.BPF_X, result, register))
        else:
            self.emit(m.mov(result, register))
            self.emit(m.alu(isa.BPF_AND, result, imm=(1 << width) - 1))
        return result

    def _extend_sign(self, result: int, register: int, width: int) -> None:
        if width > 1 and self.target.features.have("isa:v4"):
            self.emit(m.Op("movsx", m.COPY, result, register, width))
            return
        self.emit(m.mov(result, register))
        self.emit(m.alu(isa.BPF_LSH, result, imm=64 - width))
        self.emit(m.alu(isa.BPF_ARSH, result, imm=64 - width))

    # calls ----------------------------------------------------------------------------------------------------

    def _prologue(self, entry: m.MBlock) -> None:
        self.start(entry)
        for i, param in enumerate(self.function.params):
            register = self.registers[param] = self.new()
            if self.uses.get(param):
                self.emit(m.mov(register, m.R1 + i))
        if self.frame.scratch:
            self._scratch_base = self.lookup_percpu(SCRATCH_MAP)

    def lookup_percpu(self, name: str) -> int:
        """Call for this CPU's entry 0 of a per-CPU array; leave the program where there is none. Returns the address."""
        slot = self.frame.key_slot
        if not self._key_is_zero():
            self.emit(m.store(4, m.FP, slot, imm=0))
            self.zero_keys.add(self.block)
        self.emit(m.Op("wide", isa.LDDW, m.R1, symbol=name, kind="map"))
        self.address_into(m.R2, m.FP, slot)
        self.call_helper("map_lookup_elem", 2)
        result = self.new()
        self.emit(m.mov(result, m.R0))
        self.emit(m.jump(isa.BPF_JEQ, result, self.leave(), imm=0)).kind = "null"
        self.fall_into(self.split("found"))
        return result

    def _key_is_zero(self) -> bool:
        """Tell whether the slot for the key 0 was written on every way to here."""
        if not self.zero_keys:
            return False
        block = self.block
        while block not in self.zero_keys and self._idom[block] is not block:
            block = self._idom[block]
        return block in self.zero_keys

    def call_helper(self, helper: str, arguments: int) -> None:
        """Emit the call of a helper; its arguments are in place."""
        self.emit(m.Op("call", isa.CALL, imm=HELPERS[helper].ident, symbol=helper, kind="helper", reads=arguments))

    # ends of blocks -------------------------------------------------------------------------------------------

    def _terminate(self, end: Terminator) -> None:
        if end.op == "jump":
            block, arguments = end.targets[0]
            self._copies(block, arguments)
            self.here.next = self._entry_of[block]
        elif end.op == "branch":
            self._branch(end)
        elif end.op == "ret" and end.args and not (isinstance(end.args[0], Const) and not end.args[0].imm):
            self._return(end.args[0])
            self.emit(m.Op("exit", isa.EXIT))
        else:
            self.here.next = self.leave()

    def _return(self, value: Value) -> None:
        if width_of(value) == 64 or isinstance(value, Const):
            self.into(m.R0, value)
        else:
            self.emit(m.mov(m.R0, self.clean(value, sign=False)))

    def _branch(self, end: Terminator) -> None:
        condition = end.args[0]
        if isinstance(condition, Const):
            block, arguments = end.targets[0 if condition.imm & (1 << width_of(condition)) - 1 else 1]
            self._copies(block, arguments)
            self.here.next = self._entry_of[block]
            return
        yes, no = (self._edge(block, arguments) for block, arguments in end.targets)
        self.branch_on(condition, yes, no)
        for (block, arguments), edge in zip(end.targets, (yes, no)):
            if arguments:
                self.start(edge)
                self._copies(block, arguments)
                edge.next = self._entry_of[block]

    def _edge(self, block: Block, arguments: list[Value]) -> m.MBlock:
        """Return the block to jump to: a block of its own for copies, where there are any."""
        entry = self._entry_of[block]
        return m.MBlock("edge", min(self.here.depth, entry.depth), edge=True) if arguments else entry

    def _copies(self, block: Block, arguments: list[Value]) -> None:
        """Assign block parameters all at once: each copy waits until nobody reads its target any more."""
        pending: list[tuple[int, Value | None, int]] = []  # target, argument, register that it is made from
        for param, argument in zip(block.params, arguments):
            self._passed.setdefault(param, []).append(self._bits_of(argument))
            target = self.registers[param]
            if self.registers.get(argument) != target:
                pending.append((target, argument, self._source(argument)))
        while pending:
            read = [source for _, _, source in pending]
            for i, (target, value, source) in enumerate(pending):
                if read.count(target) == (source == target):
                    if value is None:
                        self.emit(m.mov(target, source))
                    else:
                        self.into(target, value)
                    del pending[i]
                    break
            else:  # they go round in a circle
                target, value, _ = pending[0]
                assert value is not None
                pending[0] = (target, None, self.copy(value))

    def _source(self, value: Value) -> int:
        """Return the register that a value is in or would be made from; -1 for none."""
        found = self.registers.get(value)
        if found is None and isinstance(value, Inst) and value.op in _ADDRESSES:
            return self.address(value)[0]
        return -1 if found is None else found

    def _bits_of(self, value: Value) -> int:
        if isinstance(value, Const):
            return (value.imm & (1 << width_of(value)) - 1).bit_length()
        return self.bits.get(value, 64)

    def branch_on(self, condition: Value, yes: m.MBlock, no: m.MBlock) -> None:
        """End the current block: to `yes` when `condition` is not 0, else to `no`."""
        if isinstance(condition, Inst) and condition.op in COMPARE:
            self._compare_branch(condition, yes, no)
            return
        width = width_of(condition)
        register = self.register(condition)
        if width >= 32 or self.bits.get(condition, 64) <= width:
            self.emit(m.jump(isa.BPF_JNE, register, yes, imm=0, wide=width == 64))
        else:
            self.emit(m.jump(isa.BPF_JSET, register, yes, imm=(1 << width) - 1, wide=False))
        self.here.next = no

    def _compare_branch(self, compare: Inst, yes: m.MBlock, no: m.MBlock) -> None:
        op, (a, b) = compare.op, compare.args
        if isinstance(a, Const):
            a, b, op = b, a, _SWAPPED[op]
        width = width_of(a)
        if op in ("eq", "ne") and isinstance(b, Const) and not b.imm:
            mask = self._mask_of(a, width)
            if mask:
                yes, no = (yes, no) if op == "ne" else (no, yes)
                tested = a.args[0] if a in self.fused and isinstance(a, Inst) else a
                self.emit(m.jump(isa.BPF_JSET, self.register(tested), yes, imm=mask, wide=width == 64))
                self.here.next = no
                return
        jump = self.emit(self._compare_jump(op, a, b, width, yes))
        if is_pointer(a.type):
            jump.kind = "null"
        self.here.next = no

    def _mask_of(self, a: Value, width: int) -> int:
        """Return the mask to test for `a != 0`; 0 when the whole register is to be compared."""
        if a in self.fused and isinstance(a, Inst):
            mask = a.args[1]
            assert isinstance(mask, Const)
            return signed(mask.imm, width) if width >= 32 else mask.imm & (1 << width) - 1
        return (1 << width) - 1 if width < 32 and self.bits.get(a, 64) > width else 0

    def _compare_jump(self, op: str, a: Value, b: Value, width: int, target: m.MBlock) -> m.Op:
        sign = op[0] == "s"
        whole = width in (32, 64)
        wide = width == 64
        known = self._extension(a, op, b)
        if known is not None:
            left, wide = known
        else:
            left = self.register(a) if whole else self.clean(a, sign=sign)
        if isinstance(b, Const):
            imm = signed(b.imm, width) if sign or whole else b.imm & (1 << width) - 1
            if fits(imm):
                return m.jump(_JUMP[op], left, target, imm=imm, wide=wide or not whole)
        right = self.register(b) if whole else self.clean(b, sign=sign)
        return m.jump(_JUMP[op], left, target, right, wide=wide or not whole)

    def note_extension(self, value: Value, register: int, how: str) -> None:
        """Remember that a value of 32 bits is in `register` too, extended."""
        if width_of(value) == 32 and not isinstance(value, Const) and self.registers.get(value) != register:
            self.extended[value] = self.block, register, how

    def _extension(self, a: Value, op: str, b: Value) -> tuple[int, bool] | None:
        """Return the register to compare in place of a 32-bit value that was extended before, and whether in 64 bits.

        What the verifier learns of one register it does not know of a copy that was extended.
        """
        found = self.extended.get(a)
        if found is None:
            return None
        home, register, how = found
        block = self.block
        while block is not home:
            if self._idom[block] is block:
                return None
            block = self._idom[block]
        if not isinstance(b, Const):
            return register, False
        if how == "zext":
            return register, op[0] != "s" and b.imm & 0xFFFFFFFF < 1 << 31
        return register, op[0] != "u"

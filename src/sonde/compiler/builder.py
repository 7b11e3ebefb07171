"""Builder: the comfortable way to make IR. It appends to a current block and folds nothing but the trivial."""

from __future__ import annotations

from ..errors import Span
from ..spec.object import CoreAccess
from .ir import (
    BINARY,
    BTF,
    COMPARE,
    I1,
    I64,
    MAP,
    MAPOBJ,
    NONE,
    STACK,
    Block,
    Const,
    Function,
    Inst,
    Module,
    Param,
    Terminator,  # fmt: skip
    Value,
)
from .ir import FUNC as FUNC_TYPE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


class Builder:
    """Builds one function. Integer operands may be given as Python ints: they take the type of the other side.

    After a terminator the current block is closed: `block()` opens another. Instructions built while no
    block is open go to a block that nothing jumps to, and vanish.
    """

    def __init__(self, module: Module, function: Function) -> None:
        self.module = module
        self.function = function
        module.functions[function.name] = function
        self.span: Span | None = None
        self._names = 0
        self._slots = 0
        self.entry = self.new_block("entry")
        self.current = self.entry

    # blocks ---------------------------------------------------------------------------------------------------

    def new_block(self, hint: str = "b", types: Sequence[str] = ()) -> Block:
        """Make a block with parameters of these types and add it to the function; does not move there."""
        self._names += 1
        name = hint if hint == "entry" else f"{hint}.{self._names}"
        block = Block(name, [Param(t, f"p{self._names}.{i}") for i, t in enumerate(types)])
        self.function.blocks.append(block)
        return block

    def at(self, block: Block) -> Block:
        """Continue at the end of `block`; returns it."""
        self.current = block
        return block

    @property
    def closed(self) -> bool:
        """True when the current block already has its terminator."""
        return self.current.end is not None

    # instructions ---------------------------------------------------------------------------------------------

    def emit(self, inst: Inst) -> Inst:
        """Append `inst`, give it a name and the current span."""
        if self.closed:
            self.current = self.new_block("dead")
        self._names += 1
        inst.name = inst.name or f"v{self._names}"
        inst.span = inst.span or self.span
        self.current.insts.append(inst)
        return inst

    def const(self, imm: int, type_: str = I64) -> Const:
        """A constant; nothing is emitted."""
        return Const(imm, type_)

    def binary(self, op: str, a: Value | int, b: Value | int) -> Inst:
        """Arithmetic or comparison by operation name; the types of both sides must agree."""
        if isinstance(a, int):
            if isinstance(b, int):
                raise TypeError("one operand must be a value")
            a = Const(a, b.type)
        if isinstance(b, int):
            b = Const(b, a.type)
        if op not in BINARY and op not in COMPARE:
            raise ValueError(f"no such operation: {op}")
        return self.emit(Inst(op, I1 if op in COMPARE else a.type, [a, b]))

    def unary(self, op: str, a: Value) -> Inst:
        """`neg` or `bswap`."""
        return self.emit(Inst(op, a.type, [a]))

    def convert(self, op: str, a: Value, type_: str) -> Value:
        """`zext`, `sext`, `trunc` or `cast` to `type_`; the value itself when it has that type already."""
        return a if a.type == type_ else self.emit(Inst(op, type_, [a]))

    def ptradd(self, p: Value, offset: Value | int) -> Value:
        """Address `offset` bytes after `p`."""
        if isinstance(offset, int):
            if offset == 0:
                return p
            offset = Const(offset)
        return self.emit(Inst("ptradd", p.type, [p, offset]))

    def alloca(self, size: int, align: int = 8, name: str = "") -> Inst:
        """Reserve `size` bytes for the whole run of the function; always placed at the top of the entry block."""
        self._names += 1
        inst = Inst("alloca", STACK, [], size=size, align=align, name=f"{name or 'slot'}.{self._names}", span=self.span)
        self.entry.insts.insert(self._slots, inst)
        self._slots += 1
        return inst

    def load(self, type_: str, p: Value, offset: int = 0, *, volatile: bool = False) -> Inst:
        """Load a value of `type_` from `p + offset`."""
        return self.emit(Inst("load", type_, [p], offset=offset, volatile=volatile))

    def store(self, p: Value, v: Value, offset: int = 0, *, volatile: bool = False) -> None:
        """Store `v` (its type gives the width) at `p + offset`."""
        self.emit(Inst("store", NONE, [p, v], offset=offset, volatile=volatile))

    def memcpy(
        self, dst: Value, src: Value, size: int, *, offset: int = 0, src_offset: int = 0, align: int = 1
    ) -> None:
        """Copy a constant number of bytes between memory that may be accessed directly; no overlap."""
        self.emit(Inst("memcpy", NONE, [dst, src], size=size, offset=offset, src_offset=src_offset, align=align))

    def memset(self, dst: Value, size: int, byte: int = 0, *, offset: int = 0, align: int = 1) -> None:
        """Fill a constant number of bytes."""
        self.emit(Inst("memset", NONE, [dst], size=size, imm=byte, offset=offset, align=align))

    def core(self, access: CoreAccess) -> Inst:
        """The value of a CO-RE access on the target."""
        return self.emit(Inst("core", I64, [], core=access))

    def map(self, name: str) -> Inst:
        """A map as a helper's argument."""
        return self.emit(Inst("map", MAPOBJ, [], symbol=name))

    def map_value(self, name: str, offset: int = 0) -> Value:
        """Address of global data."""
        return self.ptradd(self.emit(Inst("map_value", MAP, [], symbol=name)), offset)

    def ksym(self, name: str) -> Inst:
        """Address of a variable of the kernel, by its type in BTF: what helpers of per-CPU data take, and what may be loaded from directly."""
        return self.emit(Inst("ksym", BTF, [], symbol=name))

    def percpu_value(self, name: str, offset: int = 0) -> Value:
        """Address in this CPU's entry 0 of a per-CPU array."""
        return self.ptradd(self.emit(Inst("percpu_value", MAP, [], symbol=name)), offset)

    def call(self, helper: str, args: Sequence[Value | int] = (), type_: str = I64) -> Inst:
        """Call a kernel helper by its name without `bpf_`."""
        return self.emit(Inst("call", type_, [_value(a) for a in args], symbol=helper))

    def callsub(self, function: Function, args: Sequence[Value]) -> Inst:
        """Call another function of the module."""
        return self.emit(Inst("callsub", function.result, list(args), symbol=function.name))

    def kfunc(self, name: str, args: Sequence[Value | int] = (), type_: str = I64) -> Inst:
        """Call a kernel function by BTF."""
        return self.emit(Inst("kfunc", type_, [_value(a) for a in args], symbol=name))

    def funcaddr(self, function: Function) -> Inst:
        """A function as a helper's argument."""
        return self.emit(Inst("funcaddr", FUNC_TYPE, [], symbol=function.name))

    def atomic(
        self, op: str, p: Value, v: Value, *, offset: int = 0, fetch: bool = False, expected: Value | None = None
    ) -> Inst:
        """Atomic `add or and xor xchg cmpxchg` on memory; the old value when `fetch` (always for xchg, cmpxchg)."""
        fetch = fetch or op in ("xchg", "cmpxchg")
        args = [p, v] if expected is None else [p, v, expected]
        return self.emit(Inst("atomic", v.type if fetch else NONE, args, symbol=op, offset=offset, fetch=fetch))

    def bound(self, v: Value, high: int, low: int = 0) -> Inst:
        """`v`, limited to low..high in a way that the verifier sees."""
        return self.emit(Inst("bound", v.type, [v], imm=high, low=low))

    def tailcall(self, ctx: Value, map_: Value, index: Value) -> None:
        """Continue with another program; falls through when the slot is empty."""
        self.emit(Inst("tailcall", NONE, [ctx, map_, index]))

    # terminators ----------------------------------------------------------------------------------------------

    def jump(self, block: Block, *args: Value) -> None:
        """Close the current block with a jump; ignored when it is closed already."""
        self._end(Terminator("jump", targets=[(block, list(args))]))

    def branch(
        self, condition: Value, yes: Block, no: Block, yes_args: Sequence[Value] = (), no_args: Sequence[Value] = ()
    ) -> None:
        """Close the current block: `yes` when the condition is not 0."""
        self._end(Terminator("branch", [condition], [(yes, list(yes_args)), (no, list(no_args))]))

    def ret(self, v: Value | int = 0) -> None:
        """Close the current block: leave the function."""
        self._end(Terminator("ret", [Const(v, self.function.result) if isinstance(v, int) else v]))

    def _end(self, end: Terminator) -> None:
        if not self.closed:
            end.span = self.span
            self.current.end = end


def _value(v: Value | int) -> Value:
    return Const(v) if isinstance(v, int) else v

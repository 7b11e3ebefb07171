"""Instruction selection for memory, addresses, maps and calls."""

from __future__ import annotations

from ..bpf import isa
from . import machine as m
from .ir import CTX, I1, I64, STACK, Const, Inst, bytes_of
from .lowering import MADE_IN_PLACE, fits, signed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from .ir import Value
    from .lowering import Lowering

_ATOMIC = {"add": isa.BPF_ADD, "or": isa.BPF_OR, "and": isa.BPF_AND, "xor": isa.BPF_XOR, "xchg": isa.BPF_XCHG,
           "cmpxchg": isa.BPF_CMPXCHG}  # fmt: skip


def _ptradd(l: Lowering, inst: Inst) -> None:
    base, offset = inst.args
    if isinstance(offset, Const) or inst in l.fields:
        return  # folded where it is used
    register = l.copy(base)
    if isinstance(offset, Inst) and offset.op == "core" and offset.core is not None:
        l.emit(m.alu(isa.BPF_ADD, register, imm=offset.core.value)).core = offset.core
    else:
        l.emit(m.alu(isa.BPF_ADD, register, l.register(offset)))
        l.keep_range(offset)
    l.set(inst, register)


def _core(l: Lowering, inst: Inst) -> None:
    assert inst.core is not None
    register = l.new()
    value = inst.core.value
    if inst.core.kind == "enumval_value" or not fits(value):  # enumerators have up to 64 bits on any target
        l.emit(m.Op("wide", isa.LDDW, register, imm=value & (1 << 64) - 1)).core = inst.core
    else:
        l.emit(m.mov_imm(register, value)).core = inst.core
    l.set(inst, register)


def _map_value(l: Lowering, inst: Inst) -> None:
    register = l.new()
    l.emit(m.Op("wide", isa.LDDW, register, imm=inst.imm, symbol=inst.symbol, kind="map_value"))
    l.set(inst, register)


def _ksym(l: Lowering, inst: Inst) -> None:
    register = l.new()
    l.emit(m.Op("wide", isa.LDDW, register, imm=0, symbol=inst.symbol, kind="ksym_btf"))
    l.set(inst, register)


def _percpu_value(l: Lowering, inst: Inst) -> None:
    register = l.lookup_percpu(inst.symbol)
    if inst.imm:
        moved = l.new()
        l.address_into(moved, register, inst.imm)
        register = moved
    l.set(inst, register)


def _load(l: Lowering, inst: Inst) -> None:
    place = inst.args[0]
    register = l.new()
    size = bytes_of(inst.type)
    if isinstance(place, Inst) and place in l.fields:
        access = place.args[1].core  # type: ignore[attr-defined]
        op = l.emit(m.load(size, register, l.register(place.args[0]), access.value))
        op.core = access
        bits = 64  # the member may be wider on the target, and then the load is
    else:
        base, offset = l.near(place, inst.offset)
        op = _load_pieces(l, register, base, offset, size)
        bits = 8 * size
    op.volatile = inst.volatile
    l.set(inst, register, bits)


def _load_pieces(l: Lowering, register: int, base: int, offset: int, size: int) -> m.Op:
    """Load `size` bytes; from where the stack is not aligned to them (a packed struct), in several pieces."""
    (first, width), *rest = _pieces(size, (offset if base == m.FP else 0, 8))
    op = l.emit(m.load(width, register, base, offset + first))
    for start, width in rest:
        part = l.new()
        l.emit(m.load(width, part, base, offset + start))
        l.emit(m.alu(isa.BPF_LSH, part, imm=8 * start))
        l.emit(m.alu(isa.BPF_OR, register, part))
    return op


def _store(l: Lowering, inst: Inst) -> None:
    p, value = inst.args
    size = bytes_of(value.type)
    if isinstance(value, Const):
        imm = signed(value.imm & 1 if value.type == I1 else value.imm, size * 8)
        base, offset = l.near(p, inst.offset)
        for start, width in _store_pieces(base, offset, size if fits(imm) else 4, size):
            l.emit(m.store(width, base, offset + start, imm=signed(imm >> 8 * start, 8 * min(width, 4))))
        return
    source = l.clean(value, sign=False) if value.type == I1 else l.register(value)
    base, offset = l.near(p, inst.offset)
    for start, width in _store_pieces(base, offset, size, size):
        part = source
        if start:
            part = l.new()
            l.emit(m.mov(part, source))
            l.emit(m.alu(isa.BPF_RSH, part, imm=8 * start))
        l.emit(m.store(width, base, offset + start, part))


def _store_pieces(base: int, offset: int, widest: int, size: int) -> list[tuple[int, int]]:
    """Cut a store of `size` bytes: where the stack is not aligned to it (a packed struct), or an immediate holds only `widest`."""
    return _pieces(size, (offset, widest) if base == m.FP else (0, widest))


def _memcpy(l: Lowering, inst: Inst) -> None:
    dst, src = inst.args
    to, to_offset = l.near(dst, inst.offset)
    base, offset = l.near(src, inst.src_offset)
    grids = (_grid(dst, to, to_offset, inst.align), _grid(src, base, offset, inst.align))
    for start, size in _pieces(inst.size, *grids):
        register = l.new()
        l.emit(m.load(size, register, base, offset + start))
        l.emit(m.store(size, to, to_offset + start, register))


def _memset(l: Lowering, inst: Inst) -> None:
    to, offset = l.near(inst.args[0], inst.offset)
    pattern = -1
    for start, size in _pieces(inst.size, _grid(inst.args[0], to, offset, inst.align)):
        imm = signed(int.from_bytes(bytes([inst.imm & 255]) * size, "little"), size * 8)
        if fits(imm):
            l.emit(m.store(size, to, offset + start, imm=imm))
            continue
        if pattern < 0:
            pattern = l.register(Const(imm))
        l.emit(m.store(size, to, offset + start, pattern))


def _grid(p: Value, base: int, offset: int, align: int) -> tuple[int, int]:
    """Return what accesses through a pointer must be aligned to: an offset from an 8-byte boundary, and the widest allowed.

    Only the stack and the context are strict. Where a pointer to the stack was computed, its alignment is what the
    instruction says.
    """
    if base == m.FP or p.type == CTX:
        return offset, 8
    return 0, max(align, 1) if p.type in (STACK, I64) else 8


def _pieces(size: int, *grids: tuple[int, int]) -> list[tuple[int, int]]:
    """Cut `size` bytes into the fewest accesses that fit the grids: (start, bytes)."""
    found = []
    start = 0
    while start < size:
        width = 8
        while width > size - start or any(width > limit or (offset + start) % width for offset, limit in grids):
            width //= 2
        found.append((start, width))
        start += width
    return found


def _arguments(l: Lowering, arguments: list[Value]) -> None:
    """Move arguments to r1 … r5: registers first, then what can be made in place."""
    late = [isinstance(a, Const) or (isinstance(a, Inst) and a.op in MADE_IN_PLACE) for a in arguments]
    for wanted in (False, True):
        for i, a in enumerate(arguments):
            if late[i] == wanted:
                l.into(m.R1 + i, a)


def _finish_call(l: Lowering, inst: Inst) -> None:
    if l.uses.get(inst):
        register = l.new()
        l.emit(m.mov(register, m.R0))
        l.set(inst, register)


def _call(l: Lowering, inst: Inst) -> None:
    _arguments(l, inst.args)
    l.call_helper(inst.symbol, len(inst.args))
    _finish_call(l, inst)


def _callsub(l: Lowering, inst: Inst) -> None:
    _arguments(l, inst.args)
    kind = "subprogram" if inst.op == "callsub" else "kfunc"
    l.emit(m.Op("call", isa.CALL, symbol=inst.symbol, kind=kind, reads=len(inst.args)))
    _finish_call(l, inst)


def _tailcall(l: Lowering, inst: Inst) -> None:
    _arguments(l, inst.args)
    l.call_helper("tail_call", 3)


def _atomic(l: Lowering, inst: Inst) -> None:
    p, value = inst.args[:2]
    base, offset = l.near(p, inst.offset)
    compared = inst.symbol == "cmpxchg"
    source = l.copy(value) if inst.fetch and not compared else l.register(value)
    size = bytes_of(value.type)
    imm = _ATOMIC[inst.symbol] | (isa.BPF_FETCH if inst.fetch else 0)
    if compared:
        l.into(m.R0, inst.args[2])
    opcode = isa.BPF_STX | isa.BPF_ATOMIC | isa.SIZE_OF_BYTES[size]
    l.emit(m.Op("atomic", opcode, base, source, offset, imm, kind="cmpxchg" if compared else ""))
    if compared:
        _finish_call(l, inst)
    elif inst.fetch:
        l.set(inst, source, 8 * size)


def _made_where_used(l: Lowering, inst: Inst) -> None:
    """Addresses of slots, maps and functions cost nothing until something uses them."""


SELECT: dict[str, Callable[[Lowering, Inst], None]] = {
    **dict.fromkeys(("alloca", "map", "funcaddr"), _made_where_used),
    "ptradd": _ptradd,
    "core": _core,
    "map_value": _map_value,
    "ksym": _ksym,
    "percpu_value": _percpu_value,
    "load": _load,
    "store": _store,
    "memcpy": _memcpy,
    "memset": _memset,
    "call": _call,
    "callsub": _callsub,
    "kfunc": _callsub,
    "tailcall": _tailcall,
    "atomic": _atomic,
}

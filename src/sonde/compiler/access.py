"""Steps of memory access that every front end needs, put together from what `Builder` offers.

Loads that the context's alignment forbids, bit-fields, constant bytes, arrays' steps, the arguments of USDT probes.
"""

from __future__ import annotations

from .ir import CTX, I64, INT_OF_BYTES, WIDTH, Const, bytes_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..debuginfo.usdt import UsdtArg
    from .builder import Builder
    from .ir import Value

COPY_LIMIT = 128  # bytes that are copied or cleared by instructions; beyond, a helper does it


def align_at(offset: int) -> int:
    """Return the alignment that an offset from an 8-byte boundary has, in bytes."""
    return min(offset & -offset, 8) if offset else 8


def scale(b: Builder, count: Value, step: int) -> Value:
    """Return `count * step`."""
    if step == 1:
        return count
    if isinstance(count, Const):
        return Const(count.imm * step)
    if step & (step - 1) == 0:
        return b.binary("shl", count, step.bit_length() - 1)
    return b.binary("mul", count, step)


def load_context(b: Builder, type_: str, pointer: Value, offset: int) -> Value:
    """Load through a pointer into the context, which must be aligned: what is not is put together from smaller loads."""
    size = bytes_of(type_)
    if offset % size == 0 or pointer.type != CTX:
        return b.load(type_, pointer, offset)
    result: Value = Const(0, type_)
    step = offset & -offset
    for at in range(0, size, step):
        part = b.load(INT_OF_BYTES[step], pointer, offset + at)
        wide = b.convert("zext", part, type_)
        result = b.binary("or", result, b.binary("shl", wide, 8 * at)) if at else wide
    return result


def extract_bits(b: Builder, whole: Value, bit_offset: int, bit_width: int, signed: bool) -> Value:
    """Return a bit-field of `whole`, extended to the width of `whole` by its sign or by zeros."""
    width = WIDTH[whole.type]
    left = width - bit_offset - bit_width
    value = b.binary("shl", whole, left) if left else whole
    shift = width - bit_width
    return b.binary("ashr" if signed else "lshr", value, shift) if shift else value


def insert_bits(b: Builder, whole: Value, value: Value, bit_offset: int, bit_width: int) -> Value:
    """Return `whole` with a bit-field replaced by the low bits of `value`, which has the same type."""
    mask = (1 << bit_width) - 1
    part: Value = Const(value.imm & mask, value.type) if isinstance(value, Const) else b.binary("and", value, mask)
    if bit_offset and isinstance(part, Const):
        part = Const(part.imm << bit_offset, part.type)
    elif bit_offset:
        part = b.binary("shl", part, bit_offset)
    every = (1 << WIDTH[whole.type]) - 1
    return b.binary("or", b.binary("and", whole, every & ~(mask << bit_offset)), part)


def store_bytes(b: Builder, pointer: Value, offset: int, data: bytes) -> None:
    """Store constant bytes, as wide as the alignment of `offset` allows; `pointer` is 8-byte aligned."""
    at = 0
    while at < len(data):
        step = 8
        while step > len(data) - at or (offset + at) % step:
            step //= 2
        word = int.from_bytes(data[at : at + step], "little")
        b.store(pointer, Const(word, INT_OF_BYTES[step]), offset + at)
        at += step


def usdt_argument(b: Builder, ctx: Value, arg: UsdtArg) -> Value:
    """Return the value of an argument of a USDT probe, extended to 64 bits as its declaration says; 0 where it cannot be had."""
    if arg.kind == "const":
        return Const(arg.value)
    if arg.kind == "none":
        return Const(0)
    type_ = INT_OF_BYTES[arg.size]
    if arg.kind == "reg":
        value = _register_part(b, ctx, arg.base, type_)
    else:
        address: Value = Const(arg.value)
        if arg.base >= 0:
            address = b.binary("add", b.load(I64, ctx, arg.base), arg.value)
        if arg.index >= 0:
            address = b.binary("add", scale(b, b.load(I64, ctx, arg.index), arg.scale), address)
        slot = b.alloca(8, 8, "arg")
        b.call("probe_read_user", [slot, arg.size, address])
        value = b.load(type_, slot)
    return b.convert("sext" if arg.signed else "zext", value, I64)


def _register_part(b: Builder, ctx: Value, offset: int, type_: str) -> Value:
    """Registers are read whole: the verifier allows no less for some programs. `ah` is the second byte of its register."""
    whole: Value = b.load(I64, ctx, offset & ~7)
    if offset & 7:
        whole = b.binary("lshr", whole, 8 * (offset & 7))
    return b.convert("trunc", whole, type_)
